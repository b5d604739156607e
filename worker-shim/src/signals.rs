//! Stage 6 of 8: signals, as a descriptor that `poll` can wait for.
//!
//! In: SIGCHLD, and SIGTERM, SIGINT or SIGHUP, which all mean stop.  Out: readiness, and whether to stop.
//! Always: a signal that came before `poll` wakes it. Why a pipe and not signalfd: blocked signals would be inherited
//! by anything started without undoing it.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// Signals, as a descriptor that `poll` can wait for.
pub struct Signals {
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
}

impl Signals {
    /// What `poll` should wait for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.pipe, PollFlags::IN)
    }

    /// Starts listening.
    pub fn new() -> io::Result<Self> {
        let (pipe, notify) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        // After the flags: handlers run in the order of registration, and who is woken must find the flag set.
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, notify.try_clone()?)?;
        }
        Ok(Self { pipe, stop })
    }

    /// Empties the pipe; true if one of the signals meant stop. The bytes only wake: how many there are says
    /// nothing, because signals of one kind merge.
    pub fn take_stop(&mut self) -> bool {
        let mut bytes = [0; 64];
        while matches!(self.pipe.read(&mut bytes), Ok(1..)) {}
        self.stop.swap(false, Ordering::SeqCst)
    }

    /// Sleeps until a signal comes or the time is up.
    pub fn wait(&mut self, timeout: Duration) {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let _ = rustix::event::poll(&mut [self.poll_fd()], Some(&timeout));
        self.take_stop();
    }
}
