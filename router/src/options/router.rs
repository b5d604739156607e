//! The lines of the option table below `[router]`.
#![forbid(unsafe_code)]

use std::time::Duration;

use protocol::limits::{CREDITS_MAX, FRAME_ROOM};

use super::{FUNCTIONS_MAX, GIB, KIB, MIB, OptionSpec, PAYLOAD_SIZE_MAX};
use crate::config::value::Kind;

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
