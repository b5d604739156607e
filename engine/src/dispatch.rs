//! Stage 4 of 8: dispatch. Binds the most urgent call of the function whose turn it is to a warm worker.
//!
//! In: ready functions, workers with credit.  Out: `Push`, one per `poll_push`, for the router to write into a ring.
//! Always: late binding. A call is bound to a worker only when that worker is open: it has a free ring slot (credit), and
//! less work before it than `limits.run_ahead`. A worker that runs a slow call holds no other call up.
//! Always: the most urgent call of a function is the first of its lanes, but for one push in eight while calls wait that have
//! aged (`ageing.rs`), and while no more workers are free than are kept for nested calls (`reserve.rs`).
//! Always: the worker used last is tried first, while its caches are warm; the others cool down and can be given up.
//! A worker that opens goes on top.
//! Always: a call of a quick function that finds nothing waiting is bound on admission. What that gives up is the order
//! among calls that arrive in one turn, as far as they fit in `limits.run_ahead`: work bound that far ahead is out of
//! reach of order anyway. What it saves is a walk through lanes, ready queue and timer wheel for each call.
//! Never: pushes a call whose deadline has passed; the exact deadline is looked at again here, because timers may be
//! a tick late.
//! Why not spread calls over workers: pool sizing needs idle workers to look idle.  Tests: `tests/dispatch.rs`.

use protocol::FunctionId;
use queue::LaneIndex;

use crate::counters::Counter;
use crate::invocation::{Event, InvocationId, Marks};
use crate::permits::Permit;
use crate::policy::Checks;
use crate::reply::Ending;
use crate::time::Nanos;
use crate::worker::{WorkerEvent, WorkerId};
use crate::{Engine, timers};

/// Write this call into that worker's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// Whose ring.
    pub worker: WorkerId,
    /// Which call; its slot finds the payload.
    pub invocation: InvocationId,
    /// Which function.
    pub function: FunctionId,
    /// The worker must not start it at or after this time.
    pub deadline_at: Nanos,
}

impl Engine {
    /// The next call to hand to a worker. None: nothing waits, or nobody has credit for what waits; or so many calls
    /// were found expired that the rest has to wait for the next turn, for which `next_timer` then asks.
    #[inline]
    pub fn poll_push(&mut self, now: Nanos) -> Option<Push> {
        for _ in 0..self.limits.timer_visits_max {
            let number = self.ready.first()?;
            let function = &self.functions[number as usize];
            let slot = function.next_call();
            if now >= self.invocations.at(slot).deadline_at {
                self.end_queued(now, slot, Ending::DeadlinePassed);
                continue;
            }
            if self.functions[number as usize].checks.any_at_dispatch() {
                match self.take_permits(now, slot, number) {
                    Permit::Given => return Some(self.push_governed(now, number, slot)),
                    Permit::GateClosed => continue,
                    Permit::NoPlace => return None,
                }
            }
            return Some(self.push(now, number, slot));
        }
        None
    }

    #[inline]
    pub(crate) fn push(&mut self, now: Nanos, number: u32, slot: u32) -> Push {
        let function = &mut self.functions[number as usize];
        let lane = LaneIndex::from_index(self.invocations.at(slot).lane.into());
        function.queue.remove(&mut self.run_links, lane, slot);
        if let Some((_, next)) = function.queue.peek() {
            // Where many wait, the next one is in no cache.
            self.invocations.prefetch(next);
        }
        if !function.aged.is_empty() {
            self.push_beside_aged(number, slot);
        }
        let function = &mut self.functions[number as usize];
        if function.reserve.count > 0 {
            self.leave_reserve(number, slot);
        }
        let function = &mut self.functions[number as usize];
        let worker_index = *function.warm.last().expect("a ready function has a worker with credit");
        if function.checks.has(Checks::QUEUE_DELAY) {
            function.drain_rate.note_push(now, function.queue.is_empty());
        }
        self.timers.disarm(slot);
        let push = self.bind(now, worker_index, slot);
        let function = &mut self.functions[number as usize];
        self.ready.rotate(number, function);
        if function.pool.is_some() && function.ready_lane.is_none() && !function.queue.is_empty() {
            self.note_unserved(number);
        }
        push
    }

    /// Gives a call, which is in no queue, to the worker whose turn it is.
    #[inline(always)]
    pub(crate) fn bind(&mut self, now: Nanos, worker_index: u32, slot: u32) -> Push {
        let worker = &mut self.workers[worker_index as usize];
        let function = &mut self.functions[worker.function.0 as usize];
        let id = self.invocations.id_of(slot);
        worker.on(WorkerEvent::Push);
        worker.credits -= 1;
        worker.held.push(id, worker_index, &self.invocations);
        if !worker.has_room(function.run_ahead.depth()) {
            worker.is_warm = false;
            function.warm.pop();
        }
        let invocation = self.invocations.at_mut(slot);
        let deadline_at = invocation.deadline_at;
        if deadline_at < worker.look_at {
            let look_at = timers::next_tick(deadline_at);
            worker.look_at = worker.look_at.min(look_at);
            self.held_look_at = self.held_look_at.min(look_at);
        }
        invocation.on(Event::Push);
        invocation.worker = worker_index;
        invocation.pushed_at = now;
        invocation.attempts += 1;
        let is_overtaken = function.pushed_queued_at_max > invocation.queued_at;
        invocation.marks =
            invocation.marks.with(Marks::OVERTAKEN, is_overtaken).with(Marks::CANCEL_DELIVERED, false);
        function.pushes += 1;
        function.pushed_queued_at_max = function.pushed_queued_at_max.max(invocation.queued_at);
        self.counters.count(Counter::CallsPushed);
        Push {
            worker: WorkerId { index: worker_index, generation: worker.generation },
            invocation: id,
            function: worker.function,
            deadline_at,
        }
    }

    /// A slot of a worker is free again, by a call given back or a lease ended: if that makes it open, it goes on top.
    pub(crate) fn reopen(&mut self, worker_index: u32) {
        let worker = &mut self.workers[worker_index as usize];
        let number = worker.function.0;
        let function = &mut self.functions[number as usize];
        if !worker.is_warm && worker.is_open(function.run_ahead.depth()) {
            worker.is_warm = true;
            function.warm.push(worker_index);
            self.ready.refresh(number, function);
        }
    }

    /// The depth of a function is another one: its workers open or close.
    #[cold]
    pub(crate) fn sort_workers(&mut self, number: u32) {
        let function = &mut self.functions[number as usize];
        let depth = function.run_ahead.depth();
        for index in &function.members {
            let worker = &mut self.workers[*index as usize];
            match (worker.is_warm, worker.is_open(depth)) {
                (false, true) => function.warm.push(*index),
                (true, false) => function.warm.retain(|other| other != index),
                _ => continue,
            }
            worker.is_warm = !worker.is_warm;
        }
        self.ready.refresh(number, function);
    }
}
