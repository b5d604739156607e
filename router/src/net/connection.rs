//! One connection: from received bytes to frames, and from frames to calls.
//!
//! ```text
//!  received:   | rest of a frame | frame | frame | frame | front of a fra
//!                      │              └──┬──────────┘           │
//!              completes `partial`   read in place       kept in `partial`
//! ```
//! In: bytes in a receive buffer.  Out: requests to the engine, frames in the connection's output.
//! Always: a frame larger than negotiated is refused from its header, before its body is kept; `partial` is never longer
//! than the one frame it holds the front of, and counts as payload memory.
//! Never: panics on any bytes; looks at frames after the connection was told to go.
#![forbid(unsafe_code)]

use bytes::Bytes;
use engine::{
    CalledBy, CancelReason, Engine, InvocationId, Nanos, Origin, Request, Special, Verdict, WaitEvidence,
};
use protocol::{
    CallId, ClientMisbehaved, Extensions, Flags, Frame, FrameParts, FunctionId, HEADER_SIZE, Hello, Kind,
    Offer, Status, WaitToken, decode, decode_header, encode,
};

use super::calls::CallTable;
use super::life::{Happening, Life};
use super::outbox::Outbox;
use super::{Desk, NetOptions};
use crate::io::SourceId;
use crate::payloads::{self, KEPT_SIZE_MIN, Manner};
use crate::workers::Workers;

/// A client's connection.
pub struct Connection {
    /// Names the socket at the edge.
    pub source: SourceId,
    /// Which use of this slot of the slab.
    pub generation: u32,
    /// Where it is in its life.
    pub life: Life,
    /// Bytes of the send that is with the kernel; 0: there is none.
    pub sending_size: usize,
    /// What the shard's sum of output counts of this connection: see [`Outbox::count`].
    pub held_size: usize,
    /// In the list of connections to flush.
    pub is_touched: bool,
    /// The largest frame either side may send.
    pub frame_size_max: u32,
    /// Calls it may have outstanding.
    pub credits: u32,
    /// When the send under way last moved.
    pub progress_at: Nanos,
    /// Its outstanding calls.
    pub calls: CallTable,
    /// The front of a frame that is not complete.
    pub partial: Vec<u8>,
    /// Bytes still to come of a frame that there was no room for.
    pub skip: usize,
    /// Frames not handed to the kernel yet.
    pub output: Vec<u8>,
    /// What it contributed to the shard's work since that was last measured: see `moves`.
    pub weight: u64,
    /// It is not moved to another shard before that.
    pub stays_until: Nanos,
}

/// Why the router ends a connection. The text is the reason in the GOAWAY.
#[derive(Debug, thiserror::Error)]
pub enum Offence {
    /// Its bytes broke the protocol.
    #[error("{0}")]
    Misbehaved(#[from] ClientMisbehaved),
    /// It does not read its answers.
    #[error("answers are not read")]
    SlowReader,
    /// Nothing was said in time.
    #[error("no HELLO came in time")]
    HelloLate,
    /// There is no room for it.
    #[error("too many connections")]
    TooManyConnections,
    /// There is no room for the frame it is sending.
    #[error("the memory for waiting payloads is full")]
    PayloadMemoryFull,
    /// The router ends.
    #[error("the router is going away")]
    Draining,
}

impl Offence {
    /// The GOAWAY's status.
    pub fn status(&self) -> Status {
        match self {
            Offence::Misbehaved(misbehaved) => misbehaved.status(),
            Offence::SlowReader => Status::SlowReader,
            Offence::HelloLate => Status::HelloExpected,
            Offence::TooManyConnections => Status::TooManyConnections,
            Offence::PayloadMemoryFull => Status::Overloaded,
            Offence::Draining => Status::GoingAway,
        }
    }
}

/// Where a frame's body lies.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// At `offset` in a held receive buffer.
    InChunk { chunk: u32, offset: usize },
    /// Nowhere that lasts: it was put together from several receive buffers, and is small enough to be copied once more.
    Assembled,
    /// Behind the header in the bytes a large frame was assembled in, which the receiver may keep.
    Kept(&'a Bytes),
}

/// What a connection works with while it takes frames.
pub struct Intake<'a, 'd> {
    /// The turn's.
    pub desk: &'a mut Desk<'d>,
    /// Where calls go that need not wait.
    pub workers: &'a mut Workers,
    /// Where answers go.
    pub outbox: &'a mut Outbox,
    /// The bounds of connections.
    pub options: &'a NetOptions,
    /// The connection's own number.
    pub index: u32,
}

impl Connection {
    /// A slot of the slab that nobody uses.
    pub fn vacant() -> Connection {
        Connection {
            source: SourceId::default(),
            generation: 0,
            life: Life::Closed,
            sending_size: 0,
            held_size: 0,
            is_touched: false,
            frame_size_max: 0,
            credits: 0,
            progress_at: Nanos::ZERO,
            calls: CallTable::default(),
            partial: Vec::new(),
            skip: 0,
            output: Vec::new(),
            weight: 0,
            stays_until: Nanos::ZERO,
        }
    }

