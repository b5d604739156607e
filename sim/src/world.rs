//! One run: callers, router, shim and processes do one thing after the other, as the plan says.
//!
//! In: a seed, a scenario, and which events of its plan happen.  Out: what happened, or the first broken contract.
//! Always: after each event the engine's own invariants hold, and after each turn of the router what the oracle counts
//! is what the engine counts.
//! Reading order: this file is the world and its time; `clients.rs` asks, `refusals.rs` knows who may not, `policies.rs`
//! configures, `processes.rs` runs, `pools.rs` says how many, `nested.rs` is what runs ask for, `faults.rs` breaks; `account.rs` tells the oracle.

mod account;
mod clients;
mod faults;
mod leases;
mod nested;
mod policies;
mod pools;
mod processes;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};

use engine::{Engine, FunctionSpec, Lease, Limits, Nanos, TenantSpec, WorkerState};
use pools::Pools;

use crate::chance::Chance;
use crate::contract::{Broken, Contract, Judge};
use crate::history::History;
use crate::oracle::{Bounds, CallKey, Oracle};
use crate::plan::{Event, Keep, Kind, plan};
use crate::router::{Router, SLOT_COUNT, Shard, Table};
use crate::rules::Rules;
use crate::scenario::{Policies, Scenario};
use crate::service::ServiceTime;
use crate::shim::{Keeper, ProcessId};
use crate::totals::Totals;
use crate::worker::Process;

/// What a run is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub scenario: &'static Scenario,
    /// Events of the plan.
    pub steps: u32,
    pub judge: Judge,
    /// Somebody will read the history.
    pub is_history_kept: bool,
}

/// A function as everybody but the engine sees it.
#[derive(Clone, Debug)]
struct Function {
    spec: FunctionSpec,
    service: ServiceTime,
    needs_downstream: bool,
    /// Calls that one of its processes runs at once.
    parallel_max: usize,
    error_per_mille: u64,
    /// It is not configured any more.
    is_removed: bool,
    /// Its processes die when they attach, until then.
    crashes_until_ns: u64,
    /// The shards that were told that its processes keep failing, and to which none has attached since.
    failing_on: BTreeSet<usize>,
}

const PLACES_PER_FUNCTION: u32 = 2;
/// Turns a run may take to finish what it began. Each lets up to 8 ms pass; the longest time-out is 2 s.
const DRAIN_TURNS_MAX: u32 = 20_000;

/// Everything in one run.
pub struct World {
    options: Options,
    /// For what happens in every event, set anew by each.
    chance: Chance,
    now_ns: u64,
    /// None while it is dead.
    router: Option<Router>,
    router_back_at_ns: u64,
    epoch: u32,
    limits: Limits,
    tenants: Vec<TenantSpec>,
    functions: Vec<Function>,
    /// By shard.
    rules: Vec<Rules>,
    /// Credits that are lent, and whose.
    leases: Vec<(Lease, ProcessId)>,
    keepers: Vec<Keeper>,
    pools: Pools,
    shim_back_at_ns: Option<u64>,
    processes: BTreeMap<ProcessId, Process>,
    process_count: u64,
    /// Ended, and not yet noticed by the shim.
    ended: Vec<ProcessId>,
    /// Ended, and not yet noticed by the router.
    unseen: Vec<ProcessId>,
    /// Closed their sockets: killed if they are still there then.
    leaving: Vec<(u64, ProcessId)>,
    liars: BTreeSet<ProcessId>,
    downstream_slow_until_ns: u64,
    /// Connections that ended with their processes, and not yet noticed by the router.
    gone_clients: Vec<u32>,
    /// Admitted calls whose caller waits, by client.
    open: Vec<(u32, CallKey)>,
    call_count: u64,
    oracle: Oracle,
    totals: Totals,
    /// Events that happened so far.
    pub event_count: usize,
    /// What happened in them.
    pub history: History,
}

impl World {
    /// A world at its beginning.
    pub fn new(options: Options) -> Self {
        let mut chance = Chance::new(options.seed);
        let functions: Vec<_> = (0..3 + chance.below(3))
            .map(|number| Function {
                spec: policies::any_function(number, options.scenario.policies, &mut chance),
                service: match options.scenario.policies {
                    Policies::Hedges if chance.per_mille(700) => ServiceTime::uneven(&mut chance),
                    _ => ServiceTime::any(&mut chance),
                },
                needs_downstream: chance.per_mille(options.scenario.downstream_per_mille),
                parallel_max: if chance.per_mille(options.scenario.parallel_per_mille) { 3 } else { 1 },
                error_per_mille: options.scenario.error_per_mille,
                is_removed: false,
                crashes_until_ns: 0,
                failing_on: BTreeSet::new(),
            })
            .collect();
        let tenants = policies::any_tenants(options.scenario.policies, &mut chance);
        let limits = limits(options.scenario.policies, &mut chance);
        let bounds = Bounds {
            slot_count: SLOT_COUNT,
            invocations_max: limits.invocations_max,
            kill_grace_ns: limits.kill_grace.0,
            running_max: limits.running_max,
        };
        let mut world = Self {
            options,
            chance,
            now_ns: 1,
            router: None,
            router_back_at_ns: 0,
            epoch: 0,
            keepers: Vec::new(),
            pools: Pools::default(),
            shim_back_at_ns: Some(0),
            limits,
            tenants,
            functions,
            rules: Vec::new(),
            leases: Vec::new(),
            processes: BTreeMap::new(),
            process_count: 0,
            ended: Vec::new(),
            unseen: Vec::new(),
            leaving: Vec::new(),
            liars: BTreeSet::new(),
            downstream_slow_until_ns: 0,
            gone_clients: Vec::new(),
            open: Vec::new(),
            call_count: 0,
            oracle: Oracle::new(options.judge, bounds),
            totals: Totals::default(),
            event_count: 0,
            history: History::new(options.is_history_kept),
        };
        world.start_what_is_due();
        world
    }

