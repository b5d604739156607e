//! The simulator itself: it repeats what it did, and it does what it says.

use crate::contract::{CONTRACTS, Judge};
use crate::plan::Keep;
use crate::scenario::{self, SCENARIOS, Scenario};
use crate::shrink;
use crate::totals::Totals;
use crate::world::Options;

const STEPS: u32 = 1_000;

fn run(seed: u64) -> Totals {
    run_scenario(seed, scenario::of_seed(seed))
}

fn run_scenario(seed: u64, scenario: &'static Scenario) -> Totals {
    let options = Options { seed, scenario, steps: STEPS, judge: Judge::default(), is_history_kept: false };
    match shrink::run(options, &Keep::all(STEPS)) {
        Ok(totals) => totals,
        Err(failure) => panic!("seed {seed} of {STEPS} steps: {}", failure.what),
    }
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 1..=SCENARIOS.len() as u64 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn every_fault_and_nearly_every_answer_happens_within_a_few_seeds() {
    let mut total = Totals::default();
    for seed in 1..=4 * SCENARIOS.len() as u64 {
        total.add(&run(seed));
    }
    // An open breaker refuses somebody in about one run of these in five.
    let guards = scenario::named("guards").expect("a scenario of this name");
    (1..=20).for_each(|seed| total.add(&run_scenario(seed, guards)));
    assert!(total.starts > 1_000, "{total}");
    for (what, count) in [
        ("deaths of workers", total.worker_deaths),
        ("deaths of routers", total.router_deaths),
        ("deaths of shims", total.shim_deaths),
        ("workers that attached again", total.reattachments),
        ("scribbles", total.scribbles),
        ("quarantines", total.quarantines),
        ("reloads", total.reloads),
        ("leases", total.leases),
        ("retries", total.retries),
        ("opened breakers", total.breakers_opened),
        ("nested calls", total.nested),
        ("circles of nested calls", total.circles),
        ("second attempts", total.hedges),
        ("joined calls", total.joins),
        ("later starts", total.later),
        ("limits that fell", total.falls),
        ("pools that grew", total.pool_growths),
        ("instances that were sent away", total.pool_releases),
    ] {
        assert!(count > 0, "no {what}: {total}");
    }
    for status in
        ["ok", "function_error", "result_too_large", "expired", "timed_out", "cancelled", "worker_lost"]
    {
        assert!(total.answers.contains_key(status), "nobody was answered {status}: {total}");
    }
    for status in [
        "deadline_passed",
        "overloaded",
        "queue_full",
        "no_worker",
        "unknown_function",
        "rate_limited",
        "breaker_open",
        "would_deadlock",
        "start_too_late",
    ] {
        assert!(total.refusals.contains_key(status), "nobody was refused as {status}: {total}");
    }
}

#[test]
fn what_is_left_out_does_not_happen() {
    let options = Options {
        seed: 7,
        scenario: &SCENARIOS[0],
        steps: STEPS,
        judge: Judge::default(),
        is_history_kept: false,
    };
    let totals = shrink::run(options, &Keep::only(vec![])).expect("nothing can break when nothing happens");
    assert_eq!(totals, Totals::default());
}

#[test]
fn the_page_has_a_row_for_each_scenario_and_each_contract() {
    let page = include_str!("../../docs/simulation.md");
    let names = SCENARIOS.iter().map(|scenario| scenario.name).chain(CONTRACTS.iter().map(|row| row.1));
    for name in names {
        assert!(page.contains(&format!("\n| `{name}` | ")), "docs/simulation.md has no row for {name}");
    }
}
