//! Signals as something to wait for.
//!
//! Each signal writes a byte into a socket (the self-pipe trick, which signal-hook does safely); waiting is polling it.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Somebody wants this program to end.
    Stop,
    /// A child changed, or the time is over.
    Nothing,
}

/// The signals of `quickfire up`.
pub struct Signals {
    stop: UnixStream,
    child: UnixStream,
}

impl Signals {
    /// From now on, signals are kept for `wait`.
    pub fn new() -> io::Result<Signals> {
        let (stop, stop_end) = UnixStream::pair()?;
        let (child, child_end) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        child.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, stop_end.try_clone()?)?;
        }
        pipe::register(SIGCHLD, child_end)?;
        Ok(Signals { stop, child })
    }

    /// Waits for a signal, at most this long. Signals that came before count; each stop signal counts once.
    pub fn wait(&mut self, timeout: Duration) -> News {
        let mut polled = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.child, PollFlags::IN)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // Interrupted or timed out: what came is in the sockets.
        let _ = poll(&mut polled, Some(&timeout));
        while matches!(self.child.read(&mut [0; 64]), Ok(1..)) {}
        match self.stop.read(&mut [0]) {
            Ok(1..) => News::Stop,
            _ => News::Nothing,
        }
    }
}
