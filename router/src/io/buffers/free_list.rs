//! Free buffers are ours: a receive of our own fills one and lends it out.
//!
//! Always: a buffer is either in the list or lent out as a [`Chunk`]; the kernel writes into one only inside a system
//! call of this thread.

use super::{Chunk, Pool};

/// The buffers and those of them that are free, the one used last on top: its bytes are still in the cache.
pub struct FreeList {
    pool: Pool,
    free: Vec<u16>,
}

impl FreeList {
    /// Maps the memory; all buffers are free.
    pub fn new(count: u16, size: u32) -> rustix::io::Result<Self> {
        Ok(FreeList { pool: Pool::map(count, size)?, free: (0..count).rev().collect() })
    }

    /// True while there is a buffer to receive into.
    pub fn has_free(&self) -> bool {
        self.pool.has_free()
    }

    /// Bytes of one buffer.
    pub fn buffer_size(&self) -> usize {
        self.pool.size as usize
    }

    /// Lets `receive` fill a free buffer, of which there must be one, and say how many bytes came. `Ok(None)`: none,
    /// and the buffer stays free.
    pub fn fill<E>(
        &mut self,
        receive: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Option<Chunk>, E> {
        let buffer = *self.free.last().expect("asked for only while `has_free`");
        // SAFETY: `at` checked that the buffer lies inside the region, whose bytes are initialised (a fresh mapping is
        // zeroed). It is on the free list, so no chunk of it exists and `Pool::bytes` makes no slice of it; the kernel
        // never learns of buffers of a `FreeList`. `self` is borrowed exclusively for as long as the slice lives.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.pool.at(buffer), self.pool.size as usize) };
        let size = receive(bytes)?;
        if size == 0 {
            return Ok(None);
        }
        self.free.pop();
        let size = u32::try_from(size).expect("not more than the buffer holds");
        Ok(Some(self.pool.lend(buffer, size).expect("not more than the buffer holds")))
    }

    /// The received bytes.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.pool.bytes(chunk)
    }

    /// Returns a buffer.
    pub fn give_back(&mut self, chunk: Chunk) {
        let buffer = self.pool.take_back(chunk);
        self.free.push(buffer);
    }
}
