//! Direct lanes: a client ring that a worker serves, on lease from the router, which only watches.
//!
//! ```text
//!   client ──── calls ───▶ worker      [ClientEnd], [LaneService]
//!      ▲  ◀── answers ────   │ lane line: what it took, what runs until when, what it answered
//!      │                     ▼
//!      └── why it ended ── router      [LaneWatch]: reads, never writes after the constants
//! ```
//! Always: a call is counted in `taken_count` before its function begins, and nothing of the call is moved before that. Calls are taken in the
//! order of their submission, so the count alone says of each call whether it was taken: what lies behind it when the
//! worker has closed the lane, or is dead, was not begun and never will be.
//! Always: the worker holds the client for hostile (it has a [`ServiceEnd`]), the router holds both for hostile: it reads
//! words of the worker only, and believes no more of them than that they are the worker's word.
//! Why a count and not a mark in each slot, as in a worker's ring: a worker's ring may be looked at by slot while it lives,
//! to end a call that was not begun. Nobody looks at a lane so; and the line of the count stays with the worker, while
//! the line of the slot has to be fetched from the client's core before the function may begin.
//!
//! Normative text: docs/spec/shm.md, "Direct lanes".  Tests: `tests/lane.rs`.

use std::sync::atomic::{Ordering, compiler_fence};

use super::client_end::Entry;
use super::{
    Answer, ClientControl, ClientEnd, ClientIdentity, ClientMisbehaved, ServiceEnd, TakenCall, call_slot,
    service_line, write_constants,
};
use crate::access::Memory;
use crate::fault::AttachError;
use crate::layout::{Geometry, SlotIndex};

/// Offsets of the words of a lane that the worker writes and the router reads. The client reads the first.
pub mod lane_line {
    /// u32, calls ever taken, modulo 2^32.
    pub const TAKEN_COUNT: usize = 384;
    /// u64, CLOCK_MONOTONIC nanoseconds: until when the call that runs may run; 0 while none does.
    pub const RUNNING_UNTIL_NS: usize = 392;
    /// u64, calls ever answered with the function's result.
    pub const ANSWERED_OK: usize = 400;
    /// u64, calls ever answered with the function's own error.
    pub const ANSWERED_ERROR: usize = 408;
    /// u64, calls ever answered otherwise.
    pub const ANSWERED_OTHERWISE: usize = 416;
    /// u64, nanoseconds that functions ran, in all.
    pub const RUN_NS: usize = 424;
}

/// Values of `router_draining` in a lane.
const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const CLOSED_CLIENT_AT_FAULT: u32 = 2;

/// Why a worker takes nothing more from a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneClosed {
    /// It was told to, or goes.
    Ended,
    /// The client wrote what no honest client writes.
    ClientAtFault,
}

/// What a lane's calls came to since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneUsage {
    /// Answered with the function's result.
    pub answered_ok: u64,
    /// Answered with the function's own error.
    pub answered_error: u64,
    /// Answered otherwise.
    pub answered_otherwise: u64,
    /// Nanoseconds that functions ran.
    pub run_ns: u64,
}

/// The worker's end of a lane.
pub struct LaneService<M> {
    service: ServiceEnd<M>,
    usage: LaneUsage,
    is_running: bool,
    /// The slot behind the one taken last: clients use them in their order.
    slot_expected: SlotIndex,
}

