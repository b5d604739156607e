//! Any sequence of events against the engine, with its invariants checked after each and a ledger beside it.
//!
//! In: operations decoded from the fuzzer's bytes; numbers that clients and workers choose are taken raw.
//! Checked: every admitted call is answered exactly once or its client is gone; a call is pushed only while it is
//! queued, to a worker that is attached, before its deadline; an answer goes where the call came from; when all
//! workers are gone and time has passed, nothing is left.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::Arbitrary;
use engine::{
    Answer, CancelReason, Cancelled, Completed, Engine, Finished, FunctionSpec, InvocationId, Limits, Nanos,
    Origin, Policy, Push, Request, RunOutcome, ShardId, Started, TenantSpec, Verdict, WorkerAction, WorkerId,
};
use libfuzzer_sys::fuzz_target;
use protocol::{CallId, Class, Flags, FunctionId};

fuzz_target!(|story: Story| {
    let mut ledger = Ledger::new(story.start);
    for step in story.steps {
        ledger.take(step);
        ledger.engine.invariants();
    }
    ledger.finish();
});

#[derive(Arbitrary, Debug)]
struct Story {
    /// When the clock begins: any time, as a machine's uptime is none of our business.
    start: u32,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Request { function: u8, criticality: u8, budget_us: u16, payload_size: u8, flags: u16, waited: u16 },
    Push,
    Complete { which: u8, outcome: u8, started: i16, finished: i16 },
    CompleteAnything { worker: u8, invocation: u64 },
    Cancel { which: u8, is_client_gone: bool },
    CancelAnything { invocation: u64 },
    Attach { function: u8, slots: u8 },
    Drain { worker: u8 },
    Misbehave { worker: u8 },
    Lose { worker: u8, started: u8 },
    Failing { function: u8, is_failing: bool },
    Time { passed: u32, started: u8 },
    Answers,
    Actions,
    DrainAll,
}

const FUNCTION_COUNT: u8 = 3;
const TIMEOUT: Nanos = Nanos::from_ms(20);

fn engine() -> Engine {
    let limits = Limits {
        invocations_max: 8,
        workers_max: 3,
        functions_max: FUNCTION_COUNT.into(),
        worker_slots_max: 3,
        run_ahead: Nanos::from_us(100),
        direct_depth_min: Some(2),
        kill_grace: Nanos::from_ms(5),
        timer_visits_max: 3,
        // Leases are not among the steps: `engine/src/tests/random.rs` has them.
        ..Limits::default()
    };
    let spec = |number: u8| FunctionSpec {
        timeout: TIMEOUT,
        queue_count_max: 2 + u32::from(number),
        payload_size_max: 200,
        idempotent: number == 1,
        policy: Policy { ageing: Some(Nanos::from_ms(3)), refuse_infeasible: true, ..Policy::default() },
        ..FunctionSpec::named(format!("f{number}"))
    };
    Engine::new(ShardId(3), limits, TenantSpec::only_default(), (0..FUNCTION_COUNT).map(spec).collect())
        .expect("limits within range")
}

/// What must have become of each call, by what the engine said so far.
struct Ledger {
    engine: Engine,
    now: Nanos,
    calls: BTreeMap<InvocationId, Call>,
    /// Every worker ever attached, so that the gone are talked about as well.
    workers: Vec<WorkerId>,
    gone: BTreeSet<WorkerId>,
    call_count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    origin: Origin,
    function: FunctionId,
    fate: Fate,
    held_by: Option<WorkerId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Open,
    Answered,
    Forgotten,
}

