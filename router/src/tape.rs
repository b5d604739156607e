//! What a shard says of each call that ends, for `quickfire record`: a ring in a mapped file of the run directory.
//!
//! ```text
//! 0      "QFTAPE02", bytes of the ring, process id, shard                     written once by the router
//! 1024   record until (CLOCK_MONOTONIC, ns), wants bodies, head               written by the reader
//! 2048   tail, calls lost                                                     written by the shard
//! 4096   the ring: cells of 48 bytes, one for each call (`tape/entry.rs`) and as many behind it as its body needs
//! ```
//! In: answers and refusals.  Out: entries for whoever has the ring open, made known once a turn.
//! Always: the shard records only until the time that the reader last wrote, which a living reader moves on with every
//! look; so a reader that died costs nothing two seconds later.
//! Always: an entry that finds no room is counted as lost. Never: waits, or trusts what the reader wrote: a head that
//! cannot be is a full ring. The reader's head is looked at only when the room that it left last time is used up.
//! Never: costs a call anything while nobody records. The turn asks once, and has two bodies (`Shard::turn`).
//! Why a ring of its own and not the admin socket: a shard has no stream to anybody, and must never wait for one.
//! Spec: docs/spec/record.md.  Decision 0023, with what it costs.
#![forbid(unsafe_code)]

mod entry;
mod reader;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::Ordering;

use engine::{Answer, Engine, Nanos, Refused, Request};
use protocol::recording::RecordedCall;
use shm_ring::{MapError, Mapped, Memory};

use entry::{CELL_SIZE, Words};
pub use reader::{TapeDamaged, TapeReader};

/// "QFTAPE02" as the bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"QFTAPE02");
/// 174,000 calls without bodies in 8 MiB, a tenth of a second at the highest rates measured; the reader looks every 10 ms.
/// Pages that are never written take no memory.
const RING_SIZE: usize = (8 << 20) / CELL_SIZE * CELL_SIZE;
/// Bytes behind the ring: words of mapped memory do not begin nearer to its end (`shm_ring::Memory`).
const SPARE_SIZE: usize = 32;

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
    /// Bytes written since the start, and where the next one goes: the same, less whole rounds.
    tail: u64,
    at: usize,
    /// Bytes that may be written before the reader's head is looked at again.
    room: u64,
    lost_count: u64,
    /// Kept for its capacity.
    body: Vec<u8>,
}

impl Tape<Mapped> {
    /// Makes the file of a shard, in place of one that a former router left. A shard without one goes on.
    pub fn create(path: &Path, shard: u16) -> Result<Tape, MapError> {
        let memory = Mapped::create_file(path, place::RING + RING_SIZE + SPARE_SIZE)?;
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
            at: 0,
            room: 0,
            lost_count: 0,
            body: Vec::new(),
        }
    }

    /// Over any memory of zeros with a ring of this size.
    pub(crate) fn over(memory: M, ring_size: usize, shard: u16) -> Tape<M> {
        assert!(memory.size() >= place::RING + ring_size + SPARE_SIZE);
        assert!(ring_size.is_multiple_of(CELL_SIZE));
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

    /// What this turn recorded is the reader's from now on. Called at the end of a turn that records.
    pub fn end_turn(&self) {
        let Some(memory) = &self.memory else { return };
        // SYNC(tape.tail): releases the entries to `TapeReader::drain`.
        memory.store_u64(place::TAIL, self.tail, Ordering::Release);
    }

    /// A call has its answer. `request` appends the request's bytes, where they are still known, and says how many there
    /// were; it is asked for the bytes only if somebody wants them.
    ///
    /// Always inlined: a call would want the answer in memory.
    #[inline(always)]
    pub fn answered(
        &mut self,
        engine: &Engine,
        answer: &Answer,
        result_size: usize,
        request: impl FnOnce(Option<&mut Vec<u8>>) -> u32,
    ) {
        let asked = engine.asked(answer.invocation);
        let timings = answer.stamps.timings();
        let payload_size = request(self.wants_bodies.then_some(&mut self.body));
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
        if self.wants_bodies { self.append_with_body(&call) } else { self.append(entry::pack(&call, false)) }
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
        self.append(entry::pack(&call, false));
    }

    #[inline(always)]
    fn append(&mut self, entry: Words) {
        if self.room < CELL_SIZE as u64 && !self.find_room(CELL_SIZE as u64) {
            return;
        }
        self.put(entry);
    }

    #[cold]
    fn append_with_body(&mut self, call: &RecordedCall) {
        let mut body = std::mem::take(&mut self.body);
        // Half of a body would be another payload.
        let is_whole = !body.is_empty() && body.len() == call.payload_size as usize;
        body.resize(if is_whole { body.len().next_multiple_of(CELL_SIZE) } else { 0 }, 0);
        let size = (CELL_SIZE + body.len()) as u64;
        if self.room >= size || self.find_room(size) {
            self.put(entry::pack(call, is_whole));
            self.put_body(&body);
        }
        body.clear();
        self.body = body;
    }

    /// Looks how far the reader is. False: not far enough, and the call is lost.
    #[cold]
    fn find_room(&mut self, wanted: u64) -> bool {
        let Some(memory) = &self.memory else { return false };
        // SYNC(tape.head): what the reader has copied may be written over.
        let head = memory.load_u64(place::HEAD, Ordering::Acquire);
        self.room = self.ring_size.saturating_sub(self.tail.wrapping_sub(head));
        if self.room < wanted {
            self.lost_count += 1;
            memory.store_u64(place::LOST, self.lost_count, Ordering::Relaxed);
        }
        self.room >= wanted
    }

    /// Writes an entry, for which there is room. Cells are never broken by the end of the ring.
    #[inline(always)]
    fn put(&mut self, entry: Words) {
        let Some(memory) = &self.memory else { return };
        let place = place::RING + self.at;
        let [first, second, third, fourth, fifth, sixth] = entry;
        memory.write_record(place, [first, second, third, fourth]);
        memory.store_u64(place + 32, fifth, Ordering::Relaxed);
        memory.store_u64(place + 40, sixth, Ordering::Relaxed);
        self.advance(CELL_SIZE);
    }

    fn put_body(&mut self, body: &[u8]) {
        let Some(memory) = &self.memory else { return };
        let (first, second) = body.split_at(body.len().min(self.ring_size as usize - self.at));
        memory.write(place::RING + self.at, first);
        memory.write(place::RING, second);
        self.advance(body.len());
    }

    #[inline(always)]
    fn advance(&mut self, size: usize) {
        self.tail += size as u64;
        self.room -= size as u64;
        self.at += size;
        if self.at >= self.ring_size as usize {
            self.at -= self.ring_size as usize;
        }
    }
}
