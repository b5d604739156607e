//! What a shard says of each call that ends, for `quickfire record`: a ring in a mapped file of the run directory.
//!
//! ```text
//! 0      "QFTAPE01", bytes of the ring, process id, shard                     written once by the router
//! 1024   record until (CLOCK_MONOTONIC, ns), wants bodies, head               written by the reader
//! 2048   tail, calls lost                                                     written by the shard
//! 4096   the ring: records of `protocol::recording`, each where the last one ended, around the end and on
//! ```
//! In: answers and refusals.  Out: records for whoever has the ring open.
//! Always: the shard records only until the time that the reader last wrote, which a living reader moves on with every
//! look; so a reader that died costs nothing two seconds later.
//! Always: a record that finds no room is counted as lost. Never: waits, or trusts what the reader wrote: a head that
//! cannot be is a full ring.
//! Never: costs a call anything while nobody records. The turn asks once, and has two bodies (`Shard::turn`).
//! Why a ring of its own and not the admin socket: a shard has no stream to anybody, and must never wait for one.
//! Spec of the records: docs/spec/record.md.  Decision 0023.
#![forbid(unsafe_code)]

mod reader;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::Ordering;

use engine::{Answer, Engine, Nanos, Refused, Request};
use protocol::recording::RecordedCall;
use shm_ring::{MapError, Mapped, Memory};

pub use reader::{TapeDamaged, TapeReader};

/// "QFTAPE01" as the bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"QFTAPE01");
/// 170,000 calls without bodies, a tenth of a second at the highest rates measured; the reader looks every 10 ms. Pages
/// that are never written take no memory.
const RING_SIZE: usize = 16 << 20;

/// Offsets in the file.
mod place {
    pub const MAGIC: usize = 0;
    pub const RING_SIZE: usize = 8;
    pub const PID: usize = 16;
    pub const SHARD: usize = 24;
    /// The reader's page begins away from the shard's, so that the two do not take lines from each other.
    pub const UNTIL: usize = 1024;
    pub const WANTS_BODIES: usize = 1032;
    pub const HEAD: usize = 1040;
    pub const TAIL: usize = 2048;
    pub const LOST: usize = 2056;
    pub const RING: usize = 4096;
}

/// The shard's end.
pub struct Tape<M: Memory = Mapped> {
    /// None: the file could not be made, and nothing is ever recorded.
    memory: Option<M>,
    ring_size: u64,
    shard: u16,
    wants_bodies: bool,
    is_recording: bool,
    tail: u64,
    lost_count: u64,
    /// Kept for its capacity.
    record: Vec<u8>,
    body: Vec<u8>,
}

impl Tape<Mapped> {
    /// Makes the file of a shard, in place of one that a former router left. A shard without one goes on.
    pub fn create(path: &Path, shard: u16) -> Result<Tape, MapError> {
        let memory = Mapped::create_file(path, place::RING + RING_SIZE)?;
        Ok(Tape::over(memory, RING_SIZE, shard))
    }

    /// One that never records.
    pub fn none() -> Tape {
        Tape::new(None, 0, 0)
    }
}

impl<M: Memory> Tape<M> {
    fn new(memory: Option<M>, ring_size: u64, shard: u16) -> Tape<M> {
        Tape {
            memory,
            ring_size,
            shard,
            wants_bodies: false,
            is_recording: false,
            tail: 0,
            lost_count: 0,
            record: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Over any memory of zeros with a ring of this size.
    pub(crate) fn over(memory: M, ring_size: usize, shard: u16) -> Tape<M> {
        assert!(memory.size() >= place::RING + ring_size && ring_size.is_multiple_of(8));
        memory.store_u64(place::RING_SIZE, ring_size as u64, Ordering::Relaxed);
        memory.store_u64(place::PID, std::process::id().into(), Ordering::Relaxed);
        memory.store_u64(place::SHARD, shard.into(), Ordering::Relaxed);
        // SYNC(tape.magic): whoever sees it sees the rest of the header.
        memory.store_u64(place::MAGIC, MAGIC, Ordering::Release);
        Tape::new(Some(memory), ring_size as u64, shard)
    }

    /// Whether calls of this turn are recorded: the one question while they are not.
    #[inline]
    pub fn begin_turn(&mut self, now: Nanos) -> bool {
        let Some(memory) = &self.memory else { return false };
        self.is_recording = memory.load_u64(place::UNTIL, Ordering::Relaxed) > now.0;
        if self.is_recording {
            self.wants_bodies = memory.load_u64(place::WANTS_BODIES, Ordering::Relaxed) != 0;
        }
        self.is_recording
    }

    /// A call has its answer. `payload` appends the request's bytes, where they are still known, and says how many there
    /// were; it is asked for the bytes only if somebody wants them.
    pub fn answered(
        &mut self,
        engine: &Engine,
        answer: &Answer,
        result_size: usize,
        payload: impl FnOnce(Option<&mut Vec<u8>>) -> u32,
    ) {
        let asked = engine.asked(answer.invocation);
        let timings = answer.stamps.timings();
        self.body.clear();
        let mut body = std::mem::take(&mut self.body);
        let payload_size = payload(self.wants_bodies.then_some(&mut body));
        let call = RecordedCall {
            shard: self.shard,
            received_at_ns: timings.received_at_ns,
            budget_ns: asked.deadline_at.0.saturating_sub(timings.received_at_ns),
            pushed_ns: timings.pushed_ns,
            started_ns: timings.started_ns,
            finished_ns: timings.finished_ns,
            answered_ns: timings.answered_ns,
            function: answer.function.0,
            payload_size,
            result_size: result_size as u32,
            connection: answer.origin.connection,
            status: answer.status as u16,
            flags: answer.flags.0,
            criticality: asked.criticality,
        };
        self.append(&call, &body);
        self.body = body;
    }

    /// A call was refused. Nothing happens while nobody records: the one place where a call is asked about it.
    pub fn refused(&mut self, request: &Request, refused: &Refused) {
        // What names no function or no criticality cannot be called again.
        if !self.is_recording
            || refused.status == protocol::Status::UnknownFunction
            || request.criticality > 3
        {
            return;
        }
        let call = RecordedCall {
            shard: self.shard,
            received_at_ns: request.received_at.0,
            budget_ns: u64::from(request.budget_us) * 1_000,
            function: request.function.0,
            payload_size: request.payload_size,
            connection: request.origin.connection,
            status: refused.status as u16,
            criticality: request.criticality,
            ..RecordedCall::default()
        };
        self.append(&call, &[]);
    }

    fn append(&mut self, call: &RecordedCall, body: &[u8]) {
        let Some(memory) = &self.memory else { return };
        self.record.clear();
        // Half of a body would be another payload.
        let is_whole = body.len() == call.payload_size as usize;
        call.encode(if is_whole { body } else { &[] }, &mut self.record);
        // SYNC(tape.head): what the reader has copied may be written over.
        let head = memory.load_u64(place::HEAD, Ordering::Acquire);
        let used = self.tail.wrapping_sub(head);
        if used > self.ring_size || self.ring_size - used < self.record.len() as u64 {
            self.lost_count += 1;
            memory.store_u64(place::LOST, self.lost_count, Ordering::Relaxed);
            return;
        }
        let at = (self.tail % self.ring_size) as usize;
        let (first, second) = self.record.split_at(self.record.len().min(self.ring_size as usize - at));
        memory.write(place::RING + at, first);
        memory.write(place::RING, second);
        self.tail += self.record.len() as u64;
        // SYNC(tape.tail): releases the record to `TapeReader::drain`.
        memory.store_u64(place::TAIL, self.tail, Ordering::Release);
    }
}
