//! One run: callers, router, shim and processes take turns in an order drawn from the seed.

use std::collections::BTreeMap;
use std::fmt;

use engine::{
    CancelReason, Cancelled, Engine, FunctionSpec, InvocationId, Limits, Nanos, Origin, Request, ShardId,
    TenantSpec, Verdict,
};
use protocol::{CallId, Flags, FunctionId};

use crate::chance::Chance;
use crate::history::History;
use crate::oracle::{Broken, Call, Oracle};
use crate::router::{Did, Router};
use crate::shim::{Asked, Keeper, ProcessId};
use crate::worker::{Process, Step};

/// What a run is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events before the run is drained.
    pub steps: u32,
    /// Whether things go wrong.
    pub has_faults: bool,
}

/// What a run saw, so that nobody believes in a simulation in which nothing happened.
#[derive(Default)]
pub struct Totals {
    starts: u64,
    crashes: u64,
    scribbles: u64,
    quarantines: u64,
    refusals: u64,
    statuses: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Adds another run's.
    pub fn add(&mut self, other: &Totals) {
        self.starts += other.starts;
        self.crashes += other.crashes;
        self.scribbles += other.scribbles;
        self.quarantines += other.quarantines;
        self.refusals += other.refusals;
        for (status, count) in &other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { starts, crashes, scribbles, quarantines, refusals, statuses } = self;
        write!(
            out,
            "{starts} starts, {crashes} crashes, {scribbles} scribbles, {quarantines} quarantines, "
        )?;
        write!(out, "{refusals} refusals; answers {statuses:?}")
    }
}

const FUNCTION_COUNT: u32 = 3;
const PLACES_PER_FUNCTION: u32 = 2;
/// Turns a run may take to finish what it began. Each lets up to 8 ms pass; the longest time-out is 2 s.
const DRAIN_TURNS_MAX: u32 = 20_000;

/// Everything in one run.
pub struct World {
    options: Options,
    chance: Chance,
    now_ns: u64,
    router: Router,
    /// What the oracle must know of each function: its time-out in ns, and whether running twice is harmless.
    functions: Vec<(u64, bool)>,
    keepers: Vec<Keeper>,
    processes: BTreeMap<ProcessId, Process>,
    /// Ended, and not yet noticed by router and shim.
    ended: Vec<ProcessId>,
    process_count: u64,
    /// Who holds a pushed call.
    holders: BTreeMap<InvocationId, ProcessId>,
    /// Admitted calls whose caller waits, by connection.
    open: Vec<(u32, InvocationId)>,
    call_count: u64,
    oracle: Oracle,
    totals: Totals,
    /// What happened so far.
    pub history: History,
}

