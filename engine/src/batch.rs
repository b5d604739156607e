//! Stages 2 to 4 of 8 for calls of one function that came together: what is the same for all of them is asked once.
//!
//! ```text
//!   open_batch ─▶ push, push, push ... ─▶ close
//!     what concerns the function, and     per call: what it says of itself,
//!     for how many calls there is room    its record, its place at the worker
//! ```
//!
//! In: calls of a quick function that finds nothing waiting (`dispatch.rs`).
//! Out: a `Push` for each; `None` for a call that has to be asked for alone, with `handle_request`.
//! What the function's policies have to say about a batch: `batch/policies.rs`. The same for results: `batch/results.rs`.
//! Always: what a batch does to a call, and to everything else, is what `handle_request` would have done; `tests/batch.rs`
//! holds the two together, call by call. Until it is closed the engine lends itself to nobody else.
//! Never: refuses. The reasons to say no are asked in one place, `admission.rs`.
//! Why: of the thousand instructions of a call, a fifth asked questions whose answer was that of the call before.

use protocol::{Criticality, Flags, FunctionId};

use crate::admission::{Admitted, Request};
use crate::counters::{Counter, Counters};
use crate::dispatch::Push;
use crate::function::Function;
use crate::invocation::{Event, Invocation, InvocationId, Marks};
use crate::slab::Slab;
use crate::time::Nanos;
use crate::worker::{Worker, WorkerEvent, WorkerId};
use crate::{Engine, timers};

mod policies;
mod results;

use policies::SetAside;

/// A call with one of these may be another call's, has to be held against others, or does not start now.
const ASKED_ALONE: Flags = Flags::IDEMPOTENCY_KEY.with(Flags::CALLED_BY).with(Flags::START_AFTER);

/// A function whose calls may be bound to a worker as they come.
pub struct Batch<'a> {
    invocations: &'a mut Slab,
    function: &'a mut Function,
    worker: &'a mut Worker,
    counters: &'a mut Counters,
    held_look_at: &'a mut Nanos,
    set_aside: SetAside<'a>,
    /// What its policies make of each call.
    marks: Marks,
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
        let function = self.functions.get(number.0 as usize)?;
        if self.is_draining {
            return None;
        }
        let index = function.direct_worker()?;
        if self.answers.len() >= self.limits.invocations_max as usize {
            return None;
        }
        let checks = function.checks;
        let worker = &self.workers[index as usize];
        let ahead = function.run_ahead.depth().saturating_sub(worker.held_count());
        let mut room = ahead.min(worker.credits).min(self.invocations.claimable());
        if checks.any_at_admission() || checks.any_at_dispatch() {
            room = self.ask_policies(now, number, index, room);
        }
        if room == 0 {
            return None;
        }
        let function = &mut self.functions[number.0 as usize];
        let worker = &mut self.workers[index as usize];
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
            set_aside: SetAside { permits: &mut self.permits, ready: &mut self.ready, room },
            marks: Marks::NONE.with(Marks::PERMITTED, checks.any_at_dispatch()),
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
        let admitted = Admitted { criticality, deadline_at, slot, is_beyond_rate: false };
        let admitted = call.admitted(self.now, request, &admitted, is_idempotent);
        *call = Invocation {
            attempts: 1,
            worker: self.worker_id.index,
            pushed_at: self.now,
            marks: admitted.marks.and(self.marks),
            ..admitted
        };
        let invocation = InvocationId::new(shard, slot, call.generation);
        self.worker.held.push_into_room(invocation);
        Some(Push { worker: self.worker_id, invocation, function: self.number, deadline_at })
    }

    /// Settles with the engine what its calls have in common.
    #[inline]
    pub fn close(self) {
        let Batch { function, worker, count, now, .. } = self;
        if function.checks.any_at_admission() || function.checks.any_at_dispatch() {
            self.set_aside.settle(now, self.number, function, worker, count);
        }
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
