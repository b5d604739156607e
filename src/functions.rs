//! `quickfire functions [NAME]`: what each function does now and what its calls wait for, from the counters; of one function
//! also its processes, from what the shim last wrote. With `--live` again and again, at no cost to the router.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use router::counters::{BlockedOn, Downstream, Function};
use serde_json::Value;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;
use crate::live;
use crate::snapshots::{Snapshots, now_ns};
use crate::table;

mod size;

/// Arguments and help.
pub fn command() -> Command {
    Command::new("functions")
        .about("Lists the functions of a router with their workers, queues and answers")
        .arg(Arg::new("name").value_name("NAME").help("Tell more about this one"))
        .arg(flags::run_dir_flag())
        .arg(
            Arg::new("live")
                .long("live")
                .action(ArgAction::SetTrue)
                .help("Show it again and again, until q or Ctrl-C"),
        )
        .args(live::flags().map(|flag| flag.requires("live")))
        .after_help(format!(
            "Reads the run directory and does not disturb the router.\n\n\
             Examples:\n  quickfire functions\n  quickfire functions thumbnail\n  \
             quickfire functions thumbnail --live\n\n{EXIT_CODES_HELP}"
        ))
}

/// Prints the table, and the processes of one function.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    let name = matches.get_one::<String>("name").map(String::as_str);
    if matches.get_flag("live") {
        live::run(matches, || report(&run_dir, name))
    } else {
        print(report(&run_dir, name)?)?;
        Ok(Ending::Ok)
    }
}

/// What is known now.
fn report(run_dir: &Path, name: Option<&str>) -> Result<String, Failure> {
    let snapshots = Snapshots::read(run_dir)?;
    let mut functions = summed(&snapshots);
    if let Some(name) = name {
        let known: Vec<_> = functions.iter().map(|function| function.name.clone()).collect();
        functions.retain(|function| function.name == name);
        if functions.is_empty() {
            return Err(Failure::new(
                Ending::Refused,
                format!(
                    "the router in {} has no function `{name}`; it has {}",
                    run_dir.display(),
                    known.join(", ")
                ),
            ));
        }
    }
    let mut out = match name {
        None => show(&functions, now_ns()),
        Some(_) => table(functions.iter(), now_ns()),
    };
    if snapshots.router_state() != "running" {
        out.push_str(&format!("The router is {}; these are its last words.\n", snapshots.router_state()));
    }
    if let Some(name) = name {
        functions.iter().for_each(|function| out.push_str(&pool(function)));
        out.push_str(&size::suggestion(&snapshots, name));
        out.push_str(&processes(run_dir, name));
    }
    Ok(out)
}

/// One row for each function, all shards together.
pub fn summed(snapshots: &Snapshots) -> Vec<Function> {
    let mut sums: Vec<Function> = Vec::new();
    for function in snapshots.shards.iter().flat_map(|shard| &shard.functions) {
        match sums.iter_mut().find(|sum| sum.name == function.name) {
            None => sums.push(function.clone()),
            Some(sum) => {
                sum.workers += function.workers;
                sum.workers_with_credit += function.workers_with_credit;
                sum.credit_free += function.credit_free;
                sum.queued += function.queued;
                sum.running += function.running;
                sum.is_failing |= function.is_failing;
                sum.workers_wanted += function.workers_wanted;
                sum.workers_earlier += function.workers_earlier;
                sum.workers_min += function.workers_min;
                sum.workers_max += function.workers_max;
                sum.cold_starts += function.cold_starts;
                sum.cold_start_last_ns = sum.cold_start_last_ns.max(function.cold_start_last_ns);
                sum.cold_start_max_ns = sum.cold_start_max_ns.max(function.cold_start_max_ns);
                sum.calls_held_for_start += function.calls_held_for_start;
                sum.answered_peak += function.answered_peak;
                sum.is_removed &= function.is_removed;
                sum.answered_ok += function.answered_ok;
                sum.answered_error += function.answered_error;
                sum.answered_otherwise += function.answered_otherwise;
                sum.run_ns += function.run_ns;
                // Of several shards the one tells that has waited longest.
                if function.blocked_on != 0
                    && (sum.blocked_on == 0 || function.blocked_since_ns < sum.blocked_since_ns)
                {
                    (sum.blocked_on, sum.blocked_since_ns) = (function.blocked_on, function.blocked_since_ns);
                }
                add_downstreams(&mut sum.downstreams, &function.downstreams);
                sum.oldest_queued_at_ns = match (sum.oldest_queued_at_ns, function.oldest_queued_at_ns) {
                    (0, at) | (at, 0) => at,
                    (one, other) => one.min(other),
                };
            }
        }
    }
    sums
}

