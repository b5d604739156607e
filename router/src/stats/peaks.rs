//! How many calls each function answered in its busiest ten seconds.
//!
//! In: what was counted so far, whenever counters are published.  Out: the largest number of one window.
//! Always: a window is closed by the first look ten seconds or more after it was opened. A shard with nothing to do sleeps and does not
//! look; what such a window counts came before the sleep, and with the call that ended it.
//! Never: on the path of a call.
#![forbid(unsafe_code)]

use engine::Nanos;

use super::FunctionStats;

/// Long against one burst, short against a rush hour.
pub const PEAK_WINDOW: Nanos = Nanos::from_secs(10);

/// See above.
#[derive(Debug, Default)]
pub struct Peaks {
    window_at: Nanos,
    /// By function: answers until the window was opened, and the most of one.
    counts: Vec<(u64, u64)>,
}

impl Peaks {
    /// Time passed.
    pub fn look(&mut self, now: Nanos, functions: &[FunctionStats]) {
        if now.since(self.window_at) < PEAK_WINDOW {
            return;
        }
        self.window_at = now;
        self.counts.resize(functions.len(), (0, 0));
        for ((before, most), function) in self.counts.iter_mut().zip(functions) {
            let answered = function.answered_ok + function.answered_error;
            *most = (*most).max(answered - *before);
            *before = answered;
        }
    }

    /// The most answers of a function in one window.
    pub fn of(&self, index: usize) -> u64 {
        self.counts.get(index).map_or(0, |(_, most)| *most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_window_is_remembered_and_what_was_before_it_does_not_count() {
        let mut peaks = Peaks::default();
        let mut function = FunctionStats::default();
        let mut now = Nanos::from_secs(100);
        let mut answer = |peaks: &mut Peaks, seconds, ok, errors| {
            function.answered_ok += ok;
            function.answered_error += errors;
            now = now.plus(Nanos::from_secs(seconds));
            peaks.look(now, &[function]);
            peaks.of(0)
        };
        assert_eq!(answer(&mut peaks, 1, 5, 0), 5);
        assert_eq!(answer(&mut peaks, 9, 8, 0), 5, "the window is still open");
        assert_eq!(answer(&mut peaks, 1, 0, 4), 12);
        assert_eq!(answer(&mut peaks, 10, 11, 0), 12);
        assert_eq!(answer(&mut peaks, 3600, 13, 0), 13);
        assert_eq!(peaks.of(1), 0, "a function that came since");
    }
}
