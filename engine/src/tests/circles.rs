use std::collections::BTreeMap;

use super::*;

const A: FunctionId = ECHO;
const B: FunctionId = OTHER;
const C: FunctionId = FunctionId(2);
/// Longer than it takes until somebody looks again.
const A_WHILE: Nanos = Nanos::from_ms(11);

/// What workers show.
#[derive(Default)]
struct Shown(BTreeMap<WorkerId, WaitToken>);

impl WaitEvidence for Shown {
    fn waits_for(&self, worker: WorkerId) -> WaitToken {
        self.0.get(&worker).copied().unwrap_or(WaitToken::NONE)
    }
}

/// A story of processes that wait for calls that they make, and show it.
struct Waiters {
    story: Story,
    shown: Shown,
    made: u32,
}

impl Waiters {
    fn new() -> Waiters {
        Waiters::with(Limits::default())
    }

    fn with(limits: Limits) -> Waiters {
        let specs = ["a", "b", "c"].map(spec).to_vec();
        Waiters { story: Story::with(limits, specs), shown: Shown::default(), made: 0 }
    }

    /// A process that runs a top-level call.
    fn busy(&mut self, function: FunctionId) -> Push {
        let worker = self.story.attach(function, 1);
        self.story.admit(Request { function, ..request() });
        let push = self.story.push().expect("a worker is free");
        assert_eq!(push.worker, worker);
        push
    }

    /// The call's process makes one, and says so, but does not wait.
    fn make(&mut self, caller: Push, function: FunctionId) -> (Verdict, WaitToken) {
        self.make_keyed(caller, function, None)
    }

    fn make_keyed(
        &mut self,
        caller: Push,
        function: FunctionId,
        key: Option<IdempotencyKey>,
    ) -> (Verdict, WaitToken) {
        let wait_token = WaitToken::of_process(u64::from(caller.worker.index) + 7).of_call(self.made);
        self.made += 1;
        let called_by = Some(CalledBy { caller: caller.invocation, depth: 1, wait_token });
        let (engine, now) = (&mut self.story.engine, self.story.now);
        let request = Request { function, received_at: now, ..request() };
        let verdict = match key {
            Some(key) => engine.handle_keyed_request(now, request, key, called_by),
            None => engine.handle_special_request(now, request, Special { called_by, ..Special::default() }),
        };
        engine.invariants();
        (verdict, wait_token)
    }

