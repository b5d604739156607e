//! Stages 5 and 8 of 8, the router's side of the rings: calls into workers, results out of them, and worker death.
//!
//! In: pushes and actions of the engine; completions in the rings; events about bells, sockets and processes.
//! Out: requests in slots, a futex wake for workers that sleep; answers with their bytes still in the slot.
//! Owns: for each attached worker its ring, its bell, its socket and its process descriptor.
//! Always: a ring is looked at only while it holds calls; a batch is published once per ring and turn; a process is
//! declared lost only when it is known to be dead, because only then its slots tell the truth about what had started.
//! Never: panics on what a worker wrote: it is quarantined (killed, its calls answered), and nobody else notices.
//! Reading order: this file (the turn), [`attach`] (how workers come), `seat.rs` (one worker).
//! Tests: `tests/workers.rs`.
#![forbid(unsafe_code)]

pub mod attach;
mod contained;
mod hedge;
mod result;
mod seat;
mod shim_peer;

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;

use engine::{
    Answer, Completed, Finished, InvocationId, Nanos, Push, RunOutcome, Signal, StartEvidence, WaitEvidence,
    WorkerAction, WorkerId,
};
use protocol::{DOWNSTREAM_NAME_SIZE_MAX, DownstreamName, FunctionId, Status, WaitToken};
use shm_ring::{
    Completion, Context, Mapped, Outcome, PushRefused, PushedRequest, Request, RouterEnd, SlotIndex,
    WorkerMisbehaved,
};

use crate::counters::Attached;
use crate::io::Io;
use crate::net::Desk;
use crate::payloads::{Body, Manner};
use crate::shm_clients::ShmClients;

use result::RingResult;

pub use attach::{Attach, AttachOptions, ShimState};
pub use result::{NoResult, ResultBytes};
pub use seat::Seat;

/// Where answers go.
pub trait Deliver {
    /// Answers, in their order; `result` tells the bytes that the n-th carries.
    fn deliver<R: ResultBytes>(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        answers: &[Answer],
        result: impl Fn(usize) -> R,
    );

    /// Those who attach beside workers.
    fn clients(&mut self) -> &mut ShmClients;

    /// Keeps a call beyond its answer.
    fn keep(&mut self, desk: &mut Desk<'_>, answer: &Answer, manner: Manner, body: Body<'_>);
}

/// All workers of a shard.
#[derive(Default)]
pub struct Workers {
    /// By the index of the engine's worker ids.
    seats: Vec<Option<Seat>>,
    /// Indices of seats that hold calls.
    busy: Vec<u32>,
    /// Indices of seats that were pushed into or reaped from in this turn.
    touched: Vec<u32>,
    /// The ring slot of each pushed call, by the slot of its invocation.
    ring_slots: Vec<SlotIndex>,
    /// What was taken from a ring, and those of it that are answers: between two batches empty.
    completions: Vec<Completion>,
    answers: Vec<Answer>,
    /// Workers whose socket closed and whose process has not ended yet, with the time to end it. In order.
    leaving: VecDeque<(Nanos, WorkerId)>,
    attached_count: u32,
    /// For the payload of a call that goes into a second ring.
    spare: Vec<u8>,
}

/// A process that exits closes its socket a moment before it is gone. One that stays longer than this without a socket
/// is ended.
const EXIT_GRACE: Nanos = Nanos::from_secs(1);

/// Times a worker may wake the router without an answer. An honest one rings at most once for each answer (S-35); the
/// room is for rings that the kernel tells of twice.
const BELLS_UNEARNED_MAX: u64 = 1024;

/// Results that are taken from a ring before the first of them is told to the engine; as for calls, `shm_clients.rs`.
const BATCH_MAX: usize = 32;

