//! Everything the other side of a client ring may do wrong, naming who is at fault.

use crate::layout::SlotIndex;

/// The client wrote something no honest client writes. It is told, closed and counted; its calls are cancelled.
/// Nothing of the router's is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientMisbehaved {
    /// More calls claimed than slots exist, or calls taken back.
    #[error("client at fault: submission tail {tail} with head {head} in a ring of {slot_count} slots")]
    CursorOutOfRange {
        /// What the client wrote.
        tail: u32,
        /// How far the router has read.
        head: u32,
        /// The largest allowed difference.
        slot_count: u32,
    },
    /// A call in a slot the ring does not have.
    #[error("client at fault: submitted slot {slot} of a ring of {slot_count} slots")]
    SlotOutOfRange {
        /// What the client wrote.
        slot: u32,
        /// Slots there are.
        slot_count: u32,
    },
    /// A call in a slot whose last call is not answered.
    #[error("client at fault: submitted {slot} again before its call was answered")]
    SlotInUse {
        /// What the client wrote.
        slot: SlotIndex,
    },
    /// Submitted while the slot's own state says otherwise.
    #[error("client at fault: {slot} was submitted and is in state {state}")]
    BadSlotState {
        /// Which slot.
        slot: SlotIndex,
        /// What the client wrote.
        state: u8,
    },
    /// A payload longer than the place it could lie in.
    #[error("client at fault: payload of {payload_size} bytes in {slot}, which holds {payload_size_max}")]
    PayloadTooLarge {
        /// Which slot.
        slot: SlotIndex,
        /// What the client wrote.
        payload_size: u32,
        /// Bytes of the request region.
        payload_size_max: u32,
    },
    /// Flags that must not be ignored, and that nobody has defined.
    #[error("client at fault: flags {flags:#06x} in {slot} are not known and must not be ignored")]
    UnknownFlags {
        /// Which slot.
        slot: SlotIndex,
        /// What the client wrote.
        flags: u16,
    },
    /// The router woken again and again for nothing.
    #[error("client at fault: its bell rang {bell_count} times for {call_count} calls")]
    BellWithoutCall {
        /// Times the bell rang.
        bell_count: u64,
        /// Calls taken.
        call_count: u64,
    },
}

/// The router wrote something no honest router writes: the memory is damaged, and the client detaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceMisbehaved {
    /// More answers claimed than calls are out.
    #[error("router at fault: completion tail {tail} with head {head} in a ring of {slot_count} slots")]
    CursorOutOfRange {
        /// What the router wrote.
        tail: u32,
        /// How far the client has read.
        head: u32,
        /// The largest allowed difference.
        slot_count: u32,
    },
    /// An answer in a slot that holds no call.
    #[error("router at fault: answered slot {slot}, which holds no call")]
    SlotNotInFlight {
        /// What the router wrote.
        slot: u32,
    },
    /// An answer about another call, or none.
    #[error("router at fault: {slot} holds call {expected:#x}; state {state} names call {answered:#x}")]
    NotTheAnswer {
        /// Which slot.
        slot: SlotIndex,
        /// The call in flight there.
        expected: u64,
        /// The call the router named.
        answered: u64,
        /// The slot's state.
        state: u8,
    },
    /// A result longer than the place it could lie in.
    #[error("router at fault: result of {result_size} bytes in {slot}, which holds {result_size_max}")]
    ResultTooLarge {
        /// Which slot.
        slot: SlotIndex,
        /// What the router wrote.
        result_size: u32,
        /// Bytes of the result region.
        result_size_max: u32,
    },
}
