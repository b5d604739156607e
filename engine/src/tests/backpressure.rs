//! A function that is pushed back, and what becomes of its calls.

use proptest::prelude::*;
use protocol::DownstreamName;

use super::*;
use crate::backpressure::{BackpressureSpec, DownstreamView, Signal};
use crate::limits::DOWNSTREAMS_MAX;
use crate::policy::Checks;

const WINDOW: Nanos = Nanos::from_secs(10);
const SPEC: BackpressureSpec =
    BackpressureSpec { window: WINDOW, threshold: 10, decrease_percent: 50, increase_percent: 10 };
/// The same in a tenth of the time, for long stories.
const QUICK: BackpressureSpec = BackpressureSpec { window: Nanos::from_secs(1), ..SPEC };
/// Of a flow of a hundred calls a second.
const STEP: Nanos = Nanos::from_ms(10);

fn governed_by(backpressure: BackpressureSpec) -> FunctionSpec {
    let policy = Policy { backpressure: Some(backpressure), ..Policy::default() };
    FunctionSpec { policy, queue_count_max: 10_000, timeout: Nanos::from_secs(24 * 3600), ..spec("echo") }
}

fn governed() -> FunctionSpec {
    governed_by(SPEC)
}

/// `echo`, which follows back-pressure, and `other`, with room for a thousand calls each.
fn story(spec_of_echo: FunctionSpec) -> Story {
    let mut story = Story::with(Limits::default(), vec![spec_of_echo, spec("other")]);
    story.attach(ECHO, 1024);
    story.attach(OTHER, 1024);
    story
}

fn by(name: &str, severity: u8) -> Signal {
    Signal { downstream: DownstreamName::from_bytes(name.as_bytes()), severity }
}

