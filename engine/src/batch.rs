//! Stages 2 to 4 of 8 for calls of one function that came together: what is the same for all of them is asked once.
//!
//! ```text
//!   open_batch ─▶ push, push, push ... ─▶ close
//!     what concerns the function, and     per call: what it says of itself,
//!     for how many calls there is room    its record, its place at the worker
//! ```
//!
//! In: calls of a quick function that finds nothing waiting (`dispatch.rs`), and that no policy has to do with.
//! Out: a `Push` for each; `None` for a call that has to be asked for alone, with `handle_request`.
//! Always: what a batch does to a call, and to everything else, is what `handle_request` would have done; `tests/batch.rs`
//! holds the two together, call by call. Until it is closed the engine lends itself to nobody else.
//! Never: refuses. The reasons to say no are asked in one place, `admission.rs`.
//! Why: of the thousand instructions of a call, a fifth asked questions whose answer was that of the call before.

use protocol::{Criticality, Flags, FunctionId};

use crate::admission::{Admitted, Request};
use crate::attachment::current;
use crate::counters::{Counter, Counters};
use crate::dispatch::Push;
use crate::function::Function;
use crate::invocation::{Event, Invocation, InvocationId, Marks, State};
use crate::reply::{Answer, Ending, Finished, RunOutcome, run_of};
use crate::slab::Slab;
use crate::time::Nanos;
use crate::worker::{Worker, WorkerEvent, WorkerId};
use crate::{Engine, timers};

/// A call with one of these may be another call's, has to be held against others, or does not start now.
const ASKED_ALONE: Flags = Flags::IDEMPOTENCY_KEY.with(Flags::CALLED_BY).with(Flags::START_AFTER);

/// A function whose calls may be bound to a worker as they come.
pub struct Batch<'a> {
    invocations: &'a mut Slab,
    function: &'a mut Function,
    worker: &'a mut Worker,
    counters: &'a mut Counters,
    held_look_at: &'a mut Nanos,
    number: FunctionId,
    worker_id: WorkerId,
    now: Nanos,
    timeout: Nanos,
    payload_size_max: u32,
    is_idempotent: bool,
    /// Calls for which there is room.
    room: u32,
    count: u32,
    deadline_at_min: Nanos,
}

impl Engine {
    /// Begins a batch. None: calls of this function have to be asked for one by one, now.
    #[inline]
    pub fn open_batch(&mut self, now: Nanos, number: FunctionId) -> Option<Batch<'_>> {
        let function = self.functions.get_mut(number.0 as usize)?;
        if self.is_draining || function.checks.any_at_admission() || function.checks.any_at_dispatch() {
            return None;
        }
        let index = function.direct_worker()?;
        if self.answers.len() >= self.limits.invocations_max as usize {
            return None;
        }
        let worker = &mut self.workers[index as usize];
        let ahead = function.run_ahead.depth().saturating_sub(worker.held_count());
        let room = ahead.min(worker.credits).min(self.invocations.claimable());
        if room == 0 {
            return None;
        }
        worker.held.make_room(room, index, &self.invocations);
        let worker_id = WorkerId { index, generation: worker.generation };
        Some(Batch {
            timeout: function.spec.timeout,
            payload_size_max: function.spec.payload_size_max,
            is_idempotent: function.spec.idempotent,
            invocations: &mut self.invocations,
            function,
            worker,
            counters: &mut self.counters,
            held_look_at: &mut self.held_look_at,
            number,
            worker_id,
            now,
            room,
            count: 0,
            deadline_at_min: Nanos::NEVER,
        })
    }
}

