//! When each call of an open loop is due: fixed by the plan and the seed, before and apart from any answer.
//!
//! In: rate, arrivals, duration, seed.  Out: intended send times in nanoseconds since the start of the run.
//! Always: the times never fall; the stream is the same for the same plan, whatever the router does.
//! Never: reads a clock. `now_ns` comes from the caller, so tests run in virtual time.
//!
//! Why a stream and not a table: ten million calls would be 80 MB of table walked once; the stream draws each time
//! in about 10 ns and cannot be influenced by answers, which is all that "fixed beforehand" has to mean.

use std::time::Duration;

use crate::chance::Chance;
use crate::plan::Arrivals;

/// Intended send times, in nanoseconds since the start.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    gap_ns: f64,
    end_ns: u64,
    index: u64,
    poisson_at_ns: f64,
    chance: Chance,
}

impl Schedule {
    /// `rate` is in calls per second and above zero (the plan is validated first).
    pub(crate) fn new(rate: f64, arrivals: Arrivals, duration: Duration, seed: u64) -> Self {
        Self {
            arrivals,
            gap_ns: 1e9 / rate,
            end_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            index: 0,
            poisson_at_ns: 0.0,
            chance: Chance::new(seed),
        }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at_ns = match self.arrivals {
            // Multiplied, not summed: no error piles up over millions of calls.
            Arrivals::Constant => (self.index as f64 * self.gap_ns) as u64,
            Arrivals::Bursts { size } => {
                let size = u64::from(size.max(1));
                ((self.index - self.index % size) as f64 * self.gap_ns) as u64
            }
            Arrivals::Poisson => {
                self.poisson_at_ns -= self.chance.next_unit().ln() * self.gap_ns;
                self.poisson_at_ns as u64
            }
        };
        self.index += 1;
        (at_ns < self.end_ns).then_some(at_ns)
    }
}

/// Hands out what is due and counts what goes out late, and through whose fault.
#[derive(Debug)]
pub(crate) struct Pacer {
    schedule: Schedule,
    next_at_ns: Option<u64>,
    late_after_ns: u64,
    held_until_ns: Option<u64>,
    lateness: Lateness,
}

/// How far the sends strayed from their schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lateness {
    /// Sent later than the threshold after their intended time.
    pub(crate) late: u64,
    /// Of these: the router had left no credit when they were due. The others are the generator's own.
    pub(crate) late_held: u64,
    /// The worst delay between intended and actual send.
    pub(crate) delay_ns_max: u64,
}

impl Pacer {
    pub(crate) fn new(mut schedule: Schedule, late_after: Duration) -> Self {
        let next_at_ns = schedule.next();
        let late_after_ns = u64::try_from(late_after.as_nanos()).unwrap_or(u64::MAX);
        Self { schedule, next_at_ns, late_after_ns, held_until_ns: None, lateness: Lateness::default() }
    }

    /// When the next call is due; `None` after the last.
    pub(crate) fn next_at_ns(&self) -> Option<u64> {
        self.next_at_ns
    }