    /// Runs the events to keep, and then what is left to do. Answers what happened or what broke.
    pub fn run(&mut self, keep: &Keep) -> Result<Totals, Broken> {
        let events = plan(self.options.seed, self.options.scenario, self.options.steps);
        let kept = keep.kept().iter().filter_map(|kept| Some((kept, events.get(kept.index as usize)?)));
        for (kept, event) in kept {
            self.event_count += 1;
            self.happen(Event { length_ns: event.length_ns / kept.divisor, ..*event })?;
        }
        self.finish()?;
        self.totals.answers = self.oracle.statuses();
        self.totals.starts = self.oracle.start_count();
        Ok(std::mem::take(&mut self.totals))
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        self.chance = Chance::new(event.salt);
        match event.kind {
            Kind::Pass => self.now_ns += event.length_ns,
            Kind::Jump => self.jump(event.length_ns),
            Kind::Submit => self.submit()?,
            Kind::Cancel => self.cancel()?,
            Kind::LoseClient => self.lose_client()?,
            Kind::Shim => self.shim_step(),
            Kind::Work => self.work()?,
            Kind::WorkOne => self.work_one()?,
            Kind::Turn => self.turn()?,
            Kind::Herd => self.herd()?,
            Kind::Later => self.later()?,
            Kind::Flood => self.flood()?,
            Kind::Hostile => self.hostile()?,
            Kind::KillWorker => self.kill_worker(),
            Kind::CloseSocket => self.close_socket(),
            Kind::Stall => self.stall(event.length_ns),
            Kind::Scribble => self.scribble(),
            Kind::KillRouter => self.kill_router(event.length_ns),
            Kind::KillShim => self.kill_shim(event.length_ns),
            Kind::Overload => self.overload(event.length_ns),
            Kind::CrashLoop => self.crash_loop(event.length_ns),
            Kind::Reload => self.reload()?,
            Kind::Lease => self.lease()?,
            Kind::EndLease => self.end_lease(),
        }
        self.engine_invariants();
        Ok(())
    }

    /// No more events: what was begun ends, and afterwards nothing is left over.
    fn finish(&mut self) -> Result<(), Broken> {
        self.chance = Chance::new(self.options.seed ^ 0x454E_4400);
        while !self.leases.is_empty() {
            self.end_lease();
        }
        for _ in 0..DRAIN_TURNS_MAX {
            let is_over = self.router.as_ref().is_some_and(Router::is_idle);
            if is_over {
                break;
            }
            self.now_ns += self.chance.length(23);
            self.shim_step();
            self.work()?;
            for _ in 0..self.options.scenario.shard_count {
                self.turn()?;
            }
            self.engine_invariants();
        }
        self.oracle.ended()?;
        let in_flight = self.router.as_ref().map_or(0, Router::in_flight);
        self.options.judge.check(Contract::Slots, in_flight == 0, || {
            format!("{in_flight} invocation slots leaked: nothing is left to happen")
        })?;
        self.refuse_while_draining()
    }

    /// Router and shim, if they are due to be back.
    fn start_what_is_due(&mut self) {
        if self.router.is_none() && self.router_back_at_ns <= self.now_ns {
            self.epoch += 1;
            let table = Table {
                limits: &self.limits,
                tenants: &self.tenants,
                functions: self.functions.iter().map(|function| function.spec.clone()).collect(),
                seed: self.options.seed,
            };
            let shard_count = self.options.scenario.shard_count;
            self.router = Some(Router::new(self.epoch, shard_count, &table));
            let rules = || Rules::new(&self.tenants, self.functions.iter().map(|function| &function.spec));
            self.rules = (0..shard_count).map(|_| rules()).collect();
            self.leases.clear();
            for function in &mut self.functions {
                function.failing_on.clear();
            }
            self.apply();
            self.begin_pools();
            self.note(|world| format!("router {} starts", world.epoch));
        }
        if self.shim_back_at_ns.take_if(|at_ns| *at_ns <= self.now_ns).is_some() {
            let now_ns = self.now_ns;
            let count = self.functions.len() as u32;
            let places = |number| (0..self.places_at_first(number)).map(move |_| Keeper::new(number, now_ns));
            self.keepers = (0..count).flat_map(places).collect();
            self.begin_pools();
            self.note(|_| "a shim starts".to_owned());
        }
    }

