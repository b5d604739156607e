//! Calls with one idempotency key run once, and all who made them get the answer.
//!
//! ```text
//!   call 1, key k ──▶ queue ──▶ worker ──▶ result ──┬──▶ answer of call 1
//!   call 2, key k ──▶ Joined: waits for call 1 ─────┼──▶ answer of call 2       poll_joined, while the result is in the ring
//!   call 3, key k ──▶ Joined: waits for call 1 ─────┴──▶ answer of call 3
//!
//!   call 1 is cancelled, or its client gone, or its deadline comes ─┬─ not in a worker's hands ──▶ call 2 takes its place
//!                                                                   └─ in a worker's hands ──▶ it runs on for the others
//!   the last of the others leaves ──▶ the worker is asked to stop
//!
//!   call 2 is to take a place, and call 4 got the key after call 1's deadline ──▶ call 2 and the others wait for call 4
//! ```
//!
//! In: a request with a key; how the call that it joined ends.  Out: one answer for each, as for any call.
//! Always: who joins has an invocation of its own: its own deadline, cancel and answer. It stands in no queue and takes no
//! slot of a ring. It has its payload with the router all the while, so that it can take the place of the call it joined.
//! Always: what the worker says is for all of them: a result, an error, its death. What happened to one caller only, the end
//! of its time or its patience, is for that one.
//! Always: a call can be joined until its own deadline, so that a run which hangs is not kept alive by ever new callers: it
//! is stopped at the latest one time-out of the function after that deadline. Whoever comes then with the key runs beside it.
//! Always: who is to run for the others first looks whether another call has the key by now, and waits for that one with all of
//! them. If those are more than may wait for it, the call runs beside that one, and cannot be joined.
//! Always: who joined and leaves early is told `STARTED` unless the call was in nobody's hands by then. That it may begin
//! later is on the account of the others.
//! Never: a comparison of payloads: a key says that the calls are the same. Across shards; see docs/spec/wire.md, W-59.
//! Why a full table refuses (`Overloaded`) instead of running the call by itself: the caller asked for one run, and may come
//! again under the same key.  Decision: docs/decisions/0025.  Tests: `tests/joins.rs`, `tests/random.rs`.

use protocol::Flags;
use queue::List;

use crate::Engine;
use crate::admission::{QueueRoom, Refusal, Request, Special, Verdict};
use crate::counters::Counter;
use crate::deadlines::Started;
use crate::invocation::{Event, InvocationId, Marks, State};
use crate::nesting::CalledBy;
use crate::policy::Checks;
use crate::reply::{Answer, Ending, Keep, Run, RunOutcome};
use crate::time::Nanos;

mod keys;

pub use keys::IdempotencyKey;
use keys::{Found, Key, Keys, NO_KEY};

#[derive(Debug)]
pub(crate) struct Joins {
    keys: Keys,
    /// By slot. Grows when the first key comes.
    groups: Vec<Group>,
    /// Those who still have to be handed the result that the worker just gave back.
    sharing: Option<Sharing>,
}

/// Who waits for the call of a slot, and for whom it waits.
#[derive(Clone, Debug)]
struct Group {
    /// Through the run links: a joined call stands in no lane.
    joiners: List,
    count: u32,
    /// While `Joined`: the slot of the call it waits for.
    leader: u32,
    key: Key,
    /// Whose key it is: of the slot's call, or of one that had the slot before, while the call has none.
    key_of: InvocationId,
}

const ALONE: Group =
    Group { joiners: List::EMPTY, count: 0, leader: u32::MAX, key: NO_KEY, key_of: InvocationId::NONE };

/// One result, several callers.
#[derive(Debug)]
struct Sharing {
    joiners: List,
    outcome: RunOutcome,
}

impl Joins {
    pub fn new() -> Joins {
        Joins { keys: Keys::new(), groups: Vec::new(), sharing: None }
    }

    fn group(&self, slot: u32) -> &Group {
        self.groups.get(slot as usize).unwrap_or(&ALONE)
    }
}

