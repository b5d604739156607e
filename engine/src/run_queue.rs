//! Stage 3 of 8: priority queues. Orders calls within a function, and functions among each other.
//!
//! ```text
//!   function 0   lanes: [critical 0..15][high 0..15][normal 0..15][low 0..15]      FIFO within a lane
//!   function 1   ...
//!   ready queue  the same 64 lanes, holding functions: each stands in the lane of its most urgent call
//! ```
//!
//! In: an admitted invocation and its lane.  Out: the function to serve next, and its most urgent call.
//! Owns: links; the invocations themselves stay in the slab.
//! Always: a function stands in the ready queue exactly while something waits *and* a worker has credit, in the lane
//! of its most urgent call. Functions of one lane take turns, one call each. Workers that are kept for nested calls are credit
//! only for those (`reserve.rs`), which then go in the place of the most urgent one.
//! Always: while its remaining time is at least 2^21 ns, a queued call is in the lane of bucket
//! floor(log2(remaining / 2^20 ns)), 15 at most; a timer moves it when its remaining time halves.
//! Hence the bound: within one criticality of one function a call is never pushed after another whose remaining time
//! at that moment is more than twice its own plus 2^21 ns (bucket 0 is 2.1 ms wide, and a move may come one timer
//! tick of 0.26 ms late), for deadlines up to 2^36 ns (68 s); beyond 34 s all are alike.
//! One push in eight may be out of this order, of a call that has waited long: see `ageing.rs` for the bound that it gives. And
//! calls beyond their callers' rates stand last of their criticality: see `callers.rs`.
//! Why not exact order: docs/decisions/0004-deadline-buckets.md.  Tests: `tests/order.rs`, `tests/random.rs`.

use queue::{LaneIndex, Lanes, Links};

use crate::Engine;
use crate::counters::Counter;
use crate::function::Function;
use crate::invocation::{Invocation, Marks};
use crate::tenant::{TenantIndex, TenantSpec};
use crate::time::Nanos;
use crate::turns::Turns;

/// Bucket 0 and 1 meet at 2^21 ns; one bucket further is twice as long.
const BUCKET_SHIFT: u32 = 20;
const BUCKET_MAX: u8 = LaneIndex::BUCKET_COUNT - 1;

/// Upper end of bucket 0: also the slack of the bound above.
pub(crate) const BUCKET_ZERO_WIDTH: Nanos = Nanos(1 << (BUCKET_SHIFT + 1));

// The bound names one number for both: bucket 0's width has to cover the ticks by which a move may come late.
const _: () = assert!(2 * crate::timers::TICK.0 <= BUCKET_ZERO_WIDTH.0);

/// The deadline bucket of a remaining time.
#[inline]
pub(crate) fn bucket_of(remaining: Nanos) -> u8 {
    let units = remaining.0 >> BUCKET_SHIFT;
    // `| 1` gives 0 units the bucket of 1 unit, which is 0.
    let log2 = 63 - (units | 1).leading_zeros() as u8;
    log2.min(BUCKET_MAX)
}

/// When a queued call has to be looked at again: when it leaves its bucket, at its deadline, or when it has aged.
#[inline]
fn next_look_at(invocation: &Invocation, ageing: Nanos, bucket: u8) -> Nanos {
    bucket_left_at(invocation.deadline_at, bucket).min(ages_at(invocation, ageing))
}

/// When a queued call joins the aged ones; never if it has.
#[inline]
fn ages_at(invocation: &Invocation, ageing: Nanos) -> Nanos {
    if invocation.marks.has(Marks::AGED) { Nanos::NEVER } else { invocation.queued_at.plus(ageing) }
}

/// When a call that is in `bucket` leaves it; the last one at its deadline.
#[inline]
fn bucket_left_at(deadline_at: Nanos, bucket: u8) -> Nanos {
    if bucket == 0 {
        return deadline_at;
    }
    let floor = Nanos(1 << (BUCKET_SHIFT + u32::from(bucket)));
    deadline_at.since(floor).plus(Nanos(1))
}

/// Functions that can run now, most urgent lane first; of each tenant for itself where tenants take turns.
#[derive(Debug)]
pub(crate) struct ReadyFunctions {
    /// By tenant; where they do not take turns, those of all stand in the first.
    groups: Vec<Lanes>,
    links: Links,
    turns: Option<Turns>,
}

