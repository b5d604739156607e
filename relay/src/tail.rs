//! What a program says on stderr: passed on to the relay's own stderr, and so into the log, and its end remembered.
//!
//! A thread of its own, because programs also talk between calls, when the relay sleeps on its ring.
//! Always: at most [`STDERR_TAIL_SIZE_MAX`] bytes are remembered; the thread ends with its [`Tail`], whoever may still hold the
//! pipe.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::ChildStderr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use crate::limits::{STDERR_SETTLE, STDERR_TAIL_SIZE_MAX};

/// The end of one program's stderr.
pub struct Tail {
    shared: Arc<Shared>,
    /// Its end tells the thread to end.
    _stop: PipeWriter,
}

#[derive(Default)]
struct Shared {
    kept: Mutex<Kept>,
    over: Condvar,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Tail {
    /// Begins to read.
    pub fn follow(stderr: ChildStderr) -> io::Result<Tail> {
        let shared = Arc::new(Shared::default());
        let (stopped, stop) = io::pipe()?;
        let follower = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("relay-stderr".into())
            .stack_size(64 << 10) // a buffer of 4 KiB is the largest thing on it
            .spawn(move || follower.follow(stderr, stopped))?;
        Ok(Tail { shared, _stop: stop })
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
        let start = match kept.bytes.len().checked_sub(STDERR_TAIL_SIZE_MAX) {
            None => 0,
            Some(cut) => {
                let line = kept.bytes[cut..].iter().position(|byte| *byte == b'\n');
                cut + line.map_or(0, |end| end + 1)
            }
        };
        String::from_utf8_lossy(kept.bytes.get(start..).unwrap_or_default()).into_owned()
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, mut stderr: ChildStderr, stopped: PipeReader) {
        let mut buffer = [0; 4096];
        loop {
            let mut waited = [PollFd::new(&stderr, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
            match poll(&mut waited, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
            }
            let [has_more, is_stopped] = waited.map(|fd| !fd.revents().is_empty());
            if has_more {
                match stderr.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(size) => self.take(buffer.get(..size).unwrap_or_default()),
                }
            }
            if is_stopped {
                break;
            }
        }
        self.kept().is_over = true;
        self.over.notify_all();
    }

    fn take(&self, bytes: &[u8]) {
        // A log that nobody reads any more is no reason to stop the program.
        let _ = io::stderr().write_all(bytes);
        let mut kept = self.kept();
        kept.bytes.extend_from_slice(bytes);
        // Cut rarely: once for as many bytes as are kept.
        let excess = kept.bytes.len().saturating_sub(2 * STDERR_TAIL_SIZE_MAX);
        if excess > 0 {
            let cut = kept.bytes.len() - STDERR_TAIL_SIZE_MAX;
            kept.bytes.drain(..cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn tail_of(script: &str) -> Tail {
        let mut child = Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
        let tail = Tail::follow(child.stderr.take().unwrap()).unwrap();
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
        let tail = Tail::follow(child.stderr.take().unwrap()).unwrap();
        tail.settle();
        let shared = Arc::clone(&tail.shared);
        // Expect that its end is the thread's
        drop(tail);
        let is_on = |kept: &mut Kept| !kept.is_over;
        drop(shared.over.wait_while(shared.kept(), is_on).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
