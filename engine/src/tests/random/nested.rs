//! What the oracle knows of calls that running ones make.

use super::*;

impl World {
    /// A call that has begun makes another one.
    pub(super) fn nested(&mut self, which: usize, function: FunctionId) {
        let Some((_, caller)) = self.held(which, |slot| matches!(slot, Slot::Taken { .. })) else { return };
        let chain = self.chain(caller);
        let of_function: Vec<_> =
            self.workers.keys().filter(|id| self.engine.serves(**id, function)).collect();
        let holds_one = |id: &WorkerId| chain.iter().any(|call| self.workers[id].held.contains_key(call));
        let would_wait = !of_function.is_empty() && of_function.into_iter().all(holds_one);

        let asked = Request { function, received_at: self.now, ..super::request() };
        let special = Special { called_by: Some(CalledBy { caller, depth: 1 }), ..Special::default() };
        let verdict = self.engine.handle_special_request(self.now, asked, special);
        let is_refused = verdict == refused(Status::WouldDeadlock);
        assert_eq!(is_refused, would_wait || chain.len() > DEPTH_MAX.into(), "nested in {chain:?}");
        self.note_verdict(asked, Some(caller), verdict);
    }

    /// The call and those that it is nested in, as far as they are still run in time.
    pub(super) fn chain(&self, innermost: InvocationId) -> Vec<InvocationId> {
        let outward =
            |id: &InvocationId| self.calls[id].caller.filter(|caller| self.engine.is_known(*caller));
        let chain = std::iter::successors(Some(innermost), outward);
        chain.filter(|id| self.engine.is_pushed(*id)).collect()
    }
}
