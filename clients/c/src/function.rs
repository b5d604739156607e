//! `qf_serve`, and what a handler may do.
//!
//! In: calls from the ring.  Out: for each what the handler wrote.
//! Owns: nothing of a call: the handler is lent the Rust library's own call and reply, for as long as it runs.
//! Always: a handler is called as a function that may unwind, so that a C++ exception that leaves it has a defined end: Rust's catch at
//! the foot of every call ends the process.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::TraceContext;
use quickfire_client::serve::{Call, FunctionError, Reply as RustReply, Stop, serve_until};

use crate::argument::{CallOptions, bytes, text_bytes, timeout};
use crate::caller::{Function, taken};
use crate::outcome::{Bytes, Ending, FOREVER, Kind, Outcome, Trace, ending, qf_outcome_free};

/// `qf_handler`.
pub type Handler = Option<unsafe extern "C-unwind" fn(*mut c_void, *const Invocation, *mut Reply) -> i32>;

/// `qf_invocation`: stands for a [`Call`], whose lifetime C cannot say.
pub struct Invocation {
    _never_made: [u8; 0],
}

/// `qf_reply`: stands for an [`Answer`].
pub struct Reply {
    _never_made: [u8; 0],
}

/// What a handler writes.
struct Answer<'a> {
    reply: &'a mut RustReply,
    /// What `qf_push_back` said.
    pushed_back: Option<(String, u8)>,
}

/// For `qf_stop_serving`, which has no argument: a process serves once.
static STOP: LazyLock<Stop> = LazyLock::new(Stop::new);
static IS_SERVING: AtomicBool = AtomicBool::new(false);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_serve(handler: Handler, context: *mut c_void) -> *mut Outcome {
    ending(|| {
        let Some(handler) = handler else { return Err(Ending::invalid("`handler` is NULL".into())) };
        if IS_SERVING.swap(true, Ordering::AcqRel) {
            return Err(Ending::invalid("this process serves already, on another thread".into()));
        }
        let served = serve_until(&STOP, |call, reply| run(handler, context, call, reply));
        IS_SERVING.store(false, Ordering::Release);
        Ok(served?)
    })
}

