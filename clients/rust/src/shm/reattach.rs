//! The next router: which calls the last one took along, and a ring at the one that comes after it.
//!
//! In: a client whose router is gone.  Out: the calls without an answer, then another client, or why there is none.
//! Always: attempts are spaced as in [`Client`](crate::Client) (`backoff.rs`), so that a restarted router is not met by all of
//! its clients at once. Function numbers are the router's own: resolve again.
//! Why the client is consumed: an [`Answered`](super::Answered) of the old ring that is still held would otherwise be given
//! back to the new one.

use std::thread;
use std::time::{Duration, Instant};

use super::attachment::try_attach;
use super::{ShmClient, SlotIndex};
use crate::backoff::Backoff;
use crate::error::ConnectError;

impl ShmClient {
    /// Slot and call id of each call that was submitted and not answered. Once the router is gone, these never will be: each
    /// ended as [`CallError::Disconnected`](crate::CallError::Disconnected), and may have run.
    pub fn unanswered(&self) -> impl Iterator<Item = (SlotIndex, u64)> + '_ {
        let in_ring = self.ring.unanswered().map(|(slot, call_id)| (self.name_of(slot), call_id));
        in_ring.chain(self.lane.iter().flat_map(|lane| lane.unanswered()))
    }

    /// Attaches to the router that comes next in the same run directory, with the same [`Options`](super::Options), trying again
    /// for as long as `within`. What this client still had outstanding is cancelled, if its router lives.
    ///
    /// # Errors
    /// If there was no router in all this time: why the last attempt failed.
    pub fn reattach(self, within: Duration) -> Result<Self, ConnectError> {
        let (run_dir, options) = (self.aside.run_dir.clone(), self.aside.options.clone());
        drop(self);
        let give_up_at = Instant::now().checked_add(within);
        let mut backoff = Backoff::new();
        loop {
            let failed = match try_attach(&run_dir, &options) {
                Ok(client) => return Ok(client),
                Err(failed) => failed,
            };
            let delay = backoff.next_delay();
            if give_up_at.is_some_and(|at| Instant::now() + delay >= at) {
                return Err(failed.at(&run_dir));
            }
            thread::sleep(delay);
        }
    }
}
