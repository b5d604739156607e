use super::*;

#[test]
fn nothing_is_pushed_without_a_worker() {
    let mut story = Story::new();
    story.call();
    assert_eq!(story.push(), None);
}

#[test]
fn a_worker_gets_no_more_calls_than_it_has_slots() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 2);
    for _ in 0..3 {
        story.call();
    }
    let pushes = story.pushes();
    assert_eq!(pushes.len(), 2);
    assert!(pushes.iter().all(|push| push.worker == worker));

    story.complete(pushes[1], RunOutcome::Ok);
    assert!(story.push().is_some(), "its credit came back");
    assert_eq!(story.push(), None);
}

#[test]
fn the_worker_used_last_is_chosen_first() {
    // Given: three workers of one slot, all busy; they finish in the order 1, 2, 0.
    let mut story = Story::new();
    for _ in 0..3 {
        story.attach(ECHO, 1);
        story.call();
    }
    let pushes = story.pushes();
    for which in [1, 2, 0] {
        story.complete(pushes[which], RunOutcome::Ok);
    }
    story.call_many(3);

    // Expect: the one that finished last goes first.
    let order: Vec<_> = story.pushes().into_iter().map(|push| push.worker).collect();
    assert_eq!(order, [pushes[0].worker, pushes[2].worker, pushes[1].worker]);
}

#[test]
fn workers_serve_only_their_own_function() {
    let mut story = Story::new();
    let echo = story.attach(ECHO, 4);
    let other = story.attach(OTHER, 4);
    for function in [ECHO, OTHER, OTHER, ECHO] {
        story.admit(Request { function, ..request() });
    }
    for push in story.pushes() {
        assert_eq!(push.worker, if push.function == ECHO { echo } else { other });
    }
}

#[test]
fn a_call_found_expired_at_dispatch_is_answered_and_never_pushed() {
    let mut story = Story::new();
    story.admit(Request { budget_us: 1000, ..request() });
    let alive = story.call();
    story.attach(ECHO, 4);
    // Given: time passed without a look at the timers.
    story.now = story.now.plus(Nanos::from_ms(1));
    let pushed: Vec<_> = story.pushes().into_iter().map(|push| push.invocation).collect();
    assert_eq!(pushed, [alive]);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
}

#[test]
fn views_tell_what_is_queued_running_and_free() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 2);
    story.call();
    story.now = story.now.plus(Nanos(7));
    story.call_many(3);
    story.push();
    let view = story.engine.function_view(ECHO).expect("it exists");
    assert_eq!((view.queued, view.running, view.workers, view.workers_with_credit), (3, 1, 1, 1));
    assert_eq!(view.oldest_at, Some(Nanos(1_000_000_007)));
    assert_eq!(story.engine.functions().map(|it| it.name).collect::<Vec<_>>(), ["echo", "other"]);
    let view = story.engine.worker_view(worker).expect("it is attached");
    assert_eq!((view.state, view.slots, view.credits), (WorkerState::Busy, 2, 1));
    assert_eq!(story.engine.function_view(FunctionId(9)), None);
}

#[test]
fn a_draining_router_finishes_what_it_has_and_is_idle_then() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    story.call();
    story.call();
    story.engine.handle_drain();
    assert_eq!(story.request(request()), refused(Status::Draining));
    for _ in 0..2 {
        assert!(!story.engine.is_idle());
        let push = story.push().expect("admitted calls are finished");
        assert_eq!(push.worker, worker);
        story.complete(push, RunOutcome::Ok);
    }
    assert!(story.engine.is_idle());
    assert_eq!(story.engine.next_timer(), None);
}

