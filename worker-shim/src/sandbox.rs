//! Stage 6 of 8: a sandbox, and the three processes by which a program runs in it.
//!
//! ```text
//!   shim ─▶ keeper ─────▶ init ─────────▶ program
//!           in the host's  process 1 of    what the function is: attached to its ring,
//!           view           the sandbox     or a relay with the program behind it
//! ```
//! In: a [`Plan`], in a process that the shim started for nothing else.  Out: the program's own end, as this process's.
//! Always: when any of the three dies, all die, and with them everything the program ever started: the keeper's death kills init
//! (PDEATHSIG), and the kernel kills a process namespace with its first process. Nobody can leave it.
//! Always: what the host does not have is an error that names it, or with `is_best_effort` a warning, and the rest is done.
//! Never: anything between fork and exec that a second thread could disturb: there is none, and `kernel.rs` insists.
//! Why a process of ours and not a few calls between fork and exec of the shim: files are opened and memory is taken for rules and
//! filters, which must not be done there; and the first process of a namespace has to reap what others leave behind.
//! Why and what it costs: docs/decisions/0033. What it defends: docs/operating/containment.md. Tests: `tests/containment.rs`.

mod failed;
mod filter;
mod kernel;
mod rights;
mod root;

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub use failed::{Mechanism, SandboxFailed};
use failed::{failed_to, missing};
use filter::Filter;
use kernel::Forked;
use root::{Furniture, Shown};

/// The exit code when there is no sandbox to run the program in. Programs that run others use it so (docker, timeout).
pub const EXIT_NO_SANDBOX: u8 = 125;
/// The user that a program of root's believes to be: nobody.
const NOBODY: u32 = 65_534;

/// What a sandbox is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The function, for those who list processes.
    pub function: String,
    /// Program and arguments; not empty. Without one, the sandbox is made and left: to see whether it can be.
    pub command: Option<Vec<String>>,
    /// The run directory, of which the sandbox sees the attach sockets alone.
    pub run_dir: PathBuf,
    /// The folder with nothing in it but those.
    pub attach_dir: PathBuf,
    /// Folders and files beside the host's programs and libraries that may be read.
    pub read: Vec<PathBuf>,
    /// Those that may be written too.
    pub write: Vec<PathBuf>,
    /// Whether it has the host's network instead of one of its own with nobody in it.
    pub has_host_network: bool,
    /// Bytes its /tmp may hold.
    pub tmp_size_max: u64,
    /// Processes and threads it may have.
    pub processes_max: u64,
    /// Whether it runs without what the host does not have.
    pub is_best_effort: bool,
}

/// Runs the program of `plan`, and ends as it ends. For a process with one thread.
pub fn run(plan: &Plan) -> Result<ExitCode, SandboxFailed> {
    // The shim signals the whole group: these are for the program. A handler is not inherited by it, as to ignore would be.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(failed_to("listen to signals"))?;
    }
    let shown = root::view(&plan.read, &plan.write);
    if plan.is_best_effort && !is_possible(plan, &shown)? {
        return become_program(plan, &shown, false, &stop);
    }
    leave_host(plan)?;
    let (status, told) = io::pipe().map_err(failed_to("make a pipe"))?;
    match kernel::fork().map_err(failed_to("start the first process of the sandbox"))? {
        Forked::Parent(init) => {
            drop(told);
            Ok(keep(init, status))
        }
        Forked::Child => be_init(plan, &shown, &stop, status, told),
    }
}

/// Whether namespaces and their files can be made, by making them in a process that then ends: half of them would be worse than
/// none. What is missing is told.
fn is_possible(plan: &Plan, shown: &[Shown]) -> Result<bool, SandboxFailed> {
    let as_code = |result: Result<(), SandboxFailed>| match result {
        Ok(()) => 0,
        Err(failed) => {
            warn(&failed);
            1
        }
    };
    let in_child = |doing: &dyn Fn() -> i32| match kernel::fork().map_err(failed_to("try a sandbox"))? {
        Forked::Child => std::process::exit(doing()),
        Forked::Parent(child) => Ok(ExitStatus::from_raw(wait(child)).success()),
    };
    in_child(&|| {
        let first = || as_code(furnish(plan, shown));
        let tried = leave_host(plan).and_then(|()| in_child(&first));
        tried.map_or_else(|failed| as_code(Err(failed)), |is_possible| i32::from(!is_possible))
    })
}

/// Namespaces of its own for what this process will start.
fn leave_host(plan: &Plan) -> Result<(), SandboxFailed> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let mut flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    if !plan.has_host_network {
        flags |= UnshareFlags::NEWNET;
    }
    kernel::leave_namespaces(flags).map_err(failed("leave those of the host"))?;
    let inside = |outside: u32| if outside == 0 { NOBODY } else { outside };
    // Without this, groups could be given up, and with them what they are denied.
    fs::write("/proc/self/setgroups", "deny").map_err(failed("name its groups"))?;
    fs::write("/proc/self/uid_map", format!("{} {user} 1", inside(user))).map_err(failed("name its user"))?;
    fs::write("/proc/self/gid_map", format!("{} {group} 1", inside(group))).map_err(failed("name its group"))
}

