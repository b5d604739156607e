//! When the calls of a function come that is kept warm by what they were like.
//!
//! In: each call that is admitted, of functions with [`Checks::LEARNING`] alone.  Out: what `warming.rs` is told.
//! Always: an idle time ends with the first call after it, and begins with the last result before it. Which that was is seen when it
//! matters, and not at each result: by an arrival, or by a look at the pool.
//! Never: sees calls that go past the engine: no worker of such a function is lent to a client.

use super::Pool;
use crate::Engine;
use crate::policy::Checks;
use crate::time::Nanos;
use crate::worker::Worker;

impl Pool {
    /// A call arrives. `last_end` is as for [`Pool::plan`]; none is also of who has no instances. True: whatever was planned for this idle
    /// time has to be thought over.
    fn on_arrival(&mut self, now: Nanos, last_end: Option<Nanos>) -> bool {
        let was_planned = self.idle_since.take().is_some();
        if let (false, Some(last_end)) = (was_planned, last_end) {
            self.warming.on_idle(last_end);
        }
        self.warming.on_arrival(now);
        was_planned
    }
}

impl Engine {
    /// A call of a function was admitted, and stands nowhere yet.
    #[inline]
    pub(crate) fn note_arrival(&mut self, now: Nanos, number: u32) {
        if self.functions[number as usize].checks.has(Checks::LEARNING) {
            self.learn_arrival(now, number);
        }
    }

    #[inline(never)]
    fn learn_arrival(&mut self, now: Nanos, number: u32) {
        let last_end = self.last_end(number);
        if let Some(pool) = &mut self.functions[number as usize].pool
            && pool.on_arrival(now, last_end)
        {
            self.note_pool(number);
        }
    }

    /// Since when all instances of a function do nothing; none if one does something, calls wait, or there is none.
    pub(super) fn last_end(&self, number: u32) -> Option<Nanos> {
        let function = &self.functions[number as usize];
        let members = || function.members.iter().map(|index| &self.workers[*index as usize]);
        let is_idle = function.queue.is_empty() && members().all(|worker| worker.held_count() == 0);
        members().map(|worker: &Worker| worker.progress_at).max().filter(|_| is_idle)
    }
}
