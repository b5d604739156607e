//! How long a function with nothing to do stays warm, and when it is warm again: a policy for each function.
//!
//! In: when a call arrives, when the last one has ended, when a process that was started ahead is there.  Out: a [`WarmPlan`].
//! Owns: what it has learned of one function, at most [`PREDICTIVE_SIZE`] bytes, whatever the function does.
//! Always: the same calls give the same plans. Everything is integers, so that no machine rounds another way; `now` is an argument.
//! Never: starts or ends a process, and never says how many: that is the pool's matter. Reads no clock and no calendar: a day is
//! 24 hours of the clock that is handed in, whenever it began.
//! Why: Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, section 4, whose hybrid histogram policy `predictive.rs` is,
//! with the differences that docs/decisions/0031 names. What it is worth: docs/simulation.md,
//! "Keeping functions warm".
//! Reading order: `predictive.rs`, then what it asks: `histogram.rs`, `forecast.rs`, `time_of_day.rs`.
//! Tests: `warming/tests.rs`, and `cargo run --release -p sim -- --warming`.

mod forecast;
mod histogram;
mod predictive;
#[cfg(test)]
mod tests;
mod time_of_day;

pub use predictive::{Learning, Predictive};

use crate::time::Nanos;

/// What a function with nothing to do shall have, as long as nothing arrives. An arrival ends it, and the next idle time gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmPlan {
    /// Until then it stays warm. Not later than `now`: it is let go at once.
    pub release_at: Nanos,
    /// Then it is to be warm again, and [`Warming::on_prewarmed`] says until when. None: with its next call.
    pub prewarm_at: Option<Nanos>,
}

/// The policy of one function.
#[derive(Clone, Debug)]
pub enum Warming {
    /// Warm for so long after the last call, whatever the calls are like.
    KeepAlive(Nanos),
    /// As long, and as soon, as its calls so far suggest.
    Predictive(Box<Predictive>),
}

impl Warming {
    /// The keep-alive, or the standard one of who is not understood, is as long from now on.
    pub fn keep_alive_for(&mut self, length: Nanos) {
        match self {
            Warming::KeepAlive(keep_alive) => *keep_alive = length,
            Warming::Predictive(predictive) => predictive.keep_alive = length,
        }
    }

    /// A call arrives, whether it finds the function idle or at work.
    pub fn on_arrival(&mut self, now: Nanos) {
        if let Warming::Predictive(predictive) = self {
            predictive.on_arrival(now);
        }
    }

    /// The last call that ran has ended, and none waits.
    pub fn on_idle(&mut self, now: Nanos) -> WarmPlan {
        match self {
            Warming::KeepAlive(length) => WarmPlan { release_at: now.plus(*length), prewarm_at: None },
            Warming::Predictive(predictive) => predictive.on_idle(now),
        }
    }

    /// What was started ahead is warm, and nothing has arrived since the function was idle.
    pub fn on_prewarmed(&mut self, now: Nanos) -> WarmPlan {
        match self {
            Warming::KeepAlive(length) => WarmPlan { release_at: now.plus(*length), prewarm_at: None },
            Warming::Predictive(predictive) => predictive.on_prewarmed(now),
        }
    }
}

/// What a predictive policy may take: 240 bins of 4 bytes, eight days of 16 bytes, and at most 128 bytes of sums, times and settings.
pub const PREDICTIVE_SIZE: usize = 240 * 4 + 8 * 16 + 128;

const _: () = assert!(size_of::<Predictive>() <= PREDICTIVE_SIZE);
