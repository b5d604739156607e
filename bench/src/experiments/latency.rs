//! How long a call takes that finds the system empty: one outstanding, the next one sent when the answer is there.
//!
//! Targets: median and 99th percentile against the floor's, and no slow call at all.
//! Quickfire runs four times as long as the floor: five runs then make about a million calls, and it is the rarest one
//! that is looked for.

use super::throughput::echo;
use super::{Bench, Experiment, NotMeasured, Plan};
use crate::floor::{Shape, Transport};
use crate::load::{self, Pace};
use crate::quickfire::{Config, Router};

const QUICKFIRE_TIMES: f64 = 4.0;

pub const SHM: Experiment = Experiment {
    name: "shm-latency",
    what: "one call outstanding over shared memory",
    seconds,
    run: |bench| unloaded(bench, Transport::Shm),
};

pub const UNIX: Experiment = Experiment {
    name: "unix-latency",
    what: "one call outstanding over a Unix socket",
    seconds,
    run: |bench| unloaded(bench, Transport::Unix),
};

pub const TCP: Experiment = Experiment {
    name: "tcp-latency",
    what: "one call outstanding over TCP",
    seconds,
    run: |bench| unloaded(bench, Transport::Tcp),
};

fn seconds(plan: &Plan) -> f64 {
    (1.0 + QUICKFIRE_TIMES) * plan.seconds + 1.0
}

fn unloaded(bench: &mut Bench<'_>, transport: Transport) -> Result<(), NotMeasured> {
    let seconds = bench.plan.seconds;
    bench.floor(Shape { transport, window: 1, message_size: 64, seconds })?;
    (bench.tell)("quickfire");
    let router = Router::start(&Config::echo(&bench.plan.host))?;
    let measured = load::run(&router, echo(transport, Pace::Window(1), QUICKFIRE_TIMES * seconds))?;
    bench.add_load("quickfire", &measured);
    Ok(())
}
