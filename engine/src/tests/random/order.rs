//! What the oracle knows of the order of calls.

use super::*;

impl World {
    /// From now on each call that has surely aged has its turn within the bound.
    pub(super) fn note_aged(&mut self) {
        let has_waited =
            |call: &Call, length: Nanos| call.is_queued && self.now.since(call.queued_at) >= length;
        let may_be_before: Vec<_> =
            self.calls.values().filter(|it| has_waited(it, AGEING)).map(|it| it.function).collect();
        let surely = AGEING.plus(crate::timers::TICK);
        for call in self.calls.values_mut().filter(|it| it.pushes_left.is_none() && has_waited(it, surely)) {
            let others = may_be_before.iter().filter(|it| **it == call.function).count() as u32 - 1;
            call.pushes_left = Some(TURN_EVERY * (others + 1));
        }
    }

    /// Whoever is passed over is so by right; and no aged call for too long.
    pub(super) fn check_turns(&mut self, push: Push) {
        if self.is_to_reserve(push) {
            self.call(push.invocation).pushes_left = None;
            return;
        }
        let chosen = &self.calls[&push.invocation];
        let (function, has_aged) = (chosen.function, self.now.since(chosen.queued_at) >= AGEING);
        let pushes = &mut self.pushes_since_turn[function.0 as usize];
        *pushes += 1;
        let pushes = *pushes;
        if let Some(claim) = self.passed_over(push) {
            assert!(has_aged && pushes >= TURN_EVERY, "{claim}");
            self.pushes_since_turn[function.0 as usize] = 0;
        }
        let others = self.calls.iter_mut().filter(|(id, it)| **id != push.invocation && it.is_queued);
        for (id, other) in others.filter(|(_, it)| it.function == function) {
            if let Some(left) = &mut other.pushes_left {
                *left -= 1;
                assert!(*left > 0, "{id:?} has aged and is starved");
            }
        }
        self.call(push.invocation).pushes_left = None;
    }

    /// A queued call of the function that had a better claim than the one pushed.
    fn passed_over(&self, push: Push) -> Option<String> {
        let chosen = &self.calls[&push.invocation];
        let remaining = chosen.deadline_at.since(self.now).0;
        let others = self.calls.iter().filter(|(id, _)| **id != push.invocation);
        for (id, other) in others.filter(|(_, it)| it.is_queued && it.function == chosen.function) {
            if other.criticality > chosen.criticality {
                return Some(format!("{id:?} is more critical than {:?}", push.invocation));
            }
            let own = other.deadline_at.since(self.now).0;
            if other.criticality == chosen.criticality && own < 1 << 35 {
                let bound = own * 2 + BUCKET_ZERO_WIDTH.0;
                if remaining > bound {
                    return Some(format!("{id:?} has {own} ns left and waits behind one with {remaining}"));
                }
            }
        }
        None
    }
}
