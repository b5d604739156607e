//! Who is at the other end of a Unix socket, and whether it is still alive.
//!
//! The socket's end (EOF) is the usual news of a death. A pidfd says it even when a child of the dead process has kept
//! the socket open, and it cannot be confused by a reused process id once it is open.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

/// Who connected, as the kernel saw it at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Reads the peer's credentials (SO_PEERCRED).
pub fn credentials(socket: impl AsFd) -> Result<Credentials, Errno> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Credentials {
        pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    })
}

/// A descriptor that becomes readable when the process ends. Open it while the peer's socket is open: the id is then
/// not yet reused, unless the process died and left its socket to a child.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Whether the process has ended (it may still be a zombie).
pub fn has_ended(pidfd: impl AsFd) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut fds, Some(&at_once))? == 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_peer_of_our_own_pair_is_ourselves() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(credentials(&ours).unwrap().pid, std::process::id());
    }

    #[test]
    fn a_pidfd_tells_of_the_end() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        assert_eq!(has_ended(&pidfd), Ok(false));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(has_ended(&pidfd), Ok(true));
    }

    #[test]
    fn impossible_process_ids_are_refused() {
        assert_eq!(pidfd_open(0).unwrap_err(), Errno::SRCH);
        assert_eq!(pidfd_open(u32::MAX).unwrap_err(), Errno::SRCH);
    }
}
