//! Chance by seed: SplitMix64. The engine has none of its own; the router hands a seed in, and tests and simulators another.
//!
//! Always: the same seed gives the same numbers, so that the same inputs still give the same outputs.
//! Why SplitMix64: a few instructions and one word of state. It spreads retries, and guards nothing.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// One of `0..=max`, each as likely as the others but for a bias below `max / 2^64`.
    pub fn up_to(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * (u128::from(max) + 1)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range_and_stay_in_it() {
        let mut chance = Chance::new(7);
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[chance.up_to(9) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
        assert_eq!(chance.up_to(0), 0);
        assert!((0..100).any(|_| chance.up_to(u64::MAX) > u64::MAX / 2));
    }
}
