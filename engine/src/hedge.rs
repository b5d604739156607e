//! Hedging: a second attempt at a call that takes unusually long, on another worker; the first answer wins.
//!
//! ```text
//!   pushed ── answered before `after` ──▶ as ever
//!      └──── `after` is over ──▶ a twin on an idle worker ──┬─ twin first ──▶ its result is the answer, the first attempt is
//!                                                           │                 asked to stop and its late result dropped
//!                                                           ├─ call first ──▶ the same with the twin
//!                                                           ├─ twin's worker dies ──▶ the call goes on
//!                                                           └─ call's worker dies ──▶ it waits for the twin (`join.rs`)
//! ```
//!
//! In: pushed calls of functions that ask for it, as their time comes.  Out: [`Hedge`]: which call to write where else.
//! Always: only calls of which a second run does no harm, and their first attempts. A twin is an invocation in a ring that nobody
//! waits for: it has a slot, a credit and permits like any call, gives each back once, and is in no counter of calls.
//! Always: a twin lives no longer than its call waits: whatever ends that (an answer, a cancel, its deadline) asks the twin to stop.
//! Always: at most `load_percent` twins among a hundred pushes, and ten at once beside; only on a worker that holds nothing, while
//! nothing waits, within all limits, and on none that is kept for nested calls. A call that finds no such worker, or no budget, is not hedged later either.
//! Always: `STARTED` is said of a call with a twin, whatever is known of the call itself.
//! Never: for a function without the option. The others' calls have no timer while they run.
//! Why measured and not set: the right delay is where few calls are still running, and moves with the function. Dean and
//! Barroso, "The Tail at Scale" (CACM 2013), send the second request after the 95th percentile.
//! Decision: docs/decisions/0025.  Tests: `tests/hedges.rs`, `tests/random.rs`.

use std::collections::VecDeque;

use crate::Engine;
use crate::budget::Budget;
use crate::counters::Counter;
use crate::dispatch::Push;
use crate::invocation::{Event, Invocation, InvocationId, Marks, Origin, State};
use crate::permits::Permit;
use crate::policy::Checks;
use crate::quantile::Quantile;
use crate::reply::{Answer, Ending, Finished, Judgement, RunOutcome, run_of};
use crate::time::Nanos;
use crate::worker::WorkerId;

/// What the configuration says about second attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeSpec {
    /// When one is made.
    pub after: HedgeAfter,
    /// Of a hundred pushes, at most so many.
    pub load_percent: u8,
}

/// How long the first attempt has, counted from its push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// As long as so many percent of the function's attempts of late took.
    Percentile(u8),
    /// So long.
    Delay(Nanos),
}

/// Write the request of a call that a worker holds into another one's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// Into which, and under which id.
    pub push: Push,
    /// Which call.
    pub call: InvocationId,
    /// In whose ring its request lies.
    pub holder: WorkerId,
}

/// The hedging of one function.
#[derive(Clone, Debug)]
pub(crate) struct Hedging {
    spec: HedgeSpec,
    budget: Budget,
    quantile: Quantile,
}

impl Hedging {
    pub fn new(spec: HedgeSpec) -> Hedging {
        let percent = match spec.after {
            HedgeAfter::Percentile(percent) => percent,
            HedgeAfter::Delay(_) => 50,
        };
        Hedging {
            spec,
            budget: Budget::new(spec.load_percent),
            quantile: Quantile::new(percent.clamp(1, 99)),
        }
    }

    fn after(&self) -> Option<Nanos> {
        match self.spec.after {
            HedgeAfter::Percentile(_) => self.quantile.value(),
            HedgeAfter::Delay(delay) => Some(delay),
        }
    }
}

/// The pairs of call and twin.
#[derive(Debug)]
pub(crate) struct Hedges {
    /// By slot: the slot of the other one. Grows when the first pair is made.
    twins: Vec<u32>,
    to_push: VecDeque<Hedge>,
}

const NO_TWIN: u32 = u32::MAX;

impl Hedges {
    pub fn new() -> Hedges {
        Hedges { twins: Vec::new(), to_push: VecDeque::new() }
    }

