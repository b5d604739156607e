//! What a shard does after a turn that found nothing: look again at once, offer its core to others, or sleep.
//!
//! ```text
//!            work                                                  work, or a timer
//!   busy ◀────────── looking again (hot, or yielding) ── window over ──▶ asleep ──┐
//!     └─ empty turn ─▶ ...                                                ▲───────┘
//! ```
//! In: the time, whether turns found work, who else wants a core.  Out: a [`Rest`] for `shard.rs`.
//! Always: adaptive never looks for longer than `spin`. With `spin` at what a wake costs, it never pays more than twice
//! what a strategy would pay that knows the future (Karlin, Li, Manasse, Owicki, "Empirical studies of competitive
//! spinning for a shared-memory multiprocessor", SOSP 1991).
//! Never: reads a clock or makes a system call.
//! Why the window also shrinks: that bound holds for each wait by itself. Where waits have lately all been long, looking
//! first only adds to each; where they have been short, it pays every time.
//! Figures: docs/decisions/0012-idle.md.
#![forbid(unsafe_code)]

use engine::Nanos;

/// Empty turns before the core is offered to others, where there are enough cores: about 10 us, less than a wake.
const HOT_TURNS: u32 = 64;
/// The window never shrinks below this share of its bound: enough to notice that waits have become short again.
const WINDOW_SHARE_MIN: u64 = 16;
/// How long `spin` goes on looking after the last call was answered.
pub const SPIN_LINGER: Nanos = Nanos::from_secs(1);

/// The option `idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleStrategy {
    /// Looks for at most the option `spin`, less where that has not been worth it.
    Adaptive,
    /// Looks for as long as a call is unanswered, and for [`SPIN_LINGER`] after the last work.
    Spin,
    /// Sleeps after the first empty turn.
    Park,
}

/// What to do before the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Take the next turn at once.
    Hot,
    /// Let others run on this core first, if there are any.
    Yield,
    /// Sleep in the kernel.
    Sleep,
}

/// What is known of the others, without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Processors this process may use.
    pub processor_count: u32,
    /// Who may want one now: shards, workers with calls, clients on this host.
    pub parties: u32,
    /// A call is unanswered.
    pub is_call_in_flight: bool,
}

/// One shard's idling.
#[derive(Debug)]
pub struct Idle {
    strategy: IdleStrategy,
    /// The longest to look after the last work; stands for what a wake costs.
    spin: Nanos,
    /// How long to look at present; at most `spin`.
    window: Nanos,
    worked_at: Nanos,
    empty_turns: u32,
    has_slept: bool,
}

impl Idle {
    /// Begins as if it had just worked.
    pub fn new(strategy: IdleStrategy, spin: Nanos, now: Nanos) -> Idle {
        Idle { strategy, spin, window: spin, worked_at: now, empty_turns: 0, has_slept: false }
    }

    /// The last turn that found work began then.
    pub fn worked_at(&self) -> Nanos {
        self.worked_at
    }

    /// The turn that began at `now` found work.
    #[inline]
    pub fn on_work(&mut self, now: Nanos) {
        if self.empty_turns > 0 {
            self.learn(now.since(self.worked_at));
        }
        self.worked_at = now;
        self.empty_turns = 0;
        self.has_slept = false;
    }

    /// The turn that began at `now` found nothing.
    #[inline]
    pub fn next(&mut self, now: Nanos, around: Surroundings) -> Rest {
        self.empty_turns = self.empty_turns.saturating_add(1);
        let quiet = now.since(self.worked_at);
        let is_over = match self.strategy {
            IdleStrategy::Park => true,
            IdleStrategy::Spin => !around.is_call_in_flight && quiet >= SPIN_LINGER,
            IdleStrategy::Adaptive => quiet >= self.window,
        };
        if is_over {
            self.has_slept = true;
            return Rest::Sleep;
        }
        // What we wait for may be waiting for this very core.
        let is_scarce = around.parties > around.processor_count;
        if is_scarce || self.empty_turns >= HOT_TURNS { Rest::Yield } else { Rest::Hot }
    }

