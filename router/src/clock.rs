//! The one clock: CLOCK_MONOTONIC, which all processes of the host share, so that a deadline means the same in the
//! router, in a ring slot and in a function process.
#![forbid(unsafe_code)]

use std::time::Duration;

use engine::Nanos;
use rustix::time::{ClockId, clock_gettime};

/// Now. Read once in a turn.
#[inline]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// A length as the engine counts; what no clock reaches becomes [`Nanos::NEVER`].
pub fn nanos(length: Duration) -> Nanos {
    Nanos(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX))
}
