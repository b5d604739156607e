//! Leases: credits of one warm worker, lent to a client that calls it directly (a lane), past every other stage.
//!
//! ```text
//!   lease ──▶ running ── end_lease ──▶ the credits are the worker's again
//!                └─ the worker is lost or quarantined ──▶ nothing is left to give back
//! ```
//! In: a client's wish; the router's reports of what happens in lanes.  Out: a [`Lease`], a [`LeaseRefused`], or the
//! reason why a lease has to end ([`Recall`]).
//! Always: a worker's credits, its held calls and its leased credits add up to its slots, so that concurrency is what the
//! slots say, whichever way calls come. One credit at least stays: a lane never shuts the queue out of a worker.
//! Always: who waits in the queue goes before who has a lane. Nothing is leased while calls of the function wait, and
//! calls that wait longer than `limits.lease_queue_wait_max` end its leases.
//! Always: a function with policies is not leased: whoever calls past the engine calls past them.
//! Never: knows of lanes, memory or clients. The router keeps them, and the lease's end.
//! Why whole credits and not time: a slot is the unit in which concurrency is counted everywhere else.
//! Tests: `tests/leases.rs`, `tests/random.rs`.

use protocol::FunctionId;

use crate::Engine;
use crate::counters::Counter;
use crate::deadlines::StartEvidence;
use crate::policy::Checks;
use crate::time::Nanos;
use crate::worker::{KillReason, Worker, WorkerId, WorkerState};

/// Credits lent. Given back by [`Engine::end_lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the credits are lost until the lease is ended"]
pub struct Lease {
    /// Whose credits.
    pub worker: WorkerId,
    /// What it runs.
    pub function: FunctionId,
    /// How many: a power of two.
    pub slots: u32,
    /// Bytes of payload it takes.
    pub payload_size_max: u32,
    /// The longest a call may run.
    pub timeout: Nanos,
}

/// Why nothing was lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefused {
    /// The router is going away.
    #[error("the router takes no new calls")]
    Draining,
    /// No function has this id.
    #[error("no function has the id {}", .0.0)]
    UnknownFunction(FunctionId),
    /// The function has policies, and a lane goes past them.
    #[error("policies govern the function's calls")]
    Governed,
    /// No worker that may be chosen has two credits.
    #[error("no worker has credits to spare")]
    NoWorker,
    /// Calls of the function wait.
    #[error("{queued} calls wait for the function")]
    Busy {
        /// How many.
        queued: u32,
    },
    /// `limits.leases_max` of all workers, or `limits.worker_leases_max` of each that has credits.
    #[error("there are as many leases as there may be")]
    LeasesFull,
}

/// Why a lease has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// The router is going away.
    Draining,
    /// The worker gets nothing new any more.
    WorkerLeaving,
    /// The worker is gone, and the lease with it.
    WorkerLost,
    /// Calls have waited in the function's queue for too long.
    OthersWait,
}

impl Engine {
    /// Lends up to `slots` credits of the worker of this function that has most of them, among those that `can_serve`.
    pub fn lease(
        &mut self,
        function: FunctionId,
        slots: u32,
        can_serve: impl Fn(WorkerId) -> bool,
    ) -> Result<Lease, LeaseRefused> {
        self.try_lease(function, slots, can_serve)
            .inspect_err(|_| self.counters.count(Counter::LeasesRefused))
    }

