//! The calls in one worker's ring, oldest first.
//!
//! ```text
//!   front ▶ 7  (9)  4  (2)  8 ◀ back        (in brackets: given back out of turn, passed over)
//! ```
//!
//! In: the id of each call pushed, and of each given back.  Out: for the rare looks at a whole ring (deadlines, a
//! stall, a death) what it still holds, in the order of its pushes.
//! Always: a worker that answers in order keeps this exact; one that does not leaves ids behind that are passed over,
//! at most as many as its ring has slots, because a full list is swept.
//! Never: allocates after `reserve`: every call of every function comes through here.
//! Why not a doubly linked list: unlinking touches three links, and nearly every call is the first of its list.

use std::collections::VecDeque;

use crate::invocation::InvocationId;
use crate::slab::Slab;

#[derive(Debug, Default)]
pub(crate) struct Held {
    ids: VecDeque<InvocationId>,
}

impl Held {
    /// Makes room for the calls of a ring with so many slots.
    pub fn reserve(&mut self, slots: u32) {
        self.ids.clear();
        self.ids.reserve(2 * slots as usize);
    }

    /// The worker `index` was given a call.
    #[inline]
    pub fn push(&mut self, id: InvocationId, index: u32, invocations: &Slab) {
        if self.ids.len() == self.ids.capacity() {
            self.sweep(index, invocations);
        }
        self.ids.push_back(id);
    }

    /// The worker gave a call back.
    #[inline]
    pub fn remove(&mut self, id: InvocationId) {
        if self.ids.front() == Some(&id) {
            self.ids.pop_front();
        }
    }

    /// The slots of the calls that the worker `index` still holds.
    pub fn iter<'a>(&'a self, index: u32, invocations: &'a Slab) -> impl Iterator<Item = u32> + 'a {
        self.ids.iter().filter_map(move |id| slot_held(*id, index, invocations))
    }

    /// The n-th id, for a walk during which calls end. It may have been given back.
    pub fn at(&self, position: usize) -> Option<InvocationId> {
        self.ids.get(position).copied()
    }

    /// Forgets ids that were given back out of turn.
    #[cold]
    fn sweep(&mut self, index: u32, invocations: &Slab) {
        self.ids.retain(|id| slot_held(*id, index, invocations).is_some());
    }
}

/// The slot of a call, if the worker `index` holds it. A call comes to one worker once, so its id cannot mean two.
#[inline]
pub(crate) fn slot_held(id: InvocationId, index: u32, invocations: &Slab) -> Option<u32> {
    let slot = invocations.slot_of(id)?;
    let invocation = invocations.at(slot);
    (invocation.state.is_held() && invocation.worker == index).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::{Event, ShardId};

    const WORKER: u32 = 3;

    /// A call that the worker holds.
    fn push(held: &mut Held, slab: &mut Slab) -> u32 {
        let slot = slab.claim().expect("room");
        let invocation = slab.at_mut(slot);
        invocation.on(Event::Admit);
        invocation.on(Event::Push);
        invocation.worker = WORKER;
        held.push(slab.id_of(slot), WORKER, slab);
        slot
    }

    fn give_back(held: &mut Held, slab: &mut Slab, slot: u32) {
        held.remove(slab.id_of(slot));
        slab.at_mut(slot).on(Event::Complete);
        slab.release(slot);
    }

    #[test]
    fn calls_given_back_out_of_turn_are_passed_over() {
        let (mut held, mut slab) = (Held::default(), Slab::new(ShardId(0), 16));
        held.reserve(4);
        let slots: Vec<u32> = (0..4).map(|_| push(&mut held, &mut slab)).collect();
        give_back(&mut held, &mut slab, slots[2]);
        give_back(&mut held, &mut slab, slots[0]);
        assert_eq!(held.iter(WORKER, &slab).collect::<Vec<_>>(), [slots[1], slots[3]]);
        assert_eq!(held.iter(WORKER + 1, &slab).count(), 0, "another worker holds none of them");
    }

    #[test]
    fn a_stuck_first_call_makes_the_list_no_longer_than_twice_the_ring() {
        let (mut held, mut slab) = (Held::default(), Slab::new(ShardId(0), 16));
        held.reserve(4);
        let room = held.ids.capacity();
        let stuck = push(&mut held, &mut slab);
        for _ in 0..1_000 {
            let quick = push(&mut held, &mut slab);
            give_back(&mut held, &mut slab, quick);
        }
        assert_eq!(held.ids.capacity(), room, "nothing was allocated");
        assert_eq!(held.iter(WORKER, &slab).collect::<Vec<_>>(), [stuck]);
    }
}