impl Workers {
    /// Writes a call into its worker's ring. The worker sees it after [`Workers::publish`].
    #[inline]
    pub fn push(&mut self, desk: &mut Desk<'_>, io: &Io, clients: &ShmClients, push: Push) {
        if let Some((manner, place, size)) = desk.payloads.in_client(push.invocation) {
            let context = clients.context(place, manner.flags);
            let mut ring = self.open(desk.now, push.worker);
            ring.push_with(push, manner, context.as_ref(), |ring, request| {
                clients.push_payload(place, size, ring, request)
            });
            ring.close();
        } else {
            let (manner, body) = desk.payloads.body(io, push.invocation);
            let mut ring = self.open(desk.now, push.worker);
            ring.push_body(push, manner, body);
            ring.close();
        }
        desk.payloads.on_pushed(push.invocation);
        desk.stats.counters.pushes += 1;
    }

    /// The same for a call that is pushed as it comes in, with its body wherever it was received.
    #[inline]
    pub fn push_body(&mut self, desk: &mut Desk<'_>, push: Push, manner: Manner, body: Body<'_>) {
        let mut ring = self.open(desk.now, push.worker);
        ring.push_body(push, manner, body);
        ring.close();
        desk.stats.counters.pushes += 1;
    }

    /// The same for a payload that `write_payload` brings into the ring.
    #[inline]
    pub fn push_with(
        &mut self,
        desk: &mut Desk<'_>,
        push: Push,
        manner: Manner,
        context: Option<&Context>,
        write_payload: impl FnOnce(&mut RouterEnd<Mapped>, Request<'_>) -> Result<SlotIndex, PushRefused>,
    ) {
        let mut ring = self.open(desk.now, push.worker);
        ring.push_with(push, manner, context, write_payload);
        ring.close();
        desk.stats.counters.pushes += 1;
    }

    /// The ring of an attached worker, to write calls into.
    #[inline]
    pub fn open(&mut self, now: Nanos, worker: WorkerId) -> OpenRing<'_> {
        let seat = self.seats[worker.index as usize].as_mut();
        OpenRing {
            seat: seat.expect("the engine pushes to attached workers only"),
            ring_slots: &mut self.ring_slots,
            busy: &mut self.busy,
            touched: &mut self.touched,
            now,
            count: 0,
        }
    }

    /// Takes what workers have finished. Results are copied from their slots straight to where `deliver` wants them.
    #[inline]
    pub fn reap(&mut self, desk: &mut Desk<'_>, io: &mut Io, replies: &mut impl Deliver) -> usize {
        let mut work = 0;
        let mut position = 0;
        while let Some(&index) = self.busy.get(position) {
            work += self.reap_one(desk, io, replies, index);
            let is_busy = self.seats[index as usize].as_ref().is_some_and(|seat| seat.held_count > 0);
            if is_busy {
                position += 1;
            } else {
                self.busy.swap_remove(position);
            }
        }
        work
    }

    fn reap_one(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        replies: &mut impl Deliver,
        index: u32,
    ) -> usize {
        let Some(seat) = self.seats[index as usize].as_mut() else { return 0 };
        if seat.is_quarantined {
            return 0;
        }
        let mut count = 0;
        // A ring holds at most its slots, and nothing is pushed meanwhile: the loop is bounded, whatever the worker does.
        let misbehaved = loop {
            let found = seat.ring.next_completions(BATCH_MAX, |completion| self.completions.push(completion));
            let taken = self.completions.len();
            complete_all(desk, io, replies, seat, &self.completions, &mut self.answers);
            self.completions.drain(..).for_each(|completion| seat.ring.release(completion));
            count += taken as u64;
            seat.held_count -= taken as u32;
            match found {
                Ok(()) if taken == BATCH_MAX => {}
                found => break found.err(),
            }
        };
        if count > 0 {
            desk.stats.counters.completions += count;
            seat.answer_count += count;
            touch(&mut self.touched, seat, index);
        }
        if let Some(misbehaved) = misbehaved {
            self.quarantine(desk, index, misbehaved);
        }
        count as usize
    }

