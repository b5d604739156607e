//! The crowd itself, and the figure of the page: how far a flood moves another tenant's delays.

use super::*;
use crate::contract::Judge;
use crate::scenario;

fn options(name: &str, seed: u64) -> Options {
    let scenario = scenario::named(name).expect("a scenario of this name");
    Options { seed, scenario, steps: 2_000, judge: Judge::default(), is_history_kept: false }
}

/// The delay that 99 of 100 calls of others do not exceed, on a host on which somebody floods or nobody does.
fn delay_p99_ns(is_flooded: bool) -> (u64, u64) {
    let mut crowd = Crowd::new(options("neighbours", 7), Matter::Neighbours);
    for tenant in &mut crowd.tenants {
        tenant.is_flooding &= is_flooded;
    }
    let mut delays_ns = Vec::new();
    let bounds = (0..crowd.tenants.len()).map(|number| crowd.delay_max_ns(number));
    let bound_ns = bounds.max().expect("there are tenants");
    let totals = crowd.run(&Keep::all(10_000)).unwrap_or_else(|broken| panic!("{broken}"));
    delays_ns.extend(totals.delays_ns);
    delays_ns.sort_unstable();
    assert!(delays_ns.len() >= 1_000, "{} delays", delays_ns.len());
    (delays_ns[delays_ns.len() * 99 / 100], bound_ns)
}

#[test]
fn a_flood_moves_the_delays_of_others_by_no_more_than_the_bound() {
    let ((alone_ns, _), (flooded_ns, bound_ns)) = (delay_p99_ns(false), delay_p99_ns(true));
    println!("p99 of the delay: {alone_ns} ns alone, {flooded_ns} ns beside a flood, bound {bound_ns} ns");
    assert!(flooded_ns > alone_ns, "the flood is felt");
    assert!(flooded_ns - alone_ns <= bound_ns, "{alone_ns} ns alone, {flooded_ns} ns beside a flood");
}

#[test]
fn calls_wait_and_are_refused_where_limits_are_met() {
    for (name, matter) in [("shards", Matter::Shards), ("queue-delay", Matter::QueueDelay)] {
        let mut total = Totals::default();
        for seed in 1..=10 {
            let mut crowd = Crowd::new(options(name, seed), matter);
            total.add(
                &crowd
                    .run(&Keep::all(2_000))
                    .unwrap_or_else(|broken| panic!("{name}, seed {seed}: {broken}")),
            );
        }
        assert!(total.starts > 1_000, "{name}: {total}");
        match matter {
            Matter::Shards => assert!(total.worker_deaths > 0 && total.reloads > 0, "{total}"),
            _ => assert!(total.refusals.contains_key("queue_full"), "{total}"),
        }
    }
}