impl Batch<'_> {
    /// Whose ring all of its calls go into.
    #[inline]
    pub fn worker(&self) -> WorkerId {
        self.worker_id
    }

    /// Calls pushed so far.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Admits a call of the batch's function and binds it to the worker. None: nothing was done; it has to be asked for alone.
    #[inline(always)]
    pub fn push(&mut self, request: &Request) -> Option<Push> {
        let criticality = Criticality::try_from(request.criticality).ok()?;
        let budget =
            if request.budget_us == 0 { self.timeout } else { Nanos::from_us(request.budget_us.into()) };
        let deadline_at = request.received_at.plus(budget.min(self.timeout));
        let is_simple = request.function == self.number
            && request.flags.without(ASKED_ALONE) == request.flags
            && request.payload_size <= self.payload_size_max
            && self.now < deadline_at
            && self.count < self.room;
        if !is_simple {
            return None;
        }
        let slot = self.invocations.claim()?;
        self.count += 1;
        self.deadline_at_min = self.deadline_at_min.min(deadline_at);
        let shard = self.invocations.shard();
        let call = self.invocations.at_mut(slot);
        call.on(Event::Admit);
        call.on(Event::Push);
        let is_idempotent = self.is_idempotent || request.flags.contains(Flags::IDEMPOTENT);
        *call = Invocation {
            attempts: 1,
            worker: self.worker_id.index,
            pushed_at: self.now,
            ..call.admitted(self.now, request, &Admitted { criticality, deadline_at, slot }, is_idempotent)
        };
        let invocation = InvocationId::new(shard, slot, call.generation);
        self.worker.held.push_into_room(invocation);
        Some(Push { worker: self.worker_id, invocation, function: self.number, deadline_at })
    }

    /// Settles with the engine what its calls have in common.
    #[inline]
    pub fn close(self) {
        let Batch { function, worker, count, now, .. } = self;
        if count == 0 {
            return;
        }
        worker.on(WorkerEvent::Push);
        worker.credits -= count;
        if !worker.has_room(function.run_ahead.depth()) {
            worker.is_warm = false;
            function.warm.pop();
        }
        if self.deadline_at_min < worker.look_at {
            let look_at = timers::next_tick(self.deadline_at_min);
            worker.look_at = worker.look_at.min(look_at);
            *self.held_look_at = (*self.held_look_at).min(look_at);
        }
        function.pushes += u64::from(count);
        function.pushed_queued_at_max = function.pushed_queued_at_max.max(now);
        for counter in [Counter::CallsReceived, Counter::CallsAdmitted, Counter::CallsPushed] {
            self.counters.add(counter, count.into());
        }
    }
}

impl Engine {
    /// A worker gave calls back, in this order: tells the answers of those up to the first that has to be told alone, with
    /// `handle_completion`. Nearly every one is a result of the function, for a call that this worker holds and somebody waits
    /// for, and that no policy wants to know of: for others nothing is done here.
    #[inline(always)]
    pub fn handle_results(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        results: impl Iterator<Item = (InvocationId, Finished)>,
        mut on_answer: impl FnMut(Answer),
    ) {
        let Some(entry) = current(&mut self.workers, worker) else { return };
        let Some(function) = self.functions.get_mut(entry.function.0 as usize) else { return };
        if function.checks.any_at_completion() || entry.waits_in != InvocationId::NONE {
            return;
        }
        let (mut count, mut is_resorted) = (0, false);
        for (invocation, finished) in results {
            if finished.outcome != RunOutcome::Ok {
                break;
            }
            let ended = self.invocations.release_if(invocation, |call| {
                let is_simple = call.state == State::Pushed
                    && call.worker == worker.index
                    && !call.marks.has(Marks::PERMITTED);
                // Held in time, and so without a timer.
                is_simple.then(|| {
                    call.on(Event::Complete);
                    let run = run_of(now, call, finished);
                    (Answer::new(call, invocation, now, Ending::Finished(RunOutcome::Ok), run), run)
                })
            });
            let Some((answer, run)) = ended else { break };
            on_answer(answer);
            entry.held.remove(invocation);
            is_resorted |= run.length().is_some_and(|length| function.note_run(&self.limits, length));
            count += 1;
        }
        if count == 0 {
            return;
        }
        entry.progress_at = now;
        entry.credits += count;
        let (number, is_warm, is_empty) = (entry.function.0, entry.is_warm, entry.held_count() == 0);
        self.counters.add(Counter::AnsweredOk, count.into());
        if is_resorted {
            self.sort_workers(number);
        }
        if !is_warm {
            self.reopen(worker.index);
        }
        if is_empty {
            self.on_worker_empty(now, worker.index);
        }
    }
}
