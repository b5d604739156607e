//! The hybrid histogram policy: what a function's idle times were like says when it is let go, and when it is warm again.
//!
//! ```text
//!   idle times          until the next call, from the moment in which the function has nothing to do
//!   ------------------  ---------------------------------------------------------------------------------------
//!   have a shape        let go; warm from the 5th percentile less 10 % to the 99th and 10 % more; if the 5th is below a
//!                       minute it is not let go before the end
//!   mostly beyond 4 h   let go; warm around the forecast, if there is one and no time of day says it better
//!   too few, or all     the standard keep-alive
//!   afterwards          let go; warm in the quarters of an hour in which a day's calls usually begin
//! ```
//!
//! In: arrivals, and when the function is idle.  Out: a [`WarmPlan`].
//! Always: a plan follows from what was noted before and from `now` alone; asking for it changes nothing. An idle time is from the
//! end of all calls to the next arrival, so that a function that is never idle has none.
//! Why the differences from the paper: docs/decisions/0031.

use crate::time::Nanos;

use super::WarmPlan;
use super::forecast::Forecast;
use super::histogram::{Histogram, Shape};
use super::time_of_day::TimeOfDay;

/// Of a percentile, to both sides, as in the paper.
const MARGIN_PERCENT: u64 = 10;
/// Who would be let go for less than this stays warm: a process is not ended and started for a minute.
const GAP_MIN: Nanos = Nanos::from_secs(60);

/// What a function's calls are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// Idle times alone, as in the paper.
    IdleTimes,
    /// And the time of day.
    IdleTimesAndTimeOfDay,
}

/// What has been learned of one function.
#[derive(Clone, Debug)]
pub struct Predictive {
    histogram: Histogram,
    forecast: Forecast,
    time_of_day: TimeOfDay,
    learning: Learning,
    /// The standard keep-alive, of a function of which too little is known.
    pub(super) keep_alive: Nanos,
    idle_since: Option<Nanos>,
}

/// When to be warm, as lengths from the beginning of an idle time.
struct Window {
    start: Nanos,
    end: Nanos,
}

impl Predictive {
    /// Nothing learned yet.
    pub fn new(keep_alive: Nanos, learning: Learning) -> Predictive {
        Predictive {
            histogram: Histogram::new(),
            forecast: Forecast::default(),
            time_of_day: TimeOfDay::new(),
            learning,
            keep_alive,
            idle_since: None,
        }
    }

    pub(super) fn on_arrival(&mut self, now: Nanos) {
        if let Some(idle_since) = self.idle_since.take() {
            let idle = now.since(idle_since);
            self.histogram.note(now, idle);
            self.forecast.note(idle);
        }
        self.time_of_day.note(now);
    }

    pub(super) fn on_idle(&mut self, now: Nanos) -> WarmPlan {
        self.idle_since = Some(now);
        self.plan(now)
    }

    pub(super) fn on_prewarmed(&mut self, now: Nanos) -> WarmPlan {
        self.plan(now)
    }

    fn plan(&mut self, now: Nanos) -> WarmPlan {
        let idle_since = self.idle_since.unwrap_or(now);
        let Window { start, end } = self.window(now);
        let (start, end) = (idle_since.plus(start), idle_since.plus(end));
        if end > now && start > now.plus(GAP_MIN) {
            return WarmPlan { release_at: now, prewarm_at: Some(start) };
        }
        // Between the idle times that are known and a day's next calls there is nothing to wait for.
        let mut release_at = end.max(now);
        while let Some(next) = self.next_of_day(now, release_at) {
            if next.start > release_at.plus(GAP_MIN) {
                return WarmPlan { release_at, prewarm_at: Some(next.start) };
            }
            release_at = next.end;
        }
        WarmPlan { release_at, prewarm_at: None }
    }

    fn window(&mut self, now: Nanos) -> Window {
        let percent = |length: Nanos, percent: u64| Nanos(length.0 / 100 * percent);
        match self.histogram.shape() {
            Shape::Known { head, tail } => Window {
                start: percent(head, 100 - MARGIN_PERCENT),
                end: percent(tail, 100 + MARGIN_PERCENT),
            },
            Shape::Beyond if self.next_of_day(now, now).is_some() => {
                Window { start: Nanos::ZERO, end: Nanos::ZERO }
            }
            Shape::Beyond => match self.forecast.next() {
                Some(range) => Window { start: range.shortest, end: range.longest },
                None => Window { start: Nanos::ZERO, end: self.keep_alive },
            },
            Shape::Unknown => Window { start: Nanos::ZERO, end: self.keep_alive },
        }
    }

    fn next_of_day(&mut self, now: Nanos, at: Nanos) -> Option<super::time_of_day::Window> {
        match self.learning {
            Learning::IdleTimes => None,
            Learning::IdleTimesAndTimeOfDay => self.time_of_day.next(now, at),
        }
    }
}
