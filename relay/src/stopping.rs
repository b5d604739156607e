//! SIGTERM to the relay, by which the shim ends its processes: passed on to the program, which gets its grace, and then the
//! relay ends too.
//!
//! A thread of its own, because the relay's one thread sleeps on its ring, or waits for the program.
//! Never: a signal to a number that may by now be someone else's: a process is named by a descriptor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use crate::limits::STOP_GRACE;
use crate::program::timespec;

/// As a shell tells the end by SIGTERM.
const CODE_TERMINATED: i32 = 128 + SIGTERM;

/// What is to be ended with the relay.
#[derive(Default)]
pub struct Stopping(Mutex<Option<Last>>);

/// The program, and a file that has to go with it.
struct Last {
    program: OwnedFd,
    file: Option<PathBuf>,
}

impl Stopping {
    /// A program was started.
    pub fn note(&self, program: BorrowedFd<'_>, file: Option<PathBuf>) {
        // Without descriptors to spare it ends like the relay's other children: killed.
        let last = program.try_clone_to_owned().ok().map(|program| Last { program, file });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// From now on SIGTERM ends the program, and then this process.
    pub fn listen(self: &Arc<Self>) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM])?;
        let stopping = Arc::clone(self);
        std::thread::Builder::new().name("relay-signals".into()).stack_size(64 << 10).spawn(move || {
            if signals.forever().next().is_some() {
                stopping.end();
                std::process::exit(CODE_TERMINATED);
            }
        })?;
        Ok(())
    }

    fn end(&self) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Last { program, file }) = last else { return };
        // Fails only if it is gone, which is what is wanted.
        let _ = pidfd_send_signal(&program, Signal::TERM);
        let mut waited = [PollFd::new(&program, PollFlags::IN)];
        let _ = poll(&mut waited, Some(&timespec(STOP_GRACE)));
        if let Some(file) = file {
            // It may never have been made.
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn a_program_is_asked_to_end_and_its_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.sock");
        std::fs::write(&file, "").unwrap();
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let stopping = Stopping::default();
        stopping.note(pidfd.as_fd(), Some(file.clone()));
        stopping.end();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        assert!(!file.exists());
        stopping.end();
    }
}