impl Ledger {
    fn new(start: u32) -> Self {
        Self {
            engine: engine(),
            now: Nanos(u64::from(start) * 1000),
            calls: BTreeMap::new(),
            workers: Vec::new(),
            gone: BTreeSet::new(),
            call_count: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Request { function, criticality, budget_us, payload_size, flags, waited } => {
                let request = Request {
                    origin: self.next_origin(),
                    received_at: Nanos(self.now.0.saturating_sub(u64::from(waited) * 1000)),
                    function: FunctionId((function % (FUNCTION_COUNT + 1)).into()),
                    criticality: criticality % 5,
                    budget_us: budget_us.into(),
                    payload_size: payload_size.into(),
                    flags: Flags(flags),
                };
                self.request(request);
            }
            Step::Push => self.push(),
            Step::Complete { which, outcome, started, finished } => {
                let held: Vec<_> = self.held().collect();
                if let Some(&(invocation, worker)) = pick(&held, which) {
                    let at = |delta: i16| Nanos(self.now.0.saturating_add_signed(i64::from(delta) * 100_000));
                    let outcome = outcome_of(outcome);
                    let finished = Finished { outcome, started_at: at(started), finished_at: at(finished) };
                    self.complete(worker, invocation, finished);
                }
            }
            Step::CompleteAnything { worker, invocation } => {
                let finished =
                    Finished { outcome: RunOutcome::Ok, started_at: Nanos(0), finished_at: Nanos::NEVER };
                if let Some(&worker) = pick(&self.workers, worker) {
                    self.complete(worker, InvocationId(invocation), finished);
                }
            }
            Step::Cancel { which, is_client_gone } => {
                let ids: Vec<_> = self.calls.keys().copied().collect();
                if let Some(&invocation) = pick(&ids, which) {
                    self.cancel(invocation, is_client_gone);
                }
            }
            Step::CancelAnything { invocation } => self.cancel(InvocationId(invocation), false),
            Step::Attach { function, slots } => {
                let function = FunctionId((function % (FUNCTION_COUNT + 1)).into());
                if let Ok(worker) = self.engine.handle_worker_attached(self.now, function, (slots % 5).into())
                {
                    assert!(!self.workers.contains(&worker), "{worker:?} was given twice");
                    self.workers.push(worker);
                }
            }
            Step::Drain { worker } => {
                if let Some(&worker) = pick(&self.workers, worker) {
                    self.engine.handle_worker_draining(worker);
                }
            }
            Step::Misbehave { worker } => {
                if let Some(&worker) = pick(&self.workers, worker) {
                    self.engine.handle_worker_misbehaved(self.now, worker);
                    self.let_go(worker);
                }
            }
            Step::Lose { worker, started } => {
                if let Some(&worker) = pick(&self.workers, worker) {
                    self.lose(worker, started);
                }
            }
            Step::Failing { function, is_failing } => {
                let function = FunctionId((function % (FUNCTION_COUNT + 1)).into());
                self.engine.handle_function_failing(function, is_failing);
            }
            Step::Time { passed, started } => {
                // Up to 43 ms: beyond time-out and grace.
                self.now = self.now.plus(Nanos(u64::from(passed) / 100));
                self.engine.handle_time(self.now, &evidence(started));
            }
            Step::Answers => self.take_answers(),
            Step::Actions => self.take_actions(),
            Step::DrainAll => self.engine.handle_drain(),
        }
    }

    fn next_origin(&mut self) -> Origin {
        self.call_count += 1;
        Origin {
            connection: self.call_count as u32 % 5,
            connection_generation: 9,
            call_id: CallId(self.call_count),
        }
    }

    fn request(&mut self, request: Request) {
        match self.engine.handle_request(self.now, request) {
            Verdict::Admitted(invocation) => self.note_admitted(invocation, request),
            Verdict::Pushed(push) => {
                self.note_admitted(push.invocation, request);
                self.note_pushed(push);
            }
            Verdict::Refused(refused) => assert_eq!(refused.status.class(), Class::Refused),
            Verdict::Fallback(_) => panic!("no function has a fallback"),
        }
    }

    fn note_admitted(&mut self, invocation: InvocationId, request: Request) {
        let Request { origin, function, .. } = request;
        let call = Call { origin, function, fate: Fate::Open, held_by: None };
        let earlier = self.calls.insert(invocation, call);
        assert!(earlier.is_none(), "{invocation:?} was given twice");
        assert_eq!(invocation.shard(), ShardId(3));
    }

    fn push(&mut self) {
        if let Some(push) = self.engine.poll_push(self.now) {
            self.note_pushed(push);
        }
    }

    fn note_pushed(&mut self, push: Push) {
        let call = self.calls.get_mut(&push.invocation).expect("a call that was admitted");
        assert_eq!(call.fate, Fate::Open, "pushed after its end");
        assert_eq!(call.held_by, None, "pushed while it is with a worker");
        assert_eq!(call.function, push.function);
        assert!(self.now < push.deadline_at, "pushed too late");
        assert!(self.workers.contains(&push.worker));
        assert!(!self.gone.contains(&push.worker), "pushed to a worker that is gone");
        call.held_by = Some(push.worker);
    }

