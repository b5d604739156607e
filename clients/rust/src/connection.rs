//! One connection's calls, without its socket: which slots are taken, what goes out, what an answer means.
//!
//! In: calls to make, bytes from the router, the time.  Out: bytes to write, [`Event`]s that end calls.
//! Owns: the bytes not yet written and, per taken slot, the waiter `W` (a handle of the caller's; tests use numbers).
//! Always: a slot is in exactly one of free, outstanding, abandoned; it is freed only by the router's answer, so no
//! two outstanding calls ever share one (W-40). Every waiter put in comes out exactly once.
//! Never: does I/O, reads a clock, locks, or panics on the router's bytes.
//!
//! ```text
//! free -- invoke, resolve --> outstanding -- answer --> free          (event to the waiter)
//!                                  |
//!                                  +-- abandon, expire --> abandoned -- answer --> free   (nobody is told)
//! ```
//! Tests: `connection/tests.rs`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::{
    CallId, CalledBy, Class, Criticality, DownstreamName, Extensions, Flags, Frame, FrameParts, FunctionId,
    Hello, Kind, StartAfter, Status, TraceContext, decode, encode, limits,
};

use crate::call::Answer;
use crate::error::{CallError, Expiry, RouterMisbehaved};

/// Bytes waiting to be written at which new calls wait: enough for a socket never to run dry, and a bound on what a
/// router that stopped reading can make a caller hold. One larger frame still fits when nothing else waits.
const OUTBOUND_SIZE_MAX: usize = 4 << 20;

/// The calls of one connection.
#[derive(Debug)]
pub(crate) struct Session<W> {
    frame_size_max: u32,
    slots: Vec<Slot<W>>,
    free: Vec<u32>,
    outbound: Vec<u8>,
    /// Bytes ever appended to `outbound`.
    appended: u64,
    /// Bytes that may have reached the router: handed to a writer and not given back.
    released: u64,
    /// No outstanding call's deadline is earlier.
    deadline_next: Option<Instant>,
    goaway: Option<Status>,
}

#[derive(Debug)]
struct Slot<W> {
    generation: u32,
    state: SlotState<W>,
}

#[derive(Debug)]
enum SlotState<W> {
    Free,
    Outstanding { asked: Asked, waiter: W, frame_end: u64, deadline_at: Option<Instant> },
    Abandoned { asked: Asked },
}

/// Which answer a slot waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Resolve,
    Invoke,
}

/// The end of one call.
#[derive(Debug, PartialEq)]
pub(crate) enum Event<W> {
    /// An INVOKE was answered.
    Answered { waiter: W, outcome: Result<Answer, CallError> },
    /// A RESOLVE was answered.
    Resolved { waiter: W, outcome: Result<FunctionId, CallError> },
}

/// All of an INVOKE but its payload.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Invocation {
    pub(crate) function_id: FunctionId,
    pub(crate) budget_us: u32,
    pub(crate) deadline_at: Option<Instant>,
    pub(crate) criticality: Criticality,
    pub(crate) flags: Flags,
    pub(crate) idempotency_key: Option<[u8; 16]>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) called_by: Option<CalledBy>,
    pub(crate) start_after: Option<Duration>,
}

/// Why a call was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Every credit is in use, too much waits to be written, or the router drains: later.
    NoRoom,
    /// Larger than any frame this router takes: never.
    PayloadTooLarge,
    /// It asks for something that this transport does not carry, and that must not be left out: never.
    NotCarried,
}

impl<W> Session<W> {
    /// A connection as HELLO left it.
    pub(crate) fn new(hello: &Hello) -> Self {
        let slots = (0..hello.credits).map(|_| Slot { generation: 0, state: SlotState::Free }).collect();
        Self {
            frame_size_max: hello.frame_size_max,
            slots,
            // Popped from the end: the lowest slots are used first and stay warm in cache.
            free: (0..hello.credits).rev().collect(),
            outbound: Vec::new(),
            appended: 0,
            released: 0,
            deadline_next: None,
            goaway: None,
        }
    }

    /// Starts a call. Gives the waiter back if it cannot be taken.
    pub(crate) fn invoke(
        &mut self,
        invocation: &Invocation,
        payload: &[u8],
        waiter: W,
    ) -> Result<CallId, (NotTaken, W)> {
        let extensions = Extensions {
            idempotency_key: invocation.idempotency_key,
            trace: invocation.trace,
            called_by: invocation.called_by,
            start_after: invocation.start_after.map(start_after),
            ..Extensions::NONE
        };
        let extension_size = extensions.flags().known_extension_size() as u16;
        if payload.len() > limits::payload_size_max(self.frame_size_max, extension_size) as usize {
            return Err((NotTaken::PayloadTooLarge, waiter));
        }
        let Some(call_id) = self.take_slot() else { return Err((NotTaken::NoRoom, waiter)) };
        let parts = FrameParts {
            budget_us: invocation.budget_us,
            criticality: invocation.criticality as u8,
            flags: invocation.flags,
            ..FrameParts::invoke(call_id, invocation.function_id)
        };
        self.append(&parts, &extensions, payload);
        self.occupy(call_id, Asked::Invoke, waiter, invocation.deadline_at);
        if let Some(at) = invocation.deadline_at {
            self.deadline_next = Some(self.deadline_next.map_or(at, |next| next.min(at)));
        }
        Ok(call_id)
    }

