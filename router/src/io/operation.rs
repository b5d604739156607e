//! What a completion is about, packed into the 64 bits the kernel carries for us.
//!
//! ```text
//! bit 0        8                    32                     64
//!     | kind   | slot of the source | generation of the slot |
//! ```
//! Never a pointer: a completion that arrives late, or for a slot that was given to somebody else in the meantime,
//! is recognised by its generation instead of being followed into freed memory.
#![forbid(unsafe_code)]

use super::source::SourceId;

/// Slots fit into 24 bits.
pub const SLOT_MAX: u32 = (1 << 24) - 1;

/// What was asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OperationKind {
    /// Multishot accept, multishot receive or multishot poll: the one operation that brings a source's events.
    Watch = 1,
    /// Sends the source's outgoing buffer.
    Send = 2,
    /// Ends one of the two above.
    Cancel = 3,
}

/// Packs the operation into `user_data`.
pub fn pack(kind: OperationKind, source: SourceId) -> u64 {
    assert!(source.slot <= SLOT_MAX, "source slot does not fit into user_data");
    u64::from(kind as u8) | u64::from(source.slot) << 8 | u64::from(source.generation) << 32
}

/// The reverse of [`pack`]; `None` for a value that no operation of ours carries.
pub fn unpack(user_data: u64) -> Option<(OperationKind, SourceId)> {
    let kind = match user_data as u8 {
        1 => OperationKind::Watch,
        2 => OperationKind::Send,
        3 => OperationKind::Cancel,
        _ => return None,
    };
    let slot = (user_data >> 8) as u32 & SLOT_MAX;
    let generation = (user_data >> 32) as u32;
    Some((kind, SourceId { slot, generation }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_operation_survives_packing() {
        for kind in [OperationKind::Watch, OperationKind::Send, OperationKind::Cancel] {
            for slot in [0, 1, SLOT_MAX] {
                for generation in [0, 1, u32::MAX] {
                    let source = SourceId { slot, generation };
                    assert_eq!(unpack(pack(kind, source)), Some((kind, source)));
                }
            }
        }
        assert_eq!(unpack(0), None);
    }
}
