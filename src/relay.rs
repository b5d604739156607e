//! `quickfire relay --runtime NAME -- PROGRAM ARGUMENTS`: a relay, as the process the shim starts for a function whose program
//! does not attach by itself. What the shim writes ([`words`]) and what the process reads ([`run`]) stand in one file.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use quickfire_client::serve::ServeFailed;
use relay::Plan;
use router::config::{FunctionConfig, Runtime};

use crate::ending::{Ending, Failure};

/// Not in the help: nobody starts a relay by hand.
pub fn command() -> Command {
    Command::new("relay")
        .hide(true)
        .about("Speaks another runtime's contract with a program; started by the shim")
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .required(true)
                .value_parser(PossibleValuesParser::new(Runtime::NAMES)),
        )
        .arg(Arg::new("command").action(ArgAction::Append).required(true).last(true))
}

/// What follows the name of our own program when a function's program is run by a relay; nothing for one that is run as it is.
pub fn words(function: &FunctionConfig) -> Option<Vec<String>> {
    let runtime = match function.runtime {
        Runtime::Native => return None,
        Runtime::Exec | Runtime::Stdio => function.runtime.name(),
    };
    let ours = ["relay", "--runtime", runtime, "--"].map(String::from);
    Some(ours.into_iter().chain(function.command.words()).collect())
}

/// Serves until the router says stop.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let function = std::env::var("QUICKFIRE_FUNCTION").unwrap_or_default();
    let code = match relay::run(&plan(matches, function)?) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeFailed::NotAFunctionProcess { .. }) => return Err(Failure::usage(error)),
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    };
    Ok(Ending::Process(code))
}

fn plan(matches: &ArgMatches, function: String) -> Result<Plan, Failure> {
    let name = matches.get_one::<String>("runtime").map(String::as_str).unwrap_or_default();
    let runtime = match Runtime::from_name(name) {
        Some(Runtime::Exec) => relay::Runtime::Exec,
        Some(Runtime::Stdio) => relay::Runtime::Stdio,
        Some(Runtime::Native) | None => {
            return Err(Failure::usage(format!("runtime {name:?} needs no relay")));
        }
    };
    let command = matches.get_many::<String>("command").unwrap_or_default().cloned().collect();
    Ok(Plan { function, command, runtime })
}

#[cfg(test)]
mod tests {
    use router::Config;

    use super::*;

    fn words_of(manifest: &str) -> Option<Vec<String>> {
        words(&Config::parse(manifest, "q.toml").unwrap().functions[0])
    }

    #[test]
    fn what_the_shim_writes_is_what_the_relay_reads() {
        let manifest = "[functions.f]\ncommand = [\"./x\", \"--runtime\", \"-- y\", \"\"]\nruntime = ";
        for (name, runtime) in [("exec", relay::Runtime::Exec), ("stdio", relay::Runtime::Stdio)] {
            let words = words_of(&format!("{manifest}{name:?}")).unwrap();
            let matches = command().get_matches_from(words.iter().map(String::as_str));
            let plan = plan(&matches, "f".into()).unwrap();
            let command = ["./x", "--runtime", "-- y", ""].map(String::from).to_vec();
            assert_eq!(plan, Plan { function: "f".into(), command, runtime });
        }
        assert_eq!(words_of(&format!("{manifest}\"native\"")), None);
    }

    #[test]
    fn what_a_runtime_sets_is_refused_in_the_environment_of_a_function() {
        let check = |runtime: Runtime, set: &[&'static str]| {
            let mut unreserved = set.to_vec();
            unreserved.retain(|name| !name.starts_with("QUICKFIRE_"));
            assert_eq!(unreserved, runtime.variables(), "{}", runtime.name());
        };
        check(Runtime::Exec, &relay::EXEC_VARIABLES);
        check(Runtime::Stdio, &[]);
    }
}
