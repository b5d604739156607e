use super::*;

const KEY: IdempotencyKey = [7; 16];
const OTHER_KEY: IdempotencyKey = [8; 16];
/// The time-out of [`brief`] calls.
const BRIEF: u32 = 50_000;

impl Story {
    fn keyed_verdict(&mut self, mut request: Request, key: IdempotencyKey) -> Verdict {
        self.calls += 1;
        request.origin.call_id = CallId(self.calls);
        request.received_at = self.now;
        let verdict = self.engine.handle_keyed_request(self.now, request, key, None);
        self.engine.invariants();
        verdict
    }

    fn keyed(&mut self, request: Request) -> InvocationId {
        match self.keyed_verdict(request, KEY) {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// A result, and everybody who gets it, the caller of the call that ran first.
    fn result(&mut self, push: Push, outcome: RunOutcome) -> Vec<(InvocationId, Status)> {
        let completed =
            self.engine.handle_completion(self.now, push.worker, push.invocation, finished(outcome));
        let mut told: Vec<_> = match completed {
            Completed::Answer(answer) | Completed::LastAnswer(answer) => {
                vec![(answer.invocation, answer.status)]
            }
            Completed::TriedAgain | Completed::AlreadyAnswered => vec![],
            Completed::Stale => panic!("the worker held it"),
        };
        while let Some(answer) = self.engine.poll_joined(self.now) {
            self.engine.invariants();
            told.push((answer.invocation, answer.status));
        }
        self.engine.invariants();
        told
    }

    fn told(&mut self) -> Vec<(InvocationId, Status, bool)> {
        let answers = std::iter::from_fn(|| self.engine.poll_answer());
        answers.map(|it| (it.invocation, it.status, it.flags.contains(Flags::STARTED))).collect()
    }
}

fn brief() -> Request {
    Request { budget_us: BRIEF, ..request() }
}

const PAST_BRIEF: Nanos = Nanos::from_ms(51);

#[test]
fn calls_with_one_key_run_once_and_each_caller_gets_the_result() {
    for outcome in [RunOutcome::Ok, RunOutcome::FunctionError, RunOutcome::ResultTooLarge] {
        let mut story = Story::new();
        story.attach(ECHO, 4);
        // Given: one that joins while the first is queued, one that joins while it runs.
        let first = story.keyed(request());
        let second = story.keyed(request());
        let push = story.push().expect("the first is given to the worker");
        let third = story.keyed(request());
        assert_eq!(push.invocation, first);
        assert_eq!(story.push(), None, "and the others are not");
        // Expect: one answer each, and the same.
        let told = story.result(push, outcome);
        let (ids, statuses): (Vec<_>, Vec<_>) = told.into_iter().unzip();
        assert_eq!(ids, [first, second, third]);
        assert!(statuses.iter().all(|status| *status == statuses[0]));
        assert!(story.engine.is_idle());
        assert_eq!(story.count(Counter::CallsJoined), 2);
        assert_eq!(story.count(Counter::CallsPushed), 1);
    }
}

#[test]
fn another_key_another_function_and_a_call_that_is_over_are_not_joined() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    let first = story.keyed(request());
    story.keyed_verdict(request(), OTHER_KEY);
    story.keyed_verdict(Request { function: OTHER, ..request() }, KEY);
    story.call();
    assert_eq!(story.count(Counter::CallsJoined), 0);
    let pushes = story.pushes();
    assert_eq!(pushes[0].invocation, first);
    assert_eq!(story.result(pushes[0], RunOutcome::Ok), [(first, Status::Ok)]);
    let again = story.keyed(request());
    assert_eq!(story.push().map(|push| push.invocation), Some(again), "it runs, as the first is over");
}

#[test]
fn who_joins_has_a_deadline_of_its_own_and_leaves_the_others_alone() {
    // Given: a call that is queued, or runs, and one that joined it with less time.
    for is_running in [false, true] {
        let mut story = Story::new();
        let worker = story.attach(ECHO, 1);
        let busy = story.call();
        let ahead = story.push().expect("another call takes the worker");
        assert_eq!(ahead.invocation, busy);
        let first = story.keyed(request());
        if is_running {
            story.complete(ahead, RunOutcome::Ok);
            story.push();
        }
        let hurried = story.keyed(brief());
        story.pass(PAST_BRIEF, HAS_STARTED);
        // Expect: expired if the call is in nobody's hands, timed out if it is; and the call goes on.
        let expected = if is_running { (Status::TimedOut, true) } else { (Status::Expired, false) };
        assert_eq!(story.told(), [(hurried, expected.0, expected.1)]);
        assert_eq!(story.actions(), [], "nobody is stopped");
        let push = match is_running {
            true => Push { worker, invocation: first, function: ECHO, deadline_at: Nanos::NEVER },
            false => {
                story.complete(ahead, RunOutcome::Ok);
                story.push().expect("it is its turn")
            }
        };
        assert_eq!(story.result(push, RunOutcome::Ok), [(first, Status::Ok)]);
    }
}

#[test]
fn a_run_goes_on_for_those_who_joined_when_its_own_caller_leaves_and_stops_when_the_last_one_does() {
    for reason in [CancelReason::Asked, CancelReason::ClientGone] {
        let mut story = Story::new();
        story.attach(ECHO, 1);
        let first = story.keyed(request());
        let push = story.push().expect("it runs");
        let (second, third) = (story.keyed(request()), story.keyed(request()));
        story.cancel(first, reason);
        assert_eq!(story.actions(), [], "others wait");
        // Expect: it can still be joined.
        let fourth = story.keyed(request());
        story.cancel(second, reason);
        story.cancel(third, reason);
        assert_eq!(story.actions(), [], "one waits");
        story.cancel(fourth, reason);
        let stop = WorkerAction::Cancel { worker: push.worker, invocation: first };
        assert_eq!(story.actions(), [stop], "nobody waits any more");
        let told = if reason == CancelReason::Asked { 4 } else { 0 };
        assert_eq!(story.answers(), vec![(Status::Cancelled, true); told]);
        assert_eq!(story.result(push, RunOutcome::Ok), []);
        assert_eq!(story.count(Counter::ResultsDropped), 1);
        assert!(story.engine.is_idle());

        // Expect: with one who stays, the result is its own.
        let first = story.keyed(request());
        let push = story.push().expect("it runs");
        let second = story.keyed(request());
        story.cancel(first, reason);
        story.answers();
        assert_eq!(story.result(push, RunOutcome::Ok), [(second, Status::Ok)]);
        assert_eq!(story.count(Counter::ResultsDropped), 1);
        assert!(story.engine.is_idle());
    }
}

#[test]
fn the_first_who_joined_takes_the_place_of_a_queued_call_that_ends_early() {
    for reason in [CancelReason::Asked, CancelReason::ClientGone] {
        let mut story = Story::new();
        let first = story.keyed(request());
        let (second, third) = (story.keyed(request()), story.keyed(request()));
        story.cancel(first, reason);
        // Expect: the key is the second one's now.
        let fourth = story.keyed(request());
        story.attach(ECHO, 4);
        let push = story.push().expect("it is queued");
        assert_eq!(push.invocation, second);
        assert_eq!(story.push(), None);
        story.answers();
        let told = story.result(push, RunOutcome::Ok);
        assert_eq!(told, [(second, Status::Ok), (third, Status::Ok), (fourth, Status::Ok)]);
        assert!(story.engine.is_idle());
    }
    // The same when its time is over.
    let mut story = Story::new();
    let first = story.keyed(brief());
    let second = story.keyed(request());
    story.pass(PAST_BRIEF, HAS_STARTED);
    assert_eq!(story.told(), [(first, Status::Expired, false)]);
    story.attach(ECHO, 1);
    assert_eq!(story.push().map(|push| push.invocation), Some(second));
}

#[test]
fn a_run_past_the_deadline_of_its_own_caller_goes_on_for_those_with_more_time_and_is_joined_no_more() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 2);
    let first = story.keyed(brief());
    let push = story.push().expect("it runs");
    let second = story.keyed(request());
    story.pass(PAST_BRIEF, HAS_STARTED);
    assert_eq!(story.told(), [(first, Status::TimedOut, true)]);
    // Expect: neither stopped nor killed, however long it takes; but nobody new waits for it.
    story.pass(Nanos::from_secs(5), HAS_STARTED);
    assert_eq!(story.actions(), []);
    let late = story.keyed(request());
    assert_eq!(story.push().map(|push| push.invocation), Some(late));
    assert_eq!(story.result(push, RunOutcome::Ok), [(second, Status::Ok)]);

    // Expect: without anybody left, killed after the grace.
    story.cancel(late, CancelReason::ClientGone);
    let first = story.keyed(brief());
    let push = story.push().expect("it runs");
    let second = story.keyed(request());
    story.pass(PAST_BRIEF, HAS_STARTED);
    story.cancel(second, CancelReason::ClientGone);
    assert!(story.actions().contains(&WorkerAction::Cancel { worker, invocation: first }));
    story.pass(Nanos::from_secs(1), HAS_STARTED);
    story.pass(Nanos::from_secs(1), HAS_STARTED);
    assert!(story.actions().contains(&WorkerAction::Kill { worker, reason: KillReason::Overstayed }));
    assert_eq!(push.invocation, first);
}

