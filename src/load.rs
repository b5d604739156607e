//! `quickfire load NAME`: open or closed loop load, with a report to read, to plot and to compare.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use loadgen::{Arrivals, LoadError, Plan, Report, Target, Workload};
use protocol::Status;
use protocol::recording::Recording;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::invoke;
use crate::signals;

/// Arguments and help.
pub fn command() -> Command {
    let number = |id: &'static str, name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(id)
            .long(id)
            .value_name(name)
            .default_value(default)
            .value_parser(value_parser!(u32))
            .help(help)
    };
    let file = |id: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("load")
        .about("Loads a function and reports throughput and latency")
        .arg(Arg::new("name").value_name("NAME").required_unless_present("replay").help("The function"))
        .arg(
            Arg::new("rate")
                .long("rate")
                .value_name("RATE")
                .value_parser(|text: &str| loadgen::parse_rate(text).map_err(|reason| reason.to_string()))
                .conflicts_with("window")
                .help("Open loop: calls per second, like 100k, due when they are due"),
        )
        .arg(
            Arg::new("window")
                .long("window")
                .value_name("COUNT")
                .value_parser(value_parser!(u32))
                .help("Closed loop: calls outstanding over all connections [default: 64, without --rate]"),
        )
        .arg(
            Arg::new("arrivals")
                .long("arrivals")
                .value_name("SHAPE")
                .value_parser(parse_arrivals)
                .requires("rate")
                .default_value("poisson")
                .help("Open loop: constant, poisson, or bursts:COUNT"),
        )
        .arg(number("connections", "COUNT", "1", "Connections to spread the calls over"))
        .arg(
            Arg::new("direct")
                .long("direct")
                .action(ArgAction::SetTrue)
                .help("Lease a direct lane for each connection, past the router; needs shm:// and direct_lanes there"),
        )
        .arg(
            Arg::new("duration")
                .long("duration")
                .value_name("DURATION")
                .value_parser(|text: &str| loadgen::parse_duration(text).map_err(|reason| reason.to_string()))
                .default_value("10s")
                .help("How long calls are sent"),
        )
        .arg(
            Arg::new("payload")
                .long("payload")
                .value_name("SIZE")
                .value_parser(parse_payload_size)
                .default_value("64")
                .help("Bytes in each request, like 64 or 4KiB"),
        )
        .args([invoke::deadline_flag(), invoke::criticality_flag(), invoke::connect_flag()])
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("NUMBER")
                .value_parser(value_parser!(u64))
                .help("Repeat the schedule and the payloads of an earlier run"),
        )
        .arg(file("replay", "Instead of a function: run a recording of `quickfire record` again").conflicts_with_all([
            "name", "rate", "window", "duration", "payload", "deadline", "criticality", "direct", "html",
        ]))
        .arg(
            Arg::new("speed")
                .long("speed")
                .value_name("FACTOR")
                .value_parser(parse_speed)
                .default_value("1")
                .requires("replay")
                .help("How much faster than recorded, like 10 or 0.5"),
        )
        .arg(file("json", "Write the report as JSON; - for standard output"))
        .arg(file("html", "Write the report as a page with plots, complete in itself; - for standard output"))
        .after_help(format!(
            "Ctrl-C ends the run early, with a report of what was done until then.\n\
             The run ends with code 1 if an answer did not belong to its request, with 3 if no call succeeded.\n\n\
             Examples:\n  \
             quickfire load echo --window 64 --duration 5s\n  \
             quickfire load echo --rate 100k --connections 8 --json report.json --html report.html\n  \
             quickfire load echo --window 512 --connect shm:///run/user/1000/quickfire\n  \
             quickfire load --replay calls.qfr --speed 10 --connections 4\n\n\
             {EXIT_CODES_HELP}"
        ))
}

/// Runs the plan and writes the report.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let plan = plan(matches)?;
    let stop = signals::stop_flag()?;
    if let Some(path) = matches.get_one::<PathBuf>("replay") {
        return replay(matches, &plan, path, &stop);
    }
    let report = loadgen::run_until(&plan, &mut loadgen::progress_bar(&plan), &stop).map_err(cannot_run)?;
    if ["json", "html"].iter().any(|id| is_standard_output(matches, id)) {
        // The text goes where it does not get between the other form's bytes.
        eprint!("{}", report.to_text());
    } else {
        print(report.to_text())?;
    }
    write(matches, "json", || report.to_json())?;
    write(matches, "html", || report.to_html())?;
    Ok(ending_of(&report))
}

