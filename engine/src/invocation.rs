//! The life of an invocation: our obligation to give exactly one answer.
//!
//! ```text
//!                 Admit            Push            PassDeadline
//!        Free ───────────▶ Queued ───────▶ Pushed ──────────────▶ Overdue     a worker may or may not
//!         ▲ ▲               │  │ ▲          │ │ │                  │ │ │      have started it; unanswered
//!         │ └── Forget ─────┘  │ └─Requeue──┘ │ │                  │ │ │
//!         │                    │              │ └─────Complete─────┼─┘ └────▶ Free (answer handed back)
//!         │             Answer │       Answer └─────────┬──Answer──┘
//!         │                    ▼                        ▼
//!         │◀─── Deliver ── Answering ◀── Release ── AnsweringHeld             answer waits in the out queue
//!         │                                             │ Deliver
//!         └───────────────────── Release ────────── Abandoned ◀── Forget ── Pushed, Overdue, AnsweringHeld
//!
//!        Free ── Join ──▶ Joined ── Complete, Forget ──▶ Free                  it waits for the end of another call
//!                          └─ Requeue ──▶ Queued   Delay ──▶ Delayed   Answer ──▶ Answering
//!        Pushed ── Outrun ──▶ Abandoned   Join ──▶ Joined                      its twin has answered; has to
//! ```
//!
//! Always: a slot is free again only when its answer was handed out (or its client is gone) *and* no worker
//! holds it, so that whoever keeps a table by slot, as the router does for payloads, never sees one slot mean
//! two calls. `Delayed`, beside `Queued`, is entered by AdmitLater and Delay and left by Requeue (`delayed.rs`). In `Queued` the slot is in one lane of one function; in `Pushed`, `Overdue`, `AnsweringHeld` and
//! `Abandoned` it is in the held list of one worker; otherwise in neither.
//! Never: two answers. `Answer` and `Complete` are legal only from unanswered states; anything else is our bug
//! and stops the process.
//! Why a table of its own and not flags: the snapshot (`snapshots/invocation.txt`) shows every pair at a glance,
//! and a change of behaviour shows up as a changed line.

use std::fmt;

use protocol::{CallId, FunctionId};

use crate::time::Nanos;

/// Bits of an [`InvocationId`] that name the shard; lowest, so that an answer finds its way home by them.
pub const SHARD_BITS: u32 = 8;
/// Bits of an [`InvocationId`] that name the slot.
pub const SLOT_BITS: u32 = 24;

/// One thread's share of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// Names one invocation for as long as anyone remembers it: `generation << 32 | slot << 8 | shard`. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvocationId(pub u64);

impl Origin {
    /// Both are calls of one connection.
    #[inline]
    pub fn is_same_caller(&self, other: &Origin) -> bool {
        self.connection == other.connection && self.connection_generation == other.connection_generation
    }
}

impl InvocationId {
    /// The id of no invocation.
    pub const NONE: InvocationId = InvocationId(0);

    pub(crate) fn new(shard: ShardId, slot: u32, generation: u32) -> InvocationId {
        debug_assert!(slot < 1 << SLOT_BITS);
        InvocationId(u64::from(generation) << 32 | u64::from(slot) << SHARD_BITS | u64::from(shard.0))
    }

    /// The shard that answers for it.
    pub const fn shard(self) -> ShardId {
        ShardId(self.0 as u8)
    }

    /// Its slot, below `limits.invocations_max`: index for side tables.
    pub const fn slot(self) -> u32 {
        (self.0 as u32) >> SHARD_BITS
    }

    /// Which use of the slot this is.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invocation {}:{}.{}", self.shard().0, self.slot(), self.generation())
    }
}

/// Where the answer goes. The engine carries it and never looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The front-end's connection slot.
    pub connection: u32,
    /// Which use of the connection slot, so that an answer never reaches a successor.
    pub connection_generation: u32,
    /// The caller's own number for the call.
    pub call_id: CallId,
}

