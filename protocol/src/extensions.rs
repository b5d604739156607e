//! What may stand between header and payload: idempotency key, trace context, stage timings, the caller of a
//! nested call, a start in the future.
//!
//! Always: extensions lie in the order of their flag bits and each is a multiple of 16 bytes, so that their places
//! follow from the flags alone (W-21, W-22).
//! Never: fails. The frame decoder has already checked that the extensions of all known flags are there.

use crate::flags::Flags;
use crate::wait_token::WaitToken;

/// Bytes of the idempotency key extension.
pub const IDEMPOTENCY_KEY_SIZE: usize = 16;
/// Bytes of the trace context extension.
pub const TRACE_SIZE: usize = 32;
/// Bytes of the stage timings extension.
pub const TIMINGS_SIZE: usize = 64;
/// Bytes of the extension that says by whom a call is made.
pub const CALLED_BY_SIZE: usize = 16;
/// Bytes of the extension that says when a call may start.
pub const START_AFTER_SIZE: usize = 16;

/// The extensions of one frame. Each that is there sets its flag when the frame is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extensions {
    /// Two calls of one function with the same key are the same call.
    pub idempotency_key: Option<[u8; IDEMPOTENCY_KEY_SIZE]>,
    /// The trace this call belongs to.
    pub trace: Option<TraceContext>,
    /// REPLY: when the call passed each stage.
    pub timings: Option<Timings>,
    /// INVOKE: the call that makes this one.
    pub called_by: Option<CalledBy>,
    /// INVOKE: the call must not start before.
    pub start_after: Option<StartAfter>,
}

impl Extensions {
    /// No extension.
    pub const NONE: Extensions =
        Extensions { idempotency_key: None, trace: None, timings: None, called_by: None, start_after: None };

    /// The flags that announce these extensions.
    #[inline]
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::NONE;
        if self.idempotency_key.is_some() {
            flags = flags.with(Flags::IDEMPOTENCY_KEY);
        }
        if self.trace.is_some() {
            flags = flags.with(Flags::TRACE);
        }
        if self.timings.is_some() {
            flags = flags.with(Flags::TIMINGS);
        }
        if self.called_by.is_some() {
            flags = flags.with(Flags::CALLED_BY);
        }
        if self.start_after.is_some() {
            flags = flags.with(Flags::START_AFTER);
        }
        flags
    }

    /// Appends the extensions in the order of their flag bits (W-22).
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        if let Some(key) = &self.idempotency_key {
            out.extend_from_slice(key);
        }
        if let Some(trace) = &self.trace {
            out.extend_from_slice(&trace.encode());
        }
        if let Some(timings) = &self.timings {
            out.extend_from_slice(&timings.encode());
        }
        if let Some(called_by) = &self.called_by {
            out.extend_from_slice(&called_by.encode());
        }
        if let Some(start_after) = &self.start_after {
            out.extend_from_slice(&start_after.encode());
        }
    }

    /// Where `flag`'s extension starts in a frame with these `flags`: behind those of all lower bits.
    #[inline]
    pub(crate) const fn offset_of(flag: Flags, flags: Flags) -> usize {
        Flags(flags.0 & (flag.0 - 1)).known_extension_size()
    }
}

/// A W3C trace context: enough to continue a trace, with no meaning of its own to the router.
///
/// ```text
/// 0 trace id, 16 bytes | 16 parent span id, 8 bytes | 24 u32 trace flags | 28 zero, 4 bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceContext {
    /// The whole trace.
    pub trace_id: [u8; 16],
    /// The span in which the call was made.
    pub parent_span_id: [u8; 8],
    /// Bit 0: sampled.
    pub trace_flags: u32,
}

impl TraceContext {
    /// The extension's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; TRACE_SIZE] {
        let mut bytes = [0; TRACE_SIZE];
        bytes[0..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.parent_span_id);
        bytes[24..28].copy_from_slice(&self.trace_flags.to_le_bytes());
        bytes
    }

    /// Reads the extension. All bytes are valid; the last four are not looked at.
    #[inline]
    pub fn decode(bytes: &[u8; TRACE_SIZE]) -> TraceContext {
        let mut trace = TraceContext::default();
        trace.trace_id.copy_from_slice(&bytes[0..16]);
        trace.parent_span_id.copy_from_slice(&bytes[16..24]);
        trace.trace_flags = u32_at(bytes, 24);
        trace
    }
}

