//! What policies cost together: the pipelined experiments with every one of them on, beside the same without.
//!
//! On are a bound of running processes with two tenants that have weights, rates and concurrency, and for the function a
//! rate, concurrency, a queue bounded in time, slow start, a breaker, retries with a budget, and ageing. All bounds are
//! wider than what comes: it is their work that is measured, not their refusals.

use super::throughput::echo;
use super::{Bench, Experiment, NotMeasured};
use crate::floor::Transport;
use crate::load::{self, Pace};
use crate::quickfire::{Config, Router};

/// Calls outstanding: all fit into the worker's slots, so that a queue is there because of a policy or not at all.
const WINDOW: u32 = 1_024;

pub const POLICIES: Experiment = Experiment {
    name: "policies",
    what: "echo, pipelined, with every policy on, beside the same with none",
    seconds: |plan| 4.0 * plan.seconds + 2.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    for (name, transport) in [("tcp", Transport::Tcp), ("shm", Transport::Shm)] {
        for (side, config) in [("off", Config::echo(&bench.plan.host)), ("on", all_on(&bench.plan.host))] {
            let side = format!("{name}-{side}");
            (bench.tell)(&side);
            let router = Router::start(&config)?;
            let measured = load::run(&router, echo(transport, Pace::Window(WINDOW), bench.plan.seconds))?;
            bench.add_load(&side, &measured);
        }
    }
    Ok(())
}

fn all_on(host: &str) -> Config {
    Config::new(host)
        .set("running_max = 2")
        .tenant("other", "weight = 1")
        .tenant("owner", "weight = 3\nrate = 10000000\nrate_burst = 1000000\nconcurrency_max = 1000000")
        .function_with(
            "echo",
            "echo",
            1,
            "tenant = \"owner\"\nidempotent = true\nageing = \"1s\"\nrate = 10000000\nrate_burst = 1000000\n\
             concurrency_max = 1000000\nqueue_delay_max = \"1h\"\nslow_start = true\n\
             slow_start_calls = 1000000000\nbreaker_failure_percent = 50\nretries = 3\nretry_errors = true\n\
             retry_backoff = \"1ms\"",
        )
}
