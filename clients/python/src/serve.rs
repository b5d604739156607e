//! Functions: the loop over the ring, with a handler in Python.
//!
//! In: calls from the ring.  Out: for each the handler's result, written into the Rust library's reply.
//! Owns: nothing of a call. Its payload is copied once, from memory shared with the router into an object of Python's, which may keep it
//! as long as it likes.
//! Always: the interpreter is held only while the handler runs; while the process waits for calls, other threads of it run.
//! Always: what a handler kept of its call says "the call has ended" afterwards.

use std::mem::transmute;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::ffi::{PyOS_AfterFork_Child, PyOS_AfterFork_Parent, PyOS_BeforeFork};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quickfire_client::serve::{
    Call, ForkRefused, FunctionError, Reply, Side, Stop, fork_orphan, serve_forked,
};
use quickfire_client::{CallBuilder, Function};

use crate::client::Client;
use crate::options::{Options, TraceParts, duration, payload as payload_bytes};
use crate::outcome::{AnswerParts, answer_parts, call_failed, failed};
use crate::pending::Pending;

/// What a handler's glue in `_function.py` gives: what kind of end it is, and its bytes.
type Ended<'py> = (u8, u8, Bound<'py, PyBytes>);

/// The kinds of [`Ended`].
const OK: u8 = 0;
const PUSHED_BACK: u8 = 2;

/// A function process, from attaching to its end.
#[pyclass(frozen, module = "quickfire._native")]
pub struct Server {
    stop: Stop,
}

#[pymethods]
impl Server {
    #[new]
    fn new() -> Self {
        Self { stop: Stop::new() }
    }

    /// Waits to be copied, if the process is a template; runs `begin(is_copy)`, attaches to the ring, and serves until the router, or
    /// `stop`, says stop. `answer(live_call, payload)` gives the end of each call.
    fn serve(&self, py: Python<'_>, begin: Py<PyAny>, answer: Py<PyAny>) -> PyResult<()> {
        let is_copy = AtomicBool::new(false);
        let raised = Mutex::new(None);
        let handler = |call: &Call<'_>, reply: &mut Reply| {
            // Only fails when the interpreter ends while this thread serves, which then ends with its process.
            Python::try_attach(|py| run(py, &answer, call, reply))
                .unwrap_or_else(|| Err(FunctionError::new("the interpreter is at its end")))
        };
        let served = py.detach(|| {
            serve_forked(
                &self.stop,
                || fork(&is_copy),
                || match Python::attach(|py| begin.call1(py, (is_copy.load(Ordering::Relaxed),))) {
                    Ok(_) => Ok(handler),
                    Err(error) => {
                        *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        Err("a hook raised".into())
                    }
                },
            )
        });
        match raised.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => served.map_err(|error| failed(py, "ServeError", &error)),
        }
    }

    /// Ends `serve`, after the call that it runs. From any thread.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.stop.stop());
    }
}

/// Copies the process as `os.fork` would, with everything that modules have registered for it, but so that the copy is an orphan.
fn fork(is_copy: &AtomicBool) -> Result<Side, ForkRefused> {
    Python::attach(|_py| {
        // SAFETY: the hazard is a call without the interpreter, which would change what another thread of it changes. It is attached
        // here, from before the fork until after it, in both processes.
        unsafe { PyOS_BeforeFork() };
        let made = fork_orphan();
        if matches!(made, Ok(Side::Copy)) {
            is_copy.store(true, Ordering::Relaxed);
            // SAFETY: as above; and this is the one thread of the child, right after the fork.
            unsafe { PyOS_AfterFork_Child() };
        } else {
            // SAFETY: as above, in the parent, whether or not there is a child.
            unsafe { PyOS_AfterFork_Parent() };
        }
        made
    })
}

/// Runs the handler for one call.
fn run(py: Python<'_>, answer: &Py<PyAny>, call: &Call<'_>, reply: &mut Reply) -> Result<(), FunctionError> {
    let live = Bound::new(py, LiveCall::new(call))?;
    let _ends = Ends(&live);
    let payload = PyBytes::new(py, call.payload());
    let (kind, severity, bytes): Ended<'_> = answer.bind(py).call1((live.clone(), payload))?.extract()?;
    match kind {
        OK => {
            reply.write(bytes.as_bytes());
            Ok(())
        }
        PUSHED_BACK => Err(FunctionError::backpressure(&String::from_utf8_lossy(bytes.as_bytes()), severity)),
        _ => Err(FunctionError::new(bytes.as_bytes())),
    }
}

/// A call while it runs: what `quickfire.Call` asks.
#[pyclass(frozen, module = "quickfire._native")]
pub struct LiveCall {
    /// Empty once the handler has returned. Not really for ever: see [`LiveCall::new`].
    call: Mutex<Option<Lasting>>,
    thread: ThreadId,
}

