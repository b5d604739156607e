//! What the oracle knows of calls with keys.

use super::*;

impl World {
    /// A call with a key, perhaps one that a running call makes.
    pub(super) fn keyed(
        &mut self,
        function: FunctionId,
        key: IdempotencyKey,
        budget_us: u32,
        nested_in: Option<usize>,
    ) {
        let is_taken = |slot: &Slot| matches!(slot, Slot::Taken { .. });
        let caller = nested_in.and_then(|which| self.held(which, is_taken)).map(|(_, id)| id);
        let same = |call: &Call| call.key == Some((function, key)) && !call.is_joined;
        let in_flight =
            |(_, call): &(&InvocationId, &Call)| same(call) && call.is_owed && self.now < call.deadline_at;
        let running = self.calls.iter().find(in_flight).map(|(id, _)| *id);

        let asked = Request {
            function,
            budget_us,
            flags: Flags::IDEMPOTENT,
            received_at: self.now,
            ..super::request()
        };
        let called_by = caller.map(|caller| claimed(caller, 1));
        let verdict = self.engine.handle_keyed_request(self.now, asked, key, called_by);
        let id = match verdict {
            Verdict::Admitted(id) => Some(id),
            Verdict::Pushed(push) => Some(push.invocation),
            Verdict::Refused(_) | Verdict::Fallback(_) => None,
        };
        let leader = id.and_then(|id| self.engine.call_view(id)).and_then(|view| view.joined);
        if let (Some(running), Some(_)) = (running, id)
            && self.engine.is_unanswered(running)
        {
            let joined = leader.map(|leader| self.stands_for(leader));
            assert_eq!(joined, Some(running), "a call runs beside the same one");
        }
        self.note_verdict(asked, caller, verdict);
        if let Some(leader) = leader {
            let known = &self.calls[&self.stands_for(leader)];
            assert!(same(known) && self.now < known.deadline_at, "{leader:?} was joined");
            assert!(caller.is_none_or(|caller| !self.chain(caller).contains(&leader)), "it waits for itself");
        }
        if let Some(id) = id {
            let call = self.call(id);
            call.key = Some((function, key));
            call.is_joined = leader.is_some();
        }
        self.sync_queued();
    }

    /// The call that an attempt is made for.
    fn stands_for(&self, attempt: InvocationId) -> InvocationId {
        self.calls[&attempt].twin_of.unwrap_or(attempt)
    }

    /// Who waits for the result of a call.
    pub(super) fn joined_to(&self, leader: InvocationId) -> Vec<InvocationId> {
        let waits = |id: &InvocationId| {
            let view = self.engine.call_view(*id);
            view.is_some_and(|view| view.joined == Some(leader))
        };
        self.calls.keys().copied().filter(waits).collect()
    }

    /// The same for an attempt that is about to end: what a twin brings is for those who joined its call, too.
    pub(super) fn joined_to_run(&self, attempt: InvocationId) -> Vec<InvocationId> {
        let call = self.stands_for(attempt);
        let is_twin = call != attempt && self.engine.has_twin(attempt.slot());
        let of_call = if is_twin { self.joined_to(call) } else { vec![] };
        let mut joined = [self.joined_to(attempt), of_call].concat();
        joined.sort();
        joined
    }

    /// Who waits for runs that this worker has begun, and whose own callers have left.
    pub(super) fn bereaved(&self, worker: WorkerId) -> Vec<InvocationId> {
        let held = self.workers[&worker].held.iter();
        let begun = held.filter(|(_, slot)| matches!(slot, Slot::Taken { .. })).map(|(id, _)| *id);
        let left = begun.filter(|id| !self.engine.is_pushed(*id));
        // A call that waits for its twin is told of as the one that the attempt is made for.
        let waits = |id| self.joined_to(id).into_iter().filter(move |heir| *heir != self.stands_for(id));
        left.flat_map(waits).collect()
    }

    /// The one of them that takes the place of a lost run has had a death too.
    pub(super) fn note_heirs(&mut self, bereaved: Vec<InvocationId>) {
        for id in bereaved {
            if self.engine.is_unanswered(id) && !self.engine.is_joined(id) {
                self.call(id).deaths += 1;
            }
        }
    }

    /// A result is given to exactly those who waited for it; without one they wait on.
    pub(super) fn note_shared(
        &mut self,
        outcome: RunOutcome,
        completed: Completed,
        joined: Vec<InvocationId>,
    ) {
        let mut told = vec![];
        while let Some(answer) = self.engine.poll_joined(self.now) {
            self.outputs.push(format!("{answer:?}"));
            told.push(answer.invocation);
            if let Completed::Answer(first) | Completed::LastAnswer(first) = completed
                && first.status != Status::TimedOut
            {
                assert_eq!(answer.status, first.status, "one result, two answers");
            }
            self.note_answer(answer);
        }
        told.sort();
        let is_shared = outcome.has_run() && completed != Completed::TriedAgain;
        let expected = if is_shared { joined } else { vec![] };
        assert_eq!(told, expected, "{outcome:?} is for all who waited");
        self.sync_queued();
    }

    /// Nobody else with the same key, and with time, has a run of its own while this one is given to a worker.
    pub(super) fn check_one_run(&self, pushed: InvocationId) {
        let chosen = &self.calls[&pushed];
        let others = self.calls.iter().filter(|(id, _)| **id != pushed);
        for (id, other) in others.filter(|(_, it)| it.key.is_some() && it.key == chosen.key) {
            let runs = other.is_owed && !other.is_joined && self.engine.is_unanswered(*id);
            assert!(!runs || self.now >= other.deadline_at, "{id:?} is the same call as {pushed:?}");
        }
    }
}
