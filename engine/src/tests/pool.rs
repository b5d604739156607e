//! How many instances a function is to have: asked for by calls that wait, sent away when they have nothing to do.

use super::*;

const IDLE: Nanos = Nanos::from_secs(60);

/// `echo` with this pool, and `other` without one.
fn pooled(min: u32, max: u32) -> Story {
    with_spec(FunctionSpec { timeout: Nanos::from_secs(1000), queue_count_max: 1000, ..pool_spec(min, max) })
}

fn pool_spec(min: u32, max: u32) -> FunctionSpec {
    FunctionSpec {
        pool: Some(PoolSpec { min, max, idle_timeout: IDLE, is_predictive: false }),
        ..spec("echo")
    }
}

fn with_spec(echo: FunctionSpec) -> Story {
    let mut story = Story::with(Limits::default(), vec![echo, spec("other")]);
    // What a shim is told first.
    story.places();
    story
}

impl Story {
    /// What the shim is told: how many, and who ends.
    fn places(&mut self) -> Vec<(u32, Option<WorkerId>)> {
        let now = self.now;
        let told: Vec<_> = std::iter::from_fn(|| self.engine.poll_places(now)).collect();
        self.engine.invariants();
        assert!(told.iter().all(|word| word.function == ECHO), "{told:?}");
        told.into_iter().map(|word| (word.count, word.leaving)).collect()
    }

    /// How many the shim is told to keep, if it is told.
    fn wanted(&mut self) -> Option<u32> {
        self.places().last().map(|(count, _)| *count)
    }

    fn wait(&mut self, length: Nanos) {
        self.pass(length, NOT_STARTED);
    }

    /// A worker runs a call for so long.
    fn run_for(&mut self, length: Nanos) {
        let push = self.push().expect("a worker is free");
        let started_at = self.now;
        self.now = self.now.plus(length);
        let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at: self.now };
        let completed = self.engine.handle_completion(self.now, push.worker, push.invocation, finished);
        assert_eq!(status_of(completed), Some(Status::Ok));
    }

    fn pool(&self) -> PoolView {
        self.engine.function_view(ECHO).expect("it is configured").pool.expect("it has a pool")
    }
}

#[test]
fn a_call_starts_the_first_instance_and_is_held_until_it_is_there() {
    let mut story = pooled(0, 3);
    assert_eq!(story.pool().wanted, 0);
    // When a call comes. Expect: one instance, asked for once.
    story.call();
    assert_eq!(story.places(), [(1, None)]);
    story.engine.look_at_queues(story.now);
    assert_eq!(story.engine.function_view(ECHO).map(|view| view.blocked.on), Some(BlockedOn::ColdStart));
    story.wait(Nanos::from_ms(40));
    assert_eq!(story.places(), []);
    // When it is there. Expect: the call runs.
    story.attach(ECHO, 1);
    assert_eq!(story.places(), []);
    assert_eq!((story.pool().cold_starts, story.pool().start_last), (1, Nanos::from_ms(40)));
    assert_eq!([Counter::ColdStarts, Counter::CallsHeldForStart].map(|it| story.count(it)), [1, 1]);
    story.run_for(Nanos::from_ms(1));
}

#[test]
fn an_instance_that_has_nothing_to_do_is_sent_away_after_its_time_and_not_before() {
    let mut story = pooled(0, 3);
    story.call();
    story.places();
    let worker = story.attach(ECHO, 1);
    story.run_for(Nanos::from_secs(5));
    story.places();
    story.wait(Nanos(IDLE.0 - 1));
    assert_eq!((story.places(), story.actions()), (vec![], vec![]));
    assert_eq!(story.engine.next_timer(), Some(story.now.plus(Nanos(1))));
    story.wait(Nanos(1));
    // Expect: the shim is told before the instance is.
    assert_eq!(story.places(), [(0, Some(worker))]);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker }]);
    // When a call comes before it has gone. Expect: it is held, and another one is asked for.
    story.call();
    assert_eq!(story.push(), None);
    assert_eq!(story.places(), [(1, None)]);
    story.lose(worker, NOT_STARTED);
    assert_eq!(story.places(), []);
    story.attach(ECHO, 1);
    story.run_for(Nanos::from_ms(1));
    assert_eq!(story.count(Counter::InstancesReleased), 1);
}

