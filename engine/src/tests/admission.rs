use super::*;

/// One story per reason: what is prepared, what is asked, what is said and counted.
fn check(prepare: fn(&mut Story), asked: Request, status: Status, counter: Counter) {
    // Given
    let mut story = Story::new();
    prepare(&mut story);
    let in_flight = story.engine.in_flight();
    let counted = story.count(counter);

    // Expect
    assert_eq!(story.request(asked), refused(status));
    assert_eq!(story.count(counter), counted + 1);
    assert_eq!(story.engine.in_flight(), in_flight, "a refused call leaves nothing behind");
}

#[test]
fn refused_with_the_reason_that_applies() {
    let nothing: fn(&mut Story) = |_| {};
    let drain: fn(&mut Story) = |story| story.engine.handle_drain();
    let fail: fn(&mut Story) = |story| story.engine.handle_function_failing(ECHO, true);
    let fill_queue: fn(&mut Story) = |story| story.call_many(100);

    check(
        nothing,
        Request { function: FunctionId(2), ..request() },
        Status::UnknownFunction,
        Counter::RefusedUnknownFunction,
    );
    check(
        nothing,
        Request { function: FunctionId(u32::MAX), ..request() },
        Status::UnknownFunction,
        Counter::RefusedUnknownFunction,
    );
    check(
        nothing,
        Request { criticality: 4, ..request() },
        Status::UnknownCriticality,
        Counter::RefusedUnknownCriticality,
    );
    check(
        nothing,
        Request { payload_size: 1001, ..request() },
        Status::PayloadTooLarge,
        Counter::RefusedPayloadTooLarge,
    );
    check(
        nothing,
        Request { received_at: Nanos::from_ms(900), budget_us: 100_000, ..request() },
        Status::DeadlinePassed,
        Counter::RefusedDeadlinePassed,
    );
    check(drain, request(), Status::Draining, Counter::RefusedDraining);
    check(fail, request(), Status::NoWorker, Counter::RefusedNoWorker);
    check(fill_queue, request(), Status::QueueFull, Counter::RefusedQueueFull);
}

#[test]
fn refused_as_overloaded_when_the_invocation_table_is_full() {
    let mut story = Story::with(Limits { invocations_max: 3, ..Limits::default() }, vec![spec("echo")]);
    for _ in 0..3 {
        story.call();
    }
    assert_eq!(story.request(request()), refused(Status::Overloaded));
    assert_eq!(story.count(Counter::RefusedOverloaded), 1);
}

#[test]
fn admitted_at_the_very_edge_of_each_bound() {
    let mut story = Story::new();
    story.admit(Request { payload_size: 1000, ..request() });
    story.admit(Request { criticality: 3, ..request() });
    story.admit(Request { received_at: Nanos(900_000_001), budget_us: 100_000, ..request() });
    story.call_many(97);
    assert_eq!(story.count(Counter::CallsAdmitted), 100);
}

#[test]
fn a_budget_can_only_shorten_the_functions_timeout() {
    let mut story = Story::new();
    story.attach(ECHO, 3);
    let timeout_at = story.now.plus(Nanos::from_secs(30));
    for (budget_us, deadline_at) in
        [(0, timeout_at), (u32::MAX, timeout_at), (1000, story.now.plus(Nanos::from_ms(1)))]
    {
        story.admit(Request { budget_us, ..request() });
        assert_eq!(story.push().map(|push| push.deadline_at), Some(deadline_at), "budget {budget_us} us");
    }
}

#[test]
fn a_failing_function_with_a_worker_left_is_served() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    story.engine.handle_function_failing(ECHO, true);
    story.call();
}

#[test]
fn a_function_that_is_not_there_cannot_fail() {
    let mut story = Story::new();
    story.engine.handle_function_failing(FunctionId(2), true);
    story.engine.invariants();
    assert_eq!(story.refusal(Request { function: FunctionId(2), ..request() }), Status::UnknownFunction);
}

#[test]
fn a_worker_that_attaches_ends_the_failing() {
    let mut story = Story::new();
    story.engine.handle_function_failing(ECHO, true);
    let worker = story.attach(ECHO, 1);
    story.lose(worker, NOT_STARTED);
    story.call();
}

#[test]
fn names_are_resolved_and_configurations_checked() {
    let story = Story::new();
    assert_eq!(story.engine.resolve("other"), Some(OTHER));
    assert_eq!(story.engine.resolve("another"), None);

    let make =
        |specs| Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), specs).map(drop);
    assert_eq!(make(vec![spec("a"), spec("a")]), Err(EngineRefused::DuplicateName("a".to_owned())));
    let zero = FunctionSpec { timeout: Nanos::ZERO, ..spec("a") };
    assert_eq!(make(vec![zero]), Err(EngineRefused::ZeroInSpec { name: "a".to_owned(), field: "timeout" }));
    let limits = Limits { invocations_max: 1 << 25, ..Limits::default() };
    let refused = Engine::new(ShardId(0), limits, TenantSpec::only_default(), vec![]).map(drop);
    assert_eq!(refused, Err(EngineRefused::LimitOutOfRange("invocations_max")));
}

#[test]
fn an_engine_needs_its_default_tenant_and_every_tenant_that_a_function_names() {
    let make = |tenants, specs| Engine::new(ShardId(0), Limits::default(), tenants, specs).map(drop);
    let named = |name: &str| TenantSpec::named(name);
    assert_eq!(make(vec![], vec![]), Err(EngineRefused::TenantCount { count: 0, max: 1024 }));
    let many: Vec<_> = (0..1025).map(|number| named(&number.to_string())).collect();
    assert_eq!(make(many, vec![]), Err(EngineRefused::TenantCount { count: 1025, max: 1024 }));
    let twins = vec![named("a"), named("a")];
    assert_eq!(make(twins, vec![]), Err(EngineRefused::DuplicateTenant("a".to_owned())));
    let weightless = vec![TenantSpec { weight: 0, ..named("a") }];
    let zero = EngineRefused::ZeroInSpec { name: "a".to_owned(), field: "weight" };
    assert_eq!(make(weightless, vec![]), Err(zero));
    let of_the_second = FunctionSpec { tenant: TenantIndex(1), ..spec("f") };
    let unknown = EngineRefused::UnknownTenant("f".to_owned());
    assert_eq!(make(vec![named("a")], vec![of_the_second.clone()]), Err(unknown));
    assert_eq!(make(vec![named("a"), named("b")], vec![of_the_second]), Ok(()));
}
