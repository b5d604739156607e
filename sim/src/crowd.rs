//! Many callers on one host, at their own pace: how long they wait for each other, in virtual time, through real engines.
//!
//! In: a seed and one of four matters: tenants beside one that floods, shards that share a ledger, a queue that is bounded
//! in time, a function that is pushed back.  Out: what happened, or the first broken contract.
//! Always: a call of an event of the plan; events can be left out one by one, and the rest happens as it would have.
//! Modelled: a worker runs one call at a time, begins it when it is pushed, and answers when it is done.
//! Never: a ring, a shim or a client that misbehaves otherwise than by calling too much: `world.rs` has those. Here nothing
//! happens between two moments in which something is due, so that delays can be held to bounds.
//! Files: `fairness.rs`, `sharing.rs`, `queue_delay.rs`, `pressure.rs` hold the contracts; `flood.rs` is a figure of the page.

mod fairness;
mod flood;
mod pressure;
mod queue_delay;
mod sharing;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use engine::{
    Engine, Finished, FunctionSpec, InvocationId, Limits, Nanos, Origin, Policy, Push, Request, RunOutcome,
    ShardId, Started, TenantIndex, TenantSpec, Verdict, WorkerId, ledger,
};
use protocol::{CallId, Flags, FunctionId};

use crate::chance::Chance;
use crate::contract::Broken;
use crate::history::History;
use crate::plan::Keep;
use crate::totals::Totals;
use crate::world::Options;

pub use flood::Flood;

/// What a crowd is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    /// Tenants take turns for the host's places, and one or two of them always want more.
    Neighbours,
    /// Two shards share the limits of functions and tenants.
    Shards,
    /// A function's queue is bounded in time.
    QueueDelay,
    /// A function is pushed back by what is downstream of it.
    Pressure,
}

/// What somebody wants to know of how long calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// How long.
    Length,
    /// The same, and whether each is within the bound: the tenant never has more than its share.
    Bound,
}

/// A tenant, and the one function that it has.
#[derive(Debug)]
struct Tenant {
    spec: TenantSpec,
    function: FunctionSpec,
    /// Calls wait for it whenever one may.
    is_flooding: bool,
    /// What is asked about the delays of its calls.
    delays: Asked,
    run_ns_min: u64,
    run_ns_max: u64,
    /// The longest run that it has asked for.
    run_ns_seen: u64,
    /// When it calls next, if it is asked to.
    calls_at_ns: u64,
    /// What its calls have used.
    used_ns: u64,
    waiting: [u32; SHARDS_MAX],
    running: [u32; SHARDS_MAX],
}

const SHARDS_MAX: usize = 2;
/// Calls of a flood that wait: more than are pushed at one moment.
const FLOOD_QUEUE: u32 = 32;
/// Of the events of the plan, which are many because those of other scenarios are short.
const EVENTS_EVERY: u32 = 10;

#[derive(Clone, Copy, Debug)]
struct Call {
    tenant: usize,
    shard: usize,
    asked_at_ns: u64,
    run_ns: u64,
    started_at_ns: u64,
    worker: Option<WorkerId>,
}

/// Everything in one run.
pub struct Crowd {
    options: Options,
    matter: Matter,
    now_ns: u64,
    engines: Vec<Engine>,
    /// Of each shard that may be busy.
    places: u32,
    /// Of each function at each shard.
    workers: u32,
    /// Nobody calls any more.
    is_over: bool,
    tenants: Vec<Tenant>,
    calls: BTreeMap<InvocationId, Call>,
    running: BinaryHeap<Reverse<(u64, InvocationId)>>,
    shares: fairness::Shares,
    unblocked_at_ns: BTreeMap<(usize, usize), u64>,
    /// Since when calls wait without a break.
    busy_since_ns: Option<u64>,
    pressure: pressure::Seen,
    totals: Totals,
    pub event_count: usize,
    pub history: History,
}

impl Crowd {
    /// A host on which nobody has called yet.
    pub fn new(options: Options, matter: Matter) -> Crowd {
        let mut chance = Chance::new(options.seed);
        let places = 1 + chance.below(4) as u32;
        let tenants: Vec<_> = match matter {
            Matter::Neighbours => fairness::tenants(&mut chance),
            Matter::Shards => sharing::tenants(&mut chance),
            Matter::QueueDelay => queue_delay::tenants(&mut chance),
            Matter::Pressure => pressure::tenants(&mut chance),
        };
        Crowd::with(options, matter, places, tenants)
    }

