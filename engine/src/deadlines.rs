//! What happens when a timer comes due: a queued call moves up or expires, a running one is stopped.
//!
//! ```text
//!   Queued ── bucket left ──▶ next lane up            (run_queue)
//!   Queued ── waited long ──▶ among the aged as well  (ageing)
//!   Queued ── deadline ─────▶ answer Expired
//!   Delayed ─ its time ─────▶ Queued; its deadline first: answer Expired
//!   Joined ── deadline ─────▶ answer Expired or TimedOut; the call it joined goes on for the others  (join)
//!   Pushed ── took long ────▶ a second attempt elsewhere  (hedge)
//!   Pushed ── deadline ─────▶ cancel mark ──┬─ has started ─▶ answer TimedOut, grace begins
//!                                           └─ not proved ──▶ Overdue: look again
//!   Overdue ── look ─┬─ started ───────────────────▶ answer TimedOut, grace begins
//!                    ├─ not started, mark is final ▶ answer Expired  (the worker will see the mark and not begin)
//!                    └─ cannot be told ────────────▶ look again, at doubling distances; after the grace: TimedOut
//!   answered, still held ── grace over ─┬─ started, or cannot be told ──▶ kill the worker
//!                                       └─ not started ─▶ wait on; kill if the worker as a whole stands still
//! ```
//!
//! A call that is queued or delayed, or held past its deadline, has a timer in the wheel. Of the calls that a worker holds in time,
//! only the earliest deadline is kept for all of them (`Worker::look_at`): they come and go too fast for a timer each.
//!
//! In: `now`, and a look into the rings (`StartEvidence`).  Out: answers and worker actions.
//! Always: `Expired` is said of a pushed call only when its worker gave it back unstarted, or when the cancel mark was
//! set before a look that found it untaken, in a ring whose order of marking and looking makes that a proof.
//! Never: more timers in one call than `limits.timer_visits_max`; a pushed call's answer more than the grace and a
//! tick late.
//! Why not simply answer `TimedOut` at once: the caller may repeat an `Expired` call safely, and a `TimedOut` one not.
//! Tests: `tests/deadlines.rs`.

use crate::Engine;
use crate::counters::Counter;
use crate::held::slot_held;
use crate::invocation::{Event, InvocationId, Marks, State};
use crate::reply::{Ending, Judgement, Run};
use crate::time::Nanos;
use crate::timers::{TICK, next_tick};
use crate::worker::{KillReason, WorkerAction, WorkerEvent, WorkerId, WorkerState};

/// Whether a function began to run a call that a worker holds, as far as the ring tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The worker has not taken it as far as this look tells. Of a dead worker that is a proof; a live one may be taking
    /// it this very moment (but see [`StartEvidence::mark_is_final`]).
    No,
    /// The worker has taken it.
    Yes,
    /// The slot cannot be read, or says something impossible.
    Unknown,
}

/// A look into a worker's ring. The router reads the slot; tests and simulators say what they like.
pub trait StartEvidence {
    /// Looks at one call in one worker's ring.
    fn started(&self, worker: WorkerId, invocation: InvocationId) -> Started;

    /// Whether `No` about a call whose cancel mark was set before the look proves that even a live worker will never
    /// begin it. That takes a ring in which a worker stores "taken", then a sequentially consistent fence, then loads
    /// the mark; and a router that stores the mark, then the fence, then looks. Without it an untaken call's answer
    /// has to wait for the worker's own word, and is `TimedOut` if that does not come within the grace.
    fn mark_is_final(&self) -> bool {
        false
    }
}

impl<F: Fn(WorkerId, InvocationId) -> Started> StartEvidence for F {
    fn started(&self, worker: WorkerId, invocation: InvocationId) -> Started {
        self(worker, invocation)
    }
}

impl Engine {
    /// Acts on everything that is due. Called once a turn, before `poll_push`; `next_timer` says when it is needed.
    pub fn handle_time(&mut self, now: Nanos, evidence: &impl StartEvidence) {
        self.end_due_windows(now);
        self.open_due_gates(now);
        let mut visits_left = self.limits.timer_visits_max;
        while let Some(slot) = self.timers.pop_due(now, &mut visits_left) {
            self.counters.count(Counter::TimersFired);
            self.on_timer(now, slot, evidence);
        }
        if now >= self.held_look_at {
            self.look_at_held(now, visits_left, evidence);
        }
        if !self.retiring.is_empty() {
            self.finish_retirements();
        }
    }

    /// Looks for calls in workers' rings whose deadline has passed. One look at a ring in a tick, and none while every
    /// deadline is ahead, instead of a timer for each call: nearly every call is answered long before its deadline.
    #[cold]
    fn look_at_held(&mut self, now: Nanos, mut visits_left: u32, evidence: &impl StartEvidence) {
        let mut earliest = Nanos::NEVER;
        for index in 0..self.workers.len() {
            if self.workers[index].look_at <= now && visits_left > 0 {
                let visits = self.look_at_worker(now, index, evidence);
                visits_left = visits_left.saturating_sub(visits);
            }
            earliest = earliest.min(self.workers[index].look_at);
        }
        self.held_look_at = earliest;
    }

