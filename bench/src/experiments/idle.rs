//! What it costs to be ready: ten thousand connections and a hundred warm processes, and nobody calls.

use std::time::{Duration, Instant};

use super::{Bench, Experiment, NotMeasured};
use crate::process;
use crate::quickfire::{Config, Router};
use crate::series::Unit;
use crate::wire::Conversation;

const CONNECTIONS: usize = 10_000;
const WORKERS: u32 = 100;
/// Until whoever was busy with starting has gone to sleep.
const SETTLE: Duration = Duration::from_secs(2);

pub const IDLE: Experiment = Experiment {
    name: "idle",
    what: "10,000 connections, 100 warm processes, no calls",
    seconds: |plan| plan.seconds + 5.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    process::raise_descriptor_limit();
    (bench.tell)("starting");
    let router = Router::start(&Config::new(&bench.plan.host).function("noop", "noop", WORKERS))?;
    let connections = (0..CONNECTIONS)
        .map(|_| Conversation::open(router.address(), 0))
        .collect::<std::io::Result<Vec<_>>>()?;
    std::thread::sleep(SETTLE);
    (bench.tell)("watching");
    let (before, started) = (router.spent(), Instant::now());
    std::thread::sleep(Duration::from_secs_f64(bench.plan.seconds));
    let (after, elapsed) = (router.spent(), started.elapsed());
    let spent_ns = after.router_ns - before.router_ns + after.workers_ns.saturating_sub(before.workers_ns);
    bench.add("system/cpu", Unit::Percent, 100.0 * spent_ns as f64 / elapsed.as_nanos() as f64);
    bench.add("router/resident", Unit::Bytes, router.resident_size() as f64);
    drop(connections);
    Ok(())
}
