//! A call that is waited for later, by any number of threads, or by a callback.
//!
//! ```text
//!   Pending ── the call's end wakes ──▶ Woken: callbacks run, waiters go on ── somebody asks ──▶ the outcome, kept
//! ```
//!
//! Always: who waits holds no lock meanwhile, so that `cancel` and `done` of other threads do not wait.
//! Always: the lock of the call is never taken by its waker, which may run while a thread that holds it talks to the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use quickfire_client::{Answer, Call, CallError};

use crate::client::{SIGNAL_LOOK, give_up_at};
use crate::outcome::{AnswerParts, answer_parts, call_failed, forked};
use crate::owned::Owned;

/// A call on its way. Dropped unanswered, it is cancelled.
#[pyclass(frozen, module = "quickfire._native")]
pub struct Pending {
    call: Mutex<Owned<InFlight>>,
    end: Arc<End>,
}

/// The call, and its outcome once somebody has asked for it.
struct InFlight {
    call: Call,
    outcome: Option<Result<Answer, CallError>>,
}

/// Whether the call has ended, and who is to be told.
#[derive(Default)]
struct End {
    state: Mutex<EndState>,
    changed: Condvar,
}

#[derive(Default)]
struct EndState {
    has_come: bool,
    callbacks: Vec<Py<PyAny>>,
}

impl Pending {
    pub fn new(call: Call) -> Self {
        let end = Arc::new(End::default());
        let mut in_flight = InFlight { call, outcome: None };
        // Leaves the waker with the call; where the outcome is there already, the end is marked by it.
        if in_flight.poll(&end) {
            end.come();
        }
        Self { call: Mutex::new(Owned::new(in_flight)), end }
    }

    fn lock(&self) -> MutexGuard<'_, Owned<InFlight>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    /// Takes the outcome if it is there. True: it is.
    fn poll(&mut self, end: &Arc<End>) -> bool {
        if self.outcome.is_none() {
            let waker = Waker::from(Arc::clone(end));
            if let Poll::Ready(outcome) = Pin::new(&mut self.call).poll(&mut Context::from_waker(&waker)) {
                self.outcome = Some(outcome);
            }
        }
        self.outcome.is_some()
    }
}

impl End {
    /// The call has ended: waiters go on, and callbacks run on this thread.
    fn come(&self) {
        let callbacks = {
            let mut state = self.lock();
            state.has_come = true;
            self.changed.notify_all();
            std::mem::take(&mut state.callbacks)
        };
        if callbacks.is_empty() {
            return;
        }
        // Nothing runs when the interpreter is at its end; the callbacks are not even dropped then, which needs it too.
        let left = std::cell::Cell::new(Some(callbacks));
        let ran = Python::try_attach(|py| {
            left.take().into_iter().flatten().for_each(|callback| run(py, &callback))
        });
        if ran.is_none() {
            std::mem::forget(left.take());
        }
    }

    /// Waits until it has come, until `until` at most. True: it has.
    fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, left, |state| !state.has_come);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_come
    }

    fn lock(&self) -> MutexGuard<'_, EndState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for End {
    fn wake(self: Arc<Self>) {
        self.come();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.come();
    }
}

/// Runs a callback. What it raises has nobody to go to but stderr.
fn run(py: Python<'_>, callback: &Py<PyAny>) {
    if let Err(error) = callback.call0(py) {
        error.write_unraisable(py, Some(callback.bind(py)));
    }
}

#[pymethods]
impl Pending {
    /// Waits for the end, for `timeout` at most, and gives the answer or raises what the call ended with.
    fn result<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<AnswerParts<'py>> {
        let give_up_at = give_up_at(timeout)?;
        // Also writes what is held back: see `Client.hold`.
        self.is_done(py)?;
        loop {
            let slice_ends_at = Instant::now() + SIGNAL_LOOK;
            let wait_until = give_up_at.map_or(slice_ends_at, |at| at.min(slice_ends_at));
            if py.detach(|| self.end.wait(wait_until)) {
                break;
            }
            py.check_signals()?;
            if give_up_at.is_some_and(|at| at <= Instant::now()) {
                return Err(PyTimeoutError::new_err("the call has not ended yet, and goes on"));
            }
        }
        let outcome = {
            let mut call = self.lock();
            let in_flight = call.value_mut().map_err(|_| forked(py))?;
            in_flight.and_then(|in_flight| {
                in_flight.poll(&self.end);
                in_flight.outcome.clone()
            })
        };
        match outcome {
            Some(Ok(answer)) => Ok(answer_parts(py, &answer)),
            Some(Err(error)) => Err(call_failed(py, &error)),
            None => unreachable!("the end has come, and an outcome is kept"),
        }
    }

    /// The call has ended.
    #[pyo3(name = "done")]
    fn is_done(&self, py: Python<'_>) -> PyResult<bool> {
        let mut call = self.lock();
        let in_flight = call.value_mut().map_err(|_| forked(py))?;
        Ok(in_flight.is_some_and(|in_flight| in_flight.poll(&self.end)))
    }

    /// Asks the router to stop the call, and returns at once.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let call = self.lock();
        if let Some(in_flight) = call.value().map_err(|_| forked(py))? {
            in_flight.call.cancel();
        }
        Ok(())
    }

    /// Calls `callback` with nothing when the call has ended: on the thread that learns of it, or here if it has ended already.
    fn when_done(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        if !self.is_done(py)? {
            let mut state = self.end.lock();
            if !state.has_come {
                state.callbacks.push(callback);
                return Ok(());
            }
        }
        run(py, &callback);
        Ok(())
    }
}
