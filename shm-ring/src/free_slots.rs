//! Which slots hold no request, and which of them is to be used next.
//!
//! ```text
//!   untouched   5 6 7 8 ... 2 3    taken in front, given back behind: in their order, round and round
//!   touched     0 4                a stack; preferred
//! ```
//!
//! Always: a slot is in at most one of the two, and once its regions have been touched it never returns to the first.
//! Never: allocates after the start.  Why two: see the header of `router_end.rs`.

use crate::layout::SlotIndex;

pub(crate) struct FreeSlots {
    /// As many places as there are slots, a power of two; those from `head` to `tail`, modulo their number, are used.
    untouched: Box<[SlotIndex]>,
    head: u32,
    tail: u32,
    touched: Vec<SlotIndex>,
}

impl FreeSlots {
    /// All slots free and untouched.
    pub(crate) fn all(slot_count: u32) -> Self {
        assert!(slot_count.is_power_of_two(), "cursors are brought into range with a mask");
        Self {
            untouched: (0..slot_count).map(SlotIndex).collect(),
            head: 0,
            tail: slot_count,
            touched: Vec::with_capacity(slot_count as usize),
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.untouched_count() + self.touched.len() as u32
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<SlotIndex> {
        if let Some(slot) = self.touched.pop() {
            return Some(slot);
        }
        let slot = self.peek_untouched(0)?;
        self.head = self.head.wrapping_add(1);
        Some(slot)
    }

    /// The slot that will be taken after `distance` others, if those are untouched ones.
    #[inline]
    pub(crate) fn peek_untouched(&self, distance: u32) -> Option<SlotIndex> {
        if self.untouched_count() <= distance {
            return None;
        }
        self.untouched.get(self.place(self.head.wrapping_add(distance))).copied()
    }

    #[inline]
    pub(crate) fn give_back(&mut self, slot: SlotIndex, has_touched_region: bool) {
        if has_touched_region {
            self.touched.push(slot);
        } else {
            // There is room: a slot is given back only after it was taken.
            let place = self.place(self.tail);
            self.untouched[place] = slot;
            self.tail = self.tail.wrapping_add(1);
        }
    }

    /// All of them, and whether their regions were touched.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotIndex, bool)> + '_ {
        let untouched = (0..self.untouched_count()).filter_map(|distance| self.peek_untouched(distance));
        untouched.map(|slot| (slot, false)).chain(self.touched.iter().map(|&slot| (slot, true)))
    }

    #[inline]
    fn untouched_count(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    #[inline]
    fn place(&self, cursor: u32) -> usize {
        cursor as usize & (self.untouched.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_round_in_their_order() {
        let mut free = FreeSlots::all(4);
        for slot in [0, 1, 2, 3, 0, 1, 2, 3] {
            assert_eq!(free.take(), Some(SlotIndex(slot)));
            free.give_back(SlotIndex(slot), false);
        }
    }

    #[test]
    fn a_slot_with_a_touched_region_is_used_again_before_another_is_touched() {
        let mut free = FreeSlots::all(4);
        let first = free.take().unwrap();
        free.give_back(first, true);
        for _ in 0..10 {
            assert_eq!(free.take(), Some(first));
            free.give_back(first, true);
        }
        assert_eq!(free.take(), Some(first));
        assert_eq!(free.take(), Some(SlotIndex(1)), "two at once need a second one");
        assert_eq!(free.count(), 2);
        assert_eq!(free.peek_untouched(1), Some(SlotIndex(3)));
    }
}
