//! What the oracle knows of calls that running ones make: their chains, and which workers wait for each other.

use super::*;

/// What the process of a nested call shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// Nothing: it is an old one, or the call is somebody else's.
    Nothing,
    /// That it made the call.
    Made,
    /// That it waits for it.
    Wait,
}

/// The calls that the engine remembers of each process.
const MADE_MAX: u32 = 32;

/// What workers show.
struct Shown<'a>(&'a BTreeMap<WorkerId, ModelWorker>);

impl WaitEvidence for Shown<'_> {
    fn waits_for(&self, worker: WorkerId) -> WaitToken {
        self.0[&worker].shows
    }
}

impl World {
    /// A call that has begun makes another one.
    pub(super) fn nested(&mut self, which: usize, function: FunctionId, shows: Shows) {
        let is_taken = |slot: &Slot| matches!(slot, Slot::Taken { .. });
        let Some((worker, caller)) = self.held(which, is_taken) else { return };
        let chain = self.chain(caller);
        let of_function = self.workers_of(function);
        let holds_one = |id: &WorkerId| chain.iter().any(|call| self.workers[id].held.contains_key(call));
        let would_wait = !of_function.is_empty() && of_function.iter().all(holds_one);

        let holder = self.engine.holder_of(caller);
        assert!(holder.is_none_or(|holder| holder == worker), "{caller:?} is with {worker:?}");
        let wait_token = if shows == Shows::Nothing || holder.is_none() {
            WaitToken::NONE
        } else {
            self.show(worker, shows)
        };
        let asked = Request { function, received_at: self.now, ..super::request() };
        let called_by = Some(CalledBy { caller, depth: 1, wait_token });
        let verdict =
            self.engine.handle_special_request(self.now, asked, Special { called_by, ..Special::default() });
        let is_refused = verdict == refused(Status::WouldDeadlock);
        assert_eq!(is_refused, would_wait || chain.len() > DEPTH_MAX.into(), "nested in {chain:?}");
        self.note_verdict(asked, Some(caller), verdict);
        if let Verdict::Admitted(id) | Verdict::Pushed(Push { invocation: id, .. }) = verdict {
            self.call(id).wait_token = wait_token;
            self.call(id).made_by = Some(worker);
        }
    }

    /// The token of the next call that this worker makes.
    fn show(&mut self, worker: WorkerId, shows: Shows) -> WaitToken {
        let model = self.workers.get_mut(&worker).expect("it holds the caller");
        let secret = u64::from(worker.index) << 8 | u64::from(worker.generation);
        let token = WaitToken::of_process(secret + 1).of_call(model.made);
        model.made += 1;
        if shows == Shows::Wait {
            model.shows = token;
        }
        token
    }

    /// A call begins to wait for one that it made before.
    pub(super) fn begin_to_wait(&mut self, which: usize) {
        let made: Vec<_> =
            self.calls.values().filter_map(|it| Some((it.made_by?, it.caller?, it.wait_token))).collect();
        if let Some((worker, caller, token)) = pick(made.iter(), which)
            && let Some(model) = self.workers.get_mut(&worker)
            && model.held.contains_key(&caller)
        {
            model.shows = token;
        }
    }

    /// The call and those that it is nested in, as far as they are still run in time.
    pub(super) fn chain(&self, innermost: InvocationId) -> Vec<InvocationId> {
        let outward =
            |id: &InvocationId| self.calls[id].caller.filter(|caller| self.engine.is_known(*caller));
        let chain = std::iter::successors(Some(innermost), outward);
        chain.filter(|id| self.engine.is_pushed(*id)).collect()
    }

    /// After a look nobody is in a circle, and only calls are ended that somebody in one waited for.
    pub(super) fn look_for_circles(&mut self) {
        let is_due = self.engine.circles.next().is_some_and(|at| at <= self.now);
        let stuck = self.stuck();
        let known = self.engine.answers.len();
        self.engine.handle_waits(self.now, &Shown(&self.workers));
        for answer in self.engine.answers.iter().skip(known) {
            assert_eq!(answer.status, Status::WouldDeadlock);
            let call = &self.calls[&answer.invocation];
            assert!(
                call.made_by.is_some_and(|worker| stuck.contains(&worker)),
                "{answer:?} could have waited"
            );
        }
        assert!(!is_due || self.stuck().is_empty(), "a circle is left: {stuck:?}");
        self.sync_queued();
    }

    /// The largest set of workers that all wait for each other: whoever has a way out leaves it, until nobody has.
    fn stuck(&self) -> BTreeSet<WorkerId> {
        let waits = |worker: &WorkerId| self.engine.is_closed(*worker) && self.waited_for(*worker).is_some();
        let mut stuck: BTreeSet<_> = self.workers.keys().copied().filter(waits).collect();
        loop {
            let has_way_out = |worker: &WorkerId| {
                !self.waited_for(*worker).is_some_and(|call| self.is_held_up(call, &stuck))
            };
            let free: Vec<_> = stuck.iter().copied().filter(has_way_out).collect();
            if free.is_empty() {
                return stuck;
            }
            free.iter().for_each(|worker| _ = stuck.remove(worker));
        }
    }

    /// The call that a worker shows that it waits for, if it made it and the call has no answer.
    fn waited_for(&self, worker: WorkerId) -> Option<InvocationId> {
        let model = &self.workers[&worker];
        let is_meant = |(id, call): &(&InvocationId, &Call)| {
            let age = model.made.wrapping_sub(u32::from(call.wait_token.number()));
            call.made_by == Some(worker)
                && call.wait_token != WaitToken::NONE
                && call.wait_token == model.shows
                && age < MADE_MAX
                && self.engine.is_unanswered(**id)
        };
        self.calls.iter().find(is_meant).map(|(id, _)| *id)
    }

    /// Nobody but these workers could do anything for a call.
    fn is_held_up(&self, id: InvocationId, stuck: &BTreeSet<WorkerId>) -> bool {
        let Some(own) = self.engine.call_view(id) else { return false };
        let run = own.joined.unwrap_or(id);
        let Some(view) = self.engine.call_view(run) else { return false };
        if self.engine.has_twin(run.slot()) {
            return false;
        }
        let workers = match view.state {
            State::Queued if self.free_workers(view.function) > self.kept_from(run) => return false,
            State::Queued => {
                let all = self.workers_of(view.function).into_iter();
                all.filter(|worker| !self.engine.is_open(*worker)).collect()
            }
            State::Pushed => view.worker.into_iter().collect(),
            State::AnsweringHeld | State::Abandoned if run != id => view.worker.into_iter().collect(),
            _ => vec![],
        };
        !workers.is_empty() && workers.iter().all(|worker| stuck.contains(worker))
    }

    fn workers_of(&self, function: FunctionId) -> Vec<WorkerId> {
        self.workers.keys().copied().filter(|id| self.engine.serves(*id, function)).collect()
    }
}
