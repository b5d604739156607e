//! Stage 6 of 8: what a shim that was killed has left: processes that its function processes had started.
//!
//! A function process dies with its shim, by the kernel (`process.rs`). What it had started does not: its parent is then
//! whoever adopts orphans on the host, and it runs on, with its files and its ports, where nobody looks for it. So every process that a
//! shim starts has its run directory's mark in the environment, which its children inherit; and the next shim of that directory, which
//! finds that the one before did not end by itself, kills what has the mark.
//!
//! Always: before anything is started, so that what has the mark is nobody's: the run directory's lock is ours.
//! Never: a signal to a number that may by now be someone else's: a process is held by a descriptor before its environment is read.
//! Never: found is what has cleared its environment, or runs as another user; and nothing is looked for while no shim comes.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that has the mark.
pub const VARIABLE: &str = "QUICKFIRE_SHIM";
/// Between two looks, for what was killed to be gone.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// What the kernel will not let die (it waits for a disk that is gone) is given up after this.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// Names a run directory for as long as it exists, and tells a function nothing else about it.
pub fn mark(run_dir: &Path) -> std::io::Result<String> {
    let metadata = run_dir.metadata()?;
    Ok(format!("{:x}.{:x}", metadata.dev(), metadata.ino()))
}

/// Kills every process that has the mark, and what these start meanwhile. Tells how many there were.
pub fn end(mark: &str) -> usize {
    let wanted = format!("{VARIABLE}={mark}");
    let begun = Instant::now();
    let mut count = 0;
    loop {
        let found = marked(wanted.as_bytes());
        if found.is_empty() || begun.elapsed() > UNKILLABLE_AFTER {
            return count;
        }
        count = count.max(found.len());
        for process in found {
            // Fails only if it is gone, which is what is wanted.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        std::thread::sleep(LOOK_PERIOD);
    }
}

fn marked(wanted: &[u8]) -> Vec<OwnedFd> {
    let own = rustix::process::getpid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| *pid != own).filter_map(|pid| held_if_marked(pid, wanted)).collect()
}

fn held_if_marked(pid: Pid, wanted: &[u8]) -> Option<OwnedFd> {
    // First, so that what is read below is its environment, or that of a later process of the same number, and then the descriptor
    // names one that is dead. Nobody may read another user's.
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted).then_some(process)
}
