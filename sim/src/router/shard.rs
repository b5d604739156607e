//! One shard: the real engine, its rings, and the shell around them, as `router/src/shard.rs` is: completions in, pushes and
//! answers out.
//!
//! Always: does in one turn, and in the order, what the shard's turn does. Bytes and sockets are left out; a call's
//! payload is eight bytes that the answer must bring back.

use std::collections::BTreeMap;

use engine::{
    CalledBy, CancelReason, Cancelled, Completed, Engine, Finished, Hedge, InvocationId, Nanos, PlacesWanted,
    Push, RunOutcome, StartEvidence, Started, State, WaitEvidence, WorkerAction, WorkerId,
};
use protocol::{Flags, FunctionId, Status, WaitToken};
use shm_ring::{Generation, Geometry, HeapMemory, Identity, Outcome, Request, RouterEnd, SlotIndex};

use super::{Did, SLOT_COUNT, Seat, Stand};
use crate::oracle::Seen;
use crate::shim::ProcessId;

/// The engine and its rings.
pub struct Shard {
    pub engine: Engine,
    rings: BTreeMap<WorkerId, Ring>,
    marks: BTreeMap<InvocationId, u64>,
    /// Calls that stand neither in a queue nor in a ring, and why.
    aside: BTreeMap<InvocationId, Stand>,
    generation: u32,
}

struct Ring {
    end: RouterEnd<HeapMemory>,
    process: ProcessId,
    slots: BTreeMap<InvocationId, SlotIndex>,
    is_quarantined: bool,
}

impl Shard {
    /// A shard without workers.
    pub fn new(engine: Engine) -> Self {
        Self { engine, rings: BTreeMap::new(), marks: BTreeMap::new(), aside: BTreeMap::new(), generation: 0 }
    }

    /// By whom a call is made, with its token only if the worker that runs the caller shows that it is its own.
    pub fn called_by(&self, claimed: CalledBy) -> CalledBy {
        let holder = self.engine.holder_of(claimed.caller);
        let shown = holder.map_or(WaitToken::NONE, |holder| Evidence(&self.rings).waits_for(holder));
        let is_proved = claimed.wait_token.is_same_process(shown);
        CalledBy { wait_token: if is_proved { claimed.wait_token } else { WaitToken::NONE }, ..claimed }
    }

    /// A call was admitted: remembers its payload, and tells where the call stands.
    pub fn keep(&mut self, id: InvocationId, mark: u64) -> Stand {
        self.marks.insert(id, mark);
        let stand = self.stand_of(id).expect("a call that was just admitted stands somewhere");
        if stand != Stand::InLine {
            self.aside.insert(id, stand);
        }
        stand
    }

    /// A caller takes a call back, or is gone.
    pub fn cancel(
        &mut self,
        now: Nanos,
        id: InvocationId,
        reason: CancelReason,
        did: &mut Vec<Did>,
    ) -> Cancelled {
        let cancelled = self.engine.handle_cancel(now, id, reason);
        self.look_aside(did);
        cancelled
    }

    /// Tells of every call that does not stand where it stood.
    fn look_aside(&mut self, did: &mut Vec<Did>) {
        for (id, before) in std::mem::take(&mut self.aside) {
            match self.stand_of(id) {
                Some(stand) if stand == before => _ = self.aside.insert(id, stand),
                Some(stand) => self.tell_stand(id, stand, did),
                // It has an answer, or nobody waits for one.
                None => {}
            }
        }
    }

    fn tell_stand(&mut self, id: InvocationId, stand: Stand, did: &mut Vec<Did>) {
        did.push(Did::Stands(id, stand));
        if stand != Stand::InLine {
            self.aside.insert(id, stand);
        }
    }

    /// None: it is over. In a ring is in line too, as is a call that was bound on admission.
    fn stand_of(&self, id: InvocationId) -> Option<Stand> {
        let view = self.engine.call_view(id)?;
        match (view.state, view.due_at, view.joined) {
            (State::Queued | State::Pushed, ..) => Some(Stand::InLine),
            (_, Some(due_at), _) => Some(Stand::NotBefore(due_at)),
            (_, _, Some(leader)) => Some(Stand::Joined(leader)),
            _ => None,
        }
    }