    /// A wait is over. It counts as it would have been for somebody awake.
    fn learn(&mut self, waited: Nanos) {
        let wake = if self.has_slept { self.spin.0 } else { 0 };
        let was_worth_looking = waited.0.saturating_sub(wake) <= self.spin.0;
        self.window = if was_worth_looking {
            Nanos((self.window.0 * 2).min(self.spin.0))
        } else {
            Nanos((self.window.0 / 2).max(self.spin.0 / WINDOW_SHARE_MIN))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN: Nanos = Nanos::from_us(32);
    const ALONE: Surroundings = Surroundings { processor_count: 4, parties: 1, is_call_in_flight: false };
    const CROWDED: Surroundings = Surroundings { processor_count: 2, parties: 3, is_call_in_flight: true };

    fn at(us: u64) -> Nanos {
        Nanos::from_us(us)
    }

    fn idle(strategy: IdleStrategy) -> Idle {
        Idle::new(strategy, SPIN, at(0))
    }

    /// Work after each of `waits_us`, and an empty turn right before it; returns the window that follows.
    fn window_after(waits_us: &[u64]) -> Nanos {
        let mut idle = idle(IdleStrategy::Adaptive);
        let mut now = at(0);
        for wait in waits_us {
            now = now.plus(at(*wait));
            let _ = idle.next(now, ALONE);
            idle.on_work(now);
            assert!(idle.window <= SPIN, "never longer than it may");
            assert!(idle.window.0 >= SPIN.0 / WINDOW_SHARE_MIN, "never blind");
        }
        idle.window
    }

    #[test]
    fn park_sleeps_after_the_first_empty_turn() {
        let around = Surroundings { is_call_in_flight: true, ..ALONE };
        assert_eq!(idle(IdleStrategy::Park).next(at(0), around), Rest::Sleep);
    }

    #[test]
    fn spin_looks_while_a_call_is_in_flight_and_a_second_longer() {
        let mut idle = idle(IdleStrategy::Spin);
        let calling = Surroundings { is_call_in_flight: true, ..ALONE };
        assert_eq!(idle.next(at(0), ALONE), Rest::Hot);
        assert_ne!(idle.next(at(5_000_000), calling), Rest::Sleep, "however long the call takes");
        assert_ne!(idle.next(at(999_999), ALONE), Rest::Sleep);
        assert_eq!(idle.next(at(1_000_000), ALONE), Rest::Sleep);
        idle.on_work(at(1_000_100));
        assert_ne!(idle.next(at(2_000_000), ALONE), Rest::Sleep, "counted from the last work");
    }

    #[test]
    fn adaptive_sleeps_when_it_has_looked_for_as_long_as_it_may() {
        let mut idle = idle(IdleStrategy::Adaptive);
        assert_eq!(idle.next(at(1), ALONE), Rest::Hot);
        assert_ne!(idle.next(at(31), ALONE), Rest::Sleep);
        assert_eq!(idle.next(at(32), ALONE), Rest::Sleep);
        assert_eq!(idle.next(at(40), ALONE), Rest::Sleep, "a timer is no reason to look again");
    }

    #[test]
    fn the_core_is_offered_at_once_where_cores_are_scarce_and_after_a_while_elsewhere() {
        let mut crowded = idle(IdleStrategy::Adaptive);
        assert_eq!(crowded.next(at(0), CROWDED), Rest::Yield);
        let mut alone = idle(IdleStrategy::Adaptive);
        let rests: Vec<_> = (0..HOT_TURNS).map(|_| alone.next(at(1), ALONE)).collect();
        let hot = rests.iter().filter(|rest| **rest == Rest::Hot).count();
        assert_eq!(hot, HOT_TURNS as usize - 1);
        assert_eq!(rests.last(), Some(&Rest::Yield));
        alone.on_work(at(2));
        assert_eq!(alone.next(at(2), ALONE), Rest::Hot, "counted from the last work");
    }

    #[test]
    fn the_window_halves_while_waits_are_long_and_grows_back_when_they_are_short() {
        assert_eq!(window_after(&[10_000]), at(16));
        assert_eq!(window_after(&[10_000, 10_000]), at(8));
        assert_eq!(window_after(&[10_000; 20]), at(2), "a sixteenth of the bound");
        // Given: from 2 us, one microsecond of waiting at a time.
        let mut waits = vec![10_000; 20];
        waits.extend([1, 1]);
        assert_eq!(window_after(&waits), at(8));
        waits.extend([1; 10]);
        assert_eq!(window_after(&waits), SPIN, "up to the bound and no further");
    }

    #[test]
    fn a_wait_that_was_slept_through_counts_without_the_wake_that_ended_it() {
        // Given: a window of 2 us, so that every wait here is slept through. Expect: 30 us of waiting and 32 of waking
        // would have been worth looking for, 40 and 32 not.
        let mut long = vec![10_000; 20];
        long.push(62);
        assert_eq!(window_after(&long), at(4));
        long.push(72);
        assert_eq!(window_after(&long), at(2));
    }

    #[test]
    fn turns_that_follow_each_other_without_a_gap_teach_nothing() {
        let mut idle = idle(IdleStrategy::Adaptive);
        idle.window = at(4);
        idle.on_work(at(100));
        idle.on_work(at(200));
        assert_eq!(idle.window, at(4));
    }
}
