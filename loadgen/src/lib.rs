//! Load that can be trusted: calls are due when a schedule fixed beforehand says so, every answer is checked against
//! its request, and the report says when the generator and not the router was the limit.
//!
//! In: a [`Plan`].  Out: a [`Report`].
//! Always: one thread drives all connections with the wire protocol itself, batch by batch; in steady state it
//! allocates nothing. What the schedule decides never depends on an answer.
//! Never: hides a late send, an answer that did not come, or a latency that grew while calls waited to be sent
//! ("coordinated omission": both readings are reported).
//!
//! ```text
//! plan -> dial -> generator <-> connection          one thread
//!                    |  schedule   when calls are due
//!                    |  pattern    what they carry, and whether it came back
//!                    v  tally, timeline
//!                 report <- verdict                 text, JSON, HTML
//! ```
//!
//! Guide: docs/operating/load.md.

#![forbid(unsafe_code)]

mod chance;
mod connection;
mod dial;
mod error;
mod generator;
mod pattern;
mod plan;
mod progress;
mod replay;
mod report;
mod rings;
mod run;
mod schedule;
mod tally;
mod timeline;
mod units;
mod verdict;

pub use chance::seed_from_entropy;
pub use error::{LoadError, RouterMisbehaved};
pub use plan::{Arrivals, Check, Plan, PlanInvalid, Target, Workload};
pub use progress::{Progress, progress_bar};
pub use replay::{ReplayReport, ReplaySide, replay};
pub use report::{CurvePoint, LatencyReport, PlanReport, Report};
pub use run::{run, run_until};
pub use timeline::Interval;
pub use units::{UnitError, parse_duration, parse_rate};
pub use verdict::GeneratorReport;