impl Engine {
    /// As [`handle_request`](Engine::handle_request), for a request with a key, which a running call may have made.
    #[inline(never)]
    pub fn handle_keyed_request(
        &mut self,
        now: Nanos,
        request: Request,
        name: IdempotencyKey,
        called_by: Option<CalledBy>,
    ) -> Verdict {
        // W-49: who gives a key says that a second run does no harm.
        let request = Request { flags: request.flags.with(Flags::IDEMPOTENT), ..request };
        let request = self.choose_version(request, Some(&name));
        self.joins.keys.claim(self.limits.keys_max, || self.chance.up_to(u64::MAX));
        let key = Key { function: request.function, name };
        let place = match self.joins.keys.find(&key, |id| self.is_joinable(now, id)) {
            Found::Call(leader) => return self.join(now, request, leader, called_by),
            Found::Vacant(place) => place,
            Found::Full => {
                self.counters.count(Counter::CallsReceived);
                return self.refuse(Refusal::JoinFull);
            }
        };
        let verdict = match called_by {
            None => {
                self.counters.count(Counter::CallsReceived);
                self.handle_version(now, request)
            }
            Some(_) => self.handle_special_version(now, request, Special { called_by, ..Special::default() }),
        };
        if let Verdict::Admitted(id) | Verdict::Pushed(crate::Push { invocation: id, .. }) = verdict {
            self.joins.keys.put(place, key, id);
            *self.group_mut(id.slot()) = Group { key, key_of: id, ..ALONE };
        }
        verdict
    }

    /// Whether this call is in flight, and its time not over.
    fn is_joinable(&self, now: Nanos, id: InvocationId) -> bool {
        let Some(slot) = self.invocations.slot_of(id) else { return false };
        let call = self.invocations.at(slot);
        now < call.deadline_at
            && match call.state {
                State::Queued | State::Delayed | State::Pushed => true,
                // Its caller is gone, and others wait.
                State::AnsweringHeld | State::Abandoned => self.has_joiners(slot),
                State::Free | State::Joined | State::Overdue | State::Answering => false,
            }
    }

