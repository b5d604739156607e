//! The router's end of a client ring: takes calls, answers them, and believes nothing it reads.
//!
//! In: slots the client submitted.  Out: [`TakenCall`]s, or the [`ClientMisbehaved`] that ends the client.
//!
//! ```text
//!            next_call                        answer
//!   free ───────────────▶ taken, with a tag ─────────▶ free          (private table, `Entry`)
//! ```
//!
//! Always: a slot is taken at most once before it is answered, whatever the client writes: the table is private. So at
//! most `slot_count` calls of a client are with the router, and each answer has a slot to go to.
//! Always: payload bytes stay in the client's slot until somebody copies them ([`CopyFrom`](crate::CopyFrom)); they may
//! change until then, and are the client's own.
//! Never: allocates after `new`, or panics on what the client wrote.
//! Why no TAKEN word as in a worker's ring: nobody asks a client's ring what had begun; the engine knows.

use std::sync::atomic::Ordering;

use super::{
    ClientControl, ClientIdentity, ClientMisbehaved, FLAG_TIMINGS, FLAGS_CRITICAL, READY, ServiceControl,
    call_slot, client_line, read_constants, result_place, service_line, write_constants,
};
use crate::access::{Memory, PREFETCH_DISTANCE};
use crate::fault::AttachError;
use crate::layout::{FLAG_IDEMPOTENCY_KEY, FLAG_TRACE, Geometry, RequestHeader, SlotIndex};

/// A call, checked. Its slot stays occupied until [`ServiceEnd::answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenCall {
    /// Where it lies.
    pub slot: SlotIndex,
    /// The client's own number for it.
    pub call_id: u64,
    /// Which function. Not checked.
    pub function_id: u32,
    /// How much it matters. Not checked.
    pub criticality: u8,
    /// CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub deadline_at_ns: u64,
    /// Bytes of the payload; fits the request region.
    pub payload_size: u32,
    /// As on the wire; those for trace and idempotency key only if they are there.
    pub flags: u16,
}

impl TakenCall {
    /// Fills a place that no call was taken into yet.
    pub const NONE: TakenCall = TakenCall {
        slot: SlotIndex(u32::MAX),
        call_id: 0,
        function_id: u32::MAX,
        criticality: 0,
        deadline_at_ns: 0,
        payload_size: 0,
        flags: 0,
    };
}

/// How a call ended, beside its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The wire's status.
    pub status: u8,
    /// The wire's flags; the bit for timings is set from the field below.
    pub flags: u16,
    /// Advice when to try again; 0 = none.
    pub retry_after_us: u32,
    /// As on the wire.
    pub timings: Option<&'a [u8; call_slot::TIMINGS_SIZE]>,
}

/// See the module's header.
pub struct ServiceEnd<M> {
    pub(super) memory: M,
    pub(super) geometry: Geometry,
    identity: ClientIdentity,
    entries: Box<[Entry]>,
    taken_count: u32,
    /// Calls taken.
    pub(super) submission_head: u32,
    /// The client's tail as last read and checked.
    submission_tail_cached: u32,
    /// Answers written into the completion ring.
    pub(super) completion_tail: u32,
    /// Answers the client was told about.
    completion_tail_published: u32,
    /// Odd while the client thinks that we do not look.
    sleeping_epoch: u32,
    /// The client's sleep that our last wake-up ended.
    woken_epoch: u32,
    /// Wake-ups given.
    wake_count: u32,
}

/// One slot, as the router knows it.
#[derive(Clone, Copy)]
struct Entry {
    call_id: u64,
    /// The router's own number for the call; [`FREE`] without one.
    tag: u64,
}

const FREE: u64 = 0;
/// Taken, and not noted yet.
const UNKNOWN: u64 = u64::MAX;

impl<M: Memory> ServiceEnd<M> {
    /// Writes the constants into zeroed memory, which is given to the client afterwards.
    pub fn new(memory: M, geometry: Geometry, identity: ClientIdentity) -> Self {
        assert!(memory.size() >= geometry.memory_size(), "the ring does not fit its memory");
        write_constants(&memory, geometry, identity);
        Self::over(memory, geometry, identity)
    }

