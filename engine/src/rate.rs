//! Calls per second: a token bucket that is one point in time.
//!
//! In: the time of each call.  Out: yes, or how long until the next yes.
//! Always: in any span of time `t` at most `burst + t * per_second` calls get a yes (rounded down: the interval between
//! calls is rounded up to whole nanoseconds, so that a limit of 3,000,000 lets 2,994,011 through).
//! Why the virtual-scheduling form (the generic cell rate algorithm, ITU-T I.371 annex A): it needs no refilling, one
//! comparison and one addition a call, and knows how long to wait.
//! Tests: below, and `tests/rate.rs`.

use crate::opportunistic::{WHOLE, WINDOW};
use crate::time::Nanos;

/// A bound on calls per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls per second in the long run, at least 1.
    pub per_second: u32,
    /// Calls that may come at once, at least 1.
    pub burst: u32,
}

impl Rate {
    /// More than anybody can ask for.
    pub(crate) const UNBOUNDED: Rate = Rate { per_second: u32::MAX, burst: u32::MAX };
}

/// How much of a [`Rate`] is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Between two calls at the full rate.
    interval: Nanos,
    /// How far the next call's time may lie ahead of now.
    tolerance: Nanos,
    /// When the next call would come if all came evenly.
    next_at: Nanos,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> TokenBucket {
        let interval = Nanos::from_secs(1).0.div_ceil(u64::from(rate.per_second.max(1)));
        let tolerance = interval.saturating_mul(u64::from(rate.burst.max(1)) - 1);
        TokenBucket { interval: Nanos(interval), tolerance: Nanos(tolerance), next_at: Nanos::ZERO }
    }

    /// Another rate from now on. What was taken stays taken.
    pub fn set_rate(&mut self, rate: Rate) {
        *self = TokenBucket { next_at: self.next_at, ..TokenBucket::new(rate) };
    }

    /// When nothing of it will be used, if nothing more is taken.
    pub fn full_at(&self) -> Nanos {
        self.next_at
    }

    /// Whether nothing of it is used.
    pub fn is_full(&self, now: Nanos) -> bool {
        self.next_at <= now
    }

    /// After how long there will be a call's worth; zero if there is.
    pub fn wait(&self, now: Nanos) -> Nanos {
        self.next_at.since(now).since(self.tolerance)
    }

    /// Takes one call's worth at a share of the rate, of [`WHOLE`], or says when to ask again: never later than the share may be
    /// another one.
    pub fn take_share(&mut self, now: Nanos, share: u64) -> Result<(), Nanos> {
        let wait = self.next_at.since(now);
        if share == 0 || wait > self.tolerance {
            return Err(wait.since(self.tolerance).clamp(Nanos(1), WINDOW));
        }
        let interval = Nanos(self.interval.0.saturating_mul(WHOLE) / share);
        self.next_at = self.next_at.max(now).plus(interval);
        Ok(())
    }

    /// Whether there is one call's worth, or after how long there will be.
    #[inline]
    pub fn ask(&self, now: Nanos) -> Result<(), Nanos> {
        let wait = self.wait(now);
        if wait > Nanos::ZERO { Err(wait) } else { Ok(()) }
    }

    /// Takes one call's worth, which is there.
    #[inline]
    pub fn take(&mut self, now: Nanos) {
        self.take_many(now, 1);
    }

    /// How many calls there is enough for, up to `wanted`.
    pub fn room(&self, now: Nanos, wanted: u32) -> u32 {
        let wait = self.next_at.since(now);
        if wait > self.tolerance {
            return 0;
        }
        let whole = self.tolerance.since(wait).0 / self.interval.0.max(1) + 1;
        u32::try_from(whole).unwrap_or(u32::MAX).min(wanted)
    }

    /// Takes so many calls' worth, which are there.
    #[inline]
    pub fn take_many(&mut self, now: Nanos, count: u32) {
        let taken = Nanos(self.interval.0.saturating_mul(count.into()));
        self.next_at = self.next_at.max(now).plus(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: u32, burst: u32) -> TokenBucket {
        TokenBucket::new(Rate { per_second, burst })
    }

    fn call(bucket: &mut TokenBucket, now: Nanos) -> Result<(), Nanos> {
        bucket.ask(now).inspect(|()| bucket.take(now))
    }

    #[test]
    fn a_full_bucket_lets_the_burst_through_and_says_when_to_come_again() {
        let now = Nanos::from_secs(5);
        let mut bucket = bucket(1000, 3);
        for _ in 0..3 {
            assert_eq!(call(&mut bucket, now), Ok(()));
        }
        assert_eq!(call(&mut bucket, now), Err(Nanos::from_ms(1)));
        assert_eq!(call(&mut bucket, now.plus(Nanos::from_ms(1))), Ok(()));
        assert_eq!(call(&mut bucket, now.plus(Nanos::from_us(1_200))), Err(Nanos::from_us(800)));
    }

    #[test]
    fn there_is_room_for_as_many_as_would_get_a_yes_one_after_the_other() {
        let start = Nanos::from_secs(5);
        for (per_second, burst) in [(1, 1), (1000, 3), (3_000_000, 64), (u32::MAX, u32::MAX)] {
            let mut bucket = bucket(per_second, burst);
            for step in 0..50 {
                let now = start.plus(Nanos(step * 700_000));
                let mut each = bucket;
                let yes = (0..100).take_while(|_| call(&mut each, now).is_ok()).count() as u32;
                assert_eq!(bucket.room(now, 100), yes, "{per_second}, {burst}");
                assert_eq!(bucket.room(now, 2), yes.min(2));
                bucket.take_many(now, yes / 2);
            }
        }
    }

    #[test]
    fn a_refused_call_uses_nothing_up() {
        let mut bucket = bucket(1, 1);
        assert_eq!(call(&mut bucket, Nanos::ZERO), Ok(()));
        for _ in 0..1000 {
            assert!(call(&mut bucket, Nanos::from_ms(999)).is_err());
        }
        assert_eq!(call(&mut bucket, Nanos::from_secs(1)), Ok(()));
    }

    #[test]
    fn another_rate_counts_from_the_call_before_it() {
        let now = Nanos::from_secs(5);
        let mut bucket = bucket(1000, 1);
        assert_eq!(call(&mut bucket, now), Ok(()));
        bucket.set_rate(Rate { per_second: 100, burst: 1 });
        let next = now.plus(Nanos::from_ms(1));
        assert_eq!((bucket.wait(now), bucket.wait(next)), (Nanos::from_ms(1), Nanos::ZERO));
        assert_eq!(call(&mut bucket, next), Ok(()));
        assert_eq!(call(&mut bucket, next), Err(Nanos::from_ms(10)));
    }

    #[test]
    fn no_span_of_time_sees_more_than_the_burst_and_the_rate() {
        for (per_second, burst) in [(1, 1), (7, 3), (1_000_000, 1), (3_000_000, 64), (999_983, 1000)] {
            let mut bucket = bucket(per_second, burst);
            let mut passed = Vec::new();
            // Steps of odd length, so that calls come before, at and after the time of the next token.
            for step in 0..20_000u64 {
                let now = Nanos(step * 331);
                if call(&mut bucket, now).is_ok() {
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate().step_by(97) {
                for (last, to) in passed.iter().enumerate().skip(first).step_by(89) {
                    let count = (last - first + 1) as u64;
                    let bound =
                        u64::from(burst) + to.since(*from).0 * u64::from(per_second) / 1_000_000_000 + 1;
                    assert!(count <= bound, "{count} calls within {:?}, at most {bound}", to.since(*from));
                }
            }
        }
    }
}