    /// Shows each touched ring what was pushed, and wakes its worker if it sleeps.
    #[inline]
    pub fn publish(&mut self, desk: &mut Desk<'_>) {
        for index in self.touched.drain(..) {
            let Some(seat) = self.seats[index as usize].as_mut() else { continue };
            seat.is_touched = false;
            if seat.ring.publish() {
                seat.ring.wake();
                desk.stats.counters.worker_wakes += 1;
            }
        }
    }

    /// Does what the engine wants done to workers. Answers may follow from it, so that it counts as work.
    pub fn act(&mut self, desk: &mut Desk<'_>, io: &mut Io) -> usize {
        let mut work = 0;
        while let Some(action) = desk.engine.poll_worker_action() {
            work += 1;
            match action {
                WorkerAction::Cancel { worker, invocation } => {
                    let slot = self.ring_slot(invocation);
                    if let (Some(seat), Some(slot)) = (self.seat(worker), slot) {
                        seat.ring.request_cancel(slot, invocation.0);
                    }
                }
                WorkerAction::Stop { worker } => {
                    if let Some(seat) = self.seat(worker) {
                        seat.tell_stop();
                    }
                }
                WorkerAction::Kill { worker, reason } => {
                    if reason != engine::KillReason::Misbehaved {
                        desk.stats.counters.workers_killed += 1;
                    }
                    self.kill(desk, io, worker.index);
                }
            }
        }
        work
    }

    /// A worker rang. What it rang for is reaped in every turn; here it only must not keep the shard awake for nothing.
    pub fn on_bell(&mut self, desk: &mut Desk<'_>, index: u32) {
        let Some(seat) = self.seats.get_mut(index as usize).and_then(Option::as_mut) else { return };
        seat.bell_count += 1;
        let (bell_count, answer_count) = (seat.bell_count, seat.answer_count);
        if bell_count > answer_count + BELLS_UNEARNED_MAX && !seat.is_quarantined {
            self.quarantine(desk, index, WorkerMisbehaved::BellWithoutAnswer { bell_count, answer_count });
        }
    }

    /// About to sleep: workers with calls shall ring. False: there is something to reap already.
    pub fn announce_sleep(&mut self) -> bool {
        let seats = &mut self.seats;
        self.busy
            .iter()
            .all(|index| seats[*index as usize].as_mut().is_none_or(|seat| seat.ring.announce_sleep()))
    }

    /// Awake again.
    pub fn announce_awake(&mut self) {
        for index in &self.busy {
            if let Some(seat) = self.seats[*index as usize].as_mut() {
                seat.ring.announce_awake();
            }
        }
    }

    /// Tells every worker to finish what it has and exit.
    pub fn stop_all(&mut self) {
        self.seats.iter_mut().flatten().for_each(Seat::tell_stop);
    }

    /// Workers learn that no new calls come.
    pub fn announce_draining(&mut self) {
        self.seats.iter_mut().flatten().for_each(|seat| seat.ring.announce_draining());
    }

    /// Workers attached.
    pub fn attached_count(&self) -> u32 {
        self.attached_count
    }

