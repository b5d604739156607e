//! Random histories against an oracle that knows only the promises.
//!
//! The model of a worker is the honest one of `Started`: it marks a slot taken, then looks at the cancel mark, and only
//! then begins; it also looks at the deadline, but on a clock that it may have read a while ago. What the oracle holds the engine to:
//! - each admitted call is answered exactly once, or its client is gone;
//! - an answer without `STARTED`, and above all `Expired`, is of a call that did not begin and never will;
//! - no call is pushed before the time that its caller gave;
//! - calls go by criticality, and within one by remaining time up to the bound of `run_queue`, but for one in eight of those
//!   that have waited long, of which each has its turn within the bound of `ageing`;
//! - a nested call is refused as a deadlock exactly when every worker of its function runs a call it is nested in, and is never
//!   bound behind one; and of those who say what they wait for, nobody is left in a circle (`random/nested.rs`);
//! - a call leaves as many workers free as are kept for those that are nested deeper, and none waits that could have one;
//! - a worker never holds more than its slots, a call is never in two rings, and never begins twice unless idempotent;
//! - of the calls with one key, one is run at a time, and its result is everybody's (`random/joins.rs`);
//! - the same history gives the same outputs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use protocol::DownstreamName;

use super::*;
use crate::ageing::TURN_EVERY;
use crate::estimate::PROBE_EVERY;
use crate::invocation::State;
use crate::run_queue::BUCKET_ZERO_WIDTH;

mod hedges;
mod joins;
mod nested;
mod ops;
mod order;
mod reserve;

use nested::Shows;
use ops::{Op, op, waiting_op};

/// How far in the future a call may start.
const START_AFTER_MAX: Nanos = Nanos::from_secs(20);
/// Short beside most budgets, so that many calls age.
const AGEING: Nanos = Nanos::from_ms(200);

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A function with these policies and those of order. The last one stands in for the others, and has no stand-in.
fn bounded(name: &str, policy: &Policy) -> FunctionSpec {
    let fallback = policy.fallback.clone().filter(|_| name != NAMES[2]);
    let policy = Policy { ageing: Some(AGEING), refuse_infeasible: true, fallback, ..policy.clone() };
    FunctionSpec { queue_count_max: 30, timeout: Nanos::from_secs(60), policy, ..spec(name) }
}

/// How long ago a worker may have read the clock by which it judges a deadline.
const CLOCK_AGE_MAX: Nanos = Nanos::from_secs(1);

/// What the oracle knows of a call.
struct Call {
    function: FunctionId,
    criticality: u8,
    deadline_at: Nanos,
    idempotent: bool,
    /// Which call of which function it is; another function may stand in for that.
    key: Option<(FunctionId, IdempotencyKey)>,
    /// Another one is run for it too.
    is_joined: bool,
    caller: Option<InvocationId>,
    /// How many calls it is nested in, as far as that is known.
    depth: u32,
    /// What it and its process say of each other.
    wait_token: WaitToken,
    made_by: Option<WorkerId>,
    /// It is a second attempt at that one.
    twin_of: Option<InvocationId>,
    start_at: Nanos,
    is_owed: bool,
    is_queued: bool,
    queued_at: Nanos,
    /// Once it has aged: how many pushes of its function there may still be before its own.
    pushes_left: Option<u32>,
    begun: u32,
    /// Workers that died while they had it.
    deaths: u32,
    /// Answered with the promise that it had not begun.
    is_promised_unstarted: bool,
}

/// A slot of a worker's ring.
#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Waiting { is_marked: bool },
    Taken { has_begun: bool },
}

struct ModelWorker {
    slots: u32,
    /// Of these slots.
    leased: u32,
    held: BTreeMap<InvocationId, Slot>,
    /// Which call it waits for, as it says.
    shows: WaitToken,
    /// Calls that it made.
    made: u32,
}

struct World {
    engine: Engine,
    policy: Policy,
    /// Workers that each function keeps for nested calls, as in force.
    nested_reserve: [u32; 3],
    now: Nanos,
    calls: BTreeMap<InvocationId, Call>,
    workers: BTreeMap<WorkerId, ModelWorker>,
    leases: Vec<Lease>,
    /// Pushes of each function since one that only age explains.
    pushes_since_turn: [u32; 3],
    /// Calls of each function refused as unreachable since one was admitted.
    hopeless_in_row: [u32; 3],
    outputs: Vec<String>,
}

