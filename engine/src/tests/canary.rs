//! A share of a function's calls is another function's.

use super::*;

const NEXT: FunctionId = FunctionId(1);

/// `echo`, of whose calls `percent` go to `next`, each with a worker of eight slots.
fn shared(percent: u8) -> Story {
    shared_with(percent, Policy::default())
}

fn shared_with(percent: u8, next: Policy) -> Story {
    let canary = Some(CanarySpec { function: NEXT, percent });
    let echo = FunctionSpec { policy: Policy { canary, ..Policy::default() }, ..spec("echo") };
    let next = FunctionSpec { policy: next, ..spec("next") };
    let mut story = Story::with(Limits::default(), vec![echo, next]);
    story.attach(ECHO, 8);
    story.attach(NEXT, 8);
    story
}

/// Makes calls and says which function each of them was a call of.
fn run(story: &mut Story, count: u32) -> Vec<FunctionId> {
    let mut functions = Vec::new();
    for _ in 0..count {
        story.call();
        let push = story.push().expect("both have a free slot");
        functions.push(push.function);
        story.complete(push, RunOutcome::Ok);
    }
    functions
}

#[test]
fn every_tenth_call_is_the_canarys_at_ten_percent() {
    let mut story = shared(10);
    let functions = run(&mut story, 100);
    let of_next: Vec<usize> = (0..100).filter(|n| functions[*n] == NEXT).collect();
    assert_eq!(of_next, (0..10).map(|n| 10 * n + 9).collect::<Vec<_>>());
    assert_eq!(story.count(Counter::CallsToCanary), 10);
}

#[test]
fn none_and_all_are_shares_too() {
    assert_eq!(run(&mut shared(0), 20), [ECHO; 20]);
    assert_eq!(run(&mut shared(100), 20), [NEXT; 20]);
}

#[test]
fn who_calls_the_canary_by_its_own_name_gets_it() {
    let mut story = shared(10);
    story.admit(Request { function: NEXT, ..request() });
    assert_eq!(story.push().map(|push| push.function), Some(NEXT));
    assert_eq!(story.count(Counter::CallsToCanary), 0);
}

#[test]
fn calls_end_with_the_version_they_began_with_when_the_share_changes() {
    // Given: two calls that wait, one for each version.
    let mut story = shared(50);
    story.call_many(2);
    // When: the canary is taken back.
    story
        .engine
        .handle_reconfigure(TenantSpec::only_default(), vec![Some(spec("echo")), Some(spec("next"))])
        .expect("a sound configuration");
    // Expect: each is run by its own, and those that come now by the one that is left.
    let mut functions: Vec<_> = story.pushes().iter().map(|push| push.function).collect();
    functions.sort_by_key(|function| function.0);
    assert_eq!(functions, [ECHO, NEXT]);
    assert_eq!(run(&mut story, 4), [ECHO; 4]);
}

#[test]
fn a_canary_gets_nothing_before_its_first_process_has_attached() {
    let canary = Some(CanarySpec { function: NEXT, percent: 50 });
    let echo = FunctionSpec { policy: Policy { canary, ..Policy::default() }, ..spec("echo") };
    let mut story = Story::with(Limits::default(), vec![echo, spec("next")]);
    story.attach(ECHO, 8);
    assert_eq!(run(&mut story, 10), [ECHO; 10]);
    story.attach(NEXT, 8);
    assert_eq!(run(&mut story, 4), [ECHO, NEXT, ECHO, NEXT]);
}

#[test]
fn a_canary_that_keeps_no_process_without_calls_is_started_by_its_first_one() {
    let canary = Some(CanarySpec { function: NEXT, percent: 50 });
    let echo = FunctionSpec { policy: Policy { canary, ..Policy::default() }, ..spec("echo") };
    let pool = PoolSpec { min: 0, max: 2, idle_timeout: Nanos::from_secs(60), is_predictive: false };
    let next = FunctionSpec { pool: Some(pool), ..spec("next") };
    let mut story = Story::with(Limits::default(), vec![echo, next]);
    story.attach(ECHO, 8);
    story.call_many(2);
    assert_eq!(story.pushes().len(), 1, "the other one is held");
    assert_eq!(story.engine.function_view(NEXT).map(|view| view.queued), Some(1));
}

#[test]
fn a_canary_whose_processes_keep_failing_gets_nothing() {
    let mut story = shared(50);
    story.engine.handle_function_failing(NEXT, true);
    assert_eq!(run(&mut story, 10), [ECHO; 10]);
    assert_eq!(story.count(Counter::CallsToCanary), 0);
}

#[test]
fn a_canary_that_fails_its_calls_gives_them_back_by_its_breaker() {
    let breaker = BreakerSpec {
        failure_percent: 50,
        calls_min: 2,
        window: Nanos::from_secs(10),
        open_for: Nanos::from_secs(5),
        probes_max: 1,
    };
    let fallback = Some(Fallback::Function(ECHO));
    let mut story = shared_with(50, Policy { breaker: Some(breaker), fallback, ..Policy::default() });
    for _ in 0..4 {
        story.call();
        let push = story.push().expect("both have a free slot");
        let is_next = push.function == NEXT;
        story.complete(push, if is_next { RunOutcome::FunctionError } else { RunOutcome::Ok });
    }
    // Two of them failed: from here on all are run by the version before.
    assert_eq!(run(&mut story, 10), [ECHO; 10]);
    assert_eq!(story.count(Counter::FallbacksRun), 5);
}

#[test]
fn equal_keys_meet_in_one_version() {
    let mut leaders = [0; 2];
    for key in 0..40_u128 {
        let mut story = shared(50);
        let ask = |story: &mut Story, call_id| {
            let mut asked = Request { received_at: story.now, ..request() };
            asked.origin.call_id = CallId(call_id);
            let verdict = story.engine.handle_keyed_request(story.now, asked, key.to_le_bytes(), None);
            story.engine.invariants();
            assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
            story.push()
        };
        let leader = ask(&mut story, 1).expect("both have a free slot");
        leaders[leader.function.0 as usize] += 1;
        assert_eq!(ask(&mut story, 2), None, "the second call with a key has joined the first");
    }
    assert!(leaders.iter().all(|count| *count > 8), "both versions get keys: {leaders:?}");
}

#[test]
fn a_canary_is_another_function_that_is_there_and_has_none() {
    let made = |canary: CanarySpec, next: Policy| {
        let echo =
            FunctionSpec { policy: Policy { canary: Some(canary), ..Policy::default() }, ..spec("echo") };
        let specs = vec![echo, FunctionSpec { policy: next, ..spec("next") }];
        Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), specs).map(drop)
    };
    let refused = Err(EngineRefused::CanaryOfNobody("echo".into()));
    let canary = |function, percent| CanarySpec { function: FunctionId(function), percent };
    assert_eq!(made(canary(1, 100), Policy::default()), Ok(()));
    assert_eq!(made(canary(0, 10), Policy::default()), refused);
    assert_eq!(made(canary(2, 10), Policy::default()), refused);
    assert_eq!(made(canary(1, 101), Policy::default()), refused);
    // One that has a canary in its turn.
    assert_eq!(made(canary(1, 10), Policy { canary: Some(canary(0, 10)), ..Policy::default() }), refused);
}
