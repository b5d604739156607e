use super::*;

const TIMEOUT: Nanos = Nanos::from_secs(30);
const GRACE: Nanos = Nanos::from_secs(1);
const TICK: Nanos = crate::timers::TICK;

/// One worker with a call in its ring whose deadline is `TIMEOUT` away.
fn with_a_pushed_call() -> (Story, Push) {
    let mut story = Story::new();
    story.attach(ECHO, 2);
    story.call();
    let push = story.push().expect("a worker has credit");
    (story, push)
}

#[test]
fn a_queued_call_expires_at_its_deadline_and_not_before() {
    let mut story = Story::new();
    story.admit(Request { budget_us: 5000, ..request() });
    story.pass(Nanos(4_999_999), NOT_STARTED);
    assert_eq!(story.answers(), []);
    story.pass(Nanos(TICK.0 + 1), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
    assert!(story.engine.is_idle());
}

#[test]
fn following_next_timer_finds_the_deadline_within_a_tick() {
    let mut story = Story::new();
    story.call();
    let deadline_at = story.now.plus(TIMEOUT);
    let mut wakes = 0;
    while story.engine.in_flight() > 0 && story.answers().is_empty() {
        let at = story.engine.next_timer().expect("a call has a timer");
        story.pass(at.since(story.now), NOT_STARTED);
        wakes += 1;
        assert!(wakes < 100, "an idle router must not spin");
    }
    assert!(story.now >= deadline_at);
    assert!(story.now <= deadline_at.plus(TICK));
}

#[test]
fn a_running_call_is_answered_timed_out_at_its_deadline_and_asked_to_stop() {
    let (mut story, push) = with_a_pushed_call();
    story.pass(TIMEOUT.plus(TICK), HAS_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true)]);
    assert_eq!(story.actions(), [WorkerAction::Cancel { worker: push.worker, invocation: push.invocation }]);
    assert_eq!(story.complete(push, RunOutcome::Ok), Completed::AlreadyAnswered);
    assert!(story.engine.is_idle());
}

#[test]
fn a_worker_that_runs_on_after_the_grace_is_killed_once() {
    let (mut story, push) = with_a_pushed_call();
    story.pass(TIMEOUT.plus(TICK), HAS_STARTED);
    story.actions();
    story.pass(GRACE.plus(TICK), HAS_STARTED);
    assert_eq!(story.actions(), [WorkerAction::Kill { worker: push.worker, reason: KillReason::Overstayed }]);
    story.pass(Nanos::from_secs(5), HAS_STARTED);
    assert_eq!(story.actions(), []);
    story.call();
    assert_eq!(story.push(), None, "a worker that is to be killed gets nothing new");

    story.lose(push.worker, HAS_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true)], "the one answer it got at its deadline");
    assert_eq!(story.engine.in_flight(), 1);
}

#[test]
fn an_untaken_call_is_expired_only_after_the_mark_was_set_and_seen_to_be_in_time() {
    let (mut story, push) = with_a_pushed_call();
    // Given: the deadline passes, but the router has not carried out the cancel yet.
    story.pass(TIMEOUT.plus(TICK), NeverStarted);
    assert_eq!(story.answers(), []);
    story.pass(Nanos(2 * TICK.0), NeverStarted);
    assert_eq!(story.answers(), [], "without the mark, `No` is no proof");

    // Expect: with the mark set it is.
    assert_eq!(story.actions().len(), 1);
    story.pass(Nanos(4 * TICK.0), NeverStarted);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
    assert_eq!(story.complete(push, RunOutcome::Cancelled), Completed::AlreadyAnswered);
    assert!(story.engine.is_idle());
}

#[test]
fn an_untaken_call_of_a_live_worker_waits_for_its_word_where_the_mark_proves_nothing() {
    let (mut story, _) = with_a_pushed_call();
    story.pass(TIMEOUT.plus(TICK), NOT_STARTED);
    story.actions();
    story.pass(Nanos(GRACE.0 / 2), NOT_STARTED);
    assert_eq!(story.answers(), []);
    story.pass(GRACE, NOT_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true)], "nobody can prove that it did not start");
}

#[test]
fn a_call_taken_just_before_the_mark_is_timed_out() {
    let (mut story, _) = with_a_pushed_call();
    story.pass(TIMEOUT.plus(TICK), NOT_STARTED);
    story.actions();
    story.pass(Nanos(2 * TICK.0), HAS_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true)]);
}

