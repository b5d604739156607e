//! How long calls take when they come at random from many callers and the system is half busy.
//!
//! What half busy means is measured first, in the same run: a closed loop for its capacity, then an open loop with
//! Poisson arrivals at half of that. Late sends tell whether the generator kept its schedule; if it did not, the
//! latencies are partly its own.

use super::throughput::echo;
use super::{Bench, Experiment, NotMeasured, Plan};
use crate::floor::Transport;
use crate::load::{self, Pace};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

pub const SHM: Experiment = Experiment {
    name: "shm-open-loop",
    what: "Poisson arrivals at half of the measured capacity, over shared memory",
    seconds,
    run: |bench| half_busy(bench, Transport::Shm),
};

pub const TCP: Experiment = Experiment {
    name: "tcp-open-loop",
    what: "Poisson arrivals at half of the measured capacity, over TCP",
    seconds,
    run: |bench| half_busy(bench, Transport::Tcp),
};

fn seconds(plan: &Plan) -> f64 {
    2.0 * plan.seconds + 1.0
}

fn half_busy(bench: &mut Bench<'_>, transport: Transport) -> Result<(), NotMeasured> {
    let (seconds, window) = (bench.plan.seconds, bench.plan.window);
    let router = Router::start(&Config::echo(&bench.plan.host))?;
    (bench.tell)("capacity");
    let capacity = load::run(&router, echo(transport, Pace::Window(window), seconds))?.calls_per_s;
    bench.add("capacity/calls_per_s", Unit::CallsPerS, capacity);
    (bench.tell)("half of it");
    let measured = load::run(&router, echo(transport, Pace::Rate(capacity / 2.0), seconds))?;
    bench.add_load("quickfire", &measured);
    Ok(())
}
