//! The bytes of a ring: every offset, every size, every state, and nothing that touches memory.
//!
//! ```text
//! 0      control page, 4096 bytes
//!          0  constants      written once by the router before the worker sees the memory
//!        128  router line    submission_tail, completion_head, router_sleeping, router_draining, wake_count
//!        256  worker line    submission_head, completion_tail, worker_sleeping, waits_for
//! 4096   submission index ring   slot_count x u32, rounded up to 128
//!  +     completion index ring   slot_count x u32, rounded up to 128
//!  +     slots                   slot_count x 384: 256 bytes of the router's, 128 bytes of the worker's
//!  +     regions (from the next multiple of 4096)   slot_count x (request region, result region)
//! ```
//!
//! Lines are 128 bytes because processors fetch neighbouring pairs of 64-byte lines: two sides that write into one
//! pair slow each other down. Every byte has exactly one writing side.
//!
//! The normative tables are in `docs/spec/shm.md`; `tests/spec.rs` compares them with the constants here.

use std::fmt;
use std::mem::{offset_of, size_of};

use crate::fault::GeometryError;

const _: () = assert!(cfg!(target_endian = "little"), "the ring is little endian and read in place");

/// "QFRING01" as little-endian bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"QFRING01");
/// The layout described here.
pub const VERSION: u32 = 2;

/// Bytes of the control page.
pub const CONTROL_PAGE_SIZE: usize = 4096;
/// Distance between lines written by different sides.
pub const LINE_SIZE: usize = 128;
/// Regions start at, and are sized in, multiples of this.
pub const PAGE_SIZE: usize = 4096;

/// Most slots one ring may have: the index of a slot then fits 12 bits, and the slots alone stay below 1.5 MiB.
pub const SLOT_COUNT_MAX: u32 = 4096;
/// Largest region: 1 GiB. Together with [`SLOT_COUNT_MAX`] the whole ring stays below 2^43 bytes.
pub const REGION_SIZE_MAX: u32 = 1 << 30;

/// Offsets in the constants, from 0.
pub mod constants {
    /// u64, [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// u32, [`super::VERSION`].
    pub const VERSION: usize = 8;
    /// u32, a power of two.
    pub const SLOT_COUNT: usize = 12;
    /// u32, differs between any two rings a worker is given.
    pub const GENERATION: usize = 16;
    /// u32, multiple of 4096.
    pub const REGION_SIZE: usize = 20;
    /// u64, bytes of the whole memory.
    pub const MEMORY_SIZE: usize = 24;
    /// u32, the router's name for the worker.
    pub const WORKER_ID: usize = 32;
    /// u32, the function this worker runs.
    pub const FUNCTION_ID: usize = 36;
    /// Bytes in use; up to the router line the rest is zero.
    pub const SIZE: usize = 40;
}

/// Offsets of the words only the router writes.
pub mod router_line {
    /// u32, requests ever published, modulo 2^32.
    pub const SUBMISSION_TAIL: usize = 128;
    /// u32, answers ever consumed, modulo 2^32.
    pub const COMPLETION_HEAD: usize = 132;
    /// u32, odd while the router sleeps or is about to; counts up by one at each change.
    pub const ROUTER_SLEEPING: usize = 136;
    /// u32, 1 once the router takes no new calls.
    pub const ROUTER_DRAINING: usize = 140;
    /// u32, wake-ups ever given to the worker, modulo 2^32: the futex it sleeps on.
    pub const WAKE_COUNT: usize = 144;
}

/// Offsets of the words only the worker writes.
pub mod worker_line {
    /// u32, requests ever taken, modulo 2^32 (for inspection; the router never relies on it).
    pub const SUBMISSION_HEAD: usize = 256;
    /// u32, answers ever published, modulo 2^32.
    pub const COMPLETION_TAIL: usize = 260;
    /// u32, odd while the worker sleeps or is about to; counts up by one at each change.
    pub const WORKER_SLEEPING: usize = 264;
    /// u64, which nested call the running call waits for. See `waits.rs`.
    pub const WAITS_FOR: usize = 272;
}

