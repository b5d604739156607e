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
        // Relaxed: a place is a number; what it protects is handed over by other means.
        let step = |taken: u32| (taken < max).then_some(taken + 1);
        self.taken[kind].fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// Gives back a place that was taken.
    ///
    /// # Panics
    /// If there is no such kind. In debug builds also if none is taken.
    #[inline]
    pub fn give(&self, kind: usize) {
        let taken = self.taken[kind].fetch_sub(1, Ordering::Relaxed);
        debug_assert!(taken > 0, "kind {kind}: a place is given back that nobody took");
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
    fn a_bound_that_shrinks_lets_nobody_in_until_enough_have_left() {
        let ledger = Ledger::new(1);
        (0..3).for_each(|_| assert!(ledger.try_take(0, 3)));
        ledger.give(0);
        assert!(!ledger.try_take(0, 2));
        ledger.give(0);
        assert!(ledger.try_take(0, 2));
    }
}
