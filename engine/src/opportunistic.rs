//! Opportunistic functions: their calls run in time that nobody with a reserved quota wants.
//!
//! ```text
//!   rate = r0 x S        S follows how busy the workers are: up while they are not, down to 0 while they are
//! ```
//! In: how long workers were busy.  Out: the share S, by which the rates of opportunistic functions are multiplied.
//! Always: S moves once a `WINDOW`, by `GAIN` times the distance of the measured utilisation from `TARGET`: an integral
//! controller, which needs no model of the load. At full load S falls from 1 to 0 in ten windows.
//! Always: a call over this rate waits in its queue, where its deadline ends it; nothing is refused for it.
//! Source: XFaaS (SOSP '23), section 4.6.2: a function's opportunistic limit is r0 x S, and S falls to 0 when workers are
//! over-used.  Its controller is not published; this one is ours.
//! Tests: below, `tests/opportunistic.rs`.

use crate::time::Nanos;

/// How often the share follows what was measured.
pub(crate) const WINDOW: Nanos = Nanos::from_ms(100);
/// The whole, in the units in which shares are counted.
pub(crate) const WHOLE: u64 = 1 << 10;
/// Utilisation at which the share stays: one fifth of the workers' time is left for what comes suddenly.
const TARGET: i64 = WHOLE as i64 * 4 / 5;
/// Of the distance from the target, what the share moves by in a window: 1 / 2.
const GAIN_DIVISOR: i64 = 2;

/// How busy workers are, and what that leaves.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Workers that are busy at once when utilisation is whole.
    capacity: u32,
    busy: u32,
    /// Worker time since the window began, up to `noted_at`.
    busy_ns: u64,
    noted_at: Nanos,
    window_at: Nanos,
    share: u64,
}

impl Idle {
    pub fn new(capacity: u32) -> Idle {
        Idle {
            capacity: capacity.max(1),
            busy: 0,
            busy_ns: 0,
            noted_at: Nanos::ZERO,
            window_at: Nanos::ZERO,
            share: WHOLE,
        }
    }

    /// From now on so many workers are busy.
    #[inline]
    pub fn set_busy(&mut self, now: Nanos, busy: u32) {
        self.note(now);
        self.busy = busy;
    }

    /// What is left for opportunistic calls, of [`WHOLE`].
    pub fn share(&mut self, now: Nanos) -> u64 {
        self.note(now);
        self.share
    }

    fn note(&mut self, now: Nanos) {
        self.busy_ns += u64::from(self.busy) * now.since(self.noted_at).0;
        self.noted_at = self.noted_at.max(now);
        let length = now.since(self.window_at);
        if length >= WINDOW {
            self.end_window(length);
            self.window_at = now;
            self.busy_ns = 0;
        }
    }

    /// After a long silence there is one long window, which counts as the many that it was.
    #[cold]
    fn end_window(&mut self, length: Nanos) {
        let whole = u128::from(self.capacity) * u128::from(length.0);
        let used = (u128::from(self.busy_ns) * u128::from(WHOLE) / whole).min(u128::from(WHOLE)) as i64;
        let windows = (length.0 / WINDOW.0).min(2 * WHOLE) as i64;
        let step = (TARGET - used) / GAIN_DIVISOR * windows;
        self.share = (self.share as i64 + step).clamp(0, WHOLE as i64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share after so many windows with this many busy workers of four.
    fn share_after(idle: &mut Idle, now: &mut Nanos, busy: u32, windows: u64) -> u64 {
        for _ in 0..windows {
            idle.set_busy(*now, busy);
            *now = now.plus(WINDOW);
        }
        idle.share(*now)
    }

    #[test]
    fn the_share_follows_how_busy_the_workers_are() {
        let (mut idle, mut now) = (Idle::new(4), Nanos::from_secs(1));
        assert_eq!(idle.share(now), WHOLE);
        assert_eq!(share_after(&mut idle, &mut now, 4, 11), 0, "nothing is left at full load");
        assert_eq!(share_after(&mut idle, &mut now, 4, 100), 0);
        let some = share_after(&mut idle, &mut now, 3, 2);
        assert!((1..WHOLE / 4).contains(&some), "three of four leave a little, slowly: {some}");
        assert_eq!(share_after(&mut idle, &mut now, 0, 4), WHOLE, "an idle host leaves everything");
    }

    #[test]
    fn a_long_silence_counts_as_the_windows_it_was() {
        let (mut idle, mut now) = (Idle::new(4), Nanos::from_secs(1));
        share_after(&mut idle, &mut now, 4, 20);
        idle.set_busy(now, 0);
        assert_eq!(idle.share(now.plus(Nanos::from_secs(3600))), WHOLE);
    }

    #[test]
    fn a_clock_that_jumps_back_changes_nothing() {
        let mut idle = Idle::new(1);
        idle.set_busy(Nanos::from_secs(10), 1);
        idle.set_busy(Nanos::from_secs(5), 0);
        assert_eq!(idle.share(Nanos::from_secs(10)), WHOLE);
    }
}
