//! What C hands in, checked as far as it can be.
//!
//! Always: NULL, sizes and numbers out of range are endings that name the argument.

use std::ffi::{CStr, c_char, c_void};
use std::time::Duration;

use protocol::{Criticality, TraceContext};
use quickfire_client::CallBuilder;

use crate::outcome::{Ending, FOREVER, Trace};

/// `qf_connect_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConnectOptions {
    pub struct_size: usize,
    pub connect_timeout_ns: u64,
    pub credits: u32,
    pub frame_size_max: u32,
}

/// `qf_call_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CallOptions {
    pub struct_size: usize,
    pub timeout_ns: u64,
    pub start_after_ns: u64,
    pub flags: u32,
    pub criticality: i32,
    pub idempotency_key: [u8; 16],
    pub trace: Trace,
}

const IDEMPOTENT: u32 = 1;
const WANT_TIMINGS: u32 = 2;
const HAS_IDEMPOTENCY_KEY: u32 = 4;
const HAS_TRACE: u32 = 8;
const DO_NOT_WAIT: u32 = 16;

/// The bits of the header, held to it by `tests/header.rs`.
pub const FLAGS: [(&str, u32); 5] = [
    ("QF_IDEMPOTENT", IDEMPOTENT),
    ("QF_WANT_TIMINGS", WANT_TIMINGS),
    ("QF_HAS_IDEMPOTENCY_KEY", HAS_IDEMPOTENCY_KEY),
    ("QF_HAS_TRACE", HAS_TRACE),
    ("QF_DO_NOT_WAIT", DO_NOT_WAIT),
];

const FLAGS_KNOWN: u32 = IDEMPOTENT | WANT_TIMINGS | HAS_IDEMPOTENCY_KEY | HAS_TRACE | DO_NOT_WAIT;

/// What a pointer to something of ours points to.
///
/// # Safety
/// `pointer` is NULL, or what this library gave out as a `T`, was not freed, and is not until the result is used no more.
pub unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Ending> {
    // SAFETY: the hazards are NULL, which `as_ref` answers, and a pointer to something else or nothing any more, which the contract
    // above excludes. Nobody has the same thing as `&mut`: all of it is changed behind locks.
    unsafe { pointer.as_ref() }.ok_or_else(|| Ending::invalid(format!("`{name}` is NULL")))
}

/// Bytes of the caller's.
///
/// # Safety
/// `data` is NULL, or `size` bytes there may be read and are not written to, as long as the result is used.
pub unsafe fn bytes<'a>(data: *const c_void, size: usize, name: &str) -> Result<&'a [u8], Ending> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Ending::invalid(format!("`{name}` is NULL, and its size is {size}")));
    }
    if isize::try_from(size).is_err() {
        return Err(Ending::invalid(format!("the size of `{name}` is {size}, more than there is memory")));
    }
    // SAFETY: the hazards are NULL and a size that no slice may have, both checked above, and memory that is not the caller's or is
    // changed meanwhile, which the contract above excludes.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}

/// A text of the caller's; `None` for NULL.
///
/// # Safety
/// `text` is NULL, or ends with a zero, and is not written to as long as the result is used.
pub unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>, Ending> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the contract is the same.
    let bytes = unsafe { text_bytes(text) };
    str::from_utf8(bytes).map(Some).map_err(|_| Ending::invalid(format!("`{name}` is not UTF-8")))
}

/// The bytes of a text of the caller's; none for NULL.
///
/// # Safety
/// As of [`text`].
pub unsafe fn text_bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: the hazard is a text without an end, or one that changes; the contract above excludes both.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// A struct of options that begins with its size; `None` for NULL.
///
/// # Safety
/// `options` is NULL, or points to as many bytes as its first field says, which is a `size_t`.
pub unsafe fn options<T: Copy>(options: *const T, name: &str) -> Result<Option<T>, Ending> {
    if options.is_null() {
        return Ok(None);
    }
    // SAFETY: the hazard is a struct shorter than a size; the contract above excludes it.
    let struct_size = unsafe { options.cast::<usize>().read() };
    if struct_size != size_of::<T>() {
        let message = format!(
            "`struct_size` of {name} is {struct_size} and not {}: initialise it with its macro",
            size_of::<T>()
        );
        return Err(Ending::invalid(message));
    }
    // SAFETY: the hazard is a struct of an earlier or later version, of another size. It has the size of this one.
    Ok(Some(unsafe { options.read() }))
}

/// A length of time, where the header has `QF_FOREVER` for none.
pub fn timeout(ns: u64) -> Option<Duration> {
    (ns != FOREVER).then(|| Duration::from_nanos(ns))
}

impl CallOptions {
    /// What NULL stands for: the macro of the header.
    pub const NONE: CallOptions = CallOptions {
        struct_size: size_of::<CallOptions>(),
        timeout_ns: FOREVER,
        start_after_ns: 0,
        flags: 0,
        criticality: Criticality::Normal as i32,
        idempotency_key: [0; 16],
        trace: Trace { trace_id: [0; 16], parent_span_id: [0; 8], flags: 0 },
    };

    /// Not to wait for room.
    pub fn may_wait(&self) -> bool {
        !self.has(DO_NOT_WAIT)
    }

    /// The call with all of this said.
    pub fn apply<'a>(&self, call: CallBuilder<'a>) -> Result<CallBuilder<'a>, Ending> {
        let criticality =
            u8::try_from(self.criticality).ok().and_then(|number| Criticality::try_from(number).ok());
        let criticality = criticality.ok_or_else(|| {
            Ending::invalid(format!("`criticality` is {}: QF_LOW to QF_CRITICAL", self.criticality))
        })?;
        let mut call = self.apply_flags(call)?.criticality(criticality);
        if let Some(timeout) = timeout(self.timeout_ns) {
            call = call.deadline(timeout);
        }
        if self.has(HAS_TRACE) {
            let Trace { trace_id, parent_span_id, flags } = self.trace;
            call = call.trace(TraceContext { trace_id, parent_span_id, trace_flags: flags });
        }
        Ok(call.start_after(Duration::from_nanos(self.start_after_ns)))
    }

    /// Only what counts in a nested call too.
    pub fn apply_flags<'a>(&self, mut call: CallBuilder<'a>) -> Result<CallBuilder<'a>, Ending> {
        if self.flags & !FLAGS_KNOWN != 0 {
            return Err(Ending::invalid(format!("`flags` is {:#x}, with bits of no meaning", self.flags)));
        }
        if self.has(IDEMPOTENT) {
            call = call.idempotent();
        }
        if self.has(HAS_IDEMPOTENCY_KEY) {
            call = call.idempotency_key(self.idempotency_key);
        }
        if self.has(WANT_TIMINGS) {
            call = call.with_timings();
        }
        Ok(call)
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}
