//! Stage 6 of 8: what function processes print, kept in `DIR/logs/<function>.<place>.log`, within bounds; what templates print in
//! `DIR/logs/<function>.template-<number>.log`.
//!
//! In: bytes from a process's stdout and stderr, and the shim's own remarks about it.
//! Out: whole lines with all that is known of them (`line.rs`); the last few stderr lines, for the reason of an exit.
//! Always: no more bytes, no older lines and no faster than [`LogBounds`] says; at most [`LINE_SIZE_MAX`] bytes of an
//! unfinished line in memory. What is dropped is counted, and the count stands where the lines would.
//! Never: stops reading, because the disk is full or because a process prints too much. A process that waits on a full pipe
//! would look like a slow function.
//!
//! | file | what it holds |
//! |---|---|
//! | `line.rs` | one line, as it is written and read |
//! | `name.rs` | the names of the files |
//! | `file.rs` | the files of one place: size, age, failures |
//! | `flood.rs` | how fast a stream of a place may come |
//! | `sweep.rs` | the end of files that nobody writes any more |
//!
//! For people: docs/operating/logs.md.  Why so: docs/decisions/0035.  Tests: `logs/tests.rs`.

mod file;
mod flood;
pub mod line;
pub mod name;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::log_mark;

use file::LogFile;
use flood::Flood;
use line::{Line, Source};

/// A longer line is broken into pieces.
pub const LINE_SIZE_MAX: usize = 8 << 10;
/// What a process without privileges can make a pipe hold (`fs.pipe-max-size`, unless somebody raised it).
const PIPE_SIZE_MAX: usize = 1 << 20;
/// As many stderr lines go with the reason of an exit.
const LAST_LINES_MAX: usize = 4;

const _: () = assert!(LINE_SIZE_MAX > log_mark::SIZE_MAX, "a mark lies in the first piece of its line");

/// How much of what the processes of a function print is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes of each place, in all its files.
    pub size_max: u64,
    /// The oldest line.
    pub age_max: Duration,
    /// Bytes a second of each stream of each place.
    pub rate_max: u64,
}

impl Default for LogBounds {
    /// As the option table has it.
    fn default() -> Self {
        Self { size_max: 2 << 20, age_max: Duration::from_secs(7 * 24 * 3600), rate_max: 1 << 20 }
    }
}

/// Where output came from.
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
    floods: [Flood; 2],
    edition: u64,
    /// The process whose lines come now.
    pid: Option<u32>,
    unfinished: [Unfinished; 2],
    last_errors: VecDeque<String>,
}

/// The beginning of a line.
#[derive(Default)]
struct Unfinished {
    text: Vec<u8>,
    /// Pieces of the line are written already; its mark was in the first, and said this.
    call_of_pieces: Option<Option<u64>>,
}

impl PlaceLog {
    /// The log of an instance of `function`, or of a template, whose processes are of this edition. The file is opened by the first line.
    pub fn new(logs_dir: &Path, function: &str, instance: &str, edition: u64, bounds: LogBounds) -> Self {
        Self {
            file: LogFile::new(name::current(logs_dir, function, instance), bounds),
            floods: [Flood::new(bounds.rate_max), Flood::new(bounds.rate_max)],
            edition,
            pid: None,
            unfinished: Default::default(),
            last_errors: VecDeque::new(),
        }
    }

    /// Other bounds, from now on.
    pub fn set_bounds(&mut self, bounds: LogBounds) {
        self.file.set_bounds(bounds);
        self.floods.iter_mut().for_each(|flood| flood.set_rate(bounds.rate_max));
    }

    /// A process was started: what comes from now on is its.
    pub fn started(&mut self, now_ns: u64, pid: u32) {
        self.pid = Some(pid);
        self.remark(now_ns, &format!("started, pid {pid}"));
    }