    fn twin_of(&self, slot: u32) -> Option<u32> {
        self.twins.get(slot as usize).copied().filter(|twin| *twin != NO_TWIN)
    }
}

impl Engine {
    /// The next second attempt to hand to a worker: polled in the turn of `handle_time`, before anything else happens.
    pub fn poll_hedge(&mut self) -> Option<Hedge> {
        self.hedges.to_push.pop_front()
    }

    /// Hands a call of a function with a policy at dispatch to its worker.
    #[inline(never)]
    pub(crate) fn push_governed(&mut self, now: Nanos, number: u32, slot: u32) -> Push {
        let push = self.push(now, number, slot);
        self.watch(now, slot);
        push
    }

    /// A call was given to a worker: if it may be hedged, it is looked at again.
    pub(crate) fn watch(&mut self, now: Nanos, slot: u32) {
        let call = self.invocations.at(slot);
        let function = &self.functions[call.function.0 as usize];
        let Some(after) = function.hedging.as_ref().and_then(|hedging| hedging.after()) else { return };
        let at = now.plus(after);
        if call.attempts == 1 && call.marks.has(Marks::IDEMPOTENT) && at < call.deadline_at {
            self.timers.arm(slot, at);
        }
    }

    /// A call still runs that has had the time of nearly all others.
    pub(crate) fn hedge(&mut self, now: Nanos, slot: u32) {
        let call = self.invocations.at(slot);
        if now >= call.deadline_at {
            // Time has jumped: it is about to be looked at for that.
            return;
        }
        let (number, holder) = (call.function.0, call.worker);
        let function = &mut self.functions[number as usize];
        let Some(hedging) = &mut function.hedging else { return };
        let workers = &self.workers;
        let is_other = |index: &u32| *index != holder && workers[*index as usize].held_count() == 0;
        let is_reserved = function.reserve.is_reached(function.warm.len());
        let may_have_one = function.queue.is_empty() && function.gate.is_none() && !is_reserved;
        let position = function.warm.iter().rposition(is_other).filter(|_| may_have_one);
        let Some(position) = position.filter(|_| hedging.budget.take(function.pushes)) else {
            return self.counters.count(Counter::HedgesDenied);
        };
        // Dispatch takes the last one.
        let last = function.warm.len() - 1;
        function.warm.swap(position, last);
        let worker = function.warm[last];
        let Some(twin) = self.claim_twin(now, slot) else {
            return self.counters.count(Counter::HedgesDenied);
        };
        let push = self.bind(now, worker, twin);
        self.invocations.at_mut(twin).on(Event::Forget);
        self.timers.arm(twin, push.deadline_at.plus(self.limits.kill_grace));
        self.pair(slot, twin);
        let call = self.invocations.at_mut(slot);
        call.marks = call.marks.with(Marks::MAY_HAVE_STARTED, true);
        let holder = WorkerId { index: holder, generation: self.workers[holder as usize].generation };
        let call = self.invocations.id_of(slot);
        self.copy_nested(call, push.invocation);
        self.counters.count(Counter::HedgesPushed);
        self.hedges.to_push.push_back(Hedge { push, call, holder });
    }

    /// A slot for the twin of a call, with everything that it needs to be pushed.
    fn claim_twin(&mut self, now: Nanos, slot: u32) -> Option<u32> {
        let twin = self.invocations.claim().or_else(|| self.grow_tables())?;
        let call = self.invocations.at(slot).clone();
        let entry = self.invocations.at_mut(twin);
        entry.on(Event::Admit);
        *entry = Invocation {
            generation: entry.generation,
            state: entry.state,
            attempts: 0,
            marks: Marks::IDEMPOTENT,
            worker: u32::MAX,
            pushed_at: Nanos::ZERO,
            origin: Origin { connection: u32::MAX, connection_generation: 0, call_id: call.origin.call_id },
            ..call
        };
        if self.take_permits(now, twin, call.function.0) == Permit::Given {
            return Some(twin);
        }
        self.invocations.at_mut(twin).on(Event::Forget);
        self.invocations.release(twin);
        None
    }

    /// Whether this is the twin of a call, or a call that has one.
    pub(crate) fn has_twin(&self, slot: u32) -> bool {
        self.hedges.twin_of(slot).is_some()
    }