    /// Asks for a function's number. `name` is a valid function name.
    pub(crate) fn resolve(&mut self, name: &str, waiter: W) -> Result<CallId, W> {
        let Some(call_id) = self.take_slot() else { return Err(waiter) };
        self.append(&FrameParts::resolve(call_id), &Extensions::NONE, name.as_bytes());
        self.occupy(call_id, Asked::Resolve, waiter, None);
        Ok(call_id)
    }

    /// Asks the router to stop a call. Its answer, whichever it is, still comes. Nothing happens if it is over.
    pub(crate) fn cancel(&mut self, call_id: CallId) {
        if let Some(slot) = self.slot_of(call_id)
            && matches!(slot.state, SlotState::Outstanding { asked: Asked::Invoke, .. })
        {
            self.append(&FrameParts::cancel(call_id), &Extensions::NONE, &[]);
        }
    }

    /// Nobody waits for this call any more: it is cancelled, and its answer will be dropped.
    pub(crate) fn abandon(&mut self, call_id: CallId) -> Option<W> {
        self.cancel(call_id);
        self.slot_of(call_id)?.abandon()
    }

    /// Abandons every call whose deadline has passed; the waiters are the caller's to tell.
    pub(crate) fn expire(&mut self, now: Instant, expired: &mut Vec<W>) {
        if self.deadline_next.is_none_or(|at| at > now) {
            return;
        }
        self.deadline_next = None;
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { break };
            let SlotState::Outstanding { deadline_at: Some(at), .. } = slot.state else { continue };
            if at <= now {
                let call_id = CallId::new(index as u32, slot.generation);
                expired.extend(self.abandon(call_id));
            } else {
                self.deadline_next = Some(self.deadline_next.map_or(at, |next| next.min(at)));
            }
        }
    }

    /// When [`Session::expire`] has to be called next: perhaps too early, never too late.
    pub(crate) fn deadline_next(&self) -> Option<Instant> {
        self.deadline_next
    }

    /// Takes every whole frame off the front of `bytes`; returns how many bytes those were.
    pub(crate) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        events: &mut Vec<Event<W>>,
    ) -> Result<usize, RouterMisbehaved> {
        let mut rest = bytes;
        while let Some(frame) = decode(rest, self.frame_size_max).map_err(RouterMisbehaved::Malformed)? {
            self.handle_frame(&frame, events)?;
            rest = rest.get(frame.size()..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    fn handle_frame(
        &mut self,
        frame: &Frame<'_>,
        events: &mut Vec<Event<W>>,
    ) -> Result<(), RouterMisbehaved> {
        match frame.kind {
            Kind::Reply => {
                let outcome = outcome_of(frame, || Answer {
                    payload: Bytes::copy_from_slice(frame.payload),
                    timings: frame.timings(),
                })?;
                if let Some(waiter) = self.release_slot(frame.header.call_id, Asked::Invoke)? {
                    events.push(Event::Answered { waiter, outcome });
                }
            }
            Kind::Resolved => {
                let outcome = outcome_of(frame, || frame.header.function_id)?;
                if let Some(waiter) = self.release_slot(frame.header.call_id, Asked::Resolve)? {
                    events.push(Event::Resolved { waiter, outcome });
                }
            }
            Kind::Ping => {
                self.append(&FrameParts::pong(frame.header.budget_us), &Extensions::NONE, frame.payload)
            }
            Kind::Pong => {}
            // An unknown reason is a reason all the same.
            Kind::Goaway => {
                self.goaway = Some(Status::try_from(frame.header.status).unwrap_or(Status::GoingAway));
            }
            Kind::Hello | Kind::Resolve | Kind::Invoke | Kind::Cancel => {
                return Err(RouterMisbehaved::UnexpectedFrame(frame.kind));
            }
        }
        Ok(())
    }

    /// The status of the GOAWAY, once one came: no new calls are taken.
    pub(crate) fn goaway(&self) -> Option<Status> {
        self.goaway
    }

    /// No slot is taken: after a GOAWAY, the connection has done its duty.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Bytes waiting to be written.
    pub(crate) fn outbound_size(&self) -> usize {
        self.outbound.len()
    }

    /// Hands out everything waiting to be written; `spare` becomes the new, empty buffer.
    pub(crate) fn take_outbound(&mut self, spare: Vec<u8>) -> Vec<u8> {
        debug_assert!(spare.is_empty());
        self.released = self.appended;
        std::mem::replace(&mut self.outbound, spare)
    }

    /// Takes back what could not be written of the bytes last handed out.
    pub(crate) fn give_back(&mut self, mut unwritten: Vec<u8>) {
        let appended_since = self.outbound.len() as u64;
        self.released = self.appended - appended_since - unwritten.len() as u64;
        unwritten.extend_from_slice(&self.outbound);
        self.outbound = unwritten;
    }

    /// The connection is over: everyone who waits, and whether their request may have reached the router whole.
    pub(crate) fn into_waiters(self) -> impl Iterator<Item = (W, bool)> {
        let released = self.released;
        self.slots.into_iter().filter_map(move |slot| match slot.state {
            SlotState::Outstanding { waiter, frame_end, .. } => Some((waiter, frame_end <= released)),
            SlotState::Free | SlotState::Abandoned { .. } => None,
        })
    }

    fn take_slot(&mut self) -> Option<CallId> {
        if self.goaway.is_some() || self.outbound.len() >= OUTBOUND_SIZE_MAX {
            return None;
        }
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        Some(CallId::new(index, slot.generation))
    }

    fn occupy(&mut self, call_id: CallId, asked: Asked, waiter: W, deadline_at: Option<Instant>) {
        let frame_end = self.appended;
        if let Some(slot) = self.slots.get_mut(call_id.slot() as usize) {
            debug_assert!(matches!(slot.state, SlotState::Free));
            slot.state = SlotState::Outstanding { asked, waiter, frame_end, deadline_at };
        }
    }

    /// The answer is here: the slot is free again. `Ok(None)` if nobody waits for it any more.
    fn release_slot(&mut self, call_id: CallId, answered: Asked) -> Result<Option<W>, RouterMisbehaved> {
        let nothing = RouterMisbehaved::AnswerToNothing(call_id.0);
        let slot = self.slot_of(call_id).ok_or(nothing)?;
        match slot.state {
            SlotState::Outstanding { asked, .. } | SlotState::Abandoned { asked } if asked == answered => {}
            _ => return Err(nothing),
        }
        let before = std::mem::replace(&mut slot.state, SlotState::Free);
        self.free.push(call_id.slot());
        Ok(match before {
            SlotState::Outstanding { waiter, .. } => Some(waiter),
            SlotState::Free | SlotState::Abandoned { .. } => None,
        })
    }

    fn slot_of(&mut self, call_id: CallId) -> Option<&mut Slot<W>> {
        self.slots.get_mut(call_id.slot() as usize).filter(|slot| slot.generation == call_id.generation())
    }

    fn append(&mut self, parts: &FrameParts, extensions: &Extensions, payload: &[u8]) {
        self.appended += encode(&mut self.outbound, parts, extensions, payload) as u64;
    }
}

impl<W> Slot<W> {
    fn abandon(&mut self) -> Option<W> {
        let SlotState::Outstanding { asked, .. } = self.state else { return None };
        match std::mem::replace(&mut self.state, SlotState::Abandoned { asked }) {
            SlotState::Outstanding { waiter, .. } => Some(waiter),
            SlotState::Free | SlotState::Abandoned { .. } => None,
        }
    }
}

/// Rounded up: never before the time that was asked for.
fn start_after(delay: Duration) -> StartAfter {
    StartAfter { us: u64::try_from(delay.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX) }
}

/// What an answer says beside its result, whichever way it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict<'a> {
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) retry_after_us: u32,
    pub(crate) payload: &'a [u8],
}

