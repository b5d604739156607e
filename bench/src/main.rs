//! `cargo run --release -p bench`: Quickfire beside the floor, in one run, as ratios.
//!
//! In: the release build of `quickfire` beside this program (built when missing).  Out: a table, and with
//! `--save` the raw figures under `bench/baselines/<date>-<machine>/`.
//! Always: floor and Quickfire take turns, so that a slow spell of the machine meets both; medians with spread.
//! Never: a target. What must hold is written in `docs/promises.md`; this prints what was seen.

#![forbid(unsafe_code)]

mod floor;
mod machine;
mod quickfire;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::floor::Transport;

/// Compares Quickfire with the feature-less floor on this machine.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Length of each measurement, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measurements of each kind; the median and the spread are shown.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Calls outstanding in the pipelined runs.
    #[arg(long, default_value_t = 8192)]
    window: u32,
    /// Where each shard thread is hosted: bare or glommio.
    #[arg(long, default_value = "bare")]
    host: String,
    /// Compare the two hosts with each other instead of Quickfire with the floor.
    #[arg(long)]
    hosts: bool,
    /// Keep the raw figures under bench/baselines/.
    #[arg(long)]
    save: bool,
}

#[derive(Subcommand)]
enum Role {
    /// One process of the floor; started by this program only.
    #[command(hide = true)]
    FloorRole { name: String, transport: Transport, dir: PathBuf, window: u32, seconds: f64 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.role {
        Some(Role::FloorRole { name, transport, dir, window, seconds }) => floor::roles::run(
            name,
            &floor::roles::Task {
                dir,
                transport: *transport,
                window: *window,
                duration: Duration::from_secs_f64(*seconds),
            },
        ),
        None if arguments.hosts => compare_hosts(&arguments),
        None => compare_with_floor(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare_with_floor(arguments: &Arguments) -> std::io::Result<()> {
    let mut rows = table::Table::new("Quickfire beside the floor");
    let router = quickfire::Router::start(&arguments.host)?;
    for run in 1..=arguments.runs {
        eprintln!("run {run} of {}: floor over TCP, pipelined", arguments.runs);
        rows.floor("floor-tcp pipelined", &floor::run(Transport::Tcp, arguments.window, arguments.seconds)?);
        eprintln!("run {run} of {}: quickfire over TCP, pipelined", arguments.runs);
        rows.quickfire("quickfire-tcp pipelined", &router.load("echo", arguments.window, arguments.seconds)?);
        eprintln!("run {run} of {}: floor over shared memory, pipelined", arguments.runs);
        rows.floor("floor-shm pipelined", &floor::run(Transport::Shm, arguments.window, arguments.seconds)?);
        eprintln!("run {run} of {}: one call outstanding", arguments.runs);
        rows.floor("floor-tcp one outstanding", &floor::run(Transport::Tcp, 1, arguments.seconds)?);
        rows.quickfire("quickfire-tcp one outstanding", &router.load("echo", 1, arguments.seconds)?);
        rows.floor("floor-shm one outstanding", &floor::run(Transport::Shm, 1, arguments.seconds)?);
    }
    rows.ratio("quickfire-tcp pipelined", "floor-tcp pipelined");
    rows.ratio("quickfire-tcp pipelined", "floor-shm pipelined");
    rows.ratio("quickfire-tcp one outstanding", "floor-tcp one outstanding");
    finish(arguments, rows, "floor")
}

fn compare_hosts(arguments: &Arguments) -> std::io::Result<()> {
    let mut rows = table::Table::new("Hosting a shard: a bare thread beside glommio's executor");
    for run in 1..=arguments.runs {
        for host in ["bare", "glommio"] {
            eprintln!("run {run} of {}: {host}", arguments.runs);
            let router = quickfire::Router::start(host)?;
            let row = format!("{host} pipelined");
            rows.quickfire(&row, &router.load("echo", arguments.window, arguments.seconds)?);
            let row = format!("{host} one outstanding");
            rows.quickfire(&row, &router.load("echo", 1, arguments.seconds)?);
        }
    }
    rows.ratio("glommio pipelined", "bare pipelined");
    rows.ratio("glommio one outstanding", "bare one outstanding");
    finish(arguments, rows, "hosts")
}

fn finish(arguments: &Arguments, rows: table::Table, name: &str) -> std::io::Result<()> {
    print!("{rows}");
    if arguments.save {
        let path = machine::baseline_dir()?.join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_string_pretty(&rows.raw(arguments.window, arguments.seconds))?)?;
        println!("raw figures: {}", path.display());
    }
    Ok(())
}
