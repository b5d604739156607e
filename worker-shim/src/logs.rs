//! Stage 6 of 8: what function processes print, kept in `DIR/logs/<function>.<place>.log`, within bounds; what templates print in
//! `DIR/logs/<function>.template-<number>.log`.
//!
//! In: bytes from a process's stdout and stderr, and the shim's own remarks about it.
//! Out: whole lines, each with time and stream; the last few stderr lines, for the reason of an exit.
//! Always: at most [`LOG_SIZE_MAX`] and one older file of that size for each place; at most [`LINE_SIZE_MAX`] bytes
//! of an unfinished line in memory.
//! Never: stops reading because the disk is full. A process that waits on a full pipe would look like a slow
//! function; so lines that cannot be written are dropped, counted, and the count is written when there is room.
//!
//! ```text
//! 1795465437.123 shim started, pid 4711
//! 1795465437.130 out listening
//! 1795465439.001 err no model file
//! ```

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A log file is put aside when it has reached this.
pub const LOG_SIZE_MAX: u64 = 1 << 20;
/// A longer line is broken into pieces.
pub const LINE_SIZE_MAX: usize = 8 << 10;
/// As many stderr lines go with the reason of an exit.
const LAST_LINES_MAX: usize = 4;
/// After a write failed, the next try waits this long: a full disk is not asked again for every line.
const RETRY_NS: u64 = 1_000_000_000;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The process's stdout.
    Out,
    /// The process's stderr.
    Err,
}

/// The log of one place.
pub struct PlaceLog {
    file: LogFile,
    unfinished: [Vec<u8>; 2],
    last_errors: VecDeque<String>,
}

impl PlaceLog {
    /// The log of `place` of `function`, under `logs_dir`. The file is opened by the first line.
    pub fn new(logs_dir: &Path, function: &str, place: &str) -> Self {
        let path = logs_dir.join(format!("{function}.{place}.log"));
        Self {
            file: LogFile::new(path, LOG_SIZE_MAX),
            unfinished: [Vec::new(), Vec::new()],
            last_errors: VecDeque::new(),
        }
    }

    /// Takes what was read from one stream.
    pub fn append(&mut self, now_ns: u64, stream: Stream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.grow_line(now_ns, stream, &bytes[..end]);
            self.end_line(now_ns, stream);
            bytes = &bytes[end + 1..];
        }
        self.grow_line(now_ns, stream, bytes);
    }

    /// Takes what a process printed, at most one buffer of each stream.
    pub fn read(&mut self, now_ns: u64, output: &mut [Option<OwnedFd>; 2], buffer: &mut [u8]) {
        for (stream, output) in [Stream::Out, Stream::Err].into_iter().zip(output) {
            let Some(pipe) = output else { continue };
            match rustix::io::read(&*pipe, &mut *buffer) {
                // Closed: dropped, because a closed pipe would wake `poll` for ever.
                Ok(0) => *output = None,
                Ok(size) => self.append(now_ns, stream, &buffer[..size]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => *output = None,
            }
        }
    }

    /// A remark of the shim's own.
    pub fn remark(&mut self, now_ns: u64, text: &str) {
        self.file.write_line(now_ns, "shim", text.as_bytes());
    }

    /// The process ended: a last line without an end is a line all the same. Hands out, and forgets, the last lines
    /// of stderr.
    pub fn close(&mut self, now_ns: u64) -> Vec<String> {
        for stream in [Stream::Out, Stream::Err] {
            if !self.unfinished[stream as usize].is_empty() {
                self.end_line(now_ns, stream);
            }
        }
        self.last_errors.drain(..).collect()
    }

    /// Lines that could not be written, over all.
    pub fn lines_dropped(&self) -> u64 {
        self.file.lines_dropped
    }

    fn grow_line(&mut self, now_ns: u64, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let line = &mut self.unfinished[stream as usize];
            let (piece, rest) = bytes.split_at(bytes.len().min(LINE_SIZE_MAX - line.len()));
            line.extend_from_slice(piece);
            bytes = rest;
            if line.len() == LINE_SIZE_MAX && !bytes.is_empty() {
                self.end_line(now_ns, stream);
            }
        }
    }

    fn end_line(&mut self, now_ns: u64, stream: Stream) {
        let line = &mut self.unfinished[stream as usize];
        let label = match stream {
            Stream::Out => "out",
            Stream::Err => "err",
        };
        self.file.write_line(now_ns, label, line);
        if stream == Stream::Err && !line.is_empty() {
            if self.last_errors.len() == LAST_LINES_MAX {
                self.last_errors.pop_front();
            }
            self.last_errors.push_back(String::from_utf8_lossy(line).into_owned());
        }
        line.clear();
    }
}

/// One file, bounded, that never fails.
struct LogFile {
    path: PathBuf,
    size_max: u64,
    open: Option<(File, u64)>,
    retry_at_ns: u64,
    lines_dropped: u64,
    lines_dropped_told: u64,
    line: Vec<u8>,
}

