//! The option table: the one place where an option's name, type, unit, default, range and meaning are written.
//!
//! From it come the keys of the file, the environment variables, the flags of `quickfire up`, `--help`,
//! `quickfire print-config` and `docs/operating/configuration.md` (a test holds that page to this table).
//! Always: every default is readable and inside its own range (tested).
//! Never: a second default elsewhere. Whoever adds an option adds a line here and a field in `config.rs`.
#![forbid(unsafe_code)]

use std::time::Duration;

use protocol::limits::{CREDITS_MAX, FRAME_ROOM};

use crate::config::runtime::Runtime;
use crate::config::value::Kind;

mod reference;

pub use reference::reference_page;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The key inside its table of the file: `shards` of `[router]`, `warm` of `[functions.NAME]` and of `[defaults]`.
    pub key: &'static str,
    /// The flag of `quickfire up`, without dashes. Options of functions have none: a flag could not say which function.
    pub flag: Option<&'static str>,
    /// The environment variable.
    pub env: Option<&'static str>,
    /// Type, unit and range.
    pub kind: Kind,
    /// The default as an operator would write it; `None` where a value must be given.
    pub default: Option<&'static str>,
    /// What it does, for help and reference.
    pub meaning: &'static str,
    /// The version that brought it.
    pub since: &'static str,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The largest payload that can be configured: two regions of this size for each slot are address space only,
/// but 64 MiB x 2 x 4096 slots is already half a TiB of it.
const PAYLOAD_SIZE_MAX: u64 = 64 * MIB;

/// A row of each shard's counters file is kept for each: 16,384 of them are 8 MiB of address space, and memory as they are used.
const FUNCTIONS_MAX: u64 = 16_384;

