//! Stage 4 of 8, the part that only functions under a limit reach: what a call needs besides a worker before it is pushed.
//!
//! ```text
//!   place on the host ── its function's concurrency ── its tenant's concurrency ── back-pressure ── its share of idle time
//!   none: nobody is pushed                one of them is used up: the function's gate closes (`gates.rs`)
//! ```
//! In: a function that could be given a worker; later, its calls as workers give them back.  Out: yes, or who has to wait.
//! Always: what is taken is given back exactly once, when the worker no longer holds the call. The ledger is shared by the
//! shards of a host, so concurrency is exact over all of them; a place that another shard gives back is seen within
//! `LEDGER_LOOK`.
//! Always: all or nothing: a call that has to wait for one thing holds none of the others.
//! Always: a worker that holds calls takes one place on the host, however many they are: it runs one at a time. It has the
//! place until it holds none.
//! Always: a call that was given something is marked, and gives back what it took though the limits were changed meanwhile.
//! Never: reached by a function of a host without limits at dispatch.
//! Tests: `tests/concurrency.rs`, `tests/fairness.rs`, `tests/opportunistic.rs`, `tests/backpressure.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::FunctionId;
use queue::Ledger;

use crate::Engine;
use crate::blocked::BlockedOn;
use crate::function::Function;
use crate::invocation::Marks;
use crate::limits::Limits;
use crate::opportunistic::Idle;
use crate::policy::Quota;
use crate::rate::TokenBucket;
use crate::tenant::{TenantIndex, TenantSpec};
use crate::time::Nanos;
use crate::worker::Worker;

/// How often a function at a limit that others use too is tried again.
const LEDGER_LOOK: Nanos = Nanos::from_ms(1);

/// What the calls of a host share.
#[derive(Debug)]
pub(crate) struct Permits {
    ledger: Arc<Ledger>,
    /// Places of the ledger that come before those of tenants.
    functions_max: u32,
    tenants: Vec<Tenant>,
    /// Workers that have a place.
    busy_workers: u32,
    idle: Idle,
}

/// A tenant while the engine runs.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub spec: TenantSpec,
    /// What is left of its rate.
    pub rate: Option<TokenBucket>,
    /// Functions whose gate is closed for its concurrency, each once, first come first.
    waiting: VecDeque<u32>,
}

/// Whether a call may be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    Given,
    /// Its function has to wait: its gate is closed now.
    GateClosed,
    /// Everybody has to wait until a worker has nothing left to do.
    NoPlace,
}

impl Permits {
    pub fn new(limits: &Limits, tenants: Vec<TenantSpec>) -> Permits {
        Permits {
            ledger: Arc::new(ledger(limits)),
            functions_max: limits.functions_max,
            tenants: tenants.into_iter().map(Tenant::new).collect(),
            busy_workers: 0,
            idle: Idle::new(limits.running_max.unwrap_or(limits.processor_count)),
        }
    }

    /// The tenants are these now: those there were, in their places, and new ones.
    pub fn respecify(&mut self, tenants: &[TenantSpec]) {
        for (index, spec) in tenants.iter().enumerate() {
            match self.tenants.get_mut(index) {
                Some(tenant) => {
                    if tenant.spec.rate != spec.rate {
                        tenant.rate = spec.rate.map(TokenBucket::new);
                    }
                    tenant.spec = spec.clone();
                }
                None => self.tenants.push(Tenant::new(spec.clone())),
            }
        }
    }

    /// Whether no worker may become busy.
    pub fn is_full(&self, limits: &Limits) -> bool {
        limits.running_max.is_some_and(|max| self.busy_workers >= max)
    }

    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &TenantSpec> {
        self.tenants.iter().map(|tenant| &tenant.spec)
    }

    #[inline]
    pub fn tenant_mut(&mut self, tenant: TenantIndex) -> &mut Tenant {
        &mut self.tenants[usize::from(tenant.0)]
    }

    fn place_of(&self, tenant: TenantIndex) -> usize {
        self.functions_max as usize + usize::from(tenant.0)
    }
}

impl Tenant {
    fn new(spec: TenantSpec) -> Tenant {
        Tenant { rate: spec.rate.map(TokenBucket::new), waiting: VecDeque::new(), spec }
    }
}

impl Permits {
    /// Takes places for up to so many calls of a function, of its own and of its tenant's. For how many there were both.
    pub fn take_places(&self, number: u32, function: &Function, wanted: u32) -> u32 {
        let (own, tenants) = (number as usize, self.place_of(function.spec.tenant));
        let own_max = function.spec.policy.concurrency_max.unwrap_or(u32::MAX);
        let tenant_max = self.tenants[usize::from(function.spec.tenant.0)].spec.concurrency_max;
        let taken = self.ledger.take_up_to(own, wanted, own_max);
        let both = self.ledger.take_up_to(tenants, taken, tenant_max.unwrap_or(u32::MAX));
        self.ledger.give_back(own, taken - both);
        both
    }

