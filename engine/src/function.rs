//! A function as the engine sees it: its bounds, its queue, its workers with credit.
//!
//! Always: a function is the unit of runnability. What blocks one (no worker, no credit) never blocks another,
//! because each has a queue of its own and only functions that can run stand in the ready queue.

use queue::{LaneIndex, Lanes};

use crate::ageing::Aged;
use crate::backpressure::{DownstreamView, Pressure};
use crate::blocked::Blocked;
use crate::breaker::{Breaker, BreakerState};
use crate::budget::Budget;
use crate::callers::Callers;
use crate::canary::Canary;
use crate::drain_rate::DrainRate;
use crate::estimate::RunEstimate;
use crate::gates::Gate;
use crate::hedge::Hedging;
use crate::limits::{DOWNSTREAMS_MAX, Limits};
use crate::policy::{Checks, Policy};
use crate::pool::{Pool, PoolSpec, PoolView};
use crate::rate::{Rate, TokenBucket};
use crate::reserve::Reserve;
use crate::run_ahead::RunAhead;
use crate::slab::Slab;
use crate::slow_start::Ramp;
use crate::tenant::{TenantIndex, TenantSpec};
use crate::time::Nanos;
use crate::turns::QUANTUM;
use crate::worker::Worker;

/// What the configuration says about a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// Callers resolve this.
    pub name: String,
    /// The longest a call may take from its receipt to its end; a caller's budget can only shorten it.
    pub timeout: Nanos,
    /// Calls that may wait at once. Full: `QueueFull`.
    pub queue_count_max: u32,
    /// Bytes of payload taken. More: `PayloadTooLarge`.
    pub payload_size_max: u32,
    /// Running a call twice does no harm, so a call may be tried again though it had started.
    pub idempotent: bool,
    /// Whose it is.
    pub tenant: TenantIndex,
    /// What else is asked of its calls.
    pub policy: Policy,
    /// Names what its workers are made from, program and ring: with another one they are replaced. See `reconfigure.rs`.
    pub edition: u64,
    /// Workers kept. One more sends another away.
    pub workers_max: u32,
    /// How many there are to be, if that follows its calls. None: it is no matter of the engine's.
    pub pool: Option<PoolSpec>,
}

impl FunctionSpec {
    /// A function of the default tenant with every other option at the default of the option table.
    pub fn named(name: impl Into<String>) -> FunctionSpec {
        FunctionSpec {
            name: name.into(),
            timeout: Nanos::from_secs(30),
            queue_count_max: 100_000,
            payload_size_max: 1 << 20,
            idempotent: false,
            tenant: TenantIndex::DEFAULT,
            policy: Policy::default(),
            edition: 0,
            workers_max: u32::MAX,
            pool: None,
        }
    }

    /// The first field that makes a function that can never run anything.
    pub(crate) fn first_zero(&self) -> Option<&'static str> {
        if self.timeout == Nanos::ZERO {
            return Some("timeout");
        }
        if self.pool.is_some_and(|pool| pool.max == 0) {
            return Some("pool.max");
        }
        (self.queue_count_max == 0).then_some("queue_count_max")
    }

    fn checks(&self, tenant: &TenantSpec, is_host_limited: bool) -> Checks {
        let is_learning = self.pool.is_some_and(|pool| pool.is_predictive);
        self.policy.checks(tenant, is_host_limited).with(Checks::LEARNING, is_learning)
    }
}

/// A function as it is now, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whose it is.
    pub tenant: TenantIndex,
    /// Calls that wait.
    pub queued: u32,
    /// Calls whose start is still to come.
    pub scheduled: u32,
    /// Calls in workers' rings.
    pub running: u32,
    /// Workers attached.
    pub workers: u32,
    /// Of them, those of another edition than the one in force.
    pub workers_earlier: u32,
    /// Workers that could be given a call at once.
    pub workers_with_credit: u32,
    /// Since when the oldest call at the front of a lane waits.
    pub oldest_at: Option<Nanos>,
    /// Its processes keep failing (see [`handle_function_failing`](crate::Engine::handle_function_failing)).
    pub is_failing: bool,
    /// It is not in the configuration any more, and admits nothing.
    pub is_retired: bool,
    /// What its waiting calls wait for, as of the last look.
    pub blocked: Blocked,
    /// Where its breaker is; none if it has none.
    pub breaker: Option<BreakerState>,
    /// The number of its workers, if that follows its calls.
    pub pool: Option<PoolView>,
    /// What has pushed it back, in places of their own.
    pub downstreams: [Option<DownstreamView>; DOWNSTREAMS_MAX],
}

