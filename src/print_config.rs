//! `quickfire print-config`: what `quickfire up` would run with, each value with where it came from.

use clap::{ArgMatches, Command};

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;

/// Arguments and help.
pub fn command() -> Command {
    let command = Command::new("print-config")
        .about("Prints the effective configuration as a file, each value with where it came from")
        .after_help(format!(
            "Takes the same options as `quickfire up`.\n\n\
             Examples:\n  \
             quickfire print-config --config quickfire.toml\n  \
             QUICKFIRE_SHARDS=2 quickfire print-config > effective.toml\n\n{EXIT_CODES_HELP}"
        ));
    flags::with_router_flags(command)
}

/// Prints it.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    print(flags::load_config(matches)?.to_toml())?;
    Ok(Ending::Ok)
}
