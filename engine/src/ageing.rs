//! Stage 3 of 8, beside the lanes: an old call of low criticality is not starved by a stream of urgent ones.
//!
//! ```text
//!   lanes   [critical: 7 8 9 ...][normal: 4 5][low: 1 2 3]       every call stands here, in its order
//!   aged    1 2 4                                                those that waited `ageing`, oldest first, as well
//!   pushes  7 8 9 . . . . 1 . . . . . . . 2                      the eighth is the oldest's
//! ```
//!
//! In: a queued call that has waited as long as its function's `ageing`; each push out of the function's queue.
//! Out: whether the next push is the turn of the oldest aged call.
//! Always: an aged call stays in its lane too, so that growing old never makes a call wait longer: order by criticality and
//! deadline is given up for one push in [`TURN_EVERY`] and for no other.
//! Hence the bound: an aged call with k aged ones before it is pushed after at most 8 (k + 1) pushes out of the queue of
//! its function, however urgent the others are, unless it ends before. Pushes to workers that are kept for nested calls
//! (`reserve.rs`) do not count.
//! Never: costs a call anything that finds nothing waiting; costs one that is queued more than a comparison.
//! Why not raise an old call's lane: it would stand among the urgent ones for all of its remaining life, in any number, and
//! no bound could be given to those. Why one in eight: docs/decisions/0016-ageing.md.  Tests: `tests/ageing.rs`,
//! `tests/random.rs`.

use queue::{Links, List};

use crate::Engine;
use crate::counters::Counter;
use crate::invocation::Marks;

/// While aged calls wait, one push in this many is of the oldest of them.
pub(crate) const TURN_EVERY: u32 = 8;

/// The aged calls of one function.
#[derive(Debug)]
pub(crate) struct Aged {
    /// Oldest first, through links of their own: they stand in their lanes too.
    calls: List,
    /// Pushes since the last turn, while there are any.
    pushes: u32,
}

impl Aged {
    pub const NONE: Aged = Aged { calls: List::EMPTY, pushes: 0 };

    /// The oldest call, if it is its turn.
    #[inline]
    pub fn whose_turn(&self) -> Option<u32> {
        if self.pushes + 1 < TURN_EVERY { None } else { self.calls.front() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    fn join(&mut self, links: &mut Links, slot: u32) {
        if self.calls.is_empty() {
            self.pushes = 0;
        }
        self.calls.push_back(links, slot);
    }

    /// Those who wait, oldest first.
    pub fn iter<'a>(&self, links: &'a Links) -> impl Iterator<Item = u32> + use<'a> {
        self.calls.iter(links)
    }

    pub fn invariants(&self, links: &Links) {
        self.calls.invariants(links);
        assert!(self.pushes < TURN_EVERY, "the turn of an aged call was passed over");
    }
}

impl Engine {
    /// A queued call has waited as long as its function lets one wait.
    pub(crate) fn age(&mut self, slot: u32) {
        if slot >= self.aged_links.capacity() {
            self.aged_links.grow_to(self.invocations.capacity());
        }
        let invocation = self.invocations.at_mut(slot);
        invocation.marks = invocation.marks.with(Marks::AGED, true);
        let function = &mut self.functions[invocation.function.0 as usize];
        function.aged.join(&mut self.aged_links, slot);
        self.counters.count(Counter::CallsAged);
    }

    /// A call is pushed out of its function's queue while aged ones wait: it may be one of them.
    #[cold]
    pub(crate) fn push_beside_aged(&mut self, number: u32, slot: u32) {
        let function = &mut self.functions[number as usize];
        let aged = &mut function.aged;
        // What goes to a worker kept for nested calls is no turn that an aged one might have had.
        if !function.reserve.is_reached(function.warm.len()) {
            let is_turn = aged.whose_turn() == Some(slot);
            aged.pushes = if is_turn { 0 } else { aged.pushes + 1 };
        }
        if self.invocations.at(slot).marks.has(Marks::AGED) {
            self.leave_aged(slot);
        }
    }

    /// The same call leaves its queue, whichever way.
    #[cold]
    pub(crate) fn leave_aged(&mut self, slot: u32) {
        let invocation = self.invocations.at_mut(slot);
        invocation.marks = invocation.marks.with(Marks::AGED, false);
        self.functions[invocation.function.0 as usize].aged.calls.remove(&mut self.aged_links, slot);
    }
}