#[test]
fn a_call_that_its_worker_found_too_late_is_run_for_those_with_more_time() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let first = story.keyed(brief());
    let push = story.push().expect("it is in the ring");
    let second = story.keyed(request());
    story.now = story.now.plus(PAST_BRIEF);
    assert_eq!(story.result(push, RunOutcome::Expired), [(first, Status::Expired)]);
    let push = story.push().expect("the other one has time");
    assert_eq!(push.invocation, second);
    assert_eq!(story.result(push, RunOutcome::Ok), [(second, Status::Ok)]);
}

/// How a run ends without a result after the deadline of its own caller.
#[derive(Clone, Copy, Debug)]
enum LateEnd {
    /// Its worker dies before anybody looked at the deadline, and had not taken it.
    LostUnseen,
    /// Its worker dies of it, its caller has been told.
    LostRunning,
    /// Its worker finds it too late.
    GivenBack,
}

const LATE_ENDS: [LateEnd; 3] = [LateEnd::LostUnseen, LateEnd::LostRunning, LateEnd::GivenBack];

impl Story {
    /// A call in a worker's hands past its deadline, and one that joined it and has more time.
    fn late_run(&mut self, end: LateEnd) -> (Push, InvocationId) {
        self.attach(ECHO, 1);
        self.keyed(brief());
        let push = self.push().expect("a worker is free");
        let second = self.keyed(request());
        match end {
            LateEnd::LostRunning => self.pass(PAST_BRIEF, HAS_STARTED),
            LateEnd::LostUnseen | LateEnd::GivenBack => self.now = self.now.plus(PAST_BRIEF),
        }
        (push, second)
    }

