//! One client with a ring: everything the router holds of it.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use engine::Nanos;
use protocol::attach::Message;
use rustix::net::SendFlags;
use shm_ring::Mapped;
use shm_ring::client_ring::ServiceEnd;

use super::ClientId;
use crate::io::{Io, SourceId};

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