    /// The same for one worker. Returns how many calls were looked at.
    fn look_at_worker(&mut self, now: Nanos, index: usize, evidence: &impl StartEvidence) -> u32 {
        let mut earliest = Nanos::NEVER;
        let mut visits = 0;
        let mut position = 0;
        while let Some(id) = self.workers[index].held.at(position) {
            position += 1;
            visits += 1;
            let Some(slot) = slot_held(id, index as u32, &self.invocations) else { continue };
            let invocation = self.invocations.at(slot);
            if invocation.state != State::Pushed {
                continue;
            }
            if now < invocation.deadline_at {
                earliest = earliest.min(invocation.deadline_at);
                continue;
            }
            self.counters.count(Counter::TimersFired);
            self.pass_deadline(now, slot, evidence);
        }
        self.workers[index].look_at = next_tick(earliest);
        visits
    }

    fn on_timer(&mut self, now: Nanos, slot: u32, evidence: &impl StartEvidence) {
        let invocation = self.invocations.at(slot);
        let deadline_at = invocation.deadline_at;
        match invocation.state {
            State::Queued if now >= deadline_at => self.end_queued(now, slot, Ending::DeadlinePassed),
            State::Queued => self.look_at_queued(now, slot),
            State::Delayed if now >= deadline_at => {
                self.leave_delay(slot);
                self.put_answer(now, slot, Ending::DeadlinePassed, Run::Never);
            }
            State::Delayed => self.end_delay(now, slot),
            State::Joined => self.end_joined(now, slot, Ending::DeadlinePassed),
            State::Overdue => self.look_again(now, slot, evidence),
            State::AnsweringHeld | State::Abandoned => self.end_grace(now, slot, evidence),
            State::Pushed => self.hedge(now, slot),
            State::Free | State::Answering => {
                unreachable!("slot {slot} has a timer and no need of it")
            }
        }
    }

    fn pass_deadline(&mut self, now: Nanos, slot: u32, evidence: &impl StartEvidence) {
        self.end_hedge(now, slot);
        let has_started = self.look(slot, evidence) == Started::Yes;
        let runs_for_others = has_started && self.has_joiners(slot);
        if !runs_for_others {
            self.put_cancel_mark(slot);
        }
        if has_started {
            self.time_out(now, slot, Run::MayHaveStarted);
        } else {
            // The worker may be taking it this very moment: only a look after the mark is set can tell.
            self.invocations.at_mut(slot).on(Event::PassDeadline);
            self.timers.arm(slot, now.plus(TICK));
        }
    }

    fn look_again(&mut self, now: Nanos, slot: u32, evidence: &impl StartEvidence) {
        let invocation = self.invocations.at(slot);
        let is_marked = invocation.marks.has(Marks::CANCEL_DELIVERED);
        let overdue_for = now.since(invocation.deadline_at);
        match self.look(slot, evidence) {
            Started::Yes => self.time_out(now, slot, Run::MayHaveStarted),
            Started::No if is_marked && evidence.mark_is_final() => self.time_out(now, slot, Run::Never),
            _ if overdue_for >= self.limits.kill_grace => self.time_out(now, slot, Run::MayHaveStarted),
            _ => self.timers.arm(slot, now.plus(overdue_for.max(TICK))),
        }
    }

    /// Answers a held call whose deadline is over, and gives its worker the grace to let go of it.
    fn time_out(&mut self, now: Nanos, slot: u32, run: Run) {
        if run != Run::Never {
            self.judge(now, slot, Judgement::Failed);
        }
        self.put_answer(now, slot, Ending::DeadlinePassed, run);
        self.timers.arm(slot, now.plus(self.limits.kill_grace));
    }

    /// The worker still holds a call that nobody waits for.
    fn end_grace(&mut self, now: Nanos, slot: u32, evidence: &impl StartEvidence) {
        let worker_index = self.invocations.at(slot).worker;
        if self.has_joiners(slot) || self.has_twin(slot) {
            // They have more time than the call that they joined; or it is the twin of one that is about to be looked at.
        } else if self.look(slot, evidence) != Started::No {
            self.kill(worker_index, KillReason::Overstayed);
        } else if self.is_stalled(now, worker_index, evidence) {
            self.kill(worker_index, KillReason::Stalled);
        }
        // It stays in the ring until the worker gives it back or is lost.
        self.timers.arm(slot, now.plus(self.limits.kill_grace));
    }

    /// Nothing finished for a whole grace, and nothing started that could be the reason.
    fn is_stalled(&self, now: Nanos, worker_index: u32, evidence: &impl StartEvidence) -> bool {
        let worker = &self.workers[worker_index as usize];
        now.since(worker.progress_at) >= self.limits.kill_grace
            && self.has_started_nothing(worker_index, evidence)
    }

    /// Of the calls in its ring.
    pub(crate) fn has_started_nothing(&self, worker_index: u32, evidence: &impl StartEvidence) -> bool {
        let mut held = self.workers[worker_index as usize].held.iter(worker_index, &self.invocations);
        held.all(|held| self.look(held, evidence) == Started::No)
    }

    pub(crate) fn kill(&mut self, worker_index: u32, reason: KillReason) {
        let worker = &mut self.workers[worker_index as usize];
        if matches!(worker.state, WorkerState::Stopping | WorkerState::Quarantined) {
            return; // asked before
        }
        worker.on(WorkerEvent::Kill);
        let id = WorkerId { index: worker_index, generation: worker.generation };
        self.counters.count(match reason {
            KillReason::Stalled => Counter::WorkersStalled,
            _ => Counter::WorkersOverstayed,
        });
        self.actions.push_back(WorkerAction::Kill { worker: id, reason });
        self.withdraw(worker_index);
    }

    fn look(&self, slot: u32, evidence: &impl StartEvidence) -> Started {
        let index = self.invocations.at(slot).worker;
        let worker = WorkerId { index, generation: self.workers[index as usize].generation };
        evidence.started(worker, self.invocations.id_of(slot))
    }
}
