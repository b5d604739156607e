//! Who may run: no more calls in workers' hands than their function, their tenant and the host may have, and none that
//! waits for a limit that is not met.

use std::collections::BTreeSet;

use engine::{FunctionSpec, TenantSpec};

use super::{Call, Oracle};
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
        let is_it = |call: &Call| holds(&self.limits.functions[call.function as usize]);
        self.held.keys().filter(|key| is_it(&self.calls[key])).count() as u32
    }

    fn busy_count(&self) -> u32 {
        self.held.values().collect::<BTreeSet<_>>().len() as u32
    }

    /// A call was pushed, and counted: is any of what it needs used by too many?
    pub(super) fn check_concurrency(&self, call: &Call) -> Result<(), Broken> {
        let spec = &self.limits.functions[call.function as usize];
        let tenant = &self.limits.tenants[usize::from(spec.tenant.0)];
        let bounds = [
            ("the function", self.running_count(|it| it.name == spec.name), spec.policy.concurrency_max),
            ("the tenant", self.running_count(|it| it.tenant == spec.tenant), tenant.concurrency_max),
            ("the host's workers", self.busy_count(), self.bounds.running_max),
        ];
        for (whose, count, max) in bounds {
            self.judge.check(Contract::Concurrency, max.is_none_or(|max| count <= max), || {
                format!("{count} of {whose} are running, more than {max:?}: function {}", call.function)
            })?;
        }
        Ok(())
    }

    /// A worker of this function has nothing to do after a turn, and a call waits for one. Is it right that it waits?
    pub fn waits_beside_idle(&mut self, now_ns: u64, number: u32) -> bool {
        let spec = &self.limits.functions[number as usize];
        let tenant = &self.limits.tenants[usize::from(spec.tenant.0)];
        let is_met = |count: u32, max: Option<u32>| max.is_some_and(|max| count >= max);
        let is_blocked = is_met(self.running_count(|it| it.name == spec.name), spec.policy.concurrency_max)
            || is_met(self.running_count(|it| it.tenant == spec.tenant), tenant.concurrency_max)
            || is_met(self.busy_count(), self.bounds.running_max);
        if is_blocked {
            self.unblocked_at_ns.remove(&number);
            return true;
        }
        let has_gate = spec.policy.concurrency_max.is_some() || tenant.concurrency_max.is_some();
        let since_ns = *self.unblocked_at_ns.entry(number).or_insert(now_ns);
        has_gate && now_ns < since_ns + LOOK_NS
    }

    /// No call of this function waits while a worker of it has nothing to do.
    pub fn waits_for_nothing(&mut self, number: u32) {
        self.unblocked_at_ns.remove(&number);
    }
}