impl World {
    /// Functions without policies.
    fn plain() -> World {
        World::new(Policy::default())
    }

    /// Functions of which each keeps workers for nested calls.
    fn reserved() -> World {
        World::new(Policy { nested_reserve: 2, ..Policy::default() })
    }

    /// Functions with every protection that there is.
    fn guarded() -> World {
        World::new(Policy {
            backpressure: Some(BackpressureSpec {
                window: Nanos::from_ms(500),
                threshold: 2,
                decrease_percent: 50,
                increase_percent: 10,
            }),
            breaker: Some(BreakerSpec {
                failure_percent: 50,
                calls_min: 4,
                window: Nanos::from_secs(8),
                open_for: Nanos::from_ms(100),
                probes_max: 2,
            }),
            fallback: Some(Fallback::Function(FunctionId(2))),
            hedge: Some(HedgeSpec { after: HedgeAfter::Delay(Nanos::from_ms(5)), load_percent: 50 }),
            retry: RetrySpec {
                retries_max: 3,
                budget_percent: 100,
                backoff: Nanos::from_ms(5),
                backoff_max: Nanos::from_secs(1),
                on_error: true,
            },
            ..Policy::default()
        })
    }

    fn new(policy: Policy) -> World {
        let limits = Limits {
            invocations_max: 40,
            workers_max: 6,
            timer_visits_max: 50,
            start_after_max: START_AFTER_MAX,
            direct_depth_min: Some(2),
            ..Limits::default()
        };
        let specs = NAMES.map(|name| bounded(name, &policy)).to_vec();
        let engine = Engine::new(ShardId(7), limits, TenantSpec::only_default(), specs).expect("sound");
        World {
            engine,
            nested_reserve: [policy.nested_reserve; 3],
            policy,
            now: Nanos::from_secs(1),
            calls: BTreeMap::new(),
            workers: BTreeMap::new(),
            leases: vec![],
            pushes_since_turn: [0; 3],
            hopeless_in_row: [0; 3],
            outputs: vec![],
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Keyed { function, key, budget_us, nested_in } => {
                self.keyed(FunctionId(function), [key; 16], budget_us, nested_in);
            }
            Op::Request { function, criticality, budget_us, idempotent } => {
                self.request(FunctionId(function), criticality, budget_us, idempotent);
            }
            Op::Nested { which, function, shows } => self.nested(which, FunctionId(function), shows),
            Op::BeginToWait { which } => self.begin_to_wait(which),
            Op::Later { function, budget_us, start_after_us } => {
                self.later(FunctionId(function), budget_us, Nanos::from_us(start_after_us));
            }
            Op::Cancel { which, gone } => self.cancel(which, gone),
            Op::Attach { function, slots } => self.attach(FunctionId(function), slots),
            Op::DrainWorker { which } => {
                if let Some(worker) = self.worker(which) {
                    self.engine.handle_worker_draining(worker);
                }
            }
            Op::LoseWorker { which } => {
                if let Some(worker) = self.worker(which) {
                    self.lose(worker);
                }
            }
            Op::Misbehave { which } => self.misbehave(which),
            Op::Lease { function, slots } => self.lease(FunctionId(function), slots),
            Op::EndLease { which } => self.end_lease(which),
            Op::OverstayLease { which } => {
                let workers: Vec<_> = self.leases.iter().map(|lease| lease.worker).collect();
                if let Some(worker) = pick(workers.iter(), which) {
                    self.engine.handle_lease_overstayed(worker);
                }
            }
            Op::Reconfigure { removed, edition, workers_max } => {
                self.reconfigure(FunctionId(removed), edition, workers_max);
            }
            Op::Pass { ns } => self.pass(Nanos(ns)),
            Op::Push { count } => (0..count).for_each(|_| self.push()),
            Op::Take { which } => self.take(which),
            Op::Finish { which, outcome } => self.finish(which, outcome),
            Op::LieAboutResult { worker, call } => self.lie(worker, call),
            Op::CarryOutActions => self.carry_out_actions(),
            Op::PollAnswers => self.poll_answers(),
        }
        self.look_for_circles();
        self.engine.invariants();
    }

