//! Calls that outlive their answer: the quarantine (two workers died of them) and the dead letters (they failed, and had no
//! attempt left).
//!
//! ```text
//!   answer with `keep` ──▶ shelf ──┬─ show ────▶ a copy, to look at
//!                                  ├─ replay ──▶ admitted once more, its answer comes to a ticket; it stays on the shelf
//!                                  ├─ drop ────▶ forgotten
//!                                  └─ full ────▶ the oldest is forgotten, and counted
//! ```
//! In: answers that the engine wants kept, with the bytes of their call; orders from other threads.  Out: what was asked.
//! Owns: copies of the payloads, bounded in number and in bytes (`kept_calls_max`, `kept_calls_size_max`).
//! Always: a call has a number that no other call of the router's life has; its low byte names the shard.
//! Never: on the way of a call that is not kept. In memory only: a router that ends forgets them.
//! Why the oldest goes: what happens now is what is looked into.
//! Tests: below, `tests/kept.rs`, `tests/protection.rs` of the workspace.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use engine::{Answer, Keep, Nanos};
use protocol::{FunctionId, Status};

use crate::frontend::Ticket;
use crate::payloads::{Body, Manner};

/// Where a call is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Two workers died of it.
    Quarantine,
    /// It failed, and no attempt was left that would have been allowed.
    DeadLetters,
}

/// What one can want of a shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// All calls without their bytes, oldest first.
    List,
    /// One call with its bytes.
    Show(u64),
    /// One call, run once more as a new call of this process, with the function's own time-out.
    Replay(u64),
    /// One call forgotten.
    Drop(u64),
}

/// A wish, and where the reply goes.
#[derive(Debug, Clone)]
pub struct Order {
    /// Of which shelf.
    pub shelf: Shelf,
    /// What.
    pub wish: Wish,
    /// Gets exactly one [`Told`], unless the shard ends before.
    pub reply: Sender<Told>,
}

/// The reply to a wish.
#[derive(Debug)]
pub enum Told {
    /// To [`Wish::List`].
    List(Vec<Summary>),
    /// To [`Wish::Show`].
    Call(Box<KeptCall>),
    /// To [`Wish::Replay`]: which call, and where the answer of its repetition will be.
    Replayed(Summary, Ticket),
    /// To [`Wish::Drop`]: this it was.
    Dropped(Summary),
    /// No call with this number is on the shelf.
    NoSuchCall,
}

/// A kept call without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Its number.
    pub number: u64,
    /// Whose call it was.
    pub function: FunctionId,
    /// How it ended.
    pub status: Status,
    /// Times it was given to a worker.
    pub attempts: u8,
    /// How much it mattered.
    pub criticality: u8,
    /// When it ended, on the router's clock.
    pub ended_at: Nanos,
    /// Bytes of its payload.
    pub payload_size: usize,
}

/// A kept call.
#[derive(Debug, Clone)]
pub struct KeptCall {
    /// What is known of it.
    pub summary: Summary,
    /// What went to its worker beside the payload.
    pub manner: Manner,
    /// Its extensions.
    pub extensions: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

/// How much may be kept on one shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBounds {
    /// Calls. One more: the oldest is forgotten.
    pub count_max: u32,
    /// Bytes of extensions and payloads. More: the oldest are forgotten. A call larger than all of it is not kept.
    pub size_max: u64,
}

/// The shelves of one shard.
#[derive(Debug)]
pub struct KeptCalls {
    quarantine: Calls,
    dead_letters: Calls,
    bounds: KeptBounds,
    number_next: u64,
}

#[derive(Debug, Default)]
struct Calls {
    oldest_first: VecDeque<KeptCall>,
    size: u64,
}

/// The low bits of a number name the shard that keeps the call.
const SHARD_BITS: u32 = 8;

impl KeptCalls {
    /// Empty shelves of a shard.
    pub fn new(shard: u8, bounds: KeptBounds) -> KeptCalls {
        KeptCalls {
            quarantine: Calls::default(),
            dead_letters: Calls::default(),
            bounds,
            number_next: 1 << SHARD_BITS | u64::from(shard),
        }
    }

    /// The shard that keeps the call of this number.
    pub const fn shard_of(number: u64) -> u8 {
        number as u8
    }

    /// Keeps a call that ended `now` with this answer. Returns how many calls are forgotten for it, itself included.
    #[cold]
    pub fn keep(&mut self, now: Nanos, answer: &Answer, manner: Manner, body: Body<'_>) -> u64 {
        let calls = match answer.keep {
            Keep::No => return 0,
            Keep::InQuarantine => &mut self.quarantine,
            Keep::AsDeadLetter => &mut self.dead_letters,
        };
        let size = (body.extensions.len() + body.payload.len()) as u64;
        if self.bounds.count_max == 0 || size > self.bounds.size_max {
            return 1;
        }
        let mut forgotten = 0;
        while calls.oldest_first.len() >= self.bounds.count_max as usize
            || calls.size + size > self.bounds.size_max
        {
            calls.forget(0);
            forgotten += 1;
        }
        let summary = Summary {
            number: self.number_next,
            function: answer.function,
            status: answer.status,
            attempts: answer.attempts,
            criticality: manner.criticality,
            ended_at: now,
            payload_size: body.payload.len(),
        };
        self.number_next += 1 << SHARD_BITS;
        calls.size += size;
        calls.oldest_first.push_back(KeptCall {
            summary,
            manner,
            extensions: Bytes::copy_from_slice(body.extensions),
            payload: Bytes::copy_from_slice(body.payload),
        });
        forgotten
    }

    /// Does what an order asks, but for its reply. `replay` makes a call of a kept one.
    pub fn obey(&mut self, shelf: Shelf, wish: Wish, replay: impl FnOnce(&KeptCall) -> Ticket) -> Told {
        let calls = match shelf {
            Shelf::Quarantine => &mut self.quarantine,
            Shelf::DeadLetters => &mut self.dead_letters,
        };
        let number = match wish {
            Wish::List => return Told::List(calls.oldest_first.iter().map(|call| call.summary).collect()),
            Wish::Show(number) | Wish::Replay(number) | Wish::Drop(number) => number,
        };
        // Numbers only grow.
        let Ok(position) = calls.oldest_first.binary_search_by_key(&number, |call| call.summary.number)
        else {
            return Told::NoSuchCall;
        };
        match wish {
            Wish::Drop(_) => {
                let dropped = calls.oldest_first[position].summary;
                calls.forget(position);
                Told::Dropped(dropped)
            }
            Wish::Replay(_) => {
                let call = &calls.oldest_first[position];
                Told::Replayed(call.summary, replay(call))
            }
            Wish::Show(_) | Wish::List => Told::Call(Box::new(calls.oldest_first[position].clone())),
        }
    }

    /// Calls in the quarantine, and dead letters.
    pub fn counts(&self) -> (usize, usize) {
        (self.quarantine.oldest_first.len(), self.dead_letters.oldest_first.len())
    }
}

impl Calls {
    fn forget(&mut self, position: usize) {
        if let Some(call) = self.oldest_first.remove(position) {
            self.size -= (call.extensions.len() + call.payload.len()) as u64;
        }
    }
}

#[cfg(test)]
mod tests;
