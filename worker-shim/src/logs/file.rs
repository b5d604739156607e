//! Stage 6 of 8: the files of one place: the one that is written, and at most [`OLDER_COUNT_MAX`] that were.
//!
//! ```text
//!   closed ── a line ──▶ open ── a quarter of the size or of the age is reached ──▶ renamed, and a new one is begun
//!     ▲                   │          the oldest beyond OLDER_COUNT_MAX is removed
//!     └── a write failed: lines are dropped for a second, and counted
//! ```
//! Always: all files together stay within the size; each holds whole lines, but where the shim was killed within a write, and then
//! the next line begins a line of its own.
//! Never: fails. What cannot be written is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LogBounds;
use super::line::{self, Line, Source};
use super::name::{self, LogName};

/// Files beside the one that is written: the oldest of four quarters goes when a fifth begins, so that between three quarters
/// of the bounds and all of them are kept.
const OLDER_COUNT_MAX: usize = 3;
/// A file has this part of the size and of the age.
const PART: u64 = OLDER_COUNT_MAX as u64 + 1;
/// After a write failed, the next try waits this long: a full disk is not asked again for every line.
pub const RETRY_NS: u64 = 1_000_000_000;
/// Enough of a file to read when it was begun.
const STAMP_SIZE: usize = 32;

/// See above.
pub struct LogFile {
    path: PathBuf,
    bounds: LogBounds,
    open: Option<Open>,
    /// What the older ones are called, oldest first; read from the folder when the first one is added.
    older: Option<Vec<u64>>,
    retry_at_ns: u64,
    lines_dropped: u64,
    lines_dropped_told: u64,
    buffer: Vec<u8>,
}

struct Open {
    file: File,
    size: u64,
    begun_at_us: u64,
}

impl LogFile {
    pub fn new(path: PathBuf, bounds: LogBounds) -> Self {
        Self {
            path,
            bounds,
            open: None,
            older: None,
            retry_at_ns: 0,
            lines_dropped: 0,
            lines_dropped_told: 0,
            buffer: Vec::new(),
        }
    }

    pub fn set_bounds(&mut self, bounds: LogBounds) {
        self.bounds = bounds;
    }

    /// Lines that could not be written.
    pub fn lines_dropped(&self) -> u64 {
        self.lines_dropped
    }

    /// Writes a line, or counts it as dropped.
    pub fn write(&mut self, now_ns: u64, line: &Line<'_>) {
        if now_ns < self.retry_at_ns {
            self.lines_dropped += 1;
            return;
        }
        if let Err(error) = self.try_write(line) {
            self.open = None;
            self.lines_dropped += 1;
            self.retry_at_ns = now_ns.saturating_add(RETRY_NS);
            // The shim's own stderr, and at most once a second: the one place left to say it.
            let _ = writeln!(io::stderr(), "shim: {}: {error}; lines are dropped", self.path.display());
        }
    }

    /// Closes the file, and puts it aside if it has reached its part of the age: nothing that is too old is then open here.
    pub fn retire(&mut self, now_us: u64) {
        let Some(open) = &self.open else { return };
        if self.is_of_age(open, now_us) {
            let begun_at_us = open.begun_at_us;
            self.open = None;
            // What cannot be put aside is removed with the too old.
            let _ = self.put_aside(begun_at_us);
        }
    }

    fn try_write(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.buffer.clear();
        let untold = self.lines_dropped - self.lines_dropped_told;
        if untold > 0 {
            let text = format!("{untold} lines before this one could not be written");
            let remark = Line { source: Source::Shim, call: None, text: text.as_bytes(), ..*line };
            remark.write(&mut self.buffer)?;
        }
        line.write(&mut self.buffer)?;

        let more = self.buffer.len() as u64;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path, line.at_us)?,
        };
        let is_full = open.size > 0 && open.size + more > self.bounds.size_max / PART;
        if is_full || (open.size > 0 && self.is_of_age(&open, line.at_us)) {
            self.put_aside(open.begun_at_us)?;
            open = Open::at(&self.path, line.at_us)?;
        }
        if let Err(error) = open.file.write_all(&self.buffer) {
            // Not half a line, as far as that can be helped.
            let _ = open.file.set_len(open.size);
            return Err(error);
        }
        open.size += more;
        self.open = Some(open);
        self.lines_dropped_told = self.lines_dropped;
        Ok(())
    }

    fn is_of_age(&self, open: &Open, now_us: u64) -> bool {
        u128::from(now_us.saturating_sub(open.begun_at_us))
            >= self.bounds.age_max.as_micros() / u128::from(PART)
    }

    fn put_aside(&mut self, begun_at_us: u64) -> io::Result<()> {
        let older = match &mut self.older {
            Some(older) => older,
            None => self.older.insert(older_of(&self.path)?),
        };
        // Later than all before it, whatever the clock says.
        let after_last = older.last().map_or(0, |last| last.saturating_add(1));
        let begun_at_ms = (begun_at_us / 1_000).max(after_last);
        std::fs::rename(&self.path, name::older(&self.path, begun_at_ms))?;
        older.push(begun_at_ms);
        let excess = older.len().saturating_sub(OLDER_COUNT_MAX);
        for begun_at_ms in older.drain(..excess) {
            // Fails only for one that is gone already.
            let _ = std::fs::remove_file(name::older(&self.path, begun_at_ms));
        }
        Ok(())
    }
}

impl Open {
    /// `now_us` is when it is begun if it is not there yet.
    fn at(path: &Path, now_us: u64) -> io::Result<Open> {
        let mut file = OpenOptions::new().read(true).create(true).append(true).open(path)?;
        let mut size = file.metadata()?.len();
        let begun_at_us = if size == 0 { now_us } else { begun_at_us(&file).unwrap_or(now_us) };
        let mut last = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
            size += 1;
        }
        Ok(Open { file, size, begun_at_us })
    }
}

/// The time of a file's first line.
pub fn begun_at_us(file: &File) -> Option<u64> {
    let mut bytes = [0; STAMP_SIZE];
    let size = file.read_at(&mut bytes, 0).ok()?;
    line::begun_at_us(bytes.get(..size)?)
}

/// What the older files of a place are called, oldest first.
fn older_of(current: &Path) -> io::Result<Vec<u64>> {
    let parent = current.parent().unwrap_or(Path::new("."));
    let of_this = current.file_name().and_then(|name| LogName::read(name.to_str()?));
    let mut older = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let name = entry?.file_name().to_str().and_then(LogName::read);
        let Some(name @ LogName { begun_at_ms: Some(begun_at_ms), .. }) = name else { continue };
        if Some(LogName { begun_at_ms: None, ..name }) == of_this {
            older.push(begun_at_ms);
        }
    }
    older.sort_unstable();
    Ok(older)
}
