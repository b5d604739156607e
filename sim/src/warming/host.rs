//! One application on a host: the real engine with a pool of instances, in virtual time, and a shim that does as it is told.
//!
//! In: an application's calls.  Out: how many found no instance, and none on its way.
//! Always: an instance is there half a second after it was asked for, and gone as soon as it was told to end.
//! Why: what `warming.rs` counts is what a pool would do that follows the plans. This is what the engine's does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine::{
    Counter, Engine, Finished, FunctionSpec, InvocationId, Limits, Nanos, Origin, PoolSpec, Request,
    RunOutcome, ShardId, Started, TenantSpec, Verdict, WorkerAction, WorkerId,
};
use protocol::{CallId, Flags, FunctionId};

use super::trace::Call;

const START_NS: u64 = 500_000_000;
const INSTANCES_MAX: u32 = 8;

pub struct Host {
    engine: Engine,
    there: Vec<WorkerId>,
    wanted: u32,
    /// When those that were asked for are there.
    starting: Vec<u64>,
    /// What runs, until when, where, and since when.
    running: BinaryHeap<Reverse<(u64, InvocationId, WorkerId, u64)>>,
    /// By slot, how long a call will run.
    runs_ns: Vec<u64>,
    /// Calls that found no instance, and none on its way.
    pub cold_count: u64,
    looked_at_ns: u64,
}

impl Host {
    pub fn new(idle_timeout: Nanos, is_predictive: bool) -> Host {
        let pool = Some(PoolSpec { min: 0, max: INSTANCES_MAX, idle_timeout, is_predictive });
        let spec = FunctionSpec {
            timeout: Nanos(super::DAY_NS),
            pool,
            workers_max: INSTANCES_MAX,
            ..FunctionSpec::named("application")
        };
        let engine = Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), vec![spec]);
        Host {
            engine: engine.expect("a sound configuration"),
            there: Vec::new(),
            wanted: 0,
            starting: Vec::new(),
            running: BinaryHeap::new(),
            runs_ns: Vec::new(),
            cold_count: 0,
            looked_at_ns: 0,
        }
    }

    pub fn prewarmed_count(&self) -> u64 {
        self.engine.counters().value(Counter::InstancesPrewarmed)
    }

    /// Everything that is due before the call, and the call.
    pub fn call(&mut self, call: &Call) {
        self.advance(call.at_ns);
        self.cold_count += u64::from(self.there.is_empty() && self.starting.is_empty());
        let request = Request {
            origin: Origin { connection: 0, connection_generation: 0, call_id: CallId(0) },
            received_at: Nanos(call.at_ns),
            function: FunctionId(0),
            criticality: 1,
            budget_us: 0,
            payload_size: 0,
            flags: Flags::NONE,
        };
        let (id, push) = match self.engine.handle_request(Nanos(call.at_ns), request) {
            Verdict::Admitted(id) => (id, None),
            Verdict::Pushed(push) => (push.invocation, Some(push)),
            other => panic!("not admitted: {other:?}"),
        };
        let slot = id.slot() as usize;
        if slot >= self.runs_ns.len() {
            self.runs_ns.resize(slot + 1, 0);
        }
        self.runs_ns[slot] = call.run_ns;
        if let Some(push) = push {
            self.run(call.at_ns, push.invocation, push.worker);
        }
        self.turn(call.at_ns);
    }

    /// Goes from one thing that is due to the next, up to a time.
    pub fn advance(&mut self, until_ns: u64) {
        loop {
            let ends = self.running.peek().map(|running| running.0.0);
            let starts = self.starting.iter().copied().min();
            let timer = self.engine.next_timer().map(|at| at.0.max(self.looked_at_ns + 1));
            let next_ns = ends.into_iter().chain(starts).chain(timer).min().unwrap_or(u64::MAX);
            if next_ns > until_ns {
                break;
            }
            self.looked_at_ns = next_ns;
            if ends == Some(next_ns)
                && let Some(Reverse((_, id, worker, since_ns))) = self.running.pop()
            {
                let (started_at, finished_at) = (Nanos(since_ns), Nanos(next_ns));
                let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at };
                self.engine.handle_completion(Nanos(next_ns), worker, id, finished);
            }
            let due = self.starting.iter().filter(|at_ns| **at_ns <= next_ns).count();
            self.starting.retain(|at_ns| *at_ns > next_ns);
            for _ in 0..due {
                let worker = self.engine.handle_worker_attached(Nanos(next_ns), FunctionId(0), 1);
                self.there.push(worker.expect("no more than were asked for"));
            }
            self.turn(next_ns);
        }
        self.looked_at_ns = until_ns;
    }

    fn run(&mut self, now_ns: u64, id: InvocationId, worker: WorkerId) {
        let end_ns = now_ns + self.runs_ns[id.slot() as usize];
        self.running.push(Reverse((end_ns, id, worker, now_ns)));
    }

    /// As the router's: time, pushes, the shim, workers, answers.
    fn turn(&mut self, now_ns: u64) {
        let now = Nanos(now_ns);
        self.engine.handle_time(now, &|_, _| Started::Yes);
        while let Some(push) = self.engine.poll_push(now) {
            self.run(now_ns, push.invocation, push.worker);
        }
        while let Some(word) = self.engine.poll_places(now) {
            self.wanted = word.count;
        }
        while let Some(action) = self.engine.poll_worker_action() {
            let WorkerAction::Stop { worker } = action else { panic!("{action:?}") };
            self.there.retain(|other| *other != worker);
            self.engine.handle_worker_lost(now, worker, &|_, _| Started::No);
        }
        while self.engine.poll_answer().is_some() {}
        let missing = (self.wanted as usize).saturating_sub(self.there.len() + self.starting.len());
        self.starting.extend((0..missing).map(|_| now_ns + START_NS));
        self.starting.truncate((self.wanted as usize).saturating_sub(self.there.len()));
    }
}
