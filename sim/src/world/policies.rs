//! What the operator configures: policies of functions and tenants, other ones while calls run, and lanes.

use engine::{
    BreakerSpec, FunctionSpec, Nanos, Policy, Rate, Recall, RetrySpec, SlowStart, TenantIndex, TenantSpec,
};
use protocol::FunctionId;

use super::World;
use crate::chance::Chance;
use crate::contract::{Broken, Contract};
use crate::router::{Router, SLOT_COUNT};
use crate::scenario::Policies;

/// Slots that a client asks for.
const LEASE_SLOTS: u64 = 4;

/// A function as its owner wrote it down.
pub(super) fn any_function(number: u64, policies: Policies, chance: &mut Chance) -> FunctionSpec {
    let timeout = Nanos(chance.below(2_000_000_000) + 1_000_000);
    FunctionSpec {
        timeout,
        queue_count_max: chance.below(40) as u32 + 1,
        payload_size_max: 64,
        idempotent: chance.per_mille(500),
        tenant: TenantIndex((number % 2) as u16),
        policy: any_policy(policies, chance),
        ..FunctionSpec::named(format!("function-{number}"))
    }
}

fn any_policy(policies: Policies, chance: &mut Chance) -> Policy {
    let none = Policy::default();
    match policies {
        Policies::None => none,
        Policies::Rates => Policy { rate: any_rate(chance), ..none },
        Policies::Limits => Policy {
            rate: any_rate(chance),
            slow_start: chance.per_mille(300).then(|| SlowStart {
                window: Nanos(chance.length(26)),
                calls_min: 1 + chance.below(20) as u32,
                growth_percent: chance.below(200) as u32,
            }),
            concurrency_max: chance.per_mille(400).then(|| 1 + chance.below(4) as u32),
            ageing: chance.per_mille(600).then(|| Nanos(chance.length(26))),
            ..none
        },
        Policies::Guards => Policy {
            breaker: chance.per_mille(700).then(|| BreakerSpec {
                failure_percent: 1 + chance.below(100) as u8,
                calls_min: 1 + chance.below(10) as u32,
                window: Nanos(chance.length(30)),
                open_for: Nanos(chance.length(27)),
                probes_max: 1 + chance.below(4) as u32,
            }),
            retry: RetrySpec {
                retries_max: chance.below(8) as u8,
                budget_percent: [0, 1, 10, 50][chance.below(4) as usize],
                on_error: chance.per_mille(600),
                ..RetrySpec::default()
            },
            ..none
        },
    }
}

/// The default tenant and another one.
pub(super) fn any_tenants(policies: Policies, chance: &mut Chance) -> Vec<TenantSpec> {
    let mut tenants = TenantSpec::only_default();
    tenants.push(TenantSpec::named("other"));
    if policies == Policies::Limits {
        for tenant in &mut tenants {
            tenant.weight = 1 + chance.below(9) as u32;
            tenant.rate = any_rate(chance);
            tenant.concurrency_max = chance.per_mille(300).then(|| 1 + chance.below(5) as u32);
        }
    }
    tenants
}

/// For three in ten, from one call in 100 ms to one in 1 us.
fn any_rate(chance: &mut Chance) -> Option<Rate> {
    let rate =
        Rate { per_second: 10_u32.pow(1 + chance.below(6) as u32), burst: 1 + chance.below(20) as u32 };
    chance.per_mille(300).then_some(rate)
}

