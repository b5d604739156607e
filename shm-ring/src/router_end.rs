//! The router's end of a ring: pushes requests, takes answers, and believes nothing it reads.
//!
//! In: requests bound to this worker.  Out: [`Completion`]s, or the [`WorkerMisbehaved`] that ends the worker.
//!
//! ```text
//!            push                 next_completion               release
//!   free ───────────▶ pushed ─────────────────────▶ answered ───────────▶ free      (private table, `Entry`)
//!   EMPTY  WRITING ▶  READY           READY            READY               EMPTY     (what the memory says)
//! ```
//!
//! Always: free + pushed + answered = slot_count. The free list and the table are private, so that whatever a worker
//! does to its memory, at most `slot_count` requests are with it and each is answered at most once.
//! Always: slots are used in the order in which they became free, round and round, so that both sides can fetch the lines of the
//! next ones while they work on this one: a line comes from the other core, and waiting for each would cost more than all the rest
//! of a call. The round is little longer than there are calls at once (`free_slots.rs`). But slots whose regions were touched once come first, the one used last before the others, so that no
//! more regions are ever backed by memory than calls with large payloads or results were in flight at once.
//! Never: allocates after `new`, except to grow the caller's buffer in `read_result`.

use std::sync::atomic::{Ordering, compiler_fence};

use crate::access::{CopyFrom, Memory, PREFETCH_DISTANCE};
use crate::fault::{PushRefused, WorkerMisbehaved};
use crate::free_slots::FreeSlots;
use crate::inspect::{SlotStage, stage_of};
use crate::layout::{
    self, AnswerHeader, DOWNSTREAM_NAME_SIZE_MAX, FLAG_IDEMPOTENCY_KEY, FLAG_TRACE, Geometry, Identity,
    Outcome, RequestHeader, RouterControl, SlotIndex, WorkerControl, constants, router_line, router_state,
    slot, worker_line, worker_state,
};
use crate::waits;

/// What the router says about a request, beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Never used twice in one ring: a late answer is told from the current one by this number.
    pub invocation_id: u64,
    /// CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub deadline_at_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub pushed_at_ns: u64,
    /// As on the wire; the bits for trace and idempotency key are set from the fields below.
    pub flags: u16,
    /// As on the wire: 0 low to 3 critical.
    pub criticality: u8,
    /// What most requests do not have.
    pub context: Option<&'a Context>,
}

/// What goes with a request that belongs to a trace, or may be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Trace context, as on the wire.
    pub trace: Option<[u8; 32]>,
    /// Idempotency key, as on the wire.
    pub idempotency_key: Option<[u8; 16]>,
}

/// A request as it was pushed, to be given to another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// As on the wire; those for trace and idempotency key are set if they are there.
    pub flags: u16,
    /// As on the wire: 0 low to 3 critical.
    pub criticality: u8,
    /// Trace and idempotency key.
    pub context: Context,
}

/// An answer, checked. Its slot stays occupied until [`RouterEnd::release`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the slot is lost until the completion is released"]
pub struct Completion {
    /// Where the result lies.
    pub slot: SlotIndex,
    /// From the router's own table.
    pub invocation_id: u64,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// With `Backpressure`, how many refusals it stands for, at least 1.
    pub severity: u8,
    /// As told by the worker: advice, in no certain order to anything.
    pub started_at_ns: u64,
    /// As told by the worker, likewise.
    pub finished_at_ns: u64,
    /// Bytes of the result; fits the result region.
    pub result_size: u32,
}

/// Whether the function had begun when its worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The worker never came to it: it may be run elsewhere.
    No,
    /// It may have had effects.
    Yes,
    /// The memory is unreadable; treat as `Yes`.
    Unknown,
}