    /// Removes one function, or none; the others may get another edition. What was admitted is owed all the same.
    fn reconfigure(&mut self, removed: FunctionId, edition: u64, workers_max: u32) {
        let mut policy = self.policy.clone();
        // It comes and goes, but not of a function that is removed.
        policy.nested_reserve = if edition == 1 { 0 } else { policy.nested_reserve };
        for (number, kept) in (0..).zip(&mut self.nested_reserve) {
            *kept = if number == removed.0 { *kept } else { policy.nested_reserve };
        }
        if removed == FunctionId(2) {
            policy.fallback = None;
        }
        let table = (0..).zip(NAMES).map(|(number, name)| {
            let spec = FunctionSpec { edition, workers_max, ..bounded(name, &policy) };
            (number != removed.0).then_some(spec)
        });
        let owed = |world: &World| -> Vec<_> {
            world.calls.keys().filter(|id| world.engine.is_unanswered(**id)).copied().collect()
        };
        let before = owed(self);
        let done = self.engine.handle_reconfigure(TenantSpec::only_default(), table.collect());
        assert_eq!(done, Ok(()));
        assert_eq!(owed(self), before, "a reload ended a call");
        for (number, name) in (0..).zip(NAMES) {
            let expected = (number != removed.0).then_some(FunctionId(number));
            assert_eq!(self.engine.resolve(name), expected, "an id means one name");
        }
    }

    fn request(&mut self, function: FunctionId, criticality: u8, budget_us: u32, idempotent: bool) {
        let flags = if idempotent { Flags::IDEMPOTENT } else { Flags::NONE };
        let asked =
            Request { function, criticality, budget_us, flags, received_at: self.now, ..super::request() };
        let verdict = self.engine.handle_request(self.now, asked);
        self.note_verdict(asked, None, verdict);
    }

    fn later(&mut self, function: FunctionId, budget_us: u32, start_after: Nanos) {
        let asked = Request { function, budget_us, received_at: self.now, ..super::request() };
        let special = Special { start_after, ..Special::default() };
        let verdict = self.engine.handle_special_request(self.now, asked, special);
        if start_after > START_AFTER_MAX {
            assert_eq!(verdict, refused(Status::StartTooLate));
        }
        // Everything about the call counts from its start.
        self.note_verdict(Request { received_at: self.now.plus(start_after), ..asked }, None, verdict);
    }

    fn note_verdict(&mut self, asked: Request, caller: Option<InvocationId>, verdict: Verdict) {
        let Request { function, criticality, budget_us, .. } = asked;
        let idempotent = asked.flags.contains(Flags::IDEMPOTENT);
        self.outputs.push(format!("{verdict:?}"));
        let (id, push) = match verdict {
            Verdict::Admitted(id) => (Some(id), None),
            Verdict::Pushed(push) => (Some(push.invocation), Some(push)),
            Verdict::Refused(refused) => {
                self.check_refusal(function, refused);
                (None, None)
            }
            Verdict::Fallback(_) => (None, None),
        };
        if let Some(id) = id {
            self.hopeless_in_row[function.0 as usize] = 0;
            let budget = if budget_us == 0 { Nanos::NEVER } else { Nanos::from_us(budget_us.into()) };
            let depth = caller.map_or(0, |caller| self.calls[&caller].depth + 1);
            let call = Call {
                // Another one stands in for it while its breaker is open.
                function: self.engine.invocations.at(id.slot()).function,
                criticality,
                deadline_at: asked.received_at.plus(budget.min(Nanos::from_secs(60))),
                idempotent,
                key: None,
                is_joined: false,
                caller,
                depth,
                wait_token: WaitToken::NONE,
                made_by: None,
                twin_of: None,
                start_at: asked.received_at,
                is_owed: true,
                is_queued: self.engine.is_queued(id),
                queued_at: self.now,
                pushes_left: None,
                begun: 0,
                deaths: 0,
                is_promised_unstarted: false,
            };
            assert!(self.calls.insert(id, call).is_none(), "an id was given twice");
        }
        push.into_iter().for_each(|push| self.take_push(push));
    }