#[derive(Debug)]
pub(crate) struct Function {
    /// As in force: a removed function's queue takes nothing, and a larger payload waits for rings that have room.
    pub spec: FunctionSpec,
    /// What `spec.payload_size_max` will be when the workers of the edition before are gone.
    pub payload_size_max_wanted: u32,
    /// Calls that wait, through the invocations' run links.
    pub queue: Lanes,
    /// Calls whose start is still to come.
    pub scheduled: u32,
    /// Those of them that have waited long, and how long that is.
    pub aged: Aged,
    pub ageing: Nanos,
    /// The lane it stands in in the ready queue; none while it cannot run.
    pub ready_lane: Option<LaneIndex>,
    /// Open workers; the last one is tried first. Capacity for all workers, reserved when they attach.
    pub warm: Vec<u32>,
    /// Workers attached.
    pub members: Vec<u32>,
    /// How many calls one of them may hold.
    pub run_ahead: RunAhead,
    /// How long its calls run. Not kept up while they are quick, which the mean of `run_ahead` then tells.
    pub estimate: RunEstimate,
    /// Workers that it keeps for nested calls.
    pub reserve: Reserve,
    /// Its calls are so quick that they are pushed on admission when nothing waits. See `dispatch.rs`.
    pub is_quick: bool,
    /// The latest arrival among the calls pushed so far: an older call that is pushed later was overtaken.
    pub pushed_queued_at_max: Nanos,
    pub is_failing: bool,
    /// Calls pushed so far, by which its budgets grow.
    pub pushes: u64,
    pub retry_budget: Budget,
    pub hedging: Option<Box<Hedging>>,
    /// Calls of it that others have joined.
    pub joined_calls: u32,
    /// The policies it has.
    pub checks: Checks,
    /// What is left of its rate, if it is reserved.
    pub rate: Option<TokenBucket>,
    pub is_retired: bool,
    pub blocked: Blocked,
    /// The same if it is opportunistic.
    pub opportunistic: TokenBucket,
    pub ramp: Option<Ramp>,
    pub callers: Option<Box<Callers>>,
    pub canary: Option<Canary>,
    pub drain_rate: DrainRate,
    /// Why its calls have to wait though a worker is free.
    pub gate: Option<Gate>,
    /// It stands in its tenant's list of those that wait for its concurrency.
    pub waits_for_tenant: bool,
    /// Calls in workers' hands, and what their tenant was charged for them; counted only for `any_at_dispatch`.
    pub running: u32,
    pub charged_ns: u64,
    /// What is left of its turn among the functions of its tenant; counted only where tenants take turns.
    pub turn_left_ns: i64,
    pub breaker: Option<Box<Breaker>>,
    /// None until it is pushed back for the first time.
    pub pressure: Option<Box<Pressure>>,
    /// None while the number of its workers does not follow its calls.
    pub pool: Option<Box<Pool>>,
}

impl Function {
    pub fn new(spec: FunctionSpec, tenant: &TenantSpec, is_host_limited: bool, limits: &Limits) -> Function {
        let reserve = Reserve::new(spec.policy.nested_reserve);
        let run_ahead = RunAhead::new(limits.run_ahead, reserve.depth_max());
        Function {
            pushes: 0,
            retry_budget: Budget::new(spec.policy.retry.budget_percent),
            hedging: spec.policy.hedge.map(|hedge| Box::new(Hedging::new(hedge))),
            joined_calls: 0,
            checks: spec.checks(tenant, is_host_limited),
            rate: spec.policy.rate.map(TokenBucket::new),
            ageing: spec.policy.ageing.unwrap_or(Nanos::NEVER),
            payload_size_max_wanted: spec.payload_size_max,
            breaker: spec.policy.breaker.map(|breaker| Box::new(Breaker::new(breaker))),
            pressure: None,
            pool: None,
            opportunistic: TokenBucket::new(spec.policy.rate.unwrap_or(Rate::UNBOUNDED)),
            ramp: spec.policy.slow_start.map(Ramp::new),
            callers: spec.policy.caller_rate.map(|rate| Box::new(Callers::new(rate))),
            canary: spec.policy.canary.map(Canary::new),
            drain_rate: DrainRate::default(),
            gate: None,
            waits_for_tenant: false,
            running: 0,
            charged_ns: 0,
            turn_left_ns: 0,
            spec,
            queue: Lanes::new(),
            scheduled: 0,
            aged: Aged::NONE,
            ready_lane: None,
            warm: Vec::new(),
            members: Vec::new(),
            is_quick: is_quick(&run_ahead, &reserve, limits),
            run_ahead,
            reserve,
            estimate: RunEstimate::default(),
            pushed_queued_at_max: Nanos::ZERO,
            is_failing: false,
            is_retired: false,
            blocked: Blocked::default(),
        }
    }

