//! How long a function is idle between calls: one bin for each minute up to four hours, and one for all that is longer.
//!
//! In: idle times.  Out: below which of them 5 % and 99 % are, and whether that says anything.
//! Always: an idle time weighs half as much for every week since it was noted, so that a function that changes is followed. A
//! percentile is that of the exact lengths, rounded down (head) or up (tail) to a minute.
//! Never: a float. Bins hold weights: 256 for an idle time of this week, so that one is halved eight times before it is forgotten.

use crate::time::Nanos;

const BIN: Nanos = Nanos::from_secs(60);
/// Four hours, as in the paper, for 960 bytes.
const BIN_COUNT: usize = 240;
const WEIGHT: u32 = 256;
const HALF_LIFE: Nanos = Nanos::from_secs(7 * 24 * 3_600);
/// Fewer idle times than this say nothing. The paper gives no number, and its test of shape takes one idle time for a peak.
const COUNT_MIN: u64 = 10;
/// The least coefficient of variation of the bins with which they have a shape, squared: of the weights of all bins the deviation is
/// twice the mean, as in the paper. All in one bin is 15.5, in each of 48 as much is 2, in all bins as much is 0.
const VARIATION_MIN_SQUARED: u128 = 4;
const HEAD_PERCENT: u64 = 5;
const TAIL_PERCENT: u64 = 99;

/// What is known of a function's idle times.
#[derive(Clone, Debug)]
pub struct Histogram {
    bins: [u32; BIN_COUNT],
    /// Of idle times that no bin holds.
    beyond: u32,
    /// The highest bin that holds anything, or a higher one: where a tail is looked for from.
    highest: usize,
    /// When weights were halved last; the first idle time before that.
    halved_at: Option<Nanos>,
}

/// What idle times are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Most are longer than any bin.
    Beyond,
    /// Too few, or everywhere.
    Unknown,
    /// Of 100 idle times 5 are shorter than `head` and 99 shorter than `tail`.
    Known { head: Nanos, tail: Nanos },
}

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { bins: [0; BIN_COUNT], beyond: 0, highest: 0, halved_at: None }
    }

    /// An idle time that has ended now.
    pub fn note(&mut self, now: Nanos, idle: Nanos) {
        self.forget(now);
        let sum = self.within() + u64::from(self.beyond);
        if sum + u64::from(WEIGHT) > u64::from(u32::MAX) {
            self.halve(1);
        }
        match self.bins.get_mut((idle.0 / BIN.0) as usize) {
            Some(bin) => {
                *bin += WEIGHT;
                self.highest = self.highest.max((idle.0 / BIN.0) as usize);
            }
            None => self.beyond += WEIGHT,
        }
    }

    pub fn shape(&self) -> Shape {
        let within = self.within();
        if u64::from(self.beyond) > within {
            return Shape::Beyond;
        }
        if within < COUNT_MIN * u64::from(WEIGHT) || !self.has_shape(within) {
            return Shape::Unknown;
        }
        Shape::Known { head: self.head(within), tail: self.tail(within) }
    }

    fn within(&self) -> u64 {
        self.used().iter().map(|weight| u64::from(*weight)).sum()
    }

    /// The bins that may hold anything.
    fn used(&self) -> &[u32] {
        self.bins.get(..=self.highest).unwrap_or(&self.bins)
    }

    /// With B bins, S the sum of their weights and Q that of their squares: variance / mean^2 = Q B / S^2 - 1.
    fn has_shape(&self, sum: u64) -> bool {
        let squares: u128 = self.used().iter().map(|weight| u128::from(*weight).pow(2)).sum();
        squares * BIN_COUNT as u128 >= (VARIATION_MIN_SQUARED + 1) * u128::from(sum).pow(2)
    }

    /// The lower edge of the first bin up to which there are so many percent.
    fn head(&self, sum: u64) -> Nanos {
        let mut left = (sum * HEAD_PERCENT).div_ceil(100);
        let index = self.used().iter().position(|weight| {
            let is_reached = u64::from(*weight) >= left;
            left = left.saturating_sub(u64::from(*weight));
            is_reached
        });
        edge(index.unwrap_or(self.highest))
    }

    /// The upper edge of the same, from above: a busy function has few bins, and most of its weight below.
    fn tail(&self, sum: u64) -> Nanos {
        let mut above = sum - (sum * TAIL_PERCENT).div_ceil(100);
        let index = self.used().iter().rposition(|weight| {
            let is_reached = u64::from(*weight) > above;
            above = above.saturating_sub(u64::from(*weight));
            is_reached
        });
        edge(index.unwrap_or(self.highest) + 1)
    }

    fn forget(&mut self, now: Nanos) {
        let halved_at = *self.halved_at.get_or_insert(now);
        let periods = now.since(halved_at).0 / HALF_LIFE.0;
        if periods > 0 {
            self.halve(periods);
            self.halved_at = Some(halved_at.plus(Nanos(periods * HALF_LIFE.0)));
        }
    }

    fn halve(&mut self, times: u64) {
        let halved = |weight: u32| weight.checked_shr(times.min(32) as u32).unwrap_or(0);
        self.bins.iter_mut().for_each(|bin| *bin = halved(*bin));
        self.beyond = halved(self.beyond);
        self.highest = self.bins.iter().rposition(|weight| *weight > 0).unwrap_or(0);
    }
}

