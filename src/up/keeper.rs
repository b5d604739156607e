//! Keeps a shim running beside the router.
//!
//! ```text
//!   Absent ──lock free──▶ Ours ──it died──▶ Absent, after a growing delay
//!      └──lock held by a shim of an earlier router──▶ waited for: it attaches, or is told to stop by the router,
//!                                                     or gives up by itself; then the lock is free
//! ```
//! Always: at most one shim in a run directory; `DIR/shim.lock` decides, not this program's memory.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use router::{Config, run_dir};
use rustix::process::{Pid, Signal, kill_process};

use super::signals::{News, Signals};

/// Delay before the first restart; doubles with each failure in a row.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);
/// Delay before the restart of a shim that keeps dying.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// A shim that lived this long has not failed in a row.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How often the lock of somebody else's shim is looked at.
const FOREIGN_POLL: Duration = Duration::from_millis(100);
/// How long a shim may take to stop its processes: its own grace for them, twice.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait between two looks while it stops.
const STOP_POLL: Duration = Duration::from_millis(10);

/// The keeper of the shim.
pub struct Keeper {
    run_dir: PathBuf,
    ours: Option<(Child, Instant)>,
    /// The shim of an earlier router, once it attached to this one.
    foreign_pid: Option<u32>,
    is_foreign_told: bool,
    failures: u32,
    start_at: Instant,
}

impl Keeper {
    /// A keeper that has not started anything.
    pub fn new(config: &Config) -> Keeper {
        Keeper {
            run_dir: config.router.run_dir.clone(),
            ours: None,
            foreign_pid: None,
            is_foreign_told: false,
            failures: 0,
            start_at: Instant::now(),
        }
    }

    /// Looks after the shim, and says when to look again at the latest. `attached_pid` is the shim the router accepted.
    pub fn turn(&mut self, attached_pid: Option<u32>) -> Duration {
        self.reap();
        if self.ours.is_some() {
            return Duration::MAX;
        }
        self.foreign_pid = attached_pid;
        let wait = self.start_at.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return wait;
        }
        match run_dir::lock_holder(&run_dir::shim_lock(&self.run_dir)) {
            Ok(Some(holder)) => {
                if !self.is_foreign_told {
                    self.is_foreign_told = true;
                    eprintln!(
                        "quickfire: the shim of an earlier router is still here ({holder}); it will attach or leave"
                    );
                }
                FOREIGN_POLL
            }
            Ok(None) => {
                self.start();
                Duration::ZERO
            }
            Err(error) => {
                eprintln!("quickfire: {error}");
                self.fail();
                RESTART_DELAY_MIN
            }
        }
    }

    /// Asks the shim to stop and waits for it; a second stop signal, or too long a time, kills it.
    pub fn stop(&mut self, signals: &mut Signals) {
        self.signal(Signal::TERM);
        let give_up_at = Instant::now() + STOP_TIMEOUT;
        while self.is_alive() {
            if signals.wait(STOP_POLL) == News::Stop || Instant::now() >= give_up_at {
                return self.kill();
            }
        }
    }

    /// Kills the shim; its processes die with it (PR_SET_PDEATHSIG).
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some((child, _)) = &mut self.ours {
            // A killed child is gone as soon as the kernel can.
            let _ = child.wait();
        }
    }

    fn is_alive(&mut self) -> bool {
        match &mut self.ours {
            Some((child, _)) => matches!(child.try_wait(), Ok(None)),
            None if self.foreign_pid.is_none() => false,
            None => matches!(run_dir::lock_holder(&run_dir::shim_lock(&self.run_dir)), Ok(Some(_))),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = match &self.ours {
            Some((child, _)) => Some(child.id()),
            // Only while the lock is held: without it the number may have come to mean another process.
            None => {
                let holder = run_dir::lock_holder(&run_dir::shim_lock(&self.run_dir)).ok().flatten();
                self.foreign_pid.filter(|pid| holder == Some(format!("pid {pid}")))
            }
        };
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // Fails only if it is gone, which is what is wanted.
            let _ = kill_process(pid, signal);
        }
    }

    fn reap(&mut self) {
        let Some((child, started_at)) = &mut self.ours else { return };
        let Ok(Some(status)) = child.try_wait() else { return };
        if started_at.elapsed() >= STEADY_AFTER {
            self.failures = 0;
        }
        self.ours = None;
        eprintln!("quickfire: the shim ended ({status}) and is started again");
        self.fail();
    }

    fn start(&mut self) {
        match self.spawn() {
            Ok(child) => self.ours = Some((child, Instant::now())),
            Err(error) => {
                eprintln!("quickfire: cannot start the shim: {error}");
                self.fail();
            }
        }
    }

    fn fail(&mut self) {
        let delay = RESTART_DELAY_MIN.saturating_mul(1 << self.failures.min(10)).min(RESTART_DELAY_MAX);
        self.failures += 1;
        self.start_at = Instant::now() + delay;
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .arg("shim")
            // Where it finds what to keep.
            .env("QUICKFIRE_DIR", &self.run_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Ctrl-C goes to a whole process group; the shim is to be stopped after the router.
            .process_group(0)
            .spawn()
    }
}