/// The keeper's part: waits, and ends as init says that the program ended.
fn keep(init: Pid, mut status: PipeReader) -> ExitCode {
    let mut told = [0; 4];
    let is_told = status.read_exact(&mut told).is_ok();
    // Without a word from init it was killed, and how says enough.
    let of_init = wait(init);
    end_as(ExitStatus::from_raw(if is_told { i32::from_ne_bytes(told) } else { of_init }))
}

/// Waits for a child; how it ended, as `wait` has it.
fn wait(child: Pid) -> i32 {
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return status.as_raw(),
            Err(Errno::INTR) => {}
            // It cannot be: it is ours, and nobody else waits for it.
            Ok(None) | Err(_) => return i32::from(EXIT_NO_SANDBOX) << 8,
        }
    }
}

/// Ends this process by the same signal or with the same code.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // Only the program's own death is worth a dump. A failure leaves the code that shells use.
        let _ = rights::limit_dump();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return ExitCode::from(128_u8.wrapping_add(signal.unsigned_abs() as u8));
    }
    ExitCode::from(status.code().unwrap_or_default().unsigned_abs() as u8)
}

/// The part of the first process: furnishes the sandbox, starts the program, and reaps until it has ended.
fn be_init(
    plan: &Plan,
    shown: &[Shown],
    stop: &Arc<AtomicBool>,
    keeper: PipeReader,
    mut told: PipeWriter,
) -> Result<ExitCode, SandboxFailed> {
    drop(keeper);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed_to("be ended with its keeper"))?;
    // It may have died before the line above, and then no signal will ever come; nobody holds the other end then.
    let is_alone =
        rustix::event::poll(&mut [PollFd::new(&told, PollFlags::empty())], Some(&Default::default()));
    if is_alone != Ok(0) {
        return Ok(ExitCode::from(EXIT_NO_SANDBOX));
    }
    furnish(plan, shown)?;
    // Not to be read or written by the program, which is of the same user. The program can be, by itself, once it is one.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed_to("close its memory"))?;
    match kernel::fork().map_err(failed_to("start the program"))? {
        Forked::Child => become_program(plan, shown, true, stop),
        Forked::Parent(program) => {
            rights::drop_capabilities()?;
            let status = reap_until(program);
            // If nobody reads it, nobody is there to be told.
            let _ = told.write_all(&status.to_ne_bytes());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What of the sandbox is shared by all of its processes.
fn furnish(plan: &Plan, shown: &[Shown]) -> Result<(), SandboxFailed> {
    if !plan.has_host_network {
        kernel::loopback_up().map_err(failed("switch its loopback interface on"))?;
    }
    rustix::system::sethostname(b"function").map_err(failed("name its host"))?;
    let furniture = Furniture {
        tmp_size_max: plan.tmp_size_max,
        run_dir: plan.run_dir.clone(),
        attach_dir: plan.attach_dir.clone(),
    };
    let folder = std::env::current_dir().unwrap_or_default();
    root::enter(shown, &furniture)?;
    // Where the shim was started, as without a sandbox, if that is to be seen.
    let is_shown = shown.iter().any(|shown| folder.starts_with(&shown.path));
    let folder = if is_shown { folder } else { PathBuf::from("/tmp") };
    std::env::set_current_dir(folder).map_err(failed("go to its folder"))
}

/// Reaps everybody until this one has ended; how it did, as `wait` has it.
fn reap_until(program: Pid) -> i32 {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => return status.as_raw(),
            Ok(_) | Err(Errno::INTR) => {}
            // No child: it cannot be, for the program is one until it is returned above.
            Err(_) => return i32::from(EXIT_NO_SANDBOX) << 8,
        }
    }
}

/// Gives up what the program must not have, and becomes it. Returns only if it cannot, or if there is no program.
fn become_program(
    plan: &Plan,
    shown: &[Shown],
    has_namespaces: bool,
    stop: &AtomicBool,
) -> Result<ExitCode, SandboxFailed> {
    let or_warn = |result: Result<(), SandboxFailed>| match result {
        Err(failed @ SandboxFailed::Missing { .. }) if plan.is_best_effort => {
            warn(&failed);
            Ok(())
        }
        result => result,
    };
    if has_namespaces {
        // Without, all processes of the user would be counted, the router's too.
        rights::limit_processes(plan.processes_max)?;
    }
    rights::limit_dump()?;
    rights::drop_capabilities()?;
    crate::process::keep_descriptors_private().map_err(failed_to("keep its descriptors to itself"))?;
    or_warn(rights::rule_files(shown, &plan.run_dir, has_namespaces))?;
    or_warn(Filter::new().and_then(|filter| filter.apply()))?;
    let Some([program, arguments @ ..]) = plan.command.as_deref() else { return Ok(ExitCode::SUCCESS) };
    // SIGTERM until now was for the program, and nobody there would know of it.
    if stop.load(Ordering::Relaxed) {
        let _ = signal_hook::low_level::emulate_default_handler(SIGTERM);
    }
    let source = Command::new(program).args(arguments).exec();
    Err(SandboxFailed::CannotStart { program: program.clone(), source })
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> SandboxFailed {
    missing(Mechanism::Namespaces, doing)
}

fn warn(failed: &SandboxFailed) {
    let _ = writeln!(io::stderr(), "sandbox: {failed}; goes on without, as containment_missing says"); // a closed stderr is no reason to stop
}
