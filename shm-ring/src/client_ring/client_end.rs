//! The client's end of its ring: submits calls, takes answers.
//!
//! In: calls.  Out: answers, in any order.
//!
//! ```text
//!            submit               next_answer               release
//!   free ───────────▶ submitted ─────────────▶ answered ───────────▶ free
//! ```
//!
//! Trust: the client chose the router and lets it see every payload. What the router wrote is checked for damage and
//! ends as [`ServiceMisbehaved`]; nothing else is defended against. That is why a result may be borrowed in place: the
//! router writes answer parts of submitted slots only, and a slot is not submitted before [`ClientEnd::release`].
//!
//! Never: allocates after `attach`; makes a system call except in [`ClientEnd::wait`].

use std::hint;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{
    ClientControl, ClientIdentity, DONE, FLAG_TIMINGS, ServiceControl, ServiceMisbehaved, call_slot,
    client_line, lies_inline, read_constants, result_place, service_line,
};
use crate::access::{BorrowPayload, Memory, PREFETCH_DISTANCE};
use crate::fault::{AttachError, PushRefused};
use crate::free_slots::FreeSlots;
use crate::layout::{AnswerHeader, FLAG_IDEMPOTENCY_KEY, FLAG_TRACE, Geometry, SlotIndex};

/// What a client says about a call, beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The client's own number, returned as it came.
    pub call_id: u64,
    /// Which function, as the router numbered it.
    pub function_id: u32,
    /// As on the wire: 0 low to 3 critical.
    pub criticality: u8,
    /// CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub deadline_at_ns: u64,
    /// As on the wire; the bits for trace and idempotency key are set from the fields below.
    pub flags: u16,
    /// Trace context, as on the wire.
    pub trace: Option<[u8; 32]>,
    /// Idempotency key, as on the wire.
    pub idempotency_key: Option<[u8; 16]>,
}

/// An answer. Its slot stays occupied until [`ClientEnd::release`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the slot is lost until the answer is released"]
pub struct Answered {
    /// Where it lies.
    pub slot: SlotIndex,
    /// The client's own number of the call.
    pub call_id: u64,
    /// The wire's status.
    pub status: u8,
    /// The wire's flags.
    pub flags: u16,
    /// Advice when to try again; 0 = none.
    pub retry_after_us: u32,
    /// Bytes of the result.
    pub result_size: u32,
}

/// Why [`ClientEnd::wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// There are answers.
    Ready,
    /// Nothing came within the time-out, or sleep was interrupted. Look at the world, then wait again.
    Nothing,
}

/// See the module's header.
pub struct ClientEnd<M> {
    pub(super) memory: M,
    pub(super) geometry: Geometry,
    identity: ClientIdentity,
    pub(super) entries: Box<[Entry]>,
    /// Slots without a call, used in their order: the processor foresees it, and the lines of coming slots can be fetched.
    pub(super) free: FreeSlots,
    /// Calls written into the submission ring.
    submission_tail: u32,
    /// Calls the router was told about.
    submission_tail_published: u32,
    /// Answers taken.
    completion_head: u32,
    /// The router's tail as last read and checked.
    completion_tail_cached: u32,
    /// Where the answer to the call made last will lie.
    slot_expected: usize,
    /// Odd while the router thinks that we sleep.
    sleeping_epoch: u32,
    /// The router's sleep that our last doorbell ended.
    woken_epoch: u32,
    /// The router's count of wake-ups, as read before the sleep was announced.
    wake_count_seen: u32,
    /// How long spinning has been worth it lately, in rounds.
    spin_count: u32,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub call_id: u64,
    pub payload_size: u32,
    /// Calls submitted before it, modulo 2^32.
    pub position: u32,
    pub is_submitted: bool,
    /// A payload or a result lay in this slot's regions once.
    pub has_touched_region: bool,
}

/// As in `WorkerEnd`: 64 rounds are about 1 us, a `sched_yield` with nobody waiting a third of that.
const SPINS_PER_YIELD: u32 = 64;