    /// Who is attached, for reports and tests.
    pub fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().flatten()
    }

    /// A worker sits down at the place the engine gave it.
    fn seat_down(&mut self, desk: &mut Desk<'_>, seat: Seat) {
        let index = seat.id.index as usize;
        if index >= self.seats.len() {
            self.seats.resize_with(index + 1, || None);
        }
        assert!(self.seats[index].is_none(), "the engine gives a place away only after its worker was lost");
        let attached = Attached { worker: seat.id, pid: seat.process_id, attached_at: desk.now };
        desk.stats.roster.arrive(attached);
        self.seats[index] = Some(seat);
        self.attached_count += 1;
        desk.stats.counters.workers_attached += 1;
        desk.stats.counters.workers_attached_now = u64::from(self.attached_count);
    }

    /// The worker's socket closed. Its process may live on for a moment, and go on running calls: it gets no new ones,
    /// and is lost when it is certain that it ended.
    pub fn on_socket_closed(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        replies: &mut impl Deliver,
        index: u32,
    ) {
        let Some(seat) = self.seats.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if seat.is_known_dead() {
            self.lose(desk, io, replies, index);
        } else {
            self.leaving.push_back((desk.now.plus(EXIT_GRACE), seat.id));
            desk.engine.handle_worker_draining(seat.id);
        }
    }

    /// Processes that did not end in time.
    pub fn on_time(&mut self, now: Nanos) {
        while let Some(&(at, id)) = self.leaving.front()
            && at <= now
        {
            self.leaving.pop_front();
            if let Some(seat) = self.seat(id) {
                seat.kill();
            }
        }
    }

    /// When `on_time` has something to do next.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.leaving.front().map(|(at, _)| *at)
    }

    /// The worker's process descriptor is readable: it ended.
    pub fn on_process_event(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        replies: &mut impl Deliver,
        index: u32,
    ) {
        let is_dead =
            self.seats.get(index as usize).and_then(Option::as_ref).is_some_and(Seat::is_known_dead);
        if is_dead {
            self.lose(desk, io, replies, index);
        }
    }

    /// Ends the process of a worker; it is lost when its descriptor says so.
    fn kill(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        let Some(seat) = self.seats[index as usize].as_mut() else { return };
        seat.kill();
        if seat.process.is_none() {
            // A worker inside this very process can only be cut off: nothing of it is looked at again.
            self.forget(desk, io, index);
        }
    }

    /// A dead worker: what it finished counts, what it had not goes back to the engine.
    fn lose(&mut self, desk: &mut Desk<'_>, io: &mut Io, replies: &mut impl Deliver, index: u32) {
        if let Some(seat) = self.seats[index as usize].as_mut() {
            // What was pushed in this turn never reached it; only a ring that was shown everything may be read.
            let _ = seat.ring.publish();
        }
        self.reap_one(desk, io, replies, index);
        self.forget(desk, io, index);
    }

    fn forget(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        let Some(seat) = self.seats[index as usize].as_ref() else { return };
        let id = seat.id;
        // The calls of a quarantined worker were taken back then. What its ring still names may be in another ring by
        // now, or be over and its number another call's.
        if !seat.is_quarantined {
            self.save_payloads(desk, index);
        }
        desk.engine.handle_worker_lost(desk.now, id, &*self);
        if let Some(seat) = self.seats[index as usize].take() {
            seat.close(io);
            desk.stats.roster.leave(id);
            self.attached_count -= 1;
            desk.stats.counters.workers_detached += 1;
            desk.stats.counters.workers_attached_now = u64::from(self.attached_count);
        }
    }

    /// A worker wrote what no honest worker writes.
    fn quarantine(&mut self, desk: &mut Desk<'_>, index: u32, misbehaved: WorkerMisbehaved) {
        self.save_payloads(desk, index);
        let Some(seat) = self.seats[index as usize].as_mut() else { return };
        seat.is_quarantined = true;
        seat.misbehaved = Some(misbehaved);
        seat.held_count = 0;
        let id = seat.id;
        desk.stats.counters.workers_misbehaved += 1;
        desk.engine.handle_worker_misbehaved(desk.now, id);
    }

    /// Calls that the engine may give to another worker need their bytes back.
    fn save_payloads(&mut self, desk: &mut Desk<'_>, index: u32) {
        let Some(seat) = self.seats[index as usize].as_ref() else { return };
        let mut payload = Vec::new();
        for (slot, invocation) in seat.ring.in_flight() {
            let invocation = InvocationId(invocation);
            if desk.engine.owes_answer(invocation) {
                payload.clear();
                let (manner, extensions) = manner_of(&seat.ring.read_request(slot, &mut payload));
                let body = Body { extensions: &extensions, payload: &payload };
                desk.payloads.put_copy(invocation, manner, body);
            }
        }
    }

    /// Direct lanes this worker can serve: none in a process that can't be known to be dead.
    pub fn lanes_max(&self, worker: WorkerId) -> u32 {
        let seat = self.seats.get(worker.index as usize).and_then(Option::as_ref);
        seat.filter(|seat| seat.id == worker && seat.process.is_some()).map_or(0, |seat| seat.lanes_max)
    }

    /// The process of a worker that is attached.
    pub fn process_id(&self, worker: WorkerId) -> Option<u32> {
        let seat = self.seats.get(worker.index as usize)?.as_ref();
        seat.filter(|seat| seat.id == worker).map(|seat| seat.process_id)
    }

    /// The socket of a worker that is attached.
    pub fn socket(&self, worker: WorkerId) -> Option<&UnixStream> {
        let seat = self.seats.get(worker.index as usize)?.as_ref();
        seat.filter(|seat| seat.id == worker).map(|seat| &*seat.socket)
    }

    fn seat(&mut self, worker: WorkerId) -> Option<&mut Seat> {
        self.seats.get_mut(worker.index as usize)?.as_mut().filter(|seat| seat.id == worker)
    }

    fn ring_slot(&self, invocation: InvocationId) -> Option<SlotIndex> {
        self.ring_slots.get(invocation.slot() as usize).copied()
    }
}

