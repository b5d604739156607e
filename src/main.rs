//! The `quickfire` command: one binary that starts a router, calls functions, loads, looks and checks.
//!
//! In: arguments, environment, files.  Out: text, and an exit code with a meaning (`ending.rs`, docs/operating/command.md).
//! Always: one file for each subcommand with its arguments, its help and what it does; the router's flags follow from
//! the option table (`flags.rs`).
//! Never: decides anything about calls. That is the libraries' part, and everything here can be done with them.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Command};

use protocol::admin::Shelf;

use ending::{Ending, Failure};

mod apply;
mod check;
mod ending;
mod flags;
mod function;
mod functions;
mod inspect;
mod invoke;
mod kept;
mod live;
mod load;
mod logs;
mod print_config;
mod record;
mod relay;
mod rollback;
mod sandbox;
mod shim;
mod signals;
mod snapshots;
mod table;
mod top;
mod up;
mod why;

/// Every thread of a router allocates and frees for itself alone; this allocator is built for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Usage errors end here with code 2, --help and --version with 0.
    let matches = command().get_matches_from(with_up(std::env::args_os().collect()));
    match run(&matches) {
        Ok(ending) => ending.into(),
        Err(failure) => failure.tell(),
    }
}

/// `quickfire` alone is `quickfire up`, and so it is with flags.
fn with_up(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_flag_of_up = |first: &OsString| {
        first.as_encoded_bytes().starts_with(b"-")
            && !["-h", "--help", "-V", "--version"].iter().any(|own| first == own)
    };
    if arguments.get(1).is_none_or(is_flag_of_up) {
        let place = arguments.len().min(1);
        arguments.insert(place, "up".into());
    }
    arguments
}

fn command() -> Command {
    Command::new("quickfire")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An invocation router for one host: warm function processes behind shared-memory rings.")
        .long_about(
            "An invocation router for one host: warm function processes behind shared-memory rings.\n\n\
             Without a subcommand, `quickfire [OPTIONS]` is `quickfire up [OPTIONS]`: alone, it runs the bundled functions and says what to try next.",
        )
        .after_help(ending::EXIT_CODES_HELP)
        .disable_help_subcommand(true)
        .subcommands([
            up::command(),
            invoke::command(),
            load::command(),
            record::command(),
            functions::command(),
            logs::command(),
            top::command(),
            inspect::command(),
            why::command(),
            kept::command(Shelf::Quarantine),
            kept::command(Shelf::DeadLetters),
            apply::command(),
            rollback::command(),
            check::command(),
            print_config::command(),
            function::command(),
            relay::command(),
            sandbox::command(),
            shim::command(),
        ])
}

fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    match matches.subcommand() {
        Some(("up", matches)) => up::run(matches),
        Some(("invoke", matches)) => invoke::run(matches),
        Some(("load", matches)) => load::run(matches),
        Some(("record", matches)) => record::run(matches),
        Some(("functions", matches)) => functions::run(matches),
        Some(("logs", matches)) => logs::run(matches),
        Some(("top", matches)) => top::run(matches),
        Some(("inspect", matches)) => inspect::run(matches),
        Some(("why", matches)) => why::run(matches),
        Some(("quarantine", matches)) => kept::run(Shelf::Quarantine, matches),
        Some(("dead-letters", matches)) => kept::run(Shelf::DeadLetters, matches),
        Some(("apply", matches)) => apply::run(matches),
        Some(("rollback", matches)) => rollback::run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("print-config", matches)) => print_config::run(matches),
        Some(("function", matches)) => function::run(matches),
        Some(("relay", matches)) => relay::run(matches),
        Some(("sandbox", matches)) => sandbox::run(matches),
        Some(("shim", matches)) => shim::run(matches),
        Some((other, _)) => unreachable!("subcommand {other} is declared and not run"),
        None => unreachable!("without a subcommand it is `up`"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn without_a_subcommand_it_is_up() {
        let check = |given: &[&str], expected: &[&str]| {
            assert_eq!(super::with_up(given.iter().map(Into::into).collect()), expected, "{given:?}");
        };
        check(&["quickfire"], &["quickfire", "up"]);
        check(&["quickfire", "--shards", "2"], &["quickfire", "up", "--shards", "2"]);
        check(&["quickfire", "--help"], &["quickfire", "--help"]);
        check(&["quickfire", "invoke", "echo"], &["quickfire", "invoke", "echo"]);
    }

    #[test]
    fn the_declared_arguments_contradict_nothing() {
        super::command().debug_assert();
    }
}
