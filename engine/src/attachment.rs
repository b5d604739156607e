//! Workers come and go: attach, drain, misbehave, die.
//!
//! In: what the router saw happen to a function process.  Out: credits, calls queued again, answers `WorkerLost`.
//! Always: a lost worker's calls are taken from it in the same step. A call is tried again, at the back of the lane where its
//! deadline now puts it, if it provably never started or if running it twice does no harm (`retry.rs`), and ends in the
//! quarantine if another worker died of it before (`quarantine.rs`); otherwise its caller is told `WorkerLost` (or `WorkerMisbehaved`), with `STARTED` unless it provably never started.
//! Why at the back: a call that may have killed a worker must not be the first thing its successor sees.
//! Never: panics on a worker id that means nothing (any more); such calls do nothing.
//! Tests: `tests/workers.rs`.

use protocol::FunctionId;

use crate::Engine;
use crate::counters::Counter;
use crate::deadlines::{StartEvidence, Started};
use crate::held::{Held, slot_held};
use crate::invocation::{InvocationId, Marks, State};
use crate::reply::{Ending, Judgement, Run};
use crate::retry::NotAgain;
use crate::time::Nanos;
use crate::worker::{KillReason, Worker, WorkerAction, WorkerEvent, WorkerId, WorkerState};

/// Why a worker was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachRefused {
    /// No function has this id.
    #[error("no function has the id {}", .0.0)]
    UnknownFunction(FunctionId),
    /// `limits.workers_max` are attached.
    #[error("{max} workers are attached, which is the limit")]
    WorkersFull {
        /// The limit.
        max: u32,
    },
    /// It is of another edition than the one in force, and than those who serve.
    #[error("the function {} is served by workers of another edition", .0.0)]
    Superseded(FunctionId),
    /// No slot at all, or more than `limits.worker_slots_max`.
    #[error("a ring of {slots} slots is outside 1 to {max}")]
    SlotsOutOfRange {
        /// What was asked for.
        slots: u32,
        /// The limit.
        max: u32,
    },
}

impl Engine {
    /// A function process of the edition in force is ready to take up to `slots` calls at once.
    pub fn handle_worker_attached(
        &mut self,
        now: Nanos,
        function: FunctionId,
        slots: u32,
    ) -> Result<WorkerId, AttachRefused> {
        let edition = self.functions.get(function.0 as usize).map_or(0, |known| known.spec.edition);
        self.handle_worker_of_edition(now, function, edition, slots)
    }

    /// The same for a process of any edition. One of another edition than the one in force is taken if nobody serves, or others
    /// of its own do: who found a router again, or was started again, while the new program had yet to start.
    pub fn handle_worker_of_edition(
        &mut self,
        now: Nanos,
        function: FunctionId,
        edition: u64,
        slots: u32,
    ) -> Result<WorkerId, AttachRefused> {
        let attached = self.attach(now, function, edition, slots);
        attached.inspect_err(|_| self.counters.count(Counter::AttachesRefused))
    }

    fn attach(
        &mut self,
        now: Nanos,
        id: FunctionId,
        edition: u64,
        slots: u32,
    ) -> Result<WorkerId, AttachRefused> {
        let serving = self.serving_edition(id);
        let limits = &self.limits;
        let function = self.functions.get_mut(id.0 as usize).filter(|function| !function.is_retired);
        let function = function.ok_or(AttachRefused::UnknownFunction(id))?;
        let is_current = edition == function.spec.edition;
        if !is_current && serving.is_some_and(|serving| serving != edition) {
            return Err(AttachRefused::Superseded(id));
        }
        if !(1..=limits.worker_slots_max).contains(&slots) {
            return Err(AttachRefused::SlotsOutOfRange { slots, max: limits.worker_slots_max });
        }
        let index = match self.workers_vacant.pop() {
            Some(index) => index,
            None if (self.workers.len() as u32) < limits.workers_max => {
                self.workers.push(Worker::vacant());
                self.workers.len() as u32 - 1
            }
            None => return Err(AttachRefused::WorkersFull { max: limits.workers_max }),
        };
        let worker = &mut self.workers[index as usize];
        worker.on(WorkerEvent::Attach);
        worker.function = id;
        worker.edition = edition;
        worker.slots = slots;
        worker.credits = slots;
        worker.held = Held::for_slots(slots);
        worker.progress_at = now;
        worker.look_at = Nanos::NEVER;
        let id = WorkerId { index, generation: worker.generation };

        function.members.push(index);
        // What fails is the program in force: one of an earlier edition says nothing about it.
        function.is_failing &= !is_current;
        function.warm.reserve(function.members.len());
        function.warm.push(index);
        worker.is_warm = true;
        let number = worker.function.0;
        self.ready.refresh(number, function);
        self.counters.count(Counter::WorkersAttached);
        if is_current {
            self.note_start(now, number);
        }
        if is_current {
            self.on_edition(number);
        } else {
            self.drain_surplus(number);
        }
        Ok(id)
    }

