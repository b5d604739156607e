//! How fast a queue drains, measured, and how long a call would wait at its end.
//!
//! In: each push of a queued call.  Out: an estimate of the wait of the next one to be queued.
//! Always: the time between pushes is taken over a whole `WINDOW` in which calls waited, because a shard pushes in batches: the
//! distance of two pushes of one turn says nothing. A queue whose pushes stop drains more slowly from one moment to the next.
//! Always: nothing is known, and nothing refused, before the first window in which calls waited is over.
//! Why measured and not run time by workers: what slows a queue down is as often a limit, another tenant or a sleeping
//! machine as the function.  Tests: below, `tests/queue_delay.rs`.

use crate::time::Nanos;

/// Long against a turn, short against a wait that anybody would bound.
const WINDOW: Nanos = Nanos::from_ms(10);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainRate {
    /// None while nothing waits.
    window_at: Option<Nanos>,
    pushed_at: Nanos,
    pushes: u64,
    /// Between two pushes in the last whole window; 0 while nothing is known.
    interval_ns: u64,
}

impl DrainRate {
    /// Calls wait from now on: time in which none did does not count.
    pub fn begin(&mut self, now: Nanos) {
        self.window_at = Some(now);
        self.pushed_at = now;
        self.pushes = 0;
    }

    /// A call that waited was pushed; whether it was the last one.
    #[inline]
    pub fn note_push(&mut self, now: Nanos, is_last: bool) {
        let Some(window_at) = self.window_at else { return self.begin(now) };
        self.pushes += 1;
        self.pushed_at = now;
        let length = now.since(window_at);
        if length >= WINDOW {
            self.interval_ns = (length.0 / self.pushes).max(1);
            self.begin(now);
        }
        if is_last {
            self.window_at = None;
        }
    }

    /// When there will be room for one more, as advice; zero while nothing is known.
    pub fn interval(&self) -> Nanos {
        Nanos(self.interval_ns)
    }

    /// How long a call would wait behind `queued` others.
    pub fn wait(&self, now: Nanos, queued: u32) -> Nanos {
        let since_push = self.window_at.map_or(Nanos::ZERO, |_| now.since(self.pushed_at));
        // No push for longer than a window: that is how slow it is by now, at best.
        let at_best = if since_push >= WINDOW { since_push.0 } else { 0 };
        Nanos(self.interval_ns.max(at_best).saturating_mul(u64::from(queued)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_the_queue_over_the_rate_at_which_it_drains() {
        // Given: batches of 50 every five milliseconds, ten thousand a second.
        let mut rate = DrainRate::default();
        let mut now = Nanos::from_secs(1);
        rate.begin(now);
        assert_eq!(rate.wait(now, 1_000_000), Nanos::ZERO, "nothing is known yet");
        for _ in 0..10 {
            (0..50).for_each(|_| rate.note_push(now, false));
            now = now.plus(Nanos::from_ms(5));
        }

        // Expect: about 100 us each.
        let wait = rate.wait(now, 1000);
        assert!((Nanos::from_ms(60)..Nanos::from_ms(140)).contains(&wait), "{wait}");
    }

    #[test]
    fn a_queue_that_stands_still_is_found_out_without_a_push() {
        let mut rate = DrainRate::default();
        rate.begin(Nanos::ZERO);
        for step in 0..1000u64 {
            rate.note_push(Nanos(step * 100_000), false);
        }
        let last = Nanos::from_ms(100);
        assert!(rate.wait(last, 10) < Nanos::from_ms(2));
        assert!(rate.wait(last.plus(Nanos::from_secs(1)), 10) > Nanos::from_ms(900));
    }
}
