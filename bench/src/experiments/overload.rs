//! What is left of a function when twice and ten times as many calls come as it can do.
//!
//! The function waits 2 ms for each call, as one that asks a database does, in eight processes. What it can do is measured
//! first, in the same run. Then calls of normal criticality come at random at twice and at ten times that rate, each on a
//! router of its own, beside critical calls at a tenth of capacity; and critical calls alone, to compare. At ten times, critical
//! calls at half of capacity are measured too.
//!
//! What a refusal costs the router is what the flood costs it beyond the served calls, over the refusals. What a served
//! call costs is what it costs in the closed loop: there the router is as busy as it gets without a flood, which makes
//! served calls cheap and refusals look dear. Measured of a flood that comes call by call, where what receiving a segment
//! costs hides what a refusal does, and of one that comes in bursts, as from a client that sends what it has. And of the critical
//! calls nearly every one has to be served: how many were is shown too.

use super::{Bench, Experiment, NotMeasured};
use crate::floor::Transport;
use crate::load::{self, Load, Measured, Pace};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

const PROCESSES: u32 = 8;
const RUN_US: u32 = 2_000;
/// Enough to keep every process in work, and few enough that what waits is answered in time.
const CAPACITY_WINDOW: u32 = 4 * PROCESSES;
/// Calls that the flood in bursts sends at once.
const BURST: u32 = 64;
/// What waits longer than this is of no use to its caller: early refusal is what keeps the queue short.
const QUEUE_DELAY_MAX: &str = "queue_delay_max = \"50ms\"";

pub const OVERLOAD: Experiment = Experiment {
    name: "overload",
    what: "2 and 10 times the calls that a function can do, beside critical ones",
    seconds: |plan| 7.0 * plan.seconds + 5.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    (bench.tell)("capacity");
    let closed = load::run(&start(bench)?, calls(Pace::Window(CAPACITY_WINDOW), "normal", bench))?;
    let peak = closed.calls_per_s;
    bench.add("capacity/calls_per_s", Unit::CallsPerS, peak);
    let served_ns = closed.middle_cpu_ns_per_call;
    bench.add("capacity/middle_cpu", Unit::NsPerCall, served_ns);
    for (share, floods) in [
        (Share { name: "tenth", of: 0.1 }, &[("twice", 2.0), ("tenfold", 10.0)][..]),
        (Share { name: "half", of: 0.5 }, &[("tenfold", 10.0)][..]),
    ] {
        beside_floods(bench, peak, served_ns, &share, floods)?;
    }
    (bench.tell)("bursts");
    let router = start(bench)?;
    let before = router.spent().router_ns;
    let flood = load::run(&router, calls(Pace::Bursts(peak * 10.0, BURST), "normal", bench))?;
    // All of the router's time is put down to the refusals: in bursts served calls cost less than in the closed loop, by
    // an amount that nobody knows.
    note_refusals(bench, "bursts", (router.spent().router_ns - before) as f64, &[&flood], 0.0);
    Ok(())
}

/// Critical calls, as a part of what the function can do.
struct Share {
    name: &'static str,
    of: f64,
}

/// The critical calls of a share alone, and beside floods of so many times what the function can do.
fn beside_floods(
    bench: &mut Bench<'_>,
    peak: f64,
    served_ns: f64,
    share: &Share,
    floods: &[(&str, f64)],
) -> Result<(), NotMeasured> {
    (bench.tell)(&format!("critical alone, a {}", share.name));
    let critical = calls(Pace::Rate(peak * share.of), "critical", bench);
    let alone = load::run(&start(bench)?, critical)?;
    bench.add_load(&format!("alone-{}", share.name), &alone);
    for (times_name, times) in floods {
        let side = format!("{times_name}-{}", share.name);
        (bench.tell)(&side);
        let router = start(bench)?;
        let before = router.spent().router_ns;
        let flood = load::start(&router, calls(Pace::Rate(peak * times), "normal", bench))?;
        let critical = load::start(&router, critical)?.finish(&router)?;
        let flood = flood.finish(&router)?;
        let spent_ns = (router.spent().router_ns - before) as f64;
        bench.add_load(&format!("{side}-critical"), &critical);
        let asked = (critical.calls + critical.refused).max(1) as f64;
        bench.add(&format!("{side}-critical/served"), Unit::Percent, 100.0 * critical.calls as f64 / asked);
        bench.add(&format!("{side}/goodput"), Unit::CallsPerS, flood.calls_per_s + critical.calls_per_s);
        bench.add(&format!("{side}/late_sends"), Unit::Percent, flood.late_percent);
        note_refusals(bench, &side, spent_ns, &[&flood, &critical], served_ns);
    }
    Ok(())
}

/// How many were refused, and what each of them cost.
fn note_refusals(bench: &mut Bench<'_>, side: &str, spent_ns: f64, loads: &[&Measured], served_ns: f64) {
    bench.add(&format!("{side}/refused"), Unit::Count, refusals(loads));
    if let Some(cost) = refusal_ns(spent_ns, loads, served_ns) {
        bench.add(&format!("{side}/refusal_cpu"), Unit::NsPerCall, cost);
    }
}

fn start(bench: &Bench<'_>) -> std::io::Result<Router> {
    Router::start(&Config::new(&bench.plan.host).waiting("wait", RUN_US, PROCESSES, QUEUE_DELAY_MAX))
}

fn calls(pace: Pace, criticality: &'static str, bench: &Bench<'_>) -> Load {
    Load {
        function: "wait",
        transport: Transport::Tcp,
        connections: 1,
        pace,
        payload_size: 32,
        seconds: bench.plan.seconds,
        criticality,
        may_be_refused: true,
    }
}

fn refusals(loads: &[&Measured]) -> f64 {
    loads.iter().map(|load| load.refused as f64).sum()
}

/// CPU time beyond that of the calls that were served, over the calls that were not. `None`: none was refused.
fn refusal_ns(spent_ns: f64, loads: &[&Measured], served_ns: f64) -> Option<f64> {
    let refused = refusals(loads);
    let served: f64 = loads.iter().map(|load| load.calls as f64).sum();
    (refused > 0.0).then(|| (spent_ns - served * served_ns).max(0.0) / refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_costs_what_served_calls_do_not() {
        let load = Measured { calls: 100, refused: 400, ..Measured::default() };
        assert_eq!(refusal_ns(3_000.0, &[&load], 10.0), Some(5.0));
        assert_eq!(refusal_ns(3_000.0, &[&Measured::default()], 10.0), None);
    }
}
