//! Client rings: the same memory with the roles turned round. A client submits calls, the router answers them.
//!
//! ```text
//!            submission ring: slot indices            request part of slot i, request region i
//!   client ───────────────────────────────▶ router      written by the client, read by the router
//!   [ClientEnd]                       [ServiceEnd]
//!          ◀───────────────────────────────              written by the router, read by the client
//!            completion ring: slot indices            answer part of slot i, result region i
//! ```
//!
//! The geometry is that of a worker's ring ([`Geometry`]): control page, two index rings, slots of 384 bytes, regions.
//! What differs is who is hostile and how each side is woken, and that is all that the two ends here are about: the
//! router is now the side that takes, so it is the taker that keeps a private table and believes nothing, and the
//! submitter that sleeps on a futex. Why not one pair of ends for both: docs/decisions/0007-shared-memory-clients.md.
//!
//! Trust: the router holds the client for hostile; what the client wrote ends as a [`ClientMisbehaved`]. The client
//! trusts the router it chose to call and notices damage ([`ServiceMisbehaved`]).
//!
//! A direct lane is such a ring with a worker in the router's place ([`LaneService`]).
//!
//! Normative text: docs/spec/shm.md, "Client rings".  Tests: `tests/{client_ring,loom,spec}.rs`.

mod client_end;
mod fault;
mod lane;
mod service_end;
mod unanswered;

pub use client_end::{Answered, Call, ClientEnd, WaitOutcome};
pub use fault::{ClientMisbehaved, ServiceMisbehaved};
pub use lane::{LaneClosed, LaneLook, LaneService, LaneUsage, LaneWatch, LeftBehind, lane_line};
pub use service_end::{Answer, ServiceEnd, TakenCall};

use std::sync::atomic::Ordering;

use crate::access::Memory;
use crate::fault::AttachError;
use crate::layout::{CONTROL_PAGE_SIZE, Generation, Geometry, LINE_SIZE, constants};

/// "QFCALL01" as little-endian bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"QFCALL01");
/// The layout described here.
pub const VERSION: u32 = 1;

/// Offset in the constants: u32, the router's name for the client. The other constants are those of a worker's ring.
pub const CLIENT_ID: usize = 32;

/// Offsets of the words only the client writes.
pub mod client_line {
    /// u32, calls ever published, modulo 2^32.
    pub const SUBMISSION_TAIL: usize = 128;
    /// u32, answers ever consumed, modulo 2^32 (for inspection; the router never relies on it).
    pub const COMPLETION_HEAD: usize = 132;
    /// u32, odd while the client sleeps or is about to; counts up by one at each change.
    pub const CLIENT_SLEEPING: usize = 136;
}

/// Offsets of the words only the router writes.
pub mod service_line {
    /// u32, calls ever taken, modulo 2^32 (for inspection).
    pub const SUBMISSION_HEAD: usize = 256;
    /// u32, answers ever published, modulo 2^32.
    pub const COMPLETION_TAIL: usize = 260;
    /// u32, odd while the router does not look at this ring; counts up by one at each change.
    pub const ROUTER_SLEEPING: usize = 264;
    /// u32, 1 once the router takes no new calls.
    pub const ROUTER_DRAINING: usize = 268;
    /// u32, wake-ups ever given to the client, modulo 2^32: the futex it sleeps on.
    pub const WAKE_COUNT: usize = 272;
}

/// Offsets in a slot. Sizes and places of payload, context and result are those of a worker's slot.
pub mod call_slot {
    pub use crate::layout::slot::{
        CONTEXT, CONTEXT_IDEMPOTENCY_KEY, CONTEXT_TRACE, HEADER_SIZE, INLINE_PAYLOAD,
        INLINE_PAYLOAD_SIZE_MAX, INLINE_RESULT, INLINE_RESULT_SIZE_MAX, SIZE,
    };

