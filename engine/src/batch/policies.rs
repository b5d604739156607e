//! Stages 2 and 4 of 8 for a batch of a function with policies: each of them is asked once for how many calls it has room.
//!
//! ```text
//!   ask_policies ─▶ room for n calls, their places taken ─▶ pushes ─▶ settle: what was used is counted, the rest given back
//! ```
//! In: a function with policies and a worker with room.  Out: for how many of the calls all policies say yes; 0 where one of them
//! has to look at each call, or says no: who is refused, and why, is told when it is asked for alone (`admission/policy.rs`,
//! `permits.rs`).
//! Always: a yes to `n` is what `n` calls would have heard one after the other, at the same time; `tests/batch.rs` holds the two
//! together.
//! Always: places of the ledger, which other shards use too, are taken beforehand, so that no bound is ever passed. Those that are not
//! used are back within the turn; another shard that found none meanwhile asks again, as always.

use protocol::FunctionId;

use crate::Engine;
use crate::function::Function;
use crate::permits::Permits;
use crate::policy::{Checks, Quota};
use crate::run_queue::ReadyFunctions;
use crate::time::Nanos;
use crate::worker::Worker;

/// Calls for which policies are asked at once: twice what comes out of a client's ring at a time, and few enough that another
/// shard does not miss the places.
const ROOM_MAX: u32 = 64;

/// These have to look at each call: what is downstream may push back from one call to the next, a hedge is timed for each call, each
/// caller has a rate of its own, each call may be the first after an idle time, and a removed function takes none.
const LOOK_AT_EACH: Checks = Checks::BACKPRESSURE
    .with(Checks::HEDGE, true)
    .with(Checks::CALLER_RATE, true)
    .with(Checks::LEARNING, true)
    .with(Checks::RETIRED, true);

/// What is settled when a batch of a function with policies closes.
pub(super) struct SetAside<'a> {
    pub permits: &'a mut Permits,
    pub ready: &'a mut ReadyFunctions,
    /// For how many calls.
    pub room: u32,
}

impl Engine {
    /// For how many of `room` calls every policy of the function has room.
    #[inline(never)]
    pub(super) fn ask_policies(&mut self, now: Nanos, number: FunctionId, worker: u32, room: u32) -> u32 {
        let function = &mut self.functions[number.0 as usize];
        let checks = function.checks;
        let is_opportunistic = function.spec.policy.quota == Quota::Opportunistic;
        let has_trouble = function.breaker.as_ref().is_some_and(|breaker| !breaker.is_closed());
        if checks.has(LOOK_AT_EACH) || is_opportunistic || has_trouble {
            return 0;
        }
        let room = room.min(ROOM_MAX);
        let room = function.canary.as_ref().map_or(room, |canary| canary.room(room));
        let room = function.ramp.as_mut().map_or(room, |ramp| ramp.room(now, room));
        let room = function.rate.as_ref().map_or(room, |rate| rate.room(now, room));
        let tenant = self.permits.tenant_mut(function.spec.tenant);
        let room = tenant.rate.as_ref().map_or(room, |rate| rate.room(now, room));
        if room == 0 || !checks.any_at_dispatch() {
            return room;
        }
        let has_place = self.workers[worker as usize].has_place || !self.permits.is_full(&self.limits);
        if !has_place || !self.ready.is_empty() {
            return 0;
        }
        self.permits.take_places(number.0, function, room)
    }
}

impl SetAside<'_> {
    /// So many of the calls were pushed: counts them, and gives back what was taken for the others.
    #[inline(never)]
    pub(super) fn settle(
        self,
        now: Nanos,
        number: FunctionId,
        function: &mut Function,
        worker: &mut Worker,
        count: u32,
    ) {
        let is_limited = function.checks.any_at_dispatch();
        if is_limited {
            self.permits.give_places(number.0, function, self.room - count);
        }
        if count == 0 {
            return;
        }
        let tenant = self.permits.tenant_mut(function.spec.tenant);
        for bucket in [&mut function.rate, &mut tenant.rate].into_iter().flatten() {
            bucket.take_many(now, count);
        }
        if let Some(ramp) = &mut function.ramp {
            ramp.take_many(now, count);
        }
        if let Some(canary) = &mut function.canary {
            canary.take_many(count);
        }
        if is_limited {
            self.permits.note_busy(now, worker);
            let cost_ns = function.charge(count);
            self.ready.charge(function.spec.tenant, cost_ns as i64);
        }
    }
}

impl Function {
    /// Whether the end of each run has to be told alone.
    #[inline]
    pub(super) fn has_to_see_each_result(&self) -> bool {
        self.checks.has(Checks::JOINED.with(Checks::HEDGE, true))
            || self.breaker.as_ref().is_some_and(|breaker| !breaker.is_closed())
    }

    /// So many runs ended well.
    #[inline]
    pub(super) fn note_results(&mut self, now: Nanos, count: u32) {
        if let Some(breaker) = &mut self.breaker {
            breaker.note_well(now, count);
        }
    }
}
