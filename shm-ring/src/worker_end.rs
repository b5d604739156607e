//! The worker's end of a ring: takes requests, runs nothing itself, answers.
//!
//! In: slots the router made ready.  Out: the same slots, answered.
//!
//! ```text
//!            next_request              complete, publish
//!   IDLE or DONE ───────────▶ TAKEN ─────────────────────▶ DONE           (the slot's worker control word)
//! ```
//!
//! Trust: the router started this process, chose its program and can kill it. Nothing is gained by defending against
//! it, except that damage is noticed: what it wrote is checked and ends as [`RouterMisbehaved`]. That is why a payload
//! may be borrowed in place: the router writes a slot's request part only while the slot is free, and the slot is not
//! free before this side gives up its [`Taken`]. No type can hold another process to that. What holds the program around
//! this end to it: one router end and one worker end to a ring, and nobody else writes to its memory, but for the one word of
//! `waits.rs`.
//!
//! Always: TAKEN is stored before the caller learns of the request, so a slot without it was provably not started.
//! Take one request, run it, take the next: what is taken and not yet run counts as started when this process dies.
//! Never: allocates.

use std::hint;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::access::{BorrowPayload, Memory, PREFETCH_DISTANCE};
use crate::fault::{AttachError, RouterMisbehaved};
use crate::inspect::read_constants;
use crate::layout::{
    DOWNSTREAM_NAME_SIZE_MAX, FLAG_IDEMPOTENCY_KEY, FLAG_TRACE, Geometry, Identity, Outcome, RequestHeader,
    RouterControl, SlotIndex, WorkerControl, router_line, router_state, slot, worker_line, worker_state,
};

/// A request this worker has taken and owes an answer to.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the caller waits until the request is completed"]
pub struct Taken {
    /// Where it lies.
    pub slot: SlotIndex,
    /// Whose it is.
    pub invocation_id: u64,
    /// CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub deadline_at_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub pushed_at_ns: u64,
    /// Nobody wanted the answer any more when it was taken: answer `Cancelled` without running.
    pub cancelled: bool,
    /// As on the wire.
    pub flags: u16,
    /// As on the wire: 0 low to 3 critical.
    pub criticality: u8,
    /// Bytes of the payload; fits the request region.
    pub payload_size: u32,
    /// Trace context, as on the wire.
    pub trace: Option<[u8; 32]>,
    /// Idempotency key, as on the wire.
    pub idempotency_key: Option<[u8; 16]>,
}

/// Why [`WorkerEnd::wait`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// There are requests.
    Ready,
    /// Nothing came within the time-out, or sleep was interrupted. Look at the world, then wait again.
    Nothing,
}

/// See the module's header.
pub struct WorkerEnd<M> {
    memory: M,
    geometry: Geometry,
    identity: Identity,
    /// Requests taken.
    submission_head: u32,
    submission_head_published: u32,
    /// The router's tail as last read and checked.
    submission_tail_cached: u32,
    /// Answers written into the completion ring.
    completion_tail: u32,
    /// Answers the router was told about.
    completion_tail_published: u32,
    /// Odd while the router thinks that we sleep.
    sleeping_epoch: u32,
    /// The router's sleep that our last doorbell ended.
    woken_epoch: u32,
    /// The router's count of wake-ups, as read before the sleep was announced.
    wake_count_seen: u32,
    /// How long spinning has been worth it lately, in rounds.
    spin_count: u32,
}

/// Rounds of spinning between two offers of the core to others: with three spinning parties on two cores the third would
/// wait a scheduler slice. 64 rounds are about 1 us, a `sched_yield` with nobody waiting a third of that.
const SPINS_PER_YIELD: u32 = 64;

