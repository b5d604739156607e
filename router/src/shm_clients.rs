//! Stages 1 and 8 of 8 for clients with a ring of their own: calls out of shared memory, answers into it.
//!
//! ```text
//!   attach ──▶ watched ◀──── bell, or an answer ─────┐
//!                 │  looked at in every turn         │
//!                 └── quiet for PARK_AFTER, or the shard sleeps ──▶ parked (costs nothing, rings when it calls)
//!   either ──▶ closed: socket ended, misbehaved, or drained; its calls are cancelled, its memory unmapped
//! ```
//! In: slots that clients submitted; answers.  Out: requests to the engine; answers in the clients' slots.
//! Owns: for each client its ring, its bell and its socket. Never a payload byte: it stays in the client's slot, which is
//! occupied until the answer, and is copied once, into the worker's slot; a result is copied once, from there into the
//! client's slot. Payloads of waiting calls therefore take no memory of the router.
//! Always: a turn costs O(clients that call), not O(clients): a parked ring is not looked at. A batch is published once
//! for each client and turn, and a client is woken only if it sleeps.
//! Always: everything is bounded: clients (`clients_max`), their slots, their memory (`memory_max`), the calls taken from
//! one ring in one turn (its slots). A client that reads no answers blocks its own slots and nothing else.
//! Never: panics on what a client wrote: it is told, closed and counted, its calls are cancelled, nobody else notices.
//! Spec: docs/spec/shm.md, "Client rings".  Why: docs/decisions/0007.  Tests: `tests/shm_clients.rs`.
#![forbid(unsafe_code)]

mod client;
mod leases;
#[cfg(test)]
mod tests;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use engine::{Answer, CancelReason, InvocationId, Nanos, Origin, Request, Verdict};
use protocol::attach::{AttachRefused, ClientAttached, Message};
use protocol::{CallId, Flags, FunctionId, FunctionName, Status};
use shm_ring::client_ring::{self, ClientIdentity, ClientMisbehaved, ServiceEnd, TakenCall};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Context, Generation, Geometry, Mapped, Memory, PushRefused, RouterEnd, SlotIndex, pass};

use crate::io::Io;
use crate::lanes::Lanes;
use crate::net::Desk;
use crate::payloads::{ClientPlace, Manner};
use crate::shard::Owner;
use crate::workers::{ResultBytes, Workers};

use client::Client;

/// `Origin::connection` of a call from a ring is this and the client's index. No slab of connections grows that far, and
/// no table of clients so far that it would be [`crate::frontend::LOCAL`].
const SHM: u32 = 1 << 31;

/// A ring without calls for this long is parked: looked at no more until its bell rings. A turn under load takes some
/// ten microseconds, so a client that calls steadily is never parked; one that pauses pays one system call for its next
/// batch.
const PARK_AFTER: Nanos = Nanos::from_us(200);

/// Times a client may ring without calling, as for workers: an honest one rings at most once for each call (S-46).
const BELLS_UNEARNED_MAX: u64 = 1024;

/// Calls that are taken from a ring before the first of them is admitted: so many that what is asked once for a batch costs
/// each call little, and so few that what was read is still in the first cache.
const BATCH_MAX: usize = 32;

/// The bounds of a shard's shared-memory clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShmOptions {
    /// Clients at one time. Full: `TooManyClients`.
    pub clients_max: u32,
    /// Bytes that the regions of one client may have. More wanted: fewer slots; not one: `RingTooLarge`.
    pub memory_max: u64,
    /// Slots of a client that does not say how many it wants.
    pub slot_count_usual: u32,
    /// The largest payload of a client that does not say which it wants.
    pub payload_size_usual: u32,
    /// Clients may ask for direct lanes.
    pub direct_lanes: bool,
}

impl Default for ShmOptions {
    fn default() -> ShmOptions {
        ShmOptions {
            clients_max: 64,
            memory_max: 256 << 20,
            // Ten times what a pipeline needs that is answered within 40 us at 2.5 million calls a second.
            slot_count_usual: 1024,
            payload_size_usual: 16 << 10,
            direct_lanes: false,
        }
    }
}

/// What a client asks for; 0 for what is usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Slots.
    pub slot_count: u32,
    /// The largest payload, and the largest result.
    pub payload_size_max: u32,
}

/// Names one client for as long as it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId {
    index: u32,
    generation: u32,
}