    /// One of these tenants, who may have so many calls running at each shard.
    fn with(options: Options, matter: Matter, places: u32, tenants: Vec<Tenant>) -> Crowd {
        let shard_count = if matter == Matter::Shards { SHARDS_MAX } else { 1 };
        let limits = Limits {
            running_max: (matter == Matter::Neighbours).then_some(places),
            // One call at a time, so that the time to a free place is that of a call.
            run_ahead: Nanos(1),
            direct_depth_min: None,
            ..Limits::default()
        };
        let shared = Arc::new(ledger(&limits));
        let mut engines = Vec::new();
        for shard in 0..shard_count {
            let specs = |tenant: &Tenant| tenant.spec.clone();
            let functions = tenants.iter().map(|tenant| tenant.function.clone()).collect();
            let mut engine = Engine::new(
                ShardId(shard as u8),
                limits.clone(),
                tenants.iter().map(specs).collect(),
                functions,
            )
            .expect("a sound configuration");
            engine.share_ledger(shared.clone());
            for number in 0..tenants.len() as u32 {
                // One more than can be busy: nobody waits for a worker.
                for _ in 0..=places {
                    let attached = engine.handle_worker_attached(Nanos(1), FunctionId(number), 1);
                    attached.expect("room for a few workers");
                }
            }
            engines.push(engine);
        }
        Crowd {
            options,
            matter,
            now_ns: 1,
            engines,
            places,
            workers: places + 1,
            is_over: false,
            shares: fairness::Shares::new(tenants.len()),
            tenants,
            calls: BTreeMap::new(),
            running: BinaryHeap::new(),
            unblocked_at_ns: BTreeMap::new(),
            busy_since_ns: None,
            pressure: pressure::Seen::default(),
            totals: Totals::default(),
            event_count: 0,
            history: History::new(options.is_history_kept),
        }
    }

    /// Lets the kept events happen, and then everything end. Answers what happened or what broke.
    pub fn run(&mut self, keep: &Keep) -> Result<Totals, Broken> {
        for kept in keep.kept() {
            self.event_count += 1;
            let is_quick = matches!(self.matter, Matter::QueueDelay | Matter::Pressure);
            if kept.index.is_multiple_of(EVENTS_EVERY) || is_quick {
                let seed = self.options.seed ^ ((u64::from(kept.index) + 1) << 24);
                self.event(&mut Chance::new(seed), kept.divisor)?;
                self.engines.iter().for_each(Engine::invariants);
            }
        }
        self.is_over = true;
        self.advance(u64::MAX)?;
        Ok(std::mem::take(&mut self.totals))
    }

    fn event(&mut self, chance: &mut Chance, divisor: u64) -> Result<(), Broken> {
        match self.matter {
            Matter::Neighbours => self.neighbour_calls(chance, divisor),
            Matter::Shards => self.somebody_does_something(chance, divisor),
            Matter::QueueDelay => self.somebody_queues(chance, divisor),
            Matter::Pressure => self.somebody_is_pushed_back(chance, divisor),
        }
    }

    /// A tenant calls its function at this shard. Whether the call was admitted.
    fn ask(&mut self, shard: usize, number: usize, run_ns: u64) -> bool {
        let request = Request {
            origin: Origin { connection: 0, connection_generation: 0, call_id: CallId(0) },
            received_at: Nanos(self.now_ns),
            function: FunctionId(number as u32),
            criticality: 1,
            budget_us: 0,
            payload_size: 0,
            flags: Flags::NONE,
        };
        match self.engines[shard].handle_request(Nanos(self.now_ns), request) {
            Verdict::Admitted(id) => {
                let tenant = &mut self.tenants[number];
                tenant.waiting[shard] += 1;
                tenant.run_ns_seen = tenant.run_ns_seen.max(run_ns);
                if !tenant.is_flooding {
                    self.history.note(self.now_ns, || format!("tenant {number} calls: {id:?}"));
                }
                let asked_at_ns = self.now_ns;
                let call =
                    Call { tenant: number, shard, asked_at_ns, run_ns, started_at_ns: 0, worker: None };
                self.calls.insert(id, call);
                true
            }
            Verdict::Refused(refused) => {
                *self.totals.refusals.entry(refused.status.name()).or_default() += 1;
                false
            }
            Verdict::Pushed(_) | Verdict::Fallback(_) => {
                unreachable!("every call stands in its queue, and no function has a fallback")
            }
        }
    }