impl<M: Memory> WorkerEnd<M> {
    /// Checks the constants and begins with an empty ring.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let (geometry, identity) = read_constants(&memory)?;
        Ok(Self {
            memory,
            geometry,
            identity,
            submission_head: 0,
            submission_head_published: 0,
            submission_tail_cached: 0,
            completion_tail: 0,
            completion_tail_published: 0,
            sleeping_epoch: 0,
            woken_epoch: 0,
            wake_count_seen: 0,
            spin_count: SPINS_PER_YIELD,
        })
    }

    /// The next request, marked as taken. After an error the ring is damaged: detach.
    #[inline]
    pub fn next_request(&mut self) -> Result<Option<Taken>, RouterMisbehaved> {
        if self.submission_head == self.submission_tail_cached && !self.refresh_submission_tail()? {
            return Ok(None);
        }
        self.prefetch_request();
        let entry = self.geometry.submission_entry(self.submission_head);
        let index = self.memory.load_u32(entry, Ordering::Relaxed);
        self.submission_head = self.submission_head.wrapping_add(1);
        let slot_count = self.geometry.slot_count();
        if index >= slot_count {
            return Err(RouterMisbehaved::SlotOutOfRange { slot: index, slot_count });
        }
        let slot = SlotIndex(index);
        let header = RequestHeader::from_record(&self.memory.read_record(self.geometry.slot(slot)));
        self.check_request(slot, &header)?;
        let control = self.mark_taken(slot, header.invocation_id);
        Ok(Some(self.taken(slot, &header, control)))
    }

    /// Whether there may be requests: a look without judgement.
    #[inline]
    pub fn has_requests(&self) -> bool {
        self.memory.load_u32(router_line::SUBMISSION_TAIL, Ordering::Relaxed) != self.submission_head
    }

    /// Copies the payload's bytes to the end of `out`.
    pub fn read_payload(&self, taken: &Taken, out: &mut Vec<u8>) {
        let place = self.geometry.payload_place(taken.slot, taken.payload_size);
        self.memory.append_to(place, taken.payload_size as usize, out);
    }

    /// Writes the start time for `inspect` to show the age of a running call. Optional: [`Self::complete`] says it too.
    #[inline]
    pub fn note_started(&mut self, taken: &Taken, started_at_ns: u64) {
        let place = self.geometry.slot(taken.slot) + slot::STARTED_AT_NS;
        self.memory.store_u64(place, started_at_ns, Ordering::Relaxed);
    }

    /// Whether somebody asked to cancel this request since.
    #[inline]
    pub fn is_cancelled(&self, taken: &Taken) -> bool {
        let place = self.geometry.slot(taken.slot) + slot::ROUTER_CONTROL;
        RouterControl(self.memory.load_u32(place, Ordering::Relaxed)).is_cancel_requested()
    }

    /// Answers. The router learns of it by [`Self::publish`]. A result larger than a region is dropped, and the outcome
    /// becomes `ResultTooLarge`. For `Backpressure` there is [`Self::complete_pushed_back`].
    #[inline]
    pub fn complete(
        &mut self,
        taken: Taken,
        outcome: Outcome,
        started_at_ns: u64,
        finished_at_ns: u64,
        result: &[u8],
    ) {
        debug_assert!(outcome != Outcome::Backpressure, "it says more than a result does");
        let (outcome, result) = if result.len() <= self.geometry.region_size() as usize {
            (outcome, result)
        } else {
            (Outcome::ResultTooLarge, &[][..])
        };
        let result_size = result.len() as u32;
        self.memory.write(self.geometry.result_place(taken.slot, result_size), result);
        self.finish(&taken, Answer::new(outcome, started_at_ns, finished_at_ns, result_size));
    }

    /// Answers that something which the function calls is overloaded: by which name it goes, and how many refusals that
    /// stands for.
    ///
    /// # Panics
    /// If the name has no bytes, or more than 32, or the severity is 0: an honest worker does not say that.
    pub fn complete_pushed_back(
        &mut self,
        taken: Taken,
        severity: u8,
        started_at_ns: u64,
        finished_at_ns: u64,
        downstream: &[u8],
    ) {
        let result_size = downstream.len() as u32;
        assert!(severity > 0, "back-pressure stands for one refusal at least");
        assert!((1..=DOWNSTREAM_NAME_SIZE_MAX).contains(&result_size), "a name of {result_size} bytes");
        self.memory.write(self.geometry.result_place(taken.slot, result_size), downstream);
        let control = WorkerControl::pushed_back(severity);
        self.finish(&taken, Answer { control, started_at_ns, finished_at_ns, result_size });
    }

    /// Shows everything completed since the last call to the router: one store for the batch. `true` means that the
    /// router sleeps and its doorbell must be rung; this is said once for each of its sleeps.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.submission_head != self.submission_head_published {
            self.submission_head_published = self.submission_head;
            self.memory.store_u32(worker_line::SUBMISSION_HEAD, self.submission_head, Ordering::Relaxed);
        }
        if self.completion_tail == self.completion_tail_published {
            return false;
        }
        self.completion_tail_published = self.completion_tail;
        // SYNC(ring.completion_tail): releases answers and index ring to `RouterEnd::next_completion`.
        self.memory.store_u32(worker_line::COMPLETION_TAIL, self.completion_tail, Ordering::Release);
        // SYNC(ring.router_sleeping): store of the tail, fence, load of the flag here; store of the flag, fence, load
        // of the tail in `RouterEnd::announce_sleep`. At least one of the two sees the other's store.
        self.memory.fence_seq_cst();
        let epoch = self.memory.load_u32(router_line::ROUTER_SLEEPING, Ordering::Relaxed);
        let must_ring = epoch & 1 == 1 && epoch != self.woken_epoch;
        if must_ring {
            self.woken_epoch = epoch;
        }
        must_ring
    }

    /// Waits for requests: spins for at most `spin_count_max` rounds (about 15 ns each), fewer while spinning has not
    /// been worth it, then sleeps. `None` sleeps without a limit.
    pub fn wait(
        &mut self,
        spin_count_max: u32,
        timeout: Option<Duration>,
    ) -> Result<WaitOutcome, RouterMisbehaved> {
        assert!(
            self.completion_tail == self.completion_tail_published,
            "answers would be kept while sleeping"
        );
        self.publish();
        if self.spin(spin_count_max)? {
            self.spin_count = self.spin_count.saturating_mul(2);
            return Ok(WaitOutcome::Ready);
        }
        // Halved down to a sixteenth: cheap while requests are rare, and still there to notice when they are not.
        self.spin_count = (self.spin_count / 2).max(spin_count_max / 16);
        if self.announce_sleep() {
            self.memory.futex_wait(router_line::WAKE_COUNT, self.wake_count_seen, timeout);
        }
        self.announce_awake();
        Ok(if self.refresh_submission_tail()? { WaitOutcome::Ready } else { WaitOutcome::Nothing })
    }

    /// Says that the worker is about to sleep. `false` means that requests are waiting: do not sleep. [`Self::wait`] does
    /// this; it is public for those who sleep in another way.
    pub fn announce_sleep(&mut self) -> bool {
        if self.sleeping_epoch & 1 == 0 {
            // SYNC(ring.wake_count): read before the announcement, which releases (keeps) that order. Whoever wakes us from
            // this sleep changes the count after it has seen the announcement.
            self.wake_count_seen = self.memory.load_u32(router_line::WAKE_COUNT, Ordering::Acquire);
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(worker_line::WORKER_SLEEPING, self.sleeping_epoch, Ordering::Release);
        }
        // SYNC(ring.worker_sleeping): the mirror image of SYNC(ring.router_sleeping), with `RouterEnd::publish`.
        self.memory.fence_seq_cst();
        let tail = self.memory.load_u32(router_line::SUBMISSION_TAIL, Ordering::Relaxed);
        let may_sleep = tail == self.submission_head;
        if !may_sleep {
            self.announce_awake();
        }
        may_sleep
    }

    /// Says that the worker looks at its ring again.
    pub fn announce_awake(&mut self) {
        if self.sleeping_epoch & 1 == 1 {
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(worker_line::WORKER_SLEEPING, self.sleeping_epoch, Ordering::Relaxed);
        }
    }

    /// The router takes no new calls.
    pub fn is_router_draining(&self) -> bool {
        self.memory.load_u32(router_line::ROUTER_DRAINING, Ordering::Relaxed) != 0
    }

    /// Sizes of this ring.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whose ring this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The memory, for inspection.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    #[inline]
    fn refresh_submission_tail(&mut self) -> Result<bool, RouterMisbehaved> {
        // SYNC(ring.submission_tail): acquires what `RouterEnd::publish` released, the index ring and slots.
        let tail = self.memory.load_u32(router_line::SUBMISSION_TAIL, Ordering::Acquire);
        let unread = tail.wrapping_sub(self.submission_head);
        let slot_count = self.geometry.slot_count();
        if unread > slot_count {
            return Err(RouterMisbehaved::CursorOutOfRange { tail, head: self.submission_head, slot_count });
        }
        self.submission_tail_cached = tail;
        Ok(unread != 0)
    }

    /// Fetches the request a few ahead, and takes the line of its answer away from the router's cache: the fence in
    /// `mark_taken` waits for that line.
    #[inline]
    fn prefetch_request(&self) {
        let ahead = self.submission_head.wrapping_add(PREFETCH_DISTANCE);
        if self.submission_tail_cached.wrapping_sub(self.submission_head) > PREFETCH_DISTANCE {
            let index = self.memory.load_u32(self.geometry.submission_entry(ahead), Ordering::Relaxed);
            if index < self.geometry.slot_count() {
                let place = self.geometry.slot(SlotIndex(index));
                self.memory.prefetch_to_read(place);
                self.memory.prefetch_to_write(place + slot::WORKER_CONTROL);
            }
        }
    }

    #[inline]
    fn check_request(&self, slot: SlotIndex, header: &RequestHeader) -> Result<(), RouterMisbehaved> {
        let state = RouterControl(header.control).state();
        if state != router_state::READY {
            return Err(RouterMisbehaved::BadSlotState { slot, state });
        }
        let payload_size = header.payload_size;
        let payload_size_max = self.geometry.region_size();
        if payload_size > payload_size_max {
            return Err(RouterMisbehaved::PayloadTooLarge { slot, payload_size, payload_size_max });
        }
        Ok(())
    }

    /// Marks the slot, and answers the router's word as it is after that.
    #[inline]
    fn mark_taken(&mut self, slot: SlotIndex, invocation_id: u64) -> RouterControl {
        let place = self.geometry.slot(slot);
        // The word of the state goes last: killed before it, the slot reads as the answer of its former user (not started),
        // or as started when the id was there already. Never as not started after it was.
        let taken = WorkerControl::new(worker_state::TAKEN, 0);
        self.memory.write_record(place + slot::WORKER_CONTROL, [taken.0.into(), invocation_id, 0, 0]);
        // SYNC(ring.slot_taken): store of TAKEN, fence, load of the cancel mark here; store of the mark, fence, load of
        // the state in `RouterEnd::request_cancel` and `was_started`. At least one side sees the other's store, so a
        // marked request that the router finds untaken is never begun. The fence also keeps the function's effects
        // behind the store, for the look after our death.
        self.memory.fence_seq_cst();
        RouterControl(self.memory.load_u32(place + slot::ROUTER_CONTROL, Ordering::Relaxed))
    }

    #[inline]
    fn taken(&self, slot: SlotIndex, header: &RequestHeader, control: RouterControl) -> Taken {
        let mut taken = Taken {
            slot,
            invocation_id: header.invocation_id,
            deadline_at_ns: header.deadline_at_ns,
            pushed_at_ns: header.pushed_at_ns,
            cancelled: control.is_cancel_requested(),
            flags: control.flags(),
            criticality: control.criticality(),
            payload_size: header.payload_size,
            trace: None,
            idempotency_key: None,
        };
        if control.has_context() {
            self.read_context(&mut taken);
        }
        taken
    }

    fn read_context(&self, taken: &mut Taken) {
        let place = self.geometry.slot(taken.slot);
        if taken.flags & FLAG_TRACE != 0 {
            self.memory.read(place + slot::CONTEXT_TRACE, taken.trace.insert([0; 32]));
        }
        if taken.flags & FLAG_IDEMPOTENCY_KEY != 0 {
            self.memory.read(place + slot::CONTEXT_IDEMPOTENCY_KEY, taken.idempotency_key.insert([0; 16]));
        }
    }

    #[inline]
    fn finish(&mut self, taken: &Taken, answer: Answer) {
        let place = self.geometry.slot(taken.slot);
        let front = u64::from(answer.control.0) | u64::from(answer.result_size) << 32;
        let header = [front, taken.invocation_id, answer.started_at_ns, answer.finished_at_ns];
        // SYNC(ring.slot_done): the answer before the word that says it is there. The router is given the slot by the
        // tail (SYNC(ring.completion_tail)); this order is for inspection after a crash.
        self.memory.write_record(place + slot::WORKER_CONTROL, header);
        let entry = self.geometry.completion_entry(self.completion_tail);
        self.memory.store_u32(entry, taken.slot.0, Ordering::Relaxed);
        self.completion_tail = self.completion_tail.wrapping_add(1);
    }

    /// `true` when requests came.
    fn spin(&mut self, spin_count_max: u32) -> Result<bool, RouterMisbehaved> {
        self.spin_count = self.spin_count.min(spin_count_max);
        for round in 0..self.spin_count {
            if self.refresh_submission_tail()? {
                return Ok(true);
            }
            if round % SPINS_PER_YIELD == SPINS_PER_YIELD - 1 {
                rustix::thread::sched_yield();
            } else {
                hint::spin_loop();
            }
        }
        self.refresh_submission_tail()
    }
}

