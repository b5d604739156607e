//! Configuration: what the operator wrote becomes one checked value, [`Config`], before anything starts.
//!
//! In: the text of a file, the environment, flags (see [`Sources`]).  Out: [`Config`], or every problem at once.
//! Always: a `Config` holds only values inside the ranges of the option table (`options.rs`), so that
//! nobody behind this line checks them again.
//! Never: reads a file, a clock or the environment by itself, and never panics on any text (fuzz target
//! `config_parse`); whether a function's program exists is asked separately, by [`Config::check_programs`]. What `auto`
//! stands for is asked of the machine and chosen on the way (`auto.rs`): behind this line there are only numbers.
//! Why walk the parsed file by hand instead of deriving: every error then names key, line and allowed
//! values, and all of them are told at once.  Tests: `config/tests.rs`, reference: `docs/operating/configuration.md`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use engine::{BackpressureSpec, BreakerSpec, HedgeSpec, Quota, RetrySpec, TenantIndex};

use crate::idle::IdleStrategy;
use crate::processors::Machine;

mod auto;
mod check;
pub(crate) mod containment;
mod digest;
pub mod fallback;
mod file;
pub mod listen;
pub mod problem;
pub mod runtime;
pub mod section;
mod settings;
pub mod sources;
#[cfg(test)]
mod tests;
pub mod units;
pub mod value;

pub use containment::{ContainmentConfig, LimitsConfig};
pub use fallback::Fallback;
pub use listen::Listen;
pub use problem::{ConfigError, Place, Problem, ProblemKind};
pub use runtime::{HealthConfig, HttpConfig, HttpListen, Runtime};
pub use section::Section;
pub use settings::Setting;
pub use sources::{FileText, Sources};

/// Everything a router needs to know to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The router's own options.
    pub router: RouterConfig,
    /// Tenants: the default one, then the others in the order of their names. Never empty.
    pub tenants: Vec<TenantConfig>,
    /// Functions, as read in the order of their names. Their ids are kept elsewhere (`names.rs`): a function that comes
    /// while the router runs stands behind those that it knows.
    pub functions: Vec<FunctionConfig>,
    /// Every effective value with where it came from, for `print-config`. The fields above decide.
    pub settings: Vec<Setting>,
}

/// The options under `[router]`; their meaning is written once, in `options.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig {
    /// Where callers are listened for. `DIR` is already replaced by the run directory.
    pub listen: Vec<Listen>,
    /// Threads that each own a ring, queues, connections and workers.
    pub shards: u32,
    /// Sockets, locks, counters and logs live here.
    pub run_dir: PathBuf,
    /// The largest frame accepted, header and padding included.
    pub frame_size_max: u32,
    /// Calls one connection may have outstanding.
    pub connection_credits: u32,
    /// Connections of one shard.
    pub connections_max: u32,
    /// Clients of one shard that call through shared memory.
    pub shm_clients_max: u32,
    /// Bytes of shared memory one such client may fill.
    pub shm_memory_max: u64,
    /// Clients with a ring may be leased a lane straight to a worker.
    pub direct_lanes: bool,
    /// Bytes of answers kept for one connection that does not read.
    pub output_size_max: u32,
    /// Invocations one shard holds, queued and running.
    pub invocations_max: u32,
    /// How far in the future a call may ask to start.
    pub start_after_max: Duration,
    /// Functions, those included that were removed.
    pub functions_max: u32,
    /// Function processes that may hold calls at once, over all shards; 0 for as many as there are.
    pub running_max: u32,
    /// Bytes of payload one shard holds for queued invocations.
    pub payload_memory_max: u64,
    /// Calls one shard keeps in its quarantine, and as many dead letters.
    pub kept_calls_max: u32,
    /// Bytes of the calls in each of the two.
    pub kept_calls_size_max: u64,
    /// What a shard does without work.
    pub idle: IdleStrategy,
    /// The longest an adaptive shard looks for work before it sleeps.
    pub spin: Duration,
    /// What a shard's thread runs on.
    pub host: Host,
    /// How a shard talks to the kernel.
    pub io: IoChoice,
    /// Shard `n` runs on the n-th processor of the list; empty: the kernel chooses. At least one for each shard otherwise.
    pub pin: Vec<u32>,
    /// How long a fresh connection may take to say HELLO.
    pub hello_timeout: Duration,
    /// How long a stopping router waits for running calls.
    pub drain_timeout: Duration,
    /// How long workers without a router look for a new one.
    pub reattach_timeout: Duration,
}

