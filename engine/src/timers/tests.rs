use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn due_at(timers: &mut Timers, now: Nanos) -> Vec<u32> {
    let mut visits = u32::MAX;
    std::iter::from_fn(|| timers.pop_due(now, &mut visits)).collect()
}

fn with_room() -> Timers {
    let mut timers = Timers::new();
    timers.grow_to(64);
    timers
}

#[test]
fn a_timer_fires_never_early_and_at_most_one_tick_late() {
    let mut timers = with_room();
    let at = Nanos(10 * TICK.0 + 1);
    timers.arm(3, at);

    assert_eq!(due_at(&mut timers, Nanos(at.0 - 1)), Vec::<u32>::new());
    assert_eq!(timers.next(), Some(Nanos(11 * TICK.0)));
    assert_eq!(due_at(&mut timers, Nanos(11 * TICK.0)), [3]);
    assert_eq!(timers.next(), None);
}

#[test]
fn a_timer_further_than_one_turn_waits_for_its_own_turn() {
    let mut timers = with_room();
    let turn = SLOT_COUNT as u64 * TICK.0;
    timers.arm(1, Nanos(2 * turn + 5 * TICK.0));
    timers.arm(2, Nanos(5 * TICK.0));

    assert_eq!(due_at(&mut timers, Nanos(6 * TICK.0)), [2]);
    assert_eq!(due_at(&mut timers, Nanos(turn + 6 * TICK.0)), Vec::<u32>::new());
    assert_eq!(due_at(&mut timers, Nanos(2 * turn + 6 * TICK.0)), [1]);
}

#[test]
fn a_clock_jump_of_hours_looks_at_each_timer_once() {
    let mut timers = with_room();
    for index in 0..64 {
        timers.arm(index, Nanos::from_ms(u64::from(index) * 700));
    }
    let mut visits = 1000;
    let fired = std::iter::from_fn(|| timers.pop_due(Nanos::from_secs(7 * 3600), &mut visits)).count();
    assert_eq!(fired, 64);
    assert_eq!(1000 - visits, 64, "no timer was looked at twice");
    timers.invariants();
}

#[test]
fn a_disarmed_timer_never_fires_and_rearming_moves_it() {
    let mut timers = with_room();
    timers.arm(1, Nanos::from_ms(1));
    timers.arm(2, Nanos::from_ms(1));
    timers.disarm(1);
    timers.disarm(1);
    timers.arm(2, Nanos::from_ms(9));
    assert_eq!(due_at(&mut timers, Nanos::from_ms(5)), Vec::<u32>::new());
    assert_eq!(due_at(&mut timers, Nanos::from_ms(10)), [2]);
}

#[test]
fn visits_that_run_out_are_continued_by_the_next_call() {
    let mut timers = with_room();
    for index in 0..10 {
        timers.arm(index, Nanos(TICK.0));
    }
    let now = Nanos(3 * TICK.0);
    let mut fired = Vec::new();
    for _ in 0..4 {
        let mut visits = 3;
        fired.extend(std::iter::from_fn(|| timers.pop_due(now, &mut visits)));
        assert!(fired.len() == 10 || timers.next().is_some_and(|at| at <= now));
        timers.invariants();
    }
    assert_eq!(fired, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_timer_armed_for_the_past_during_a_visit_is_not_missed() {
    let mut timers = with_room();
    for index in 0..3 {
        timers.arm(index, Nanos(TICK.0));
    }
    let now = Nanos(TICK.0);
    let mut visits = 1;
    assert_eq!(timers.pop_due(now, &mut visits), Some(0));
    timers.arm(9, Nanos(0));
    timers.disarm(1);
    assert_eq!(due_at(&mut timers, now), [2]);
    assert_eq!(due_at(&mut timers, Nanos(2 * TICK.0)), [9]);
}

#[derive(Clone, Debug)]
enum Op {
    Arm(u32, u64),
    Disarm(u32),
    Advance(u64, u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u32..64, 0u64..20_000_000_000).prop_map(|(index, delay)| Op::Arm(index, delay)),
        2 => (0u32..64, 0u64..3_000_000).prop_map(|(index, delay)| Op::Arm(index, delay)),
        1 => (0u32..64).prop_map(Op::Disarm),
        3 => (0u64..2_000_000, 1u32..9).prop_map(|(by, visits)| Op::Advance(by, visits)),
        1 => (0u64..30_000_000_000, 1u32..100).prop_map(|(by, visits)| Op::Advance(by, visits)),
    ]
}

proptest! {
    /// The oracle is a map from index to time: what fires was due, and with visits to spare nothing due is left.
    #[test]
    fn fires_exactly_what_a_plain_map_says(ops in prop::collection::vec(op(), 1..200)) {
        let mut timers = with_room();
        let mut oracle = BTreeMap::new();
        let mut now = 0u64;
        for op in ops {
            match op {
                Op::Arm(index, delay) => {
                    timers.arm(index, Nanos(now + delay));
                    oracle.insert(index, now + delay);
                }
                Op::Disarm(index) => {
                    timers.disarm(index);
                    oracle.remove(&index);
                }
                Op::Advance(by, visits) => {
                    now += by;
                    let mut visits_left = visits;
                    while let Some(index) = timers.pop_due(Nanos(now), &mut visits_left) {
                        let at = oracle.remove(&index).expect("an armed timer fired");
                        prop_assert!(at <= now, "fired early");
                    }
                    if visits_left > 0 {
                        let late = oracle.values().filter(|at| **at + 2 * TICK.0 < now).count();
                        prop_assert_eq!(late, 0, "more than a tick late");
                    }
                    let earliest = oracle.values().min();
                    prop_assert_eq!(timers.next().is_some(), earliest.is_some());
                    if let (Some(next), Some(earliest)) = (timers.next(), earliest) {
                        prop_assert!(next.0 <= (earliest + TICK.0).max(now + 2 * TICK.0), "would sleep too long");
                    }
                }
            }
            timers.invariants();
        }
    }
}