    /// Hopeless is only who has somebody before him, and not for ever.
    fn check_refusal(&mut self, function: FunctionId, refused: Refused) {
        if refused.status != Status::DeadlineUnreachable {
            return;
        }
        let others = self.calls.values().filter(|call| call.is_queued && call.function == function).count();
        assert!(others > 0, "refused as hopeless with nobody before it");
        assert!(refused.retry_after_us > 0, "hopeless, but not for any time");
        let in_row = &mut self.hopeless_in_row[function.0 as usize];
        *in_row += 1;
        assert!(*in_row < PROBE_EVERY, "the function is shut off");
    }

    fn cancel(&mut self, which: usize, gone: bool) {
        let Some(id) = pick(self.calls.keys(), which) else { return };
        let reason = if gone { CancelReason::ClientGone } else { CancelReason::Asked };
        let cancelled = self.engine.handle_cancel(self.now, id, reason);
        self.outputs.push(format!("{cancelled:?}"));
        let call = self.call(id);
        if cancelled == Cancelled::Forgotten {
            assert!(call.is_owed, "forgotten twice or after its answer");
            call.is_owed = false;
        }
        call.is_queued = false;
        self.sync_queued();
    }

    fn attach(&mut self, function: FunctionId, slots: u32) {
        // Now and then one that an earlier configuration left.
        let attached = match slots % 3 {
            0 => self.engine.handle_worker_of_edition(self.now, function, 1, slots),
            _ => self.engine.handle_worker_attached(self.now, function, slots),
        };
        self.outputs.push(format!("{attached:?}"));
        if let Ok(worker) = attached {
            let (held, shows) = (BTreeMap::new(), WaitToken::NONE);
            let fresh = self.workers.insert(worker, ModelWorker { slots, leased: 0, held, shows, made: 0 });
            assert!(fresh.is_none(), "a worker id was given twice");
        }
    }

    fn lose(&mut self, worker: WorkerId) {
        let held = &self.workers[&worker].held;
        for id in held.iter().filter(|(_, slot)| matches!(slot, Slot::Taken { .. })).map(|(id, _)| id) {
            let suspect = self.calls[id].twin_of.unwrap_or(*id);
            self.calls.get_mut(&suspect).expect("a held call is known").deaths += 1;
        }
        let bereaved = self.bereaved(worker);
        self.engine.handle_worker_lost(self.now, worker, &|_, id| look(held, id));
        self.workers.remove(&worker);
        self.note_heirs(bereaved);
        self.sync_queued();
    }

    fn lease(&mut self, function: FunctionId, slots: u32) {
        let leased = self.engine.lease(function, slots, |worker| worker.index != 3);
        self.outputs.push(format!("{leased:?}"));
        let Ok(lease) = leased else { return };
        assert_ne!(lease.worker.index, 3, "a worker that knows no lanes was chosen");
        let queued = self.calls.values().filter(|call| call.is_queued && call.function == function).count();
        assert_eq!(queued, 0, "lent over the heads of those who wait");
        let model = self.workers.get_mut(&lease.worker).expect("a lease is of an attached worker");
        model.leased += lease.slots;
        assert!(lease.slots >= 1, "nothing was lent");
        assert!(model.leased + (model.held.len() as u32) < model.slots, "one credit stays");
        self.leases.push(lease);
    }

