//! What the callers' threads and the I/O thread of one client share: the connection of the moment, and a lock.
//!
//! In: calls from any thread.  Out: frames on the socket, or calls in the ring; the client's thread (`io_thread.rs`) does the
//! rest.
//! Owns: the session or the ring, the buffer being written, the names of all functions asked for.
//! Always: on a socket one thread at a time writes. It takes everything that waits, writes it without holding the lock, and
//! looks again: calls started meanwhile by others ride in its next write. What a full socket does not take is left
//! to the I/O thread, so that no caller ever blocks in a write.
//! Never: completes a call while holding the lock (a waker may call back into the client).
//!
//! ```text
//! Down -- the thread dialled ------> Up -- error, EOF, GOAWAY and idle --> Down
//!   |                                 |
//!   +-------- client dropped ---------+--> Closed
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::{CallId, FunctionId, Status};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::call::Answer;
use crate::cell::Cell;
use crate::connection::{Invocation, NotTaken};
use crate::dial::Dialled;
use crate::error::{CallError, Disconnect, Expiry};
use crate::ring::Looker;
use crate::stream::Stream;

mod looking;
mod up;

pub(crate) use looking::complete;
pub(crate) use up::Up;

/// While writes are held, this much is written all the same: one full socket buffer's worth, so that holding longer
/// would only add delay.
const HELD_SIZE_MAX: usize = 64 * 1024;

/// How long after a call's deadline the router's own word is waited for. It knows whether the function started,
/// and its answer is usually two timer ticks of 0.26 ms behind the deadline, on a busy machine some scheduler slices of
/// about 3 ms more.
const DEADLINE_GRACE: Duration = Duration::from_millis(10);

/// Who waits for a slot's answer.
#[derive(Debug)]
pub(crate) enum Waiter {
    Call(Arc<Cell<Result<Answer, CallError>>>),
    Function(Arc<Cell<Result<FunctionId, CallError>>>),
}

impl Waiter {
    pub(crate) fn fail(self, error: CallError) {
        match self {
            Self::Call(cell) => cell.put(Err(error)),
            Self::Function(cell) => cell.put(Err(error)),
        }
    }
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Link {
    state: Mutex<State>,
    /// Something that waiting callers wait for: a free slot, a new connection, the end.
    changed: Condvar,
    /// Interrupts the I/O thread's sleep.
    pub(crate) wake: OwnedFd,
    connect_timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) life: Life,
    /// Counts connections: an old call's slot means nothing on a new one.
    pub(crate) connection: u64,
    /// Every function that has a handle, by the handle's index.
    functions: Vec<Named>,
    /// Callers waiting on `changed`.
    waiting: usize,
    /// [`Client::hold_writes`](crate::Client::hold_writes) guards alive.
    holds: usize,
    /// What the I/O thread sleeps until, while it sleeps.
    pub(crate) sleeps_until: Sleep,
}

