//! How many calls a second the whole system does when the caller always has a window of them outstanding.
//!
//! Targets: calls per second, their ratio to the floor's, CPU time of the router per call at saturation.

use super::{Bench, Experiment, NotMeasured, Plan};
use crate::floor::{Shape, Transport};
use crate::load::{self, Load, Pace};
use crate::quickfire::{Config, Router};

pub const TCP: Experiment = Experiment {
    name: "tcp-pipelined",
    what: "echo, 32 bytes, one TCP connection, closed loop",
    seconds,
    run: |bench| pipelined(bench, Transport::Tcp),
};

pub const SHM: Experiment = Experiment {
    name: "shm-pipelined",
    what: "the same over shared memory",
    seconds,
    run: |bench| pipelined(bench, Transport::Shm),
};

fn seconds(plan: &Plan) -> f64 {
    2.0 * plan.seconds + 1.0
}

fn pipelined(bench: &mut Bench<'_>, transport: Transport) -> Result<(), NotMeasured> {
    let (seconds, window) = (bench.plan.seconds, bench.plan.window);
    bench.floor(Shape { transport, window, message_size: 64, seconds })?;
    (bench.tell)("quickfire");
    let router = Router::start(&Config::echo(&bench.plan.host))?;
    let measured = load::run(&router, echo(transport, Pace::Window(window), seconds))?;
    bench.add_load("quickfire", &measured);
    Ok(())
}

/// One connection calling `echo` with 32 bytes.
pub fn echo(transport: Transport, pace: Pace, seconds: f64) -> Load {
    Load { function: "echo", transport, connections: 1, pace, payload_size: 32, seconds }
}
