//! Stage 2 of 8, for calls that a running call makes: nested calls never wait for themselves.
//!
//! ```text
//!   call 1 (A, worker 3) ── made ──▶ call 2 (B, worker 7) ── made ──▶ call 3 of A?
//!     ▲                                ▲                               workers of A: {3}, all busy with its ancestors:
//!     └── ancestors ───────────────────┘                               it would wait for itself ─▶ WouldDeadlock
//! ```
//!
//! In: a request with the id of the call that makes it, and the depth that its caller claims.  Out: as for any request.
//! Always: refused as `WouldDeadlock` exactly when every worker of its function runs an ancestor of it, as far as this shard
//! knows the chain, or when it is nested deeper than [`DEPTH_MAX`]. Ancestors on other shards count by depth only.
//! Always: a worker whose running call has made a nested one is given nothing new until that call has ended. So no nested call
//! stands in a ring behind its own ancestor, and late binding holds: what would wait there is better off in the queue.
//! Always: a nested call may stand in a function's queue beyond `queue_count_max`, where an eighth more is kept for them: the work that
//! was done for its ancestors is not thrown away because others wait.
//! Never: trusts the claim. Only the call that carries a lie is refused on its account; whom it names wrongly loses nothing but
//! calls bound behind one that runs anyway. A chain is walked at most `DEPTH_MAX` steps.
//! Why only ancestors: that another call waits too is a claim of somebody else, and one liar could have all nested calls of a
//! function refused. Circles between chains are found in another way, by what processes say of themselves: `circles.rs`.
//! Where none of them says anything such callers end at their deadlines, the innermost first, because each hands on less than it
//! has: docs/decisions/0017-deadlines-and-nesting.md.  Tests: `tests/nesting.rs`, `tests/random/nested.rs`.

use protocol::{FunctionId, WaitToken};

use crate::Engine;
use crate::admission::Refusal;
use crate::counters::Counter;
use crate::invocation::{InvocationId, State};
use crate::worker::WorkerId;

/// Calls within calls: a chain that is longer is taken for one without end.
pub const DEPTH_MAX: u8 = 16;
/// One more place for each so many of `queue_count_max`, and at least one.
const RESERVE_OF: u32 = 8;

/// By whom a call is made, as its caller claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalledBy {
    /// The call whose function makes it.
    pub caller: InvocationId,
    /// 1 for a call made by a top-level one.
    pub depth: u8,
    /// The call's own, if the worker that has the caller ([`Engine::holder_of`]) shows one of the same process, and so vouches for
    /// the claim; [`WaitToken::NONE`] if nobody does.
    pub wait_token: WaitToken,
}

/// What is remembered of a nested call, beside its invocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nested {
    /// Which use of the slot this is about. Nothing is cleaned up when a call ends.
    id: InvocationId,
    pub called_by: CalledBy,
    /// The index of the worker that had the caller; of none if that was unknown.
    pub made_by: u32,
}

impl Nested {
    const NONE: Nested = Nested {
        id: InvocationId::NONE,
        called_by: CalledBy { caller: InvocationId::NONE, depth: 0, wait_token: WaitToken::NONE },
        made_by: u32::MAX,
    };

    /// The worker vouches for it.
    pub fn is_proved(&self) -> bool {
        self.made_by != u32::MAX && self.called_by.wait_token != WaitToken::NONE
    }
}

/// Places beyond `queue_count_max` that only nested calls may take.
pub(crate) fn reserve_of(queue_count_max: u32) -> u32 {
    queue_count_max.div_ceil(RESERVE_OF)
}

impl Engine {
    /// Whether a call that a running one makes may wait for this function. The claim with its depth put right.
    pub(crate) fn check_nested(&self, function: FunctionId, claim: CalledBy) -> Result<CalledBy, Refusal> {
        let known = self.check_depth(claim)?;
        if self.would_wait_for_itself(function, known.caller) {
            return Err(Refusal::WouldDeadlock);
        }
        Ok(known)
    }