impl World {
    /// A function is configured otherwise, or removed, or comes back; ageing alone stays, which calls that wait go by.
    pub(super) fn reload(&mut self) -> Result<(), Broken> {
        let number = self.chance.below(self.functions.len() as u64);
        let policies = self.options.scenario.policies;
        let function = &mut self.functions[number as usize];
        let removed_before = function.is_removed;
        function.is_removed = !removed_before && self.chance.per_mille(200);
        if !function.is_removed {
            let spec = any_function(number, policies, &mut self.chance);
            let ageing = function.spec.policy.ageing;
            function.spec = FunctionSpec { policy: Policy { ageing, ..spec.policy }, ..spec };
            function.spec.timeout = function.spec.timeout.max(ageing.unwrap_or_default().plus(Nanos(1)));
        }
        self.totals.reloads += 1;
        let is_removed = function.is_removed;
        self.note(|_| {
            format!("function {number} is {}", if is_removed { "removed" } else { "configured anew" })
        });
        self.apply();
        if self.router.is_some() && !is_removed {
            self.rules.respecify(number as u32, &self.functions[number as usize].spec);
        }
        Ok(())
    }

    /// Gives the router, if it lives, the table as it is now.
    pub(super) fn apply(&mut self) {
        let specs: Vec<_> = self.functions.iter().map(|function| function.spec.clone()).collect();
        self.oracle.configured(&self.tenants, specs);
        if let Some(router) = &mut self.router {
            let table = self.functions.iter().map(|it| (!it.is_removed).then(|| it.spec.clone())).collect();
            router.engine.handle_reconfigure(self.tenants.clone(), table).expect("a sound configuration");
        }
    }

    /// A client asks for a lane.
    pub(super) fn lease(&mut self) -> Result<(), Broken> {
        let number = self.chance.below(self.functions.len() as u64) as u32;
        let slots = self.chance.below(LEASE_SLOTS) as u32;
        let waiting_count = self.oracle.waiting_count(number);
        let Some(router) = &mut self.router else { return Ok(()) };
        let Ok(lease) = router.engine.lease(FunctionId(number), slots, |_| true) else { return Ok(()) };
        let process = router.process_of(lease.worker).expect("a lease is of an attached worker");
        let credits_left = router.engine.worker_view(lease.worker).map_or(0, |view| view.credits);
        self.leases.push((lease, process));
        self.totals.leases += 1;
        self.note(|_| format!("{process:?} lends {} of its slots", lease.slots));
        let is_right = waiting_count == 0 && credits_left >= 1 && lease.slots < SLOT_COUNT;
        self.options.judge.check(Contract::Slots, is_right, || {
            format!(
                "{process:?} lent {} slots and kept {credits_left}; {waiting_count} calls wait",
                lease.slots
            )
        })
    }

    /// A client gives its lane back.
    pub(super) fn end_lease(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let position = self.chance.below(self.leases.len() as u64) as usize;
        let (lease, process) = self.leases.swap_remove(position);
        self.note(|_| format!("{process:?} has {} slots back", lease.slots));
        if let Some(router) = &mut self.router {
            router.engine.end_lease(lease);
        }
    }

    /// Lanes that must end: those of workers that are gone, and of those for which others wait.
    pub(super) fn recall_leases(&mut self) -> Result<(), Broken> {
        let Some(router) = &mut self.router else { return Ok(()) };
        for (lease, process) in std::mem::take(&mut self.leases) {
            let recall = router.engine.recall(Nanos(self.now_ns), &lease);
            let is_attached = router.process_of(lease.worker).is_some();
            self.options.judge.check(
                Contract::Slots,
                (recall == Some(Recall::WorkerLost)) != is_attached,
                || format!("a lease of {process:?}, attached: {is_attached}, is recalled as {recall:?}"),
            )?;
            match recall {
                Some(_) => router.engine.end_lease(lease),
                None => self.leases.push((lease, process)),
            }
        }
        Ok(())
    }

    /// Slots of this process that are lent.
    pub(super) fn leased_count(&self, router: &Router, process: crate::shim::ProcessId) -> u32 {
        let is_its = |(lease, owner): &&(engine::Lease, _)| {
            *owner == process && router.process_of(lease.worker) == Some(process)
        };
        self.leases.iter().filter(is_its).map(|(lease, _)| lease.slots).sum()
    }
}
