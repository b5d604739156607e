//! What a call says beside its payload, and payloads as Python has them.
//!
//! Always: the bytes of a `bytes` object are used in place; no other thread can change them. Those of anything else that can be seen as
//! bytes (`bytearray`, `memoryview`, an array) are copied once, because another thread could change them while they are sent.

use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyString};
use quickfire_client::{CallBuilder, Criticality, TraceContext};

/// A trace as Python hands it over: trace id, parent span id, flags.
pub type TraceParts = ([u8; 16], [u8; 8], u32);

/// What a call says, as the tuple that `options` in `_client.py` makes of its keywords: timeout, start_after, criticality, idempotent,
/// idempotency_key, trace, timings.
#[derive(FromPyObject)]
pub struct Options(Option<f64>, Option<f64>, Option<u8>, bool, Option<[u8; 16]>, Option<TraceParts>, bool);

impl Options {
    /// The call with all of this said.
    pub fn apply<'a>(&self, mut call: CallBuilder<'a>) -> PyResult<CallBuilder<'a>> {
        let Self(timeout, start_after, criticality, idempotent, idempotency_key, trace, timings) = *self;
        if let Some(timeout) = timeout {
            call = call.deadline(duration("timeout", timeout)?);
        }
        if let Some(delay) = start_after {
            call = call.start_after(duration("start_after", delay)?);
        }
        if let Some(number) = criticality {
            call = call.criticality(criticality_of(number)?);
        }
        if idempotent {
            call = call.idempotent();
        }
        if let Some(key) = idempotency_key {
            call = call.idempotency_key(key);
        }
        if let Some((trace_id, parent_span_id, trace_flags)) = trace {
            call = call.trace(TraceContext { trace_id, parent_span_id, trace_flags });
        }
        if timings {
            call = call.with_timings();
        }
        Ok(call)
    }
}

/// Seconds as Python counts them. More than a clock can say is for ever.
pub fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "{name} is {seconds}: a number of seconds, not less than 0"
        )));
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn criticality_of(number: u8) -> PyResult<Criticality> {
    Criticality::try_from(number)
        .map_err(|_| PyValueError::new_err(format!("there is no criticality {number}: 0 to 3")))
}

/// The bytes of a payload.
pub fn payload<'py>(payload: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = payload.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if let Ok(text) = payload.cast::<PyString>() {
        return text.encode_utf8();
    }
    let view = PyMemoryView::from(payload).map_err(|_| {
        let kind = payload.get_type().name().map_or_else(|_| "this".into(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "{kind} cannot be seen as bytes: give bytes, a bytes-like object, or str"
        ))
    })?;
    Ok(view.call_method0("tobytes")?.cast_into::<PyBytes>()?)
}
