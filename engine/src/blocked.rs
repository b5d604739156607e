//! What a function's waiting calls wait for, as of the last look.
//!
//! In: the time, whenever somebody is about to be told (about every 10 ms).  Out: [`Blocked`] in each [`FunctionView`].
//! Always: of several causes the one is named that has to go first: a function without workers is not "busy".
//! Never: on the path of a call. What blocks a function is worked out when it is looked at, so "since" is the first look
//! that found this cause, at most one period late, and a cause that came and went between two looks is not seen.
//!
//! [`FunctionView`]: crate::FunctionView

use crate::Engine;
use crate::function::Function;
use crate::time::Nanos;
use crate::worker::{Worker, WorkerState};

/// Why the most urgent call of a function is not with a worker. The numbers stand in the counters file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockedOn {
    /// Nothing waits, or what waits is about to be pushed.
    #[default]
    Nothing = 0,
    /// No worker is attached that takes calls.
    NoWorker = 1,
    /// Every worker holds as many calls as it may.
    WorkersBusy = 2,
    /// As many of its calls run as may.
    Concurrency = 3,
    /// As many calls of its tenant run as may.
    TenantConcurrency = 4,
    /// It is opportunistic, and its share of the idle time is used up.
    Quota = 5,
    /// As many workers of the host are busy as may.
    Host = 6,
    /// Something that the function calls is overloaded, and limits how often it is called.
    Backpressure = 7,
    /// Nothing waits but calls whose start is still to come.
    NotDue = 8,
    /// No more workers are free than are kept for nested calls.
    NestedReserve = 9,
    /// The first worker is being started because calls wait.
    ColdStart = 10,
}

impl BlockedOn {
    /// Every cause, by number.
    pub const ALL: [BlockedOn; 11] = [
        BlockedOn::Nothing,
        BlockedOn::NoWorker,
        BlockedOn::WorkersBusy,
        BlockedOn::Concurrency,
        BlockedOn::TenantConcurrency,
        BlockedOn::Quota,
        BlockedOn::Host,
        BlockedOn::Backpressure,
        BlockedOn::NotDue,
        BlockedOn::NestedReserve,
        BlockedOn::ColdStart,
    ];

    /// The cause of this number, which may come from a newer version.
    pub fn from_number(number: u64) -> Option<BlockedOn> {
        BlockedOn::ALL.into_iter().find(|cause| *cause as u64 == number)
    }

    /// As people read it.
    pub const fn name(self) -> &'static str {
        match self {
            BlockedOn::Nothing => "-",
            BlockedOn::NoWorker => "no worker",
            BlockedOn::WorkersBusy => "workers busy",
            BlockedOn::Concurrency => "concurrency",
            BlockedOn::TenantConcurrency => "tenant's concurrency",
            BlockedOn::Quota => "opportunistic quota",
            BlockedOn::Host => "host is full",
            BlockedOn::Backpressure => "backpressure",
            BlockedOn::NotDue => "not due yet",
            BlockedOn::NestedReserve => "nested reserve",
            BlockedOn::ColdStart => "cold start",
        }
    }
}

/// A cause, and the look that first found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// What is waited for.
    pub on: BlockedOn,
    /// Since when; means nothing while nothing blocks.
    pub since: Nanos,
}

impl Engine {
    /// Looks at what every function waits for.
    pub fn look_at_queues(&mut self, now: Nanos) {
        let is_host_full = self.permits.is_full(&self.limits);
        for function in &mut self.functions {
            let on = blocked_on(function, &self.workers, is_host_full);
            if on != function.blocked.on {
                function.blocked = Blocked { on, since: now };
            }
        }
    }
}

fn blocked_on(function: &Function, workers: &[Worker], is_host_full: bool) -> BlockedOn {
    if function.queue.is_empty() {
        return if function.scheduled > 0 { BlockedOn::NotDue } else { BlockedOn::Nothing };
    }
    if function.ready_lane.is_some() {
        return if is_host_full { BlockedOn::Host } else { BlockedOn::Nothing };
    }
    let serves =
        |index: &u32| matches!(workers[*index as usize].state, WorkerState::Idle | WorkerState::Busy);
    match function.gate {
        Some(gate) if !function.warm.is_empty() => gate.why,
        None if !function.warm.is_empty() => BlockedOn::NestedReserve,
        _ if function.members.iter().any(serves) => BlockedOn::WorkersBusy,
        _ if function.pool.is_some() && !function.is_failing => BlockedOn::ColdStart,
        _ => BlockedOn::NoWorker,
    }
}
