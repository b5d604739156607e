//! Stage 6 of 8: the random bits between two starts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers that differ from process to process: for the waits between starts. No secret depends on them.
pub struct Jitter(u64);

impl Jitter {
    /// A new sequence.
    pub fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(u64::from(since_1970.subsec_nanos()) << 32 | u64::from(std::process::id()))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): one addition and a mix, enough to spread a few waits.
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }
}
