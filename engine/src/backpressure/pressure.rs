//! The limits of one function on account of its downstreams: additive increase, multiplicative decrease.
//!
//! ```text
//!   window   refusals are summed          over: lowered if they reached the threshold, else grown
//!            lowered before its end, but not in its first eighth: then another window begins
//!   limit    none ── refusals ──▶ half of what was measured ── windows without ──▶ grows ── rate of before, nobody held up ──▶ none
//! ```
//! In: signals, the number of pushes so far, the time.  Out: whether a call may be pushed, how long one waits.
//! Always: the bucket has the rate of the lowest limit; windows lie on the grid of the moment in which the first began.
//! Always: what nobody looked at for several windows is over: refusals of long ago lower nothing.
//! Never: knows of calls or workers, or reads a clock.  Tests: `tests/backpressure.rs`.

use protocol::DownstreamName;

use super::{BackpressureSpec, DownstreamView, Signal};
use crate::limits::DOWNSTREAMS_MAX;
use crate::rate::{Rate, TokenBucket};
use crate::time::Nanos;

/// A limit is lowered in the first part of a window too, but not in its first eighth, of which no rate can be told.
const WINDOW_PART_MIN: u64 = 8;
/// A limited function is paced within a hundredth of a second.
const BURSTS_PER_SECOND: u32 = 100;

/// The downstreams of one function.
#[derive(Debug)]
pub(crate) struct Pressure {
    pub(super) spec: BackpressureSpec,
    downstreams: Vec<Downstream>,
    /// The lowest limit. Means nothing while there is none.
    bucket: TokenBucket,
    strictest: Option<u32>,
}

#[derive(Debug)]
struct Downstream {
    name: DownstreamName,
    refusals: u64,
    window: Window,
    /// The rate of the window before.
    rate_before: u32,
    limit: Option<Limit>,
}

/// What happened since this window began.
#[derive(Clone, Copy, Debug)]
struct Window {
    began_at: Nanos,
    /// Of the function, when it began.
    pushes: u64,
    refusals: u64,
    /// The limit was what calls waited for.
    has_held_up: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    per_second: u32,
    /// The rate before the trouble.
    before: u32,
    /// A whole window after it was lowered last.
    may_be_lowered_at: Nanos,
}

impl Pressure {
    pub fn new(spec: BackpressureSpec) -> Pressure {
        Pressure {
            spec,
            downstreams: Vec::with_capacity(DOWNSTREAMS_MAX),
            bucket: TokenBucket::new(Rate::UNBOUNDED),
            strictest: None,
        }
    }

    pub fn is_limiting(&self) -> bool {
        self.strictest.is_some()
    }

    pub fn views(&self) -> impl ExactSizeIterator<Item = DownstreamView> {
        self.downstreams.iter().map(|it| DownstreamView {
            name: it.name,
            per_second: it.limit.map(|limit| limit.per_second),
            refusals: it.refusals,
        })
    }

    /// The function, pushed so often so far, was pushed back.
    pub(super) fn note(&mut self, now: Nanos, pushes: u64, signal: Signal) -> Noted {
        let mut lowered = self.advance(now, pushes);
        let spec = self.spec;
        let mut is_crowded = false;
        let place = self.place_of(now, pushes, signal.downstream).unwrap_or_else(|| {
            is_crowded = true;
            let limits =
                self.downstreams.iter().map(|it| it.limit.map_or(u32::MAX, |limit| limit.per_second));
            limits.enumerate().min_by_key(|(_, per_second)| *per_second).map_or(0, |(place, _)| place)
        });
        let downstream = &mut self.downstreams[place];
        downstream.refusals += u64::from(signal.severity);
        downstream.window.refusals += u64::from(signal.severity);
        let length = now.since(downstream.window.began_at);
        let is_lowered = downstream.window.refusals >= u64::from(spec.threshold)
            && length.0 >= spec.window.0 / WINDOW_PART_MIN
            && downstream.limit.is_none_or(|limit| now >= limit.may_be_lowered_at);
        if is_lowered {
            downstream.lower(now, pushes, &spec);
            self.follow_strictest();
            lowered += 1;
        }
        Noted { lowered, is_crowded }
    }

