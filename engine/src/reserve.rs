//! Stages 3 and 4 of 8, for functions that keep workers for nested calls: the last free one is for who is waited for most.
//!
//! ```text
//!   nested_reserve = 2     free workers   one of them may go to
//!                          3 and more     the most urgent call, whoever made it
//!                          2              a call that another one makes     (depth 1 and more)
//!                          1              a call at depth 2 and more
//! ```
//!
//! In: the calls of a function as they begin and cease to wait; how many of its workers are free.  Out: whether its most urgent call
//! may have one of them; if not, the nested call that may.
//! Always: a call at depth d leaves at least `max(nested_reserve - d, 0)` workers free. A top-level call has depth 0, and so has one
//! whose claim to be nested nobody vouches for (`nesting.rs`): who is believed may take what others are refused.
//! Hence: of functions that call each other, where each keeps at least as many workers as the depth at which it is called, no call
//! waits for ever. Take the deepest call that waits for a nested one: no worker of that one's function was taken by a deeper call, so
//! the last that was taken left one more than the nested call has to leave.
//! Always: while no more workers are free than are kept, the deepest nested call goes first, and of equals the one that came first:
//! the more callers wait for it, the more workers it will set free. With more of them free the usual order holds.
//! Always: a worker of such a function holds one call at a time, so that one which is free holds none. Its calls stand in its queue first.
//! Never: costs a function without a reserve more than a comparison.
//! Why not a worker for each level: those would idle whatever else waits. Here a level's worker is any that is left.
//! Structured buffer pools: Merlin and Schweitzer, "Deadlock Avoidance in Store-and-Forward Networks" (1980).
//! Decision: docs/decisions/0026-circles-of-waiting.md.  Tests: `tests/reserve.rs`, `tests/random/nested.rs`.

use queue::List;

use crate::Engine;
use crate::function::Function;
use crate::invocation::State;
use crate::nesting::DEPTH_MAX;

/// Workers kept for nested calls, and the calls that may use them.
#[derive(Debug)]
pub(crate) struct Reserve {
    /// How many.
    pub count: u32,
    /// Nested calls that wait, by their depth less 1: through links of their own, because they stand in their lanes too. None
    /// without a reserve.
    waiting: Option<Box<[List; DEPTH_MAX as usize]>>,
}

impl Reserve {
    pub fn new(count: u32) -> Reserve {
        let waiting = || Box::new(std::array::from_fn(|_| List::EMPTY));
        Reserve { count, waiting: (count > 0).then(waiting) }
    }

    /// Calls that one worker may hold: with a reserve one, so that a worker which is free holds none.
    pub fn depth_max(&self) -> u32 {
        if self.count > 0 { 1 } else { u32::MAX }
    }

    /// No more than those that are kept are free.
    #[inline]
    pub fn is_reached(&self, free: usize) -> bool {
        free <= self.count as usize
    }

    /// Whether a call at this depth may take one of the workers that are free.
    pub fn lets(&self, depth: u8, free: usize) -> bool {
        free > (self.count as usize).saturating_sub(depth.into())
    }

    /// The nested call whose turn it is when the reserve is reached.
    #[cold]
    pub fn turn(&self, free: usize) -> Option<u32> {
        let waiting = self.waiting.as_ref()?;
        let deepest_first = (1..=DEPTH_MAX).rev().take_while(|depth| self.lets(*depth, free));
        deepest_first.filter_map(|depth| waiting[usize::from(depth) - 1].front()).next()
    }

    fn list_mut(&mut self, depth: u8) -> Option<&mut List> {
        self.waiting.as_mut()?.get_mut(usize::from(depth.checked_sub(1)?))
    }
}

impl Function {
    /// Nobody that waits may have one of the workers that are free.
    #[inline]
    pub fn is_kept_from_workers(&self) -> bool {
        self.reserve.is_reached(self.warm.len()) && self.reserve.turn(self.warm.len()).is_none()
    }
}

impl Engine {
    /// How deep a call is nested, as far as it is proved.
    pub(crate) fn proved_depth(&self, slot: u32) -> u8 {
        let nested = self.nested_of(self.invocations.id_of(slot)).filter(|nested| nested.is_proved());
        nested.map_or(0, |nested| nested.called_by.depth)
    }

    /// A call stands in a lane of a function with a reserve.
    #[cold]
    pub(crate) fn join_reserve(&mut self, number: u32, slot: u32) {
        let depth = self.proved_depth(slot);
        if slot >= self.reserve_links.capacity() {
            self.reserve_links.grow_to(self.invocations.capacity());
        }
        // One that only changes its lane keeps its place here.
        if !self.reserve_links.is_linked(slot)
            && let Some(list) = self.functions[number as usize].reserve.list_mut(depth)
        {
            list.push_back(&mut self.reserve_links, slot);
        }
    }

    /// It leaves its queue, whichever way.
    #[cold]
    pub(crate) fn leave_reserve(&mut self, number: u32, slot: u32) {
        let depth = self.proved_depth(slot);
        if self.reserve_links.is_linked(slot)
            && let Some(list) = self.functions[number as usize].reserve.list_mut(depth)
        {
            list.remove(&mut self.reserve_links, slot);
        }
    }

    /// A function keeps another number of workers from now on.
    pub(crate) fn set_reserve(&mut self, number: u32, count: u32) {
        let function = &mut self.functions[number as usize];
        if function.reserve.count == count {
            return;
        }
        for list in function.reserve.waiting.iter_mut().flat_map(|waiting| waiting.iter_mut()) {
            while list.pop_front(&mut self.reserve_links).is_some() {}
        }
        function.reserve = Reserve::new(count);
        function.forget_runs(&self.limits);
        let waiting: Vec<_> = function.queue.iter(&self.run_links).map(|(_, slot)| slot).collect();
        if count > 0 {
            waiting.into_iter().for_each(|slot| self.join_reserve(number, slot));
        }
        self.sort_workers(number);
    }

    /// Exactly the nested calls in the queues of functions with a reserve are in its lists, each by its depth.
    pub(crate) fn reserve_invariants(&self) {
        for (number, function) in (0..).zip(&self.functions) {
            let lists = function.reserve.waiting.iter().flat_map(|waiting| waiting.iter());
            for (list, depth) in lists.zip(1..) {
                for slot in list.iter(&self.reserve_links) {
                    let call = self.invocations.at(slot);
                    assert_eq!((call.state, call.function.0), (State::Queued, number), "slot {slot}");
                    assert_eq!(self.proved_depth(slot), depth, "slot {slot}: depth");
                }
            }
            assert!(
                function.reserve.count == 0 || function.run_ahead.depth() == 1,
                "function {number}: depth"
            );
        }
        for (slot, call) in self.invocations.iter().filter(|(_, call)| call.state == State::Queued) {
            let has_reserve = self.functions[call.function.0 as usize].reserve.count > 0;
            let is_listed = slot < self.reserve_links.capacity() && self.reserve_links.is_linked(slot);
            assert_eq!(is_listed, has_reserve && self.proved_depth(slot) > 0, "slot {slot}: in the reserve");
        }
    }
}
