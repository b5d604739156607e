use super::*;

const ANYBODY: fn(WorkerId) -> bool = |_| true;

impl Story {
    fn lease(&mut self, slots: u32) -> Result<Lease, LeaseRefused> {
        let lease = self.engine.lease(ECHO, slots, ANYBODY);
        self.engine.invariants();
        lease
    }

    fn end(&mut self, lease: Lease) {
        self.engine.end_lease(lease);
        self.engine.invariants();
    }

    fn credits(&self, worker: WorkerId) -> u32 {
        self.engine.worker_view(worker).expect("it is attached").credits
    }
}

fn small(limits: Limits) -> Story {
    Story::with(limits, vec![spec("echo"), spec("other")])
}

#[test]
fn a_lease_takes_its_credits_from_the_workers_and_gives_them_back() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let lease = story.lease(4).expect("there is plenty");
    assert_eq!((lease.worker, lease.slots, lease.timeout), (worker, 4, Nanos::from_secs(30)));
    assert_eq!(story.credits(worker), 4);

    // Expect: the worker is given as many calls as it has slots, counting both ways.
    story.call_many(8);
    assert_eq!(story.pushes().len(), 4);
    story.end(lease);
    assert_eq!(story.pushes().len(), 4);
}

#[test]
fn a_lease_is_a_power_of_two_and_leaves_a_credit() {
    let check = |slots, wanted, expected: Option<u32>| {
        let mut story = small(Limits { lease_slots_max: 16, ..Limits::default() });
        story.attach(ECHO, slots);
        assert_eq!(story.lease(wanted).ok().map(|lease| lease.slots), expected, "{wanted} of {slots}");
    };
    check(1, 1, None);
    check(2, 1, Some(1));
    check(2, 8, Some(1));
    check(8, 8, Some(4));
    check(8, 0, Some(1));
    check(64, 7, Some(4));
    check(64, u32::MAX, Some(16));
}

#[test]
fn the_worker_with_most_credits_among_the_able_is_chosen() {
    let mut story = Story::new();
    let first = story.attach(ECHO, 8);
    let second = story.attach(ECHO, 64);
    let other = story.attach(OTHER, 64);
    assert_eq!(story.lease(4).expect("lent").worker, second);
    let able = story.engine.lease(ECHO, 4, |worker| worker == first).expect("lent");
    assert_eq!(able.worker, first);
    assert_eq!(story.engine.lease(ECHO, 4, |worker| worker == other), Err(LeaseRefused::NoWorker));
}

#[test]
fn a_function_with_policies_is_not_leased() {
    let policy = Policy { rate: Some(Rate { per_second: 1, burst: 1 }), ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.attach(ECHO, 8);
    assert_eq!(story.lease(4), Err(LeaseRefused::Governed));
}

#[test]
fn every_reason_not_to_lend_is_told() {
    let mut story = Story::new();
    assert_eq!(story.lease(4), Err(LeaseRefused::NoWorker));
    story.call();
    assert_eq!(story.lease(4), Err(LeaseRefused::Busy { queued: 1 }));
    let unknown = FunctionId(9);
    assert_eq!(story.engine.lease(unknown, 4, ANYBODY), Err(LeaseRefused::UnknownFunction(unknown)));
    story.engine.handle_drain();
    assert_eq!(story.lease(4), Err(LeaseRefused::Draining));
    assert_eq!(story.count(Counter::LeasesRefused), 4);
}

#[test]
fn leases_beyond_a_workers_limit_are_refused_until_one_ends() {
    let mut story = small(Limits { worker_leases_max: 2, ..Limits::default() });
    story.attach(ECHO, 64);
    let first = story.lease(1).expect("lent");
    let _second = story.lease(1).expect("lent");
    assert_eq!(story.lease(1), Err(LeaseRefused::LeasesFull));
    story.end(first);
    assert!(story.lease(1).is_ok());
}

#[test]
fn leases_beyond_the_shards_limit_are_refused_until_one_ends() {
    let mut story = small(Limits { leases_max: 2, ..Limits::default() });
    story.attach(ECHO, 64);
    story.attach(ECHO, 64);
    let first = story.lease(1).expect("lent");
    let _second = story.lease(1).expect("lent");
    assert_eq!(story.lease(1), Err(LeaseRefused::LeasesFull));
    story.end(first);
    assert!(story.lease(1).is_ok());
}

#[test]
fn a_worker_whose_last_credit_was_used_is_open_again_when_a_lease_ends() {
    let mut story = Story::new();
    story.attach(ECHO, 2);
    let lease = story.lease(1).expect("lent");
    story.call_many(2);
    assert_eq!(story.pushes().len(), 1);
    story.end(lease);
    assert_eq!(story.pushes().len(), 1);
}

#[test]
fn a_lease_ends_with_its_worker_and_ending_it_again_does_nothing() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let lease = story.lease(4).expect("lent");
    story.lose(worker, NOT_STARTED);
    assert_eq!(story.engine.recall(story.now, &lease), Some(Recall::WorkerLost));
    let heir = story.attach(ECHO, 8);
    assert_eq!(heir.index, worker.index);
    story.end(lease);
    assert_eq!(story.credits(heir), 8);
}

