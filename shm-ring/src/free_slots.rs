//! Which slots hold no request, and which of them is to be used next.
//!
//! ```text
//!   round    5 6 7 8 ... 2 3    taken in front, given back behind; as many as were lately in use at once, and SPARE more
//!   rested   9 10 11 ...        a stack: taken when the round gets short, and filled from it when most of it was free for a whole lap
//!   touched  0 4                a stack; preferred to both
//! ```
//!
//! Always: a slot is in at most one of the three, and once its regions have been touched it is never in the first two again.
//! Always: between its return and its next use a slot waits for [`SPARE`] others, if there are so many: time to fetch its lines from
//! the other side's cache.
//! Never: allocates after the start.
//! Why a round: see the header of `router_end.rs`. Why no longer than needed: each slot is six cache lines of two processes. A hundred
//! workers with rings of 1,024 slots, of which each has ten calls at a time, would otherwise walk through 40 MB again and again, and
//! find each line cold.

use crate::access::PREFETCH_DISTANCE;
use crate::layout::SlotIndex;

/// Free slots that are left in the round before one that rests is used: what is fetched ahead, twice.
const SPARE: u32 = 2 * PREFETCH_DISTANCE;

pub(crate) struct FreeSlots {
    /// As many places as there are slots, a power of two; those from `head` to `tail`, modulo their number, are used.
    round: Box<[SlotIndex]>,
    head: u32,
    tail: u32,
    /// Where `head` was when this lap began.
    lap_start: u32,
    /// The fewest that were free at once in this lap, as far as it was looked at.
    free_min: u32,
    rested: Vec<SlotIndex>,
    touched: Vec<SlotIndex>,
}

