//! What can break between a relay and its program, as the caller is told: a word for machines, a sentence for people, and the
//! end of what the program said on stderr.
//!
//! ```text
//! exit: the program ended (exit status: 3)
//! stderr:
//! Traceback (most recent call last): ...
//! ```
//! Always: at most what one page of a ring holds; the words are part of the contract (docs/coding/runtimes.md) and keep their
//! meaning.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use quickfire_client::serve::FunctionError;

use crate::job::Ended;
use crate::limits::FOUND_SIZE_MAX;

/// What broke. The text begins with its word.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no process.
    #[error("cannot_start: {0}")]
    CannotStart(io::Error),
    /// The process of a call ended otherwise than by success.
    #[error("exit: the program ended ({0})")]
    Exit(ExitStatus),
    /// A process that lives longer than a call ended in the middle of one.
    #[error("died: the program ended ({0}) before it answered")]
    Died(ExitStatus),
    /// It says itself that it cannot start.
    #[error("init_error: the program says that it cannot start: {0}")]
    InitError(String),
    /// It ended before it was ready.
    #[error("init_failed: the program ended ({0}) before it was ready")]
    DiedAtStart(ExitStatus),
    /// It was not ready in time.
    #[error("start_timeout: the program was not ready after {} ms: {last}", .limit.as_millis())]
    StartTimeout {
        /// How long it had.
        limit: Duration,
        /// What it said the last time it was asked.
        last: String,
    },
    /// Somebody else listens where the program should.
    #[error("not_its_server: the program's port is not its own: {0}")]
    NotItsServer(io::Error),
    /// Nobody wants the answer any more.
    #[error("stopped: {}; the program was killed", match .0 { Ended::TimedOut => "the call's time was over", Ended::Cancelled => "the call was cancelled" })]
    Stopped(Ended),
    /// The program is not ready yet; it goes on with its start.
    #[error("starting: the program was not ready within the call's time")]
    Starting,
    /// It failed again and again before its first answer.
    #[error("paused: the program is started again in {left_ms} ms; the last time: {last}")]
    Paused {
        /// How long that is.
        left_ms: u128,
        /// What broke then.
        last: String,
    },
    /// A pipe failed.
    #[error("pipe: cannot talk to the program: {0}")]
    Pipe(io::Error),
    /// The program closed its stdout and went on.
    #[error("output_closed: the program closed its stdout before it answered")]
    OutputClosed,
    /// Something on stdout that is no answer.
    #[error("not_an_answer: a line on stdout is not an answer, {why}: {found:?}")]
    NotAnAnswer {
        /// What is wrong with it.
        why: String,
        /// Its beginning.
        found: String,
    },
    /// The program ended, or closed its stdout, within a line.
    #[error("partial_line: the program's last line on stdout has no end: {0:?}")]
    PartialLine(String),
    /// A line that no answer of a result within the limits can need.
    #[error("line_too_large: a line on stdout has more than {0} bytes")]
    LineTooLarge(usize),
    /// An answer to another call.
    #[error("wrong_id: the answer has the id {found:?}, and the call {expected:?}")]
    WrongId {
        /// The beginning of what it has.
        found: String,
        /// What it must have.
        expected: String,
    },
    /// The caller gave up, and the connection was closed.
    #[error("withdrawn: the call was cancelled; its connection was closed")]
    Withdrawn,
    /// Nobody listens any more.
    #[error("cannot_connect: {0}")]
    CannotConnect(String),
    /// The connection ended before the answer did.
    #[error("closed: the connection ended before the answer did: {0}")]
    Closed(String),
    /// What came is no answer in HTTP/1.1.
    #[error("not_http: the program does not answer in HTTP/1.1: {0}")]
    NotHttp(String),
    /// It wants the next call, and owes the answer to the one before.
    #[error("not_answered: the program asked for the next call before it had answered this one")]
    NotAnswered,
    /// Something behind the answer.
    #[error("two_answers: there is more than the one answer: {0:?}")]
    TwoAnswers(String),
}

impl Fault {
    /// The instance is as good as before: nothing of this call can reach another.
    pub fn is_passing(&self) -> bool {
        use Fault::{Closed, NotHttp, Paused, Starting, Withdrawn};
        matches!(self, Starting | Paused { .. } | Withdrawn | Closed(_) | NotHttp(_))
    }

    /// It says nothing against the program: its caller gave up.
    pub fn is_of_the_call(&self) -> bool {
        matches!(self, Fault::Stopped(_))
    }

    /// What the caller gets, in `size_max` bytes.
    pub fn answer(&self, stderr: &str, size_max: usize) -> FunctionError {
        let mut text = self.to_string();
        if !stderr.is_empty() {
            text.push_str("\nstderr:\n");
            text.push_str(stderr);
        }
        FunctionError::new(beginning(&text, size_max).to_owned())
    }
}

/// How a call that was not answered well ended.
#[derive(Debug)]
pub enum Failed {
    /// The program says so itself, and goes on.
    Function(Vec<u8>),
    /// The conversation broke.
    Fault(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed::Fault(fault)
    }
}

/// What is shown of something wrong.
pub fn found(bytes: &[u8]) -> String {
    let shown = bytes.get(..FOUND_SIZE_MAX).unwrap_or(bytes);
    // A byte that is no UTF-8 becomes three.
    beginning(&String::from_utf8_lossy(shown), FOUND_SIZE_MAX).to_owned()
}

/// As much of the text as fits, cut between characters.
fn beginning(text: &str, size_max: usize) -> &str {
    let mut sizes = (0..=size_max.min(text.len())).rev();
    sizes.find_map(|size| text.get(..size)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_with_the_end_of_stderr() {
        let answer = |stderr, size_max| {
            let error = Fault::OutputClosed.answer(stderr, size_max);
            String::from_utf8(error.bytes().to_vec()).unwrap()
        };
        let sentence = "output_closed: the program closed its stdout before it answered";
        assert_eq!(answer("", 4096), sentence);
        assert_eq!(answer("oh\nno", 4096), format!("{sentence}\nstderr:\noh\nno"));
        assert_eq!(answer("oh", 13), "output_closed");
    }

    #[test]
    fn what_is_wrong_is_shown_within_bounds() {
        assert_eq!(found(b"short"), "short");
        for wrong in [vec![0xFF; 10_000], "\u{fffd}".repeat(10_000).into_bytes()] {
            assert!(found(&wrong).len() <= FOUND_SIZE_MAX);
        }
    }
}
