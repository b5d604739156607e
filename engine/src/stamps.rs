//! When a call passed each stage: kept as points in time, and worked out for whoever wants lengths and a cause.
//!
//! In: an invocation that ends, and what is known of its run.  Out: the lengths that histograms want, and [`Timings`]
//! for the callers that asked for them.
//! Always: stamps are in order. What a worker claims about its own times is brought into [pushed, answered].
//! Why not `Timings` at once: nearly no caller asks for them, and every call would pay for six differences and a
//! comparison of four waits.  Tests: `tests/replies.rs`.

use protocol::{Cause, Timings};

use crate::invocation::{Invocation, Marks};
use crate::reply::Run;
use crate::time::Nanos;

/// See above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    received_at: Nanos,
    queued_at: Nanos,
    /// The last attempt; [`Nanos::NEVER`]: there was none.
    pushed_at: Nanos,
    /// Of the last attempt; in order.
    run: Run,
    answered_at: Nanos,
    queue_cause: QueueCause,
}

/// What a queued call waited for. Eight bytes, so that stamps have no hole: those who copy them would copy it in pieces
/// that do not fit the words read later, and the processor waits for such pieces (15 cycles for each call).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum QueueCause {
    Worker,
    Order,
}

impl Stamps {
    /// The stamps of a call that is answered `now`.
    #[inline(always)]
    pub(crate) fn new(invocation: &Invocation, now: Nanos, run: Run) -> Stamps {
        let pushed_at = if invocation.attempts == 0 { Nanos::NEVER } else { invocation.pushed_at };
        Stamps {
            received_at: invocation.received_at,
            queued_at: invocation.queued_at,
            pushed_at,
            run,
            answered_at: now,
            queue_cause: if invocation.marks.has(Marks::OVERTAKEN) {
                QueueCause::Order
            } else {
                QueueCause::Worker
            },
        }
    }

    /// From received to answered.
    #[inline]
    pub fn total(&self) -> Nanos {
        self.answered_at.since(self.received_at)
    }

    /// From queued to pushed; none if it never was.
    #[inline]
    pub fn queue_wait(&self) -> Option<Nanos> {
        (self.pushed_at != Nanos::NEVER).then(|| self.pushed_at.since(self.queued_at))
    }

    /// How long the function ran; none if it did not end.
    #[inline]
    pub fn run(&self) -> Option<Nanos> {
        self.run.length()
    }

    /// As the wire has them, with the longest wait.
    ///
    /// Always inlined: a call would want the stamps in memory, also where nobody asks for timings.
    #[inline(always)]
    pub fn timings(self) -> Timings {
        let since_received = |at: Nanos| at.since(self.received_at).0;
        let mut timings = Timings {
            received_at_ns: self.received_at.0,
            admitted_ns: since_received(self.queued_at),
            queued_ns: since_received(self.queued_at),
            answered_ns: since_received(self.answered_at),
            ..Timings::default()
        };
        let queue_cause = match self.queue_cause {
            QueueCause::Worker => Cause::Worker,
            QueueCause::Order => Cause::Order,
        };
        let Some(queue_wait) = self.queue_wait() else {
            timings.cause = longest([(self.answered_at.since(self.queued_at), queue_cause)]);
            return timings;
        };
        timings.pushed_ns = since_received(self.pushed_at);
        let queue_wait = (queue_wait, queue_cause);
        let since_pushed = self.answered_at.since(self.pushed_at);
        timings.cause = match self.run {
            Run::Never => longest([queue_wait, (since_pushed, Cause::Ring)]),
            Run::MayHaveStarted => longest([queue_wait, (since_pushed, Cause::Function)]),
            Run::Finished { started_at, finished_at } => {
                timings.started_ns = since_received(started_at);
                timings.finished_ns = since_received(finished_at);
                longest([
                    queue_wait,
                    (started_at.since(self.pushed_at), Cause::Ring),
                    (finished_at.since(started_at), Cause::Function),
                    (self.answered_at.since(finished_at), Cause::Reply),
                ])
            }
        };
        timings
    }
}

/// The cause of the longest wait, the earlier one of equals; none if there was no wait.
fn longest<const N: usize>(waits: [(Nanos, Cause); N]) -> Cause {
    let mut longest = (Nanos::ZERO, Cause::None);
    for wait in waits {
        if wait.0 > longest.0 {
            longest = wait;
        }
    }
    longest.1
}