#[test]
fn the_workers_own_word_settles_an_overdue_call() {
    let cases = [
        (RunOutcome::Expired, Status::Expired),
        (RunOutcome::Cancelled, Status::Expired),
        (RunOutcome::Ok, Status::TimedOut),
        (RunOutcome::FunctionError, Status::TimedOut),
        (RunOutcome::ResultTooLarge, Status::TimedOut),
    ];
    for (outcome, status) in cases {
        let (mut story, push) = with_a_pushed_call();
        story.pass(TIMEOUT.plus(TICK), NOT_STARTED);
        assert_eq!(status_of(story.complete(push, outcome)), Some(status), "{outcome:?}");
        assert_eq!(story.answers(), []);
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_timed_out_after_the_grace_and_its_worker_killed() {
    let (mut story, push) = with_a_pushed_call();
    let answered_by = story.now.plus(TIMEOUT).plus(GRACE).plus(GRACE);
    let mut answers = vec![];
    while answers.is_empty() {
        let at = story.engine.next_timer().expect("an overdue call is looked at again");
        story.pass(at.since(story.now), UNREADABLE);
        story.actions();
        answers = story.answers();
    }
    assert_eq!(answers, [(Status::TimedOut, true)]);
    assert!(story.now <= answered_by);
    story.pass(GRACE.plus(TICK), UNREADABLE);
    assert_eq!(story.actions(), [WorkerAction::Kill { worker: push.worker, reason: KillReason::Overstayed }]);
}

#[test]
fn a_worker_busy_with_another_call_is_not_killed_for_an_untaken_one() {
    // Given: a long call runs; a short one waits behind it in the ring and expires there.
    let mut story = Story::new();
    let worker = story.attach(ECHO, 2);
    let long = story.call();
    story.admit(Request { budget_us: 10_000, ..request() });
    assert_eq!(story.pushes().len(), 2);
    let evidence = |_, id| if id == long { Started::Yes } else { Started::No };
    for _ in 0..25 {
        story.pass(Nanos::from_secs(1), evidence);
        assert!(story.actions().iter().all(|it| matches!(it, WorkerAction::Cancel { .. })));
    }
    assert_eq!(story.answers(), [(Status::TimedOut, true)]);

    // Expect: but one that stands still as a whole is.
    story.pass(Nanos::from_secs(2), NOT_STARTED);
    assert_eq!(story.actions(), [WorkerAction::Kill { worker, reason: KillReason::Stalled }]);
}

#[test]
fn a_result_in_time_is_the_answer_though_the_timer_is_near() {
    let (mut story, push) = with_a_pushed_call();
    story.pass(Nanos(TIMEOUT.0 - 1), HAS_STARTED);
    assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::Ok));
    story.pass(Nanos::from_secs(60), HAS_STARTED);
    assert_eq!(story.answers(), []);
}

#[test]
fn a_clock_jump_of_hours_ends_everything_in_a_few_calls() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    story.call_many(50);
    story.push();
    story.pass(Nanos::from_secs(5 * 3600), HAS_STARTED);
    let answers = story.answers();
    assert_eq!(answers.iter().filter(|it| **it == (Status::Expired, false)).count(), 49);
    assert_eq!(answers.iter().filter(|it| **it == (Status::TimedOut, true)).count(), 1);
    story.lose(worker, HAS_STARTED);
    story.actions();
    assert!(story.engine.is_idle());
}

#[test]
fn calls_that_ran_out_of_time_are_counted_apart_from_cancelled_ones() {
    // Given: one of each of the four ends that stop a call.
    let mut story = Story::new();
    story.attach(ECHO, 2);
    let cancelled_running = story.call();
    let timed_out = story.call();
    let cancelled_queued = story.call();
    story.call();
    assert_eq!(story.pushes().len(), 2);
    story.cancel(cancelled_running, CancelReason::Asked);
    story.cancel(cancelled_queued, CancelReason::Asked);
    story.pass(TIMEOUT.plus(TICK), HAS_STARTED);

    // Expect
    let mut answers = story.answers();
    answers.sort();
    let expected = [
        (Status::Expired, false),
        (Status::TimedOut, true),
        (Status::Cancelled, false),
        (Status::Cancelled, true),
    ];
    assert_eq!(answers, expected);
    assert_eq!(story.cancel(timed_out, CancelReason::Asked), Cancelled::AlreadyEnded);
    let counted = [Counter::AnsweredExpired, Counter::AnsweredTimedOut, Counter::AnsweredCancelled];
    assert_eq!(counted.map(|counter| story.count(counter)), [1, 1, 2]);
}
