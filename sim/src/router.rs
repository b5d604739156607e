//! The router: one life of it, with its shards.
//!
//! Always: one value of this type is one life. Killed, it is dropped, and its rings with it; what workers still do in their
//! halves of them nobody sees.
//! Always: connections and workers belong to a shard each, by their number; what shards share is the ledger of limits.

mod shard;

use std::sync::Arc;

use engine::{Engine, FunctionSpec, InvocationId, Limits, Nanos, ShardId, TenantSpec, WorkerState, ledger};
use shm_ring::HeapMemory;

use crate::oracle::Seen;
use crate::shim::ProcessId;

pub use shard::Shard;

/// Something the router did that the oracle and the world must know.
pub enum Did {
    Pushed(InvocationId, ProcessId),
    /// A second attempt at a call went to this process.
    Hedged {
        call: InvocationId,
        twin: InvocationId,
        process: ProcessId,
    },
    Answered(InvocationId, Seen),
    /// A worker gave it back, with a result or without.
    GivenBack(InvocationId),
    /// A run of it came to an end that says something about its function.
    Ran {
        id: InvocationId,
        has_failed: bool,
    },
    /// A worker has it no more, and it may be run again.
    TakenBack(InvocationId),
    /// A call stands elsewhere than it stood.
    Stands(InvocationId, Stand),
    /// The shim is told how many processes of a function to keep, and which one is to end.
    Wanted {
        function: u32,
        count: u32,
        leaving: Option<ProcessId>,
    },
    /// The process is told to finish and end.
    Stopped(ProcessId),
    Killed(ProcessId),
    Quarantined(ProcessId),
}

/// Where a call stands that no worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// In its function's queue, or at once in a ring.
    InLine,
    /// It must not stand there before this time.
    NotBefore(Nanos),
    /// It waits for the result of another call.
    Joined(InvocationId),
}

/// Slots of each ring: few, so that rings are full often.
pub const SLOT_COUNT: u32 = 4;

/// A worker as the router sees it.
pub struct Seat {
    pub process: ProcessId,
    pub function: u32,
    pub state: WorkerState,
    pub credits: u32,
}

/// What all shards are started with.
pub struct Table<'a> {
    pub limits: &'a Limits,
    pub tenants: &'a [TenantSpec],
    pub functions: Vec<FunctionSpec>,
    /// What chance is drawn from where it is wanted.
    pub seed: u64,
}

/// Shards that share a ledger.
pub struct Router {
    /// Which router of this run it is.
    pub epoch: u32,
    pub shards: Vec<Shard>,
}

impl Router {
    /// A router without workers.
    pub fn new(epoch: u32, shard_count: u8, table: &Table<'_>) -> Router {
        let shared = Arc::new(ledger(table.limits));
        let start = |number: u8| {
            let Table { limits, tenants, functions, seed } = table;
            let mut engine =
                Engine::new(ShardId(number), (*limits).clone(), tenants.to_vec(), functions.clone())
                    .expect("a sound configuration");
            if shard_count > 1 {
                engine.share_ledger(shared.clone());
            }
            engine.seed_chance(seed ^ u64::from(epoch) << 32 ^ u64::from(number));
            Shard::new(engine)
        };
        Router { epoch, shards: (0..shard_count).map(start).collect() }
    }

    /// The shard of a connection.
    pub fn shard_of_client(&mut self, client: u32) -> &mut Shard {
        let index = client as usize % self.shards.len();
        &mut self.shards[index]
    }

    /// The shard that answers for a call.
    pub fn shard_of(&mut self, id: InvocationId) -> &mut Shard {
        &mut self.shards[usize::from(id.shard().0)]
    }

    /// Gives a process its ring.
    pub fn attach(&mut self, now: Nanos, function: u32, process: ProcessId) -> Option<HeapMemory> {
        let index = self.shard_index_of(process);
        self.shards[index].attach(now, function, process)
    }

    /// To which shard a process attaches.
    pub fn shard_index_of(&self, process: ProcessId) -> usize {
        process.0 as usize % self.shards.len()
    }

    /// A process closed its socket and may live on: it gets nothing new.
    pub fn on_socket_closed(&mut self, process: ProcessId) {
        self.shards.iter_mut().for_each(|shard| shard.on_socket_closed(process));
    }

    /// A process has ended.
    pub fn on_process_gone(&mut self, now: Nanos, process: ProcessId, did: &mut Vec<Did>) {
        self.shards.iter_mut().for_each(|shard| shard.on_process_gone(now, process, did));
    }

    /// Every engine.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.shards.iter().map(|shard| &shard.engine)
    }

    /// Every engine, to be told something.
    pub fn engines_mut(&mut self) -> impl Iterator<Item = &mut Engine> {
        self.shards.iter_mut().map(|shard| &mut shard.engine)
    }

    /// Nothing admitted is unfinished.
    pub fn is_idle(&self) -> bool {
        self.engines().all(Engine::is_idle)
    }

    /// Invocation slots in use.
    pub fn in_flight(&self) -> u32 {
        self.engines().map(Engine::in_flight).sum()
    }
}