#[test]
fn a_burst_starts_what_it_needs_and_never_more_than_may_be() {
    let mut story = pooled(0, 5);
    story.call_many(3);
    assert_eq!(story.wanted(), Some(3), "calls of which nothing is known are worth one each");
    // Expect: those that are starting count.
    story.wait(Nanos::from_ms(10));
    assert_eq!(story.wanted(), None);
    story.call();
    assert_eq!(story.wanted(), Some(4));
    story.call_many(50);
    assert_eq!(story.wanted(), Some(5));
    story.call_many(50 - 8);
    assert_eq!(story.wanted(), None);
    assert_eq!(story.count(Counter::InstancesAskedFor), 5);
}

#[test]
fn only_so_many_are_started_at_once() {
    let mut story = pooled(0, 100);
    story.call_many(20);
    assert_eq!(story.wanted(), Some(8));
    // Expect: one more for each that has attached, as long as there is need for it.
    let first = story.attach(ECHO, 1);
    assert!(story.push().is_some());
    assert_eq!(story.wanted(), Some(9));
    story.attach(ECHO, 1);
    assert!(story.push().is_some());
    assert_eq!(story.wanted(), Some(10));
    // One that dies is started again without being asked for.
    story.lose(first, HAS_STARTED);
    assert_eq!(story.answers(), [(Status::WorkerLost, true)]);
    assert_eq!(story.wanted(), None);
}

#[test]
fn calls_that_are_quicker_than_a_start_wait_for_the_instance_that_is_there() {
    // Given: a start takes 100 ms, a call 1 ms.
    let mut story = pooled(1, 50);
    story.attach(ECHO, 1);
    for _ in 0..50 {
        story.call();
        story.run_for(Nanos::from_ms(1));
    }
    story.places();
    // Expect: ninety-nine of them are no reason for another one, two hundred are: for one, and not for as many as there are calls.
    story.call_many(100);
    assert!(story.push().is_some());
    assert_eq!(story.wanted(), None);
    story.call_many(100);
    assert_eq!(story.wanted(), Some(2));
}

#[test]
fn calls_that_run_longer_than_a_start_are_worth_one_each() {
    let mut story = pooled(1, 50);
    story.attach(ECHO, 1);
    for _ in 0..20 {
        story.call();
        story.run_for(Nanos::from_secs(1));
    }
    story.places();
    story.call_many(4);
    assert!(story.push().is_some());
    assert_eq!(story.wanted(), Some(4));
}

#[test]
fn a_call_that_has_waited_as_long_as_a_start_takes_is_worth_one() {
    // Given: quick calls so far, and now one that does not end.
    let mut story = pooled(1, 3);
    story.attach(ECHO, 1);
    for _ in 0..20 {
        story.call();
        story.run_for(Nanos::from_us(10));
    }
    story.call_many(2);
    assert!(story.push().is_some());
    assert_eq!(story.wanted(), None);
    // Expect: looked at when it has waited for so long, though nothing else happens.
    let look_at = story.engine.next_timer().expect("there is something to look at");
    assert!(look_at <= story.now.plus(Nanos::from_ms(100)), "{look_at}");
    story.wait(Nanos::from_ms(100));
    assert_eq!(story.wanted(), Some(2));
    story.wait(Nanos::from_ms(100));
    assert_eq!(story.wanted(), None, "one is starting");
}

#[test]
fn instances_go_one_by_one_the_coldest_first_and_never_below_the_minimum() {
    let mut story = pooled(1, 4);
    let workers = [story.attach(ECHO, 1), story.attach(ECHO, 1), story.attach(ECHO, 1)];
    assert_eq!(story.wanted(), Some(3), "whoever attached again is to be there");
    // Given: the one on top is used now and then.
    for _ in 0..5 {
        story.wait(Nanos(IDLE.0 / 4));
        story.call();
        story.run_for(Nanos::from_ms(1));
    }
    // Expect
    assert_eq!(story.places(), [(2, Some(workers[0])), (1, Some(workers[1]))]);
    story.wait(Nanos(IDLE.0 * 10));
    assert_eq!(story.places(), []);
    assert_eq!(story.pool(), PoolView { wanted: 1, starting: 0, ..story.pool() });
}

