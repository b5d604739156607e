//! Shards that share a ledger: concurrency is exact over both, and what one gives back the other finds.

use engine::{Nanos, Policy, Started};
use protocol::FunctionId;

use super::{Call, Crowd, Matter, SHARDS_MAX, Tenant, tenant};
use crate::chance::Chance;
use crate::contract::{Broken, Contract};

/// How long calls may wait at a limit that has room again: `LEDGER_LOOK` of `engine/src/permits.rs`.
const LOOK_NS: u64 = 1_000_000;

/// Three with bounds of their own and of their function.
pub(super) fn tenants(chance: &mut Chance) -> Vec<Tenant> {
    let bound = |chance: &mut Chance| chance.per_mille(700).then(|| 1 + chance.below(5) as u32);
    let make = |number| {
        let mut tenant = tenant(number, 1, Policy { concurrency_max: bound(chance), ..Policy::default() });
        tenant.spec.concurrency_max = bound(chance);
        tenant.run_ns_max = 1 + chance.length(22);
        tenant
    };
    (0..3).map(make).collect()
}

impl Crowd {
    /// Mostly calls; now and then a worker is lost, or there are other bounds.
    pub(super) fn somebody_does_something(
        &mut self,
        chance: &mut Chance,
        divisor: u64,
    ) -> Result<(), Broken> {
        self.advance(self.now_ns + chance.length(20) / divisor)?;
        let number = chance.below(self.tenants.len() as u64) as usize;
        let shard = chance.below(SHARDS_MAX as u64) as usize;
        match chance.below(20) {
            0 => self.lose_worker(shard, chance),
            1 => self.set_bound(number, chance),
            _ => {
                for _ in 0..=chance.below(6) {
                    let run_ns = 1 + chance.below(self.tenants[number].run_ns_max);
                    self.ask(shard, number, run_ns);
                }
            }
        }
        self.moment(self.now_ns)
    }

    /// A worker that runs something dies of it; another one comes in its place.
    fn lose_worker(&mut self, shard: usize, chance: &mut Chance) {
        let is_here = |call: &&Call| call.shard == shard && call.worker.is_some();
        let busy: Vec<_> = self.calls.values().filter(is_here).copied().collect();
        let Some(call) = chance.pick(&busy) else { return };
        let Some(worker) = call.worker else { return };
        self.history.note(self.now_ns, || format!("{worker:?} of shard {shard} is lost"));
        self.totals.worker_deaths += 1;
        let engine = &mut self.engines[shard];
        engine.handle_worker_lost(Nanos(self.now_ns), worker, &|_, _| Started::Yes);
        let attached = engine.handle_worker_attached(Nanos(self.now_ns), FunctionId(call.tenant as u32), 1);
        attached.expect("room for the one that is lost");
        while let Some(answer) = self.engines[shard].poll_answer() {
            self.forget(answer.invocation);
        }
    }

    /// Another configuration reaches all shards.
    fn set_bound(&mut self, number: usize, chance: &mut Chance) {
        let bound = |chance: &mut Chance| chance.per_mille(700).then(|| 1 + chance.below(5) as u32);
        self.tenants[number].function.policy.concurrency_max = bound(chance);
        self.tenants[number].spec.concurrency_max = bound(chance);
        self.history.note(self.now_ns, || format!("tenant {number} has other bounds"));
        self.totals.reloads += 1;
        for engine in &mut self.engines {
            let tenants = self.tenants.iter().map(|tenant| tenant.spec.clone()).collect();
            let functions = self.tenants.iter().map(|tenant| Some(tenant.function.clone())).collect();
            engine.handle_reconfigure(tenants, functions).expect("a sound configuration");
        }
    }

    /// The smaller of its function's and its own.
    fn concurrency_max(&self, number: usize) -> Option<u32> {
        let tenant = &self.tenants[number];
        let bounds = [tenant.function.policy.concurrency_max, tenant.spec.concurrency_max];
        bounds.into_iter().flatten().min()
    }

    /// A call begins: is it one too many?
    pub(super) fn check_concurrency(&self, call: &Call) -> Result<(), Broken> {
        let count: u32 = self.tenants[call.tenant].running.iter().sum();
        let max = self.concurrency_max(call.tenant);
        self.options.judge.check(Contract::Concurrency, max.is_none_or(|max| count <= max), || {
            let number = call.tenant;
            format!("{count} calls of tenant {number} run on all shards, more than {max:?}")
        })
    }

    /// Does anybody wait for a limit that has room, beside a worker that has nothing to do?
    pub(super) fn check_room(&mut self) -> Result<(), Broken> {
        if self.matter != Matter::Shards {
            return Ok(());
        }
        for number in 0..self.tenants.len() {
            let tenant = &self.tenants[number];
            let count: u32 = tenant.running.iter().sum();
            let has_room = self.concurrency_max(number).is_none_or(|max| count < max);
            for shard in 0..self.engines.len() {
                let waits_for_nothing =
                    has_room && tenant.waiting[shard] > 0 && tenant.running[shard] < self.workers;
                if !waits_for_nothing {
                    self.unblocked_at_ns.remove(&(shard, number));
                    continue;
                }
                let since_ns = *self.unblocked_at_ns.entry((shard, number)).or_insert(self.now_ns);
                self.options.judge.check(Contract::NoIdle, self.now_ns < since_ns + LOOK_NS, || {
                    let length_ns = self.now_ns - since_ns;
                    format!("calls of tenant {number} waited {length_ns} ns at shard {shard} for a limit with room")
                })?;
            }
        }
        Ok(())
    }
}