    /// u32: state, context bit, flags. See [`super::ClientControl`].
    pub const CLIENT_CONTROL: usize = 0;
    /// u32.
    pub const PAYLOAD_SIZE: usize = 4;
    /// u64, the client's own number for the call.
    pub const CALL_ID: usize = 8;
    /// u64, CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub const DEADLINE_AT_NS: usize = 16;
    /// u32.
    pub const FUNCTION_ID: usize = 24;
    /// u8, and three bytes of zero.
    pub const CRITICALITY: usize = 28;

    /// u32: state, status, flags. See [`super::ServiceControl`].
    pub const SERVICE_CONTROL: usize = 256;
    /// u32.
    pub const RESULT_SIZE: usize = 260;
    /// u64, the call_id this answer is about.
    pub const ANSWERED_ID: usize = 264;
    /// u32, microseconds, 0 for none.
    pub const RETRY_AFTER_US: usize = 272;
    /// 64 bytes, as on the wire, when flag 3 (TIMINGS) is set in the answer.
    pub const TIMINGS: usize = 320;
    /// Bytes of the timings.
    pub const TIMINGS_SIZE: usize = 64;
    /// A result of at most this many bytes lies inline also beside timings.
    pub const INLINE_RESULT_BESIDE_TIMINGS_SIZE_MAX: usize = TIMINGS - INLINE_RESULT;
}

/// State in bits 0-7 of a client control word: the slot holds a call.
pub const READY: u8 = 2;
/// State in bits 0-7 of a service control word: the slot's call is answered.
pub const DONE: u8 = 4;
/// Flag bit 3, as on the wire: the answer carries timings.
pub const FLAG_TIMINGS: u16 = 1 << 3;
/// Flags that a router which does not know them must not ignore, as on the wire. None is defined.
pub const FLAGS_CRITICAL: u16 = 0xff00;

/// The client's control word of a slot: bits 0-7 state, bit 9 context present, 16-31 flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientControl(pub u32);

impl ClientControl {
    /// Bit 8, in a lane: nobody wants the answer any more.
    pub const CANCEL_REQUESTED: u32 = 1 << 8;
    /// Bit 9: trace or idempotency key are there.
    pub const CONTEXT_PRESENT: u32 = 1 << 9;