/// The options of the router, `[router]` in the file.
pub const ROUTER_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "listen",
        flag: Some("listen"),
        env: Some("QUICKFIRE_LISTEN"),
        kind: Kind::Listeners,
        default: Some("quickfire://127.0.0.1:7450, unix://DIR/router.sock"),
        meaning: "Where callers are listened for: quickfire://ADDRESS:PORT or unix:///PATH. DIR stands for the run \
                  directory, port 0 for any free port. Give the flag once for each.",
        since: "0.1",
    },
    OptionSpec {
        key: "shards",
        flag: Some("shards"),
        env: Some("QUICKFIRE_SHARDS"),
        // Eight bits of an invocation's id name its shard.
        kind: Kind::CountOrAuto { min: 1, max: 256 },
        default: Some("1"),
        meaning: "Router threads. Each owns its connections, queues and workers; a function keeps `warm` processes for each. \
                  Connections move from a loaded shard to an idle one. auto: one for each four processors that the router may \
                  use, by affinity mask and cgroup quota, but at least 1 and at most 16, and no more than `pin` names.",
        since: "0.1",
    },
    OptionSpec {
        key: "run_dir",
        flag: Some("run-dir"),
        env: Some("QUICKFIRE_DIR"),
        kind: Kind::Path,
        default: Some("$XDG_RUNTIME_DIR/quickfire, else /tmp/quickfire-UID"),
        meaning: "Sockets, locks, counters and logs live here. Created with mode 0700; refused if somebody else owns it.",
        since: "0.1",
    },
    OptionSpec {
        key: "frame_size_max",
        flag: Some("frame-size-max"),
        env: Some("QUICKFIRE_FRAME_SIZE_MAX"),
        kind: Kind::Size { min: 8 * KIB, max: PAYLOAD_SIZE_MAX + FRAME_ROOM as u64, multiple_of: 16 },
        default: Some("1028KiB"),
        meaning: "The largest frame accepted, header and padding included. A larger one is refused before its body is read. \
                  The default holds a payload of 1 MiB.",
        since: "0.1",
    },
    OptionSpec {
        key: "connection_credits",
        flag: Some("connection-credits"),
        env: Some("QUICKFIRE_CONNECTION_CREDITS"),
        kind: Kind::count(1, CREDITS_MAX as u64),
        default: Some("32768"),
        meaning: "Calls one connection may have outstanding; told to it in HELLO.",
        since: "0.1",
    },
    OptionSpec {
        key: "connections_max",
        flag: Some("connections-max"),
        env: Some("QUICKFIRE_CONNECTIONS_MAX"),
        kind: Kind::count(1, 1_000_000),
        // Ten thousand is the promise; the rest is room for those that are just closing.
        default: Some("10240"),
        meaning: "Connections of one shard. One more goes to a shard with room; if there is none, it is told so and closed.",
        since: "0.1",
    },
    OptionSpec {
        key: "shm_clients_max",
        flag: Some("shm-clients-max"),
        env: Some("QUICKFIRE_SHM_CLIENTS_MAX"),
        kind: Kind::count(0, 4096),
        default: Some("64"),
        meaning: "Clients of one shard that call through shared memory (shm:// addresses). One more is refused; 0 refuses all.",
        since: "0.1",
    },
    OptionSpec {
        key: "shm_memory_max",
        flag: Some("shm-memory-max"),
        env: Some("QUICKFIRE_SHM_MEMORY_MAX"),
        kind: Kind::size(MIB, 64 * GIB),
        // 1024 slots with two regions of 16 KiB are 32 MiB; 128 slots for payloads of 1 MiB are all of it.
        default: Some("256MiB"),
        meaning: "Bytes of shared memory one such client may fill. A client that asks for large payloads gets fewer slots.",
        since: "0.1",
    },
    OptionSpec {
        key: "direct_lanes",
        flag: Some("direct-lanes"),
        env: Some("QUICKFIRE_DIRECT_LANES"),
        kind: Kind::Switch,
        default: Some("false"),
        meaning: "Whether a client with shared memory may be leased a lane: a second ring, straight to a warm process, past \
                  the router, with room for as many bytes again. Its calls are not ordered among those of others.",
        since: "0.1",
    },
    OptionSpec {
        key: "output_size_max",
        flag: Some("output-size-max"),
        env: Some("QUICKFIRE_OUTPUT_SIZE_MAX"),
        kind: Kind::size(64 * KIB, GIB),
        default: Some("8MiB"),
        meaning: "Bytes of answers kept for one connection that reads too slowly. Beyond it the connection is told and closed.",
        since: "0.1",
    },
    OptionSpec {
        key: "invocations_max",
        flag: Some("invocations-max"),
        env: Some("QUICKFIRE_INVOCATIONS_MAX"),
        // Twenty-four bits of an invocation's id name its place in the table.
        kind: Kind::count(64, 1 << 24),
        default: Some("131072"),
        meaning: "Invocations one shard holds, queued and running. One more is refused as overloaded.",
        since: "0.1",
    },
    OptionSpec {
        key: "start_after_max",
        flag: Some("start-after-max"),
        env: Some("QUICKFIRE_START_AFTER_MAX"),
        kind: Kind::duration(Duration::ZERO, Duration::from_secs(24 * 3600)),
        // What is put off to a quieter hour. What waits longer belongs where it outlives a router.
        default: Some("1h"),
        meaning: "How far in the future a call may ask to start. Later is refused as start_too_late; 0s refuses all but calls for now. \
                  Such calls are lost with their router or their connection, as others are.",
        since: "0.1",
    },
    OptionSpec {
        key: "functions_max",
        flag: Some("functions-max"),
        env: Some("QUICKFIRE_FUNCTIONS_MAX"),
        kind: Kind::count(1, FUNCTIONS_MAX),
        // As many as one file may name.
        default: Some("4096"),
        meaning: "Functions that the router has room for until it ends. A removed one keeps its place, because clients may hold \
                  its number; a configuration that needs one place more is refused.",
        since: "0.1",
    },
    OptionSpec {
        key: "running_max",
        flag: Some("running-max"),
        env: Some("QUICKFIRE_RUNNING_MAX"),
        kind: Kind::count(0, 4096),
        default: Some("0"),
        meaning: "Function processes that may hold calls at once, over all shards; 0 for as many as there are. With a bound, calls \
                  wait and tenants take turns by their weights: about the number of processors where functions compute.",
        since: "0.1",
    },
    OptionSpec {
        key: "payload_memory_max",
        flag: Some("payload-memory-max"),
        env: Some("QUICKFIRE_PAYLOAD_MEMORY_MAX"),
        kind: Kind::size(MIB, 1024 * GIB),
        default: Some("256MiB"),
        meaning: "Bytes of payload one shard holds for invocations that wait. Beyond it calls are refused as overloaded.",
        since: "0.1",
    },
    OptionSpec {
        key: "kept_calls_max",
        flag: Some("kept-calls-max"),
        env: Some("QUICKFIRE_KEPT_CALLS_MAX"),
        kind: Kind::count(0, 65_536),
        default: Some("256"),
        meaning: "Calls one shard keeps in its quarantine (two processes died of them), and as many dead letters (they failed and \
                  had no attempt left). One more, and the oldest is forgotten.",
        since: "0.1",
    },
    OptionSpec {
        key: "kept_calls_size_max",
        flag: Some("kept-calls-size-max"),
        env: Some("QUICKFIRE_KEPT_CALLS_SIZE_MAX"),
        kind: Kind::size(0, 64 * GIB),
        default: Some("16MiB"),
        meaning: "Bytes of the calls in each of the two. More, and the oldest are forgotten.",
        since: "0.1",
    },
    OptionSpec {
        key: "idle",
        flag: Some("idle"),
        env: Some("QUICKFIRE_IDLE"),
        kind: Kind::Choice(&["adaptive", "spin", "park"]),
        default: Some("adaptive"),
        meaning: "What a shard does when it finds no work. adaptive looks for up to `spin`, less where that has lately not been \
                  worth it, and then sleeps; park sleeps at once: less processor time, more latency; spin does not sleep \
                  while a call is unanswered, nor for a second after the last work, and takes a whole core for that long.",
        since: "0.1",
    },
    OptionSpec {
        key: "spin",
        flag: Some("spin"),
        env: Some("QUICKFIRE_SPIN"),
        kind: Kind::duration(Duration::from_micros(1), Duration::from_millis(100)),
        // A little above the measured cost of waking another core, 30 us. A thread woken on a machine that is
        // otherwise idle takes 5 to 8 us, and that as a bound cost more latency than it saved: decision 0011.
        default: Some("50us"),
        meaning: "The longest a shard with idle = adaptive looks for work before it sleeps; about what waking it costs.",
        since: "0.1",
    },
    OptionSpec {
        key: "host",
        flag: Some("host"),
        env: Some("QUICKFIRE_HOST"),
        kind: Kind::Choice(&["bare", "glommio"]),
        default: Some("bare"),
        meaning: "What a shard's thread runs on: a plain loop, or a glommio executor that also runs async front-ends, \
                  and that needs io_uring whatever `io` says.",
        since: "0.1",
    },
    OptionSpec {
        key: "io",
        flag: Some("io"),
        env: Some("QUICKFIRE_IO"),
        kind: Kind::Choice(&["auto", "uring", "epoll"]),
        default: Some("auto"),
        meaning: "How a shard talks to the kernel. auto takes io_uring, or epoll where io_uring is refused, as in most \
                  containers, and says so at start; uring refuses to start there.",
        since: "0.1",
    },
    OptionSpec {
        key: "pin",
        flag: Some("pin"),
        env: Some("QUICKFIRE_PIN"),
        kind: Kind::Processors { is_auto_allowed: true },
        default: Some("none"),
        meaning: "Processors for the shards, like 2,4-6: shard n runs on the n-th of the list. none lets the kernel choose. \
                  auto gives each a core of its own, all in one node of memory, as far as there are; those in `processors` of a \
                  function come last.",
        since: "0.1",
    },
    OptionSpec {
        key: "hello_timeout",
        flag: Some("hello-timeout"),
        env: Some("QUICKFIRE_HELLO_TIMEOUT"),
        kind: Kind::duration(Duration::from_millis(10), Duration::from_secs(600)),
        default: Some("5s"),
        meaning: "How long a fresh connection may take to say HELLO.",
        since: "0.1",
    },
    OptionSpec {
        key: "drain_timeout",
        flag: Some("drain-timeout"),
        env: Some("QUICKFIRE_DRAIN_TIMEOUT"),
        kind: Kind::duration(Duration::ZERO, Duration::from_secs(3600)),
        default: Some("10s"),
        meaning: "How long a stopping router waits for the calls it has accepted.",
        since: "0.1",
    },
    OptionSpec {
        key: "reattach_timeout",
        flag: Some("reattach-timeout"),
        env: Some("QUICKFIRE_REATTACH_TIMEOUT"),
        kind: Kind::duration(Duration::ZERO, Duration::from_secs(3600)),
        default: Some("30s"),
        meaning: "How long warm processes that lost their router look for a new one before they exit.",
        since: "0.1",
    },
];

