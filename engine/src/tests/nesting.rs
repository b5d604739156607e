use super::*;

const TICK: Nanos = crate::timers::TICK;

fn of(function: FunctionId) -> Request {
    Request { function, ..request() }
}

impl Story {
    pub(super) fn nested(&mut self, function: FunctionId, caller: InvocationId, depth: u8) -> Verdict {
        self.calls += 1;
        let mut request = Request { received_at: self.now, ..of(function) };
        request.origin.call_id = CallId(self.calls);
        let special = Special { called_by: Some(claimed(caller, depth)), ..Special::default() };
        let verdict = self.engine.handle_special_request(self.now, request, special);
        self.engine.invariants();
        verdict
    }

    /// A call made by another one, and a worker runs it.
    fn run_nested(&mut self, function: FunctionId, caller: InvocationId) -> Push {
        let verdict = self.nested(function, caller, 1);
        assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
        self.push().expect("a worker is free")
    }

    /// A top-level call that a worker runs.
    fn run(&mut self, function: FunctionId) -> Push {
        self.admit(of(function));
        self.push().expect("a worker is free")
    }
}

#[test]
fn a_function_that_calls_itself_with_one_worker_is_told_at_once() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    let outer = story.run(ECHO);
    assert_eq!(story.nested(ECHO, outer.invocation, 1), refused(Status::WouldDeadlock));
    assert_eq!(story.count(Counter::RefusedWouldDeadlock), 1);

    // Expect: with a second worker it works, and the third one down is told.
    story.attach(ECHO, 4);
    let middle = story.run_nested(ECHO, outer.invocation);
    assert_ne!(middle.worker, outer.worker);
    assert_eq!(story.nested(ECHO, middle.invocation, 1), refused(Status::WouldDeadlock));
}

#[test]
fn a_circle_of_two_functions_is_found() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    story.attach(OTHER, 1);
    let echo = story.run(ECHO);
    let other = story.run_nested(OTHER, echo.invocation);
    assert_eq!(story.nested(ECHO, other.invocation, 1), refused(Status::WouldDeadlock));
    assert_eq!(story.nested(OTHER, other.invocation, 1), refused(Status::WouldDeadlock));

    // Expect: it hears of it, answers, and its caller goes on.
    assert_eq!(status_of(story.complete(other, RunOutcome::FunctionError)), Some(Status::FunctionError));
    assert_eq!(status_of(story.complete(echo, RunOutcome::Ok)), Some(Status::Ok));
    assert!(story.engine.is_idle());
}

#[test]
fn a_worker_that_runs_somebody_elses_call_will_be_free() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    story.attach(ECHO, 1);
    let outer = story.run(ECHO);
    let stranger = story.run(ECHO);
    let verdict = story.nested(ECHO, outer.invocation, 1);
    assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
    story.complete(stranger, RunOutcome::Ok);
    let inner = story.push().expect("the stranger's worker is free");
    assert_eq!(inner.worker, stranger.worker);
}

#[test]
fn a_function_without_workers_yet_is_waited_for() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let outer = story.run(ECHO);
    assert!(matches!(story.nested(OTHER, outer.invocation, 1), Verdict::Admitted(_)));
}

#[test]
fn nothing_is_bound_behind_a_call_that_waits_and_its_worker_opens_when_it_ends() {
    // Given: a worker with room for eight calls runs one that has made a nested one.
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    story.attach(OTHER, 1);
    let outer = story.run(ECHO);
    let inner = story.run_nested(OTHER, outer.invocation);
    story.call();
    assert_eq!(story.push(), None);

    // Expect: also when its nested call has ended, for it may make another one.
    story.complete(inner, RunOutcome::Ok);
    assert_eq!(story.push(), None);
    story.complete(outer, RunOutcome::Ok);
    assert_eq!(story.push().map(|push| push.worker), Some(worker));
}

