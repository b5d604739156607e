//! Calls through shared memory: a ring of this process's own at a router of the same host, for one thread.
//!
//! ```no_run
//! use quickfire_client::shm::{Call, Options, ShmClient};
//!
//! let mut client = ShmClient::connect("shm:///run/user/1000/quickfire", &Options::default())?;
//! let echo = client.resolve("echo")?;
//!
//! // One call.
//! let answer = client.call(&Call { ..Call::of(echo) }, b"hello")?;
//! assert_eq!(&answer.payload[..], b"hello");
//!
//! // Many at once, without a copy or an allocation on this side.
//! for call_id in 0..100 {
//!     client.submit(&Call { call_id, ..Call::of(echo) }, b"hello")?;
//! }
//! client.flush();
//! while client.outstanding() > 0 {
//!     while let Some(answered) = client.poll()? {
//!         assert_eq!(client.result(&answered), b"hello");
//!         client.release(answered);
//!     }
//!     client.wait(None)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In: calls.  Out: answers, in any order, in place in the ring.
//! Always: what was submitted is shown to the router by [`ShmClient::flush`], a whole batch at a time: one store, and a
//! system call only if the router does not look at this ring just now.
//! When the router dies or closes this client: [`ShmClient::wait`] notices within 20 ms and returns; who only polls
//! calls [`ShmClient::look_at_socket`] now and then, because a dead router writes nothing. [`ShmClient::poll`] first gives
//! out the answers that were published before the end, then an error, and the same error for good. Calls without an
//! answer may have run, or may still be running: the function processes outlive their router. Nothing is sent again on
//! its own: [`ShmClient::unanswered`] names those calls, [`ShmClient::reattach`] waits for the next router, and repeating
//! what may be repeated is its user's. [`ShmClient::submit`] goes on writing into a ring that nobody reads, until its slots
//! run out.
//! Never: allocates after connecting (except in [`ShmClient::call`], which copies, and when a lane ends), or makes a system
//! call in `submit`, `poll`, `result` and `release`.
//! For many threads and futures there is [`Client`](crate::Client), which has such a ring too where its address says
//! `shm://`, and pays a lock and some allocations for each call.
//! Reading order: this file, `attachment.rs` (how a ring is had), `lane.rs` (the way past the router), `reattach.rs` (the next
//! router), `shared.rs` (what `ring.rs` needs beside).
//! Spec: docs/spec/shm.md, "Client rings".  Tests: `router/tests/shm_clients.rs`, `tests/e2e.rs`.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use protocol::attach::{self, ClientAttached, MESSAGE_SIZE_MAX, Message};
use protocol::{FunctionName, Status, Timings};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use shm_ring::Mapped;
use shm_ring::client_ring::{ClientEnd, WaitOutcome};
use shm_ring::doorbell::EventDoorbell;

use crate::call::Answer;
use crate::connection::Verdict;
use crate::error::{CallError, ConnectError, Disconnect, Expiry, ResolveError, RouterMisbehaved};
use crate::url::RouterUrl;

mod attachment;
mod lane;
mod reattach;
mod shared;

use attachment::try_attach;
pub(crate) use attachment::{Failed, attach_socket, status_of};
use lane::{Lane, Place};

pub use lane::LaneNotOpened;
pub use protocol::attach::lane::{LaneEnd, LaneRefused};
pub use protocol::{Flags, FunctionId};
/// The time that deadlines are told in.
pub use shm_ring::clock::monotonic_ns as now_ns;
pub use shm_ring::{PushRefused as SubmitRefused, SlotIndex};

/// The longest sleep on the ring: a router that dies wakes nobody, so the socket is looked at this often.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// How long after a call's deadline the router's own word is waited for, as in `link.rs`.
const DEADLINE_GRACE: Duration = Duration::from_millis(10);

/// One round of the ring's spinning: see `ClientEnd::wait`.
const SPIN_ROUND_NS: u64 = 15;

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The router's shard: its attach socket is `attach-SHARD.sock` in the run directory.
    pub shard: u32,
    /// Calls that may be outstanding at once; 0 leaves it to the router, which may also grant fewer.
    pub slot_count: u32,
    /// The largest request and the largest result; 0 leaves it to the router.
    pub payload_size_max: u32,
    /// How long the router may take to answer while connecting.
    pub timeout: Duration,
    /// How long [`ShmClient::wait`] looks for answers before it sleeps.
    pub spin: Duration,
}

