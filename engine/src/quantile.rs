//! A quantile of a stream of lengths, in one number: for the measured delay after which a slow call is hedged.
//!
//! In: lengths, one by one; of one that is not over yet, what is known of it so far.  Out: the length below which so many
//! percent of them are.
//! Always: a length above the estimate raises it by `percent` parts, one below lowers it by the rest: where one in `100 -
//! percent` is above, both are the same. Only on which side a length lies counts, so that one of an attempt which was given
//! up, and which was longer than the estimate by then, counts fully.
//! Why not the median's way (`estimate.rs`): steps of one size up and down meet at the median. Why not a histogram: one
//! for each function, and a question with a moving answer; this is DUMIQE of Yazidi and Hammer ("Multiplicative Update Methods
//! for Incremental Quantile Estimation", IEEE Transactions on Cybernetics, 2017), with steps of a sixteenth.
//! Tests: below.

use crate::time::Nanos;

/// Lengths that have to be known before anything is done on their account.
const COUNT_MIN: u32 = 32;
/// The estimate is kept in so many parts of a nanosecond, so that small steps are not lost.
const PARTS: u64 = 256;
/// A step of one for all percent: a sixteenth of the estimate.
const STEP: u64 = 16;
/// 2^50 ns are 13 days.
const LENGTH_MAX_NS: u64 = 1 << 50;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantile {
    percent: u8,
    parts: u64,
    /// Up to `COUNT_MIN`.
    count: u32,
}

impl Quantile {
    /// Of nothing yet; 1 to 99 percent.
    pub fn new(percent: u8) -> Quantile {
        Quantile { percent, parts: 0, count: 0 }
    }

    /// One more length.
    pub fn note(&mut self, length: Nanos) {
        let parts = length.0.clamp(1, LENGTH_MAX_NS) * PARTS;
        if self.count == 0 {
            self.parts = parts;
        }
        self.count = (self.count + 1).min(COUNT_MIN);
        let share = |percent: u8| (self.parts / (100 * STEP) * u64::from(percent)).max(1);
        if parts > self.parts {
            self.parts += share(self.percent);
        } else if parts < self.parts {
            self.parts -= share(100 - self.percent);
        }
    }

    /// The estimate; none while too little is known.
    pub fn value(&self) -> Option<Nanos> {
        (self.count == COUNT_MIN).then_some(Nanos(self.parts / PARTS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn after(percent: u8, lengths: impl IntoIterator<Item = u64>) -> Option<u64> {
        let mut quantile = Quantile::new(percent);
        lengths.into_iter().for_each(|length| quantile.note(Nanos(length)));
        quantile.value().map(|value| value.0)
    }

    /// Numbers of `0..1000` by chance.
    fn shuffled(count: u64) -> impl Iterator<Item = u64> {
        let mut chance = Chance::new(1);
        (0..count).map(move |_| chance.up_to(999))
    }

    #[test]
    fn as_many_lengths_are_above_the_estimate_as_it_says() {
        // Given: lengths spread evenly from 1 to 2 ms, and others where the longest are thousands of times the shortest.
        let even: fn(u64) -> u64 = |number| 1_000_000 + number * 1_000;
        let steep: fn(u64) -> u64 = |number| 1_000_000_000 / (number + 1);
        for (percent, length) in [50, 90, 95, 99].into_iter().flat_map(|it| [(it, even), (it, steep)]) {
            let mut quantile = Quantile::new(percent);
            shuffled(1_000).for_each(|number| quantile.note(Nanos(length(number))));
            let mut above = 0;
            for number in shuffled(100_000) {
                above += u64::from(quantile.value() < Some(Nanos(length(number))));
                quantile.note(Nanos(length(number)));
            }
            let expected = 1_000 * (100 - u64::from(percent));
            assert!(above.abs_diff(expected) < 1_000, "{above} of 100,000 are above p{percent}");
        }
    }

    #[test]
    fn a_few_that_are_ever_so_slow_do_not_drag_it_along() {
        // Given: two in a hundred take a minute, and the others 1 ms.
        let lengths = shuffled(20_000).map(|it| if it < 20 { 60_000_000_000 } else { 1_000_000 });
        let value = after(95, lengths).unwrap_or(0);
        assert!((900_000..1_500_000).contains(&value), "{value}");
    }

    #[test]
    fn a_function_that_turns_slower_is_believed_soon_and_one_that_turns_faster_later() {
        let slower = after(95, [1_000_000; 100].into_iter().chain([10_000_000; 50])).unwrap_or(0);
        assert!(slower >= 9_000_000, "{slower}");
        let faster = after(95, [10_000_000; 100].into_iter().chain([1_000_000; 800])).unwrap_or(0);
        assert!(faster <= 1_100_000, "{faster}");
    }

    #[test]
    fn nothing_is_told_from_few_lengths_and_any_length_is_taken() {
        assert_eq!(after(95, [1_000; COUNT_MIN as usize - 1]), None);
        assert!(after(95, (0..2_000).map(|it| if it % 2 == 0 { u64::MAX } else { 0 })).is_some());
        assert!(after(95, [0; 100]).is_some_and(|value| value <= 2));
    }
}