    fn join(
        &mut self,
        now: Nanos,
        request: Request,
        leader: InvocationId,
        called_by: Option<CalledBy>,
    ) -> Verdict {
        self.counters.count(Counter::CallsReceived);
        match self.admit_joiner(now, &request, leader, called_by) {
            Ok(slot) => {
                self.counters.count(Counter::CallsAdmitted);
                self.counters.count(Counter::CallsJoined);
                Verdict::Admitted(self.invocations.id_of(slot))
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn admit_joiner(
        &mut self,
        now: Nanos,
        request: &Request,
        leader: InvocationId,
        called_by: Option<CalledBy>,
    ) -> Result<u32, Refusal> {
        let called_by = called_by.map(|claim| self.check_depth(claim)).transpose()?;
        if called_by.is_some_and(|it| self.chain(it.caller).any(|outer| outer == leader)) {
            return Err(Refusal::WouldDeadlock);
        }
        if self.joins.group(leader.slot()).count >= self.limits.joiners_max {
            return Err(Refusal::JoinFull);
        }
        let admitted = self.admit(now, request, QueueRoom::NotNeeded)?;
        let slot = admitted.slot;
        let call = self.invocations.at_mut(slot);
        call.on(Event::Join);
        *call = call.admitted(now, request, &admitted, true);
        self.timers.arm(slot, admitted.deadline_at);
        if let Some(called_by) = called_by {
            self.note_nested(self.invocations.id_of(slot), called_by);
        }
        let key = self.joins.group(leader.slot()).key;
        *self.group_mut(slot) = Group { key, key_of: self.invocations.id_of(slot), ..ALONE };
        self.follow(leader.slot(), slot);
        self.note_waiting(self.invocations.id_of(slot));
        Ok(slot)
    }

    /// Others wait for the end of this call.
    pub(crate) fn has_joiners(&self, slot: u32) -> bool {
        !self.joins.group(slot).joiners.is_empty()
    }

    /// For whom a joined call waits.
    pub(crate) fn leader_of(&self, slot: u32) -> Option<InvocationId> {
        let is_joined = self.invocations.at(slot).state == State::Joined;
        is_joined.then(|| self.invocations.id_of(self.joins.group(slot).leader))
    }

    /// The caller of a slot's call waits no more. Those who joined it go on.
    pub(crate) fn on_caller_left(&mut self, now: Nanos, slot: u32, run: Run) {
        self.end_hedge(now, slot);
        let is_running = self.invocations.at(slot).state.is_held() && run != Run::Never;
        if !is_running
            && let Some(next) = self.hand_over(slot)
            && !self.wait_for_same(now, next)
        {
            self.invocations.at_mut(next).on(Event::Requeue);
            self.stand_in_line(now, next);
        }
    }

    /// The call of a slot got an answer that is no result.
    pub(crate) fn on_answered(&mut self, now: Nanos, slot: u32, ending: Ending, run: Run) {
        self.end_hedge(now, slot);
        if !self.has_joiners(slot) {
            return;
        }
        match ending {
            Ending::DeadlinePassed | Ending::Cancelled | Ending::WouldDeadlock => {
                self.on_caller_left(now, slot, run)
            }
            // What became of the worker is for all of them.
            _ => self.end_joiners(now, slot, ending, run),
        }
    }

    /// A worker is gone that ran a call for those who joined it, after its own caller had left.
    pub(crate) fn on_run_lost(&mut self, now: Nanos, slot: u32, ending: Ending, started: Started) {
        let run = if started == Started::No { Run::Never } else { Run::MayHaveStarted };
        if run == Run::Never {
            return self.on_caller_left(now, slot, run);
        }
        let Some(next) = self.hand_over(slot) else { return };
        if self.wait_for_same(now, next) {
            return;
        }
        let ending = match self.is_poison(next, started) {
            true => Ending::Quarantined,
            false if self.try_again(now, next, run).is_ok() => return,
            false => ending,
        };
        self.timers.disarm(next);
        self.put_answer(now, next, ending, run);
    }

    /// The call of a slot has lost its worker, and waits for its twin now, and with it all who joined it.
    pub(crate) fn follow_twin(&mut self, now: Nanos, slot: u32, twin: u32) {
        let key = self.key_of(slot);
        *self.group_mut(twin) = match key {
            Some(key) => Group { key, key_of: self.invocations.id_of(twin), ..ALONE },
            None => ALONE,
        };
        self.claim_key(now, twin);
        self.follow_with_joiners(twin, slot);
    }

    /// A worker gave the call of a slot back. What it brought is for all, if it ran. True: somebody had joined it.
    pub(crate) fn share_result(&mut self, now: Nanos, slot: u32, outcome: RunOutcome) -> bool {
        if !self.has_joiners(slot) {
            return false;
        }
        if !outcome.has_run() {
            self.on_caller_left(now, slot, Run::Never);
            return true;
        }
        let joiners = self.take_joiners(slot);
        self.joins.sharing = Some(Sharing { joiners, outcome });
        true
    }

    /// The next answer with the result that `handle_completion` just told of: polled until there is none, while the result
    /// still lies in the worker's slot.
    pub fn poll_joined(&mut self, now: Nanos) -> Option<Answer> {
        let sharing = self.joins.sharing.as_mut()?;
        let Some(slot) = sharing.joiners.pop_front(&mut self.run_links) else {
            self.joins.sharing = None;
            return None;
        };
        let ending = Ending::Finished(sharing.outcome);
        // The run is the one of the call it joined, and measured there.
        let answer = self.answer(now, slot, ending, Run::MayHaveStarted);
        self.invocations.at_mut(slot).on(Event::Complete);
        self.free(slot);
        Some(answer)
    }

    /// The time of a joined call is over, or its caller wants it no more.
    pub(crate) fn end_joined(&mut self, now: Nanos, slot: u32, ending: Ending) {
        let run = self.run_of_leader(slot);
        self.timers.disarm(slot);
        self.put_answer(now, slot, ending, run);
        self.leave(now, slot);
    }

    /// A joined call waits no more; its answer is seen to elsewhere.
    pub(crate) fn leave(&mut self, now: Nanos, slot: u32) {
        let leader = self.joins.group(slot).leader;
        let group = self.group_mut(leader);
        group.count -= 1;
        let mut joiners = std::mem::take(&mut group.joiners);
        joiners.remove(&mut self.run_links, slot);
        let is_empty = joiners.is_empty();
        self.group_mut(leader).joiners = joiners;
        if is_empty {
            self.count_group(leader, false);
            let state = self.invocations.at(leader).state;
            if matches!(state, State::AnsweringHeld | State::Abandoned) {
                self.ask_worker_to_stop(now, leader, State::Pushed);
            }
        }
    }

    /// What is known of the run that a joined call waits for.
    fn run_of_leader(&self, slot: u32) -> Run {
        let leader = self.invocations.at(self.joins.group(slot).leader);
        if leader.state.is_held() || leader.marks.has(Marks::MAY_HAVE_STARTED) {
            Run::MayHaveStarted
        } else {
            Run::Never
        }
    }

    /// The call joined first takes the place of the one of a slot, and the others follow it.
    fn hand_over(&mut self, slot: u32) -> Option<u32> {
        if !self.has_joiners(slot) {
            return None;
        }
        let mut joiners = self.take_joiners(slot);
        let next = joiners.pop_front(&mut self.run_links)?;
        while let Some(other) = joiners.pop_front(&mut self.run_links) {
            self.follow(next, other);
        }
        Some(next)
    }

    /// A joined call is to run for those who follow it. If another one has the key, all of them wait for that one: true.
    fn wait_for_same(&mut self, now: Nanos, slot: u32) -> bool {
        let Some(other) = self.claim_key(now, slot) else { return false };
        let count = self.joins.group(other.slot()).count + 1 + self.joins.group(slot).count;
        let has_room = count <= self.limits.joiners_max;
        if has_room {
            self.follow_with_joiners(other.slot(), slot);
        }
        has_room
    }

    /// From now on the key of this call leads to it; or another one can be joined under it, which is returned.
    fn claim_key(&mut self, now: Nanos, slot: u32) -> Option<InvocationId> {
        let key = self.key_of(slot)?;
        match self.joins.keys.find(&key, |id| self.is_joinable(now, id)) {
            Found::Call(other) => return Some(other),
            Found::Vacant(place) => self.joins.keys.put(place, key, self.invocations.id_of(slot)),
            // It was admitted and runs; only it cannot be joined.
            Found::Full => {}
        }
        None
    }

    /// The key that the call of a slot came with.
    fn key_of(&self, slot: u32) -> Option<Key> {
        let group = self.joins.group(slot);
        (group.key_of == self.invocations.id_of(slot)).then_some(group.key)
    }

    fn follow_with_joiners(&mut self, leader: u32, slot: u32) {
        let mut joiners = self.take_joiners(slot);
        self.follow(leader, slot);
        while let Some(joiner) = joiners.pop_front(&mut self.run_links) {
            self.follow(leader, joiner);
        }
    }

    /// All who joined get the same answer, which is no result. Of one call, one is kept.
    fn end_joiners(&mut self, now: Nanos, slot: u32, ending: Ending, run: Run) {
        let mut joiners = self.take_joiners(slot);
        while let Some(joiner) = joiners.pop_front(&mut self.run_links) {
            self.timers.disarm(joiner);
            self.put_answer_and_keep(now, joiner, ending, run, Keep::No);
        }
    }

    fn follow(&mut self, leader: u32, slot: u32) {
        self.group_mut(slot).leader = leader;
        if !self.has_joiners(leader) {
            self.count_group(leader, true);
        }
        let group = &mut self.joins.groups[leader as usize];
        group.joiners.push_back(&mut self.run_links, slot);
        group.count += 1;
    }

    fn take_joiners(&mut self, slot: u32) -> List {
        if !self.has_joiners(slot) {
            return List::EMPTY;
        }
        self.count_group(slot, false);
        let group = self.group_mut(slot);
        group.count = 0;
        std::mem::take(&mut group.joiners)
    }

    /// While one call of a function is joined, each of its results comes the way on which somebody looks.
    fn count_group(&mut self, leader: u32, is_begun: bool) {
        let function = &mut self.functions[self.invocations.at(leader).function.0 as usize];
        function.joined_calls = if is_begun { function.joined_calls + 1 } else { function.joined_calls - 1 };
        function.checks =
            function.checks.without(Checks::JOINED).with(Checks::JOINED, function.joined_calls > 0);
    }

    fn group_mut(&mut self, slot: u32) -> &mut Group {
        if slot as usize >= self.joins.groups.len() {
            self.joins.groups.resize(self.invocations.capacity() as usize, ALONE);
        }
        &mut self.joins.groups[slot as usize]
    }
}

impl Engine {
    /// Every joined call waits for exactly one that is in flight, and functions know whether they have such calls.
    pub(crate) fn joins_invariants(&self) {
        let mut joined_calls = vec![0; self.functions.len()];
        let mut waiting = 0;
        let check = |leader: Option<u32>, joiners: &List| {
            let members: Vec<_> = joiners.iter(&self.run_links).collect();
            // A call that lost its worker waits for its twin like those who joined it.
            assert!(members.len() <= self.limits.joiners_max as usize + 1, "{leader:?} has too many joiners");
            for slot in &members {
                assert_eq!(
                    self.invocations.at(*slot).state,
                    State::Joined,
                    "slot {slot} waits for {leader:?}"
                );
                let known = self.joins.group(*slot).leader;
                assert!(leader.is_none_or(|leader| leader == known), "slot {slot} waits for another");
            }
            members.len()
        };
        for (slot, group) in (0..).zip(&self.joins.groups).filter(|(_, group)| !group.joiners.is_empty()) {
            let count = check(Some(slot), &group.joiners);
            assert_eq!(count, group.count as usize, "slot {slot}: joiners");
            waiting += count;
            let call = self.invocations.at(slot);
            let is_in_flight = call.state.is_held() || matches!(call.state, State::Queued | State::Delayed);
            assert!(is_in_flight, "slot {slot} is {:?} and has joiners", call.state);
            joined_calls[call.function.0 as usize] += 1;
        }
        waiting += self.joins.sharing.as_ref().map_or(0, |sharing| check(None, &sharing.joiners));
        let joined = self.invocations.iter().filter(|(_, call)| call.state == State::Joined).count();
        assert_eq!(joined, waiting, "joined calls wait for nobody");
        for (function, count) in self.functions.iter().zip(joined_calls) {
            assert_eq!(function.joined_calls, count, "{}: joined calls", function.spec.name);
            assert_eq!(function.checks.has(Checks::JOINED), count > 0, "{}: checks", function.spec.name);
        }
    }
}