    /// The word of a call with the given flags.
    #[inline]
    pub fn ready(flags: u16) -> Self {
        Self(u32::from(READY) | u32::from(flags) << 16)
    }
    /// [`READY`], or nonsense.
    #[inline]
    pub fn state(self) -> u8 {
        self.0 as u8
    }
    /// Nobody wants the answer any more.
    #[inline]
    pub fn is_cancel_requested(self) -> bool {
        self.0 & Self::CANCEL_REQUESTED != 0
    }
    /// The context bytes belong to this call.
    #[inline]
    pub fn has_context(self) -> bool {
        self.0 & Self::CONTEXT_PRESENT != 0
    }
    /// The wire's flags.
    #[inline]
    pub fn flags(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// The router's control word of a slot: bits 0-7 state, 8-15 status, 16-31 flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceControl(pub u32);

impl ServiceControl {
    /// The word of an answer.
    #[inline]
    pub fn done(status: u8, flags: u16) -> Self {
        Self(u32::from(DONE) | u32::from(status) << 8 | u32::from(flags) << 16)
    }
    /// [`DONE`], or nonsense.
    #[inline]
    pub fn state(self) -> u8 {
        self.0 as u8
    }
    /// The wire's status.
    #[inline]
    pub fn status(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// The wire's flags.
    #[inline]
    pub fn flags(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Who a client ring belongs to; written into its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Differs between any two rings of one router.
    pub generation: Generation,
    /// The router's name for the client.
    pub client_id: u32,
}

/// Where an answer's result lies.
#[inline]
fn result_place(geometry: Geometry, slot: crate::SlotIndex, size: usize, has_timings: bool) -> usize {
    if lies_inline(size, has_timings) {
        geometry.slot(slot) + call_slot::INLINE_RESULT
    } else {
        geometry.result_region(slot)
    }
}

/// Whether a result of this size lies in its slot, and not in a region.
#[inline]
fn lies_inline(size: usize, has_timings: bool) -> bool {
    let inline_size_max = if has_timings {
        call_slot::INLINE_RESULT_BESIDE_TIMINGS_SIZE_MAX
    } else {
        call_slot::INLINE_RESULT_SIZE_MAX
    };
    size <= inline_size_max
}

/// Writes the constants into zeroed memory.
fn write_constants<M: Memory>(memory: &M, geometry: Geometry, identity: ClientIdentity) {
    memory.store_u32(constants::VERSION, VERSION, Ordering::Relaxed);
    memory.store_u32(constants::SLOT_COUNT, geometry.slot_count(), Ordering::Relaxed);
    memory.store_u32(constants::GENERATION, identity.generation.0, Ordering::Relaxed);
    memory.store_u32(constants::REGION_SIZE, geometry.region_size(), Ordering::Relaxed);
    memory.store_u64(constants::MEMORY_SIZE, geometry.memory_size() as u64, Ordering::Relaxed);
    memory.store_u32(CLIENT_ID, identity.client_id, Ordering::Relaxed);
    // Last, so that a ring with the magic number is a ring with all of its constants.
    memory.store_u64(constants::MAGIC, MAGIC, Ordering::Release);
}

/// Checks that this is a client ring of our layout whose parts all lie inside of the memory.
fn read_constants<M: Memory>(memory: &M) -> Result<(Geometry, ClientIdentity), AttachError> {
    let size = memory.size();
    if size < CONTROL_PAGE_SIZE {
        return Err(AttachError::TooSmall { size });
    }
    let word = |offset| memory.load_u32(offset, Ordering::Relaxed);
    let magic = memory.load_u64(constants::MAGIC, Ordering::Acquire);
    if magic != MAGIC {
        return Err(AttachError::WrongMagic { magic });
    }
    let version = word(constants::VERSION);
    if version != VERSION {
        return Err(AttachError::WrongVersion { version });
    }
    let (slot_count, region_size) = (word(constants::SLOT_COUNT), word(constants::REGION_SIZE));
    let geometry = match Geometry::new(slot_count, region_size) {
        Ok(geometry) if geometry.region_size() == region_size => geometry,
        _ => return Err(AttachError::BadGeometry { slot_count, region_size }),
    };
    let stated = memory.load_u64(constants::MEMORY_SIZE, Ordering::Relaxed);
    let needed = geometry.memory_size();
    if stated != needed as u64 || needed > size {
        return Err(AttachError::SizesDisagree { needed, stated, size });
    }
    let identity =
        ClientIdentity { generation: Generation(word(constants::GENERATION)), client_id: word(CLIENT_ID) };
    Ok((geometry, identity))
}

const _: () = {
    assert!(client_line::SUBMISSION_TAIL.is_multiple_of(LINE_SIZE));
    assert!(service_line::SUBMISSION_HEAD.is_multiple_of(LINE_SIZE), "each side writes lines of its own");
    assert!(client_line::CLIENT_SLEEPING < service_line::SUBMISSION_HEAD);
    assert!(service_line::WAKE_COUNT < lane_line::TAKEN_COUNT);
    assert!(
        lane_line::TAKEN_COUNT.is_multiple_of(LINE_SIZE),
        "the worker's words are not on the client's way"
    );
    assert!(lane_line::RUN_NS + 8 <= lane_line::TAKEN_COUNT + 64, "one cache line");
    assert!(lane_line::RUN_NS < CONTROL_PAGE_SIZE);
    assert!(call_slot::CRITICALITY + 4 == call_slot::INLINE_PAYLOAD);
    assert!(call_slot::RETRY_AFTER_US + 16 == call_slot::INLINE_RESULT);
    assert!(call_slot::TIMINGS + call_slot::TIMINGS_SIZE == call_slot::SIZE, "no further cache line");
    assert!(call_slot::INLINE_RESULT_BESIDE_TIMINGS_SIZE_MAX == 32);
};