fn push_back(story: &mut Story, push: Push, signal: Signal) -> Answer {
    let finished = finished(RunOutcome::Backpressure);
    let completed =
        story.engine.handle_backpressure(story.now, push.worker, push.invocation, finished, signal);
    story.engine.invariants();
    match completed {
        Completed::Answer(answer) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

/// A hundred calls a second for so long, of which each that can be pushed brings back this signal, or a result. Invariants are
/// checked once for each.
fn flow(story: &mut Story, length: Nanos, signal: Option<Signal>) {
    let until = story.now.plus(length);
    while story.now < until {
        let received_at = story.now;
        story.engine.handle_request(story.now, Request { received_at, ..request() });
        run_what_may(story, signal);
        story.pass(STEP, NOT_STARTED);
    }
}

/// Pushes what can be, and brings this back.
fn run_what_may(story: &mut Story, signal: Option<Signal>) {
    let engine = &mut story.engine;
    while let Some(Push { worker, invocation, .. }) = engine.poll_push(story.now) {
        match signal {
            Some(signal) => {
                let finished = finished(RunOutcome::Backpressure);
                engine.handle_backpressure(story.now, worker, invocation, finished, signal);
            }
            None => _ = engine.handle_completion(story.now, worker, invocation, finished(RunOutcome::Ok)),
        }
    }
}

fn downstreams(story: &Story) -> Vec<DownstreamView> {
    let view = story.engine.function_view(ECHO).expect("it is configured");
    view.downstreams.into_iter().flatten().collect()
}

fn limit(story: &Story) -> Option<u32> {
    downstreams(story).iter().filter_map(|it| it.per_second).min()
}

fn checks(story: &Story) -> Checks {
    story.engine.functions[ECHO.0 as usize].checks
}

/// Pushed back until its limit is half of the flow.
fn limited(spec_of_echo: FunctionSpec) -> Story {
    let mut story = story(spec_of_echo);
    while limit(&story).is_none() {
        flow(&mut story, STEP, Some(by("database", 1)));
    }
    assert_eq!(limit(&story), Some(50));
    story
}

#[test]
fn a_function_that_is_pushed_back_is_called_half_as_often_and_its_calls_wait() {
    let mut story = limited(governed());
    assert_eq!(story.count(Counter::BackpressureLowered), 1);
    // When a hundred calls a second go on for five seconds, and none is pushed back any more.
    let before = story.count(Counter::CallsPushed);
    flow(&mut story, Nanos::from_secs(5), None);

    // Expect: half of them were pushed, the others wait, and it is said for what.
    let pushed = story.count(Counter::CallsPushed) - before;
    assert!((248..=252).contains(&pushed), "{pushed}");
    story.pushes();
    story.engine.look_at_queues(story.now);
    let view = story.engine.function_view(ECHO).expect("it is configured");
    assert!(view.queued >= 248, "{}", view.queued);
    assert_eq!(view.blocked.on, BlockedOn::Backpressure);
    assert_eq!(BlockedOn::Backpressure.name(), "backpressure");
}

#[test]
fn it_recovers_by_itself_and_then_costs_nothing_again() {
    let mut story = limited(governed());
    assert!(checks(&story).has(Checks::BACKPRESSURE));
    assert!(story.engine.next_timer().is_some(), "whether anybody calls or not");
    // Expect: a tenth of the rate before for each window, and no limit any more when it has that rate and held nobody up.
    let mut limits = Vec::new();
    for _ in 0..7 {
        story.pass(WINDOW, NOT_STARTED);
        limits.push(limit(&story));
    }
    assert_eq!(limits, [60, 70, 80, 90, 100].map(Some).into_iter().chain([None, None]).collect::<Vec<_>>());
    assert_eq!(checks(&story), Checks::NONE);
    assert_eq!(story.engine.next_timer(), None);
    assert_eq!(story.count(Counter::BackpressureLowered), 1);
}

#[test]
fn a_limit_that_still_holds_calls_up_grows_beyond_the_rate_before_the_trouble() {
    let mut story = limited(governed_by(QUICK));
    // Given: more waits than the limit lets through while it grows back.
    story.call_many(1_000);
    let mut highest = 0;
    for _ in 0..1_500 {
        story.pass(STEP, NOT_STARTED);
        run_what_may(&mut story, None);
        highest = highest.max(limit(&story).unwrap_or(0));
    }
    assert!(highest > 100, "{highest}");
    assert_eq!(limit(&story), None, "nobody is held up any more");
}

#[test]
fn trouble_that_goes_on_lowers_the_limit_once_a_window_and_never_to_nothing() {
    let mut story = story(governed_by(QUICK));
    let mut limits = Vec::new();
    for _ in 0..9 {
        flow(&mut story, QUICK.window, Some(by("database", 255)));
        limits.push(limit(&story).expect("it is limited"));
    }
    assert_eq!(limits[0], 50);
    assert!(limits.windows(2).all(|pair| pair[1] == (pair[0] / 2).max(1)), "{limits:?}");
    assert_eq!(limits.last(), Some(&1));
}

#[test]
fn fewer_refusals_than_the_threshold_limit_nothing_and_cost_nothing() {
    let mut story = story(governed());
    for _ in 0..5 {
        flow(&mut story, Nanos::from_ms(30), Some(by("database", 3)));
        story.pass(WINDOW, NOT_STARTED);
    }
    assert_eq!(limit(&story), None);
    assert_eq!(checks(&story), Checks::NONE);
    assert_eq!(
        downstreams(&story).iter().map(|it| it.refusals).collect::<Vec<_>>(),
        [45],
        "but they are told"
    );
}

#[test]
fn one_answer_may_stand_for_many_refusals() {
    let mut story = story(governed());
    flow(&mut story, Nanos::from_secs(2), None);
    story.call();
    let push = story.push().expect("a worker has room");
    push_back(&mut story, push, by("database", 10));
    assert_eq!(limit(&story), None, "of the first moment of a window no rate can be told");
    story.call();
    let push = story.push().expect("a worker has room");
    story.pass(Nanos::from_secs(2), NOT_STARTED);
    push_back(&mut story, push, by("database", 1));
    assert_eq!(limit(&story), Some(1));
}

#[test]
fn the_lowest_limit_of_all_downstreams_counts_and_each_has_its_own() {
    let mut story = limited(governed_by(QUICK));
    // When something else pushes it back much harder.
    for _ in 0..2 {
        flow(&mut story, QUICK.window, Some(by("search", 100)));
    }
    let views = downstreams(&story);
    let told: Vec<_> = views.iter().map(|it| (it.name.as_str().to_owned(), it.per_second)).collect();
    assert_eq!(told[0].0, "database");
    assert_eq!(told[1].0, "search");
    assert!(told[1].1 < told[0].1, "{told:?}");
    assert_eq!(limit(&story), told[1].1);
}

#[test]
fn a_limited_function_holds_no_other_up() {
    let mut story = limited(governed());
    story.call_many(500);
    story.pushes();
    for _ in 0..50 {
        story.admit(Request { function: OTHER, ..request() });
    }
    let of_other = story.pushes().iter().filter(|push| push.function == OTHER).count();
    assert_eq!(of_other, 50);
}

#[test]
fn calls_that_wait_too_long_expire_without_having_been_started() {
    let mut story = limited(governed());
    (0..200).for_each(|_| _ = story.admit(Request { budget_us: 1_000_000, ..request() }));
    let mut answers = Vec::new();
    for _ in 0..300 {
        story.pass(STEP, NOT_STARTED);
        run_what_may(&mut story, None);
        answers.extend(story.answers());
    }
    assert!((148..=152).contains(&answers.len()), "{}", answers.len());
    assert!(answers.iter().all(|answer| *answer == (Status::Expired, false)));
}

#[test]
fn a_call_whose_turn_cannot_come_in_time_is_refused_with_advice() {
    let policy = Policy { refuse_infeasible: true, ..governed().policy };
    let mut story = limited(FunctionSpec { policy, ..governed() });
    // Given: fifty calls a second, which are sixty in the window after this one at best.
    let four_seconds = Request { budget_us: 4_000_000, ..request() };
    let admitted =
        (0..500).take_while(|_| matches!(story.request(four_seconds), Verdict::Admitted(_))).count();
    assert!((240..=242).contains(&admitted), "{admitted}");
    // Expect
    match story.request(four_seconds) {
        Verdict::Refused(Refused { status: Status::DeadlineUnreachable, retry_after_us }) => {
            assert!((1..=40_000).contains(&retry_after_us), "{retry_after_us}");
        }
        other => panic!("{other:?}"),
    }
    // A critical one goes before all of them.
    story.admit(Request { criticality: Criticality::Critical as u8, ..four_seconds });
}

#[test]
fn a_queue_that_is_bounded_in_time_is_full_sooner_under_a_limit() {
    let policy = Policy { queue_delay_max: Some(Nanos::from_secs(2)), ..governed().policy };
    let mut story = limited(FunctionSpec { policy, ..governed() });
    let admitted = (0..500).take_while(|_| matches!(story.request(request()), Verdict::Admitted(_))).count();
    assert!((99..=101).contains(&admitted), "two seconds of fifty calls each, not {admitted}");
    match story.request(request()) {
        Verdict::Refused(Refused { status: Status::QueueFull, retry_after_us }) => {
            assert!((1..=40_000).contains(&retry_after_us), "{retry_after_us}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_pushed_back_is_told_when_to_come_again() {
    // Given: a function that follows, one that is limited already with calls waiting, and one that does not follow.
    let cases: [(&str, FunctionSpec, u32, std::ops::RangeInclusive<u32>); 3] = [
        ("the rest of the window", governed(), 0, 10_000_000..=10_000_000),
        ("as long as those that wait take", governed(), 1_000, 19_900_000..=20_100_000),
        ("nothing", spec("echo"), 0, 0..=0),
    ];
    for (what, spec_of_echo, waiting, advised_us) in cases {
        let mut story = if waiting > 0 { limited(spec_of_echo) } else { story(spec_of_echo) };
        story.pass(Nanos::from_secs(1), NOT_STARTED);
        story.call();
        let push = story.push().expect("a worker has room");
        story.call_many(waiting);
        let answer = push_back(&mut story, push, by("database", 1));
        assert_eq!(answer.status, Status::Backpressure);
        assert!(answer.flags.contains(Flags::STARTED));
        assert!(advised_us.contains(&answer.retry_after_us), "{what}: {}", answer.retry_after_us);
    }
}

#[test]
fn of_more_downstreams_than_there_are_places_for_the_silent_ones_go_and_then_the_strictest_answers_for_the_rest()
 {
    let mut story = story(governed());
    let name = |number: usize| format!("downstream-{number}");
    // Given: every place is taken, one by a downstream that was named once, long ago.
    flow(&mut story, STEP, Some(by("long-ago", 1)));
    story.pass(WINDOW, NOT_STARTED);
    for number in 1..DOWNSTREAMS_MAX {
        flow(&mut story, Nanos::from_secs(2), Some(by(&name(number), 20)));
    }
    assert_eq!(downstreams(&story).len(), DOWNSTREAMS_MAX);
    // Expect: one more has its place.
    flow(&mut story, Nanos::from_secs(2), Some(by("newcomer", 20)));
    assert!(downstreams(&story).iter().any(|it| it.name.as_str() == "newcomer"));
    assert!(downstreams(&story).iter().all(|it| it.name.as_str() != "long-ago"));
    assert_eq!(story.count(Counter::BackpressureCrowded), 0);
    // Expect: and then there is none left.
    let told = |story: &Story| downstreams(story).iter().map(|it| it.refusals).sum::<u64>();
    let before = told(&story);
    let strictest = limit(&story);
    story.call();
    story.pass(Nanos::from_secs(1), NOT_STARTED);
    let push = story.push().expect("one call a second at least");
    push_back(&mut story, push, by("nobody-knows-me", 200));
    assert_eq!(told(&story), before + 200, "nothing that was told is lost");
    assert!(downstreams(&story).iter().all(|it| it.name.as_str() != "nobody-knows-me"));
    assert_eq!(story.count(Counter::BackpressureCrowded), 1);
    story.pass(WINDOW, NOT_STARTED);
    assert!(limit(&story) < strictest, "and it counts");
}

#[test]
fn another_configuration_keeps_what_is_known_unless_it_is_switched_off() {
    let mut story = limited(governed());
    let mut reload = |backpressure| {
        let policy = Policy { backpressure, ..Policy::default() };
        let table = vec![Some(FunctionSpec { policy, ..governed() }), Some(spec("other"))];
        story.engine.handle_reconfigure(TenantSpec::only_default(), table).expect("sound");
        (limit(&story), checks(&story))
    };
    assert_eq!(reload(Some(SPEC)).0, Some(50));
    let slower = BackpressureSpec { increase_percent: 1, ..SPEC };
    assert_eq!(reload(Some(slower)), (Some(50), Checks::BACKPRESSURE));
    assert_eq!(reload(None), (None, Checks::NONE));
    assert_eq!(reload(Some(SPEC)), (None, Checks::NONE), "and then it begins anew");
}

#[test]
fn a_function_that_is_limited_is_not_leased_until_it_is_free_again() {
    let mut story = limited(governed());
    assert_eq!(story.engine.lease(ECHO, 2, |_| true), Err(LeaseRefused::Governed));
    (0..7).for_each(|_| story.pass(WINDOW, NOT_STARTED));
    let lease = story.engine.lease(ECHO, 2, |_| true).expect("nothing governs it");
    story.engine.end_lease(lease);
}

#[test]
fn a_signal_about_a_call_that_its_worker_does_not_hold_says_nothing() {
    let mut story = story(governed());
    story.call();
    let push = story.push().expect("a worker has room");
    story.complete(push, RunOutcome::Ok);
    let finished = finished(RunOutcome::Backpressure);
    let late = by("database", 255);
    let completed = story.engine.handle_backpressure(story.now, push.worker, push.invocation, finished, late);
    assert_eq!(completed, Completed::Stale);
    assert_eq!(downstreams(&story), []);
}

/// What may happen to a function that is pushed back.
#[derive(Clone, Debug)]
enum Op {
    Call { count: u32 },
    Push { count: u32 },
    Finish { which: usize, signal: Option<(usize, u8)> },
    Pass { ns: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop_oneof![3 => 0u64..50_000_000, 2 => 0u64..2_000_000_000, 1 => 0u64..25_000_000_000];
    let signal = (0usize..DOWNSTREAMS_MAX + 2, prop_oneof![4 => 1u8..4, 1 => 1u8..=255]);
    prop_oneof![
        4 => (1u32..8).prop_map(|count| Op::Call { count }),
        4 => (1u32..8).prop_map(|count| Op::Push { count }),
        8 => (any::<usize>(), prop::option::of(signal)).prop_map(|(which, signal)| Op::Finish { which, signal }),
        4 => length.prop_map(|ns| Op::Pass { ns }),
    ]
}

/// What the oracle remembers.
#[derive(Default)]
struct History {
    /// All refusals told of.
    signals: Vec<(Nanos, u64)>,
    /// Of each downstream by its name, when its limit went down last.
    lowered_at: Vec<(DownstreamName, Nanos)>,
    limits: Vec<(DownstreamName, u32)>,
    /// Since when the function has been limited without a pause, the highest limit since, and the pushes since.
    limited_since: Option<(Nanos, u32, u64)>,
}

impl History {
    /// Compares what is in force now with what was.
    fn check(&mut self, story: &Story) {
        let limits: Vec<_> =
            downstreams(story).iter().filter_map(|it| Some((it.name, it.per_second?))).collect();
        for (name, per_second) in &limits {
            assert!(*per_second >= 1, "{name} lets nothing through");
            let before = self.limits.iter().find(|(other, _)| other == name).map(|(_, before)| *before);
            if before.is_some_and(|before| *per_second >= before) {
                continue;
            }
            let told = self.signals.iter().filter(|(at, _)| story.now.since(*at) <= WINDOW.plus(WINDOW));
            let told: u64 = told.map(|(_, severity)| severity).sum();
            assert!(told >= SPEC.threshold.into(), "lowered for {name}, told {told}");
            let last = self.lowered_at.iter().find(|(other, _)| other == name).map(|(_, at)| *at);
            assert!(
                last.is_none_or(|last| story.now.since(last) >= WINDOW),
                "{name} lowered twice in a window"
            );
            self.lowered_at.retain(|(other, _)| other != name);
            self.lowered_at.push((*name, story.now));
        }
        self.limits = limits;
        let lowest = self.limits.iter().map(|(_, per_second)| *per_second).min();
        self.limited_since = match (lowest, self.limited_since) {
            (None, _) => None,
            (Some(lowest), None) => Some((story.now, lowest, 0)),
            (Some(lowest), Some((since, highest, pushes))) => Some((since, highest.max(lowest), pushes)),
        };
    }

    fn note_push(&mut self, now: Nanos) {
        if let Some((since, highest, pushes)) = &mut self.limited_since {
            *pushes += 1;
            let burst = u64::from((*highest / 100).max(1));
            let bound = burst + now.since(*since).0 * u64::from(*highest) / 1_000_000_000 + 1;
            assert!(*pushes <= bound, "{pushes} pushes within {}, at most {bound}", now.since(*since));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn in_every_history_limits_hold_follow_what_was_told_and_end(ops in prop::collection::vec(op(), 1..120)) {
        let mut story = story(governed());
        let (mut history, mut held) = (History::default(), Vec::new());
        for op in ops {
            match op {
                Op::Call { count } => (0..count).for_each(|_| _ = story.request(request())),
                Op::Push { count } => for _ in 0..count {
                    let push = story.push();
                    history.check(&story);
                    push.iter().for_each(|_| history.note_push(story.now));
                    held.extend(push);
                },
                Op::Finish { which, signal } if !held.is_empty() => {
                    let push = held.swap_remove(which % held.len());
                    match signal {
                        None => _ = story.complete(push, RunOutcome::Ok),
                        Some((downstream, severity)) => {
                            history.signals.push((story.now, severity.into()));
                            push_back(&mut story, push, by(&format!("d{downstream}"), severity));
                        }
                    }
                }
                Op::Finish { .. } => {}
                Op::Pass { ns } => story.pass(Nanos(ns), NOT_STARTED),
            }
            history.check(&story);
        }
        // Expect: who waits goes on within a second.
        let is_waiting = story.engine.function_view(ECHO).is_some_and(|view| view.queued > 0);
        if is_waiting && held.len() < 1024 {
            story.pass(Nanos::from_secs(1), NOT_STARTED);
            prop_assert!(story.push().is_some(), "a limit lets one call a second through");
        }
        // Expect: when nothing waits any more, every limit grows back and is gone.
        story.pass(Nanos::from_secs(25 * 3600), NOT_STARTED);
        (0..12).for_each(|_| story.pass(WINDOW, NOT_STARTED));
        prop_assert_eq!(limit(&story), None);
        prop_assert_eq!(checks(&story), Checks::NONE);
    }
}