    /// The worker gets nothing new; once it holds nothing, `WorkerAction::Stop` tells the router to end it.
    pub fn handle_worker_draining(&mut self, worker: WorkerId) {
        if let Some(index) = self.attached(worker) {
            self.drain_worker(index);
        }
    }

    /// The same for one that is known to be attached.
    pub(crate) fn drain_worker(&mut self, index: u32) {
        let entry = &mut self.workers[index as usize];
        if matches!(entry.state, WorkerState::Idle | WorkerState::Busy) {
            entry.on(WorkerEvent::Drain);
            let is_drained = entry.state == WorkerState::Drained;
            let worker = WorkerId { index, generation: entry.generation };
            self.withdraw(index);
            if is_drained {
                self.actions.push_back(WorkerAction::Stop { worker });
            }
        }
    }

    /// The process is gone. For its calls the last look into its ring decides what may be tried again.
    pub fn handle_worker_lost(&mut self, now: Nanos, worker: WorkerId, evidence: &impl StartEvidence) {
        let Some(index) = self.attached(worker) else { return };
        self.counters.count(Counter::WorkersLost);
        let was_wanted =
            !matches!(self.workers[index as usize].state, WorkerState::Draining | WorkerState::Drained);
        self.workers[index as usize].on(WorkerEvent::Lose);
        self.withdraw(index);
        self.take_calls_back(now, worker, Ending::WorkerLost, evidence);
        let entry = &mut self.workers[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let number = entry.function.0;
        self.functions[number as usize].members.retain(|other| *other != index);
        self.workers_vacant.push(index);
        self.note_loss(now, number, was_wanted);
    }

    /// The worker broke the ring's rules: it has to die, and nothing its ring says counts any more, also not that a call
    /// never started. Only calls that may run twice are tried again.
    pub fn handle_worker_misbehaved(&mut self, now: Nanos, worker: WorkerId) {
        let Some(index) = self.attached(worker) else { return };
        let entry = &mut self.workers[index as usize];
        if entry.state == WorkerState::Quarantined {
            return;
        }
        entry.on(WorkerEvent::Misbehave);
        self.counters.count(Counter::WorkersQuarantined);
        self.withdraw(index);
        self.take_calls_back(now, worker, Ending::WorkerMisbehaved, &|_, _| Started::Unknown);
        self.actions.push_back(WorkerAction::Kill { worker, reason: KillReason::Misbehaved });
    }

    /// The function's processes die as fast as they are started: calls are refused with `NoWorker` while it has no
    /// worker. Ends when told so, or when a worker of the edition in force attaches. Calls already queued wait on, up to their deadline; of
    /// a function whose number of workers follows its calls they end as `NoWorker`.
    pub fn handle_function_failing(&mut self, function: FunctionId, is_failing: bool) {
        let Some(known) = self.functions.get_mut(function.0 as usize) else { return };
        known.is_failing = is_failing;
        self.note_pool(function.0);
    }

    /// What to do to a worker next. Cancels that came too late to mean anything are left out.
    pub fn poll_worker_action(&mut self) -> Option<WorkerAction> {
        while let Some(action) = self.actions.pop_front() {
            match action {
                WorkerAction::Cancel { worker, invocation } => {
                    if let Some(slot) = self.held_by(worker, invocation) {
                        let entry = self.invocations.at_mut(slot);
                        entry.marks = entry.marks.with(Marks::CANCEL_DELIVERED, true);
                        return Some(action);
                    }
                }
                WorkerAction::Stop { worker } | WorkerAction::Kill { worker, .. } => {
                    if self.attached(worker).is_some() {
                        return Some(action);
                    }
                }
            }
        }
        None
    }

    /// The index of a worker that is attached.
    #[inline]
    pub(crate) fn attached(&self, worker: WorkerId) -> Option<u32> {
        self.workers
            .get(worker.index as usize)
            .filter(|entry| is_current(entry, worker))
            .map(|_| worker.index)
    }

    /// The slot of a call that this worker holds.
    #[inline]
    pub(crate) fn held_by(&self, worker: WorkerId, invocation: InvocationId) -> Option<u32> {
        let index = self.attached(worker)?;
        slot_held(invocation, index, &self.invocations)
    }

    /// Dispatch must not choose this worker any more.
    pub(crate) fn withdraw(&mut self, index: u32) {
        let worker = &mut self.workers[index as usize];
        worker.is_warm = false;
        let number = worker.function.0;
        let function = &mut self.functions[number as usize];
        function.warm.retain(|other| *other != index);
        self.ready.refresh(number, function);
    }

    /// The worker's last call is off its hands.
    #[inline]
    pub(crate) fn on_worker_empty(&mut self, now: Nanos, index: u32) {
        let worker = &mut self.workers[index as usize];
        worker.on(WorkerEvent::Empty);
        if worker.has_place {
            self.give_place(now, index);
        }
        let worker = &mut self.workers[index as usize];
        if worker.state == WorkerState::Drained {
            let worker = WorkerId { index, generation: worker.generation };
            self.actions.push_back(WorkerAction::Stop { worker });
        }
    }

    fn take_calls_back(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        ending: Ending,
        evidence: &impl StartEvidence,
    ) {
        self.give_place(now, worker.index);
        self.drop_leases(worker.index);
        let entry = &mut self.workers[worker.index as usize];
        let held = std::mem::take(&mut entry.held);
        entry.look_at = Nanos::NEVER;
        entry.credits = entry.slots;
        entry.waits_in = InvocationId::NONE;
        let mut position = 0;
        let mut is_suspect_named = false;
        while let Some(id) = held.at(position) {
            position += 1;
            let Some(slot) = slot_held(id, worker.index, &self.invocations) else { continue };
            let used = now.since(self.invocations.at(slot).pushed_at);
            self.take_from_worker(slot, used);
            let started = evidence.started(worker, id);
            // Where nobody can tell which call it died of, it still is one death.
            let is_suspect = started == Started::Yes || started == Started::Unknown && !is_suspect_named;
            if is_suspect && self.invocations.at(slot).state == State::Pushed {
                is_suspect_named = true;
                self.judge(now, slot, Judgement::Failed);
            }
            self.take_call_back(now, slot, ending, started);
        }
    }

    fn take_call_back(&mut self, now: Nanos, slot: u32, ending: Ending, started: Started) {
        let run = if started == Started::No { Run::Never } else { Run::MayHaveStarted };
        let state = self.invocations.at(slot).state;
        match state {
            State::Pushed if self.is_poison(slot, started) => {
                self.put_answer(now, slot, Ending::Quarantined, run);
            }
            State::Pushed if self.wait_for_twin(now, slot) => return,
            State::Pushed => match self.try_again(now, slot, run) {
                Ok(()) => return,
                Err(NotAgain::Unwanted) => self.put_answer(now, slot, ending, run),
                Err(NotAgain::UsedUp) => self.put_dead_letter(now, slot, ending, run),
            },
            // Its deadline was acted on before: what is left to say is whether it had started.
            State::Overdue => self.put_answer(now, slot, Ending::DeadlinePassed, run),
            _ => {
                // A twin that nobody waits for yet: its call is a suspect all the same.
                if let Some(call) = self.lose_twin(slot) {
                    self.is_poison(call, started);
                }
            }
        }
        self.on_run_lost(now, slot, ending, started);
        self.release_ended(slot);
    }
}

/// The worker, if it is attached.
#[inline]
pub(crate) fn current(workers: &mut [Worker], worker: WorkerId) -> Option<&mut Worker> {
    workers.get_mut(worker.index as usize).filter(|entry| is_current(entry, worker))
}

#[inline]
fn is_current(entry: &Worker, worker: WorkerId) -> bool {
    entry.generation == worker.generation && entry.state != WorkerState::Vacant
}