#[derive(Debug)]
pub(crate) enum Life {
    Down,
    Up(Up),
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sleep {
    Awake,
    Until(Option<Instant>),
}

#[derive(Debug)]
struct Named {
    name: String,
    /// On the present connection.
    id: Result<FunctionId, Status>,
}

impl Link {
    pub(crate) fn new(dialled: Dialled, connect_timeout: Duration) -> std::io::Result<Self> {
        let state = State {
            life: Life::Up(Up::new(dialled.line)),
            connection: 1,
            functions: Vec::new(),
            waiting: 0,
            holds: 0,
            sleeps_until: Sleep::Awake,
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), wake, connect_timeout })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of the caller's runs under this lock. Should our own code panic in it, the connection is the
        // casualty: its answers no longer match and it is closed as misbehaving.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a call. Where its caller waits for its end at once, he looks for its answer himself.
    pub(crate) fn start(
        &self,
        function_index: usize,
        invocation: &Invocation,
        payload: &[u8],
        patience: Patience,
    ) -> Result<Started, CallError> {
        let may_wait = patience != Patience::None;
        let cell = Arc::new(Cell::new());
        let give_up_at = invocation.deadline_at;
        let (state, started) = self.with_room(may_wait, give_up_at, |state| {
            let id =
                state.functions.get(function_index).map_or(Err(Status::UnknownFunction), |known| known.id);
            let Life::Up(up) = &mut state.life else { return Ok(None) };
            let function_id = id.map_err(|status| CallError::Refused { status, retry_after: None })?;
            let mut invocation = Invocation { function_id, ..*invocation };
            if let Some(at) = invocation.deadline_at {
                invocation.budget_us = budget_us(at)?;
                let patience = DEADLINE_GRACE.saturating_add(invocation.start_after.unwrap_or_default());
                // A start beyond what a clock can say is refused by the router.
                invocation.deadline_at = at.checked_add(patience);
            }
            match up.invoke(&invocation, payload, Waiter::Call(Arc::clone(&cell))) {
                Ok(call_id) => {
                    Ok(Some(Started { cell: Arc::clone(&cell), connection: state.connection, call_id }))
                }
                Err((NotTaken::NoRoom, _)) => Ok(None),
                Err((NotTaken::PayloadTooLarge, _)) => {
                    Err(CallError::Refused { status: Status::PayloadTooLarge, retry_after: None })
                }
                Err((NotTaken::NotCarried, _)) => {
                    Err(CallError::Refused { status: Status::UnknownCriticalFlag, retry_after: None })
                }
            }
        })?;
        let wake = invocation.deadline_at.is_some_and(|at| state.sleeps_until.is_later_than(at));
        match patience {
            Patience::UntilAnswered => self.flush(state, Hurry::Now),
            Patience::UntilSent | Patience::None => self.flush_and_watch(state, Hurry::UnlessHeld),
        }
        if wake {
            self.ring();
        }
        Ok(started)
    }

    /// Makes a call and waits for its end.
    pub(crate) fn call(
        &self,
        function_index: usize,
        invocation: &Invocation,
        payload: &[u8],
    ) -> Result<Answer, CallError> {
        let started = self.start(function_index, invocation, payload, Patience::UntilAnswered)?;
        self.look(started.connection, Looker::Caller, || started.cell.is_done());
        started.cell.take_by(None).unwrap_or(Err(CallError::Expired(Expiry::NoAnswer)))
    }

    /// Asks for a function's number on the present connection.
    pub(crate) fn resolve(&self, name: &str) -> Result<Resolved, CallError> {
        let cell = Arc::new(Cell::new());
        let (state, connection) = self.with_room(true, None, |state| {
            let Life::Up(up) = &mut state.life else { return Ok(None) };
            let taken = up.resolve(name, Waiter::Function(Arc::clone(&cell)));
            Ok(taken.then_some(state.connection))
        })?;
        self.flush_and_watch(state, Hurry::Now);
        let id = cell.take_by(None).unwrap_or(Err(CallError::Expired(Expiry::NoAnswer)))?;
        Ok(Resolved { id, connection })
    }

    /// The handle index of a function, if it was resolved before.
    pub(crate) fn known_function(&self, name: &str) -> Option<usize> {
        self.lock().functions.iter().position(|known| known.name == name)
    }

    /// Remembers a function; its index never changes again. `None` if its number is of an earlier connection.
    pub(crate) fn remember_function(&self, name: &str, resolved: &Resolved) -> Option<usize> {
        let mut state = self.lock();
        state.up_of(resolved.connection)?;
        if let Some(index) = state.functions.iter().position(|known| known.name == name) {
            return Some(index);
        }
        state.functions.push(Named { name: name.into(), id: Ok(resolved.id) });
        Some(state.functions.len() - 1)
    }

    pub(crate) fn cancel(&self, connection: u64, call_id: CallId) {
        let mut state = self.lock();
        match state.up_of(connection) {
            Some(Up::Socket(up)) => up.session.cancel(call_id),
            Some(Up::Ring(ring)) => ring.cancel(call_id),
            None => {}
        }
        self.flush_and_watch(state, Hurry::Now);
    }

    pub(crate) fn abandon(&self, connection: u64, call_id: CallId) {
        let mut state = self.lock();
        let waiter = state.up_of(connection).and_then(|up| match up {
            Up::Socket(up) => up.session.abandon(call_id),
            Up::Ring(ring) => ring.abandon(call_id),
        });
        self.flush_and_watch(state, Hurry::UnlessHeld);
        drop(waiter);
    }