/// What a shard's thread runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// A plain thread that calls `turn()`.
    Bare,
    /// A glommio executor that calls `turn()` and runs async front-ends beside it.
    Glommio,
}

/// How a shard talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoChoice {
    /// By io_uring, or by epoll where io_uring is refused.
    Auto,
    /// By io_uring, or not at all.
    Uring,
    /// By epoll.
    Epoll,
}

/// The options under `[tenants.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantConfig {
    /// The name functions belong to.
    pub name: String,
    /// Its share of worker time, in proportion to the weights of others.
    pub weight: u32,
    /// Calls a second on each shard; 0 for no bound.
    pub rate: u32,
    /// Calls that may come at once where `rate` bounds them.
    pub rate_burst: u32,
    /// Calls in the hands of processes at once; 0 for no bound.
    pub concurrency_max: u32,
}

/// The options under `[functions.NAME]`, or where that does not say, under `[defaults]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionConfig {
    /// The name callers resolve.
    pub name: String,
    /// What is started.
    pub command: Command,
    /// What the program speaks.
    pub runtime: Runtime,
    /// How long it may take to become ready, where its runtime knows when it is.
    pub start_timeout: Duration,
    /// Whether its processes are copied from one that is initialised.
    pub snapshot: bool,
    /// How it is talked to, where that is by HTTP.
    pub http: HttpConfig,
    /// The sandbox it runs in; none: none.
    pub containment: Option<ContainmentConfig>,
    /// What an instance may use.
    pub limits: LimitsConfig,
    /// The tenant whose it is.
    pub tenant: String,
    /// Processes kept warm for each shard: the least.
    pub warm: u32,
    /// The most, if more are started when calls wait; 0: as many as `warm`, always.
    pub warm_max: u32,
    /// How long a process beyond `warm` may have nothing to do.
    pub idle_timeout: Duration,
    /// Whether the last process is kept, and one is started ahead, as the calls so far suggest.
    pub is_predictive: bool,
    /// Calls one process may hold at once; a power of two.
    pub slots: u32,
    /// The longest a call may take when its caller gave no deadline, and the longest a process may run it.
    pub timeout: Duration,
    /// Calls that may wait.
    pub queue_count_max: u32,
    /// The largest request payload and the largest result.
    pub payload_size_max: u32,
    /// Running a call twice does no harm, so that the router may try again.
    pub idempotent: bool,
    /// How long a call waits before its age gives it a turn.
    pub ageing: Duration,
    /// Whether a call that cannot end in time behind those that wait is refused.
    pub refuse_infeasible: bool,
    /// Calls a second on each shard; 0 for no bound.
    pub rate: u32,
    /// Calls that may come at once where `rate` bounds them.
    pub rate_burst: u32,
    /// What `rate` bounds.
    pub quota: Quota,
    /// Calls a second of one caller before further ones wait behind those of others; 0 for no bound.
    pub caller_rate: u32,
    /// Calls that one caller may send at once where `caller_rate` bounds them.
    pub caller_burst: u32,
    /// Calls in the hands of processes at once; 0 for no bound.
    pub concurrency_max: u32,
    /// Processes of each shard that only nested calls may use.
    pub nested_reserve: u32,
    /// How long a call may have to wait behind others.
    pub queue_delay_max: Duration,
    /// How fast calls may grow.
    pub slow_start: Option<SlowStartConfig>,
    /// Which attempts are made again.
    pub retry: RetrySpec,
    /// When a second process is given a call that takes long; none: never.
    pub hedge: Option<HedgeSpec>,
    /// How the function follows what lies downstream of it; none: not at all.
    pub backpressure: Option<BackpressureSpec>,
    /// When the function is left alone; none: never.
    pub breaker: Option<BreakerSpec>,
    /// What is given while it is.
    pub fallback: Fallback,
    /// Which function gets a share of its calls; none: none does.
    pub canary: Option<CanaryConfig>,
    /// Processors its processes run on; empty: all that the router may use.
    pub processors: Vec<u32>,
    /// How much of what its processes print is kept.
    pub log: LogConfig,
    /// Added to the environment of the processes.
    pub env: BTreeMap<String, String>,
}

