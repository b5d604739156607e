//! What the oracle knows of second attempts.

use super::*;

impl World {
    /// Second attempts go to workers that hold nothing else, at calls that are owed an answer and that another worker holds.
    pub(super) fn take_hedges(&mut self) {
        while let Some(Hedge { push, call, holder }) = self.engine.poll_hedge() {
            self.outputs.push(format!("{push:?} for {call:?}"));
            assert!(self.workers[&holder].held.contains_key(&call), "its request is not where it should be");
            let known = &self.calls[&call];
            assert!(known.is_owed && self.now < known.deadline_at, "{call:?} needs no second attempt");
            let is_idempotent = known.idempotent;
            assert!(is_idempotent, "{call:?} must not run twice");
            assert_ne!(push.worker, holder, "two attempts on one worker");
            let twin = Call {
                twin_of: Some(call),
                is_owed: false,
                is_queued: false,
                key: None,
                made_by: None,
                begun: 0,
                pushes_left: None,
                ..*known
            };
            assert!(self.calls.insert(push.invocation, twin).is_none(), "an id was given twice");
            let model = self.workers.get_mut(&push.worker).expect("a push goes to an attached worker");
            assert!(model.held.is_empty(), "somebody waits before a second attempt");
            model.held.insert(push.invocation, Slot::Waiting { is_marked: false });
        }
    }
}