impl FreeSlots {
    /// All slots free and untouched.
    pub(crate) fn all(slot_count: u32) -> Self {
        assert!(slot_count.is_power_of_two(), "cursors are brought into range with a mask");
        Self {
            round: (0..slot_count).map(SlotIndex).collect(),
            head: 0,
            tail: 0,
            lap_start: 0,
            free_min: 0,
            // Reversed, so that the lowest is used first.
            rested: (0..slot_count).rev().map(SlotIndex).collect(),
            touched: Vec::with_capacity(slot_count as usize),
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> u32 {
        self.round_count() + self.rested.len() as u32 + self.touched.len() as u32
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<SlotIndex> {
        if let Some(slot) = self.touched.pop() {
            return Some(slot);
        }
        let free = self.round_count();
        if free <= SPARE {
            if let Some(slot) = self.rested.pop() {
                return Some(slot);
            }
            if free == 0 {
                return None;
            }
        }
        let slot = self.at(0)?;
        self.head = self.head.wrapping_add(1);
        Some(slot)
    }

    /// The slot that will be taken after [`PREFETCH_DISTANCE`] others; where there are not so many, some slot. For hints only.
    #[inline]
    pub(crate) fn next_but_some(&self) -> Option<SlotIndex> {
        self.at(PREFETCH_DISTANCE)
    }

    /// Looks whether the round is much longer than it has to be. To be called now and then, when many slots are in use.
    #[inline]
    pub(crate) fn look(&mut self) {
        self.free_min = self.free_min.min(self.round_count());
        let used = self.round.len() - self.rested.len() - self.touched.len();
        if self.head.wrapping_sub(self.lap_start) as usize > used {
            self.end_lap();
        }
    }

    #[inline]
    pub(crate) fn give_back(&mut self, slot: SlotIndex, has_touched_region: bool) {
        if has_touched_region {
            self.touched.push(slot);
        } else {
            // There is room: a slot is given back only after it was taken.
            let place = self.place(self.tail);
            self.round[place] = slot;
            self.tail = self.tail.wrapping_add(1);
        }
    }

    /// Rests half of what was free all the time, if that was most of the round: where the number of calls goes up and down, slots that
    /// come and go would be used out of their order, which what is fetched ahead depends on.
    #[cold]
    fn end_lap(&mut self) {
        let used = self.round.len() - self.rested.len() - self.touched.len();
        if self.free_min as usize * 4 > used * 3 {
            let surplus = (self.free_min / 2).min(self.free_min.saturating_sub(SPARE));
            // Those that were given back longest ago, and of them the first on top.
            let surplus = surplus.min(self.round_count());
            for distance in (0..surplus).rev() {
                self.rested.extend(self.at(distance));
            }
            self.head = self.head.wrapping_add(surplus);
        }
        self.free_min = u32::MAX;
        self.lap_start = self.head;
    }

    /// All of them, and whether their regions were touched.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotIndex, bool)> + '_ {
        let round = (0..self.round_count()).filter_map(|distance| self.at(distance));
        let untouched = round.chain(self.rested.iter().copied());
        untouched.map(|slot| (slot, false)).chain(self.touched.iter().map(|&slot| (slot, true)))
    }

    #[inline]
    fn round_count(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// The slot in this place of the round, if it is so long.
    #[inline]
    fn at(&self, distance: u32) -> Option<SlotIndex> {
        self.round.get(self.place(self.head.wrapping_add(distance))).copied()
    }

    #[inline]
    fn place(&self, cursor: u32) -> usize {
        cursor as usize & (self.round.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use super::*;

    /// Keeps `in_use` calls in flight, answered in their order, for so many calls; gives the slots that were used.
    fn run(free: &mut FreeSlots, in_use: usize, calls: usize) -> BTreeSet<SlotIndex> {
        let (mut held, mut used) = (VecDeque::new(), BTreeSet::new());
        for _ in 0..calls {
            let slot = free.take().expect("there are more slots than calls");
            assert!(!held.contains(&slot), "{slot} is in use");
            used.insert(slot);
            held.push_back(slot);
            if held.len() == in_use {
                free.look();
                held.drain(..).for_each(|slot| free.give_back(slot, false));
            }
        }
        held.drain(..).for_each(|slot| free.give_back(slot, false));
        used
    }

    #[test]
    fn slots_go_round_in_their_order() {
        let mut free = FreeSlots::all(4);
        for slot in [0, 1, 2, 3, 0, 1, 2, 3] {
            assert_eq!(free.take(), Some(SlotIndex(slot)));
            free.give_back(SlotIndex(slot), false);
        }
    }

    #[test]
    fn no_more_slots_are_used_than_calls_at_once_and_a_few() {
        let mut free = FreeSlots::all(1024);
        let used = run(&mut free, 10, 10_000);
        assert!(used.len() <= 10 + SPARE as usize + 1, "{} slots for 10 calls at once", used.len());
        assert_eq!(free.count(), 1024);
    }

    #[test]
    fn after_a_burst_the_round_becomes_short_again() {
        let mut free = FreeSlots::all(1024);
        assert_eq!(run(&mut free, 1024, 1024).len(), 1024);
        run(&mut free, 10, 4096);
        let used = run(&mut free, 10, 10_000);
        assert!(used.len() <= 10 + 2 * SPARE as usize, "{} slots for 10 calls at once", used.len());
        // And all of them are still there.
        assert_eq!(run(&mut free, 1024, 1024).len(), 1024);
        assert_eq!(free.take().map(|_| free.count()), Some(1023));
    }

    #[test]
    fn each_slot_is_free_once_whatever_happens() {
        let mut free = FreeSlots::all(64);
        let mut held: Vec<SlotIndex> = Vec::new();
        let mut state = 1_u32;
        for _ in 0..100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (wanted, which) = ((state >> 8) % 80, (state >> 16) as usize);
            if which.is_multiple_of(3) {
                free.look();
            }
            if held.len() < wanted as usize {
                match free.take() {
                    Some(slot) => held.push(slot),
                    None => assert_eq!(held.len(), 64),
                }
            } else if !held.is_empty() {
                let slot = held.swap_remove(which % held.len());
                free.give_back(slot, slot.0.is_multiple_of(7));
            }
            let mut all: Vec<SlotIndex> =
                free.iter().map(|(slot, _)| slot).chain(held.iter().copied()).collect();
            all.sort();
            assert_eq!(all, (0..64).map(SlotIndex).collect::<Vec<_>>());
            assert_eq!(free.count() as usize, 64 - held.len());
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
    }
}
