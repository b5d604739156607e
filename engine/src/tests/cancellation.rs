use super::*;

#[test]
fn cancel_of_a_queued_call_answers_that_it_never_started() {
    let mut story = Story::new();
    let ids: Vec<_> = (0..3).map(|_| story.call()).collect();
    assert_eq!(story.cancel(ids[1], CancelReason::Asked), Cancelled::Answering);
    assert_eq!(story.answers(), [(Status::Cancelled, false)]);
    story.attach(ECHO, 3);
    let pushed: Vec<_> = story.pushes().into_iter().map(|push| push.invocation).collect();
    assert_eq!(pushed, [ids[0], ids[2]]);
}

#[test]
fn cancel_of_a_pushed_call_answers_at_once_and_drops_the_late_result() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    let id = story.call();
    let push = story.push().expect("a worker has credit");
    assert_eq!(story.cancel(id, CancelReason::Asked), Cancelled::Answering);
    assert_eq!(story.answers(), [(Status::Cancelled, true)]);
    assert_eq!(story.actions(), [WorkerAction::Cancel { worker, invocation: id }]);
    assert_eq!(story.complete(push, RunOutcome::Ok), Completed::AlreadyAnswered);
    assert_eq!(story.count(Counter::ResultsDropped), 1);
    assert!(story.engine.is_idle());
}

#[test]
fn a_result_before_the_answer_is_polled_does_not_make_a_second_one() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let id = story.call();
    let push = story.push().expect("a worker has credit");
    story.cancel(id, CancelReason::Asked);
    assert_eq!(story.complete(push, RunOutcome::Ok), Completed::AlreadyAnswered);
    assert_eq!(story.actions(), [], "the worker let go before the mark was set");
    assert_eq!(story.answers(), [(Status::Cancelled, true)]);
    assert!(story.engine.is_idle());
}

#[test]
fn a_client_that_is_gone_gets_no_answer_in_any_state() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    let (pushed, queued) = (story.call(), story.call());
    let push = story.push().expect("a worker has credit");
    assert_eq!(story.cancel(pushed, CancelReason::ClientGone), Cancelled::Forgotten);
    assert_eq!(story.cancel(queued, CancelReason::ClientGone), Cancelled::Forgotten);
    assert_eq!(story.actions(), [WorkerAction::Cancel { worker, invocation: pushed }]);
    assert_eq!(story.complete(push, RunOutcome::Cancelled), Completed::AlreadyAnswered);
    assert_eq!(story.answers(), []);
    assert_eq!(story.count(Counter::CallsForgotten), 2);
    assert!(story.engine.is_idle());
}

#[test]
fn a_second_cancel_and_one_for_nothing_do_nothing() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let (pushed, queued) = (story.call(), story.call());
    story.push();
    story.cancel(pushed, CancelReason::Asked);
    story.cancel(queued, CancelReason::Asked);
    assert_eq!(story.cancel(pushed, CancelReason::Asked), Cancelled::AlreadyEnded);
    assert_eq!(story.cancel(queued, CancelReason::ClientGone), Cancelled::AlreadyEnded);
    assert_eq!(story.cancel(InvocationId(77), CancelReason::Asked), Cancelled::Unknown);
    assert_eq!(story.answers().len(), 2);
    assert_eq!(story.cancel(pushed, CancelReason::Asked), Cancelled::AlreadyEnded);
    assert_eq!(story.cancel(queued, CancelReason::Asked), Cancelled::Unknown);
    assert_eq!(story.count(Counter::CancelsIgnored), 5);
}

#[test]
fn cancel_of_an_overdue_call_is_its_answer() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let id = story.call();
    let push = story.push().expect("a worker has credit");
    story.pass(Nanos::from_secs(31), NOT_STARTED);
    assert_eq!(story.actions().len(), 1);
    assert_eq!(story.cancel(id, CancelReason::Asked), Cancelled::Answering);
    assert_eq!(story.actions(), [], "it was marked when it became overdue");
    assert_eq!(story.answers(), [(Status::Cancelled, true)]);
    assert_eq!(story.complete(push, RunOutcome::Expired), Completed::AlreadyAnswered);
}

#[test]
fn a_worker_that_runs_a_cancelled_call_past_its_deadline_and_grace_is_killed() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    let id = story.call();
    story.push();
    story.cancel(id, CancelReason::ClientGone);
    story.actions();
    story.pass(Nanos::from_secs(30), HAS_STARTED);
    assert_eq!(story.actions(), []);
    story.pass(Nanos::from_secs(2), HAS_STARTED);
    assert_eq!(story.actions(), [WorkerAction::Kill { worker, reason: KillReason::Overstayed }]);
}