impl Default for Options {
    fn default() -> Self {
        // About the cost of waking a core: who has spun that long has lost what it wanted to save.
        let (timeout, spin) = (Duration::from_secs(5), Duration::from_micros(50));
        Self { shard: 0, slot_count: 0, payload_size_max: 0, timeout, spin }
    }
}

/// A call, beside its payload. Start from [`Call::of`] and change what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Which function: see [`ShmClient::resolve`].
    pub function: FunctionId,
    /// Any number; the answer brings it back.
    pub call_id: u64,
    /// How much it matters.
    pub criticality: protocol::Criticality,
    /// The answer is needed by then: CLOCK_MONOTONIC nanoseconds, as [`now_ns`] gives them.
    pub deadline_at_ns: Option<u64>,
    /// `IDEMPOTENT` and `WANT_TIMINGS` mean something here.
    pub flags: Flags,
    /// The trace this call belongs to.
    pub trace: Option<protocol::TraceContext>,
    /// Calls with the same key are the same call.
    pub idempotency_key: Option<[u8; 16]>,
}

impl Call {
    /// A call of this function with nothing special about it.
    pub fn of(function: FunctionId) -> Self {
        Self {
            function,
            call_id: 0,
            criticality: protocol::Criticality::Normal,
            deadline_at_ns: None,
            flags: Flags::NONE,
            trace: None,
            idempotency_key: None,
        }
    }

    #[inline]
    fn in_ring(&self) -> shm_ring::client_ring::Call {
        shm_ring::client_ring::Call {
            call_id: self.call_id,
            function_id: self.function.0,
            criticality: self.criticality as u8,
            deadline_at_ns: self.deadline_at_ns.unwrap_or(u64::MAX),
            flags: self.flags.0,
            trace: self.trace.map(|trace| trace.encode()),
            idempotency_key: self.idempotency_key,
        }
    }
}

/// An answer. Its slot stays occupied until [`ShmClient::release`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the slot is lost until the answer is released"]
pub struct Answered {
    /// What [`ShmClient::submit`] gave for the call.
    pub slot: SlotIndex,
    /// The caller's own number of the call.
    pub call_id: u64,
    /// The wire's status.
    pub status: u8,
    /// The wire's flags.
    pub flags: u16,
    /// Advice when to try again; 0 = none.
    pub retry_after_us: u32,
    place: Place,
}

impl Answered {
    /// The call went past the router, through a lane.
    pub fn is_direct(&self) -> bool {
        matches!(self.place, Place::Lane(_))
    }
}

/// A ring at a router. Dropping it cancels what is outstanding.
pub struct ShmClient {
    ring: ClientEnd<Mapped>,
    bell: EventDoorbell,
    socket: UnixStream,
    /// Bytes of the socket that are no whole record yet.
    unread: Vec<u8>,
    attached: ClientAttached,
    aside: Box<Aside>,
    goaway: Option<Status>,
    ended: Option<Disconnect>,
    spin_count_max: u32,
    lane: Option<Box<Lane>>,
    lane_end: Option<LaneEnd>,
}

/// What no call looks at.
struct Aside {
    /// Where and what was asked for, to ask the next router for the same.
    run_dir: PathBuf,
    options: Options,
    /// Functions asked for whose numbers were not taken.
    asked_count: u32,
    /// The answers to the first of them.
    resolved: VecDeque<Result<FunctionId, Status>>,
}

impl Aside {
    fn is_answer_due(&self) -> bool {
        self.resolved.len() < self.asked_count as usize
    }
}

impl ShmClient {
    /// Attaches to the router at `shm:///RUN_DIR`.
    ///
    /// # Errors
    /// If there is no router, it has no room for another client, or is not one that this client can talk to.
    pub fn connect(url: &str, options: &Options) -> Result<Self, ConnectError> {
        match url.parse()? {
            RouterUrl::Shm(run_dir) => Self::attach(&run_dir, options),
            url => Err(ConnectError::Unreachable {
                url,
                source: io::Error::new(io::ErrorKind::Unsupported, "a ShmClient needs shm:///RUN_DIR"),
            }),
        }
    }