#[test]
fn a_call_of_a_quick_function_is_bound_on_admission_unless_others_wait() {
    let mut story = with_run_ahead();
    // Given a function that is not known to be quick yet
    let push = match story.request(request()) {
        Verdict::Admitted(_) => story.push().expect("a worker is open"),
        other => panic!("{other:?}"),
    };
    story.complete(push, RunOutcome::Ok);
    // Expect that, once it is, calls do not stand in its queue while its workers have slots
    let pushes: Vec<Push> = (0..128)
        .map(|_| match story.request(request()) {
            Verdict::Pushed(push) => push,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(story.request(request()), Verdict::Admitted(_)), "all slots are taken");
    story.complete(pushes[0], RunOutcome::Ok);
    assert!(matches!(story.request(request()), Verdict::Admitted(_)), "another call waits already");
    assert!(story.push().is_some());
}

#[test]
fn a_call_that_was_bound_at_once_is_timed_out_like_any_other() {
    let mut story = with_run_ahead();
    story.call();
    let push = story.push().expect("a worker is open");
    story.complete(push, RunOutcome::Ok);
    let Verdict::Pushed(_) = story.request(Request { budget_us: 1_000, ..request() }) else { panic!() };
    let due = story.engine.next_timer().expect("its deadline");
    assert!(due >= story.now.plus(Nanos::from_ms(1)) && due <= story.now.plus(Nanos::from_us(1_300)));
    story.pass(Nanos::from_us(1_300), |_: WorkerId, _: InvocationId| Started::Yes);
    assert_eq!(story.answers(), [(Status::TimedOut, true)]);
}

/// An engine that binds 100 us of work ahead, and two workers of 64 slots.
fn with_run_ahead() -> Story {
    let limits = Limits { run_ahead: Nanos::from_us(100), ..Limits::default() };
    let engine = Engine::new(ShardId(5), limits, TenantSpec::only_default(), vec![spec("echo")])
        .expect("a sound configuration");
    let mut story = Story { engine, now: Nanos::from_secs(1), calls: 0 };
    story.attach(ECHO, 64);
    story.attach(ECHO, 64);
    story
}

fn complete_after(story: &mut Story, push: Push, run: Nanos) {
    let started_at = story.now;
    story.now = story.now.plus(run);
    let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at: story.now };
    let completed = story.engine.handle_completion(story.now, push.worker, push.invocation, finished);
    assert!(matches!(completed, Completed::Answer(_)));
    story.engine.invariants();
}

#[test]
fn slow_calls_go_one_to_each_worker_and_wait_for_the_first_that_is_free() {
    let mut story = with_run_ahead();
    story.call_many(4);
    let pushes = story.pushes();
    assert_eq!(pushes.len(), 2);
    assert_ne!(pushes[0].worker, pushes[1].worker);

    // When: one worker finishes. Expect: it gets the next call, and only that.
    complete_after(&mut story, pushes[1], Nanos::from_ms(36));
    let next = story.pushes();
    assert_eq!(next.iter().map(|push| push.worker).collect::<Vec<_>>(), [pushes[1].worker]);
}

#[test]
fn fast_calls_are_bound_as_far_ahead_as_the_time_says() {
    let mut story = with_run_ahead();
    story.call();
    let first = story.push().expect("a worker is free");
    complete_after(&mut story, first, Nanos::from_us(5));
    // Expect: 16 x 5 us is the largest power of two within 100 us, for each of the two workers.
    story.call_many(40);
    assert_eq!(story.pushes().len(), 32);
}

#[test]
fn a_function_that_turns_slow_is_given_nothing_ahead_any_more() {
    let mut story = with_run_ahead();
    story.call();
    let first = story.push().expect("a worker is free");
    complete_after(&mut story, first, Nanos::from_us(5));
    story.call_many(4);
    let pushes = story.pushes();
    assert!(pushes.iter().all(|push| push.worker == first.worker), "all fit the worker used last");

    // When: one of them takes 10 ms. Expect: the others stay where they are, new ones go to the idle worker.
    complete_after(&mut story, pushes[0], Nanos::from_ms(10));
    story.call_many(2);
    let next = story.pushes();
    assert_eq!(next.len(), 1);
    assert_ne!(next[0].worker, first.worker);
}

#[test]
fn calls_beyond_the_tables_first_size_that_were_never_queued_survive_the_loss_of_their_worker() {
    // Given: more calls at once than the tables have room for at first, all bound on admission.
    let limits = Limits { run_ahead: Nanos::NEVER, ..Limits::default() };
    let engine = Engine::new(ShardId(5), limits, TenantSpec::only_default(), vec![spec("echo")])
        .expect("a sound configuration");
    let mut story = Story { engine, now: Nanos::from_secs(1), calls: 0 };
    let worker = story.attach(ECHO, 2_048);
    for _ in 0..2_000 {
        assert!(matches!(story.engine.handle_request(story.now, request()), Verdict::Pushed(_)));
    }
    // Expect: all of them wait for the next worker.
    story.lose(worker, NOT_STARTED);
    story.attach(ECHO, 4_096);
    assert_eq!(std::iter::from_fn(|| story.engine.poll_push(story.now)).count(), 2_000);
}
