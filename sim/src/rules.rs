//! What the policies of functions promise about admission and retries, each by its definition and none by its mechanism.
//!
//! In: what was admitted, pushed and run, as seen from outside.  Out: whether one more call may be admitted; the first
//! broken contract.
//! Always: one router's life: another router knows nothing of what came before it.
//! Always: numbers that a new configuration leaves as they are go on from where they are.
//! Files: `rate.rs` (every span of time), `slow_start.rs` (every window), `breaker.rs` (the list of verdicts),
//! `budget.rs` (extra attempts beside the traffic). What has to do with calls that wait is the oracle's.

mod breaker;
mod budget;
mod rate;
mod slow_start;

use engine::{FunctionSpec, TenantSpec};
use protocol::Status;

use crate::contract::{Broken, Contract, Judge};
use breaker::Breaker;
use budget::Budget;
use rate::Spans;
use slow_start::Windows;

/// Those of all functions and tenants.
#[derive(Debug, Default)]
pub struct Rules {
    functions: Vec<Function>,
    tenants: Vec<(TenantSpec, Option<Spans>)>,
}

#[derive(Debug)]
struct Function {
    spec: FunctionSpec,
    rate: Option<Spans>,
    slow_start: Option<Windows>,
    breaker: Option<Breaker>,
    retries: Budget,
    /// Second attempts.
    hedges: Budget,
}

impl Function {
    fn new(spec: &FunctionSpec) -> Function {
        Function {
            rate: spec.policy.rate.map(Spans::new),
            slow_start: spec.policy.slow_start.map(Windows::new),
            breaker: spec.policy.breaker.map(Breaker::new),
            retries: Budget::new(spec.policy.retry.budget_percent),
            hedges: Budget::new(spec.policy.hedge.map_or(0, |hedge| hedge.load_percent)),
            spec: spec.clone(),
        }
    }
}

impl Rules {
    /// For a router that starts.
    pub fn new<'a>(tenants: &[TenantSpec], functions: impl Iterator<Item = &'a FunctionSpec>) -> Rules {
        let of_tenant = |tenant: &TenantSpec| (tenant.clone(), tenant.rate.map(Spans::new));
        Rules {
            functions: functions.map(Function::new).collect(),
            tenants: tenants.iter().map(of_tenant).collect(),
        }
    }

    /// This function is configured otherwise from now on.
    pub fn respecify(&mut self, number: u32, spec: &FunctionSpec) {
        let function = &mut self.functions[number as usize];
        let (old, new) = (&function.spec.policy, &spec.policy);
        let fresh = Function::new(spec);
        if old.rate != new.rate {
            function.rate = fresh.rate;
        }
        if old.slow_start != new.slow_start {
            function.slow_start = fresh.slow_start;
        }
        if old.breaker != new.breaker {
            function.breaker = fresh.breaker;
        }
        if old.retry.budget_percent != new.retry.budget_percent {
            function.retries = fresh.retries;
        }
        function.spec = spec.clone();
    }

    /// Why a call of this function may not be admitted now, if a policy speaks against it. A breaker is asked about what starts
    /// now.
    pub fn refusal(&self, now_ns: u64, number: u32, starts_later: bool) -> Option<(Contract, Status)> {
        let function = &self.functions[number as usize];
        let tenant_rate = &self.tenants[usize::from(function.spec.tenant.0)].1;
        let is_full = |spans: &Option<Spans>| spans.as_ref().is_some_and(|spans| spans.is_full(now_ns));
        let reasons = [
            (
                function.slow_start.as_ref().is_some_and(|windows| windows.is_full(now_ns)),
                Contract::SlowStart,
                Status::RateLimited,
            ),
            (is_full(&function.rate) || is_full(tenant_rate), Contract::Rate, Status::RateLimited),
            (
                !starts_later && function.breaker.as_ref().is_some_and(|breaker| breaker.refuses(now_ns)),
                Contract::Breaker,
                Status::BreakerOpen,
            ),
        ];
        let first = reasons.into_iter().find(|(is_true, ..)| *is_true);
        first.map(|(_, contract, status)| (contract, status))
    }

    /// A call was admitted.
    pub fn admitted(&mut self, now_ns: u64, number: u32, starts_later: bool) {
        let function = &mut self.functions[number as usize];
        let tenant_rate = &mut self.tenants[usize::from(function.spec.tenant.0)].1;
        for spans in [&mut function.rate, tenant_rate].into_iter().flatten() {
            spans.admitted(now_ns);
        }
        if let Some(windows) = &mut function.slow_start {
            windows.admitted(now_ns);
        }
        if let Some(breaker) = function.breaker.as_mut().filter(|_| !starts_later) {
            breaker.admitted(now_ns);
        }
    }

    /// A call was handed to a worker, perhaps because a run of it failed.
    pub fn pushed(&mut self, number: u32, is_retry: bool) {
        let function = &mut self.functions[number as usize];
        function.hedges.pushed();
        if !is_retry {
            function.retries.pushed();
        }
    }

    /// A call that may have begun is to be handed to a worker again.
    pub fn retried(&mut self, judge: Judge, number: u32) -> Result<(), Broken> {
        self.functions[number as usize].retries.extra(judge, Contract::RetryBudget)
    }

    /// A call that a worker has was handed to another one too.
    pub fn hedged(&mut self, judge: Judge, number: u32) -> Result<(), Broken> {
        let function = &mut self.functions[number as usize];
        function.retries.pushed();
        function.hedges.extra(judge, Contract::Hedge)
    }

    /// A run of a call that was admitted then ended well, or failed. Whether the breaker opens.
    pub fn ran(&mut self, now_ns: u64, number: u32, admitted_at_ns: u64, has_failed: bool) -> bool {
        let breaker = &mut self.functions[number as usize].breaker;
        breaker.as_mut().is_some_and(|breaker| breaker.ran(now_ns, admitted_at_ns, has_failed))
    }
}
