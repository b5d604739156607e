//! The nodes of the lock-free half: a fixed number of them, handed out and taken back by any thread.
//!
//! ```text
//!   claim (any producer)     inbox lane         private lanes      release (consumer)
//!   free ────────────> owned ─────────> published ────────> owned ─────────────────> free
//!                      by the producer            by the consumer
//! ```
//!
//! The free nodes form a stack through `next`. Its head is one word, `tag << 32 | index`: every claim raises the tag,
//! so that a producer that read `head` and `next`, slept, and finds the same index on top again still fails its
//! exchange (the ABA problem). The tag comes round after 2^32 claims within one producer's two instructions.
//!
//! Always: a node is with exactly one of {free stack, a producer, an inbox lane, the consumer}; only with a producer
//! or the consumer is its value touched.
//! Never: allocates after `with_capacity`, blocks, or lets a stalled thread hold up another.
//! Why not `crossbeam_queue::ArrayQueue` for the free nodes: loom cannot see into it, and a producer that stalls in
//! the middle of its push or pop makes the slot behind it wait.

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use crate::{
    NIL,
    sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell},
};

pub(crate) struct Pool<T> {
    /// Top of the free stack. Alone on its cache line: every push and every pop of any thread writes it.
    free: CachePadded<AtomicU64>,
    nodes: Box<[Node<T>]>,
}

struct Node<T> {
    /// The node below, in whichever stack this node is in.
    next: AtomicU32,
    /// Initialised from `write` to `take`.
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the hazard is two threads in one `value` at once, or a `T` that must not change threads. Values are reached
// only through `write` and `take`, whose contract is that the caller owns the node; and they are moved from thread to
// thread, never shared, for which `T: Send` is what is needed.
unsafe impl<T: Send> Sync for Pool<T> {}

/// The word at the top of the free stack.
#[derive(Clone, Copy)]
struct Top {
    tag: u32,
    index: u32,
}

impl Top {
    fn from_word(word: u64) -> Self {
        Self { tag: (word >> 32) as u32, index: word as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.tag) << 32 | u64::from(self.index)
    }
}

impl<T> Pool<T> {
    pub(crate) fn with_capacity(capacity: u32) -> Self {
        assert!(capacity > 0, "a queue for nothing");
        assert!(capacity < NIL);
        let node = |index: u32| Node {
            next: AtomicU32::new(if index + 1 < capacity { index + 1 } else { NIL }),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        };
        Self {
            free: CachePadded::new(AtomicU64::new(Top { tag: 0, index: 0 }.word())),
            nodes: (0..capacity).map(node).collect(),
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// A free node; it is now the caller's.
    #[inline]
    pub(crate) fn claim(&self) -> Option<u32> {
        // SYNC(pool.free) Acquire: `next` of the node on top is at least as new as its arrival there.
        let mut word = self.free.load(Ordering::Acquire);
        loop {
            let top = Top::from_word(word);
            if top.index == NIL {
                return None;
            }
            // Another thread may own this node by now and `next` may be anything; the tag then differs.
            let below = self.next(top.index);
            let claimed = Top { tag: top.tag.wrapping_add(1), index: below }.word();
            // SYNC(pool.free) Acquire: whoever released the node has finished reading its value. A claim in between
            // hands this on, because an exchange continues the release sequence it read from.
            match self.free.compare_exchange_weak(word, claimed, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(top.index),
                Err(newer) => word = newer,
            }
        }
    }

    /// Gives a node back. It must be the caller's, and hold no value any more.
    #[inline]
    pub(crate) fn release(&self, index: u32) {
        let mut word = self.free.load(Ordering::Relaxed);
        loop {
            let top = Top::from_word(word);
            self.set_next(index, top.index);
            let released = Top { tag: top.tag, index }.word();
            // SYNC(pool.free) Release: publishes `next`, and that the value has been read.
            match self.free.compare_exchange_weak(word, released, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// The node below this one. Orders nothing: the word that led here did.
    #[inline]
    pub(crate) fn next(&self, index: u32) -> u32 {
        self.nodes[index as usize].next.load(Ordering::Relaxed)
    }

    /// Links a node the caller owns. Orders nothing: the word that publishes it will.
    #[inline]
    pub(crate) fn set_next(&self, index: u32, below: u32) {
        self.nodes[index as usize].next.store(below, Ordering::Relaxed);
    }

    /// Puts a value into a node.
    ///
    /// # Safety
    /// The caller owns the node. (A value already in it would be forgotten, which is a leak but not unsound.)
    #[inline]
    pub(crate) unsafe fn write(&self, index: u32, value: T) {
        self.nodes[index as usize].value.with_mut(|cell| {
            // SAFETY: the hazard is another thread in the same cell. By contract the node is the caller's alone.
            unsafe { (*cell).write(value) };
        });
    }

    /// Moves the value out of a node.
    ///
    /// # Safety
    /// The caller owns the node, and its value was written after the last `take` by somebody whose write happened
    /// before this call.
    #[inline]
    pub(crate) unsafe fn take(&self, index: u32) -> T {
        self.nodes[index as usize].value.with_mut(|cell| {
            // SAFETY: the hazards are another thread in the same cell, a value never written, and a value taken twice;
            // the contract rules out each of the three by name.
            unsafe { (*cell).assume_init_read() }
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_claimed_once_and_comes_back() {
        let pool = Pool::<()>::with_capacity(3);
        let mut claimed: Vec<_> = std::iter::from_fn(|| pool.claim()).collect();
        assert_eq!(claimed, [0, 1, 2]);
        assert_eq!(pool.claim(), None);
        claimed.iter().for_each(|&index| pool.release(index));
        claimed.reverse();
        assert_eq!(std::iter::from_fn(|| pool.claim()).collect::<Vec<_>>(), claimed);
    }

    #[test]
    fn the_same_node_on_top_again_is_told_apart_by_its_tag() {
        let pool = Pool::<()>::with_capacity(2);
        let before = pool.free.load(Ordering::Relaxed);
        let index = pool.claim().unwrap();
        pool.release(index);
        let after = pool.free.load(Ordering::Relaxed);
        assert_eq!(Top::from_word(after).index, Top::from_word(before).index);
        assert_ne!(after, before);
    }
}
