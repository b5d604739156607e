//! How something ended, as C reads it; and what becomes of a panic.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use protocol::{Fault, Retry, Status};
use quickfire_client::serve::ServeFailed;
use quickfire_client::{Answer, CallError, ConnectError, Expiry, ResolveError};

/// `qf_bytes`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bytes {
    pub data: *const u8,
    pub size: usize,
}

/// `qf_trace`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Trace {
    pub trace_id: [u8; 16],
    pub parent_span_id: [u8; 8],
    pub flags: u32,
}

/// `qf_timings`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Timings {
    pub received_at_ns: u64,
    pub admitted_ns: u64,
    pub queued_ns: u64,
    pub pushed_ns: u64,
    pub started_ns: u64,
    pub finished_ns: u64,
    pub answered_ns: u64,
    pub cause: u32,
}

/// `qf_outcome`.
#[repr(C)]
pub struct Outcome {
    pub kind: i32,
    pub status: u16,
    pub fault: u8,
    pub retry: u8,
    pub started: u8,
    pub has_timings: u8,
    pub retry_after_ns: u64,
    pub payload: Bytes,
    pub message: *const c_char,
    pub timings: Timings,
}

/// An outcome together with what it points to. C has a pointer to the first field, which is one to the whole.
#[repr(C)]
struct Owned {
    outcome: Outcome,
    payload: bytes::Bytes,
    message: CString,
}

/// `QF_FOREVER`.
pub const FOREVER: u64 = u64::MAX;
const NO_STATUS: u16 = u16::MAX;
const NOT_STARTED: u8 = 0;
const STARTED: u8 = 1;
const MAYBE_STARTED: u8 = 2;

/// What kind of end something has: `QF_OK` and its neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Kind {
    Ok = 0,
    FunctionError = 1,
    Backpressure = 2,
    Refused = 3,
    Expired = 4,
    Cancelled = 5,
    WorkerLost = 6,
    Disconnected = 7,
    UnknownStatus = 8,
    WouldBlock = 9,
    ConnectFailed = 32,
    ServeFailed = 33,
    InvalidArgument = 64,
    Bug = 65,
}

/// The numbers of the header, held to it by `tests/header.rs`.
pub const KINDS: [(&str, i32); 31] = [
    ("QF_OK", Kind::Ok as i32),
    ("QF_FUNCTION_ERROR", Kind::FunctionError as i32),
    ("QF_BACKPRESSURE", Kind::Backpressure as i32),
    ("QF_REFUSED", Kind::Refused as i32),
    ("QF_EXPIRED", Kind::Expired as i32),
    ("QF_CANCELLED", Kind::Cancelled as i32),
    ("QF_WORKER_LOST", Kind::WorkerLost as i32),
    ("QF_DISCONNECTED", Kind::Disconnected as i32),
    ("QF_UNKNOWN_STATUS", Kind::UnknownStatus as i32),
    ("QF_WOULD_BLOCK", Kind::WouldBlock as i32),
    ("QF_CONNECT_FAILED", Kind::ConnectFailed as i32),
    ("QF_SERVE_FAILED", Kind::ServeFailed as i32),
    ("QF_INVALID_ARGUMENT", Kind::InvalidArgument as i32),
    ("QF_BUG", Kind::Bug as i32),
    ("QF_FAULT_NOBODY", fault_number(Fault::Nobody) as i32),
    ("QF_FAULT_CALLER", fault_number(Fault::Caller) as i32),
    ("QF_FAULT_FUNCTION", fault_number(Fault::Function) as i32),
    ("QF_FAULT_WORKER", fault_number(Fault::Worker) as i32),
    ("QF_FAULT_ROUTER", fault_number(Fault::Router) as i32),
    ("QF_RETRY_POINTLESS", retry_number(Retry::Pointless) as i32),
    ("QF_RETRY_SAFE", retry_number(Retry::Safe) as i32),
    ("QF_RETRY_IF_IDEMPOTENT", retry_number(Retry::IfIdempotent) as i32),
    ("QF_NOT_STARTED", NOT_STARTED as i32),
    ("QF_STARTED", STARTED as i32),
    ("QF_MAYBE_STARTED", MAYBE_STARTED as i32),
    ("QF_LOW", protocol::Criticality::Low as i32),
    ("QF_NORMAL", protocol::Criticality::Normal as i32),
    ("QF_HIGH", protocol::Criticality::High as i32),
    ("QF_CRITICAL", protocol::Criticality::Critical as i32),
    ("QF_NO_STATUS", NO_STATUS as i32),
    ("QF_FOREVER == UINT64_MAX", (FOREVER == u64::MAX) as i32),
];