/// The running call that makes this one, as its function says.
///
/// ```text
/// 0 u64 the caller's invocation id, 0 = not known | 8 u8 depth | 9 wait token, 7 bytes, 0 = none
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CalledBy {
    /// The router's number of that call.
    pub invocation_id: u64,
    /// How many calls this one is nested in, at least 1.
    pub depth: u8,
    /// Proves that the process that runs the caller makes this call.
    pub wait_token: WaitToken,
}

impl CalledBy {
    /// The extension's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; CALLED_BY_SIZE] {
        let mut bytes = [0; CALLED_BY_SIZE];
        bytes[0..8].copy_from_slice(&self.invocation_id.to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.wait_token.bits() << 8 | u64::from(self.depth)).to_le_bytes());
        bytes
    }

    /// Reads the extension. All bytes are valid.
    #[inline]
    pub fn decode(bytes: &[u8; CALLED_BY_SIZE]) -> CalledBy {
        let wait_token = WaitToken::from_bits(u64_at(bytes, 8) >> 8);
        CalledBy { invocation_id: u64_at(bytes, 0), depth: bytes[8], wait_token }
    }
}

/// When a call may start.
///
/// ```text
/// 0 u64 microseconds after its receipt | 8 zero, 8 bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StartAfter {
    /// Microseconds from the receipt of the call until it may start.
    pub us: u64,
}

impl StartAfter {
    /// The extension's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; START_AFTER_SIZE] {
        let mut bytes = [0; START_AFTER_SIZE];
        bytes[0..8].copy_from_slice(&self.us.to_le_bytes());
        bytes
    }

    /// Reads the extension. All bytes are valid; the last eight are not looked at.
    #[inline]
    pub fn decode(bytes: &[u8; START_AFTER_SIZE]) -> StartAfter {
        StartAfter { us: u64_at(bytes, 0) }
    }
}

/// When a call passed each stage in the router, and what it waited for longest.
///
/// ```text
///  0 u64 received, on the router's monotonic clock
///  8 admitted | 16 queued | 24 pushed | 32 started | 40 finished | 48 answered: u64, nanoseconds after received
/// 56 u8 cause | 57 zero, 7 bytes
/// ```
///
/// A stage that the call never reached is [`Timings::NOT_REACHED`]: zero would be a real stamp, because the router
/// reads its clock once a turn and a call is often received, admitted and pushed in the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// When the router read the frame, on the router's monotonic clock. Comparable with other calls of the same
    /// router only.
    pub received_at_ns: u64,
    /// Nanoseconds from received until admission said yes.
    pub admitted_ns: u64,
    /// Nanoseconds from received until the call stood in its run queue.
    pub queued_ns: u64,
    /// Nanoseconds from received until the call was in a worker's ring.
    pub pushed_ns: u64,
    /// Nanoseconds from received until the function began.
    pub started_ns: u64,
    /// Nanoseconds from received until the function returned.
    pub finished_ns: u64,
    /// Nanoseconds from received until the router wrote this answer.
    pub answered_ns: u64,
    /// What the call waited for longest.
    pub cause: Cause,
}

impl Timings {
    /// The stamp of a stage that the call never reached (W-62).
    pub const NOT_REACHED: u64 = u64::MAX;

    /// The six stages after received, in order, with their names.
    pub fn stages(&self) -> [(&'static str, Option<u64>); 6] {
        let reached = |stamp: u64| (stamp != Timings::NOT_REACHED).then_some(stamp);
        [
            ("admitted", reached(self.admitted_ns)),
            ("queued", reached(self.queued_ns)),
            ("pushed", reached(self.pushed_ns)),
            ("started", reached(self.started_ns)),
            ("finished", reached(self.finished_ns)),
            ("answered", reached(self.answered_ns)),
        ]
    }

    /// The extension's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; TIMINGS_SIZE] {
        let mut bytes = [0; TIMINGS_SIZE];
        bytes[0..8].copy_from_slice(&self.received_at_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.admitted_ns.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.queued_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.pushed_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.started_ns.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.finished_ns.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.answered_ns.to_le_bytes());
        bytes[56] = self.cause as u8;
        bytes
    }