    /// A client connected and is given this slot.
    pub fn open(&mut self, source: SourceId, frame_size_max: u32) {
        *self = Connection {
            source,
            generation: self.generation,
            life: Life::AwaitHello,
            is_touched: self.is_touched,
            frame_size_max,
            ..Connection::vacant()
        };
    }

    /// The slot is free again; what is still on its way to this connection will not find it.
    pub fn close(&mut self) {
        *self = Connection {
            generation: self.generation.wrapping_add(1),
            is_touched: self.is_touched,
            ..Connection::vacant()
        };
    }

    /// Nothing it sent is of interest any more.
    pub fn forget_input(&mut self, desk: &mut Desk<'_>) {
        desk.payloads.release_partial(self.partial.capacity());
        self.partial = Vec::new();
    }

    /// Takes what was received: `bytes` is the content of the held receive buffer `chunk`.
    ///
    /// Whether the client takes its answers is asked once for each buffer and not for each frame: refusals and PONGs are
    /// no larger than what asks for them, so that output grows by a buffer and one assembled frame in between.
    pub fn on_bytes(&mut self, intake: &mut Intake<'_, '_>, bytes: &[u8], chunk: u32) -> Result<(), Offence> {
        self.take_frames(intake, bytes, chunk)?;
        if self.is_slow(intake.desk.now, intake.options) { Err(Offence::SlowReader) } else { Ok(()) }
    }

    fn take_frames(&mut self, intake: &mut Intake<'_, '_>, bytes: &[u8], chunk: u32) -> Result<(), Offence> {
        let mut offset = self.skip.min(bytes.len());
        self.skip -= offset;
        if !self.partial.is_empty() && self.life.is_listening() {
            offset = self.complete_partial(intake, bytes)?;
        }
        while self.life.is_listening() {
            let Some(frame) = decode(&bytes[offset..], self.frame_size_max)? else {
                return self.keep_partial(intake, &bytes[offset..]);
            };
            let pushed = self.push_calls(intake, &bytes[offset..], &frame);
            if pushed > 0 {
                offset += pushed;
                continue;
            }
            let body = Body::InChunk { chunk, offset: offset + HEADER_SIZE };
            self.on_frame(intake, &frame, body)?;
            offset += frame.size();
        }
        Ok(())
    }

    /// Pushes the calls at the front of what was received, as far as they are of the first one's function and can go to a
    /// worker at once. Returns how many bytes those were: 0 if the first frame has to be looked at by itself.
    #[inline]
    fn push_calls(&mut self, intake: &mut Intake<'_, '_>, bytes: &[u8], first: &Frame<'_>) -> usize {
        if first.kind != Kind::Invoke || self.life == Life::AwaitHello {
            return 0;
        }
        let now = intake.desk.now;
        let Some(mut batch) = intake.desk.engine.open_batch(now, first.header.function_id) else { return 0 };
        let mut ring = intake.workers.open(now, batch.worker());
        let mut size = 0;
        // A frame with a fault ends the batch too; it is judged when its turn comes.
        while let Ok(Some(frame)) = decode(&bytes[size..], self.frame_size_max) {
            let call_id = frame.header.call_id;
            if frame.kind != Kind::Invoke || self.calls.check(call_id, self.credits).is_err() {
                break;
            }
            let request = request(now, intake.index, self.generation, &frame);
            let Some(push) = batch.push(&request) else { break };
            self.calls.insert(call_id, push.invocation);
            let body = payloads::Body { extensions: frame.extensions, payload: frame.payload };
            ring.push_body(push, manner(&frame), body);
            size += frame.size();
        }
        batch.close();
        let count = u64::from(ring.close());
        intake.desk.stats.counters.frames_received += count;
        intake.desk.stats.counters.pushes += count;
        size
    }

