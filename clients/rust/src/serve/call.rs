//! What a function sees of a call, and how it answers.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Criticality, DownstreamName, TraceContext};
use shm_ring::client_ring::{LaneService, TakenCall};
use shm_ring::clock::monotonic_ns;
use shm_ring::{Mapped, Taken, WorkerEnd};

use crate::waits::Waits;

/// One call, while its function runs.
pub struct Call<'a> {
    payload: &'a [u8],
    origin: Origin<'a>,
    waits: Option<&'a Arc<Waits>>,
}

/// Which way a call came.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// None: a test of a function alone.
    Nowhere,
    /// From the router.
    Ring(&'a WorkerEnd<Mapped>, &'a Taken),
    /// From a client.
    Lane(&'a LaneService<Mapped>, &'a TakenCall),
}

impl<'a> Call<'a> {
    /// A call as a function sees it, without a router, a deadline or anything special: for testing a function
    /// alone.
    pub fn with_payload(payload: &'a [u8]) -> Self {
        Self { payload, origin: Origin::Nowhere, waits: None }
    }

    pub(super) fn new(ring: &'a WorkerEnd<Mapped>, taken: &'a Taken, waits: &'a Arc<Waits>) -> Self {
        Self { payload: ring.payload(taken), origin: Origin::Ring(ring, taken), waits: Some(waits) }
    }

    pub(super) fn in_lane(lane: &'a LaneService<Mapped>, taken: &'a TakenCall, payload: &'a [u8]) -> Self {
        Self { payload, origin: Origin::Lane(lane, taken), waits: None }
    }

    /// The caller's bytes, in place: not copied for this process.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The time left until nobody waits any more; `None` if there is no end. Zero: it has passed, and the answer will
    /// be thrown away.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline_at_ns = match self.origin {
            Origin::Nowhere => return None,
            Origin::Ring(_, taken) => taken.deadline_at_ns,
            Origin::Lane(_, taken) => taken.deadline_at_ns,
        };
        (deadline_at_ns != u64::MAX)
            .then(|| Duration::from_nanos(deadline_at_ns.saturating_sub(monotonic_ns())))
    }

    /// The most bytes a result may have. A longer one is dropped, and the caller told ResultTooLarge; so is the text of an error.
    /// No bound in a test.
    pub fn result_size_max(&self) -> usize {
        let geometry = match self.origin {
            Origin::Nowhere => return usize::MAX,
            Origin::Ring(ring, _) => ring.geometry(),
            Origin::Lane(lane, _) => lane.ring().geometry(),
        };
        geometry.region_size() as usize
    }

    /// True when nobody wants the answer any more. Long functions look now and then, and return early: with what does
    /// not matter. One load from shared memory.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        match self.origin {
            Origin::Nowhere => false,
            Origin::Ring(ring, taken) => ring.is_cancelled(taken),
            Origin::Lane(lane, taken) => lane.is_cancelled(taken.slot),
        }
    }

    /// How much the call matters to its caller.
    pub fn criticality(&self) -> Criticality {
        let criticality = match self.origin {
            Origin::Nowhere => return Criticality::default(),
            Origin::Ring(_, taken) => taken.criticality,
            Origin::Lane(_, taken) => taken.criticality,
        };
        Criticality::try_from(criticality).unwrap_or_default()
    }

    /// The trace this call belongs to, if its caller traces.
    pub fn trace(&self) -> Option<TraceContext> {
        match self.origin {
            Origin::Nowhere => None,
            Origin::Ring(_, taken) => taken.trace,
            Origin::Lane(lane, taken) => lane.ring().context(taken.slot, taken.flags).0,
        }
        .as_ref()
        .map(TraceContext::decode)
    }

    /// What the caller uses to mark repetitions of one and the same call, if it does.
    pub fn idempotency_key(&self) -> Option<[u8; 16]> {
        match self.origin {
            Origin::Nowhere => None,
            Origin::Ring(_, taken) => taken.idempotency_key,
            Origin::Lane(lane, taken) => lane.ring().context(taken.slot, taken.flags).1,
        }
    }

    /// The router's number of this invocation, as `quickfire inspect` shows it; the client's own number in a direct lane,
    /// which no router numbers; 0 in a test.
    pub fn invocation_id(&self) -> u64 {
        match self.origin {
            Origin::Nowhere => 0,
            Origin::Ring(_, taken) => taken.invocation_id,
            Origin::Lane(_, taken) => taken.call_id,
        }
    }
}

/// What the client library needs to make calls on behalf of this one.
impl<'a> Call<'a> {
    /// Where this process shows what it waits for; nowhere on behalf of a call of which the router does not know.
    pub(super) fn waits(&self) -> Option<&'a Arc<Waits>> {
        self.waits
    }

    /// The router's number of this invocation; 0 where there is none.
    pub(super) fn router_id(&self) -> u64 {
        match self.origin {
            Origin::Ring(_, taken) => taken.invocation_id,
            Origin::Nowhere | Origin::Lane(..) => 0,
        }
    }
}

/// The result of a call, as it is written. Empty when the function begins; the memory is used again for the next call.
#[derive(Debug, Default)]
pub struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    /// An empty reply: for testing a function alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to the result.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The result so far, to be changed at will.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The result so far.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub(super) fn clear(&mut self, size_max: usize) {
        self.bytes.clear();
        // A result that was too large was dropped; its memory is not kept either.
        if self.bytes.capacity() > size_max.saturating_mul(2) {
            self.bytes.shrink_to(size_max);
        }
    }

    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

impl std::io::Write for Reply {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A function's own failure: the caller gets these bytes with the status FunctionError. Any error turns into one by
/// `?`, as its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    bytes: Vec<u8>,
    /// Not 0: these bytes are the name of something that pushed the function back, and that often.
    severity: u8,
}

impl FunctionError {
    /// A failure described by text, or by any bytes the caller understands.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), severity: 0 }
    }

    /// Something that the function calls is overloaded: its name, and how many refusals this answer stands for (0 counts as
    /// 1). The caller gets the name with the status Backpressure, and the router sends fewer calls for a while.
    ///
    /// Names are at most 32 visible ASCII characters, the same for the same thing in every process; others are made so.
    pub fn backpressure(downstream: &str, severity: u8) -> Self {
        let name = DownstreamName::from_bytes(downstream.as_bytes());
        Self { bytes: name.as_bytes().to_vec(), severity: severity.max(1) }
    }

    /// What the caller gets.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many refusals of something downstream it stands for; 0 for an error of the function's own.
    pub fn severity(&self) -> u8 {
        self.severity
    }
}

// For `?`. Why `FunctionError` is no `Error` itself: it would then turn into itself in two ways.
impl<E: std::error::Error> From<E> for FunctionError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
