use super::*;

const AFTER: Nanos = Nanos::from_ms(10);
/// Past `AFTER`, with the tick that timers may be late.
const PAST_AFTER: Nanos = Nanos::from_ms(11);

/// `echo`, hedged after 10 ms, with so many workers of one slot each.
fn hedged(workers: u32, hedge: HedgeSpec) -> Story {
    let policy = Policy { hedge: Some(hedge), ..Policy::default() };
    let mut story =
        Story::with(Limits::default(), vec![FunctionSpec { idempotent: true, policy, ..spec("echo") }]);
    for _ in 0..workers {
        story.attach(ECHO, 1);
    }
    story
}

const SOON: HedgeSpec = HedgeSpec { after: HedgeAfter::Delay(AFTER), load_percent: 100 };

impl Story {
    fn hedges(&mut self) -> Vec<Hedge> {
        let hedges = std::iter::from_fn(|| self.engine.poll_hedge()).collect();
        self.engine.invariants();
        hedges
    }

    /// A call that runs long, and its second attempt.
    fn hedge(&mut self) -> (Push, Push) {
        let id = self.call();
        let push = self.push().expect("a worker is free");
        self.pass(PAST_AFTER, HAS_STARTED);
        let hedges = self.hedges();
        let [hedge] = hedges[..] else { panic!("{hedges:?}") };
        assert_eq!((hedge.call, hedge.holder), (id, push.worker));
        (push, hedge.push)
    }

    /// The workers asked to stop a call.
    fn stopped(&mut self) -> Vec<(WorkerId, InvocationId)> {
        let told = |action| match action {
            WorkerAction::Cancel { worker, invocation } => (worker, invocation),
            other => panic!("{other:?}"),
        };
        self.actions().into_iter().map(told).collect()
    }
}