    /// Begins with an empty ring that somebody else has made: a worker's end of a lane. The client may have written into
    /// the constants already, so the caller compares what it finds with what the router told it.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let (geometry, identity) = read_constants(&memory)?;
        Ok(Self::over(memory, geometry, identity))
    }

    fn over(memory: M, geometry: Geometry, identity: ClientIdentity) -> Self {
        Self {
            memory,
            geometry,
            identity,
            entries: vec![Entry { call_id: 0, tag: FREE }; geometry.slot_count() as usize].into_boxed_slice(),
            taken_count: 0,
            submission_head: 0,
            submission_tail_cached: 0,
            completion_tail: 0,
            completion_tail_published: 0,
            sleeping_epoch: 0,
            woken_epoch: 0,
            wake_count: 0,
        }
    }

    /// Whether there may be calls: a look without judgement.
    #[inline]
    pub fn has_calls(&self) -> bool {
        self.memory.load_u32(client_line::SUBMISSION_TAIL, Ordering::Relaxed) != self.submission_head
    }

    /// Takes the next calls, as many as there are and `calls` has room for: how many, and why it ended early. Then the client
    /// is to be closed; the slots it still holds are in [`Self::taken`].
    #[inline]
    pub fn next_calls(&mut self, calls: &mut [TakenCall]) -> (usize, Option<ClientMisbehaved>) {
        let mut count = 0;
        for call in calls {
            if self.submission_head == self.submission_tail_cached {
                match self.refresh_submission_tail() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(misbehaved) => return (count, Some(misbehaved)),
                }
            }
            let entry = self.geometry.submission_entry(self.submission_head);
            let index = self.memory.load_u32(entry, Ordering::Relaxed);
            self.prefetch_call(index);
            // Counted as read before it is judged: asked again after an error, we do not stumble over the same entry.
            self.submission_head = self.submission_head.wrapping_add(1);
            match self.check_call(index) {
                Ok(taken) => *call = taken,
                Err(misbehaved) => return (count, Some(misbehaved)),
            }
            count += 1;
        }
        (count, None)
    }

    /// The next call: [`Self::next_calls`] for one.
    #[inline]
    pub fn next_call(&mut self) -> Result<Option<TakenCall>, ClientMisbehaved> {
        let mut calls = [TakenCall::NONE];
        match self.next_calls(&mut calls) {
            (_, Some(misbehaved)) => Err(misbehaved),
            (count, None) => Ok((count > 0).then_some(calls[0])),
        }
    }

    /// Notes under which number the router knows the call in a taken slot: any but 0.
    #[inline]
    pub fn note(&mut self, slot: SlotIndex, tag: u64) {
        debug_assert!(tag != FREE, "this number says that a slot is free");
        let entry = &mut self.entries[slot.0 as usize];
        assert!(entry.tag != FREE, "only a taken slot has a number");
        entry.tag = tag;
    }

    /// The noted number of the call that has this slot; `None` without a call, or beyond the ring.
    #[inline]
    pub fn tag(&self, slot: SlotIndex) -> Option<u64> {
        self.entries.get(slot.0 as usize).map(|entry| entry.tag).filter(|tag| *tag != FREE)
    }

    /// The client's own number of the call that has this slot.
    pub fn call_id(&self, slot: SlotIndex) -> Option<u64> {
        self.entries.get(slot.0 as usize).filter(|entry| entry.tag != FREE).map(|entry| entry.call_id)
    }

    /// Slots with an unanswered call, with their numbers.
    pub fn taken(&self) -> impl Iterator<Item = (SlotIndex, u64)> + '_ {
        let taken = self.entries.iter().enumerate().filter(|(_, entry)| entry.tag != FREE);
        taken.map(|(index, entry)| (SlotIndex(index as u32), entry.tag))
    }

    /// How many those are.
    #[inline]
    pub fn taken_count(&self) -> u32 {
        self.taken_count
    }

    /// Answers the call that is known under `tag`, if it has this slot; the client learns of it by [`Self::publish`]. `write`
    /// writes the result's bytes to a place in the memory it is given. The result must fit a region. False: the slot holds
    /// another call, or none.
    #[inline(always)]
    pub fn answer_tagged(
        &mut self,
        slot: SlotIndex,
        tag: u64,
        answer: Answer<'_>,
        result_size: u32,
        write: impl FnOnce(&M, usize),
    ) -> bool {
        assert!(result_size <= self.geometry.region_size(), "the caller answers `result too large` instead");
        let Some(entry) = self.entries.get_mut(slot.0 as usize) else { return false };
        if entry.tag != tag || tag == FREE {
            return false;
        }
        let call_id = entry.call_id;
        entry.tag = FREE;
        self.taken_count -= 1;

        let place = self.geometry.slot(slot);
        let mut flags = answer.flags & !FLAG_TIMINGS;
        if let Some(timings) = answer.timings {
            flags |= FLAG_TIMINGS;
            self.memory.write(place + call_slot::TIMINGS, timings);
        }
        if result_size > 0 {
            let has_timings = answer.timings.is_some();
            write(&self.memory, result_place(self.geometry, slot, result_size as usize, has_timings));
        }
        let control = ServiceControl::done(answer.status, flags);
        let front = u64::from(control.0) | u64::from(result_size) << 32;
        let header = [front, call_id, u64::from(answer.retry_after_us), 0];
        self.memory.write_record(place + call_slot::SERVICE_CONTROL, header);
        let entry = self.geometry.completion_entry(self.completion_tail);
        self.memory.store_u32(entry, slot.0, Ordering::Relaxed);
        self.completion_tail = self.completion_tail.wrapping_add(1);
        true
    }

    /// Answers a taken slot, whatever its call is known under.
    pub fn answer(
        &mut self,
        slot: SlotIndex,
        answer: Answer<'_>,
        result_size: u32,
        write: impl FnOnce(&M, usize),
    ) {
        let tag = self.tag(slot).expect("a call is answered once");
        self.answer_tagged(slot, tag, answer, result_size, write);
    }

    /// Shows everything answered since the last call to the client: one store for the batch. `true` means that the
    /// client sleeps and [`Self::wake`] must be called; this is said once for each of its sleeps.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.completion_tail == self.completion_tail_published {
            return false;
        }
        self.completion_tail_published = self.completion_tail;
        self.memory.store_u32(service_line::SUBMISSION_HEAD, self.submission_head, Ordering::Relaxed);
        // SYNC(client_ring.completion_tail): releases answers and index ring to `ClientEnd::next_answer`.
        self.memory.store_u32(service_line::COMPLETION_TAIL, self.completion_tail, Ordering::Release);
        // SYNC(client_ring.client_sleeping): store of the tail, fence, load of the flag here; store of the flag, fence,
        // load of the tail in `ClientEnd::announce_sleep`. At least one of the two sees the other's store.
        self.memory.fence_seq_cst();
        let epoch = self.memory.load_u32(client_line::CLIENT_SLEEPING, Ordering::Acquire);
        let must_wake = epoch & 1 == 1 && epoch != self.woken_epoch;
        if must_wake {
            self.woken_epoch = epoch;
            // SYNC(client_ring.wake_count): the client read the count before it announced this sleep, so it sees a new
            // one, whether it is asleep already or still on its way: the reasoning of `RouterEnd::publish`.
            self.wake_count = self.wake_count.wrapping_add(1);
            self.memory.store_u32(service_line::WAKE_COUNT, self.wake_count, Ordering::Release);
        }
        must_wake
    }

    /// Wakes the client: one system call.
    pub fn wake(&self) {
        self.memory.futex_wake(service_line::WAKE_COUNT);
    }

    /// Says that the router stops looking at this ring and is to be rung. `false`: there are calls, go on looking (the
    /// announcement is taken back). A cursor out of range is "calls" too: taking them will name the fault.
    pub fn announce_sleep(&mut self) -> bool {
        if self.sleeping_epoch & 1 == 0 {
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(service_line::ROUTER_SLEEPING, self.sleeping_epoch, Ordering::Relaxed);
        }
        // SYNC(client_ring.router_sleeping): the mirror image of SYNC(client_ring.client_sleeping), with
        // `ClientEnd::publish`.
        self.memory.fence_seq_cst();
        let tail = self.memory.load_u32(client_line::SUBMISSION_TAIL, Ordering::Relaxed);
        let may_sleep = tail == self.submission_head;
        if !may_sleep {
            self.announce_awake();
        }
        may_sleep
    }

    /// Says that the router looks at this ring again. Look after it, not before.
    pub fn announce_awake(&mut self) {
        if self.sleeping_epoch & 1 == 1 {
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(service_line::ROUTER_SLEEPING, self.sleeping_epoch, Ordering::Relaxed);
        }
    }

    /// Says that no new calls are taken, for the client to connect elsewhere.
    pub fn announce_draining(&mut self) {
        self.memory.store_u32(service_line::ROUTER_DRAINING, 1, Ordering::Relaxed);
    }

    /// Where a taken call's payload lies. `payload_size` as the call said when it was taken: the word in memory is the
    /// client's to change.
    #[inline]
    pub fn payload_place(&self, slot: SlotIndex, payload_size: u32) -> usize {
        debug_assert!(payload_size <= self.geometry.region_size(), "larger than anything that was taken");
        debug_assert!(slot.0 < self.geometry.slot_count(), "a slot of another ring");
        self.geometry.payload_place(slot, payload_size)
    }

    /// The trace and the idempotency key of a taken call, those that its flags say are there.
    pub fn context(&self, slot: SlotIndex, flags: u16) -> (Option<[u8; 32]>, Option<[u8; 16]>) {
        assert!(slot.0 < self.geometry.slot_count(), "a slot of another ring");
        let place = self.geometry.slot(slot);
        let (mut trace, mut key) = ([0; 32], [0; 16]);
        self.memory.read(place + call_slot::CONTEXT_TRACE, &mut trace);
        self.memory.read(place + call_slot::CONTEXT_IDEMPOTENCY_KEY, &mut key);
        ((flags & FLAG_TRACE != 0).then_some(trace), (flags & FLAG_IDEMPOTENCY_KEY != 0).then_some(key))
    }

    /// Sizes of this ring.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whose ring this is.
    pub fn identity(&self) -> ClientIdentity {
        self.identity
    }

    /// The memory, to copy payloads from.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Panics when the private accounting is wrong. For tests, after every operation.
    pub fn invariants(&self) {
        assert_eq!(self.taken().count(), self.taken_count as usize, "count and table agree");
        let unread = self.submission_tail_cached.wrapping_sub(self.submission_head);
        assert!(unread <= self.geometry.slot_count());
    }

    /// `true` when there is something to read.
    #[inline]
    fn refresh_submission_tail(&mut self) -> Result<bool, ClientMisbehaved> {
        // SYNC(client_ring.submission_tail): acquires what `ClientEnd::publish` released, the index ring and slots.
        let tail = self.memory.load_u32(client_line::SUBMISSION_TAIL, Ordering::Acquire);
        let unread = tail.wrapping_sub(self.submission_head);
        let slot_count = self.geometry.slot_count();
        if unread > slot_count {
            return Err(ClientMisbehaved::CursorOutOfRange { tail, head: self.submission_head, slot_count });
        }
        self.submission_tail_cached = tail;
        Ok(unread != 0)
    }

    /// Fetches the call a few ahead of this one, if there are so many, and takes the line of its answer away from the client's
    /// cache. A hint: clients use their slots in order, mostly.
    #[inline]
    fn prefetch_call(&self, index: u32) {
        if self.submission_tail_cached.wrapping_sub(self.submission_head) > PREFETCH_DISTANCE {
            let place = self.geometry.slot(self.geometry.slot_ahead(SlotIndex(index), PREFETCH_DISTANCE));
            self.memory.prefetch_to_read(place);
            self.memory.prefetch_to_write(place + call_slot::SERVICE_CONTROL);
        }
    }

    #[inline]
    fn check_call(&mut self, index: u32) -> Result<TakenCall, ClientMisbehaved> {
        let slot_count = self.geometry.slot_count();
        let slot = SlotIndex(index);
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return Err(ClientMisbehaved::SlotOutOfRange { slot: index, slot_count });
        };
        if entry.tag != FREE {
            return Err(ClientMisbehaved::SlotInUse { slot });
        }
        // The record of a worker's ring: its last word is function and criticality here.
        let header = RequestHeader::from_record(&self.memory.read_record(self.geometry.slot(slot)));
        let control = ClientControl(header.control);
        if control.state() != READY {
            return Err(ClientMisbehaved::BadSlotState { slot, state: control.state() });
        }
        let (payload_size, payload_size_max) = (header.payload_size, self.geometry.region_size());
        if payload_size > payload_size_max {
            return Err(ClientMisbehaved::PayloadTooLarge { slot, payload_size, payload_size_max });
        }
        let flags = control.flags();
        if flags & FLAGS_CRITICAL != 0 {
            return Err(ClientMisbehaved::UnknownFlags { slot, flags });
        }
        let context_flags = FLAG_TRACE | FLAG_IDEMPOTENCY_KEY;
        let flags = if control.has_context() { flags } else { flags & !context_flags };
        let call_id = header.invocation_id;
        *entry = Entry { call_id, tag: UNKNOWN };
        self.taken_count += 1;
        let target = header.pushed_at_ns;
        Ok(TakenCall {
            slot,
            call_id,
            function_id: target as u32,
            criticality: (target >> 32) as u8,
            deadline_at_ns: header.deadline_at_ns,
            payload_size,
            flags,
        })
    }
}
