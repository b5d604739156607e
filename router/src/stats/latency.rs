//! One latency of many calls: a histogram, and in front of it the run of equal values that is not in it yet.
//!
//! Always: calls that came in one batch and are answered in another wait equally long, because a turn reads the clock
//! once. So values come in runs, and a run costs one comparison a call and one entry in the histogram.
//! Always: exact when it is published: the shard settles first ([`Latency::settle`]).
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;

/// Two significant digits (at most 1 % off) keep a histogram within 30 KiB, most of which is never touched.
const DIGITS: u8 = 2;
/// An hour: longer than any time-out allowed.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// See above.
pub struct Latency {
    settled: Histogram<u64>,
    /// The last value, and how many times it came in a row.
    value_ns: u64,
    run: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let settled = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS)
            .expect("constant bounds that hdrhistogram takes");
        Latency { settled, value_ns: 0, run: 0 }
    }
}

impl Latency {
    /// One call's. More than an hour counts as an hour.
    #[inline(always)]
    pub fn record(&mut self, value_ns: u64) {
        if value_ns != self.value_ns {
            self.settle();
            self.value_ns = value_ns;
        }
        self.run += 1;
    }

    /// Brings the histogram up to date.
    #[inline(never)]
    pub fn settle(&mut self) {
        if self.run > 0 {
            self.settled.saturating_record_n(self.value_ns, self.run);
            self.run = 0;
        }
    }

    /// Everything up to the last [`Latency::settle`].
    pub fn settled(&self) -> &Histogram<u64> {
        &self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_equal_values_count_as_many_times_as_they_came() {
        let mut latency = Latency::default();
        for value_ns in [5, 5, 5, 9, 5, u64::MAX] {
            latency.record(value_ns);
        }
        assert_eq!(latency.settled().len(), 5, "the last run is still open");
        latency.settle();
        latency.settle();
        assert_eq!(latency.settled().len(), 6);
        assert_eq!(latency.settled().count_at(5), 4);
        assert!(latency.settled().max() >= LATENCY_NS_MAX, "an hour stands for all that is longer");
    }
}
