//! One call as it is now: where it is, and what it waits for.
//!
//! In: an id that a person typed.  Out: a [`CallView`], or nothing if the id means no call any more.
//! Never: on the path of a call. Counting those ahead walks a function's queue, for one question at a time.

use protocol::FunctionId;
use queue::LaneIndex;

use crate::Engine;
use crate::blocked::Blocked;
use crate::invocation::{InvocationId, State};
use crate::time::Nanos;
use crate::worker::WorkerId;

/// What is known of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallView {
    /// Where it is in its life.
    pub state: State,
    /// What it calls.
    pub function: FunctionId,
    /// How much it matters, 0 to 3.
    pub criticality: u8,
    /// When the router read it.
    pub received_at: Nanos,
    /// When its answer is worth nothing any more.
    pub deadline_at: Nanos,
    /// Since when it waits, or waited, for a worker.
    pub queued_at: Nanos,
    /// When it was handed to the worker that has it.
    pub pushed_at: Option<Nanos>,
    /// When it joins its queue, while it must not yet.
    pub due_at: Option<Nanos>,
    /// Times it was handed to a worker.
    pub attempts: u8,
    /// Calls of its function that are pushed before it, as things stand, while it waits.
    pub ahead: u32,
    /// Who has it.
    pub worker: Option<WorkerId>,
    /// The call that is run for it too.
    pub joined: Option<InvocationId>,
    /// What its function waits for.
    pub blocked: Blocked,
}

impl Engine {
    /// The call of this id, as long as it has a place in the table.
    pub fn call_view(&self, id: InvocationId) -> Option<CallView> {
        let slot = self.invocations.slot_of(id)?;
        let invocation = self.invocations.at(slot);
        let function = &self.functions[invocation.function.0 as usize];
        let is_held = invocation.state.is_held();
        let holder = self.workers.get(invocation.worker as usize).filter(|_| is_held);
        let ahead = match invocation.state {
            State::Queued => {
                function.queue.iter(&self.run_links).take_while(|(_, other)| *other != slot).count()
            }
            _ => 0,
        };
        Some(CallView {
            state: invocation.state,
            function: invocation.function,
            criticality: LaneIndex::from_index(invocation.lane.into()).criticality(),
            received_at: invocation.received_at,
            deadline_at: invocation.deadline_at,
            queued_at: invocation.queued_at,
            pushed_at: is_held.then_some(invocation.pushed_at),
            due_at: (invocation.state == State::Delayed).then_some(invocation.pushed_at),
            attempts: invocation.attempts,
            ahead: ahead as u32,
            worker: holder.map(|holder| WorkerId { index: invocation.worker, generation: holder.generation }),
            joined: self.leader_of(slot),
            blocked: function.blocked,
        })
    }
}