    /// Gives a process its ring.
    pub fn attach(&mut self, now: Nanos, function: u32, process: ProcessId) -> Option<HeapMemory> {
        let worker = self.engine.handle_worker_attached(now, FunctionId(function), SLOT_COUNT).ok()?;
        let geometry = Geometry::new(SLOT_COUNT, 4096).expect("a geometry within the limits");
        let memory = HeapMemory::new(geometry.memory_size());
        self.generation += 1;
        let generation = Generation(self.generation);
        let identity = Identity { generation, worker_id: worker.index, function_id: function };
        let end = RouterEnd::new(memory.clone(), geometry, identity);
        self.rings.insert(worker, Ring { end, process, slots: BTreeMap::new(), is_quarantined: false });
        Some(memory)
    }

    /// A process closed its socket and may live on: it gets nothing new.
    pub fn on_socket_closed(&mut self, process: ProcessId) {
        if let Some(worker) = self.worker_of(process) {
            self.engine.handle_worker_draining(worker);
        }
    }

    /// A process has ended: takes its last answers, then gives its calls back to the engine.
    pub fn on_process_gone(&mut self, now: Nanos, process: ProcessId, did: &mut Vec<Did>) {
        let Some(worker) = self.worker_of(process) else { return };
        self.reap(now, worker, did);
        let held: Vec<_> = self.rings[&worker].slots.keys().copied().collect();
        let evidence = Evidence(&self.rings);
        let has_killed = |id: &&InvocationId| {
            evidence.started(worker, **id) == Started::Yes && self.engine.owes_answer(**id)
        };
        did.extend(held.iter().filter(has_killed).map(|id| Did::Ran { id: *id, has_failed: true }));
        self.engine.handle_worker_lost(now, worker, &Evidence(&self.rings));
        self.rings.remove(&worker);
        self.take_back(held, did);
    }

    /// Everybody who is attached.
    pub fn seats(&self) -> impl Iterator<Item = Seat> {
        self.rings.iter().filter_map(|(worker, ring)| {
            let view = self.engine.worker_view(*worker)?;
            let (function, state, credits) = (view.function.0, view.state, view.credits);
            Some(Seat { process: ring.process, function, state, credits })
        })
    }

    /// Who has this seat, if it is taken.
    pub fn process_of(&self, worker: WorkerId) -> Option<ProcessId> {
        self.rings.get(&worker).map(|ring| ring.process)
    }

    /// Whether this process has a ring here.
    pub fn has(&self, process: ProcessId) -> bool {
        self.worker_of(process).is_some()
    }

    fn worker_of(&self, process: ProcessId) -> Option<WorkerId> {
        self.rings.iter().find(|(_, ring)| ring.process == process).map(|(worker, _)| *worker)
    }

    /// Writes a call that was bound on admission, and shows it to its worker at once.
    pub fn push_at_once(&mut self, now: Nanos, push: Push, did: &mut Vec<Did>) {
        self.push(now, push, did);
        self.rings.values_mut().for_each(|ring| _ = ring.end.publish());
    }

    fn push(&mut self, now: Nanos, push: Push, did: &mut Vec<Did>) {
        let process = self.write(now, push, self.marks[&push.invocation]);
        did.push(Did::Pushed(push.invocation, process));
    }

    /// Second attempts: the request is read out of the ring of the worker that has the first one.
    fn push_hedges(&mut self, now: Nanos, did: &mut Vec<Did>) {
        while let Some(Hedge { push, call, holder }) = self.engine.poll_hedge() {
            let ring = &self.rings[&holder];
            let mut payload = Vec::new();
            ring.end.read_request(ring.slots[&call], &mut payload);
            let mark = payload.try_into().map(u64::from_le_bytes).expect("every payload here is eight bytes");
            let process = self.write(now, push, mark);
            did.push(Did::Hedged { call, twin: push.invocation, process });
        }
    }