impl World {
    /// A world at its beginning.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut chance = Chance::new(seed);
        let specs = (0..FUNCTION_COUNT).map(|number| FunctionSpec {
            timeout: Nanos(chance.below(2_000_000_000) + 1_000_000),
            queue_count_max: chance.below(40) as u32 + 1,
            payload_size_max: 64,
            idempotent: chance.per_mille(500),
            ..FunctionSpec::named(format!("function-{number}"))
        });
        let specs: Vec<_> = specs.collect();
        let functions = specs.iter().map(|spec| (spec.timeout.0, spec.idempotent)).collect();
        let limits =
            Limits { invocations_max: 64, workers_max: 8, direct_depth_min: Some(2), ..Limits::default() };
        let engine = Engine::new(ShardId(0), limits, TenantSpec::only_default(), specs)
            .expect("a sound configuration");
        let keepers =
            (0..FUNCTION_COUNT * PLACES_PER_FUNCTION).map(|number| Keeper::new(number % FUNCTION_COUNT, 0));
        let keepers = keepers.collect();
        Self {
            options,
            chance,
            now_ns: 1,
            router: Router::new(engine),
            functions,
            keepers,
            processes: BTreeMap::new(),
            ended: Vec::new(),
            process_count: 0,
            holders: BTreeMap::new(),
            open: Vec::new(),
            call_count: 0,
            oracle: Oracle::default(),
            totals: Totals::default(),
            history: History::default(),
        }
    }

    /// Runs to the end; answers what happened or which contract broke.
    pub fn run(&mut self) -> Result<Totals, Broken> {
        for _ in 0..self.options.steps {
            self.step()?;
            self.router.engine.invariants();
        }
        self.options.has_faults = false;
        for _ in 0..DRAIN_TURNS_MAX {
            if self.router.engine.is_idle() {
                break;
            }
            self.pass_time();
            self.shim_step();
            self.processes_step()?;
            self.router_turn()?;
            self.router.engine.invariants();
        }
        assert_eq!(self.router.engine.in_flight(), 0, "an invocation slot leaked: nothing is left to happen");
        self.oracle.ended()?;
        self.totals.statuses = self.oracle.statuses();
        self.totals.starts = self.oracle.start_count();
        Ok(std::mem::take(&mut self.totals))
    }

    fn step(&mut self) -> Result<(), Broken> {
        match self.chance.below(100) {
            0..20 => self.pass_time(),
            20..30 => self.submit()?,
            30..32 => self.cancel()?,
            32..33 => self.lose_client()?,
            33..38 => self.shim_step(),
            38..70 => self.processes_step()?,
            70..97 => self.router_turn()?,
            _ if self.options.has_faults => self.fault(),
            _ => {}
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        let is_jump = self.options.has_faults && self.chance.per_mille(5);
        self.now_ns += self.chance.length(if is_jump { 33 } else { 23 });
    }

    fn submit(&mut self) -> Result<(), Broken> {
        let now = Nanos(self.now_ns);
        for _ in 0..=self.chance.below(6) {
            self.call_count += 1;
            let connection = self.chance.below(4) as u32;
            let function = self.chance.below(u64::from(FUNCTION_COUNT)) as u32;
            let criticality = self.chance.below(4) as u8;
            let budget_us = self.budget_us();
            let is_idempotent = self.chance.per_mille(200);
            let flags = if is_idempotent { Flags::IDEMPOTENT } else { Flags::default() };
            let call_id = CallId(self.call_count);
            let request = Request {
                origin: Origin { connection, connection_generation: 0, call_id },
                received_at: now,
                function: FunctionId(function),
                criticality,
                budget_us,
                payload_size: 8,
                flags,
            };
            let (admitted, push) = match self.router.engine.handle_request(now, request) {
                Verdict::Refused(_) => (None, None),
                Verdict::Admitted(id) => (Some(id), None),
                Verdict::Pushed(push) => (Some(push.invocation), Some(push)),
            };
            match admitted {
                None => self.totals.refusals += 1,
                Some(id) => {
                    let (timeout_ns, is_harmless) = self.functions[function as usize];
                    let budget_ns = if budget_us == 0 { timeout_ns } else { u64::from(budget_us) * 1_000 };
                    self.note(format!(
                        "admitted {id:?} for function {function}, criticality {criticality}, {budget_us} us"
                    ));
                    self.router.keep_payload(id, self.call_count);
                    self.open.push((connection, id));
                    self.oracle.admitted(
                        id,
                        Call {
                            function,
                            criticality,
                            deadline_at_ns: self.now_ns + budget_ns.min(timeout_ns),
                            is_idempotent: is_idempotent || is_harmless,
                            mark: self.call_count,
                            start_count: 0,
                            answer: None,
                            was_cancelled: false,
                            is_client_gone: false,
                            holder_died: false,
                            holder_scribbled: false,
                        },
                    )?;
                }
            }
            if let Some(push) = push {
                let mut did = Vec::new();
                self.router.push_at_once(now, push, &mut did);
                self.account(did)?;
            }
        }
        Ok(())
    }

    /// None for one call in five; for the rest anything from 1 us to 16 s, most of them with time to run.
    fn budget_us(&mut self) -> u32 {
        let floor_us = if self.chance.per_mille(700) { 20_000 } else { 0 };
        if self.chance.per_mille(200) { 0 } else { floor_us + self.chance.length(24) as u32 }
    }

    fn cancel(&mut self) -> Result<(), Broken> {
        let Some(&(_, id)) = self.chance.pick(&self.open) else { return Ok(()) };
        self.note(format!("the caller cancels {id:?}"));
        self.oracle.cancelled(id)?;
        self.router.engine.handle_cancel(Nanos(self.now_ns), id, CancelReason::Asked);
        Ok(())
    }

    fn lose_client(&mut self) -> Result<(), Broken> {
        let connection = self.chance.below(4) as u32;
        self.note(format!("connection {connection} is gone"));
        let lost: Vec<_> = self.open.extract_if(.., |(owner, _)| *owner == connection).collect();
        for (_, id) in lost {
            let ended = self.router.engine.handle_cancel(Nanos(self.now_ns), id, CancelReason::ClientGone);
            // An answer that was made but not yet polled still comes out; the shell drops it at the closed door.
            if ended == Cancelled::Forgotten {
                self.oracle.forgotten(id)?;
            }
        }
        Ok(())
    }

    fn shim_step(&mut self) {
        for process in std::mem::take(&mut self.ended) {
            for keeper in &mut self.keepers {
                keeper.on_exit(self.now_ns, process, &mut self.chance);
            }
        }
        for index in 0..self.keepers.len() {
            let name = ProcessId(self.process_count + 1);
            match self.keepers[index].tick(self.now_ns, name, &mut self.chance) {
                Some(Asked::Spawn(process)) => {
                    self.process_count += 1;
                    self.processes.insert(process, Process::new(self.keepers[index].function));
                }
                Some(Asked::End(process)) => self.end_process(process),
                None => {}
            }
        }
    }

    fn processes_step(&mut self) -> Result<(), Broken> {
        let names: Vec<_> = self.processes.keys().copied().collect();
        for name in names {
            for _ in 0..=self.chance.below(4) {
                let process = self.processes.get_mut(&name).expect("nobody ends here");
                if !process.is_attached() {
                    let function = process.function;
                    if let Some(memory) = self.router.attach(Nanos(self.now_ns), function, name) {
                        process.attach(memory);
                    }
                }
                let has_scribbled = process.has_scribbled;
                if let Step::Started(id) = process.step(self.now_ns, &mut self.chance) {
                    self.note(format!("{name:?} starts {id:?}"));
                    // Who has scribbled over its own ring may read anything from it, also calls of the past.
                    if !has_scribbled {
                        self.oracle.started(self.now_ns, id)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn router_turn(&mut self) -> Result<(), Broken> {
        let mut did = Vec::new();
        self.router.turn(Nanos(self.now_ns), &mut did);
        self.account(did)
    }

    fn account(&mut self, did: Vec<Did>) -> Result<(), Broken> {
        for thing in did {
            match thing {
                Did::Pushed(id, process) => {
                    self.note(format!("pushed {id:?} to {process:?}"));
                    self.oracle.pushed(self.now_ns, id)?;
                    self.holders.insert(id, process);
                    if self.processes.get(&process).is_none_or(|process| process.has_scribbled) {
                        self.oracle.call(id, "pushed")?.holder_scribbled = true;
                    }
                }
                Did::Answered(id, status, mark) => {
                    self.note(format!("answered {id:?}: {status:?}"));
                    self.open.retain(|(_, open)| *open != id);
                    self.oracle.answered(self.now_ns, id, status, mark)?;
                }
                Did::TakenBack(id) => self.oracle.taken_back(id)?,
                Did::Killed(process) => {
                    self.note(format!("the router kills {process:?}"));
                    self.end_process(process);
                }
                Did::Quarantined(process) => {
                    self.note(format!("{process:?} is quarantined"));
                    self.totals.quarantines += 1;
                    let is_known_liar =
                        self.processes.get(&process).is_none_or(|process| process.has_scribbled);
                    assert!(is_known_liar, "an honest worker was quarantined");
                }
            }
        }
        Ok(())
    }

    /// Something goes wrong.
    fn fault(&mut self) {
        let names: Vec<_> = self.processes.keys().copied().collect();
        let Some(&name) = self.chance.pick(&names) else { return };
        match self.chance.below(10) {
            0..5 => {
                self.note(format!("kill -9 {name:?}"));
                self.totals.crashes += 1;
                self.end_process(name);
            }
            5..8 => {
                let until_ns = self.now_ns + self.chance.length(32);
                self.note(format!("{name:?} stalls for {} us", (until_ns - self.now_ns) / 1_000));
                self.processes.get_mut(&name).expect("picked from the living").stalled_until_ns = until_ns;
            }
            _ => {
                self.note(format!("{name:?} scribbles over its ring"));
                self.totals.scribbles += 1;
                self.processes.get_mut(&name).expect("picked from the living").scribble(&mut self.chance);
                for (id, holder) in &self.holders {
                    if *holder == name {
                        self.oracle.call(*id, "held").expect("held calls were admitted").holder_scribbled =
                            true;
                    }
                }
            }
        }
    }

    /// A process ends at once. The shim sees it at its next step, the router here and now or a little later.
    fn end_process(&mut self, process: ProcessId) {
        if self.processes.remove(&process).is_none() {
            return;
        }
        self.ended.push(process);
        for (id, holder) in &self.holders {
            if *holder == process {
                self.oracle.call(*id, "held").expect("held calls were admitted").holder_died = true;
            }
        }
        let mut did = Vec::new();
        self.router.on_process_gone(Nanos(self.now_ns), process, &mut did);
        self.account(did).unwrap_or_else(|broken| panic!("{broken}"));
    }

    fn note(&mut self, line: String) {
        self.history.note(self.now_ns, line);
    }
}