#[test]
fn a_quarantined_worker_has_no_leases_left() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let lease = story.lease(4).expect("lent");
    story.engine.handle_worker_misbehaved(story.now, worker);
    story.engine.invariants();
    assert_eq!(story.engine.recall(story.now, &lease), Some(Recall::WorkerLeaving));
    story.end(lease);
}

#[test]
fn a_lease_is_recalled_when_its_worker_or_the_router_drains() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let lease = story.lease(4).expect("lent");
    assert_eq!(story.engine.recall(story.now, &lease), None);
    story.engine.handle_drain();
    assert_eq!(story.engine.recall(story.now, &lease), Some(Recall::Draining));
    story.engine.handle_worker_draining(worker);
    story.engine.invariants();
    assert_eq!(story.engine.recall(story.now, &lease), Some(Recall::WorkerLeaving));
    assert_eq!(story.actions(), [WorkerAction::Stop { worker }]);
}

#[test]
fn a_lease_is_recalled_when_others_have_waited_too_long() {
    let mut story = small(Limits { lease_queue_wait_max: Nanos::from_ms(5), ..Limits::default() });
    story.attach(ECHO, 2);
    let lease = story.lease(1).expect("lent");
    story.call_many(2);
    story.pushes();
    assert_eq!(story.engine.recall(story.now, &lease), None, "one waits, but not for long");
    story.pass(Nanos::from_ms(6), NOT_STARTED);
    assert_eq!(story.engine.recall(story.now, &lease), Some(Recall::OthersWait));
}

#[test]
fn a_worker_that_overstays_in_a_lane_is_killed_though_its_ring_is_empty() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let _lease = story.lease(4).expect("lent");
    story.engine.handle_lease_overstayed(worker);
    story.engine.handle_lease_overstayed(worker);
    let kill = WorkerAction::Kill { worker, reason: KillReason::Overstayed };
    assert_eq!(story.actions(), [kill]);
    story.call();
    assert_eq!(story.push(), None, "it gets nothing new");
}

#[test]
fn a_worker_busy_with_a_lane_is_not_held_for_stalled() {
    // Given: an expired call in the ring of a worker that runs a long call of a lane.
    let mut story = small(Limits { kill_grace: Nanos::from_secs(1), ..Limits::default() });
    let worker = story.attach(ECHO, 8);
    let _lease = story.lease(4).expect("lent");
    story.admit(Request { budget_us: 1000, ..request() });
    story.push().expect("a credit");
    for _ in 0..50 {
        story.engine.handle_lease_progress(story.now, worker);
        story.pass(Nanos::from_ms(100), NOT_STARTED);
    }
    assert_eq!(story.count(Counter::WorkersStalled), 0);
    // Expect: the call in its ring is answered all the same, and once the lane stands still the worker is killed.
    assert_eq!(story.answers().len(), 1);
    for _ in 0..50 {
        story.pass(Nanos::from_ms(100), NOT_STARTED);
    }
    assert_eq!(story.count(Counter::WorkersStalled), 1);
}

#[test]
fn a_worker_that_keeps_a_lane_because_it_runs_a_call_of_its_ring_is_let_be() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let _lease = story.lease(4).expect("lent");
    story.call();
    story.push().expect("a credit");
    story.engine.handle_lease_kept(worker, &HAS_STARTED);
    assert_eq!(story.actions(), []);
    // Expect: one that has begun nothing stands still.
    story.engine.handle_lease_kept(worker, &NOT_STARTED);
    let kill = WorkerAction::Kill { worker, reason: KillReason::Stalled };
    assert_eq!(story.actions(), [kill]);
}
