//! `quickfire apply FILE`: a running router goes on with another configuration, or says what that would change.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use protocol::admin::Message;
use router::admin;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;

/// Arguments and help.
pub fn command() -> Command {
    Command::new("apply")
        .about("Makes a running router go on with another configuration, without losing a call")
        .arg(Arg::new("file").value_name("FILE").required(true).help("The configuration file"))
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Only say what would change"),
        )
        .arg(flags::run_dir_flag())
        .after_help(format!(
            "Refused whole if any part is wrong. What needs a restart is named, and stays as it is until then. The flags \
             and variables of `quickfire up` still win over the file. SIGHUP reads the file of `quickfire up` again.\n\n\
             Examples:\n  quickfire apply quickfire.toml --dry-run\n  quickfire apply quickfire.toml\n\n{EXIT_CODES_HELP}"
        ))
}

/// Hands the file over and shows the difference.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let path = matches.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let text = flags::read_file(path)?;
    let origin = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let is_dry_run = matches.get_flag("dry-run");
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    let question = Message::Apply { origin: origin.to_string_lossy().into_owned(), text, is_dry_run };
    match ask(&run_dir, &question)? {
        Message::Applied { taken, needs_restart } => {
            print(difference(&taken, &needs_restart, is_dry_run))?;
            Ok(Ending::Ok)
        }
        Message::Refused { reasons } => {
            Err(Failure::usage(format!("{reasons}\nrefused; the configuration in force stays as it is")))
        }
        other => Err(unexpected(&other)),
    }
}

/// Asks the router of a run directory.
pub fn ask(run_dir: &Path, question: &Message) -> Result<Message, Failure> {
    admin::ask(run_dir, question).map_err(|failed| Failure::new(Ending::Unreachable, failed))
}

/// An answer that does not belong to the question.
pub fn unexpected(answer: &Message) -> Failure {
    match answer {
        Message::Stopping => Failure::new(Ending::Refused, "the router is stopping"),
        Message::Refused { reasons } => Failure::new(Ending::Refused, reasons),
        _ => Failure::new(Ending::Unreachable, "the router answered another question"),
    }
}

fn difference(taken: &str, needs_restart: &str, is_dry_run: bool) -> String {
    if taken.is_empty() && needs_restart.is_empty() {
        return "nothing changes\n".into();
    }
    let mut out = String::new();
    let heads = [
        (taken, if is_dry_run { "would be in force at once:" } else { "in force:" }),
        (needs_restart, "needs a restart:"),
    ];
    for (lines, head) in heads.into_iter().filter(|(lines, _)| !lines.is_empty()) {
        out.push_str(&format!("{head}\n"));
        lines.lines().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    out
}