    fn pair(&mut self, slot: u32, twin: u32) {
        if self.hedges.twins.len() <= slot.max(twin) as usize {
            self.hedges.twins.resize(self.invocations.capacity() as usize, NO_TWIN);
        }
        self.hedges.twins[slot as usize] = twin;
        self.hedges.twins[twin as usize] = slot;
    }

    /// Takes a pair apart. Returns the other one.
    fn part(&mut self, slot: u32) -> Option<u32> {
        let other = self.hedges.twin_of(slot)?;
        self.hedges.twins[slot as usize] = NO_TWIN;
        self.hedges.twins[other as usize] = NO_TWIN;
        Some(other)
    }

    /// Nobody waits for the call of a slot any more, or it comes to its end by itself: its twin is asked to stop.
    pub(crate) fn end_hedge(&mut self, now: Nanos, slot: u32) {
        if let Some(twin) = self.part(slot) {
            self.ask_worker_to_stop(now, twin, State::Pushed);
        }
    }

    /// A first attempt has ended, or was overtaken by its twin: how long it took is what percentiles are of.
    pub(crate) fn note_attempt(&mut self, now: Nanos, slot: u32) {
        let call = self.invocations.at(slot);
        let function = &mut self.functions[call.function.0 as usize];
        if let Some(hedging) = &mut function.hedging
            && call.attempts == 1
        {
            hedging.quantile.note(now.since(call.pushed_at));
        }
    }

    /// A twin was given back. If it ran, what it brought is the answer of its call, whose own attempt is asked to stop.
    pub(crate) fn win(&mut self, now: Nanos, twin: u32, finished: Finished) -> Option<Answer> {
        let slot = self.part(twin)?;
        if !finished.outcome.has_run() {
            return None;
        }
        self.counters.count(Counter::HedgesWon);
        let run = run_of(now, self.invocations.at(twin), finished);
        self.note_run(twin, run);
        self.note_attempt(now, slot);
        match finished.outcome {
            RunOutcome::Ok => self.judge(now, slot, Judgement::Well),
            RunOutcome::FunctionError => self.judge(now, slot, Judgement::Failed),
            // Neither well nor its function's doing, as for a first attempt.
            _ => {}
        }
        let answer = self.answer(now, slot, Ending::Finished(finished.outcome), run);
        self.invocations.at_mut(slot).on(Event::Outrun);
        self.share_result(now, slot, finished.outcome);
        self.ask_worker_to_stop(now, slot, State::Pushed);
        Some(answer)
    }

    /// The worker of a call that has a twin is gone: from now on the call waits for the twin. False: it has none.
    pub(crate) fn wait_for_twin(&mut self, now: Nanos, slot: u32) -> bool {
        let Some(twin) = self.part(slot) else { return false };
        self.invocations.at_mut(slot).on(Event::Join);
        let deadline_at = self.invocations.at(slot).deadline_at;
        self.timers.arm(slot, deadline_at);
        self.follow_twin(now, slot, twin);
        true
    }

    /// The worker of a twin is gone. Its call goes on.
    pub(crate) fn lose_twin(&mut self, twin: u32) -> Option<u32> {
        self.part(twin)
    }

    /// Pairs are of a call in a worker's hands, in time, and a twin in another's, for which nobody waits.
    pub(crate) fn hedges_invariants(&self) {
        for (slot, twin) in (0..).zip(&self.hedges.twins).filter(|(_, twin)| **twin != NO_TWIN) {
            assert_eq!(self.hedges.twin_of(*twin), Some(slot), "slot {slot}: twin");
            let states = [self.invocations.at(slot).state, self.invocations.at(*twin).state];
            let is_pair =
                matches!(states, [State::Pushed, State::Abandoned] | [State::Abandoned, State::Pushed]);
            assert!(is_pair, "slots {slot} and {twin} are {states:?}");
            assert_ne!(self.invocations.at(slot).worker, self.invocations.at(*twin).worker, "one worker");
        }
        for function in &self.functions {
            let is_governed = function.checks.has(Checks::HEDGE);
            assert_eq!(function.hedging.is_some(), is_governed, "{}: hedging", function.spec.name);
        }
    }
}
