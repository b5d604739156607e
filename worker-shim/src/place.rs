//! Stage 6 of 8: a place: one process that is kept warm, or the wait for it.
//!
//! Owns: the process and its log; the edition of the function that the process was started as, which stays its own when the
//! function is given another one.

use std::path::PathBuf;
use std::rc::Rc;

use rustix::process::Signal;

use crate::cgroup::Group;
use crate::config::FunctionConfig;
use crate::life::Life;
use crate::logs::PlaceLog;
use crate::process::Process;
use crate::status::PlaceStatus;

/// See above.
pub struct Place {
    /// Index among the shim's functions.
    pub function: usize,
    /// Its number among the places of its function, over all shards: the one in the name of its log.
    pub number: usize,
    /// Whose shard's router its process attaches to.
    pub shard: u32,
    pub attach_socket: PathBuf,
    /// What is started here.
    pub program: Rc<FunctionConfig>,
    /// Its edition was said to serve: its process may have calls.
    pub has_served: bool,
    /// The router has told its process to end.
    pub is_told_to_end: bool,
    pub life: Life,
    pub process: Option<Process>,
    /// What it was started in, until it is known to have ended.
    pub group: Option<Group>,
    pub log: PlaceLog,
}

impl Place {
    /// Takes what the process printed, at most one buffer of each stream.
    pub fn read_output(&mut self, now_ns: u64, buffer: &mut [u8]) {
        if let Some(process) = &mut self.process {
            self.log.read(now_ns, &mut process.output, buffer);
        }
    }

    /// Its process, while there is one.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    pub fn signal_group(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal_group(signal);
        }
    }

    /// `is_in_force`: it runs what its function is by now.
    pub fn status(&self, is_in_force: bool) -> PlaceStatus {
        PlaceStatus {
            place: self.number,
            shard: self.shard,
            start: if self.program.snapshot { "snapshot" } else { "exec" },
            edition: if is_in_force { "in_force" } else { "earlier" },
            life: self.life.name(),
            pid: self.process_id(),
            failures: self.life.failure_count(),
        }
    }
}