    /// Everything that happens until then.
    fn advance(&mut self, until_ns: u64) -> Result<(), Broken> {
        loop {
            let ends_at_ns = self.running.peek().map(|next| next.0.0);
            let timers = self.engines.iter().filter_map(|engine| engine.next_timer());
            let due_at_ns = timers.map(|at| at.0.max(self.now_ns + 1)).chain(ends_at_ns).min();
            let Some(at_ns) = due_at_ns.filter(|at_ns| *at_ns <= until_ns) else { break };
            // What is left when nothing runs is the timers of calls that wait for nobody.
            if until_ns == u64::MAX && self.calls.is_empty() {
                break;
            }
            self.moment(at_ns)?;
        }
        if until_ns != u64::MAX {
            self.moment(until_ns)?;
        }
        Ok(())
    }

    /// What is due now: calls end, and others begin.
    fn moment(&mut self, now_ns: u64) -> Result<(), Broken> {
        self.now_ns = now_ns;
        while let Some(Reverse((_, id))) = self.running.peek().copied().filter(|next| next.0.0 <= now_ns) {
            self.running.pop();
            self.end(id);
        }
        for shard in 0..self.engines.len() {
            self.engines[shard].handle_time(Nanos(now_ns), &|_, _| Started::Yes);
            self.flood(shard);
            while let Some(push) = self.engines[shard].poll_push(Nanos(now_ns)) {
                self.begin(push)?;
            }
            self.flood(shard);
            while let Some(answer) = self.engines[shard].poll_answer() {
                self.forget(answer.invocation);
            }
            while self.engines[shard].poll_worker_action().is_some() {}
        }
        self.check_shares()?;
        self.look_at_pressure()?;
        self.check_room()
    }

    /// Tenants that always want more have calls waiting.
    fn flood(&mut self, shard: usize) {
        if self.is_over {
            return;
        }
        for number in 0..self.tenants.len() {
            let tenant = &self.tenants[number];
            let run_ns = tenant.run_ns_max;
            for _ in tenant.waiting[shard]..if tenant.is_flooding { FLOOD_QUEUE } else { 0 } {
                self.ask(shard, number, run_ns);
            }
        }
    }

    fn begin(&mut self, push: Push) -> Result<(), Broken> {
        let call = self.calls.get_mut(&push.invocation).expect("what is pushed was admitted");
        call.started_at_ns = self.now_ns;
        call.worker = Some(push.worker);
        let call = *call;
        let tenant = &mut self.tenants[call.tenant];
        tenant.waiting[call.shard] -= 1;
        tenant.running[call.shard] += 1;
        self.totals.starts += 1;
        self.running.push(Reverse((self.now_ns + call.run_ns, push.invocation)));
        self.history.note(self.now_ns, || format!("{:?} of tenant {} begins", push.invocation, call.tenant));
        self.check_concurrency(&call)?;
        self.check_delay(&call)?;
        self.check_pressure()?;
        self.check_queue_delay(&call)
    }

    /// A run is over, unless its worker was lost before.
    fn end(&mut self, id: InvocationId) {
        let Some(call) = self.calls.get(&id).copied() else { return };
        let Some(worker) = call.worker else { return };
        if call.started_at_ns + call.run_ns > self.now_ns {
            return;
        }
        let (started_at, finished_at) = (Nanos(call.started_at_ns), Nanos(self.now_ns));
        let finished = Finished { outcome: RunOutcome::Backpressure, started_at, finished_at };
        if !self.is_pushed_back(worker, id, finished) {
            let finished = Finished { outcome: RunOutcome::Ok, ..finished };
            self.engines[call.shard].handle_completion(Nanos(self.now_ns), worker, id, finished);
            *self.totals.answers.entry("ok").or_default() += 1;
        }
        self.tenants[call.tenant].used_ns += call.run_ns;
        self.forget(id);
    }

    fn forget(&mut self, id: InvocationId) {
        let Some(call) = self.calls.remove(&id) else { return };
        let tenant = &mut self.tenants[call.tenant];
        match call.worker {
            Some(_) => tenant.running[call.shard] -= 1,
            None => tenant.waiting[call.shard] -= 1,
        }
    }
}

/// A tenant and its function, with nothing that bounds either.
fn tenant(number: usize, weight: u32, policy: Policy) -> Tenant {
    let name = if number == 0 { "default".to_owned() } else { format!("tenant-{number}") };
    Tenant {
        spec: TenantSpec { weight, ..TenantSpec::named(&name) },
        function: FunctionSpec {
            tenant: TenantIndex(number as u16),
            timeout: Nanos::from_secs(1 << 20),
            policy,
            ..FunctionSpec::named(name)
        },
        is_flooding: false,
        delays: Asked::Nothing,
        run_ns_min: 1,
        run_ns_max: 1,
        run_ns_seen: 0,
        calls_at_ns: 0,
        used_ns: 0,
        waiting: [0; SHARDS_MAX],
        running: [0; SHARDS_MAX],
    }
}