    pub(crate) fn hold(&self) {
        self.lock().holds += 1;
    }

    pub(crate) fn release_hold(&self) {
        let mut state = self.lock();
        state.holds -= 1;
        self.flush_and_watch(state, Hurry::UnlessHeld);
    }

    /// Someone is about to wait: what is held back would keep him waiting.
    pub(crate) fn flush_held(&self) {
        let state = self.lock();
        if state.holds > 0 {
            self.flush_and_watch(state, Hurry::Now);
        }
    }

    /// Sends what waits to be sent, and makes sure that somebody sees the answers.
    fn flush_and_watch<'a>(&'a self, state: MutexGuard<'a, State>, hurry: Hurry) {
        let is_ring = matches!(state.life, Life::Up(Up::Ring(_)));
        self.flush(state, hurry);
        if is_ring {
            self.watch(self.lock());
        }
    }

    /// Writes what waits to be written, unless someone else is at it or the socket is full.
    pub(crate) fn flush<'a>(&'a self, mut state: MutexGuard<'a, State>, hurry: Hurry) {
        loop {
            let is_held = state.holds > 0 && hurry == Hurry::UnlessHeld;
            let connection = state.connection;
            let up = match &mut state.life {
                Life::Up(Up::Socket(up)) => up,
                // Shown all at once, however many there are.
                Life::Up(Up::Ring(ring)) if !is_held => return ring.publish(),
                Life::Up(Up::Ring(_)) | Life::Down | Life::Closed => return,
            };
            let size = up.session.outbound_size();
            if up.is_writing || up.is_blocked || size == 0 || (is_held && size < HELD_SIZE_MAX) {
                return;
            }
            up.is_writing = true;
            let spare = std::mem::take(&mut up.spare);
            let mut bytes = up.session.take_outbound(spare);
            let stream = Arc::clone(&up.stream);
            drop(state);

            let written = write_some(&stream, &bytes);

            state = self.lock();
            let Some(Up::Socket(up)) = state.up_of(connection) else { return };
            up.is_writing = false;
            match written {
                Ok(count) if count == bytes.len() => {
                    bytes.clear();
                    up.spare = bytes;
                    self.notify(&state);
                }
                Ok(count) => {
                    bytes.drain(..count);
                    up.session.give_back(bytes);
                    up.is_blocked = true;
                    drop(state);
                    return self.ring();
                }
                Err(_) => {
                    // The reading side tells what happened; it only has to look.
                    stream.shut_down();
                    return;
                }
            }
        }
    }

    /// Wakes the I/O thread from `poll`. The write fails only when a wake-up is pending already.
    pub(crate) fn ring(&self) {
        let _pending_already = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Wakes callers waiting for room, if there are any.
    pub(crate) fn notify(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// The client is gone: no new calls, and the I/O thread ends.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        let waiters = state.go(Life::Closed);
        self.changed.notify_all();
        drop(state);
        self.ring();
        fail_all(waiters, Disconnect::ClientDropped);
    }

    /// The connection is over: everyone who waits for an answer on it is told.
    pub(crate) fn go_down(&self, cause: Disconnect) {
        let mut state = self.lock();
        if matches!(state.life, Life::Closed) {
            return;
        }
        let waiters = state.go(Life::Down);
        self.notify(&state);
        drop(state);
        fail_all(waiters, cause);
    }

    /// A new connection is there. `false` if nobody wants it any more.
    pub(crate) fn go_up(&self, dialled: Dialled) -> bool {
        let mut state = self.lock();
        if matches!(state.life, Life::Closed) {
            return false;
        }
        for (known, id) in state.functions.iter_mut().zip(&dialled.functions) {
            known.id = *id;
        }
        state.connection += 1;
        state.life = Life::Up(Up::new(dialled.line));
        self.notify(&state);
        true
    }

    pub(crate) fn function_names(&self) -> Vec<String> {
        self.lock().functions.iter().map(|known| known.name.clone()).collect()
    }

    /// Sleeps between two attempts to connect. `false` if the client was dropped.
    pub(crate) fn pause(&self, delay: Duration) -> bool {
        let at = Instant::now() + delay;
        let mut state = self.lock();
        while !matches!(state.life, Life::Closed) {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Runs `attempt` until it succeeds, waiting for changes in between. Without a connection, it waits no longer
    /// than the connect timeout.
    fn with_room<T>(
        &self,
        may_wait: bool,
        give_up_at: Option<Instant>,
        mut attempt: impl FnMut(&mut State) -> Result<Option<T>, CallError>,
    ) -> Result<(MutexGuard<'_, State>, T), CallError> {
        let mut state = self.lock();
        let mut down_until = None;
        loop {
            if let Some(done) = attempt(&mut state)? {
                return Ok((state, done));
            }
            let connected_by = match state.life {
                Life::Closed => return Err(not_sent(Disconnect::ClientDropped)),
                // A router that drains is as good as gone: the next connection is what is waited for.
                Life::Up(ref up) if up.goaway().is_none() => None,
                Life::Up(_) | Life::Down => {
                    Some(*down_until.get_or_insert_with(|| Instant::now() + self.connect_timeout))
                }
            };
            if connected_by.is_none() {
                down_until = None;
            }
            if !may_wait {
                return Err(CallError::WouldBlock);
            }
            let now = Instant::now();
            if give_up_at.is_some_and(|at| at <= now) {
                return Err(CallError::Expired(Expiry::NeverStarted));
            }
            if connected_by.is_some_and(|at| at <= now) {
                return Err(not_sent(Disconnect::Unreachable));
            }
            // What is held back would keep the room we wait for.
            if state.holds > 0 {
                self.flush_and_watch(state, Hurry::Now);
                state = self.lock();
                if let Some(done) = attempt(&mut state)? {
                    return Ok((state, done));
                }
            }
            state.waiting += 1;
            state = match [give_up_at, connected_by].into_iter().flatten().min() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waiting -= 1;
        }
    }
}

/// A function's number, and the connection on which it means something.
#[derive(Debug)]
pub(crate) struct Resolved {
    id: FunctionId,
    connection: u64,
}

/// A call that was taken.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) cell: Arc<Cell<Result<Answer, CallError>>>,
    pub(crate) connection: u64,
    pub(crate) call_id: CallId,
}

/// How long a caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all: room must be there.
    None,
    /// Until there is room.
    UntilSent,
    /// Until the call has ended.
    UntilAnswered,
}

