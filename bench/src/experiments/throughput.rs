//! How many calls a second the whole system does when the caller always has a window of them outstanding.
//!
//! Targets: calls per second, their ratio to the floor's, CPU time of the router per call at saturation.
//! A window that is too small leaves somebody without work, one that is too large leaves the caches, and floor and
//! Quickfire do not differ in what is too large for the same reason. So each side runs with every window in each run, and
//! its best one counts.

use super::{Bench, Experiment, NotMeasured, Plan};
use crate::floor::{self, Shape, Transport};
use crate::load::{self, Load, Pace};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

/// A client's ring has at most 4,096 slots, so that over shared memory more is not to be had. Below the smallest both sides
/// fall off.
const WINDOWS_TCP: &[u32] = &[1_024, 2_048, 4_096, 8_192];
const WINDOWS_SHM: &[u32] = &[1_024, 2_048, 4_096];

pub const TCP: Experiment = Experiment {
    name: "tcp-pipelined",
    what: "echo, 32 bytes, one TCP connection, closed loop",
    seconds: |plan| seconds(plan, WINDOWS_TCP),
    run: |bench| pipelined(bench, Transport::Tcp, WINDOWS_TCP),
};

pub const SHM: Experiment = Experiment {
    name: "shm-pipelined",
    what: "the same over shared memory",
    seconds: |plan| seconds(plan, WINDOWS_SHM),
    run: |bench| pipelined(bench, Transport::Shm, WINDOWS_SHM),
};

fn seconds(plan: &Plan, windows: &[u32]) -> f64 {
    windows.len() as f64 * (2.0 * plan.seconds + 1.0)
}

fn pipelined(bench: &mut Bench<'_>, transport: Transport, windows: &[u32]) -> Result<(), NotMeasured> {
    let seconds = bench.plan.seconds;
    let (mut floor_best, mut best) = (None, None);
    for &window in windows {
        (bench.tell)(&format!("floor, window {window}"));
        let measured = floor::run(Shape { transport, window, message_size: 64, seconds })?;
        keep_best(bench, "floor", window, measured.calls_per_s, measured, &mut floor_best);
        (bench.tell)(&format!("quickfire, window {window}"));
        let router = Router::start(&Config::echo(&bench.plan.host))?;
        let measured = load::run(&router, echo(transport, Pace::Window(window), seconds))?;
        keep_best(bench, "quickfire", window, measured.calls_per_s, measured, &mut best);
    }
    if let Some(Best { window, measured, .. }) = floor_best {
        bench.add("floor/window", Unit::Count, f64::from(window));
        bench.add_floor(&measured);
    }
    if let Some(Best { window, measured, .. }) = best {
        bench.add("quickfire/window", Unit::Count, f64::from(window));
        bench.add_load("quickfire", &measured);
    }
    Ok(())
}

/// What the best window so far gave.
struct Best<T> {
    window: u32,
    calls_per_s: f64,
    measured: T,
}

fn keep_best<T>(
    bench: &mut Bench<'_>,
    side: &str,
    window: u32,
    calls_per_s: f64,
    measured: T,
    best: &mut Option<Best<T>>,
) {
    bench.add(&format!("{side}-{window}/calls_per_s"), Unit::CallsPerS, calls_per_s);
    if best.as_ref().is_none_or(|best| calls_per_s > best.calls_per_s) {
        *best = Some(Best { window, calls_per_s, measured });
    }
}

/// One connection calling `echo` with 32 bytes.
pub fn echo(transport: Transport, pace: Pace, seconds: f64) -> Load {
    Load {
        function: "echo",
        transport,
        connections: 1,
        pace,
        payload_size: 32,
        seconds,
        criticality: "normal",
        may_be_refused: false,
    }
}