impl ReadyFunctions {
    /// `turns`: tenants compete for places in which calls may run.
    pub fn new(function_count: u32, turns: Option<Turns>, tenant_count: usize) -> ReadyFunctions {
        let group_count = if turns.is_some() { tenant_count } else { 1 };
        let groups = (0..group_count).map(|_| Lanes::new()).collect();
        ReadyFunctions { groups, links: Links::with_capacity(function_count), turns }
    }

    /// Makes room for functions that were added.
    pub fn grow_to(&mut self, function_count: u32) {
        self.links.grow_to(function_count);
    }

    /// The tenants are these now: those there were, in their places, and new ones.
    pub fn set_tenants(&mut self, tenants: &[TenantSpec]) {
        if let Some(turns) = &mut self.turns {
            turns.set_tenants(tenants);
            self.groups.resize_with(tenants.len(), Lanes::new);
        }
    }

    /// Takes a function out, wherever it stands.
    pub fn remove(&mut self, number: u32, function: &mut Function) {
        if function.ready_lane.is_some() {
            self.place(number, function, None);
        }
    }

    /// The function whose turn it is.
    #[inline]
    pub fn first(&mut self) -> Option<u32> {
        let group = match &mut self.turns {
            None => 0,
            Some(turns) => turns.next()? as usize,
        };
        self.groups[group].peek().map(|(_, number)| number)
    }

    /// Nobody waits for a turn.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(Lanes::is_empty)
    }

    /// A tenant's calls used, or will probably use, this much worker time; where it matters.
    pub fn charge(&mut self, tenant: TenantIndex, cost_ns: i64) {
        if let Some(turns) = &mut self.turns {
            turns.charge(tenant.0.into(), cost_ns);
        }
    }

    #[inline]
    fn group_of(&self, function: &Function) -> usize {
        if self.turns.is_some() { usize::from(function.spec.tenant.0) } else { 0 }
    }

    /// Puts a function where it belongs now, if it is not there already.
    #[inline]
    pub fn refresh(&mut self, number: u32, function: &mut Function) {
        let lane = lane_wanted(function);
        if lane != function.ready_lane {
            self.place(number, function, lane);
        }
    }

    /// As `refresh`, for a function that had its turn: it goes behind the others of its lane.
    #[inline]
    pub fn rotate(&mut self, number: u32, function: &mut Function) {
        let lane = lane_wanted(function);
        if self.turns.is_some() && function.has_turn_left() {
            return self.refresh(number, function);
        }
        let group = &self.groups[self.group_of(function)];
        let is_last = lane.is_some_and(|lane| group.lane(lane).back() == Some(number));
        if !is_last {
            self.place(number, function, lane);
        }
    }

    #[inline]
    fn place(&mut self, number: u32, function: &mut Function, lane: Option<LaneIndex>) {
        let group = self.group_of(function);
        let lanes = &mut self.groups[group];
        if let Some(old) = function.ready_lane {
            lanes.remove(&mut self.links, old, number);
        }
        if let Some(new) = lane {
            lanes.push(&mut self.links, new, number);
        }
        function.ready_lane = lane;
        if let Some(turns) = &mut self.turns {
            turns.set_ready(group as u32, !lanes.is_empty());
        }
    }

    pub fn invariants(&self, functions: &[Function]) {
        self.groups.iter().for_each(|lanes| lanes.invariants(&self.links));
        if let Some(turns) = &self.turns {
            turns.invariants(|tenant| !self.groups[tenant as usize].is_empty());
        }
        let mut count = 0;
        for (number, function) in (0..).zip(functions) {
            assert_eq!(
                function.ready_lane,
                lane_wanted(function),
                "function {number} stands in the wrong lane"
            );
            assert_eq!(function.ready_lane.is_some(), self.links.is_linked(number), "function {number}");
            count += u32::from(function.ready_lane.is_some());
        }
        for (group, lanes) in self.groups.iter().enumerate() {
            for (lane, number) in lanes.iter(&self.links) {
                let function = &functions[number as usize];
                assert_eq!(function.ready_lane, Some(lane), "function {number}");
                assert_eq!(self.group_of(function), group, "function {number} stands with another tenant");
            }
        }
        assert_eq!(count, self.groups.iter().map(Lanes::len).sum::<u32>());
    }
}

/// The ready lane of a function: none while nothing waits or nobody could take it.
#[inline]
fn lane_wanted(function: &Function) -> Option<LaneIndex> {
    let is_held_back = function.warm.is_empty() || function.gate.is_some() || function.is_kept_from_workers();
    if is_held_back { None } else { function.queue.first_lane() }
}