/// Shards limit for themselves: what they allow adds up. One that does not limit says nothing.
fn add_downstreams(sums: &mut Vec<Downstream>, of_shard: &[Downstream]) {
    for downstream in of_shard {
        match sums.iter_mut().find(|sum| sum.name == downstream.name) {
            None => sums.push(downstream.clone()),
            Some(sum) => {
                sum.per_second += downstream.per_second;
                sum.refusals += downstream.refusals;
            }
        }
    }
}

/// The table, without functions that were removed and have nothing left.
pub fn show(functions: &[Function], now_ns: u64) -> String {
    table(functions.iter().filter(|function| is_here(function)), now_ns)
}

/// It is configured, or something of it is left.
pub fn is_here(function: &Function) -> bool {
    !function.is_removed || function.workers + function.queued + function.running > 0
}

/// What is going on with the processes of a function, if it has not those that it is to have: `resize: 0 of 4 processes of its
/// new edition attached; 4 of the one before serve on`.
pub fn transition(function: &Function) -> Option<String> {
    let Function { name, workers, workers_wanted: wanted, workers_earlier: earlier, .. } = function;
    let attached = workers.saturating_sub(*earlier);
    Some(match (function.is_removed, attached, *earlier) {
        (true, ..) if is_here(function) => {
            format!("{name}: removed; {workers} of its processes still have calls, or are about to end")
        }
        (true, ..) => return None,
        (false, 0, 1..) => format!(
            "{name}: 0 of {wanted} processes of its new edition attached; {earlier} of the one before serve on"
        ),
        (false, _, 1..) => format!(
            "{name}: {attached} of {wanted} processes of its new edition attached; {earlier} of the one before finish \
             their calls"
        ),
        (false, _, 0) if attached < *wanted => format!("{name}: {attached} of {wanted} processes attached"),
        (false, _, 0) => return None,
    })
}

