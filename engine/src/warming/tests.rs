//! How functions of known habits are kept warm: those of the paper's section 4, and days.

use super::*;
use crate::chance::Chance;

const KEEP_ALIVE: Nanos = Nanos::from_secs(600);

fn minutes(count: u64) -> Nanos {
    Nanos::from_secs(60 * count)
}

fn hours(count: u64) -> Nanos {
    minutes(60 * count)
}

fn predictive(learning: Learning) -> Warming {
    Warming::Predictive(Box::new(Predictive::new(KEEP_ALIVE, learning)))
}

/// What became of a function's calls, each of which takes no time.
#[derive(Debug, Default)]
struct Outcome {
    cold: Vec<bool>,
    warm_for: Nanos,
}

impl Outcome {
    fn cold_count(&self) -> usize {
        self.cold.iter().filter(|is_cold| **is_cold).count()
    }

    fn cold_after(&self, count: usize) -> usize {
        self.cold.iter().skip(count).filter(|is_cold| **is_cold).count()
    }
}

/// Follows a policy's plans from call to call, as a pool does.
fn run(warming: &mut Warming, arrivals: impl IntoIterator<Item = Nanos>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut idle: Option<(Nanos, WarmPlan)> = None;
    for arrival in arrivals {
        let mut is_warm = false;
        while let Some((warm_since, plan)) = idle.take() {
            let release_at = plan.release_at.max(warm_since);
            outcome.warm_for = outcome.warm_for.plus(release_at.min(arrival).since(warm_since));
            if arrival <= release_at {
                is_warm = true;
            } else if let Some(prewarm_at) = plan.prewarm_at.filter(|at| *at <= arrival) {
                assert!(prewarm_at > release_at, "{plan:?}");
                idle = Some((prewarm_at, warming.on_prewarmed(prewarm_at)));
            }
        }
        outcome.cold.push(!is_warm);
        warming.on_arrival(arrival);
        idle = Some((arrival, warming.on_idle(arrival)));
    }
    outcome
}

fn every(period: Nanos, count: u64) -> impl Iterator<Item = Nanos> {
    (1..=count).map(move |number| Nanos(number * period.0))
}

#[test]
fn a_keep_alive_is_the_same_for_everybody() {
    let mut warming = Warming::KeepAlive(KEEP_ALIVE);
    warming.on_arrival(Nanos(5));
    let plan = WarmPlan { release_at: Nanos(7).plus(KEEP_ALIVE), prewarm_at: None };
    assert_eq!(warming.on_idle(Nanos(7)), plan);
    assert_eq!(run(&mut warming, every(minutes(9), 100)).cold_count(), 1);
    assert_eq!(run(&mut warming, every(minutes(11), 100)).cold_count(), 100);
}

#[test]
fn a_call_every_hour_finds_the_function_warm_and_in_between_it_is_let_go() {
    let mut warming = predictive(Learning::IdleTimes);
    let outcome = run(&mut warming, every(hours(1), 100));
    // Expect: ten idle times until it is believed, and then none is cold.
    assert_eq!(outcome.cold_count(), 11);
    assert_eq!(outcome.cold_after(11), 0);
    // Expect: after those, warm for the last six minutes of each hour, where ten minutes of each would have been of no use.
    let expected = Nanos(10 * KEEP_ALIVE.0 + 89 * minutes(6).0);
    assert_eq!(outcome.warm_for, expected);
    let plan = warming.on_idle(hours(100));
    assert_eq!(plan, WarmPlan { release_at: hours(100), prewarm_at: Some(hours(100).plus(minutes(54))) });
    let release_at = hours(100).plus(Nanos(minutes(61).0 / 10 * 11));
    assert_eq!(warming.on_prewarmed(hours(100).plus(minutes(54))), WarmPlan { release_at, prewarm_at: None });
}

#[test]
fn a_function_that_is_busy_now_and_then_is_kept_through_its_bursts_and_not_beyond() {
    // Given: bursts of forty calls, 20 to 40 s apart, and an hour or a little more between bursts.
    let mut chance = Chance::new(2);
    let mut at = Nanos::ZERO;
    let arrivals: Vec<Nanos> = (0..2_000)
        .map(|number| {
            let seconds = if number % 40 == 0 { 3_600 + chance.up_to(300) } else { 20 + chance.up_to(20) };
            at = at.plus(Nanos::from_secs(seconds));
            at
        })
        .collect();
    let mut warming = predictive(Learning::IdleTimes);
    let outcome = run(&mut warming, arrivals.iter().copied());
    let ten_minutes = run(&mut Warming::KeepAlive(KEEP_ALIVE), arrivals.iter().copied());
    assert_eq!(ten_minutes.cold_count(), 50);
    // Expect: one idle time in forty is long, more than one in a hundred, so that the tail covers it: warm throughout, and each call is.
    assert!(outcome.cold_after(200) == 0, "{}", outcome.cold_count());
    // Given: the same bursts, of four hundred calls.
    let long = |number: usize| number.is_multiple_of(400);
    let mut at = Nanos::ZERO;
    let arrivals = (0..8_000).map(|number| {
        at = at.plus(if long(number) { minutes(90) } else { Nanos::from_secs(30) });
        at
    });
    let mut warming = predictive(Learning::IdleTimes);
    let outcome = run(&mut warming, arrivals);
    // Expect: the first call of each burst is cold, and it is let go after 66 s, the end of the first minute and a tenth.
    assert_eq!(outcome.cold_count(), 20);
    let plan = warming.on_idle(hours(1_000));
    assert_eq!(plan, WarmPlan { release_at: hours(1_000).plus(Nanos::from_secs(66)), prewarm_at: None });
}