    /// Its process makes a call and waits for it. Whether a worker has it is seen to.
    fn wait(&mut self, caller: Push, function: FunctionId) -> InvocationId {
        let (verdict, wait_token) = self.make(caller, function);
        self.shown.0.insert(caller.worker, wait_token);
        match verdict {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    fn join(&mut self, caller: Push, function: FunctionId, key: IdempotencyKey) -> InvocationId {
        let (verdict, wait_token) = self.make_keyed(caller, function, Some(key));
        self.shown.0.insert(caller.worker, wait_token);
        match verdict {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// The calls that are told of a circle when the router has handed out what it could.
    fn told(&mut self) -> Vec<InvocationId> {
        assert_eq!(self.story.push(), None, "somebody is free");
        self.story.engine.handle_waits(self.story.now, &self.shown);
        self.story.engine.invariants();
        let answers = std::iter::from_fn(|| self.story.engine.poll_answer());
        let told = answers.inspect(|answer| assert_eq!(answer.status, Status::WouldDeadlock));
        told.map(|answer| answer.invocation).collect()
    }

    fn told_after_a_while(&mut self) -> Vec<InvocationId> {
        self.story.pass(A_WHILE, HAS_STARTED);
        self.told()
    }
}

#[test]
fn two_chains_that_hold_each_others_only_process_are_told_at_once() {
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    let of_a = waiters.wait(a, B);
    assert_eq!(waiters.told(), []);
    let of_b = waiters.wait(b, A);
    assert_eq!(waiters.told(), [of_b], "the newest, in the same turn");
    assert_eq!(waiters.story.count(Counter::AnsweredWouldDeadlock), 1);

    // Expect: it hears of it and ends, and the other chain goes on.
    let story = &mut waiters.story;
    assert_eq!(status_of(story.complete(b, RunOutcome::FunctionError)), Some(Status::FunctionError));
    let inner = story.push().expect("the process of b is free");
    assert_eq!((inner.invocation, inner.worker), (of_a, b.worker));
    assert_eq!(status_of(story.complete(inner, RunOutcome::Ok)), Some(Status::Ok));
    assert_eq!(status_of(story.complete(a, RunOutcome::Ok)), Some(Status::Ok));
    assert!(story.engine.is_idle());
    assert_eq!(waiters.told_after_a_while(), []);
    assert_eq!(waiters.story.engine.next_timer(), None, "nobody looks when nobody waits");
}

/// Seed 10 of the simulator (`nested`): the process of a call whose caller had left was given another call behind it, and its own
/// wait was nobody's.
#[test]
fn a_call_that_nobody_waits_for_any_more_still_holds_its_process_while_it_waits() {
    // Given: the process of b has room for more calls, and runs one that is cancelled before it makes another one.
    let mut waiters = Waiters::new();
    let a = waiters.busy(A);
    waiters.story.attach(B, 4);
    waiters.story.admit(Request { function: B, ..request() });
    let b = waiters.story.push().expect("a worker is free");
    let now = waiters.story.now;
    waiters.story.engine.handle_cancel(now, b.invocation, CancelReason::Asked);
    assert_eq!(waiters.story.answers(), [(Status::Cancelled, true)]);
    waiters.wait(b, A);
    assert_eq!(waiters.told(), []);

    // Expect: what a makes is not bound behind it, and the circle is seen.
    let of_a = waiters.wait(a, B);
    assert_eq!(waiters.told(), [of_a]);
}

/// Processes of these functions, each of which runs a call; then, one after the other, some of them wait for a function. The n-th
/// of these closes a circle, or none does.
fn check(processes: &[FunctionId], waits: &[(usize, FunctionId)], expected: Option<usize>) {
    let mut waiters = Waiters::new();
    let running: Vec<_> = processes.iter().map(|function| waiters.busy(*function)).collect();
    let mut told = vec![];
    for (n, (process, function)) in waits.iter().enumerate() {
        let id = waiters.wait(running[*process], *function);
        let now = waiters.told();
        assert!(now.is_empty() || now == [id], "{processes:?}, {waits:?}: {n} tells another");
        told.extend((!now.is_empty()).then_some(n));
    }
    assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{processes:?}, {waits:?}");
    assert_eq!(waiters.told_after_a_while(), [], "one answer is enough");
}

#[test]
fn a_circle_is_closed_by_the_last_process_that_could_have_helped() {
    check(&[A, A, B, B], &[(0, B), (1, B), (2, A), (3, A)], Some(3));
    check(&[A, A, B, B], &[(0, B), (2, A), (3, A), (1, B)], Some(3));
    check(&[A, A, B, B], &[(0, B), (1, B), (2, A)], None);
    check(&[A, B, C], &[(0, B), (1, C), (2, A)], Some(2));
    check(&[A, B, C], &[(2, A), (0, B), (1, C)], Some(2));
    check(&[A, B, C], &[(0, B), (1, C)], None);
    // Two that call their own function and are no ancestors of each other.
    check(&[A, A], &[(0, A), (1, A)], Some(1));
    check(&[A, A, A], &[(0, A), (1, A)], None);
    // One of two processes waits for something that will be there.
    check(&[A, B, B, C], &[(0, B), (1, A), (2, C)], None);
    check(&[A, B, B, C], &[(0, B), (1, A), (2, C), (3, A)], Some(3));
}

#[test]
fn who_waits_for_a_circle_and_is_not_in_it_waits_on_and_is_served() {
    let mut waiters = Waiters::new();
    let (a, b, c) = (waiters.busy(A), waiters.busy(B), waiters.busy(C));
    waiters.wait(a, B);
    let outside = waiters.wait(c, A);
    let of_b = waiters.wait(b, A);
    assert_eq!(waiters.told(), [of_b]);

    // Expect
    waiters.story.complete(b, RunOutcome::FunctionError);
    let of_a = waiters.story.push().expect("b is free");
    waiters.story.complete(of_a, RunOutcome::Ok);
    waiters.story.complete(a, RunOutcome::Ok);
    assert_eq!(waiters.story.push().map(|push| push.invocation), Some(outside));
}

#[test]
fn a_worker_that_runs_a_call_for_the_circle_is_part_of_it() {
    // Given: b's call is run by c, and both processes of a wait for b.
    let mut waiters = Waiters::new();
    let (a1, a2, b) = (waiters.busy(A), waiters.busy(A), waiters.busy(B));
    waiters.story.attach(C, 1);
    waiters.wait(a1, B);
    waiters.wait(a2, B);
    waiters.wait(b, C);
    let c = waiters.story.push().expect("c is free");
    assert_eq!(waiters.told(), []);

    // Expect: c's call to a is of another chain than those that hold a.
    let of_c = waiters.wait(c, A);
    assert_eq!(waiters.told(), [of_c]);
}

#[test]
fn a_call_that_is_made_first_and_waited_for_later_closes_a_circle_then() {
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    waiters.wait(a, B);
    let calls: Vec<_> = (0..3).map(|_| waiters.make(b, A)).collect();
    assert_eq!(waiters.told_after_a_while(), [], "b is at work");
    let (Verdict::Admitted(first), wait_token) = calls[0] else { panic!("{:?}", calls[0]) };
    waiters.shown.0.insert(b.worker, wait_token);
    assert_eq!(waiters.told_after_a_while(), [first], "the one that it waits for");
}

#[test]
fn a_circle_that_a_death_closes_is_found_without_a_call() {
    let mut waiters = Waiters::new();
    let (a, stranger, b) = (waiters.busy(A), waiters.busy(A), waiters.busy(B));
    waiters.wait(a, B);
    let of_b = waiters.wait(b, A);
    assert_eq!(waiters.told_after_a_while(), [], "the stranger's process will be free");
    waiters.story.lose(stranger.worker, HAS_STARTED);
    assert_eq!(waiters.story.answers(), [(Status::WorkerLost, true)]);
    assert_eq!(waiters.told_after_a_while(), [of_b]);
}

#[test]
fn a_process_that_is_drained_while_it_waits_is_no_way_out() {
    let mut waiters = Waiters::new();
    let (a1, a2, b) = (waiters.busy(A), waiters.busy(A), waiters.busy(B));
    waiters.wait(a1, B);
    waiters.wait(a2, B);
    waiters.story.engine.handle_worker_draining(a2.worker);
    let of_b = waiters.wait(b, A);
    assert_eq!(waiters.told(), [of_b]);
}

#[test]
fn a_process_about_to_be_killed_may_be_followed_by_another() {
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    waiters.wait(a, B);
    waiters.story.engine.handle_lease_overstayed(a.worker);
    waiters.wait(b, A);
    assert_eq!(waiters.told(), []);
}

#[test]
fn a_call_that_is_tried_again_closes_a_circle_when_it_has_to_wait() {
    // Given: a waits for a call that the second process of b has and never begins; the first one waits for a.
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    let second = waiters.story.attach(B, 1);
    let of_a = waiters.wait(a, B);
    assert_eq!(waiters.story.push().map(|push| push.worker), Some(second));
    waiters.wait(b, A);
    assert_eq!(waiters.told(), []);

    // Expect
    waiters.story.lose(second, NOT_STARTED);
    assert_eq!(waiters.told(), [of_a]);
}

#[test]
fn processes_that_join_each_others_calls_are_told() {
    let keys = [[1; 16], [2; 16]];
    let mut waiters = Waiters::new();
    let run = |waiters: &mut Waiters, function, key| {
        waiters.story.attach(function, 1);
        let now = waiters.story.now;
        let asked = Request { function, received_at: now, ..request() };
        waiters.story.engine.handle_keyed_request(now, asked, key, None);
        waiters.story.push().expect("a worker is free")
    };
    let (a, b) = (run(&mut waiters, A, keys[0]), run(&mut waiters, B, keys[1]));
    // More of each, which would run a call that is not joined.
    waiters.busy(A);
    waiters.busy(B);
    waiters.join(a, B, keys[1]);
    assert_eq!(waiters.told(), []);
    let of_b = waiters.join(b, A, keys[0]);
    assert_eq!(waiters.told(), [of_b]);
}

#[test]
fn those_who_joined_a_call_in_a_circle_go_on_without_it() {
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    waiters.wait(a, B);
    let of_b = waiters.join(b, A, [3; 16]);
    let now = waiters.story.now;
    let asked = Request { function: A, received_at: now, ..request() };
    let verdict = waiters.story.engine.handle_keyed_request(now, asked, [3; 16], None);
    let Verdict::Admitted(outside) = verdict else { panic!("{verdict:?}") };
    assert_eq!(waiters.told(), [of_b]);
    assert!(waiters.story.engine.owes_answer(outside), "what happened to one caller is for that one");
}

#[test]
fn who_says_nothing_of_what_it_waits_for_waits_until_its_deadline() {
    // Given: the circle of two chains, without a word in a ring.
    let mut story = Story::new();
    story.attach(ECHO, 1);
    story.attach(OTHER, 1);
    let pushes = [ECHO, OTHER].map(|function| {
        story.admit(Request { function, ..request() });
        story.push().expect("a worker is free")
    });
    for (push, function) in pushes.iter().zip([OTHER, ECHO]) {
        assert!(matches!(story.nested(function, push.invocation, 1), Verdict::Admitted(_)));
    }
    story.engine.handle_waits(story.now, &Shown::default());
    assert_eq!(story.answers(), []);
    story.pass(Nanos::from_secs(30).plus(crate::timers::TICK), HAS_STARTED);
    let statuses: Vec<_> = story.answers().into_iter().map(|(status, _)| status).collect();
    assert!(statuses.contains(&Status::Expired), "{statuses:?}");
}

#[test]
fn a_stranger_who_calls_in_the_name_of_one_who_waits_closes_no_circle() {
    // Given: a waits for a call that nobody here knows of, for it went to another router.
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    let elsewhere = WaitToken::of_process(u64::from(a.worker.index) + 7).of_call(99);
    waiters.shown.0.insert(a.worker, elsewhere);

    // Expect: what a stranger says without being vouched for, or with a token that it made up, ties a to nothing.
    assert!(matches!(waiters.story.nested(B, a.invocation, 1), Verdict::Admitted(_)));
    let guessed = WaitToken::of_process(1234).of_call(99);
    let called_by = Some(CalledBy { caller: a.invocation, depth: 1, wait_token: guessed });
    let asked = Request { function: B, received_at: waiters.story.now, ..request() };
    let special = Special { called_by, ..Special::default() };
    waiters.story.engine.handle_special_request(waiters.story.now, asked, special);
    let of_b = waiters.wait(b, A);
    assert_eq!(waiters.told_after_a_while(), []);
    assert!(waiters.story.engine.owes_answer(of_b), "b's call waits for a, which will answer");
}

#[test]
fn a_process_that_shows_anothers_wait_ties_nobody_to_it() {
    let mut waiters = Waiters::new();
    let (a, b, c) = (waiters.busy(A), waiters.busy(B), waiters.busy(C));
    waiters.wait(a, B);
    let (_, of_b) = waiters.make(b, A);
    // c has got hold of the number somehow, and b itself is at work.
    waiters.shown.0.insert(c.worker, of_b);
    waiters.shown.0.insert(b.worker, WaitToken::of_process(u64::from(b.worker.index) + 7));
    assert_eq!(waiters.told_after_a_while(), []);
}

#[test]
fn a_full_list_of_waits_leaves_the_rest_to_their_deadlines() {
    let mut waiters = Waiters::with(Limits { waits_max: 1, ..Limits::default() });
    let (a, b, c) = (waiters.busy(A), waiters.busy(B), waiters.busy(C));
    waiters.busy(C);
    waiters.wait(c, C);
    waiters.wait(a, B);
    let of_b = waiters.wait(b, A);
    assert_eq!(waiters.told_after_a_while(), []);
    assert!(waiters.story.engine.owes_answer(of_b));
}

#[test]
fn a_circle_larger_than_a_look_is_left_to_its_deadlines_and_others_are_found() {
    let mut waiters = Waiters::with(Limits { wait_visits_max: 2, ..Limits::default() });
    let (a1, a2, b) = (waiters.busy(A), waiters.busy(A), waiters.busy(B));
    let (c1, c2) = (waiters.busy(C), waiters.busy(C));
    waiters.wait(c1, C);
    let of_c = waiters.wait(c2, C);
    waiters.wait(a1, B);
    waiters.wait(a2, B);
    let of_b = waiters.wait(b, A);

    // Expect: two processes of c can be looked at in one look; three of a and b cannot.
    let mut told = vec![];
    for _ in 0..10 {
        told.extend(waiters.told_after_a_while());
    }
    assert_eq!(told, [of_c]);
    assert!(waiters.story.engine.owes_answer(of_b));
}

#[test]
fn the_calls_that_a_process_made_last_are_told_apart() {
    // Given: more calls at once than are remembered, of which it waits for the first, then for the last.
    let mut waiters = Waiters::new();
    let (a, b) = (waiters.busy(A), waiters.busy(B));
    waiters.wait(a, B);
    let calls: Vec<_> = (0..33).map(|_| waiters.make(b, A)).collect();
    waiters.shown.0.insert(b.worker, calls[0].1);
    assert_eq!(waiters.told_after_a_while(), []);
    waiters.shown.0.insert(b.worker, calls[32].1);
    assert_eq!(waiters.told_after_a_while().len(), 1);
}
