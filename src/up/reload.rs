//! SIGHUP: the configuration file is read again, with the flags and variables of the start.
//!
//! Always: a file with any mistake changes nothing, and every mistake is told, as `quickfire check` tells it.

use clap::ArgMatches;
use router::reload::Difference;
use router::{Config, Router};

use crate::ending::Failure;
use crate::flags;

/// Reads the file and hands it to the router.
pub fn reload(matches: &ArgMatches, router: &Router) -> Result<Difference, Failure> {
    let wanted = flags::load_config(matches)?;
    check(&wanted)?;
    router.reconfigure(&wanted).map_err(Failure::usage)
}

/// Whether what it starts can be started here, as far as can be known before.
pub fn check(wanted: &Config) -> Result<(), Failure> {
    wanted.check_programs(&example_functions::NAMES).map_err(Failure::usage)?;
    flags::check_processors(wanted)
}

/// Says on standard error what became of it.
pub fn tell(outcome: Result<Difference, Failure>) {
    match outcome {
        Err(failure) => {
            // The exit code is for a program that ends; this one goes on.
            let _ = failure.tell();
            eprintln!("quickfire: the configuration was refused; the one before stays in force");
        }
        Ok(difference) => {
            for change in &difference.taken {
                eprintln!("quickfire: reload: {change}");
            }
            for change in &difference.needs_restart {
                eprintln!("quickfire: reload: {change} (needs a restart)");
            }
            let (taken, waiting) = (difference.taken.len(), difference.needs_restart.len());
            eprintln!("quickfire: reloaded: {taken} changes in force, {waiting} after a restart");
        }
    }
}
