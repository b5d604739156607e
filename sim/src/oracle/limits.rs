//! Who may run: no more calls in workers' hands than their function, their tenant and the host may have, and none that
//! waits for a limit that is not met.

use std::collections::BTreeSet;

use engine::{FunctionSpec, TenantSpec};

use super::{CallKey, Oracle, Queue};
use crate::contract::{Broken, Contract};

/// How long the calls of a function may wait at a limit that has room again: `LEDGER_LOOK` of `engine/src/permits.rs`.
const LOOK_NS: u64 = 1_000_000;

/// What is configured now.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    functions: Vec<FunctionSpec>,
    tenants: Vec<TenantSpec>,
}

impl Oracle {
    /// These functions and tenants are configured from now on.
    pub fn configured(&mut self, tenants: &[TenantSpec], functions: Vec<FunctionSpec>) {
        self.limits = Limits { functions, tenants: tenants.to_vec() };
    }

    pub(super) fn ageing_ns(&self, number: u32) -> Option<u64> {
        let spec = &self.limits.functions[number as usize];
        spec.policy.ageing.filter(|ageing| *ageing < spec.timeout).map(|ageing| ageing.0)
    }

    /// Calls in workers' hands of those functions for which this holds.
    fn running_count(&self, holds: impl Fn(&FunctionSpec) -> bool) -> u32 {
        let is_it = |key: &CallKey| holds(&self.limits.functions[self.calls[key].function as usize]);
        self.held.keys().filter(|key| is_it(key)).count() as u32
    }

    /// Each shard has its part of the host's places.
    fn busy_count(&self, shard: u8) -> u32 {
        let held = self.held.iter().filter(|(key, _)| key.shard() == shard);
        held.map(|(_, process)| process).collect::<BTreeSet<_>>().len() as u32
    }

    /// A call was pushed, and counted: is any of what it needs used by too many?
    pub(super) fn check_concurrency(&self, key: CallKey) -> Result<(), Broken> {
        let number = self.calls[&key].function;
        let spec = &self.limits.functions[number as usize];
        let tenant = &self.limits.tenants[usize::from(spec.tenant.0)];
        let bounds = [
            ("the function", self.running_count(|it| it.name == spec.name), spec.policy.concurrency_max),
            ("the tenant", self.running_count(|it| it.tenant == spec.tenant), tenant.concurrency_max),
            ("the host's workers", self.busy_count(key.shard()), self.bounds.running_max),
        ];
        for (whose, count, max) in bounds {
            self.judge.check(Contract::Concurrency, max.is_none_or(|max| count <= max), || {
                format!("{count} of {whose} are running, more than {max:?}: function {number}")
            })?;
        }
        Ok(())
    }

    /// A worker of this queue's function has nothing to do after a turn, and a call waits for one. Is it right that it waits?
    pub fn waits_beside_idle(&mut self, now_ns: u64, queue: Queue) -> bool {
        if self.is_at_limit(queue) {
            self.unblocked_at_ns.remove(&queue);
            return true;
        }
        let spec = &self.limits.functions[queue.1 as usize];
        let tenant = &self.limits.tenants[usize::from(spec.tenant.0)];
        let has_gate = spec.policy.concurrency_max.is_some() || tenant.concurrency_max.is_some();
        let since_ns = *self.unblocked_at_ns.entry(queue).or_insert(now_ns);
        has_gate && now_ns < since_ns + LOOK_NS
    }

    fn is_at_limit(&self, (shard, number): Queue) -> bool {
        let spec = &self.limits.functions[number as usize];
        let tenant = &self.limits.tenants[usize::from(spec.tenant.0)];
        let is_met = |count: u32, max: Option<u32>| max.is_some_and(|max| count >= max);
        is_met(self.running_count(|it| it.name == spec.name), spec.policy.concurrency_max)
            || is_met(self.running_count(|it| it.tenant == spec.tenant), tenant.concurrency_max)
            || is_met(self.busy_count(shard), self.bounds.running_max)
    }

    /// A call is about to be off its worker's hands: until now limits may have been met.
    pub(super) fn note_limits_met(&mut self) {
        let met: Vec<_> =
            self.unblocked_at_ns.keys().copied().filter(|queue| self.is_at_limit(*queue)).collect();
        met.into_iter().for_each(|queue| _ = self.unblocked_at_ns.remove(&queue));
    }

    /// No call of this queue waits while a worker of its function has nothing to do.
    pub fn waits_for_nothing(&mut self, queue: Queue) {
        self.unblocked_at_ns.remove(&queue);
    }
}