    /// Adds to the kept front of a frame what completes it, and takes the frame. Returns how many bytes it took.
    fn complete_partial(&mut self, intake: &mut Intake<'_, '_>, bytes: &[u8]) -> Result<usize, Offence> {
        let for_header = HEADER_SIZE.saturating_sub(self.partial.len()).min(bytes.len());
        self.keep_partial(intake, &bytes[..for_header])?;
        let Some(header) = self.partial.first_chunk::<HEADER_SIZE>() else { return Ok(for_header) };
        let header = decode_header(header, self.frame_size_max)?;
        let missing = header.frame_size as usize - self.partial.len();
        let taken = for_header + missing.min(bytes.len() - for_header);
        self.keep_partial(intake, &bytes[for_header..taken])?;
        if self.partial.len() < header.frame_size as usize {
            return Ok(taken);
        }
        intake.desk.payloads.release_partial(self.partial.capacity());
        let whole = std::mem::take(&mut self.partial);
        if whole.len() < KEPT_SIZE_MIN {
            if let Some(frame) = decode(&whole, self.frame_size_max)? {
                self.on_frame(intake, &frame, Body::Assembled)?;
            }
            // The next frame that is cut is put together in it, whose ever it is.
            intake.desk.payloads.recycle(whole);
            return Ok(taken);
        }
        let whole = Bytes::from(whole);
        if let Some(frame) = decode(&whole, self.frame_size_max)? {
            self.on_frame(intake, &frame, Body::Kept(&whole))?;
        }
        Ok(taken)
    }

    /// Keeps bytes at the end of what was received until the rest of their frame comes. If there is no room for them,
    /// the call they belong to is refused like any other, and the rest of its frame is passed over.
    fn keep_partial(&mut self, intake: &mut Intake<'_, '_>, bytes: &[u8]) -> Result<(), Offence> {
        let size = self.partial.len() + bytes.len();
        if bytes.is_empty() {
            return Ok(());
        }
        // The header is always kept: only it can tell what there is no room for.
        if size > HEADER_SIZE && !intake.desk.payloads.has_room(bytes.len()) {
            return self.pass_over(intake, bytes);
        }
        let claimed = self.partial.capacity();
        if claimed == 0 {
            self.partial = intake.desk.payloads.empty_buffer();
        }
        self.partial.extend_from_slice(bytes);
        intake.desk.payloads.claim_partial(self.partial.capacity() - claimed);
        Ok(())
    }

    fn pass_over(&mut self, intake: &mut Intake<'_, '_>, bytes: &[u8]) -> Result<(), Offence> {
        let received = self.partial.len() + bytes.len();
        let mut header = [0; HEADER_SIZE];
        for (into, from) in header.iter_mut().zip(self.partial.iter().chain(bytes)) {
            *into = *from;
        }
        let header = decode_header(&header, self.frame_size_max)?;
        if header.kind != Kind::Invoke as u8 || self.life == Life::AwaitHello {
            return Err(Offence::PayloadMemoryFull);
        }
        intake.desk.stats.counters.frames_received += 1;
        intake.desk.stats.counters.refused_payload_memory += 1;
        self.refuse(intake, header.call_id, Status::Overloaded, 0);
        self.forget_input(intake.desk);
        self.skip = header.frame_size as usize - received;
        Ok(())
    }

