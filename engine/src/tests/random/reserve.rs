//! What the oracle knows of workers that are kept for nested calls.

use super::*;

impl World {
    /// Whoever is given a worker leaves as many as its depth asks of it.
    pub(super) fn check_reserve(&self, push: Push) {
        let (free, leaves) = (self.free_workers(push.function), self.kept_from(push.invocation));
        assert!(free >= leaves, "{push:?} leaves {free} of {leaves}");
    }

    /// Nobody waits who could be given a worker.
    pub(super) fn check_nobody_waits_for_nothing(&self) {
        for (id, call) in self.calls.iter().filter(|(_, call)| call.is_queued) {
            let free = self.free_workers(call.function);
            let is_gated = self.engine.functions[call.function.0 as usize].gate.is_some();
            assert!(is_gated || free <= self.kept_from(*id), "{id:?} waits, and {free} are free");
        }
    }

    /// So many workers of its function are not for this call.
    pub(super) fn kept_from(&self, id: InvocationId) -> u32 {
        let call = &self.calls[&id];
        let depth = if call.wait_token == WaitToken::NONE { 0 } else { call.depth };
        self.nested_reserve[call.function.0 as usize].saturating_sub(depth)
    }

    /// A push that went past the usual order, to a worker that is not for everybody.
    pub(super) fn is_to_reserve(&self, push: Push) -> bool {
        self.free_workers(push.function) < self.nested_reserve[push.function.0 as usize]
    }

    pub(super) fn free_workers(&self, function: FunctionId) -> u32 {
        self.engine.function_view(function).map_or(0, |view| view.workers_with_credit)
    }
}