    /// A claim with the depth as far as it is known, unless that is too deep.
    pub(crate) fn check_depth(&self, called_by: CalledBy) -> Result<CalledBy, Refusal> {
        let depth = called_by.depth.max(self.depth_of(called_by.caller).saturating_add(1));
        if depth > DEPTH_MAX {
            return Err(Refusal::WouldDeadlock);
        }
        Ok(CalledBy { depth, ..called_by })
    }

    /// A call is admitted that another one waits for.
    pub(crate) fn note_nested(&mut self, id: InvocationId, called_by: CalledBy) {
        self.counters.count(Counter::CallsNested);
        let holder = self.worker_of(called_by.caller);
        let nested = Nested { id, called_by, made_by: holder.unwrap_or(u32::MAX) };
        self.remember(nested);
        if nested.is_proved() {
            self.circles.note_made(nested.made_by, called_by.wait_token, id);
        }
        if let Some(index) = holder {
            self.close_worker(index, called_by.caller);
        }
    }

    /// The worker that has this call: the one that can vouch for calls that it makes.
    pub fn holder_of(&self, id: InvocationId) -> Option<WorkerId> {
        let index = self.worker_of(id)?;
        Some(WorkerId { index, generation: self.workers[index as usize].generation })
    }

    /// The twin of a call is made by whoever made that.
    pub(crate) fn copy_nested(&mut self, call: InvocationId, twin: InvocationId) {
        if let Some(nested) = self.nested_of(call).copied() {
            self.remember(Nested { id: twin, ..nested });
        }
    }

    /// 0 for a top-level call, and for one that nothing is known of.
    fn depth_of(&self, id: InvocationId) -> u8 {
        self.nested_of(id).map_or(0, |nested| nested.called_by.depth)
    }

    pub(crate) fn nested_of(&self, id: InvocationId) -> Option<&Nested> {
        let nested = self.nested.get(id.slot() as usize).filter(|nested| nested.id == id)?;
        self.invocations.slot_of(id).map(|_| nested)
    }

    fn remember(&mut self, nested: Nested) {
        let slot = nested.id.slot() as usize;
        if slot >= self.nested.len() {
            self.nested.resize(self.invocations.capacity() as usize, Nested::NONE);
        }
        self.nested[slot] = nested;
    }

    /// The call and those that it is nested in, from the inside out, as far as they are in workers' hands on this shard.
    pub(crate) fn chain(&self, innermost: InvocationId) -> impl Iterator<Item = InvocationId> + '_ {
        let outward = |id: &InvocationId| self.nested_of(*id).map(|nested| nested.called_by.caller);
        std::iter::successors(Some(innermost), outward).take(DEPTH_MAX.into())
    }

    /// Every worker of the function runs one of the chain that would wait for the call.
    fn would_wait_for_itself(&self, function: FunctionId, caller: InvocationId) -> bool {
        let Some(function) = self.functions.get(function.0 as usize) else { return false };
        let is_in_chain = |worker: u32| self.chain(caller).any(|id| self.worker_running(id) == Some(worker));
        !function.may_grow()
            && !function.members.is_empty()
            && function.members.iter().all(|worker| is_in_chain(*worker))
    }

    /// The worker that has this call, while it is expected in time.
    fn worker_running(&self, id: InvocationId) -> Option<u32> {
        let invocation = self.invocations.at(self.invocations.slot_of(id)?);
        let is_running = invocation.state == State::Pushed || self.has_twin(id.slot());
        is_running.then_some(invocation.worker)
    }

    /// The worker that has this call, whether or not anybody waits for its end: until then it does nothing else.
    fn worker_of(&self, id: InvocationId) -> Option<u32> {
        let invocation = self.invocations.at(self.invocations.slot_of(id)?);
        invocation.state.is_held().then_some(invocation.worker)
    }

    /// The worker of a call that waits for another one takes nothing new.
    fn close_worker(&mut self, index: u32, caller: InvocationId) {
        self.workers[index as usize].waits_in = caller;
        if self.workers[index as usize].is_warm {
            self.withdraw(index);
        }
    }
}
