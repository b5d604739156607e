//! Receive buffers: one mapped region cut into equal parts, lent out one by one as [`Chunk`]s.
//!
//! ```text
//!          give back                  bytes were received into it
//!   free ─────────────▶ may be filled ──────────────────────────▶ lent out as a Chunk
//!     ▲                 (kernel_ring.rs: the kernel has it)                  │
//!     │                 (free_list.rs: nobody has it)                        │
//!     └──────────────────────────────── recycle(chunk) ──────────────────────┘
//! ```
//! Always: a buffer is in exactly one of the two places; [`Chunk`] can be neither copied nor made elsewhere, so holding
//! one proves that nobody writes into it.
//! Who may fill a buffer is what the two backends differ in: [`KernelRing`] gives free buffers to the kernel, which
//! fills them whenever it likes; with a [`FreeList`] they stay here and are filled by a system call of ours.

mod free_list;
mod kernel_ring;

use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

pub(super) use free_list::FreeList;
pub(super) use kernel_ring::{GROUP, KernelRing};

/// Received bytes, lent to whoever holds this.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a chunk that is not recycled is a receive buffer lost"]
pub struct Chunk {
    buffer: u16,
    size: u32,
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
        // SAFETY: exactly the mapping made in `map`; references into it borrow the `Pool` that owns us, and
        // `Uring::drop` leaks the buffers instead when the kernel may still write into them. A failure leaves it
        // mapped, which harms nobody.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// The memory of all buffers, and how many are lent out. Who holds the others is for its owner to know.
struct Pool {
    bytes: Region,
    count: u16,
    size: u32,
    lent_count: u16,
}

impl Pool {
    fn map(count: u16, size: u32) -> rustix::io::Result<Pool> {
        assert!(count.is_power_of_two() && count <= 32_768, "the kernel wants a power of two up to 2^15");
        assert!(size > 0);
        let bytes = Region::map(usize::from(count) * size as usize)?;
        Ok(Pool { bytes, count, size, lent_count: 0 })
    }

    /// True while at least one buffer is not lent out, so that a receive may find one.
    fn has_free(&self) -> bool {
        self.lent_count < self.count
    }

    /// Lends out a buffer into which `size` bytes were received, and which nobody else holds. `None` for one we don't
    /// have or more bytes than fit: that would be the kernel's bug, but must not become ours.
    fn lend(&mut self, buffer: u16, size: u32) -> Option<Chunk> {
        if buffer >= self.count || size > self.size {
            return None;
        }
        self.lent_count += 1;
        Some(Chunk { buffer, size })
    }

    /// The received bytes.
    fn bytes(&self, chunk: &Chunk) -> &[u8] {
        // SAFETY: `lend` checked that the buffer and the size lie inside the region. Nobody writes into a buffer that
        // is lent out: its chunk exists, chunks can't be copied, and only `take_back`, which consumes them, lets the
        // owner give the buffer to be filled again. The slice borrows `self`, so neither `take_back` nor a drop can
        // happen under it.
        unsafe { std::slice::from_raw_parts(self.at(chunk.buffer), chunk.size()) }
    }

    /// Ends the loan.
    fn take_back(&mut self, chunk: Chunk) -> u16 {
        self.lent_count -= 1;
        chunk.buffer
    }

    /// Where a buffer begins; it has `self.size` bytes.
    fn at(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.count, "one of the buffers");
        self.bytes.base.as_ptr().wrapping_add(usize::from(buffer) * self.size as usize)
    }
}