fn table<'a>(functions: impl Iterator<Item = &'a Function> + Clone, now_ns: u64) -> String {
    let head = [
        "function",
        "workers",
        "queued",
        "oldest",
        "running",
        "ok",
        "errors",
        "other",
        "mean run",
        "waits for",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for function in functions.clone() {
        let runs = function.answered_ok + function.answered_error;
        rows.push(vec![
            function.name.clone(),
            function.workers.to_string(),
            table::count(function.queued),
            oldest(function, now_ns),
            table::count(function.running),
            table::count(function.answered_ok),
            table::count(function.answered_error),
            table::count(function.answered_otherwise),
            function.run_ns.checked_div(runs).map_or("-".into(), table::length),
            waits_for(function, now_ns),
        ]);
    }
    let mut out = table::columns(&rows);
    for function in functions.clone().filter(|function| function.is_removed || function.workers_earlier > 0) {
        let told = transition(function).unwrap_or_else(|| format!("{}: removed", function.name));
        out.push_str(&format!("  {told}\n"));
    }
    for function in functions.clone().filter(|function| function.is_failing) {
        out.push_str(&format!(
            "  {0}: its processes keep failing; see `quickfire functions {0}`\n",
            function.name
        ));
    }
    for function in functions {
        function
            .downstreams
            .iter()
            .for_each(|downstream| out.push_str(&pushed_back(&function.name, downstream)));
    }
    out
}

/// How many processes a function has whose number follows its calls: `  report: 3 wanted of 0 to 8, 1 of them starting; ...`. Of several
/// shards the longest start.
fn pool(function: &Function) -> String {
    if function.workers_min == function.workers_max {
        return String::new();
    }
    let serving = function.workers.saturating_sub(function.workers_earlier);
    let starting = match function.workers_wanted.saturating_sub(serving) {
        0 => String::new(),
        count => format!(", {count} of them starting"),
    };
    let cold = match function.cold_starts {
        0 => "no cold start yet".to_owned(),
        count => format!(
            "{} cold starts, the last took {}, the longest {}; {} calls waited for the first process",
            table::count(count),
            table::length(function.cold_start_last_ns),
            table::length(function.cold_start_max_ns),
            table::count(function.calls_held_for_start)
        ),
    };
    let Function { name, workers_wanted: wanted, workers_min: min, workers_max: max, .. } = function;
    format!("  {name}: {wanted} processes wanted, of {min} to {max}{starting}; {cold}\n")
}

/// What something downstream does to a function: `  resize: pushed back by database, at most 120 calls/s; 1,204 refusals`.
fn pushed_back(name: &str, downstream: &Downstream) -> String {
    let limit = match downstream.per_second {
        0 => "no limit now".to_owned(),
        per_second => format!("at most {} calls/s", table::count(per_second)),
    };
    format!(
        "  {name}: pushed back by {}, {limit}; {} refusals\n",
        downstream.name,
        table::count(downstream.refusals)
    )
}

/// For how long the oldest waiting call has waited.
pub fn oldest(function: &Function, now_ns: u64) -> String {
    match function.oldest_queued_at_ns {
        0 => "-".into(),
        at => table::length(now_ns.saturating_sub(at)),
    }
}

/// What its calls wait for, and since when: `workers busy 1.20s`.
pub fn waits_for(function: &Function, now_ns: u64) -> String {
    if function.blocked_on == BlockedOn::Nothing as u64 {
        return "-".into();
    }
    // A router of a later version may know more causes.
    let cause = BlockedOn::from_number(function.blocked_on)
        .map_or_else(|| format!("cause {}", function.blocked_on), |cause| cause.name().to_owned());
    format!("{cause} {}", table::length(now_ns.saturating_sub(function.blocked_since_ns)))
}

/// Every function as the shim last told; none if it told nothing, which is no failure.
pub fn of_shim(run_dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run_dir.join("shim.json")).unwrap_or_default();
    let mut status: Value = serde_json::from_str(&text).unwrap_or_default();
    match status["functions"].take() {
        Value::Array(functions) => functions,
        _ => Vec::new(),
    }
}

/// The processes of a function as the shim last told.
fn processes(run_dir: &Path, name: &str) -> String {
    let functions = of_shim(run_dir);
    let Some(function) = functions.iter().find(|function| function["name"] == name) else {
        return String::new();
    };

    let word = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace('_', " "),
        other => other.to_string(),
    };
    let places = || function["places"].as_array().into_iter().flatten();
    let mut rows =
        vec![["process", "shard", "edition", "life", "pid", "failures"].map(str::to_owned).to_vec()];
    for place in places() {
        let keys = ["place", "shard", "edition", "life", "pid", "failures"];
        rows.push(keys.map(|key| word(&place[key])).to_vec());
    }
    let mut out = format!("\n{}", table::columns(&rows));
    for template in function["templates"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "  template {} ({}): {}, pid {}, copied {} times, failures in a row: {}\n",
            template["template"],
            word(&template["edition"]),
            word(&template["state"]),
            word(&template["pid"]),
            template["copies"],
            template["failures"]
        ));
    }
    out.push_str(&format!(
        "  starts: {}; ends nobody asked for: {}; what they print: quickfire logs {name}\n",
        function["starts"], function["exits"],
    ));
    if let Some(dropped @ 1..) = function["log_lines_dropped"].as_u64() {
        out.push_str(&format!(
            "  {} lines of that were dropped, too many or with a full disk\n",
            table::count(dropped)
        ));
    }
    if let Some(reason) = function["last_exit"]["reason"].as_str() {
        out.push_str(&format!("  last end: {reason}\n"));
        for line in function["last_exit"]["stderr"].as_array().into_iter().flatten() {
            out.push_str(&format!("    {}\n", line.as_str().unwrap_or_default()));
        }
    }
    out
}
