//! Numbers that travel in headers, each in a type of its own so that no two can be swapped unnoticed.

use rkyv::{Archive, Deserialize, Serialize};

/// A function, as the router numbered it in RESOLVED. Means nothing on another connection's router (W-30).
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct FunctionId(pub u32);

/// A call, as its caller numbered it: the slot in the low 32 bits, a generation in the high 32 bits.
///
/// The slot is below the credits granted in HELLO and unused by any other outstanding call of the connection, so
/// that both ends find a call by array index. The generation is the caller's: it tells a late answer from a new
/// call in the same slot (W-40 to W-42).
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct CallId(pub u64);

impl CallId {
    /// The number in frames about no call.
    pub const NONE: CallId = CallId(0);

    /// Joins a slot and a generation.
    #[inline]
    pub const fn new(slot: u32, generation: u32) -> CallId {
        CallId((generation as u64) << 32 | slot as u64)
    }

    /// The place in the connection's table of outstanding calls.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The caller's own counter, returned as it came.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How much a call matters when not all can be served. Dispatch prefers the higher, whatever the deadlines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Criticality {
    /// Work that may wait for everything else: batch jobs, prefetching.
    Low = 0,
    /// What a call is unless its caller says otherwise.
    #[default]
    Normal = 1,
    /// Somebody is waiting.
    High = 2,
    /// Others fail if this does: health, control, payment.
    Critical = 3,
}

impl Criticality {
    /// Every criticality, ascending.
    pub const ALL: [Criticality; 4] =
        [Criticality::Low, Criticality::Normal, Criticality::High, Criticality::Critical];

    /// The word used in documents, options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Criticality::Low => "low",
            Criticality::Normal => "normal",
            Criticality::High => "high",
            Criticality::Critical => "critical",
        }
    }
}

/// A criticality number nobody has defined: the call is refused with `Status::UnknownCriticality` (W-46).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("criticality {0} is not defined")]
pub struct UnknownCriticality(pub u8);

impl TryFrom<u8> for Criticality {
    type Error = UnknownCriticality;

    #[inline]
    fn try_from(number: u8) -> Result<Criticality, UnknownCriticality> {
        match number {
            0 => Ok(Criticality::Low),
            1 => Ok(Criticality::Normal),
            2 => Ok(Criticality::High),
            3 => Ok(Criticality::Critical),
            unknown => Err(UnknownCriticality(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_id_keeps_slot_low_and_generation_high() {
        let id = CallId::new(7, 3);
        assert_eq!(id.0, 0x0000_0003_0000_0007);
        assert_eq!((id.slot(), id.generation()), (7, 3));
        let full = CallId::new(u32::MAX, u32::MAX);
        assert_eq!((full.slot(), full.generation()), (u32::MAX, u32::MAX));
    }

    #[test]
    fn criticality_numbers_are_their_positions_and_all_others_are_unknown() {
        for (index, criticality) in Criticality::ALL.into_iter().enumerate() {
            assert_eq!(criticality as usize, index);
            assert_eq!(Criticality::try_from(criticality as u8), Ok(criticality));
        }
        for number in 4..=u8::MAX {
            assert_eq!(Criticality::try_from(number), Err(UnknownCriticality(number)));
        }
    }
}