/// Which function gets a share of another one's calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryConfig {
    /// Its name.
    pub function: String,
    /// Of a hundred calls.
    pub percent: u8,
}

/// How much of what the processes of a function print is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Bytes of each process.
    pub size_max: u64,
    /// The oldest line.
    pub age_max: Duration,
    /// Bytes a second of each stream of each process.
    pub rate_max: u64,
}

/// How fast the calls of a function may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStartConfig {
    /// The length of a window.
    pub window: Duration,
    /// Calls that a window may always have.
    pub calls: u32,
    /// Percent by which a window may have more than the one before it.
    pub growth: u32,
}

/// What is started for a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `builtin:NAME`: a function that comes with the `quickfire` binary, run as `quickfire function NAME`.
    Builtin(String),
    /// A program and its arguments.
    Program {
        /// A path with a slash, taken from the directory of the configuration file if it was relative,
        /// or a name looked up in `PATH`.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

impl FunctionConfig {
    /// The most processes it may have for each shard.
    pub fn warm_count_max(&self) -> u32 {
        self.warm.max(self.warm_max)
    }

    /// Whether how many it has follows its calls.
    pub fn is_elastic(&self) -> bool {
        self.warm_max > self.warm
    }
}

impl Config {
    /// Reads the text of a configuration file, without environment or flags. `origin` (usually the file's path)
    /// stands in front of every problem, and relative programs count from its directory.
    ///
    /// A file that names no function runs the bundled ones, so that a file with one option of the router is enough.
    pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
        let file = Some(FileText { text, origin });
        Config::load(&Sources {
            file,
            env: &|_| None,
            flags: &|_| Vec::new(),
            machine: &Machine::of_this_process,
        })
    }

    /// The functions that come with the binary, with every option at its default: what `quickfire up` runs without a file.
    pub fn bundled() -> Config {
        Config::parse("", "")
            .unwrap_or_else(|error| unreachable!("the defaults of the option table are wrong: {error}"))
    }

    /// Reads every source, the later over the earlier: default, file, environment, flag.
    pub fn load(sources: &Sources<'_>) -> Result<Config, ConfigError> {
        let mut collected = settings::collect(sources);
        let mut problems = std::mem::take(&mut collected.problems);
        if problems.is_empty()
            && let Some(config) = Config::assemble(collected, sources, &mut problems)
        {
            check::check_together(&config, &mut problems);
            check::check_functions_max(&config, &mut problems);
            if problems.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigError { problems })
    }

    /// Where a tenant stands in `tenants`; the default one for a name that is not there, which no checked configuration holds.
    pub fn tenant_index(&self, name: &str) -> TenantIndex {
        let position = self.tenants.iter().position(|tenant| tenant.name == name);
        TenantIndex(position.and_then(|position| u16::try_from(position).ok()).unwrap_or_default())
    }

    /// The effective configuration as a file that reads back the same, each value with where it came from.
    pub fn to_toml(&self) -> String {
        settings::to_toml(&self.settings)
    }

    /// The same for another process of this program: without what functions leave at its default, which for thousands of them
    /// would be more than a configuration file may hold.
    pub fn to_short_toml(&self) -> String {
        settings::to_toml(self.settings.iter().filter(|setting| !setting.goes_without_saying()))
    }
}

/// The name among `names` that a mistyped one was probably meant to be.
fn nearest<'name>(mistyped: &str, names: impl Iterator<Item = &'name str>) -> Option<String> {
    /// Jaro-Winkler: above it lie swapped, missing and wrong letters, below it other words.
    const SIMILARITY_MIN: f64 = 0.75;
    names
        .map(|name| (strsim::jaro_winkler(mistyped, name), name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}
