//! How soon a program is started again that failed before it had answered anything: at once the first time, then after a wait
//! that doubles, so that a broken program costs its callers an error and the machine little.
//!
//! Always: same events, same waits; the clock is the caller's.

use std::time::{Duration, Instant};

use crate::limits::{PAUSE_MAX, PAUSE_MIN};

/// The wait of one relay.
#[derive(Debug, Default)]
pub struct Pause {
    failure_count: u32,
    until: Option<Instant>,
}

impl Pause {
    /// An instance answered a call: whatever comes next begins anew.
    pub fn note_answer(&mut self) {
        *self = Pause::default();
    }

    /// An instance failed before its first answer.
    pub fn note_failure(&mut self, now: Instant) {
        self.failure_count = self.failure_count.saturating_add(1);
        self.until = match self.failure_count {
            1 => None,
            count => Some(now + PAUSE_MIN.saturating_mul(1 << (count - 2).min(16)).min(PAUSE_MAX)),
        };
    }

    /// How long no other one may be started.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_ends_with_an_answer() {
        let mut pause = Pause::default();
        let now = Instant::now();
        assert_eq!(pause.left(now), None);
        pause.note_failure(now);
        assert_eq!(pause.left(now), None, "the first time may be chance");
        let waits: Vec<_> = (0..9)
            .map(|_| {
                pause.note_failure(now);
                pause.left(now).unwrap().as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(pause.left(now + PAUSE_MAX), None);
        pause.note_answer();
        pause.note_failure(now);
        assert_eq!(pause.left(now), None);
    }

    #[test]
    fn any_number_of_failures_is_taken() {
        let mut pause = Pause { failure_count: u32::MAX, until: None };
        let now = Instant::now();
        pause.note_failure(now);
        assert_eq!(pause.left(now), Some(PAUSE_MAX));
    }
}
