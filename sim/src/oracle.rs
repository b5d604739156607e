//! The contracts, kept by somebody who does not know how the engine works.
//!
//! In: what was asked, admitted, pushed, begun, given back and answered, as seen from outside.  Out: the first broken
//! contract.
//! Always: keeps every call until the run ends, so that a start or a second answer long after the first is seen. Calls
//! that a scribbling worker held are exempt from what a liar can make untrue (whether they began), never from
//! "exactly one answer".
//! Always: a call is named by the router's life (its epoch) and the engine's id, because a new router counts from the
//! beginning again.
//! Reading order: this file is a call's life; `aside.rs` has those that no worker and no queue has, `attempts.rs` who runs what
//! for whom, `circles.rs` who waits for whom; `turns.rs` says whose turn it was, `limits.rs` who may run.

mod aside;
mod attempts;
mod circles;
mod limits;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use engine::InvocationId;
use protocol::Status;

use aside::Aside;
pub use aside::BackOff;

use crate::contract::{Broken, Contract, Judge};
use crate::shim::ProcessId;

/// Names one call for the whole run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallKey {
    /// Which router took it: the first is 1.
    pub epoch: u32,
    /// What that router calls it.
    pub id: InvocationId,
}

impl fmt::Debug for CallKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} of router {}", self.id, self.epoch)
    }
}

impl CallKey {
    /// The shard that took it.
    pub fn shard(self) -> u8 {
        self.id.shard().0
    }
}

/// One call from outside.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: u32,
    pub criticality: u8,
    pub deadline_at_ns: u64,
    pub is_idempotent: bool,
    pub mark: u64,
    pub admitted_at_ns: u64,
    /// It must not begin before.
    pub start_at_ns: u64,
    /// What it has in common with calls that are the same.
    pub key: Option<u64>,
    /// The call whose run has made it.
    pub made_by: Option<CallKey>,
    /// Since when it stands in its queue, this time.
    pub waits_since_ns: u64,
    /// Once it has surely aged: pushes of its function that may still come before its own.
    pub pushes_left: Option<u32>,
    /// Times it was given to a worker.
    pub push_count: u32,
    pub start_count: u32,
    /// Times a worker marked it as taken, after which a ring cannot prove that it never began.
    pub take_count: u32,
    /// It began in the attempt that is, or that was last.
    pub has_begun: bool,
    /// It is to be pushed again though it has begun.
    pub is_retry: bool,
    pub answer: Option<Status>,
    /// Its answer came without `STARTED`.
    pub is_promised_unstarted: bool,
    pub was_cancelled: bool,
    pub is_client_gone: bool,
    pub holder_died: bool,
    pub holder_scribbled: bool,
    /// When the router first had a turn after its deadline and the tick in which it lies.
    pub overdue_at_ns: Option<u64>,
}

impl Call {
    /// A call that was admitted at this time, and nothing else is known of it.
    pub fn admitted_at(now_ns: u64) -> Call {
        Call {
            function: 0,
            criticality: 0,
            deadline_at_ns: 0,
            is_idempotent: false,
            mark: 0,
            admitted_at_ns: now_ns,
            start_at_ns: now_ns,
            key: None,
            made_by: None,
            waits_since_ns: now_ns,
            pushes_left: None,
            push_count: 0,
            start_count: 0,
            take_count: 0,
            has_begun: false,
            is_retry: false,
            answer: None,
            is_promised_unstarted: false,
            was_cancelled: false,
            is_client_gone: false,
            holder_died: false,
            holder_scribbled: false,
            overdue_at_ns: None,
        }
    }
}

/// An answer as its caller sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub status: Status,
    /// It says that the function began, or may have.
    pub has_started_flag: bool,
    /// The result, if it carries one.
    pub mark: Option<u64>,
}

/// What the oracle is told of the limits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Slots of a ring.
    pub slot_count: u32,
    /// Calls in flight.
    pub invocations_max: u32,
    /// From a call's deadline to the kill of who holds it.
    pub kill_grace_ns: u64,
    /// Processes that hold calls.
    pub running_max: Option<u32>,
}

