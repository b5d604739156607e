//! The contracts, kept by somebody who does not know how the engine works.
//!
//! In: what was admitted, pushed, started and answered, as seen from outside.  Out: the first broken contract.
//! Always: keeps every invocation until the run ends, so that a start or a second answer long after the first is
//! seen. Calls that a scribbling worker held are exempt from what a liar can make untrue (whether they started),
//! never from "exactly one answer".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use engine::InvocationId;
use protocol::Status;

/// A contract that did not hold.
#[derive(Debug)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// One invocation from outside.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: u32,
    pub criticality: u8,
    pub deadline_at_ns: u64,
    pub is_idempotent: bool,
    pub mark: u64,
    pub start_count: u32,
    pub answer: Option<Status>,
    pub was_cancelled: bool,
    pub is_client_gone: bool,
    pub holder_died: bool,
    pub holder_scribbled: bool,
}

/// Everything admitted in this run.
#[derive(Default)]
pub struct Oracle {
    calls: BTreeMap<InvocationId, Call>,
    /// Of those, queued and unanswered.
    waiting: BTreeSet<InvocationId>,
}

/// By how much more than twice its remaining time a call may be overtaken: the width of the tightest bucket, which
/// also covers the timer tick by which a call may move late. See `docs/decisions/0004-deadline-buckets.md`.
const SLACK_NS: u64 = 1 << 21;

impl Oracle {
    /// A call was taken on.
    pub fn admitted(&mut self, id: InvocationId, call: Call) -> Result<(), Broken> {
        if self.calls.get(&id).is_some_and(|old| old.answer.is_none() && !old.is_client_gone) {
            return Err(Broken(format!("{id:?} was given to a second call while the first is unanswered")));
        }
        self.calls.insert(id, call);
        self.waiting.insert(id);
        Ok(())
    }

    /// A call was put into a worker's ring.
    pub fn pushed(&mut self, now_ns: u64, id: InvocationId) -> Result<(), Broken> {
        let call = self.call(id, "pushed")?.clone();
        check(call.answer.is_none(), || format!("{id:?} was pushed after its answer {:?}", call.answer))?;
        check(call.deadline_at_ns > now_ns, || format!("{id:?} was pushed after its deadline"))?;
        self.waiting.remove(&id);
        let remaining_ns = call.deadline_at_ns - now_ns;
        for other_id in &self.waiting {
            let other = &self.calls[other_id];
            // Who is past the deadline cannot be overtaken any more: it will be answered expired.
            if other.function != call.function || other.deadline_at_ns <= now_ns {
                continue;
            }
            check(other.criticality <= call.criticality, || {
                format!(
                    "{id:?} (criticality {}) overtook {other_id:?} ({})",
                    call.criticality, other.criticality
                )
            })?;
            let other_remaining_ns = other.deadline_at_ns - now_ns;
            let is_bound_kept = remaining_ns <= 2 * other_remaining_ns + SLACK_NS;
            check(other.criticality < call.criticality || is_bound_kept, || {
                format!(
                    "{id:?} with {} us left overtook {other_id:?} with {} us left",
                    remaining_ns / 1_000,
                    other_remaining_ns / 1_000
                )
            })?;
        }
        Ok(())
    }

    /// A call was taken back from a worker that is gone. If that did not end it, it waits again.
    pub fn taken_back(&mut self, id: InvocationId) -> Result<(), Broken> {
        let call = self.call(id, "taken back")?;
        if call.answer.is_none() && !call.is_client_gone {
            self.waiting.insert(id);
        }
        Ok(())
    }

    /// The caller takes the call back: whatever comes next, it does not wait for a worker any more.
    pub fn cancelled(&mut self, id: InvocationId) -> Result<(), Broken> {
        self.waiting.remove(&id);
        self.call(id, "cancelled")?.was_cancelled = true;
        Ok(())
    }

    /// The caller is gone, and no answer shall come.
    pub fn forgotten(&mut self, id: InvocationId) -> Result<(), Broken> {
        self.waiting.remove(&id);
        self.call(id, "forgotten")?.is_client_gone = true;
        Ok(())
    }

    /// A function began to run a call.
    pub fn started(&mut self, now_ns: u64, id: InvocationId) -> Result<(), Broken> {
        let call = self.call(id, "started")?;
        call.start_count += 1;
        let call = call.clone();
        check(call.answer != Some(Status::Expired), || {
            format!("{id:?} was started after it was answered expired")
        })?;
        check(call.deadline_at_ns > now_ns, || format!("{id:?} was started after its deadline"))?;
        // Who scribbles and dies before the router sees it may leave a ring that says "not started".
        check(call.start_count == 1 || call.is_idempotent || call.holder_scribbled, || {
            format!("{id:?} was started {} times and is not idempotent", call.start_count)
        })
    }

    /// A caller got an answer.
    pub fn answered(
        &mut self,
        now_ns: u64,
        id: InvocationId,
        status: Status,
        mark: Option<u64>,
    ) -> Result<(), Broken> {
        self.waiting.remove(&id);
        let call = self.call(id, "answered")?;
        let before = call.answer.replace(status);
        let call = call.clone();
        check(before.is_none(), || format!("{id:?} was answered {before:?} and then {status:?}"))?;
        check(!call.is_client_gone, || format!("{id:?} was answered to a client that is gone"))?;
        if call.holder_scribbled {
            return Ok(());
        }
        let is_due = now_ns >= call.deadline_at_ns;
        let holds = match status {
            Status::Ok => call.start_count > 0 && mark == Some(call.mark),
            Status::FunctionError | Status::ResultTooLarge => call.start_count > 0,
            Status::Expired => call.start_count == 0 && is_due,
            // "Expired" is a proof that nothing ran; "timed out" says only that nobody can prove it any more.
            Status::TimedOut => is_due,
            Status::Cancelled => call.was_cancelled,
            Status::WorkerLost => call.holder_died,
            _ => false,
        };
        check(holds, || {
            format!("{id:?} was answered {status:?} (result {mark:?}), which is not true of {call:?}")
        })
    }

    /// The run is over and drained: nobody may be left without an answer.
    pub fn ended(&self) -> Result<(), Broken> {
        for (id, call) in &self.calls {
            check(call.answer.is_some() || call.is_client_gone, || {
                format!("{id:?} was never answered: {call:?}")
            })?;
        }
        Ok(())
    }

    /// A call, to be marked with what was done to it.
    pub fn call(&mut self, id: InvocationId, what: &str) -> Result<&mut Call, Broken> {
        self.calls.get_mut(&id).ok_or_else(|| Broken(format!("{id:?} was {what}, but never admitted")))
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

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}