    /// Ends that run. Another worker with room for two is there afterwards.
    fn end_late(&mut self, end: LateEnd, push: Push) {
        let expected = match end {
            LateEnd::LostUnseen => {
                self.lose(push.worker, NOT_STARTED);
                self.pass(Nanos::from_ms(1), HAS_STARTED);
                vec![(push.invocation, Status::Expired, false)]
            }
            LateEnd::LostRunning => {
                self.lose(push.worker, HAS_STARTED);
                vec![(push.invocation, Status::TimedOut, true)]
            }
            LateEnd::GivenBack => {
                let told = self.result(push, RunOutcome::Expired);
                assert_eq!(told, [(push.invocation, Status::Expired)]);
                self.lose(push.worker, NOT_STARTED);
                vec![]
            }
        };
        assert_eq!(self.told(), expected, "{end:?}");
        self.attach(ECHO, 2);
    }
}

#[test]
fn who_waited_for_a_lost_run_waits_for_the_one_that_has_the_key_by_then() {
    for end in LATE_ENDS {
        let mut story = Story::new();
        let (push, second) = story.late_run(end);
        // Given: a call after the deadline of the first, which runs by itself.
        let third = story.keyed(request());
        story.end_late(end, push);
        let fourth = story.keyed(request());
        // Expect: one run for all who are left.
        let push = story.push().expect("it is queued");
        assert_eq!((push.invocation, story.push()), (third, None), "{end:?}");
        let told = story.result(push, RunOutcome::Ok);
        assert_eq!(told, [(third, Status::Ok), (second, Status::Ok), (fourth, Status::Ok)], "{end:?}");
        assert!(story.engine.is_idle());
    }
}

