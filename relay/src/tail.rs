//! What a program prints: passed on to the relay's own stdout and stderr, and so into the log, each line with the mark of its
//! call; and the end of its stderr remembered.
//!
//! A thread of its own, because programs also talk between calls, when the relay sleeps on its ring.
//! Always: what a program printed before it answered is of that call: the pipes are emptied when a call begins and when it ends.
//! Always: at most [`STDERR_TAIL_SIZE_MAX`] bytes are remembered; the thread ends with its [`Tail`], whoever may still hold the
//! pipes; a line is passed on as it comes, so that nothing of it is lost when the relay dies.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{ChildStderr, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use quickfire_client::serve::mark_lines;
use rustix::event::{PollFd, PollFlags, poll};

use crate::limits::{OUTPUT_READ_SIZE, OUTPUT_READS_MAX, STDERR_SETTLE, STDERR_TAIL_SIZE_MAX};

/// What one program prints.
pub struct Tail {
    shared: Arc<Shared>,
    /// Its end tells the thread to end.
    _stop: PipeWriter,
}

struct Shared {
    /// Stderr; stdout, where it is not the conversation itself. Read without blocking, by whoever holds `kept`.
    pipes: [Option<File>; 2],
    kept: Mutex<Kept>,
    over: Condvar,
}

struct Kept {
    /// Whose the lines are that begin now.
    call: Option<u64>,
    sides: [Side; 2],
    stderr: Vec<u8>,
    buffer: Vec<u8>,
    is_over: bool,
}

/// How far one pipe has come.
#[derive(Clone, Copy, Default)]
struct Side {
    is_within_line: bool,
    is_closed: bool,
}

const STDERR: usize = 0;
const STDOUT: usize = 1;

impl Tail {
    /// Begins to read. `call` is the one that the program was started for.
    pub fn follow(stderr: ChildStderr, stdout: Option<ChildStdout>, call: Option<u64>) -> io::Result<Tail> {
        let pipes =
            [Some(File::from(OwnedFd::from(stderr))), stdout.map(|pipe| File::from(OwnedFd::from(pipe)))];
        for pipe in pipes.iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let open = pipes.each_ref().map(|pipe| Side { is_closed: pipe.is_none(), ..Side::default() });
        let kept = Kept { call, sides: open, stderr: Vec::new(), buffer: Vec::new(), is_over: false };
        let shared = Arc::new(Shared { pipes, kept: Mutex::new(kept), over: Condvar::new() });
        let (stopped, stop) = io::pipe()?;
        let follower = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("relay-output".into())
            .stack_size(64 << 10) // the buffer is not on it
            .spawn(move || follower.follow(stopped))?;
        Ok(Tail { shared, _stop: stop })
    }

    /// What is printed from now on is of this call; what was printed before is not.
    pub fn set_call(&self, call: Option<u64>) {
        let mut kept = self.shared.kept();
        self.shared.drain(&mut kept);
        kept.call = call;
    }

    /// Waits until everything was read that a dead program said; not for long.
    pub fn settle(&self) {
        let is_on = |kept: &mut Kept| !kept.is_over;
        // Whoever holds the pipe beyond that has lost its place in the tail.
        let _ = self.shared.over.wait_timeout_while(self.shared.kept(), STDERR_SETTLE, is_on);
    }

    /// What is remembered, from the beginning of a line on where there is one.
    pub fn text(&self) -> String {
        let kept = self.shared.kept();
        let start = match kept.stderr.len().checked_sub(STDERR_TAIL_SIZE_MAX) {
            None => 0,
            Some(cut) => {
                let line = kept.stderr[cut..].iter().position(|byte| *byte == b'\n');
                cut + line.map_or(0, |end| end + 1)
            }
        };
        String::from_utf8_lossy(kept.stderr.get(start..).unwrap_or_default()).into_owned()
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, stopped: PipeReader) {
        loop {
            let sides = self.kept().sides;
            let mut waited = vec![PollFd::new(&stopped, PollFlags::IN)];
            let open = self.pipes.iter().zip(sides).filter(|(_, side)| !side.is_closed);
            waited.extend(open.filter_map(|(pipe, _)| Some(PollFd::new(pipe.as_ref()?, PollFlags::IN))));
            if waited.len() == 1 {
                break;
            }
            match poll(&mut waited, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
            }
            let is_stopped = waited.first().is_some_and(|fd| !fd.revents().is_empty());
            self.drain(&mut self.kept());
            if is_stopped {
                break;
            }
        }
        let mut kept = self.kept();
        for side in [STDERR, STDOUT] {
            end_line(side, &mut kept);
        }
        kept.is_over = true;
        self.over.notify_all();
    }

