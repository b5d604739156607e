//! One client with a ring: everything the router holds of it.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use engine::{Answer, Nanos};
use protocol::Status;
use protocol::attach::Message;
use rustix::net::SendFlags;
use shm_ring::client_ring::{self, ServiceEnd};
use shm_ring::{Mapped, SlotIndex};

use super::{ClientId, status_byte};
use crate::io::{Io, SourceId};
use crate::workers::ResultBytes;

/// See above.
pub struct Client {
    pub id: ClientId,
    pub ring: ServiceEnd<Mapped>,
    /// Watched by `Attach`.
    pub socket: Rc<UnixStream>,
    pub bell_source: SourceId,
    /// When its ring last held a call, or it was begun to be watched.
    pub called_at: Nanos,
    /// Calls taken, and times its bell rang: see `ShmClients::on_bell`.
    pub call_count: u64,
    pub bell_count: u64,
    /// In the list of rings to look at; otherwise the router's sleep is announced in it.
    pub is_watched: bool,
    /// In the list of rings to publish.
    pub is_touched: bool,
}

impl Client {
    /// Writes an answer into its call's slot. False: that call is no longer there.
    #[inline(always)]
    pub fn answer(&mut self, answer: &Answer, result: &impl ResultBytes) -> bool {
        // The client said how large a result it takes; one beyond it can only be told of (S-40).
        let (status, result_size) = match u32::try_from(result.size()) {
            Ok(size) if size <= self.ring.geometry().region_size() => (answer.status, size),
            _ => (Status::ResultTooLarge, 0),
        };
        let timings = answer.want_timings.then(|| answer.stamps.timings().encode());
        let parts = client_ring::Answer {
            status: status_byte(status),
            flags: answer.flags.0,
            retry_after_us: answer.retry_after_us,
            timings: timings.as_ref(),
        };
        let slot = SlotIndex(answer.origin.call_id.slot());
        let write = |memory: &Mapped, place| result.copy_to(memory, place);
        self.ring.answer_tagged(slot, answer.invocation.0, parts, result_size, write)
    }

    /// Says something on its socket. A client without room for 64 bytes listens to nothing: its socket is ended, and what
    /// follows from that comes by the socket's own event.
    pub fn tell(&mut self, message: Message) {
        let mut record = Vec::new();
        message.encode(&mut record);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if rustix::net::send(&self.socket, &record, flags) != Ok(record.len()) {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Gives everything back to the kernel.
    pub fn close(self, io: &mut Io) {
        io.close(self.bell_source);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}
