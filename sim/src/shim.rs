//! The shim in virtual time: the real life of each place (`worker_shim::life`), with processes that are entries of a
//! table. A process that has ended is seen by the shim one step later, as with a real pidfd.
//!
//! Always: killed, its processes die with it (each asks the kernel for that), and its successor begins every life anew.

use worker_shim::life::{Action, Event, Life, Patience};

use crate::chance::Chance;

/// Names one process for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// As often in a row a place fails before the shim tells the router; see `worker-shim/src/shim.rs`.
const FAILING_AFTER: u32 = 5;

/// How long a process that was told to end may take for it; see `worker-shim/src/shim.rs`.
const RELEASE_TIMEOUT_NS: u64 = 10_000_000_000;

/// One process that is to be kept warm.
pub struct Keeper {
    /// Which function.
    pub function: u32,
    life: Life,
    process: Option<ProcessId>,
}

/// What the shim asks of the world.
pub enum Asked {
    /// Start a process of this function.
    Spawn(ProcessId),
    /// End it: SIGKILL. (An honest process ends at SIGTERM as well.)
    End(ProcessId),
}

impl Keeper {
    /// A place whose first process is due at once.
    pub fn new(function: u32, now_ns: u64) -> Self {
        Self { function, life: Life::new(now_ns), process: None }
    }

    /// Lets time pass; `name` is the process to start, if one is.
    pub fn tick(&mut self, now_ns: u64, name: ProcessId, chance: &mut Chance) -> Option<Asked> {
        let patience = Patience::default();
        match self.life.on_event(now_ns, &patience, Event::Time) {
            Action::Spawn if chance.per_mille(20) => {
                let _ = self.life.on_event(
                    now_ns,
                    &patience,
                    Event::SpawnFailed { jitter: chance.next() as u32 },
                );
                None
            }
            Action::Spawn => {
                self.process = Some(name);
                let _ = self.life.on_event(now_ns, &patience, Event::Started);
                Some(Asked::Spawn(name))
            }
            Action::Terminate | Action::Kill => self.process.map(Asked::End),
            Action::None | Action::Withdraw => None,
        }
    }

    /// Its process was told to end by the router, and is given up with it.
    pub fn let_go(&mut self, now_ns: u64, process: ProcessId) {
        if self.process == Some(process) {
            let event = Event::LeaveAsked { within_ns: RELEASE_TIMEOUT_NS };
            let _ = self.life.on_event(now_ns, &Patience::default(), event);
        }
    }

    /// Nobody wants it any more, and it has no process.
    pub fn give_up(&mut self, now_ns: u64) {
        let _ = self.life.on_event(now_ns, &Patience::default(), Event::StopAsked);
    }

    /// Whether it is to have a process, now and later.
    pub fn is_to_stay(&self) -> bool {
        self.life.is_to_stay()
    }

    /// Whether nothing more will happen here.
    pub fn is_gone(&self) -> bool {
        self.life.is_gone()
    }

    /// Whether it waits for its next process.
    pub fn has_none(&self) -> bool {
        self.life.is_to_stay() && !self.life.has_process()
    }

    /// The process of this place has ended. True: that was once too often, and the router should know.
    pub fn on_exit(&mut self, now_ns: u64, process: ProcessId, chance: &mut Chance) -> bool {
        if self.process.take_if(|mine| *mine == process).is_none() {
            return false;
        }
        let jitter = chance.next() as u32;
        let _ = self.life.on_event(now_ns, &Patience::default(), Event::Exited { jitter });
        self.life.failure_count() >= FAILING_AFTER
    }
}
