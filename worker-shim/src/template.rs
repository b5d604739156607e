//! Stage 6 of 8: a template: a process of a function that is initialised and serves nobody, of which instances are copied.
//!
//! In: the template's words, time, orders for one more copy.  Out: [`News`].
//! Owns: its process, its log, the socket between, and the one order that is under way.
//! Always: an order ends in exactly one of `Born` and `NotCopied`, or is cancelled. A template that does neither in time, or says
//! what it should not, is killed as a program that fails, and the reason is told in place of how it ended.
//! Never: believes a number: which process was born the kernel says (`order.rs`).
//!
//! ```text
//!   started ── Ready ──▶ ready ── order ──▶ copying ── Born, CopyFailed ──▶ ready
//!      │ start_timeout                         │ COPY_TIMEOUT
//!      └──────────────▶ killed ◀───────────────┘
//! ```
//! Its life is that of a place (`life.rs`): Spawning until it is ready, and a failure if it never is.
//! The records: `protocol::template`.  Why so: docs/decisions/0034-snapshots.md.

mod files;
mod order;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use protocol::template::{Message, SocketPath, TemplateMisbehaved};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};

use crate::config::FunctionConfig;
use crate::life::Life;
use crate::logs::PlaceLog;
use crate::process::Process;
use crate::status::TemplateStatus;

use files::Files;
pub use order::Newborn;
use order::{Order, receive};

/// A copy takes a millisecond or two, and more where there are gigabytes of page tables.
const COPY_TIMEOUT_NS: u64 = 5_000_000_000;
/// A template that closed its socket is about to end; how it ended is told if it does so within this.
const LEAVE_TIMEOUT_NS: u64 = 1_000_000_000;

/// See above.
pub struct Template {
    /// Index among the shim's functions.
    pub function: usize,
    /// Its number among the templates of its function: the one in the name of its log.
    pub number: usize,
    /// What is started here.
    pub program: Rc<FunctionConfig>,
    pub life: Life,
    pub process: Option<Process>,
    pub log: PlaceLog,
    /// Copies that were made of it and its predecessors.
    pub copies: u64,
    /// Our end; `None` when it closed its own.
    socket: Option<OwnedFd>,
    /// What its program was when it was started.
    files: Files,
    order: Option<Order>,
    orders_given: u64,
    /// Of these, the ones that were cancelled and that the template may still say it cannot carry out.
    orders_cancelled: u64,
    /// Nobody has had a copy since it was started, and somebody may have waited for it meanwhile.
    is_fresh: bool,
    /// What it fails of, if nothing has happened by then.
    due: Option<(u64, TemplateFailed)>,
    /// What it was killed for, or is ending of.
    failed: Option<TemplateFailed>,
}

/// Why a template is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFailed {
    #[error("was not initialised after {} ms (start_timeout)", after.as_millis())]
    NotReady { after: Duration },
    #[error("cannot be copied: it has {count} threads, and only a process with one can be")]
    Threads { count: u32 },
    #[error("made no copy within {} s", COPY_TIMEOUT_NS / 1_000_000_000)]
    NoCopy,
    #[error("closed the socket on which it gets its orders")]
    Left,
    #[error("sent what is no word of a template: {0}")]
    Misbehaved(#[from] TemplateMisbehaved),
    #[error("sent a word out of turn")]
    OutOfTurn,
}

/// What came of looking at a template.
pub enum News {
    /// It is initialised.
    Ready,
    /// A copy of it says that it is there; it waits for a word.
    Born(Newborn),
    /// There will be no process for this place.
    NotCopied { place: usize, reason: String },
}

impl Template {
    /// One whose process is due at once.
    pub fn new(
        function: usize,
        number: usize,
        program: Rc<FunctionConfig>,
        logs_dir: &Path,
        now_ns: u64,
    ) -> Self {
        Self {
            function,
            number,
            log: PlaceLog::new(
                logs_dir,
                &program.name,
                &format!("template-{number}"),
                program.edition,
                program.log,
            ),
            program,
            life: Life::new(now_ns),
            process: None,
            copies: 0,
            socket: None,
            files: Files::default(),
            order: None,
            orders_given: 0,
            orders_cancelled: 0,
            is_fresh: true,
            due: None,
            failed: None,
        }
    }

    /// The template's end of a new socket. To be started at once: what its files are is looked up now.
    pub fn open(&mut self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        self.files = Files::of(&self.program.command);
        self.socket = Some(ours);
        Ok(theirs)
    }

    pub fn on_started(&mut self, now_ns: u64, process: Process) {
        self.process = Some(process);
        self.failed = None;
        let after = self.program.start_timeout;
        let after_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.due = Some((now_ns.saturating_add(after_ns), TemplateFailed::NotReady { after }));
    }

    /// Its process has ended. Gives what it failed of, if that is known better than from its end, and the place that waits in vain.
    pub fn on_ended(&mut self) -> (Option<TemplateFailed>, Option<usize>) {
        (self.process, self.socket, self.due) = (None, None, None);
        (self.orders_cancelled, self.is_fresh) = (0, true);
        (self.failed.take(), self.order.take().map(|order| order.place))
    }

    /// Initialised, and not asked to end.
    pub fn is_ready(&self) -> bool {
        matches!(self.life, Life::Starting { .. } | Life::Warm)
    }

    /// Whether it can be asked for a copy.
    pub fn is_free(&self) -> bool {
        self.is_ready() && self.failed.is_none() && self.socket.is_some() && self.order.is_none()
    }

    /// Nobody waits for a copy.
    pub fn on_idle(&mut self) {
        self.is_fresh = false;
    }