    /// Where this downstream stands; none if there is no room for it.
    fn place_of(&mut self, now: Nanos, pushes: u64, name: DownstreamName) -> Option<usize> {
        if let Some(place) = self.downstreams.iter().position(|it| it.name == name) {
            return Some(place);
        }
        let fresh =
            Downstream { name, refusals: 0, window: Window::new(now, pushes), rate_before: 0, limit: None };
        if self.downstreams.len() < DOWNSTREAMS_MAX {
            self.downstreams.push(fresh);
            return Some(self.downstreams.len() - 1);
        }
        let is_over = |it: &Downstream| it.limit.is_none() && it.window.refusals == 0;
        let place = self.downstreams.iter().position(is_over)?;
        self.downstreams[place] = fresh;
        Some(place)
    }

    /// Ends the windows whose time has come. Returns how many limits were lowered by that.
    pub fn advance(&mut self, now: Nanos, pushes: u64) -> u32 {
        let spec = self.spec;
        let is_due = |it: &Downstream| now.since(it.window.began_at) >= spec.window;
        if !self.downstreams.iter().any(is_due) {
            return 0;
        }
        let mut lowered = 0;
        for downstream in self.downstreams.iter_mut().filter(|it| is_due(it)) {
            lowered += u32::from(downstream.end_windows(now, pushes, &spec));
        }
        self.follow_strictest();
        lowered
    }

    /// When the next window of a limit is over; never while there is none.
    pub fn next_window(&self) -> Nanos {
        let limiting = self.downstreams.iter().filter(|it| it.limit.is_some());
        let ends = limiting.map(|it| it.window.began_at.plus(self.spec.window));
        ends.min().unwrap_or(Nanos::NEVER)
    }

    fn follow_strictest(&mut self) {
        let lowest = self.downstreams.iter().filter_map(|it| it.limit).map(|limit| limit.per_second).min();
        if let Some(per_second) = lowest
            && self.strictest != lowest
        {
            self.bucket.set_rate(Rate { per_second, burst: burst_of(per_second) });
        }
        self.strictest = lowest;
    }

    /// Whether one more call may be pushed; if not, after how long this is worth asking again.
    pub fn ask(&mut self, now: Nanos) -> Result<(), Nanos> {
        let wait = self.wait(now);
        if wait == Nanos::ZERO {
            return Ok(());
        }
        for downstream in &mut self.downstreams {
            if downstream.limit.is_some_and(|limit| Some(limit.per_second) == self.strictest) {
                downstream.window.has_held_up = true;
            }
        }
        Err(wait)
    }

    /// A call is pushed that was let through.
    pub fn take(&mut self, now: Nanos) {
        if self.is_limiting() {
            debug_assert_eq!(self.bucket.ask(now), Ok(()), "it was asked before");
            self.bucket.take(now);
        }
    }

    fn wait(&self, now: Nanos) -> Nanos {
        self.strictest.map_or(Nanos::ZERO, |_| self.bucket.wait(now))
    }

    /// How long a call has to wait behind `ahead` others, if the limit stays as it is.
    pub fn wait_behind(&self, now: Nanos, ahead: u32) -> Nanos {
        self.strictest.map_or(Nanos::ZERO, |per_second| self.wait(now).plus(length_of(ahead, per_second)))
    }

    /// The same at best: limits grow without a stop for `remaining`, and those that may be dropped by then are none.
    pub fn least_wait_behind(&self, ahead: u32, remaining: Nanos) -> Nanos {
        let windows = remaining.0 / self.spec.window.0.max(1) + 1;
        let highest = |limit: Limit| {
            let grown = limit.grown(windows, &self.spec);
            (grown < limit.before).then_some(grown)
        };
        let lowest = self.downstreams.iter().filter_map(|it| it.limit.and_then(highest)).min();
        // What may be pushed at once is no wait.
        lowest.map_or(Nanos::ZERO, |rate| length_of(ahead.saturating_sub(burst_of(rate)), rate))
    }

