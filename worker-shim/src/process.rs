//! Stage 6 of 8: function processes as the kernel sees them: start, signal, reap. The only unsafe code of the shim.
//!
//! In: a program and its place, or a copy that a template made.  Out: a [`Process`] with its output pipes; later, its [`Exit`].
//! Always: a process leads its own process group (a signal to it reaches what it started), dies with the shim
//! (PDEATHSIG; a copy asks for it itself, before it does anything else), reads nothing (stdin is /dev/null, a template's its orders),
//! inherits no descriptor but its three, and runs on its function's
//! processors from its first instruction on.
//! Never: a signal to a number that may by now be someone else's. A number stays ours until it is reaped, and it is
//! reaped only here.
//!
//! PDEATHSIG follows the *thread* that forked, so [`spawn`] belongs to the thread that lives as long as the shim:
//! its main thread. A relay starts its program under the same rule, by [`die_with_parent`].

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::thread::CpuSet;

use crate::orphanage;

/// What a function process inherits from the shim's environment. All else (credentials above all) must be given
/// to a function by name, in its `env`.
const INHERITED: [&str; 10] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "QUICKFIRE_SPIN_US",
];

/// What the shim itself tells each process; see `docs/coding/rust-functions.md`.
const RESERVED: [&str; 6] = [
    "QUICKFIRE_ATTACH",
    "QUICKFIRE_FUNCTION",
    "QUICKFIRE_TOKEN",
    "QUICKFIRE_REATTACH_MS",
    "QUICKFIRE_TEMPLATE",
    orphanage::VARIABLE,
];

/// True for a variable that only the shim may set.
pub fn is_reserved(variable: &str) -> bool {
    RESERVED.contains(&variable)
}

/// One process to start.
pub struct Program<'a> {
    /// Program and arguments; not empty.
    pub command: &'a [String],
    /// The function's own variables.
    pub env: &'a [(String, String)],
    /// Its control group, in each of its hierarchies: the file by which a process enters.
    pub entrances: Vec<OwnedFd>,
    /// Where it may run; none: where the shim may. Checked: none is beyond what a mask can name.
    pub processors: &'a [u32],
    /// What it is started for.
    pub role: Role<'a>,
    /// QUICKFIRE_FUNCTION.
    pub function: &'a str,
    /// QUICKFIRE_SHIM.
    pub mark: &'a str,
    /// QUICKFIRE_TOKEN.
    pub token: u64,
    /// QUICKFIRE_REATTACH_MS.
    pub reattach_ms: u64,
}

/// What a process is started for.
pub enum Role<'a> {
    /// To serve the shard with this socket: QUICKFIRE_ATTACH.
    Worker {
        /// The socket.
        attach_socket: &'a Path,
    },
    /// To be copied: QUICKFIRE_TEMPLATE. The variable's value is for people who look at processes; what counts is that it is there.
    Template {
        /// The run directory.
        run_dir: &'a Path,
        /// The template's end of the socket on which it gets its orders. It becomes its standard input: a descriptor that every
        /// language can take without being told a number.
        socket: OwnedFd,
    },
}

/// A process the shim started, or adopted, and has not reaped.
pub struct Process {
    /// Its number, and that of its process group.
    pub pid: Pid,
    /// Its stdout and stderr, read without blocking; `None` once the process closed it.
    pub output: [Option<OwnedFd>; 2],
}

/// Starts one process.
pub fn spawn(program: Program<'_>) -> io::Result<Process> {
    let [path, arguments @ ..] = program.command else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command"));
    };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .env("QUICKFIRE_FUNCTION", program.function)
        .env(orphanage::VARIABLE, program.mark)
        .env("QUICKFIRE_TOKEN", program.token.to_string())
        .env("QUICKFIRE_REATTACH_MS", program.reattach_ms.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    match program.role {
        Role::Worker { attach_socket } => command.env("QUICKFIRE_ATTACH", attach_socket).stdin(Stdio::null()),
        Role::Template { run_dir, socket } => command.env("QUICKFIRE_TEMPLATE", run_dir).stdin(socket),
    };

    die_with_parent(&mut command);
    let entrances = program.entrances;
    // SAFETY: as in `die_with_parent`: one plain system call for each descriptor, which the closure owns and which therefore are open,
    // and an error that is made from a number. The vector was filled before.
    unsafe {
        command.pre_exec(move || {
            for entrance in &entrances {
                rustix::io::write(entrance, b"0")?;
            }
            Ok(())
        });
    }
    if let Some(processors) = affinity(program.processors) {
        // SAFETY: as in `die_with_parent`: one plain system call on a mask that was captured by value, and an error that is made
        // from a number.
        unsafe {
            command.pre_exec(move || Ok(rustix::thread::sched_setaffinity(None, &processors)?));
        }
    }

    let mut child = command.spawn()?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both streams were asked to be pipes")
    };
    let output = [OwnedFd::from(stdout), OwnedFd::from(stderr)];
    for pipe in &output {
        // Fails only for a descriptor that is not open, and these were opened above.
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    // `child` is dropped without waiting: `reap_next` is the one place where processes are reaped.
    Ok(Process { pid: Pid::from_child(&child), output: output.map(Some) })
}