    /// Ends a lease, whatever has become of its worker.
    fn end_lease(&mut self, which: usize) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self.leases.swap_remove(which % self.leases.len());
        self.engine.end_lease(lease);
        if let Some(model) = self.workers.get_mut(&lease.worker) {
            model.leased = model.leased.saturating_sub(lease.slots);
        }
    }

    /// The worker's memory is still there, but nothing it does counts any more.
    fn misbehave(&mut self, which: usize) {
        let Some(worker) = self.worker(which) else { return };
        let model = self.workers.get_mut(&worker).expect("it was picked from them");
        model.held.clear();
        model.leased = 0;
        self.engine.handle_worker_misbehaved(self.now, worker);
        self.sync_queued();
    }

    fn pass(&mut self, length: Nanos) {
        self.now = self.now.plus(length);
        let workers = &self.workers;
        // Several calls, because one may stop at its limit of visits.
        for _ in 0..4 {
            self.engine.handle_time(self.now, &Rings(workers));
        }
        self.take_hedges();
        self.sync_queued();
        self.note_aged();
    }

    fn push(&mut self) {
        let push = self.engine.poll_push(self.now);
        self.outputs.push(format!("{push:?}"));
        self.sync_queued_except(push.map(|push| push.invocation));
        match push {
            Some(push) => self.take_push(push),
            None => self.check_nobody_waits_for_nothing(),
        }
    }

    fn take_push(&mut self, push: Push) {
        self.check_turns(push);
        self.check_reserve(push);
        let model = self.workers.get_mut(&push.worker).expect("a push goes to an attached worker");
        let old = model.held.insert(push.invocation, Slot::Waiting { is_marked: false });
        assert!(old.is_none(), "a call was pushed twice to one worker");
        assert!(model.held.len() <= (model.slots - model.leased) as usize, "more calls than slots");
        let rings = self.workers.values().filter(|it| it.held.contains_key(&push.invocation)).count();
        assert_eq!(rings, 1, "a call is in two rings");
        let outer = self.calls[&push.invocation].caller.map_or(vec![], |caller| self.chain(caller));
        let held = &self.workers[&push.worker].held;
        assert!(
            !outer.iter().any(|id| held.contains_key(id)),
            "a call is bound behind one that waits for it"
        );
        let now = self.now;
        let call = self.call(push.invocation);
        assert!(call.is_owed, "an ended call was pushed");
        assert!(call.start_at <= now, "a call was pushed before its time");
        assert!(call.deaths < 2, "a call of which two workers died was given to a third");
        assert_eq!(push.deadline_at, call.deadline_at);
        call.is_queued = false;
        call.is_joined = false;
        self.check_one_run(push.invocation);
        assert!(self.now < self.calls[&push.invocation].deadline_at, "an expired call was pushed");
    }

    /// A worker takes a call: marks the slot, then looks at mark and deadline, then begins or not.
    fn take(&mut self, which: usize) {
        let waiting = |slot: &Slot| matches!(slot, Slot::Waiting { .. });
        let Some((worker, id)) = self.held(which, waiting) else { return };
        let now = self.now;
        let call_id = self.calls[&id].twin_of.unwrap_or(id);
        let call = self.calls.get_mut(&call_id).expect("a held call is known");
        let model = self.workers.get_mut(&worker).expect("it was picked from them");
        let slot = model.held.get_mut(&id).expect("it was picked from them");
        let has_begun =
            *slot == (Slot::Waiting { is_marked: false }) && now.since(CLOCK_AGE_MAX) < call.deadline_at;
        if has_begun {
            call.begun += 1;
            assert!(
                !call.is_promised_unstarted,
                "{id:?} began after its caller was told that it never would"
            );
            assert!(call.begun == 1 || call.idempotent, "{id:?} began twice");
        }
        *slot = Slot::Taken { has_begun };
    }

    fn finish(&mut self, which: usize, outcome: RunOutcome) {
        let Some((worker, id)) = self.held(which, |slot| matches!(slot, Slot::Taken { .. })) else { return };
        let model = self.workers.get_mut(&worker).expect("it was picked from them");
        let slot = model.held.remove(&id);
        // Who brings a result waits for nothing.
        model.shows = WaitToken::NONE;
        let outcome = match slot {
            Some(Slot::Taken { has_begun: true }) => outcome,
            _ if self.now >= self.calls[&id].deadline_at => RunOutcome::Expired,
            _ => RunOutcome::Cancelled,
        };
        let joined = self.joined_to_run(id);
        let finished = Finished { finished_at: self.now, ..finished(outcome) };
        let completed = match outcome {
            RunOutcome::Backpressure => {
                let signal = Signal { downstream: DownstreamName::from_bytes(b"database"), severity: 1 };
                self.engine.handle_backpressure(self.now, worker, id, finished, signal)
            }
            _ => self.engine.handle_completion(self.now, worker, id, finished),
        };
        self.outputs.push(format!("{completed:?}"));
        match completed {
            Completed::Answer(answer) | Completed::LastAnswer(answer) => self.note_answer(answer),
            Completed::TriedAgain => {
                let call = self.call(id);
                assert!(call.is_owed, "an ended call is tried again");
                assert!(call.begun == 0 || call.idempotent, "{id:?} must not begin twice");
            }
            Completed::AlreadyAnswered => {
                assert!(!self.has_to_be_answered(id), "a wanted result was dropped")
            }
            Completed::Stale => panic!("an honest result is not stale"),
        }
        self.note_shared(outcome, completed, joined);
    }

    /// A result for a call that the worker does not hold changes nothing.
    fn lie(&mut self, worker: usize, call: usize) {
        let (Some(worker), Some(id)) = (self.worker(worker), pick(self.calls.keys(), call)) else { return };
        if !self.workers[&worker].held.contains_key(&id) {
            let completed = self.engine.handle_completion(self.now, worker, id, finished(RunOutcome::Ok));
            assert_eq!(completed, Completed::Stale);
        }
    }

    fn carry_out_actions(&mut self) {
        while let Some(action) = self.engine.poll_worker_action() {
            self.outputs.push(format!("{action:?}"));
            match action {
                WorkerAction::Cancel { worker, invocation } => {
                    let model = self.workers.get_mut(&worker).expect("actions are for attached workers");
                    if let Some(Slot::Waiting { is_marked }) = model.held.get_mut(&invocation) {
                        *is_marked = true;
                    }
                }
                WorkerAction::Stop { worker } => {
                    assert!(self.workers[&worker].held.is_empty(), "a drained worker holds nothing");
                    self.lose(worker);
                }
                WorkerAction::Kill { worker, .. } => self.lose(worker),
            }
        }
    }

    fn poll_answers(&mut self) {
        while let Some(answer) = self.engine.poll_answer() {
            self.outputs.push(format!("{answer:?}"));
            self.note_answer(answer);
        }
    }

    fn note_answer(&mut self, answer: Answer) {
        let call = self.call(answer.invocation);
        assert!(call.is_owed, "{:?} was answered twice, or after its client was gone", answer.invocation);
        call.is_owed = false;
        call.is_queued = false;
        let has_started = answer.flags.contains(Flags::STARTED);
        assert!(has_started || call.begun == 0, "{:?} had begun: {:?}", answer.invocation, answer.status);
        assert!(answer.status != Status::Expired || !has_started);
        assert!(answer.status != Status::TimedOut || has_started);
        let is_poison = answer.status == Status::Quarantined;
        assert!(!is_poison || call.deaths == 2 || call.is_joined);
        assert_eq!(is_poison && !call.is_joined, answer.keep == Keep::InQuarantine);
        call.is_promised_unstarted = !has_started;
    }

    /// Lets everything come to its end, and checks that nothing is left.
    fn finish_everything(mut self) -> Vec<String> {
        for _ in 0..10 {
            self.pass(Nanos::from_secs(30));
            self.carry_out_actions();
            self.poll_answers();
            self.engine.invariants();
        }
        while let Some(worker) = self.worker(0) {
            self.lose(worker);
        }
        while !self.leases.is_empty() {
            self.end_lease(0);
        }
        self.poll_answers();
        self.carry_out_actions();
        self.engine.invariants();
        let owed: Vec<_> = self.calls.iter().filter(|(_, call)| call.is_owed).map(|(id, _)| id).collect();
        assert!(owed.is_empty(), "never answered: {owed:?}");
        assert!(self.engine.is_idle());
        self.outputs
    }

    /// Follows the engine about which calls wait in a queue; a call in no ring that is owed an answer does.
    fn sync_queued(&mut self) {
        self.sync_queued_except(None);
    }

    fn sync_queued_except(&mut self, pushed: Option<InvocationId>) {
        let held: BTreeSet<_> = self.workers.values().flat_map(|it| it.held.keys().copied()).collect();
        for (id, call) in &mut self.calls {
            // An expired or cancelled one may have its answer still in the out queue; it has no claim any more.
            let is_alive = self.now < call.deadline_at && self.engine.is_queued(*id);
            let was_queued = call.is_queued;
            call.is_queued = call.is_owed && is_alive && Some(*id) != pushed && !held.contains(id);
            if call.is_queued && !was_queued && call.begun == 0 && call.start_at > call.queued_at {
                call.queued_at = self.now;
            }
            // It may have taken the place of the one it waited for.
            call.is_joined &= !self.engine.is_unanswered(*id) || self.engine.is_joined(*id);
        }
    }

    fn has_to_be_answered(&self, id: InvocationId) -> bool {
        self.engine.is_unanswered(id)
    }

    fn call(&mut self, id: InvocationId) -> &mut Call {
        self.calls.get_mut(&id).expect("the engine speaks of calls that it admitted")
    }

    fn worker(&self, which: usize) -> Option<WorkerId> {
        pick(self.workers.keys(), which)
    }

    fn held(&self, which: usize, filter: impl Fn(&Slot) -> bool) -> Option<(WorkerId, InvocationId)> {
        let all: Vec<_> = self
            .workers
            .iter()
            .flat_map(|(worker, model)| model.held.iter().map(move |(id, slot)| (*worker, *id, *slot)))
            .filter(|(_, _, slot)| filter(slot))
            .map(|(worker, id, _)| (worker, id))
            .collect();
        pick(all.iter(), which)
    }
}