/// All shared-memory clients of a shard.
pub struct ShmClients {
    options: ShmOptions,
    clients: Vec<Option<Client>>,
    free: Vec<u32>,
    generation_next: u32,
    /// Indices of clients that are looked at in every turn.
    watched: Vec<u32>,
    /// Indices of clients that were answered in this turn.
    touched: Vec<u32>,
    /// Clients that were told to go and have no call left.
    leaving: Vec<ClientId>,
    lanes: Lanes,
    attached_count: u32,
    is_draining: bool,
}

impl ShmClients {
    /// Without clients.
    pub fn new(options: ShmOptions) -> ShmClients {
        ShmClients {
            lanes: Lanes::new(options.direct_lanes, options.memory_max),
            options,
            clients: Vec::new(),
            free: Vec::new(),
            generation_next: 0,
            watched: Vec::new(),
            touched: Vec::new(),
            leaving: Vec::new(),
            attached_count: 0,
            is_draining: false,
        }
    }

    /// The call came from one of these clients.
    #[inline]
    pub fn is_origin(origin: &Origin) -> bool {
        origin.connection & SHM != 0
    }

    /// Takes new calls into the engine, from every ring that is watched.
    #[inline]
    pub fn take(&mut self, desk: &mut Desk<'_>, io: &mut Io, workers: &mut Workers) -> usize {
        let mut work = 0;
        let mut position = 0;
        while let Some(&index) = self.watched.get(position) {
            match self.take_from(desk, workers, index) {
                Ok(0) if self.has_parked(desk.now, index) => {
                    self.watched.swap_remove(position);
                }
                Ok(count) => {
                    work += count;
                    position += 1;
                }
                // Closing takes it out of the list: the next one is at this position now.
                Err(misbehaved) => self.quarantine(desk, io, index, &misbehaved),
            }
        }
        work
    }

    /// Writes answers to calls of one client into their slots; `result` tells the bytes that the n-th carries.
    #[inline(always)]
    pub fn answer<R: ResultBytes>(
        &mut self,
        desk: &mut Desk<'_>,
        origin: Origin,
        answers: &[Answer],
        result: impl Fn(usize) -> R,
    ) {
        let id = ClientId { index: origin.connection & !SHM, generation: origin.connection_generation };
        let mut count = 0;
        if let Some(client) = client_of(&mut self.clients, id) {
            for (n, answer) in answers.iter().enumerate() {
                count += u64::from(client.answer(answer, &result(n)));
            }
            touch(&mut self.touched, client, id.index);
        }
        desk.stats.counters.replies += count;
        desk.stats.counters.replies_orphaned += answers.len() as u64 - count;
    }

    /// Shows each answered client its answers, and wakes it if it sleeps. Who was answered will call again: it is watched.
    #[inline]
    pub fn publish(&mut self, desk: &mut Desk<'_>, io: &mut Io) {
        for index in self.touched.drain(..) {
            let Some(client) = self.clients[index as usize].as_mut() else { continue };
            client.is_touched = false;
            if client.ring.publish() {
                client.ring.wake();
                desk.stats.counters.shm_client_wakes += 1;
            }
            watch(&mut self.watched, client, index, desk.now);
            if self.is_draining && client.ring.taken_count() == 0 && !self.lanes.has_lane(client.id) {
                self.leaving.push(client.id);
            }
        }
        while let Some(id) = self.leaving.pop() {
            self.close(desk, io, id);
        }
    }

    /// A client rang: it has called.
    pub fn on_bell(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        let Some(client) = self.clients.get_mut(index as usize).and_then(Option::as_mut) else { return };
        desk.stats.counters.shm_client_bells += 1;
        client.bell_count += 1;
        watch(&mut self.watched, client, index, desk.now);
        let (bell_count, call_count) = (client.bell_count, client.call_count);
        if bell_count > call_count + BELLS_UNEARNED_MAX {
            self.quarantine(desk, io, index, &ClientMisbehaved::BellWithoutCall { bell_count, call_count });
        }
    }

    /// About to sleep: every ring is parked. False: there are calls to take.
    pub fn announce_sleep(&mut self) -> bool {
        let clients = &mut self.clients;
        self.watched.retain(|index| {
            let Some(client) = clients[*index as usize].as_mut() else { return false };
            client.is_watched = !client.ring.announce_sleep();
            client.is_watched
        });
        self.watched.is_empty()
    }

