//! What one tenant feels of another that asks for a thousand times its share.
//!
//! Two tenants of equal weight share one place (`running_max = 1`); each has a function with one process whose calls take
//! 5 ms. One tenant calls at a quarter of its share, evenly, alone and beside the other, whose calls come at random and a
//! thousand times as fast as its share allows.
//!
//! The bound is that of docs/decisions/0018-fairness.md: who is within its share waits for the place to become free, which
//! is one call of the other, and for a quantum of each other tenant that is within its share, of which there is none. So
//! the 99th percentile may move by a call's length and the quantum at the most. The length is measured: alone, a call's
//! latency is its run. Evenly, because the bound is for who is within its share: of calls that come at random some come
//! together, and the second of two has a turn of the other before it.

use super::{Bench, Experiment, NotMeasured};
use crate::floor::Transport;
use crate::load::{self, Load, Pace};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

const RUN_US: u32 = 5_000;
/// Of each of two tenants of equal weight, in calls per second.
const SHARE: f64 = 1e6 / RUN_US as f64 / 2.0;
const FLOOD_TIMES: f64 = 1_000.0;
/// 100 us times a weight of one.
const QUANTUM_NS: f64 = 100e3;

pub const FAIRNESS: Experiment = Experiment {
    name: "fairness",
    what: "a tenant within its share, alone and beside one that asks for 1,000 times its own",
    seconds: |plan| 2.0 * LENGTH_TIMES * plan.seconds + 2.0,
    run,
};

/// A 99th percentile of a few calls a second needs time.
const LENGTH_TIMES: f64 = 2.0;

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    let quiet = calls("quiet", Pace::Even(SHARE / 4.0), bench);
    (bench.tell)("alone");
    let alone = load::run(&start(bench)?, quiet)?;
    bench.add_load("alone", &alone);
    (bench.tell)("beside a flood");
    let router = start(bench)?;
    let flood = load::start(&router, calls("loud", Pace::Rate(SHARE * FLOOD_TIMES), bench))?;
    let beside = load::start(&router, quiet)?.finish(&router)?;
    let flood = flood.finish(&router)?;
    bench.add_load("beside", &beside);
    bench.add("flood/calls_per_s", Unit::CallsPerS, flood.calls_per_s);
    bench.add("flood/late_sends", Unit::Percent, flood.late_percent);
    let moved_ns = beside.latency_ns_p99 - alone.latency_ns_p99;
    bench.add("beside/moved", Unit::Ns, moved_ns.max(0.0));
    bench.add("bound/moved", Unit::Ns, alone.latency_ns_p50 + QUANTUM_NS);
    Ok(())
}

fn start(bench: &Bench<'_>) -> std::io::Result<Router> {
    let config = Config::new(&bench.plan.host).set("running_max = 1").tenant("loud", "").tenant("quiet", "");
    let config = ["loud", "quiet"].into_iter().fold(config, |config, name| {
        config.waiting(name, RUN_US, 1, &format!("tenant = \"{name}\"\nqueue_count_max = 1000"))
    });
    Router::start(&config)
}

fn calls(function: &'static str, pace: Pace, bench: &Bench<'_>) -> Load {
    Load {
        function,
        transport: Transport::Tcp,
        connections: 1,
        pace,
        payload_size: 32,
        seconds: LENGTH_TIMES * bench.plan.seconds,
        criticality: "normal",
        may_be_refused: function == "loud",
    }
}
