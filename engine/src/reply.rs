//! Stage 8 of 8: reply. Turns the end of a call into the one answer its caller gets, and says where the time went.
//!
//! In: how a call ended.  Out: `Answer`; the result's bytes never come here, they lie in the ring until the router
//! has copied them.
//! Always: `status_of` is the only place that maps an ending to a wire status. `Expired` is said only when no attempt
//! can have started; the flag `STARTED` is absent only when that is proved, because a caller may retry on it.
//! Never: a second answer; the life's table has no such step, and trying is our bug.
//! Tests: `tests/replies.rs`.

use protocol::{Flags, FunctionId, Status};

use crate::Engine;
use crate::admission::Refusal;
use crate::counters::Counter;
use crate::invocation::{Event, Invocation, InvocationId, Marks, Origin, State};
use crate::stamps::Stamps;
use crate::time::Nanos;
use crate::worker::WorkerId;

mod policy;

pub(crate) use policy::Judgement;

/// The end of a call, to be sent to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it goes.
    pub origin: Origin,
    /// Which call this was. Its slot may mean another call as soon as the next `handle_request`.
    pub invocation: InvocationId,
    /// Which function was called.
    pub function: FunctionId,
    /// How it ended.
    pub status: Status,
    /// `STARTED`, if the function had begun or nobody can prove that it had not.
    pub flags: Flags,
    /// The caller asked for `timings`.
    pub want_timings: bool,
    /// Whether the call outlives its answer.
    pub keep: Keep,
    /// Times it was given to a worker.
    pub attempts: u8,
    /// Advice when to try again; 0 = none.
    pub retry_after_us: u32,
    /// When the call passed each stage, for the caller and for histograms.
    pub stamps: Stamps,
}

/// Whether a call is kept after its end, with its payload, for people to look at and for another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As nearly every call: no.
    No,
    /// As a dead letter: it failed, and there is no attempt left that would have been allowed.
    AsDeadLetter,
    /// In the quarantine: two workers died of it.
    InQuarantine,
}

/// What a worker says about a call that it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the function ended, or that it never began.
    pub outcome: RunOutcome,
    /// When the function began, by the worker's word.
    pub started_at: Nanos,
    /// When it ended, by the worker's word.
    pub finished_at: Nanos,
}

/// How a worker's part in a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// The function returned a result.
    Ok,
    /// The function returned an error.
    FunctionError,
    /// The worker found the deadline passed and did not start it.
    Expired,
    /// The worker found the cancel mark and did not start it.
    Cancelled,
    /// The function's result does not fit its region.
    ResultTooLarge,
    /// Something that the function calls is overloaded.
    Backpressure,
}

impl RunOutcome {
    pub(crate) const fn has_run(self) -> bool {
        !matches!(self, RunOutcome::Expired | RunOutcome::Cancelled)
    }
}

/// What a completion meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// Send this, with the result that still lies in the worker's slot if the status carries one.
    Answer(Answer),
    /// The same, and the call is to be kept: the answer says as what. Its payload still lies in the worker's slot.
    LastAnswer(Answer),
    /// The call waits for another attempt: it needs its payload back, which still lies in the worker's slot. Drop the result.
    TriedAgain,
    /// Somebody else had answered, or nobody waits: drop the result.
    AlreadyAnswered,
    /// The worker does not hold such a call. From an attached worker this is misbehaviour.
    Stale,
}

/// Every way in which a call can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Refused(Refusal),
    Finished(RunOutcome),
    DeadlinePassed,
    Cancelled,
    /// It closed a circle of calls that wait for each other.
    WouldDeadlock,
    WorkerLost,
    WorkerMisbehaved,
    Quarantined,
}

