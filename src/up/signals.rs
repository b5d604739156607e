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
    /// Somebody changed the configuration file.
    Reload,
    /// A child changed, or the time is over.
    Nothing,
}

/// The signals of `quickfire up`.
pub struct Signals {
    stop: UnixStream,
    reload: UnixStream,
    child: UnixStream,
}

impl Signals {
    /// From now on, signals are kept for `wait`.
    pub fn new() -> io::Result<Signals> {
        let (stop, stop_end) = UnixStream::pair()?;
        let (reload, reload_end) = UnixStream::pair()?;
        let (child, child_end) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        reload.set_nonblocking(true)?;
        child.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, stop_end.try_clone()?)?;
        }
        pipe::register(SIGHUP, reload_end)?;
        pipe::register(SIGCHLD, child_end)?;
        Ok(Signals { stop, reload, child })
    }

    /// Waits for a signal, at most this long. Signals that came before count; each stop signal counts once.
    pub fn wait(&mut self, timeout: Duration) -> News {
        let mut polled = [&self.stop, &self.reload, &self.child].map(|end| PollFd::new(end, PollFlags::IN));
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // Interrupted or timed out: what came is in the sockets.
        let _ = poll(&mut polled, Some(&timeout));
        while matches!(self.child.read(&mut [0; 64]), Ok(1..)) {}
        if matches!(self.stop.read(&mut [0]), Ok(1..)) {
            return News::Stop;
        }
        // However often it was said: the file is read as it is now.
        match self.reload.read(&mut [0; 64]) {
            Ok(1..) => News::Reload,
            _ => News::Nothing,
        }
    }
}
