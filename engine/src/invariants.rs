//! What is always true of an engine, checked from scratch.
//!
//! Called after each step in tests, fuzzing and simulation. Proportional to everything there is: not for the hot path.

use std::collections::BTreeSet;

use queue::LaneIndex;

use crate::Engine;
use crate::counters::{COUNTER_TABLE, Counter};
use crate::held::slot_held;
use crate::invocation::{Invocation, InvocationId, Marks, State};
use crate::retry::ATTEMPTS_MAX;
use crate::timers::next_tick;
use crate::worker::{Worker, WorkerState};

/// Where the lists say that an invocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    InLane { function: u32, lane: u8 },
    HeldBy(u32),
}

impl Engine {
    /// Checks everything that is always true.
    ///
    /// # Panics
    /// If something is not: a bug of ours.
    pub fn invariants(&self) {
        self.invocations.invariants();
        self.ready.invariants(&self.functions);
        self.timers.invariants();
        let mut places = vec![Place::Nowhere; self.invocations.capacity() as usize];
        self.functions_invariants(&mut places);
        self.workers_invariants(&mut places);
        for (slot, place) in (0..).zip(&places) {
            self.invocation_invariants(slot, *place);
        }
        self.answers_invariants();
        self.gates_invariants();
        self.permits_invariants();
        self.joins_invariants();
        self.hedges_invariants();
        self.circles_invariants();
        self.reserve_invariants();
        self.pressure_invariants();
        self.pools_invariants();
        self.counters_invariants();
    }

    /// Lanes are sound and their calls queued for this function; the warm stack is exactly the workers with credit.
    fn functions_invariants(&self, places: &mut [Place]) {
        for (number, function) in (0..).zip(&self.functions) {
            function.queue.invariants(&self.run_links);
            for (lane, slot) in function.queue.iter(&self.run_links) {
                claim(places, slot, Place::InLane { function: number, lane: lane.index() as u8 });
            }
            assert!(function.queue.len() <= self.limits.invocations_max);
            function.aged.invariants(&self.aged_links);
            for slot in function.aged.iter(&self.aged_links) {
                assert!(
                    self.invocations.at(slot).marks.has(Marks::AGED),
                    "slot {slot} does not know that it has aged"
                );
                assert!(
                    matches!(places[slot as usize], Place::InLane { function, .. } if function == number)
                );
            }
            let depth = function.run_ahead.depth();
            assert!(
                !function.is_retired || function.spec.queue_count_max == 0,
                "function {number} admits calls"
            );
            let is_scheduled = |call: &Invocation| call.is_start_delayed() && call.function.0 == number;
            let scheduled = self.invocations.iter().filter(|(_, call)| is_scheduled(call));
            assert_eq!(
                scheduled.count() as u32,
                function.scheduled,
                "function {number}: calls to start later"
            );
            assert!(function.spec.payload_size_max <= function.payload_size_max_wanted, "function {number}");
            if self.names.iter().any(|(_, id)| id.0 == number) == function.is_retired {
                panic!("function {number} is retired: {}; and resolved", function.is_retired);
            }
            let serving = self.attached_workers().filter(|it| it.function.0 == number && it.serves());
            let editions: BTreeSet<u64> = serving.map(|worker| worker.edition).collect();
            assert!(
                editions.len() <= 1,
                "function {number}: workers of the editions {editions:?} take calls"
            );
            let (mut workers, mut open) = (0, 0);
            for worker in self.attached_workers().filter(|it| it.function.0 == number) {
                workers += 1;
                open += usize::from(worker.is_open(depth));
            }
            assert_eq!(workers, function.members.len(), "function {number}: workers");
            assert_eq!(open, function.warm.len(), "function {number}: open workers");
            for index in &function.warm {
                let worker = &self.workers[*index as usize];
                assert!(worker.is_open(depth), "function {number}: worker {index} is warm and not open");
                assert!(worker.is_warm, "worker {index} does not know that it is warm");
                assert_eq!(worker.function.0, number, "worker {index} is warm for another function");
            }
        }
    }

