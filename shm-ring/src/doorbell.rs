//! How a sleeping side is woken.
//!
//! Router to worker: a futex on `wake_count`, through [`crate::RouterEnd::wake`]. The worker sleeps on nothing else.
//! Worker to router: an eventfd, which the router polls together with its sockets.
//!
//! Both are rung only when the other side has announced its sleep: waking costs 30 us of somebody's core, and a batch
//! of requests without a sleeper needs no system call at all. Why no wake-up is lost: `docs/spec/shm.md`, "Doorbells".

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::io::{Errno, ReadWriteFlags};

/// The bell that wakes the router. One for each worker: who shares a bell can silence it for the others.
#[derive(Debug)]
pub struct EventDoorbell {
    fd: OwnedFd,
}

impl EventDoorbell {
    /// A new bell, for the router; the worker gets the descriptor.
    pub fn new() -> Result<Self, Errno> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    /// A received bell, for the worker.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Wakes the router. A bell that is already ringing (EAGAIN: the counter is full) is as good.
    pub fn ring(&self) -> Result<(), Errno> {
        match rustix::io::write(&self.fd, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Silences the bell, and tells whether it was ringing. Never blocks: O_NONBLOCK belongs to the open file, which the
    /// worker shares and can switch to blocking, so the read asks for it by itself.
    pub fn silence(&self) -> Result<bool, Errno> {
        let mut count = [0; 8];
        let at_current_position = u64::MAX;
        let into = &mut [IoSliceMut::new(&mut count)];
        match rustix::io::preadv2(&self.fd, into, at_current_position, ReadWriteFlags::NOWAIT) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The descriptor, for the other side.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for EventDoorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::OFlags;

    use super::*;

    #[test]
    fn a_bell_rung_twice_is_silenced_at_once() {
        let bell = EventDoorbell::new().unwrap();
        assert_eq!(bell.silence(), Ok(false));
        bell.ring().unwrap();
        bell.ring().unwrap();
        assert_eq!(bell.silence(), Ok(true));
        assert_eq!(bell.silence(), Ok(false));
    }

    #[test]
    fn a_worker_that_makes_the_bell_blocking_does_not_block_the_router() {
        let bell = EventDoorbell::new().unwrap();
        let theirs = bell.as_fd().try_clone_to_owned().unwrap();
        rustix::fs::fcntl_setfl(&theirs, OFlags::empty()).unwrap();
        assert_eq!(bell.silence(), Ok(false));
    }

    #[test]
    fn a_full_bell_still_counts_as_rung() {
        let bell = EventDoorbell::new().unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        assert_eq!(bell.ring(), Ok(()));
        assert_eq!(bell.silence(), Ok(true));
    }
}
