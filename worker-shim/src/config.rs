//! What the shim keeps warm. Built from the router's configuration file by whoever starts the shim.

use std::path::PathBuf;
use std::time::Duration;

use crate::cgroup::Limits;
use crate::life::Patience;
use crate::logs::LogBounds;

/// The longest function name. The same as on the wire; also what keeps log file names short.
pub const NAME_SIZE_MAX: usize = 128;
/// More warm processes than this for one function and shard is taken for a slip of the pen.
pub const WARM_COUNT_MAX: u32 = 1024;
/// The last processor that has a place in an affinity mask.
pub const PROCESSOR_INDEX_MAX: u32 = rustix::thread::CpuSet::MAX_CPU as u32 - 1;
/// 256 shards: as many as an invocation id can name.
pub const SHARD_COUNT_MAX: u32 = 256;

/// Everything one shim process needs to know.
#[derive(Clone, Debug)]
pub struct ShimConfig {
    /// The run directory, `DIR`: already created, and ours.
    pub run_dir: PathBuf,
    /// The router's shards. Each function gets `warm` processes for each shard.
    pub shards: u32,
    /// What to keep warm.
    pub functions: Vec<FunctionConfig>,
    /// How long processes are kept warm while there is no router.
    pub reattach_timeout: Duration,
    /// Time between SIGTERM and SIGKILL when a process must end. [`ShimConfig::STOP_GRACE_DEFAULT`] if in doubt.
    pub stop_grace: Duration,
    /// A digest of what cannot change while the shim lives: a router with another one notices that it has the wrong shim.
    pub config_digest: u64,
}

/// One function.
#[derive(Clone, Debug, Default)]
pub struct FunctionConfig {
    /// Its name, as callers use it.
    pub name: String,
    /// Program and arguments. The program is a path, or a name looked up in PATH; relative paths start at the
    /// shim's working directory.
    pub command: Vec<String>,
    /// Processes to keep warm for each shard: the least, and how many it is until the router says more.
    pub warm: u32,
    /// The most that the router may ask for; fewer than `warm`: `warm`.
    pub warm_max: u32,
    /// Processors its processes run on; none: those of the shim.
    pub processors: Vec<u32>,
    /// Added to the short list of variables a function process inherits (see `process.rs`).
    pub env: Vec<(String, String)>,
    /// Whether its processes are copied from a template, which initialises once.
    pub snapshot: bool,
    /// How long a template may take to initialise.
    pub start_timeout: Duration,
    /// What the processes of one place may use together.
    pub limits: Limits,
    /// Whether they run without limits that this host cannot keep.
    pub is_best_effort: bool,
    /// Names what its processes and their rings are made from: with another number, others take their place.
    pub edition: u64,
    /// The longest after which a process that is not wanted any more can have a call left.
    pub leave_timeout: Duration,
    /// How much of what its processes print is kept.
    pub log: LogBounds,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefused {
    /// No shard, or more than an invocation id can name.
    #[error("the number of shards is {0}; it must be between 1 and {SHARD_COUNT_MAX}")]
    Shards(u32),
    /// The name cannot be part of a file name.
    #[error(
        "function name {0:?}: 1 to {NAME_SIZE_MAX} bytes, not starting with a dot, no slash, no control character"
    )]
    Name(String),
    /// Two functions of one name.
    #[error("function {0:?} is configured twice")]
    DuplicateName(String),
    /// Nothing to run.
    #[error("function {0:?} has no command")]
    NoCommand(String),
    /// Too many processes.
    #[error("function {name:?}: warm = {warm} is more than {WARM_COUNT_MAX}")]
    Warm {
        /// The function.
        name: String,
        /// What was asked for.
        warm: u32,
    },
    /// A processor that no affinity mask of ours can name.
    #[error("function {name:?}: processor {processor} is beyond {PROCESSOR_INDEX_MAX}")]
    Processor {
        /// The function.
        name: String,
        /// What was asked for.
        processor: u32,
    },
    /// A variable the kernel would not take, or one that is the shim's to set.
    #[error("function {name:?}: the variable {variable:?} cannot be set")]
    Environment {
        /// The function.
        name: String,
        /// The variable.
        variable: String,
    },
}

