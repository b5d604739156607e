//! Receive buffers the kernel fills: one mapped region cut into equal buffers, and the ring by which free ones are
//! given to the kernel.
//!
//! ```text
//!          give back (tail += 1)                  receive completes with the buffer's id
//!   spare ──────────────────────▶ with the kernel ─────────────────────────────────────▶ lent out as a Chunk
//!     ▲                                                                                        │
//!     └──────────────────────────────── recycle(chunk) ────────────────────────────────────────┘
//! ```
//! The kernel takes buffers in the order in which it was given them, so whatever it holds is walked through from end to
//! end. It therefore holds few, which stay in the cache, and the others wait on a stack: more are handed over when a
//! receive found none, fewer again after a while in which that did not happen.
//!
//! Always: a buffer is in exactly one of the three places; [`Chunk`] can be neither copied nor made elsewhere, so holding
//! one proves that the kernel does not.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// Buffers with the kernel while that suffices: 8 x 32 KiB stay in a second-level cache, and hold 4,096 small calls.
const TARGET_COUNT_MIN: u16 = 8;
/// Publications, about one a turn, without a starved receive after which the kernel gets half as many buffers.
const CALM_COUNT_MAX: u32 = 4096;

/// Bytes of an entry of the kernel's buffer ring: u64 address, u32 size, u16 id, u16 (tail, in entry 0 only).
const ENTRY_SIZE: usize = 16;
const ENTRY_SIZE_AT: usize = 8;
const ENTRY_ID_AT: usize = 12;
const TAIL_AT: usize = 14;

/// Received bytes, lent to whoever holds this.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a chunk that is not recycled is a receive buffer lost"]
pub struct Chunk {
    pub(super) buffer: u16,
    pub(super) size: u32,
}

impl Chunk {
    /// Bytes received.
    pub fn size(&self) -> usize {
        self.size as usize
    }
}

/// A private anonymous mapping; page-aligned, zeroed, given back to the kernel when dropped.
struct Region {
    base: NonNull<u8>,
    size: usize,
}

impl Region {
    fn map(size: usize) -> rustix::io::Result<Region> {
        // SAFETY: a fresh mapping at an address the kernel chooses overlaps nothing that exists.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never maps address 0");
        Ok(Region { base, size })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`; references into it borrow the `ReceiveBuffers` that owns us, and
        // `Io::drop` leaks the buffers instead when the kernel may still write into them. A failure leaves it mapped,
        // which harms nobody.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// The buffers and their ring.
pub(super) struct ReceiveBuffers {
    bytes: Region,
    ring: Region,
    count: u16,
    size: u32,
    /// Our copy of the tail; the kernel sees it by `publish`.
    tail: u16,
    published: u16,
    lent_count: u16,
    /// Buffers that are neither lent out nor with the kernel; the one used last on top.
    spare: Vec<u16>,
    /// Buffers the kernel shall hold.
    target_count: u16,
    /// Publications since a receive found no buffer.
    calm_count: u32,
}

impl ReceiveBuffers {
    /// Maps the memory and fills the ring with all buffers; the kernel learns of it by `register_buf_ring`.
    pub fn new(count: u16, size: u32) -> rustix::io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 32_768, "the kernel wants a power of two up to 2^15");
        assert!(size > 0);
        let bytes = Region::map(usize::from(count) * size as usize)?;
        let ring = Region::map((usize::from(count) * ENTRY_SIZE).next_multiple_of(4096))?;
        let mut buffers = ReceiveBuffers {
            bytes,
            ring,
            count,
            size,
            tail: 0,
            published: 0,
            lent_count: 0,
            spare: (0..count).rev().collect(),
            target_count: TARGET_COUNT_MIN.min(count),
            calm_count: 0,
        };
        buffers.publish();
        Ok(buffers)
    }

    /// Address of the ring, for its registration.
    pub fn ring_address(&self) -> u64 {
        self.ring.base.as_ptr() as u64
    }

    pub fn count(&self) -> u16 {
        self.count
    }

    /// True while at least one buffer is not lent out, so that a receive may find one.
    pub fn has_free(&self) -> bool {
        self.lent_count < self.count
    }

    /// Takes over a buffer the kernel has just completed a receive into. `None` if the kernel names one we don't have
    /// or claims more bytes than fit, which would be the kernel's bug but must not become ours.
    pub fn take(&mut self, buffer: u16, size: u32) -> Option<Chunk> {
        if buffer >= self.count || size > self.size {
            return None;
        }
        self.lent_count += 1;
        Some(Chunk { buffer, size })
    }

    /// The received bytes.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        let start = usize::from(chunk.buffer) * self.size as usize;
        // SAFETY: `take` checked that the buffer and the size lie inside the region. The kernel writes only into
        // buffers that are in its ring, and this one is not: its chunk exists, chunks can't be copied, and
        // `give_back` consumes them. The slice borrows `self`, so neither `give_back` nor a drop can happen under it.
        unsafe { std::slice::from_raw_parts(self.bytes.base.as_ptr().add(start), chunk.size()) }
    }

    /// Returns a buffer; the kernel sees it at the next `publish`.
    pub fn give_back(&mut self, chunk: Chunk) {
        self.lent_count -= 1;
        self.spare.push(chunk.buffer);
    }

    /// A receive found no buffer: the kernel shall hold more of them.
    pub fn on_starved(&mut self) {
        self.target_count = self.target_count.saturating_mul(2).min(self.count);
        self.calm_count = 0;
    }

    /// Hands spare buffers to the kernel, up to what it shall hold.
    pub fn publish(&mut self) {
        self.calm_count += 1;
        if self.calm_count >= CALM_COUNT_MAX {
            self.calm_count = 0;
            self.target_count = (self.target_count / 2).max(TARGET_COUNT_MIN).min(self.count);
        }
        while usize::from(self.count - self.lent_count) - self.spare.len() < usize::from(self.target_count)
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
        let index = usize::from(self.tail & (self.count - 1));
        let address = self.bytes.base.as_ptr() as u64 + u64::from(buffer) * u64::from(self.size);
        // SAFETY: index < count, so the entry lies inside the ring's mapping and is 16-byte aligned. At most `count`
        // buffers exist and each is in one place, so this entry is not among those the kernel may still read
        // (tail - head <= count). The fields are written one by one because entry 0 also holds the tail.
        unsafe {
            let entry = self.ring.base.as_ptr().add(index * ENTRY_SIZE);
            entry.cast::<u64>().write(address);
            entry.add(ENTRY_SIZE_AT).cast::<u32>().write(self.size);
            entry.add(ENTRY_ID_AT).cast::<u16>().write(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }
}
