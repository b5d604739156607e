use super::*;

/// `echo`, idempotent and with this rule for retries, and a worker for it.
fn retried(retry: RetrySpec) -> Story {
    let policy = Policy { retry, ..Policy::default() };
    let mut story =
        Story::with(Limits::default(), vec![FunctionSpec { idempotent: true, policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story
}

const ON_ERROR: RetrySpec = RetrySpec {
    retries_max: 2,
    budget_percent: 100,
    backoff: Nanos::ZERO,
    backoff_max: Nanos::ZERO,
    on_error: true,
};

/// The worker of this push dies while it runs the call, and another one takes its place.
fn die(story: &mut Story, push: Push) {
    story.lose(push.worker, HAS_STARTED);
    story.attach(ECHO, 1);
}

/// The one answer that waits, with what is kept of its call.
fn kept(story: &mut Story) -> (Status, Keep) {
    let answer = story.engine.poll_answer().expect("an answer");
    assert_eq!(story.engine.poll_answer(), None);
    (answer.status, answer.keep)
}

#[test]
fn a_call_of_which_two_workers_died_is_quarantined_whatever_attempts_are_left() {
    let mut story = retried(RetrySpec { retries_max: 7, ..RetrySpec::default() });
    let id = story.call();
    for _ in 0..2 {
        let push = story.push().expect("it is given to a worker");
        assert_eq!(push.invocation, id);
        die(&mut story, push);
    }
    assert_eq!(story.push(), None, "a third worker does not get it");
    assert_eq!(kept(&mut story), (Status::Quarantined, Keep::InQuarantine));
    assert_eq!(story.count(Counter::AnsweredQuarantined), 1);
    assert!(story.engine.is_idle());
}

#[test]
fn innocent_calls_of_dead_workers_are_never_quarantined() {
    let mut story = retried(RetrySpec { retries_max: 7, ..RetrySpec::default() });
    story.call();
    for evidence in [NOT_STARTED, UNREADABLE, NOT_STARTED, HAS_STARTED, UNREADABLE] {
        let push = story.push().expect("it is given to a worker");
        story.lose(push.worker, evidence);
        story.attach(ECHO, 1);
    }
    let push = story.push().expect("only one worker died of it for certain");
    assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::Ok));
}

#[test]
fn a_call_that_used_its_attempts_up_is_a_dead_letter_and_one_that_had_none_is_not() {
    // Given: a call that may be tried once more, and whose workers die where nobody can tell of what.
    let mut story = retried(RetrySpec::default());
    story.call();
    for _ in 0..2 {
        let push = story.push().expect("it is given to a worker");
        story.lose(push.worker, UNREADABLE);
        story.attach(ECHO, 1);
    }
    assert_eq!(kept(&mut story), (Status::WorkerLost, Keep::AsDeadLetter));

    // Given: one that must not be tried again.
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    story.call();
    story.push();
    story.lose(worker, HAS_STARTED);
    assert_eq!(kept(&mut story), (Status::WorkerLost, Keep::No));
}

#[test]
fn errors_are_tried_again_only_where_that_is_asked_for() {
    // Given: a function that fails twice. Expect: its third result is the answer.
    let mut story = retried(ON_ERROR);
    story.call();
    for _ in 0..2 {
        let push = story.push().expect("an attempt");
        assert_eq!(story.complete(push, RunOutcome::FunctionError), Completed::TriedAgain);
    }
    let push = story.push().expect("the last attempt");
    assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::Ok));
    assert_eq!(story.count(Counter::CallsRetried), 2);

    // Given: one that fails three times. Expect: its error is the answer, and the call a dead letter.
    story.call();
    for _ in 0..2 {
        let push = story.push().expect("an attempt");
        story.complete(push, RunOutcome::FunctionError);
    }
    let push = story.push().expect("the last attempt");
    let Completed::LastAnswer(answer) = story.complete(push, RunOutcome::FunctionError) else { panic!() };
    let told = (answer.status, answer.keep, answer.attempts);
    assert_eq!(told, (Status::FunctionError, Keep::AsDeadLetter, 3));
    assert!(story.engine.is_idle());

    // Expect: without `on_error` an error is the answer.
    let mut story = retried(RetrySpec::default());
    story.call();
    let push = story.push().expect("an attempt");
    assert!(matches!(story.complete(push, RunOutcome::FunctionError), Completed::Answer(_)));
}

