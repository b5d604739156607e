//! Every decision of the router about a call: admission, order, dispatch, exactly one answer.
//!
//! ```text
//!   handle_request ─▶ admission ─▶ run_queue ─▶ dispatch ─▶ poll_push          stages 2, 3, 4
//!   open_batch ─▶ batch: the three in one, for calls that may go on at once
//!   handle_results, handle_completion ─▶ reply ─▶ answers, handed back at once  stage 8
//!   handle_backpressure ─▶ backpressure ─▶ reply                              stage 8, of a function that was pushed back
//!   handle_cancel   ─▶ cancellation ┐
//!   handle_waits    ─▶ circles      │
//!   handle_time     ─▶ deadlines    ├▶ poll_answer, poll_worker_action         what else may happen
//!   handle_worker_* ─▶ attachment   ┘
//!   lease, end_lease, recall ─▶ lease                                         credits that are used past all this
//!   handle_reconfigure ─▶ reconfigure                                         another configuration, no call lost
//!   handle_keyed_request, poll_joined ─▶ join                                 one run for several callers
//!   poll_hedge ─▶ hedge                                                       a second attempt at a slow call
//!   look_at_queues, call_view ─▶ blocked, explain                             why a call waits
//!   poll_places, handle_keeper_attached ─▶ pool                               how many workers there are to be
//! ```
//!
//! In: events with their time (`handle_*`).  Out: what the router shall do (`poll_*`), in the same turn.
//! Owns: ids, stamps and lists of indices; never a payload byte, which stays with the router under the same slot.
//! Always: every admitted call gets exactly one answer (or its client is gone), and never starts once it is answered
//! `Expired`. Same inputs, same outputs, same order.
//! Never: reads a clock, does I/O, takes a lock, hashes, or panics on what a client or a worker says. In steady state
//! it allocates nothing: tables grow to their high-water mark and stay.
//! Why one struct whose stages are files: a call touches all of them, and the borrow checker then sees that they do
//! not overlap. Reading order: [`invocation`] (the life), `admission`, `run_queue`, `dispatch`, `reply`, then
//! `deadlines`, `cancellation`, `attachment`; [`worker`] (the other life), `timers`, [`limits`], [`counters`].
//! Tests: `tests/` tells the stories, `tests/random.rs` checks the promises against an oracle.

#![forbid(unsafe_code)]

mod admission;
mod ageing;
mod attachment;
pub mod backpressure;
mod batch;
mod blocked;
pub mod breaker;
mod budget;
mod callers;
mod canary;
mod cancellation;
mod chance;
mod circles;
pub mod counters;
mod deadlines;
mod delayed;
mod dispatch;
mod drain_rate;
mod estimate;
mod explain;
mod fallback;
mod function;
mod gates;
mod hedge;
mod held;
mod invariants;
pub mod invocation;
mod join;
mod lease;
pub mod limits;
mod nesting;
mod opportunistic;
mod permits;
mod policy;
mod pool;
mod quantile;
mod quarantine;
mod rate;
mod reconfigure;
mod reply;
mod reserve;
mod retry;
mod run_ahead;
mod run_queue;
mod slab;
mod slow_start;
#[cfg(test)]
mod snapshot;
mod stamps;
pub mod tenant;
#[cfg(test)]
mod tests;
mod time;
mod timers;
mod turns;
pub mod warming;
pub mod worker;

use std::collections::VecDeque;

use protocol::FunctionId;
use queue::{LaneIndex, Links};