impl<M: Memory> LaneService<M> {
    /// Checks the constants and begins with an empty ring.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let service = ServiceEnd::attach(memory)?;
        Ok(Self { service, usage: LaneUsage::default(), is_running: false, slot_expected: SlotIndex(0) })
    }

    /// Whether there may be calls. If so, asks at once for the lines that the next call probably lies in, which come from
    /// the client's core while its place is still being read.
    #[inline]
    pub fn has_calls(&self) -> bool {
        let has_calls = self.service.has_calls();
        if has_calls {
            let ServiceEnd { memory, geometry, submission_head, .. } = &self.service;
            memory.prefetch_to_read(geometry.submission_entry(*submission_head));
            memory.prefetch_to_read(geometry.slot(self.slot_expected));
        }
        has_calls
    }

    /// The next call, counted as taken before it is returned; its deadline is the earlier of its own and `until_ns`.
    /// After an error the lane is to be closed.
    #[inline]
    pub fn next_call(&mut self, until_ns: u64) -> Result<Option<TakenCall>, ClientMisbehaved> {
        let Some(mut taken) = self.service.next_call()? else { return Ok(None) };
        taken.deadline_at_ns = taken.deadline_at_ns.min(until_ns);
        let ServiceEnd { memory, geometry, submission_head, .. } = &self.service;
        self.slot_expected = SlotIndex((taken.slot.0 + 1) & (geometry.slot_count() - 1));
        // The line of the answer is in the client's cache: it comes while the function runs.
        memory.prefetch_to_write(geometry.slot(taken.slot) + call_slot::SERVICE_CONTROL);
        memory.prefetch_to_write(geometry.completion_entry(self.service.completion_tail));
        memory.store_u32(lane_line::TAKEN_COUNT, *submission_head, Ordering::Relaxed);
        // SYNC(lane.running_until): releases the count to `LaneWatch::look`, which takes a call whose time it sees for the
        // one that was counted last, and the time since it saw the count change for that call's.
        memory.store_u64(lane_line::RUNNING_UNTIL_NS, taken.deadline_at_ns.max(1), Ordering::Release);
        // Keeps the function's effects behind the store, for the look after our death. The compiler could move them, the
        // processor could not: what a process has stored, in program order, is there when its death is told. A look at a
        // living worker proves nothing here, so that nothing has to be ordered for it.
        compiler_fence(Ordering::SeqCst);
        self.is_running = true;
        Ok(Some(taken))
    }

    /// Whether somebody asked to cancel this call. The client's word, about its own call.
    #[inline]
    pub fn is_cancelled(&self, slot: SlotIndex) -> bool {
        let place = self.service.geometry.slot(slot) + call_slot::CLIENT_CONTROL;
        ClientControl(self.service.memory.load_u32(place, Ordering::Relaxed)).is_cancel_requested()
    }

    /// Copies a taken call's payload in place of what is in `out`. The client may change it meanwhile, and harms its own call.
    #[inline]
    pub fn read_payload(&self, taken: &TakenCall, out: &mut Vec<u8>) {
        out.clear();
        let place = self.service.payload_place(taken.slot, taken.payload_size);
        self.service.memory.append_to(place, taken.payload_size as usize, out);
    }

    /// Answers a taken call. The client learns of it by [`Self::publish`]. The result must fit a region.
    #[inline]
    pub fn answer(&mut self, taken: &TakenCall, answer: Answer<'_>, result: &[u8]) {
        let size = result.len() as u32;
        self.service.answer(taken.slot, answer, size, |memory, place| memory.write(place, result));
    }

    /// Counts what calls came to. The router is told of it by [`Self::publish`].
    #[inline]
    pub fn usage_mut(&mut self) -> &mut LaneUsage {
        &mut self.usage
    }

    /// Shows everything answered since the last call to the client, as [`ServiceEnd::publish`], and the lane's usage to
    /// the router.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let must_wake = self.service.publish();
        if self.is_running {
            self.is_running = false;
            let store = |offset, value| self.service.memory.store_u64(offset, value, Ordering::Relaxed);
            store(lane_line::RUNNING_UNTIL_NS, 0);
            store(lane_line::ANSWERED_OK, self.usage.answered_ok);
            store(lane_line::ANSWERED_ERROR, self.usage.answered_error);
            store(lane_line::ANSWERED_OTHERWISE, self.usage.answered_otherwise);
            store(lane_line::RUN_NS, self.usage.run_ns);
        }
        must_wake
    }

    /// Says that nothing more is taken, shows what was answered, and wakes the client. Give the end up after it.
    pub fn close(&mut self, why: LaneClosed) {
        self.publish();
        let word = match why {
            LaneClosed::Ended => CLOSED,
            LaneClosed::ClientAtFault => CLOSED_CLIENT_AT_FAULT,
        };
        // SYNC(lane.closed): releases the last answers and the count of taken calls to `ClientEnd::is_closed`, and the
        // usage to `LaneWatch::look`.
        self.service.memory.store_u32(service_line::ROUTER_DRAINING, word, Ordering::Release);
        self.service.wake();
    }

    /// The ring below.
    #[inline]
    pub fn ring(&self) -> &ServiceEnd<M> {
        &self.service
    }

    /// The ring below.
    #[inline]
    pub fn ring_mut(&mut self) -> &mut ServiceEnd<M> {
        &mut self.service
    }
}

/// The router's look at a lane it leased.
pub struct LaneWatch<M> {
    memory: M,
}

/// What a worker says about a lane, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLook {
    /// Calls ever taken, modulo 2^32.
    pub taken_count: u32,
    /// Until when the call that runs may run; none runs.
    pub running_until_ns: Option<u64>,
    /// What calls came to.
    pub usage: LaneUsage,
    /// Nothing more is taken.
    pub closed: Option<LaneClosed>,
}

