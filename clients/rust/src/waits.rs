//! Stage 7 of 8: what a function process shows the router of the calls that it makes.
//!
//! ```text
//!   attached ─▶ "I am this process" ── a nested call is waited for ─▶ "I wait for that one" ── it ended ─▶ "I am this process"
//! ```
//!
//! In: nested calls.  Out: for each a [`WaitToken`]; and that token in the ring, while the thread that serves waits for it.
//! Always: the token is shown before its call is sent, so that who gets the call finds it.
//! Always: only the thread that serves shows that it waits. Another one that waits does not keep it from answering.
//! Never: shows a wait that ends by itself (`wait_timeout`), or a future, beside which the process may do other things.
//! Why: the router ends circles of calls that wait for each other, and believes nobody but the process itself that it waits:
//! docs/decisions/0026-circles-of-waiting.md.  The word: S-68 of docs/spec/shm.md.  Tests: `serve/tests.rs`, `tests/nesting.rs`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ThreadId};

use protocol::WaitToken;
use rustix::rand::GetRandomFlags;
use shm_ring::{Mapped, waits};

/// The calls that one attachment of a function process makes.
pub(crate) struct Waits {
    ring: Arc<Mapped>,
    /// Shown while none of them is waited for.
    process: WaitToken,
    made_count: AtomicU32,
    /// The thread that serves calls.
    serving: ThreadId,
}

impl Waits {
    /// To be made by the thread that serves.
    pub(crate) fn new(ring: Arc<Mapped>) -> io::Result<Waits> {
        // Drawn by the system, here and now. What a process drew before it was copied (`RandomState`'s keys, say) all its copies know.
        let mut secret = [0; 8];
        rustix::rand::getrandom(&mut secret, GetRandomFlags::empty())?;
        let process = WaitToken::of_process(u64::from_ne_bytes(secret));
        waits::show(&*ring, process.bits());
        Ok(Waits { ring, process, made_count: AtomicU32::new(0), serving: thread::current().id() })
    }

    /// For one more call.
    pub(crate) fn next_token(&self) -> WaitToken {
        self.process.of_call(self.made_count.fetch_add(1, Ordering::Relaxed))
    }

    /// Shows that this call is waited for, until what is returned is dropped.
    pub(crate) fn begin(&self, token: WaitToken) -> Waiting<'_> {
        let is_serving = thread::current().id() == self.serving;
        if is_serving {
            waits::show(&*self.ring, token.bits());
        }
        Waiting(is_serving.then_some(self))
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is nobody's business.
        f.debug_struct("Waits").field("made_count", &self.made_count).finish_non_exhaustive()
    }
}

/// See [`Waits::begin`].
#[must_use = "the wait is over when this is dropped"]
pub(crate) struct Waiting<'w>(Option<&'w Waits>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(waits) = self.0 {
            waits::show(&*waits.ring, waits.process.bits());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use shm_ring::Memory;
    use shm_ring::layout::worker_line;

    use super::*;

    #[test]
    fn a_wait_is_shown_while_it_lasts_and_only_that_of_the_thread_that_serves() {
        let (ring, _fd) = Mapped::create("ring", 4096).unwrap();
        let ring = Arc::new(ring);
        let shown = || WaitToken::from_bits(ring.load_u64(worker_line::WAITS_FOR, Relaxed));
        let waits = Waits::new(Arc::clone(&ring)).unwrap();
        assert_eq!(shown().number(), 0, "the process is known, and waits for nothing");

        let (first, second) = (waits.next_token(), waits.next_token());
        assert!(first != second && first.is_same_process(shown()));
        let waiting = waits.begin(second);
        assert_eq!(shown(), second);
        thread::scope(|scope| {
            scope.spawn(|| drop(waits.begin(first)));
        });
        assert_eq!(shown(), second, "another thread keeps nobody from answering");
        drop(waiting);
        assert_eq!(shown().number(), 0);

        let other = Waits::new(Arc::clone(&ring)).unwrap();
        assert!(!other.next_token().is_same_process(first), "another attachment, another secret");
    }
}
