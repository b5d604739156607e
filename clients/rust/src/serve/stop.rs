//! Ends serving from within the process, from any of its threads: what a function does at SIGTERM, so that it can tidy up.
//!
//! In: [`Stop::stop`].  Out: [`serve_until`](super::serve_until) returns after the call that it runs.
//! Always: what was sent and not begun goes to another process, as if this one had died.
//! Always: a loop that sleeps on its ring is woken, also when it was only just about to sleep (`watcher.rs`).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::watcher::Teller;

/// Ends serving. Clones are the same.
#[derive(Clone, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_asked: AtomicBool,
    /// Wakes the loop that serves now.
    teller: Mutex<Option<Teller>>,
}

impl Stop {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end. On another thread than the one that serves, waits for the call that runs. For good: what serves with this
    /// again ends at once. Not for signal handlers: it takes a lock.
    pub fn stop(&self) {
        self.shared.is_asked.store(true, Ordering::Release);
        let teller = self.lock().clone();
        if let Some(teller) = teller {
            teller.tell();
        }
    }

    /// Somebody has asked.
    pub fn is_asked(&self) -> bool {
        self.shared.is_asked.load(Ordering::Acquire)
    }

    /// From now on this loop is woken. To be called before it looks at [`Stop::is_asked`] for the first time.
    pub(super) fn wakes(&self, teller: Teller) {
        *self.lock() = Some(teller);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Teller>> {
        self.shared.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("is_asked", &self.is_asked()).finish_non_exhaustive()
    }
}
