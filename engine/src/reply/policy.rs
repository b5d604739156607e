//! Stage 8 of 8, the part that only functions with policies reach: what the end of a run says about its function, and
//! whether it is the end of the call.
//!
//! In: runs that ended, however they did.  Out: judgements for the breaker; for an error that the function wants to be tried
//! again, the call in its queue.
//! Always: one judgement for each run that may have begun; none for calls that did not, or that were cancelled.
//! Never: reached by a result in time of a function that nothing is known against (`batch/results.rs`).
//! Tests: one file in `tests/` for each policy.

use crate::Engine;
use crate::counters::Counter;
use crate::invocation::Event;
use crate::policy::Checks;
use crate::reply::{Answer, Completed, Ending, Finished, Keep, Run, RunOutcome, run_of};
use crate::retry::NotAgain;
use crate::time::Nanos;

/// What a run says about its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It gave a result.
    Well,
    /// It gave an error, took too long, or its worker died of it.
    Failed,
}

impl Engine {
    /// A worker gave a call back in time, and has been seen to.
    pub(super) fn complete_by_policy(&mut self, now: Nanos, slot: u32, finished: Finished) -> Completed {
        let run = run_of(now, self.invocations.at(slot), finished);
        if run != Run::Never {
            self.note_attempt(now, slot);
        }
        self.end_hedge(now, slot);
        self.note_run(slot, run);
        match finished.outcome {
            RunOutcome::Ok => self.judge(now, slot, Judgement::Well),
            RunOutcome::FunctionError => {
                self.judge(now, slot, Judgement::Failed);
                let worker = self.invocations.at(slot).worker;
                match self.try_error_again(now, slot, run) {
                    Ok(()) => {
                        // The same worker may get it again, under the same id.
                        self.workers[worker as usize].held.sweep(worker, &self.invocations);
                        return Completed::TriedAgain;
                    }
                    Err(NotAgain::Unwanted) => {}
                    Err(NotAgain::UsedUp) => {
                        let answer = self.end_completed(now, slot, finished.outcome, run);
                        return Completed::LastAnswer(Answer { keep: Keep::AsDeadLetter, ..answer });
                    }
                }
            }
            // Not begun; or begun and ended well, with more to say than its caller's region holds; or pushed back, which is
            // not the function's doing, and nothing to be tried again at once.
            RunOutcome::Expired
            | RunOutcome::Cancelled
            | RunOutcome::ResultTooLarge
            | RunOutcome::Backpressure => {}
        }
        Completed::Answer(self.end_completed(now, slot, finished.outcome, run))
    }

    fn end_completed(&mut self, now: Nanos, slot: u32, outcome: RunOutcome, run: Run) -> Answer {
        let answer = self.answer(now, slot, Ending::Finished(outcome), run);
        self.invocations.at_mut(slot).on(Event::Complete);
        self.share_result(now, slot, outcome);
        self.free(slot);
        answer
    }

    fn try_error_again(&mut self, now: Nanos, slot: u32, run: Run) -> Result<(), NotAgain> {
        let number = self.invocations.at(slot).function.0;
        if !self.functions[number as usize].checks.has(Checks::RETRY_ON_ERROR) {
            return Err(NotAgain::Unwanted);
        }
        self.try_again(now, slot, run)
    }

    /// Tells the breaker of a call's function, if it has one.
    pub(crate) fn judge(&mut self, now: Nanos, slot: u32, judgement: Judgement) {
        let call = self.invocations.at(slot);
        let function = &mut self.functions[call.function.0 as usize];
        if let Some(breaker) = &mut function.breaker
            && breaker.note(now, call.queued_at, judgement == Judgement::Failed)
        {
            self.counters.count(Counter::BreakersOpened);
        }
    }
}
