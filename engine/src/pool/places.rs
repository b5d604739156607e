//! The pools of all functions: which are to be looked at, and what the shim is told.
//!
//! ```text
//!   calls that nobody can take ─┐
//!   an instance came or went ───┼─▶ noted ─┐
//!   another configuration ──────┘          ├─▶ look ─▶ poll_places: so many, and this one ends
//!   something is due ──────────────────────┘
//! ```
//! In: notes that something changed for a function, and the time.  Out: [`PlacesWanted`] for the shim; `WorkerAction::Stop` for an
//! instance that is sent away, in the same turn and after the word to the shim, which so knows why the process ends.
//! Always: an instance that is sent away holds no call, and gets none from that moment on: a call that comes then waits, and
//! asks for another one.
//! Always: calls of a function whose processes die as they are started are not held for a start that does not come: they end as
//! `NoWorker`.
//! Never: does anything for a function that is to have the same number of instances whatever happens: it has no pool.

use std::collections::VecDeque;

use protocol::FunctionId;

use super::{Demand, Pool, StartedFor};
use crate::Engine;
use crate::admission::Refusal;
use crate::counters::Counter;
use crate::function::Function;
use crate::reply::Ending;
use crate::time::Nanos;
use crate::worker::{Worker, WorkerId, WorkerState};

/// So many instances of a function are to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacesWanted {
    /// Which function.
    pub function: FunctionId,
    /// Which edition of it.
    pub edition: u64,
    /// How many.
    pub count: u32,
    /// The one that is sent away and is not among them.
    pub leaving: Option<WorkerId>,
}

/// The pools as a whole.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Functions that have one, or had.
    members: Vec<u32>,
    /// Those of them that are to be looked at.
    noted: Vec<u32>,
    /// The earliest `look_at` of them, or earlier.
    look_at: Nanos,
    /// What the shim is to be told.
    words: VecDeque<PlacesWanted>,
}

impl Pools {
    pub fn new() -> Pools {
        Pools { members: Vec::new(), noted: Vec::new(), look_at: Nanos::NEVER, words: VecDeque::new() }
    }

    /// When there is something to look at.
    pub fn next(&self) -> Option<Nanos> {
        if !self.noted.is_empty() || !self.words.is_empty() {
            return Some(Nanos::ZERO);
        }
        (self.look_at != Nanos::NEVER).then_some(self.look_at)
    }

    /// Nothing waits to be polled.
    pub fn is_quiet(&self) -> bool {
        self.words.is_empty()
    }
}

impl Function {
    /// Whether it can have more instances than there are, so that who waits for one waits for no other call.
    pub(crate) fn may_grow(&self) -> bool {
        let room = self.pool.as_ref().is_some_and(|pool| (self.members.len() as u32) < pool.spec.max);
        room && !self.is_failing && !self.is_retired
    }
}

impl Engine {
    /// What the shim is to be told next of how many instances to keep. Called once a turn until there is nothing, after
    /// `poll_push` and before `poll_worker_action`; `next_timer` says when it is needed.
    #[inline]
    pub fn poll_places(&mut self, now: Nanos) -> Option<PlacesWanted> {
        if !self.pools.noted.is_empty() || now >= self.pools.look_at {
            self.look_at_pools(now);
        }
        self.pools.words.pop_front()
    }

    /// Another keeper of processes is there, which knows nothing of what was asked for before.
    pub fn handle_keeper_attached(&mut self) {
        for position in 0..self.pools.members.len() {
            let number = self.pools.members[position];
            if let Some(pool) = &mut self.functions[number as usize].pool {
                pool.count_anew();
                self.note_pool(number);
            }
        }
    }

    /// An instance of the edition in force attached.
    pub(crate) fn note_start(&mut self, now: Nanos, number: u32) {
        let is_first = self.serving_in_force(number) == 1;
        let function = &mut self.functions[number as usize];
        let Some(pool) = &mut function.pool else { return };
        match pool.on_attached(now, !function.queue.is_empty()) {
            Some(StartedFor::Waiting) => {
                self.counters.count(Counter::ColdStarts);
                let held = if is_first { function.queue.len() } else { 0 };
                pool.calls_held += u64::from(held);
                self.counters.add(Counter::CallsHeldForStart, held.into());
            }
            Some(StartedFor::Expected) => self.counters.count(Counter::InstancesPrewarmed),
            None => {}
        }
        self.note_pool(number);
    }