pub use admission::{Refused, Request, Special, Verdict};
pub use attachment::AttachRefused;
pub use backpressure::{BackpressureSpec, DownstreamView, Signal};
pub use batch::Batch;
pub use blocked::{Blocked, BlockedOn};
pub use breaker::{BreakerSpec, BreakerState};
pub use canary::CanarySpec;
pub use cancellation::{CancelReason, Cancelled};
pub use circles::WaitEvidence;
pub use counters::{COUNTER_COUNT, COUNTER_TABLE, Counter, CounterRow, Counters};
pub use deadlines::{StartEvidence, Started};
pub use dispatch::Push;
pub use explain::CallView;
pub use fallback::Fallback;
pub use function::{FunctionSpec, FunctionView};
pub use hedge::{Hedge, HedgeAfter, HedgeSpec};
pub use invocation::{InvocationId, Origin, ShardId, State};
pub use join::IdempotencyKey;
pub use lease::{Lease, LeaseRefused, Recall};
pub use limits::Limits;
pub use nesting::{CalledBy, DEPTH_MAX};
pub use permits::ledger;
pub use policy::{Policy, Quota};
pub use pool::{PlacesWanted, PoolSpec, PoolView};
pub use rate::Rate;
pub use reply::{Answer, Completed, Finished, Keep, RunOutcome};
pub use retry::RetrySpec;
pub use slow_start::SlowStart;
pub use stamps::Stamps;
pub use tenant::{TenantIndex, TenantSpec};
pub use time::Nanos;
pub use warming::{WarmPlan, Warming};
pub use worker::{KillReason, WorkerAction, WorkerId, WorkerState, WorkerView};

use chance::Chance;
use circles::Circles;
use function::Function;
use gates::Gates;
use hedge::Hedges;
use join::Joins;
use nesting::Nested;
use permits::Permits;
use pool::Pools;
use reconfigure::{check_functions, check_others};
use run_queue::ReadyFunctions;
use slab::Slab;
use timers::Timers;
use turns::Turns;
use worker::Worker;

/// The decisions of one shard.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    functions: Vec<Function>,
    /// Names in order, for `resolve`.
    names: Vec<(Box<str>, FunctionId)>,
    invocations: Slab,
    /// Lists of queued invocations: the lanes of a function. And of those who joined another one.
    run_links: Links,
    /// Lists of queued invocations that have aged, which stand in a lane too. Grows when the first one ages.
    aged_links: Links,
    /// Lists of queued nested calls of functions with a reserve, which stand in a lane too. Grows when the first one comes.
    reserve_links: Links,
    timers: Timers,
    /// By slot, what is known of nested calls. Grows when the first one comes.
    nested: Vec<Nested>,
    circles: Circles,
    joins: Joins,
    hedges: Hedges,
    /// The earliest `look_at` of all workers, or earlier.
    held_look_at: Nanos,
    ready: ReadyFunctions,
    gates: Gates,
    permits: Permits,
    /// The earliest end of a window in which something downstream limits a function, or earlier.
    pressure_look_at: Nanos,
    workers: Vec<Worker>,
    workers_vacant: Vec<u32>,
    /// At most one for each invocation slot; the router polls them all in the same turn.
    answers: VecDeque<Answer>,
    /// At most one cancel for each held call and one stop or kill for each worker.
    actions: VecDeque<WorkerAction>,
    counters: Counters,
    chance: Chance,
    /// Functions whose number of workers follows their calls.
    pools: Pools,
    /// Leases of all workers.
    lease_count: u32,
    /// Removed functions that have calls left, or had a moment ago.
    retiring: Vec<u32>,
    is_draining: bool,
}

/// What a caller wanted, for those who record calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How much it matters: 0 low to 3 critical.
    pub criticality: u8,
    /// When its answer is of no use any more.
    pub deadline_at: Nanos,
}

