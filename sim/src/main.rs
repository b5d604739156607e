//! `cargo run --release -p sim -- --seeds 1000`: the router's decisions, rings and process life on one thread, in
//! virtual time, with everything going wrong that can.
//!
//! In: a range of seeds.  Out: a line per hundred seeds; at the first broken contract the seed, what broke, the fewest
//! events with which it still breaks, their history, and the command that repeats exactly them.
//! Always: the same seed and options give the same run, step for step; they are printed before anything else.
//! Never: a clock, a thread, a socket or a process. What those do to the system is an event drawn from the seed.
//! Real here: `engine`, `shm-ring` (both ends, on heap memory), `worker-shim`'s life of a place. Modelled: callers,
//! functions, what is downstream of them, and the router's shell around the engine (`router/shard.rs`, which does what
//! `router/src/shard.rs` does).
//! Reading order: `contract.rs` (what is promised), `scenario.rs` and `plan.rs` (what happens), `world.rs` (the run),
//! `oracle.rs` and `rules.rs` (the judges), `shrink.rs`.  Page: docs/simulation.md.

#![forbid(unsafe_code)]

mod chance;
mod contract;
mod crowd;
mod day;
mod history;
mod oracle;
mod plan;
mod replay;
mod router;
mod rules;
mod scenario;
mod service;
mod shim;
mod shrink;
#[cfg(test)]
mod tests;
mod totals;
mod warming;
mod worker;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use protocol::recording::Recording;

use crate::contract::{CONTRACTS, Contract, Judge};
use crate::crowd::Flood;
use crate::day::{Order, Scale};
use crate::plan::Keep;
use crate::scenario::{SCENARIOS, Scenario};
use crate::shrink::Failure;
use crate::totals::Totals;
use crate::world::Options;

/// Simulates the system from seeds and checks its contracts after every step.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// How many seeds to run, counted from --first.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Repeat this one seed and print its whole history.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Events of each run, before it is drained and checked a last time.
    #[arg(long, default_value_t = 2_000)]
    steps: u32,
    /// Only this scenario, or only this contract; --list shows both.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Of the events of --seed only these, some of them shortened: 3,8-11,17/4.
    #[arg(long, requires = "seed")]
    keep: Option<Keep>,
    /// Show the scenarios and contracts, and end.
    #[arg(long)]
    list: bool,
    /// Run a recording of `quickfire record` through the engine instead, and compare how its calls end.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "only", "keep", "day"])]
    replay: Option<PathBuf>,
    /// Run the day at scale in three orders instead, print its table, and draw it into this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "only", "keep"])]
    day: Option<PathBuf>,
    /// Run a host with and without a tenant that floods it instead, print its table, and draw it into this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "only", "keep", "day"])]
    flood: Option<PathBuf>,
    /// Run two weeks of calls under policies that keep functions warm instead, print their table, and draw it into this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "seed", "only", "keep", "day", "flood"])]
    warming: Option<PathBuf>,
}

/// A minute of a host, for tens of thousands of calls of the others.
const FLOOD_NS: u64 = 60_000_000_000;

/// What `--only` chose.
#[derive(Clone, Copy, Default)]
struct Chosen {
    scenario: Option<&'static Scenario>,
    judge: Judge,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &arguments.replay {
        return replay_file(path);
    }
    if let Some(path) = &arguments.day {
        return draw_day(path, arguments.first);
    }
    if let Some(path) = &arguments.flood {
        return draw_flood(path, &arguments);
    }
    if let Some(path) = &arguments.warming {
        return draw_warming(path, arguments.first);
    }
    let chosen = match arguments.only.as_deref().map(choose).transpose() {
        Ok(chosen) => chosen.unwrap_or_default(),
        Err(name) => {
            eprintln!("sim: there is no scenario and no contract {name:?}; --list shows them");
            return ExitCode::FAILURE;
        }
    };
    let (first, count) = arguments.seed.map_or((arguments.first, arguments.seeds), |seed| (seed, 1));
    let only = arguments.only.as_deref().unwrap_or("everything there is");
    println!("sim: seeds {first} to {}, {} steps each, only {only}", first + count - 1, arguments.steps);
    // A failed assertion of ours is told with its seed and its history, not as it happens, and not once a run of the
    // many that make it small.
    std::panic::set_hook(Box::new(|_| {}));
    let mut total = Totals::default();
    for seed in first..first + count {
        let options = Options {
            seed,
            scenario: chosen.scenario.unwrap_or_else(|| scenario::of_seed(seed)),
            steps: arguments.steps,
            judge: chosen.judge,
            is_history_kept: arguments.seed.is_some(),
        };
        let keep = arguments.keep.clone().unwrap_or_else(|| Keep::all(arguments.steps));
        match shrink::run(options, &keep) {
            Ok(totals) => total.add(&totals),
            Err(failure) if arguments.keep.is_some() => return show(options, &failure),
            Err(failure) => return make_small(&arguments, options, keep, &failure),
        }
        if (seed - first + 1) % 100 == 0 {
            println!("sim: {} of {count} seeds held", seed - first + 1);
        }
    }
    println!("sim: {count} seeds held: {total}");
    ExitCode::SUCCESS
}