impl<M: BorrowPayload> WorkerEnd<M> {
    /// The payload in place.
    #[inline]
    pub fn payload<'a>(&'a self, taken: &'a Taken) -> &'a [u8] {
        let place = self.geometry.payload_place(taken.slot, taken.payload_size);
        // SAFETY: a write under the reference would be undefined. Only the router writes request parts, and only of
        // free slots; this slot is not free while `taken` lives, because completing consumes it (header, "Trust").
        unsafe { self.memory.bytes(place, taken.payload_size as usize) }
    }

    /// The payload, and room for a result of any allowed size, both in place: for results worth not copying.
    /// Answer with [`Self::complete_in_place`].
    #[inline]
    pub fn buffers<'a>(&'a mut self, taken: &'a Taken) -> (&'a [u8], &'a mut [u8]) {
        let result_place = self.geometry.result_region(taken.slot);
        let payload_place = self.geometry.payload_place(taken.slot, taken.payload_size);
        // SAFETY: a second reference to the result region would be undefined. This end is borrowed mutably, so there
        // is none; the payload is never in a result region; the router reads results of answered slots only, and this
        // slot is not answered while `taken` lives. For the payload as in `payload`.
        unsafe {
            let result = self.memory.bytes_mut(result_place, self.geometry.region_size() as usize);
            (self.memory.bytes(payload_place, taken.payload_size as usize), result)
        }
    }

    /// Answers with the first `result_size` bytes of the result region, written through [`Self::buffers`].
    pub fn complete_in_place(
        &mut self,
        taken: Taken,
        outcome: Outcome,
        started_at_ns: u64,
        finished_at_ns: u64,
        result_size: usize,
    ) {
        assert!(result_size <= self.geometry.region_size() as usize, "more than there was room for");
        let result_size = result_size as u32;
        let mut small = [0; slot::INLINE_RESULT_SIZE_MAX];
        if let Some(small) = small.get_mut(..result_size as usize) {
            self.memory.read(self.geometry.result_region(taken.slot), small);
            self.memory.write(self.geometry.result_place(taken.slot, result_size), small);
        }
        self.finish(&taken, Answer::new(outcome, started_at_ns, finished_at_ns, result_size));
    }
}

struct Answer {
    control: WorkerControl,
    started_at_ns: u64,
    finished_at_ns: u64,
    result_size: u32,
}

impl Answer {
    #[inline]
    fn new(outcome: Outcome, started_at_ns: u64, finished_at_ns: u64, result_size: u32) -> Self {
        let control = WorkerControl::new(worker_state::DONE, outcome as u8);
        Self { control, started_at_ns, finished_at_ns, result_size }
    }
}

#[cfg(test)]
mod tests;
