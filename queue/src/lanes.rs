//! The ordered half of the priority queue: 64 first-in first-out lanes and one word that says which hold something.
//!
//! ```text
//!   occupancy  0b…0010_0100          lowest set bit = most urgent lane that is not empty
//!   lane 2     head ─> 7 ─> 4 ─> 9 <─ tail
//!   lane 5     head ─> 1 <─ tail
//! ```
//!
//! In: an index and the lane it shall wait in.  Out: the index that waited longest in the most urgent lane.
//! Always: bit `n` of `occupancy` is set exactly if lane `n` is not empty; `len` is the sum of all `lens`.
//! Never: moves an index between lanes by itself; the owner removes and pushes when a deadline draws near.
//! Cost: push, pop and remove touch at most three links, however long the queue is.

use crate::{LaneIndex, Links, List};

/// A priority queue of indices with one owner. All its operations want the [`Links`] it was first used with.
#[derive(Clone, Debug)]
pub struct Lanes {
    occupancy: u64,
    len: u32,
    lanes: [List; LaneIndex::COUNT],
    lens: [u32; LaneIndex::COUNT],
}

impl Default for Lanes {
    fn default() -> Self {
        Self::new()
    }
}

impl Lanes {
    /// All lanes empty.
    pub const fn new() -> Self {
        Self {
            occupancy: 0,
            len: 0,
            lanes: [const { List::EMPTY }; LaneIndex::COUNT],
            lens: [0; LaneIndex::COUNT],
        }
    }

    /// Appends an index, which is in no list of this arena, to a lane.
    #[inline]
    pub fn push(&mut self, links: &mut Links, lane: LaneIndex, index: u32) {
        self.lanes[lane.index()].push_back(links, index);
        self.occupancy |= lane.bit();
        self.len += 1;
        self.lens[lane.index()] += 1;
    }

    /// Takes the index that has waited longest in the most urgent lane.
    #[inline]
    pub fn pop(&mut self, links: &mut Links) -> Option<(LaneIndex, u32)> {
        let (lane, index) = self.peek()?;
        self.remove(links, lane, index);
        Some((lane, index))
    }

    /// Takes an index out of the lane it waits in.
    ///
    /// # Panics
    /// If it is in no list. That it is in this lane of this queue is the caller's to know.
    #[inline]
    pub fn remove(&mut self, links: &mut Links, lane: LaneIndex, index: u32) {
        let list = &mut self.lanes[lane.index()];
        list.remove(links, index);
        if list.is_empty() {
            self.occupancy &= !lane.bit();
        }
        self.len -= 1;
        self.lens[lane.index()] -= 1;
    }

    /// What `pop` would return.
    #[inline]
    pub fn peek(&self) -> Option<(LaneIndex, u32)> {
        let lane = self.first_lane()?;
        let index = self.lanes[lane.index()].front()?;
        Some((lane, index))
    }

    /// The most urgent lane that is not empty.
    #[inline]
    pub fn first_lane(&self) -> Option<LaneIndex> {
        LaneIndex::first_of(self.occupancy)
    }

    /// One lane, to look into.
    #[inline]
    pub fn lane(&self, lane: LaneIndex) -> &List {
        &self.lanes[lane.index()]
    }

    /// One bit for each lane that is not empty.
    #[inline]
    pub fn occupancy(&self) -> u64 {
        self.occupancy
    }

    /// How many indices wait, in all lanes.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// How many of them wait in this lane and in those that are more urgent.
    pub fn count_up_to(&self, lane: LaneIndex) -> u32 {
        self.lens[..=lane.index()].iter().sum()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.occupancy == 0
    }

    /// Everything that waits, in the order in which `pop` would return it.
    pub fn iter<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = (LaneIndex, u32)> + 'a {
        self.lanes.iter().enumerate().flat_map(move |(index, list)| {
            let lane = LaneIndex::from_index(index);
            list.iter(links).map(move |index| (lane, index))
        })
    }

    /// Checks what is always true here. Proportional to the length, for tests.
    ///
    /// # Panics
    /// If it is not.
    pub fn invariants(&self, links: &Links) {
        let mut count = 0;
        for (index, list) in self.lanes.iter().enumerate() {
            let is_marked = self.occupancy & LaneIndex::from_index(index).bit() != 0;
            assert_eq!(is_marked, !list.is_empty(), "lane {index}");
            let len = list.invariants(links);
            assert_eq!(len, self.lens[index] as usize, "lane {index}");
            count += len;
        }
        assert_eq!(count, self.len as usize);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
