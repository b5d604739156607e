//! A caller takes a call back, or is gone.
//!
//! In: an invocation and the reason.  Out: the answer `Cancelled` if somebody waits for one, and a cancel mark for the
//! worker if one holds the call.
//! Always: a queued call is taken out of its lane in constant time and has never started (unless an earlier attempt
//! had). A call in a worker's hands is answered at once with the flag `STARTED`, because the worker may take it
//! before it sees the mark; its late result is dropped and counted.
//! Never: an answer for a client that is gone.  Tests: `tests/cancellation.rs`.

use crate::Engine;
use crate::counters::Counter;
use crate::invocation::{Event, InvocationId, State};
use crate::reply::{Ending, Run};
use crate::time::Nanos;
use crate::worker::{WorkerAction, WorkerId};

/// Why a call is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// The caller asked, and gets an answer.
    Asked,
    /// The connection is closed: nobody to answer.
    ClientGone,
}

/// What a cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// `poll_answer` brings the answer `Cancelled`.
    Answering,
    /// No answer will come for this call.
    Forgotten,
    /// Nothing: an answer exists already (polled or not), or the client was gone before.
    AlreadyEnded,
    /// Nothing: no such call.
    Unknown,
}

impl Engine {
    /// Ends a call before its time. A worker that holds it is asked to stop.
    pub fn handle_cancel(&mut self, now: Nanos, invocation: InvocationId, reason: CancelReason) -> Cancelled {
        let Some(slot) = self.invocations.slot_of(invocation) else {
            self.counters.count(Counter::CancelsIgnored);
            return Cancelled::Unknown;
        };
        match (self.invocations.at(slot).state, reason) {
            (State::Queued, CancelReason::Asked) => {
                self.end_queued(now, slot, Ending::Cancelled);
                Cancelled::Answering
            }
            (State::Delayed, CancelReason::Asked) => {
                self.leave_delay(slot);
                self.put_answer(now, slot, Ending::Cancelled, Run::Never);
                Cancelled::Answering
            }
            (State::Delayed, CancelReason::ClientGone) => {
                self.leave_delay(slot);
                self.forget(now, slot);
                self.free(slot);
                Cancelled::Forgotten
            }
            (State::Joined, CancelReason::Asked) => {
                self.end_joined(now, slot, Ending::Cancelled);
                Cancelled::Answering
            }
            (State::Joined, CancelReason::ClientGone) => {
                self.leave(now, slot);
                self.forget(now, slot);
                self.free(slot);
                Cancelled::Forgotten
            }
            (State::Queued, CancelReason::ClientGone) => {
                self.dequeue(slot);
                self.forget(now, slot);
                self.free(slot);
                Cancelled::Forgotten
            }
            (state @ (State::Pushed | State::Overdue), CancelReason::Asked) => {
                self.put_answer(now, slot, Ending::Cancelled, Run::MayHaveStarted);
                self.ask_worker_to_stop(now, slot, state);
                Cancelled::Answering
            }
            (state @ (State::Pushed | State::Overdue), CancelReason::ClientGone) => {
                self.forget(now, slot);
                self.ask_worker_to_stop(now, slot, state);
                Cancelled::Forgotten
            }
            (State::Answering | State::AnsweringHeld | State::Abandoned, _) => {
                self.counters.count(Counter::CancelsIgnored);
                Cancelled::AlreadyEnded
            }
            (State::Free, _) => unreachable!("slot_of finds no free slot"),
        }
    }

    fn forget(&mut self, now: Nanos, slot: u32) {
        self.invocations.at_mut(slot).on(Event::Forget);
        self.counters.count(Counter::CallsForgotten);
        self.on_caller_left(now, slot, Run::MayHaveStarted);
    }

    /// The worker sees the cancel mark, and has until the call's deadline and the grace after it to let go.
    pub(crate) fn ask_worker_to_stop(&mut self, now: Nanos, slot: u32, state: State) {
        // An overdue call was marked when it became so; one that others wait for is not to stop.
        if state == State::Pushed && !self.has_joiners(slot) {
            self.put_cancel_mark(slot);
        }
        let deadline_at = self.invocations.at(slot).deadline_at;
        self.timers.arm(slot, deadline_at.max(now).plus(self.limits.kill_grace));
    }

    /// Asks the router to set the cancel mark of a held call.
    pub(crate) fn put_cancel_mark(&mut self, slot: u32) {
        let index = self.invocations.at(slot).worker;
        let worker = WorkerId { index, generation: self.workers[index as usize].generation };
        self.actions.push_back(WorkerAction::Cancel { worker, invocation: self.invocations.id_of(slot) });
    }
}
