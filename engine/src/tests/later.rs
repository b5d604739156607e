use super::*;

const TICK: Nanos = crate::timers::TICK;

impl Story {
    /// A call that must not start before `start_after` has passed.
    fn later(&mut self, start_after: Nanos, asked: Request) -> Verdict {
        self.calls += 1;
        let mut request = Request { received_at: self.now, ..asked };
        request.origin.call_id = CallId(self.calls);
        let special = Special { start_after, ..Special::default() };
        let verdict = self.engine.handle_special_request(self.now, request, special);
        self.engine.invariants();
        verdict
    }

    fn admit_later(&mut self, start_after: Nanos, asked: Request) -> InvocationId {
        match self.later(start_after, asked) {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }
}

#[test]
fn a_call_starts_at_its_time_and_not_before_though_a_worker_is_free() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    let id = story.admit_later(Nanos::from_secs(2), request());
    assert_eq!(story.push(), None);
    story.pass(Nanos(Nanos::from_secs(2).0 - 1), NOT_STARTED);
    assert_eq!(story.push(), None, "a nanosecond too early");

    // Expect: at most a tick after it.
    assert!(story.engine.next_timer().is_some_and(|at| at <= story.now.plus(TICK)));
    story.pass(TICK, NOT_STARTED);
    assert_eq!(story.push().map(|push| push.invocation), Some(id));
    assert_eq!(story.count(Counter::CallsScheduled), 1);
}

#[test]
fn the_budget_counts_from_the_start() {
    let mut story = Story::new();
    let asked = Request { budget_us: 50_000, ..request() };
    let id = story.admit_later(Nanos::from_secs(2), asked);
    let view = story.engine.call_view(id).expect("it is kept");
    assert_eq!(view.due_at, Some(Nanos::from_secs(3)), "a second past the start of the clock, and two");
    assert_eq!(view.deadline_at, Nanos::from_secs(3).plus(Nanos::from_ms(50)));

    // Expect: without a worker it ends then, never started.
    story.pass(Nanos::from_ms(2_050).plus(TICK), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
}

#[test]
fn what_is_due_at_once_is_an_ordinary_call() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    story.admit_later(Nanos::ZERO, request());
    assert!(story.push().is_some());
    assert_eq!(story.count(Counter::CallsScheduled), 0);
}

#[test]
fn a_start_beyond_the_limit_is_refused() {
    let limits = Limits { start_after_max: Nanos::from_secs(60), ..Limits::default() };
    let mut story = Story::with(limits, vec![spec("echo")]);
    assert_eq!(story.later(Nanos::from_secs(60).plus(Nanos(1)), request()), refused(Status::StartTooLate));
    assert_eq!(story.later(Nanos::NEVER, request()), refused(Status::StartTooLate));
    assert_eq!(story.count(Counter::RefusedStartTooLate), 2);
    story.admit_later(Nanos::from_secs(60), request());
}

#[test]
fn as_many_may_start_later_as_may_stand_in_the_queue() {
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { queue_count_max: 2, ..spec("echo") }]);
    let second = Nanos::from_secs(1);
    let first = story.admit_later(second, request());
    story.admit_later(second, request());
    assert_eq!(story.later(second, request()), refused(Status::QueueFull));

    // Expect: calls for now have the queue for themselves; and a place is free when one is cancelled, or is due.
    story.call_many(2);
    assert_eq!(story.cancel(first, CancelReason::Asked), Cancelled::Answering);
    story.admit_later(second.plus(second), request());
    story.pass(second.plus(TICK), NOT_STARTED);
    assert_eq!(story.engine.function_view(ECHO).map(|view| (view.queued, view.scheduled)), Some((3, 1)));
    story.admit_later(second, request());
}

#[test]
fn limits_and_rates_are_asked_when_the_call_comes() {
    let policy = Policy { rate: Some(Rate { per_second: 1, burst: 1 }), ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    let minute = Nanos::from_secs(60);
    story.admit_later(minute, request());
    let Verdict::Refused(told) = story.later(minute, request()) else { panic!("over the rate") };
    assert_eq!(told.status, Status::RateLimited);
    let large = Request { payload_size: 1001, ..request() };
    assert_eq!(story.later(minute, large), refused(Status::PayloadTooLarge));
    story.engine.handle_drain();
    assert_eq!(story.later(minute, request()), refused(Status::Draining));
}

#[test]
fn how_things_are_now_is_not_asked() {
    // Given: a full queue.
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { queue_count_max: 1, ..spec("echo") }]);
    story.call();
    assert_eq!(story.request(request()), refused(Status::QueueFull));
    story.admit_later(Nanos::from_secs(1), request());
}

#[test]
fn a_call_that_is_not_due_is_cancelled_or_forgotten_at_once() {
    let mut story = Story::new();
    let cancelled = story.admit_later(Nanos::from_secs(1), request());
    let forgotten = story.admit_later(Nanos::from_secs(1), request());
    assert_eq!(story.cancel(cancelled, CancelReason::Asked), Cancelled::Answering);
    assert_eq!(story.cancel(forgotten, CancelReason::ClientGone), Cancelled::Forgotten);
    assert_eq!(story.answers(), [(Status::Cancelled, false)]);
    assert!(story.engine.is_idle());
    assert_eq!(story.engine.next_timer(), None);
}

#[test]
fn it_waits_from_when_it_is_due_and_not_from_when_it_came() {
    let policy = Policy { ageing: Some(Nanos::from_ms(100)), ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.admit_later(Nanos::from_secs(1), request());
    story.pass(Nanos::from_secs(1).plus(TICK), NOT_STARTED);
    assert_eq!(story.count(Counter::CallsAged), 0);
    assert_eq!(story.engine.function_view(ECHO).and_then(|view| view.oldest_at), Some(story.now));
}

#[test]
fn people_are_told_that_it_is_not_due() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    let id = story.admit_later(Nanos::from_secs(1), request());
    story.engine.look_at_queues(story.now);
    let view = story.engine.call_view(id).expect("it is kept");
    assert_eq!((view.state, view.blocked.on, view.ahead), (State::Delayed, BlockedOn::NotDue, 0));
    story.pass(Nanos::from_secs(1).plus(TICK), NOT_STARTED);
    story.engine.look_at_queues(story.now);
    let view = story.engine.call_view(id).expect("it is kept");
    assert_eq!((view.state, view.blocked.on, view.due_at), (State::Queued, BlockedOn::Nothing, None));
}

#[test]
fn a_removed_function_keeps_its_workers_for_calls_that_are_still_to_start() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    story.admit_later(Nanos::from_secs(1), request());
    let removed =
        story.engine.handle_reconfigure(TenantSpec::only_default(), vec![None, Some(spec("other"))]);
    assert_eq!(removed, Ok(()));
    assert_eq!(story.actions(), []);
    assert_eq!(story.later(Nanos::from_secs(1), request()), refused(Status::UnknownFunction));
    story.pass(Nanos::from_secs(1).plus(TICK), NOT_STARTED);
    let push = story.push().expect("its worker is there");
    story.complete(push, RunOutcome::Ok);
    story.pass(TICK, NOT_STARTED);
    assert!(matches!(story.actions()[..], [WorkerAction::Stop { .. }]));
}