    /// Attaches to the router that has this run directory.
    ///
    /// # Errors
    /// As for [`ShmClient::connect`].
    pub fn attach(run_dir: &Path, options: &Options) -> Result<Self, ConnectError> {
        try_attach(run_dir, options).map_err(|failed| failed.at(run_dir))
    }

    /// A function's number at this router. Waits for the router's answer.
    ///
    /// # Errors
    /// If there is no such function, or the router cannot be asked.
    pub fn resolve(&mut self, name: &str) -> Result<FunctionId, ResolveError> {
        let function_name = FunctionName::new(name)?;
        let failed = |cause| ResolveError::Failed {
            name: name.into(),
            source: CallError::Disconnected { maybe_started: false, cause },
        };
        self.ask(function_name).map_err(failed)?;
        loop {
            self.take_messages().map_err(failed)?;
            if let Some(resolved) = self.take_resolved() {
                return resolved.map_err(|_| ResolveError::UnknownFunction { name: name.into() });
            }
            let mut bytes = [0; MESSAGE_SIZE_MAX];
            match (&self.socket).read(&mut bytes) {
                Ok(0) => return Err(failed(self.end(Disconnect::Closed))),
                Ok(size) => self.unread.extend_from_slice(&bytes[..size]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(Disconnect::Io(error.kind()))),
            }
        }
    }

    /// Writes a call into the ring. The router learns of it by [`ShmClient::flush`].
    ///
    /// # Errors
    /// Without a free slot, or with a payload larger than [`ShmClient::payload_size_max`].
    #[inline]
    pub fn submit(&mut self, call: &Call, payload: &[u8]) -> Result<SlotIndex, SubmitRefused> {
        if let Some(lane) = self.lane_for(call, payload.len()) {
            return lane.submit(call, |ring, call| ring.submit(call, payload));
        }
        self.ring.submit(&call.in_ring(), payload)
    }

    /// The same with a payload made in place: `fill` is given all of its bytes, in whatever condition.
    ///
    /// # Errors
    /// As for [`ShmClient::submit`].
    #[inline]
    pub fn submit_in_place(
        &mut self,
        call: &Call,
        payload_size: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<SlotIndex, SubmitRefused> {
        if let Some(lane) = self.lane_for(call, payload_size) {
            return lane.submit(call, |ring, call| ring.submit_in_place(call, payload_size, fill));
        }
        self.ring.submit_in_place(&call.in_ring(), payload_size, fill)
    }

    /// Shows the router everything submitted since the last time, and rings if it does not look at this ring.
    #[inline]
    pub fn flush(&mut self) {
        if self.ring.publish() {
            // Fails only for a descriptor that is not an eventfd; then the router's next look finds the calls.
            let _ = self.bell.ring();
        }
        if let Some(lane) = &mut self.lane {
            lane.flush();
        }
    }

    /// The next answer, if there is one. Its slot is in use until [`ShmClient::release`].
    ///
    /// # Errors
    /// If the router is gone, or wrote what no router writes. What had been answered before is given out first.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Answered>, Disconnect> {
        if self.lane.is_some()
            && let Some(answered) = self.poll_lane()
        {
            return Ok(Some(answered));
        }
        match self.ring.next_answer() {
            Ok(None) => self.ended.map_or(Ok(None), Err),
            Ok(Some(answered)) => Ok(Some(self.named_by_caller(answered))),
            Err(misbehaved) => {
                Err(self.end(Disconnect::RouterMisbehaved(RouterMisbehaved::Ring(misbehaved))))
            }
        }
    }

