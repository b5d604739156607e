//! Free buffers are with the kernel, in the ring by which io_uring takes them ("provided buffers"), or wait to be.
//!
//! The kernel takes buffers in the order in which it was given them, so whatever it holds is walked through from end to
//! end. It therefore holds few, which stay in the cache, and the others wait on a stack: more are handed over when a
//! receive found none, fewer again after a while in which that did not happen.
//!
//! Always: a buffer is either spare, or in the kernel's ring, or lent out as a [`Chunk`].

use std::sync::atomic::{AtomicU16, Ordering};

use super::{Chunk, Pool, Region};

/// The only buffer group of a ring.
pub const GROUP: u16 = 0;

/// Buffers with the kernel while that suffices: 8 x 32 KiB stay in a second-level cache, and hold 4,096 small calls.
const TARGET_COUNT_MIN: u16 = 8;
/// Publications, about one a turn, without a starved receive after which the kernel gets half as many buffers.
const CALM_COUNT_MAX: u32 = 4096;

/// Bytes of an entry of the kernel's buffer ring: u64 address, u32 size, u16 id, u16 (tail, in entry 0 only).
const ENTRY_SIZE: usize = 16;
const ENTRY_SIZE_AT: usize = 8;
const ENTRY_ID_AT: usize = 12;
const TAIL_AT: usize = 14;

/// The buffers and their ring.
pub struct KernelRing {
    pool: Pool,
    ring: Region,
    /// Our copy of the tail; the kernel sees it by `publish`.
    tail: u16,
    published: u16,
    /// Buffers that are neither lent out nor with the kernel; the one used last on top.
    spare: Vec<u16>,
    /// Buffers the kernel shall hold.
    target_count: u16,
    /// Publications since a receive found no buffer.
    calm_count: u32,
}

impl KernelRing {
    /// Maps the memory and fills the ring; the kernel learns of it by `register_buf_ring`.
    pub fn new(count: u16, size: u32) -> rustix::io::Result<Self> {
        let pool = Pool::map(count, size)?;
        let ring = Region::map((usize::from(count) * ENTRY_SIZE).next_multiple_of(4096))?;
        let mut buffers = KernelRing {
            pool,
            ring,
            tail: 0,
            published: 0,
            spare: (0..count).rev().collect(),
            target_count: TARGET_COUNT_MIN.min(count),
            calm_count: 0,
        };
        buffers.publish();
        Ok(buffers)
    }

    /// Address of the ring, for its registration.
    pub fn address(&self) -> u64 {
        self.ring.base.as_ptr() as u64
    }

    pub fn count(&self) -> u16 {
        self.pool.count
    }

    /// True while at least one buffer is not lent out, so that a receive may find one.
    pub fn has_free(&self) -> bool {
        self.pool.has_free()
    }

    /// Takes over a buffer the kernel has just completed a receive into.
    pub fn take(&mut self, buffer: u16, size: u32) -> Option<Chunk> {
        self.pool.lend(buffer, size)
    }

    /// The received bytes.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.pool.bytes(chunk)
    }

    /// Returns a buffer; the kernel sees it at the next `publish`.
    pub fn give_back(&mut self, chunk: Chunk) {
        let buffer = self.pool.take_back(chunk);
        self.spare.push(buffer);
    }

    /// A receive found no buffer: the kernel shall hold more of them.
    pub fn on_starved(&mut self) {
        self.target_count = self.target_count.saturating_mul(2).min(self.pool.count);
        self.calm_count = 0;
    }

    /// Hands spare buffers to the kernel, up to what it shall hold.
    pub fn publish(&mut self) {
        self.calm_count += 1;
        if self.calm_count >= CALM_COUNT_MAX {
            self.calm_count = 0;
            self.target_count = (self.target_count / 2).max(TARGET_COUNT_MIN).min(self.pool.count);
        }
        while usize::from(self.pool.count - self.pool.lent_count) - self.spare.len()
            < usize::from(self.target_count)
            && let Some(buffer) = self.spare.pop()
        {
            self.put(buffer);
        }
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the tail lies inside the ring's mapping, is 2-byte aligned (the base is page-aligned) and is only
        // ever accessed as an atomic here and by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(self.ring.base.as_ptr().add(TAIL_AT).cast()) };
        // SYNC(buffers.tail): pairs with the kernel's acquire load; entries below the tail are written before it.
        tail.store(self.tail, Ordering::Release);
    }

    fn put(&mut self, buffer: u16) {
        let index = usize::from(self.tail & (self.pool.count - 1));
        let address = self.pool.at(buffer) as u64;
        // SAFETY: index < count, so the entry lies inside the ring's mapping and is 16-byte aligned. At most `count`
        // buffers exist and each is in one place, so this entry is not among those the kernel may still read
        // (tail - head <= count). The fields are written one by one because entry 0 also holds the tail.
        unsafe {
            let entry = self.ring.base.as_ptr().add(index * ENTRY_SIZE);
            entry.cast::<u64>().write(address);
            entry.add(ENTRY_SIZE_AT).cast::<u32>().write(self.pool.size);
            entry.add(ENTRY_ID_AT).cast::<u16>().write(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }
}
