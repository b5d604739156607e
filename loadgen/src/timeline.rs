//! The run in slices of time: what the plots over time are drawn from.
//!
//! In: sends and answers as they happen.  Out: one [`Interval`] per slice.
//! Never: allocates after the start; the room for all slices is claimed before.

use serde::Serialize;

/// One slice of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its end, in seconds since the start.
    pub at_s: f64,
    /// Calls sent in it.
    pub sent: u64,
    /// Results received in it.
    pub ok: u64,
    /// Other answers received in it.
    pub errors: u64,
    /// Latency since the intended send, of the results received in it; about 6 % coarse.
    pub latency_ns_p50: u64,
    /// The same, 99th percentile.
    pub latency_ns_p99: u64,
    /// The same, maximum (exact).
    pub latency_ns_max: u64,
}

/// Slices of a run; also enough for the bars of a terminal.
const INTERVAL_COUNT: u64 = 100;

/// Shorter slices would hold too few answers to have a 99th percentile.
const INTERVAL_NS_MIN: u64 = 20_000_000;

#[derive(Debug)]
pub(crate) struct Timeline {
    interval_ns: u64,
    end_at_ns: u64,
    current: Counts,
    done: Vec<Interval>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    ok: u64,
    errors: u64,
    latency: CoarseHistogram,
}

impl Counts {
    fn reset(&mut self) {
        (self.sent, self.ok, self.errors) = (0, 0, 0);
        (self.latency.total, self.latency.max) = (0, 0);
        self.latency.counts.fill(0);
    }
}

impl Timeline {
    /// For a run of `duration_ns`. Slices after twice that are not kept.
    pub(crate) fn new(duration_ns: u64) -> Self {
        let interval_ns = (duration_ns / INTERVAL_COUNT).max(INTERVAL_NS_MIN);
        let room = (2 * duration_ns / interval_ns + 2) as usize;
        Self {
            interval_ns,
            end_at_ns: interval_ns,
            current: Counts::default(),
            done: Vec::with_capacity(room),
        }
    }

    pub(crate) fn count_sent(&mut self, count: u64) {
        self.current.sent += count;
    }

    pub(crate) fn count_ok(&mut self, latency_ns: u64, count: u64) {
        self.current.ok += count;
        self.current.latency.record(latency_ns, count);
    }

    pub(crate) fn count_error(&mut self) {
        self.current.errors += 1;
    }

    /// Closes the slices that ended by `now_ns`. Called once a turn.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        while now_ns >= self.end_at_ns && self.done.len() < self.done.capacity() {
            self.close_current();
        }
    }

    pub(crate) fn into_intervals(mut self) -> Vec<Interval> {
        if self.current.sent + self.current.ok + self.current.errors > 0 {
            self.close_current();
        }
        self.done
    }

    fn close_current(&mut self) {
        let Counts { sent, ok, errors, ref latency } = self.current;
        self.done.push(Interval {
            at_s: self.end_at_ns as f64 / 1e9,
            sent,
            ok,
            errors,
            latency_ns_p50: latency.quantile(0.5),
            latency_ns_p99: latency.quantile(0.99),
            latency_ns_max: latency.max,
        });
        self.end_at_ns += self.interval_ns;
        self.current.reset();
    }
}

/// Sixteen buckets for each power of two: 8 KiB, cheap to reset a hundred times in a run, where the exact
/// histograms of the whole run are hundreds of KiB.
#[derive(Debug)]
struct CoarseHistogram {
    counts: Box<[u64; BUCKET_COUNT]>,
    total: u64,
    max: u64,
}

const SUB_BITS: u32 = 4;
const BUCKET_COUNT: usize = ((64 - SUB_BITS + 1) << SUB_BITS) as usize;

impl Default for CoarseHistogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKET_COUNT]), total: 0, max: 0 }
    }
}

impl CoarseHistogram {
    fn record(&mut self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(counted) = self.counts.get_mut(bucket_of(value)) {
            *counted += count;
        }
        self.total += count;
        self.max = self.max.max(value);
    }

    /// The upper end of the bucket that holds the quantile, 0 without values.
    fn quantile(&self, quantile: f64) -> u64 {
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += *count;
            if seen >= rank {
                return upper_end_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Values below 16 have a bucket each; above, the leading five bits choose it.
fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((shift as usize) << SUB_BITS) + (value >> shift) as usize
}

fn upper_end_of(bucket: usize) -> u64 {
    let sub_count = 1usize << SUB_BITS;
    if bucket < 2 * sub_count {
        return bucket as u64;
    }
    let shift = bucket / sub_count - 1;
    let leading = (bucket % sub_count + sub_count) as u128;
    u64::try_from(((leading + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn every_value_lies_in_a_bucket_whose_end_is_at_most_a_sixteenth_away() {
        for value in (0..2_000).chain([1 << 20, (1 << 20) + 12_345, u64::MAX / 3, u64::MAX]) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKET_COUNT, "{value}");
            let end = upper_end_of(bucket);
            assert!(end >= value, "{value} {end}");
            assert!(end - value <= value / 16, "{value} {end}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = CoarseHistogram::default();
        for value in 1..=1_000 {
            histogram.record(value, 1);
        }
        let check =
            |quantile, exact: u64| assert!(histogram.quantile(quantile).abs_diff(exact) <= exact / 16);
        check(0.5, 500);
        check(0.99, 990);
        assert_eq!(histogram.quantile(1.0), 1_000);
        assert_eq!(CoarseHistogram::default().quantile(0.5), 0);
    }

    #[test]
    fn slices_hold_what_happened_in_them_and_quiet_ones_are_there_too() {
        let mut timeline = Timeline::new(5_000 * MS);
        timeline.count_sent(2);
        timeline.count_ok(1_000, 1);
        timeline.advance(49 * MS);
        timeline.advance(160 * MS);
        timeline.count_error();
        let intervals = timeline.into_intervals();
        let counts: Vec<_> = intervals.iter().map(|slice| (slice.sent, slice.ok, slice.errors)).collect();
        assert_eq!(counts, [(2, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 1)]);
        assert_eq!(intervals[0].latency_ns_max, 1_000);
    }

    #[test]
    fn a_run_that_never_ends_keeps_a_bounded_number_of_slices() {
        let mut timeline = Timeline::new(100 * MS);
        timeline.advance(u64::MAX / 2);
        assert!(timeline.into_intervals().len() <= 12);
    }
}
