use std::sync::Arc;

use super::*;

fn limited(concurrency_max: u32) -> FunctionSpec {
    let policy = Policy { concurrency_max: Some(concurrency_max), ..Policy::default() };
    FunctionSpec { policy, ..spec("echo") }
}

fn gate(story: &Story, function: FunctionId) -> Option<BlockedOn> {
    story.engine.functions[function.0 as usize].gate.map(|gate| gate.why)
}

#[test]
fn no_more_calls_run_than_may_and_the_next_one_follows_at_once() {
    // Given: room for ten in the ring, and a limit of three.
    let mut story = Story::with(Limits::default(), vec![limited(3)]);
    story.attach(ECHO, 10);
    story.call_many(5);

    // Expect
    let pushes = story.pushes();
    assert_eq!(pushes.len(), 3);
    assert_eq!(gate(&story, ECHO), Some(BlockedOn::Concurrency));
    story.complete(pushes[0], RunOutcome::Ok);
    assert_eq!(story.pushes().len(), 1);
    assert_eq!(gate(&story, ECHO), Some(BlockedOn::Concurrency));
}

#[test]
fn a_function_at_its_limit_holds_no_other_up() {
    let mut story = Story::with(Limits::default(), vec![limited(1), spec("other")]);
    story.attach(ECHO, 10);
    story.attach(OTHER, 10);
    story.call_many(3);
    story.admit(Request { function: OTHER, ..request() });
    let functions: Vec<_> = story.pushes().iter().map(|push| push.function).collect();
    assert_eq!(functions, [ECHO, OTHER]);
}

#[test]
fn a_call_bound_on_admission_counts_too() {
    // Given: a quick function.
    let limits = Limits { direct_depth_min: Some(1), ..Limits::default() };
    let tenants = TenantSpec::only_default();
    let mut engine =
        Engine::new(ShardId(5), limits, tenants, vec![limited(2)]).expect("a sound configuration");
    let now = Nanos::from_secs(1);
    engine.handle_worker_attached(now, ECHO, 10).expect("there is room");
    let mut ask = |id| {
        let origin = Origin { call_id: CallId(id), ..request().origin };
        let verdict = engine.handle_request(now, Request { origin, received_at: now, ..request() });
        engine.invariants();
        verdict
    };

    // Expect
    assert!(matches!(ask(1), Verdict::Pushed(_)));
    // One at a time while nothing is known of its run time.
    assert!(matches!(ask(2), Verdict::Admitted(_)));
}

#[test]
fn the_calls_of_a_lost_worker_are_off_the_count() {
    let mut story = Story::with(Limits::default(), vec![limited(2)]);
    let first = story.attach(ECHO, 10);
    story.call_many(2);
    assert_eq!(story.pushes().len(), 2);
    story.lose(first, HAS_STARTED);
    story.answers();

    story.attach(ECHO, 10);
    story.call_many(3);
    assert_eq!(story.pushes().len(), 2);
}

#[test]
fn a_call_that_timed_out_counts_until_its_worker_lets_go_of_it() {
    let mut story = Story::with(Limits::default(), vec![limited(1)]);
    story.attach(ECHO, 10);
    story.call();
    let push = story.push().expect("a worker is free");
    story.pass(Nanos::from_secs(31), HAS_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true)]);

    story.call();
    assert_eq!(story.push(), None, "the process is not done with the first one");
    story.complete(push, RunOutcome::Ok);
    assert!(story.push().is_some());
}

#[test]
fn the_functions_of_a_tenant_share_its_concurrency_in_turn() {
    // Given: three functions of a tenant of which two calls may run.
    let tenant = TenantSpec { concurrency_max: Some(2), ..TenantSpec::named("a") };
    let tenants = vec![TenantSpec::named("default"), tenant];
    let of_a = |name| FunctionSpec { tenant: TenantIndex(1), ..spec(name) };
    let specs = vec![of_a("echo"), of_a("other"), of_a("third")];
    let mut story = Story::with_tenants(Limits::default(), tenants, specs);
    for function in (0..3).map(FunctionId) {
        story.attach(function, 10);
        (0..10).for_each(|_| _ = story.admit(Request { function, ..request() }));
    }

    // Expect: all of them get on, two at a time.
    let mut served = [0; 3];
    let mut running = story.pushes();
    for _ in 0..15 {
        assert_eq!(running.len(), 2);
        let push = running.remove(0);
        served[push.function.0 as usize] += 1;
        story.complete(push, RunOutcome::Ok);
        running.extend(story.pushes());
    }
    assert!(served.iter().all(|count| *count >= 4), "{served:?}");
}

