//! Calls that must not stand in a queue yet: between the attempts of a call lies its back-off.
//!
//! ```text
//!   Pushed ── Delay ──▶ Delayed ── its time comes ──▶ Queued, in the lane where its deadline now puts it
//!                         └─ deadline, cancel, client gone: as for a queued call
//! ```
//! In: a slot and a length.  Out: the slot in its lane, never early and at most a tick late.
//! Always: a delayed call has a timer, at the earlier of its time and its deadline, and is in no list. Which of the two it
//! was is seen from the clock when it fires, so that nothing is remembered but the timer.
//! Tests: `tests/retries.rs`.

use queue::LaneIndex;

use crate::invocation::Event;
use crate::time::Nanos;
use crate::{Engine, run_queue};

impl Engine {
    /// Takes a call out of a worker's hands and lets it stand in its lane again after `length`.
    pub(crate) fn delay(&mut self, now: Nanos, slot: u32, length: Nanos) {
        if length == Nanos::ZERO {
            self.invocations.at_mut(slot).on(Event::Requeue);
            return self.stand_in_line(now, slot);
        }
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::Delay);
        let at = now.plus(length).min(invocation.deadline_at);
        self.timers.arm(slot, at);
    }

    /// The time of a delayed call has come.
    pub(crate) fn end_delay(&mut self, now: Nanos, slot: u32) {
        self.invocations.at_mut(slot).on(Event::Requeue);
        self.stand_in_line(now, slot);
    }

    /// At the back of the lane where its deadline puts it now.
    pub(crate) fn stand_in_line(&mut self, now: Nanos, slot: u32) {
        let invocation = self.invocations.at(slot);
        let criticality = LaneIndex::from_index(invocation.lane.into()).criticality();
        let bucket = run_queue::bucket_of(invocation.deadline_at.since(now));
        self.enqueue(slot, LaneIndex::new(criticality, bucket));
    }
}
