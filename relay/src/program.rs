//! The foreign program as a process: start, end, and what it may know.
//!
//! Always: it leads a process group of its own, and dies with the relay; both are killed whole. It inherits the environment that
//! the shim gave the relay, less what ties a process to its router, and no descriptor but its three.
//! Never: a signal to a number that may by now be someone else's: a dead leader is waited for only after its group was killed,
//! and as long as it was not waited for its number is its own.
//! Why a group of its own: a call that is given up ends the program and everything it started, and not the relay. When the
//! relay dies instead, the kernel kills the program, the shim inherits and reaps it, and kills what is left of its group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::Fault;
use crate::tail::Tail;

/// What ties a process to its router: the relay's own business.
const WITHHELD: [&str; 4] =
    ["QUICKFIRE_ATTACH", "QUICKFIRE_TOKEN", "QUICKFIRE_REATTACH_MS", "QUICKFIRE_SPIN_US"];

/// Where a program's stdin and stdout lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// To the relay.
    Pipes,
    /// Stdin nowhere, stdout to the log as stderr is.
    Log,
}

/// A process the relay started. Killed with its group when dropped.
pub struct Program {
    child: Child,
    pid: Pid,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    /// Written without blocking.
    pub stdin: Option<ChildStdin>,
    /// Read without blocking.
    pub stdout: Option<ChildStdout>,
    printed: Tail,
    exit: Option<ExitStatus>,
}

impl Program {
    /// Starts `command` with `variables` added to its environment. What it prints is of `call` until something else is said.
    pub fn spawn(
        command: &[String],
        variables: &[(&str, &str)],
        streams: Streams,
        call: Option<u64>,
    ) -> Result<Program, Fault> {
        Self::try_spawn(command, variables, streams, call).map_err(Fault::CannotStart)
    }

    fn try_spawn(
        words: &[String],
        variables: &[(&str, &str)],
        streams: Streams,
        call: Option<u64>,
    ) -> io::Result<Program> {
        let [path, arguments @ ..] = words else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command"));
        };
        let mut command = Command::new(path);
        command.args(arguments).envs(variables.iter().copied()).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        WITHHELD.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(if streams == Streams::Pipes { Stdio::piped() } else { Stdio::null() });
        worker_shim::die_with_parent(&mut command);

        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let stdin = child.stdin.take();
        let (stdout, logged_stdout) = match (streams, child.stdout.take()) {
            (Streams::Pipes, stdout) => (stdout, None),
            (Streams::Log, stdout) => (None, stdout),
        };
        let prepared = (|| {
            if let Some(stdin) = &stdin {
                rustix::io::ioctl_fionbio(stdin, true)?;
            }
            if let Some(stdout) = &stdout {
                rustix::io::ioctl_fionbio(stdout, true)?;
            }
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
            Ok::<_, io::Error>((pidfd, Tail::follow(stderr, logged_stdout, call)?))
        })();
        match prepared {
            Ok((pidfd, printed)) => Ok(Program { child, pid, pidfd, stdin, stdout, printed, exit: None }),
            Err(error) => {
                end_group(pid);
                // Killed: it is gone as soon as the kernel can.
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// How it ended, once it has. What it started in its group has then ended too.
    pub fn poll_exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            // An error means that there is no such child, which then has ended.
            if !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None)) {
                self.end();
            }
        }
        self.exit
    }

    /// Whether it is ending, or has: by then the kernel has closed what it had open, and its end may not have been told yet.
    pub fn is_ending(&self) -> bool {
        self.exit.is_some() || is_ending(self.pid)
    }

    /// Kills it and its group, if they are not dead yet.
    pub fn kill(&mut self) -> ExitStatus {
        match self.exit {
            Some(exit) => exit,
            None => self.end(),
        }
    }

    /// Asks it to end, and kills it if it has not done so after `grace`.
    pub fn stop(&mut self, grace: Duration) {
        if self.exit.is_none() {
            // Fails only if it is gone, which is what is wanted.
            let _ = kill_process_group(self.pid, Signal::TERM);
            self.wait_exit(grace);
            self.kill();
        }
    }

    /// Waits for its end, for this long.
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let give_up_at = Instant::now() + timeout;
        loop {
            let exit = self.poll_exit();
            let left = give_up_at.saturating_duration_since(Instant::now());
            if exit.is_some() || left.is_zero() {
                return exit;
            }
            // An interrupted wait is begun again.
            let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timespec(left)));
        }
    }

    /// Its number.
    #[cfg(test)]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it said on stderr, all of it as far as it is dead.
    pub fn stderr_tail(&self) -> String {
        self.printed.text()
    }

    /// What it prints from now on is of this call; what it has printed by now is not.
    pub fn set_call(&self, call: Option<u64>) {
        self.printed.set_call(call);
    }

    /// Becomes readable when it ends.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn end(&mut self) -> ExitStatus {
        end_group(self.pid);
        // A child nobody can wait for is as good as killed; this relay waits for it only here.
        let killed = ExitStatus::from_raw(Signal::KILL.as_raw());
        let exit = self.child.wait().unwrap_or(killed);
        self.printed.settle();
        self.exit = Some(exit);
        exit
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A length of time as `poll` takes it.
pub fn timespec(length: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: length.subsec_nanos().into(),
    }
}

