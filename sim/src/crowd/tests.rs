//! The crowd itself: what its scenarios are about does happen.

use super::*;
use crate::contract::Judge;
use crate::scenario;

fn options(name: &str, seed: u64) -> Options {
    let scenario = scenario::named(name).expect("a scenario of this name");
    Options { seed, scenario, steps: 2_000, judge: Judge::default(), is_history_kept: false }
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