    /// Gives both back for so many calls.
    pub fn give_places(&self, number: u32, function: &Function, count: u32) {
        self.ledger.give_back(number as usize, count);
        self.ledger.give_back(self.place_of(function.spec.tenant), count);
    }

    /// A worker that holds calls has a place from the first of them on.
    pub fn note_busy(&mut self, now: Nanos, worker: &mut Worker) {
        if !worker.has_place {
            worker.has_place = true;
            self.busy_workers += 1;
            self.idle.set_busy(now, self.busy_workers);
        }
    }
}

impl Function {
    /// So many calls of it go to a worker. What they will probably cost, in nanoseconds.
    pub fn charge(&mut self, count: u32) -> u64 {
        let cost_ns = self.run_ahead.mean().0.saturating_mul(count.into());
        self.running += count;
        self.charged_ns += cost_ns;
        cost_ns
    }

    /// Takes a call's worth from each of the rates at which it may run: from all of them, or from none.
    fn take_rates(&mut self, now: Nanos, idle: &mut Idle) -> Result<(), (BlockedOn, Nanos)> {
        if let Some(pressure) = &mut self.pressure {
            pressure.ask(now).map_err(|wait| (BlockedOn::Backpressure, wait))?;
        }
        if self.spec.policy.quota == Quota::Opportunistic {
            let share = idle.share(now);
            self.opportunistic.take_share(now, share).map_err(|wait| (BlockedOn::Quota, wait))?;
        }
        if let Some(pressure) = &mut self.pressure {
            pressure.take(now);
        }
        Ok(())
    }
}

/// A ledger for the engines of one host, which all have these limits: pass it to each of them ([`Engine::share_ledger`]).
pub fn ledger(limits: &Limits) -> Ledger {
    Ledger::new(limits.functions_max as usize + usize::from(limits.tenants_max))
}

impl Engine {
    /// Counts concurrency together with the other engines that are given this ledger.
    ///
    /// # Panics
    /// If calls are in flight: they were counted elsewhere.
    pub fn share_ledger(&mut self, ledger: Arc<Ledger>) {
        assert!(self.in_flight() == 0, "calls are in flight");
        self.permits.ledger = ledger;
    }

    /// Whether a call that was just admitted may be bound to this worker: nothing waits whose turn was before, and what it needs
    /// is there.
    pub(crate) fn may_go_direct(&mut self, now: Nanos, slot: u32, function: FunctionId) -> bool {
        self.ready.is_empty() && self.take_permits(now, slot, function.0) == Permit::Given
    }

    /// Takes what this call of a ready function needs to be pushed to the worker whose turn it is.
    #[inline(never)]
    pub(crate) fn take_permits(&mut self, now: Nanos, slot: u32, number: u32) -> Permit {
        self.advance_pressure(now, number);
        let function = &mut self.functions[number as usize];
        let permits = &mut self.permits;
        let worker = *function.warm.last().expect("a ready function has a worker with credit");
        let worker = &mut self.workers[worker as usize];
        if !worker.has_place && permits.is_full(&self.limits) {
            return Permit::NoPlace;
        }
        let tenant = function.spec.tenant;
        let (own, tenants) = (number as usize, permits.place_of(tenant));
        // Counted also without a bound, so that one may be set while calls run.
        let own_max = function.spec.policy.concurrency_max.unwrap_or(u32::MAX);
        let tenant_max = permits.tenant_mut(tenant).spec.concurrency_max.unwrap_or(u32::MAX);
        if !permits.ledger.try_take(own, own_max) {
            self.close_gate(number, BlockedOn::Concurrency, now.plus(LEDGER_LOOK));
            return Permit::GateClosed;
        }
        if !permits.ledger.try_take(tenants, tenant_max) {
            permits.ledger.give(own);
            if !function.waits_for_tenant {
                function.waits_for_tenant = true;
                permits.tenant_mut(tenant).waiting.push_back(number);
            }
            self.close_gate(number, BlockedOn::TenantConcurrency, now.plus(LEDGER_LOOK));
            return Permit::GateClosed;
        }
        if let Err((why, wait)) = function.take_rates(now, &mut permits.idle) {
            permits.give_places(number, function, 1);
            self.close_gate(number, why, now.plus(wait));
            return Permit::GateClosed;
        }
        permits.note_busy(now, worker);
        let call = self.invocations.at_mut(slot);
        call.marks = call.marks.with(Marks::PERMITTED, true);
        let cost_ns = function.charge(1);
        self.ready.charge(tenant, cost_ns as i64);
        Permit::Given
    }