impl ShimConfig {
    /// Two seconds: longer than any sensible last write, shorter than an operator's patience.
    pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(2);
    /// Thirty seconds: time enough to replace a router by hand.
    pub const REATTACH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), ConfigRefused> {
        if !(1..=SHARD_COUNT_MAX).contains(&self.shards) {
            return Err(ConfigRefused::Shards(self.shards));
        }
        for (index, function) in self.functions.iter().enumerate() {
            function.check()?;
            if self.functions[..index].iter().any(|earlier| earlier.name == function.name) {
                return Err(ConfigRefused::DuplicateName(function.name.clone()));
            }
        }
        Ok(())
    }

    /// Where processes and the shim find a shard.
    pub(crate) fn attach_socket(&self, shard: u32) -> PathBuf {
        self.run_dir.join(format!("attach-{shard}.sock"))
    }

    /// How patient every place is.
    pub(crate) fn patience(&self) -> Patience {
        let stop_grace_ns = u64::try_from(self.stop_grace.as_nanos()).unwrap_or(u64::MAX);
        Patience { stop_grace_ns, ..Patience::default() }
    }
}

impl FunctionConfig {
    fn check(&self) -> Result<(), ConfigRefused> {
        let name = &self.name;
        let size_fits = (1..=NAME_SIZE_MAX).contains(&name.len());
        let is_plain = !name.starts_with('.') && !name.chars().any(|c| c == '/' || c.is_control());
        if !size_fits || !is_plain {
            return Err(ConfigRefused::Name(name.clone()));
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err(ConfigRefused::NoCommand(name.clone()));
        }
        let most = self.warm.max(self.warm_max);
        if most > WARM_COUNT_MAX {
            return Err(ConfigRefused::Warm { name: name.clone(), warm: most });
        }
        if let Some(&processor) = self.processors.iter().find(|index| **index > PROCESSOR_INDEX_MAX) {
            return Err(ConfigRefused::Processor { name: name.clone(), processor });
        }
        for (variable, value) in &self.env {
            let is_settable =
                !variable.is_empty() && !variable.contains(['=', '\0']) && !value.contains('\0');
            if !is_settable || crate::process::is_reserved(variable) {
                return Err(ConfigRefused::Environment { name: name.clone(), variable: variable.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ShimConfig)) -> Result<(), ConfigRefused> {
        let command = vec!["/bin/cat".into()];
        let echo = FunctionConfig { name: "echo".into(), command, warm: 1, ..FunctionConfig::default() };
        let mut config = ShimConfig {
            run_dir: "/nowhere".into(),
            shards: 1,
            functions: vec![echo],
            reattach_timeout: ShimConfig::REATTACH_TIMEOUT_DEFAULT,
            stop_grace: ShimConfig::STOP_GRACE_DEFAULT,
            config_digest: 0,
        };
        change(&mut config);
        config.check()
    }

    #[test]
    fn a_plain_configuration_is_accepted() {
        assert_eq!(check(|_| ()), Ok(()));
    }

    #[test]
    fn names_that_would_leave_the_log_directory_are_refused() {
        for name in ["", "..", ".hidden", "a/b", "a\nb", &"x".repeat(129)] {
            let outcome = check(|config| config.functions[0].name = name.into());
            assert_eq!(outcome, Err(ConfigRefused::Name(name.into())));
        }
    }

    #[test]
    fn slips_are_refused_and_named() {
        let twice = check(|config| config.functions.push(config.functions[0].clone()));
        assert_eq!(twice, Err(ConfigRefused::DuplicateName("echo".into())));
        let nothing = check(|config| config.functions[0].command.clear());
        assert_eq!(nothing, Err(ConfigRefused::NoCommand("echo".into())));
        let many = check(|config| config.functions[0].warm = 1025);
        assert_eq!(many, Err(ConfigRefused::Warm { name: "echo".into(), warm: 1025 }));
        let many = check(|config| config.functions[0].warm_max = 1026);
        assert_eq!(many, Err(ConfigRefused::Warm { name: "echo".into(), warm: 1026 }));
        let beyond = check(|config| config.functions[0].processors = vec![0, 1024]);
        assert_eq!(beyond, Err(ConfigRefused::Processor { name: "echo".into(), processor: 1024 }));
        assert_eq!(check(|config| config.shards = 0), Err(ConfigRefused::Shards(0)));
    }

    #[test]
    fn the_variables_that_tie_a_process_to_its_router_cannot_be_overridden() {
        for variable in ["QUICKFIRE_TOKEN", "QUICKFIRE_ATTACH", "", "A=B"] {
            let outcome = check(|config| config.functions[0].env.push((variable.to_owned(), "1".to_owned())));
            let refused = ConfigRefused::Environment { name: "echo".into(), variable: variable.into() };
            assert_eq!(outcome, Err(refused));
        }
    }
}
