//! Calls that must not stand in a queue yet: their callers want them to start later, or their back-off between two attempts
//! is not over.
//!
//! ```text
//!   Free   ── AdmitLater ─▶ Delayed ── its time comes ──▶ Queued, in the lane where its deadline now puts it
//!   Pushed ── Delay ──────▶    └─ deadline, cancel, client gone: as for a queued call
//! ```
//! In: a slot, and a length or a time.  Out: the slot in its lane, never early and at most a tick late.
//! Always: a delayed call has a timer, at the earlier of its time and its deadline, and is in no list. Which of the two it
//! was is seen from the clock when it fires; the time itself is kept for people who ask.
//! Always: a call that starts later is admitted when it comes, by every limit and rate that there is for its function; only what
//! is about the present (its queue, its breaker, whether it could end in time) is not asked. Its deadline counts from its start, and
//! so does its caller's rate, where there is one (`callers.rs`).
//! Always: of one function as many calls may be to start later as may stand in its queue, `queue_count_max`; with those that
//! come meanwhile its queue may so become twice as long. One more: `QueueFull`.
//! Tests: `tests/later.rs`, `tests/retries.rs`, `tests/random.rs`.

use protocol::Flags;
use queue::LaneIndex;

use crate::admission::{Admitted, Refusal, Request, Verdict, full};
use crate::counters::Counter;
use crate::invocation::{Event, Invocation, State};
use crate::time::Nanos;
use crate::{Engine, run_queue};

/// In place of a worker: the call waits for the start that its caller gave, and not between two attempts. Beyond any index, as
/// `workers_max` is at most 2^20. Not told from `attempts`: a call that takes the place of one it had joined has none either.
const NOT_DUE: u32 = u32::MAX - 1;

impl Invocation {
    /// It waits for the start that its caller gave.
    pub fn is_start_delayed(&self) -> bool {
        self.state == State::Delayed && self.worker == NOT_DUE
    }
}

impl Engine {
    /// Whether a call may be kept for so long.
    pub(crate) fn check_start(&self, request: &Request, start_after: Nanos) -> Result<(), Refusal> {
        if start_after > self.limits.start_after_max {
            return Err(Refusal::StartTooLate);
        }
        let function = self.functions.get(request.function.0 as usize).ok_or(Refusal::UnknownFunction)?;
        if function.scheduled >= function.spec.queue_count_max {
            return Err(full(function));
        }
        Ok(())
    }

    /// As `accept`, for a call that must not start before `start_at`.
    pub(crate) fn accept_later(
        &mut self,
        now: Nanos,
        request: &Request,
        admitted: Admitted,
        start_at: Nanos,
    ) -> Verdict {
        self.counters.count(Counter::CallsAdmitted);
        self.counters.count(Counter::CallsScheduled);
        let slot = admitted.slot;
        let function = &mut self.functions[request.function.0 as usize];
        function.scheduled += 1;
        let is_idempotent = function.spec.idempotent || request.flags.contains(Flags::IDEMPOTENT);
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::AdmitLater);
        *invocation = Invocation {
            worker: NOT_DUE,
            pushed_at: start_at,
            ..invocation.admitted(now, request, &admitted, is_idempotent)
        };
        self.timers.arm(slot, start_at);
        Verdict::Admitted(self.invocations.id_of(slot))
    }

    /// Takes a call out of a worker's hands and lets it stand in its lane again after `length`.
    pub(crate) fn delay(&mut self, now: Nanos, slot: u32, length: Nanos) {
        if length == Nanos::ZERO {
            self.invocations.at_mut(slot).on(Event::Requeue);
            return self.stand_in_line(now, slot);
        }
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::Delay);
        let at = now.plus(length).min(invocation.deadline_at);
        invocation.pushed_at = at;
        self.timers.arm(slot, at);
    }

    /// The time of a delayed call has come.
    pub(crate) fn end_delay(&mut self, now: Nanos, slot: u32) {
        let is_start = self.leave_delay(slot);
        if is_start {
            self.note_arrival(now, self.invocations.at(slot).function.0);
        }
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::Requeue);
        if is_start {
            invocation.queued_at = now;
            let function = &mut self.functions[invocation.function.0 as usize];
            if function.queue.is_empty() {
                function.drain_rate.begin(now);
            }
            if function.callers.as_mut().is_some_and(|callers| !callers.take(now, &invocation.origin)) {
                self.counters.count(Counter::CallsBeyondRate);
                self.enqueue_last(slot);
                return self.note_waiting(self.invocations.id_of(slot));
            }
        }
        self.stand_in_line(now, slot);
    }

    /// A call is not delayed any more, whatever comes next. True: it waited for the start that its caller gave.
    pub(crate) fn leave_delay(&mut self, slot: u32) -> bool {
        self.timers.disarm(slot);
        let invocation = self.invocations.at_mut(slot);
        let is_start = invocation.is_start_delayed();
        if is_start {
            invocation.worker = u32::MAX;
            self.functions[invocation.function.0 as usize].scheduled -= 1;
        }
        is_start
    }

    /// At the back of the lane where its deadline puts it now.
    pub(crate) fn stand_in_line(&mut self, now: Nanos, slot: u32) {
        let invocation = self.invocations.at(slot);
        let criticality = LaneIndex::from_index(invocation.lane.into()).criticality();
        let bucket = run_queue::bucket_of(invocation.deadline_at.since(now));
        self.enqueue(slot, LaneIndex::new(criticality, bucket));
        self.note_waiting(self.invocations.id_of(slot));
    }
}