    /// A worker no longer holds so many calls that were given what they needed, and was used by them for so long in all.
    #[inline(never)]
    pub(crate) fn give_permits(&mut self, number: u32, count: u32, used: Nanos) {
        let function = &mut self.functions[number as usize];
        let permits = &mut self.permits;
        let tenant = function.spec.tenant;
        let mut charged_ns = 0;
        for _ in 0..count {
            // Of what was charged for the calls that run, its part; the last one takes the rest, so that nothing is lost.
            let part_ns = function.charged_ns / u64::from(function.running);
            function.charged_ns -= part_ns;
            function.running -= 1;
            charged_ns += part_ns;
        }
        self.ready.charge(tenant, used.0 as i64 - charged_ns as i64);
        permits.give_places(number, function, count);
        if function.gate.is_some_and(|gate| gate.why == BlockedOn::Concurrency) {
            self.open_gate(number);
        }
        for _ in 0..count {
            let Some(next) = self.next_of_tenant(tenant) else { return };
            self.open_gate(next);
        }
    }

    /// A call that may have been given what it needed is off its worker's hands in another way than by its result in time.
    pub(crate) fn take_from_worker(&mut self, slot: u32, used: Nanos) {
        let call = self.invocations.at_mut(slot);
        if call.marks.has(Marks::PERMITTED) {
            call.marks = call.marks.with(Marks::PERMITTED, false);
            let number = call.function.0;
            self.give_permits(number, 1, used);
        }
    }

    /// The calls of a function need something from now on: those that were pushed without it count as if they had it. How busy
    /// their workers are is seen from the next call of each on.
    pub(crate) fn count_running(&mut self, number: u32) {
        let function = &mut self.functions[number as usize];
        let tenants = self.permits.place_of(function.spec.tenant);
        for &index in &function.members {
            let held = &self.workers[index as usize].held;
            let slots: Vec<_> = held.iter(index, &self.invocations).collect();
            for slot in slots {
                let call = self.invocations.at_mut(slot);
                if !call.marks.has(Marks::PERMITTED) {
                    call.marks = call.marks.with(Marks::PERMITTED, true);
                    function.running += 1;
                    self.permits.ledger.try_take(number as usize, u32::MAX);
                    self.permits.ledger.try_take(tenants, u32::MAX);
                }
            }
        }
    }

    /// The function that has waited longest for its tenant's concurrency, and still does.
    fn next_of_tenant(&mut self, tenant: TenantIndex) -> Option<u32> {
        let waiting = &mut self.permits.tenant_mut(tenant).waiting;
        while let Some(number) = waiting.pop_front() {
            let function = &mut self.functions[number as usize];
            function.waits_for_tenant = false;
            if function.gate.is_some_and(|gate| gate.why == BlockedOn::TenantConcurrency) {
                return Some(number);
            }
        }
        None
    }

    /// A worker with a place holds no calls any more.
    #[cold]
    pub(crate) fn give_place(&mut self, now: Nanos, worker_index: u32) {
        let worker = &mut self.workers[worker_index as usize];
        if std::mem::take(&mut worker.has_place) {
            self.permits.busy_workers -= 1;
            self.permits.idle.set_busy(now, self.permits.busy_workers);
        }
    }

    /// A function is about to belong to another tenant: it stands nowhere, and the places of its running calls are counted with
    /// the other.
    pub(crate) fn leave_tenant(&mut self, number: u32, to: TenantIndex) {
        let function = &mut self.functions[number as usize];
        let from = function.spec.tenant;
        if from == to {
            return;
        }
        self.ready.remove(number, function);
        let permits = &mut self.permits;
        for _ in 0..function.running {
            permits.ledger.give(permits.place_of(from));
            permits.ledger.try_take(permits.place_of(to), u32::MAX);
        }
        function.waits_for_tenant = false;
        permits.tenant_mut(from).waiting.retain(|other| *other != number);
    }

    /// What is counted is what is held.
    pub(crate) fn permits_invariants(&self) {
        let mut running = vec![0; self.functions.len()];
        for (_, call) in self.invocations.iter().filter(|(_, call)| call.marks.has(Marks::PERMITTED)) {
            if call.state.is_held() {
                running[call.function.0 as usize] += 1;
            }
        }
        let is_alone = Arc::strong_count(&self.permits.ledger) == 1;
        let mut of_tenants = vec![0; self.permits.tenants.len()];
        for (number, function) in self.functions.iter().enumerate() {
            assert_eq!(function.running, running[number], "function {number}: running");
            assert!(!is_alone || self.permits.ledger.taken(number) == running[number], "function {number}");
            of_tenants[usize::from(function.spec.tenant.0)] += running[number];
        }
        for (tenant, running) in (0..).zip(of_tenants) {
            let taken = self.permits.ledger.taken(self.permits.place_of(TenantIndex(tenant)));
            assert!(!is_alone || taken == running, "tenant {tenant}: {taken} taken, {running} run");
        }
        let mut busy = 0;
        for (index, worker) in self.workers.iter().enumerate() {
            busy += u32::from(worker.has_place);
            assert!(!worker.has_place || worker.held_count() > 0, "worker {index} has a place and no call");
        }
        assert_eq!(self.permits.busy_workers, busy, "busy workers");
        assert!(self.limits.running_max.is_none_or(|max| busy <= max), "more workers are busy than may");
    }
}