/// Everything admitted in this run.
pub struct Oracle {
    judge: Judge,
    bounds: Bounds,
    calls: BTreeMap<CallKey, Call>,
    /// Of those, in their queues and unanswered.
    waiting: BTreeSet<CallKey>,
    /// Unanswered, in no queue and in no ring.
    aside: BTreeMap<CallKey, Aside>,
    /// Unanswered, and somebody waits for the answer.
    owed: BTreeSet<CallKey>,
    /// In the ring of a worker, whether or not anybody waits for them.
    held: BTreeMap<CallKey, ProcessId>,
    /// Second attempts, and at what.
    twins: BTreeMap<CallKey, CallKey>,
    /// Taken from their workers after they began, a moment ago: somebody runs in the place of each.
    lost: BTreeSet<CallKey>,
    /// Nested calls that wait in a circle, and since which turn.
    stuck_at_ns: BTreeMap<CallKey, u64>,
    /// Of waits between attempts: how far each went of the longest it could be, in thousandths.
    backoffs: Vec<u32>,
    /// What is configured of functions and tenants.
    limits: limits::Limits,
    /// By queue, pushes since an aged call last had its turn before others.
    pushes_since_turn: BTreeMap<Queue, u32>,
    /// By queue, since when calls wait though a worker has nothing to do and no limit is met.
    unblocked_at_ns: BTreeMap<Queue, u64>,
}

/// A function's queue: each shard has one.
pub type Queue = (u8, u32);

/// A tick of the timer wheel: a deadline is rounded up to one.
const TICK_NS: u64 = 1 << 18;

impl Oracle {
    /// Nothing has happened.
    pub fn new(judge: Judge, bounds: Bounds) -> Oracle {
        Oracle {
            judge,
            bounds,
            calls: BTreeMap::new(),
            waiting: BTreeSet::new(),
            aside: BTreeMap::new(),
            owed: BTreeSet::new(),
            held: BTreeMap::new(),
            twins: BTreeMap::new(),
            lost: BTreeSet::new(),
            stuck_at_ns: BTreeMap::new(),
            backoffs: Vec::new(),
            limits: limits::Limits::default(),
            pushes_since_turn: BTreeMap::new(),
            unblocked_at_ns: BTreeMap::new(),
        }
    }

    /// A call was taken on.
    pub fn admitted(&mut self, key: CallKey, call: Call) -> Result<(), Broken> {
        let is_free = !self.owed.contains(&key) && !self.held.contains_key(&key);
        self.judge.check(Contract::Slots, is_free, || {
            format!("{key:?} was given to a second call while the first is not over")
        })?;
        self.calls.insert(key, call);
        self.waiting.insert(key);
        self.owed.insert(key);
        let in_flight = self.in_flight(|it| (it.epoch, it.shard()) == (key.epoch, key.shard()));
        self.judge.check(Contract::Bounds, in_flight <= self.bounds.invocations_max, || {
            format!("{in_flight} calls are in flight, more than {}", self.bounds.invocations_max)
        })
    }

    /// Calls of a queue that wait for a worker.
    pub fn waiting_count(&self, queue: Queue) -> u32 {
        self.waiting.iter().filter(|key| self.queue_of(**key) == queue).count() as u32
    }

    /// Some call of a queue that waits, and whose deadline is ahead.
    pub fn any_waiting(&self, now_ns: u64, queue: Queue) -> Option<CallKey> {
        let is_it = |key: &CallKey| self.queue_of(*key) == queue && self.calls[key].deadline_at_ns > now_ns;
        self.waiting.iter().copied().find(is_it)
    }

    fn queue_of(&self, key: CallKey) -> Queue {
        (key.shard(), self.calls[&key].function)
    }

    /// Slots of engines that must be in use: who waits for an answer, and what is in a ring.
    pub fn in_flight(&self, is_there: impl Fn(&CallKey) -> bool) -> u32 {
        let unowed = self.held.keys().filter(|key| is_there(key) && !self.owed.contains(key));
        (self.owed.iter().filter(|key| is_there(key)).count() + unowed.count()) as u32
    }

    /// In whose ring a call is.
    pub fn holder_of(&self, key: CallKey) -> Option<ProcessId> {
        self.held.get(&key).copied()
    }

    /// Calls in the ring of a process.
    pub fn held_count(&self, process: ProcessId) -> u32 {
        self.held.values().filter(|holder| **holder == process).count() as u32
    }

