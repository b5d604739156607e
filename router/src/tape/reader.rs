//! The recorder's end of a tape.

use std::path::Path;
use std::sync::atomic::Ordering;

use protocol::recording::{CALL_SIZE, RECORD_HEADER_SIZE};
use shm_ring::{MapError, Mapped, Memory};

use super::{MAGIC, place};

/// Reads one shard's tape.
pub struct TapeReader<M: Memory = Mapped> {
    memory: M,
    ring_size: u64,
    head: u64,
    lost_before: u64,
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
    /// A record that cannot be.
    #[error("a record on the tape has a size of {size} bytes")]
    BadRecord {
        /// What it says.
        size: u32,
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
        if ring_size == 0 || !ring_size.is_multiple_of(8) || ring_size > (memory.size() - place::RING) as u64
        {
            return Err(TapeDamaged::NotATape);
        }
        // What an earlier reader left is of its recording, not of ours.
        let head = memory.load_u64(place::TAIL, Ordering::Acquire);
        memory.store_u64(place::HEAD, head, Ordering::Release);
        let lost_before = memory.load_u64(place::LOST, Ordering::Relaxed);
        let shard = memory.load_u64(place::SHARD, Ordering::Relaxed) as u16;
        Ok(TapeReader { memory, ring_size, head, lost_before, shard })
    }

    /// The shard goes on recording until `until_ns`; 0 ends it.
    pub fn renew(&self, until_ns: u64, wants_bodies: bool) {
        self.memory.store_u64(place::WANTS_BODIES, wants_bodies.into(), Ordering::Relaxed);
        self.memory.store_u64(place::UNTIL, until_ns, Ordering::Relaxed);
    }

    /// Appends the records that wait, and says how many they are.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> Result<u64, TapeDamaged> {
        // SYNC(tape.tail)
        let tail = self.memory.load_u64(place::TAIL, Ordering::Acquire);
        let size = tail.wrapping_sub(self.head);
        if size > self.ring_size {
            return Err(TapeDamaged::TooMuch { size, ring_size: self.ring_size });
        }
        let start = out.len();
        let at = (self.head % self.ring_size) as usize;
        let first = (size as usize).min(self.ring_size as usize - at);
        self.memory.append_to(place::RING + at, first, out);
        self.memory.append_to(place::RING, size as usize - first, out);
        let count = count_records(out.get(start..).unwrap_or_default());
        if count.is_err() {
            out.truncate(start);
        }
        self.head = tail;
        // SYNC(tape.head)
        self.memory.store_u64(place::HEAD, tail, Ordering::Release);
        count
    }

    /// Calls that found no room since this reader opened the tape.
    pub fn lost_count(&self) -> u64 {
        self.memory.load_u64(place::LOST, Ordering::Relaxed).wrapping_sub(self.lost_before)
    }
}

/// Whole records, one behind the other?
fn count_records(mut bytes: &[u8]) -> Result<u64, TapeDamaged> {
    let mut count = 0;
    while let Some(size) = bytes.first_chunk().map(|size| u32::from_le_bytes(*size)) {
        let whole = size as usize;
        let is_sound = whole >= RECORD_HEADER_SIZE.max(CALL_SIZE) && whole.is_multiple_of(8);
        bytes = bytes.get(whole..).filter(|_| is_sound).ok_or(TapeDamaged::BadRecord { size })?;
        count += 1;
    }
    if bytes.is_empty() { Ok(count) } else { Err(TapeDamaged::BadRecord { size: bytes.len() as u32 }) }
}