/// Runs the handler for one call.
fn run(
    handler: unsafe extern "C-unwind" fn(*mut c_void, *const Invocation, *mut Reply) -> i32,
    context: *mut c_void,
    call: &Call<'_>,
    reply: &mut RustReply,
) -> Result<(), FunctionError> {
    let mut answer = Answer { reply, pushed_back: None };
    // SAFETY: the hazards are pointers that the handler keeps, and a function that is none. The header has the handler use both pointers
    // only until it returns, for which time `call` and `answer` are borrowed here and used by nobody else; and a function of this type is
    // what the header asks for. What unwinds out of it is let through to the catch around every handler.
    let code =
        unsafe { handler(context, std::ptr::from_ref(call).cast(), std::ptr::from_mut(&mut answer).cast()) };
    match (code, answer.pushed_back) {
        (0, _) => Ok(()),
        (code, Some((downstream, severity))) if code == Kind::Backpressure as i32 => {
            Err(FunctionError::backpressure(&downstream, severity))
        }
        _ => Err(FunctionError::new(answer.reply.bytes())),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_serve_main(handler: Handler, context: *mut c_void) -> c_int {
    // SAFETY: the contract is the same.
    let outcome = unsafe { qf_serve(handler, context) };
    if outcome.is_null() {
        return 0;
    }
    // SAFETY: it is not NULL, so it is an outcome of ours that nobody has freed, whose message is a text that lives as long.
    let message = unsafe { CStr::from_ptr((*outcome).message) };
    eprintln!("{}", message.to_string_lossy());
    // SAFETY: as above, and it is used no more.
    unsafe { qf_outcome_free(outcome) };
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn qf_stop_serving() {
    STOP.stop();
}

/// What a handler asks of its call; what `otherwise` says if it has none.
///
/// # Safety
/// `invocation` is NULL, or what the handler that runs was given.
unsafe fn ask<R>(invocation: *const Invocation, otherwise: R, question: impl FnOnce(&Call<'_>) -> R) -> R {
    // SAFETY: the hazards are NULL, which is asked about, and a call that has ended, which the contract above excludes: `run` lends a
    // `Call` under this pointer for as long as its handler runs.
    match unsafe { invocation.cast::<Call<'_>>().as_ref() } {
        Some(call) => question(call),
        None => otherwise,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_payload(invocation: *const Invocation) -> Bytes {
    let bytes = |call: &Call<'_>| Bytes { data: call.payload().as_ptr(), size: call.payload().len() };
    // SAFETY: the header asks for it: see `ask`.
    unsafe { ask(invocation, Bytes { data: std::ptr::null(), size: 0 }, bytes) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_time_left_ns(invocation: *const Invocation) -> u64 {
    let left = |call: &Call<'_>| {
        call.time_left().map_or(FOREVER, |left| u64::try_from(left.as_nanos()).unwrap_or(FOREVER))
    };
    // SAFETY: the header asks for it: see `ask`.
    unsafe { ask(invocation, 0, left) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_is_cancelled(invocation: *const Invocation) -> c_int {
    // SAFETY: the header asks for it: see `ask`.
    unsafe { ask(invocation, false, |call| call.is_cancelled()) }.into()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_criticality(invocation: *const Invocation) -> i32 {
    // SAFETY: the header asks for it: see `ask`.
    unsafe { ask(invocation, 0, |call| call.criticality() as i32) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_trace(invocation: *const Invocation, trace: *mut Trace) -> c_int {
    // SAFETY: the header asks for it: see `ask`.
    let found = unsafe { ask(invocation, None, |call| call.trace()) };
    let Some(found) = found.filter(|_| !trace.is_null()) else { return 0 };
    let TraceContext { trace_id, parent_span_id, trace_flags: flags } = found;
    // SAFETY: the hazard is memory that is not the caller's; it is not NULL, and the header says that it may be written to.
    unsafe { trace.write(Trace { trace_id, parent_span_id, flags }) };
    1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_idempotency_key(invocation: *const Invocation, key: *mut u8) -> c_int {
    // SAFETY: the header asks for it: see `ask`.
    let found = unsafe { ask(invocation, None, |call| call.idempotency_key()) };
    let Some(found) = found.filter(|_| !key.is_null()) else { return 0 };
    // SAFETY: the hazard is less memory than 16 bytes; it is not NULL, and the header says that there are 16. Bytes need no alignment.
    unsafe { key.cast::<[u8; 16]>().write(found) };
    1
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_id(invocation: *const Invocation) -> u64 {
    // SAFETY: the header asks for it: see `ask`.
    unsafe { ask(invocation, 0, |call| call.invocation_id()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_invocation_result_size_max(invocation: *const Invocation) -> usize {
    // SAFETY: the header asks for it: see `ask`.
    unsafe { ask(invocation, 0, |call| call.result_size_max()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_nested(
    invocation: *const Invocation,
    reserve_ns: u64,
    function: *const Function,
    payload: *const c_void,
    size: usize,
    options: *const CallOptions,
) -> *mut Outcome {
    ending(|| {
        // SAFETY: as the header says: from `qf_find` and not freed, `size` bytes, and a struct that begins with its size; or NULL. All of
        // it is used only until this function returns.
        let (function, payload, said) = unsafe { taken(function, payload, size, options)? };
        let invocation_is_null = || Ending::invalid("`invocation` is NULL".into());
        // SAFETY: the hazard is a call that has ended; the header has the handler that runs call this. See `ask`.
        let call = unsafe { invocation.cast::<Call<'_>>().as_ref() }.ok_or_else(invocation_is_null)?;
        let nested = match timeout(reserve_ns) {
            Some(reserve) => call.nested_keeping(reserve, function.handle(), payload),
            None => call.nested(function.handle(), payload),
        };
        Err(said.apply_flags(nested)?.wait().into())
    })
}

/// The handler's answer.
///
/// # Safety
/// `reply` is NULL, or what the handler that runs was given; and the result is not used when this is called again.
unsafe fn answer_of<'a>(reply: *mut Reply) -> Option<&'a mut Answer<'a>> {
    // SAFETY: the hazards are NULL, which is asked about; an answer that is no more, and two references to it at a time, which the
    // contract above excludes: `run` has none while the handler runs, and the handler is one thread.
    unsafe { reply.cast::<Answer<'a>>().as_mut() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_reply_write(reply: *mut Reply, data: *const c_void, size: usize) {
    // SAFETY: the header asks for both: see `answer_of` and `bytes`. Neither is used after this function.
    if let (Some(answer), Ok(data)) = unsafe { (answer_of(reply), bytes(data, size, "data")) } {
        answer.reply.write(data);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_reply_space(reply: *mut Reply, size: usize) -> *mut u8 {
    // SAFETY: the header asks for it: see `answer_of`. What is returned is a pointer, and no reference.
    let Some(answer) = (unsafe { answer_of(reply) }) else { return std::ptr::null_mut() };
    let bytes = answer.reply.bytes_mut();
    let begin = bytes.len();
    if bytes.try_reserve(size).is_err() {
        return std::ptr::null_mut();
    }
    bytes.resize(begin + size, 0);
    bytes[begin..].as_mut_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_reply_truncate(reply: *mut Reply, size: usize) {
    // SAFETY: the header asks for it: see `answer_of`.
    if let Some(answer) = unsafe { answer_of(reply) } {
        answer.reply.bytes_mut().truncate(size);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_fail(reply: *mut Reply, text: *const c_char) -> i32 {
    // SAFETY: the header asks for both: see `answer_of` and `text_bytes`.
    if let (Some(answer), text) = unsafe { (answer_of(reply), text_bytes(text)) } {
        let bytes = answer.reply.bytes_mut();
        bytes.clear();
        bytes.extend_from_slice(text);
    }
    Kind::FunctionError as i32
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_push_back(reply: *mut Reply, downstream: *const c_char, severity: u32) -> i32 {
    // SAFETY: the header asks for both: see `answer_of` and `text_bytes`.
    if let (Some(answer), name) = unsafe { (answer_of(reply), text_bytes(downstream)) } {
        let severity = u8::try_from(severity.max(1)).unwrap_or(u8::MAX);
        answer.pushed_back = Some((String::from_utf8_lossy(name).into_owned(), severity));
    }
    Kind::Backpressure as i32
}
