//! Chance with a printed seed: the same seed gives the same run.
//!
//! In: a seed.  Out: numbers.  Never: reads entropy during a run; [`seed_from_entropy`] is called once, before it.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64: one addition and three mixing steps per number, and every seed is a good one.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in (0, 1]: never 0, so that its logarithm is finite.
    pub(crate) fn next_unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// A seed for a run that was given none. It is printed in the report, so that the run can be repeated.
pub fn seed_from_entropy() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// 2^64 divided by the golden ratio: steps of this size never fall into a short cycle.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads every bit of `value` over the whole word.
pub(crate) const fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..16).map(|_| chance.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn units_lie_above_zero_and_not_above_one() {
        let mut chance = Chance::new(1);
        for _ in 0..10_000 {
            let unit = chance.next_unit();
            assert!(unit > 0.0);
            assert!(unit <= 1.0);
        }
    }
}
