//! The circuit breaker of a function: one that fails most of the time is left alone for a while, then tried carefully.
//!
//! ```text
//!             Trip                       Try
//!   Closed ─────────▶ Open ───────────────────────▶ HalfOpen
//!     ▲                ▲                              │  │
//!     │                └── Relapse (a probe failed) ──┘  │
//!     └───────────────── Recover (all probes went well) ─┘
//! ```
//!
//! In: each call that asks to be admitted, and each verdict on a run: it went well, or it failed (function error, time-out,
//! the death of its worker).  Out: yes, or how long until it is worth asking again.
//! Always: it opens when at least `calls_min` verdicts lie in the window and the failures among them reach
//! `failure_percent`. Open for `open_for`, it refuses everything; half-open it lets `probes_max` calls through, closes
//! when all of them went well, and opens again at the first that failed.
//! Always: a probe that never brings a verdict (cancelled, expired in the queue) blocks nothing for good: `open_for` after
//! the last probe went, another round is let through.
//! Never: counts what is not the function's doing: calls that never began, were cancelled, or were pushed back by
//! something downstream (`backpressure.rs` answers to that). Verdicts on calls that were admitted before the probes say
//! nothing about now and are passed over.
//! Why a window of eight slices and not an average: "half of the last ten seconds" can be said to an operator, and what is
//! older is gone. Why probes are told by their time of admission: while it is open nothing is admitted, so that whatever
//! came later is a probe, and no call needs a mark.
//! Tests: snapshot of every pair in `snapshots/breaker.txt`, below, and `tests/breaker.rs`.

use crate::time::Nanos;

/// What the configuration asks of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSpec {
    /// Failures among a hundred verdicts from which on it opens, 1 to 100.
    pub failure_percent: u8,
    /// Verdicts in the window that are needed for a judgement, at least 1.
    pub calls_min: u32,
    /// How far back it looks.
    pub window: Nanos,
    /// How long it stays open.
    pub open_for: Nanos,
    /// Calls let through to find out whether the function has recovered, at least 1.
    pub probes_max: u32,
}

/// Where a breaker is. See the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls are admitted and judged.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls are admitted, and decide.
    HalfOpen,
}

/// What can happen to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerEvent {
    /// Too many calls of the window failed.
    Trip,
    /// It was open long enough, and a call came.
    Try,
    /// Every probe went well.
    Recover,
    /// A probe failed.
    Relapse,
}

/// An event in a state that has no place for it: our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a breaker that is {from:?} cannot {event:?}")]
pub struct IllegalBreaker {
    /// The state it was in.
    pub from: BreakerState,
    /// What was asked of it.
    pub event: BreakerEvent,
}

/// The one table of a breaker's life.
pub const fn on_breaker_event(
    from: BreakerState,
    event: BreakerEvent,
) -> Result<BreakerState, IllegalBreaker> {
    use {BreakerEvent as E, BreakerState as S};
    Ok(match (from, event) {
        (S::Closed, E::Trip) => S::Open,
        (S::Open, E::Try) => S::HalfOpen,
        (S::HalfOpen, E::Recover) => S::Closed,
        (S::HalfOpen, E::Relapse) => S::Open,
        (from, event) => return Err(IllegalBreaker { from, event }),
    })
}

/// The breaker of one function.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    spec: BreakerSpec,
    state: BreakerState,
    /// When it opened; half-open: when this round of probes began.
    since: Nanos,
    /// Of this round: let through, when the last of them was, and how many went well.
    probes: u32,
    probed_at: Nanos,
    probes_well: u32,
    window: Window,
}

impl Breaker {
    pub fn new(spec: BreakerSpec) -> Breaker {
        Breaker {
            spec,
            state: BreakerState::Closed,
            since: Nanos::ZERO,
            probes: 0,
            probed_at: Nanos::ZERO,
            probes_well: 0,
            window: Window::new(spec.window),
        }
    }

    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether a call may be admitted; if not, how long until another answer is possible.
    pub fn admit(&mut self, now: Nanos) -> Result<(), Nanos> {
        let (rest_until, is_round_over) = match self.state {
            BreakerState::Closed => return Ok(()),
            BreakerState::Open => (self.since.plus(self.spec.open_for), true),
            BreakerState::HalfOpen => {
                (self.probed_at.plus(self.spec.open_for), self.probes >= self.spec.probes_max)
            }
        };
        if is_round_over {
            if now < rest_until {
                return Err(rest_until.since(now));
            }
            self.begin_round(now);
        }
        self.probes += 1;
        self.probed_at = now;
        Ok(())
    }

