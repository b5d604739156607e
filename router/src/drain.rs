//! How a shard ends: gracefully, in bounded time.
//!
//! ```text
//!  Running ── drain asked ──▶ Finishing ── all answered and closed ──▶ Stopping ── workers gone ──▶ Ended
//!                                │                                       ▲  │                         ▲
//!                                └─ drain_timeout ─▶ Cutting ─ all closed┘  └──── stop_timeout ───────┘
//!                                                    or close_timeout
//!  Finishing  no new connections or calls; clients are told (GOAWAY); running calls are finished and answered
//!  Cutting    what is left is cancelled, and answered so
//!  Stopping   the shim, then the workers are told to stop
//! ```
#![forbid(unsafe_code)]

use engine::Nanos;

/// How long each part of the way may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainOptions {
    /// For running calls to finish.
    pub drain_timeout: Nanos,
    /// For clients to take their last answers and close.
    pub close_timeout: Nanos,
    /// For workers to exit. Longer than this, they go on and notice by the end of their socket.
    pub stop_timeout: Nanos,
}

/// Where a shard is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Serving.
    Running,
    /// Finishing what was begun.
    Finishing {
        /// At the latest until.
        until: Nanos,
    },
    /// Cancelling what did not finish.
    Cutting {
        /// At the latest until.
        until: Nanos,
    },
    /// Waiting for workers to exit.
    Stopping {
        /// At the latest until.
        until: Nanos,
    },
    /// Over.
    Ended,
}

/// What the shard looks like to the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// No call is unanswered and every connection is closed.
    pub is_quiet: bool,
    /// Workers attached.
    pub workers: u32,
}

/// What the shard has to do when it takes the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Cancel what is outstanding.
    Cut,
    /// Tell shim and workers to stop.
    Stop,
}

impl Drain {
    /// Draining was asked for.
    pub fn begin(&mut self, now: Nanos, options: &DrainOptions) -> bool {
        let is_first = *self == Drain::Running;
        if is_first {
            *self = Drain::Finishing { until: now.plus(options.drain_timeout) };
        }
        is_first
    }

    /// Goes as far as it can.
    pub fn advance(&mut self, now: Nanos, options: &DrainOptions, remaining: Remaining) -> Option<Step> {
        match *self {
            Drain::Running | Drain::Ended => None,
            Drain::Finishing { until } | Drain::Cutting { until } if remaining.is_quiet => {
                let _ = until;
                self.stop(now, options)
            }
            Drain::Finishing { until } if now >= until => {
                *self = Drain::Cutting { until: now.plus(options.close_timeout) };
                Some(Step::Cut)
            }
            Drain::Cutting { until } if now >= until => self.stop(now, options),
            Drain::Stopping { until } if remaining.workers == 0 || now >= until => {
                *self = Drain::Ended;
                None
            }
            Drain::Finishing { .. } | Drain::Cutting { .. } | Drain::Stopping { .. } => None,
        }
    }

    /// When `advance` has something to do at the latest.
    pub fn next_timer(&self) -> Option<Nanos> {
        match self {
            Drain::Finishing { until } | Drain::Cutting { until } | Drain::Stopping { until } => Some(*until),
            Drain::Running | Drain::Ended => None,
        }
    }

    fn stop(&mut self, now: Nanos, options: &DrainOptions) -> Option<Step> {
        *self = Drain::Stopping { until: now.plus(options.stop_timeout) };
        Some(Step::Stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: DrainOptions =
        DrainOptions { drain_timeout: Nanos(100), close_timeout: Nanos(10), stop_timeout: Nanos(10) };
    const BUSY: Remaining = Remaining { is_quiet: false, workers: 1 };
    const QUIET: Remaining = Remaining { is_quiet: true, workers: 1 };
    const GONE: Remaining = Remaining { is_quiet: true, workers: 0 };

    #[test]
    fn a_quiet_shard_stops_its_workers_and_ends_when_they_are_gone() {
        let mut drain = Drain::Running;
        assert_eq!(drain.advance(Nanos(0), &OPTIONS, QUIET), None);
        assert!(drain.begin(Nanos(0), &OPTIONS));
        assert!(!drain.begin(Nanos(1), &OPTIONS), "asked twice, begun once");
        assert_eq!(drain.advance(Nanos(1), &OPTIONS, BUSY), None);
        assert_eq!(drain.advance(Nanos(2), &OPTIONS, QUIET), Some(Step::Stop));
        assert_eq!(drain.advance(Nanos(3), &OPTIONS, QUIET), None);
        assert_eq!(drain.advance(Nanos(4), &OPTIONS, GONE), None);
        assert_eq!(drain, Drain::Ended);
    }

    #[test]
    fn every_part_of_the_way_ends_in_time() {
        let mut drain = Drain::Running;
        drain.begin(Nanos(0), &OPTIONS);
        assert_eq!(drain.advance(Nanos(100), &OPTIONS, BUSY), Some(Step::Cut));
        assert_eq!(drain.advance(Nanos(109), &OPTIONS, BUSY), None);
        assert_eq!(drain.advance(Nanos(110), &OPTIONS, BUSY), Some(Step::Stop));
        assert_eq!(drain.advance(Nanos(120), &OPTIONS, BUSY), None);
        assert_eq!(drain, Drain::Ended);
    }
}