    /// Waits until there is an answer, the time-out is over, or the router is gone, which [`ShmClient::poll`] then tells.
    /// True: there is an answer. Flushes before.
    ///
    /// # Errors
    /// If the router wrote what no router writes.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Disconnect> {
        self.flush();
        let give_up_at_ns = timeout
            .map(|timeout| now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)));
        loop {
            let left = give_up_at_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(now_ns())));
            let sleep = left.map_or(SLEEP_MAX, |left| left.min(SLEEP_MAX));
            let waited = match self.lane {
                Some(_) => self.wait_with_lane(sleep),
                None => self.ring.wait(self.spin_count_max, Some(sleep)),
            };
            match waited {
                Ok(WaitOutcome::Ready) => return Ok(true),
                Ok(WaitOutcome::Nothing) => {}
                Err(misbehaved) => {
                    return Err(self.end(Disconnect::RouterMisbehaved(RouterMisbehaved::Ring(misbehaved))));
                }
            }
            self.look_at_socket();
            if self.ended.is_some() || left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
        }
    }

    /// The result in place.
    #[inline]
    pub fn result<'a>(&'a self, answered: &'a Answered) -> &'a [u8] {
        match &answered.place {
            Place::Ring(answered) => self.ring.result(answered),
            Place::Lane(answered) => self.lane.as_ref().map_or(&[], |lane| lane.result(answered)),
            Place::Nowhere => &[],
        }
    }

    /// Where the time went, if the call asked.
    pub fn timings(&self, answered: &Answered) -> Option<Timings> {
        let bytes = match &answered.place {
            Place::Ring(answered) => self.ring.timings(answered)?,
            Place::Lane(answered) => self.lane.as_ref()?.timings(answered)?,
            Place::Nowhere => return None,
        };
        Some(Timings::decode(&bytes))
    }

    /// The answer as [`Client`](crate::Client) gives it, copied.
    ///
    /// # Errors
    /// If the call ended in another way than with its function's result.
    pub fn outcome(&self, answered: &Answered) -> Result<Answer, CallError> {
        let verdict = Verdict {
            status: answered.status.into(),
            flags: Flags(answered.flags),
            retry_after_us: answered.retry_after_us,
            payload: self.result(answered),
        };
        let answer =
            || Answer { payload: Bytes::copy_from_slice(verdict.payload), timings: self.timings(answered) };
        verdict.outcome(answer).unwrap_or_else(|misbehaved| {
            let cause = Disconnect::RouterMisbehaved(misbehaved);
            Err(CallError::Disconnected { maybe_started: true, cause })
        })
    }

    /// Gives an answer's slot back.
    #[inline]
    pub fn release(&mut self, answered: Answered) {
        match answered.place {
            Place::Ring(answered) => self.ring.release(answered),
            Place::Lane(answered) => self.release_in_lane(answered),
            Place::Nowhere => {}
        }
    }

    /// Asks the router to stop a call and returns at once. The call still ends: as cancelled, or with an answer that was
    /// faster. Flushes before.
    pub fn cancel(&mut self, slot: SlotIndex, call_id: u64) {
        self.flush();
        let Some(slot) = self.cancel_in_lane(slot) else { return };
        let mut bytes = Vec::new();
        Message::CancelCall { slot: slot.0, call_id }.encode(&mut bytes);
        // A socket that takes nothing is a router that is gone, which `poll` tells, or stands still and would not stop it.
        let _ = rustix::net::send(&self.socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Makes one call and waits for its end; nothing else may be outstanding.
    ///
    /// # Errors
    /// If the call ended in another way than with its function's result; [`CallError::WouldBlock`] while other calls are
    /// outstanding.
    pub fn call(&mut self, call: &Call, payload: &[u8]) -> Result<Answer, CallError> {
        if self.outstanding() > 0 {
            return Err(CallError::WouldBlock);
        }
        let slot = self.submit(call, payload).map_err(|refused| match refused {
            SubmitRefused::NoCredit => CallError::WouldBlock,
            SubmitRefused::PayloadTooLarge { .. } => {
                CallError::Refused { status: Status::PayloadTooLarge, retry_after: None }
            }
        })?;
        loop {
            let left = call.deadline_at_ns.map(|at_ns| {
                Duration::from_nanos(at_ns.saturating_sub(now_ns())).saturating_add(DEADLINE_GRACE)
            });
            let lost = |cause| CallError::Disconnected { maybe_started: true, cause };
            let is_there = self.wait(left).map_err(lost)?;
            if let Some(answered) = self.poll().map_err(lost)? {
                let outcome = self.outcome(&answered);
                self.release(answered);
                return outcome;
            }
            if !is_there && left.is_some() {
                self.cancel(slot, call.call_id);
                return Err(CallError::Expired(Expiry::NoAnswer));
            }
        }
    }

    /// Calls without an answer, and answers not released.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.ring.outstanding() + self.lane.as_ref().map_or(0, |lane| lane.outstanding())
    }

    /// Calls that can be submitted now; those of an open lane are for its function only.
    #[inline]
    pub fn free_slots(&self) -> u32 {
        let (waiting, free) =
            self.lane.as_ref().map_or((0, 0), |lane| (lane.returned_count(), lane.free_slots()));
        self.ring.free_slots().saturating_sub(waiting) + free
    }

    /// Calls that may be outstanding at once. Slots are numbered from 0, those of a lane behind those of the ring.
    pub fn slot_count(&self) -> u32 {
        self.ring.geometry().slot_count() + self.lane.as_ref().map_or(0, |lane| lane.slot_count())
    }

    /// The largest request, and the largest result.
    pub fn payload_size_max(&self) -> u32 {
        self.ring.geometry().region_size()
    }

    /// The shard that serves it.
    pub fn shard(&self) -> u16 {
        self.attached.shard
    }

    /// The router goes away and takes no new calls; those made are still answered. Looks at memory only.
    pub fn is_router_draining(&self) -> bool {
        self.ring.is_router_draining()
    }

    /// Looks, without waiting, whether the router has said something or is gone; [`ShmClient::poll`] then tells.
    pub fn look_at_socket(&mut self) {
        let mut bytes = [0; MESSAGE_SIZE_MAX];
        while self.ended.is_none() {
            match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.end(Disconnect::Closed);
                }
                Ok((size, _)) => {
                    self.unread.extend_from_slice(&bytes[..size]);
                    if let Err(cause) = self.take_messages() {
                        self.end(cause);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(errno) => {
                    self.end(Disconnect::Io(io::Error::from(errno).kind()));
                }
            }
        }
    }

    fn take_messages(&mut self) -> Result<(), Disconnect> {
        while let Some(message) = self.next_message()? {
            self.on_message(&message)?;
        }
        Ok(())
    }

    fn next_message(&mut self) -> Result<Option<Message>, Disconnect> {
        match attach::decode(&self.unread) {
            Ok(None) => Ok(None),
            Ok(Some((message, size))) => {
                self.unread.drain(..size);
                Ok(Some(message))
            }
            Err(_) => Err(Disconnect::RouterMisbehaved(RouterMisbehaved::RecordUnexpected)),
        }
    }

    fn on_message(&mut self, message: &Message) -> Result<(), Disconnect> {
        match message {
            Message::Goaway { status } => {
                // An unknown reason is a reason all the same.
                self.goaway = Some(Status::try_from(*status).unwrap_or(Status::GoingAway));
                Ok(())
            }
            Message::Resolved { function_id, status } if self.aside.is_answer_due() => {
                // A reason from a newer router still means that there is no such function for us.
                let status = Status::try_from(*status).unwrap_or(Status::UnknownFunction);
                self.aside.resolved.push_back(if status == Status::Ok {
                    Ok(*function_id)
                } else {
                    Err(status)
                });
                Ok(())
            }
            Message::LaneClosed { lane_id, reason } => {
                self.on_lane_closed(*lane_id, *reason);
                Ok(())
            }
            _ => Err(Disconnect::RouterMisbehaved(RouterMisbehaved::RecordUnexpected)),
        }
    }

    /// The first end counts, and a router that said why and then closed has said why.
    fn end(&mut self, cause: Disconnect) -> Disconnect {
        let cause = match (cause, self.goaway) {
            (Disconnect::Closed | Disconnect::Io(_), Some(status)) => Disconnect::GoAway(status),
            _ => cause,
        };
        *self.ended.get_or_insert(cause)
    }
}

impl std::fmt::Debug for ShmClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmClient")
            .field("attached", &self.attached)
            .field("outstanding", &self.outstanding())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