impl LogFile {
    fn new(path: PathBuf, size_max: u64) -> Self {
        Self {
            path,
            size_max,
            open: None,
            retry_at_ns: 0,
            lines_dropped: 0,
            lines_dropped_told: 0,
            line: Vec::new(),
        }
    }

    fn write_line(&mut self, now_ns: u64, label: &str, text: &[u8]) {
        if now_ns < self.retry_at_ns {
            self.lines_dropped += 1;
            return;
        }
        if let Err(error) = self.try_write_line(label, text) {
            self.open = None;
            self.lines_dropped += 1;
            self.retry_at_ns = now_ns.saturating_add(RETRY_NS);
            // The shim's own stderr, and at most once a second: the one place left to say it.
            let _ = writeln!(io::stderr(), "shim: {}: {error}; lines are dropped", self.path.display());
        }
    }

    fn try_write_line(&mut self, label: &str, text: &[u8]) -> io::Result<()> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let stamp = format!("{}.{:03}", since_1970.as_secs(), since_1970.subsec_millis());
        self.line.clear();
        let untold = self.lines_dropped - self.lines_dropped_told;
        if untold > 0 {
            writeln!(self.line, "{stamp} shim {untold} lines before this one could not be written")?;
        }
        write!(self.line, "{stamp} {label} ")?;
        self.line.extend_from_slice(text);
        self.line.push(b'\n');

        let line_size = self.line.len() as u64;
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => open_append(&self.path)?,
        };
        if size > 0 && size + line_size > self.size_max {
            std::fs::rename(&self.path, self.path.with_extension("log.old"))?;
            (file, size) = open_append(&self.path)?;
        }
        file.write_all(&self.line)?;
        self.open = Some((file, size + line_size));
        self.lines_dropped_told = self.lines_dropped;
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file without its time stamps.
    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect()
    }

    #[test]
    fn lines_that_arrive_in_pieces_are_written_whole_and_streams_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = PlaceLog::new(dir.path(), "echo", "3");
        log.remark(0, "started, pid 1");
        log.append(0, Stream::Out, b"hel");
        log.append(0, Stream::Err, b"oh\nno");
        log.append(0, Stream::Out, b"lo\n\nend");
        let last_errors = log.close(0);
        let expected =
            ["shim started, pid 1", "err oh", "out hello", "out ", "out end", "err no"].map(String::from);
        assert_eq!(lines(&dir.path().join("echo.3.log")), expected);
        assert_eq!(last_errors, ["oh", "no"]);
    }

    #[test]
    fn only_the_last_four_stderr_lines_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = PlaceLog::new(dir.path(), "echo", "0");
        log.append(0, Stream::Err, b"1\n2\n3\n4\n5\n6\n");
        assert_eq!(log.close(0), ["3", "4", "5", "6"]);
        assert_eq!(log.close(0), [""; 0], "the next process starts with none");
    }

    #[test]
    fn a_line_without_an_end_is_broken_and_not_hoarded() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = PlaceLog::new(dir.path(), "echo", "0");
        log.append(0, Stream::Out, &vec![b'x'; 3 * LINE_SIZE_MAX + 1]);
        assert!(log.unfinished[0].len() <= LINE_SIZE_MAX);
        let _ = log.close(0);
        let sizes: Vec<usize> =
            lines(&dir.path().join("echo.0.log")).iter().map(|line| line.len() - "out ".len()).collect();
        assert_eq!(sizes, [LINE_SIZE_MAX, LINE_SIZE_MAX, LINE_SIZE_MAX, 1]);
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_one_old_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("echo.0.log");
        let mut file = LogFile::new(path.clone(), 200);
        for number in 0..50 {
            file.write_line(0, "out", format!("line {number:02}").as_bytes());
        }
        let old = path.with_extension("log.old");
        for kept in [&path, &old] {
            assert!(kept.metadata().unwrap().len() <= 200);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(lines(&path).last().unwrap(), "out line 49");
        let kept: Vec<String> = [lines(&old), lines(&path)].concat();
        let expected: Vec<String> =
            (50 - kept.len()..50).map(|number| format!("out line {number:02}")).collect();
        assert_eq!(kept, expected, "nothing is lost at the seam");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_count_is_told_when_there_is_room() {
        // Given a directory that does not exist yet
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut log = PlaceLog::new(&logs, "echo", "0");
        log.append(0, Stream::Out, b"one\ntwo\n");
        assert_eq!(log.lines_dropped(), 2);
        // Expect that the disk is left alone for a second, even when there is room again
        std::fs::create_dir(&logs).unwrap();
        log.append(RETRY_NS - 1, Stream::Out, b"three\n");
        assert_eq!(log.lines_dropped(), 3);
        log.append(RETRY_NS, Stream::Out, b"four\n");
        assert_eq!(
            lines(&logs.join("echo.0.log")),
            ["shim 3 lines before this one could not be written", "out four"].map(String::from)
        );
    }
}