    /// When who was just pushed back should come again: the limit may be another one then, and those who wait be gone.
    pub fn advice(&self, now: Nanos, downstream: DownstreamName, queued: u32) -> Nanos {
        let windows = self.downstreams.iter().filter(|it| it.name == downstream).map(|it| it.window.began_at);
        let rest = windows.map(|began_at| began_at.plus(self.spec.window).since(now)).max();
        rest.unwrap_or(self.spec.window).max(self.wait_behind(now, queued))
    }

    pub fn invariants(&self) {
        assert!(self.downstreams.len() <= DOWNSTREAMS_MAX, "downstreams");
        let limits = || self.downstreams.iter().filter_map(|it| it.limit);
        assert!(limits().all(|limit| limit.per_second >= 1), "a limit that lets nothing through");
        assert_eq!(self.strictest, limits().map(|limit| limit.per_second).min(), "the lowest limit");
        for (place, downstream) in self.downstreams.iter().enumerate() {
            let earlier = self.downstreams.iter().take(place);
            assert!(earlier.into_iter().all(|it| it.name != downstream.name), "{} twice", downstream.name);
        }
    }
}

/// What a signal did.
pub(super) struct Noted {
    /// Limits that it lowered, or that windows did which were over by then.
    pub lowered: u32,
    /// It counted for another downstream.
    pub is_crowded: bool,
}

impl Window {
    fn new(began_at: Nanos, pushes: u64) -> Window {
        Window { began_at, pushes, refusals: 0, has_held_up: false }
    }

    /// How often the function was pushed, a second.
    fn rate(&self, now: Nanos, pushes: u64) -> u32 {
        let length_ns = u128::from(now.since(self.began_at).0.max(1));
        let count = u128::from(pushes.saturating_sub(self.pushes));
        u32::try_from(count * 1_000_000_000 / length_ns).unwrap_or(u32::MAX)
    }
}

impl Downstream {
    /// One window is over, or more if nobody looked. True: that lowered the limit.
    fn end_windows(&mut self, now: Nanos, pushes: u64, spec: &BackpressureSpec) -> bool {
        let count = now.since(self.window.began_at).0 / spec.window.0.max(1);
        // What nobody looked at for several windows is over.
        if self.window.refusals >= u64::from(spec.threshold) && count == 1 {
            self.lower(now, pushes, spec);
            return true;
        }
        if let Some(limit) = &mut self.limit {
            let is_idle = count > 1 || !self.window.has_held_up;
            if is_idle && limit.per_second >= limit.before {
                self.limit = None;
            } else {
                limit.per_second = limit.grown(count, spec);
            }
        }
        self.rate_before = self.window.rate(now, pushes);
        let began_at = self.window.began_at.plus(Nanos(count.saturating_mul(spec.window.0)));
        self.window = Window::new(began_at, pushes);
        false
    }

    /// From what the function was really called, now or in the window before: a limit above that would lower nothing.
    fn lower(&mut self, now: Nanos, pushes: u64, spec: &BackpressureSpec) {
        let rate = self.window.rate(now, pushes);
        let measured = rate.max(self.rate_before).max(1);
        let from = self.limit.map_or(measured, |limit| limit.per_second.min(measured));
        let kept = u64::from(from) * u64::from(100 - spec.decrease_percent.min(100)) / 100;
        self.limit = Some(Limit {
            per_second: (kept as u32).max(1),
            before: self.limit.map_or(measured, |limit| limit.before),
            may_be_lowered_at: now.plus(spec.window),
        });
        self.rate_before = rate;
        self.window = Window::new(now, pushes);
    }
}

impl Limit {
    /// What it is after so many windows without trouble.
    fn grown(&self, windows: u64, spec: &BackpressureSpec) -> u32 {
        let step = (u64::from(self.before) * u64::from(spec.increase_percent) / 100).max(1);
        let grown = u64::from(self.per_second).saturating_add(windows.saturating_mul(step));
        u32::try_from(grown).unwrap_or(u32::MAX)
    }
}

fn burst_of(per_second: u32) -> u32 {
    (per_second / BURSTS_PER_SECOND).max(1)
}

/// How long so many calls take at this rate.
fn length_of(count: u32, per_second: u32) -> Nanos {
    Nanos((u64::from(count) * 1_000_000_000).div_ceil(u64::from(per_second.max(1))))
}
