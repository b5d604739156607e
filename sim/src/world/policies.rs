//! What the operator configures: policies of functions and tenants, and other ones while calls run.

use engine::{
    BreakerSpec, FunctionSpec, HedgeAfter, HedgeSpec, Nanos, Policy, PoolSpec, Rate, RetrySpec, SlowStart,
    TenantIndex, TenantSpec,
};

use super::World;
use crate::chance::Chance;
use crate::contract::Broken;
use crate::scenario::Policies;

/// A function as its owner wrote it down.
pub(super) fn any_function(number: u64, policies: Policies, chance: &mut Chance) -> FunctionSpec {
    let timeout = Nanos(chance.below(2_000_000_000) + 1_000_000);
    FunctionSpec {
        timeout,
        queue_count_max: chance.below(40) as u32 + 1,
        payload_size_max: 64,
        idempotent: chance.per_mille(if policies == Policies::Hedges { 900 } else { 500 }),
        tenant: TenantIndex((number % 2) as u16),
        policy: any_policy(policies, chance),
        pool: (policies == Policies::Pools && chance.per_mille(800)).then(|| any_pool(chance)),
        ..FunctionSpec::named(format!("function-{number}"))
    }
}

/// Mostly none while nobody calls, and four at most; idle for up to 64 ms.
fn any_pool(chance: &mut Chance) -> PoolSpec {
    let min = chance.below(4).saturating_sub(1) as u32;
    PoolSpec {
        min,
        max: min + 1 + chance.below(4) as u32,
        idle_timeout: Nanos(1_000_000 + chance.length(26)),
        is_predictive: chance.per_mille(300),
    }
}

fn any_policy(policies: Policies, chance: &mut Chance) -> Policy {
    let none = Policy::default();
    match policies {
        Policies::None | Policies::Pools => none,
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
                // At once, or after up to 64 ms.
                backoff: Nanos(chance.below(4).min(1) * (1_000_000 + chance.length(26))),
                backoff_max: Nanos(4_000_000 + chance.length(30)),
            },
            ..none
        },
        Policies::Hedges => Policy {
            hedge: chance.per_mille(900).then(|| HedgeSpec {
                after: match chance.below(3) {
                    0 | 1 => HedgeAfter::Delay(Nanos(chance.length(18))),
                    _ => HedgeAfter::Percentile(50 + chance.below(50) as u8),
                },
                load_percent: [1, 5, 20][chance.below(3) as usize],
            }),
            concurrency_max: chance.per_mille(200).then(|| 1 + chance.below(4) as u32),
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
            // What comes back has not failed yet.
            if removed_before {
                function.failing_on.clear();
            }
        }
        self.totals.reloads += 1;
        let is_removed = function.is_removed;
        self.note(|_| {
            format!("function {number} is {}", if is_removed { "removed" } else { "configured anew" })
        });
        self.apply();
        if self.router.is_some() && !is_removed {
            let spec = &self.functions[number as usize].spec;
            self.rules.iter_mut().for_each(|rules| rules.respecify(number as u32, spec));
        }
        Ok(())
    }

    /// Gives the router, if it lives, the table as it is now.
    pub(super) fn apply(&mut self) {
        let specs: Vec<_> = self.functions.iter().map(|function| function.spec.clone()).collect();
        self.oracle.configured(&self.tenants, specs);
        if let Some(router) = &mut self.router {
            let specs = self.functions.iter().map(|it| (!it.is_removed).then(|| it.spec.clone()));
            let table: Vec<_> = specs.collect();
            for engine in router.engines_mut() {
                engine
                    .handle_reconfigure(self.tenants.clone(), table.clone())
                    .expect("a sound configuration");
            }
        }
    }
}
