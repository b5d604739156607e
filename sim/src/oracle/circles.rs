//! Who waits for whom: calls that running calls have made, and circles of them.
//!
//! In: the workers that a router sees, and which call of which worker waits for which other call.  Out: whether a call that
//! is about to be made would wait for nobody but those that wait for it.

use std::collections::BTreeSet;

use super::{CallKey, Oracle};
use crate::contract::{Broken, Contract};
use crate::shim::ProcessId;

/// Between two looks for circles: `engine/src/circles.rs`.
const LOOK_PERIOD_NS: u64 = 10_000_000;

/// What a router has for a function: its processes.
pub type Members<'a> = &'a dyn Fn(u32) -> Vec<ProcessId>;

impl Oracle {
    /// Every process of a function runs a call that the new one would be nested in: it can only be refused.
    pub fn waits_for_itself(&self, function: u32, caller: CallKey, members: Members<'_>) -> bool {
        let chain: Vec<_> = self.chain(caller).collect();
        let runs_one = |process: &ProcessId| chain.iter().any(|key| self.held.get(key) == Some(process));
        let processes = members(function);
        !processes.is_empty() && processes.iter().all(runs_one)
    }

    /// Somebody still waits for a call, and for each that it was made by.
    pub fn is_worth_it(&self, now_ns: u64, caller: CallKey) -> bool {
        self.chain(caller).all(|key| {
            let call = &self.calls[&key];
            self.owed.contains(&key) && !call.was_cancelled && now_ns < call.deadline_at_ns
        })
    }

    /// A call and those that it is nested in, from the inside out.
    fn chain(&self, innermost: CallKey) -> impl Iterator<Item = CallKey> + '_ {
        std::iter::successors(Some(innermost), |key| self.calls[key].made_by)
    }

    /// No process of a function will be free before somebody's time is over, if the caller waits for it too.
    pub fn waits_in_a_circle(&self, function: u32, caller: CallKey, members: Members<'_>) -> bool {
        let Some(waiting_process) = self.held.get(&caller).copied() else { return false };
        let processes = members(function);
        let goes_on = self.going_on(waiting_process, function, members);
        !processes.is_empty() && processes.iter().all(|process| !goes_on.contains(process))
    }

    /// Processes that will be free again: grown from those that wait for nothing, until nothing changes.
    fn going_on(&self, waiting: ProcessId, wanted: u32, members: Members<'_>) -> BTreeSet<ProcessId> {
        let functions: BTreeSet<u32> =
            self.calls.values().map(|call| call.function).chain([wanted]).collect();
        let all: BTreeSet<_> = functions.iter().flat_map(|function| members(*function)).collect();
        let mut goes_on = BTreeSet::new();
        loop {
            let has_one = |function: u32| {
                let processes = members(function);
                processes.is_empty() || processes.iter().any(|process| goes_on.contains(process))
            };
            let ends = |made: &CallKey| match self.held.get(made) {
                Some(process) => goes_on.contains(process),
                // What stands aside is moved by time.
                None => self.aside.contains_key(made) || has_one(self.calls[made].function),
            };
            let is_free = |process: &ProcessId| {
                let waits_for_wanted = *process != waiting || has_one(wanted);
                waits_for_wanted && self.made_from(*process).iter().all(ends)
            };
            let more: Vec<_> =
                all.iter().copied().filter(|it| !goes_on.contains(it) && is_free(it)).collect();
            if more.is_empty() {
                return goes_on;
            }
            goes_on.extend(more);
        }
    }

    /// After a turn of this shard: does anybody wait in a circle for longer than between two looks, though nobody was told?
    pub fn check_circles(&mut self, now_ns: u64, shard: u8, members: Members<'_>) -> Result<(), Broken> {
        let waits = |key: &CallKey| key.shard() == shard && self.waiting.contains(key);
        let nested: Vec<_> = self.owed.iter().copied().filter(|key| waits(key)).collect();
        for key in nested {
            let call = &self.calls[&key];
            let (made_by, function) = (call.made_by, call.function);
            let is_stuck = made_by.is_some_and(|caller| self.waits_in_a_circle(function, caller, members));
            if !is_stuck {
                self.stuck_at_ns.remove(&key);
                continue;
            }
            let since_ns = *self.stuck_at_ns.entry(key).or_insert(now_ns);
            self.judge.check(Contract::Nested, now_ns < since_ns + LOOK_PERIOD_NS, || {
                let length_us = (now_ns - since_ns) / 1_000;
                format!("{key:?} waits in a circle for {length_us} us, and nobody in it is told")
            })?;
        }
        Ok(())
    }

    /// A call that waited is told that it would for ever. Is it so? Whoever else waits in the same circle may go on now.
    pub fn check_told(&mut self, key: CallKey, members: Members<'_>) -> Result<(), Broken> {
        self.stuck_at_ns.clear();
        let call = self.call(key, "told")?.clone();
        let is_right = call.made_by.is_some_and(|caller| {
            self.waiting.contains(&key) && self.waits_in_a_circle(call.function, caller, members)
        });
        self.judge.check(Contract::Nested, is_right, || {
            format!("{key:?} was told that it waits in a circle, and there is none")
        })
    }

    /// Calls that runs of this process have made and still wait for.
    fn made_from(&self, process: ProcessId) -> Vec<CallKey> {
        let is_its = |maker: CallKey| self.held.get(&maker) == Some(&process);
        let made = self.owed.iter().filter(|key| self.calls[key].made_by.is_some_and(is_its));
        made.copied().collect()
    }
}