    #[inline]
    fn on_frame(
        &mut self,
        intake: &mut Intake<'_, '_>,
        frame: &Frame<'_>,
        body: Body<'_>,
    ) -> Result<(), Offence> {
        intake.desk.stats.counters.frames_received += 1;
        if self.life == Life::AwaitHello {
            return self.on_hello(intake, frame);
        }
        match frame.kind {
            Kind::Invoke => self.on_invoke(intake, frame, body),
            Kind::Cancel => {
                // A call that is answered already needs no cancelling, and its answer is on the way.
                if let Some(invocation) = self.calls.find(frame.header.call_id) {
                    intake.desk.engine.handle_cancel(intake.desk.now, invocation, CancelReason::Asked);
                }
            }
            Kind::Resolve => {
                let call_id = frame.header.call_id;
                let function =
                    std::str::from_utf8(frame.payload).ok().and_then(|name| intake.desk.engine.resolve(name));
                let parts = match function {
                    Some(function) => FrameParts::resolved(call_id, function, Status::Ok),
                    None => FrameParts::resolved(call_id, FunctionId(0), Status::UnknownFunction),
                };
                encode(intake.outbox.open(self, intake.index), &parts, &Extensions::NONE, &[]);
            }
            Kind::Ping => {
                let parts = FrameParts::pong(frame.header.budget_us);
                encode(intake.outbox.open(self, intake.index), &parts, &Extensions::NONE, frame.payload);
            }
            // The answer to a PING of ours, and a client's way to say that it leaves: closing the socket says it too.
            // W-14: only a router sends these.
            Kind::Hello | Kind::Resolved | Kind::Reply | Kind::Pong | Kind::Goaway => {
                return Err(ClientMisbehaved::UnexpectedFrame { kind: frame.header.kind }.into());
            }
        }
        Ok(())
    }

    /// A send is with the kernel.
    #[inline]
    pub fn is_sending(&self) -> bool {
        self.sending_size > 0
    }

    /// More output waits than may. Is it because the client does not read, or because much came at once?
    #[inline]
    pub fn is_slow(&self, now: Nanos, options: &NetOptions) -> bool {
        let size = self.output.len();
        if size <= options.output_size_max {
            return false;
        }
        let is_stalled = self.is_sending() && now.since(self.progress_at) >= options.output_stall_max;
        is_stalled || size > options.output_size_max * super::OUTPUT_FACTOR_MAX
    }

    fn on_hello(&mut self, intake: &mut Intake<'_, '_>, frame: &Frame<'_>) -> Result<(), Offence> {
        if frame.kind != Kind::Hello {
            return Err(ClientMisbehaved::HelloExpected { kind: frame.header.kind }.into());
        }
        let offer = Offer {
            frame_size_max: intake.options.frame_size_max,
            credits_default: intake.options.credits,
            credits_max: intake.options.credits,
        };
        let agreed = Hello::decode(frame.payload)?.answer(&offer)?;
        self.frame_size_max = agreed.frame_size_max;
        self.credits = agreed.credits;
        self.life = self.life.on(Happening::HelloAgreed);
        encode(
            intake.outbox.open(self, intake.index),
            &FrameParts::hello(),
            &Extensions::NONE,
            &agreed.encode(),
        );
        Ok(())
    }

    /// Asks for a call to be admitted; a refusal is answered at once.
    #[inline]
    fn on_invoke(&mut self, intake: &mut Intake<'_, '_>, frame: &Frame<'_>, body: Body<'_>) {
        let header = &frame.header;
        let call_id = header.call_id;
        if let Err(status) = self.calls.check(call_id, self.credits) {
            match status {
                Status::CreditsExceeded => intake.desk.stats.counters.refused_credits_exceeded += 1,
                _ => intake.desk.stats.counters.refused_call_id_in_use += 1,
            }
            return self.refuse(intake, call_id, status, 0);
        }
        if !intake.desk.payloads.has_room(frame.extensions.len() + frame.payload.len()) {
            intake.desk.stats.counters.refused_payload_memory += 1;
            return self.refuse(intake, call_id, Status::Overloaded, 0);
        }
        let now = intake.desk.now;
        let request = request(now, intake.index, self.generation, frame);
        let manner = manner(frame);
        let verdict = if header.flags.without(SAYS_MORE) == header.flags {
            intake.desk.engine.handle_request(now, request)
        } else {
            ask_with_more(intake.desk.engine, intake.workers, now, request, frame)
        };
        match verdict {
            Verdict::Admitted(invocation) => {
                self.calls.insert(call_id, invocation);
                let size = frame.extensions.len() + frame.payload.len();
                let payloads = &mut *intake.desk.payloads;
                match body {
                    // What starts later would hold the buffer for so long.
                    Body::InChunk { chunk, offset } if !header.flags.contains(Flags::START_AFTER) => {
                        payloads.put_in_chunk(invocation, manner, chunk, offset, size);
                    }
                    Body::InChunk { .. } | Body::Assembled => {
                        let body = payloads::Body { extensions: frame.extensions, payload: frame.payload };
                        payloads.put_copy(invocation, manner, body);
                    }
                    Body::Kept(whole) => {
                        payloads.put_kept(invocation, manner, whole.clone(), HEADER_SIZE, size);
                    }
                }
            }
            Verdict::Pushed(push) => {
                self.calls.insert(call_id, push.invocation);
                let body = payloads::Body { extensions: frame.extensions, payload: frame.payload };
                intake.workers.push_body(intake.desk, push, manner, body);
            }
            Verdict::Refused(refused) => {
                intake.desk.tape.refused(&request, &refused);
                self.refuse(intake, call_id, refused.status, refused.retry_after_us);
            }
            Verdict::Fallback(function) => self.answer_static(intake, call_id, function),
        }
    }