    /// A call was put into a worker's ring.
    pub fn pushed(&mut self, now_ns: u64, key: CallKey, process: ProcessId) -> Result<(), Broken> {
        let call = self.call(key, "pushed")?.clone();
        self.judge.check(Contract::OneAnswer, call.answer.is_none(), || {
            format!("{key:?} was pushed after its answer {:?}", call.answer)
        })?;
        self.judge.check(Contract::NeverLate, call.deadline_at_ns > now_ns, || {
            format!("{key:?} was pushed after its deadline")
        })?;
        self.check_start(now_ns, key, &call)?;
        self.check_one_run(now_ns, key, &call)?;
        self.calls.entry(key).and_modify(|call| call.push_count += 1);
        self.waiting.remove(&key);
        let former = self.held.insert(key, process);
        self.judge.check(Contract::Slots, former.is_none(), || {
            format!("{key:?} was pushed to {process:?} while {former:?} holds it")
        })?;
        let held_count = self.held_count(process);
        self.judge.check(Contract::Bounds, held_count <= self.bounds.slot_count, || {
            format!("{process:?} holds {held_count} calls in {} slots", self.bounds.slot_count)
        })?;
        self.check_concurrency(key)?;
        self.check_turn(now_ns, key, &call)
    }

    /// A worker gave a call back, finished or not, or it was taken from it.
    pub fn given_back(&mut self, key: CallKey) {
        self.note_limits_met();
        self.held.remove(&key);
    }

    /// The caller takes the call back: whatever comes next, it does not wait for a worker any more.
    pub fn cancelled(&mut self, key: CallKey) -> Result<(), Broken> {
        self.waiting.remove(&key);
        self.aside.remove(&key);
        self.call(key, "cancelled")?.was_cancelled = true;
        Ok(())
    }

    /// The caller is gone, and no answer shall come.
    pub fn forgotten(&mut self, key: CallKey) -> Result<(), Broken> {
        self.waiting.remove(&key);
        self.aside.remove(&key);
        self.owed.remove(&key);
        self.call(key, "forgotten")?.is_client_gone = true;
        Ok(())
    }

    /// A router is dead. Its callers see their connections end, and its rings are nobody's any more.
    pub fn router_died(&mut self, epoch: u32) {
        for key in self.owed.iter().filter(|key| key.epoch == epoch) {
            self.calls.entry(*key).and_modify(|call| call.is_client_gone = true);
        }
        self.owed.retain(|key| key.epoch != epoch);
        self.waiting.retain(|key| key.epoch != epoch);
        self.aside.retain(|key, _| key.epoch != epoch);
        self.held.retain(|key, _| key.epoch != epoch);
        self.twins.retain(|key, _| key.epoch != epoch);
        self.pushes_since_turn.clear();
        self.unblocked_at_ns.clear();
    }

    /// A process that holds calls wrote what it must not.
    pub fn scribbled(&mut self, process: ProcessId) {
        for key in self.calls_with(process) {
            self.calls.entry(key).and_modify(|call| call.holder_scribbled = true);
        }
    }

    /// A process that holds calls is dead.
    pub fn died(&mut self, process: ProcessId) {
        for key in self.calls_with(process) {
            self.calls.entry(key).and_modify(|call| call.holder_died = true);
        }
    }

    /// A worker took a call, and does not run it.
    pub fn taken(&mut self, attempt: CallKey) -> Result<(), Broken> {
        let key = self.stands_for(attempt);
        self.call(key, "taken")?.take_count += 1;
        Ok(())
    }

    /// A function began to run a call, or a second attempt at one.
    pub fn started(&mut self, now_ns: u64, attempt: CallKey) -> Result<(), Broken> {
        self.call(attempt, "started")?.has_begun = true;
        let key = self.stands_for(attempt);
        let call = self.call(key, "started")?;
        call.start_count += 1;
        call.take_count += 1;
        let call = call.clone();
        self.judge.check(Contract::NeverLate, call.deadline_at_ns > now_ns, || {
            format!("{key:?} was started after its deadline")
        })?;
        self.check_start(now_ns, key, &call)?;
        // Who scribbles and dies before the router sees it may leave a ring that says "not started".
        if call.holder_scribbled {
            return Ok(());
        }
        self.judge.check(Contract::NeverLate, !call.is_promised_unstarted, || {
            format!("{key:?} was started, and its caller had been told that it was not: {:?}", call.answer)
        })?;
        self.judge.check(Contract::AtMostOnce, call.start_count == 1 || call.is_idempotent, || {
            format!("{key:?} was started {} times and is not idempotent", call.start_count)
        })
    }

