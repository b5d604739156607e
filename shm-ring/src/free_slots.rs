//! Which slots hold no request, and which of them is to be used next.
//!
//! ```text
//!   untouched   5 6 7 8 ... 2 3    taken in front, given back behind: in their order, round and round
//!   touched     0 4                a stack; preferred
//! ```
//!
//! Always: a slot is in at most one of the two, and once its regions have been touched it never returns to the first.
//! Never: allocates after the start.  Why two: see the header of `router_end.rs`.

use std::collections::VecDeque;

use crate::layout::SlotIndex;

pub(crate) struct FreeSlots {
    untouched: VecDeque<SlotIndex>,
    touched: Vec<SlotIndex>,
}

impl FreeSlots {
    /// All slots free and untouched.
    pub(crate) fn all(slot_count: u32) -> Self {
        Self {
            untouched: (0..slot_count).map(SlotIndex).collect(),
            touched: Vec::with_capacity(slot_count as usize),
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> u32 {
        (self.untouched.len() + self.touched.len()) as u32
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<SlotIndex> {
        self.touched.pop().or_else(|| self.untouched.pop_front())
    }

    /// The slot that will be taken after `distance` others, if those are untouched ones.
    #[inline]
    pub(crate) fn peek_untouched(&self, distance: u32) -> Option<SlotIndex> {
        self.untouched.get(distance as usize).copied()
    }

    #[inline]
    pub(crate) fn give_back(&mut self, slot: SlotIndex, has_touched_region: bool) {
        if has_touched_region {
            self.touched.push(slot);
        } else {
            self.untouched.push_back(slot);
        }
    }

    /// All of them, and whether their regions were touched.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotIndex, bool)> + '_ {
        let touched = self.touched.iter().map(|&slot| (slot, true));
        self.untouched.iter().map(|&slot| (slot, false)).chain(touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_round_in_their_order() {
        let mut free = FreeSlots::all(3);
        for slot in [0, 1, 2, 0, 1, 2] {
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
