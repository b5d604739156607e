//! The in-process front-end: calls from any thread of this process into a shard, and their answers back.
//!
//! ```text
//!  any thread                                     the shard's thread
//!  Local::submit ── 64-lane priority queue ──▶ LocalEnd::take ──▶ engine ...
//!  Ticket::wait  ◀──────── the answer ──────── LocalEnd::answer ◀── ... engine
//! ```
//! In: [`Request`]s.  Out: one [`Answer`] for each, also if the router ends first.
//! Owns: requests and answers hold their bytes (`bytes::Bytes`), so that nobody waits for anybody's buffer.
//! Always: waiting in the queue counts against the call's budget; the shard is woken only if it sleeps.
//! Why a priority queue here: when a shard is behind, what is urgent must not wait behind what is not, already before
//! admission.
//! Tests: `tests/local.rs`, `examples/embedded.rs`.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use engine::{InvocationId, Nanos, Origin, Verdict};
use protocol::{CallId, Criticality, Flags, FunctionId, Status, Timings};
use queue::{Full, LaneIndex, Receiver, Sender, priority_queue};

use crate::kept::KeptCall;
use crate::names::SharedNames;
use crate::net::Desk;
use crate::payloads::{Body, Manner};
use crate::workers::{ResultBytes, Workers};

/// `Origin::connection` of in-process calls; no slab of connections grows that far.
pub const LOCAL: u32 = u32::MAX;

/// Calls taken into the shard in one turn.
const CALLS_PER_TURN_MAX: usize = 1024;

/// Wakes a shard that sleeps in the kernel.
pub struct Bell {
    fd: shm_ring::doorbell::EventDoorbell,
    is_asleep: AtomicBool,
    /// The shard takes no more in-process calls.
    is_closed: AtomicBool,
}

impl Bell {
    /// A bell nobody sleeps behind yet.
    pub fn new() -> std::io::Result<Bell> {
        Ok(Bell {
            fd: shm_ring::doorbell::EventDoorbell::new()?,
            is_asleep: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Wakes the shard whether it sleeps or not.
    pub fn ring(&self) {
        // Fails only if the descriptor is gone, and with it the shard.
        let _ = self.fd.ring();
    }

    /// Wakes the shard if it said that it sleeps. Called after the value to notice was put in its place. False: nobody
    /// will ever look.
    fn ring_if_asleep(&self) -> bool {
        // SYNC(bell.sleep): value in, fence, look at the flag here; flag up, fence, look for a value in `announce_sleep`.
        // Of the two fences one is first, and the side behind the other sees what the first wrote.
        fence(Ordering::SeqCst);
        if self.is_asleep.swap(false, Ordering::Relaxed) {
            self.ring();
        }
        !self.is_closed.load(Ordering::Relaxed)
    }

    /// From now on nobody looks. Called before the last look.
    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // SYNC(bell.sleep): as for sleeping: who puts a value in sees this, or the last look sees the value.
        fence(Ordering::SeqCst);
    }

    fn announce_sleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        // SYNC(bell.sleep)
        fence(Ordering::SeqCst);
    }

    fn announce_awake(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}

impl std::os::fd::AsFd for Bell {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A call from inside this process.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which function: see [`Local::resolve`].
    pub function: FunctionId,
    /// Its argument.
    pub payload: Bytes,
    /// How much it matters.
    pub criticality: Criticality,
    /// How long the answer is of use; `None`: the function's own time-out applies.
    pub budget: Option<Duration>,
}

/// The shard has no room for another call now. Here it is back.
#[derive(Debug, thiserror::Error)]
#[error("the shard's queue of in-process calls is full")]
pub struct Refused(pub Request);

/// How an in-process call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The same as on the wire.
    pub status: Status,
    /// Advice when to try again, in microseconds; 0 = none.
    pub retry_after_us: u32,
    /// The function's result or error; empty for everything else.
    pub payload: Bytes,
    /// Where the time went; `None` for calls that were not admitted.
    pub timings: Option<Timings>,
}

impl Answer {
    fn draining() -> Answer {
        Answer::refused(Status::Draining, 0)
    }

    /// What the engine says of the end of a call. Always inlined, as `Stamps::timings` is.
    #[inline(always)]
    pub(crate) fn without_payload(answer: &engine::Answer) -> Answer {
        Answer {
            status: answer.status,
            retry_after_us: answer.retry_after_us,
            payload: Bytes::new(),
            timings: Some(answer.stamps.timings()),
        }
    }

    fn refused(status: Status, retry_after_us: u32) -> Answer {
        Answer { status, retry_after_us, payload: Bytes::new(), timings: None }
    }
}

/// Calls into one shard from any thread.
#[derive(Clone)]
pub struct Local {
    orders: Sender<Order>,
    bell: Arc<Bell>,
    names: SharedNames,
}

impl Local {
    /// The function of this name.
    pub fn resolve(&self, name: &str) -> Option<FunctionId> {
        self.names.read(|names| names.id(name))
    }