/// Whether [`Link::flush`] respects held writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    UnlessHeld,
    Now,
}

impl State {
    fn up_of(&mut self, connection: u64) -> Option<&mut Up> {
        match &mut self.life {
            Life::Up(up) if self.connection == connection => Some(up),
            _ => None,
        }
    }

    /// Ends the present connection; its waiters are the caller's to tell, after unlocking.
    fn go(&mut self, life: Life) -> Option<Up> {
        match std::mem::replace(&mut self.life, life) {
            Life::Up(up) => {
                up.shut_down();
                Some(up)
            }
            Life::Down | Life::Closed => None,
        }
    }
}

impl Sleep {
    fn is_later_than(self, at: Instant) -> bool {
        match self {
            Self::Awake => false,
            Self::Until(until) => until.is_none_or(|until| until > at),
        }
    }
}

fn fail_all(up: Option<Up>, cause: Disconnect) {
    // A router that said why and then closed has said why.
    let cause = match (cause, up.as_ref().and_then(Up::goaway)) {
        (Disconnect::Closed | Disconnect::Io(_), Some(status)) => Disconnect::GoAway(status),
        _ => cause,
    };
    for (waiter, maybe_started) in up.into_iter().flat_map(Up::into_waiters) {
        waiter.fail(CallError::Disconnected { maybe_started, cause });
    }
}

fn not_sent(cause: Disconnect) -> CallError {
    CallError::Disconnected { maybe_started: false, cause }
}

/// The time left as the wire wants it: at least 1, because 0 means none was given; at most 71 minutes, beyond which
/// the deadline is kept on this side alone.
fn budget_us(deadline_at: Instant) -> Result<u32, CallError> {
    let left = deadline_at.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(CallError::Expired(Expiry::NeverStarted));
    }
    Ok(u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1))
}

/// Writes until everything is written or the socket is full.
fn write_some(stream: &Stream, bytes: &[u8]) -> std::io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