impl<M: Memory> ClientEnd<M> {
    /// Checks the constants and begins with an empty ring.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let (geometry, identity) = read_constants(&memory)?;
        let slot_count = geometry.slot_count();
        Ok(Self {
            memory,
            geometry,
            identity,
            entries: vec![Entry::default(); slot_count as usize].into_boxed_slice(),
            free: FreeSlots::all(slot_count),
            submission_tail: 0,
            submission_tail_published: 0,
            completion_head: 0,
            completion_tail_cached: 0,
            slot_expected: geometry.slot(SlotIndex(0)) + call_slot::SERVICE_CONTROL,
            sleeping_epoch: 0,
            woken_epoch: 0,
            wake_count_seen: 0,
            spin_count: SPINS_PER_YIELD,
        })
    }

    /// Calls that can be submitted now.
    #[inline]
    pub fn free_slots(&self) -> u32 {
        self.free.count()
    }

    /// Calls without an answer, and answers not released.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.geometry.slot_count() - self.free_slots()
    }

    /// Writes a call into a free slot. The router learns of it by [`Self::publish`].
    #[inline]
    pub fn submit(&mut self, call: &Call, payload: &[u8]) -> Result<SlotIndex, PushRefused> {
        self.submit_with(call, payload.len(), |memory, place| memory.write(place, payload))
    }

    /// Tells the router of everything submitted since the last call: one store for the batch. `true` means that the
    /// router does not look and its bell must be rung; this is said once for each of its sleeps.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.submission_tail == self.submission_tail_published {
            return false;
        }
        self.submission_tail_published = self.submission_tail;
        self.free.look();
        self.memory.store_u32(client_line::COMPLETION_HEAD, self.completion_head, Ordering::Relaxed);
        // SYNC(client_ring.submission_tail): releases slots and index ring to `ServiceEnd::next_call`.
        self.memory.store_u32(client_line::SUBMISSION_TAIL, self.submission_tail, Ordering::Release);
        // SYNC(client_ring.router_sleeping): store of the tail, fence, load of the flag here; store of the flag, fence,
        // load of the tail in `ServiceEnd::announce_sleep`. At least one of the two sees the other's store.
        self.memory.fence_seq_cst();
        let epoch = self.memory.load_u32(service_line::ROUTER_SLEEPING, Ordering::Relaxed);
        let must_ring = epoch & 1 == 1 && epoch != self.woken_epoch;
        if must_ring {
            self.woken_epoch = epoch;
        }
        must_ring
    }

    /// The next answer. After an error the ring is damaged: detach.
    #[inline]
    pub fn next_answer(&mut self) -> Result<Option<Answered>, ServiceMisbehaved> {
        if self.completion_head == self.completion_tail_cached {
            if !self.refresh_completion_tail()? {
                return Ok(None);
            }
            // Probably the call made last, if there is one: its line comes while the answer's place is still being read.
            self.memory.prefetch_to_read(self.slot_expected);
        }
        self.prefetch_answer();
        let entry = self.geometry.completion_entry(self.completion_head);
        let index = self.memory.load_u32(entry, Ordering::Relaxed);
        self.completion_head = self.completion_head.wrapping_add(1);
        self.check_answer(index).map(Some)
    }

    /// Copies the result's bytes to the end of `out`.
    pub fn read_result(&self, answered: &Answered, out: &mut Vec<u8>) {
        self.memory.append_to(self.place_of(answered), answered.result_size as usize, out);
    }

    /// The stage timings, as on the wire, if the answer carries them.
    pub fn timings(&self, answered: &Answered) -> Option<[u8; call_slot::TIMINGS_SIZE]> {
        if answered.flags & FLAG_TIMINGS == 0 {
            return None;
        }
        let mut timings = [0; call_slot::TIMINGS_SIZE];
        self.memory.read(self.geometry.slot(answered.slot) + call_slot::TIMINGS, &mut timings);
        Some(timings)
    }

    /// Gives the slot back.
    #[inline]
    pub fn release(&mut self, answered: Answered) {
        let has_touched_region = self.entries[answered.slot.0 as usize].has_touched_region;
        self.free.give_back(answered.slot, has_touched_region);
    }

    /// Waits for answers: spins for at most `spin_count_max` rounds (about 15 ns each), fewer while spinning has not
    /// been worth it, then sleeps. `None` sleeps without a limit. What was submitted must be published before.
    pub fn wait(
        &mut self,
        spin_count_max: u32,
        timeout: Option<Duration>,
    ) -> Result<WaitOutcome, ServiceMisbehaved> {
        assert!(
            self.submission_tail == self.submission_tail_published,
            "calls would be kept while waiting for their answers"
        );
        if self.spin(spin_count_max)? {
            self.spin_count = self.spin_count.saturating_mul(2);
            return Ok(WaitOutcome::Ready);
        }
        // As in `WorkerEnd::wait`: cheap while answers are rare, and still there to notice when they are not.
        self.spin_count = (self.spin_count / 2).max(spin_count_max / 16);
        if self.announce_sleep() {
            self.memory.futex_wait(service_line::WAKE_COUNT, self.wake_count_seen, timeout);
        }
        self.announce_awake();
        Ok(if self.refresh_completion_tail()? { WaitOutcome::Ready } else { WaitOutcome::Nothing })
    }

    /// Says that the client is about to sleep on the futex of [`Self::sleep_word`]. `false`: answers are waiting.
    /// [`Self::wait`] does this; it is public for those who must not hold the ring while they sleep.
    pub fn announce_sleep(&mut self) -> bool {
        if self.sleeping_epoch & 1 == 0 {
            // SYNC(client_ring.wake_count): read before the announcement, which releases (keeps) that order. Whoever
            // wakes us from this sleep changes the count after it has seen the announcement.
            self.wake_count_seen = self.memory.load_u32(service_line::WAKE_COUNT, Ordering::Acquire);
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(client_line::CLIENT_SLEEPING, self.sleeping_epoch, Ordering::Release);
        }
        // SYNC(client_ring.client_sleeping): the other half is in `ServiceEnd::publish`.
        self.memory.fence_seq_cst();
        let tail = self.memory.load_u32(service_line::COMPLETION_TAIL, Ordering::Relaxed);
        let may_sleep = tail == self.completion_head;
        if !may_sleep {
            self.announce_awake();
        }
        may_sleep
    }

    /// Says that the client looks at its ring again.
    pub fn announce_awake(&mut self) {
        if self.sleeping_epoch & 1 == 1 {
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(client_line::CLIENT_SLEEPING, self.sleeping_epoch, Ordering::Relaxed);
        }
    }

    /// Where to sleep after [`Self::announce_sleep`], and the value to sleep on.
    pub fn sleep_word(&self) -> (usize, u32) {
        (service_line::WAKE_COUNT, self.wake_count_seen)
    }

    /// The router takes no new calls.
    pub fn is_router_draining(&self) -> bool {
        self.memory.load_u32(service_line::ROUTER_DRAINING, Ordering::Relaxed) != 0
    }

    /// Calls submitted so far, modulo 2^32.
    pub(super) fn submission_tail(&self) -> u32 {
        self.submission_tail
    }

    /// Sizes of this ring.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whose ring this is.
    pub fn identity(&self) -> ClientIdentity {
        self.identity
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    #[inline]
    fn submit_with(
        &mut self,
        call: &Call,
        payload_size: usize,
        write: impl FnOnce(&M, usize),
    ) -> Result<SlotIndex, PushRefused> {
        let payload_size_max = self.geometry.region_size();
        if payload_size > payload_size_max as usize {
            return Err(PushRefused::PayloadTooLarge { payload_size, payload_size_max });
        }
        let Some(slot) = self.free.take() else { return Err(PushRefused::NoCredit) };
        if let Some(later) = self.free.next_but_some() {
            self.memory.prefetch_to_write(self.geometry.slot(later));
        }
        let entry = &mut self.entries[slot.0 as usize];
        entry.call_id = call.call_id;
        entry.payload_size = payload_size as u32;
        entry.position = self.submission_tail;
        entry.is_submitted = true;
        entry.has_touched_region |= payload_size > call_slot::INLINE_PAYLOAD_SIZE_MAX;
        let place = self.geometry.slot(slot);
        self.slot_expected = place + call_slot::SERVICE_CONTROL;
        write(&self.memory, self.geometry.payload_place(slot, payload_size as u32));
        let control = self.write_context(place, call);
        // Control and size are one word of eight bytes, and so are function and criticality.
        let front = u64::from(control.0) | (payload_size as u64) << 32;
        let target = u64::from(call.function_id) | u64::from(call.criticality) << 32;
        let header = [front, call.call_id, call.deadline_at_ns, target];
        self.memory.write_record(place + call_slot::CLIENT_CONTROL, header);
        // Room is certain: a slot is submitted again only after the router had read its entry, to answer it.
        let entry = self.geometry.submission_entry(self.submission_tail);
        self.memory.store_u32(entry, slot.0, Ordering::Relaxed);
        self.submission_tail = self.submission_tail.wrapping_add(1);
        Ok(slot)
    }

    #[inline]
    fn write_context(&self, place: usize, call: &Call) -> ClientControl {
        let mut flags = call.flags & !(FLAG_TRACE | FLAG_IDEMPOTENCY_KEY);
        if call.trace.is_none() && call.idempotency_key.is_none() {
            return ClientControl::ready(flags);
        }
        if let Some(trace) = call.trace {
            flags |= FLAG_TRACE;
            self.memory.write(place + call_slot::CONTEXT_TRACE, &trace);
        }
        if let Some(key) = call.idempotency_key {
            flags |= FLAG_IDEMPOTENCY_KEY;
            self.memory.write(place + call_slot::CONTEXT_IDEMPOTENCY_KEY, &key);
        }
        ClientControl(ClientControl::ready(flags).0 | ClientControl::CONTEXT_PRESENT)
    }

    #[inline]
    pub(super) fn refresh_completion_tail(&mut self) -> Result<bool, ServiceMisbehaved> {
        // SYNC(client_ring.completion_tail): acquires what `ServiceEnd::publish` released, the index ring and answers.
        let tail = self.memory.load_u32(service_line::COMPLETION_TAIL, Ordering::Acquire);
        let unread = tail.wrapping_sub(self.completion_head);
        let slot_count = self.geometry.slot_count();
        if unread > slot_count {
            return Err(ServiceMisbehaved::CursorOutOfRange { tail, head: self.completion_head, slot_count });
        }
        self.completion_tail_cached = tail;
        Ok(unread != 0)
    }

    /// Fetches the answer a few ahead. Its index is only looked at for this hint, and read again when its turn comes.
    #[inline]
    fn prefetch_answer(&self) {
        let ahead = self.completion_head.wrapping_add(PREFETCH_DISTANCE);
        if self.completion_tail_cached.wrapping_sub(self.completion_head) > PREFETCH_DISTANCE {
            let index = self.memory.load_u32(self.geometry.completion_entry(ahead), Ordering::Relaxed);
            if index < self.geometry.slot_count() {
                let place = self.geometry.slot(SlotIndex(index)) + call_slot::SERVICE_CONTROL;
                self.memory.prefetch_to_read(place);
            }
        }
    }

    #[inline]
    fn check_answer(&mut self, index: u32) -> Result<Answered, ServiceMisbehaved> {
        let Some(entry) = self.entries.get_mut(index as usize).filter(|entry| entry.is_submitted) else {
            return Err(ServiceMisbehaved::SlotNotInFlight { slot: index });
        };
        let (slot, expected) = (SlotIndex(index), entry.call_id);
        let place = self.geometry.slot(slot) + call_slot::SERVICE_CONTROL;
        let answer = AnswerHeader::from_record(&self.memory.read_record(place));
        let control = ServiceControl(answer.control);
        let (answered, state) = (answer.invocation_id, control.state());
        if answered != expected || state != DONE {
            return Err(ServiceMisbehaved::NotTheAnswer { slot, expected, answered, state });
        }
        let (result_size, result_size_max) = (answer.result_size, self.geometry.region_size());
        if result_size > result_size_max {
            return Err(ServiceMisbehaved::ResultTooLarge { slot, result_size, result_size_max });
        }
        entry.is_submitted = false;
        let flags = control.flags();
        entry.has_touched_region |= !lies_inline(result_size as usize, flags & FLAG_TIMINGS != 0);
        Ok(Answered {
            slot,
            call_id: expected,
            status: control.status(),
            flags,
            retry_after_us: answer.started_at_ns as u32,
            result_size,
        })
    }

    #[inline]
    fn place_of(&self, answered: &Answered) -> usize {
        let has_timings = answered.flags & FLAG_TIMINGS != 0;
        result_place(self.geometry, answered.slot, answered.result_size as usize, has_timings)
    }

    /// `true` when answers came.
    fn spin(&mut self, spin_count_max: u32) -> Result<bool, ServiceMisbehaved> {
        self.spin_count = self.spin_count.min(spin_count_max);
        for round in 0..self.spin_count {
            if self.refresh_completion_tail()? {
                return Ok(true);
            }
            if round % SPINS_PER_YIELD == SPINS_PER_YIELD - 1 {
                rustix::thread::sched_yield();
            } else {
                hint::spin_loop();
            }
        }
        self.refresh_completion_tail()
    }
}

impl<M: BorrowPayload> ClientEnd<M> {
    /// As [`Self::submit`], with the payload made in place: `fill` is given all of its bytes, in whatever condition.
    #[inline]
    pub fn submit_in_place(
        &mut self,
        call: &Call,
        payload_size: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<SlotIndex, PushRefused> {
        self.submit_with(call, payload_size, |memory, place| {
            // SAFETY: another look at these bytes would be undefined. The slot was in the private free list a moment
            // ago, so no `Answered` of this end borrows from it, and an honest router reads request parts of submitted
            // slots only; this one is submitted after `fill` has returned.
            fill(unsafe { memory.bytes_mut(place, payload_size) });
        })
    }

    /// The result in place.
    #[inline]
    pub fn result<'a>(&'a self, answered: &'a Answered) -> &'a [u8] {
        // SAFETY: a write under the reference would be undefined. Only the router writes answer parts, and only of
        // submitted slots; this slot is not submitted again while `answered` lives, because only releasing, which
        // consumes it, puts the slot into the free list (header, "Trust").
        unsafe { self.memory.bytes(self.place_of(answered), answered.result_size as usize) }
    }
}
