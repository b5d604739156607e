//! What a ring needs beside [`ShmClient`]'s own methods to be looked at by several threads in turn (`ring.rs`).
//!
//! Always: whoever holds the client may look at the ring; sleep is announced by the one and slept by the other, which the
//! ring allows because both belong to this process.

use std::io;
use std::path::Path;

use protocol::attach::Message;
use protocol::{FunctionId, FunctionName, Status};
use rustix::net::SendFlags;
use shm_ring::Mapped;

use super::attachment::{Failed, try_attach_with_memory};
use super::{Options, ShmClient};
use crate::error::Disconnect;
use crate::ring::Sleeper;

impl ShmClient {
    /// Attaches to one shard, and prepares what a thread sleeps on that does not hold the client.
    pub(crate) fn attach_shared(run_dir: &Path, options: &Options) -> Result<(Self, Sleeper), Failed> {
        let (client, memory_fd) = try_attach_with_memory(run_dir, options)?;
        let memory = Mapped::attach(&memory_fd).map_err(io::Error::other)?;
        let socket = client.socket.try_clone()?;
        Ok((client, Sleeper { memory, socket }))
    }

    /// Asks for a function's number without waiting; the answers come in the order of the questions.
    pub(crate) fn ask(&mut self, name: FunctionName) -> Result<(), Disconnect> {
        let mut bytes = Vec::new();
        Message::Resolve { name }.encode(&mut bytes);
        // A record is far smaller than the socket's buffer, so that the kernel takes all of it or nothing.
        rustix::net::send(&self.socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            .map_err(|errno| self.end(Disconnect::Io(io::Error::from(errno).kind())))?;
        self.aside.asked_count += 1;
        Ok(())
    }

    /// The next answer to such a question.
    pub(crate) fn take_resolved(&mut self) -> Option<Result<FunctionId, Status>> {
        let resolved = self.aside.resolved.pop_front()?;
        self.aside.asked_count -= 1;
        Some(resolved)
    }

    /// Why the router takes no new calls, once it said so on the socket.
    pub(crate) fn goaway(&self) -> Option<Status> {
        self.goaway
    }

    /// See `ClientEnd::announce_sleep`.
    pub(crate) fn announce_sleep(&mut self) -> bool {
        self.ring.announce_sleep()
    }

    /// See `ClientEnd::announce_awake`.
    pub(crate) fn announce_awake(&mut self) {
        self.ring.announce_awake();
    }

    /// See `ClientEnd::sleep_word`.
    pub(crate) fn sleep_word(&self) -> (usize, u32) {
        self.ring.sleep_word()
    }

    /// Rounds of looking that are about as long as [`Options::spin`].
    pub(crate) fn spin_count_max(&self) -> u32 {
        self.spin_count_max
    }
}
