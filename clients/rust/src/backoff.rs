//! How long to wait before connecting again: exponential, with full jitter.
//!
//! In: nothing.  Out: the next delay, anywhere between zero and a ceiling that doubles from 10 ms to 2 s.
//! Why full jitter: a router that restarts is met by all its clients at once; delays drawn from the whole interval
//! spread them evenly, where delays around a fixed value would keep them in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const CEILING_FIRST: Duration = Duration::from_millis(10);
const CEILING_MAX: Duration = Duration::from_secs(2);

/// The delays of one run of failed attempts. A success calls [`Backoff::reset`].
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    chance: u64,
}

impl Backoff {
    /// Seeded from the process, so that two clients do not draw the same delays.
    pub(crate) fn new() -> Self {
        Self::with_seed(RandomState::new().hash_one(std::process::id()))
    }

    fn with_seed(seed: u64) -> Self {
        Self { ceiling: CEILING_FIRST, chance: seed }
    }

    /// The next delay; the ceiling doubles for the one after.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let ceiling_ns = u64::try_from(self.ceiling.as_nanos()).unwrap_or(u64::MAX);
        self.ceiling = (self.ceiling * 2).min(CEILING_MAX);
        Duration::from_nanos(self.draw() % (ceiling_ns + 1))
    }

    /// Connected: the next failure starts small again.
    pub(crate) fn reset(&mut self) {
        self.ceiling = CEILING_FIRST;
    }

    /// SplitMix64: all that jitter needs.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_its_maximum() {
        let mut backoff = Backoff::with_seed(7);
        let mut ceiling = CEILING_FIRST;
        for _ in 0..20 {
            assert!(backoff.next_delay() <= ceiling);
            ceiling = (ceiling * 2).min(CEILING_MAX);
        }
        assert_eq!(backoff.ceiling, CEILING_MAX);
    }

    #[test]
    fn two_clients_draw_different_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::with_seed(seed);
            (0..8).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
        assert_eq!(delays(1), delays(1));
    }

    #[test]
    fn a_success_starts_small_again() {
        let mut backoff = Backoff::with_seed(7);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= CEILING_FIRST);
    }
}