    /// Whether its program is another file than when it was started. A place that has waited for the template takes it as it is: its
    /// command may name a file that changes all the time.
    pub fn is_outdated(&self) -> bool {
        !self.is_fresh && self.files != Files::of(&self.program.command)
    }

    /// Asks for one more copy. Only one that is free is asked.
    pub fn order(&mut self, now_ns: u64, place: usize, attach_socket: &Path) -> io::Result<()> {
        let path = SocketPath::from_bytes(attach_socket.as_os_str().as_encoded_bytes()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidFilename, "the attach socket's path is too long")
        })?;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        self.is_fresh = false;
        self.orders_given += 1;
        self.order = Some(Order::send(socket, self.orders_given, place, path)?);
        self.due = Some((now_ns.saturating_add(COPY_TIMEOUT_NS), TemplateFailed::NoCopy));
        Ok(())
    }

    /// The place does not want a process any more. A copy that is being made ends by itself when it finds nobody waiting.
    pub fn cancel(&mut self, place: usize) {
        if self.order.take_if(|order| order.place == place).is_some() {
            self.due = None;
            self.orders_cancelled += 1;
        }
    }

    /// Reads what has come and does what is due. To be asked until there is nothing.
    pub fn turn(&mut self, now_ns: u64) -> Option<News> {
        if let Some(news) = self.hear(now_ns) {
            return Some(news);
        }
        if let Some(order) = &self.order
            && let Some(outcome) = order.outcome()
        {
            return self.end_order(outcome);
        }
        if self.due.is_some_and(|(at_ns, _)| at_ns <= now_ns) {
            let (_, failed) = self.due.take()?;
            self.fail(failed);
        }
        None
    }

    /// The template's own words.
    fn hear(&mut self, now_ns: u64) -> Option<News> {
        let received = receive(self.socket.as_ref()?);
        let message = match received {
            Ok(None) => return None,
            Ok(Some((message, _))) => message,
            Err(error) => {
                self.socket = None;
                match error {
                    order::ReceiveFailed::Misbehaved(misbehaved) => self.fail(misbehaved.into()),
                    order::ReceiveFailed::Closed => {
                        self.due = Some((now_ns.saturating_add(LEAVE_TIMEOUT_NS), TemplateFailed::Left));
                    }
                }
                return None;
            }
        };
        match message {
            Message::Ready if matches!(self.life, Life::Spawning { .. }) => {
                self.due = None;
                Some(News::Ready)
            }
            // It ends by itself, and if it does not, then of this.
            Message::Threads { count } => {
                let failed = TemplateFailed::Threads { count };
                self.failed = Some(failed);
                self.due = Some((now_ns.saturating_add(LEAVE_TIMEOUT_NS), failed));
                None
            }
            Message::CopyFailed { order, errno } => match &self.order {
                Some(current) if current.number == order => {
                    let error = io::Error::from_raw_os_error(errno.cast_signed());
                    self.end_order(Err(format!("the template cannot be copied: {error}")))
                }
                _ => {
                    // Of one that was cancelled; of those each is told of once at most.
                    match self.orders_cancelled.checked_sub(1) {
                        Some(others) => self.orders_cancelled = others,
                        None => self.fail(TemplateFailed::OutOfTurn),
                    }
                    None
                }
            },
            Message::Ready | Message::Copy { .. } | Message::Born | Message::Go => {
                self.fail(TemplateFailed::OutOfTurn);
                None
            }
        }
    }

    fn end_order(&mut self, outcome: Result<Pid, String>) -> Option<News> {
        let order = self.order.take()?;
        self.due = None;
        Some(match outcome {
            Ok(pid) => News::Born(order.into_newborn(pid)),
            Err(reason) => News::NotCopied { place: order.place, reason },
        })
    }

    /// Kills it: a program that fails.
    fn fail(&mut self, failed: TemplateFailed) {
        self.failed.get_or_insert(failed);
        self.signal_group(Signal::KILL);
    }

    pub fn signal_group(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal_group(signal);
        }
    }

    /// What it printed last, of one that has ended.
    pub fn read_last_output(&mut self, now_ns: u64, buffer: &mut [u8]) {
        if let Some(process) = &mut self.process {
            self.log.read_last(now_ns, &mut process.output, buffer);
        }
    }

    pub fn read_output(&mut self, now_ns: u64, buffer: &mut [u8]) {
        if let Some(process) = &mut self.process {
            self.log.read(now_ns, &mut process.output, buffer);
        }
    }

    /// When `turn` has something to do even if nothing is read.
    pub fn due_at_ns(&self) -> Option<u64> {
        let due_at_ns = self.due.map(|(at_ns, _)| at_ns);
        [due_at_ns, self.life.due_at_ns()].into_iter().flatten().min()
    }

    /// What `poll` should wait for.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let pipes = self.process.iter().flat_map(|process| process.output.iter().flatten());
        let sockets = [self.socket.as_ref(), self.order.as_ref().map(|order| &order.socket)];
        sockets
            .into_iter()
            .flatten()
            .chain(pipes)
            .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN))
    }

    /// `is_in_force`: it runs what its function is by now.
    pub fn status(&self, is_in_force: bool) -> TemplateStatus {
        TemplateStatus {
            template: self.number,
            edition: if is_in_force { "in_force" } else { "earlier" },
            state: match self.life {
                Life::Spawning { .. } => "initialising",
                Life::Starting { .. } | Life::Warm => "ready",
                other => other.name(),
            },
            pid: self.process.as_ref().map(Process::id),
            failures: self.life.failure_count(),
            copies: self.copies,
        }
    }
}