    fn write(&mut self, now: Nanos, push: Push, mark: u64) -> ProcessId {
        let ring = self.rings.get_mut(&push.worker).expect("the engine pushes to attached workers only");
        let request = Request {
            invocation_id: push.invocation.0,
            deadline_at_ns: push.deadline_at.0,
            pushed_at_ns: now.0,
            flags: 0,
            criticality: 1,
            context: None,
        };
        let payload = mark.to_le_bytes();
        let slot = ring.end.push(request, &payload).expect("the engine counts credits as the ring does");
        ring.slots.insert(push.invocation, slot);
        ring.process
    }

    /// One turn, after new requests were handed to the engine.
    pub fn turn(&mut self, now: Nanos, did: &mut Vec<Did>) {
        let workers: Vec<_> = self.rings.keys().copied().collect();
        for worker in &workers {
            self.reap(now, *worker, did);
        }
        self.engine.handle_time(now, &Evidence(&self.rings));
        self.push_hedges(now, did);
        self.look_aside(did);
        while let Some(push) = self.engine.poll_push(now) {
            // Of calls found expired on the way, others may have taken the place.
            self.look_aside(did);
            self.push(now, push, did);
        }
        self.look_aside(did);
        for ring in self.rings.values_mut() {
            ring.end.publish();
        }
        self.engine.handle_waits(now, &Evidence(&self.rings));
        while let Some(PlacesWanted { function, count, leaving, .. }) = self.engine.poll_places(now) {
            let leaving = leaving.and_then(|worker| self.process_of(worker));
            did.push(Did::Wanted { function: function.0, count, leaving });
        }
        self.send_answers(did);
        while let Some(action) = self.engine.poll_worker_action() {
            self.act(action, did);
        }
    }

    fn send_answers(&mut self, did: &mut Vec<Did>) {
        while let Some(answer) = self.engine.poll_answer() {
            let id = answer.invocation;
            self.aside.remove(&id);
            let holder = self.rings.iter().find(|(_, ring)| ring.slots.contains_key(&id));
            let is_begun = |worker| Evidence(&self.rings).started(worker, id) == Started::Yes;
            if answer.status == Status::TimedOut && holder.is_some_and(|(worker, _)| is_begun(*worker)) {
                did.push(Did::Ran { id, has_failed: true });
            }
            did.push(Did::Answered(id, seen(&answer, None)));
        }
    }

    /// A worker's calls are off its hands: those that were not answered wait again.
    fn take_back(&mut self, held: Vec<InvocationId>, did: &mut Vec<Did>) {
        self.send_answers(did);
        for id in held {
            did.push(Did::TakenBack(id));
            if let Some(stand) = self.stand_of(id) {
                self.tell_stand(id, stand, did);
            }
        }
        self.look_aside(did);
    }

    fn act(&mut self, action: WorkerAction, did: &mut Vec<Did>) {
        match action {
            WorkerAction::Cancel { worker, invocation } => {
                if let Some(ring) = self.rings.get_mut(&worker)
                    && let Some(slot) = ring.slots.get(&invocation)
                {
                    ring.end.request_cancel(*slot, invocation.0);
                }
            }
            WorkerAction::Stop { worker } => {
                did.extend(self.rings.get(&worker).map(|ring| Did::Stopped(ring.process)));
            }
            WorkerAction::Kill { worker, .. } => {
                did.extend(self.rings.get(&worker).map(|ring| Did::Killed(ring.process)));
            }
        }
    }