/// See the module's header.
pub struct RouterEnd<M> {
    memory: M,
    geometry: Geometry,
    identity: Identity,
    entries: Box<[Entry]>,
    free: FreeSlots,
    /// Requests written into the submission ring.
    submission_tail: u32,
    /// Requests the worker was told about.
    submission_tail_published: u32,
    /// Answers read.
    completion_head: u32,
    completion_head_published: u32,
    /// The worker's tail as last read and checked.
    completion_tail_cached: u32,
    /// Odd while the worker thinks that we sleep.
    sleeping_epoch: u32,
    /// The worker's sleep that our last wake-up ended.
    woken_epoch: u32,
    /// Wake-ups given.
    wake_count: u32,
}

/// One slot, as the router knows it.
#[derive(Clone, Copy)]
struct Entry {
    invocation_id: u64,
    payload_size: u32,
    control: RouterControl,
    life: Life,
    /// Its regions hold memory for good.
    has_touched_region: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Free,
    Pushed,
    Answered,
}

impl<M: Memory> RouterEnd<M> {
    /// Writes the constants into zeroed memory, which is given to the worker afterwards.
    pub fn new(memory: M, geometry: Geometry, identity: Identity) -> Self {
        assert!(memory.size() >= geometry.memory_size(), "the ring does not fit its memory");
        memory.store_u32(constants::VERSION, layout::VERSION, Ordering::Relaxed);
        memory.store_u32(constants::SLOT_COUNT, geometry.slot_count(), Ordering::Relaxed);
        memory.store_u32(constants::GENERATION, identity.generation.0, Ordering::Relaxed);
        memory.store_u32(constants::REGION_SIZE, geometry.region_size(), Ordering::Relaxed);
        memory.store_u64(constants::MEMORY_SIZE, geometry.memory_size() as u64, Ordering::Relaxed);
        memory.store_u32(constants::WORKER_ID, identity.worker_id, Ordering::Relaxed);
        memory.store_u32(constants::FUNCTION_ID, identity.function_id, Ordering::Relaxed);
        // Last, so that a ring with the magic number is a ring with all of its constants.
        memory.store_u64(constants::MAGIC, layout::MAGIC, Ordering::Release);

        let empty = Entry {
            invocation_id: 0,
            payload_size: 0,
            control: RouterControl::of_state(router_state::EMPTY),
            life: Life::Free,
            has_touched_region: false,
        };
        Self {
            memory,
            geometry,
            identity,
            entries: vec![empty; geometry.slot_count() as usize].into_boxed_slice(),
            free: FreeSlots::all(geometry.slot_count()),
            submission_tail: 0,
            submission_tail_published: 0,
            completion_head: 0,
            completion_head_published: 0,
            completion_tail_cached: 0,
            sleeping_epoch: 0,
            woken_epoch: 0,
            wake_count: 0,
        }
    }

    /// Credits the worker still has.
    #[inline]
    pub fn free_slots(&self) -> u32 {
        self.free.count()
    }

    /// Writes a request into a free slot. The worker learns of it by [`Self::publish`].
    #[inline]
    pub fn push(&mut self, request: Request<'_>, payload: &[u8]) -> Result<SlotIndex, PushRefused> {
        self.push_with(request, payload.len(), |memory, place| memory.write(place, payload))
    }

    /// As [`Self::push`], with a payload of `payload_size` bytes that lies at `source_offset` of another memory: the one
    /// copy on its way from a client's ring.
    #[inline]
    pub fn push_from<S: Memory>(
        &mut self,
        request: Request<'_>,
        source: &S,
        source_offset: usize,
        payload_size: usize,
    ) -> Result<SlotIndex, PushRefused>
    where
        M: CopyFrom<S>,
    {
        self.push_with(request, payload_size, |memory, place| {
            memory.copy_from(place, source, source_offset, payload_size);
        })
    }

