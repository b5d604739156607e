//! Stage 7 of 8: a function process that serves nobody: it is initialised, and copied whenever the shim wants one more
//! (`snapshot = true`).
//!
//! In: orders, on standard input (records: `protocol::template`).  Out: in each copy, which shard's socket it is to attach to.
//! Always: before a copy does anything it is known to the shim, dies with it, and has output and standard input of its own. Of the
//! template it has no descriptor but those that its author opened.
//! Never: forks while there are threads: it says how many, and ends. Never attaches before it is copied, so that no ring is shared.
//!
//! Guide: docs/coding/snapshots.md.  Why so: docs/decisions/0034-snapshots.md.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use protocol::template::{Message, RECORD_SIZE};
use rustix::io::Errno;
use rustix::process::Signal;
use shm_ring::fork::{ForkRefused, Side, thread_count};
use shm_ring::pass;

use super::ServeFailed;

/// Set by the shim for a process that is to be copied.
pub const VARIABLE: &str = "QUICKFIRE_TEMPLATE";

/// What the kernel says when it has no process to give, and the C library kept its reason to itself.
const ERRNO_UNKNOWN: i32 = Errno::AGAIN.raw_os_error();

/// What comes with an order: the copy's ends.
struct Ends {
    stdout: OwnedFd,
    stderr: OwnedFd,
    shim: OwnedFd,
}

/// Waits for orders, for as long as the shim lives. Comes back in each copy, with the attach socket it is to use; with nothing where
/// the shim is no more.
pub fn wait_to_be_copied(
    mut fork: impl FnMut() -> Result<Side, ForkRefused>,
) -> Result<Option<PathBuf>, ServeFailed> {
    let orders = take_standard_input().map_err(ServeFailed::Template)?;
    let count = thread_count().map_err(ServeFailed::Template)?;
    if count != 1 {
        return Err(refuse(&orders, count));
    }
    say(&orders, Message::Ready).map_err(ServeFailed::Template)?;
    loop {
        let Some((message, fds)) = receive(&orders).map_err(ServeFailed::Template)? else { return Ok(None) };
        let (Message::Copy { order, attach_socket }, Ok([stdout, stderr, shim])) =
            (message, <[OwnedFd; 3]>::try_from(fds))
        else {
            let text = format!("the shim said {message:?}, which is no order for a copy");
            return Err(ServeFailed::Template(io::Error::other(text)));
        };
        // What is not written out yet would be written by every copy. A closed output is no reason not to be copied.
        let _ = io::stdout().flush();
        match fork() {
            Ok(Side::Original) => {}
            Ok(Side::Copy) => {
                drop(orders);
                let is_wanted =
                    become_instance(Ends { stdout, stderr, shim }).map_err(ServeFailed::Template)?;
                let path = PathBuf::from(std::ffi::OsString::from_vec(attach_socket.as_bytes().to_vec()));
                return Ok(is_wanted.then_some(path));
            }
            Err(ForkRefused::Threads { count }) => return Err(refuse(&orders, count)),
            Err(ForkRefused::System(error)) => {
                let errno = error.raw_os_error().unwrap_or(ERRNO_UNKNOWN).unsigned_abs();
                say(&orders, Message::CopyFailed { order, errno }).map_err(ServeFailed::Template)?;
            }
        }
    }
}

/// Says that there are threads. If the shim does not hear it, it sees the end.
fn refuse(orders: &OwnedFd, count: u32) -> ServeFailed {
    let _ = say(orders, Message::Threads { count });
    ServeFailed::Threads { count }
}

/// In a copy: makes it a process like any that the shim starts. False: nobody wants it any more.
fn become_instance(ends: Ends) -> io::Result<bool> {
    rustix::stdio::dup2_stdout(&ends.stdout)?;
    rustix::stdio::dup2_stderr(&ends.stderr)?;
    // The shim: it answers its own children only.
    let parent = rustix::process::getppid();
    if say(&ends.shim, Message::Born).is_err() || !matches!(receive(&ends.shim)?, Some((Message::Go, _))) {
        return Ok(false);
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The shim may have died before the line above took effect, and then no signal will ever come: our parent is someone else.
    Ok(rustix::process::getppid() == parent)
}

/// The orders, with `/dev/null` in their place, so that nothing that the function starts has them.
fn take_standard_input() -> io::Result<OwnedFd> {
    let orders = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(orders)
}

fn say(socket: &OwnedFd, message: Message) -> io::Result<()> {
    let size = pass::send_with_fds(socket, &message.encode(), &[])?;
    if size == RECORD_SIZE { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The next record with what came along; `None`: the other end is gone.
fn receive(socket: &OwnedFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let (mut bytes, mut fds) = ([0; RECORD_SIZE], Vec::new());
    match pass::receive_with_fds(socket, &mut bytes, &mut fds) {
        Ok(0) | Err(Errno::CONNRESET) => Ok(None),
        Ok(size) => Ok(Some((Message::decode(&bytes[..size]).map_err(io::Error::other)?, fds))),
        Err(error) => Err(error.into()),
    }
}
