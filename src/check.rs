//! `quickfire check FILE`: every mistake of a configuration at once, and nothing started.

use clap::{Arg, ArgMatches, Command};
use router::Config;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;

/// Arguments and help.
pub fn command() -> Command {
    Command::new("check")
        .about("Checks a configuration file without starting anything: ok, or every mistake at once")
        .arg(Arg::new("file").value_name("FILE").required(true).help("The configuration file"))
        .after_help(format!("Example:\n  quickfire check quickfire.toml\n\n{EXIT_CODES_HELP}"))
}

/// Checks the file alone: what variables say here may not be said where the router will run.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let path = matches.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let config = Config::parse(&flags::read_file(path)?, path).map_err(Failure::usage)?;
    config.check_programs(&example_functions::NAMES).map_err(Failure::usage)?;
    flags::check_processors(&config)?;
    let names: Vec<_> = config.functions.iter().map(|function| function.name.as_str()).collect();
    print(format!("{path}: ok; functions: {}\n", names.join(", ")))?;
    Ok(Ending::Ok)
}