    #[inline(always)]
    fn push_with(
        &mut self,
        request: Request<'_>,
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
        let control = self.write_request(slot, &request, payload_size as u32, write);
        let entry = &mut self.entries[slot.0 as usize];
        *entry = Entry {
            invocation_id: request.invocation_id,
            payload_size: payload_size as u32,
            control,
            life: Life::Pushed,
            has_touched_region: entry.has_touched_region || payload_size > slot::INLINE_PAYLOAD_SIZE_MAX,
        };
        // Room is certain: an entry of this ring is overwritten one lap later, and a slot is submitted again only
        // after it was answered. A worker that answers what it never took loses requests of its own, nobody else's.
        let entry = self.geometry.submission_entry(self.submission_tail);
        self.memory.store_u32(entry, slot.0, Ordering::Relaxed);
        self.submission_tail = self.submission_tail.wrapping_add(1);
        Ok(slot)
    }

    /// Shows everything pushed since the last call to the worker: one store for the batch. `true` means that the worker
    /// sleeps and [`Self::wake`] must be called; this is said once for each of its sleeps.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.completion_head != self.completion_head_published {
            self.completion_head_published = self.completion_head;
            self.memory.store_u32(router_line::COMPLETION_HEAD, self.completion_head, Ordering::Relaxed);
        }
        if self.submission_tail == self.submission_tail_published {
            return false;
        }
        self.submission_tail_published = self.submission_tail;
        self.free.look();
        // SYNC(ring.submission_tail): releases slots and index ring to `WorkerEnd::next_request`.
        self.memory.store_u32(router_line::SUBMISSION_TAIL, self.submission_tail, Ordering::Release);
        // SYNC(ring.worker_sleeping): store of the tail, fence, load of the flag here; store of the flag, fence, load
        // of the tail in `WorkerEnd::wait`. At least one of the two sees the other's store. Release and acquire alone
        // would let both loads pass both stores, and the worker would sleep on a full ring.
        self.memory.fence_seq_cst();
        let epoch = self.memory.load_u32(worker_line::WORKER_SLEEPING, Ordering::Acquire);
        let must_wake = epoch & 1 == 1 && epoch != self.woken_epoch;
        if must_wake {
            self.woken_epoch = epoch;
            // SYNC(ring.wake_count): the worker read the count before it announced this sleep, so it sees a new one,
            // whether it is asleep already or still on its way. The tail would not do as the futex: the worker may have
            // taken what we are waking it for, and go to sleep on the new tail after our wake-up found nobody.
            self.wake_count = self.wake_count.wrapping_add(1);
            self.memory.store_u32(router_line::WAKE_COUNT, self.wake_count, Ordering::Release);
        }
        must_wake
    }

    /// Wakes the worker: one system call.
    pub fn wake(&self) {
        self.memory.futex_wake(router_line::WAKE_COUNT);
    }

    /// Takes the next answers, at most `count_max`, checked against the private table. After an error the worker is to be killed:
    /// the answers before it count, and the slots that it still holds are in [`Self::in_flight`].
    ///
    /// To be called only while every push is published, as the router's turn does: it reaps, pushes, publishes, in this
    /// order. A worker may scribble an answer to a slot whose request it was not shown yet. That answer would be taken,
    /// the slot given to another request, and both stand in the submission ring at the next `publish`: more unread entries
    /// than there are slots, which a worker that has come to its senses takes for damage.
    #[inline(always)]
    pub fn next_completions(
        &mut self,
        count_max: usize,
        mut on_completion: impl FnMut(Completion),
    ) -> Result<(), WorkerMisbehaved> {
        debug_assert_eq!(
            self.submission_tail, self.submission_tail_published,
            "answers are read only while every push is published"
        );
        for _ in 0..count_max {
            if self.completion_head == self.completion_tail_cached && !self.refresh_completion_tail()? {
                break;
            }
            let entry = self.geometry.completion_entry(self.completion_head);
            let index = self.memory.load_u32(entry, Ordering::Relaxed);
            self.prefetch_answer(index);
            // Counted as read before it is judged: asked again after an error, we do not stumble over the same entry.
            self.completion_head = self.completion_head.wrapping_add(1);
            on_completion(self.check_answer(index)?);
        }
        Ok(())
    }

    /// The next answer: [`Self::next_completions`] for one.
    pub fn next_completion(&mut self) -> Result<Option<Completion>, WorkerMisbehaved> {
        let mut found = None;
        self.next_completions(1, |completion| found = Some(completion))?;
        Ok(found)
    }

    /// Fetches the answer a few ahead of this one, if there are so many. A hint: workers answer in the order in which slots
    /// are given, mostly.
    #[inline]
    fn prefetch_answer(&self, index: u32) {
        if self.completion_tail_cached.wrapping_sub(self.completion_head) > PREFETCH_DISTANCE {
            let place = self.geometry.slot(self.geometry.slot_ahead(SlotIndex(index), PREFETCH_DISTANCE));
            self.memory.prefetch_to_read(place + slot::WORKER_CONTROL);
            self.memory.prefetch_to_write(place);
        }
    }

    /// Appends the result's bytes to `out`.
    #[inline]
    pub fn read_result(&self, completion: &Completion, out: &mut Vec<u8>) {
        let place = self.geometry.result_place(completion.slot, completion.result_size);
        self.memory.append_to(place, completion.result_size as usize, out);
    }

    /// Copies the name that comes with `Backpressure` into `name`, and gives the part of it that it fills.
    pub fn read_downstream<'n>(
        &self,
        completion: &Completion,
        name: &'n mut [u8; DOWNSTREAM_NAME_SIZE_MAX as usize],
    ) -> &'n [u8] {
        let size = (completion.result_size as usize).min(name.len());
        let name = &mut name[..size];
        self.memory.read(self.geometry.result_place(completion.slot, completion.result_size), name);
        name
    }

    /// Where the result lies in [`Self::memory`], for copying it into another ring.
    #[inline]
    pub fn result_place(&self, completion: &Completion) -> usize {
        self.geometry.result_place(completion.slot, completion.result_size)
    }

    /// Appends the payload of a pushed request to `out` and returns the rest of it: for giving the call to another worker
    /// when this one is dead.
    ///
    /// The dead worker could write here, so the bytes may not be what was pushed. They only ever go to the same function
    /// again; keeping a second copy of every call for this rare end would cost each call what it saves none.
    pub fn read_request(&self, slot: SlotIndex, out: &mut Vec<u8>) -> PushedRequest {
        let entry = &self.entries[slot.0 as usize];
        assert!(entry.life != Life::Free, "a request lies in its slot until the slot is given back");
        let payload_size = entry.payload_size;
        self.memory.append_to(self.geometry.payload_place(slot, payload_size), payload_size as usize, out);
        // What the slot holds is judged by the table, as in `was_started`.
        let (mut trace, mut key) = ([0; 32], [0; 16]);
        self.memory.read(self.geometry.slot(slot) + slot::CONTEXT_TRACE, &mut trace);
        self.memory.read(self.geometry.slot(slot) + slot::CONTEXT_IDEMPOTENCY_KEY, &mut key);
        let flags = entry.control.flags();
        let context = Context {
            trace: (flags & FLAG_TRACE != 0).then_some(trace),
            idempotency_key: (flags & FLAG_IDEMPOTENCY_KEY != 0).then_some(key),
        };
        PushedRequest { flags, criticality: entry.control.criticality(), context }
    }

    /// Appends the payload of an answered request to `out`, if it is wanted, and says how many bytes it was pushed with.
    #[inline]
    pub fn answered_payload(&self, completion: &Completion, out: Option<&mut Vec<u8>>) -> u32 {
        let payload_size = self.entries[completion.slot.0 as usize].payload_size;
        if let Some(out) = out {
            let place = self.geometry.payload_place(completion.slot, payload_size);
            self.memory.append_to(place, payload_size as usize, out);
        }
        payload_size
    }

    /// Gives the slot back.
    #[inline(always)]
    pub fn release(&mut self, completion: Completion) {
        self.assert_answered(&completion);
        let slot = completion.slot;
        let entry = &mut self.entries[slot.0 as usize];
        entry.life = Life::Free;
        entry.has_touched_region |= completion.result_size as usize > slot::INLINE_RESULT_SIZE_MAX;
        let empty = RouterControl::of_state(router_state::EMPTY);
        self.memory.store_u32(self.geometry.slot(slot) + slot::ROUTER_CONTROL, empty.0, Ordering::Relaxed);
        self.free.give_back(slot, entry.has_touched_region);
    }

    /// Tells the worker that nobody wants this answer. `false` when the slot holds another invocation by now, or it is
    /// answered.
    pub fn request_cancel(&mut self, slot: SlotIndex, invocation_id: u64) -> bool {
        let Some(entry) = self.entries.get_mut(slot.0 as usize) else { return false };
        if entry.life != Life::Pushed || entry.invocation_id != invocation_id {
            return false;
        }
        entry.control.0 |= RouterControl::CANCEL_REQUESTED;
        let place = self.geometry.slot(slot) + slot::ROUTER_CONTROL;
        self.memory.store_u32(place, entry.control.0, Ordering::Relaxed);
        // SYNC(ring.slot_taken): the router's half of the pair; the look that follows is `was_started`.
        self.memory.fence_seq_cst();
        true
    }

    /// Says that the router is about to sleep. `false` means that answers are waiting: do not sleep.
    /// After sleeping, or instead of it, the flag is taken back with [`Self::announce_awake`].
    pub fn announce_sleep(&mut self) -> bool {
        if self.sleeping_epoch & 1 == 0 {
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(router_line::ROUTER_SLEEPING, self.sleeping_epoch, Ordering::Relaxed);
        }
        // SYNC(ring.router_sleeping): the mirror image of SYNC(ring.worker_sleeping), with `WorkerEnd::publish`.
        self.memory.fence_seq_cst();
        let tail = self.memory.load_u32(worker_line::COMPLETION_TAIL, Ordering::Relaxed);
        let may_sleep = tail == self.completion_head;
        if !may_sleep {
            self.announce_awake();
        }
        may_sleep
    }

    /// Says that the router looks at its rings again.
    pub fn announce_awake(&mut self) {
        if self.sleeping_epoch & 1 == 1 {
            self.sleeping_epoch = self.sleeping_epoch.wrapping_add(1);
            self.memory.store_u32(router_line::ROUTER_SLEEPING, self.sleeping_epoch, Ordering::Relaxed);
        }
    }

    /// Says that no new calls come, for the worker to know why it is idle.
    pub fn announce_draining(&mut self) {
        self.memory.store_u32(router_line::ROUTER_DRAINING, 1, Ordering::Relaxed);
    }

    /// Requests with the worker that have no answer yet.
    pub fn in_flight(&self) -> impl Iterator<Item = (SlotIndex, u64)> + '_ {
        let pushed = self.entries.iter().enumerate().filter(|(_, entry)| entry.life == Life::Pushed);
        pushed.map(|(index, entry)| (SlotIndex(index as u32), entry.invocation_id))
    }

    /// Whether the request in this slot has begun. To be asked after [`Self::next_completion`] was asked until `None`.
    ///
    /// `No` proves that it never will in two cases. The worker is known to be dead (socket at its end, or pidfd
    /// readable): it stores TAKEN before it runs the function, and a dead process stores nothing any more. Or
    /// [`Self::request_cancel`] came before: SYNC(ring.slot_taken). Of a live worker without a cancel mark it is only
    /// how things were a moment ago. A worker that lies can have only its own function run twice.
    pub fn was_started(&self, slot: SlotIndex) -> Started {
        let Some(entry) = self.entries.get(slot.0 as usize) else { return Started::Unknown };
        match entry.life {
            Life::Free => return Started::No,
            Life::Answered => return Started::Yes,
            Life::Pushed => {}
        }
        let place = self.geometry.slot(slot) + slot::WORKER_CONTROL;
        let answer = AnswerHeader::from_record(&self.memory.read_record(place));
        // The router's own half is judged by the table, not by the memory: the worker could have written there.
        match stage_of(entry.control, entry.invocation_id, &answer) {
            SlotStage::Ready => Started::No,
            SlotStage::Taken | SlotStage::Done => Started::Yes,
            SlotStage::Empty | SlotStage::Writing | SlotStage::Unreadable { .. } => Started::Unknown,
        }
    }

    /// Which nested call the worker says that its running call waits for: a wait token of the wire, in 64 bits of which any may
    /// be set.
    #[inline]
    pub fn waits_for(&self) -> u64 {
        waits::shown(&self.memory)
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

    /// Panics when the private accounting is wrong. For tests, after every operation.
    pub fn invariants(&self) {
        let count = |life| self.entries.iter().filter(|entry| entry.life == life).count();
        assert_eq!(count(Life::Free), self.free.count() as usize, "free list and table agree");
        for (slot, has_touched_region) in self.free.iter() {
            let entry = &self.entries[slot.0 as usize];
            assert_eq!(entry.life, Life::Free, "{slot} is in the free list");
            assert_eq!(entry.has_touched_region, has_touched_region, "{slot} is in the right free list");
        }
        let unpublished = self.submission_tail.wrapping_sub(self.submission_tail_published);
        assert!(unpublished <= self.geometry.slot_count());
        let unread = self.completion_tail_cached.wrapping_sub(self.completion_head);
        assert!(unread <= self.geometry.slot_count());
    }

    #[inline(always)]
    fn write_request(
        &self,
        slot: SlotIndex,
        request: &Request<'_>,
        payload_size: u32,
        write: impl FnOnce(&M, usize),
    ) -> RouterControl {
        let place = self.geometry.slot(slot);
        let writing = RouterControl::of_state(router_state::WRITING);
        self.memory.store_u32(place + slot::ROUTER_CONTROL, writing.0, Ordering::Relaxed);
        // For the reader of our corpse only: keeps the compiler from moving the contents before the warning.
        compiler_fence(Ordering::Release);

        write(&self.memory, self.geometry.payload_place(slot, payload_size));
        let control = self.write_context(place, request);
        // SYNC(ring.slot_ready): the contents before the word that says they are there. The worker is given the slot
        // by the tail (SYNC(ring.submission_tail)); this order is for inspection after a crash.
        let front = u64::from(control.0) | u64::from(payload_size) << 32;
        let header = [front, request.invocation_id, request.deadline_at_ns, request.pushed_at_ns];
        self.memory.write_record(place, header);
        control
    }

    /// The context is a cache line of its own and most requests have nothing to say there, so a bit tells whether it
    /// exists; without the bit neither side touches the line.
    #[inline]
    fn write_context(&self, place: usize, request: &Request<'_>) -> RouterControl {
        let flags = request.flags & !(FLAG_TRACE | FLAG_IDEMPOTENCY_KEY);
        match request.context {
            None => RouterControl::ready(request.criticality, flags),
            Some(context) => self.write_full_context(place, request.criticality, context, flags),
        }
    }

    #[inline(never)]
    fn write_full_context(
        &self,
        place: usize,
        criticality: u8,
        context: &Context,
        mut flags: u16,
    ) -> RouterControl {
        let mut bytes = [0; slot::CONTEXT_SIZE];
        if let Some(trace) = context.trace {
            flags |= FLAG_TRACE;
            bytes[..32].copy_from_slice(&trace);
        }
        if let Some(key) = context.idempotency_key {
            flags |= FLAG_IDEMPOTENCY_KEY;
            bytes[32..48].copy_from_slice(&key);
        }
        self.memory.write(place + slot::CONTEXT, &bytes);
        RouterControl(RouterControl::ready(criticality, flags).0 | RouterControl::CONTEXT_PRESENT)
    }

    /// `true` when there is something to read.
    #[inline]
    fn refresh_completion_tail(&mut self) -> Result<bool, WorkerMisbehaved> {
        // SYNC(ring.completion_tail): acquires what `WorkerEnd::publish` released, the index ring and answers.
        let tail = self.memory.load_u32(worker_line::COMPLETION_TAIL, Ordering::Acquire);
        let unread = tail.wrapping_sub(self.completion_head);
        let slot_count = self.geometry.slot_count();
        if unread > slot_count {
            return Err(WorkerMisbehaved::CursorOutOfRange { tail, head: self.completion_head, slot_count });
        }
        self.completion_tail_cached = tail;
        Ok(unread != 0)
    }

    #[inline(always)]
    fn check_answer(&mut self, index: u32) -> Result<Completion, WorkerMisbehaved> {
        let slot_count = self.geometry.slot_count();
        let slot = SlotIndex(index);
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return Err(WorkerMisbehaved::SlotOutOfRange { slot: index, slot_count });
        };
        let invocation_id = entry.invocation_id;
        match entry.life {
            Life::Pushed => {}
            Life::Answered => return Err(WorkerMisbehaved::AnsweredTwice { slot, invocation_id }),
            Life::Free => return Err(WorkerMisbehaved::SlotNotInFlight { slot }),
        }
        let place = self.geometry.slot(slot) + slot::WORKER_CONTROL;
        let answer = AnswerHeader::from_record(&self.memory.read_record(place));
        let control = WorkerControl(answer.control);
        if control.state() != worker_state::DONE {
            return Err(WorkerMisbehaved::BadSlotState { slot, state: control.state() });
        }
        if answer.invocation_id != invocation_id {
            let answered = answer.invocation_id;
            return Err(WorkerMisbehaved::StaleAnswer { slot, expected: invocation_id, answered });
        }
        let result_size = answer.result_size;
        let outcome = match Outcome::from_number(control.outcome()) {
            Some(Outcome::Backpressure) => check_backpressure(slot, control, result_size)?,
            Some(outcome) => outcome,
            None => return Err(WorkerMisbehaved::UnknownOutcome { slot, outcome: control.outcome() }),
        };
        let result_size_max = self.geometry.region_size();
        if result_size > result_size_max {
            return Err(WorkerMisbehaved::ResultTooLarge { slot, result_size, result_size_max });
        }
        entry.life = Life::Answered;
        // A worker's clock readings are never a reason to distrust the answer.
        let AnswerHeader { started_at_ns, finished_at_ns, .. } = answer;
        let severity = control.severity();
        Ok(Completion { slot, invocation_id, outcome, severity, started_at_ns, finished_at_ns, result_size })
    }

    #[inline]
    fn assert_answered(&self, completion: &Completion) {
        let entry = &self.entries[completion.slot.0 as usize];
        assert!(entry.life == Life::Answered, "a completion of another ring");
        assert!(entry.invocation_id == completion.invocation_id, "a completion of another ring");
    }
}

/// Rare: a worker whose function was pushed back says by whom, and how hard.
#[cold]
fn check_backpressure(
    slot: SlotIndex,
    control: WorkerControl,
    name_size: u32,
) -> Result<Outcome, WorkerMisbehaved> {
    let severity = control.severity();
    if severity == 0 || !(1..=DOWNSTREAM_NAME_SIZE_MAX).contains(&name_size) {
        return Err(WorkerMisbehaved::BackpressureOutOfRange { slot, severity, name_size });
    }
    Ok(Outcome::Backpressure)
}

/// What the header of a slot says, for inspection.
pub(crate) fn request_header<M: Memory>(memory: &M, geometry: Geometry, slot: SlotIndex) -> RequestHeader {
    RequestHeader::from_record(&memory.read_record(geometry.slot(slot)))
}

#[cfg(test)]
mod tests;