const fn fault_number(fault: Fault) -> u8 {
    match fault {
        Fault::Nobody => 0,
        Fault::Caller => 1,
        Fault::Function => 2,
        Fault::Worker => 3,
        Fault::Router => 4,
    }
}

const fn retry_number(retry: Retry) -> u8 {
    match retry {
        Retry::Pointless => 0,
        Retry::Safe => 1,
        Retry::IfIdempotent => 2,
    }
}

/// An outcome while it is made.
pub struct Ending {
    kind: Kind,
    status: Option<u16>,
    fault: Fault,
    retry: Retry,
    started: u8,
    retry_after_ns: u64,
    payload: bytes::Bytes,
    message: String,
    timings: Option<Box<Timings>>,
}

impl Ending {
    /// Something that never was a call.
    fn of(kind: Kind, fault: Fault, message: String) -> Self {
        let payload = bytes::Bytes::new();
        Self {
            kind,
            status: None,
            fault,
            retry: Retry::Pointless,
            started: NOT_STARTED,
            retry_after_ns: FOREVER,
            payload,
            message,
            timings: None,
        }
    }

    /// The caller's program is wrong.
    pub fn invalid(message: String) -> Self {
        Self::of(Kind::InvalidArgument, Fault::Caller, message)
    }

    /// Gives it to C, which gives it back to [`qf_outcome_free`].
    pub fn give(self) -> *mut Outcome {
        let Self { kind, status, fault, retry, started, retry_after_ns, payload, message, timings } = self;
        // A text of ours has no zero; one with a router's or a system's words in it might.
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        let data = if payload.is_empty() { std::ptr::null() } else { payload.as_ptr() };
        let outcome = Outcome {
            kind: kind as i32,
            status: status.unwrap_or(NO_STATUS),
            fault: fault_number(fault),
            retry: retry_number(retry),
            started,
            has_timings: timings.is_some().into(),
            retry_after_ns,
            payload: Bytes { data, size: payload.len() },
            message: message.as_ptr(),
            timings: timings.map(|timings| *timings).unwrap_or_default(),
        };
        Box::into_raw(Box::new(Owned { outcome, payload, message })).cast()
    }
}

impl From<Answer> for Ending {
    fn from(answer: Answer) -> Self {
        let timings = answer.timings.map(|timings| {
            Box::new(Timings {
                received_at_ns: timings.received_at_ns,
                admitted_ns: timings.admitted_ns,
                queued_ns: timings.queued_ns,
                pushed_ns: timings.pushed_ns,
                started_ns: timings.started_ns,
                finished_ns: timings.finished_ns,
                answered_ns: timings.answered_ns,
                cause: timings.cause as u32,
            })
        });
        Self {
            status: Some(Status::Ok as u16),
            started: STARTED,
            payload: answer.payload,
            timings,
            ..Self::of(Kind::Ok, Fault::Nobody, Status::Ok.name().into())
        }
    }
}

impl From<CallError> for Ending {
    fn from(error: CallError) -> Self {
        let started_or_not = |started| if started { STARTED } else { NOT_STARTED };
        let mut ending = Self {
            status: error.status().map(|status| status as u16),
            retry: error.retry(),
            ..Self::of(Kind::Refused, error.fault(), error.to_string())
        };
        let after = |delay: Option<std::time::Duration>| {
            delay.map_or(FOREVER, |delay| u64::try_from(delay.as_nanos()).unwrap_or(FOREVER))
        };
        (ending.kind, ending.started) = match error {
            CallError::Refused { retry_after, .. } => {
                ending.retry_after_ns = after(retry_after);
                (Kind::Refused, NOT_STARTED)
            }
            CallError::FunctionError(payload) => {
                ending.payload = payload;
                (Kind::FunctionError, STARTED)
            }
            CallError::Backpressure { downstream, retry_after } => {
                ending.retry_after_ns = after(retry_after);
                ending.payload = bytes::Bytes::copy_from_slice(downstream.as_bytes());
                (Kind::Backpressure, STARTED)
            }
            CallError::Expired(Expiry::NeverStarted) => (Kind::Expired, NOT_STARTED),
            CallError::Expired(Expiry::Stopped) => (Kind::Expired, STARTED),
            CallError::Expired(Expiry::NoAnswer) => (Kind::Expired, MAYBE_STARTED),
            CallError::Cancelled { started } => (Kind::Cancelled, started_or_not(started)),
            CallError::WorkerLost { started, .. } => (Kind::WorkerLost, started_or_not(started)),
            CallError::UnknownStatus { number, started, .. } => {
                ending.status = Some(number);
                (Kind::UnknownStatus, started_or_not(started))
            }
            CallError::Disconnected { maybe_started: true, .. } => (Kind::Disconnected, MAYBE_STARTED),
            CallError::Disconnected { maybe_started: false, .. } => (Kind::Disconnected, NOT_STARTED),
            _ => (Kind::WouldBlock, NOT_STARTED),
        };
        ending
    }
}