/// Why an engine cannot be made from this configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineRefused {
    /// A limit is outside what the engine's types hold.
    #[error("limit {0} is out of range")]
    LimitOutOfRange(&'static str),
    /// More functions than `limits.functions_max`.
    #[error("{count} functions are configured, at most {max} are allowed")]
    FunctionsFull {
        /// How many were given.
        count: usize,
        /// How many may be.
        max: u32,
    },
    /// Two functions of one name.
    #[error("function {0} is configured twice")]
    DuplicateName(String),
    /// More tenants than `limits.tenants_max`, or not even the default one.
    #[error("{count} tenants are configured, 1 to {max} are allowed")]
    TenantCount {
        /// How many were given.
        count: usize,
        /// How many may be.
        max: u16,
    },
    /// Two tenants of one name.
    #[error("tenant {0} is configured twice")]
    DuplicateTenant(String),
    /// A function of a tenant that is not in the list.
    #[error("function {0} belongs to a tenant that is not configured")]
    UnknownTenant(String),
    /// A new table gives the id of this function or tenant to another.
    #[error("{0} has not kept its place in the table")]
    PlaceTaken(String),
    /// A new table has a hole where no function ever was.
    #[error("the table gives the id {} to no function", .0.0)]
    NoName(FunctionId),
    /// A function or tenant that could never run anything.
    #[error("{name}: {field} must not be zero")]
    ZeroInSpec {
        /// Which function or tenant.
        name: String,
        /// Which field.
        field: &'static str,
    },
    /// A function whose fallback is itself, or a function that is not there.
    #[error("function {0}: its fallback is no other function")]
    FallbackOfNobody(String),
    /// A function whose canary is itself, has one too, or is not there; or takes more than all of its calls.
    #[error("function {0}: its canary is no other function without one, or has more than 100 percent")]
    CanaryOfNobody(String),
}

impl Engine {
    /// An engine for these tenants, the default one first, and these functions; the n-th of them has the id n.
    pub fn new(
        shard: ShardId,
        limits: Limits,
        tenants: Vec<TenantSpec>,
        specs: Vec<FunctionSpec>,
    ) -> Result<Engine, EngineRefused> {
        if let Some(name) = limits.first_out_of_range() {
            return Err(EngineRefused::LimitOutOfRange(name));
        }
        check_tenants(&limits, &tenants)?;
        if specs.len() > limits.functions_max as usize {
            return Err(EngineRefused::FunctionsFull { count: specs.len(), max: limits.functions_max });
        }
        let mut names = Vec::with_capacity(specs.len());
        check_functions(specs.iter(), tenants.len())?;
        check_others(&specs.iter().map(Some).collect::<Vec<_>>())?;
        for (spec, number) in specs.iter().zip(0..) {
            names.push((spec.name.clone().into_boxed_str(), FunctionId(number)));
        }
        names.sort();
        let is_host_limited = is_host_limited(&limits, specs.iter());
        let make = |spec: FunctionSpec| {
            let tenant = &tenants[usize::from(spec.tenant.0)];
            Function::new(spec, tenant, is_host_limited, &limits)
        };
        let functions: Vec<_> = specs.into_iter().map(make).collect();
        let turns = limits.running_max.map(|_| Turns::new(&tenants));
        let mut engine = Engine {
            invocations: Slab::new(shard, limits.invocations_max),
            run_links: Links::with_capacity(0),
            aged_links: Links::with_capacity(0),
            reserve_links: Links::with_capacity(0),
            timers: Timers::new(),
            nested: Vec::new(),
            circles: Circles::new(),
            joins: Joins::new(),
            hedges: Hedges::new(),
            held_look_at: Nanos::NEVER,
            ready: ReadyFunctions::new(functions.len() as u32, turns, tenants.len()),
            gates: Gates::new(),
            permits: Permits::new(&limits, tenants),
            pressure_look_at: Nanos::NEVER,
            functions,
            names,
            workers: Vec::new(),
            workers_vacant: Vec::new(),
            answers: VecDeque::new(),
            actions: VecDeque::new(),
            counters: Counters::default(),
            chance: Chance::new(0),
            pools: Pools::new(),
            lease_count: 0,
            retiring: Vec::new(),
            is_draining: false,
            limits,
        };
        for number in 0..engine.functions.len() as u32 {
            engine.set_pool(number, true);
        }
        Ok(engine)
    }

    /// What chance is drawn from, where calls are to be spread in time. Without it: always the same.
    pub fn seed_chance(&mut self, seed: u64) {
        self.chance = Chance::new(seed);
    }