    fn reap(&mut self, now: Nanos, worker: WorkerId, did: &mut Vec<Did>) {
        while let Some(ring) = self.rings.get_mut(&worker).filter(|ring| !ring.is_quarantined) {
            match ring.end.next_completion() {
                Ok(None) => return,
                Ok(Some(completion)) => {
                    let mut result = Vec::new();
                    ring.end.read_result(&completion, &mut result);
                    let invocation = InvocationId(completion.invocation_id);
                    ring.slots.remove(&invocation);
                    let finished = Finished {
                        outcome: outcome_of(completion.outcome),
                        started_at: Nanos(completion.started_at_ns),
                        finished_at: Nanos(completion.finished_at_ns),
                    };
                    ring.end.release(completion);
                    did.push(Did::GivenBack(invocation));
                    let completed = self.engine.handle_completion(now, worker, invocation, finished);
                    if let Some(has_failed) = verdict(&completed, finished.outcome) {
                        did.push(Did::Ran { id: invocation, has_failed });
                    }
                    let mark = result.try_into().ok().map(u64::from_le_bytes);
                    match completed {
                        Completed::Answer(answer) | Completed::LastAnswer(answer) => {
                            did.push(Did::Answered(answer.invocation, seen(&answer, mark)));
                        }
                        Completed::TriedAgain => {
                            did.push(Did::TakenBack(invocation));
                            let stand = self.stand_of(invocation).expect("a call that is tried again waits");
                            self.tell_stand(invocation, stand, did);
                        }
                        Completed::AlreadyAnswered => {}
                        Completed::Stale => panic!("the ring checked that {invocation:?} is in flight"),
                    }
                    while let Some(answer) = self.engine.poll_joined(now) {
                        self.aside.remove(&answer.invocation);
                        did.push(Did::Answered(answer.invocation, seen(&answer, mark)));
                    }
                    self.look_aside(did);
                }
                Err(_) => {
                    ring.is_quarantined = true;
                    did.push(Did::Quarantined(ring.process));
                    let held: Vec<_> = ring.slots.keys().copied().collect();
                    self.engine.handle_worker_misbehaved(now, worker);
                    self.rings.entry(worker).and_modify(|ring| ring.slots.clear());
                    return self.take_back(held, did);
                }
            }
        }
    }
}

/// Looks into the rings for the engine.
struct Evidence<'a>(&'a BTreeMap<WorkerId, Ring>);

impl StartEvidence for Evidence<'_> {
    fn started(&self, worker: WorkerId, invocation: InvocationId) -> Started {
        let ring = self.0.get(&worker);
        let place = ring.and_then(|ring| Some((ring, ring.slots.get(&invocation)?)));
        match place.map(|(ring, slot)| ring.end.was_started(*slot)) {
            Some(shm_ring::Started::No) => Started::No,
            Some(shm_ring::Started::Yes) => Started::Yes,
            Some(shm_ring::Started::Unknown) | None => Started::Unknown,
        }
    }

    fn mark_is_final(&self) -> bool {
        true
    }
}

impl WaitEvidence for Evidence<'_> {
    fn waits_for(&self, worker: WorkerId) -> WaitToken {
        let ring = self.0.get(&worker).filter(|ring| !ring.is_quarantined);
        ring.map_or(WaitToken::NONE, |ring| WaitToken::from_bits(ring.end.waits_for()))
    }
}

fn seen(answer: &engine::Answer, mark: Option<u64>) -> Seen {
    Seen { status: answer.status, has_started_flag: answer.flags.contains(Flags::STARTED), mark }
}

/// What a run says about its function: nothing if it never began or nobody waited for it any more, or if it went well with
/// more to say than its caller's region holds.
fn verdict(completed: &Completed, outcome: RunOutcome) -> Option<bool> {
    match completed {
        Completed::Answer(answer) | Completed::LastAnswer(answer) => match (answer.status, outcome) {
            (Status::Ok, _) => Some(false),
            (Status::FunctionError, _) => Some(true),
            (_, RunOutcome::Expired | RunOutcome::Cancelled) => None,
            (Status::TimedOut, _) => Some(true),
            _ => None,
        },
        Completed::TriedAgain => Some(true),
        Completed::AlreadyAnswered | Completed::Stale => None,
    }
}

fn outcome_of(outcome: Outcome) -> RunOutcome {
    match outcome {
        Outcome::Ok => RunOutcome::Ok,
        Outcome::FunctionError => RunOutcome::FunctionError,
        Outcome::Expired => RunOutcome::Expired,
        Outcome::Cancelled => RunOutcome::Cancelled,
        Outcome::ResultTooLarge => RunOutcome::ResultTooLarge,
        Outcome::Backpressure => RunOutcome::Backpressure,
    }
}