#[test]
fn a_call_that_must_not_run_twice_is_not_tried_again_after_an_error() {
    let policy = Policy { retry: ON_ERROR, ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story.call();
    let push = story.push().expect("an attempt");
    assert!(matches!(story.complete(push, RunOutcome::FunctionError), Completed::Answer(_)));
}

#[test]
fn a_retry_waits_a_random_part_of_its_back_off_and_no_longer() {
    let backoff = Nanos::from_ms(100);
    let retry = RetrySpec { backoff, backoff_max: Nanos::from_secs(1), budget_percent: 100, ..ON_ERROR };
    let mut waits = vec![];
    for seed in 0..32 {
        let mut story = retried(retry);
        story.engine.seed_chance(seed);
        story.call();
        let push = story.push().expect("an attempt");
        let begun_at = story.now;
        story.complete(push, RunOutcome::FunctionError);
        while story.push().is_none() {
            let at = story.engine.next_timer().expect("a timer for the delayed call");
            story.pass(at.since(story.now), NOT_STARTED);
        }
        waits.push(story.now.since(begun_at));
    }
    let tick = Nanos::from_us(300);
    assert!(waits.iter().all(|wait| *wait <= backoff.plus(tick)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait < Nanos::from_ms(25)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > Nanos::from_ms(75)), "{waits:?}");
}

/// A call that waits for its second attempt, for longer than its time-out of half a minute if it were allowed to.
fn delayed() -> (Story, InvocationId) {
    let hours = Nanos::from_secs(3600);
    let mut story = retried(RetrySpec { backoff: hours, backoff_max: hours, ..ON_ERROR });
    let id = story.call();
    let push = story.push().expect("an attempt");
    assert_eq!(story.complete(push, RunOutcome::FunctionError), Completed::TriedAgain);
    assert_eq!(story.push(), None);
    (story, id)
}

#[test]
fn a_delayed_call_is_cancelled_forgotten_and_timed_out_like_any_other() {
    let (mut story, id) = delayed();
    assert_eq!(story.cancel(id, CancelReason::Asked), Cancelled::Answering);
    assert_eq!(story.answers(), [(Status::Cancelled, true)]);
    assert!(story.engine.is_idle());

    let (mut story, id) = delayed();
    assert_eq!(story.cancel(id, CancelReason::ClientGone), Cancelled::Forgotten);
    assert!(story.engine.is_idle());

    // Expect: told as late as a tick after the deadline, and as a call that had started.
    let (mut story, _) = delayed();
    story.pass(Nanos::from_secs(31), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true)]);
    assert!(story.engine.is_idle());
}

#[test]
fn a_back_off_leaves_at_least_half_of_the_time_for_the_next_attempt() {
    let (mut story, id) = delayed();
    story.pass(Nanos::from_ms(15_001), NOT_STARTED);
    assert_eq!(story.push().map(|push| push.invocation), Some(id));
}

#[test]
fn retries_never_exceed_their_fraction_of_the_traffic() {
    // Given: a function that always fails, and a budget of 10 %.
    let mut story = retried(RetrySpec { retries_max: 7, budget_percent: 10, ..ON_ERROR });
    for _ in 0..1_000 {
        story.call();
        while let Some(push) = story.push() {
            story.complete(push, RunOutcome::FunctionError);
        }
    }
    let retries = story.count(Counter::CallsRetried);
    assert!((100..=110).contains(&retries), "{retries}: a tenth of the calls, and the burst of ten");
    assert!(story.count(Counter::RetriesDenied) > 800);
    assert!(story.engine.is_idle());
}

#[test]
fn calls_that_never_began_are_tried_again_without_a_budget() {
    let mut story = retried(RetrySpec { budget_percent: 0, ..RetrySpec::default() });
    let worker = story.attach(ECHO, 64);
    story.call_many(64);
    story.pushes();
    story.lose(worker, NOT_STARTED);
    assert_eq!(story.count(Counter::CallsRetried), 64);
    assert_eq!(story.count(Counter::RetriesDenied), 0);
}

#[test]
fn a_call_that_comes_back_to_its_worker_is_held_once() {
    // Given: two calls in one ring, of which the second fails first and is tried again by the same worker.
    let retry = RetrySpec { on_error: true, ..RetrySpec::default() };
    let policy = Policy { retry, ..Policy::default() };
    let mut story =
        Story::with(Limits::default(), vec![FunctionSpec { idempotent: true, policy, ..spec("echo") }]);
    let worker = story.attach(ECHO, 4);
    story.call_many(2);
    let pushes = story.pushes();
    assert_eq!(story.complete(pushes[1], RunOutcome::FunctionError), Completed::TriedAgain);
    assert_eq!(story.push().map(|push| push.invocation), Some(pushes[1].invocation));

    // Expect: the worker's death ends each of them once.
    story.lose(worker, HAS_STARTED);
    assert!(story.answers().len() <= 2);
}
