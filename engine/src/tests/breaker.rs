use super::*;

const SPEC: BreakerSpec = BreakerSpec {
    failure_percent: 50,
    calls_min: 2,
    window: Nanos::from_secs(10),
    open_for: Nanos::from_secs(5),
    probes_max: 1,
};

/// `echo` with a breaker and perhaps a fallback, a worker of four slots for it, and `other` without any policy.
fn guarded(fallback: Option<Fallback>) -> Story {
    let policy = Policy { breaker: Some(SPEC), fallback, ..Policy::default() };
    let mut story =
        Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }, spec("other")]);
    story.attach(ECHO, 4);
    story
}

fn run(story: &mut Story, outcome: RunOutcome) {
    story.call();
    let push = story.push().expect("a worker has credit");
    story.complete(push, outcome);
}

fn state(story: &Story) -> Option<BreakerState> {
    story.engine.function_view(ECHO).and_then(|view| view.breaker)
}

/// Tells a story, and says how many failures the breaker counted: it needs two to open.
fn check(what: &str, failures: u32, tell: impl Fn(&mut Story)) {
    let mut story = guarded(None);
    tell(&mut story);
    let expected = if failures >= SPEC.calls_min { BreakerState::Open } else { BreakerState::Closed };
    assert_eq!(state(&story), Some(expected), "{what}");
    // One failure more opens what has counted one.
    if failures == 1 {
        story.attach(ECHO, 4);
        run(&mut story, RunOutcome::FunctionError);
        assert_eq!(state(&story), Some(BreakerState::Open), "{what}");
    }
}

#[test]
fn what_the_function_does_wrong_counts_and_nothing_else() {
    let push = |story: &mut Story| {
        story.call();
        story.push().expect("a worker has credit")
    };
    check("two errors", 2, |story| (0..2).for_each(|_| run(story, RunOutcome::FunctionError)));
    check("one error", 1, |story| run(story, RunOutcome::FunctionError));
    check("results", 0, |story| (0..4).for_each(|_| run(story, RunOutcome::Ok)));
    check("results too large for their callers", 0, |story| {
        (0..4).for_each(|_| run(story, RunOutcome::ResultTooLarge));
    });
    check("back-pressure of something downstream", 0, |story| {
        (0..4).for_each(|_| run(story, RunOutcome::Backpressure));
    });
    check("a time-out", 1, |story| {
        push(story);
        story.pass(Nanos::from_secs(31), HAS_STARTED);
        assert_eq!(story.answers(), [(Status::TimedOut, true)]);
    });
    check("a result after the deadline", 1, |story| {
        let push = push(story);
        story.pass(Nanos::from_secs(31), NOT_STARTED);
        assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::TimedOut));
    });
    check("a death in the middle of a call, with another one waiting", 1, |story| {
        let worker = push(story).worker;
        let victim = push(story).invocation;
        story.lose(
            worker,
            |_: WorkerId, id: InvocationId| {
                if id == victim { Started::Yes } else { Started::No }
            },
        );
    });
    check("a death that cannot be told to any call", 1, |story| {
        let worker = push(story).worker;
        push(story);
        story.lose(worker, UNREADABLE);
    });
    check("a death before anything began", 0, |story| {
        let worker = push(story).worker;
        story.lose(worker, NOT_STARTED);
    });
    check("calls that expired in the queue, or were cancelled", 0, |story| {
        (0..4).for_each(|_| _ = story.call());
        story.pass(Nanos::from_secs(31), NOT_STARTED);
        for _ in 0..2 {
            let push = push(story);
            story.cancel(push.invocation, CancelReason::Asked);
            story.complete(push, RunOutcome::FunctionError);
        }
    });
}

