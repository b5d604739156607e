//! `quickfire logs NAME`: what the processes of a function printed, line by line, in the order of time.
//!
//! In: the files that the shim keeps in `DIR/logs`.  Out: text, or JSON; with `-f` until the reader is gone or Ctrl-C.
//! Always: reads files and asks nobody, so that it works when router and shim are dead.
//! Never: passes a control character on to a terminal: what a function prints is not ours to trust.
//!
//! | file | what it holds |
//! |---|---|
//! | `reader.rs` | the files of one instance, across rotation |
//! | `merge.rs` | all instances in the order of time |
//! | `show.rs` | a line for people, and for programs |

mod merge;
mod reader;
mod show;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use worker_shim::logs::line::{Line, Source};
use worker_shim::logs::name::LogName;
use worker_shim::logs::unix_us;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, offer};
use crate::flags;
use crate::functions;
use crate::snapshots::Snapshots;
use merge::Merge;
use show::Show;

/// Between two looks for more. Shorter than anybody notices, and each costs two listings of a folder.
const LOOK_PERIOD: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Written at once: a pipe's worth.
const OUT_SIZE: usize = 64 << 10;

/// Arguments and help.
pub fn command() -> Command {
    Command::new("logs")
        .about("Shows what the processes of a function printed")
        .arg(Arg::new("name").value_name("NAME").required(true).help("The function"))
        .arg(
            Arg::new("follow")
                .long("follow")
                .short('f')
                .action(ArgAction::SetTrue)
                .help("Go on with what is printed from now on, until Ctrl-C"),
        )
        .arg(
            Arg::new("call")
                .long("call")
                .value_name("ID")
                .value_parser(call_id)
                .help("Only what this call printed, by its number in hexadecimal, as `quickfire inspect` shows it"),
        )
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("DURATION")
                .value_parser(|text: &str| loadgen::parse_duration(text).map_err(|reason| reason.to_string()))
                .help("Only what was printed within this time, such as 10m"),
        )
        .arg(
            Arg::new("instance")
                .long("instance")
                .value_name("N")
                .help("Only this instance: the number of its process, as `quickfire functions NAME` shows it, or template-0"),
        )
        .arg(Arg::new("stderr").long("stderr").action(ArgAction::SetTrue).help("Only what went to standard error"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("A JSON object for each line"))
        .arg(flags::run_dir_flag())
        .after_help(format!(
            "Each line: time, function and instance, edition, call where it is known, stream, text. Reads the run directory, also \
             that of a dead router.\n\n\
             Examples:\n  quickfire logs thumbnail\n  quickfire logs thumbnail -f --since 1m\n  \
             quickfire logs thumbnail --call 1f\n  quickfire logs thumbnail --stderr --json | jq .text\n\n{EXIT_CODES_HELP}"
        ))
}

/// Shows what there is, and with `-f` what comes.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    check_name(&run_dir, name)?;
    let filter = Filter::new(matches);
    let show = Show { function: name, is_json: matches.get_flag("json") };
    let is_followed = matches.get_flag("follow");

    let mut merge = Merge::new(run_dir.join("logs"), name, matches.get_one::<String>("instance").cloned());
    let cannot_read =
        |error| Failure::usage(format!("cannot read {}: {error}", run_dir.join("logs").display()));
    let mut out = Vec::with_capacity(OUT_SIZE);
    loop {
        let is_whole = merge.look().map_err(cannot_read)?;
        while let Some(entry) = merge.next().map_err(cannot_read)? {
            let Some(line) = Line::read(&entry.bytes).filter(|line| filter.admits(line)) else { continue };
            show.line(&entry.instance, &line, &mut out);
            if out.len() >= OUT_SIZE && !flush(&mut out)? {
                return Ok(Ending::Ok);
            }
        }
        if !flush(&mut out)? {
            return Ok(Ending::Ok);
        }
        match (is_followed, is_whole) {
            (true, _) if is_reader_gone() => return Ok(Ending::Ok),
            (true, _) | (false, false) => {}
            (false, true) => return Ok(Ending::Ok),
        }
    }
}

/// What is wanted of all lines.
struct Filter {
    call: Option<u64>,
    since_us: u64,
    is_stderr_only: bool,
}

impl Filter {
    fn new(matches: &ArgMatches) -> Filter {
        let since = matches.get_one::<Duration>("since");
        let length_us = since.map(|length| u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
        Filter {
            call: matches.get_one("call").copied(),
            since_us: length_us.map_or(0, |length_us| unix_us().saturating_sub(length_us)),
            is_stderr_only: matches.get_flag("stderr"),
        }
    }

    fn admits(&self, line: &Line<'_>) -> bool {
        line.at_us >= self.since_us
            && (self.call.is_none() || line.call == self.call)
            && (!self.is_stderr_only || matches!(line.source, Source::Err { .. }))
    }
}

/// A function that printed something, or that exists and may.
fn check_name(run_dir: &Path, name: &str) -> Result<(), Failure> {
    let logs_dir = run_dir.join("logs");
    let entries = std::fs::read_dir(&logs_dir).map_err(|error| {
        Failure::new(Ending::Unreachable, format!("no shim has kept logs in {}: {error}", logs_dir.display()))
    })?;
    let logged = entries.flatten().filter_map(|entry| LogName::read(entry.file_name().to_str()?));
    let mut known: BTreeSet<String> = logged.map(|name| name.function).collect();
    if !known.contains(name) {
        let told = functions::of_shim(run_dir);
        known.extend(told.iter().filter_map(|function| function["name"].as_str().map(str::to_owned)));
        // Also one whose processes were never started; a router that has published nothing knows of none.
        let counted =
            Snapshots::read(run_dir).map(|snapshots| functions::summed(&snapshots)).unwrap_or_default();
        known.extend(counted.into_iter().map(|function| function.name));
    }
    if known.contains(name) {
        return Ok(());
    }
    let known: Vec<_> = known.into_iter().collect();
    let those = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Failure::new(
        Ending::Refused,
        format!(
            "there are no logs of `{name}` in {}, and no such function; there is {those}",
            logs_dir.display()
        ),
    ))
}

/// In hexadecimal, as everywhere.
fn call_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| format!("`{text}` is no number in hexadecimal"))
}

/// False: the reader has seen enough.
fn flush(out: &mut Vec<u8>) -> Result<bool, Failure> {
    let goes_on = out.is_empty() || offer(&out)?;
    out.clear();
    Ok(goes_on)
}

/// Waits for the next look; true as soon as nobody can read what would be written.
fn is_reader_gone() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    matches!(poll(&mut polled, Some(&LOOK_PERIOD)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_in_hexadecimal() {
        assert_eq!(call_id("1f"), Ok(0x1F));
        assert_eq!(call_id("0xFFffFFffFFffFFff"), Ok(u64::MAX));
        for text in ["", "0x", "g", "-1", "10000000000000000"] {
            assert!(call_id(text).is_err(), "{text}");
        }
    }
}