    /// An instance is gone. `was_wanted`: nobody had told it to end.
    pub(crate) fn note_loss(&mut self, now: Nanos, number: u32, was_wanted: bool) {
        if let Some(pool) = &mut self.functions[number as usize].pool {
            if was_wanted {
                pool.on_lost(now);
            }
            self.note_pool(number);
        }
    }

    /// Calls of a function wait and nobody can take them. If that may be for want of an instance, it is looked at.
    #[cold]
    pub(crate) fn note_unserved(&mut self, number: u32) {
        let function = &self.functions[number as usize];
        let Some(pool) = &function.pool else { return };
        let may_help = pool.wanted < pool.spec.max || function.members.is_empty();
        if may_help && function.gate.is_none() {
            self.note_pool(number);
        }
    }

    /// Something changed for the instances of a function, if it has a pool.
    #[cold]
    pub(crate) fn note_pool(&mut self, number: u32) {
        if let Some(pool) = &mut self.functions[number as usize].pool
            && !pool.is_noted
        {
            pool.is_noted = true;
            self.pools.noted.push(number);
        }
    }

    /// A function is there that may have a pool, or goes on with another specification or edition.
    pub(crate) fn set_pool(&mut self, number: u32, is_other_edition: bool) {
        let function = &mut self.functions[number as usize];
        let pool = match (function.spec.pool, function.pool.take()) {
            (None, _) => return,
            (Some(spec), None) => {
                if !self.pools.members.contains(&number) {
                    self.pools.members.push(number);
                }
                (Box::new(Pool::new(spec)), true)
            }
            (Some(spec), Some(mut pool)) => {
                pool.respecify(spec);
                (pool, is_other_edition)
            }
        };
        let (mut pool, is_new) = pool;
        if is_new {
            // Those of another edition are replaced by as many, and what calls need beyond that they ask for.
            let serves = |index: &&u32| self.workers[**index as usize].serves();
            pool.begin_anew(function.members.iter().filter(serves).count() as u32);
        }
        // It may stand in the list from before its pool was taken from it.
        pool.is_noted = self.pools.noted.contains(&number);
        function.pool = Some(pool);
        self.note_pool(number);
    }

    /// Instances of the edition in force that are given calls.
    fn serving_in_force(&self, number: u32) -> u32 {
        let function = &self.functions[number as usize];
        let serves = |worker: &&Worker| worker.serves() && worker.edition == function.spec.edition;
        function.members.iter().map(|index| &self.workers[*index as usize]).filter(serves).count() as u32
    }

    #[cold]
    fn look_at_pools(&mut self, now: Nanos) {
        while let Some(number) = self.pools.noted.pop() {
            self.look_at_pool(now, number);
        }
        if now >= self.pools.look_at {
            self.pools.look_at = Nanos::NEVER;
            for position in 0..self.pools.members.len() {
                let number = self.pools.members[position];
                let Some(pool) = &self.functions[number as usize].pool else { continue };
                if now >= pool.look_at {
                    self.look_at_pool(now, number);
                } else {
                    self.pools.look_at = self.pools.look_at.min(pool.look_at);
                }
            }
        }
    }

    fn look_at_pool(&mut self, now: Nanos, number: u32) {
        let function = &mut self.functions[number as usize];
        let Some(pool) = &mut function.pool else { return };
        pool.is_noted = false;
        if function.members.is_empty() && (function.is_failing || function.is_retired) {
            self.end_waiting(now, number);
        }
        let demand = self.demand(number);
        let function = &mut self.functions[number as usize];
        if function.is_retired {
            // Its processes go with it.
            function.pool.iter_mut().for_each(|pool| pool.look_at = Nanos::NEVER);
            return;
        }
        let Some(pool) = &mut function.pool else { return };
        let more = pool.grow(now, &demand, self.limits.pool_starts_max);
        if pool.wanted == 0 {
            // Whoever calls next may find it mended.
            function.is_failing = false;
        }
        self.counters.add(Counter::InstancesAskedFor, more.into());
        let releases_at = self.release_idle(now, number, demand.serving);
        let function = &mut self.functions[number as usize];
        let Some(pool) = &mut function.pool else { return };
        let grows_at = pool.grows_at(now, &demand);
        // Never in the past: whatever is due was done.
        pool.look_at = grows_at.min(releases_at).max(now.plus(Nanos(1)));
        self.pools.look_at = self.pools.look_at.min(pool.look_at);
        let word = (function.spec.edition, pool.wanted);
        if pool.told != Some(word) {
            pool.told = Some(word);
            self.say(number, None);
        }
    }