    /// A visitor of the attach socket wants a ring.
    pub fn attach(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        socket: &Rc<UnixStream>,
        shard: u16,
        wanted: Wanted,
    ) -> Result<ClientId, AttachRefused> {
        if self.is_draining {
            return Err(AttachRefused::Draining);
        }
        if self.attached_count >= self.options.clients_max {
            return Err(AttachRefused::TooManyClients);
        }
        let geometry = grant(&self.options, wanted)?;
        let (memory, memory_fd) = Mapped::create("quickfire-client", geometry.memory_size())
            .map_err(|_| AttachRefused::RingUnavailable)?;
        let bell = Rc::new(EventDoorbell::new().map_err(|_| AttachRefused::RingUnavailable)?);
        let index = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            (self.clients.len() - 1) as u32
        });
        self.generation_next = self.generation_next.wrapping_add(1);
        let id = ClientId { index, generation: self.generation_next };
        let identity = ClientIdentity { generation: Generation(id.generation), client_id: index };
        let mut client = Client {
            id,
            ring: ServiceEnd::new(memory, geometry, identity),
            socket: socket.clone(),
            bell_source: io.watch(bell.clone(), Owner::ClientBell(index).tag()),
            called_at: desk.now,
            call_count: 0,
            bell_count: 0,
            is_watched: false,
            is_touched: false,
        };
        let mut record = Vec::new();
        let attached = ClientAttached {
            client_index: index,
            generation: id.generation,
            shard,
            slot_count: geometry.slot_count(),
            region_size: geometry.region_size(),
        };
        Message::ClientAttached(attached).encode(&mut record);
        // The socket is fresh, so 64 bytes fit; a peer that is gone meanwhile is told of by its own event.
        if pass::send_with_fds(&**socket, &record, &[memory_fd.as_fd(), bell.as_fd()]).is_err() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        watch(&mut self.watched, &mut client, index, desk.now);
        self.clients[index as usize] = Some(client);
        self.attached_count += 1;
        desk.stats.counters.shm_clients_attached += 1;
        desk.stats.counters.shm_clients_attached_now = u64::from(self.attached_count);
        Ok(id)
    }

    /// A client asks for a function's number.
    pub fn resolve(&mut self, desk: &mut Desk<'_>, id: ClientId, name: &FunctionName) {
        let Some(client) = client_of(&mut self.clients, id) else { return };
        let (function_id, status) = match desk.engine.resolve(name.as_str()) {
            Some(function) => (function, Status::Ok),
            None => (FunctionId(0), Status::UnknownFunction),
        };
        client.tell(Message::Resolved { function_id, status: status as u16 });
    }

    /// A client no longer wants the answer of a call. What it has published is looked at first: the call may be there.
    pub fn cancel(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        id: ClientId,
        (slot, call_id): (u32, u64),
    ) {
        if client_of(&mut self.clients, id).is_none() {
            return;
        }
        if let Err(misbehaved) = self.take_from(desk, workers, id.index) {
            return self.quarantine(desk, io, id.index, &misbehaved);
        }
        let Some(client) = client_of(&mut self.clients, id) else { return };
        let slot = SlotIndex(slot);
        if client.ring.call_id(slot) == Some(call_id)
            && let Some(invocation) = client.ring.tag(slot)
        {
            desk.engine.handle_cancel(desk.now, InvocationId(invocation), CancelReason::Asked);
        }
    }

    /// A client's socket ended: nobody is there any more.
    pub fn on_socket_closed(&mut self, desk: &mut Desk<'_>, io: &mut Io, id: ClientId) {
        self.close(desk, io, id);
    }

    /// No new clients and no new calls; every client is told, and let go when its last call is answered.
    pub fn drain(&mut self, desk: &mut Desk<'_>, io: &mut Io, workers: &mut Workers) {
        self.is_draining = true;
        for index in 0..self.clients.len() as u32 {
            // What is in the ring by now is refused by the engine, which drains already, and not forgotten.
            if let Err(misbehaved) = self.take_from(desk, workers, index) {
                self.quarantine(desk, io, index, &misbehaved);
            }
            let Some(client) = self.clients[index as usize].as_mut() else { continue };
            client.ring.announce_draining();
            client.tell(Message::Goaway { status: Status::GoingAway as u16 });
            touch(&mut self.touched, client, index);
        }
        self.publish(desk, io);
    }

    /// Cancels every outstanding call; the answers come as usual.
    pub fn cancel_all(&mut self, desk: &mut Desk<'_>) {
        for client in self.clients.iter().flatten() {
            for (_, invocation) in client.ring.taken() {
                desk.engine.handle_cancel(desk.now, InvocationId(invocation), CancelReason::Asked);
            }
        }
    }

    /// Clients attached.
    pub fn attached_count(&self) -> u32 {
        self.attached_count
    }

    /// Clients that call now, or did a moment ago.
    pub fn watched_count(&self) -> u32 {
        self.watched.len() as u32
    }

    /// Copies the payload of a client's call into the ring of its worker.
    #[inline]
    pub fn push_payload(
        &self,
        place: ClientPlace,
        size: u32,
        into: &mut RouterEnd<Mapped>,
        request: shm_ring::Request<'_>,
    ) -> Result<SlotIndex, PushRefused> {
        push_payload(self.ring(place), SlotIndex(place.slot), size, into, request)
    }

    /// Trace and idempotency key of a client's call.
    #[inline]
    pub fn context(&self, place: ClientPlace, flags: Flags) -> Option<Context> {
        context(self.ring(place), SlotIndex(place.slot), flags)
    }

    #[inline]
    fn ring(&self, place: ClientPlace) -> &ServiceEnd<Mapped> {
        let client = self.clients[place.client as usize].as_ref();
        &client.expect("calls of a client that is gone are cancelled before they are pushed").ring
    }

    /// Takes what a ring holds now: at most its slots, because none is submitted again before it is answered, except
    /// those refused here, which are counted too.
    #[inline]
    fn take_from(
        &mut self,
        desk: &mut Desk<'_>,
        workers: &mut Workers,
        index: u32,
    ) -> Result<usize, ClientMisbehaved> {
        let Some(client) = self.clients[index as usize].as_mut() else { return Ok(0) };
        let mut calls = [TakenCall::NONE; BATCH_MAX];
        let mut count = 0;
        let result = loop {
            let room = calls.len().min(client.ring.geometry().slot_count() as usize - count);
            let (taken, misbehaved) = client.ring.next_calls(&mut calls[..room]);
            if !admit_all(desk, workers, client, &calls[..taken]) {
                touch(&mut self.touched, client, index);
            }
            count += taken;
            if let Some(misbehaved) = misbehaved {
                break Err(misbehaved);
            }
            if taken < BATCH_MAX {
                break Ok(count);
            }
        };
        if count > 0 {
            client.called_at = desk.now;
            client.call_count += count as u64;
            desk.stats.counters.shm_calls += count as u64;
        }
        result
    }

    /// Parks a ring that has been quiet. True: it is not to be watched any more.
    fn has_parked(&mut self, now: Nanos, index: u32) -> bool {
        let Some(client) = self.clients[index as usize].as_mut() else { return true };
        if now.since(client.called_at) < PARK_AFTER {
            return false;
        }
        client.is_watched = !client.ring.announce_sleep();
        !client.is_watched
    }

    /// A client wrote what no honest client writes.
    #[cold]
    fn quarantine(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32, misbehaved: &ClientMisbehaved) {
        let Some(client) = self.clients[index as usize].as_mut() else { return };
        desk.stats.counters.clients_misbehaved += 1;
        let status = match misbehaved {
            ClientMisbehaved::UnknownFlags { .. } => Status::UnknownCriticalFlag,
            _ => Status::MalformedFrame,
        };
        client.tell(Message::Goaway { status: status as u16 });
        let id = client.id;
        self.close(desk, io, id);
    }

    /// Forgets a client: its calls are cancelled, its memory is unmapped. Its socket, which `Attach` watches, ends.
    fn close(&mut self, desk: &mut Desk<'_>, io: &mut Io, id: ClientId) {
        if client_of(&mut self.clients, id).is_none() {
            return;
        }
        let Some(client) = self.clients[id.index as usize].take() else { return };
        self.lanes.on_client_gone(id);
        self.watched.retain(|index| *index != id.index);
        self.touched.retain(|index| *index != id.index);
        for (_, invocation) in client.ring.taken() {
            let invocation = InvocationId(invocation);
            desk.stats.counters.clients_gone_calls += 1;
            desk.engine.handle_cancel(desk.now, invocation, CancelReason::ClientGone);
            desk.payloads.release(invocation);
        }
        client.close(io);
        self.free.push(id.index);
        self.attached_count -= 1;
        desk.stats.counters.shm_clients_detached += 1;
        desk.stats.counters.shm_clients_attached_now = u64::from(self.attached_count);
    }
}

