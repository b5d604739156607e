//! Stage 6 of 8: `DIR/shim.lock`, so that one run directory has one shim.
//!
//! Always: the lock is the kernel's (flock) and goes with the process, however it ends; the number in the file is for
//! people, and for the next shim: it is there unless its shim ended by itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::shim::ShimFailed;

/// The run directory is this process's, until this is dropped.
pub struct RunLock {
    file: File,
    /// The shim before this one did not end by itself.
    pub was_left: bool,
}

impl RunLock {
    /// Nothing that this shim started is left.
    pub fn release(self) {
        // The next shim looks for what is not there: it costs a moment.
        let _ = self.file.set_len(0);
    }
}

/// Claims the run directory for this process.
pub fn lock(run_dir: &Path) -> Result<RunLock, ShimFailed> {
    let failed = |source| ShimFailed::System { what: "lock its run directory", source };
    let path = run_dir.join("shim.lock");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file.take(64).read_to_string(&mut text);
            let pid = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
            return Err(ShimFailed::AlreadyRunning { run_dir: run_dir.to_owned(), pid });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let was_left = file.metadata().is_ok_and(|metadata| metadata.len() > 0);
    let write_pid = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(failed)?;
    Ok(RunLock { file, was_left })
}