/// Takes a process that was copied from a template for one of ours, as if it had been started here.
pub fn adopt(pid: Pid, output: [OwnedFd; 2]) -> Result<Process, AdoptRefused> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::Pid(pid), look) {
        Ok(None) => {}
        Ok(Some(_)) => return Err(AdoptRefused::Ended),
        Err(Errno::CHILD) => return Err(AdoptRefused::NoChild),
        Err(error) => return Err(AdoptRefused::System(error.into())),
    }
    // A group of its own, as a process that is started here has from its first instruction on. Until now it was in its template's.
    rustix::process::setpgid(Some(pid), Some(pid)).map_err(|error| AdoptRefused::System(error.into()))?;
    Ok(Process { pid, output: output.map(Some) })
}

/// Why a process cannot become one of ours.
#[derive(Debug, thiserror::Error)]
pub enum AdoptRefused {
    /// Dead already.
    #[error("the copy ended before it could be taken over")]
    Ended,
    /// The shim could neither wait for it nor be sure that its number stays its own. A copy whose parent has not ended is one, and
    /// one that has been reaped.
    #[error("the copy is no child of the shim: it has ended, or was not made an orphan")]
    NoChild,
    /// The shim has it already.
    #[error("the copy is a process that the shim already has")]
    Known,
    /// The kernel would not.
    #[error("the copy cannot be given a process group of its own: {0}")]
    System(#[source] io::Error),
}

/// Lets the process that `command` will start be killed when this one dies. The kernel follows the *thread* that starts it: one
/// that lives as long as its process, usually the main thread.
pub fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, because another thread may have held
    // a lock (the allocator's, say) at the fork. The closure makes plain system calls and builds an error from a
    // number, which does not allocate; it captures an integer, by value.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above took effect, and then no signal will ever come: our
            // parent is someone else already.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(Errno::SRCH.raw_os_error()));
            }
            Ok(())
        });
    }
}

/// The mask of these processors; `None` for no wish.
fn affinity(processors: &[u32]) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor as usize));
    (!processors.is_empty()).then_some(set)
}

impl Process {
    /// Its number, as everybody but the kernel writes it.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Signals the process and what it started, as far as that stayed in its group.
    pub fn signal_group(&self, signal: Signal) {
        signal_group(self.pid, signal);
    }
}

/// The end of a child, or of an orphan that became one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Which.
    pub pid: Pid,
    /// How.
    pub cause: ExitCause,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExitCause {
    /// As one number, the way a shell shows it: the code, or 128 and the signal.
    pub fn as_exit_code(self) -> u32 {
        match self {
            ExitCause::Code(code) => code.unsigned_abs(),
            ExitCause::Signal(number) => 128 + number.unsigned_abs(),
        }
    }
}

impl std::fmt::Display for ExitCause {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            ExitCause::Code(code) => write!(out, "exited with code {code}"),
            ExitCause::Signal(number) => match signal_name(number) {
                Some("SIGSYS") => {
                    write!(out, "killed by SIGSYS: it made a system call that a filter forbids")
                }
                Some(name) => write!(out, "killed by {name}"),
                None => write!(out, "killed by signal {number}"),
            },
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    let names = [
        (Signal::KILL, "SIGKILL"),
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ILL, "SIGILL"),
        (Signal::FPE, "SIGFPE"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::HUP, "SIGHUP"),
        (Signal::SYS, "SIGSYS"),
    ];
    names.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| *name)
}

/// Takes the next dead child, if there is one, and ends what is left of its process group.
pub fn reap_next() -> Option<Exit> {
    let (pid, status) = rustix::process::wait(WaitOptions::NOHANG).ok()??;
    // What the process started and left behind in its group goes with it. Its number is free since the line above
    // only if that group is empty, and would have to be given out again, to a group leader, within this microsecond:
    // the kernel goes round all other numbers first.
    signal_group(pid, Signal::KILL);
    let cause = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitCause::Code(code),
        (None, Some(number)) => ExitCause::Signal(number),
        (None, None) => ExitCause::Code(status.as_raw()),
    };
    Some(Exit { pid, cause })
}

fn signal_group(pid: Pid, signal: Signal) {
    // ESRCH: nobody is left, which is what we want. EPERM: it became another user; its PDEATHSIG is gone too, and
    // there is nothing more we may do.
    let _ = rustix::process::kill_process_group(pid, signal);
}

/// Makes this process the parent of every descendant whose own parent dies, so that none escapes `reap_next`.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// The children this process has now, dead ones included: places, and orphans it inherited.
pub fn children() -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        // A thread that ended between the two lines has handed its children to another of ours.
        let listed = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        pids.extend(listed.split_ascii_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)));
    }
    Ok(pids)
}

/// Kills every child there is, orphans that left their group included.
pub fn kill_children() -> io::Result<()> {
    for pid in children()? {
        // Ours until reaped, and reaped only by this thread.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    Ok(())
}

/// Marks every descriptor this process was born with, but the standard three, as not for its children. Those it
/// opens itself are born that way.
pub fn keep_descriptors_private() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(raw) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if raw <= 2 {
            continue;
        }
        // SAFETY: a borrowed descriptor must stay open while it is used. It was listed as open just now, only this
        // thread runs, and it closes nothing inside this block; the one exception, the listing's own descriptor, is
        // open until the loop ends.
        let fd: BorrowedFd<'_> = unsafe { BorrowedFd::borrow_raw(raw) };
        rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC)?;
    }
    Ok(())
}