    /// Hands a call to the shard. Its answer comes to the ticket.
    pub fn submit(&self, request: Request) -> Result<Ticket, Refused> {
        let state = Arc::new(TicketState::default());
        let lane = LaneIndex::new(request.criticality as u8, bucket(request.budget));
        let order = Order {
            request,
            flags: Flags::NONE,
            extensions: Bytes::new(),
            submitted_at: crate::clock::now(),
            promise: Promise(state.clone()),
        };
        match self.orders.push(lane, order) {
            Ok(_) => {
                if !self.bell.ring_if_asleep() {
                    state.set(Answer::draining());
                }
                Ok(Ticket { state })
            }
            Err(Full(order)) => Err(Refused(order.request)),
        }
    }
}

/// The queue's 16 buckets by what is left of the budget: powers of two of about a millisecond, as in the engine.
fn bucket(budget: Option<Duration>) -> u8 {
    let Some(budget) = budget else { return 15 };
    let units = budget.as_nanos() >> 20;
    units.checked_ilog2().unwrap_or(0).min(15) as u8
}

struct Order {
    request: Request,
    /// Nothing special and none, unless it is the repetition of a call that came another way.
    flags: Flags,
    extensions: Bytes,
    submitted_at: Nanos,
    promise: Promise,
}

/// The obligation to answer: dropped unkept, it answers that the router is going away.
struct Promise(Arc<TicketState>);

impl Promise {
    fn keep(self, answer: Answer) {
        self.0.set(answer);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.set(Answer::draining());
    }
}

#[derive(Debug, Default)]
struct TicketState {
    slot: Mutex<TicketSlot>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct TicketSlot {
    answer: Option<Answer>,
    is_answered: bool,
    waker: Option<Waker>,
}

impl TicketState {
    fn lock(&self) -> MutexGuard<'_, TicketSlot> {
        // A poisoned lock means that a waker panicked; the slot itself is always whole.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first answer counts.
    fn set(&self, answer: Answer) {
        let mut slot = self.lock();
        if slot.is_answered {
            return;
        }
        slot.is_answered = true;
        slot.answer = Some(answer);
        let waker = slot.waker.take();
        drop(slot);
        self.answered.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The claim to an answer: wait for it, or poll it as a future. Dropping it drops the answer, not the call.
#[must_use = "the answer comes to the ticket"]
#[derive(Debug)]
pub struct Ticket {
    state: Arc<TicketState>,
}

impl Ticket {
    /// Blocks until the answer is there.
    pub fn wait(self) -> Answer {
        let mut slot = self.state.lock();
        loop {
            if let Some(answer) = slot.answer.take() {
                return answer;
            }
            slot = self.state.answered.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Ticket {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut slot = self.state.lock();
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

struct Pending {
    generation: u32,
    outstanding: Option<(InvocationId, Promise)>,
}

/// The shard's side.
pub struct LocalEnd {
    orders: Receiver<Order>,
    bell: Arc<Bell>,
    /// An order found when the shard was about to sleep.
    found: Option<Order>,
    /// Kept calls that somebody wants run once more: at most one for each command of a turn.
    replays: Vec<Order>,
    pending: Vec<Pending>,
    free: Vec<u32>,
}

/// Both ends, for a shard with these functions.
pub fn local(names: SharedNames, bell: Arc<Bell>, capacity: u32) -> (Local, LocalEnd) {
    let (sender, receiver) = priority_queue(capacity);
    let end = LocalEnd {
        orders: receiver,
        bell: bell.clone(),
        found: None,
        replays: Vec::new(),
        pending: Vec::new(),
        free: Vec::new(),
    };
    (Local { orders: sender, bell, names }, end)
}

impl LocalEnd {
    /// Takes calls into the engine.
    pub fn take(&mut self, desk: &mut Desk<'_>, workers: &mut Workers) -> usize {
        while let Some(order) = self.replays.pop() {
            self.admit(desk, workers, order);
        }
        for count in 0..CALLS_PER_TURN_MAX {
            let order = match self.found.take() {
                Some(order) => order,
                None => match self.orders.pop() {
                    Some((_, order)) => order,
                    None => return count,
                },
            };
            self.admit(desk, workers, order);
        }
        CALLS_PER_TURN_MAX
    }

    /// Calls once more what was kept of an earlier call; in the next turn, which always follows a command.
    pub fn replay(&mut self, now: Nanos, call: &KeptCall) -> Ticket {
        let state = Arc::new(TicketState::default());
        let request = Request {
            function: call.summary.function,
            payload: call.payload.clone(),
            criticality: Criticality::try_from(call.manner.criticality).unwrap_or_default(),
            budget: None,
        };
        let order = Order {
            request,
            flags: call.manner.flags,
            extensions: call.extensions.clone(),
            submitted_at: now,
            promise: Promise(state.clone()),
        };
        self.replays.push(order);
        Ticket { state }
    }

    fn admit(&mut self, desk: &mut Desk<'_>, workers: &mut Workers, order: Order) {
        desk.stats.counters.local_calls += 1;
        let Order { request, flags, extensions, submitted_at, promise } = order;
        let refuse = |promise: Promise, status| promise.keep(Answer::refused(status, 0));
        if !desk.payloads.has_room(request.payload.len()) {
            desk.stats.counters.refused_payload_memory += 1;
            return refuse(promise, Status::Overloaded);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push(Pending { generation: 0, outstanding: None });
            (self.pending.len() - 1) as u32
        });
        let pending = &mut self.pending[slot as usize];
        pending.generation = pending.generation.wrapping_add(1);
        let budget_us = match request.budget {
            None => 0,
            // 0 would mean "none": what is shorter than a microsecond gets one.
            Some(budget) => u32::try_from(budget.as_micros()).unwrap_or(u32::MAX).max(1),
        };
        let asked = engine::Request {
            origin: Origin {
                connection: LOCAL,
                connection_generation: 0,
                call_id: CallId::new(slot, pending.generation),
            },
            received_at: submitted_at.min(desk.now),
            function: request.function,
            criticality: request.criticality as u8,
            budget_us,
            payload_size: u32::try_from(request.payload.len()).unwrap_or(u32::MAX),
            flags: flags.with(Flags::WANT_TIMINGS),
        };
        let verdict = desk.engine.handle_request(desk.now, asked);
        let manner =
            Manner { flags, criticality: request.criticality as u8, extension_size: extensions.len() as u16 };
        match verdict {
            Verdict::Pushed(push) => {
                pending.outstanding = Some((push.invocation, promise));
                let body = Body { extensions: &extensions, payload: &request.payload };
                workers.push_body(desk, push, manner, body);
            }
            Verdict::Admitted(invocation) => {
                pending.outstanding = Some((invocation, promise));
                if extensions.is_empty() {
                    let size = request.payload.len();
                    desk.payloads.put_kept(invocation, manner, request.payload, 0, size);
                } else {
                    let body = Body { extensions: &extensions, payload: &request.payload };
                    desk.payloads.put_copy(invocation, manner, body);
                }
            }
            Verdict::Refused(refused) => {
                desk.tape.refused(&asked, &refused);
                self.free.push(slot);
                promise.keep(Answer::refused(refused.status, refused.retry_after_us));
            }
            Verdict::Fallback(function) => {
                self.free.push(slot);
                let payload = desk.engine.static_answer(function).unwrap_or_default();
                let payload = Bytes::copy_from_slice(payload);
                promise.keep(Answer { status: Status::Ok, retry_after_us: 0, payload, timings: None });
            }
        }
    }

    /// Gives answers to their tickets; `result` tells the bytes that the n-th carries.
    pub fn answer<R: ResultBytes>(
        &mut self,
        desk: &mut Desk<'_>,
        answers: &[engine::Answer],
        result: impl Fn(usize) -> R,
    ) {
        for (n, answer) in answers.iter().enumerate() {
            let call_id = answer.origin.call_id;
            let pending = self.pending.get_mut(call_id.slot() as usize);
            let promise = pending
                .filter(|pending| pending.generation == call_id.generation())
                .and_then(|pending| pending.outstanding.take());
            let Some((_, promise)) = promise else {
                desk.stats.counters.replies_orphaned += 1;
                continue;
            };
            self.free.push(call_id.slot());
            let result = result(n);
            let mut payload = Vec::with_capacity(result.size());
            if result.size() > 0 {
                result.append_to(&mut payload);
            }
            promise.keep(Answer { payload: payload.into(), ..Answer::without_payload(answer) });
        }
    }

    /// Cancels what is outstanding; the answers come as usual.
    pub fn cancel_all(&mut self, desk: &mut Desk<'_>) {
        for (invocation, _) in self.pending.iter().filter_map(|pending| pending.outstanding.as_ref()) {
            desk.engine.handle_cancel(desk.now, *invocation, engine::CancelReason::Asked);
        }
    }

    /// The shard is about to sleep. False: there is a call to take.
    pub fn announce_sleep(&mut self) -> bool {
        self.bell.announce_sleep();
        if self.found.is_none() {
            self.found = self.orders.pop().map(|(_, order)| order);
        }
        self.found.is_none()
    }

    /// Awake again.
    pub fn announce_awake(&self) {
        self.bell.announce_awake();
    }
}

impl Drop for LocalEnd {
    fn drop(&mut self) {
        self.bell.close();
        // Each order that is dropped tells its ticket so.
        while self.orders.pop().is_some() {}
    }
}
