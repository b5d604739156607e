//! What a ring held when its router went: the calls that were given to it and have no answer.
//!
//! Never: on the way of a call. Whoever asks has lost his router, or wants to know what it still owes.

use super::ClientEnd;
use crate::access::Memory;
use crate::layout::SlotIndex;

impl<M: Memory> ClientEnd<M> {
    /// Slot and call id of each call that was submitted and not answered, in the order of the slots.
    pub fn unanswered(&self) -> impl Iterator<Item = (SlotIndex, u64)> + '_ {
        let entries = self.entries.iter().zip(0..).filter(|(entry, _)| entry.is_submitted);
        entries.map(|(entry, index)| (SlotIndex(index), entry.call_id))
    }
}
