//! What a shard's thread runs on. Both hosts call the same `turn`; `docs/decisions` says what each costs.
//!
//! In: a way to make the shard.  Out: a thread that runs it until it ended.
//! Always: the shard is made on its own thread, because its ring belongs to the thread that made it.
#![forbid(unsafe_code)]

pub mod bare;
pub mod glommio;

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::config::Host;
use crate::io::IoBackend;
use crate::shard::{Shard, ShardInputs, ShardOptions, ShardRefused};

/// Everything a shard's thread needs.
pub struct Place {
    /// Which shard.
    pub options: ShardOptions,
    /// What it is given.
    pub inputs: ShardInputs,
    /// The processor to stay on.
    pub pin: Option<u32>,
    /// Told once whether the shard could be made, and on what it runs.
    pub started: SyncSender<Result<IoBackend, ShardRefused>>,
}

/// Starts the thread.
pub fn start(host: Host, place: Place) -> io::Result<JoinHandle<()>> {
    match host {
        Host::Bare => bare::start(place),
        Host::Glommio => glommio::start(place),
    }
}

impl Place {
    /// Makes the shard, and tells how that went.
    fn make(self) -> Option<Shard> {
        match Shard::new(self.options, self.inputs) {
            Ok(shard) => {
                // Nobody waits any more: then nobody will ask it to end either, and the process is on its way out.
                let _ = self.started.send(Ok(shard.io_backend().clone()));
                Some(shard)
            }
            Err(refused) => {
                let _ = self.started.send(Err(refused));
                None
            }
        }
    }

    fn name(&self) -> String {
        format!("shard-{}", self.options.shard.0)
    }
}

/// Keeps the calling thread on one processor. Best effort: a processor that is not ours to use is no reason not to run.
fn pin_to(processor: u32) {
    let mut set = CpuSet::new();
    if (processor as usize) < CpuSet::MAX_CPU {
        set.set(processor as usize);
        let _ = sched_setaffinity(None, &set);
    }
}