/// Where an invocation is. See the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The slot is unused.
    Free,
    /// Waiting in a lane of its function.
    Queued,
    /// Waiting for a time before which it must not stand in a lane.
    Delayed,
    /// Waiting for the result of another call with the same key.
    Joined,
    /// In a worker's ring: waiting there, running, or done and not yet seen.
    Pushed,
    /// As `Pushed`, but past its deadline: the worker was asked to stop, and whether it started is not yet known.
    Overdue,
    /// No worker holds it; its answer waits to be polled.
    Answering,
    /// A worker still holds it; its answer waits to be polled.
    AnsweringHeld,
    /// A worker still holds it; nobody waits for it any more.
    Abandoned,
}

/// What can happen to an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Admission took it.
    Admit,
    /// Admission took it, and another call is run for it too; or its worker is lost, and its twin still runs.
    Join,
    /// Its twin brought the answer, which was handed back.
    Outrun,
    /// Admission took it, and it must not start yet.
    AdmitLater,
    /// Dispatch gave it to a worker.
    Push,
    /// It stands in a lane again: to be tried again, or its time has come.
    Requeue,
    /// It is to be tried again, but not yet.
    Delay,
    /// Its deadline passed in a worker's hands without proof that it started.
    PassDeadline,
    /// An answer that is not a worker's result was put in the out queue.
    Answer,
    /// The worker's result came and was handed back as the answer.
    Complete,
    /// The worker no longer holds it, and what it brought is dropped.
    Release,
    /// The answer was polled.
    Deliver,
    /// The client is gone: no answer is wanted.
    Forget,
}

/// An event in a state that has no place for it: our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an invocation that is {from:?} cannot {event:?}")]
pub struct Illegal {
    /// The state it was in.
    pub from: State,
    /// What was asked of it.
    pub event: Event,
}

/// The one table of an invocation's life.
#[inline]
pub const fn on_event(from: State, event: Event) -> Result<State, Illegal> {
    use {Event as E, State as S};
    Ok(match (from, event) {
        (S::Free, E::Admit) => S::Queued,
        (S::Free, E::Join) => S::Joined,
        (S::Free, E::AdmitLater) => S::Delayed,

        (S::Queued, E::Push) => S::Pushed,
        (S::Queued, E::Answer) => S::Answering,
        (S::Queued, E::Forget) => S::Free,

        (S::Delayed, E::Requeue) => S::Queued,
        (S::Delayed, E::Answer) => S::Answering,
        (S::Delayed, E::Forget) => S::Free,

        (S::Joined, E::Requeue) => S::Queued,
        (S::Joined, E::Delay) => S::Delayed,
        (S::Joined, E::Answer) => S::Answering,
        (S::Joined, E::Complete) => S::Free,
        (S::Joined, E::Forget) => S::Free,

        (S::Pushed, E::Complete) => S::Free,
        (S::Pushed, E::Requeue) => S::Queued,
        (S::Pushed, E::Delay) => S::Delayed,
        (S::Pushed, E::PassDeadline) => S::Overdue,
        (S::Pushed, E::Answer) => S::AnsweringHeld,
        (S::Pushed, E::Forget) => S::Abandoned,
        (S::Pushed, E::Outrun) => S::Abandoned,
        (S::Pushed, E::Join) => S::Joined,

        (S::Overdue, E::Complete) => S::Free,
        (S::Overdue, E::Answer) => S::AnsweringHeld,
        (S::Overdue, E::Forget) => S::Abandoned,

        (S::AnsweringHeld, E::Release) => S::Answering,
        (S::AnsweringHeld, E::Deliver) => S::Abandoned,
        (S::Answering, E::Deliver) => S::Free,

        (S::Abandoned, E::Release) => S::Free,

        (from, event) => return Err(Illegal { from, event }),
    })
}

impl State {
    /// Whether a worker's ring still has it.
    pub(crate) const fn is_held(self) -> bool {
        matches!(self, State::Pushed | State::Overdue | State::AnsweringHeld | State::Abandoned)
    }

    /// Whether the client is still owed an answer that does not exist yet.
    pub(crate) const fn is_unanswered(self) -> bool {
        matches!(self, State::Queued | State::Delayed | State::Joined | State::Pushed | State::Overdue)
    }
}