/// Asks for calls to be admitted. False: some were not, and have their answers.
#[inline]
fn admit_all(desk: &mut Desk<'_>, workers: &mut Workers, client: &mut Client, calls: &[TakenCall]) -> bool {
    let mut are_admitted = true;
    let mut rest = calls;
    while let Some(first) = rest.first() {
        let pushed = push_batch(desk, workers, client, FunctionId(first.function_id), rest);
        rest = &rest[pushed..];
        // The one that the batch ended with, unless it is of another function and may begin a batch itself.
        if let Some((call, behind)) = rest.split_first()
            && call.function_id == first.function_id
        {
            are_admitted &= admit(desk, workers, client, call);
            rest = behind;
        }
    }
    are_admitted
}

/// Pushes calls of one function, as far as they can go to a worker at once. Says how many those were.
#[inline]
fn push_batch(
    desk: &mut Desk<'_>,
    workers: &mut Workers,
    client: &mut Client,
    function: FunctionId,
    calls: &[TakenCall],
) -> usize {
    let Some(mut batch) = desk.engine.open_batch(desk.now, function) else { return 0 };
    let mut ring = workers.open(desk.now, batch.worker());
    for call in calls {
        let Some(push) = batch.push(&request_of(desk.now, client.id, call)) else { break };
        client.ring.note(call.slot, push.invocation.0);
        let manner = manner_of(call);
        let context = context(&client.ring, call.slot, manner.flags);
        ring.push_with(push, manner, context.as_ref(), |into, request| {
            push_payload(&client.ring, call.slot, call.payload_size, into, request)
        });
    }
    batch.close();
    let count = ring.close();
    desk.stats.counters.pushes += u64::from(count);
    count as usize
}

