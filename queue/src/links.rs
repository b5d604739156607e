//! Doubly linked lists over indices: one arena of links, any number of lists through it.
//!
//! ```text
//!   Links   index    0        1        2        3        4
//!           prev   [ NIL ]  [  -  ]  [  0  ]  [ NIL ]  [  2  ]
//!           next   [  2  ]  [  -  ]  [  4  ]  [ NIL ]  [ NIL ]
//!   List a: head 0, tail 4   (0 2 4)        List b: head 3, tail 3   (3)        index 1: in no list
//! ```
//!
//! In and out: `u32` indices of things that live elsewhere (invocations, timers, nodes).
//! Always: an index is in at most one list of its arena; something that must be in two lists at once has two arenas.
//! Never: allocates, except in `with_capacity` and `grow_to`.
//! Why indices: links of half the size of pointers, nothing to dangle, and no unsafe code.
//! Misuse (an index out of range, linked twice, removed while unlinked) is our bug and panics.

/// No index: the end of a list. Therefore an arena holds fewer than `u32::MAX - 1` links.
pub const NIL: u32 = u32::MAX;

/// In `Link::prev`: this index is in no list.
const UNLINKED: u32 = NIL - 1;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    const FREE: Self = Self { prev: UNLINKED, next: UNLINKED };
}

/// The arena: for each index, its neighbours in the list it is in.
#[derive(Clone, Debug)]
pub struct Links {
    links: Vec<Link>,
}

impl Links {
    /// An arena for the indices `0..capacity`, all in no list.
    ///
    /// # Panics
    /// If the capacity leaves no room for the two reserved indices.
    pub fn with_capacity(capacity: u32) -> Self {
        let mut links = Self { links: Vec::new() };
        links.grow_to(capacity);
        links
    }

    /// Makes room for the indices `0..capacity`; never shrinks. Lists stay as they are.
    ///
    /// # Panics
    /// If the capacity leaves no room for the two reserved indices.
    pub fn grow_to(&mut self, capacity: u32) {
        assert!(capacity <= UNLINKED, "indices {UNLINKED} and {NIL} are reserved");
        if capacity > self.capacity() {
            self.links.resize(capacity as usize, Link::FREE);
        }
    }

    /// Indices below this one may be linked.
    #[inline]
    pub fn capacity(&self) -> u32 {
        // Never truncates: `grow_to` bounds the length.
        self.links.len() as u32
    }

    /// Whether the index is in a list.
    #[inline]
    pub fn is_linked(&self, index: u32) -> bool {
        self.links[index as usize].prev != UNLINKED
    }

    /// The index behind this one in its list.
    #[inline]
    pub fn next(&self, index: u32) -> Option<u32> {
        assert!(self.is_linked(index), "index {index} is in no list");
        some_index(self.links[index as usize].next)
    }
}

/// One first-in first-out list through a [`Links`] arena. Eight bytes; every call must bring the same arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl List {
    /// The empty list, as a constant so that arrays of lists can be written.
    pub const EMPTY: Self = Self { head: NIL, tail: NIL };

    /// Whether nothing is in the list.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// The index that `pop_front` would return.
    #[inline]
    pub fn front(&self) -> Option<u32> {
        some_index(self.head)
    }

    /// The index that was pushed last.
    #[inline]
    pub fn back(&self) -> Option<u32> {
        some_index(self.tail)
    }

    /// Appends an index that is in no list.
    #[inline]
    pub fn push_back(&mut self, links: &mut Links, index: u32) {
        let link = &mut links.links[index as usize];
        assert!(link.prev == UNLINKED, "index {index} is already in a list");
        *link = Link { prev: self.tail, next: NIL };
        match self.tail {
            NIL => self.head = index,
            tail => links.links[tail as usize].next = index,
        }
        self.tail = index;
    }

    /// Takes the index that was pushed first.
    #[inline]
    pub fn pop_front(&mut self, links: &mut Links) -> Option<u32> {
        let index = some_index(self.head)?;
        self.remove(links, index);
        Some(index)
    }

    /// Takes an index out of the middle, wherever it is. It must be in this very list: of another list only the ends
    /// can be told apart.
    #[inline]
    pub fn remove(&mut self, links: &mut Links, index: u32) {
        let Link { prev, next } = std::mem::replace(&mut links.links[index as usize], Link::FREE);
        assert!(prev != UNLINKED, "index {index} is in no list");
        match prev {
            NIL => {
                assert!(self.head == index, "index {index} is the head of another list");
                self.head = next;
            }
            prev => links.links[prev as usize].next = next,
        }
        match next {
            NIL => {
                assert!(self.tail == index, "index {index} is the tail of another list");
                self.tail = prev;
            }
            next => links.links[next as usize].prev = prev,
        }
    }

    /// The indices from front to back.
    pub fn iter<'a>(&self, links: &'a Links) -> impl Iterator<Item = u32> + use<'a> {
        std::iter::successors(self.front(), |&index| links.next(index))
    }

    /// Checks that walking forwards and backwards agree; returns the length. Proportional to the length, for tests.
    ///
    /// # Panics
    /// If the list is broken.
    pub fn invariants(&self, links: &Links) -> usize {
        assert_eq!(self.head == NIL, self.tail == NIL);
        let (mut count, mut prev) = (0, NIL);
        for index in self.iter(links) {
            assert_eq!(links.links[index as usize].prev, prev);
            assert!(count < links.links.len(), "the list bites its tail");
            (count, prev) = (count + 1, index);
        }
        assert_eq!(self.tail, prev);
        count
    }
}

#[inline]
fn some_index(index: u32) -> Option<u32> {
    match index {
        NIL => None,
        index => Some(index),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
