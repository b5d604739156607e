//! How many processes a function has where that follows its calls: what the router tells the shim, and what is held of it.
//!
//! Always: a word reaches the shim after the turn in which it was said, and before the shim sees who ended, as over the socket.
//! Always: what a new shim or a new router is told first, what it was told before is forgotten.

use std::collections::{BTreeMap, VecDeque};

use engine::{PoolSpec, WorkerState};

use super::World;
use crate::contract::{Broken, Contract};
use crate::oracle::CallKey;
use crate::shim::{Keeper, ProcessId};

/// Instances of a function that may be started at once because calls wait; the engine's limit.
const STARTS_MAX: u32 = 8;

/// What is known of all functions with a pool. There is one shard.
#[derive(Debug, Default)]
pub(super) struct Pools {
    /// By function, how many were last said to be wanted, since the router and the shim know each other.
    told: BTreeMap<u32, u32>,
    /// On its way to the shim: a function, how many, and who is told to end.
    words: VecDeque<(u32, u32, Option<ProcessId>)>,
    /// By process, when it attached or gave its last call back.
    used_at_ns: BTreeMap<ProcessId, u64>,
}

impl World {
    fn pool_of(&self, number: u32) -> Option<PoolSpec> {
        self.functions[number as usize].spec.pool
    }

    /// Places of a function with which a shim begins.
    pub(super) fn places_at_first(&self, number: u32) -> u32 {
        self.pool_of(number).map_or(super::PLACES_PER_FUNCTION, |pool| pool.min)
    }

    /// Router and shim meet, and one of them is new.
    pub(super) fn begin_pools(&mut self) {
        self.pools.told.clear();
        self.pools.words.clear();
        if self.shim_back_at_ns.is_none()
            && let Some(router) = &mut self.router
        {
            router.engines_mut().for_each(engine::Engine::handle_keeper_attached);
        }
    }

    /// A process attached.
    pub(super) fn note_attached(&mut self, process: ProcessId) {
        self.pools.used_at_ns.insert(process, self.now_ns);
    }

    /// A worker gave a call back.
    pub(super) fn note_given_back(&mut self, key: CallKey) {
        if let Some(process) = self.oracle.holder_of(key) {
            self.pools.used_at_ns.insert(process, self.now_ns);
        }
    }

    /// The router says how many are to be kept. Is that within the bounds, and needed?
    pub(super) fn take_word(
        &mut self,
        number: u32,
        count: u32,
        leaving: Option<ProcessId>,
    ) -> Result<(), Broken> {
        self.note(|_| format!("of function {number}, {count} are wanted; {leaving:?} is to end"));
        let judge = self.options.judge;
        let pool = self.pool_of(number);
        judge.check(Contract::Pool, pool.is_some(), || format!("function {number} has no pool"))?;
        let Some(PoolSpec { min, max, idle_timeout, is_predictive }) = pool else { return Ok(()) };
        judge.check(Contract::Pool, (min..=max).contains(&count), || {
            format!("{count} of function {number} are wanted, which is to have {min} to {max}")
        })?;
        let before = self.pools.told.insert(number, count);
        let members = self.serving(number);
        let serving = members.len() as u32;
        let in_hands: u32 = members.iter().map(|process| self.oracle.held_count(*process)).sum();
        let calls = self.oracle.waiting_count((0, number)) + in_hands;
        // One that sends somebody away may be followed by others that do, and says nothing about who is needed.
        if before.is_none_or(|before| count > before) && leaving.is_none() {
            // Who attached again, or serves as a new shim comes, counts.
            let is_needed = count <= serving.max(calls).max(min);
            judge.check(Contract::Pool, is_needed, || {
                format!("{count} of function {number} are wanted, for {calls} calls, and {serving} serve")
            })?;
            judge.check(Contract::Pool, count <= serving.max(min) + STARTS_MAX, || {
                format!("{count} of function {number} are wanted at once, and {serving} serve")
            })?;
            self.totals.pool_growths += 1;
        }
        if let Some(process) = leaving {
            let idle_ns = self.now_ns - self.pools.used_at_ns.get(&process).copied().unwrap_or(self.now_ns);
            // Who is not expected to be needed goes at once.
            let has_waited = is_predictive || idle_ns >= idle_timeout.0;
            let is_right = self.oracle.held_count(process) == 0 && has_waited;
            judge.check(Contract::Pool, is_right, || {
                format!("{process:?} is sent away after {} us with nothing to do", idle_ns / 1_000)
            })?;
            // It is one of those that serve, until the word about its end.
            judge.check(Contract::Pool, serving >= min, || {
                format!("{process:?} is sent away, and {serving} of function {number} are left")
            })?;
            self.totals.pool_releases += 1;
        }
        self.pools.words.push_back((number, count, leaving));
        Ok(())
    }

