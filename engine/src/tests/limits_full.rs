use super::*;

#[test]
fn functions_beyond_the_limit_are_refused_at_the_start() {
    let limits = Limits { functions_max: 1, ..Limits::default() };
    let refused =
        Engine::new(ShardId(0), limits, TenantSpec::only_default(), vec![spec("a"), spec("b")]).map(drop);
    assert_eq!(refused, Err(EngineRefused::FunctionsFull { count: 2, max: 1 }));
}

#[test]
fn workers_beyond_the_limit_are_refused_until_one_is_lost() {
    let mut story = Story::with(Limits { workers_max: 2, ..Limits::default() }, vec![spec("echo")]);
    let first = story.attach(ECHO, 1);
    story.attach(ECHO, 1);
    let attach = |story: &mut Story| story.engine.handle_worker_attached(story.now, ECHO, 1);
    assert_eq!(attach(&mut story), Err(AttachRefused::WorkersFull { max: 2 }));
    assert_eq!(story.count(Counter::AttachesRefused), 1);

    story.lose(first, NOT_STARTED);
    let successor = attach(&mut story).expect("a place is free again");
    assert_eq!(successor.index, first.index);
    assert_ne!(successor, first, "a worker id is never given again");
}

#[test]
fn rings_and_functions_out_of_range_are_refused() {
    let mut story = Story::new();
    let mut attach = |function, slots| story.engine.handle_worker_attached(story.now, function, slots);
    assert_eq!(attach(ECHO, 0), Err(AttachRefused::SlotsOutOfRange { slots: 0, max: 4096 }));
    assert_eq!(attach(ECHO, 4097), Err(AttachRefused::SlotsOutOfRange { slots: 4097, max: 4096 }));
    assert_eq!(attach(FunctionId(2), 1), Err(AttachRefused::UnknownFunction(FunctionId(2))));
    assert!(attach(ECHO, 4096).is_ok());
}

#[test]
fn a_slot_is_not_used_again_before_its_answer_is_polled() {
    // Given: a table of one, whose only call was cancelled but whose answer nobody took.
    let mut story = Story::with(Limits { invocations_max: 1, ..Limits::default() }, vec![spec("echo")]);
    let id = story.call();
    assert_eq!(story.cancel(id, CancelReason::Asked), Cancelled::Answering);

    // Expect
    assert_eq!(story.request(request()), refused(Status::Overloaded));
    assert_eq!(story.answers(), [(Status::Cancelled, false)]);
    let successor = story.call();
    assert_eq!(successor.slot(), id.slot());
    assert_ne!(successor, id);
    assert_eq!(
        story.cancel(id, CancelReason::Asked),
        Cancelled::Unknown,
        "the old id means nothing any more"
    );
}

#[test]
fn an_abandoned_call_keeps_its_slot_while_the_worker_holds_it() {
    let mut story = Story::with(Limits { invocations_max: 1, ..Limits::default() }, vec![spec("echo")]);
    story.attach(ECHO, 1);
    let id = story.call();
    let push = story.push().expect("a worker has credit");
    story.cancel(id, CancelReason::ClientGone);
    assert_eq!(story.request(request()), refused(Status::Overloaded));
    assert_eq!(story.complete(push, RunOutcome::Ok), Completed::AlreadyAnswered);
    story.call();
}

#[test]
fn a_table_of_many_thousands_is_filled_and_emptied() {
    let limits = Limits { invocations_max: 5000, timer_visits_max: 1000, ..Limits::default() };
    let mut story = Story::with(limits, vec![FunctionSpec { queue_count_max: 5000, ..spec("echo") }]);
    let mut admit = |request| story.engine.handle_request(story.now, request);
    let asked = Request { received_at: Nanos::from_secs(1), ..request() };
    assert!((0..5000).all(|_| matches!(admit(asked), Verdict::Admitted(_))));
    assert_eq!(admit(asked), refused(Status::QueueFull));
    story.attach(ECHO, 2048);
    story.attach(ECHO, 2048);
    assert_eq!(std::iter::from_fn(|| story.engine.poll_push(story.now)).count(), 4096);
    // More than one `handle_time` may expire: the rest follows in the next call.
    story.pass(Nanos::from_secs(31), NeverStarted);
    assert!(story.engine.next_timer().is_some_and(|at| at <= story.now));
    for _ in 0..6 {
        story.actions();
        story.pass(Nanos::from_ms(1), NeverStarted);
    }
    assert_eq!(story.count(Counter::AnsweredExpired), 5000);
}