#[test]
fn a_waiting_call_that_ends_late_opens_its_worker_too() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    story.attach(OTHER, 1);
    let outer = story.run(ECHO);
    story.run_nested(OTHER, outer.invocation);
    story.pass(Nanos::from_secs(30).plus(TICK), HAS_STARTED);
    assert_eq!(story.answers(), [(Status::TimedOut, true); 2]);
    story.call();
    assert_eq!(story.push(), None);
    assert_eq!(story.complete(outer, RunOutcome::Ok), Completed::AlreadyAnswered);
    assert_eq!(story.push().map(|push| push.worker), Some(worker));
}

#[test]
fn a_chain_without_end_is_cut_by_its_depth() {
    // Given: as many workers as anybody could want.
    let mut story = Story::new();
    for _ in 0..=DEPTH_MAX {
        story.attach(ECHO, 1);
    }
    let mut push = story.run(ECHO);
    for _ in 0..DEPTH_MAX {
        push = story.run_nested(ECHO, push.invocation);
    }
    story.attach(ECHO, 1);
    assert_eq!(story.nested(ECHO, push.invocation, 1), refused(Status::WouldDeadlock));
}

#[test]
fn of_callers_elsewhere_only_the_depth_counts() {
    let mut story = Story::new();
    story.attach(ECHO, 8);
    let elsewhere = InvocationId(0x0000_0001_0000_0001);
    assert_ne!(elsewhere.shard(), ShardId(5));
    assert!(matches!(story.nested(ECHO, elsewhere, DEPTH_MAX), Verdict::Admitted(_)));
    assert_eq!(story.nested(ECHO, elsewhere, DEPTH_MAX + 1), refused(Status::WouldDeadlock));
    assert!(matches!(story.nested(ECHO, InvocationId::NONE, 0), Verdict::Admitted(_)));
}

#[test]
fn a_nested_call_finds_room_where_a_top_level_one_does_not() {
    // Given: a queue of sixteen, full.
    let mut story = Story::with(
        Limits::default(),
        vec![FunctionSpec { queue_count_max: 16, ..spec("echo") }, spec("other")],
    );
    story.attach(OTHER, 1);
    let outer = story.run(OTHER);
    story.call_many(16);
    assert_eq!(story.request(request()), refused(Status::QueueFull));

    // Expect: an eighth more, and no more than that.
    for _ in 0..2 {
        assert!(matches!(story.nested(ECHO, outer.invocation, 1), Verdict::Admitted(_)));
    }
    assert_eq!(story.nested(ECHO, outer.invocation, 1), refused(Status::QueueFull));
}

#[test]
fn a_lie_about_the_caller_costs_nobody_else_a_call() {
    // Given: a call runs, one waits for its worker, and a stranger claims to be called by the first and by one long gone.
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    let gone = story.run(ECHO);
    story.complete(gone, RunOutcome::Ok);
    let victim = story.run(ECHO);
    story.call();
    assert_eq!(
        story.nested(ECHO, victim.invocation, 1),
        refused(Status::WouldDeadlock),
        "the liar's own loss"
    );
    assert!(matches!(story.nested(ECHO, gone.invocation, 1), Verdict::Admitted(_)));
    assert!(matches!(story.nested(OTHER, victim.invocation, 1), Verdict::Admitted(_)));

    // Expect: the two calls are served as if nobody had said anything.
    assert_eq!(status_of(story.complete(victim, RunOutcome::Ok)), Some(Status::Ok));
    let next = story.push().expect("its worker is open again");
    assert_eq!(next.worker, worker);
    assert_eq!(status_of(story.complete(next, RunOutcome::Ok)), Some(Status::Ok));
}

#[test]
fn a_worker_lost_while_it_waits_leaves_nothing_behind() {
    let mut story = Story::new();
    story.attach(OTHER, 1);
    let worker = story.attach(ECHO, 8);
    let outer = story.run(ECHO);
    story.run_nested(OTHER, outer.invocation);
    story.lose(worker, HAS_STARTED);
    assert_eq!(story.answers(), [(Status::WorkerLost, true)]);
    story.attach(ECHO, 8);
    story.run(ECHO);
}
