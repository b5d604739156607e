//! One run: callers, router, shim and processes do one thing after the other, as the plan says.
//!
//! In: a seed, a scenario, and which events of its plan happen.  Out: what happened, or the first broken contract.
//! Always: after each event the engine's own invariants hold, and after each turn of the router what the oracle counts
//! is what the engine counts.
//! Reading order: this file is the world and its time; `clients.rs` asks, `policies.rs` configures, `processes.rs` runs,
//! `faults.rs` breaks.

mod clients;
mod faults;
mod policies;
mod processes;

use std::collections::{BTreeMap, BTreeSet};

use engine::{Engine, FunctionSpec, Lease, Limits, Nanos, ShardId, TenantSpec, WorkerState};

use crate::chance::Chance;
use crate::contract::{Broken, Contract, Judge};
use crate::history::History;
use crate::oracle::{Bounds, CallKey, Oracle};
use crate::plan::{Event, Keep, Kind, plan};
use crate::router::{Did, Router, SLOT_COUNT};
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
    /// The router was told that its processes keep failing, and none has attached since.
    is_failing: bool,
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
    rules: Rules,
    /// Credits that are lent, and whose.
    leases: Vec<(Lease, ProcessId)>,
    keepers: Vec<Keeper>,
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
                service: ServiceTime::any(&mut chance),
                needs_downstream: chance.per_mille(options.scenario.downstream_per_mille),
                parallel_max: if chance.per_mille(300) { 3 } else { 1 },
                error_per_mille: options.scenario.error_per_mille,
                is_removed: false,
                crashes_until_ns: 0,
                is_failing: false,
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
            shim_back_at_ns: Some(0),
            limits,
            tenants,
            functions,
            rules: Rules::default(),
            leases: Vec::new(),
            processes: BTreeMap::new(),
            process_count: 0,
            ended: Vec::new(),
            unseen: Vec::new(),
            leaving: Vec::new(),
            liars: BTreeSet::new(),
            downstream_slow_until_ns: 0,
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
            let is_over = self.router.as_ref().is_some_and(|router| router.engine.is_idle());
            if is_over {
                break;
            }
            self.now_ns += self.chance.length(23);
            self.shim_step();
            self.work()?;
            self.turn()?;
            self.engine_invariants();
        }
        self.oracle.ended()?;
        let in_flight = self.router.as_ref().map_or(0, |router| router.engine.in_flight());
        self.options.judge.check(Contract::Slots, in_flight == 0, || {
            format!("{in_flight} invocation slots leaked: nothing is left to happen")
        })?;
        self.refuse_while_draining()
    }

    /// Router and shim, if they are due to be back.
    fn start_what_is_due(&mut self) {
        if self.router.is_none() && self.router_back_at_ns <= self.now_ns {
            self.epoch += 1;
            let specs = self.functions.iter().map(|function| function.spec.clone()).collect();
            let engine = Engine::new(ShardId(0), self.limits.clone(), self.tenants.clone(), specs)
                .expect("a sound configuration");
            self.router = Some(Router::new(engine, self.epoch));
            self.rules = Rules::new(&self.tenants, self.functions.iter().map(|function| &function.spec));
            self.leases.clear();
            for function in &mut self.functions {
                function.is_failing = false;
            }
            self.apply();
            self.note(|world| format!("router {} starts", world.epoch));
        }
        if self.shim_back_at_ns.take_if(|at_ns| *at_ns <= self.now_ns).is_some() {
            let now_ns = self.now_ns;
            let count = self.functions.len() as u32;
            let keepers = (0..count * PLACES_PER_FUNCTION).map(|number| Keeper::new(number % count, now_ns));
            self.keepers = keepers.collect();
            self.note(|_| "a shim starts".to_owned());
        }
    }

    /// One turn of the router, and what can be seen of it from outside.
    fn turn(&mut self) -> Result<(), Broken> {
        self.start_what_is_due();
        self.router_notices()?;
        let Some(router) = &mut self.router else { return Ok(()) };
        self.history.note(self.now_ns, || "the router's turn".to_owned());
        let mut did = Vec::new();
        router.turn(Nanos(self.now_ns), &mut did);
        self.account(did)?;
        self.oracle.turned(self.now_ns)?;
        self.recall_leases()?;
        self.look_at_seats()?;
        self.look_for_idle()
    }

    /// What the engine counts must be what the oracle counts.
    fn look_at_seats(&self) -> Result<(), Broken> {
        let Some(router) = &self.router else { return Ok(()) };
        let judge = self.options.judge;
        let (in_use, expected) = (router.engine.in_flight(), self.oracle.in_flight(self.epoch));
        judge.check(Contract::Slots, in_use == expected, || {
            format!("{in_use} invocation slots are in use, and {expected} calls are in flight")
        })?;
        for seat in router.seats() {
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
    fn look_for_idle(&mut self) -> Result<(), Broken> {
        let Some(router) = &self.router else { return Ok(()) };
        let idle: BTreeMap<_, _> = router
            .seats()
            .filter(|seat| seat.state == WorkerState::Idle)
            .map(|seat| (seat.function, seat.process))
            .collect();
        for number in 0..self.functions.len() as u32 {
            let waiting = self.oracle.any_waiting(self.now_ns, number);
            let (Some(key), Some(process)) = (waiting, idle.get(&number)) else {
                self.oracle.waits_for_nothing(number);
                continue;
            };
            let is_right = self.oracle.waits_beside_idle(self.now_ns, number);
            self.options.judge.check(Contract::NoIdle, is_right, || {
                format!("{key:?} waits though {process:?} has nothing to do")
            })?;
        }
        Ok(())
    }

    fn account(&mut self, did: Vec<Did>) -> Result<(), Broken> {
        let epoch = self.epoch;
        let key_of = |id| CallKey { epoch, id };
        for thing in did {
            match thing {
                Did::Pushed(id, process) => {
                    self.note(|_| format!("pushed {id:?} to {process:?}"));
                    self.oracle.pushed(self.now_ns, key_of(id), process)?;
                    let call = self.oracle.call(key_of(id), "pushed")?;
                    call.has_begun = false;
                    if !std::mem::take(&mut call.is_retry) {
                        self.rules.pushed(call.function);
                    }
                    call.holder_scribbled |= self.liars.contains(&process);
                    call.holder_died |= !self.processes.contains_key(&process);
                }
                Did::Answered(id, seen) => {
                    self.note(|_| format!("answered {id:?}: {:?}", seen.status));
                    self.open.retain(|(_, open)| *open != key_of(id));
                    self.oracle.answered(self.now_ns, key_of(id), seen)?;
                }
                Did::GivenBack(id) => self.oracle.given_back(key_of(id)),
                Did::TakenBack(id) => {
                    // What a liar's ring says of its calls is anything.
                    let call = self.oracle.taken_back(self.now_ns, key_of(id));
                    if let Some(call) = call.filter(|call| call.is_retry && !call.holder_scribbled) {
                        self.rules.retried(self.options.judge, call.function)?;
                        self.totals.retries += 1;
                    }
                }
                Did::Ran { id, has_failed } => {
                    let call = self.oracle.call(key_of(id), "run")?;
                    let (number, admitted_at_ns) = (call.function, call.admitted_at_ns);
                    let opens = self.rules.ran(self.now_ns, number, admitted_at_ns, has_failed);
                    self.totals.breakers_opened += u64::from(opens);
                }
                Did::Stopped(process) => self.stop_process(process),
                Did::Killed(process) => {
                    self.note(|_| format!("the router kills {process:?}"));
                    self.end_process(process);
                }
                Did::Quarantined(process) => {
                    self.note(|_| format!("{process:?} is quarantined"));
                    self.totals.quarantines += 1;
                    let is_known_liar = self.liars.contains(&process);
                    self.options.judge.check(Contract::HonestWorkers, is_known_liar, || {
                        format!("{process:?} is honest and was quarantined")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn engine_invariants(&self) {
        if let Some(router) = &self.router {
            router.engine.invariants();
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
        workers_max: 12,
        direct_depth_min: Some(2),
        running_max: is_host_limited.then(|| 1 + chance.below(5) as u32),
        ..Limits::default()
    }
}