#[test]
fn one_that_has_a_call_or_a_lane_is_not_sent_away() {
    let mut story = pooled(0, 4);
    story.attach(ECHO, 8);
    story.attach(ECHO, 8);
    story.places();
    story.call();
    let push = story.push().expect("a worker is free");
    let lease = story.engine.lease(ECHO, 4, |_| true).expect("one has credits");
    assert_ne!(lease.worker, push.worker);
    story.wait(Nanos(IDLE.0 * 3));
    assert_eq!(story.places(), []);
    // When they are over. Expect: each has its time.
    story.complete(push, RunOutcome::Ok);
    story.engine.end_lease(lease);
    story.wait(IDLE);
    assert_eq!(story.places(), [(1, Some(lease.worker)), (0, Some(push.worker))]);
}

#[test]
fn calls_are_not_held_for_a_program_that_cannot_start() {
    let mut story = pooled(0, 8);
    story.call_many(3);
    assert_eq!(story.wanted(), Some(3));
    // When the shim gives up hope. Expect: they are told, and one start goes on being tried.
    story.engine.handle_function_failing(ECHO, true);
    assert_eq!(story.wanted(), Some(1));
    assert_eq!(story.answers(), [(Status::NoWorker, false); 3]);
    assert_eq!(story.count(Counter::AnsweredNoWorker), 3);
    assert_eq!(story.refusal(request()), Status::NoWorker);
    assert_eq!(story.wanted(), None);
    // When nobody waits for it any longer. Expect: it is given up, and the next call finds out anew.
    story.wait(IDLE);
    assert_eq!(story.wanted(), Some(0));
    story.call();
    assert_eq!(story.wanted(), Some(1));
    // When it is mended. Expect: what waits runs.
    story.attach(ECHO, 1);
    story.run_for(Nanos::from_ms(1));
}

#[test]
fn starts_that_nobody_waits_for_do_not_pile_up() {
    let mut story = pooled(0, 3);
    for _ in 0..10 {
        let calls = [story.call(), story.call()];
        assert!(story.wanted().is_none_or(|wanted| wanted == 2));
        for call in calls {
            story.cancel(call, CancelReason::Asked);
        }
        story.wait(Nanos::from_secs(1));
        while story.engine.poll_answer().is_some() {}
    }
    assert_eq!(story.pool().wanted, 2);
    // Expect: given up after a while; a process that comes all the same is kept its time.
    story.wait(IDLE);
    assert_eq!(story.wanted(), Some(0));
    let late = story.attach(ECHO, 1);
    assert_eq!(story.wanted(), Some(1));
    story.wait(IDLE);
    assert_eq!(story.places(), [(0, Some(late))]);
}

#[test]
fn a_new_keeper_is_told_what_serves_and_what_calls_need_by_then() {
    let mut story = pooled(1, 20);
    story.attach(ECHO, 1);
    story.call_many(4);
    assert!(story.push().is_some());
    assert_eq!(story.wanted(), Some(4));
    // When the shim died, and its processes with it, and another one comes.
    for number in 0..story.engine.function_view(ECHO).expect("it is there").workers {
        story.lose(WorkerId { index: number, generation: 1 }, NOT_STARTED);
    }
    story.engine.handle_keeper_attached();
    assert_eq!(story.places(), [(4, None)], "the one that was taken back waits again");
    // The same when nothing waits.
    story.now = story.now.plus(Nanos::from_secs(2000));
    story.wait(Nanos::ZERO);
    while story.engine.poll_answer().is_some() {}
    story.engine.handle_keeper_attached();
    assert_eq!(story.wanted(), Some(1));
}

