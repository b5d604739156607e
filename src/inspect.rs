//! `quickfire inspect [DIR]`: everything a router counted, and the stage and age of every call in flight. Asks nobody:
//! it reads the mapped counters and the workers' rings, also of a router that died.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};
use router::counters::{Histogram, Snapshot};

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;
use crate::functions;
use crate::snapshots::{Snapshots, now_ns};
use crate::table;

mod placement;
mod rings;

/// Arguments and help.
pub fn command() -> Command {
    let dir = "The router's run directory. [env: QUICKFIRE_DIR] [default: $XDG_RUNTIME_DIR/quickfire, else /tmp/quickfire-UID]";
    Command::new("inspect")
        .about("Shows counters, latencies and every call in flight, also of a router that died")
        .arg(Arg::new("dir").value_name("DIR").value_parser(value_parser!(PathBuf)).help(dir))
        .arg(
            Arg::new("all")
                .long("all")
                .action(clap::ArgAction::SetTrue)
                .help("Show counters that are zero too, each with its meaning"),
        )
        .after_help(format!(
            "Examples:\n  quickfire inspect\n  quickfire inspect /run/user/1000/quickfire --all\n\n{EXIT_CODES_HELP}"
        ))
}

/// Prints the report.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let run_dir = flags::run_dir(matches.get_one("dir"));
    let shows_all = matches.get_flag("all");
    let snapshots = Snapshots::read(&run_dir)?;
    let now_ns = now_ns();

    let mut out = format!("{}: {}\n", run_dir.display(), router_line(&snapshots));
    out.extend(snapshots.damage.iter().map(|damage| format!("  unreadable: {damage}\n")));
    out.push_str("\nfunctions\n");
    out.push_str(&functions::show(&functions::summed(&snapshots), now_ns));
    out.push_str("\nplacement\n");
    out.push_str(&placement::show(&snapshots.shards, &run_dir));
    out.push_str("\nlatencies\n");
    out.push_str(&latencies(&snapshots.shards));
    out.push_str("\ncalls in flight\n");
    out.push_str(&rings::show(&snapshots.shards, now_ns));
    for shard in &snapshots.shards {
        out.push_str(&format!("\n{}\n", shard_line(shard, now_ns)));
        out.push_str(&counters(shard, shows_all));
    }
    print(out)?;
    Ok(Ending::Ok)
}

fn router_line(snapshots: &Snapshots) -> String {
    let pid = snapshots.shards.first().map_or(0, |shard| shard.pid);
    match (snapshots.router_state(), &snapshots.holder) {
        ("running", Some(holder)) if *holder != format!("pid {pid}") => {
            format!("another router ({holder}) is starting; these are the last words of pid {pid}")
        }
        ("dead", _) => format!("the router is dead, pid {pid}; these are its last words"),
        (state, _) => format!("the router is {state}, pid {pid}"),
    }
}

fn shard_line(shard: &Snapshot, now_ns: u64) -> String {
    let age = table::length(now_ns.saturating_sub(shard.published_at_ns));
    let torn = if shard.is_torn { ", in the middle of a publishing: numbers may be from two" } else { "" };
    let workers = shard.workers.len();
    format!("shard {}: last said {}, published {age} ago{torn}, {workers} workers", shard.shard, shard.state)
}

fn counters(shard: &Snapshot, shows_all: bool) -> String {
    let shown = shard.counters.iter().filter(|counter| shows_all || counter.value != 0);
    let rows: Vec<_> = shown
        .map(|counter| {
            let value = match counter.unit.as_str() {
                "ns" => table::length(counter.value),
                _ => table::count(counter.value),
            };
            let mut row = vec![counter.name.clone(), value];
            if shows_all {
                row.push(format!("{}  {}", counter.unit, counter.meaning));
            }
            row
        })
        .collect();
    if shows_all {
        // Meanings read from the left; only the numbers line up to the right.
        let numbers: Vec<_> = rows.iter().map(|row| row[..2].to_vec()).collect();
        let lines = table::columns(&numbers);
        let meanings = rows.iter().filter_map(|row| row.get(2));
        return lines.lines().zip(meanings).map(|(line, meaning)| format!("{line}  {meaning}\n")).collect();
    }
    table::columns(&rows)
}

/// All shards together: a caller does not know which one served it.
fn latencies(shards: &[Snapshot]) -> String {
    let mut sums: Vec<Histogram> = Vec::new();
    for histogram in shards.iter().flat_map(|shard| &shard.histograms) {
        match sums.iter_mut().find(|sum| sum.name == histogram.name) {
            Some(sum) => sum.add(histogram),
            None => sums.push(histogram.clone()),
        }
    }
    let head = ["", "calls", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for sum in &sums {
        let meaning = match sum.name.as_str() {
            "total_ns" => "received to answered",
            "queue_wait_ns" => "waiting for a worker",
            "run_ns" => "running",
            other => other,
        };
        let mut row = vec![meaning.to_owned(), table::count(sum.count)];
        let shares = [0.5, 0.9, 0.99, 0.999, 1.0];
        row.extend(
            shares.map(
                |share| if sum.count == 0 { "-".into() } else { table::length(sum.percentile_ns(share)) },
            ),
        );
        rows.push(row);
    }
    table::columns(&rows)
}
