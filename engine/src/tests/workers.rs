use super::*;

/// A worker is lost with one call in its ring: how is the call answered, or is it tried again?
fn check(
    idempotent: bool,
    evidence: fn(WorkerId, InvocationId) -> Started,
    expected: Option<(Status, bool)>,
) {
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { idempotent, ..spec("echo") }]);
    let worker = story.attach(ECHO, 1);
    let id = story.call();
    let first = story.push().expect("a worker has credit");
    story.lose(worker, evidence);
    assert_eq!(story.complete(first, RunOutcome::Ok), Completed::Stale, "a lost worker has no say");

    let heir = story.attach(ECHO, 1);
    match expected {
        Some(answer) => {
            assert_eq!(story.answers(), [answer]);
            assert_eq!(story.push(), None);
        }
        None => {
            assert_eq!(story.answers(), []);
            let second = story.push().expect("tried again");
            assert_eq!((second.invocation, second.worker), (id, heir));
            assert_eq!(status_of(story.complete(second, RunOutcome::Ok)), Some(Status::Ok));
        }
    }
    assert!(story.engine.is_idle());
}

#[test]
fn a_lost_workers_call_is_tried_again_only_where_that_does_no_harm() {
    check(false, NOT_STARTED, None);
    check(false, HAS_STARTED, Some((Status::WorkerLost, true)));
    check(false, UNREADABLE, Some((Status::WorkerLost, true)));
    check(true, NOT_STARTED, None);
    check(true, HAS_STARTED, None);
    check(true, UNREADABLE, None);
}

#[test]
fn the_caller_may_say_that_its_call_can_be_repeated() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    story.admit(Request { flags: Flags::IDEMPOTENT, ..request() });
    story.push();
    story.lose(worker, HAS_STARTED);
    story.attach(ECHO, 1);
    assert!(story.push().is_some());
    assert_eq!(story.count(Counter::CallsRetried), 1);
}

#[test]
fn a_call_that_lost_two_workers_is_not_given_a_third() {
    let mut story = Story::new();
    story.call();
    for _ in 0..2 {
        let worker = story.attach(ECHO, 1);
        story.push().expect("a first and a second attempt");
        story.lose(worker, NOT_STARTED);
    }
    story.attach(ECHO, 1);
    assert_eq!(story.push(), None);
    assert_eq!(story.answers(), [(Status::WorkerLost, false)]);
}

#[test]
fn a_call_whose_first_attempt_may_have_started_never_expires_as_unstarted() {
    for (end, status) in
        [(CancelReason::ClientGone, Status::TimedOut), (CancelReason::Asked, Status::Cancelled)]
    {
        let mut story = Story::new();
        let worker = story.attach(ECHO, 1);
        let id = story.admit(Request { flags: Flags::IDEMPOTENT, ..request() });
        story.push();
        story.lose(worker, UNREADABLE);
        match end {
            CancelReason::Asked => drop(story.cancel(id, end)),
            CancelReason::ClientGone => story.pass(Nanos::from_secs(31), NOT_STARTED),
        }
        assert_eq!(story.answers(), [(status, true)]);
    }
}

#[test]
fn a_call_tried_again_goes_behind_its_equals() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    let suspect = story.call();
    story.push();
    let innocent = story.call();
    story.lose(worker, NOT_STARTED);
    story.attach(ECHO, 2);
    let order: Vec<_> = story.pushes().into_iter().map(|push| push.invocation).collect();
    assert_eq!(order, [innocent, suspect]);
}

#[test]
fn a_misbehaving_worker_is_quarantined_and_its_calls_taken_from_it() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 3);
    story.call();
    story.admit(Request { flags: Flags::IDEMPOTENT, ..request() });
    let pushes = story.pushes();
    story.engine.handle_worker_misbehaved(story.now, worker);
    story.engine.handle_worker_misbehaved(story.now, worker);
    story.engine.invariants();

    assert_eq!(story.answers(), [(Status::WorkerMisbehaved, true)]);
    assert_eq!(story.actions(), [WorkerAction::Kill { worker, reason: KillReason::Misbehaved }]);
    assert_eq!(story.push(), None, "a quarantined worker gets nothing");
    assert_eq!(story.complete(pushes[1], RunOutcome::Ok), Completed::Stale);
    assert_eq!(story.count(Counter::WorkersQuarantined), 1);
    assert_eq!(story.engine.worker_view(worker).map(|it| it.state), Some(WorkerState::Quarantined));

    story.lose(worker, NOT_STARTED);
    assert_eq!(story.engine.worker_view(worker), None);
    story.attach(ECHO, 1);
    assert_eq!(story.push().map(|push| push.invocation), Some(pushes[1].invocation));
}

#[test]
fn an_overdue_call_of_a_lost_worker_is_expired_if_it_never_started() {
    for (evidence, answer) in
        [(NOT_STARTED, (Status::Expired, false)), (HAS_STARTED, (Status::TimedOut, true))]
    {
        let mut story = Story::new();
        let worker = story.attach(ECHO, 1);
        story.call();
        story.push();
        story.pass(Nanos::from_secs(31), NOT_STARTED);
        story.lose(worker, evidence);
        assert_eq!(story.answers(), [answer]);
        assert_eq!(story.actions(), [], "a lost worker needs no cancel");
        assert!(story.engine.is_idle());
    }
}

#[test]
fn a_draining_worker_finishes_what_it_has_and_is_told_to_stop() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 2);
    story.call();
    let push = story.push().expect("a worker has credit");
    story.engine.handle_worker_draining(worker);
    story.call();
    assert_eq!(story.push(), None);
    assert_eq!(story.actions(), []);
    story.complete(push, RunOutcome::Ok);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker }]);
    story.lose(worker, NOT_STARTED);

    let idle = story.attach(OTHER, 1);
    story.engine.handle_worker_draining(idle);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: idle }]);
}

#[test]
fn results_for_calls_that_the_worker_does_not_hold_are_stale() {
    let mut story = Story::new();
    let holder = story.attach(ECHO, 1);
    let queued = [story.call(), story.call()];
    let push = story.push().expect("a worker has credit");
    let stranger = story.attach(OTHER, 1);
    let mut stale = |worker, invocation| {
        story.complete(Push { worker, invocation, ..push }, RunOutcome::Ok) == Completed::Stale
    };
    assert!(stale(stranger, push.invocation), "another worker's call");
    assert!(stale(holder, queued[1]), "a call that is still queued");
    assert!(stale(holder, InvocationId(push.invocation.0 ^ 1)), "another shard's");
    assert!(stale(holder, InvocationId(push.invocation.0 ^ 1 << 32)), "another generation");
    assert!(stale(holder, InvocationId(u64::MAX)), "no slot at all");
    assert!(stale(WorkerId { generation: 9, ..holder }, push.invocation), "a worker of another life");
    assert!(stale(WorkerId { index: 900, generation: 1 }, push.invocation), "no worker at all");
    assert_eq!(story.count(Counter::ResultsStale), 7);
    assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::Ok));
    assert_eq!(story.complete(push, RunOutcome::Ok), Completed::Stale, "answered twice");
}
