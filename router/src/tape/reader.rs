//! The recorder's end of a tape.

use std::path::Path;
use std::sync::atomic::Ordering;

use shm_ring::{MapError, Mapped, Memory};

use super::entry::{self, CELL_SIZE, Words};
use super::{MAGIC, place};

/// Reads one shard's tape.
pub struct TapeReader<M: Memory = Mapped> {
    memory: M,
    ring_size: u64,
    head: u64,
    lost_before: u64,
    /// What was copied off the tape; kept for its capacity.
    copied: Vec<u8>,
    /// Its shard.
    pub shard: u16,
}

/// What a tape says that no router writes.
#[derive(Debug, thiserror::Error)]
pub enum TapeDamaged {
    /// It cannot be opened.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Another file.
    #[error("this is no tape of a router")]
    NotATape,
    /// More bytes than the ring has.
    #[error("the tape says that {size} bytes wait in a ring of {ring_size}")]
    TooMuch {
        /// What it says.
        size: u64,
        /// What can be.
        ring_size: u64,
    },
    /// An entry without an end.
    #[error("an entry on the tape is {missing} bytes longer than what was written")]
    EntryCut {
        /// How much is not there.
        missing: usize,
    },
}

impl TapeReader<Mapped> {
    /// Opens the tape of a running router. What it says from now on is recorded; nothing is before [`renew`](Self::renew).
    pub fn open(path: &Path) -> Result<Self, TapeDamaged> {
        TapeReader::over(Mapped::open_file_to_answer(path)?)
    }
}

impl<M: Memory> TapeReader<M> {
    pub(crate) fn over(memory: M) -> Result<Self, TapeDamaged> {
        // SYNC(tape.magic)
        if memory.size() < place::RING || memory.load_u64(place::MAGIC, Ordering::Acquire) != MAGIC {
            return Err(TapeDamaged::NotATape);
        }
        let ring_size = memory.load_u64(place::RING_SIZE, Ordering::Relaxed);
        if ring_size == 0
            || !ring_size.is_multiple_of(CELL_SIZE as u64)
            || ring_size > (memory.size() - place::RING) as u64
        {
            return Err(TapeDamaged::NotATape);
        }
        // What an earlier reader left is of its recording, not of ours.
        let head = memory.load_u64(place::TAIL, Ordering::Acquire);
        memory.store_u64(place::HEAD, head, Ordering::Release);
        let lost_before = memory.load_u64(place::LOST, Ordering::Relaxed);
        let shard = memory.load_u64(place::SHARD, Ordering::Relaxed) as u16;
        Ok(TapeReader { memory, ring_size, head, lost_before, copied: Vec::new(), shard })
    }

    /// The shard goes on recording until `until_ns`; 0 ends it.
    pub fn renew(&self, until_ns: u64, wants_bodies: bool) {
        self.memory.store_u64(place::WANTS_BODIES, wants_bodies.into(), Ordering::Relaxed);
        self.memory.store_u64(place::UNTIL, until_ns, Ordering::Relaxed);
    }

    /// Appends a record for each call that waits, as a file has it, and says how many they are.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> Result<u64, TapeDamaged> {
        // SYNC(tape.tail)
        let tail = self.memory.load_u64(place::TAIL, Ordering::Acquire);
        let size = tail.wrapping_sub(self.head);
        if size > self.ring_size {
            return Err(TapeDamaged::TooMuch { size, ring_size: self.ring_size });
        }
        self.copied.clear();
        let at = (self.head % self.ring_size) as usize;
        let first = (size as usize).min(self.ring_size as usize - at);
        self.memory.append_to(place::RING + at, first, &mut self.copied);
        self.memory.append_to(place::RING, size as usize - first, &mut self.copied);
        self.head = tail;
        // SYNC(tape.head): copied, and may be written over while it is looked at.
        self.memory.store_u64(place::HEAD, tail, Ordering::Release);

        let start = out.len();
        let count = write_records(&self.copied, self.shard, out);
        if count.is_err() {
            out.truncate(start);
        }
        count
    }

    /// Calls that found no room since this reader opened the tape.
    pub fn lost_count(&self) -> u64 {
        self.memory.load_u64(place::LOST, Ordering::Relaxed).wrapping_sub(self.lost_before)
    }
}

/// Writes the records of these entries, and says how many they are.
fn write_records(mut entries: &[u8], shard: u16, out: &mut Vec<u8>) -> Result<u64, TapeDamaged> {
    let mut count = 0;
    while let Some((cell, rest)) = entries.split_first_chunk::<CELL_SIZE>() {
        let (call, has_body) = entry::unpack(&words(cell), shard);
        let body_size = if has_body { call.payload_size as usize } else { 0 };
        let cells_size = body_size.next_multiple_of(CELL_SIZE);
        let (cells, behind) = rest
            .split_at_checked(cells_size)
            .ok_or_else(|| TapeDamaged::EntryCut { missing: cells_size - rest.len() })?;
        call.encode(cells.get(..body_size).unwrap_or_default(), out);
        entries = behind;
        count += 1;
    }
    let missing = CELL_SIZE - entries.len();
    if entries.is_empty() { Ok(count) } else { Err(TapeDamaged::EntryCut { missing }) }
}

fn words(cell: &[u8; CELL_SIZE]) -> Words {
    let mut words = Words::default();
    for (word, bytes) in words.iter_mut().zip(cell.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}
