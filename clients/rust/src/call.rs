//! A call as its caller sees it: built, started, waited for or polled, perhaps cancelled.
//!
//! In: a payload and its options.  Out: an [`Answer`] or a [`CallError`], exactly once.
//! Always: a [`Call`] that is dropped unanswered is cancelled.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::{CallId, CalledBy, Criticality, Flags, Timings, TraceContext, WaitToken};

use crate::cell::Cell;
use crate::client::{Client, Function};
use crate::connection::Invocation;
use crate::error::{CallError, Expiry};
use crate::link::Started;
use crate::ring::Looker;
use crate::waits::Waits;

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the function returned.
    pub payload: Bytes,
    /// Where the time went, if [`CallBuilder::with_timings`] asked.
    pub timings: Option<Timings>,
}

/// A call that has not been sent. From [`Function::call`].
#[derive(Debug, Clone, Copy)]
#[must_use = "nothing is sent before `start`, `try_start` or `wait`"]
pub struct CallBuilder<'a> {
    function: &'a Function,
    payload: &'a [u8],
    invocation: Invocation,
    /// Of a nested call, where the process that makes it shows what it waits for.
    waits: Option<&'a Arc<Waits>>,
}

impl<'a> CallBuilder<'a> {
    pub(crate) fn new(function: &'a Function, payload: &'a [u8]) -> Self {
        Self { function, payload, invocation: Invocation::default(), waits: None }
    }

    /// The answer is needed within `budget` from now. Without one, the function's own time-out applies.
    pub fn deadline(self, budget: Duration) -> Self {
        // A budget beyond what a clock can say is none.
        match Instant::now().checked_add(budget) {
            Some(at) => self.deadline_at(at),
            None => self,
        }
    }

    /// The answer is needed by `at`. Nested calls hand on their caller's deadline with this.
    pub fn deadline_at(mut self, at: Instant) -> Self {
        self.invocation.deadline_at = Some(at);
        self
    }

    /// The call must not start before `delay` has passed; whatever deadline it has counts from there. The router keeps it until
    /// then, up to an hour unless configured otherwise; beyond, it is refused as `StartTooLate`.
    ///
    /// Lost with the router, with the connection and with the [`Call`], as any other call. Not carried by client rings: over
    /// `shm://` it is refused as `UnknownCriticalFlag`.
    pub fn start_after(mut self, delay: Duration) -> Self {
        self.invocation.start_after = (!delay.is_zero()).then_some(delay);
        self
    }

    /// How much this call matters when not all can be served. [`Criticality::Normal`] unless said otherwise.
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.invocation.criticality = criticality;
        self
    }

    /// Calls with the same key are the same call. Implies [`CallBuilder::idempotent`].
    pub fn idempotency_key(mut self, key: [u8; 16]) -> Self {
        self.invocation.idempotency_key = Some(key);
        self.idempotent()
    }

    /// Running this call twice does no harm: the router may try it again when a worker dies with it.
    pub fn idempotent(mut self) -> Self {
        self.invocation.flags = self.invocation.flags.with(Flags::IDEMPOTENT);
        self
    }

    /// The trace this call belongs to.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.invocation.trace = Some(trace);
        self
    }

    /// By which running call this one is made, and where its process shows that it waits.
    pub(crate) fn called_by(mut self, called_by: CalledBy, waits: Option<&'a Arc<Waits>>) -> Self {
        self.invocation.called_by = Some(called_by);
        self.waits = waits;
        self
    }

    /// Asks for [`Answer::timings`].
    pub fn with_timings(mut self) -> Self {
        self.invocation.flags = self.invocation.flags.with(Flags::WANT_TIMINGS);
        self
    }

    /// Sends the call and waits for its end.
    pub fn wait(mut self) -> Result<Answer, CallError> {
        let token = self.take_token();
        let _shown = self.waits.map(|waits| waits.begin(token));
        self.function.client.call(self.function, &self.invocation, self.payload)
    }

    /// Sends the call and returns at once; many calls may be outstanding. Waits only while every credit of the
    /// connection is in use or the connection is being made again, and no longer than the deadline.
    pub fn start(mut self) -> Result<Call, CallError> {
        let token = self.take_token();
        let mut call = self.function.client.start(self.function, &self.invocation, self.payload)?;
        call.nested = self.waits.map(|waits| (Arc::clone(waits), token));
        Ok(call)
    }

    /// As [`CallBuilder::start`], but gives [`CallError::WouldBlock`] instead of waiting.
    pub fn try_start(mut self) -> Result<Call, CallError> {
        let token = self.take_token();
        let mut call = self.function.client.try_start(self.function, &self.invocation, self.payload)?;
        call.nested = self.waits.map(|waits| (Arc::clone(waits), token));
        Ok(call)
    }

    /// A number of its own for a nested call; a builder may be used more than once.
    fn take_token(&mut self) -> WaitToken {
        let token = self.waits.map_or(WaitToken::NONE, |waits| waits.next_token());
        if let Some(called_by) = &mut self.invocation.called_by {
            called_by.wait_token = token;
        }
        token
    }
}

/// A call on its way. Wait for it, or `await` it in any runtime; dropping it cancels the call.
#[must_use = "a call that is dropped is cancelled"]
pub struct Call {
    client: Client,
    cell: Arc<Cell<Result<Answer, CallError>>>,
    connection: u64,
    call_id: CallId,
    /// Where the process that made it shows that it waits for it, and how.
    nested: Option<(Arc<Waits>, WaitToken)>,
}

impl Call {
    pub(crate) fn new(client: Client, started: Started) -> Self {
        let Started { cell, connection, call_id } = started;
        Self { client, cell, connection, call_id, nested: None }
    }

    /// Waits for the end of the call.
    pub fn wait(self) -> Result<Answer, CallError> {
        let _shown = self.nested.as_ref().map(|(waits, token)| waits.begin(*token));
        self.client.link().flush_held();
        self.look(None);
        self.cell.take_by(None).unwrap_or(Err(CallError::Expired(Expiry::NoAnswer)))
    }

    /// Waits for the end of the call, at most for `timeout`; then the call, still on its way, is given back.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<Answer, CallError>, Call> {
        let give_up_at = Instant::now().checked_add(timeout);
        self.client.link().flush_held();
        self.look(give_up_at);
        self.cell.take_by(give_up_at).ok_or(self)
    }

    /// Asks the router to stop the call and returns at once. The call still ends: as cancelled, or with an answer
    /// that was faster.
    pub fn cancel(&self) {
        self.client.link().cancel(self.connection, self.call_id);
    }

    /// Whoever is about to sleep for an answer in a ring looks for it himself first.
    fn look(&self, give_up_at: Option<Instant>) {
        let is_time_up = || give_up_at.is_some_and(|at| at <= Instant::now());
        self.client.link().look(self.connection, Looker::Caller, || self.cell.is_done() || is_time_up());
    }

    /// The call has ended: waiting would return at once.
    pub fn is_done(&self) -> bool {
        self.cell.is_done()
    }
}

impl Future for Call {
    type Output = Result<Answer, CallError>;

    /// Stays pending when polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.cell.poll(context.waker());
        if polled.is_pending() {
            self.client.link().flush_held();
        }
        polled
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.cell.is_done() {
            self.client.link().abandon(self.connection, self.call_id);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("call_id", &self.call_id).field("is_done", &self.is_done()).finish()
    }
}