impl From<Result<Answer, CallError>> for Ending {
    fn from(ended: Result<Answer, CallError>) -> Self {
        ended.map_or_else(Self::from, Self::from)
    }
}

impl From<ConnectError> for Ending {
    fn from(error: ConnectError) -> Self {
        let message = error.to_string();
        match error {
            ConnectError::Url(_) => Self::invalid(message),
            ConnectError::Refused { status, .. } => Self {
                status: Some(status as u16),
                retry: status.retry(),
                ..Self::of(Kind::ConnectFailed, status.fault(), message)
            },
            ConnectError::NoResources(_) => Self::of(Kind::ConnectFailed, Fault::Nobody, message),
            _ => Self { retry: Retry::Safe, ..Self::of(Kind::ConnectFailed, Fault::Router, message) },
        }
    }
}

impl From<ResolveError> for Ending {
    fn from(error: ResolveError) -> Self {
        let message = error.to_string();
        match error {
            ResolveError::Failed { source, .. } => source.into(),
            ResolveError::UnknownFunction { .. } => {
                let status = Status::UnknownFunction;
                Self { message, ..CallError::Refused { status, retry_after: None }.into() }
            }
            _ => Self::invalid(message),
        }
    }
}

impl From<ServeFailed> for Ending {
    fn from(error: ServeFailed) -> Self {
        Self::of(Kind::ServeFailed, Fault::Nobody, error.to_string())
    }
}

/// Runs what ends as an outcome, also if it panics. NULL: there is nothing to say.
pub fn ending(run: impl FnOnce() -> Result<(), Ending>) -> *mut Outcome {
    // What was half changed is behind locks that do not mind, or belongs to the call that failed.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(ending)) => ending.give(),
        Err(_) => bug().give(),
    }
}

/// Runs what gives a pointer, or says at `error` why not. The pointer is a box, which C gives back to the function of its type.
///
/// # Safety
/// `error` is NULL, or may be written to.
pub unsafe fn giving<T>(error: *mut *mut Outcome, run: impl FnOnce() -> Result<T, Ending>) -> *mut T {
    let (given, outcome) = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => (Box::into_raw(Box::new(value)), std::ptr::null_mut()),
        Ok(Err(ending)) => {
            (std::ptr::null_mut(), if error.is_null() { std::ptr::null_mut() } else { ending.give() })
        }
        Err(_) => (std::ptr::null_mut(), if error.is_null() { std::ptr::null_mut() } else { bug().give() }),
    };
    if !error.is_null() {
        // SAFETY: the hazard is a write to memory that is not the caller's; it is not NULL, and the contract above says the rest.
        unsafe { error.write(outcome) };
    }
    given
}

fn bug() -> Ending {
    Ending::of(Kind::Bug, Fault::Nobody, "a bug in libquickfire: what it is stands on stderr".into())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_outcome_free(outcome: *mut Outcome) {
    if !outcome.is_null() {
        // SAFETY: the hazards are another pointer, and freeing twice. The header lets C give only what it got and did not free, which is
        // the first field of a box of `Owned` (`Ending::give`), and `repr(C)` puts that at the address of the whole.
        drop(unsafe { Box::from_raw(outcome.cast::<Owned>()) });
    }
}

/// Name and sentence of each status, as C reads them. Made once; there are some forty.
static WORDS: LazyLock<Vec<(u16, CString, CString)>> = LazyLock::new(|| {
    let c_text = |text: &str| CString::new(text).unwrap_or_default();
    Status::ALL.map(|status| (status as u16, c_text(status.name()), c_text(status.explain()))).into()
});

#[unsafe(no_mangle)]
pub extern "C" fn qf_status_name(status: u16) -> *const c_char {
    WORDS.iter().find(|words| words.0 == status).map_or(std::ptr::null(), |words| CStr::as_ptr(&words.1))
}

#[unsafe(no_mangle)]
pub extern "C" fn qf_status_explain(status: u16) -> *const c_char {
    WORDS.iter().find(|words| words.0 == status).map_or(std::ptr::null(), |words| CStr::as_ptr(&words.2))
}