/// The one mapping of endings to wire statuses.
pub(crate) const fn status_of(ending: Ending, may_have_started: bool) -> Status {
    match ending {
        Ending::Refused(Refusal::Draining) => Status::Draining,
        Ending::Refused(Refusal::UnknownFunction) => Status::UnknownFunction,
        Ending::Refused(Refusal::UnknownCriticality) => Status::UnknownCriticality,
        Ending::Refused(Refusal::PayloadTooLarge) => Status::PayloadTooLarge,
        Ending::Refused(Refusal::DeadlinePassed) => Status::DeadlinePassed,
        Ending::Refused(Refusal::NoWorker) => Status::NoWorker,
        Ending::Refused(Refusal::QueueFull { .. }) => Status::QueueFull,
        Ending::Refused(Refusal::Overloaded) => Status::Overloaded,
        Ending::Refused(Refusal::RateLimited { .. }) => Status::RateLimited,
        Ending::Refused(Refusal::WouldDeadlock) => Status::WouldDeadlock,
        Ending::Refused(Refusal::StartTooLate) => Status::StartTooLate,
        Ending::Refused(Refusal::DeadlineUnreachable { .. }) => Status::DeadlineUnreachable,
        Ending::Refused(Refusal::BreakerOpen { .. }) => Status::BreakerOpen,
        Ending::Refused(Refusal::JoinFull) => Status::Overloaded,

        Ending::Finished(RunOutcome::Ok) => Status::Ok,
        Ending::Finished(RunOutcome::FunctionError) => Status::FunctionError,
        Ending::Finished(RunOutcome::ResultTooLarge) => Status::ResultTooLarge,
        Ending::Finished(RunOutcome::Backpressure) => Status::Backpressure,

        Ending::DeadlinePassed | Ending::Finished(RunOutcome::Expired) => {
            if may_have_started {
                Status::TimedOut
            } else {
                Status::Expired
            }
        }
        Ending::Cancelled | Ending::Finished(RunOutcome::Cancelled) => Status::Cancelled,
        Ending::WouldDeadlock => Status::WouldDeadlock,
        Ending::WorkerLost => Status::WorkerLost,
        Ending::WorkerMisbehaved => Status::WorkerMisbehaved,
        Ending::Quarantined => Status::Quarantined,
    }
}

/// The counter of an answer's status.
#[inline]
const fn counter_of(status: Status) -> Counter {
    match status {
        Status::Ok => Counter::AnsweredOk,
        Status::FunctionError => Counter::AnsweredFunctionError,
        Status::Backpressure => Counter::AnsweredBackpressure,
        Status::Expired => Counter::AnsweredExpired,
        Status::TimedOut => Counter::AnsweredTimedOut,
        Status::Cancelled => Counter::AnsweredCancelled,
        Status::WorkerLost => Counter::AnsweredWorkerLost,
        Status::WorkerMisbehaved => Counter::AnsweredWorkerMisbehaved,
        Status::ResultTooLarge => Counter::AnsweredResultTooLarge,
        Status::Quarantined => Counter::AnsweredQuarantined,
        Status::WouldDeadlock => Counter::AnsweredWouldDeadlock,
        Status::NoWorker => Counter::AnsweredNoWorker,
        _ => panic!("an admitted call cannot end with this refusal"),
    }
}

/// What is known about the run of the attempt that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Not begun, and it will not.
    Never,
    /// Begun, or nobody can prove that it is not.
    MayHaveStarted,
    /// Begun and ended at these times, in this order, after the push and before now.
    Finished { started_at: Nanos, finished_at: Nanos },
}

impl Run {
    /// How long it ran, if it ended.
    #[inline]
    pub(crate) fn length(self) -> Option<Nanos> {
        match self {
            Run::Finished { started_at, finished_at } => Some(finished_at.since(started_at)),
            Run::Never | Run::MayHaveStarted => None,
        }
    }
}

impl Engine {
    /// A worker gave a call back. If this is its answer, it is returned at once, while the result is in the ring.
    pub fn handle_completion(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        invocation: InvocationId,
        finished: Finished,
    ) -> Completed {
        let mut found = None;
        self.handle_results(now, worker, std::iter::once((invocation, finished)), |answer| {
            found = Some(answer)
        });
        match found {
            Some(answer) => Completed::Answer(answer),
            None => self.complete_otherwise(now, worker, invocation, finished),
        }
    }

    /// The same for an end that is not a result in time, for a call that a policy has to do with, and for one whose caller has an
    /// answer or is gone.
    #[cold]
    fn complete_otherwise(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        invocation: InvocationId,
        finished: Finished,
    ) -> Completed {
        let Some(slot) = self.held_by(worker, invocation) else { return self.note_stale() };
        let entry = &mut self.workers[worker.index as usize];
        entry.give_back(now, invocation);
        let is_empty = entry.held_count() == 0;
        self.reopen(worker.index);
        if is_empty {
            self.on_worker_empty(now, worker.index);
        }
        let call = self.invocations.at(slot);
        let used = run_of(now, call, finished).length().unwrap_or_else(|| now.since(call.pushed_at));
        self.take_from_worker(slot, used);
        let call = self.invocations.at(slot);
        if call.state == State::Pushed {
            return self.complete_by_policy(now, slot, finished);
        }
        if call.state != State::Overdue {
            if let Some(answer) = self.win(now, slot, finished) {
                self.release_ended(slot);
                return Completed::Answer(answer);
            }
            if !self.share_result(now, slot, finished.outcome) {
                self.counters.count(Counter::ResultsDropped);
            }
            self.release_ended(slot);
            return Completed::AlreadyAnswered;
        }
        // No result can be an answer in time any more, whatever the worker had begun or not.
        let run = run_of(now, call, finished);
        if run != Run::Never {
            self.judge(now, slot, Judgement::Failed);
        }
        self.note_run(slot, run);
        let answer = self.answer(now, slot, Ending::DeadlinePassed, run);
        self.invocations.at_mut(slot).on(Event::Complete);
        self.share_result(now, slot, finished.outcome);
        self.free(slot);
        Completed::Answer(answer)
    }