#[test]
fn who_runs_for_others_can_be_joined_whatever_stood_under_its_key_meanwhile() {
    // Given: the one place of the table went to a call with the same key, or with another one, that is over again.
    for (end, key) in LATE_ENDS.into_iter().flat_map(|end| [(end, KEY), (end, OTHER_KEY)]) {
        let mut story = Story::with(Limits { keys_max: 1, ..Limits::default() }, vec![spec("echo")]);
        let (push, second) = story.late_run(end);
        let Verdict::Admitted(third) = story.keyed_verdict(request(), key) else { panic!("there is room") };
        story.cancel(third, CancelReason::ClientGone);
        story.end_late(end, push);
        let fourth = story.keyed(request());
        let push = story.push().expect("it is queued");
        assert_eq!((push.invocation, story.push()), (second, None), "{end:?}");
        assert_eq!(
            story.result(push, RunOutcome::Ok),
            [(second, Status::Ok), (fourth, Status::Ok)],
            "{end:?}"
        );
    }
}

#[test]
fn who_finds_too_many_waiting_for_the_one_with_the_key_runs_beside_it() {
    for end in LATE_ENDS {
        let mut story = Story::with(Limits { joiners_max: 1, ..Limits::default() }, vec![spec("echo")]);
        let (push, second) = story.late_run(end);
        let (third, fourth) = (story.keyed(request()), story.keyed(request()));
        story.end_late(end, push);
        let pushes = story.pushes();
        let mut told: Vec<_> =
            pushes.into_iter().flat_map(|push| story.result(push, RunOutcome::Ok)).collect();
        told.sort_by_key(|(id, _)| *id);
        assert_eq!(told, [(second, Status::Ok), (third, Status::Ok), (fourth, Status::Ok)], "{end:?}");
        assert_eq!(story.count(Counter::CallsJoined), 2);
    }
}

#[test]
fn what_became_of_the_worker_is_for_all_of_them() {
    // Given: a worker that died of it, and no attempt left.
    let retry = RetrySpec { retries_max: 0, ..RetrySpec::default() };
    let policy = Policy { retry, ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    let worker = story.attach(ECHO, 1);
    let (first, second) = (story.keyed(request()), story.keyed(request()));
    story.push();
    story.lose(worker, HAS_STARTED);
    let lost = |id| (id, Status::WorkerLost, true);
    assert_eq!(story.told(), [lost(first), lost(second)]);
    assert!(story.engine.is_idle());
}

#[test]
fn a_call_that_is_tried_again_is_so_for_all_of_them() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    let (first, second) = (story.keyed(request()), story.keyed(request()));
    story.push();
    story.lose(worker, HAS_STARTED);
    story.attach(ECHO, 1);
    let push = story.push().expect("a key says that it may run again");
    assert_eq!(story.result(push, RunOutcome::Ok), [(first, Status::Ok), (second, Status::Ok)]);
}

#[test]
fn those_left_with_a_run_whose_worker_dies_are_tried_again() {
    for evidence in [HAS_STARTED, NOT_STARTED] {
        let mut story = Story::new();
        let worker = story.attach(ECHO, 1);
        let first = story.keyed(request());
        story.push();
        let (second, third) = (story.keyed(request()), story.keyed(request()));
        story.cancel(first, CancelReason::ClientGone);
        story.lose(worker, evidence);
        story.attach(ECHO, 1);
        let push = story.push().expect("the second takes its place");
        assert_eq!(push.invocation, second);
        assert_eq!(story.result(push, RunOutcome::Ok), [(second, Status::Ok), (third, Status::Ok)]);
        assert!(story.engine.is_idle());
    }
}

