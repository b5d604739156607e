//! Stories about the engine: one file for each stage, told through [`Story`].

use protocol::{CallId, Criticality, Flags, FunctionId, Status, WaitToken};

use crate::*;

mod admission;
mod ageing;
mod backpressure;
mod batch;
mod blocked;
mod breaker;
mod callers;
mod canary;
mod cancellation;
mod circles;
mod concurrency;
mod deadlines;
mod dispatch;
mod estimate;
mod fairness;
mod hedges;
mod joins;
mod later;
mod leases;
mod limits_full;
mod nesting;
mod opportunistic;
mod order;
mod pool;
mod queue_delay;
mod random;
mod rate;
mod reconfigure;
mod replies;
mod reserve;
mod retries;
mod warming;
mod workers;

/// An engine, its time, and what a router would do around it. Invariants are checked after each step.
struct Story {
    engine: Engine,
    now: Nanos,
    calls: u64,
}

const ECHO: FunctionId = FunctionId(0);
const OTHER: FunctionId = FunctionId(1);

fn spec(name: &str) -> FunctionSpec {
    FunctionSpec { queue_count_max: 100, payload_size_max: 1000, ..FunctionSpec::named(name) }
}

/// A call of `echo` of normal criticality with the function's own time-out.
fn request() -> Request {
    Request {
        origin: Origin { connection: 1, connection_generation: 2, call_id: CallId(3) },
        received_at: Nanos::ZERO,
        function: ECHO,
        criticality: Criticality::Normal as u8,
        budget_us: 0,
        payload_size: 32,
        flags: Flags::NONE,
    }
}

fn finished(outcome: RunOutcome) -> Finished {
    Finished { outcome, started_at: Nanos::ZERO, finished_at: Nanos::ZERO }
}

const NOT_STARTED: fn(WorkerId, InvocationId) -> Started = |_, _| Started::No;
const HAS_STARTED: fn(WorkerId, InvocationId) -> Started = |_, _| Started::Yes;
const UNREADABLE: fn(WorkerId, InvocationId) -> Started = |_, _| Started::Unknown;

/// Finds no call taken, in a ring where a cancel mark is final.
struct NeverStarted;

impl StartEvidence for NeverStarted {
    fn started(&self, _: WorkerId, _: InvocationId) -> Started {
        Started::No
    }

    fn mark_is_final(&self) -> bool {
        true
    }
}

/// By whom a call is made, as somebody says for whom nobody vouches.
fn claimed(caller: InvocationId, depth: u8) -> CalledBy {
    CalledBy { caller, depth, wait_token: WaitToken::NONE }
}

/// A refusal without advice.
fn refused(status: Status) -> Verdict {
    Verdict::Refused(Refused { status, retry_after_us: 0 })
}

impl Story {
    /// Functions `echo` and `other`, no worker, one second past the start of the clock.
    fn new() -> Story {
        Story::with(Limits::default(), vec![spec("echo"), spec("other")])
    }

    fn with(limits: Limits, specs: Vec<FunctionSpec>) -> Story {
        Story::with_tenants(limits, TenantSpec::only_default(), specs)
    }

    fn with_tenants(limits: Limits, tenants: Vec<TenantSpec>, specs: Vec<FunctionSpec>) -> Story {
        // Rings are filled, so that stories can be told in slots. `dispatch.rs` has those about running ahead.
        // And every call stands in its queue first, so that they can be told of order.
        let limits = Limits { run_ahead: Nanos::NEVER, direct_depth_min: None, ..limits };
        let engine =
            Engine::new(ShardId(5), limits, tenants, specs).expect("the story's configuration is sound");
        Story { engine, now: Nanos::from_secs(1), calls: 0 }
    }

    fn request(&mut self, mut request: Request) -> Verdict {
        self.calls += 1;
        request.origin.call_id = CallId(self.calls);
        if request.received_at == Nanos::ZERO {
            request.received_at = self.now;
        }
        let verdict = self.engine.handle_request(self.now, request);
        self.engine.invariants();
        verdict
    }

    /// Why a call is refused, or fails the test.
    fn refusal(&mut self, asked: Request) -> Status {
        match self.request(asked) {
            Verdict::Refused(refused) => refused.status,
            taken => panic!("not refused: {taken:?}"),
        }
    }

    /// Admits a call, or fails the test.
    fn admit(&mut self, request: Request) -> InvocationId {
        match self.request(request) {
            Verdict::Admitted(id) => id,
            other => panic!("not admitted: {other:?}"),
        }
    }

    fn call(&mut self) -> InvocationId {
        self.admit(request())
    }

    fn call_many(&mut self, count: u32) {
        for _ in 0..count {
            self.call();
        }
    }

    fn attach(&mut self, function: FunctionId, slots: u32) -> WorkerId {
        let worker = self.engine.handle_worker_attached(self.now, function, slots).expect("there is room");
        self.engine.invariants();
        worker
    }

    fn push(&mut self) -> Option<Push> {
        let push = self.engine.poll_push(self.now);
        self.engine.invariants();
        push
    }

    /// Everything that can be pushed now.
    fn pushes(&mut self) -> Vec<Push> {
        std::iter::from_fn(|| self.push()).collect()
    }

    fn complete(&mut self, push: Push, outcome: RunOutcome) -> Completed {
        let completed =
            self.engine.handle_completion(self.now, push.worker, push.invocation, finished(outcome));
        self.engine.invariants();
        completed
    }

    fn cancel(&mut self, id: InvocationId, reason: CancelReason) -> Cancelled {
        let cancelled = self.engine.handle_cancel(self.now, id, reason);
        self.engine.invariants();
        cancelled
    }

    /// Lets time pass and the timers fire, seeing `evidence` in the rings.
    fn pass(&mut self, length: Nanos, evidence: impl StartEvidence) {
        self.now = self.now.plus(length);
        self.engine.handle_time(self.now, &evidence);
        self.engine.invariants();
    }

    fn lose(&mut self, worker: WorkerId, evidence: impl StartEvidence) {
        self.engine.handle_worker_lost(self.now, worker, &evidence);
        self.engine.invariants();
    }

    /// The statuses of all answers that wait, with whether they carry `STARTED`.
    fn answers(&mut self) -> Vec<(Status, bool)> {
        let answers: Vec<_> = std::iter::from_fn(|| self.engine.poll_answer())
            .map(|answer| (answer.status, answer.flags.contains(Flags::STARTED)))
            .collect();
        self.engine.invariants();
        answers
    }

    fn actions(&mut self) -> Vec<WorkerAction> {
        let actions = std::iter::from_fn(|| self.engine.poll_worker_action()).collect();
        self.engine.invariants();
        actions
    }

    fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().value(counter)
    }
}

fn status_of(completed: Completed) -> Option<Status> {
    match completed {
        Completed::Answer(answer) | Completed::LastAnswer(answer) => Some(answer.status),
        Completed::TriedAgain | Completed::AlreadyAnswered | Completed::Stale => None,
    }
}