#[test]
fn of_a_function_that_comes_by_chance_nothing_is_foretold() {
    let mut chance = Chance::new(3);
    let mut at = Nanos::ZERO;
    let mut warming = predictive(Learning::IdleTimesAndTimeOfDay);
    for _ in 0..300 {
        at = at.plus(Nanos(chance.up_to(hours(8).0)));
        warming.on_arrival(at);
    }
    let plan = warming.on_idle(at);
    assert_eq!(plan, WarmPlan { release_at: at.plus(KEEP_ALIVE), prewarm_at: None });
}

#[test]
fn a_call_every_twelve_hours_is_forecast_although_no_histogram_holds_it() {
    let outcome = run(&mut predictive(Learning::IdleTimes), every(hours(12), 60));
    assert_eq!(outcome.cold_after(5), 0);
    // Expect: warm for a hundredth of the time that is waited, on each side.
    assert_eq!(outcome.warm_for, Nanos(4 * KEEP_ALIVE.0 + 55 * hours(12).0 / 100));
}

#[test]
fn a_daily_call_is_warm_by_its_time_of_day_for_less_than_by_a_forecast() {
    // Given: every day at nine, up to four minutes late, for two months.
    let daily = |seed| {
        let mut chance = Chance::new(seed);
        (0..60).map(move |day| hours(24 * day + 9).plus(Nanos(chance.up_to(minutes(4).0))))
    };
    let forecast = run(&mut predictive(Learning::IdleTimes), daily(1));
    let time_of_day = run(&mut predictive(Learning::IdleTimesAndTimeOfDay), daily(1));
    assert_eq!(forecast.cold_after(5), 0);
    assert_eq!(time_of_day.cold_after(5), 0);
    assert!(time_of_day.warm_for.0 * 2 < forecast.warm_for.0, "{time_of_day:?} {forecast:?}");
}

#[test]
fn the_first_call_of_a_working_day_is_warm_and_so_are_those_after_it() {
    // Given: a call every three minutes from nine to five, by chance, for four weeks of five days.
    let mut chance = Chance::new(4);
    let mut arrivals = Vec::new();
    for day in (0..28).filter(|day| day % 7 < 5) {
        let mut at = hours(24 * day + 9);
        while at < hours(24 * day + 17) {
            at = at.plus(Nanos(chance.up_to(minutes(6).0)));
            arrivals.push(at);
        }
    }
    let without = run(&mut predictive(Learning::IdleTimes), arrivals.iter().copied());
    let with = run(&mut predictive(Learning::IdleTimesAndTimeOfDay), arrivals.iter().copied());
    // Expect: of 20 mornings 19 are cold without, and 3 with, of days on which nothing was known.
    assert!(without.cold_count() >= 20, "{}", without.cold_count());
    assert!(with.cold_count() + 15 <= without.cold_count(), "{} {}", with.cold_count(), without.cold_count());
    // Expect: this costs a quarter of an hour on each of eight days of four weekends, and little in the mornings.
    assert!(with.warm_for.0 < without.warm_for.0 + hours(4).0, "{} {}", with.warm_for, without.warm_for);
}

#[test]
fn calls_that_find_it_at_work_tell_nothing_of_idle_times() {
    let mut warming = predictive(Learning::IdleTimes);
    for number in 0..100 {
        warming.on_arrival(minutes(60 * number));
        // Given: more calls while the first runs.
        (1..10).for_each(|later| warming.on_arrival(minutes(60 * number + later)));
        warming.on_idle(minutes(60 * number + 30));
    }
    let plan = warming.on_idle(hours(100));
    assert_eq!(plan.prewarm_at, Some(hours(100).plus(minutes(27))));
}

#[test]
fn whatever_comes_a_plan_begins_now_and_the_same_calls_give_the_same_plans() {
    for seed in 0..200 {
        let plans = || {
            let mut chance = Chance::new(seed);
            let mut warming = predictive(Learning::IdleTimesAndTimeOfDay);
            let mut now = Nanos(chance.up_to(u64::MAX >> 1));
            let scale = chance.up_to(45);
            let mut plans = Vec::new();
            for _ in 0..300 {
                // Given: time that stands still, goes on, leaps, or goes back.
                now = match chance.up_to(20) {
                    0 => now.since(Nanos(chance.up_to(hours(30).0))),
                    1 => now.plus(Nanos(chance.up_to(hours(300).0))),
                    _ => now.plus(Nanos(chance.up_to(1 << scale))),
                };
                match chance.up_to(2) {
                    0 => warming.on_arrival(now),
                    1 => plans.push((now, warming.on_idle(now))),
                    _ => plans.push((now, warming.on_prewarmed(now))),
                }
            }
            plans
        };
        for (now, plan) in plans() {
            assert!(plan.release_at >= now, "{now} {plan:?}");
            assert!(plan.prewarm_at.is_none_or(|at| at > plan.release_at), "{now} {plan:?}");
        }
        assert_eq!(plans(), plans());
    }
}
