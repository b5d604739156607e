//! Stage 5 of 8 for second attempts: a call that one worker holds goes into another one's ring too.
//!
//! In: the engine's hedges.  Out: requests in slots, published with those of the turn.
//! Owns: one buffer, for the payload on its way from ring to ring.
//! Always: the request is read from the slot of the first attempt, as for a retry: keeping a copy of every call for the few
//! that are hedged would cost each call one.
//! Never: trusts those bytes more than its worker: they go to the same function only, and are cut at the size they were
//! pushed with.
//! Tests: `tests/hedges.rs` of the workspace.

use super::{Workers, manner_of};
use crate::net::Desk;
use crate::payloads::Body;

impl Workers {
    /// Writes every second attempt that the engine wants.
    pub fn push_hedges(&mut self, desk: &mut Desk<'_>) -> usize {
        let mut work = 0;
        while let Some(hedge) = desk.engine.poll_hedge() {
            work += 1;
            let slot = self.ring_slot(hedge.call).expect("a call is hedged while a worker holds it");
            let mut payload = std::mem::take(&mut self.spare);
            payload.clear();
            let seat = self.seat(hedge.holder).expect("a call is hedged while a worker holds it");
            let (manner, extensions) = manner_of(&seat.ring.read_request(slot, &mut payload));
            let body = Body { extensions: &extensions, payload: &payload };
            self.push_body(desk, hedge.push, manner, body);
            self.spare = payload;
        }
        work
    }
}
