//! `quickfire shim`: the keeper of the function processes, as the process `quickfire up` starts.
//!
//! In: the configuration that its router has in force, from `DIR/shim.toml`: at the start, and whenever the router says that it
//! goes on with another one. The router writes it there, so that a file of the operator's that changed can't divide the two.

use std::path::Path;
use std::time::Duration;

use clap::{ArgMatches, Command};
use router::config::{Command as FunctionCommand, LogConfig};
use router::{Config, run_dir};
use worker_shim::logs::LogBounds;
use worker_shim::{FunctionConfig, ShimConfig, Stopped};

use crate::ending::{Ending, Failure};
use crate::{flags, relay, sandbox};

/// Not in the help: `quickfire up` starts it.
pub fn command() -> Command {
    Command::new("shim").hide(true).about("Keeps function processes warm; started by `quickfire up`")
}

/// Supervises until the router or a signal says stop, or the router is gone for good.
pub fn run(_matches: &ArgMatches) -> Result<Ending, Failure> {
    let path = run_dir::shim_config(&flags::run_dir(None));
    let config = read(&path)?;
    let read_again = move || match read(&path) {
        Ok(config) => Some(config),
        Err(failure) => {
            // The exit code is for a program that ends; this one goes on as it is.
            let _ = failure.tell();
            None
        }
    };
    match worker_shim::run(config, read_again).map_err(Failure::usage)? {
        Stopped::ByRouter | Stopped::BySignal | Stopped::RouterGone => Ok(Ending::Ok),
        Stopped::Refused(reason) => {
            Err(Failure::new(Ending::Refused, format!("the router refused this shim: {reason}")))
        }
    }
}

fn read(path: &Path) -> Result<ShimConfig, Failure> {
    let origin = path.to_string_lossy();
    let config = Config::parse(&flags::read_file(&origin)?, &origin).map_err(Failure::usage)?;
    shim_config(&config)
}

fn shim_config(config: &Config) -> Result<ShimConfig, Failure> {
    let functions = config.functions.iter().map(|function| {
        let command = match (&function.command, relay::words(function, &config.router.run_dir)) {
            (FunctionCommand::Builtin(name), _) => vec![own_program()?, "function".into(), name.clone()],
            (_, Some(words)) => std::iter::once(own_program()?).chain(words).collect(),
            (program, None) => program.words(),
        };
        let command = sandbox::around(function, &config.router.run_dir, command)?;
        let mut env: Vec<_> = function.env.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
        env.extend(sandbox::variables(function));
        Ok(FunctionConfig {
            name: function.name.clone(),
            command,
            warm: function.warm,
            warm_max: function.warm_max,
            processors: function.processors.clone(),
            snapshot: function.snapshot,
            start_timeout: function.start_timeout,
            env,
            limits: sandbox::limits(function),
            is_best_effort: function.limits.is_best_effort,
            edition: function.edition(),
            // A call may have come just before, to start as late as it may and to take as long as it may; a process that
            // takes longer is the router's to stop.
            leave_timeout: config.router.start_after_max + function.timeout + LEAVE_RESERVE,
            log: log_bounds(function.log),
        })
    });
    Ok(ShimConfig {
        run_dir: config.router.run_dir.clone(),
        shards: config.router.shards,
        functions: functions.collect::<Result<_, Failure>>()?,
        reattach_timeout: config.router.reattach_timeout,
        stop_grace: ShimConfig::STOP_GRACE_DEFAULT,
        config_digest: config.digest(),
    })
}

fn log_bounds(LogConfig { size_max, age_max, rate_max }: LogConfig) -> LogBounds {
    LogBounds { size_max, age_max, rate_max }
}

/// More than the router takes to stop a process that overran.
const LEAVE_RESERVE: Duration = Duration::from_secs(10);

pub fn own_program() -> Result<String, Failure> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::usage(format!("cannot find this program: {error}")))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shim_takes_for_the_usual_is_what_the_option_table_says() {
        let config = Config::parse("[functions.f]\ncommand = [\"builtin:echo\"]", "q.toml").unwrap();
        assert_eq!(log_bounds(config.functions[0].log), LogBounds::default());
        assert_eq!(config.router.reattach_timeout, ShimConfig::REATTACH_TIMEOUT_DEFAULT);
    }
}
