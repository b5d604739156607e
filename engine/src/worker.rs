//! The life of a worker: one function process and the ring between us.
//!
//! ```text
//!            Attach          Push               Drain
//!   Vacant ─────────▶ Idle ───────▶ Busy ─────────────▶ Draining ── Empty ──▶ Drained
//!      ▲               │ ◀── Empty ─┘ │                   │                     │
//!      │               │ Kill         │ Kill              │ Kill           Kill │ (told to stop)
//!      │               │              ▼                   ▼                     │
//!      │               ├─────────▶ Stopping ◀─────────────┴─────────────────────┤
//!      │               │                                                        │
//!      │               └── Misbehave (from any attached state) ──▶ Quarantined  │
//!      └──────────────────────────── Lose (from any attached state) ────────────┘
//! ```
//!
//! Always: only `Idle` and `Busy` workers get calls. The number of calls it holds plus the credits is the number of
//! ring slots that are not leased (`lease.rs`). A lost worker's id is never given again (generation).
//! Never: trust in what a quarantined worker says; its calls are taken from it in the same step.
//! Tests: snapshot of every pair in `snapshots/worker.txt`, behaviour in `tests/workers.rs`.

use std::fmt;

use protocol::FunctionId;

use crate::held::Held;
use crate::invocation::InvocationId;
use crate::time::Nanos;

/// Names one attached worker; the generation tells it from earlier holders of the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// Below `limits.workers_max`: index for side tables.
    pub index: u32,
    /// Which use of the index this is.
    pub generation: u32,
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}.{}", self.index, self.generation)
    }
}

/// Where a worker is. See the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Nobody: never attached, or lost.
    Vacant,
    /// Attached, holding nothing.
    Idle,
    /// Holding at least one call.
    Busy,
    /// Finishes what it holds, gets nothing new.
    Draining,
    /// Was drained and holds nothing: the router was told to stop it.
    Drained,
    /// The router was asked to kill it; it still holds its calls until it is lost.
    Stopping,
    /// Broke the ring's rules: holds nothing any more, the router was asked to kill it.
    Quarantined,
}

/// What can happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEvent {
    /// It attached.
    Attach,
    /// It was given a call.
    Push,
    /// Its last call was taken back or finished.
    Empty,
    /// It is to finish and go.
    Drain,
    /// It held a call too long.
    Kill,
    /// It broke the ring's rules.
    Misbehave,
    /// Its process is gone.
    Lose,
}

/// An event in a state that has no place for it: our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker that is {from:?} cannot {event:?}")]
pub struct IllegalWorker {
    /// The state it was in.
    pub from: WorkerState,
    /// What was asked of it.
    pub event: WorkerEvent,
}

/// The one table of a worker's life.
pub const fn on_worker_event(from: WorkerState, event: WorkerEvent) -> Result<WorkerState, IllegalWorker> {
    use {WorkerEvent as E, WorkerState as S};
    Ok(match (from, event) {
        (S::Vacant, E::Attach) => S::Idle,

        (S::Idle | S::Busy, E::Push) => S::Busy,
        (S::Busy, E::Empty) => S::Idle,
        (S::Draining, E::Empty) => S::Drained,
        (S::Stopping, E::Empty) => S::Stopping,

        (S::Idle, E::Drain) => S::Drained,
        (S::Busy, E::Drain) => S::Draining,

        // Idle or drained, it may hold a lane's call.
        (S::Idle | S::Busy | S::Draining | S::Drained, E::Kill) => S::Stopping,

        (S::Idle | S::Busy | S::Draining | S::Drained | S::Stopping, E::Misbehave) => S::Quarantined,

        (S::Idle | S::Busy | S::Draining | S::Drained | S::Stopping | S::Quarantined, E::Lose) => S::Vacant,

        (from, event) => return Err(IllegalWorker { from, event }),
    })
}

/// What the router shall do to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerAction {
    /// Set the cancel mark of this call in the worker's ring.
    Cancel {
        /// Whose ring.
        worker: WorkerId,
        /// Which call.
        invocation: InvocationId,
    },
    /// Drained: tell it to exit.
    Stop {
        /// Whom.
        worker: WorkerId,
    },
    /// End its process, and call `handle_worker_lost` when it is gone.
    Kill {
        /// Whom.
        worker: WorkerId,
        /// Why.
        reason: KillReason,
    },
}

