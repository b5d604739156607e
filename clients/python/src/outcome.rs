//! Answers and errors as Python has them.
//!
//! In: what the Rust client ends with.  Out: tuples for `_client.py`, exceptions of `_errors.py`.
//! Always: who is at fault and whether to try again is what the Rust client says; nothing is judged here.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use quickfire_client::{Answer, CallError, ConnectError, Disconnect, Expiry, ResolveError, Status, Timings};

use crate::owned::Forked;

/// Received at, six stages, cause: the fields of the Python class `Timings`.
pub type TimingsParts = (u64, [Option<u64>; 6], &'static str);

/// Payload and timings: the fields of the Python class `Answer`.
pub type AnswerParts<'py> = (Bound<'py, PyBytes>, Option<TimingsParts>);

/// An answer as Python has it. The payload is copied once, into an object of Python's.
pub fn answer_parts<'py>(py: Python<'py>, answer: &Answer) -> AnswerParts<'py> {
    (PyBytes::new(py, &answer.payload), answer.timings.as_ref().map(timings_parts))
}

fn timings_parts(timings: &Timings) -> TimingsParts {
    (timings.received_at_ns, timings.stages().map(|(_, ns)| ns), timings.cause.name())
}

/// Every status: number, name, fault, retry, what it means. `_status.py` is tested against it.
#[pyfunction]
pub fn status_table() -> Vec<(u16, &'static str, &'static str, &'static str, &'static str)> {
    let row = |status: Status| {
        (status as u16, status.name(), status.fault().name(), status.retry().name(), status.explain())
    };
    Status::ALL.map(row).to_vec()
}

/// How a call ended, or why it did not begin, as an exception of the package.
pub fn call_failed(py: Python<'_>, error: &CallError) -> PyErr {
    let (name, started, retry_after) = match error {
        CallError::Refused { status: Status::UnknownFunction, .. } => ("UnknownFunction", Some(false), None),
        CallError::Refused { retry_after, .. } => ("Refused", Some(false), *retry_after),
        CallError::FunctionError(_) => ("FunctionError", Some(true), None),
        CallError::Backpressure { retry_after, .. } => ("Backpressure", Some(true), *retry_after),
        CallError::Expired(expiry) => {
            let started = match expiry {
                Expiry::NeverStarted => Some(false),
                Expiry::Stopped => Some(true),
                Expiry::NoAnswer => None,
            };
            ("Expired", started, None)
        }
        CallError::Cancelled { started } => ("Cancelled", Some(*started), None),
        CallError::WorkerLost { started, .. } => ("WorkerLost", Some(*started), None),
        CallError::UnknownStatus { started, .. } => ("UnknownStatus", Some(*started), None),
        CallError::Disconnected { maybe_started, cause } => {
            let name = if matches!(cause, Disconnect::RouterMisbehaved(_)) {
                "RouterMisbehaved"
            } else {
                "Disconnected"
            };
            (name, if *maybe_started { None } else { Some(false) }, None)
        }
        _ => ("WouldBlock", Some(false), None),
    };
    let fields = PyDict::new(py);
    let filled = (|| {
        fields.set_item(
            "status",
            match error {
                CallError::UnknownStatus { number, .. } => Some(*number),
                _ => error.status().map(|status| status as u16),
            },
        )?;
        fields.set_item("fault", error.fault().name())?;
        fields.set_item("retry", error.retry().name())?;
        fields.set_item("started", started)?;
        fields.set_item("retry_after", retry_after.map(|after| after.as_secs_f64()))?;
        match error {
            CallError::FunctionError(bytes) => fields.set_item("payload", PyBytes::new(py, bytes)),
            CallError::Backpressure { downstream, .. } => fields.set_item("downstream", downstream.as_str()),
            _ => fields.set_item("message", error.to_string()),
        }
    })();
    filled.map_or_else(|error| error, |()| exception(py, name, &fields))
}

/// Why there is no handle to a function.
pub fn resolve_failed(py: Python<'_>, error: &ResolveError) -> PyErr {
    match error {
        ResolveError::Failed { source, .. } => call_failed(py, source),
        ResolveError::UnknownFunction { .. } => {
            call_failed(py, &CallError::Refused { status: Status::UnknownFunction, retry_after: None })
        }
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// Why there is no connection.
pub fn connect_failed(py: Python<'_>, error: &ConnectError) -> PyErr {
    let (fault, status) = match error {
        ConnectError::Url(_) => return PyValueError::new_err(error.to_string()),
        ConnectError::Refused { status, .. } => (status.fault().name(), Some(*status as u16)),
        ConnectError::NoResources(_) => ("nobody", None),
        _ => ("router", None),
    };
    with_fields(
        py,
        "ConnectError",
        &[
            ("message", error.to_string().into_py_any(py)),
            ("fault", fault.into_py_any(py)),
            ("status", status.into_py_any(py)),
        ],
    )
}

/// An exception that only says what happened.
pub fn failed(py: Python<'_>, name: &str, message: &impl ToString) -> PyErr {
    with_fields(py, name, &[("message", message.to_string().into_py_any(py))])
}

/// The object belongs to another process.
pub fn forked(py: Python<'_>) -> PyErr {
    failed(py, "ForkedError", &Forked)
}

fn with_fields(py: Python<'_>, name: &str, fields: &[(&str, PyResult<Py<PyAny>>)]) -> PyErr {
    let all = PyDict::new(py);
    for (field, value) in fields {
        let set = match value {
            Ok(value) => all.set_item(field, value),
            Err(error) => Err(error.clone_ref(py)),
        };
        if let Err(error) = set {
            return error;
        }
    }
    exception(py, name, &all)
}

/// An instance of a class of `_errors.py`.
fn exception(py: Python<'_>, name: &str, fields: &Bound<'_, PyDict>) -> PyErr {
    let made = py
        .import("quickfire._errors")
        .and_then(|module| module.getattr(name))
        .and_then(|class| class.call((), Some(fields)));
    made.map_or_else(|error| error, PyErr::from_value)
}
