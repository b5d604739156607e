//! Slow start: a function that is called more and more may not grow faster than what it calls can follow.
//!
//! In: the time of each call.  Out: yes, or how long until the window ends.
//! Always: in each window of time a function has at most the larger of `calls_min` and what it had in the window before,
//! grown by `growth_percent`. A window without calls in between starts it from `calls_min` again.
//! Source: XFaaS (SOSP '23), section 4.6.3, with its constants as defaults: one minute, 100 calls, 20 %.
//! Tests: below.

use crate::time::Nanos;

/// How fast the calls of a function may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// The length of a window.
    pub window: Nanos,
    /// Calls that a window may always have, at least 1.
    pub calls_min: u32,
    /// What it may have beyond the calls of the window before.
    pub growth_percent: u32,
}

/// The calls of a function in this window, and how many they may be.
#[derive(Debug)]
pub(crate) struct Ramp {
    spec: SlowStart,
    began_at: Nanos,
    calls: u32,
    calls_max: u32,
}

impl Ramp {
    pub fn new(spec: SlowStart) -> Ramp {
        Ramp { spec, began_at: Nanos::ZERO, calls: 0, calls_max: spec.calls_min }
    }

    /// Whether the window has room for a call, or after how long the next one begins.
    pub fn ask(&self, now: Nanos) -> Result<(), Nanos> {
        let is_full = self.calls >= self.calls_max && now.since(self.began_at) < self.spec.window;
        if is_full { Err(self.began_at.plus(self.spec.window).since(now)) } else { Ok(()) }
    }

    /// Counts a call for which there is room.
    pub fn take(&mut self, now: Nanos) {
        self.take_many(now, 1);
    }

    /// For how many calls the window has room, up to `wanted`.
    pub fn room(&mut self, now: Nanos, wanted: u32) -> u32 {
        self.turn_over(now);
        self.calls_max.saturating_sub(self.calls).min(wanted)
    }

    /// Counts so many calls for which there is room.
    pub fn take_many(&mut self, now: Nanos, count: u32) {
        self.turn_over(now);
        self.calls += count;
    }

    /// Begins the window that `now` lies in, if that is another one. A window in which nothing was counted is as good as none.
    fn turn_over(&mut self, now: Nanos) {
        let age = now.since(self.began_at);
        if age >= self.spec.window {
            let is_next = age.0 / self.spec.window.0.max(1) == 1;
            self.begin_window(now, if is_next { self.calls } else { 0 });
        }
    }

    fn begin_window(&mut self, now: Nanos, calls_before: u32) {
        let grown = u64::from(calls_before) * (100 + u64::from(self.spec.growth_percent)) / 100;
        self.calls_max = u32::try_from(grown).unwrap_or(u32::MAX).max(self.spec.calls_min);
        self.calls = 0;
        // On the grid of the first window, so that a window is not longer for who calls seldom.
        let age = now.since(self.began_at).0;
        self.began_at = Nanos(now.0 - age % self.spec.window.0.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Nanos = Nanos::from_secs(60);

    fn call(ramp: &mut Ramp, now: Nanos) -> Result<(), Nanos> {
        ramp.ask(now).inspect(|()| ramp.take(now))
    }

    /// How many of endless calls pass in each window.
    fn passed(ramp: &mut Ramp, window: u64) -> u32 {
        passed_at(ramp, Nanos(window * MINUTE.0 + 1))
    }

    fn passed_at(ramp: &mut Ramp, now: Nanos) -> u32 {
        (0..100_000).take_while(|_| call(ramp, now).is_ok()).count() as u32
    }

    #[test]
    fn calls_grow_by_a_fifth_a_window_from_what_is_always_allowed() {
        let mut ramp = Ramp::new(SlowStart { window: MINUTE, calls_min: 100, growth_percent: 20 });
        let windows: Vec<u32> = (1..6).map(|window| passed(&mut ramp, window)).collect();
        assert_eq!(windows, [100, 120, 144, 172, 206]);
    }

    #[test]
    fn a_silent_window_starts_the_ramp_again() {
        let mut ramp = Ramp::new(SlowStart { window: MINUTE, calls_min: 100, growth_percent: 100 });
        (1..5).for_each(|window| _ = passed(&mut ramp, window));
        assert_eq!(passed(&mut ramp, 5), 1600);
        assert_eq!(passed(&mut ramp, 7), 100);
    }

    #[test]
    fn a_look_at_the_room_changes_nothing() {
        let spec = SlowStart { window: MINUTE, calls_min: 10, growth_percent: 100 };
        let (mut looked_at, mut left_alone) = (Ramp::new(spec), Ramp::new(spec));
        for window in [1, 2, 3, 5, 6, 9] {
            let now = Nanos(window * MINUTE.0 + 1);
            looked_at.room(now.plus(Nanos(MINUTE.0 / 2)), 5);
            let later = now.plus(Nanos(MINUTE.0 * 2 / 3));
            assert_eq!(looked_at.room(later, u32::MAX), passed_at(&mut left_alone, later));
            looked_at.take_many(later, left_alone.calls);
        }
    }

    #[test]
    fn who_is_refused_is_told_when_the_window_ends() {
        let mut ramp = Ramp::new(SlowStart { window: MINUTE, calls_min: 1, growth_percent: 0 });
        let now = MINUTE.plus(Nanos::from_secs(20));
        assert_eq!(call(&mut ramp, now), Ok(()));
        assert_eq!(call(&mut ramp, now), Err(Nanos::from_secs(40)));
    }
}