/// Why a worker has to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It runs a call past its deadline and the grace after it.
    Overstayed,
    /// It holds an expired call, has started none of its calls and finished none for a whole grace.
    Stalled,
    /// It broke the ring's rules.
    Misbehaved,
}

/// A worker as it is now, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Where it is in its life.
    pub state: WorkerState,
    /// What it runs.
    pub function: FunctionId,
    /// Its ring slots.
    pub slots: u32,
    /// Its free ring slots.
    pub credits: u32,
    /// When it last brought a result, or attached.
    pub progress_at: Nanos,
}

/// What the engine remembers of one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub generation: u32,
    pub state: WorkerState,
    pub function: FunctionId,
    /// The edition of its function when it attached.
    pub edition: u64,
    /// Ring slots that are not leased.
    pub slots: u32,
    /// Ring slots that are free. The others hold the calls of `held`.
    pub credits: u32,
    /// Ring slots that are, and by how many leases.
    pub leased: u32,
    pub lease_count: u32,
    /// It holds one of the host's places (`permits.rs`).
    pub has_place: bool,
    /// It stands in its function's `warm`.
    pub is_warm: bool,
    /// The call that it runs, if that has made a nested one: nothing new is bound to it. [`InvocationId::NONE`]: it waits for
    /// nobody.
    pub waits_in: InvocationId,
    /// The calls in its ring, oldest first.
    pub held: Held,
    /// When it last brought a result, or attached: tells a busy worker from a stalled one.
    pub progress_at: Nanos,
    /// No call in its ring that is still expected in time has an earlier deadline, rounded up to a tick.
    pub look_at: Nanos,
}

impl Worker {
    pub(crate) fn vacant() -> Worker {
        Worker {
            generation: 1,
            state: WorkerState::Vacant,
            function: FunctionId(0),
            edition: 0,
            slots: 0,
            credits: 0,
            leased: 0,
            lease_count: 0,
            has_place: false,
            is_warm: false,
            waits_in: InvocationId::NONE,
            held: Held::default(),
            progress_at: Nanos::ZERO,
            look_at: Nanos::NEVER,
        }
    }

    pub(crate) fn on(&mut self, event: WorkerEvent) {
        match on_worker_event(self.state, event) {
            Ok(state) => self.state = state,
            Err(illegal) => panic!("{illegal}"),
        }
    }

    /// Whether it is given calls.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.state, WorkerState::Idle | WorkerState::Busy)
    }

    pub(crate) fn view(&self) -> WorkerView {
        WorkerView {
            state: self.state,
            function: self.function,
            slots: self.slots + self.leased,
            credits: self.credits,
            progress_at: self.progress_at,
        }
    }

    /// Whether dispatch may choose it: it has a free slot, and holds less than `depth` calls.
    #[inline]
    pub(crate) fn is_open(&self, depth: u32) -> bool {
        self.has_room(depth)
            && self.waits_in == InvocationId::NONE
            && matches!(self.state, WorkerState::Idle | WorkerState::Busy)
    }

    /// The same for a worker that gets calls.
    #[inline]
    pub(crate) fn has_room(&self, depth: u32) -> bool {
        self.credits > 0 && self.held_count() < depth
    }

    /// It gave a call back: the call's slot in the ring is free.
    #[inline]
    pub(crate) fn give_back(&mut self, now: Nanos, invocation: InvocationId) {
        self.progress_at = now;
        self.held.remove(invocation);
        self.credits += 1;
        if self.waits_in == invocation {
            self.waits_in = InvocationId::NONE;
        }
    }

    /// Calls in its ring.
    #[inline]
    pub(crate) fn held_count(&self) -> u32 {
        self.slots - self.credits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    #[test]
    fn every_pair_of_state_and_event_is_as_the_snapshot_says() {
        use {WorkerEvent as E, WorkerState as S};
        let states = [S::Vacant, S::Idle, S::Busy, S::Draining, S::Drained, S::Stopping, S::Quarantined];
        let events = [E::Attach, E::Push, E::Empty, E::Drain, E::Kill, E::Misbehave, E::Lose];
        let mut table =
            String::from("# from + event = to. Every pair; `-` means that the pair is our bug.\n");
        for from in states {
            for event in events {
                let to = on_worker_event(from, event).map_or_else(|_| "-".to_owned(), |to| format!("{to:?}"));
                table.push_str(&format!("{:<12}+ {:<10}= {to}\n", format!("{from:?}"), format!("{event:?}")));
            }
        }
        snapshot::check("worker.txt", &table);
    }
}