    /// What is known of a function, as far as it matters for the number of its instances.
    fn demand(&self, number: u32) -> Demand {
        let function = &self.functions[number as usize];
        let members = || function.members.iter().map(|index| &self.workers[*index as usize]);
        let is_held_up = |worker: &&Worker| worker.waits_in != crate::InvocationId::NONE;
        let view = function.view(&self.invocations, &self.workers);
        // What a limit holds back would not go on with another instance either.
        let waits_for_instance = function.gate.is_none() && function.ready_lane.is_none();
        // Calls wait though these are free: they are kept for calls that are nested deeper.
        let kept = if waits_for_instance { function.warm.len() } else { 0 };
        let held_up = members().filter(|worker| worker.serves()).filter(is_held_up).count();
        Demand {
            serving: self.serving_in_force(number),
            held_up: (held_up + kept) as u32,
            running: members()
                .filter(|worker| worker.serves() && !is_held_up(worker))
                .map(Worker::held_count)
                .sum(),
            queued: if waits_for_instance { function.queue.len() } else { 0 },
            oldest_at: view.oldest_at,
            run: function.run_ahead.mean(),
            useful_max: function.spec.policy.concurrency_max.unwrap_or(u32::MAX),
            is_failing: function.is_failing,
        }
    }

    /// Sends away what has had nothing to do for too long, the coldest first. When the next one may have to go.
    fn release_idle(&mut self, now: Nanos, number: u32, mut serving: u32) -> Nanos {
        loop {
            let function = &self.functions[number as usize];
            let Some(pool) = function.pool.as_ref().filter(|pool| serving > pool.spec.min) else {
                return Nanos::NEVER;
            };
            let serves = |index: &&u32| {
                let worker = &self.workers[**index as usize];
                worker.serves() && worker.edition == function.spec.edition
            };
            let is_idle = |index: &u32| {
                let worker = &self.workers[*index as usize];
                // A lane's client calls past the engine: as long as it has the lane, nobody knows.
                worker.state == WorkerState::Idle && worker.lease_count == 0
            };
            let since = |index: &u32| self.workers[*index as usize].progress_at;
            let idle = || function.members.iter().copied().filter(|index| serves(&index) && is_idle(index));
            let looks_again_at = pool.looks_again_at(now);
            let Some(coldest) = idle().min_by_key(since) else {
                // Who is busy now has its whole time before it.
                return looks_again_at;
            };
            let (idle_since, last_end) = (since(&coldest), self.last_end(number));
            let worker = &self.workers[coldest as usize];
            let leaving = WorkerId { index: coldest, generation: worker.generation };
            let function = &mut self.functions[number as usize];
            let Some(pool) = &mut function.pool else { return Nanos::NEVER };
            let plan = pool.plan(idle_since, last_end, serving == 1);
            if now < plan.release_at {
                return if last_end.is_none() {
                    plan.release_at.min(looks_again_at)
                } else {
                    plan.release_at
                };
            }
            serving -= 1;
            pool.on_released(plan, serving == 0);
            pool.told = Some((function.spec.edition, pool.wanted));
            self.counters.count(Counter::InstancesReleased);
            self.say(number, Some(leaving));
            self.drain_worker(coldest);
        }
    }

    /// Tells the shim how many there are to be.
    fn say(&mut self, number: u32, leaving: Option<WorkerId>) {
        let function = &self.functions[number as usize];
        if let Some(pool) = &function.pool {
            let (edition, count) = (function.spec.edition, pool.wanted);
            self.pools.words.push_back(PlacesWanted {
                function: FunctionId(number),
                edition,
                count,
                leaving,
            });
        }
    }

    /// Nobody will come for the calls that wait.
    fn end_waiting(&mut self, now: Nanos, number: u32) {
        while let Some((_, slot)) = self.functions[number as usize].queue.peek() {
            self.end_queued(now, slot, Ending::Refused(Refusal::NoWorker));
        }
    }

    /// Pools are within their bounds, and looked at in time.
    pub(crate) fn pools_invariants(&self) {
        for (number, function) in (0..).zip(&self.functions) {
            let Some(pool) = &function.pool else { continue };
            assert!(self.pools.members.contains(&number), "function {number} has a pool that nobody knows");
            assert_eq!(pool.is_noted, self.pools.noted.contains(&number), "function {number}: noted");
            assert!(self.pools.look_at <= pool.look_at, "function {number} is not looked at in time");
            pool.invariants(number, self.limits.pool_starts_max);
        }
    }
}
