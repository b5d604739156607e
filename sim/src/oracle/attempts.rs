//! Who runs what for whom: second attempts, and calls that are the same.
//!
//! Always: calls with one key of one function are the same call; of those, one at most is in line or in a ring while its own
//! time lasts.

use super::{Call, CallKey, Oracle};
use crate::contract::{Broken, Contract};
use crate::shim::ProcessId;

impl Oracle {
    /// Another worker was given a call that one has already.
    pub fn hedged(
        &mut self,
        now_ns: u64,
        key: CallKey,
        twin: CallKey,
        process: ProcessId,
    ) -> Result<(), Broken> {
        let call = self.call(key, "hedged")?.clone();
        let holder = self.held.get(&key).copied();
        let is_due = self.owed.contains(&key) && !call.was_cancelled && now_ns < call.deadline_at_ns;
        let is_elsewhere = holder.is_some_and(|holder| holder != process);
        let is_idle = self.held_count(process) == 0;
        let has_one = self.twins.iter().any(|(twin, of)| *of == key && self.held.contains_key(twin));
        for (what, holds) in [
            ("a call that nobody waits for", is_due),
            ("a call that no other worker has", is_elsewhere),
            ("a call that must not run twice", call.is_idempotent),
            ("a worker that has something to do", is_idle),
            ("a call that has a second attempt", !has_one),
        ] {
            self.judge.check(Contract::Hedge, holds, || {
                format!("a second attempt at {key:?}, at {holder:?}, went to {process:?}: {what}")
            })?;
        }
        self.twins.insert(twin, key);
        self.held.insert(twin, process);
        self.calls.insert(twin, Call { key: None, has_begun: false, ..call });
        self.check_concurrency(twin)
    }

    /// The call that an attempt is made for: itself, for a first one.
    pub fn stands_for(&self, attempt: CallKey) -> CallKey {
        self.twins.get(&attempt).copied().unwrap_or(attempt)
    }

    /// What is in the ring of a process, and what that stands for.
    pub(super) fn calls_with(&self, process: ProcessId) -> Vec<CallKey> {
        let held = self.held.iter().filter(|(_, holder)| **holder == process).map(|(key, _)| *key);
        held.flat_map(|key| [key, self.stands_for(key)]).collect()
    }

    /// A worker has a call no more that may have to be run again.
    pub fn taken_back(&mut self, key: CallKey) {
        self.given_back(key);
        if self.calls.get(&key).is_some_and(|call| call.has_begun) {
            self.lost.insert(key);
        }
    }

    /// All that happened in a moment has been told.
    pub fn settled(&mut self) {
        self.lost.clear();
    }

    /// Whether anybody waits for the result of an attempt.
    pub fn is_wanted(&self, attempt: CallKey) -> bool {
        self.owed.contains(&self.stands_for(attempt)) || !self.joined_to(attempt).is_empty()
    }

    /// Who waits for the result of a call.
    pub fn joined_to(&self, leader: CallKey) -> Vec<CallKey> {
        let waits = self.aside.iter().filter(|(_, aside)| **aside == super::Aside::Joined(leader));
        waits.map(|(key, _)| *key).collect()
    }

    /// Calls of a router that are the same as this one.
    fn same<'a>(&'a self, key: CallKey, call: &'a Call) -> impl Iterator<Item = (CallKey, &'a Call)> {
        let is_same = move |other: CallKey, it: &Call| {
            (it.key, it.function, other.epoch, other.shard())
                == (call.key, call.function, key.epoch, key.shard())
        };
        let others = self.calls.iter().map(|(other, it)| (*other, it));
        others.filter(move |(other, it)| call.key.is_some() && is_same(*other, it))
    }

    /// The call which another one with its key, that comes now, has to join.
    pub fn joinable(&self, now_ns: u64, epoch: u32, shard: u8, function: u32, key: u64) -> Option<CallKey> {
        let is_it = |it: &CallKey, call: &Call| {
            let is_same =
                (it.epoch, it.shard(), call.function, call.key) == (epoch, shard, function, Some(key));
            let is_owed = self.owed.contains(it) && !call.was_cancelled;
            let is_run_for_others = self.held.contains_key(it) && !self.joined_to(*it).is_empty();
            is_same && now_ns < call.deadline_at_ns && (is_owed || is_run_for_others)
        };
        let candidates = self.calls.iter().filter(|(it, call)| is_it(it, call)).map(|(it, _)| *it);
        let leads =
            |it: &CallKey| !self.aside.get(it).is_some_and(|aside| matches!(aside, super::Aside::Joined(_)));
        candidates.into_iter().find(leads)
    }

    /// A call is given to a worker: is the same call there already, in its time?
    pub(super) fn check_one_run(&self, now_ns: u64, key: CallKey, call: &Call) -> Result<(), Broken> {
        for (other_key, other) in self.same(key, call).filter(|(other, _)| *other != key) {
            let is_there = self.waiting.contains(&other_key) || self.held.contains_key(&other_key);
            let is_its = self.owed.contains(&other_key) && !other.was_cancelled;
            let is_over = !is_there || !is_its || now_ns >= other.deadline_at_ns;
            self.judge.check(Contract::OneRun, is_over, || {
                format!("{key:?} was pushed, and {other_key:?} is the same call")
            })?;
        }
        Ok(())
    }

    /// A call with what happened to all runs that were made for it.
    pub(super) fn run_of(&self, key: CallKey, call: &Call) -> Call {
        let mut run = call.clone();
        for (_, other) in self.same(key, call).filter(|(other, _)| *other != key) {
            run.start_count += other.start_count;
            run.take_count += other.take_count;
            run.holder_died |= other.holder_died;
            run.holder_scribbled |= other.holder_scribbled;
        }
        run
    }
}