    /// Takes what was read from one stream.
    pub fn append(&mut self, now_ns: u64, stream: Stream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.grow_line(now_ns, stream, &bytes[..end]);
            self.end_piece(now_ns, stream, false);
            bytes = &bytes[end + 1..];
        }
        self.grow_line(now_ns, stream, bytes);
    }

    /// Takes what a process printed that has ended. What it started may hold the pipes and go on: bounded by what a pipe can hold.
    pub fn read_last(&mut self, now_ns: u64, output: &mut [Option<OwnedFd>; 2], buffer: &mut [u8]) {
        for _ in 0..PIPE_SIZE_MAX.div_ceil(buffer.len()) {
            if !self.read(now_ns, output, buffer) {
                break;
            }
        }
    }

    /// Takes what a process printed, at most one buffer of each stream; false if there was nothing.
    pub fn read(&mut self, now_ns: u64, output: &mut [Option<OwnedFd>; 2], buffer: &mut [u8]) -> bool {
        let mut has_read = false;
        for (stream, output) in [Stream::Out, Stream::Err].into_iter().zip(output) {
            let Some(pipe) = output else { continue };
            match rustix::io::read(&*pipe, &mut *buffer) {
                // Closed: dropped, because a closed pipe would wake `poll` for ever.
                Ok(0) => *output = None,
                Ok(size) => {
                    self.append(now_ns, stream, &buffer[..size]);
                    has_read = true;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => *output = None,
            }
        }
        has_read
    }

    /// A remark of the shim's own.
    pub fn remark(&mut self, now_ns: u64, text: &str) {
        self.tell_dropped(now_ns);
        self.write(now_ns, Source::Shim, None, text.as_bytes());
    }

    /// The process ended: a last line without an end is a line all the same. Hands out, and forgets, the last lines
    /// of stderr.
    pub fn ended(&mut self, now_ns: u64, cause: &str) -> Vec<String> {
        for stream in [Stream::Out, Stream::Err] {
            let unfinished = &self.unfinished[stream as usize];
            if !unfinished.text.is_empty() || unfinished.call_of_pieces.is_some() {
                self.end_piece(now_ns, stream, false);
            }
        }
        self.remark(now_ns, cause);
        self.pid = None;
        self.last_errors.drain(..).collect()
    }

    /// Lines that are not in the log, over all.
    pub fn lines_dropped(&self) -> u64 {
        self.file.lines_dropped() + self.floods.iter().map(Flood::lines_dropped).sum::<u64>()
    }

    /// Leaves nothing open that [`sweep`] may have to remove.
    pub fn retire(&mut self) {
        self.file.retire(unix_us());
    }

    fn grow_line(&mut self, now_ns: u64, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let text = &mut self.unfinished[stream as usize].text;
            let (piece, rest) = bytes.split_at(bytes.len().min(LINE_SIZE_MAX - text.len()));
            text.extend_from_slice(piece);
            bytes = rest;
            if text.len() == LINE_SIZE_MAX && !bytes.is_empty() {
                self.end_piece(now_ns, stream, true);
            }
        }
    }

    /// `goes_on`: the line has more pieces.
    fn end_piece(&mut self, now_ns: u64, stream: Stream, goes_on: bool) {
        let unfinished = &mut self.unfinished[stream as usize];
        let bytes = std::mem::take(&mut unfinished.text);
        let (call, text) = match unfinished.call_of_pieces {
            Some(call) => (call, &bytes[..]),
            None => log_mark::decode(&bytes),
        };
        unfinished.call_of_pieces = goes_on.then_some(call);
        if stream == Stream::Err && !text.is_empty() {
            if self.last_errors.len() == LAST_LINES_MAX {
                self.last_errors.pop_front();
            }
            self.last_errors.push_back(String::from_utf8_lossy(text).into_owned());
        }
        if self.floods[stream as usize].admits(now_ns, text.len(), goes_on) {
            self.tell_dropped(now_ns);
            let source = match stream {
                Stream::Out => Source::Out { goes_on },
                Stream::Err => Source::Err { goes_on },
            };
            self.write(now_ns, source, call, text);
        }
        // The memory is used again.
        self.unfinished[stream as usize].text = bytes;
        self.unfinished[stream as usize].text.clear();
    }

    /// What was dropped before the line that comes now.
    fn tell_dropped(&mut self, now_ns: u64) {
        for (flood, stream) in [(0, "stdout"), (1, "stderr")] {
            if let Some(told) = self.floods[flood].take_untold(stream) {
                self.write(now_ns, Source::Shim, None, told.as_bytes());
            }
        }
    }

    fn write(&mut self, now_ns: u64, source: Source, call: Option<u64>, text: &[u8]) {
        let Self { edition, pid, .. } = *self;
        let line = Line { at_us: unix_us(), source, edition, pid, call, text };
        self.file.write(now_ns, &line);
    }
}

/// Microseconds since 1970.
pub fn unix_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