/// What the engine remembers of one call: one cache line, because every stage touches most of it.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Invocation {
    pub generation: u32,
    pub state: State,
    /// The lane it waits in while queued (`queue::LaneIndex` as a byte).
    pub lane: u8,
    /// Times it was pushed.
    pub attempts: u8,
    pub marks: Marks,
    pub function: FunctionId,
    /// Index of the worker that holds it, while held. While `Delayed` see `delayed.rs`.
    pub worker: u32,
    pub deadline_at: Nanos,
    pub received_at: Nanos,
    pub queued_at: Nanos,
    /// While `Delayed`: when its time comes.
    pub pushed_at: Nanos,
    pub origin: Origin,
}

const _: () = assert!(size_of::<Invocation>() == 64, "one cache line per invocation");

/// Small truths about one invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    pub const NONE: Marks = Marks(0);
    /// The client asked for stage timings.
    pub const WANT_TIMINGS: Marks = Marks(1);
    /// Running it twice does no harm, says the function or the caller.
    pub const IDEMPOTENT: Marks = Marks(2);
    /// Calls admitted after it were pushed before it.
    pub const OVERTAKEN: Marks = Marks(4);
    /// An earlier attempt had started, or nobody can prove that it had not.
    pub const MAY_HAVE_STARTED: Marks = Marks(16);
    /// It holds what `permits.rs` gave it, until its worker lets go of it.
    pub const PERMITTED: Marks = Marks(128);
    /// The request to stop was handed to the router, so the worker can see it.
    pub const CANCEL_DELIVERED: Marks = Marks(8);
    /// Queued so long that it also stands in its function's list of aged calls.
    pub const AGED: Marks = Marks(32);
    /// A worker died while it ran this call.
    pub const LOST_A_WORKER: Marks = Marks(64);

    pub const fn with(self, other: Marks, is_set: bool) -> Marks {
        Marks(if is_set { self.0 | other.0 } else { self.0 & !other.0 })
    }

    pub const fn and(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    pub const fn has(self, other: Marks) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    const STATES: [State; 9] = [
        State::Free,
        State::Queued,
        State::Delayed,
        State::Joined,
        State::Pushed,
        State::Overdue,
        State::Answering,
        State::AnsweringHeld,
        State::Abandoned,
    ];
    const EVENTS: [Event; 13] = [
        Event::Admit,
        Event::Join,
        Event::Outrun,
        Event::AdmitLater,
        Event::Push,
        Event::Requeue,
        Event::Delay,
        Event::PassDeadline,
        Event::Answer,
        Event::Complete,
        Event::Release,
        Event::Deliver,
        Event::Forget,
    ];

    #[test]
    fn every_pair_of_state_and_event_is_as_the_snapshot_says() {
        let mut table =
            String::from("# from + event = to. Every pair; `-` means that the pair is our bug.\n");
        for from in STATES {
            for event in EVENTS {
                let to = on_event(from, event).map_or_else(|_| "-".to_owned(), |to| format!("{to:?}"));
                table.push_str(&format!("{:<14}+ {:<13}= {to}\n", format!("{from:?}"), format!("{event:?}")));
            }
        }
        snapshot::check("invocation.txt", &table);
    }

    #[test]
    fn no_state_can_be_answered_twice() {
        for from in STATES {
            for event in [Event::Answer, Event::Complete] {
                if on_event(from, event).is_ok() {
                    assert!(
                        from.is_unanswered(),
                        "{from:?} was answered already, and {event:?} answers again"
                    );
                }
            }
        }
    }

    #[test]
    fn an_id_keeps_its_three_parts_apart() {
        let id = InvocationId::new(ShardId(0xAB), 0x00CD_EF01, 0x2345_6789);
        assert_eq!((id.shard(), id.slot(), id.generation()), (ShardId(0xAB), 0x00CD_EF01, 0x2345_6789));
        assert_eq!(id.0, 0x2345_6789_CDEF_01AB);
    }
}