#[test]
fn a_function_that_waits_for_its_tenant_and_has_nothing_left_to_do_keeps_no_other_waiting() {
    // Given: one call may run; the second function's call expires while it waits, the third one's does not.
    let tenant = TenantSpec { concurrency_max: Some(1), ..TenantSpec::named("a") };
    let tenants = vec![TenantSpec::named("default"), tenant];
    let of_a = |name| FunctionSpec { tenant: TenantIndex(1), ..spec(name) };
    let specs = vec![of_a("echo"), of_a("other"), of_a("third")];
    let mut story = Story::with_tenants(Limits::default(), tenants, specs);
    (0..3).for_each(|function| _ = story.attach(FunctionId(function), 1));
    story.call();
    let running = story.push().expect("a worker is free");
    story.admit(Request { function: OTHER, budget_us: 1_000, ..request() });
    story.admit(Request { function: FunctionId(2), ..request() });
    assert_eq!(story.pushes(), []);

    // Expect
    story.pass(Nanos::from_ms(2), NOT_STARTED);
    story.complete(running, RunOutcome::Ok);
    story.pass(Nanos::from_ms(2), NOT_STARTED);
    assert_eq!(story.push().map(|push| push.function), Some(FunctionId(2)));
}

#[test]
fn shards_share_one_limit() {
    // Given: two engines with one ledger.
    let limits = Limits::default();
    let shared = Arc::new(ledger(&limits));
    let mut stories = [(); 2].map(|()| {
        let mut story = Story::with(Limits::default(), vec![limited(3)]);
        story.engine.share_ledger(shared.clone());
        story.attach(ECHO, 10);
        story.call_many(5);
        story
    });

    // Expect: three run in all, and a place that one gives back is seen by the other within a millisecond.
    let first = stories[0].pushes();
    assert_eq!((first.len(), stories[1].pushes().len()), (3, 0));
    stories[0].complete(first[0], RunOutcome::Ok);
    let now = stories[1].now;
    let due = stories[1].engine.next_timer().expect("a gate is closed");
    assert!(due <= now.plus(Nanos::from_ms(1)));
    stories[1].pass(Nanos::from_ms(1), NOT_STARTED);
    assert_eq!(stories[1].pushes().len(), 1);
}

#[test]
fn no_lane_goes_past_a_limit() {
    let mut story = Story::with(Limits::default(), vec![limited(3)]);
    story.attach(ECHO, 10);
    assert_eq!(story.engine.lease(ECHO, 2, |_| true), Err(LeaseRefused::Governed));
}

/// Seed 30 of the simulator (`limits`): a bound that a new configuration brought did not know of the calls that ran.
#[test]
fn a_bound_that_is_set_while_calls_run_counts_them() {
    // Given: three calls of a function without a bound, in its worker's hands.
    let mut story = Story::with(Limits::default(), vec![spec("echo")]);
    story.attach(ECHO, 10);
    story.call_many(4);
    let pushes: Vec<_> = (0..3).map(|_| story.push().expect("there is room")).collect();

    // When it may have two.
    let done = story.engine.handle_reconfigure(TenantSpec::only_default(), vec![Some(limited(2))]);
    assert_eq!(done, Ok(()));
    story.engine.invariants();

    // Expect: the fourth follows when one is left.
    assert_eq!(story.push(), None);
    story.complete(pushes[0], RunOutcome::Ok);
    assert_eq!(story.push(), None);
    story.complete(pushes[1], RunOutcome::Ok);
    assert!(story.push().is_some());
}
