use super::*;

/// A function with workers of which some are kept for nested calls.
struct Kept {
    story: Story,
    made: u32,
}

fn keeping(nested_reserve: u32) -> FunctionSpec {
    FunctionSpec { policy: Policy { nested_reserve, ..Policy::default() }, ..spec("echo") }
}

impl Kept {
    fn new(nested_reserve: u32, workers: u32) -> Kept {
        Kept::with(keeping(nested_reserve), workers)
    }

    fn with(echo: FunctionSpec, workers: u32) -> Kept {
        let mut story = Story::with(Limits::default(), vec![echo, spec("other")]);
        (0..workers).for_each(|_| _ = story.attach(ECHO, 1));
        Kept { story, made: 0 }
    }

    /// A call of `echo` that another one makes, whose process vouches for it.
    fn nested(&mut self, caller: Push) -> InvocationId {
        self.made += 1;
        let wait_token = WaitToken::of_process(1).of_call(self.made);
        self.claim(CalledBy { caller: caller.invocation, depth: 1, wait_token })
    }

    fn claim(&mut self, called_by: CalledBy) -> InvocationId {
        let special = Special { called_by: Some(called_by), ..Special::default() };
        let asked = Request { received_at: self.story.now, ..request() };
        let verdict = self.story.engine.handle_special_request(self.story.now, asked, special);
        self.story.engine.invariants();
        match verdict {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// The calls that workers can be given now, in their order.
    fn pushed(&mut self) -> Vec<InvocationId> {
        self.story.pushes().into_iter().map(|push| push.invocation).collect()
    }

    /// A worker runs a top-level call of `other`, which calls `echo`.
    fn outside(&mut self) -> Push {
        self.story.attach(OTHER, 1);
        self.story.admit(Request { function: OTHER, ..request() });
        self.story.push().expect("a worker is free")
    }
}

#[test]
fn each_level_may_take_one_worker_more_than_the_one_above() {
    // Given: five workers, two of them kept.
    let mut kept = Kept::new(2, 5);
    kept.story.call_many(4);
    let top = kept.story.pushes();
    assert_eq!(top.len(), 3, "top-level calls leave two");

    // Expect: of two calls that they make one is served, and the other one left for what is nested deeper.
    let first = kept.nested(top[0]);
    let second = kept.nested(top[1]);
    let below = kept.story.push().expect("one worker may be taken");
    assert_eq!((below.invocation, kept.pushed()), (first, vec![]));
    let deepest = kept.nested(below);
    assert_eq!(kept.pushed(), [deepest]);

    // Expect: as workers come back, the nested one goes before the top-level one that came first.
    kept.story.complete(top[2], RunOutcome::Ok);
    assert_eq!(kept.pushed(), []);
    kept.story.complete(below, RunOutcome::Ok);
    assert_eq!(kept.pushed(), [second]);
}

#[test]
fn without_a_reserve_two_chains_take_each_others_workers_and_with_one_they_take_turns() {
    for nested_reserve in [0, 1] {
        let mut kept = Kept::new(nested_reserve, 2);
        kept.story.call_many(2);
        let running = kept.story.pushes();
        let inner: Vec<_> = running.iter().map(|push| kept.nested(*push)).collect();
        let served = kept.pushed();
        match nested_reserve {
            0 => assert_eq!((running.len(), served), (2, vec![]), "each waits for the other's worker"),
            _ => assert_eq!((running.len(), served), (1, inner), "the first goes to its end"),
        }
    }
}

#[test]
fn a_reserve_as_deep_as_the_calls_lets_any_number_of_chains_end() {
    // Given: many chains of three calls, five workers, two of them kept.
    let mut kept = Kept::new(2, 5);
    kept.story.call_many(20);
    let mut running: Vec<(Push, u32)> = vec![];
    let mut callers = std::collections::BTreeMap::new();
    let mut ended = 0;
    loop {
        let pushes = kept.story.pushes();
        let is_moving = !pushes.is_empty();
        for push in pushes {
            let depth = callers.get(&push.invocation).map_or(0, |(_, depth)| *depth);
            if depth < 2 {
                let nested = kept.nested(push);
                callers.insert(nested, (push, depth + 1));
            }
            running.push((push, depth));
        }
        // Whoever waits for nobody ends, and then its caller.
        let Some(position) = running.iter().position(|(_, depth)| *depth == 2) else {
            if is_moving {
                continue;
            }
            break;
        };
        let (mut push, mut depth) = running.swap_remove(position);
        loop {
            kept.story.complete(push, RunOutcome::Ok);
            ended += 1;
            let Some((caller, _)) = callers.remove(&push.invocation) else { break };
            running.retain(|(other, _)| *other != caller);
            (push, depth) = (caller, depth - 1);
        }
        assert_eq!(depth, 0);
    }
    assert_eq!((ended, running.len()), (60, 0), "nobody waits for ever");
}

#[test]
fn who_only_claims_to_be_nested_is_not_believed() {
    let mut kept = Kept::new(1, 2);
    kept.story.call();
    let top = kept.story.push().expect("one worker is not kept");
    kept.claim(claimed(top.invocation, 9));
    kept.claim(claimed(InvocationId::NONE, 16));
    assert_eq!(kept.pushed(), []);
    let nested = kept.nested(top);
    assert_eq!(kept.pushed(), [nested]);
}

#[test]
fn the_deepest_goes_first_to_what_is_kept_and_the_most_urgent_to_the_rest() {
    // Given: four workers, all kept; calls at depths 1 and 2 from elsewhere, and top-level ones.
    let mut kept = Kept::new(4, 4);
    let outside = kept.outside();
    kept.story.call();
    assert_eq!(kept.pushed(), []);
    let shallow: Vec<_> = (0..2).map(|_| kept.nested(outside)).collect();
    let first = kept.story.push().expect("three are left for what is deeper");
    assert_eq!(first.invocation, shallow[0]);
    let deep: Vec<_> = (0..2).map(|_| kept.nested(first)).collect();
    let second = kept.story.push().expect("two are left");
    assert_eq!(second.invocation, deep[0], "it is waited for by more than the one that came first");
    assert_eq!(kept.pushed(), []);

    // Expect: more workers than are kept, and what came first is served first.
    kept.story.attach(ECHO, 4);
    kept.story.attach(ECHO, 4);
    kept.story.attach(ECHO, 4);
    kept.story.attach(ECHO, 4);
    assert_eq!(kept.pushed().len(), 3, "a top-level call, and both that are left, as long as enough stay");
}

#[test]
fn a_call_that_leaves_its_queue_leaves_the_reserve_too() {
    let mut kept = Kept::new(1, 2);
    kept.story.call();
    let top = kept.story.push().expect("one worker is not kept");
    let calls: Vec<_> = (0..3).map(|_| kept.nested(top)).collect();
    assert_eq!(kept.story.cancel(calls[0], CancelReason::Asked), Cancelled::Answering);
    assert_eq!(kept.story.cancel(calls[1], CancelReason::ClientGone), Cancelled::Forgotten);
    // A call changes its lane as its deadline draws near, and keeps its place.
    kept.story.pass(Nanos::from_secs(20), HAS_STARTED);
    assert_eq!(kept.pushed(), [calls[2]]);
    kept.nested(top);
    kept.story.pass(Nanos::from_secs(31), HAS_STARTED);
    kept.story.engine.invariants();
}

#[test]
fn a_call_waits_for_the_reserve_by_a_name_that_is_shown() {
    let mut kept = Kept::new(1, 1);
    kept.story.call();
    assert_eq!(kept.pushed(), []);
    kept.story.engine.look_at_queues(kept.story.now);
    let view = kept.story.engine.function_view(ECHO).expect("it is there");
    assert_eq!(view.blocked.on, BlockedOn::NestedReserve);
}

#[test]
fn another_reserve_holds_from_the_next_call_on() {
    // Given: no reserve, and a nested call that waits.
    let mut kept = Kept::new(0, 2);
    kept.story.call_many(3);
    let top = kept.story.pushes();
    let nested = kept.nested(top[0]);
    let reload = |kept: &mut Kept, nested_reserve| {
        let table = vec![Some(keeping(nested_reserve)), Some(spec("other"))];
        let done = kept.story.engine.handle_reconfigure(TenantSpec::only_default(), table);
        assert_eq!(done, Ok(()));
        kept.story.engine.invariants();
    };

    // Expect: with one, what was admitted before goes by it; without, by the usual order.
    reload(&mut kept, 1);
    kept.story.complete(top[1], RunOutcome::Ok);
    let served = kept.pushed();
    assert_eq!(served, [nested]);
    reload(&mut kept, 0);
    kept.story.complete(top[0], RunOutcome::Ok);
    assert_eq!(kept.pushed().len(), 1);
}

#[test]
fn second_attempts_take_nothing_that_is_kept() {
    let hedge = Some(HedgeSpec { after: HedgeAfter::Delay(Nanos::from_ms(1)), load_percent: 100 });
    let policy = Policy { nested_reserve: 1, hedge, ..Policy::default() };
    let mut kept = Kept::with(FunctionSpec { idempotent: true, policy, ..spec("echo") }, 2);
    kept.story.call();
    assert_eq!(kept.pushed().len(), 1);
    kept.story.pass(Nanos::from_ms(2), HAS_STARTED);
    assert_eq!(kept.story.engine.poll_hedge(), None);
    assert_eq!(kept.story.count(Counter::HedgesDenied), 1);
}

#[test]
fn nothing_goes_past_the_queue_of_a_function_with_a_reserve() {
    // Given: a function so quick that its calls would be bound as they come.
    let limits = Limits { direct_depth_min: Some(1), ..Limits::default() };
    let mut engine =
        Engine::new(ShardId(0), limits, TenantSpec::only_default(), vec![keeping(1)]).expect("sound");
    let now = Nanos::from_secs(1);
    let workers = [0, 1].map(|_| engine.handle_worker_attached(now, ECHO, 64).expect("there is room"));
    for _ in 0..100 {
        let verdict = engine.handle_request(now, Request { received_at: now, ..request() });
        let Verdict::Admitted(id) = verdict else { panic!("{verdict:?}") };
        assert!(engine.open_batch(now, ECHO).is_none());
        let push = engine.poll_push(now).expect("a worker is free");
        assert_eq!(push.invocation, id);
        engine.handle_completion(now, push.worker, id, finished(RunOutcome::Ok));
        engine.invariants();
    }
    assert_eq!(engine.lease(ECHO, 1, |worker| workers.contains(&worker)), Err(LeaseRefused::Governed));
}

#[test]
fn the_turn_of_an_aged_call_is_not_lost_to_what_is_kept() {
    let policy = Policy { nested_reserve: 1, ageing: Some(Nanos::from_ms(10)), ..Policy::default() };
    let mut kept = Kept::with(FunctionSpec { policy, ..spec("echo") }, 2);
    kept.story.call();
    let top = kept.story.push().expect("one worker is not kept");
    let aged = kept.story.call();
    kept.story.pass(Nanos::from_ms(20), HAS_STARTED);
    for _ in 0..20 {
        let nested = kept.nested(top);
        let push = kept.story.push().expect("one worker is kept for it");
        assert_eq!(push.invocation, nested);
        kept.story.complete(push, RunOutcome::Ok);
    }
    kept.story.complete(top, RunOutcome::Ok);
    assert_eq!(kept.pushed(), [aged]);
}

#[test]
fn a_worker_kept_for_deeper_calls_is_no_way_out_of_a_circle() {
    struct Shown(Vec<(WorkerId, WaitToken)>);
    impl WaitEvidence for Shown {
        fn waits_for(&self, worker: WorkerId) -> WaitToken {
            let shown = self.0.iter().rfind(|(other, _)| *other == worker);
            shown.map_or(WaitToken::NONE, |(_, token)| *token)
        }
    }
    // Given: a worker of echo is free, and kept for depth 2; the other one runs a call that waits for other.
    let mut kept = Kept::new(2, 3);
    let outside = kept.outside();
    kept.story.call();
    let top = kept.story.push().expect("one worker is not kept");
    let mut shown = Shown(vec![]);
    let wait = |kept: &mut Kept, push: Push, function, shown: &mut Shown| {
        kept.made += 1;
        let wait_token = WaitToken::of_process(push.worker.index.into()).of_call(kept.made);
        shown.0.push((push.worker, wait_token));
        let called_by = CalledBy { caller: push.invocation, depth: 1, wait_token };
        let special = Special { called_by: Some(called_by), ..Special::default() };
        let asked = Request { function, received_at: kept.story.now, ..request() };
        match kept.story.engine.handle_special_request(kept.story.now, asked, special) {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    };
    let second = kept.outside();
    wait(&mut kept, second, ECHO, &mut shown);
    let below = kept.story.push().expect("depth 1 may take one");
    wait(&mut kept, top, OTHER, &mut shown);
    wait(&mut kept, below, OTHER, &mut shown);
    kept.story.engine.handle_waits(kept.story.now, &shown);
    assert_eq!(kept.story.answers(), [], "one process of other is at work");

    // Expect: when it waits for what it may not have, it is told.
    wait(&mut kept, outside, ECHO, &mut shown);
    assert_eq!(kept.pushed(), []);
    kept.story.engine.handle_waits(kept.story.now, &shown);
    assert_eq!(kept.story.answers(), [(Status::WouldDeadlock, false)]);
}