impl Engine {
    fn is_known(&self, id: InvocationId) -> bool {
        self.invocations.slot_of(id).is_some()
    }

    fn is_pushed(&self, id: InvocationId) -> bool {
        self.invocations.slot_of(id).is_some_and(|slot| self.invocations.at(slot).state == State::Pushed)
    }

    fn serves(&self, id: WorkerId, function: FunctionId) -> bool {
        self.worker_view(id).is_some_and(|worker| worker.function == function)
    }

    fn is_open(&self, id: WorkerId) -> bool {
        self.workers[id.index as usize].is_warm
    }

    fn is_closed(&self, id: WorkerId) -> bool {
        let worker = &self.workers[id.index as usize];
        !worker.is_warm && matches!(worker.state, WorkerState::Busy | WorkerState::Draining)
    }

    fn is_queued(&self, id: InvocationId) -> bool {
        self.invocations.slot_of(id).is_some_and(|slot| self.invocations.at(slot).state == State::Queued)
    }

    fn is_joined(&self, id: InvocationId) -> bool {
        self.call_view(id).is_some_and(|view| view.joined.is_some())
    }

    fn is_unanswered(&self, id: InvocationId) -> bool {
        self.invocations.slot_of(id).is_some_and(|slot| self.invocations.at(slot).state.is_unanswered())
    }
}

