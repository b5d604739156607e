//! Stage 2 of 8, for a call that would have to wait: whether its deadline can be kept at all.
//!
//! ```text
//!   least time to the end = calls before it / workers, rounded down  x  run time  +  the best run
//!                           (lanes as urgent as its own, or more)
//! ```
//!
//! In: the run time of each finished call; at admission, a call behind others.  Out: yes, or `DeadlineUnreachable` with the
//! time after which, if nobody else came, it could be kept.
//! Always: errs towards yes. What runs now counts for nothing, what comes later and is more urgent neither; the run time is
//! the lesser of median and mean; a process is taken to run one call at a time, as `serve` does (a function whose processes
//! run several says `refuse_infeasible = false`). So a call that finds nothing waiting is never refused, and one behind
//! others never if fewer of them are before it than there are workers, unless no run of late was as short as its time.
//! Always: one in [`PROBE_EVERY`] of those that seem hopeless is let through, so that no estimate, however wrong, shuts a
//! function off.
//! Never: asked for a call that finds nothing waiting; reads anything but the function.
//! The median: one comparison and one step up or down for each run, the frugal streaming estimate of Ma, Muthukrishnan and
//! Sandler ("Frugal Streaming for Estimating Quantiles", 2013), with steps of a sixteenth of the estimate, so that a function
//! that turns ten times faster or slower is believed after about 38 runs. For the median it needs no random numbers.
//! Why not the mean alone: one run of a minute among a thousand of a millisecond would refuse hundreds. Why not the median
//! alone: where most runs are long and many short, a queue drains faster than it says.
//! Tests: below, `tests/estimate.rs`, `tests/random.rs`.

use protocol::{Criticality, FunctionId};
use queue::LaneIndex;

use crate::Engine;
use crate::admission::{QueueRoom, Refusal, full};
use crate::nesting::reserve_of;
use crate::run_queue::bucket_of;
use crate::time::Nanos;

/// Runs that have to be known before anything is refused on their account.
const RUNS_MIN: u32 = 32;
/// One in this many calls that seem hopeless is let through.
pub(crate) const PROBE_EVERY: u32 = 16;

/// What is known of the run time of one function.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunEstimate {
    median_ns: u64,
    /// The shortest run of late: it drifts towards the runs that are longer, by a 64th of the distance.
    best_ns: u64,
    /// Up to `RUNS_MIN`.
    runs: u32,
    /// Since the last one that was let through.
    hopeless: u32,
}

impl RunEstimate {
    /// A call ran this long.
    #[inline]
    pub fn note(&mut self, run: Nanos) {
        // A run of 2^60 ns is 36 years.
        let run_ns = run.0.clamp(1, 1 << 60);
        if self.runs == 0 {
            (self.median_ns, self.best_ns) = (run_ns, run_ns);
        }
        self.runs = (self.runs + 1).min(RUNS_MIN);
        let step = self.median_ns.div_ceil(16);
        if run_ns > self.median_ns {
            self.median_ns += step;
        } else if run_ns < self.median_ns {
            self.median_ns -= step;
        }
        self.best_ns = run_ns.min(self.best_ns + run_ns.saturating_sub(self.best_ns).div_ceil(64));
    }

    /// The least time until a call with so many before it has ended, given the mean run time; none if that cannot be told.
    fn least_time(&self, ahead: u32, workers: u32, mean: Nanos) -> Option<Nanos> {
        let rounds = u64::from(ahead.checked_div(workers)?);
        let run_ns = self.median_ns.min(mean.0);
        let wait = Nanos(rounds.saturating_mul(run_ns));
        (self.runs >= RUNS_MIN).then(|| wait.plus(Nanos(self.best_ns)))
    }

    /// A call seems hopeless. True: this one is let through all the same.
    fn is_probe(&mut self) -> bool {
        self.hopeless = (self.hopeless + 1) % PROBE_EVERY;
        self.hopeless == 0
    }
}