/// By the kernel's flags of its first thread: PF_EXITING is set before its descriptors are closed, and those of a process with several
/// threads are closed by the last of them, when all have it.
fn is_ending(pid: Pid) -> bool {
    const PF_EXITING: u64 = 4;
    /// Of the fields behind the name in brackets: state, parent, group, session, terminal, its group, flags.
    const FLAGS_INDEX: usize = 6;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let flags = fields.split_ascii_whitespace().nth(FLAGS_INDEX).and_then(|word| word.parse::<u64>().ok());
    // Without the file, it is no more.
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

fn end_group(pid: Pid) {
    // ESRCH: nobody is left, which is what is wanted. EPERM: it became another user, and there is nothing more to do.
    let _ = kill_process_group(pid, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn shell(script: &str) -> Program {
        let command = ["sh", "-c", script].map(String::from);
        Program::spawn(&command, &[("ADDED", "here")], Streams::Pipes, None).unwrap()
    }

    fn wait(program: &mut Program) -> ExitStatus {
        loop {
            if let Some(exit) = program.poll_exit() {
                return exit;
            }
            poll(&mut [PollFd::new(&program.exit_fd(), PollFlags::IN)], None).unwrap();
        }
    }

    fn output(program: &mut Program) -> String {
        let (mut stdout, mut text) = (program.stdout.take().unwrap(), String::new());
        rustix::io::ioctl_fionbio(&stdout, false).unwrap();
        stdout.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_program_that_does_not_exist_is_a_fault() {
        let spawned = Program::spawn(&["/nowhere/x".into()], &[], Streams::Pipes, None);
        let fault = spawned.err().unwrap().to_string();
        assert!(fault.starts_with("cannot_start: "), "{fault}");
    }

    #[test]
    fn it_has_its_variables_and_its_streams() {
        let mut program = shell("echo $ADDED; echo oh >&2; exit 3");
        assert_eq!(wait(&mut program).code(), Some(3));
        assert_eq!(program.stderr_tail(), "oh\n");
        assert_eq!(output(&mut program), "here\n");
    }

    #[test]
    fn it_is_ending_as_soon_as_its_pipes_are_closed_by_the_kernel() {
        for _ in 0..20 {
            let mut program = shell("echo ready; read -r x");
            let mut stdout = program.stdout.take().unwrap();
            rustix::io::ioctl_fionbio(&stdout, false).unwrap();
            stdout.read_exact(&mut [0; 6]).unwrap();
            assert!(!program.is_ending());
            rustix::process::kill_process(program.pid, Signal::KILL).unwrap();
            // Expect: at the end of its output, whether or not its exit is told by then
            assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
            assert!(program.is_ending());
            wait(&mut program);
            assert!(program.is_ending());
        }
    }

    #[test]
    fn what_it_started_ends_with_it() {
        // Given a process in its group that would live on, with the pipes in its hands
        let mut program = shell("sleep 1000 & echo $!");
        wait(&mut program);
        // Expect that reading ends: nobody holds the pipe any more
        let pid: i32 = output(&mut program).trim().parse().unwrap();
        assert!(pid > 0);
    }

    #[test]
    fn one_that_listens_ends_by_itself_and_one_that_does_not_is_killed() {
        let mut polite = shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        let mut deaf = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        for program in [&mut polite, &mut deaf] {
            let stdout = program.stdout.as_ref().unwrap();
            poll(&mut [PollFd::new(stdout, PollFlags::IN)], None).unwrap();
        }
        polite.stop(Duration::from_secs(30));
        assert_eq!(polite.kill().code(), Some(7));
        deaf.stop(Duration::from_millis(1));
        assert_eq!(deaf.kill().signal(), Some(Signal::KILL.as_raw()));
    }
}
