//! Output on its way: which connections were written to in this turn, and empty buffers for the next ones.
//!
//! Always: an idle connection holds no buffer; a busy one holds two, the one being filled and the one being sent. What
//! all of them hold is known (`held_size`), so that it can be bounded.
#![forbid(unsafe_code)]

use super::connection::Connection;

/// Buffers larger than this are given back to the allocator: one large answer must not be remembered for ever.
const BUFFER_SIZE_MAX: usize = 1 << 20;
/// All empty buffers together.
const BUFFERS_SIZE_MAX: usize = 32 << 20;

/// See above.
#[derive(Default)]
pub struct Outbox {
    empty: Vec<Vec<u8>>,
    empty_size: usize,
    touched: Vec<u32>,
    held_size: usize,
}

impl Outbox {
    /// The buffer to append a connection's next frame to; the connection is flushed at the end of the turn.
    #[inline]
    pub fn open<'a>(&mut self, connection: &'a mut Connection, index: u32) -> &'a mut Vec<u8> {
        self.touch(connection, index);
        if connection.output.capacity() == 0
            && let Some(buffer) = self.empty.pop()
        {
            self.empty_size -= buffer.capacity();
            connection.output = buffer;
        }
        &mut connection.output
    }

    /// The connection has output to flush.
    #[inline]
    pub fn touch(&mut self, connection: &mut Connection, index: u32) {
        if !connection.is_touched {
            connection.is_touched = true;
            self.touched.push(index);
        }
    }

    /// The next connection to flush.
    #[inline]
    pub fn next_touched(&mut self) -> Option<u32> {
        self.touched.pop()
    }

    /// Brings the sum up to date with what this connection holds. Called when output goes to the kernel or comes back,
    /// not for each frame.
    #[inline]
    pub fn count(&mut self, connection: &mut Connection) {
        let held_size = connection.sending_size + connection.output.len();
        self.held_size = self.held_size - connection.held_size + held_size;
        connection.held_size = held_size;
    }

    /// Bytes of output of all connections, waiting or with the kernel.
    pub fn held_size(&self) -> usize {
        self.held_size
    }

    /// Keeps a sent buffer for later, if it is worth it.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size == 0 || size > BUFFER_SIZE_MAX || self.empty_size + size > BUFFERS_SIZE_MAX {
            return;
        }
        buffer.clear();
        self.empty_size += size;
        self.empty.push(buffer);
    }
}
