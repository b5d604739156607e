//! The counters of one shard in a mapped file, so that anybody can look without asking the router, also after it died.
//!
//! In: `engine::Counters`, `ShardStats` and the table of workers, from the shard about every 10 ms.
//! Out: `DIR/counters-<shard>`, which explains itself: a table of labels says where every number lies, what it is
//! called and what it means (docs/spec/counters.md).
//! Owns: the file. A new router replaces it, so that readers of the old one keep what they have.
//! Always: the shard only stores into memory, no system call; a reader sees all of one publishing or learns that it
//! does not (sequence number, odd while the shard writes).
//! Never: a lock, an allocation after the start, or trust in the file by its readers: what does not fit is a typed error.
//! Why not a socket: the router would have to be alive and idle enough to answer.  Tests: `counters/tests.rs`.
#![forbid(unsafe_code)]

pub mod buckets;
pub mod layout;
mod publisher;
mod reader;
mod roster;
#[cfg(test)]
mod tests;

/// What the numbers of `blocked_on` mean.
pub use engine::BlockedOn;
pub use publisher::{CountersSpec, Publisher, publishers};
pub use reader::{CountersError, Downstream, Function, Histogram, Named, Snapshot, Worker};
pub use roster::{Attached, Roster};

/// How long the window of `answered_peak` is.
pub use crate::stats::PEAK_WINDOW;