/// See [`Workers::open`].
pub struct OpenRing<'a> {
    seat: &'a mut Seat,
    ring_slots: &'a mut Vec<SlotIndex>,
    busy: &'a mut Vec<u32>,
    touched: &'a mut Vec<u32>,
    now: Nanos,
    count: u32,
}

impl OpenRing<'_> {
    /// Writes a call, whose payload `write_payload` brings into the ring. The worker sees it after [`Workers::publish`].
    #[inline(always)]
    pub fn push_with(
        &mut self,
        push: Push,
        manner: Manner,
        context: Option<&Context>,
        write_payload: impl FnOnce(&mut RouterEnd<Mapped>, Request<'_>) -> Result<SlotIndex, PushRefused>,
    ) {
        let request = Request {
            invocation_id: push.invocation.0,
            deadline_at_ns: push.deadline_at.0,
            pushed_at_ns: self.now.0,
            flags: manner.flags.0,
            criticality: manner.criticality,
            context,
        };
        // The engine's credits are the ring's slots and its bound of payloads the ring's: a refusal is our bug.
        let slot = write_payload(&mut self.seat.ring, request).expect("a free slot and room for the payload");
        let index = push.invocation.slot() as usize;
        match self.ring_slots.get_mut(index) {
            Some(place) => *place = slot,
            None => note_ring_slot(self.ring_slots, index, slot),
        }
        self.count += 1;
    }

    /// The same for a call whose body lies in memory of ours.
    #[inline(always)]
    pub fn push_body(&mut self, push: Push, manner: Manner, body: Body<'_>) {
        let context = context(manner, body);
        self.push_with(push, manner, context.as_ref(), |ring, request| ring.push(request, body.payload));
    }

    /// Says how many calls were written.
    #[inline]
    pub fn close(self) -> u32 {
        let OpenRing { seat, count, .. } = self;
        if count == 0 {
            return 0;
        }
        let index = seat.id.index;
        if seat.held_count == 0 {
            self.busy.push(index);
        }
        seat.held_count += count;
        touch(self.touched, seat, index);
        count
    }
}

/// Rare: an invocation's slot that no call had before.
#[cold]
fn note_ring_slot(ring_slots: &mut Vec<SlotIndex>, index: usize, slot: SlotIndex) {
    ring_slots.resize((index + 1).next_power_of_two().max(1024), SlotIndex(0));
    ring_slots[index] = slot;
}

