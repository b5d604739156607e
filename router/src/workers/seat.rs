//! One attached worker: everything the router holds of it.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use engine::WorkerId;
use protocol::attach::Message;
use rustix::net::SendFlags;
use rustix::process::Signal;
use shm_ring::{Mapped, RouterEnd, WorkerMisbehaved, peer};

use crate::io::{Io, SourceId};

/// See above.
pub struct Seat {
    /// The engine's name for it.
    pub id: WorkerId,
    /// Its process.
    pub process_id: u32,
    pub(super) ring: RouterEnd<Mapped>,
    /// Open as long as it lives.
    pub(super) socket: Rc<UnixStream>,
    pub(super) bell_source: SourceId,
    /// Its process: readable when it ended. None for a worker in the router's own process, which can't be killed alone
    /// and is lost when its socket closes.
    pub(super) process: Option<Process>,
    /// Calls in its ring that were not taken back.
    pub(super) held_count: u32,
    /// Answers taken from its ring, and times its bell rang: see `Workers::on_bell`.
    pub(super) answer_count: u64,
    pub(super) bell_count: u64,
    /// Direct lanes it can serve at once.
    pub(super) lanes_max: u32,
    pub(super) is_touched: bool,
    /// What it says is not listened to any more.
    pub(super) is_quarantined: bool,
    /// Why.
    pub(super) misbehaved: Option<WorkerMisbehaved>,
}

/// A worker's process, by a descriptor that can't come to mean another one.
pub(super) struct Process {
    pub fd: Rc<OwnedFd>,
    pub source: SourceId,
}

impl Seat {
    /// What it did wrong, if it is quarantined.
    pub fn misbehaved(&self) -> Option<&WorkerMisbehaved> {
        self.misbehaved.as_ref()
    }

    /// Asks it to finish what it has and exit.
    pub(super) fn tell_stop(&mut self) {
        let mut message = Vec::new();
        Message::Stop.encode(&mut message);
        // A socket that has no room for 64 bytes, or is closed, belongs to a worker that is as good as gone; its end is
        // noticed by its own event.
        let _ = rustix::net::send(&self.socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Ends its process, or cuts it off if it is ours.
    pub(super) fn kill(&mut self) {
        if let Some(process) = &self.process {
            // Fails only if it is dead already.
            let _ = rustix::process::pidfd_send_signal(&*process.fd, Signal::KILL);
        } else {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// True if nothing of it can run any more.
    pub(super) fn is_known_dead(&self) -> bool {
        self.process.as_ref().is_none_or(|process| peer::has_ended(&*process.fd).unwrap_or(true))
    }

    /// Gives everything back to the kernel.
    pub(super) fn close(self, io: &mut Io) {
        io.close(self.bell_source);
        if let Some(process) = self.process {
            io.close(process.source);
        }
        // Its socket is watched by `Attach`, which closes it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}