impl Engine {
    /// What speaks against a call behind others.
    #[inline(never)]
    pub(crate) fn admit_behind(
        &mut self,
        id: FunctionId,
        criticality: Criticality,
        remaining: Nanos,
        room: QueueRoom,
    ) -> Result<(), Refusal> {
        let function = &mut self.functions[id.0 as usize];
        let reserve = match room {
            QueueRoom::NotNeeded => return Ok(()),
            QueueRoom::Usual => 0,
            QueueRoom::WithReserve => reserve_of(function.spec.queue_count_max),
            QueueRoom::Later => return Ok(()),
        };
        if function.queue.len() >= function.spec.queue_count_max.saturating_add(reserve) {
            return Err(full(function));
        }
        // A nested call may overtake all of them, where workers are kept for it.
        let may_overtake = room == QueueRoom::WithReserve && function.reserve.count > 0;
        if !function.spec.policy.refuse_infeasible || may_overtake {
            return Ok(());
        }
        let (workers, mean) = (function.members.len() as u32, function.run_ahead.mean());
        let least_time = |ahead| function.estimate.least_time(ahead, workers, mean);
        // All that wait are quickly counted, and nearly always few enough.
        if least_time(function.queue.len()).is_none_or(|least| least <= remaining) {
            return Ok(());
        }
        let lane = LaneIndex::new(criticality as u8, bucket_of(remaining));
        match least_time(function.queue.count_up_to(lane)) {
            Some(least) if least > remaining && !function.estimate.is_probe() => {
                Err(Refusal::DeadlineUnreachable { retry_after: least.since(remaining) })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(runs: impl IntoIterator<Item = u64>) -> RunEstimate {
        let mut estimate = RunEstimate::default();
        runs.into_iter().for_each(|run_ns| estimate.note(Nanos(run_ns)));
        estimate
    }

    #[test]
    fn the_median_is_found_within_a_step_whatever_the_outliers_are() {
        // Given: nine runs of about 1 ms, then one of a minute.
        let runs =
            (0..1000u64).map(|n| if n % 10 == 9 { 60_000_000_000 } else { 900_000 + n * 7919 % 200_000 });
        let median = after(runs).median_ns;
        assert!((800_000..1_300_000).contains(&median), "{median}");
    }

    #[test]
    fn a_change_of_ten_times_is_believed_after_forty_runs() {
        let slower = after([1_000_000; 100].into_iter().chain([10_000_000; 40]));
        assert!(slower.median_ns >= 9_000_000, "{}", slower.median_ns);
        let faster = after([10_000_000; 100].into_iter().chain([1_000_000; 40]));
        assert!(faster.median_ns <= 1_100_000, "{}", faster.median_ns);
    }

    #[test]
    fn the_best_run_is_taken_at_once_and_forgotten_slowly() {
        let mut estimate = after([1_000; 50]);
        estimate.note(Nanos(10));
        assert_eq!(estimate.best_ns, 10);
        (0..64).for_each(|_| estimate.note(Nanos(1_000)));
        assert!((400..900).contains(&estimate.best_ns), "{}", estimate.best_ns);
    }

    #[test]
    fn any_length_is_taken() {
        let estimate = after((0..2_000).map(|n| if n % 2 == 0 { u64::MAX } else { 0 }));
        assert!(estimate.median_ns >= 1);
        assert!(estimate.least_time(u32::MAX, 1, Nanos::NEVER).is_some());
    }

    #[test]
    fn nothing_is_told_from_few_runs_or_without_workers() {
        let few = after([1_000; RUNS_MIN as usize - 1]);
        assert_eq!(few.least_time(10, 1, Nanos(1_000)), None);
        let enough = after([1_000; RUNS_MIN as usize]);
        assert_eq!(enough.least_time(10, 0, Nanos(1_000)), None);
    }

    #[test]
    fn the_least_time_counts_whole_rounds_of_all_workers() {
        let estimate = after([1_000; 100]);
        for (ahead, workers, least_ns) in [(0, 4, 1_000), (3, 4, 1_000), (4, 4, 2_000), (9, 2, 5_000)] {
            assert_eq!(estimate.least_time(ahead, workers, Nanos(1_000)), Some(Nanos(least_ns)));
            // The mean counts where it is less.
            let half = Nanos((least_ns - 1_000) / 2 + 1_000);
            assert_eq!(estimate.least_time(ahead, workers, Nanos(500)), Some(half));
        }
    }
}