    /// How long a call ran may change how many its function's workers hold.
    pub(crate) fn note_run(&mut self, slot: u32, run: Run) {
        let number = self.invocations.at(slot).function.0;
        if run.length().is_some_and(|length| self.functions[number as usize].note_run(&self.limits, length)) {
            self.sort_workers(number);
        }
    }

    #[cold]
    fn note_stale(&mut self) -> Completed {
        self.counters.count(Counter::ResultsStale);
        Completed::Stale
    }

    /// The next answer that is not a worker's result.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        let answer = self.answers.pop_front()?;
        let slot = answer.invocation.slot();
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::Deliver);
        if invocation.state == State::Free {
            self.free(slot);
        }
        Some(answer)
    }

    /// Ends a queued call.
    pub(crate) fn end_queued(&mut self, now: Nanos, slot: u32, ending: Ending) {
        self.dequeue(slot);
        self.timers.disarm(slot);
        self.put_answer(now, slot, ending, Run::Never);
    }

    /// Puts the answer of a call, which a worker may go on holding, in the out queue.
    pub(crate) fn put_answer(&mut self, now: Nanos, slot: u32, ending: Ending, run: Run) {
        let keep = if ending == Ending::Quarantined { Keep::InQuarantine } else { Keep::No };
        self.put_answer_and_keep(now, slot, ending, run, keep);
    }

    /// The same, for a call that would have been tried again if there were an attempt left.
    pub(crate) fn put_dead_letter(&mut self, now: Nanos, slot: u32, ending: Ending, run: Run) {
        self.put_answer_and_keep(now, slot, ending, run, Keep::AsDeadLetter);
    }

    pub(crate) fn put_answer_and_keep(
        &mut self,
        now: Nanos,
        slot: u32,
        ending: Ending,
        run: Run,
        keep: Keep,
    ) {
        let answer = Answer { keep, ..self.answer(now, slot, ending, run) };
        self.invocations.at_mut(slot).on(Event::Answer);
        self.answers.push_back(answer);
        self.on_answered(now, slot, ending, run);
    }

    /// No worker holds this answered or abandoned call any more.
    pub(crate) fn release_ended(&mut self, slot: u32) {
        self.timers.disarm(slot);
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::Release);
        if invocation.state == State::Free {
            self.free(slot);
        }
    }

    /// Gives back the slot of a call that is over.
    #[inline]
    pub(crate) fn free(&mut self, slot: u32) {
        self.timers.disarm(slot);
        self.invocations.release(slot);
    }

    pub(crate) fn answer(&mut self, now: Nanos, slot: u32, ending: Ending, run: Run) -> Answer {
        let answer = Answer::new(self.invocations.at(slot), self.invocations.id_of(slot), now, ending, run);
        self.counters.count(counter_of(answer.status));
        answer
    }
}

impl Answer {
    #[inline(always)]
    pub(crate) fn new(
        call: &Invocation,
        invocation: InvocationId,
        now: Nanos,
        ending: Ending,
        run: Run,
    ) -> Answer {
        let may_have_started = run != Run::Never || call.marks.has(Marks::MAY_HAVE_STARTED);
        Answer {
            origin: call.origin,
            invocation,
            function: call.function,
            status: status_of(ending, may_have_started),
            flags: if may_have_started { Flags::STARTED } else { Flags::NONE },
            want_timings: call.marks.has(Marks::WANT_TIMINGS),
            keep: Keep::No,
            attempts: call.attempts,
            retry_after_us: 0,
            stamps: Stamps::new(call, now, run),
        }
    }
}

/// What a worker's word is worth: it can have run the call only between push and now.
#[inline]
pub(crate) fn run_of(now: Nanos, call: &Invocation, finished: Finished) -> Run {
    if !finished.outcome.has_run() {
        return Run::Never;
    }
    let end = now.max(call.pushed_at);
    let started_at = finished.started_at.max(call.pushed_at).min(end);
    Run::Finished { started_at, finished_at: finished.finished_at.max(started_at).min(end) }
}