    /// A caller got an answer.
    pub fn answered(&mut self, now_ns: u64, key: CallKey, seen: Seen) -> Result<(), Broken> {
        self.waiting.remove(&key);
        self.aside.remove(&key);
        self.owed.remove(&key);
        let call = self.call(key, "answered")?;
        let before = call.answer.replace(seen.status);
        call.is_promised_unstarted = !seen.has_started_flag;
        let call = call.clone();
        self.judge.check(Contract::OneAnswer, before.is_none(), || {
            format!("{key:?} was answered {before:?} and then {:?}", seen.status)
        })?;
        self.judge.check(Contract::OneAnswer, !call.is_client_gone, || {
            format!("{key:?} was answered to a client that is gone")
        })?;
        let run = self.run_of(key, &call);
        if run.holder_scribbled {
            return Ok(());
        }
        let is_unstarted = call.start_count == 0;
        let holds = is_true(now_ns, &run, is_unstarted, seen) && (seen.has_started_flag || is_unstarted);
        self.judge.check(Contract::TrueAnswer, holds, || {
            format!("{key:?} was answered {seen:?}, which is not true of {call:?}")
        })
    }

    /// A shard had a turn, and another one before: who waits for an answer of it longer than anybody should?
    pub fn turned(&mut self, now_ns: u64, shard: u8) -> Result<(), Broken> {
        let is_overdue = |call: &&mut Call| call.deadline_at_ns + TICK_NS <= now_ns;
        for key in self.owed.iter().filter(|key| key.shard() == shard) {
            let Some(call) = self.calls.get_mut(key).filter(is_overdue) else { continue };
            let overdue_at_ns = *call.overdue_at_ns.get_or_insert(now_ns);
            // One turn to ask the worker to stop, and one to see whether it had begun. Where a ring cannot be read, looks come at
            // doubling distances until the grace is over, so the last is less than a grace after that.
            let grace_ns = if call.holder_scribbled { 2 * self.bounds.kill_grace_ns } else { 0 };
            let patience_ns = grace_ns + 2 * TICK_NS;
            self.judge.check(Contract::InTime, now_ns < overdue_at_ns + patience_ns, || {
                let late_us = (now_ns - overdue_at_ns) / 1_000;
                format!("{key:?} has no answer {late_us} us after its deadline was seen to pass")
            })?;
        }
        self.check_aside(now_ns, shard)?;
        self.note_aged(now_ns, shard);
        Ok(())
    }

    /// The run is over and drained: nobody may be left without an answer.
    pub fn ended(&self) -> Result<(), Broken> {
        self.check_backoffs()?;
        self.judge.check(Contract::OneAnswer, self.owed.is_empty(), || {
            let key = self.owed.first().expect("not empty");
            format!("{key:?} was never answered: {:?}", self.calls[key])
        })
    }

    /// What is known of a call.
    pub fn seen(&self, key: CallKey) -> Option<&Call> {
        self.calls.get(&key)
    }

    /// A call, to be marked with what was done to it.
    pub fn call(&mut self, key: CallKey, what: &str) -> Result<&mut Call, Broken> {
        let missing = || Broken {
            contract: Contract::OneAnswer,
            what: format!("{key:?} was {what}, but never admitted"),
        };
        self.calls.get_mut(&key).ok_or_else(missing)
    }

    /// How often each status was answered.
    pub fn statuses(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for status in self.calls.values().filter_map(|call| call.answer) {
            *counts.entry(status.name()).or_default() += 1;
        }
        counts
    }

    /// Starts seen in all.
    pub fn start_count(&self) -> u64 {
        self.calls.values().map(|call| u64::from(call.start_count)).sum()
    }
}

/// Whether an answer says what happened to a call, in all runs that were made for it; and in none that was made for itself.
fn is_true(now_ns: u64, call: &Call, is_unstarted: bool, seen: Seen) -> bool {
    let is_due = now_ns >= call.deadline_at_ns;
    match seen.status {
        Status::Ok => call.start_count > 0 && seen.mark == Some(call.mark),
        Status::FunctionError | Status::ResultTooLarge | Status::Backpressure => call.start_count > 0,
        Status::Expired => is_unstarted && is_due,
        // Of a call that its maker waits for; whether in a circle is looked at where it is told.
        Status::WouldDeadlock => call.made_by.is_some(),
        // "Expired" is a proof that nothing ran; "timed out" says only that nobody can prove it any more.
        Status::TimedOut => is_due,
        Status::Cancelled => call.was_cancelled,
        // Nobody will come for it: whether that is so is looked at where it is told.
        Status::NoWorker => call.start_count == 0 || call.is_idempotent || call.holder_died,
        Status::WorkerLost => call.holder_died,
        Status::Quarantined => call.holder_died && call.take_count >= 2 && call.is_idempotent,
        _ => false,
    }
}
