//! In-process queues. Stage 3 of 8 orders admitted calls with them; the same pieces carry work between threads.
//!
//! ```text
//!   one owner, no atomics                      many threads
//!   ---------------------                      ------------
//!   Links ── List ── Lanes                     priority_queue() ── Sender, Receiver
//!   (arena)  (FIFO)  (64 lists + bitmap)       Mailbox, Ledger
//! ```
//!
//! In: `u32` indices of things the caller owns, or values of any type.  Out: the same, most urgent first.
//! Owns: links, nodes and the values in flight; never what an index stands for.
//! Always: every queue has a capacity decided when it is made, and a refused value is handed back.
//! Never: a clock, a lock, a system call; no allocation after construction.
//! Why ordered private lanes and a lock-free inbox: docs/decisions/0002-priority-queue.md.
//! Tests: `*/tests.rs` against an oracle, `tests/stress.rs` on threads, `tests/loom.rs` under loom.

mod lane;
mod lanes;
mod ledger;
mod links;
mod mailbox;
mod pool;
mod prefetch;
mod priority_queue;
pub mod sync;

pub use lane::LaneIndex;
pub use lanes::Lanes;
pub use ledger::Ledger;
pub use links::{Links, List, NIL};
pub use mailbox::{Mailbox, Waker};
pub use prefetch::prefetch;
pub use priority_queue::{Receiver, Sender, WasEmpty, priority_queue};

/// A bounded queue had no room; the value is handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);