/// Offsets in a slot.
pub mod slot {
    /// Bytes of a slot.
    pub const SIZE: usize = 384;

    /// u32: state, cancel bit, context bit, flags. See [`super::RouterControl`].
    pub const ROUTER_CONTROL: usize = 0;
    /// u32.
    pub const PAYLOAD_SIZE: usize = 4;
    /// u64.
    pub const INVOCATION_ID: usize = 8;
    /// u64, CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub const DEADLINE_AT_NS: usize = 16;
    /// u64, CLOCK_MONOTONIC nanoseconds.
    pub const PUSHED_AT_NS: usize = 24;
    /// A payload of at most [`INLINE_PAYLOAD_SIZE_MAX`] bytes.
    pub const INLINE_PAYLOAD: usize = 32;
    /// Bytes that exist when the context bit says so: trace, idempotency key.
    pub const CONTEXT: usize = 192;
    /// 32 bytes, when flag 1 (TRACE) is set.
    pub const CONTEXT_TRACE: usize = 192;
    /// 16 bytes, when flag 0 (IDEMPOTENCY_KEY) is set.
    pub const CONTEXT_IDEMPOTENCY_KEY: usize = 224;

    /// u32: state and outcome. See [`super::WorkerControl`].
    pub const WORKER_CONTROL: usize = 256;
    /// u32.
    pub const RESULT_SIZE: usize = 260;
    /// u64, the invocation this answer is about.
    pub const ANSWERED_ID: usize = 264;
    /// u64, CLOCK_MONOTONIC nanoseconds.
    pub const STARTED_AT_NS: usize = 272;
    /// u64, CLOCK_MONOTONIC nanoseconds.
    pub const FINISHED_AT_NS: usize = 280;
    /// A result of at most [`INLINE_RESULT_SIZE_MAX`] bytes.
    pub const INLINE_RESULT: usize = 288;

    /// Longer payloads lie in the request region.
    pub const INLINE_PAYLOAD_SIZE_MAX: usize = CONTEXT - INLINE_PAYLOAD;
    /// Longer results lie in the result region.
    pub const INLINE_RESULT_SIZE_MAX: usize = SIZE - INLINE_RESULT;
    /// Bytes of each of the two headers (records).
    pub const HEADER_SIZE: usize = 32;
    /// Bytes of the context; the rest of its cache line is zero.
    pub const CONTEXT_SIZE: usize = 48;
}

/// Flag bit 0, as on the wire: the context carries an idempotency key.
pub const FLAG_IDEMPOTENCY_KEY: u16 = 1 << 0;
/// Flag bit 1, as on the wire: the context carries a trace.
pub const FLAG_TRACE: u16 = 1 << 1;
/// Bytes of the name that comes with [`Outcome::Backpressure`], at most.
pub const DOWNSTREAM_NAME_SIZE_MAX: u32 = 32;

/// The first 32 bytes of a slot, in native values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive)]
pub struct RequestHeader {
    /// See [`RouterControl`].
    pub control: u32,
    /// Bytes of the payload.
    pub payload_size: u32,
    /// Whose payload it is.
    pub invocation_id: u64,
    /// When the caller stops waiting.
    pub deadline_at_ns: u64,
    /// When the router pushed it.
    pub pushed_at_ns: u64,
}

/// The first 32 bytes of a slot's worker part, in native values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive)]
pub struct AnswerHeader {
    /// See [`WorkerControl`].
    pub control: u32,
    /// Bytes of the result.
    pub result_size: u32,
    /// Which invocation was taken or answered.
    pub invocation_id: u64,
    /// When the function began.
    pub started_at_ns: u64,
    /// When the function ended.
    pub finished_at_ns: u64,
}

/// 32 bytes copied out of shared memory, aligned so that an archived header can be looked at in place.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Record(pub [u8; slot::HEADER_SIZE]);

