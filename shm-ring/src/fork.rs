//! Stage 7 of 8: a copy of a process that is initialised, so that the next instance of a function needs no start of its own.
//!
//! In: a process with one thread.  Out: the same process twice: the [`Side::Original`], and a [`Side::Copy`] that is nobody's child
//! of the original, but of whoever takes the orphans (the shim: it is their subreaper).
//! Always: the copy comes back from here only when its new parent has it, so that what follows the parent (PDEATHSIG) can be asked
//! for at once.
//! Never: copies a process with more threads than one: what another thread held at that moment, the allocator's lock say, would be
//! held for ever in the copy.
//!
//! ```text
//!   original ──fork──▶ between ──fork──▶ copy         between ends at once: the copy is an orphan, and the subreaper's child
//!      │ waits for ◀──── exit
//! ```
//! Why `fork` of the C library and not the system call: it puts the allocator and the C library's own idea of the thread right in
//! the child, and runs what libraries registered with `pthread_atfork`. Why twice, and not `CLONE_PARENT`: that needs the system
//! call.  Why here: function processes and the shim both know this crate, and nothing above it may hold unsafe code.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// Between two looks whether the parent has changed; the process between has only its end to do.
const LOOK_AGAIN: Duration = Duration::from_micros(20);

/// Which of the two a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that asked.
    Original,
    /// The new one.
    Copy,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum ForkRefused {
    /// There are threads that would not be copied.
    #[error("the process has {count} threads; only one with a single thread can be copied")]
    Threads {
        /// How many, this one included.
        count: u32,
    },
    /// The kernel does not say how many threads there are, or does not make another process.
    #[error("the system makes no copy of the process: {0}")]
    System(#[from] io::Error),
}

/// Threads of this process, as the kernel counts them.
pub fn thread_count() -> io::Result<u32> {
    Ok(u32::try_from(std::fs::read_dir("/proc/self/task")?.count()).unwrap_or(u32::MAX))
}

/// Makes a copy of this process that is an orphan: see above.
pub fn fork_orphan() -> Result<Side, ForkRefused> {
    let count = thread_count()?;
    if count != 1 {
        return Err(ForkRefused::Threads { count });
    }
    // SAFETY: the hazard of `fork` is a thread that is not copied and held a lock, or had memory half changed, so that the child may
    // only make async-signal-safe calls. There is no other thread: the kernel counted one line above, and only this thread, which
    // is here, could have started one since. What both processes then have twice (descriptors, private memory) the kernel counts.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => Ok(go_between()),
        between => {
            let between = Pid::from_raw(between).expect("a process has a number above zero");
            wait_for(between)?;
            Ok(Side::Original)
        }
    }
}

/// In the process between: forks the copy and ends, with what the kernel said of it.
fn go_between() -> Side {
    let between = rustix::process::getpid();
    // SAFETY: as above, and this process has come from that fork with one thread.
    match unsafe { libc::fork() } {
        -1 => end(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN)),
        0 => {
            while rustix::process::getppid() == Some(between) {
                std::thread::sleep(LOOK_AGAIN);
            }
            Side::Copy
        }
        _ => end(0),
    }
}

/// Ends without running what is registered for the end of the original, and without writing out its buffers.
fn end(code: i32) -> ! {
    // SAFETY: `_exit` does not come back and touches nothing of this process's memory.
    unsafe { libc::_exit(code) }
}

/// The end of the process between; its code is the errno of the second fork.
fn wait_for(between: Pid) -> io::Result<()> {
    let status = loop {
        match rustix::process::waitpid(Some(between), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            // The function said that it does not want to hear of its children, and so nobody does.
            Err(Errno::CHILD) | Ok(None) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(Some((_, status))) => break status,
        }
    };
    match status.exit_status() {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("the process that was to make it was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // That copies are made, and whose they are: `tests/fork.rs`, in processes of their own.

    #[test]
    fn a_process_with_threads_is_not_copied_and_told_how_many_it_has() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        // The test harness has a thread of its own as well, and may have others.
        let least = 2;
        match fork_orphan() {
            Err(ForkRefused::Threads { count }) => assert!(count >= least, "{count}"),
            other => panic!("{other:?}"),
        }
        drop(release);
        let _ = other.join();
    }
}