impl Engine {
    /// Puts an invocation in state `Queued` at the back of a lane of its function.
    #[inline]
    pub(crate) fn enqueue(&mut self, slot: u32, lane: LaneIndex) {
        let invocation = self.invocations.at_mut(slot);
        invocation.lane = lane.index() as u8;
        let number = invocation.function.0;
        let function = &mut self.functions[number as usize];
        self.timers.arm(slot, next_look_at(invocation, function.ageing, lane.bucket()));
        function.queue.push(&mut self.run_links, lane, slot);
        if function.reserve.count > 0 {
            self.join_reserve(number, slot);
        }
        let function = &mut self.functions[number as usize];
        self.ready.refresh(number, function);
        if function.ready_lane.is_none() && function.pool.is_some() {
            self.note_unserved(number);
        }
    }

    /// Puts an invocation in state `Queued` behind all others of its criticality. There it stays, however near its deadline comes,
    /// until it has aged: then it goes where its deadline puts it (`look_at_queued`).
    pub(crate) fn enqueue_last(&mut self, slot: u32) {
        let criticality = LaneIndex::from_index(self.invocations.at(slot).lane.into()).criticality();
        self.enqueue(slot, LaneIndex::new(criticality, BUCKET_MAX));
        let invocation = self.invocations.at(slot);
        let ageing = self.functions[invocation.function.0 as usize].ageing;
        self.timers.arm(slot, invocation.deadline_at.min(ages_at(invocation, ageing)));
    }

    /// Takes a queued invocation out of its queue, wherever it stands there.
    #[inline]
    pub(crate) fn dequeue(&mut self, slot: u32) {
        let number = self.invocations.at(slot).function.0;
        if self.functions[number as usize].reserve.count > 0 {
            self.leave_reserve(number, slot);
        }
        self.leave_lane(slot);
        if self.invocations.at(slot).marks.has(Marks::AGED) {
            self.leave_aged(slot);
        }
    }

    fn leave_lane(&mut self, slot: u32) {
        let invocation = self.invocations.at(slot);
        let lane = LaneIndex::from_index(invocation.lane.into());
        let number = invocation.function.0;
        let function = &mut self.functions[number as usize];
        function.queue.remove(&mut self.run_links, lane, slot);
        self.ready.refresh(number, function);
    }

    /// Time passed for a queued call: it may have aged, and waits on in the lane where it belongs now.
    pub(crate) fn look_at_queued(&mut self, now: Nanos, slot: u32) {
        let invocation = self.invocations.at(slot);
        let ageing = self.functions[invocation.function.0 as usize].ageing;
        if now >= ages_at(invocation, ageing) {
            self.age(slot);
        }
        let invocation = self.invocations.at(slot);
        let lane = LaneIndex::from_index(invocation.lane.into());
        let bucket = bucket_of(invocation.deadline_at.since(now));
        if bucket == lane.bucket() {
            // Its place in the lane is not lost.
            self.timers.arm(slot, next_look_at(invocation, ageing, bucket));
            return;
        }
        self.leave_lane(slot);
        self.enqueue(slot, LaneIndex::new(lane.criticality(), bucket));
        self.counters.count(Counter::CallsRelaned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_the_logarithm_of_the_remaining_time() {
        let cases = [
            (0, 0),
            (1, 0),
            ((1 << 21) - 1, 0),
            (1 << 21, 1),
            ((1 << 22) - 1, 1),
            (1 << 22, 2),
            ((1 << 35) - 1, 14),
            (1 << 35, 15),
            (u64::MAX, 15),
        ];
        for (remaining, bucket) in cases {
            assert_eq!(bucket_of(Nanos(remaining)), bucket, "{remaining} ns");
        }
    }

    #[test]
    fn the_next_look_is_when_the_bucket_is_left_or_the_deadline() {
        let deadline_at = Nanos::from_secs(100);
        for bucket in 1..=BUCKET_MAX {
            let at = bucket_left_at(deadline_at, bucket);
            assert_eq!(bucket_of(deadline_at.since(at)), bucket - 1);
            assert_eq!(bucket_of(deadline_at.since(Nanos(at.0 - 1))), bucket);
        }
        assert_eq!(bucket_left_at(deadline_at, 0), deadline_at);
    }
}