fn answer(completed: Completed) -> Answer {
    match completed {
        Completed::Answer(answer) | Completed::LastAnswer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_that_takes_long_is_given_to_a_second_worker_and_the_first_answer_wins() {
    for is_twin_first in [true, false] {
        let mut story = hedged(2, SOON);
        let (first, second) = story.hedge();
        assert_ne!(first.worker, second.worker);
        let (winner, loser) = if is_twin_first { (second, first) } else { (first, second) };
        let told = answer(story.complete(winner, RunOutcome::Ok));
        assert_eq!((told.invocation, told.status), (first.invocation, Status::Ok));
        // Expect: the other one is asked to stop, and what it brings is dropped and counted.
        assert_eq!(story.stopped(), [(loser.worker, loser.invocation)]);
        assert_eq!(story.complete(loser, RunOutcome::Ok), Completed::AlreadyAnswered);
        assert_eq!(story.answers(), []);
        assert_eq!(story.count(Counter::ResultsDropped), 1);
        assert_eq!(story.count(Counter::HedgesPushed), 1);
        assert_eq!(story.count(Counter::HedgesWon), u64::from(is_twin_first));
        assert!(story.engine.is_idle());
        // Expect: both slots are free again.
        story.call_many(2);
        assert_eq!(story.pushes().len(), 2);
    }
}

#[test]
fn an_error_is_an_answer_too() {
    let mut story = hedged(2, SOON);
    let (first, second) = story.hedge();
    let told = answer(story.complete(second, RunOutcome::FunctionError));
    assert_eq!((told.invocation, told.status), (first.invocation, Status::FunctionError));
}

#[test]
fn a_call_that_is_answered_in_time_is_not_hedged() {
    let mut story = hedged(2, SOON);
    story.call();
    let push = story.push().expect("a worker is free");
    story.complete(push, RunOutcome::Ok);
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);
    assert_eq!(story.engine.next_timer(), None, "nothing is left to wake for");
}

#[test]
fn the_death_of_either_worker_leaves_the_call_to_the_other() {
    // Given: the twin's worker dies. Expect: nothing is seen of it.
    let mut story = hedged(2, SOON);
    let (first, second) = story.hedge();
    story.lose(second.worker, HAS_STARTED);
    assert_eq!(story.answers(), []);
    assert_eq!(answer(story.complete(first, RunOutcome::Ok)).status, Status::Ok);
    assert!(story.engine.is_idle());

    // Given: the call's own worker dies. Expect: it waits for the twin.
    let mut story = hedged(2, SOON);
    let (first, second) = story.hedge();
    story.lose(first.worker, HAS_STARTED);
    let view = story.engine.call_view(first.invocation).expect("it waits");
    assert_eq!(view.joined, Some(second.invocation));
    assert_eq!(story.push(), None, "it is not tried a third time");
    assert_eq!(story.complete(second, RunOutcome::Ok), Completed::AlreadyAnswered);
    let told = story.engine.poll_joined(story.now).expect("it is its answer");
    assert_eq!((told.invocation, told.status), (first.invocation, Status::Ok));
    assert_eq!(story.engine.poll_joined(story.now), None);
    assert!(story.engine.is_idle());
}

#[test]
fn a_call_of_which_both_workers_died_is_quarantined() {
    for is_twin_first in [true, false] {
        let mut story = hedged(3, SOON);
        let (first, second) = story.hedge();
        let deaths = if is_twin_first { [second, first] } else { [first, second] };
        deaths.into_iter().for_each(|push| story.lose(push.worker, HAS_STARTED));
        assert_eq!(story.answers(), [(Status::Quarantined, true)]);
        assert_eq!(story.push(), None);
        assert!(story.engine.is_idle());
    }
}

#[test]
fn a_call_that_lost_both_attempts_without_fault_of_its_own_is_tried_again() {
    let mut story = hedged(3, SOON);
    let (first, second) = story.hedge();
    story.lose(first.worker, UNREADABLE);
    story.lose(second.worker, UNREADABLE);
    let push = story.push().expect("a third worker");
    assert_eq!(push.invocation, first.invocation);
    assert_eq!(answer(story.complete(push, RunOutcome::Ok)).status, Status::Ok);
}

#[test]
fn whatever_ends_the_wait_stops_both_attempts() {
    for reason in [CancelReason::Asked, CancelReason::ClientGone] {
        let mut story = hedged(2, SOON);
        let (first, second) = story.hedge();
        story.cancel(first.invocation, reason);
        let mut stopped = story.stopped();
        stopped.sort();
        let mut both = [(first.worker, first.invocation), (second.worker, second.invocation)];
        both.sort();
        assert_eq!(stopped, both);
        let told = if reason == CancelReason::Asked { vec![(Status::Cancelled, true)] } else { vec![] };
        assert_eq!(story.answers(), told);
        story.complete(second, RunOutcome::Cancelled);
        story.complete(first, RunOutcome::Ok);
        assert!(story.engine.is_idle());
    }
    // The same with its deadline; and STARTED is said even if only the twin can have begun.
    let mut story = hedged(2, SOON);
    let (first, second) = story.hedge();
    story.pass(Nanos::from_secs(31), NOT_STARTED);
    assert_eq!(story.stopped().len(), 2);
    story.complete(second, RunOutcome::Ok);
    let told = answer(story.complete(first, RunOutcome::Expired));
    assert_eq!(told.status, Status::TimedOut);
    assert!(story.engine.is_idle());
}

#[test]
fn a_loser_that_does_not_stop_is_killed_after_the_grace() {
    let mut story = hedged(2, SOON);
    let (first, second) = story.hedge();
    story.complete(first, RunOutcome::Ok);
    story.stopped();
    story.pass(Nanos::from_secs(32), HAS_STARTED);
    let kill = WorkerAction::Kill { worker: second.worker, reason: KillReason::Overstayed };
    assert_eq!(story.actions(), [kill]);
}

#[test]
fn second_attempts_stay_within_their_budget() {
    // Given: a function all of whose calls take long, and 5 % of extra load.
    let mut story = hedged(2, HedgeSpec { load_percent: 5, ..SOON });
    for _ in 0..1_000 {
        story.call();
        let push = story.push().expect("a worker is free");
        story.pass(PAST_AFTER, HAS_STARTED);
        let hedges = story.hedges();
        story.complete(push, RunOutcome::Ok);
        for hedge in hedges {
            story.complete(hedge.push, RunOutcome::Ok);
        }
        story.actions();
    }
    let pushed = story.count(Counter::HedgesPushed);
    assert!((50..=10 + 50).contains(&pushed), "{pushed} of 1,000 calls");
    assert_eq!(pushed + story.count(Counter::HedgesDenied), 1_000);
}

#[test]
fn nobody_waits_for_the_sake_of_a_second_attempt() {
    // Given: no second worker; or one that holds a call. Expect: none.
    for others in [0, 1] {
        let mut story = hedged(1 + others, SOON);
        story.call_many(1 + others);
        story.pushes();
        story.pass(PAST_AFTER, HAS_STARTED);
        assert_eq!(story.hedges(), []);
        assert_eq!(story.count(Counter::HedgesDenied), u64::from(1 + others));
    }
    // Given: a second worker that has just become idle, and a call that waits for it.
    let mut story = hedged(2, SOON);
    story.call_many(3);
    let pushes = story.pushes();
    story.complete(pushes[1], RunOutcome::Ok);
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);
    assert!(story.push().is_some(), "it is its turn");
    // Given: a second worker, and a concurrency of one.
    let policy = Policy { hedge: Some(SOON), concurrency_max: Some(1), ..Policy::default() };
    let mut story =
        Story::with(Limits::default(), vec![FunctionSpec { idempotent: true, policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story.attach(ECHO, 1);
    story.call();
    let push = story.push().expect("within the limit");
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);
    story.complete(push, RunOutcome::Ok);
    story.call();
    assert!(story.push().is_some(), "the limit is whole");
}

#[test]
fn a_full_table_means_no_second_attempt() {
    let limits = Limits { invocations_max: 1, ..Limits::default() };
    let policy = Policy { hedge: Some(SOON), ..Policy::default() };
    let mut story = Story::with(limits, vec![FunctionSpec { idempotent: true, policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story.attach(ECHO, 1);
    story.call();
    let push = story.push().expect("a worker is free");
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);
    assert_eq!(answer(story.complete(push, RunOutcome::Ok)).status, Status::Ok);
}

#[test]
fn the_measured_percentile_says_what_takes_long() {
    let spec = HedgeSpec { after: HedgeAfter::Percentile(95), load_percent: 100 };
    let mut story = hedged(2, spec);
    // Given: nothing is known. Expect: no second attempt, however long it takes.
    story.call();
    let push = story.push().expect("a worker is free");
    story.pass(Nanos::from_secs(1), HAS_STARTED);
    assert_eq!(story.hedges(), []);
    story.complete(push, RunOutcome::Ok);
    // Given: calls that take 5 ms; the first one is forgotten by then.
    for _ in 0..2_500 {
        story.call();
        let push = story.push().expect("a worker is free");
        story.now = story.now.plus(Nanos::from_ms(5));
        story.complete(push, RunOutcome::Ok);
    }
    story.call();
    let push = story.push().expect("a worker is free");
    story.pass(Nanos::from_ms(4), HAS_STARTED);
    assert_eq!(story.hedges(), [], "as long as any");
    story.pass(Nanos::from_ms(4), HAS_STARTED);
    assert_eq!(story.hedges().len(), 1);
    story.complete(push, RunOutcome::Ok);
}

#[test]
fn a_call_that_must_not_run_twice_and_a_second_try_are_not_hedged() {
    let policy = Policy { hedge: Some(SOON), ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story.attach(ECHO, 1);
    story.call();
    story.push();
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);

    let mut story = hedged(3, SOON);
    story.call();
    let push = story.push().expect("a worker is free");
    story.lose(push.worker, HAS_STARTED);
    story.push().expect("it is tried again");
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);
}

#[test]
fn hedging_can_be_switched_off_while_a_pair_runs() {
    let mut story = hedged(2, SOON);
    let (first, second) = story.hedge();
    story.call();
    let without = FunctionSpec { idempotent: true, ..spec("echo") };
    let tenants = TenantSpec::only_default();
    assert_eq!(story.engine.handle_reconfigure(tenants, vec![Some(without)]), Ok(()));
    story.engine.invariants();
    assert_eq!(answer(story.complete(second, RunOutcome::Ok)).invocation, first.invocation);
    assert_eq!(story.complete(first, RunOutcome::Ok), Completed::AlreadyAnswered);
    story.push().expect("it waited");
    story.pass(PAST_AFTER, HAS_STARTED);
    assert_eq!(story.hedges(), []);
}

#[test]
fn who_joined_a_hedged_call_gets_the_first_answer_too() {
    let key = [1; 16];
    for is_own_worker_lost in [false, true] {
        let mut story = hedged(2, SOON);
        let keyed = |story: &mut Story| {
            let asked = Request { received_at: story.now, ..request() };
            match story.engine.handle_keyed_request(story.now, asked, key, None) {
                Verdict::Admitted(id) => id,
                other => panic!("{other:?}"),
            }
        };
        let first = keyed(&mut story);
        let push = story.push().expect("a worker is free");
        let second = keyed(&mut story);
        story.pass(PAST_AFTER, HAS_STARTED);
        let twin = story.hedges()[0].push;
        if is_own_worker_lost {
            story.lose(push.worker, HAS_STARTED);
        }
        // Expect: the call can still be joined.
        let third = keyed(&mut story);
        let own = match story.engine.handle_completion(
            story.now,
            twin.worker,
            twin.invocation,
            finished(RunOutcome::Ok),
        ) {
            Completed::Answer(answer) => Some(answer),
            _ => None,
        };
        let others = std::iter::from_fn(|| story.engine.poll_joined(story.now));
        let told: Vec<_> = own.into_iter().chain(others).map(|it| (it.invocation, it.status)).collect();
        assert_eq!(told, [(first, Status::Ok), (second, Status::Ok), (third, Status::Ok)]);
        story.engine.invariants();
    }
}

#[test]
fn the_twin_of_a_call_without_a_key_is_not_found_under_the_key_of_who_had_its_slot_before() {
    let mut story = hedged(2, SOON);
    let keyed = |story: &mut Story| {
        let asked = Request { received_at: story.now, ..request() };
        story.engine.handle_keyed_request(story.now, asked, [1; 16], None)
    };
    let Verdict::Admitted(before) = keyed(&mut story) else { panic!("a worker is free") };
    let push = story.push().expect("a worker is free");
    story.complete(push, RunOutcome::Ok);
    let (first, _) = story.hedge();
    assert_eq!(first.invocation.slot(), before.slot());
    story.lose(first.worker, HAS_STARTED);
    keyed(&mut story);
    assert_eq!(story.count(Counter::CallsJoined), 0);
}
