//! The one door to shared memory. Both ends, inspection and every test go through [`Memory`].
//!
//! The same ring code therefore runs on a real mapping ([`crate::Mapped`]), on plain memory in one process
//! ([`crate::HeapMemory`]: simulator, unit tests), on memory that changes under the reader's feet (hostile tests and
//! fuzzing), and on loom's memory, where every order the processor may choose is tried.
//!
//! Always: offsets and sizes passed in are our own arithmetic, never numbers of a peer. Outside of the memory means a
//! bug of ours, and implementations assert.
//! Never: hands out a reference into bytes the other side may change, with [`BorrowPayload`] as the argued exception.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::layout::{Record, slot};

/// How many slots ahead a cache line is asked for: at some 30 ns a call, about the 200 ns that a line takes from one core
/// to the other.
pub(crate) const PREFETCH_DISTANCE: u32 = 8;

/// A block of memory that another thread or process may be writing at the same time.
pub trait Memory {
    /// Bytes there are.
    fn size(&self) -> usize;
    /// One aligned word.
    fn load_u32(&self, offset: usize, order: Ordering) -> u32;
    /// One aligned word.
    fn store_u32(&self, offset: usize, value: u32, order: Ordering);
    /// One aligned word.
    fn load_u64(&self, offset: usize, order: Ordering) -> u64;
    /// One aligned word.
    fn store_u64(&self, offset: usize, value: u64, order: Ordering);
    /// Copies bytes out. When the other side writes meanwhile, any mixture may arrive.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Copies bytes in.
    fn write(&self, offset: usize, from: &[u8]);
    /// A sequentially consistent fence over this memory.
    fn fence_seq_cst(&self);

    /// Copies a slot's header out, word by word.
    #[inline]
    fn read_record(&self, offset: usize) -> Record {
        let mut record = Record([0; slot::HEADER_SIZE]);
        for (index, word) in record.0.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.load_u64(offset + index * 8, Ordering::Relaxed).to_le_bytes());
        }
        record
    }

    /// Writes a slot's header word by word, the first of them last: once it is there, the others are, and so is everything
    /// written before (`Release`).
    #[inline]
    fn write_record(&self, offset: usize, words: [u64; slot::HEADER_SIZE / 8]) {
        for (index, word) in words.iter().enumerate().skip(1) {
            self.store_u64(offset + index * 8, *word, Ordering::Relaxed);
        }
        self.store_u64(offset, words[0], Ordering::Release);
    }

    /// Appends a copy of the bytes to `out`.
    fn append_to(&self, offset: usize, size: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + size, 0);
        self.read(offset, &mut out[start..]);
    }

    /// Asks for the cache line at `offset`, which will soon be read. Only ever a hint: memory without lines ignores it.
    #[inline]
    fn prefetch_to_read(&self, offset: usize) {
        let _ = offset;
    }

    /// The same for a line that will soon be written: it is taken away from the other side's cache.
    #[inline]
    fn prefetch_to_write(&self, offset: usize) {
        let _ = offset;
    }

    /// Sleeps while the word at `offset` is `expected`, until a wake-up, the time-out, or for no reason at all.
    /// Memory that nobody sleeps on need not implement it.
    fn futex_wait(&self, offset: usize, expected: u32, timeout: Option<Duration>) {
        let _ = (offset, expected, timeout);
    }

    /// Wakes who sleeps on the word at `offset`.
    fn futex_wake(&self, offset: usize) {
        let _ = offset;
    }
}

/// Memory that takes bytes from another block of memory without a private copy between: a client's payload goes into a
/// worker's slot, a worker's result into a client's.
pub trait CopyFrom<S: Memory>: Memory {
    /// Copies `size` bytes at `source_offset` of `source` to `offset` of this memory. When the other side of the source
    /// writes meanwhile, any mixture may arrive. This one goes through a private buffer, piece by piece.
    fn copy_from(&self, offset: usize, source: &S, source_offset: usize, size: usize) {
        let mut buffer = [0; 512];
        let mut done = 0;
        while done < size {
            let piece = buffer.len().min(size - done);
            source.read(source_offset + done, &mut buffer[..piece]);
            self.write(offset + done, &buffer[..piece]);
            done += piece;
        }
    }
}

/// Memory a trusting side may look at in place.
///
/// # Safety
/// `bytes` and `bytes_mut` must return exactly the bytes at `offset`, valid as long as `self` is borrowed.
pub unsafe trait BorrowPayload: Memory {
    /// The bytes in place.
    ///
    /// # Safety
    /// Nobody writes to these bytes while the reference lives.
    unsafe fn bytes(&self, offset: usize, size: usize) -> &[u8];

    /// The bytes in place, to be written.
    ///
    /// # Safety
    /// Nobody else reads or writes these bytes while the reference lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "the memory is shared; who may write which bytes is the caller's proof"
    )]
    unsafe fn bytes_mut(&self, offset: usize, size: usize) -> &mut [u8];
}