#[inline]
fn request_of(now: Nanos, client: ClientId, call: &TakenCall) -> Request {
    let (received_at, budget_us) = time_left(now, call.deadline_at_ns);
    Request {
        origin: Origin {
            connection: SHM | client.index,
            connection_generation: client.generation,
            call_id: CallId::new(call.slot.0, 0),
        },
        received_at,
        function: FunctionId(call.function_id),
        criticality: call.criticality,
        budget_us,
        payload_size: call.payload_size,
        flags: Flags(call.flags),
    }
}

#[inline]
fn manner_of(call: &TakenCall) -> Manner {
    Manner { flags: Flags(call.flags), criticality: call.criticality, extension_size: 0 }
}

/// Asks for a call to be admitted. False: it is not, and has its answer.
fn admit(desk: &mut Desk<'_>, workers: &mut Workers, client: &mut Client, call: &TakenCall) -> bool {
    let request = request_of(desk.now, client.id, call);
    let manner = manner_of(call);
    let verdict = if request.flags.contains(Flags::IDEMPOTENCY_KEY) {
        admit_keyed(desk, client, call, request)
    } else {
        desk.engine.handle_request(desk.now, request)
    };
    match verdict {
        Verdict::Pushed(push) => {
            client.ring.note(call.slot, push.invocation.0);
            let context = context(&client.ring, call.slot, manner.flags);
            let size = call.payload_size;
            workers.push_with(desk, push, manner, context.as_ref(), |into, request| {
                push_payload(&client.ring, call.slot, size, into, request)
            });
            true
        }
        Verdict::Admitted(invocation) => {
            client.ring.note(call.slot, invocation.0);
            let place = ClientPlace { client: client.id.index, slot: call.slot.0 };
            desk.payloads.put_in_client(invocation, manner, place, call.payload_size);
            true
        }
        Verdict::Refused(refused) => {
            desk.tape.refused(&request, &refused);
            let status = status_byte(refused.status);
            let retry_after_us = refused.retry_after_us;
            let refusal = client_ring::Answer { status, flags: 0, retry_after_us, timings: None };
            client.ring.answer(call.slot, refusal, 0, |_, _| ());
            false
        }
        Verdict::Fallback(function) => {
            answer_static(desk, client, call.slot, function);
            false
        }
    }
}

