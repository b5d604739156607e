//! `quickfire invoke NAME`: one call, its answer on standard output, and an exit code that says how it ended.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use protocol::limits::FRAME_ROOM;
use quickfire_client::{
    Answer, CallError, Client, ConnectError, Criticality, Fault, ResolveError, Retry, RouterUrl,
};

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};

mod timings;

/// How long a router may take to answer the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a function may return unless configured otherwise: a ring has room for that anyway.
const RESULT_SIZE_USUAL: usize = 1 << 20;

/// Arguments and help.
pub fn command() -> Command {
    Command::new("invoke")
        .about("Calls a function and prints its answer")
        .arg(Arg::new("name").value_name("NAME").required(true).help("The function"))
        .arg(Arg::new("data").long("data").value_name("TEXT").help("The request, as a text"))
        .arg(Arg::new("in").long("in").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
            "The request, from a file; - for standard input. Without --data and --in the request is empty",
        ))
        .group(ArgGroup::new("request").args(["data", "in"]))
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the answer into a file instead of standard output"),
        )
        .args([deadline_flag(), start_after_flag(), criticality_flag(), connect_flag()])
        .arg(
            Arg::new("idempotent")
                .long("idempotent")
                .action(ArgAction::SetTrue)
                .help("Running it twice does no harm: the router may try again when a process dies with it"),
        )
        .arg(
            Arg::new("timings")
                .long("timings")
                .action(ArgAction::SetTrue)
                .help("Draw on standard error where the time went"),
        )
        .after_help(format!(
            "Examples:\n  \
             quickfire invoke echo --data hello --timings\n  \
             quickfire invoke thumbnail --in picture.jpg --out small.jpg --deadline 500ms\n  \
             quickfire invoke moderate --in - --connect unix:///run/quickfire/router.sock < comment.txt\n\n\
             {EXIT_CODES_HELP}"
        ))
}

/// `--deadline`, also for `load`.
pub fn deadline_flag() -> Arg {
    Arg::new("deadline")
        .long("deadline")
        .value_name("DURATION")
        .value_parser(|text: &str| router::config::units::parse_duration(text).map_err(|reason| reason.to_string()))
        .help("The answer is needed within this time, like 50ms. Without it, the function's own time-out applies")
}

fn start_after_flag() -> Arg {
    Arg::new("start-after")
        .long("start-after")
        .value_name("DURATION")
        .value_parser(|text: &str| {
            router::config::units::parse_duration(text).map_err(|reason| reason.to_string())
        })
        .help("The call must not start before this time has passed, like 2s; its deadline counts from there")
}

/// `--criticality`, also for `load`.
pub fn criticality_flag() -> Arg {
    Arg::new("criticality")
        .long("criticality")
        .value_name("WORD")
        .value_parser(PossibleValuesParser::new(["low", "normal", "high", "critical"]))
        .default_value("normal")
        .help("How much the call matters when not all can be served")
}

/// `--connect`, also for `load`.
pub fn connect_flag() -> Arg {
    Arg::new("connect")
        .long("connect")
        .value_name("URL")
        .value_parser(|text: &str| text.parse::<RouterUrl>().map_err(|reason| reason.to_string()))
        .help("The router: quickfire://HOST:PORT, unix:///PATH, or shm:///RUN_DIR for shared memory. [env: QUICKFIRE_CONNECT] [default: quickfire://127.0.0.1:7450]")
}

/// The criticality that was given.
pub fn criticality(matches: &ArgMatches) -> Criticality {
    match matches.get_one::<String>("criticality").map(String::as_str) {
        Some("low") => Criticality::Low,
        Some("high") => Criticality::High,
        Some("critical") => Criticality::Critical,
        _ => Criticality::Normal,
    }
}

/// Where to connect: the flag, else the environment, else the default listener.
pub fn url(matches: &ArgMatches) -> Result<RouterUrl, Failure> {
    match matches.get_one::<RouterUrl>("connect") {
        Some(url) => Ok(url.clone()),
        None => RouterUrl::from_env().map_err(|error| Failure::usage(format!("QUICKFIRE_CONNECT: {error}"))),
    }
}

/// Makes the call.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let name = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    let request = request(matches)?;
    let url = url(matches)?;
    if matches!(url, RouterUrl::Shm(_)) && matches.contains_id("start-after") {
        return Err(Failure::usage(
            "--start-after needs a connection: calls through shared memory start at once",
        ));
    }
    let Reached { answer, connected, round_trip } = call(matches, url, name, &request)?;
    if let Some(timings) = &answer.timings {
        eprint!("{}", timings::draw(name, timings, connected, round_trip));
    }
    deliver(matches, &answer)?;
    Ok(Ending::Ok)
}

/// An answer, and what the way to it took.
struct Reached {
    answer: Answer,
    connected: Duration,
    round_trip: Duration,
}

