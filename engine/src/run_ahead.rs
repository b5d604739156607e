//! How many calls a worker may be given before it gets to them: late binding, measured in time.
//!
//! A ring slot bound too early is a call stuck behind a slow one while another worker idles; a ring kept too short
//! makes a fast function wait for a wake-up after every call. The same number of slots cannot be right for a function
//! of 100 ns and one of 100 ms. So a worker is given work for a fixed time ahead:
//!
//! ```text
//!   depth = 2^floor(log2(run_ahead / mean run time)), at least 1, at most the ring's slots
//! ```
//!
//! In: the run time of each finished call.  Out: the depth, and whether it changed.
//! Always: a power of two, left alone until the mean leaves a range of a factor of four, so that workers are sorted
//! anew seldom. One call at a time while nothing is known, and never more than the function allows.
//! The mean is an exponentially weighted one with a weight of 1/8 (as the smoothed round-trip time of RFC 6298).

use crate::time::Nanos;

/// What is known of the run time of one function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunAhead {
    /// Smoothed run time in nanoseconds.
    mean_ns: u64,
    depth: u32,
    depth_max: u32,
    /// The depth stays while the mean is above the first and not above the second.
    steady_ns: (u64, u64),
}

/// Every mean is outside: the first call decides.
const UNKNOWN: (u64, u64) = (u64::MAX, 0);

impl RunAhead {
    /// Nothing known. A `run_ahead` of [`Nanos::NEVER`] means that rings may always be filled, up to `depth_max`.
    pub fn new(run_ahead: Nanos, depth_max: u32) -> RunAhead {
        let depth = if run_ahead == Nanos::NEVER { depth_max } else { 1 };
        RunAhead { mean_ns: 0, depth, depth_max, steady_ns: UNKNOWN }
    }

    /// The smoothed run time.
    pub fn mean(&self) -> Nanos {
        Nanos(self.mean_ns)
    }

    /// Calls that a worker may hold at once, if it has the slots.
    #[inline]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// A call ran this long. True if the depth is another one now.
    #[inline(always)]
    pub fn note(&mut self, run_ahead: Nanos, run: Nanos) -> bool {
        // At least 1 ns, so that there is something to divide by; a run of 2^60 ns is 36 years.
        let run_ns = run.0.clamp(1, 1 << 60);
        self.mean_ns = self.mean_ns - self.mean_ns / 8 + run_ns.div_ceil(8);
        let (above, up_to) = self.steady_ns;
        (self.mean_ns <= above || self.mean_ns > up_to) && self.set_depth(run_ahead, run_ns)
    }

    #[cold]
    fn set_depth(&mut self, run_ahead: Nanos, run_ns: u64) -> bool {
        if self.steady_ns == UNKNOWN {
            // The first call's run time is all that is known of the mean.
            self.mean_ns = run_ns;
        }
        if self.depth == u32::MAX {
            self.steady_ns = (0, u64::MAX);
            return false;
        }
        let count = (run_ahead.0 / self.mean_ns).clamp(1, u64::from(u32::MAX));
        let depth = (1 << count.ilog2()).min(self.depth_max);
        let is_changed = depth != self.depth;
        self.depth = depth;
        // One call at a time is as few as there are, however long they take.
        let up_to = if depth == 1 { u64::MAX } else { run_ahead.0 / u64::from(depth) };
        // And as many as there may be, however quick.
        let above = if depth == self.depth_max { 0 } else { run_ahead.0 / (4 * u64::from(depth)) };
        self.steady_ns = (above, up_to);
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN_AHEAD: Nanos = Nanos(100_000);

    fn check(run_ns: u64, expected: u32) {
        let mut ahead = RunAhead::new(RUN_AHEAD, u32::MAX);
        for _ in 0..100 {
            ahead.note(RUN_AHEAD, Nanos(run_ns));
        }
        assert_eq!(ahead.depth(), expected, "a run of {run_ns} ns");
    }

    #[test]
    fn work_is_bound_for_the_given_time_ahead_and_no_longer() {
        // Rounding keeps the mean at 8 ns or more, which is deeper than any ring.
        check(0, 8_192);
        check(100, 512);
        check(1_000, 64);
        check(30_000, 2);
        check(60_000, 1);
        check(36_000_000, 1);
        check(u64::MAX, 1);
    }

    #[test]
    fn depth_is_one_while_nothing_is_known() {
        assert_eq!(RunAhead::new(RUN_AHEAD, u32::MAX).depth(), 1);
    }

    #[test]
    fn small_changes_of_the_run_time_change_nothing() {
        let mut ahead = RunAhead::new(RUN_AHEAD, u32::MAX);
        assert!(ahead.note(RUN_AHEAD, Nanos(1_000)));
        for run_ns in [1_100, 900, 1_300, 1_200, 800, 1_500] {
            assert!(!ahead.note(RUN_AHEAD, Nanos(run_ns)), "{run_ns}");
        }
    }

    #[test]
    fn a_function_that_turns_slow_is_bound_late_after_few_calls() {
        let mut ahead = RunAhead::new(RUN_AHEAD, u32::MAX);
        (0..100).for_each(|_| _ = ahead.note(RUN_AHEAD, Nanos(200)));
        ahead.note(RUN_AHEAD, Nanos(10_000_000));
        assert_eq!(ahead.depth(), 1);
    }

    #[test]
    fn without_a_bound_rings_may_be_filled() {
        let mut ahead = RunAhead::new(Nanos::NEVER, u32::MAX);
        assert!(!ahead.note(Nanos::NEVER, Nanos(1_000_000)));
        assert_eq!(ahead.depth(), u32::MAX);
    }

    #[test]
    fn a_worker_that_may_hold_one_call_holds_one_however_quick_they_are() {
        for run_ahead in [RUN_AHEAD, Nanos::NEVER] {
            let mut ahead = RunAhead::new(run_ahead, 1);
            for run_ns in [1, 100, 10_000_000, 1] {
                assert!(!ahead.note(run_ahead, Nanos(run_ns)));
                assert_eq!(ahead.depth(), 1);
            }
        }
    }
}
