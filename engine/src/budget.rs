//! A bound on extra work as a fraction of the traffic: one for retries, one for hedges.
//!
//! In: how many calls were pushed to workers so far.  Out: whether one more than those may be.
//! Always: after `n` calls at most `burst + n x percent / 100` extra ones were granted. The extra ones earn nothing.
//! Never: works per call: what a function earned is worked out when it asks, from the count of its pushes.
//! Why a fraction and not a rate: when everything fails, retries at any fixed rate are a second load on top of the first;
//! a tenth of the traffic stays a tenth (the retry budgets of Finagle and gRPC).
//! Tests: below.

/// What is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    percent: u8,
    /// Hundredths of an extra call.
    tokens: u64,
    /// Pushes that have earned already.
    pushes_seen: u64,
}

/// One extra call costs so many tokens, so that a call earns `percent` of them.
const COST: u64 = 100;
/// Extra calls that may come at once: so that a function of few calls has some, and one that failed for long not too many.
const BURST: u64 = 10;

impl Budget {
    /// A full one. With 0 percent nothing is ever granted.
    pub fn new(percent: u8) -> Budget {
        Budget { percent, tokens: if percent == 0 { 0 } else { BURST * COST }, pushes_seen: 0 }
    }

    /// Takes one extra call, if there is one left. `pushes` is how many the function had up to now, extra ones included.
    pub fn take(&mut self, pushes: u64) -> bool {
        let earned = pushes.saturating_sub(self.pushes_seen).saturating_mul(u64::from(self.percent));
        self.pushes_seen = self.pushes_seen.max(pushes);
        self.tokens = self.tokens.saturating_add(earned).min(BURST * COST);
        let is_granted = self.tokens >= COST;
        if is_granted {
            self.tokens -= COST;
            // Its own push is not traffic.
            self.pushes_seen += 1;
        }
        is_granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `calls` calls, and asks for an extra one after each of them.
    fn granted(percent: u8, calls: u64) -> u64 {
        let (mut budget, mut pushes, mut extra) = (Budget::new(percent), 0, 0);
        for _ in 0..calls {
            pushes += 1;
            if budget.take(pushes) {
                pushes += 1;
                extra += 1;
            }
        }
        extra
    }

    #[test]
    fn extra_calls_never_exceed_the_burst_and_the_fraction() {
        for percent in [1, 5, 10, 50, 100] {
            for calls in [1, 9, 100, 1_000, 12_345] {
                let bound = BURST + calls * u64::from(percent) / 100;
                let extra = granted(percent, calls);
                assert!(extra <= bound, "{extra} of {calls} at {percent} %");
                assert!(extra + 1 >= bound.min(calls), "{extra} of {calls} at {percent} %");
            }
        }
        assert_eq!(granted(0, 1_000), 0);
    }

    #[test]
    fn a_quiet_time_saves_up_no_more_than_the_burst() {
        let mut budget = Budget::new(10);
        let granted = (0..100).filter(|_| budget.take(1_000_000)).count() as u64;
        assert_eq!(granted, BURST);
    }
}
