//! Stage 2 of 8: callers that send in spikes wait in a lane of their own.
//!
//! ```text
//!   within its caller's rate ──▶ the lane of its deadline
//!   beyond it                ──▶ the last lane of its criticality, until it has aged; then that of its deadline
//! ```
//! In: where a call comes from, and when.  Out: whether it is beyond what one caller may send of this function's calls.
//! Always: a caller is a connection, or a client's ring. Each has a token bucket (`rate.rs`) at each function that asks for it.
//! Always: what is beyond the rate is not refused for it, and not held back while nothing else of its criticality waits. So in any
//! span of time `t` at most `burst + t * per_second` calls of one caller stand before those of others, beside what has aged.
//! Always: calls beyond the rate leave [`KEPT_PERCENT`] of the queue to calls within it: `QueueFull` beyond that.
//! Always: at most [`CALLERS_MAX`] buckets for each function. A full bucket says as much as none, and makes room; when no bucket
//! is full, a caller that has none counts as beyond its rate.
//! Why a lane and not a refusal: a spike is work that somebody wants done, and may wait. Who must not send more at all has `rate`.
//! Why a rate that is written down and not one that is learned: an operator can tell a caller what it is held to. Meta keeps
//! "very spiky" clients apart from the others in the same way, by hand (XFaaS, SOSP '23, section 4.2).
//! Tests: below, `tests/callers.rs`.

use std::collections::BTreeMap;

use crate::invocation::Origin;
use crate::rate::{Rate, TokenBucket};
use crate::time::Nanos;

/// Callers of a function that are told apart at once: 4,096 buckets are 160 KiB.
pub(crate) const CALLERS_MAX: usize = 4096;
/// Of a function's queue, for calls within their callers' rates alone.
pub(crate) const KEPT_PERCENT: u32 = 25;

/// What each caller of one function has left of its rate.
#[derive(Debug)]
pub(crate) struct Callers {
    rate: Rate,
    buckets: BTreeMap<(u32, u32), TokenBucket>,
    /// When to look for full buckets again at the earliest: none can be full before.
    sweep_at: Nanos,
}

impl Callers {
    pub fn new(rate: Rate) -> Callers {
        Callers { rate, buckets: BTreeMap::new(), sweep_at: Nanos::ZERO }
    }

    /// Takes one call's worth of its caller's rate. False: there is none left, and nothing is taken.
    pub fn take(&mut self, now: Nanos, origin: &Origin) -> bool {
        let caller = (origin.connection, origin.connection_generation);
        if let Some(bucket) = self.buckets.get_mut(&caller) {
            return bucket.ask(now).inspect(|()| bucket.take(now)).is_ok();
        }
        if self.buckets.len() >= CALLERS_MAX && !self.make_room(now) {
            return false;
        }
        let mut bucket = TokenBucket::new(self.rate);
        bucket.take(now);
        self.buckets.insert(caller, bucket);
        true
    }

    /// Forgets the callers whose buckets are full. Whether there were any.
    #[cold]
    fn make_room(&mut self, now: Nanos) -> bool {
        if now < self.sweep_at {
            return false;
        }
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
        self.sweep_at = self.buckets.values().map(TokenBucket::full_at).min().unwrap_or(now);
        self.buckets.len() < CALLERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use protocol::CallId;

    use super::*;

    fn origin(connection: u32) -> Origin {
        Origin { connection, connection_generation: 0, call_id: CallId(1) }
    }

    /// A burst of two, and one a second.
    fn callers() -> Callers {
        Callers::new(Rate { per_second: 1, burst: 2 })
    }

    #[test]
    fn each_caller_has_a_rate_of_its_own() {
        let now = Nanos::from_secs(9);
        let mut callers = callers();
        let taken: Vec<bool> = [1, 1, 1, 2, 2, 2].map(|it| callers.take(now, &origin(it))).into();
        assert_eq!(taken, [true, true, false, true, true, false]);
        assert!(callers.take(now.plus(Nanos::from_secs(1)), &origin(1)));
    }

    #[test]
    fn a_connection_that_takes_the_slot_of_another_begins_anew() {
        let now = Nanos::from_secs(9);
        let mut callers = callers();
        (0..2).for_each(|_| assert!(callers.take(now, &origin(1))));
        assert!(!callers.take(now, &origin(1)));
        assert!(callers.take(now, &Origin { connection_generation: 1, ..origin(1) }));
    }

    #[test]
    fn when_all_places_are_taken_a_new_caller_waits_until_one_has_been_quiet() {
        let now = Nanos::from_secs(9);
        let mut callers = callers();
        for caller in 0..CALLERS_MAX as u32 {
            assert!(callers.take(now, &origin(caller)));
        }
        // Expect: it counts as beyond its rate, and so it stays while the others' buckets fill.
        let late = origin(u32::MAX);
        assert!(!callers.take(now, &late));
        assert!(!callers.take(now.plus(Nanos::from_ms(999)), &late));
        assert!(callers.take(now.plus(Nanos::from_secs(1)), &late));
        assert_eq!(callers.buckets.len(), 1, "the quiet ones are forgotten");
    }
}