impl RequestHeader {
    /// Validates a private copy of the bytes.
    #[inline]
    pub fn from_record(record: &Record) -> Self {
        let archived = validated::<ArchivedRequestHeader>(record);
        Self {
            control: archived.control.to_native(),
            payload_size: archived.payload_size.to_native(),
            invocation_id: archived.invocation_id.to_native(),
            deadline_at_ns: archived.deadline_at_ns.to_native(),
            pushed_at_ns: archived.pushed_at_ns.to_native(),
        }
    }
}

impl AnswerHeader {
    /// Validates a private copy of the bytes.
    #[inline]
    pub fn from_record(record: &Record) -> Self {
        let archived = validated::<ArchivedAnswerHeader>(record);
        Self {
            control: archived.control.to_native(),
            result_size: archived.result_size.to_native(),
            invocation_id: archived.invocation_id.to_native(),
            started_at_ns: archived.started_at_ns.to_native(),
            finished_at_ns: archived.finished_at_ns.to_native(),
        }
    }
}

/// Size and alignment are fixed by [`Record`], and the headers hold integers only, for which every bit pattern is a
/// value. Validation can therefore fail through our own mistake alone; the optimiser removes it.
#[inline]
fn validated<T>(record: &Record) -> &T
where
    T: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'a, rkyv::rancor::Failure>>,
{
    match rkyv::api::low::access::<T, rkyv::rancor::Failure>(&record.0) {
        Ok(archived) => archived,
        Err(_) => unreachable!("a header of integers is valid whatever its bytes are"),
    }
}

/// States in bits 0-7 of a slot's router control word.
pub mod router_state {
    /// Nothing here.
    pub const EMPTY: u8 = 0;
    /// The router is filling the slot.
    pub const WRITING: u8 = 1;
    /// The worker may take it.
    pub const READY: u8 = 2;
}

/// States in bits 0-7 of a slot's worker control word.
pub mod worker_state {
    /// Never used.
    pub const IDLE: u8 = 0;
    /// The function may have begun.
    pub const TAKEN: u8 = 3;
    /// Answered.
    pub const DONE: u8 = 4;
}

/// The router's control word of a slot: bits 0-7 state, bit 8 cancel requested, bit 9 context present, bits 10-11 criticality,
/// 16-31 flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterControl(pub u32);

impl RouterControl {
    /// Bit 8.
    pub const CANCEL_REQUESTED: u32 = 1 << 8;
    /// Bit 9.
    pub const CONTEXT_PRESENT: u32 = 1 << 9;
    const CRITICALITY_SHIFT: u32 = 10;
    const CRITICALITY_MASK: u32 = 3;

    /// A word in the given state that says nothing about a request.
    #[inline]
    pub const fn of_state(state: u8) -> Self {
        Self(state as u32)
    }

