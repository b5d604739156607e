use super::*;

fn limited(per_second: u32, burst: u32) -> Story {
    let policy = Policy { rate: Some(Rate { per_second, burst }), ..Policy::default() };
    Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }, spec("other")])
}

#[test]
fn calls_beyond_the_rate_are_refused_with_the_time_to_wait() {
    // Given
    let mut story = limited(1000, 2);
    story.call_many(2);

    // Expect
    let refused = Refused { status: Status::RateLimited, retry_after_us: 1000 };
    assert_eq!(story.request(request()), Verdict::Refused(refused));
    assert_eq!(story.count(Counter::RefusedRateLimited), 1);
    story.admit(Request { function: OTHER, ..request() });

    story.pass(Nanos::from_ms(1), NOT_STARTED);
    story.call();
}

#[test]
fn a_call_refused_for_another_reason_uses_nothing_of_the_rate() {
    // Given: one call a second, and a call that is too large.
    let mut story = limited(1, 1);
    let refused = story.request(Request { payload_size: 1001, ..request() });
    assert_eq!(refused, super::refused(Status::PayloadTooLarge));

    // Expect
    story.call();
}

#[test]
fn a_full_table_uses_nothing_of_the_rate() {
    // Given: a table of one that is taken.
    let policy = Policy { rate: Some(Rate { per_second: 1, burst: 2 }), ..Policy::default() };
    let limits = Limits { invocations_max: 1, ..Limits::default() };
    let mut story = Story::with(limits, vec![FunctionSpec { policy, ..spec("echo") }]);
    let id = story.call();
    assert_eq!(story.request(request()), refused(Status::Overloaded));

    // Expect
    story.cancel(id, CancelReason::Asked);
    story.answers();
    story.call();
}

#[test]
fn a_call_refused_for_its_tenant_uses_nothing_of_its_functions_rate_and_slow_start() {
    // Given: two calls for the function, of which the tenant has one now and one in a millisecond.
    let slow_start = SlowStart { window: Nanos::from_secs(60), calls_min: 2, growth_percent: 0 };
    let rate = Some(Rate { per_second: 1, burst: 2 });
    let policy = Policy { rate, slow_start: Some(slow_start), ..Policy::default() };
    let tenant_rate = Some(Rate { per_second: 1000, burst: 1 });
    let tenants = vec![TenantSpec { rate: tenant_rate, ..TenantSpec::named("default") }];
    let specs = vec![FunctionSpec { policy, ..spec("echo") }];
    let mut story = Story::with_tenants(Limits::default(), tenants, specs);
    story.call();
    for _ in 0..10 {
        assert!(matches!(story.request(request()), Verdict::Refused(_)));
    }

    // Expect
    story.pass(Nanos::from_ms(1), NOT_STARTED);
    story.call();
}

#[test]
fn a_call_refused_by_a_breaker_uses_nothing_of_the_rate() {
    // Given: two calls a second, of which the first fails and opens the breaker for 10 ms.
    let breaker = BreakerSpec {
        failure_percent: 1,
        calls_min: 1,
        window: Nanos::from_secs(1),
        open_for: Nanos::from_ms(10),
        probes_max: 1,
    };
    let rate = Some(Rate { per_second: 1, burst: 2 });
    let policy = Policy { rate, breaker: Some(breaker), ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story.call();
    let push = story.push().expect("a worker is free");
    story.complete(push, RunOutcome::FunctionError);
    assert!(matches!(
        story.request(request()),
        Verdict::Refused(Refused { status: Status::BreakerOpen, .. })
    ));

    // Expect: the probe has the second one.
    story.pass(Nanos::from_ms(10), NOT_STARTED);
    story.call();
}

#[test]
fn the_rate_of_a_tenant_is_that_of_all_its_functions() {
    // Given: two functions of one tenant that may have two calls at once, and one of another.
    let rate = Some(Rate { per_second: 1000, burst: 2 });
    let tenants = vec![TenantSpec::named("default"), TenantSpec { rate, ..TenantSpec::named("a") }];
    let of_a = |name| FunctionSpec { tenant: TenantIndex(1), ..spec(name) };
    let mut story =
        Story::with_tenants(Limits::default(), tenants, vec![of_a("echo"), of_a("other"), spec("free")]);
    story.call();
    story.admit(Request { function: OTHER, ..request() });

    // Expect
    for function in [ECHO, OTHER] {
        let refused = Refused { status: Status::RateLimited, retry_after_us: 1000 };
        assert_eq!(story.request(Request { function, ..request() }), Verdict::Refused(refused));
    }
    story.admit(Request { function: FunctionId(2), ..request() });
}

#[test]
fn a_function_may_not_grow_faster_than_its_slow_start() {
    let slow_start = Some(SlowStart { window: Nanos::from_secs(60), calls_min: 10, growth_percent: 50 });
    let policy = Policy { slow_start, ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.now = Nanos::from_secs(60);
    story.call_many(10);
    let refused = Refused { status: Status::RateLimited, retry_after_us: 60_000_000 };
    assert_eq!(story.request(request()), Verdict::Refused(refused));

    story.pass(Nanos::from_secs(60), NOT_STARTED);
    story.call_many(15);
    assert!(matches!(story.request(request()), Verdict::Refused(_)));
}
