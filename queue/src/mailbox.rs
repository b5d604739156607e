//! Mailbox: values for another thread, taken in batches; the other thread is woken only if it said that it sleeps.
//!
//! ```text
//!   pusher                                   owner
//!   put the value in                         say "I sleep"
//!   ── SYNC(mailbox.sleep) SeqCst fence ──   ── SYNC(mailbox.sleep) SeqCst fence ──
//!   does the owner sleep? then wake it       is anything in? then do not sleep
//! ```
//!
//! Each side writes, fences, and then reads what the other wrote. Of the two fences one comes first in their single
//! order, and the side behind the later one sees the other's write: a value is noticed before sleeping, or its pusher
//! wakes the sleeper, or both. A weaker order than `SeqCst` lets both sides read the old state, and a wake is lost.
//!
//! In: values from any thread.  Out: the same values in the order of their pushes, to the owner.
//! Always: a value pushed while the owner sleeps is followed by a wake.
//! Never: wakes an owner that is awake (waking costs about a hundred times a push); allocates after construction.
//! Why a ring here and stacks in the priority queue: one order for all values, and batches taken without reversing.
//! Tests: `tests/stress.rs` with the real ring; `tests/loom.rs` checks the handshake above, with a stand-in for the
//! ring (see `ring`), because loom cannot see into `crossbeam_queue`. The ring itself is crossbeam's to prove.

use std::{collections::VecDeque, fmt};

use crossbeam_utils::CachePadded;

use crate::{
    Full,
    mailbox::ring::Ring,
    sync::{AtomicBool, Ordering, fence},
};

mod ring;

/// How to wake the thread that owns a mailbox.
///
/// The wake must be remembered if it comes before the owner really sleeps (an eventfd, `Thread::unpark`): the owner
/// has only announced that it will.
pub trait Waker: Send + Sync {
    /// Ends the owner's sleep, or the one it is about to begin.
    fn wake(&self);
}

impl<F: Fn() + Send + Sync> Waker for F {
    fn wake(&self) {
        self();
    }
}

/// A bounded queue into one thread. Shared by reference; `push` is for everyone, the rest for the owner.
pub struct Mailbox<T> {
    ring: Ring<T>,
    /// The owner has announced sleep and nobody has woken it since.
    is_asleep: CachePadded<AtomicBool>,
    waker: Box<dyn Waker>,
}

impl<T> Mailbox<T> {
    /// A mailbox for at most `capacity` values whose owner is woken by `waker`.
    ///
    /// # Panics
    /// If the capacity is 0.
    pub fn with_capacity(capacity: usize, waker: impl Waker + 'static) -> Self {
        Self {
            ring: Ring::new(capacity),
            is_asleep: CachePadded::new(AtomicBool::new(false)),
            waker: Box::new(waker),
        }
    }

    /// Puts a value in, and wakes the owner if it sleeps; gives the value back if the mailbox is full.
    #[inline]
    pub fn push(&self, value: T) -> Result<(), Full<T>> {
        self.ring.push(value).map_err(Full)?;
        self.wake_if_asleep();
        Ok(())
    }

    /// Puts in as many values as fit, from the front, for one fence and at most one wake. What stays did not fit.
    /// Returns how many went in.
    pub fn push_batch(&self, values: &mut VecDeque<T>) -> usize {
        let mut count = 0;
        while let Some(value) = values.pop_front() {
            if let Err(refused) = self.ring.push(value) {
                values.push_front(refused);
                break;
            }
            count += 1;
        }
        if count > 0 {
            self.wake_if_asleep();
        }
        count
    }

    /// Hands at most `max` values to `receive`, oldest first. Returns how many there were.
    #[inline]
    pub fn take(&self, max: usize, mut receive: impl FnMut(T)) -> usize {
        for count in 0..max {
            match self.ring.pop() {
                Some(value) => receive(value),
                None => return count,
            }
        }
        max
    }

    /// Says that the owner is about to sleep. `false`: values are waiting, and the owner counts as awake.
    #[must_use = "sleeping on values that wait may be forever"]
    pub fn announce_sleep(&self) -> bool {
        // A swap, as in `wake_if_asleep`: loom knows the one order of all changes only of exchanges, and lets a load
        // see a wake after the announcement that followed it if that is a plain store. Before sleep it costs nothing.
        self.is_asleep.swap(true, Ordering::Relaxed);
        // SYNC(mailbox.sleep): between our announcement and our look into the ring.
        fence(Ordering::SeqCst);
        if self.ring.is_empty() {
            return true;
        }
        self.announce_awake();
        false
    }

    /// Says that the owner is awake, for whatever reason. A wake may still be on its way and end a later sleep early.
    pub fn announce_awake(&self) {
        self.is_asleep.swap(false, Ordering::Relaxed);
    }

    /// Whether nothing is in.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// How many values fit.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    #[inline]
    fn wake_if_asleep(&self) {
        // SYNC(mailbox.sleep): between our value and our look at the announcement.
        fence(Ordering::SeqCst);
        // Looked at before it is swapped: an owner that is awake costs its pushers no write to a shared line.
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
