//! `quickfire quarantine` and `quickfire dead-letters`: calls that outlived their answers are listed, shown, run once more
//! and dropped. The router is asked.
//!
//! Always: what is about the call goes to standard output, except where a payload goes there; `--json` is for programs.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use protocol::admin::{KeptCall, Message, Shelf};
use protocol::{Class, Criticality, Status};
use serde_json::{Value, json};

use crate::apply::{ask, unexpected};
use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;
use crate::table;

/// Arguments and help.
pub fn command(shelf: Shelf) -> Command {
    let (name, about) = match shelf {
        Shelf::Quarantine => {
            ("quarantine", "Calls of which two processes died: lists, shows, replays or drops them")
        }
        Shelf::DeadLetters => {
            ("dead-letters", "Calls that failed with no attempt left: lists, shows, replays or drops them")
        }
    };
    let examples = format!(
        "They are kept in the router's memory, as many as `kept_calls_max` and `kept_calls_size_max` allow.\n\n\
         Examples:\n  quickfire {name} list\n  quickfire {name} show 100 --out payload.bin\n  \
         quickfire {name} replay 100\n  quickfire {name} drop 100\n\n{EXIT_CODES_HELP}"
    );
    let subcommands = [
        Command::new("list").about("Lists the calls, oldest first"),
        Command::new("show")
            .about("Shows one call; its payload goes to a file or to standard output")
            .arg(id().required(true))
            .arg(out("Where the payload goes; - for standard output")),
        Command::new("replay")
            .about("Runs one call once more, with the function's own time-out, and tells how it ended; it stays in the list")
            .arg(id().required(true))
            .arg(out("Where the result goes; - for standard output")),
        Command::new("drop")
            .about("Forgets calls, and tells which")
            .arg(id().num_args(1..).required_unless_present("all"))
            .arg(
                Arg::new("all")
                    .long("all")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("id")
                    .help("All that are kept now"),
            ),
    ];
    Command::new(name)
        .about(about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(subcommands.map(|subcommand| {
            let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Tell it as JSON");
            subcommand.arg(json).arg(flags::run_dir_flag()).after_help(examples.clone())
        }))
        .after_help(examples.clone())
}

fn id() -> Arg {
    Arg::new("id")
        .value_name("ID")
        .value_parser(|text: &str| {
            u64::from_str_radix(text, 16).map_err(|_| "an id is hexadecimal, as `list` shows it")
        })
        .help("The call, as `list` shows it")
}

fn out(help: &'static str) -> Arg {
    Arg::new("out").long("out").value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
}

/// Asks, and tells.
pub fn run(shelf: Shelf, matches: &ArgMatches) -> Result<Ending, Failure> {
    let Some((subcommand, matches)) = matches.subcommand() else {
        unreachable!("clap asks for a subcommand");
    };
    let shown = Shown { is_json: matches.get_flag("json") };
    let router = Asked { run_dir: flags::run_dir(matches.get_one("run-dir")), shelf };
    match subcommand {
        "list" => shown.list(shelf, &router.list()?),
        "show" => show(&router, shown, matches),
        "replay" => replay(&router, shown, matches),
        "drop" => forget(&router, shown, matches),
        other => unreachable!("subcommand {other} is declared and not run"),
    }
}

fn show(router: &Asked, shown: Shown, matches: &ArgMatches) -> Result<Ending, Failure> {
    let number = matches.get_one::<u64>("id").copied().unwrap_or_default();
    let (call, payload, looked_at_ns) = router.show(number)?;
    let text = shown.one(&call, looked_at_ns);
    deliver(matches, text, &payload)?;
    Ok(Ending::Ok)
}

fn replay(router: &Asked, shown: Shown, matches: &ArgMatches) -> Result<Ending, Failure> {
    let number = matches.get_one::<u64>("id").copied().unwrap_or_default();
    let question = Message::Replay { shelf: router.shelf, number };
    let Message::Replayed { status, took_ns, result_size, function, result } =
        router.ask(number, &question)?
    else {
        unreachable!("`Asked::ask` takes no other answer");
    };
    let is_whole = result.len() as u64 == result_size;
    if matches.get_one::<PathBuf>("out").is_some() && !is_whole {
        let text = format!(
            "the result has {result_size} bytes, more than the admin socket carries; call the function itself"
        );
        return Err(Failure::new(Ending::Refused, text));
    }
    let text = if shown.is_json {
        let told = json!({
            "id": hexadecimal(number), "function": function, "status": status_name(status),
            "took_ns": took_ns, "result_size": result_size,
        });
        format!("{told}\n")
    } else {
        let mut text = format!(
            "call {number:x} of {function} run once more: {} after {}, {}\n",
            status_name(status),
            table::length(took_ns),
            bytes(result_size)
        );
        if Class::of_number(status) == Class::FunctionError {
            text.push_str(&format!("  {}\n", String::from_utf8_lossy(&result).trim_end()));
        }
        text
    };
    deliver(matches, text, &result)?;
    Ok(match Class::of_number(status) {
        Class::Ok => Ending::Ok,
        Class::FunctionError | Class::WorkerLost => Ending::FunctionError,
        _ => Ending::Refused,
    })
}

fn forget(router: &Asked, shown: Shown, matches: &ArgMatches) -> Result<Ending, Failure> {
    let numbers: Vec<u64> = if matches.get_flag("all") {
        router.list()?.calls.iter().map(|call| call.number).collect()
    } else {
        matches.get_many("id").unwrap_or_default().copied().collect()
    };
    let (mut dropped, mut failures) = (Vec::new(), Vec::new());
    for number in numbers {
        match router.ask(number, &Message::Drop { shelf: router.shelf, number }) {
            Ok(Message::Dropped { looked_at_ns, call }) => dropped.push((call, looked_at_ns)),
            Ok(_) => unreachable!("`Asked::ask` takes no other answer"),
            // Those that are there go, whatever else was named.
            Err(failure) => failures.push(failure),
        }
    }
    if shown.is_json {
        let told: Vec<Value> = dropped.iter().map(|(call, at)| object(call, *at)).collect();
        print(format!("{}\n", Value::from(told)))?;
    } else {
        for (call, looked_at_ns) in &dropped {
            print(format!("dropped {}", sentence(call, *looked_at_ns)))?;
        }
    }
    let last = failures.pop();
    for failure in failures {
        // The exit code is that of the last one.
        let _ = failure.tell();
    }
    last.map_or(Ok(Ending::Ok), Err)
}

/// The router that is asked about one shelf.
struct Asked {
    run_dir: PathBuf,
    shelf: Shelf,
}

/// What a router told of a shelf.
struct Listing {
    calls: Vec<KeptCall>,
    looked_at_ns: u64,
}

impl Asked {
    /// All calls, in as many pieces as it takes.
    fn list(&self) -> Result<Listing, Failure> {
        let mut listing = Listing { calls: Vec::new(), looked_at_ns: 0 };
        loop {
            let after = listing.calls.last().map_or(0, |call| call.number);
            match ask(&self.run_dir, &Message::List { shelf: self.shelf, after })? {
                Message::Listed { looked_at_ns, calls, has_more } => {
                    // A router that told the same piece again would be asked for ever.
                    let is_behind = calls.first().is_none_or(|call| call.number > after);
                    listing.looked_at_ns = looked_at_ns;
                    listing.calls.extend(calls);
                    if !has_more || !is_behind {
                        break;
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
        // Numbers are a shard's own.
        listing.calls.sort_by_key(|call| (call.ended_at_ns, call.number));
        Ok(listing)
    }

    /// One call with all of its payload, in as many pieces as it takes.
    fn show(&self, number: u64) -> Result<(KeptCall, Vec<u8>, u64), Failure> {
        let mut payload = Vec::new();
        loop {
            let offset = payload.len() as u64;
            let question = Message::Show { shelf: self.shelf, number, offset };
            let Message::Shown { looked_at_ns, call, piece } = self.ask(number, &question)? else {
                unreachable!("`Asked::ask` takes no other answer");
            };
            payload.extend_from_slice(&piece);
            if payload.len() as u64 >= call.payload_size {
                return Ok((call, payload, looked_at_ns));
            }
            if piece.is_empty() {
                return Err(Failure::new(
                    Ending::Unreachable,
                    "the router told less of the payload than there is",
                ));
            }
        }
    }

    /// Asks about one call, and takes only the answer that belongs to the question.
    fn ask(&self, number: u64, question: &Message) -> Result<Message, Failure> {
        let answer = ask(&self.run_dir, question)?;
        match (question, &answer) {
            (Message::Show { .. }, Message::Shown { .. })
            | (Message::Replay { .. }, Message::Replayed { .. })
            | (Message::Drop { .. }, Message::Dropped { .. }) => Ok(answer),
            (_, Message::NoSuchCall) => {
                let place = match self.shelf {
                    Shelf::Quarantine => "in the quarantine",
                    Shelf::DeadLetters => "among the dead letters",
                };
                let text = format!(
                    "no call with the id {number:x} is {place}; it was dropped, made room, or never was"
                );
                Err(Failure::new(Ending::Refused, text))
            }
            _ => Err(unexpected(&answer)),
        }
    }
}

/// How things are told.
#[derive(Clone, Copy)]
struct Shown {
    is_json: bool,
}

impl Shown {
    fn list(self, shelf: Shelf, listing: &Listing) -> Result<Ending, Failure> {
        let Listing { calls, looked_at_ns } = listing;
        let text = if self.is_json {
            format!("{}\n", calls.iter().map(|call| object(call, *looked_at_ns)).collect::<Value>())
        } else if calls.is_empty() {
            match shelf {
                Shelf::Quarantine => "no call is in the quarantine\n".to_owned(),
                Shelf::DeadLetters => "there are no dead letters\n".to_owned(),
            }
        } else {
            rows(calls, *looked_at_ns)
        };
        print(text)?;
        Ok(Ending::Ok)
    }

    fn one(self, call: &KeptCall, looked_at_ns: u64) -> String {
        if self.is_json { format!("{}\n", object(call, looked_at_ns)) } else { sentence(call, looked_at_ns) }
    }
}

fn rows(calls: &[KeptCall], looked_at_ns: u64) -> String {
    let head = ["id", "function", "ended", "status", "attempts", "criticality", "bytes"];
    let row = |call: &KeptCall| {
        vec![
            hexadecimal(call.number),
            call.function.clone(),
            format!("{} ago", table::length(looked_at_ns.saturating_sub(call.ended_at_ns))),
            status_name(call.status),
            call.attempts.to_string(),
            criticality_name(call.criticality).to_owned(),
            table::count(call.payload_size),
        ]
    };
    let rows: Vec<_> =
        std::iter::once(head.map(str::to_owned).to_vec()).chain(calls.iter().map(row)).collect();
    table::columns(&rows)
}

fn sentence(call: &KeptCall, looked_at_ns: u64) -> String {
    format!(
        "call {:x} of {}, {}: {} {} ago, attempt {}; {} of payload\n",
        call.number,
        call.function,
        criticality_name(call.criticality),
        status_name(call.status),
        table::length(looked_at_ns.saturating_sub(call.ended_at_ns)),
        call.attempts,
        bytes(call.payload_size)
    )
}

fn object(call: &KeptCall, looked_at_ns: u64) -> Value {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age_ns = looked_at_ns.saturating_sub(call.ended_at_ns);
    let ended_at_ns = since_1970.as_nanos().saturating_sub(age_ns.into());
    json!({
        "id": hexadecimal(call.number),
        "function": call.function,
        "status": status_name(call.status),
        "attempts": call.attempts,
        "criticality": criticality_name(call.criticality),
        "ended_at_unix_ms": u64::try_from(ended_at_ns / 1_000_000).unwrap_or(u64::MAX),
        "payload_size": call.payload_size,
    })
}

/// Writes the bytes where they were asked for, and the text where they are not.
fn deliver(matches: &ArgMatches, text: String, bytes: &[u8]) -> Result<(), Failure> {
    match matches.get_one::<PathBuf>("out") {
        None => print(text),
        Some(path) if path == Path::new("-") => {
            eprint!("{text}");
            print(bytes)
        }
        Some(path) => {
            std::fs::write(path, bytes)
                .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
            print(text)
        }
    }
}

fn hexadecimal(number: u64) -> String {
    format!("{number:x}")
}

fn bytes(count: u64) -> String {
    format!("{} {}", table::count(count), if count == 1 { "byte" } else { "bytes" })
}

fn status_name(status: u16) -> String {
    Status::try_from(status).map_or_else(|_| format!("status {status}"), |known| known.name().to_owned())
}

fn criticality_name(criticality: u8) -> &'static str {
    Criticality::try_from(criticality).map_or("?", |known| known.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64, payload_size: u64) -> KeptCall {
        KeptCall {
            number,
            function: "resize".into(),
            status: 67,
            attempts: 2,
            criticality: 1,
            ended_at_ns: 1_000_000_000,
            payload_size,
        }
    }

    #[test]
    fn a_call_is_a_row_a_sentence_or_an_object() {
        let at_ns = 3_500_000_000;
        assert_eq!(
            rows(&[call(0x100, 12_345), call(0x1200, 1)], at_ns),
            "  id    function      ended       status  attempts  criticality   bytes\n  \
             100     resize  2.50s ago  quarantined         2       normal  12,345\n  \
             1200    resize  2.50s ago  quarantined         2       normal       1\n"
        );
        assert_eq!(
            sentence(&call(0x100, 1), at_ns),
            "call 100 of resize, normal: quarantined 2.50s ago, attempt 2; 1 byte of payload\n"
        );
        let told = object(&call(0x100, 7), at_ns);
        assert_eq!(
            (&told["id"], &told["status"], &told["payload_size"]),
            (&json!("100"), &json!("quarantined"), &json!(7))
        );
    }
}
