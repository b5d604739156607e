//! `quickfire function NAME`: a bundled function, as the process the shim starts for `builtin:NAME`.

use clap::{Arg, ArgMatches, Command};

use crate::ending::{Ending, Failure};

/// Not in the help: nobody starts a function by hand.
pub fn command() -> Command {
    Command::new("function")
        .hide(true)
        .about("Runs a bundled function; started by the shim")
        .arg(Arg::new("name").value_name("NAME").required(true))
}

/// Serves until the router says stop.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    Ok(Ending::Process(example_functions::run(name)))
}