/// A recording, and what comes of it here.
fn replay_file(path: &Path) -> ExitCode {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    match read.and_then(|bytes| Recording::read(&bytes).map_err(|damaged| damaged.to_string())) {
        Ok(recording) => {
            println!("sim: {} calls of {}", recording.calls.len(), path.display());
            print!("{}", replay::replay(&recording));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("sim: {}: {why}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// The day at scale: a table for the page, and the drawing beside it.
fn draw_day(path: &Path, seed: u64) -> ExitCode {
    let Scale { worker_count, function_count, tenant_count } = day::FULL;
    println!(
        "sim: a day with seed {seed}: {worker_count} workers, {function_count} functions, {tenant_count} tenants"
    );
    let days = Order::ALL.map(|order| (order, day::run(order, day::FULL, seed)));
    println!("sim: {} calls in each order", days[0].1.call_count());
    days.iter().for_each(|(order, figures)| println!("{}", figures.row(order.name())));
    write(path, &day::draw(&days))
}

/// How long the others wait beside a flood: a table for the page, and the drawing beside it.
fn draw_flood(path: &Path, arguments: &Arguments) -> ExitCode {
    let options = Options {
        seed: arguments.first,
        scenario: scenario::of_seed(arguments.first),
        steps: arguments.steps,
        judge: Judge::default(),
        is_history_kept: false,
    };
    match Flood::run(options, FLOOD_NS) {
        Ok(flood) => {
            print!("{}", flood.rows());
            write(path, &flood.draw())
        }
        Err(broken) => {
            println!("sim: {broken}");
            ExitCode::FAILURE
        }
    }
}

/// What keeping functions warm costs and saves: a table for the page, and the drawing beside it.
fn draw_warming(path: &Path, seed: u64) -> ExitCode {
    println!("sim: two weeks with seed {seed}: {} applications", warming::APPLICATION_COUNT);
    let (policies, trace) = warming::run(warming::APPLICATION_COUNT, seed);
    println!("sim: {trace}");
    println!("{}", warming::HEAD);
    warming::rows(&policies).iter().for_each(|row| println!("{row}"));
    write(path, &warming::draw(&policies))
}

fn write(path: &Path, drawing: &str) -> ExitCode {
    match std::fs::write(path, drawing) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim: cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn choose(name: &str) -> Result<Chosen, String> {
    match (scenario::named(name), Contract::named(name)) {
        (Some(scenario), _) => Ok(Chosen { scenario: Some(scenario), judge: Judge::default() }),
        (None, Some(contract)) => Ok(Chosen { scenario: None, judge: Judge { only: Some(contract) } }),
        (None, None) => Err(name.to_owned()),
    }
}

fn list() {
    println!("scenarios:");
    for Scenario { name, about, .. } in SCENARIOS {
        println!("  {name:<16}{about}");
    }
    println!("contracts:");
    for (_, name, about) in CONTRACTS {
        println!("  {name:<16}{about}");
    }
}

fn show(options: Options, failure: &Failure) -> ExitCode {
    failure.history.print();
    println!("sim: seed {} ({}) BROKEN: {}", options.seed, options.scenario.name, failure.what);
    ExitCode::FAILURE
}

/// Says at once what broke, in case that somebody ends us, and then what is left of it when it is small.
fn make_small(arguments: &Arguments, options: Options, keep: Keep, failure: &Failure) -> ExitCode {
    let (seed, steps) = (options.seed, options.steps);
    let only = arguments.only.as_ref().map_or(String::new(), |name| format!(" --only {name}"));
    let repeat = format!("cargo run --release -p sim -- --seed {seed} --steps {steps}{only}");
    println!("sim: seed {seed} ({}) BROKEN: {}", options.scenario.name, failure.what);
    println!("sim: after {} events; repeat with: {repeat}", failure.event_count);
    let (keep, run_count) = shrink::shrink(options, keep, failure);
    println!("sim: {run_count} runs made it {} events:", keep.kept().len());
    if let Err(failure) = shrink::run(Options { is_history_kept: true, ..options }, &keep) {
        failure.history.print();
        println!("sim: {}", failure.what);
    }
    println!("sim: repeat with: {repeat} --keep {keep}");
    ExitCode::FAILURE
}