impl StartEvidence for Workers {
    fn started(&self, worker: WorkerId, invocation: InvocationId) -> engine::Started {
        let seat =
            self.seats.get(worker.index as usize).and_then(Option::as_ref).filter(|seat| seat.id == worker);
        let (Some(seat), Some(slot)) = (seat, self.ring_slot(invocation)) else {
            return engine::Started::Unknown;
        };
        match seat.ring.was_started(slot) {
            shm_ring::Started::No => engine::Started::No,
            shm_ring::Started::Yes => engine::Started::Yes,
            shm_ring::Started::Unknown => engine::Started::Unknown,
        }
    }

    /// The ring has both fences: S-10 and S-12 of docs/spec/shm.md.
    fn mark_is_final(&self) -> bool {
        true
    }
}

impl WaitEvidence for Workers {
    fn waits_for(&self, worker: WorkerId) -> WaitToken {
        let seat = self.seats.get(worker.index as usize).and_then(Option::as_ref);
        let seat = seat.filter(|seat| seat.id == worker && !seat.is_quarantined);
        seat.map_or(WaitToken::NONE, |seat| WaitToken::from_bits(seat.ring.waits_for()))
    }
}

/// Results: to the engine, and those that are their calls' answers to the callers.
#[inline(always)]
fn complete_all(
    desk: &mut Desk<'_>,
    io: &mut Io,
    replies: &mut impl Deliver,
    seat: &Seat,
    completions: &[Completion],
    answers: &mut Vec<Answer>,
) {
    for completion in completions {
        desk.engine.prefetch(InvocationId(completion.invocation_id));
    }
    let mut rest = completions;
    while !rest.is_empty() {
        let results = rest.iter().map_while(|completion| {
            let is_result = completion.outcome == Outcome::Ok;
            is_result.then(|| finished(completion, RunOutcome::Ok))
        });
        desk.engine.handle_results(desk.now, seat.id, results, |answer| answers.push(answer));
        let (simple, behind) = rest.split_at(answers.len());
        replies.deliver(desk, io, answers, |n| RingResult::new(&seat.ring, &simple[n], true));
        answers.clear();
        rest = behind;
        if let Some((completion, behind)) = rest.split_first() {
            complete_otherwise(desk, io, replies, seat, completion);
            rest = behind;
        }
    }
}

/// Everything else that a worker may bring.
#[inline(never)]
fn complete_otherwise(
    desk: &mut Desk<'_>,
    io: &mut Io,
    replies: &mut impl Deliver,
    seat: &Seat,
    completion: &Completion,
) {
    let outcome = match completion.outcome {
        Outcome::Ok => RunOutcome::Ok,
        Outcome::FunctionError => RunOutcome::FunctionError,
        Outcome::Expired => RunOutcome::Expired,
        Outcome::Cancelled => RunOutcome::Cancelled,
        Outcome::ResultTooLarge => RunOutcome::ResultTooLarge,
        Outcome::Backpressure => RunOutcome::Backpressure,
    };
    let (invocation, finished) = finished(completion, outcome);
    let completed = match outcome {
        RunOutcome::Backpressure => {
            let signal = signal(seat, completion);
            desk.engine.handle_backpressure(desk.now, seat.id, invocation, finished, signal)
        }
        _ => desk.engine.handle_completion(desk.now, seat.id, invocation, finished),
    };
    match completed {
        Completed::Answer(answer) => deliver(desk, io, replies, seat, completion, answer),
        Completed::LastAnswer(answer) => {
            let mut payload = Vec::new();
            let (manner, extensions) = request_of(seat, completion, &mut payload);
            replies.keep(desk, &answer, manner, Body { extensions: &extensions, payload: &payload });
            deliver(desk, io, replies, seat, completion, answer);
        }
        Completed::TriedAgain => {
            let mut payload = Vec::new();
            let (manner, extensions) = request_of(seat, completion, &mut payload);
            let body = Body { extensions: &extensions, payload: &payload };
            desk.payloads.put_copy(invocation, manner, body);
        }
        Completed::AlreadyAnswered | Completed::Stale => desk.stats.counters.completions_stale += 1,
    }
    while let Some(answer) = desk.engine.poll_joined(desk.now) {
        let joined = answer.invocation;
        deliver(desk, io, replies, seat, completion, answer);
        // Theirs is not in the ring: they might have had to be run.
        desk.payloads.release(joined);
    }
}