#[test]
fn no_more_may_wait_for_one_call_than_the_limit_says() {
    let limits = Limits { joiners_max: 2, ..Limits::default() };
    let mut story = Story::with(limits, vec![spec("echo")]);
    for _ in 0..3 {
        story.keyed(request());
    }
    assert_eq!(story.keyed_verdict(request(), KEY), refused(Status::Overloaded));
    assert_eq!(story.count(Counter::RefusedJoinFull), 1);
}

#[test]
fn a_call_whose_key_finds_no_place_is_refused_and_its_key_is_not_needed_by_others() {
    let limits = Limits { keys_max: 1, ..Limits::default() };
    let mut story = Story::with(limits, vec![spec("echo")]);
    let first = story.keyed(request());
    assert_eq!(story.keyed_verdict(request(), OTHER_KEY), refused(Status::Overloaded));
    assert_eq!(story.count(Counter::RefusedJoinFull), 1);
    story.call();
    // Expect: a place as soon as the first is over.
    story.cancel(first, CancelReason::ClientGone);
    assert!(matches!(story.keyed_verdict(request(), OTHER_KEY), Verdict::Admitted(_)));
}

#[test]
fn a_full_queue_turns_nobody_away_who_only_joins() {
    let full = FunctionSpec { queue_count_max: 1, ..spec("echo") };
    let mut story = Story::with(Limits::default(), vec![full]);
    story.keyed(request());
    assert_eq!(story.refusal(request()), Status::QueueFull);
    story.keyed(request());
    // Expect: what can never work is refused all the same.
    let late = Request { criticality: 9, ..request() };
    assert_eq!(story.keyed_verdict(late, KEY), refused(Status::UnknownCriticality));
    story.engine.handle_drain();
    assert_eq!(story.keyed_verdict(request(), KEY), refused(Status::Draining));
}

#[test]
fn a_call_that_would_wait_for_its_own_caller_is_refused() {
    let mut story = Story::new();
    story.attach(ECHO, 2);
    story.attach(ECHO, 2);
    let outer = story.keyed(request());
    story.push();
    let nested = |story: &mut Story, key, caller| {
        let called_by = claimed(caller, 1);
        let asked = Request { received_at: story.now, ..request() };
        let verdict = story.engine.handle_keyed_request(story.now, asked, key, Some(called_by));
        story.engine.invariants();
        verdict
    };
    assert_eq!(nested(&mut story, KEY, outer), refused(Status::WouldDeadlock));
    // Expect: a call with another key is run, and one that is nested elsewhere joins.
    assert!(matches!(nested(&mut story, OTHER_KEY, outer), Verdict::Admitted(_)));
    assert!(matches!(nested(&mut story, OTHER_KEY, outer), Verdict::Admitted(_)));
    assert_eq!(story.count(Counter::CallsJoined), 1);
    assert_eq!(story.count(Counter::CallsNested), 2);
}

#[test]
fn a_joined_call_says_for_which_one_it_waits() {
    let mut story = Story::new();
    let first = story.keyed(request());
    let second = story.keyed(request());
    let view = story.engine.call_view(second).expect("it is known");
    assert_eq!((view.state, view.joined), (State::Joined, Some(first)));
    assert_eq!(story.engine.call_view(first).and_then(|view| view.joined), None);
}

#[test]
fn calls_of_a_function_without_keys_in_flight_go_the_usual_way() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 4);
    story.keyed(request());
    let push = story.push().expect("it runs");
    let in_time = |story: &mut Story, push: Push| {
        let done = finished(RunOutcome::Ok);
        let mut answered = 0;
        let results = std::iter::once((push.invocation, done));
        story.engine.handle_results(story.now, worker, results, |_| answered += 1);
        answered == 1
    };
    assert!(in_time(&mut story, push), "a key alone costs nothing at the end");
    story.keyed(request());
    let push = story.push().expect("it runs");
    story.keyed(request());
    assert!(!in_time(&mut story, push), "somebody joined it");
    story.result(push, RunOutcome::Ok);
    story.call();
    let push = story.push().expect("it runs");
    assert!(in_time(&mut story, push), "nobody does any more");
}