/// Asks for a call that may be the same as another one.
#[inline(never)]
fn admit_keyed(desk: &mut Desk<'_>, client: &Client, call: &TakenCall, request: Request) -> Verdict {
    let (_, key) = client.ring.context(call.slot, call.flags);
    match key {
        Some(key) => desk.engine.handle_keyed_request(desk.now, request, key, None),
        None => desk.engine.handle_request(desk.now, request),
    }
}

/// Answers with bytes from the configuration: they fit into the smallest region, which is a page.
#[cold]
fn answer_static(desk: &Desk<'_>, client: &mut Client, slot: SlotIndex, function: FunctionId) {
    let bytes = desk.engine.static_answer(function).unwrap_or_default();
    let answer =
        client_ring::Answer { status: status_byte(Status::Ok), flags: 0, retry_after_us: 0, timings: None };
    client.ring.answer(slot, answer, bytes.len() as u32, |memory, place| memory.write(place, bytes));
}

#[inline]
fn push_payload(
    ring: &ServiceEnd<Mapped>,
    slot: SlotIndex,
    size: u32,
    into: &mut RouterEnd<Mapped>,
    request: shm_ring::Request<'_>,
) -> Result<SlotIndex, PushRefused> {
    let offset = ring.payload_place(slot, size);
    into.push_from(request, ring.memory(), offset, size as usize)
}

#[inline]
fn context(ring: &ServiceEnd<Mapped>, slot: SlotIndex, flags: Flags) -> Option<Context> {
    if flags.without(Flags::TRACE.with(Flags::IDEMPOTENCY_KEY)) == flags {
        return None;
    }
    let (trace, idempotency_key) = ring.context(slot, flags.0);
    Some(Context { trace, idempotency_key })
}

/// A client's absolute deadline as the engine counts: when the budget begins, and how long it is.
#[inline]
fn time_left(now: Nanos, deadline_at_ns: u64) -> (Nanos, u32) {
    if deadline_at_ns == u64::MAX {
        return (now, 0);
    }
    let left_us = deadline_at_ns.saturating_sub(now.0) / 1_000;
    match u32::try_from(left_us) {
        // 0 would mean "none". A microsecond that began as long ago is over, as the deadline is: the engine refuses it.
        Ok(0) => (Nanos(now.0.saturating_sub(1_000)), 1),
        left => (now, left.unwrap_or(u32::MAX)),
    }
}

/// As much of what is wanted as the bounds allow.
fn grant(options: &ShmOptions, wanted: Wanted) -> Result<Geometry, AttachRefused> {
    let or_usual = |wanted: u32, usual: u32| if wanted == 0 { usual } else { wanted };
    let slots = or_usual(wanted.slot_count, options.slot_count_usual).min(shm_ring::layout::SLOT_COUNT_MAX);
    let payload_size_max = or_usual(wanted.payload_size_max, options.payload_size_usual);
    let one = Geometry::new(1, payload_size_max).map_err(|_| AttachRefused::RingTooLarge)?;
    let room = options.memory_max / (2 * u64::from(one.region_size()));
    let slots = u32::try_from(room).unwrap_or(u32::MAX).min(slots);
    // The largest power of two that is not above.
    let power = slots.checked_ilog2().ok_or(AttachRefused::RingTooLarge)?;
    Geometry::new(1 << power, payload_size_max).map_err(|_| AttachRefused::RingTooLarge)
}

/// Every status fits: a test holds the table to it.
#[inline]
fn status_byte(status: Status) -> u8 {
    status as u16 as u8
}

#[inline]
fn client_of(clients: &mut [Option<Client>], id: ClientId) -> Option<&mut Client> {
    clients.get_mut(id.index as usize)?.as_mut().filter(|client| client.id == id)
}

#[inline]
fn touch(touched: &mut Vec<u32>, client: &mut Client, index: u32) {
    if !client.is_touched {
        client.is_touched = true;
        touched.push(index);
    }
}

/// From the next turn on its ring is looked at. Announced before that look, as the handshake wants it.
#[inline]
fn watch(watched: &mut Vec<u32>, client: &mut Client, index: u32, now: Nanos) {
    if !client.is_watched {
        client.is_watched = true;
        client.called_at = now;
        client.ring.announce_awake();
        watched.push(index);
    }
}