fn outcome_of<T>(
    frame: &Frame<'_>,
    answer: impl FnOnce() -> T,
) -> Result<Result<T, CallError>, RouterMisbehaved> {
    let header = &frame.header;
    let verdict = Verdict {
        status: header.status,
        flags: header.flags,
        retry_after_us: header.budget_us,
        payload: frame.payload,
    };
    verdict.outcome(answer)
}

impl Verdict<'_> {
    /// The one place where a status becomes what the caller sees. `answer` builds the result of a success.
    pub(crate) fn outcome<T>(
        &self,
        answer: impl FnOnce() -> T,
    ) -> Result<Result<T, CallError>, RouterMisbehaved> {
        let number = self.status;
        let started = self.flags.contains(Flags::STARTED);
        let Ok(status) = Status::try_from(number) else {
            // A newer router: its class is all we know (W-81).
            return match Class::of_number(number) {
                Class::Protocol => Err(RouterMisbehaved::StatusMisplaced(number)),
                class => Ok(Err(CallError::UnknownStatus { number, class, started })),
            };
        };
        let retry_after_us = u64::from(self.retry_after_us);
        let retry_after = (retry_after_us > 0).then(|| Duration::from_micros(retry_after_us));
        Ok(match status.class() {
            Class::Ok => Ok(answer()),
            Class::FunctionError if status == Status::Backpressure => Err(CallError::Backpressure {
                downstream: DownstreamName::from_bytes(self.payload),
                retry_after,
            }),
            Class::FunctionError => Err(CallError::FunctionError(Bytes::copy_from_slice(self.payload))),
            Class::Refused => Err(CallError::Refused { status, retry_after }),
            Class::Expired if status == Status::Expired => Err(CallError::Expired(Expiry::NeverStarted)),
            Class::Expired => Err(CallError::Expired(Expiry::Stopped)),
            Class::Cancelled => Err(CallError::Cancelled { started }),
            Class::WorkerLost => Err(CallError::WorkerLost { status, started }),
            Class::Protocol => return Err(RouterMisbehaved::StatusMisplaced(number)),
        })
    }
}

#[cfg(test)]
mod tests;