/// A look into the rings of live workers, where a cancel mark is final because taking is one step.
struct Rings<'a>(&'a BTreeMap<WorkerId, ModelWorker>);

impl StartEvidence for Rings<'_> {
    fn started(&self, worker: WorkerId, invocation: InvocationId) -> Started {
        look(&self.0[&worker].held, invocation)
    }

    fn mark_is_final(&self) -> bool {
        true
    }
}

fn look(held: &BTreeMap<InvocationId, Slot>, id: InvocationId) -> Started {
    match held.get(&id) {
        Some(Slot::Waiting { .. }) => Started::No,
        Some(Slot::Taken { .. }) => Started::Yes,
        None => panic!("the engine looks at a call that the worker does not hold"),
    }
}

fn pick<'a, T: Copy + 'a>(all: impl ExactSizeIterator<Item = &'a T>, which: usize) -> Option<T> {
    let mut all = all;
    let count = all.len();
    if count == 0 { None } else { all.nth(which % count).copied() }
}

fn run(mut world: World, ops: &[Op]) -> Vec<String> {
    for op in ops {
        world.apply(op);
    }
    world.finish_everything()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_in_every_history(ops in prop::collection::vec(op(), 1..250)) {
        run(World::plain(), &ops);
    }

    #[test]
    fn every_promise_holds_where_workers_are_kept_for_nested_calls(
        ops in prop::collection::vec(prop_oneof![op(), waiting_op()], 1..250)
    ) {
        run(World::reserved(), &ops);
    }

    #[test]
    fn every_promise_holds_with_every_protection(ops in prop::collection::vec(op(), 1..250)) {
        run(World::guarded(), &ops);
    }

    #[test]
    fn every_circle_of_those_who_wait_is_found(ops in prop::collection::vec(waiting_op(), 1..250)) {
        run(World::plain(), &ops);
    }

    #[test]
    fn the_same_history_gives_the_same_outputs(ops in prop::collection::vec(op(), 1..100)) {
        prop_assert_eq!(run(World::plain(), &ops), run(World::plain(), &ops));
        prop_assert_eq!(run(World::guarded(), &ops), run(World::guarded(), &ops));
    }
}
