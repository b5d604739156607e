//! A connection, and calls whose end is waited for at once.
//!
//! In: a call of Python's main thread or any other.  Out: an answer, or an exception.
//! Always: a thread that waits looks for a signal's Python handler every [`SIGNAL_LOOK`], so that Ctrl-C ends the wait; the call is
//! cancelled then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use quickfire_client::{Client as RustClient, Function, RouterUrl};

use crate::options::{Options, duration, payload as payload_bytes};
use crate::outcome::{
    AnswerParts, answer_parts, call_failed, connect_failed, failed, forked, resolve_failed,
};
use crate::owned::Owned;
use crate::pending::Pending;

/// How long a wait for an answer may keep a signal's handler waiting: short for a person, long for a processor.
pub const SIGNAL_LOOK: Duration = Duration::from_millis(50);

/// A connection to a router.
#[pyclass(frozen, module = "quickfire._native")]
pub struct Client {
    inner: Mutex<Owned<RustClient>>,
    url: String,
}

#[pymethods]
impl Client {
    /// Connects. Without an address, to the one in the environment, or the default.
    #[new]
    fn new(
        py: Python<'_>,
        url: Option<&str>,
        connect_timeout: f64,
        credits: u32,
        frame_size_max: u32,
    ) -> PyResult<Self> {
        let url = url
            .map_or_else(RouterUrl::from_env, str::parse)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let builder = RustClient::builder()
            .connect_timeout(duration("connect_timeout", connect_timeout)?)
            .credits(credits)
            .frame_size_max(frame_size_max);
        let shown = url.to_string();
        let inner = py.detach(|| builder.connect_to(url)).map_err(|error| connect_failed(py, &error))?;
        Ok(Self { inner: Mutex::new(Owned::new(inner)), url: shown })
    }

    /// Where it connects.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// Lets go of the connection. Calls on their way still end; then it is closed. Nothing in a forked process, where a `with` block of
    /// the parent's may end.
    fn close(&self, py: Python<'_>) {
        let taken = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(taken));
    }

    /// Calls, and waits for the end.
    fn call<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        payload: &Bound<'py, PyAny>,
        options: Options,
    ) -> PyResult<AnswerParts<'py>> {
        let function = self.function(py, function)?;
        let bytes = payload_bytes(payload)?;
        let builder = options.apply(function.call(bytes.as_bytes()))?;
        let mut started = py.detach(|| builder.start()).map_err(|error| call_failed(py, &error))?;
        loop {
            match py.detach(|| started.wait_timeout(SIGNAL_LOOK)) {
                Ok(Ok(answer)) => return Ok(answer_parts(py, &answer)),
                Ok(Err(error)) => return Err(call_failed(py, &error)),
                Err(call) => started = call,
            }
            py.check_signals()?; // an exception drops the call, which cancels it
        }
    }

    /// Sends a call and returns. Waits only for room, unless it may not.
    fn submit(
        &self,
        py: Python<'_>,
        function: &str,
        payload: &Bound<'_, PyAny>,
        options: Options,
        may_wait: bool,
    ) -> PyResult<Pending> {
        let function = self.function(py, function)?;
        let bytes = payload_bytes(payload)?;
        let builder = options.apply(function.call(bytes.as_bytes()))?;
        let started = py.detach(|| if may_wait { builder.start() } else { builder.try_start() });
        Ok(Pending::new(started.map_err(|error| call_failed(py, &error))?))
    }
}

impl Client {
    /// A handle to the function.
    pub fn function(&self, py: Python<'_>, name: &str) -> PyResult<Function> {
        let client = self.client(py)?;
        py.detach(|| client.function(name)).map_err(|error| resolve_failed(py, &error))
    }

    fn client(&self, py: Python<'_>) -> PyResult<RustClient> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let client = inner.value().map_err(|_| forked(py))?;
        client.cloned().ok_or_else(|| failed(py, "ClientClosed", &"the client is closed"))
    }
}

/// The end of a wait that may last `timeout`; `None`: for ever.
pub fn give_up_at(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let timeout = timeout.map(|seconds| duration("timeout", seconds)).transpose()?;
    Ok(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
}
