//! The ring of a mailbox: `crossbeam_queue::ArrayQueue`, or under loom something small with less order than it has.
//!
//! The stand-in moves values under a lock, so loom says nothing about how crossbeam moves them. What it is for is
//! `is_empty`: two relaxed loads outside the lock, which may return old counts unless the fences of the handshake
//! forbid it. `ArrayQueue::is_empty` promises at least as much.

#[cfg(not(loom))]
pub(super) use crossbeam_queue::ArrayQueue as Ring;

#[cfg(loom)]
pub(super) use stand_in::Ring;

#[cfg(loom)]
mod stand_in {
    use std::collections::VecDeque;

    use loom::sync::Mutex;

    use crate::sync::{AtomicU64, Ordering};

    pub(in crate::mailbox) struct Ring<T> {
        values: Mutex<VecDeque<T>>,
        pushed: AtomicU64,
        popped: AtomicU64,
        capacity: usize,
    }

    impl<T> Ring<T> {
        pub(in crate::mailbox) fn new(capacity: usize) -> Self {
            let values = Mutex::new(VecDeque::with_capacity(capacity));
            Self { values, pushed: AtomicU64::new(0), popped: AtomicU64::new(0), capacity }
        }

        pub(in crate::mailbox) fn push(&self, value: T) -> Result<(), T> {
            let mut values = self.values.lock().unwrap();
            if values.len() == self.capacity {
                return Err(value);
            }
            values.push_back(value);
            // Counted under the lock, so that no count is lost.
            self.pushed.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        pub(in crate::mailbox) fn pop(&self) -> Option<T> {
            let mut values = self.values.lock().unwrap();
            let value = values.pop_front()?;
            self.popped.fetch_add(1, Ordering::Relaxed);
            Some(value)
        }

        pub(in crate::mailbox) fn is_empty(&self) -> bool {
            self.popped.load(Ordering::Relaxed) == self.pushed.load(Ordering::Relaxed)
        }

        pub(in crate::mailbox) fn capacity(&self) -> usize {
            self.capacity
        }
    }
}