    /// The function of this name.
    pub fn resolve(&self, name: &str) -> Option<FunctionId> {
        let position = self.names.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.names[position].1)
    }

    /// Takes no new calls from now on (`Draining`); those admitted are finished. Done when `is_idle`.
    pub fn handle_drain(&mut self) {
        self.is_draining = true;
    }

    /// When `handle_time`, or `handle_waits`, wants to be called next; in the past if it had more to do than one call may.
    pub fn next_timer(&self) -> Option<Nanos> {
        // What is left of calls that are answered by now is no reason to wake.
        let held = (self.in_flight() > 0 && self.held_look_at != Nanos::NEVER).then_some(self.held_look_at);
        let pressure = (self.pressure_look_at != Nanos::NEVER).then_some(self.pressure_look_at);
        let times = self.timers.next().into_iter().chain(held).chain(self.gates.next()).chain(pressure);
        times.chain(self.circles.next()).chain(self.pools.next()).min()
    }

    /// A hint: the end of this call will be handled soon. Any number will do.
    #[inline]
    pub fn prefetch(&self, invocation: InvocationId) {
        self.invocations.prefetch(invocation.slot());
    }

    /// Whether this call has no answer yet, and somebody who waits for one.
    pub fn owes_answer(&self, invocation: InvocationId) -> bool {
        let slot = self.invocations.slot_of(invocation);
        slot.is_some_and(|slot| self.invocations.at(slot).state.is_unanswered())
    }

    /// What a call wanted that was answered just now: until the next `handle_request` its slot still tells.
    #[inline]
    pub fn asked(&self, invocation: InvocationId) -> Asked {
        let call = self.invocations.at(invocation.slot());
        let criticality = LaneIndex::from_index(call.lane.into()).criticality();
        Asked { criticality, deadline_at: call.deadline_at }
    }

    /// Nothing admitted is unfinished and nothing waits to be polled.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.answers.is_empty() && self.actions.is_empty() && self.pools.is_quiet()
    }

    /// Invocation slots in use: unanswered, answered and not polled, or still in a worker's hands.
    pub fn in_flight(&self) -> u32 {
        self.invocations.in_use()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The bounds this engine was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All tenants by index.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &TenantSpec> {
        self.permits.tenants()
    }

    /// All functions by id.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = FunctionView<'_>> {
        self.functions.iter().map(|function| function.view(&self.invocations, &self.workers))
    }

    /// One function as it is now.
    pub fn function_view(&self, id: FunctionId) -> Option<FunctionView<'_>> {
        self.functions.get(id.0 as usize).map(|function| function.view(&self.invocations, &self.workers))
    }

    /// One worker as it is now; none if it is not attached (any more).
    pub fn worker_view(&self, id: WorkerId) -> Option<WorkerView> {
        self.attached(id).map(|index| self.workers[index as usize].view())
    }
}

/// Whether it has to be known how many workers are busy.
pub(crate) fn is_host_limited<'a>(
    limits: &Limits,
    mut specs: impl Iterator<Item = &'a FunctionSpec>,
) -> bool {
    limits.running_max.is_some() || specs.any(|spec| spec.policy.quota == Quota::Opportunistic)
}

fn check_tenants(limits: &Limits, tenants: &[TenantSpec]) -> Result<(), EngineRefused> {
    if tenants.is_empty() || tenants.len() > usize::from(limits.tenants_max) {
        return Err(EngineRefused::TenantCount { count: tenants.len(), max: limits.tenants_max });
    }
    for (index, tenant) in tenants.iter().enumerate() {
        if tenant.weight == 0 {
            return Err(EngineRefused::ZeroInSpec { name: tenant.name.clone(), field: "weight" });
        }
        if tenants.iter().take(index).any(|earlier| earlier.name == tenant.name) {
            return Err(EngineRefused::DuplicateTenant(tenant.name.clone()));
        }
    }
    Ok(())
}