    /// Nothing is known against it: every call is admitted, and one that went well changes nothing but a count.
    pub fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// So many runs went well, while it is closed.
    pub fn note_well(&mut self, now: Nanos, calls: u32) {
        debug_assert!(self.is_closed(), "a probe is judged alone");
        self.window.note(now, Verdicts { calls, failures: 0 });
    }

    /// A run of a call that was admitted at this time went well or failed. True: it has tripped, or relapsed.
    pub fn note(&mut self, now: Nanos, admitted_at: Nanos, has_failed: bool) -> bool {
        match self.state {
            BreakerState::Closed => {
                let verdict = Verdicts { calls: 1, failures: u32::from(has_failed) };
                let verdicts = self.window.note(now, verdict);
                let has_tripped = has_failed
                    && verdicts.calls >= self.spec.calls_min
                    && u64::from(verdicts.failures) * 100
                        >= u64::from(self.spec.failure_percent) * u64::from(verdicts.calls);
                if has_tripped {
                    self.on(BreakerEvent::Trip);
                    self.since = now;
                }
                has_tripped
            }
            BreakerState::HalfOpen if admitted_at >= self.since => {
                if has_failed {
                    self.on(BreakerEvent::Relapse);
                    self.since = now;
                } else {
                    self.probes_well += 1;
                    if self.probes_well >= self.spec.probes_max {
                        self.on(BreakerEvent::Recover);
                        self.window = Window::new(self.spec.window);
                    }
                }
                has_failed
            }
            BreakerState::Open | BreakerState::HalfOpen => false,
        }
    }

    fn begin_round(&mut self, now: Nanos) {
        if self.state == BreakerState::Open {
            self.on(BreakerEvent::Try);
        }
        self.since = now;
        self.probes = 0;
        self.probes_well = 0;
    }

    fn on(&mut self, event: BreakerEvent) {
        match on_breaker_event(self.state, event) {
            Ok(state) => self.state = state,
            Err(illegal) => panic!("{illegal}"),
        }
    }
}

/// Verdicts, and how many of them were failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Verdicts {
    calls: u32,
    failures: u32,
}

/// Each slice is an eighth of the window: what is counted is at most so much older than it should be.
const SLICE_COUNT: usize = 8;

/// The verdicts of the last while.
#[derive(Clone, Debug)]
struct Window {
    slice: Nanos,
    /// The slice that `now` lies in, counted from the start of the clock.
    newest: u64,
    slices: [Verdicts; SLICE_COUNT],
}

impl Window {
    fn new(length: Nanos) -> Window {
        let slice = Nanos((length.0 / SLICE_COUNT as u64).max(1));
        Window { slice, newest: 0, slices: [Verdicts::default(); SLICE_COUNT] }
    }