    /// A word that says that a request is there, without a context.
    #[inline]
    pub fn ready(criticality: u8, flags: u16) -> Self {
        let criticality = (u32::from(criticality) & Self::CRITICALITY_MASK) << Self::CRITICALITY_SHIFT;
        Self(u32::from(router_state::READY) | criticality | u32::from(flags) << 16)
    }
    /// See [`router_state`].
    #[inline]
    pub fn state(self) -> u8 {
        self.0 as u8
    }
    /// Somebody no longer wants the answer.
    #[inline]
    pub fn is_cancel_requested(self) -> bool {
        self.0 & Self::CANCEL_REQUESTED != 0
    }
    /// The 64 context bytes belong to this request.
    #[inline]
    pub fn has_context(self) -> bool {
        self.0 & Self::CONTEXT_PRESENT != 0
    }
    /// How much the request matters, as on the wire.
    #[inline]
    pub fn criticality(self) -> u8 {
        (self.0 >> Self::CRITICALITY_SHIFT & Self::CRITICALITY_MASK) as u8
    }
    /// The wire's flags.
    #[inline]
    pub fn flags(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// The worker's control word of a slot: bits 0-7 state, bits 8-15 outcome, bits 16-23 severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerControl(pub u32);

impl WorkerControl {
    /// A word in the given state with the given outcome.
    #[inline]
    pub fn new(state: u8, outcome: u8) -> Self {
        Self(u32::from(state) | u32::from(outcome) << 8)
    }
    /// See [`worker_state`].
    #[inline]
    pub fn state(self) -> u8 {
        self.0 as u8
    }
    /// A word that says that the function was pushed back.
    pub fn pushed_back(severity: u8) -> Self {
        Self(Self::new(worker_state::DONE, Outcome::Backpressure as u8).0 | u32::from(severity) << 16)
    }
    /// See [`Outcome`].
    #[inline]
    pub fn outcome(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// How many refusals [`Outcome::Backpressure`] stands for; nothing with another outcome.
    #[inline]
    pub fn severity(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// How an attempt ended, as the worker tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The function returned a result.
    Ok = 0,
    /// The function returned an error; the result bytes describe it.
    FunctionError = 1,
    /// The deadline had passed when the worker came to it; never started.
    Expired = 2,
    /// Cancel was requested before the worker came to it; never started.
    Cancelled = 3,
    /// The function produced more bytes than a region holds; they are lost.
    ResultTooLarge = 4,
    /// Something that the function calls is overloaded; the result is its name.
    Backpressure = 5,
}

impl Outcome {
    /// `None` for numbers without a meaning.
    #[inline]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Ok,
            1 => Self::FunctionError,
            2 => Self::Expired,
            3 => Self::Cancelled,
            4 => Self::ResultTooLarge,
            5 => Self::Backpressure,
            _ => return None,
        })
    }

    /// Whether the function had begun.
    #[inline]
    pub fn was_started(self) -> bool {
        !matches!(self, Self::Expired | Self::Cancelled)
    }
}

/// Which slot of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotIndex(pub u32);

/// Tells apart the rings a worker is given one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u32);

impl fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// Who a ring belongs to; written into its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Differs between any two rings a worker is given.
    pub generation: Generation,
    /// The router's name for the worker.
    pub worker_id: u32,
    /// The function it runs.
    pub function_id: u32,
}

/// How many slots, and how large their regions: everything else follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slot_count: u32,
    region_size: u32,
    /// Offsets that follow from the count, worked out once because every call needs them. In lines, so that whatever is
    /// multiplied out of them is aligned for certain.
    completion_ring_line: u32,
    slots_line: u32,
}

impl Geometry {
    /// `payload_size_max` is rounded up to whole pages; requests and results may be that large.
    pub fn new(slot_count: u32, payload_size_max: u32) -> Result<Self, GeometryError> {
        if !slot_count.is_power_of_two() || slot_count > SLOT_COUNT_MAX {
            return Err(GeometryError::SlotCount { slot_count });
        }
        if payload_size_max > REGION_SIZE_MAX {
            return Err(GeometryError::PayloadSizeMax { payload_size_max });
        }
        let region_size = payload_size_max.max(1).next_multiple_of(PAGE_SIZE as u32);
        let index_ring_lines = (slot_count as usize * size_of::<u32>()).div_ceil(LINE_SIZE) as u32;
        let completion_ring_line = (CONTROL_PAGE_SIZE / LINE_SIZE) as u32 + index_ring_lines;
        let slots_line = completion_ring_line + index_ring_lines;
        Ok(Self { slot_count, region_size, completion_ring_line, slots_line })
    }

    /// Requests that may be with the worker at one time; also the credits it grants.
    #[inline]
    pub fn slot_count(&self) -> u32 {
        self.slot_count
    }

    /// Largest payload, and largest result.
    #[inline]
    pub fn region_size(&self) -> u32 {
        self.region_size
    }

    /// Bytes of the whole memory. Untouched regions cost address space, not memory.
    #[inline]
    pub fn memory_size(&self) -> usize {
        self.regions() + self.slot_count as usize * 2 * self.region_size as usize
    }

    /// Offset of the entry of the submission ring that a cursor names.
    #[inline]
    pub fn submission_entry(&self, cursor: u32) -> usize {
        CONTROL_PAGE_SIZE + self.entry(cursor)
    }