/// The options of a tenant, `[tenants.NAME]` in the file.
pub const TENANT_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "weight",
        flag: None,
        env: None,
        kind: Kind::count(1, 1000),
        default: Some("1"),
        meaning: "The tenant's share of worker time, in proportion to the weights of the others that want some, where `running_max` makes \
                  them compete for it.",
        since: "0.1",
    },
    OptionSpec {
        key: "rate",
        flag: None,
        env: None,
        kind: Kind::count(0, 10_000_000),
        default: Some("0"),
        meaning: "Calls a second over all functions of the tenant, on each shard; 0 for no bound. One more is refused as rate_limited and \
                  told when to come again.",
        since: "0.1",
    },
    OptionSpec {
        key: "rate_burst",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000),
        default: Some("100"),
        meaning: "Calls that may come at once where `rate` bounds them.",
        since: "0.1",
    },
    OptionSpec {
        key: "concurrency_max",
        flag: None,
        env: None,
        kind: Kind::count(0, 1_000_000),
        default: Some("0"),
        meaning: "Calls in the hands of processes at once, over all functions of the tenant and all shards; 0 for no bound. More wait.",
        since: "0.1",
    },
];

/// The options of a function, `[functions.NAME]` in the file; those with a default also in `[defaults]`.
pub const FUNCTION_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "command",
        flag: None,
        env: None,
        kind: Kind::Command,
        default: None,
        meaning: "What is started: a program and its arguments, or builtin:NAME for a function that comes with quickfire. \
                  A relative path counts from the directory of the configuration file.",
        since: "0.1",
    },
    OptionSpec {
        key: "runtime",
        flag: None,
        env: None,
        kind: Kind::Choice(Runtime::NAMES),
        default: Some("native"),
        meaning: "What the program speaks. native: it attaches to its ring, with our library. exec: it is started for each call, with the \
                  payload as its input and its output as the result. stdio: it reads and writes a line of JSON for each call. http: \
                  it is an HTTP/1.1 server. lambda: it asks the Runtime API of AWS Lambda for its calls. The contracts: docs/coding/runtimes.md.",
        since: "0.1",
    },
    OptionSpec {
        key: "start_timeout",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(10), Duration::from_secs(3600)),
        default: Some("10s"),
        meaning: "How long a program may take until it is ready, with runtime = http or lambda. Beyond it the program is killed and started again.",
        since: "0.1",
    },
    OptionSpec {
        key: "http_listen",
        flag: None,
        env: None,
        kind: Kind::Choice(&["port", "socket"]),
        default: Some("port"),
        meaning: "Where an HTTP server is told to listen: on a port of 127.0.0.1, in its variable PORT; or on a Unix socket in the run \
                  directory, in its variable SOCKET, which no other user of the host can reach.",
        since: "0.1",
    },
    OptionSpec {
        key: "http_path",
        flag: None,
        env: None,
        kind: Kind::UrlPath,
        default: Some("/"),
        meaning: "The path to which an HTTP server gets calls, by POST.",
        since: "0.1",
    },
    OptionSpec {
        key: "http_content_type",
        flag: None,
        env: None,
        kind: Kind::HeaderText,
        default: Some("application/octet-stream"),
        meaning: "The type of payloads, as an HTTP server is told it. Many frameworks want application/json here before they look at JSON.",
        since: "0.1",
    },
    OptionSpec {
        key: "http_ready_path",
        flag: None,
        env: None,
        kind: Kind::UrlPathOrNone,
        default: Some("none"),
        meaning: "A path that an HTTP server answers with a status of 2xx once it is ready. none: it is ready once it listens.",
        since: "0.1",
    },
    OptionSpec {
        key: "tenant",
        flag: None,
        env: None,
        kind: Kind::Name,
        default: Some("default"),
        meaning: "Whose function it is: a tenant with a table [tenants.NAME], or `default`, which needs none.",
        since: "0.1",
    },
    OptionSpec {
        key: "warm",
        flag: None,
        env: None,
        kind: Kind::count(0, 1024),
        default: Some("1"),
        meaning: "Processes kept warm for each shard. 0 starts none: calls wait until their time is over.",
        since: "0.1",
    },
    OptionSpec {
        key: "slots",
        flag: None,
        env: None,
        // Limits of the ring, docs/spec/shm.md.
        kind: Kind::Count { min: 1, max: 4096, is_power_of_two: true },
        // 100 us of work for a function of 100 ns. A slower one is never given as many; the slots it does not use
        // cost addresses only (docs/decisions/0005-run-ahead.md).
        default: Some("1024"),
        meaning: "The most calls one process may hold at once. How many it is given follows from how long they run.",
        since: "0.1",
    },
    OptionSpec {
        key: "timeout",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(1), Duration::from_secs(24 * 3600)),
        default: Some("30s"),
        meaning: "The longest a call may take. A call's own deadline can only be earlier; a process that runs a call past it is stopped.",
        since: "0.1",
    },
    OptionSpec {
        key: "queue_count_max",
        flag: None,
        env: None,
        kind: Kind::count(1, 1 << 24),
        default: Some("100000"),
        meaning: "Calls that may wait, for each shard, and as many again that are to start later. One more is refused as queue full.",
        since: "0.1",
    },
    OptionSpec {
        key: "payload_size_max",
        flag: None,
        env: None,
        kind: Kind::size(0, PAYLOAD_SIZE_MAX),
        default: Some("1MiB"),
        meaning: "The largest request and the largest result. Must leave 4 KiB of frame_size_max for the rest of the frame.",
        since: "0.1",
    },
    OptionSpec {
        key: "idempotent",
        flag: None,
        env: None,
        kind: Kind::Switch,
        default: Some("false"),
        meaning: "Running a call twice does no harm, so that the router may try it again on another process after a crash.",
        since: "0.1",
    },
    OptionSpec {
        key: "ageing",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(1), Duration::from_secs(24 * 3600)),
        // A third of the default time-out: what has waited that long still has time to run.
        default: Some("10s"),
        meaning: "How long a call waits before it gets one turn in eight whatever its criticality, so that urgent calls do not \
                  starve it. As long as `timeout`, or longer, ages none.",
        since: "0.1",
    },
    OptionSpec {
        key: "refuse_infeasible",
        flag: None,
        env: None,
        kind: Kind::Switch,
        default: Some("true"),
        meaning: "Whether a call is refused at once when the calls before it, by how long calls have lately run, would take longer \
                  than it has. Say false where one process runs several calls at a time.",
        since: "0.1",
    },
    OptionSpec {
        key: "rate",
        flag: None,
        env: None,
        kind: Kind::count(0, 10_000_000),
        default: Some("0"),
        meaning: "Calls a second, on each shard; 0 for no bound. With quota = reserved one more is refused as rate_limited and told when \
                  to come again; with quota = opportunistic it waits.",
        since: "0.1",
    },
    OptionSpec {
        key: "rate_burst",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000),
        default: Some("100"),
        meaning: "Calls that may come at once where `rate` bounds them.",
        since: "0.1",
    },
    OptionSpec {
        key: "quota",
        flag: None,
        env: None,
        kind: Kind::Choice(&["reserved", "opportunistic"]),
        default: Some("reserved"),
        meaning: "What `rate` bounds. reserved: calls that are admitted. opportunistic: calls that run, and only in time that is left: the \
                  rate shrinks to nothing while workers are busy.",
        since: "0.1",
    },
    OptionSpec {
        key: "caller_rate",
        flag: None,
        env: None,
        kind: Kind::count(0, 10_000_000),
        default: Some("0"),
        meaning: "Calls a second that one connection, or client's ring, may send before its further calls wait behind those of others; 0 for \
                  no bound. They wait so until they have aged (`ageing`), and leave a quarter of the queue to the others.",
        since: "0.1",
    },
    OptionSpec {
        key: "caller_burst",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000),
        default: Some("100"),
        meaning: "Calls that one connection may send at once where `caller_rate` bounds them.",
        since: "0.1",
    },
    OptionSpec {
        key: "concurrency_max",
        flag: None,
        env: None,
        kind: Kind::count(0, 1_000_000),
        default: Some("0"),
        meaning: "Calls in the hands of processes at once, over all shards; 0 for no bound. More wait.",
        since: "0.1",
    },
    OptionSpec {
        key: "nested_reserve",
        flag: None,
        env: None,
        kind: Kind::count(0, 1023),
        default: Some("0"),
        meaning: "Of `warm`, processes that only nested calls may use, so that calls which wait for others never hold the last one: a \
                  call at depth d leaves nested_reserve - d of them free. As many as the function is called deep rule circles of \
                  waiting out. Each process then holds one call at a time.",
        since: "0.1",
    },
    OptionSpec {
        key: "queue_delay_max",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(1), Duration::from_secs(24 * 3600)),
        default: Some("24h"),
        meaning: "How long a call may have to wait behind others, as fast as the queue has lately drained. A longer queue is full: calls are \
                  refused as queue_full and told when to come again. The default leaves it to `queue_count_max`.",
        since: "0.1",
    },
    OptionSpec {
        key: "slow_start",
        flag: None,
        env: None,
        kind: Kind::Switch,
        default: Some("false"),
        meaning: "Whether calls may grow no faster than what they call can follow: a window may have as many calls as the one before it \
                  and `slow_start_growth` percent more, or `slow_start_calls`. One more is refused as rate_limited.",
        since: "0.1",
    },
    OptionSpec {
        key: "slow_start_window",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_secs(1), Duration::from_secs(3600)),
        default: Some("1m"),
        meaning: "The length of such a window.",
        since: "0.1",
    },
    OptionSpec {
        key: "slow_start_calls",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000_000),
        default: Some("100"),
        meaning: "Calls that a window may always have.",
        since: "0.1",
    },
    OptionSpec {
        key: "slow_start_growth",
        flag: None,
        env: None,
        kind: Kind::count(1, 1000),
        default: Some("20"),
        meaning: "Percent by which a window may have more calls than the one before it.",
        since: "0.1",
    },
    OptionSpec {
        key: "backpressure",
        flag: None,
        env: None,
        kind: Kind::Switch,
        default: Some("true"),
        meaning: "Whether the function is called less often after it said that something which it calls is overloaded, until that \
                  has passed. Its calls then wait.",
        since: "0.1",
    },
    OptionSpec {
        key: "backpressure_window",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_secs(1), Duration::from_secs(3600)),
        // Within reach of the default time-out: who waits for a limit to grow sees it grow.
        default: Some("10s"),
        meaning: "How long refusals are summed, for each thing that the function calls; and how often its limit is lowered at most, \
                  or grows.",
        since: "0.1",
    },
    OptionSpec {
        key: "backpressure_threshold",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000_000),
        default: Some("10"),
        meaning: "Refusals in such a window from which on the function is called less often.",
        since: "0.1",
    },
    OptionSpec {
        key: "backpressure_decrease",
        flag: None,
        env: None,
        kind: Kind::count(1, 99),
        default: Some("50"),
        meaning: "Percent by which it is then called less often than it was, but never less than once a second.",
        since: "0.1",
    },
    OptionSpec {
        key: "backpressure_increase",
        flag: None,
        env: None,
        kind: Kind::count(1, 100),
        default: Some("10"),
        meaning: "Percent of how often it was called before, which each window with fewer refusals than that gives back.",
        since: "0.1",
    },
    OptionSpec {
        key: "breaker_failure_percent",
        flag: None,
        env: None,
        kind: Kind::count(0, 100),
        default: Some("0"),
        meaning: "Opens the function's circuit breaker when so many of a hundred calls in breaker_window failed (error, time-out, \
                  death of the process); its calls are then refused as breaker_open. 0: no breaker.",
        since: "0.1",
    },
    OptionSpec {
        key: "breaker_calls_min",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000),
        default: Some("20"),
        meaning: "Calls in breaker_window without which the breaker does not judge.",
        since: "0.1",
    },
    OptionSpec {
        key: "breaker_window",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(100), Duration::from_secs(3600)),
        default: Some("10s"),
        meaning: "How far back the breaker looks.",
        since: "0.1",
    },
    OptionSpec {
        key: "breaker_open",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(10), Duration::from_secs(3600)),
        default: Some("5s"),
        meaning: "How long an open breaker refuses before it lets calls through to find out whether the function has recovered.",
        since: "0.1",
    },
    OptionSpec {
        key: "breaker_probes",
        flag: None,
        env: None,
        kind: Kind::count(1, 1000),
        default: Some("3"),
        meaning: "How many such calls. All of them must go well for the breaker to close; one that fails opens it again.",
        since: "0.1",
    },
    OptionSpec {
        key: "fallback",
        flag: None,
        env: None,
        kind: Kind::Fallback,
        default: Some("none"),
        meaning: "What callers get instead of breaker_open: function:NAME has the same payload done by another function (whose own \
                  fallback is not used then), answer:TEXT is answered as it stands.",
        since: "0.1",
    },
    OptionSpec {
        key: "retries",
        flag: None,
        env: None,
        kind: Kind::count(0, 7),
        default: Some("1"),
        meaning: "Attempts after the first. Tried again is a call whose process died, if it provably never began or if it is \
                  idempotent.",
        since: "0.1",
    },
    OptionSpec {
        key: "retry_errors",
        flag: None,
        env: None,
        kind: Kind::Switch,
        default: Some("false"),
        meaning: "Whether an idempotent call is also tried again when the function returned an error.",
        since: "0.1",
    },
    OptionSpec {
        key: "retry_budget_percent",
        flag: None,
        env: None,
        kind: Kind::count(0, 100),
        default: Some("10"),
        meaning: "The most retries among a hundred calls, and ten at once beside. Calls that never began are not counted.",
        since: "0.1",
    },
    OptionSpec {
        key: "retry_backoff",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::ZERO, Duration::from_secs(3600)),
        default: Some("0s"),
        meaning: "The longest wait before the first retry; it doubles with each. The wait is a random part of that. 0s: at once.",
        since: "0.1",
    },
    OptionSpec {
        key: "retry_backoff_max",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::from_millis(1), Duration::from_secs(3600)),
        default: Some("10s"),
        meaning: "The longest wait before any retry.",
        since: "0.1",
    },
    OptionSpec {
        key: "hedge",
        flag: None,
        env: None,
        kind: Kind::Switch,
        default: Some("false"),
        meaning: "Whether a call that takes unusually long is given to a second, idle process; the first answer wins. Needs idempotent.",
        since: "0.1",
    },
    OptionSpec {
        key: "hedge_percentile",
        flag: None,
        env: None,
        kind: Kind::count(50, 99),
        default: Some("95"),
        meaning: "What is unusually long: longer than so many percent of the calls of late took in their process.",
        since: "0.1",
    },
    OptionSpec {
        key: "hedge_after",
        flag: None,
        env: None,
        kind: Kind::duration(Duration::ZERO, Duration::from_secs(3600)),
        default: Some("0s"),
        meaning: "The same as a fixed time. 0s: measured, by hedge_percentile.",
        since: "0.1",
    },
    OptionSpec {
        key: "hedge_budget_percent",
        flag: None,
        env: None,
        kind: Kind::count(1, 100),
        default: Some("5"),
        meaning: "The most second attempts among a hundred calls, and ten at once beside.",
        since: "0.1",
    },
    OptionSpec {
        key: "processors",
        flag: None,
        env: None,
        kind: Kind::Processors { is_auto_allowed: false },
        default: Some("none"),
        meaning: "Processors the function's processes run on, like 2-3; any of them runs on any of the list. none: all that the \
                  router may use.",
        since: "0.1",
    },
    OptionSpec {
        key: "env",
        flag: None,
        env: None,
        kind: Kind::Environment,
        default: Some("{}"),
        meaning: "Added to the environment of the processes. Names that start with QUICKFIRE_ are reserved.",
        since: "0.1",
    },
];