    /// Takes another specification. A policy whose numbers are the same goes on from where it is.
    pub fn respecify(&mut self, spec: FunctionSpec, tenant: &TenantSpec, is_host_limited: bool) {
        self.checks = spec.checks(tenant, is_host_limited).with(Checks::JOINED, self.joined_calls > 0);
        self.ageing = spec.policy.ageing.unwrap_or(Nanos::NEVER);
        if spec.policy.rate != self.spec.policy.rate {
            self.rate = spec.policy.rate.map(TokenBucket::new);
            self.opportunistic = TokenBucket::new(spec.policy.rate.unwrap_or(Rate::UNBOUNDED));
        }
        if spec.policy.slow_start != self.spec.policy.slow_start {
            self.ramp = spec.policy.slow_start.map(Ramp::new);
        }
        if spec.policy.caller_rate != self.spec.policy.caller_rate {
            self.callers = spec.policy.caller_rate.map(|rate| Box::new(Callers::new(rate)));
        }
        if spec.policy.canary != self.spec.policy.canary {
            self.canary = spec.policy.canary.map(Canary::new);
        }
        if spec.policy.breaker != self.spec.policy.breaker {
            self.breaker = spec.policy.breaker.map(|breaker| Box::new(Breaker::new(breaker)));
        }
        if spec.policy.hedge != self.spec.policy.hedge {
            self.hedging = spec.policy.hedge.map(|hedge| Box::new(Hedging::new(hedge)));
        }
        if spec.policy.retry.budget_percent != self.spec.policy.retry.budget_percent {
            self.retry_budget = Budget::new(spec.policy.retry.budget_percent);
        }
        self.respecify_pressure(spec.policy.backpressure);
        self.spec = spec;
    }

    /// A call of it ran this long. True: its workers may hold another number of calls now.
    #[inline]
    pub fn note_run(&mut self, limits: &Limits, run: Nanos) -> bool {
        if !self.is_quick {
            self.estimate.note(run);
        }
        let is_changed = self.run_ahead.note(limits.run_ahead, run);
        if is_changed {
            self.is_quick = is_quick(&self.run_ahead, &self.reserve, limits);
        }
        is_changed
    }

    /// How long its calls run has to be learnt anew, for other bounds.
    pub fn forget_runs(&mut self, limits: &Limits) {
        self.run_ahead = RunAhead::new(limits.run_ahead, self.reserve.depth_max());
        self.is_quick = is_quick(&self.run_ahead, &self.reserve, limits);
    }

    /// The worker for a call that was just admitted, if it would be the next one pushed and order among those behind it
    /// is not worth waiting for.
    #[inline]
    pub fn direct_worker(&self) -> Option<u32> {
        if !self.is_quick || !self.queue.is_empty() || self.gate.is_some() {
            return None;
        }
        self.warm.last().copied()
    }

    /// The call to push next, of a function in which some wait.
    #[inline]
    pub fn next_call(&self) -> u32 {
        let turn = match self.reserve.is_reached(self.warm.len()) {
            true => self.reserve.turn(self.warm.len()),
            false => self.aged.whose_turn().or_else(|| self.queue.peek().map(|(_, slot)| slot)),
        };
        turn.expect("a ready function has a call")
    }

    /// Whether it goes on before the other functions of its tenant, after a call was pushed: turns are measured in what calls
    /// usually take.
    pub fn has_turn_left(&mut self) -> bool {
        self.turn_left_ns -= self.run_ahead.mean().0.max(1) as i64;
        if self.turn_left_ns <= 0 {
            self.turn_left_ns = QUANTUM.0 as i64;
            return false;
        }
        true
    }

    pub fn view<'a>(&'a self, invocations: &Slab, workers: &[Worker]) -> FunctionView<'a> {
        let mut downstreams = [None; DOWNSTREAMS_MAX];
        let known = self.pressure.iter().flat_map(|pressure| pressure.views());
        downstreams.iter_mut().zip(known).for_each(|(place, view)| *place = Some(view));
        let fronts =
            (0..LaneIndex::COUNT).filter_map(|it| self.queue.lane(LaneIndex::from_index(it)).front());
        let members = || self.members.iter().map(|index| &workers[*index as usize]);
        FunctionView {
            name: &self.spec.name,
            tenant: self.spec.tenant,
            queued: self.queue.len(),
            scheduled: self.scheduled,
            running: members().map(Worker::held_count).sum(),
            workers: self.members.len() as u32,
            workers_earlier: members().filter(|worker| worker.edition != self.spec.edition).count() as u32,
            workers_with_credit: self.warm.len() as u32,
            oldest_at: fronts.map(|slot| invocations.at(slot).queued_at).min(),
            is_failing: self.is_failing,
            is_retired: self.is_retired,
            blocked: self.blocked,
            breaker: self.breaker.as_ref().map(|breaker| breaker.state()),
            pool: self.pool.as_ref().map(|pool| {
                let serves = |worker: &&Worker| worker.serves() && worker.edition == self.spec.edition;
                pool.view(members().filter(serves).count() as u32)
            }),
            downstreams,
        }
    }
}

fn is_quick(run_ahead: &RunAhead, reserve: &Reserve, limits: &Limits) -> bool {
    // Who may have a worker has to be seen in the queue.
    reserve.count == 0 && limits.direct_depth_min.is_some_and(|depth_min| run_ahead.depth() >= depth_min)
}
