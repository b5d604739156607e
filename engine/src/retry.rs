//! Trying a call again: only where it does no harm, later each time, and never more than a fraction of the traffic.
//!
//! ```text
//!   attempt failed ─┬─ provably never began ────────────────▶ again at once, as often as there are attempts
//!                   ├─ may have begun, and is idempotent ─┬─▶ again after the back-off, if the budget has room
//!                   │                                     └─▶ no: the failure is the answer, and a dead letter
//!                   └─ may have begun, not idempotent ──────▶ no: the failure is the answer
//! ```
//!
//! In: an attempt that ended without a result: its worker is lost, or the function returned an error (`on_error`).
//! Out: the call in its lane again, now or later; or why not.
//! Always: the n-th retry waits a random time between nothing and `min(backoff_max, backoff x 2^(n-1))` ("full jitter" of
//! the AWS architecture blog, "Exponential Backoff And Jitter"), and never more than half of the time that is left.
//! Always: attempts that may have begun are within the function's [`Budget`]. Those that did not begin cost nobody
//! anything twice, and are not counted: a worker that dies with a thousand waiting calls must not lose them for it.
//! Why full jitter: calls that failed together would otherwise come back together.
//! Tests: `tests/retries.rs`, `tests/workers.rs`.

use crate::Engine;
use crate::counters::Counter;
use crate::invocation::Marks;
use crate::reply::Run;
use crate::time::Nanos;

/// The most that a configuration can allow: the first and seven more.
pub(crate) const ATTEMPTS_MAX: u8 = 8;

/// What the configuration says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Attempts after the first, at most 7.
    pub retries_max: u8,
    /// Retries of attempts that may have begun, among a hundred calls.
    pub budget_percent: u8,
    /// The longest wait before the first retry; zero: every retry at once.
    pub backoff: Nanos,
    /// The longest wait before any.
    pub backoff_max: Nanos,
    /// Errors that the function returns are tried again too, not only the deaths of its workers.
    pub on_error: bool,
}

/// Once, at once, for at most one call in ten.
impl Default for RetrySpec {
    fn default() -> RetrySpec {
        RetrySpec {
            retries_max: 1,
            budget_percent: 10,
            backoff: Nanos::ZERO,
            backoff_max: Nanos::from_secs(10),
            on_error: false,
        }
    }
}

impl RetrySpec {
    /// The longest wait after so many attempts.
    fn wait_max(&self, attempts: u8) -> Nanos {
        let doublings = u32::from(attempts.saturating_sub(1)).min(63);
        Nanos(self.backoff.0.saturating_mul(1 << doublings)).min(self.backoff_max)
    }
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAgain {
    /// It may have begun, and running it twice may do harm; or nobody asked for it.
    Unwanted,
    /// It had all attempts it may have, or its function's budget is used up.
    UsedUp,
}

impl Engine {
    /// Tries a pushed call again whose worker does not hold it any more.
    pub(crate) fn try_again(&mut self, now: Nanos, slot: u32, run: Run) -> Result<(), NotAgain> {
        let call = self.invocations.at(slot);
        let function = &mut self.functions[call.function.0 as usize];
        let spec = function.spec.policy.retry;
        let may_have_started = run != Run::Never;
        if may_have_started && !call.marks.has(Marks::IDEMPOTENT) {
            return Err(NotAgain::Unwanted);
        }
        if call.attempts > spec.retries_max.min(ATTEMPTS_MAX - 1) {
            return Err(NotAgain::UsedUp);
        }
        if may_have_started && !function.retry_budget.take(function.pushes) {
            self.counters.count(Counter::RetriesDenied);
            return Err(NotAgain::UsedUp);
        }
        let mut wait = Nanos::ZERO;
        if may_have_started {
            let time_left = call.deadline_at.since(now);
            wait = Nanos(self.chance.up_to(spec.wait_max(call.attempts).0)).min(Nanos(time_left.0 / 2));
            let call = self.invocations.at_mut(slot);
            call.marks = call.marks.with(Marks::MAY_HAVE_STARTED, true);
        }
        self.counters.count(Counter::CallsRetried);
        self.delay(now, slot, wait);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_doubles_with_each_attempt_up_to_its_bound() {
        let spec = RetrySpec {
            backoff: Nanos::from_ms(10),
            backoff_max: Nanos::from_ms(50),
            ..RetrySpec::default()
        };
        let waits: Vec<_> = (1..=5).map(|attempts| spec.wait_max(attempts).0 / 1_000_000).collect();
        assert_eq!(waits, [10, 20, 40, 50, 50]);
        let endless = RetrySpec { backoff: Nanos::NEVER, backoff_max: Nanos::NEVER, ..spec };
        assert_eq!(endless.wait_max(u8::MAX), Nanos::NEVER);
    }
}