/// Runs a recording again, and sets what came of it beside what had come of it then.
fn replay(matches: &ArgMatches, plan: &Plan, path: &Path, stop: &AtomicBool) -> Result<Ending, Failure> {
    if matches!(plan.target, Target::Shm(_)) {
        return Err(Failure::usage(
            "a recording is replayed over sockets: connect to quickfire:// or unix://",
        ));
    }
    let unreadable = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let recording = Recording::read(&bytes).map_err(|damaged| unreadable(&damaged))?;
    if recording.calls.is_empty() {
        return Err(unreadable(&"the recording has no calls"));
    }
    let speed = matches.get_one::<f64>("speed").copied().unwrap_or(1.0);
    let report = loadgen::replay(plan, &recording, speed, stop).map_err(cannot_run)?;
    if is_standard_output(matches, "json") {
        eprint!("{}", report.to_text());
    } else {
        print(report.to_text())?;
    }
    write(matches, "json", || report.to_json())?;
    let has_result = report.replayed.outcomes.contains_key(Status::Ok.name());
    Ok(if has_result { Ending::Ok } else { Ending::Refused })
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if speed.is_finite() && speed > 0.0 { Ok(speed) } else { Err("a speed is above zero".into()) }
}

fn plan(matches: &ArgMatches) -> Result<Plan, Failure> {
    let defaults = Plan::default();
    let target = invoke::url(matches)?.to_string().parse::<Target>().map_err(Failure::usage)?;
    let count = |id: &str| matches.get_one::<u32>(id).copied();
    let workload = match matches.get_one::<f64>("rate") {
        Some(rate) => {
            let arrivals = matches.get_one("arrivals").copied().unwrap_or(Arrivals::Poisson);
            Workload::Open { rate: *rate, arrivals }
        }
        None => Workload::Closed { window: count("window").unwrap_or(64) },
    };
    let plan = Plan {
        target,
        function: matches.get_one::<String>("name").cloned().unwrap_or_default(),
        workload,
        connections: count("connections").unwrap_or(defaults.connections),
        direct: matches.get_flag("direct"),
        duration: matches.get_one("duration").copied().unwrap_or(defaults.duration),
        payload_size: count("payload").unwrap_or(defaults.payload_size),
        deadline: matches.get_one::<Duration>("deadline").copied(),
        criticality: invoke::criticality(matches),
        seed: matches.get_one("seed").copied().unwrap_or_else(loadgen::seed_from_entropy),
        ..defaults
    };
    plan.validate().map_err(Failure::usage)?;
    Ok(plan)
}

fn parse_arrivals(text: &str) -> Result<Arrivals, String> {
    match text.split_once(':') {
        None if text == "constant" => Ok(Arrivals::Constant),
        None if text == "poisson" => Ok(Arrivals::Poisson),
        Some(("bursts", count)) => {
            let size = count.parse().map_err(|_| format!("`{count}` is not a number of calls"))?;
            Ok(Arrivals::Bursts { size })
        }
        _ => Err("expected constant, poisson or bursts:COUNT".into()),
    }
}

fn parse_payload_size(text: &str) -> Result<u32, String> {
    let size = router::config::units::parse_size(text).map_err(|reason| format!("`{text}` {reason}"))?;
    u32::try_from(size).map_err(|_| format!("{text} is more than a frame can carry"))
}

fn write(matches: &ArgMatches, id: &str, content: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(path) = matches.get_one::<PathBuf>(id) else { return Ok(()) };
    if is_standard_output(matches, id) {
        return print(content());
    }
    std::fs::write(path, content())
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
}

fn is_standard_output(matches: &ArgMatches, id: &str) -> bool {
    matches.get_one::<PathBuf>(id).is_some_and(|path| path.as_os_str() == "-")
}

fn ending_of(report: &Report) -> Ending {
    if report.mismatched > 0 {
        return Ending::FunctionError;
    }
    if report.ok == 0 && report.sent > 0 { Ending::Refused } else { Ending::Ok }
}

fn cannot_run(error: LoadError) -> Failure {
    let ending = match &error {
        LoadError::PlanInvalid(_) | LoadError::NoResources(_) => Ending::Usage,
        LoadError::Refused { .. }
        | LoadError::UnknownFunction { .. }
        | LoadError::NoLane { .. }
        | LoadError::PayloadTooLarge { .. } => Ending::Refused,
        _ => Ending::Unreachable,
    };
    let hint = match &error {
        LoadError::Unreachable { .. } => "\nstart one with `quickfire up`, or name another with --connect",
        LoadError::UnknownFunction { .. } => "; `quickfire functions` lists those it has",
        _ => "",
    };
    Failure::new(ending, format!("{error}{hint}"))
}
