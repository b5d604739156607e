//! Which of the 64 lanes a call waits in: its criticality first, then how soon its deadline is.
//!
//! ```text
//!   lane   0 ..15   16..31   32..47   48..63
//!          critical  high    normal    low        within each: tightest deadline bucket first
//! ```
//!
//! Why numbered from the most urgent: the lowest set bit of an occupancy word is then the lane to serve next,
//! and `trailing_zeros` finds it in one instruction.

/// A lane of a 64-lane queue; 0 is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneIndex(u8);

impl LaneIndex {
    /// How many lanes there are: one for each bit of the occupancy word.
    pub const COUNT: usize = u64::BITS as usize;
    /// Criticalities 0 (low) to 3 (critical).
    pub const CRITICALITY_COUNT: u8 = 4;
    /// Deadline buckets 0 (tightest) to 15 (loosest, or no deadline).
    pub const BUCKET_COUNT: u8 = 16;

    /// The lane of a criticality (3 is the most urgent) and a deadline bucket (0 is the most urgent).
    ///
    /// # Panics
    /// If either is out of range: bytes of a peer are validated long before they come here.
    #[inline]
    pub const fn new(criticality: u8, bucket: u8) -> Self {
        assert!(criticality < Self::CRITICALITY_COUNT);
        assert!(bucket < Self::BUCKET_COUNT);
        Self((Self::CRITICALITY_COUNT - 1 - criticality) * Self::BUCKET_COUNT + bucket)
    }

    /// The lane with this number, most urgent first.
    ///
    /// # Panics
    /// If there is no such lane.
    #[inline]
    pub const fn from_index(index: usize) -> Self {
        assert!(index < Self::COUNT);
        Self(index as u8)
    }

    /// The most urgent lane whose bit is set.
    #[inline]
    pub const fn first_of(occupancy: u64) -> Option<Self> {
        match occupancy {
            0 => None,
            _ => Some(Self(occupancy.trailing_zeros() as u8)),
        }
    }

    /// This lane's number, most urgent first.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// This lane's bit in an occupancy word.
    #[inline]
    pub const fn bit(self) -> u64 {
        1 << self.0
    }

    /// The criticality this lane belongs to.
    #[inline]
    pub const fn criticality(self) -> u8 {
        Self::CRITICALITY_COUNT - 1 - self.0 / Self::BUCKET_COUNT
    }

    /// The deadline bucket this lane belongs to.
    #[inline]
    pub const fn bucket(self) -> u8 {
        self.0 % Self::BUCKET_COUNT
    }
}

// `LaneIndex::COUNT` is both "one lane for each pair" and "one bit for each lane".
const _: () =
    assert!(LaneIndex::COUNT == LaneIndex::CRITICALITY_COUNT as usize * LaneIndex::BUCKET_COUNT as usize);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::LaneIndex;

    #[test]
    fn every_pair_has_its_own_lane_and_comes_back() {
        let mut seen = 0u64;
        for criticality in 0..LaneIndex::CRITICALITY_COUNT {
            for bucket in 0..LaneIndex::BUCKET_COUNT {
                let lane = LaneIndex::new(criticality, bucket);
                assert_eq!((lane.criticality(), lane.bucket()), (criticality, bucket));
                assert_eq!(LaneIndex::from_index(lane.index()), lane);
                seen |= lane.bit();
            }
        }
        assert_eq!(seen, u64::MAX);
    }

    #[test]
    fn criticality_outranks_deadline_and_deadline_breaks_ties() {
        assert_eq!(LaneIndex::new(3, 0).index(), 0);
        assert!(LaneIndex::new(3, 15) < LaneIndex::new(2, 0));
        assert!(LaneIndex::new(2, 3) < LaneIndex::new(2, 4));
        assert_eq!(LaneIndex::new(0, 15).index(), 63);
    }

    #[test]
    fn first_of_finds_the_most_urgent_occupied_lane() {
        let (urgent, patient) = (LaneIndex::new(2, 7), LaneIndex::new(0, 1));
        assert_eq!(LaneIndex::first_of(patient.bit() | urgent.bit()), Some(urgent));
        assert_eq!(LaneIndex::first_of(0), None);
    }

    #[test]
    #[should_panic(expected = "criticality < Self::CRITICALITY_COUNT")]
    fn unknown_criticality_is_our_bug() {
        LaneIndex::new(4, 0);
    }
}