/// A call whose lifetime Python keeps.
#[derive(Clone, Copy)]
struct Lasting(&'static Call<'static>);

// SAFETY: the hazard is that a call is looked at by another thread than the one that serves, while that thread goes on, or changes what
// the ring says. `LiveCall::with` is the only way to the reference, and gives it to the thread that made it alone.
unsafe impl Send for Lasting {}

impl LiveCall {
    fn new(call: &Call<'_>) -> Self {
        // SAFETY: the hazard is that Python keeps the object, and asks it when the call is gone. `run` makes the object, and its `Ends`
        // empties it before the borrow of `call` ends, also when the handler panics. `with` finds it empty from then on. It lends the
        // reference only while one of its closures runs, on the thread that serves, and therefore while the handler, and `run` around it,
        // wait for that closure: so no copy of the reference outlives `run`.
        let call = unsafe { transmute::<&Call<'_>, &'static Call<'static>>(call) };
        Self { call: Mutex::new(Some(Lasting(call))), thread: thread::current().id() }
    }

    /// The one way to the call.
    fn with<R>(&self, py: Python<'_>, ask: impl FnOnce(&Call<'_>) -> PyResult<R>) -> PyResult<R> {
        if thread::current().id() != self.thread {
            return Err(failed(py, "CallEnded", &"only the thread that serves may ask about its call"));
        }
        let call = *self.call.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            Some(Lasting(call)) => ask(call),
            None => Err(failed(py, "CallEnded", &"the call has ended")),
        }
    }
}

/// Ends what Python has of a call.
struct Ends<'a, 'py>(&'a Bound<'py, LiveCall>);

impl Drop for Ends<'_, '_> {
    fn drop(&mut self) {
        *self.0.get().call.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[pymethods]
impl LiveCall {
    fn time_left(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        self.with(py, |call| Ok(call.time_left().map(|left| left.as_secs_f64())))
    }

    fn result_size_max(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |call| Ok(call.result_size_max()))
    }

    fn is_cancelled(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |call| Ok(call.is_cancelled()))
    }

    fn criticality(&self, py: Python<'_>) -> PyResult<u8> {
        self.with(py, |call| Ok(call.criticality() as u8))
    }

    fn trace(&self, py: Python<'_>) -> PyResult<Option<TraceParts>> {
        self.with(py, |call| {
            Ok(call.trace().map(|trace| (trace.trace_id, trace.parent_span_id, trace.trace_flags)))
        })
    }

    fn idempotency_key<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.with(py, |call| Ok(call.idempotency_key().map(|key| PyBytes::new(py, &key))))
    }

    fn invocation_id(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |call| Ok(call.invocation_id()))
    }

    /// A nested call, waited for. The router is shown that this process waits.
    fn call<'py>(
        &self,
        py: Python<'py>,
        client: &Client,
        function: &str,
        payload: &Bound<'py, PyAny>,
        reserve: Option<f64>,
        options: Options,
    ) -> PyResult<AnswerParts<'py>> {
        let function = client.function(py, function)?;
        let bytes = payload_bytes(payload)?;
        let reserve = reserve_of(reserve)?;
        self.with(py, |call| {
            let nested = options.apply(nested(call, &function, bytes.as_bytes(), reserve))?;
            let answer = py.detach(|| nested.wait());
            answer.map(|answer| answer_parts(py, &answer)).map_err(|error| call_failed(py, &error))
        })
    }

    /// A nested call, to be waited for later.
    fn submit(
        &self,
        py: Python<'_>,
        client: &Client,
        function: &str,
        payload: &Bound<'_, PyAny>,
        reserve: Option<f64>,
        options: Options,
    ) -> PyResult<Pending> {
        let function = client.function(py, function)?;
        let bytes = payload_bytes(payload)?;
        let reserve = reserve_of(reserve)?;
        self.with(py, |call| {
            let nested = options.apply(nested(call, &function, bytes.as_bytes(), reserve))?;
            Ok(Pending::new(py.detach(|| nested.start()).map_err(|error| call_failed(py, &error))?))
        })
    }
}

fn reserve_of(reserve: Option<f64>) -> PyResult<Option<Duration>> {
    reserve.map(|seconds| duration("reserve", seconds)).transpose()
}

fn nested<'f>(
    call: &Call<'f>,
    function: &'f Function,
    payload: &'f [u8],
    reserve: Option<Duration>,
) -> CallBuilder<'f> {
    match reserve {
        Some(reserve) => call.nested_keeping(reserve, function, payload),
        None => call.nested(function, payload),
    }
}

/// The number of the call that this thread runs, by which the log knows it; none where there is none.
#[pyfunction]
pub fn running_call() -> Option<u64> {
    quickfire_client::serve::running_call()
}
