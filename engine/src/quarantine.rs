//! Poison: a call of which two workers died is given to no third one.
//!
//! In: a call whose worker is lost, and whether that worker ran it.  Out: whether this was the second.
//! Always: only the calls that a dead worker had begun are suspects. Where nobody can tell (its ring cannot be read), none is.
//! Always: what the call was comes to the router with its answer ([`Keep::InQuarantine`](crate::Keep)), for inspection and
//! replay. Never a payload here.
//! Why two: one death may be anybody's, and a third process would hardly tell more. A call that is not idempotent is not
//! tried again after it began, and so never comes here; its caller is told `WorkerLost`.
//! Tests: `tests/retries.rs`.

use crate::Engine;
use crate::deadlines::Started;
use crate::invocation::Marks;

impl Engine {
    /// Notes that a worker died with this call, and answers whether another one had died of it before.
    pub(crate) fn is_poison(&mut self, slot: u32, started: Started) -> bool {
        if started != Started::Yes {
            return false;
        }
        let call = self.invocations.at_mut(slot);
        let is_second = call.marks.has(Marks::LOST_A_WORKER);
        call.marks = call.marks.with(Marks::LOST_A_WORKER, true);
        is_second
    }
}