    /// Offset of the entry of the completion ring that a cursor names.
    #[inline]
    pub fn completion_entry(&self, cursor: u32) -> usize {
        self.completion_ring_line as usize * LINE_SIZE + self.entry(cursor)
    }

    /// Offset of a slot.
    #[inline]
    pub fn slot(&self, slot: SlotIndex) -> usize {
        debug_assert!(slot.0 < self.slot_count);
        self.slots() + slot.0 as usize * slot::SIZE
    }

    /// The slot that comes so many after another one, round and round; of a number that is no slot, some slot.
    #[inline]
    pub(crate) fn slot_ahead(&self, slot: SlotIndex, distance: u32) -> SlotIndex {
        SlotIndex(slot.0.wrapping_add(distance) & (self.slot_count - 1))
    }

    /// Offset of a slot's request region.
    #[inline]
    pub fn request_region(&self, slot: SlotIndex) -> usize {
        debug_assert!(slot.0 < self.slot_count);
        self.regions() + slot.0 as usize * 2 * self.region_size as usize
    }

    /// Offset of a slot's result region.
    #[inline]
    pub fn result_region(&self, slot: SlotIndex) -> usize {
        self.request_region(slot) + self.region_size as usize
    }

    /// Where a payload of this size lies.
    #[inline]
    pub(crate) fn payload_place(&self, slot: SlotIndex, payload_size: u32) -> usize {
        if payload_size as usize <= slot::INLINE_PAYLOAD_SIZE_MAX {
            self.slot(slot) + slot::INLINE_PAYLOAD
        } else {
            self.request_region(slot)
        }
    }

    /// Where a result of this size lies.
    #[inline]
    pub(crate) fn result_place(&self, slot: SlotIndex, result_size: u32) -> usize {
        if result_size as usize <= slot::INLINE_RESULT_SIZE_MAX {
            self.slot(slot) + slot::INLINE_RESULT
        } else {
            self.result_region(slot)
        }
    }

    #[inline]
    fn slots(&self) -> usize {
        self.slots_line as usize * LINE_SIZE
    }

    #[inline]
    fn entry(&self, cursor: u32) -> usize {
        (cursor & (self.slot_count - 1)) as usize * size_of::<u32>()
    }

    #[inline]
    fn regions(&self) -> usize {
        (self.slots() + self.slot_count as usize * slot::SIZE).next_multiple_of(PAGE_SIZE)
    }
}

// The archived headers are the slot's bytes: rkyv may not move a field without failing the build.
const _: () = {
    assert!(size_of::<ArchivedRequestHeader>() == slot::HEADER_SIZE);
    assert!(offset_of!(ArchivedRequestHeader, control) == slot::ROUTER_CONTROL);
    assert!(offset_of!(ArchivedRequestHeader, payload_size) == slot::PAYLOAD_SIZE);
    assert!(offset_of!(ArchivedRequestHeader, invocation_id) == slot::INVOCATION_ID);
    assert!(offset_of!(ArchivedRequestHeader, deadline_at_ns) == slot::DEADLINE_AT_NS);
    assert!(offset_of!(ArchivedRequestHeader, pushed_at_ns) == slot::PUSHED_AT_NS);
    assert!(slot::INLINE_PAYLOAD == slot::HEADER_SIZE);

    assert!(size_of::<ArchivedAnswerHeader>() == slot::HEADER_SIZE);
    assert!(offset_of!(ArchivedAnswerHeader, control) + slot::WORKER_CONTROL == slot::WORKER_CONTROL);
    assert!(offset_of!(ArchivedAnswerHeader, result_size) + slot::WORKER_CONTROL == slot::RESULT_SIZE);
    assert!(offset_of!(ArchivedAnswerHeader, invocation_id) + slot::WORKER_CONTROL == slot::ANSWERED_ID);
    assert!(offset_of!(ArchivedAnswerHeader, started_at_ns) + slot::WORKER_CONTROL == slot::STARTED_AT_NS);
    assert!(offset_of!(ArchivedAnswerHeader, finished_at_ns) + slot::WORKER_CONTROL == slot::FINISHED_AT_NS);
    assert!(slot::INLINE_RESULT == slot::WORKER_CONTROL + slot::HEADER_SIZE);
};