/// What a function says that was pushed back.
fn signal(seat: &Seat, completion: &Completion) -> Signal {
    let mut name = [0; DOWNSTREAM_NAME_SIZE_MAX];
    let downstream = DownstreamName::from_bytes(seat.ring.read_downstream(completion, &mut name));
    Signal { downstream, severity: completion.severity }
}

/// The engine's view of it.
#[inline]
fn finished(completion: &Completion, outcome: RunOutcome) -> (InvocationId, Finished) {
    let (started_at, finished_at) = (Nanos(completion.started_at_ns), Nanos(completion.finished_at_ns));
    (InvocationId(completion.invocation_id), Finished { outcome, started_at, finished_at })
}

fn deliver(
    desk: &mut Desk<'_>,
    io: &mut Io,
    replies: &mut impl Deliver,
    seat: &Seat,
    completion: &Completion,
    answer: Answer,
) {
    let has_result = matches!(answer.status, Status::Ok | Status::FunctionError | Status::Backpressure);
    replies.deliver(desk, io, &[answer], |_| RingResult::new(&seat.ring, completion, has_result));
}

/// What was pushed into the slot of an answer that is not released yet: its payload is appended to `payload`.
fn request_of(seat: &Seat, completion: &Completion, payload: &mut Vec<u8>) -> (Manner, Vec<u8>) {
    manner_of(&seat.ring.read_request(completion.slot, payload))
}

#[inline]
fn touch(touched: &mut Vec<u32>, seat: &mut Seat, index: u32) {
    if !seat.is_touched {
        seat.is_touched = true;
        touched.push(index);
    }
}

/// The reverse of [`context`]: a pushed call as it came, for those who need it once more.
fn manner_of(pushed: &PushedRequest) -> (Manner, Vec<u8>) {
    let mut extensions = Vec::new();
    pushed.context.idempotency_key.iter().for_each(|key| extensions.extend_from_slice(key));
    pushed.context.trace.iter().for_each(|trace| extensions.extend_from_slice(trace));
    let manner = Manner {
        flags: protocol::Flags(pushed.flags),
        criticality: pushed.criticality,
        extension_size: extensions.len() as u16,
    };
    (manner, extensions)
}

/// The parts of a call's extensions that its function is given.
#[inline]
fn context(manner: Manner, body: Body<'_>) -> Option<Context> {
    if body.extensions.is_empty() {
        return None;
    }
    let mut rest = body.extensions;
    let mut idempotency_key = None;
    if manner.flags.contains(protocol::Flags::IDEMPOTENCY_KEY)
        && let Some((found, behind)) = rest.split_first_chunk::<16>()
    {
        idempotency_key = Some(*found);
        rest = behind;
    }
    let has_trace = manner.flags.contains(protocol::Flags::TRACE);
    let trace = rest.first_chunk::<32>().filter(|_| has_trace).copied();
    Some(Context { trace, idempotency_key })
}

/// What a function's workers are given, and how many of which edition are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRing {
    /// Its number.
    pub function: FunctionId,
    /// Slots of a worker's ring; a power of two.
    pub slots: u32,
    /// The largest payload and the largest result.
    pub payload_size_max: u32,
    /// The token of those that were started as what the function is by now.
    pub edition: u64,
    /// Processes that are to be kept.
    pub workers_wanted: u32,
}
