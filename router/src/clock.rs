//! The one clock: CLOCK_MONOTONIC, which all processes of the host share, so that a deadline means the same in the
//! router, in a ring slot and in a function process.
#![forbid(unsafe_code)]

use engine::Nanos;
use rustix::time::{ClockId, clock_gettime};

/// Now. Read once in a turn.
#[inline]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