    /// Counts verdicts, and gives all of the window.
    fn note(&mut self, now: Nanos, verdicts: Verdicts) -> Verdicts {
        let number = now.0 / self.slice.0;
        // At most one round: after a long silence every slice is old.
        for passed in (self.newest + 1..=number).rev().take(SLICE_COUNT) {
            self.slices[passed as usize % SLICE_COUNT] = Verdicts::default();
        }
        self.newest = self.newest.max(number);
        let slice = &mut self.slices[self.newest as usize % SLICE_COUNT];
        slice.calls = slice.calls.saturating_add(verdicts.calls);
        slice.failures = slice.failures.saturating_add(verdicts.failures);
        self.slices.iter().fold(Verdicts::default(), |sum, slice| Verdicts {
            calls: sum.calls.saturating_add(slice.calls),
            failures: sum.failures.saturating_add(slice.failures),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    const SPEC: BreakerSpec = BreakerSpec {
        failure_percent: 50,
        calls_min: 4,
        window: Nanos::from_secs(8),
        open_for: Nanos::from_secs(5),
        probes_max: 2,
    };

    /// A breaker that has just opened.
    fn tripped(now: Nanos) -> Breaker {
        let mut breaker = Breaker::new(SPEC);
        let trips = (0..SPEC.calls_min).filter(|_| breaker.note(now, now, true)).count();
        assert_eq!((trips, breaker.state()), (1, BreakerState::Open));
        breaker
    }

    #[test]
    fn every_pair_of_state_and_event_is_as_the_snapshot_says() {
        use {BreakerEvent as E, BreakerState as S};
        let mut table =
            String::from("# from + event = to. Every pair; `-` means that the pair is our bug.\n");
        for from in [S::Closed, S::Open, S::HalfOpen] {
            for event in [E::Trip, E::Try, E::Recover, E::Relapse] {
                let to =
                    on_breaker_event(from, event).map_or_else(|_| "-".to_owned(), |to| format!("{to:?}"));
                table.push_str(&format!("{:<9}+ {:<8}= {to}\n", format!("{from:?}"), format!("{event:?}")));
            }
        }
        snapshot::check("breaker.txt", &table);
    }

    #[test]
    fn it_opens_by_the_rate_of_failures_and_not_before_there_are_enough_calls() {
        // Each verdict is a second before the next; `x` failed, `.` went well. Expect: open after the last one, or not.
        let cases = [
            ("xxx", false),
            ("xxxx", true),
            ("....", false),
            ("...xxx", true),
            ("....xxx", false),
            ("....xxxx", true),
            // The window has forgotten the first failures by then.
            ("xx.........xx", false),
        ];
        for (verdicts, is_open) in cases {
            let mut breaker = Breaker::new(SPEC);
            for (second, verdict) in (100..).zip(verdicts.chars()) {
                let now = Nanos::from_secs(second);
                breaker.note(now, now, verdict == 'x');
            }
            assert_eq!(breaker.state() == BreakerState::Open, is_open, "{verdicts}");
        }
    }

    #[test]
    fn open_it_refuses_and_says_for_how_long() {
        let opened_at = Nanos::from_secs(100);
        let mut breaker = tripped(opened_at);
        assert_eq!(breaker.admit(opened_at), Err(SPEC.open_for));
        assert_eq!(breaker.admit(opened_at.plus(Nanos::from_secs(3))), Err(Nanos::from_secs(2)));
        assert!(!breaker.note(opened_at, opened_at, true), "calls from before change nothing");
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn half_open_it_lets_few_through_and_closes_when_all_of_them_went_well() {
        let opened_at = Nanos::from_secs(100);
        let now = opened_at.plus(SPEC.open_for);
        let mut breaker = tripped(opened_at);
        assert_eq!([breaker.admit(now), breaker.admit(now)], [Ok(()), Ok(())]);
        assert_eq!(breaker.admit(now), Err(SPEC.open_for), "the round is full");
        breaker.note(now, opened_at, true);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "an old call says nothing about now");
        breaker.note(now, now, false);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.note(now, now, false);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(!breaker.note(now, now, true), "what was before it opened is forgotten");
    }

    #[test]
    fn half_open_it_opens_again_at_the_first_failure() {
        let now = Nanos::from_secs(105);
        let mut breaker = tripped(Nanos::from_secs(100));
        breaker.admit(now).expect("a probe");
        assert!(breaker.note(now, now, true));
        assert_eq!(breaker.admit(now), Err(SPEC.open_for));
    }

    #[test]
    fn probes_without_a_verdict_are_replaced_after_a_while() {
        let now = Nanos::from_secs(105);
        let mut breaker = tripped(Nanos::from_secs(100));
        breaker.admit(now).expect("a probe");
        breaker.admit(now).expect("a probe");
        let later = now.plus(SPEC.open_for);
        assert_eq!(breaker.admit(later), Ok(()));
        breaker.note(later, now, true);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "the lost round has no say any more");
    }

    #[test]
    fn a_jump_of_the_clock_leaves_no_old_slice_behind() {
        let mut window = Window::new(Nanos::from_secs(8));
        let well = Verdicts { calls: 1, failures: 0 };
        window.note(Nanos::from_secs(1), Verdicts { calls: 1, failures: 1 });
        let far = window.note(Nanos::from_secs(1 << 40), well);
        assert_eq!(far, well);
        let back = window.note(Nanos::from_secs(3), well);
        assert_eq!(back, Verdicts { calls: 2, failures: 0 }, "a step back counts in the newest slice");
    }
}
