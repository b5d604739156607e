//! The only source of chance: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
//! OOPSLA 2014), because one `u64` of state makes a run repeatable from its seed.

/// A stream of numbers that depends on the seed alone.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero. The bias of the remainder does not matter for bounds this small.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `count` of 1,000 draws.
    pub fn per_mille(&mut self, count: u64) -> bool {
        self.below(1_000) < count
    }

    /// One of the items, or nothing of nothing.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| &items[self.below(items.len() as u64) as usize])
    }

    /// A length of time between 1 and about 2^`bits_max`, each order of magnitude equally likely.
    pub fn length(&mut self, bits_max: u64) -> u64 {
        let bits = self.below(bits_max) + 1;
        self.below(1 << bits) + 1
    }

    /// A number in (0, 1], with the 53 bits a double has.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Normally distributed with mean 0 and deviation 1 (Box and Muller 1958; the second number is not kept, so that
    /// each draw takes two numbers of the stream whatever came before).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(mut draw: impl FnMut(&mut Chance) -> f64) -> f64 {
        let mut chance = Chance::new(1);
        (0..100_000).map(|_| draw(&mut chance)).sum::<f64>() / 100_000.0
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draws = |seed| {
            let mut chance = Chance::new(seed);
            [chance.next(), chance.next(), chance.next()]
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }

    #[test]
    fn distributions_have_their_means() {
        assert!((mean(|chance| chance.unit()) - 0.5).abs() < 0.01);
        assert!((mean(Chance::exponential) - 1.0).abs() < 0.02);
        assert!(mean(Chance::normal).abs() < 0.02);
        assert!((mean(|chance| chance.normal().powi(2)) - 1.0).abs() < 0.02);
    }
}