    fn try_lease(
        &mut self,
        id: FunctionId,
        slots: u32,
        can_serve: impl Fn(WorkerId) -> bool,
    ) -> Result<Lease, LeaseRefused> {
        if self.is_draining {
            return Err(LeaseRefused::Draining);
        }
        let function = self.functions.get(id.0 as usize).filter(|function| !function.is_retired);
        let function = function.ok_or(LeaseRefused::UnknownFunction(id))?;
        if function.checks.without(Checks::JOINED) != Checks::NONE {
            return Err(LeaseRefused::Governed);
        }
        if self.lease_count >= self.limits.leases_max {
            return Err(LeaseRefused::LeasesFull);
        }
        if !function.queue.is_empty() {
            return Err(LeaseRefused::Busy { queued: function.queue.len() });
        }
        let able = || {
            function.members.iter().copied().filter(|index| {
                let worker = &self.workers[*index as usize];
                let is_working = matches!(worker.state, WorkerState::Idle | WorkerState::Busy);
                is_working && worker.credits >= 2 && can_serve(id_of(*index, worker))
            })
        };
        let leases_max = self.limits.worker_leases_max;
        let free = able().filter(|index| self.workers[*index as usize].lease_count < leases_max);
        // Of equals the one with the lowest number.
        let Some(index) = free.max_by_key(|index| (self.workers[*index as usize].credits, u32::MAX - index))
        else {
            let are_full = able().next().is_some();
            return Err(if are_full { LeaseRefused::LeasesFull } else { LeaseRefused::NoWorker });
        };
        let (payload_size_max, timeout) = (function.spec.payload_size_max, function.spec.timeout);

        let worker = &mut self.workers[index as usize];
        let slots_max = slots.clamp(1, self.limits.lease_slots_max).min(worker.credits - 1);
        let slots = 1 << slots_max.ilog2();
        // Not its slots for the time being: the path of every call counts as if the worker were so much smaller.
        worker.slots -= slots;
        worker.credits -= slots;
        worker.leased += slots;
        worker.lease_count += 1;
        self.lease_count += 1;
        self.counters.count(Counter::LeasesGranted);
        Ok(Lease { worker: id_of(index, worker), function: id, slots, payload_size_max, timeout })
    }

    /// The client does not use these credits any more, and no call that used them runs. Of a worker that was lost or
    /// quarantined meanwhile nothing is left, and nothing happens.
    pub fn end_lease(&mut self, lease: Lease) {
        let Some(index) = self.attached(lease.worker) else { return };
        let worker = &mut self.workers[index as usize];
        if worker.lease_count == 0 {
            return;
        }
        worker.slots += lease.slots;
        worker.credits += lease.slots;
        worker.leased -= lease.slots;
        worker.lease_count -= 1;
        self.lease_count -= 1;
        self.reopen(index);
    }

    /// Whether a lease has to end now, and why.
    pub fn recall(&self, now: Nanos, lease: &Lease) -> Option<Recall> {
        let Some(index) = self.attached(lease.worker) else { return Some(Recall::WorkerLost) };
        let is_retired = self.functions.get(lease.function.0 as usize).is_some_and(|it| it.is_retired);
        let state = self.workers[index as usize].state;
        if is_retired || !matches!(state, WorkerState::Idle | WorkerState::Busy) {
            return Some(Recall::WorkerLeaving);
        }
        if self.is_draining {
            return Some(Recall::Draining);
        }
        let oldest_at = self.function_view(lease.function).and_then(|function| function.oldest_at);
        let is_waited_for =
            oldest_at.is_some_and(|oldest_at| now.since(oldest_at) > self.limits.lease_queue_wait_max);
        is_waited_for.then_some(Recall::OthersWait)
    }

    /// A worker took or finished a call of a lane, or runs one that has time left: it does not stand still, whatever waits
    /// in its ring.
    pub fn handle_lease_progress(&mut self, now: Nanos, worker: WorkerId) {
        if let Some(index) = self.attached(worker) {
            let worker = &mut self.workers[index as usize];
            worker.progress_at = worker.progress_at.max(now);
        }
    }

    /// A worker does not let go of a lane that it was told to leave, and runs no call of a lane that has time left. If it
    /// runs one of its ring, it can't do otherwise, and that call has a deadline of its own; else it stands still.
    pub fn handle_lease_kept(&mut self, worker: WorkerId, evidence: &impl StartEvidence) {
        if let Some(index) = self.attached(worker)
            && self.has_started_nothing(index, evidence)
        {
            self.kill(index, KillReason::Stalled);
        }
    }

    /// A worker runs a call of a lane past its time and the grace after it.
    pub fn handle_lease_overstayed(&mut self, worker: WorkerId) {
        if let Some(index) = self.attached(worker) {
            self.kill(index, KillReason::Overstayed);
        }
    }

    /// The leases of a worker that is lost or quarantined end with it.
    pub(crate) fn drop_leases(&mut self, index: u32) {
        let worker = &mut self.workers[index as usize];
        self.lease_count -= worker.lease_count;
        worker.lease_count = 0;
        worker.slots += worker.leased;
        worker.leased = 0;
    }
}

fn id_of(index: u32, worker: &Worker) -> WorkerId {
    WorkerId { index, generation: worker.generation }
}