fn call(matches: &ArgMatches, url: RouterUrl, name: &str, request: &[u8]) -> Result<Reached, Failure> {
    let begun = Instant::now();
    let mut builder = Client::builder().connect_timeout(CONNECT_TIMEOUT).credits(1);
    if matches!(url, RouterUrl::Shm(_)) && request.len() > RESULT_SIZE_USUAL {
        // A ring is as large as it was asked for.
        builder = builder.frame_size_max(frame_size(request.len()));
    }
    let client = builder.connect_to(url).map_err(cannot_connect)?;
    let connected = begun.elapsed();
    let function = client.function(name).map_err(cannot_resolve)?;
    let mut call = function.call(request).criticality(criticality(matches));
    if let Some(budget) = matches.get_one::<Duration>("deadline") {
        call = call.deadline(*budget);
    }
    if let Some(delay) = matches.get_one::<Duration>("start-after") {
        call = call.start_after(*delay);
    }
    if matches.get_flag("idempotent") {
        call = call.idempotent();
    }
    if matches.get_flag("timings") {
        call = call.with_timings();
    }
    let begun = Instant::now();
    let answer = call.wait().map_err(|error| call_failed(name, &error))?;
    Ok(Reached { answer, connected, round_trip: begun.elapsed() })
}

/// A frame that holds such a payload.
fn frame_size(payload_size: usize) -> u32 {
    u32::try_from(payload_size).unwrap_or(u32::MAX).saturating_add(FRAME_ROOM)
}

fn request(matches: &ArgMatches) -> Result<Vec<u8>, Failure> {
    if let Some(text) = matches.get_one::<String>("data") {
        return Ok(text.clone().into_bytes());
    }
    let Some(path) = matches.get_one::<PathBuf>("in") else { return Ok(Vec::new()) };
    let cannot_read = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    if path.as_os_str() != "-" {
        return std::fs::read(path).map_err(cannot_read);
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(cannot_read)?;
    Ok(bytes)
}

fn deliver(matches: &ArgMatches, answer: &Answer) -> Result<(), Failure> {
    if let Some(path) = matches.get_one::<PathBuf>("out") {
        return std::fs::write(path, &answer.payload)
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())));
    }
    print(&answer.payload)?;
    // For eyes only: in a pipe or a file the answer is exactly the function's bytes.
    let needs_newline =
        std::io::stdout().is_terminal() && !answer.payload.is_empty() && !answer.payload.ends_with(b"\n");
    if needs_newline { print("\n") } else { Ok(()) }
}

fn cannot_connect(error: ConnectError) -> Failure {
    let ending = match &error {
        ConnectError::Url(_) => Ending::Usage,
        ConnectError::Refused { .. } => Ending::Refused,
        _ => Ending::Unreachable,
    };
    let hint = match &error {
        ConnectError::Unreachable { .. } => "\nstart one with `quickfire up`, or name another with --connect",
        _ => "",
    };
    Failure::new(ending, format!("{error}{hint}"))
}

fn cannot_resolve(error: ResolveError) -> Failure {
    match &error {
        ResolveError::UnknownFunction { .. } => {
            Failure::new(Ending::Refused, format!("{error}; `quickfire functions` lists those it has"))
        }
        ResolveError::NameInvalid { .. } => Failure::usage(error),
        ResolveError::Failed { source, .. } => Failure::new(ending_of(source), &error),
        _ => Failure::new(Ending::Unreachable, error),
    }
}

/// Says how it ended, who has to change something, and whether the same call may be made again.
fn call_failed(name: &str, error: &CallError) -> Failure {
    let mut text = format!("{name}: {error}");
    if let CallError::FunctionError(payload) = error {
        text.push_str(&format!(": {}", String::from_utf8_lossy(payload).trim_end()));
    }
    let fault = match error.fault() {
        Fault::Nobody => "nobody is at fault",
        Fault::Caller => "the caller is at fault",
        Fault::Function => "the function is at fault",
        Fault::Worker => "the function's process is at fault",
        Fault::Router => "the router is at fault",
    };
    let retry = match error.retry() {
        Retry::Pointless => "a retry would end the same way",
        Retry::Safe => "a retry is safe",
        Retry::IfIdempotent => "a retry is safe only if running it twice does no harm",
    };
    text.push_str(&format!("\n{fault}; {retry}"));
    if let Some(status) = error.status() {
        text.push_str(&format!("\n{}", status.explain()));
    }
    Failure::new(ending_of(error), text)
}

fn ending_of(error: &CallError) -> Ending {
    match error {
        CallError::FunctionError(_) | CallError::Backpressure { .. } | CallError::WorkerLost { .. } => {
            Ending::FunctionError
        }
        CallError::Disconnected { .. } => Ending::Unreachable,
        _ => Ending::Refused,
    }
}

#[cfg(test)]
mod tests {
    use quickfire_client::{Disconnect, DownstreamName, Expiry, Status};

    use super::*;

    #[test]
    fn every_end_of_a_call_has_its_exit_code() {
        let check = |error: CallError, expected| assert_eq!(ending_of(&error), expected, "{error}");
        check(CallError::FunctionError(Vec::new().into()), Ending::FunctionError);
        let downstream = DownstreamName::from_bytes(b"database");
        check(CallError::Backpressure { downstream, retry_after: None }, Ending::FunctionError);
        check(CallError::WorkerLost { status: Status::WorkerLost, started: true }, Ending::FunctionError);
        check(CallError::Refused { status: Status::QueueFull, retry_after: None }, Ending::Refused);
        check(CallError::Expired(Expiry::NeverStarted), Ending::Refused);
        check(
            CallError::Disconnected { maybe_started: true, cause: Disconnect::Closed },
            Ending::Unreachable,
        );
    }
}
