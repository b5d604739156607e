//! Which shard serves which connection. Beside stage 1: nothing here is on a call's way.
//!
//! In: connections as the kernel spread them, the time the shard spent with work.  Out: connections for other shards.
//! Owns: the shard's place on the [`Board`], and its part of the decision ([`Balance`]).
//! Always: one shard alone has none of this. A connection moves as a whole and at rest (`net/moves.rs`), so that a call
//! and its answer belong to one shard from beginning to end.
//! Never: moves calls. What a call costs a shard is mostly its connection: receiving, decoding, sending. A shard that
//! passes calls on pays that and the passing. Why: docs/decisions/0015-moving-connections.md.
//! Reading order: [`balance`] (what is decided), [`load`], [`board`] (what is shared).
#![forbid(unsafe_code)]

pub mod balance;
pub mod board;
pub mod load;

use std::sync::Arc;

use engine::{Nanos, ShardId};

use crate::net::moves::Moved;

pub use balance::{Balance, Order, Seen, Step, Thresholds};
pub use board::Board;
pub use load::Load;

/// How often a shard says how loaded it is, and decides. Not called while it sleeps: then it has nothing to give.
pub const PERIOD: Nanos = Nanos::from_ms(50);

/// One shard's part.
pub struct Placement {
    board: Arc<Board>,
    own: usize,
    balance: Balance,
    load: Load,
    /// When the last period ended, and what the shard had been busy until then.
    period_at: Nanos,
    busy_ns: u64,
    seen: Vec<Seen>,
}

impl Placement {
    /// The part of `own`.
    pub fn new(board: Arc<Board>, own: ShardId, thresholds: Thresholds) -> Placement {
        let seen = Vec::with_capacity(board.count());
        Placement {
            board,
            own: usize::from(own.0),
            balance: Balance::new(thresholds),
            load: Load::default(),
            period_at: Nanos::ZERO,
            busy_ns: 0,
            seen,
        }
    }

    /// To be called in every turn, with the time the shard has been busy since its start.
    #[inline]
    pub fn on_time(&mut self, now: Nanos, busy_ns: u64) -> Step {
        if now.since(self.period_at) < PERIOD { Step::Stay } else { self.on_period(now, busy_ns) }
    }

    fn on_period(&mut self, now: Nanos, busy_ns: u64) -> Step {
        let length = now.since(self.period_at);
        let sample = Load::of(Nanos(busy_ns).since(Nanos(self.busy_ns)), length);
        self.load = self.load.smoothed(sample, length);
        self.period_at = now;
        self.busy_ns = busy_ns;
        self.board.note_load(self.own, now, self.load);
        self.board.read(now, &mut self.seen);
        self.balance.on_period(self.own, &self.seen)
    }

    /// The shard that a connection accepted here belongs to, if that is another one.
    pub fn home_of_new(&mut self, now: Nanos) -> Option<ShardId> {
        self.board.read(now, &mut self.seen);
        self.balance.home_of_new(self.own, &self.seen)
    }

    /// Gives a connection away; it comes back if there is no room for it.
    pub fn give(&self, target: ShardId, moved: Moved) -> Result<(), Moved> {
        self.board.give(target, moved)
    }

    /// The next connection that was given to this shard.
    #[inline]
    pub fn take(&self) -> Option<Moved> {
        self.board.take(self.own)
    }

    /// Nothing is on its way here.
    pub fn is_inbox_empty(&self) -> bool {
        self.board.inbox(self.own).is_empty()
    }

    /// Tells the others how many connections this shard has.
    pub fn note_connections(&self, count: u32) {
        self.board.note_connections(self.own, count);
    }

    /// Tells the others to give nothing more.
    pub fn note_draining(&self) {
        self.board.note_draining(self.own);
    }

    /// The shard is about to sleep. False: there is a connection to take.
    pub fn announce_sleep(&self) -> bool {
        self.board.inbox(self.own).announce_sleep()
    }

    /// Awake again.
    pub fn announce_awake(&self) {
        self.board.inbox(self.own).announce_awake();
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        self.board.close(self.own);
    }
}