#[test]
fn another_edition_is_started_as_often_as_the_one_before_serves() {
    let mut story = pooled(0, 5);
    let old = [story.attach(ECHO, 1), story.attach(ECHO, 1), story.attach(ECHO, 1)];
    assert_eq!(story.wanted(), Some(3));
    let next = FunctionSpec { edition: 7, ..pool_spec(0, 5) };
    let table = vec![Some(next), Some(spec("other"))];
    story.engine.handle_reconfigure(TenantSpec::only_default(), table).unwrap();
    let word = story.engine.poll_places(story.now).expect("it is said at once");
    assert_eq!((word.edition, word.count, word.leaving), (7, 3, None));
    // Expect: the first of the new ones sends the old ones away; the others are still to come.
    story.attach(ECHO, 1);
    assert_eq!(story.actions().len(), old.len());
    assert_eq!(story.pool(), PoolView { wanted: 3, starting: 2, ..story.pool() });
}

#[test]
fn other_bounds_are_in_force_at_once() {
    let mut story = pooled(0, 5);
    let workers = [story.attach(ECHO, 1), story.attach(ECHO, 1), story.attach(ECHO, 1)];
    story.places();
    let reconfigure = |story: &mut Story, echo| {
        let table = vec![Some(echo), Some(spec("other"))];
        story.engine.handle_reconfigure(TenantSpec::only_default(), table).unwrap();
        story.engine.invariants();
    };
    reconfigure(&mut story, pool_spec(0, 2));
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: workers[0] }]);
    assert_eq!(story.wanted(), Some(2));
    reconfigure(&mut story, pool_spec(4, 4));
    assert_eq!(story.wanted(), Some(4));
    // Without one, and with one again.
    reconfigure(&mut story, spec("echo"));
    story.call_many(10);
    assert_eq!(story.wanted(), None);
    reconfigure(&mut story, pool_spec(0, 3));
    assert_eq!(story.wanted(), Some(2), "those that serve");
}

#[test]
fn calls_of_a_function_that_is_removed_while_they_are_held_are_told() {
    let mut story = pooled(0, 5);
    story.call_many(2);
    story.places();
    let table = vec![None, Some(spec("other"))];
    story.engine.handle_reconfigure(TenantSpec::only_default(), table).unwrap();
    assert_eq!(story.places(), []);
    assert_eq!(story.answers(), [(Status::NoWorker, false); 2]);
    // When it comes back. Expect: as new.
    let table = vec![Some(pool_spec(0, 5)), Some(spec("other"))];
    story.engine.handle_reconfigure(TenantSpec::only_default(), table).unwrap();
    assert_eq!(story.wanted(), Some(0));
    story.call();
    assert_eq!(story.wanted(), Some(1));
}

#[test]
fn no_more_are_started_than_calls_may_run() {
    let policy = Policy { concurrency_max: Some(2), ..Policy::default() };
    let mut story = with_spec(FunctionSpec { policy, ..pool_spec(0, 8) });
    story.call_many(6);
    assert_eq!(story.wanted(), Some(2));
    story.attach(ECHO, 4);
    story.attach(ECHO, 4);
    assert_eq!(story.pushes().len(), 2);
    story.wait(Nanos::from_secs(1));
    assert_eq!(story.wanted(), None);
}

#[test]
fn a_nested_call_of_a_function_that_may_grow_waits_for_another_instance() {
    let mut story = pooled(0, 2);
    story.attach(ECHO, 1);
    story.call();
    let outer = story.push().expect("a worker is free");
    let inner = story.nested(ECHO, outer.invocation, 1);
    assert!(matches!(inner, Verdict::Admitted(_)), "{inner:?}");
    assert_eq!(story.wanted(), Some(2));
    // Expect: where none may be added, the call is told as ever.
    story.attach(ECHO, 1);
    let middle = story.push().expect("the new one is free");
    assert_eq!(story.nested(ECHO, middle.invocation, 2), refused(Status::WouldDeadlock));
}

#[test]
fn a_function_without_a_pool_is_no_matter_of_ours() {
    let mut story = Story::new();
    story.call();
    story.wait(Nanos::from_secs(1));
    assert_eq!(story.places(), []);
    story.engine.handle_keeper_attached();
    assert_eq!(story.places(), []);
}