fn edge(index: usize) -> Nanos {
    Nanos(index as u64 * BIN.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn minutes(count: u64) -> Nanos {
        Nanos::from_secs(60 * count)
    }

    /// Of idle times given in seconds, all noted at once.
    fn shape(idle_seconds: &[u64]) -> Shape {
        let mut histogram = Histogram::new();
        idle_seconds.iter().for_each(|seconds| histogram.note(Nanos(1), Nanos::from_secs(*seconds)));
        histogram.shape()
    }

    /// The same from the sorted idle times themselves, and the variation by its textbook formula.
    fn expected(idle_seconds: &[u64]) -> Shape {
        let mut within: Vec<u64> =
            idle_seconds.iter().map(|seconds| seconds / 60).filter(|minute| *minute < 240).collect();
        if idle_seconds.len() > 2 * within.len() {
            return Shape::Beyond;
        }
        within.sort_unstable();
        let in_bin = |minute| within.iter().filter(|it| **it == minute).count() as f64;
        let mean = within.len() as f64 / 240.0;
        let variance = (0..240).map(|minute| (in_bin(minute) - mean).powi(2)).sum::<f64>() / 240.0;
        if within.len() < 10 || variance.sqrt() / mean < 2.0 - 1e-9 {
            return Shape::Unknown;
        }
        let percentile = |percent: usize| within[(within.len() * percent).div_ceil(100) - 1];
        Shape::Known { head: minutes(percentile(5)), tail: minutes(percentile(99) + 1) }
    }

    #[test]
    fn percentiles_are_those_of_the_idle_times_themselves() {
        let mut chance = Chance::new(31);
        let mut seen = [0; 3];
        for _ in 0..500 {
            // Given: up to 600 idle times about two lengths, each more or less spread, of which the longest are beyond four hours.
            let count_max = if chance.up_to(1) == 0 { 20 } else { 600 };
            let count = 1 + chance.up_to(count_max);
            let lengths = [chance.up_to(18_000), chance.up_to(18_000)];
            let spread = chance.up_to(20_000);
            let idle: Vec<u64> =
                (0..count).map(|_| lengths[chance.up_to(1) as usize] + chance.up_to(spread)).collect();
            let shape = shape(&idle);
            assert_eq!(shape, expected(&idle), "{idle:?}");
            seen[match shape {
                Shape::Beyond => 0,
                Shape::Unknown => 1,
                Shape::Known { .. } => 2,
            }] += 1;
        }
        // Expect that all three were tried.
        assert!(seen.iter().all(|count| *count > 25), "{seen:?}");
    }

    #[test]
    fn few_idle_times_say_nothing_and_neither_do_those_that_are_everywhere() {
        assert_eq!(shape(&[3_600; 9]), Shape::Unknown);
        assert_eq!(shape(&[3_600; 10]), Shape::Known { head: minutes(60), tail: minutes(61) });
        let everywhere: Vec<u64> = (0..240).flat_map(|minute| [60 * minute; 3]).collect();
        assert_eq!(shape(&everywhere), Shape::Unknown);
        let in_48_bins: Vec<u64> = (0..48).map(|minute| 60 * minute).collect();
        assert_eq!(shape(&in_48_bins), Shape::Known { head: minutes(2), tail: minutes(48) });
        let in_49_bins: Vec<u64> = (0..49).map(|minute| 60 * minute).collect();
        assert_eq!(shape(&in_49_bins), Shape::Unknown);
    }

    #[test]
    fn most_of_them_beyond_four_hours_is_another_matter_than_too_few() {
        assert_eq!(shape(&[4 * 3_600]), Shape::Beyond);
        assert_eq!(shape(&[4 * 3_600 - 1]), Shape::Unknown);
        assert_eq!(shape(&[100_000, 60, 100_000, 60]), Shape::Unknown);
    }

    #[test]
    fn a_function_that_changes_is_followed_within_weeks() {
        // Given: a month of a call every half hour, and then one every two hours.
        let mut histogram = Histogram::new();
        let mut now = Nanos::ZERO;
        let mut note = |histogram: &mut Histogram, idle: Nanos| {
            now = now.plus(idle);
            histogram.note(now, idle);
        };
        (0..30 * 48).for_each(|_| note(&mut histogram, minutes(30)));
        assert_eq!(histogram.shape(), Shape::Known { head: minutes(30), tail: minutes(31) });
        note(&mut histogram, minutes(120));
        // Expect: at first the head is what it was, and after eight weeks nothing is left of it.
        (0..7 * 12).for_each(|_| note(&mut histogram, minutes(120)));
        assert_eq!(histogram.shape(), Shape::Known { head: minutes(30), tail: minutes(121) });
        (0..7 * 7 * 12).for_each(|_| note(&mut histogram, minutes(120)));
        assert_eq!(histogram.shape(), Shape::Known { head: minutes(120), tail: minutes(121) });
    }

    #[test]
    fn what_a_function_did_is_forgotten_when_it_was_away_for_long_and_no_count_is_too_large() {
        let mut histogram = Histogram::new();
        (0..100).for_each(|_| histogram.note(Nanos(1), minutes(5)));
        histogram.note(Nanos::NEVER, Nanos::NEVER);
        assert_eq!(histogram.shape(), Shape::Beyond);
        // Given: so many idle times that one more would not fit.
        let mut histogram = Histogram::new();
        histogram.bins[5] = u32::MAX - WEIGHT / 2;
        histogram.highest = 5;
        histogram.note(Nanos(1), minutes(5));
        assert_eq!(histogram.bins[5], u32::MAX / 2 - WEIGHT / 4 + WEIGHT);
    }
}