// Relations between the numbers.
const _: () = {
    assert!(slot::SIZE.is_multiple_of(LINE_SIZE));
    assert!(slot::WORKER_CONTROL.is_multiple_of(LINE_SIZE), "the worker's part begins its own line");
    assert!(router_line::SUBMISSION_TAIL.is_multiple_of(LINE_SIZE));
    assert!(worker_line::SUBMISSION_HEAD.is_multiple_of(LINE_SIZE));
    assert!(constants::SIZE <= router_line::SUBMISSION_TAIL);
    assert!(router_line::WAKE_COUNT < worker_line::SUBMISSION_HEAD);
    assert!(worker_line::WAITS_FOR + 8 <= worker_line::SUBMISSION_HEAD + LINE_SIZE, "one line, one writer");
    assert!(slot::INLINE_PAYLOAD_SIZE_MAX == 160);
    assert!(slot::INLINE_RESULT_SIZE_MAX == 96);
    assert!(DOWNSTREAM_NAME_SIZE_MAX as usize <= slot::INLINE_RESULT_SIZE_MAX, "a name lies inline");
    assert!(slot::CONTEXT + slot::CONTEXT_SIZE <= slot::WORKER_CONTROL);
    assert!(slot::CONTEXT_TRACE + 32 == slot::CONTEXT_IDEMPOTENCY_KEY);
    assert!(slot::CONTEXT_IDEMPOTENCY_KEY + 16 == slot::CONTEXT + slot::CONTEXT_SIZE);
    assert!(SLOT_COUNT_MAX.is_power_of_two());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_geometry_places_follow_each_other_without_overlap() {
        let geometry = Geometry::new(64, 1 << 20).unwrap();
        assert_eq!(geometry.submission_entry(0), 4096);
        assert_eq!(geometry.completion_entry(0), 4096 + 256);
        assert_eq!(geometry.slot(SlotIndex(0)), 4096 + 512);
        assert_eq!(geometry.slot(SlotIndex(63)) + slot::SIZE, 4608 + 64 * 384);
        assert_eq!(geometry.request_region(SlotIndex(0)), 32768, "29,184 rounded up to a page");
        assert_eq!(geometry.result_region(SlotIndex(0)), 32768 + (1 << 20));
        assert_eq!(geometry.memory_size(), 32768 + 128 * (1 << 20));
    }

    #[test]
    fn a_small_ring_keeps_its_index_rings_on_separate_lines() {
        let geometry = Geometry::new(1, 0).unwrap();
        assert_eq!(geometry.completion_entry(0) - geometry.submission_entry(0), LINE_SIZE);
        assert_eq!(geometry.region_size(), 4096);
    }

    #[test]
    fn cursors_wrap_within_their_ring() {
        let geometry = Geometry::new(4, 100).unwrap();
        assert_eq!(geometry.submission_entry(u32::MAX), geometry.submission_entry(3));
        assert_eq!(geometry.completion_entry(4), geometry.completion_entry(0));
    }

    #[test]
    fn bad_sizes_are_refused() {
        for slot_count in [0, 3, 63, SLOT_COUNT_MAX * 2] {
            assert_eq!(Geometry::new(slot_count, 1), Err(GeometryError::SlotCount { slot_count }));
        }
        assert!(Geometry::new(1, REGION_SIZE_MAX).is_ok());
        assert!(Geometry::new(1, REGION_SIZE_MAX + 1).is_err());
    }

    #[test]
    fn every_outcome_number_comes_back() {
        for number in 0..=u8::MAX {
            if let Some(outcome) = Outcome::from_number(number) {
                assert_eq!(outcome as u8, number);
            }
        }
        assert_eq!(Outcome::from_number(6), None);
    }
}