    /// One turn of one of the router's shards, and what can be seen of it from outside.
    fn turn(&mut self) -> Result<(), Broken> {
        self.start_what_is_due();
        self.router_notices()?;
        let Some(router) = &mut self.router else { return Ok(()) };
        let shard = self.chance.below(router.shards.len() as u64) as u8;
        self.history.note(self.now_ns, || format!("the turn of shard {shard}"));
        let mut did = Vec::new();
        router.shards[usize::from(shard)].turn(Nanos(self.now_ns), &mut did);
        self.account(did)?;
        self.oracle.turned(self.now_ns, shard)?;
        self.recall_leases()?;
        self.look_at_seats()?;
        self.look_at_pools()?;
        self.look_for_idle(shard)?;
        self.look_for_circles(shard)?;
        self.look_for_unwanted(shard)
    }

    /// What the engine counts must be what the oracle counts.
    fn look_at_seats(&self) -> Result<(), Broken> {
        let Some(router) = &self.router else { return Ok(()) };
        let judge = self.options.judge;
        let (in_use, expected) = (router.in_flight(), self.oracle.in_flight(|key| key.epoch == self.epoch));
        judge.check(Contract::Slots, in_use == expected, || {
            format!("{in_use} invocation slots are in use, and {expected} calls are in flight")
        })?;
        for seat in router.shards.iter().flat_map(Shard::seats) {
            // What a quarantined worker holds was taken from it.
            if seat.state == WorkerState::Quarantined {
                continue;
            }
            let held_count = self.oracle.held_count(seat.process);
            let leased_count = self.leased_count(router, seat.process);
            judge.check(Contract::Slots, seat.credits + held_count + leased_count == SLOT_COUNT, || {
                let (process, credits) = (seat.process, seat.credits);
                format!(
                    "{process:?} holds {held_count} calls, has lent {leased_count} slots and has {credits} credits \
                     of {SLOT_COUNT}"
                )
            })?;
        }
        Ok(())
    }

    /// Nobody waits for a worker that has nothing to do, except for a limit.
    fn look_for_idle(&mut self, shard: u8) -> Result<(), Broken> {
        let Some(router) = &self.router else { return Ok(()) };
        let idle: BTreeMap<_, _> = router.shards[usize::from(shard)]
            .seats()
            .filter(|seat| seat.state == WorkerState::Idle)
            .map(|seat| (seat.function, seat.process))
            .collect();
        for queue in (0..self.functions.len() as u32).map(|number| (shard, number)) {
            let waiting = self.oracle.any_waiting(self.now_ns, queue);
            let (Some(key), Some(process)) = (waiting, idle.get(&queue.1)) else {
                self.oracle.waits_for_nothing(queue);
                continue;
            };
            let is_right = self.oracle.waits_beside_idle(self.now_ns, queue);
            self.options.judge.check(Contract::NoIdle, is_right, || {
                format!("{key:?} waits though {process:?} has nothing to do")
            })?;
        }
        Ok(())
    }

    /// Whoever runs what nobody waits for any more can see that after the turn.
    fn look_for_unwanted(&self, shard: u8) -> Result<(), Broken> {
        let Some(router) = &self.router else { return Ok(()) };
        let is_there = |key: &CallKey| key.epoch == self.epoch && key.shard() == shard;
        let is_honest =
            |name: &&ProcessId| !self.liars.contains(name) && router.shards[usize::from(shard)].has(**name);
        for (name, process) in self.processes.iter().filter(|(name, _)| is_honest(name)) {
            for (key, is_asked_to_stop) in process.runs().filter(|(key, _)| is_there(key)) {
                let is_right = is_asked_to_stop || self.oracle.is_wanted(key);
                self.options.judge.check(Contract::Stop, is_right, || {
                    format!("{name:?} runs {key:?}, which nobody waits for, and is not asked to stop")
                })?;
            }
        }
        Ok(())
    }

    fn engine_invariants(&self) {
        if let Some(router) = &self.router {
            router.engines().for_each(Engine::invariants);
        }
    }

    fn note(&mut self, line: impl FnOnce(&World) -> String) {
        let mut history = std::mem::take(&mut self.history);
        history.note(self.now_ns, || line(self));
        self.history = history;
    }
}

/// Small, so that everything is full often.
fn limits(policies: Policies, chance: &mut Chance) -> Limits {
    let is_host_limited = policies == Policies::Limits && chance.per_mille(500);
    Limits {
        invocations_max: 64,
        workers_max: if policies == Policies::Pools { 32 } else { 12 },
        direct_depth_min: Some(2),
        running_max: is_host_limited.then(|| 1 + chance.below(5) as u32),
        start_after_max: Nanos::from_ms(200),
        ..Limits::default()
    }
}
