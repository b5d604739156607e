//! Bytes to a program's stdin and from its stdout, both at once, for as long as a call is wanted.
//!
//! Both at once, because a program may answer before it has read everything, and each side would then wait for the other.
//! Always: what was said before an end is read before the end is told.
//! Never: more than the bound and one read of output in memory.

use std::io::{self, Read, Write};
use std::process::ExitStatus;

use rustix::event::{PollFd, PollFlags, poll};

use crate::job::{Ended, IsEnded};
use crate::limits::{READ_SIZE, WANTED_POLL};
use crate::program::{Program, timespec};

/// One exchange with a program.
pub struct Talk<'a> {
    /// To whom.
    pub program: &'a mut Program,
    /// What is still to be written.
    pub unwritten: &'a [u8],
    /// Where output is appended.
    pub output: &'a mut Vec<u8>,
    /// The most of it.
    pub output_size_max: usize,
}

/// What happened next.
#[derive(Debug)]
pub enum Step {
    /// There is more output.
    Output,
    /// There is more of it than there may be.
    TooMuch,
    /// There will be no more.
    OutputClosed,
    /// The program has ended, and its output is read.
    Exited(ExitStatus),
    /// Nobody wants the answer any more.
    Ended(Ended),
    /// Something was written, or nothing happened.
    Nothing,
}

impl Talk<'_> {
    /// Waits for one thing to happen.
    pub fn step(&mut self, is_ended: &IsEnded<'_>) -> io::Result<Step> {
        if let Some(ended) = is_ended() {
            return Ok(Step::Ended(ended));
        }
        let [may_write, may_read, has_exited] = self.wait()?;
        if may_write {
            self.write()?;
        }
        // An exit is looked at again after reading has come to its end.
        if may_read || has_exited {
            let step = self.read()?;
            if !matches!(step, Step::Nothing) {
                return Ok(step);
            }
        }
        Ok(match has_exited.then(|| self.program.poll_exit()).flatten() {
            // What it wrote between the last read and its end.
            Some(exit) => match self.read()? {
                Step::Nothing | Step::OutputClosed => Step::Exited(exit),
                step => step,
            },
            None => Step::Nothing,
        })
    }

    /// No more input: the program reads the end of it.
    pub fn close_input(&mut self) {
        self.program.stdin = None;
    }

    fn wait(&self) -> io::Result<[bool; 3]> {
        let stdin = self.program.stdin.as_ref().filter(|_| !self.unwritten.is_empty());
        let exit_fd = self.program.exit_fd();
        let mut waited = vec![PollFd::new(&exit_fd, PollFlags::IN)];
        waited.extend(self.program.stdout.as_ref().map(|stdout| PollFd::new(stdout, PollFlags::IN)));
        let stdin_at = waited.len();
        waited.extend(stdin.map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
        match poll(&mut waited, Some(&timespec(WANTED_POLL))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| waited.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok([is_ready(stdin_at), self.program.stdout.is_some() && is_ready(1), is_ready(0)])
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.program.stdin else { return Ok(()) };
        match stdin.write(self.unwritten) {
            Ok(size) => self.unwritten = self.unwritten.get(size..).unwrap_or_default(),
            // A program need not read what it is given; what it makes of that is its answer.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.unwritten = &[],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<Step> {
        let Some(stdout) = &mut self.program.stdout else { return Ok(Step::Nothing) };
        let begin = self.output.len();
        let room = (self.output_size_max + 1).saturating_sub(begin).min(READ_SIZE);
        self.output.resize(begin + room, 0);
        let read = stdout.read(self.output.get_mut(begin..).unwrap_or_default());
        self.output.truncate(begin + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => {
                self.program.stdout = None;
                Ok(Step::OutputClosed)
            }
            Ok(_) if self.output.len() > self.output_size_max => Ok(Step::TooMuch),
            Ok(_) => Ok(Step::Output),
            Err(error) if is_passing(&error) => Ok(Step::Nothing),
            Err(error) => Err(error),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
