//! `cargo run --release -p sim -- --seeds 500`: the router's decisions, rings and process life on one thread, in
//! virtual time, with everything going wrong that can.
//!
//! In: a range of seeds.  Out: a line per hundred seeds; at the first broken contract the seed, the options, and
//! the last events before it.
//! Always: the same seed and options give the same run, step for step; they are printed before anything else.
//! Never: a clock, a thread, a socket or a process. What those do to the system is a fault drawn from the seed.
//! Real here: `engine`, `shm-ring` (both ends, on heap memory), `worker-shim`'s life of a place. Modelled: callers,
//! functions, and the router's shell around the engine (`router.rs`, which does what `router/src/shard.rs` does).

#![forbid(unsafe_code)]

mod chance;
mod history;
mod oracle;
mod router;
mod shim;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use crate::world::{Options, World};

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
    /// Replay this one seed and print its whole history.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Steps of each run, before it is drained and checked a last time.
    #[arg(long, default_value_t = 2_000)]
    steps: u32,
    /// Leave out crashes, stalls and scribbling workers.
    #[arg(long)]
    no_faults: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options { steps: arguments.steps, has_faults: !arguments.no_faults };
    let (first, count) = arguments.seed.map_or((arguments.first, arguments.seeds), |seed| (seed, 1));
    println!("sim: seeds {first}..{}, {options:?}", first + count);
    let mut total = world::Totals::default();
    for seed in first..first + count {
        let mut world = World::new(seed, options);
        // A broken invariant of ours is an assertion: caught here so that the seed and the history are printed.
        let result = catch_unwind(AssertUnwindSafe(|| world.run()));
        if arguments.seed.is_some() {
            world.history.print_all();
        }
        match result {
            Ok(Ok(totals)) => total.add(&totals),
            Ok(Err(broken)) => return failed(seed, options, &world, &broken.to_string()),
            Err(_) => return failed(seed, options, &world, "an assertion failed (see above)"),
        }
        if (seed - first + 1) % 100 == 0 {
            println!("sim: {} of {count} seeds held", seed - first + 1);
        }
    }
    println!("sim: {count} seeds held: {total}");
    ExitCode::SUCCESS
}

fn failed(seed: u64, options: Options, world: &World, what: &str) -> ExitCode {
    println!("sim: seed {seed} BROKEN: {what}");
    println!("sim: replay with: cargo run --release -p sim -- --seed {seed} --steps {}", options.steps);
    world.history.print_last(40);
    ExitCode::FAILURE
}