    /// Answers with bytes from the configuration: they fit into any frame that can be agreed on.
    #[cold]
    fn answer_static(&mut self, intake: &mut Intake<'_, '_>, call_id: CallId, function: FunctionId) {
        let answer = intake.desk.engine.static_answer(function).unwrap_or_default();
        let parts = FrameParts::reply(call_id, Status::Ok);
        encode(intake.outbox.open(self, intake.index), &parts, &Extensions::NONE, answer);
    }

    fn refuse(&mut self, intake: &mut Intake<'_, '_>, call_id: CallId, status: Status, retry_after_us: u32) {
        encode(
            intake.outbox.open(self, intake.index),
            &FrameParts { budget_us: retry_after_us, ..FrameParts::reply(call_id, status) },
            &Extensions::NONE,
            &[],
        );
    }
}

/// Flags of frames that say more about a call than every frame does: which it is, by whom it is made, when it may start.
const SAYS_MORE: Flags = Flags::IDEMPOTENCY_KEY.with(Flags::CALLED_BY).with(Flags::START_AFTER);

/// The same question for a call with at least one of them.
#[inline(never)]
fn ask_with_more(
    engine: &mut Engine,
    workers: &Workers,
    now: Nanos,
    request: Request,
    frame: &Frame<'_>,
) -> Verdict {
    let special = Special {
        called_by: frame.called_by().map(|claimed| called_by(engine, workers, claimed)),
        start_after: frame.start_after().map_or(Nanos::ZERO, |start| Nanos::from_us(start.us)),
    };
    match frame.idempotency_key() {
        Some(key) if special.start_after == Nanos::ZERO => {
            engine.handle_keyed_request(now, request, key, special.called_by)
        }
        // Two calls for later are two calls; but running one twice does no harm (W-49).
        Some(_) => {
            let request = Request { flags: request.flags.with(Flags::IDEMPOTENT), ..request };
            engine.handle_special_request(now, request, special)
        }
        None => engine.handle_special_request(now, request, special),
    }
}

/// By whom the call is made (W-50), with its token only if the worker that runs the caller vouches for it (W-64).
fn called_by(engine: &Engine, workers: &Workers, claimed: protocol::CalledBy) -> CalledBy {
    let caller = InvocationId(claimed.invocation_id);
    let shown = engine.holder_of(caller).map_or(WaitToken::NONE, |holder| workers.waits_for(holder));
    let is_proved = claimed.wait_token.is_same_process(shown);
    let wait_token = if is_proved { claimed.wait_token } else { WaitToken::NONE };
    CalledBy { caller, depth: claimed.depth, wait_token }
}

#[inline]
fn request(now: Nanos, connection: u32, connection_generation: u32, frame: &Frame<'_>) -> Request {
    let header = &frame.header;
    Request {
        origin: Origin { connection, connection_generation, call_id: header.call_id },
        received_at: now,
        function: header.function_id,
        criticality: header.criticality,
        budget_us: header.budget_us,
        payload_size: header.payload_size,
        flags: header.flags,
    }
}

#[inline]
fn manner(frame: &Frame<'_>) -> Manner {
    Manner {
        flags: frame.header.flags,
        criticality: frame.header.criticality,
        extension_size: frame.header.extension_size,
    }
}