    /// The intended time of the next call if it is due, counted as sent at `now_ns`.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        let at_ns = self.next_at_ns.filter(|at_ns| *at_ns <= now_ns)?;
        self.next_at_ns = self.schedule.next();
        let delay_ns = now_ns - at_ns;
        self.lateness.delay_ns_max = self.lateness.delay_ns_max.max(delay_ns);
        if delay_ns > self.late_after_ns {
            self.lateness.late += 1;
            if self.held_until_ns.is_some_and(|held_ns| at_ns <= held_ns) {
                self.lateness.late_held += 1;
            }
        }
        Some(at_ns)
    }

    /// Something is due at `now_ns` and no connection has a credit for it: that delay is not the generator's.
    pub(crate) fn note_held(&mut self, now_ns: u64) {
        self.held_until_ns = Some(now_ns);
    }

    pub(crate) fn lateness(&self) -> Lateness {
        self.lateness
    }

    /// Calls that were due by `now_ns` and never went out. Ends the schedule.
    pub(crate) fn count_unsent(&mut self, now_ns: u64) -> u64 {
        let mut count = 0;
        while let Some(at_ns) = self.next_at_ns.filter(|at_ns| *at_ns <= now_ns) {
            debug_assert!(at_ns <= now_ns);
            count += 1;
            self.next_at_ns = self.schedule.next();
        }
        self.next_at_ns = None;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: u64 = 1_000_000;

    fn times(arrivals: Arrivals, rate: f64, seed: u64) -> Vec<u64> {
        Schedule::new(rate, arrivals, SECOND, seed).collect()
    }

    fn pacer(rate: f64) -> Pacer {
        Pacer::new(Schedule::new(rate, Arrivals::Constant, SECOND, 1), Duration::from_micros(100))
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced_and_fill_the_duration() {
        assert_eq!(times(Arrivals::Constant, 4.0, 1), [0, 250 * MS, 500 * MS, 750 * MS]);
        assert_eq!(times(Arrivals::Constant, 100_000.0, 1).len(), 100_000);
    }

    #[test]
    fn bursts_are_due_together_and_keep_the_rate() {
        let times = times(Arrivals::Bursts { size: 3 }, 6.0, 1);
        assert_eq!(times, [0, 0, 0, 500 * MS, 500 * MS, 500 * MS]);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_spread_like_an_exponential() {
        let times = times(Arrivals::Poisson, 100_000.0, 7);
        // Mean 100 000, standard deviation 316: 2 000 is more than six of them.
        assert!(times.len().abs_diff(100_000) < 2_000, "{}", times.len());
        assert!(times.is_sorted());
        // A share of exp(-1) of exponential gaps is longer than the mean.
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > 10_000).count();
        let share = long as f64 / times.len() as f64;
        assert!((share - (-1.0f64).exp()).abs() < 0.01, "{share}");
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule_and_another_seed_another() {
        assert_eq!(times(Arrivals::Poisson, 10_000.0, 42), times(Arrivals::Poisson, 10_000.0, 42));
        assert_ne!(times(Arrivals::Poisson, 10_000.0, 42), times(Arrivals::Poisson, 10_000.0, 43));
    }

    #[test]
    fn nothing_is_handed_out_before_it_is_due() {
        let mut pacer = pacer(1_000.0);
        assert_eq!(pacer.take_due(0), Some(0));
        assert_eq!(pacer.take_due(MS - 1), None);
        assert_eq!(pacer.take_due(MS), Some(MS));
        assert_eq!(pacer.lateness(), Lateness::default());
    }

    #[test]
    fn a_stall_makes_every_call_that_fell_due_in_it_late_and_keeps_its_intended_time() {
        // Given: a call each millisecond, and a generator that sleeps from 0 to 5 ms.
        let mut pacer = pacer(1_000.0);
        let sent: Vec<_> = std::iter::from_fn(|| pacer.take_due(5 * MS)).collect();
        // Expect: six calls at their intended times, of which the last is on time.
        assert_eq!(sent, [0, MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS]);
        assert_eq!(pacer.lateness(), Lateness { late: 5, late_held: 0, delay_ns_max: 5 * MS });
    }

    #[test]
    fn lateness_for_want_of_credit_is_told_from_the_generators_own() {
        let mut pacer = pacer(1_000.0);
        assert_eq!(pacer.take_due(0), Some(0));
        // Given: no credit at 1 ms; credit again at 3 ms.
        pacer.note_held(MS);
        // Expect: the call of 1 ms was held by the router, the call of 2 ms only by the generator.
        assert_eq!(pacer.take_due(3 * MS), Some(MS));
        assert_eq!(pacer.take_due(3 * MS), Some(2 * MS));
        assert_eq!(pacer.lateness(), Lateness { late: 2, late_held: 1, delay_ns_max: 2 * MS });
    }

    #[test]
    fn what_was_due_and_never_sent_is_counted() {
        let mut pacer = pacer(1_000.0);
        assert_eq!(pacer.take_due(0), Some(0));
        assert_eq!(pacer.count_unsent(10 * MS), 10);
        assert_eq!(pacer.next_at_ns(), None);
    }
}