    fn complete(&mut self, worker: WorkerId, invocation: InvocationId, finished: Finished) {
        let completed = self.engine.handle_completion(self.now, worker, invocation, finished);
        let is_held = self.calls.get(&invocation).is_some_and(|call| call.held_by == Some(worker));
        assert_eq!(is_held, completed != Completed::Stale, "who holds {invocation:?}?");
        if let Some(call) = self.calls.get_mut(&invocation).filter(|_| is_held) {
            call.held_by = None;
            // An answer that exists and was not polled yet counts as the ledger's open call.
            assert!(completed == Completed::AlreadyAnswered || call.fate == Fate::Open, "a second answer");
        }
        if let Completed::Answer(answer) | Completed::LastAnswer(answer) = completed {
            self.note_answer(answer);
        }
    }

    fn cancel(&mut self, invocation: InvocationId, is_client_gone: bool) {
        let reason = if is_client_gone { CancelReason::ClientGone } else { CancelReason::Asked };
        let cancelled = self.engine.handle_cancel(self.now, invocation, reason);
        let fate = self.calls.get(&invocation).map(|call| call.fate);
        match cancelled {
            Cancelled::Answering => {
                assert_eq!(fate, Some(Fate::Open));
                assert!(!is_client_gone, "an answer for nobody");
            }
            Cancelled::Forgotten => {
                assert_eq!(fate, Some(Fate::Open));
                assert!(is_client_gone, "a caller who waits was forgotten");
                self.calls.get_mut(&invocation).expect("just seen").fate = Fate::Forgotten;
            }
            Cancelled::AlreadyEnded => assert!(fate.is_some()),
            Cancelled::Unknown => assert_ne!(fate, Some(Fate::Open), "a call was lost"),
        }
    }

    fn lose(&mut self, worker: WorkerId, started: u8) {
        self.engine.handle_worker_lost(self.now, worker, &evidence(started));
        self.let_go(worker);
        self.gone.insert(worker);
    }

    fn let_go(&mut self, worker: WorkerId) {
        for call in self.calls.values_mut().filter(|call| call.held_by == Some(worker)) {
            call.held_by = None;
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.engine.poll_answer() {
            self.note_answer(answer);
        }
    }

    fn note_answer(&mut self, answer: Answer) {
        let call = self.calls.get_mut(&answer.invocation).expect("a call that was admitted");
        assert_eq!(call.fate, Fate::Open, "{:?} was answered twice, or nobody waits", answer.invocation);
        assert_eq!(call.origin, answer.origin, "an answer for somebody else");
        assert_eq!(call.function, answer.function);
        assert_ne!(answer.status.class(), Class::Refused, "admitted and then refused");
        call.fate = Fate::Answered;
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.engine.poll_worker_action() {
            let (WorkerAction::Cancel { worker, .. }
            | WorkerAction::Stop { worker }
            | WorkerAction::Kill { worker, .. }) = action;
            assert!(!self.gone.contains(&worker), "something to do to a worker that is gone");
            if let WorkerAction::Cancel { worker, invocation } = action {
                assert_eq!(self.calls[&invocation].held_by, Some(worker));
            }
        }
    }

    fn held(&self) -> impl Iterator<Item = (InvocationId, WorkerId)> {
        self.calls.iter().filter_map(|(&invocation, call)| Some((invocation, call.held_by?)))
    }

    /// All workers die and time passes: then every call has had its end.
    fn finish(mut self) {
        for worker in self.workers.clone() {
            self.lose(worker, 2);
            self.engine.invariants();
        }
        while let Some(at) = self.engine.next_timer() {
            self.now = Nanos(self.now.0.max(at.0));
            self.engine.handle_time(self.now, &evidence(2));
            self.engine.invariants();
        }
        self.take_answers();
        self.take_actions();
        self.engine.invariants();
        assert!(self.engine.is_idle(), "something is left");
        for (invocation, call) in &self.calls {
            assert_ne!(call.fate, Fate::Open, "{invocation:?} got no answer");
        }
    }
}

fn pick<T>(choices: &[T], which: u8) -> Option<&T> {
    choices.get(usize::from(which) % choices.len().max(1))
}

fn outcome_of(number: u8) -> RunOutcome {
    match number % 5 {
        0 => RunOutcome::Ok,
        1 => RunOutcome::FunctionError,
        2 => RunOutcome::Expired,
        3 => RunOutcome::Cancelled,
        4 => RunOutcome::Backpressure,
        _ => RunOutcome::ResultTooLarge,
    }
}

/// What the last look into the ring says: the same of each call.
fn evidence(number: u8) -> impl Fn(WorkerId, InvocationId) -> Started {
    move |_, _| match number % 3 {
        0 => Started::No,
        1 => Started::Yes,
        _ => Started::Unknown,
    }
}