impl<M: Memory> LaneWatch<M> {
    /// Writes the constants into zeroed memory, which is given to client and worker afterwards.
    pub fn new(memory: M, geometry: Geometry, identity: ClientIdentity) -> Self {
        assert!(memory.size() >= geometry.memory_size(), "the lane does not fit its memory");
        write_constants(&memory, geometry, identity);
        Self { memory }
    }

    /// Reads the worker's words, each once.
    pub fn look(&self) -> LaneLook {
        // SYNC(lane.closed): a lane seen closed has told all of its usage.
        let closed = match self.memory.load_u32(service_line::ROUTER_DRAINING, Ordering::Acquire) {
            OPEN => None,
            CLOSED_CLIENT_AT_FAULT => Some(LaneClosed::ClientAtFault),
            _ => Some(LaneClosed::Ended),
        };
        let word = |offset| self.memory.load_u64(offset, Ordering::Relaxed);
        // SYNC(lane.running_until): before the count, which is at least that of the call whose time this is.
        let running_until_ns = self.memory.load_u64(lane_line::RUNNING_UNTIL_NS, Ordering::Acquire);
        LaneLook {
            taken_count: self.memory.load_u32(lane_line::TAKEN_COUNT, Ordering::Relaxed),
            running_until_ns: (running_until_ns != 0).then_some(running_until_ns),
            usage: LaneUsage {
                answered_ok: word(lane_line::ANSWERED_OK),
                answered_error: word(lane_line::ANSWERED_ERROR),
                answered_otherwise: word(lane_line::ANSWERED_OTHERWISE),
                run_ns: word(lane_line::RUN_NS),
            },
            closed,
        }
    }
}

/// A call that a lane left without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Where it lay.
    pub slot: SlotIndex,
    /// The client's own number of it.
    pub call_id: u64,
    /// Its payload, if the call was not taken: nobody will begin it. None: it had begun, or may have.
    pub payload: Option<Vec<u8>>,
}

/// What a client needs of a ring that is a lane.
impl<M: Memory> ClientEnd<M> {
    /// The worker takes nothing more. Look for answers once more after it.
    #[inline]
    pub fn is_closed(&self) -> bool {
        // SYNC(lane.closed): acquires the last answers and the count of taken calls.
        self.memory.load_u32(service_line::ROUTER_DRAINING, Ordering::Acquire) != OPEN
    }

    /// Marks a submitted call: nobody wants its answer any more. It is answered all the same.
    pub fn request_cancel(&mut self, slot: SlotIndex) {
        if self.entries.get(slot.0 as usize).is_some_and(|entry| entry.is_submitted) {
            let place = self.geometry.slot(slot) + call_slot::CLIENT_CONTROL;
            let control = self.memory.load_u32(place, Ordering::Relaxed) | ClientControl::CANCEL_REQUESTED;
            self.memory.store_u32(place, control, Ordering::Relaxed);
        }
    }

    /// Takes back, in the order of their submission, the calls that will not be answered any more. Only when the lane is
    /// closed, or its worker known to be dead, and every answer was taken.
    pub fn take_back(&mut self) -> Vec<LeftBehind> {
        let taken_count = self.memory.load_u32(lane_line::TAKEN_COUNT, Ordering::Acquire);
        let submitted = (0..).zip(&self.entries).filter(|(_, entry)| entry.is_submitted);
        let mut left: Vec<(u32, Entry)> = submitted.map(|(index, entry)| (index, *entry)).collect();
        // Counted back from the newest: at most a ring's slots apart, wherever the count has wrapped.
        left.sort_by_key(|(_, entry)| std::cmp::Reverse(self.submission_tail().wrapping_sub(entry.position)));
        let mut calls = Vec::with_capacity(left.len());
        for (index, entry) in left {
            let slot = SlotIndex(index);
            let is_taken = (entry.position.wrapping_sub(taken_count) as i32) < 0;
            let payload = (!is_taken).then(|| {
                let mut payload = Vec::with_capacity(entry.payload_size as usize);
                let place = self.geometry.payload_place(slot, entry.payload_size);
                self.memory.append_to(place, entry.payload_size as usize, &mut payload);
                payload
            });
            self.entries[index as usize].is_submitted = false;
            self.free.give_back(slot, entry.has_touched_region);
            calls.push(LeftBehind { slot, call_id: entry.call_id, payload });
        }
        calls
    }

    /// Whether there are answers that [`Self::next_answer`] would give.
    #[inline]
    pub fn has_answers(&mut self) -> bool {
        // A cursor out of range is an answer too: taking it names the fault.
        self.refresh_completion_tail().unwrap_or(true)
    }
}
