//! Stage 8 of 8 for calls that a worker gave back together: what is the same for all of them is asked once.
//!
//! In: what the worker says of each call.  Out: the answers of those up to the first that has to be told alone, with
//! `handle_completion`.
//! Always: nothing is done to a call that is not told here; and what is done to the others is what
//! `handle_completion` would have done, which begins by asking here.

use crate::Engine;
use crate::attachment::current;
use crate::counters::Counter;
use crate::invocation::{Event, InvocationId, Marks, State};
use crate::reply::{Answer, Ending, Finished, RunOutcome, run_of};
use crate::time::Nanos;
use crate::worker::WorkerId;

impl Engine {
    /// A worker gave calls back, in this order: tells the answers of those up to the first that has to be told alone, with
    /// `handle_completion`. Nearly every one is a result of the function, for a call that this worker holds and somebody waits
    /// for: for others nothing is done here.
    #[inline(always)]
    pub fn handle_results(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        results: impl Iterator<Item = (InvocationId, Finished)>,
        mut on_answer: impl FnMut(Answer),
    ) {
        let Some(entry) = current(&mut self.workers, worker) else { return };
        let Some(function) = self.functions.get_mut(entry.function.0 as usize) else { return };
        if function.has_to_see_each_result() || entry.waits_in != InvocationId::NONE {
            return;
        }
        let is_permitted = function.checks.any_at_dispatch();
        let (mut count, mut used, mut is_resorted) = (0, Nanos::ZERO, false);
        for (invocation, finished) in results {
            if finished.outcome != RunOutcome::Ok {
                break;
            }
            let ended = self.invocations.release_if(invocation, |call| {
                let is_simple = call.state == State::Pushed
                    && call.worker == worker.index
                    && call.marks.has(Marks::PERMITTED) == is_permitted;
                // Held in time, and so without a timer.
                is_simple.then(|| {
                    call.on(Event::Complete);
                    let run = run_of(now, call, finished);
                    (Answer::new(call, invocation, now, Ending::Finished(RunOutcome::Ok), run), run)
                })
            });
            let Some((answer, run)) = ended else { break };
            on_answer(answer);
            entry.held.remove(invocation);
            count += 1;
            if let Some(length) = run.length() {
                used = used.plus(length);
                is_resorted = function.note_run(&self.limits, length);
            }
            if is_resorted {
                // Workers open and close by it, and who waits for them may change places: the next result finds them so.
                break;
            }
        }
        if count == 0 {
            return;
        }
        function.note_results(now, count);
        entry.progress_at = now;
        entry.credits += count;
        let (number, is_warm, is_empty) = (entry.function.0, entry.is_warm, entry.held_count() == 0);
        self.counters.add(Counter::AnsweredOk, count.into());
        if is_resorted {
            self.sort_workers(number);
        }
        if !is_warm {
            self.reopen(worker.index);
        }
        if is_empty {
            self.on_worker_empty(now, worker.index);
        }
        if is_permitted {
            self.give_permits(number, count, used);
        }
    }
}
