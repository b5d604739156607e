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
//! Never: allocates after it was made: every call of every function comes through here.
//! Why not a doubly linked list: unlinking touches three links, and nearly every call is the first of its list.

use crate::invocation::InvocationId;
use crate::slab::Slab;

#[derive(Debug, Default)]
pub(crate) struct Held {
    /// A power of two of places, or none; those from `head` to `tail`, modulo their number, are used.
    ids: Box<[InvocationId]>,
    head: u32,
    tail: u32,
}

impl Held {
    /// Empty, with room for the calls of a ring with so many slots.
    pub fn for_slots(slots: u32) -> Held {
        let room = (2 * slots as usize).next_power_of_two();
        Held { ids: vec![InvocationId(0); room].into(), head: 0, tail: 0 }
    }

    /// The worker `index` was given a call.
    #[inline]
    pub fn push(&mut self, id: InvocationId, index: u32, invocations: &Slab) {
        self.make_room(1, index, invocations);
        self.push_into_room(id);
    }

    /// Room for this many calls, which the ring has room for.
    #[inline]
    pub fn make_room(&mut self, count: u32, index: u32, invocations: &Slab) {
        if self.ids.len() - self.len() < count as usize {
            self.sweep(index, invocations);
        }
    }

    /// The worker was given a call, for which there is room.
    #[inline]
    pub fn push_into_room(&mut self, id: InvocationId) {
        let place = self.place(self.tail);
        self.ids[place] = id;
        self.tail = self.tail.wrapping_add(1);
    }

    /// The worker gave a call back.
    #[inline]
    pub fn remove(&mut self, id: InvocationId) {
        if self.at(0) == Some(id) {
            self.head = self.head.wrapping_add(1);
        }
    }

    /// The slots of the calls that the worker `index` still holds.
    pub fn iter<'a>(&'a self, index: u32, invocations: &'a Slab) -> impl Iterator<Item = u32> + 'a {
        (0..self.len()).filter_map(move |position| slot_held(self.at(position)?, index, invocations))
    }

    /// The n-th id, for a walk during which calls end. It may have been given back.
    #[inline]
    pub fn at(&self, position: usize) -> Option<InvocationId> {
        if position >= self.len() {
            return None;
        }
        self.ids.get(self.place(self.head.wrapping_add(position as u32))).copied()
    }

    /// Forgets ids that were given back out of turn. When the list is full there are some: a ring has half as many slots as there
    /// are places.
    #[cold]
    pub fn sweep(&mut self, index: u32, invocations: &Slab) {
        let (head, tail) = (self.head, self.tail);
        self.tail = head;
        for cursor in (0..tail.wrapping_sub(head)).map(|distance| head.wrapping_add(distance)) {
            let id = self.ids[self.place(cursor)];
            if slot_held(id, index, invocations).is_some() {
                let place = self.place(self.tail);
                self.ids[place] = id;
                self.tail = self.tail.wrapping_add(1);
            }
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
    }

    #[inline]
    fn place(&self, cursor: u32) -> usize {
        cursor as usize & self.ids.len().wrapping_sub(1)
    }
}

/// The slot of a call, if the worker `index` holds it. A call that may come to one worker twice is swept out in between, so its
/// id cannot mean two.
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
        let slot = slab.claim().or_else(|| slab.grow()).expect("room");
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
        let (mut held, mut slab) = (Held::for_slots(4), Slab::new(ShardId(0), 16));
        let slots: Vec<u32> = (0..4).map(|_| push(&mut held, &mut slab)).collect();
        give_back(&mut held, &mut slab, slots[2]);
        give_back(&mut held, &mut slab, slots[0]);
        assert_eq!(held.iter(WORKER, &slab).collect::<Vec<_>>(), [slots[1], slots[3]]);
        assert_eq!(held.iter(WORKER + 1, &slab).count(), 0, "another worker holds none of them");
    }

    #[test]
    fn a_stuck_first_call_makes_the_list_no_longer_than_twice_the_ring() {
        let (mut held, mut slab) = (Held::for_slots(4), Slab::new(ShardId(0), 16));
        let stuck = push(&mut held, &mut slab);
        for _ in 0..1_000 {
            let quick = push(&mut held, &mut slab);
            give_back(&mut held, &mut slab, quick);
        }
        assert!(held.len() <= 8);
        assert_eq!(held.iter(WORKER, &slab).collect::<Vec<_>>(), [stuck]);
    }
}