    /// Takes what has been printed by now: as much as pipes hold, of a program that prints faster than this reads.
    fn drain(&self, kept: &mut Kept) {
        let mut buffer = std::mem::take(&mut kept.buffer);
        buffer.resize(OUTPUT_READ_SIZE, 0);
        for (side, pipe) in self.pipes.iter().enumerate() {
            let Some(mut pipe) = pipe.as_ref().filter(|_| !kept.sides[side].is_closed) else { continue };
            for _ in 0..OUTPUT_READS_MAX {
                match pipe.read(&mut buffer) {
                    Ok(size @ 1..) => take(side, kept, buffer.get(..size).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Ok(0) | Err(_) => {
                        end_line(side, kept);
                        kept.sides[side].is_closed = true;
                        break;
                    }
                }
            }
        }
        kept.buffer = buffer;
    }
}

fn take(side: usize, kept: &mut Kept, bytes: &[u8]) {
    let mut marked = Vec::with_capacity(bytes.len());
    mark_lines(bytes, kept.call, &mut kept.sides[side].is_within_line, &mut marked);
    pass_on(side, &marked);
    if side == STDERR {
        kept.stderr.extend_from_slice(bytes);
        // Cut rarely: once for as many bytes as are kept.
        if kept.stderr.len() > 2 * STDERR_TAIL_SIZE_MAX {
            let cut = kept.stderr.len() - STDERR_TAIL_SIZE_MAX;
            kept.stderr.drain(..cut);
        }
    }
}

/// What comes next on the relay's own stderr is a line of its own.
fn end_line(side: usize, kept: &mut Kept) {
    if std::mem::take(&mut kept.sides[side].is_within_line) {
        pass_on(side, b"\n");
    }
}

/// A log that nobody reads any more is no reason to stop the program.
fn pass_on(side: usize, bytes: &[u8]) {
    let _ = match side {
        STDERR => io::stderr().write_all(bytes),
        _ => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
    };
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn tail_of(script: &str) -> Tail {
        let mut child = Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
        let tail = Tail::follow(child.stderr.take().unwrap(), None, None).unwrap();
        child.wait().unwrap();
        let is_on = |kept: &mut Kept| !kept.is_over;
        drop(tail.shared.over.wait_while(tail.shared.kept(), is_on).unwrap());
        tail
    }

    #[test]
    fn little_is_kept_whole() {
        assert_eq!(tail_of("printf 'one\\ntwo' >&2").text(), "one\ntwo");
        assert_eq!(tail_of(":").text(), "");
    }

    #[test]
    fn of_much_the_end_is_kept_from_the_beginning_of_a_line_on() {
        let text = tail_of("for i in $(seq 1000); do echo line $i; done >&2").text();
        assert!(text.len() <= STDERR_TAIL_SIZE_MAX, "{}", text.len());
        assert!(text.len() > STDERR_TAIL_SIZE_MAX - 20, "{}", text.len());
        assert!(text.starts_with("line ") && text.ends_with("line 1000\n"), "{text}");
    }

    #[test]
    fn a_line_longer_than_all_of_it_is_cut() {
        let text = tail_of("head -c 10000 /dev/zero | tr '\\0' x >&2").text();
        assert_eq!(text, "x".repeat(STDERR_TAIL_SIZE_MAX));
    }

    #[test]
    fn the_thread_ends_with_its_tail_though_the_pipe_is_held() {
        // Given a pipe that nobody will close
        let mut child = Command::new("sleep").arg("1000").stderr(Stdio::piped()).spawn().unwrap();
        let tail = Tail::follow(child.stderr.take().unwrap(), None, None).unwrap();
        tail.settle();
        let shared = Arc::clone(&tail.shared);
        // Expect that its end is the thread's
        drop(tail);
        let is_on = |kept: &mut Kept| !kept.is_over;
        drop(shared.over.wait_while(shared.kept(), is_on).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_was_printed_before_a_call_ends_is_read_by_then() {
        // Given a program that says on stdout that it has printed
        let script = "for i in 1 2 3; do read line; echo $line >&2; echo done; done";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let tail = Tail::follow(child.stderr.take().unwrap(), None, None).unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut said = String::new();
        for call in 1..=3 {
            tail.set_call(Some(call));
            writeln!(stdin, "of {call}").unwrap();
            stdout.read_exact(&mut [0; 5]).unwrap();
            // Expect: whatever the thread has done so far
            tail.set_call(None);
            said.push_str(&format!("of {call}\n"));
            assert_eq!(tail.text(), said);
        }
        child.wait().unwrap();
    }
}