    /// Credits and held calls add up to the ring's slots, and the state fits what is held.
    fn workers_invariants(&self, places: &mut [Place]) {
        for (index, worker) in (0..).zip(&self.workers) {
            let held = worker.held.iter(index, &self.invocations).count();
            assert_eq!(worker.credits as usize + held, worker.slots as usize, "worker {index}: credits");
            assert_eq!(worker.leased > 0, worker.lease_count > 0, "worker {index}: leases");
            assert!(worker.lease_count <= self.limits.worker_leases_max);
            match worker.state {
                WorkerState::Busy | WorkerState::Draining => {
                    assert!(held > 0, "worker {index} holds nothing")
                }
                WorkerState::Stopping => {}
                _ => assert_eq!(held, 0, "worker {index} holds calls while {:?}", worker.state),
            }
            let is_waiting = worker.waits_in != InvocationId::NONE;
            let has_it = slot_held(worker.waits_in, index, &self.invocations).is_some();
            assert!(has_it || !is_waiting, "worker {index} waits in a call that it does not hold");
            assert!(self.held_look_at <= worker.look_at, "worker {index} is not looked at in time");
            for slot in worker.held.iter(index, &self.invocations) {
                claim(places, slot, Place::HeldBy(index));
            }
        }
        let leases: u32 = self.workers.iter().map(|worker| worker.lease_count).sum();
        assert_eq!(leases, self.lease_count, "leases");
        assert!(leases <= self.limits.leases_max);
        let vacant = self.workers.iter().filter(|it| it.state == WorkerState::Vacant).count();
        assert_eq!(vacant, self.workers_vacant.len(), "vacant workers");
        assert!(self.workers.len() <= self.limits.workers_max as usize);
    }

    /// Each invocation is in exactly the list that its state names, and has a timer exactly while it needs one.
    fn invocation_invariants(&self, slot: u32, place: Place) {
        let invocation = self.invocations.at(slot);
        let expected = match invocation.state {
            State::Queued => Place::InLane { function: invocation.function.0, lane: invocation.lane },
            state if state.is_held() => Place::HeldBy(invocation.worker),
            _ => Place::Nowhere,
        };
        assert_eq!(place, expected, "slot {slot} is {:?}", invocation.state);
        let has_place = place != Place::Nowhere && invocation.state != State::Pushed;
        let needs_timer = has_place || matches!(invocation.state, State::Delayed | State::Joined);
        // While it runs only a call that may be hedged has one, which has permits as all of its function.
        let may_have_one = invocation.state == State::Pushed && invocation.marks.has(Marks::PERMITTED);
        assert!(
            self.timers.is_armed(slot) == needs_timer || may_have_one,
            "timer of slot {slot}, {:?}",
            invocation.state
        );
        if invocation.state == State::Pushed {
            let look_at = self.workers[invocation.worker as usize].look_at;
            assert!(look_at <= next_tick(invocation.deadline_at), "slot {slot} is not looked at in time");
        }
        let is_aged = invocation.state == State::Queued && invocation.marks.has(Marks::AGED);
        let is_listed = slot < self.aged_links.capacity() && self.aged_links.is_linked(slot);
        assert_eq!(is_aged, is_listed, "slot {slot} is {:?}: aged", invocation.state);
        assert!((invocation.lane as usize) < LaneIndex::COUNT);
        assert!(invocation.attempts <= ATTEMPTS_MAX, "slot {slot} was tried too often");
    }

    /// One answer waits for each invocation that is `Answering`, and none for any other.
    fn answers_invariants(&self) {
        let mut has_answer = vec![false; self.invocations.capacity() as usize];
        for answer in &self.answers {
            let slot = answer.invocation.slot() as usize;
            assert_eq!(
                self.invocations.slot_of(answer.invocation),
                Some(slot as u32),
                "an answer outlived its call"
            );
            assert!(!has_answer[slot], "slot {slot} has two answers");
            has_answer[slot] = true;
        }
        for (slot, invocation) in self.invocations.iter() {
            let is_answering = matches!(invocation.state, State::Answering | State::AnsweringHeld);
            assert_eq!(is_answering, has_answer[slot as usize], "slot {slot} is {:?}", invocation.state);
        }
    }

    /// Every admitted call is answered, forgotten or still owed an answer.
    fn counters_invariants(&self) {
        let value = |counter| self.counters.value(counter);
        let unanswered = self.invocations.iter().filter(|(_, it)| it.state.is_unanswered()).count() as u64;
        // By their names, so that a new status is counted in as soon as it has a counter.
        let sum_of = |prefix: &str| -> u64 {
            let rows = COUNTER_TABLE.iter().filter(|row| row.name.starts_with(prefix));
            rows.map(|row| value(row.counter)).sum()
        };
        let ended = sum_of("answered_") + value(Counter::CallsForgotten);
        assert_eq!(value(Counter::CallsAdmitted), ended + unanswered, "admitted calls do not add up");
        let known = value(Counter::CallsAdmitted) + sum_of("refused_") + value(Counter::FallbacksAnswered);
        assert_eq!(value(Counter::CallsReceived), known, "calls do not add up");
    }

    fn attached_workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.state != WorkerState::Vacant)
    }
}

fn claim(places: &mut [Place], slot: u32, place: Place) {
    let old = std::mem::replace(&mut places[slot as usize], place);
    assert_eq!(old, Place::Nowhere, "slot {slot} is in two places");
}
