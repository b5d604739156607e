//! Counts that shards share: how many places of each kind are taken, of as many as there may be.
//!
//! In: a kind and its bound.  Out: a place, or none.
//! Always: however many threads take and give, no count is ever above the bound it was taken under.
//! Never: wakes anybody. Who found no place asks again.
//! Why a compare-exchange loop and not add-then-undo: a count that is above its bound for a moment would refuse a thread
//! that had a place coming to it.  Tests: below, `tests/loom.rs`.

use crate::sync::{AtomicU32, Ordering};

/// Taken places, by kind.
#[derive(Debug)]
pub struct Ledger {
    taken: Box<[AtomicU32]>,
}

impl Ledger {
    /// So many kinds, nothing taken.
    pub fn new(kind_count: usize) -> Ledger {
        Ledger { taken: (0..kind_count).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Takes a place, if fewer than `max` are taken.
    ///
    /// # Panics
    /// If there is no such kind.
    #[inline]
    pub fn try_take(&self, kind: usize, max: u32) -> bool {
        self.take_up_to(kind, 1, max) == 1
    }

    /// Takes as many of `wanted` places as there are below `max`. How many that is.
    ///
    /// # Panics
    /// If there is no such kind.
    #[inline]
    pub fn take_up_to(&self, kind: usize, wanted: u32, max: u32) -> u32 {
        let room = |taken: u32| wanted.min(max.saturating_sub(taken));
        // Relaxed: a place is a number; what it protects is handed over by other means.
        let step = |taken: u32| (room(taken) > 0).then(|| taken + room(taken));
        self.taken[kind].fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).map_or(0, room)
    }

    /// Gives back a place that was taken.
    ///
    /// # Panics
    /// If there is no such kind. In debug builds also if none is taken.
    #[inline]
    pub fn give(&self, kind: usize) {
        self.give_back(kind, 1);
    }

    /// Gives back so many places that were taken.
    ///
    /// # Panics
    /// If there is no such kind. In debug builds also if fewer are taken.
    #[inline]
    pub fn give_back(&self, kind: usize, count: u32) {
        let taken = self.taken[kind].fetch_sub(count, Ordering::Relaxed);
        debug_assert!(taken >= count, "kind {kind}: a place is given back that nobody took");
    }

    /// How many are taken.
    pub fn taken(&self, kind: usize) -> u32 {
        self.taken[kind].load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_than_there_may_be() {
        let ledger = Ledger::new(2);
        assert!(ledger.try_take(0, 2) && ledger.try_take(0, 2));
        assert!(!ledger.try_take(0, 2), "two is the bound");
        assert!(ledger.try_take(1, 1), "another kind has places of its own");
        ledger.give(0);
        assert!(ledger.try_take(0, 2));
        assert_eq!((ledger.taken(0), ledger.taken(1)), (2, 1));
    }

    #[test]
    fn who_wants_several_gets_what_is_left() {
        let ledger = Ledger::new(1);
        assert_eq!(ledger.take_up_to(0, 3, 5), 3);
        assert_eq!(ledger.take_up_to(0, 3, 5), 2);
        assert_eq!(ledger.take_up_to(0, 3, 5), 0);
        assert_eq!(ledger.take_up_to(0, 3, 2), 0, "more are taken than the bound allows by now");
        ledger.give_back(0, 4);
        assert_eq!(ledger.taken(0), 1);
    }

    #[test]
    fn a_bound_that_shrinks_lets_nobody_in_until_enough_have_left() {
        let ledger = Ledger::new(1);
        (0..3).for_each(|_| assert!(ledger.try_take(0, 3)));
        ledger.give(0);
        assert!(!ledger.try_take(0, 2));
        ledger.give(0);
        assert!(ledger.try_take(0, 2));
    }
}