    /// Reads the extension. All bytes are valid; an unknown cause reads as [`Cause::None`] (W-63).
    #[inline]
    pub fn decode(bytes: &[u8; TIMINGS_SIZE]) -> Timings {
        Timings {
            received_at_ns: u64_at(bytes, 0),
            admitted_ns: u64_at(bytes, 8),
            queued_ns: u64_at(bytes, 16),
            pushed_ns: u64_at(bytes, 24),
            started_ns: u64_at(bytes, 32),
            finished_ns: u64_at(bytes, 40),
            answered_ns: u64_at(bytes, 48),
            cause: Cause::from_number(bytes[56]),
        }
    }
}

impl Default for Timings {
    /// No stage reached.
    fn default() -> Timings {
        Timings {
            received_at_ns: 0,
            admitted_ns: Timings::NOT_REACHED,
            queued_ns: Timings::NOT_REACHED,
            pushed_ns: Timings::NOT_REACHED,
            started_ns: Timings::NOT_REACHED,
            finished_ns: Timings::NOT_REACHED,
            answered_ns: Timings::NOT_REACHED,
            cause: Cause::None,
        }
    }
}

/// What a call waited for longest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Cause {
    /// Nothing worth naming.
    #[default]
    None = 0,
    /// No worker was warm, or none had a free slot.
    Worker = 1,
    /// More urgent calls went first.
    Order = 2,
    /// The worker had not yet taken it out of its ring.
    Ring = 3,
    /// The function itself.
    Function = 4,
    /// The way of the answer back.
    Reply = 5,
}

impl Cause {
    /// Every cause, by number.
    pub const ALL: [Cause; 6] =
        [Cause::None, Cause::Worker, Cause::Order, Cause::Ring, Cause::Function, Cause::Reply];

    /// The cause of this number, [`Cause::None`] if it is unknown: a newer router may know more reasons.
    #[inline]
    pub const fn from_number(number: u8) -> Cause {
        match number {
            1 => Cause::Worker,
            2 => Cause::Order,
            3 => Cause::Ring,
            4 => Cause::Function,
            5 => Cause::Reply,
            _ => Cause::None,
        }
    }

    /// The word used in documents and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::None => "none",
            Cause::Worker => "worker",
            Cause::Order => "order",
            Cause::Ring => "ring",
            Cause::Function => "function",
            Cause::Reply => "reply",
        }
    }

    /// What it means, for people.
    pub const fn explain(self) -> &'static str {
        match self {
            Cause::None => "the call waited for nothing worth naming",
            Cause::Worker => "it waited longest for a warm worker with a free slot",
            Cause::Order => "it waited longest behind more urgent calls",
            Cause::Ring => {
                "it waited longest in its worker's ring, for earlier calls there or for the worker to wake"
            }
            Cause::Function => "the function itself took longest",
            Cause::Reply => "the way back from worker to caller took longest",
        }
    }
}

/// Reads a little-endian integer at a place that the caller's array type proves to exist.
#[inline]
fn u32_at<const N: usize>(bytes: &[u8; N], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

#[inline]
fn u64_at<const N: usize>(bytes: &[u8; N], offset: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extension_starts_behind_those_of_lower_bits() {
        let all = Flags::IDEMPOTENCY_KEY.with(Flags::TRACE).with(Flags::TIMINGS);
        assert_eq!(Extensions::offset_of(Flags::IDEMPOTENCY_KEY, all), 0);
        assert_eq!(Extensions::offset_of(Flags::TRACE, all), 16);
        assert_eq!(Extensions::offset_of(Flags::TIMINGS, all), 48);
        assert_eq!(Extensions::offset_of(Flags::TIMINGS, Flags::TIMINGS), 0);
        assert_eq!(Extensions::offset_of(Flags::TRACE, Flags::TRACE.with(Flags::TIMINGS)), 0);
    }

    #[test]
    fn a_cause_from_a_newer_router_reads_as_none() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_number(cause as u8), cause);
        }
        assert_eq!(Cause::from_number(6), Cause::None);
        assert_eq!(Cause::from_number(255), Cause::None);
    }

    #[test]
    fn a_stage_at_zero_nanoseconds_is_reached_and_one_at_the_maximum_is_not() {
        let timings = Timings { admitted_ns: 0, ..Timings::default() };
        assert_eq!(timings.stages()[0], ("admitted", Some(0)));
        assert_eq!(timings.stages()[1], ("queued", None));
    }
}
