use super::*;

const A: u32 = 0;
const B: u32 = 1;

/// A function and a worker for each tenant; `running_max` of them may be busy.
fn story(weights: &[u32], running_max: u32) -> Story {
    let tenant = |(number, weight): (usize, &u32)| {
        let name = if number == 0 { "default".to_owned() } else { format!("tenant-{number}") };
        TenantSpec { weight: *weight, ..TenantSpec::named(name) }
    };
    let tenants: Vec<_> = weights.iter().enumerate().map(tenant).collect();
    let function = |number: usize| FunctionSpec {
        tenant: TenantIndex(number as u16),
        queue_count_max: 100_000,
        timeout: Nanos::from_secs(3600),
        ..spec(&format!("function-{number}"))
    };
    let specs = (0..weights.len()).map(function).collect();
    let limits = Limits { running_max: Some(running_max), ..Limits::default() };
    let mut story = Story::with_tenants(limits, tenants, specs);
    (0..weights.len() as u32).for_each(|number| _ = story.attach(FunctionId(number), 1));
    story
}

/// Many calls, without a look at everything after each.
fn flood(story: &mut Story, tenant: u32, count: u32) {
    for _ in 0..count {
        let request = Request { function: FunctionId(tenant), received_at: story.now, ..request() };
        assert!(matches!(story.engine.handle_request(story.now, request), Verdict::Admitted(_)));
    }
}

fn ask(story: &mut Story, tenant: u32) -> InvocationId {
    story.admit(Request { function: FunctionId(tenant), received_at: story.now, ..request() })
}

/// Runs what is pushed, one call after the other, each for its function's time. Returns the time that each one used.
fn run(story: &mut Story, run_ns: &[u64], calls: u32) -> Vec<u64> {
    let mut used = vec![0; run_ns.len()];
    for _ in 0..calls {
        let Some(push) = story.engine.poll_push(story.now) else { break };
        let number = push.function.0 as usize;
        let started_at = story.now;
        story.now = story.now.plus(Nanos(run_ns[number]));
        used[number] += run_ns[number];
        let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at: story.now };
        story.engine.handle_completion(story.now, push.worker, push.invocation, finished);
    }
    story.engine.invariants();
    used
}

#[test]
fn tenants_with_calls_of_different_length_get_the_same_time() {
    // Given: one place, calls of 10 us and of 2 ms.
    let mut story = story(&[1, 1], 1);
    flood(&mut story, A, 50_000);
    flood(&mut story, B, 1_000);

    // Expect
    let used = run(&mut story, &[10_000, 2_000_000], 20_000);
    let (a, b) = (used[0] as f64, used[1] as f64);
    assert!((a / b - 1.0).abs() < 0.05, "{used:?}");
}

#[test]
fn time_follows_the_weights() {
    let mut story = story(&[1, 3], 1);
    flood(&mut story, A, 20_000);
    flood(&mut story, B, 20_000);
    let used = run(&mut story, &[50_000, 50_000], 10_000);
    let ratio = used[1] as f64 / used[0] as f64;
    assert!((2.9..3.1).contains(&ratio), "{used:?}");
}

#[test]
fn a_tenant_within_its_share_does_not_wait_for_the_backlog_of_another() {
    // Given: ten thousand calls of A wait, each of 200 us, of which one runs.
    let mut story = story(&[1, 1], 1);
    flood(&mut story, A, 10_000);
    run(&mut story, &[200_000, 200_000], 100);

    // Expect: a call of B now and then is the next one to run.
    for _ in 0..20 {
        flood(&mut story, B, 1);
        let push = story.engine.poll_push(story.now).expect("the place is free");
        assert_eq!(push.function, FunctionId(B));
        story.now = story.now.plus(Nanos(200_000));
        let finished = Finished { outcome: RunOutcome::Ok, started_at: Nanos::ZERO, finished_at: story.now };
        story.engine.handle_completion(story.now, push.worker, push.invocation, finished);
        run(&mut story, &[200_000, 200_000], 20);
    }
}

#[test]
fn who_is_alone_gets_all_places() {
    let mut story = story(&[1, 1000], 2);
    (0..100).for_each(|_| _ = ask(&mut story, A));
    assert_eq!(run(&mut story, &[1_000_000, 0], 100)[0], 100_000_000);
}

#[test]
fn no_more_workers_are_busy_than_there_are_places() {
    // Given: three functions with calls, two places.
    let mut story = story(&[1, 1, 1], 2);
    (0..3).for_each(|tenant| _ = ask(&mut story, tenant));
    let pushes = story.pushes();
    assert_eq!(pushes.len(), 2);

    // Expect: a place is free when a worker has nothing left, or is gone.
    story.complete(pushes[0], RunOutcome::Ok);
    let third = story.push().expect("a place is free");
    assert_eq!(third.function, FunctionId(2));
    ask(&mut story, A);
    assert_eq!(story.push(), None);
    story.lose(third.worker, HAS_STARTED);
    assert_eq!(story.push().map(|push| push.function), Some(FunctionId(A)));
}

#[test]
fn within_a_tenant_criticality_goes_first_and_functions_of_one_lane_take_turns() {
    // Given: two functions of one tenant, calls of 60 us, one place.
    let limits = Limits { running_max: Some(1), ..Limits::default() };
    let mut story = Story::with(limits, vec![spec("echo"), spec("other")]);
    let workers = [ECHO, OTHER].map(|function| story.attach(function, 1));
    assert_ne!(workers[0], workers[1]);
    for function in [ECHO, OTHER] {
        (0..20).for_each(|_| _ = story.admit(Request { function, ..request() }));
    }
    let critical = Request { criticality: Criticality::Critical as u8, function: OTHER, ..request() };
    story.admit(critical);

    // Expect
    let mut order = Vec::new();
    for _ in 0..30 {
        let push = story.push().expect("calls wait");
        order.push(push.function);
        let started_at = story.now;
        story.now = story.now.plus(Nanos::from_us(60));
        let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at: story.now };
        story.engine.handle_completion(story.now, push.worker, push.invocation, finished);
    }
    assert_eq!(order[0], OTHER, "the critical one first");
    let echo = order.iter().filter(|function| **function == ECHO).count();
    assert!((13..=17).contains(&echo), "{order:?}");
}
