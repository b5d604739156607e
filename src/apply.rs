//! `quickfire apply FILE`: a running router goes on with another configuration, or says what that would change.
//!
//! In: the file; the router's answer; then its counters, for what goes on with processes.  Out: the difference, and what is
//! still to come; with `--wait` until nothing is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use protocol::admin::Message;
use router::admin;
use router::config::units;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;
use crate::functions::{summed, transition};
use crate::snapshots::Snapshots;

/// How often the counters are looked at while something is awaited; they change about as often.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// Arguments and help.
pub fn command() -> Command {
    Command::new("apply")
        .about("Makes a running router go on with another configuration, without losing a call")
        .arg(Arg::new("file").value_name("FILE").required(true).help("The configuration file"))
        .args(change_flags())
        .after_help(format!(
            "Refused whole if any part is wrong. What needs a restart is named, and stays as it is until then. A function \
             that gets another program is served by the processes that it has until the first new one is ready. The flags \
             and variables of `quickfire up` still win over the file. SIGHUP reads the file of `quickfire up` again.\n\n\
             Examples:\n  quickfire apply quickfire.toml --dry-run\n  quickfire apply quickfire.toml\n  \
             quickfire apply quickfire.toml --wait 30s\n\n{EXIT_CODES_HELP}"
        ))
}

/// The flags of commands that change what is configured, for [`change`].
pub fn change_flags() -> [Arg; 3] {
    let dry_run =
        Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Only say what would change");
    let wait = Arg::new("wait")
        .long("wait")
        .value_name("DURATION")
        .conflicts_with("dry-run")
        .value_parser(|text: &str| units::parse_duration(text).map_err(|reason| reason.to_string()))
        .help("Wait until all processes are as they are to be; 1 if they are not in this time");
    [dry_run, wait, flags::run_dir_flag()]
}

/// Hands the file over and shows the difference.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let path = matches.get_one::<String>("file").map(String::as_str).unwrap_or_default();
    let text = flags::read_file(path)?;
    let origin = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let is_dry_run = matches.get_flag("dry-run");
    change(matches, &Message::Apply { origin: origin.to_string_lossy().into_owned(), text, is_dry_run })
}

/// Asks for another configuration and shows the difference.
pub fn change(matches: &ArgMatches, question: &Message) -> Result<Ending, Failure> {
    let is_dry_run = matches.get_flag("dry-run");
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    match ask(&run_dir, question)? {
        Message::Applied { taken, needs_restart } => {
            print(difference(&taken, &needs_restart, is_dry_run))?;
            if is_dry_run {
                return Ok(Ending::Ok);
            }
            follow(&run_dir, matches.get_one::<Duration>("wait").copied())
        }
        Message::Refused { reasons } => {
            Err(Failure::usage(format!("{reasons}\nrefused; the configuration in force stays as it is")))
        }
        other => Err(unexpected(&other)),
    }
}

/// Says what goes on with processes, and waits for its end as long as that is wanted.
fn follow(run_dir: &Path, wait: Option<Duration>) -> Result<Ending, Failure> {
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        // A shard publishes before it says that it has taken a configuration.
        let now: Vec<_> = summed(&Snapshots::read(run_dir)?).iter().filter_map(transition).collect();
        let new: Vec<_> = now.iter().filter(|line| !told.contains(*line)).collect();
        if !new.is_empty() {
            print(format!("{}{}", if told.is_empty() { "going on:\n" } else { "" }, indented(new)))?;
        }
        told = now;
        let Some(wait) = wait.filter(|_| !told.is_empty()) else { return Ok(Ending::Ok) };
        if begun.elapsed() >= wait {
            let text = format!(
                "after {} this is still so; `quickfire functions NAME` says why a process does not start\n{}",
                units::format_duration(wait),
                told.join("\n")
            );
            return Err(Failure::new(Ending::FunctionError, text));
        }
        std::thread::sleep(LOOK_PERIOD);
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
        (taken, if is_dry_run { "would be in force:" } else { "in force:" }),
        (needs_restart, "needs a restart:"),
    ];
    for (lines, head) in heads.into_iter().filter(|(lines, _)| !lines.is_empty()) {
        out.push_str(&format!("{head}\n{}", indented(lines.lines())));
    }
    out
}

fn indented(lines: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    lines.into_iter().map(|line| format!("  {line}\n")).collect()
}
