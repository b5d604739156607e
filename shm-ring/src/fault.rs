//! Everything that may go wrong with a ring, one enum per operation, each naming who is at fault.

use crate::layout::{CONTROL_PAGE_SIZE, REGION_SIZE_MAX, SLOT_COUNT_MAX, SlotIndex, VERSION};

/// The worker wrote something no honest worker writes. It gets no more work and is killed; its calls are answered
/// "worker misbehaved". Nothing of the router's is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerMisbehaved {
    /// More answers claimed than slots exist, or answers taken back.
    #[error("worker at fault: completion tail {tail} with head {head} in a ring of {slot_count} slots")]
    CursorOutOfRange {
        /// What the worker wrote.
        tail: u32,
        /// How far the router has read.
        head: u32,
        /// The largest allowed difference.
        slot_count: u32,
    },
    /// An answer for a slot the ring does not have.
    #[error("worker at fault: answered slot {slot} of a ring of {slot_count} slots")]
    SlotOutOfRange {
        /// What the worker wrote.
        slot: u32,
        /// Slots there are.
        slot_count: u32,
    },
    /// An answer for a slot that holds no request.
    #[error("worker at fault: answered {slot}, which holds no request")]
    SlotNotInFlight {
        /// What the worker wrote.
        slot: SlotIndex,
    },
    /// A second answer, while the first is still being handled.
    #[error("worker at fault: answered {slot} (invocation {invocation_id:#x}) twice")]
    AnsweredTwice {
        /// What the worker wrote.
        slot: SlotIndex,
        /// Whose answer it was.
        invocation_id: u64,
    },
    /// An answer about another invocation than the one in the slot.
    #[error("worker at fault: {slot} holds invocation {expected:#x}, the answer is about {answered:#x}")]
    StaleAnswer {
        /// Which slot.
        slot: SlotIndex,
        /// The invocation in flight there.
        expected: u64,
        /// The invocation the worker named.
        answered: u64,
    },
    /// Announced as answered while the slot's own state says otherwise.
    #[error("worker at fault: {slot} was announced as answered and is in state {state}")]
    BadSlotState {
        /// Which slot.
        slot: SlotIndex,
        /// What the worker wrote.
        state: u8,
    },
    /// An outcome without a meaning.
    #[error("worker at fault: unknown outcome {outcome} in {slot}")]
    UnknownOutcome {
        /// Which slot.
        slot: SlotIndex,
        /// What the worker wrote.
        outcome: u8,
    },
    /// A result longer than the place it could lie in.
    #[error("worker at fault: result of {result_size} bytes in {slot}, which holds {result_size_max}")]
    ResultTooLarge {
        /// Which slot.
        slot: SlotIndex,
        /// What the worker wrote.
        result_size: u32,
        /// Bytes of the result region.
        result_size_max: u32,
    },
    /// Back-pressure that stands for nothing, or from something without a name or with too long a one.
    #[error(
        "worker at fault: back-pressure of severity {severity} with a name of {name_size} bytes in {slot}"
    )]
    BackpressureOutOfRange {
        /// Which slot.
        slot: SlotIndex,
        /// What the worker wrote.
        severity: u8,
        /// What the worker wrote.
        name_size: u32,
    },
    /// The router woken again and again for nothing.
    #[error("worker at fault: its bell rang {bell_count} times for {answer_count} answers")]
    BellWithoutAnswer {
        /// Times the bell rang.
        bell_count: u64,
        /// Answers taken.
        answer_count: u64,
    },
}

/// The router wrote something no honest router writes: memory is damaged, and the worker detaches and exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterMisbehaved {
    /// More requests claimed than slots exist, or requests taken back.
    #[error("router at fault: submission tail {tail} with head {head} in a ring of {slot_count} slots")]
    CursorOutOfRange {
        /// What the router wrote.
        tail: u32,
        /// How far the worker has read.
        head: u32,
        /// The largest allowed difference.
        slot_count: u32,
    },
    /// A request in a slot the ring does not have.
    #[error("router at fault: submitted slot {slot} of a ring of {slot_count} slots")]
    SlotOutOfRange {
        /// What the router wrote.
        slot: u32,
        /// Slots there are.
        slot_count: u32,
    },
    /// Announced as ready while the slot's own state says otherwise.
    #[error("router at fault: {slot} was submitted and is in state {state}")]
    BadSlotState {
        /// Which slot.
        slot: SlotIndex,
        /// What the router wrote.
        state: u8,
    },
    /// A payload longer than the place it could lie in.
    #[error("router at fault: payload of {payload_size} bytes in {slot}, which holds {payload_size_max}")]
    PayloadTooLarge {
        /// Which slot.
        slot: SlotIndex,
        /// What the router wrote.
        payload_size: u32,
        /// Bytes of the request region.
        payload_size_max: u32,
    },
}

/// A request the ring cannot carry. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushRefused {
    /// Every slot is in use: the worker has no credit left.
    #[error("no free slot")]
    NoCredit,
    /// Longer than a region.
    #[error("payload of {payload_size} bytes, at most {payload_size_max} fit")]
    PayloadTooLarge {
        /// What was asked for.
        payload_size: usize,
        /// Bytes of a region.
        payload_size_max: u32,
    },
}

/// Sizes that make no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Not a power of two, zero, or too many.
    #[error("slot count {slot_count} is not a power of two between 1 and {SLOT_COUNT_MAX}")]
    SlotCount {
        /// What was asked for.
        slot_count: u32,
    },
    /// Larger than the largest region.
    #[error("payload size {payload_size_max} is above {REGION_SIZE_MAX}")]
    PayloadSizeMax {
        /// What was asked for.
        payload_size_max: u32,
    },
}

/// Memory that is not a ring this code can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Not even a control page.
    #[error("memory of {size} bytes is smaller than a control page ({CONTROL_PAGE_SIZE})")]
    TooSmall {
        /// Bytes there are.
        size: usize,
    },
    /// Something else, or nothing, was written here.
    #[error("not a ring: magic {magic:#018x}")]
    WrongMagic {
        /// What was found.
        magic: u64,
    },
    /// A layout of another time.
    #[error("ring layout version {version}, this program speaks {VERSION}")]
    WrongVersion {
        /// What was found.
        version: u32,
    },
    /// Sizes that make no ring.
    #[error("ring with impossible sizes: {slot_count} slots, regions of {region_size} bytes")]
    BadGeometry {
        /// What was found.
        slot_count: u32,
        /// What was found.
        region_size: u32,
    },
    /// Sizes that contradict each other.
    #[error("ring needs {needed} bytes, says {stated}, and the memory has {size}")]
    SizesDisagree {
        /// What the geometry needs.
        needed: usize,
        /// What the constants say.
        stated: u64,
        /// What is mapped.
        size: usize,
    },
}
