//! The files of one instance as one stream of lines, also while the shim writes, renames and removes them.
//!
//! ```text
//!   thumbnail.3.log.1   thumbnail.3.log.2   thumbnail.3.log
//!   ───── older, in the order of their names ─────▶ current ──▶ (renamed: it is an older one now, known by its inode)
//! ```
//! Always: a line is given once; of a file that is removed before it was read, nothing is.
//! Always: at most two files open, and one line and one read of it in memory.
//! Never: half a line: what has no line feed yet is read again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use worker_shim::logs::LINE_SIZE_MAX;
use worker_shim::logs::name;

/// Read at once.
const READ_SIZE: usize = 16 << 10;
/// No line of the shim's is longer: what surrounds the text takes less than half a kilobyte.
const LINE_ROOM: usize = LINE_SIZE_MAX + 512;

/// See above.
pub struct Reader {
    current_path: PathBuf,
    /// Older files up to this one are read, or queued.
    queued_ms: Option<u64>,
    older: VecDeque<PathBuf>,
    /// Comes after the older ones.
    current: Option<File>,
    reading: Option<Reading>,
}

struct Reading {
    file: File,
    inode: u64,
    /// How far it has been read into the buffer.
    offset: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given.
    given: usize,
    /// Within a line that is too long to be one.
    is_skipping: bool,
}

impl Reader {
    pub fn new(logs_dir: &Path, function: &str, instance: &str) -> Self {
        Self {
            current_path: name::current(logs_dir, function, instance),
            queued_ms: None,
            older: VecDeque::new(),
            current: None,
            reading: None,
        }
    }

    /// The file that is written now. To be opened before the older ones are listed: what it becomes in between is then found among
    /// them.
    pub fn open_current(&self) -> io::Result<Option<File>> {
        open(&self.current_path)
    }

    /// Takes what was found; false if the file that is written now is yet to be found.
    pub fn take(&mut self, current: Option<File>, older_ms: &[u64]) -> io::Result<bool> {
        let inode = current.as_ref().map(inode_of).transpose()?;
        let mut is_renamed = false;
        for at_ms in older_ms.iter().filter(|at_ms| self.queued_ms.is_none_or(|queued| **at_ms > queued)) {
            let path = name::older(&self.current_path, *at_ms);
            is_renamed |= inode.is_some() && path.metadata().ok().map(|metadata| metadata.ino()) == inode;
            self.older.push_back(path);
        }
        self.queued_ms = self.queued_ms.max(older_ms.last().copied());
        self.current = current.filter(|_| !is_renamed);
        Ok(!is_renamed)
    }

    /// The next whole line without its line feed, if there is one by now.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(reading) = &mut self.reading
                && let Some(line) = reading.next_line()?
            {
                return Ok(Some(line));
            }
            let next = match self.older.pop_front() {
                Some(path) => open(&path)?,
                None => match self.current.take() {
                    Some(current) => Some(current),
                    None => return Ok(None),
                },
            };
            // One that was removed was the oldest, and the shim does not keep it either.
            let Some(file) = next else { continue };
            let inode = inode_of(&file)?;
            // The same under another name: read on where it was left.
            if self.reading.as_ref().is_none_or(|reading| reading.inode != inode) {
                self.reading = Some(Reading::new(file, inode));
            }
        }
    }
}

impl Reading {
    fn new(file: File, inode: u64) -> Self {
        Self { file, inode, offset: 0, buffer: Vec::new(), given: 0, is_skipping: false }
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let unread = &self.buffer[self.given..];
            if let Some(size) = unread.iter().position(|byte| *byte == b'\n') {
                let line = unread[..size].to_vec();
                self.given += size + 1;
                if std::mem::take(&mut self.is_skipping) {
                    continue;
                }
                return Ok(Some(line));
            }
            // No line of ours, and nothing to fill memory with.
            if unread.len() > LINE_ROOM {
                self.is_skipping = true;
                self.given = self.buffer.len();
            }
            self.buffer.drain(..self.given);
            self.given = 0;
            let begin = self.buffer.len();
            self.buffer.resize(begin + READ_SIZE, 0);
            let read = self.file.read_at(&mut self.buffer[begin..], self.offset);
            self.buffer.truncate(begin + read.as_ref().copied().unwrap_or(0));
            match read? {
                0 => return Ok(None),
                size => self.offset += size as u64,
            }
        }
    }
}

/// None for one that is not there.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn inode_of(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}