    /// Processes of a function that are given calls.
    fn serving(&self, number: u32) -> Vec<ProcessId> {
        let seats = self.router.iter().flat_map(|router| router.shards[0].seats());
        seats
            .filter(|seat| seat.function == number)
            .filter(|seat| matches!(seat.state, WorkerState::Idle | WorkerState::Busy))
            .map(|seat| seat.process)
            .collect()
    }

    /// A call was told that nobody will come for it. Is it so?
    pub(super) fn check_given_up(&self, key: CallKey, number: u32) -> Result<(), Broken> {
        let function = &self.functions[number as usize];
        let shard = usize::from(key.shard());
        let has_worker =
            self.router.iter().any(|it| it.shards[shard].seats().any(|it| it.function == number));
        let is_true = function.spec.pool.is_some() && function.failing_on.contains(&shard) && !has_worker;
        self.options.judge.check(Contract::TrueAnswer, is_true, || {
            format!("{key:?} was told that function {number} has no worker and will have none")
        })
    }

    /// After a turn: nobody stays too long, nobody is too many, and who waits is not forgotten.
    pub(super) fn look_at_pools(&mut self) -> Result<(), Broken> {
        let judge = self.options.judge;
        for number in 0..self.functions.len() as u32 {
            let Some(pool) = self.pool_of(number) else { continue };
            let PoolSpec { min, max, idle_timeout, is_predictive } = pool;
            let serving = self.serving(number);
            let count = serving.len() as u32;
            judge.check(Contract::Pool, count <= max, || {
                format!("{count} processes of function {number} serve, of {max} that may")
            })?;
            let idle_ns = |process: &ProcessId| self.now_ns - self.pools.used_at_ns[process];
            let overdue = serving
                .iter()
                .find(|process| self.oracle.held_count(**process) == 0 && idle_ns(process) >= idle_timeout.0);
            // The last one may be kept longer when it is expected to be needed.
            let is_kept = count <= min || is_predictive && count == 1;
            judge.check(Contract::Pool, is_kept || overdue.is_none(), || {
                format!("{overdue:?} has nothing to do for too long, and {count} of function {number} serve")
            })?;
            let told = self.pools.told.get(&number).copied();
            if told == Some(0) {
                // Who calls next finds out anew.
                self.functions[number as usize].failing_on.remove(&0);
            }
            let is_hopeless = self.functions[number as usize].failing_on.contains(&0);
            let waiting = self.oracle.any_waiting(self.now_ns, (0, number));
            let is_forgotten = waiting.is_some() && count == 0 && (told == Some(0) || is_hopeless);
            judge.check(Contract::Pool, !is_forgotten, || {
                format!("{waiting:?} waits, nobody serves, and nobody is asked for")
            })?;
        }
        Ok(())
    }

    /// The shim does what it was told.
    pub(super) fn keep_wanted(&mut self) {
        if self.shim_back_at_ns.is_some() {
            self.pools.words.clear();
        }
        while let Some((number, count, leaving)) = self.pools.words.pop_front() {
            let Some(PoolSpec { min, max, .. }) = self.pool_of(number) else { continue };
            let count = count.clamp(min, max);
            let now_ns = self.now_ns;
            let is_its = |keeper: &&mut Keeper| keeper.function == number;
            if let Some(process) = leaving {
                self.keepers.iter_mut().filter(is_its).for_each(|keeper| keeper.let_go(now_ns, process));
            }
            let present = |keepers: &[Keeper]| {
                keepers.iter().filter(|it| it.function == number && it.is_to_stay()).count() as u32
            };
            while present(&self.keepers) > count {
                let spare = self.keepers.iter_mut().filter(is_its).find(|keeper| keeper.has_none());
                let Some(spare) = spare else { break };
                spare.give_up(now_ns);
            }
            let missing = count.saturating_sub(present(&self.keepers));
            self.keepers.extend((0..missing).map(|_| Keeper::new(number, now_ns)));
        }
        self.keepers.retain(|keeper| !keeper.is_gone());
    }

    /// Whether a place of this function is one too many.
    pub(super) fn is_surplus(&self, number: u32) -> bool {
        let Some(PoolSpec { min, max, .. }) = self.pool_of(number) else { return false };
        let wanted = self.pools.told.get(&number).copied().unwrap_or(min).clamp(min, max);
        let is_one = |keeper: &&Keeper| keeper.function == number && keeper.is_to_stay();
        self.keepers.iter().filter(is_one).count() as u32 > wanted
    }
}