#[test]
fn an_open_breaker_refuses_with_advice_and_lets_a_probe_through_later() {
    let mut story = guarded(None);
    (0..2).for_each(|_| run(&mut story, RunOutcome::FunctionError));

    // Expect: refused, with the rest of the five seconds as advice. Other functions are not concerned.
    story.pass(Nanos::from_secs(1), NOT_STARTED);
    let refused = Refused { status: Status::BreakerOpen, retry_after_us: 4_000_000 };
    assert_eq!(story.request(request()), Verdict::Refused(refused));
    story.admit(Request { function: OTHER, ..request() });

    // When: the time is over. Expect: one probe and no more, and after its success everybody.
    story.pass(Nanos::from_secs(4), NOT_STARTED);
    story.call();
    assert!(matches!(story.request(request()), Verdict::Refused(_)), "the second waits for the first");
    let probe = story.push().expect("a worker has credit");
    story.complete(probe, RunOutcome::Ok);
    story.call_many(4);
    assert_eq!(story.count(Counter::RefusedBreakerOpen), 2);
    assert_eq!(story.count(Counter::BreakersOpened), 1);
}

#[test]
fn instead_of_the_refusal_there_is_a_static_answer() {
    let mut story = guarded(Some(Fallback::Answer(b"sorry".to_vec().into())));
    (0..2).for_each(|_| run(&mut story, RunOutcome::FunctionError));
    assert_eq!(story.request(request()), Verdict::Fallback(ECHO));
    assert_eq!(story.engine.static_answer(ECHO), Some(&b"sorry"[..]));
    assert_eq!(story.engine.static_answer(OTHER), None);
    assert_eq!(story.count(Counter::FallbacksAnswered), 1);

    // Expect: whoever is refused for another reason is told that reason.
    let refused = story.request(Request { payload_size: 1001, ..request() });
    assert_eq!(refused, super::refused(Status::PayloadTooLarge));
}

#[test]
fn instead_of_the_refusal_another_function_does_the_work() {
    let mut story = guarded(Some(Fallback::Function(OTHER)));
    (0..2).for_each(|_| run(&mut story, RunOutcome::FunctionError));
    let worker = story.attach(OTHER, 1);
    let id = story.call();
    let push = story.push().expect("a worker has credit");
    assert_eq!((push.invocation, push.worker, push.function), (id, worker, OTHER));
    assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::Ok));
    assert_eq!(story.count(Counter::FallbacksRun), 1);
}

#[test]
fn a_fallback_has_no_fallback() {
    // Given: two functions that are each other's fallback, and both fail.
    let policy = |other| Policy {
        breaker: Some(SPEC),
        fallback: Some(Fallback::Function(other)),
        ..Policy::default()
    };
    let specs = vec![
        FunctionSpec { policy: policy(OTHER), ..spec("echo") },
        FunctionSpec { policy: policy(ECHO), ..spec("other") },
    ];
    let mut story = Story::with(Limits::default(), specs);
    for function in [ECHO, OTHER] {
        story.attach(function, 1);
        for _ in 0..2 {
            story.admit(Request { function, ..request() });
            let push = story.push().expect("a worker has credit");
            story.complete(push, RunOutcome::FunctionError);
        }
    }
    // Expect: one hop, and then the refusal of the other one.
    let refused = Refused { status: Status::BreakerOpen, retry_after_us: 5_000_000 };
    assert_eq!(story.request(request()), Verdict::Refused(refused));
    assert_eq!(story.count(Counter::RefusedBreakerOpen), 1);
    assert_eq!(story.count(Counter::FallbacksRun), 1);
}

#[test]
fn a_fallback_that_is_no_other_function_is_refused_at_the_start() {
    for function in [ECHO, FunctionId(7)] {
        let policy = Policy { fallback: Some(Fallback::Function(function)), ..Policy::default() };
        let made = Engine::new(
            ShardId(0),
            Limits::default(),
            TenantSpec::only_default(),
            vec![FunctionSpec { policy, ..spec("a") }],
        );
        assert_eq!(made.map(drop), Err(EngineRefused::FallbackOfNobody("a".to_owned())));
    }
}
