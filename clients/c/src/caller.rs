//! Connections, functions, and calls that are waited for.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use quickfire_client::{Client as RustClient, Function as RustFunction, RouterUrl, UrlError};

use crate::argument::{CallOptions, ConnectOptions, borrow, bytes, options, text};
use crate::outcome::{Ending, Outcome, ending, giving};

/// `qf_client`.
pub struct Client(RustClient);

/// `qf_function`.
pub struct Function(RustFunction);

impl Function {
    /// The handle itself.
    pub fn handle(&self) -> &RustFunction {
        &self.0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_connect(
    url: *const c_char,
    options_: *const ConnectOptions,
    error: *mut *mut Outcome,
) -> *mut Client {
    let connect = || {
        // SAFETY: both as the header says: a text that ends with a zero, and a struct that begins with its size; or NULL.
        let (url, said) = unsafe { (text(url, "url")?, options(options_, "qf_connect_options")?) };
        let url = url.map_or_else(RouterUrl::from_env, str::parse);
        let url = url.map_err(|error: UrlError| Ending::invalid(error.to_string()))?;
        let mut builder = RustClient::builder();
        if let Some(ConnectOptions { connect_timeout_ns, credits, frame_size_max, .. }) = said {
            builder = builder.credits(credits).frame_size_max(frame_size_max);
            if connect_timeout_ns != 0 {
                builder = builder.connect_timeout(Duration::from_nanos(connect_timeout_ns));
            }
        }
        Ok(Client(builder.connect_to(url)?))
    };
    // SAFETY: the header says of `error` that it is NULL or may be written to.
    unsafe { giving(error, connect) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_client_free(client: *mut Client) {
    // SAFETY: see `free`; the header says that this came from `qf_connect`.
    unsafe { free(client) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_find(
    client: *const Client,
    name: *const c_char,
    error: *mut *mut Outcome,
) -> *mut Function {
    let find = || {
        // SAFETY: as the header says: from `qf_connect` and not freed, and a text that ends with a zero; or NULL.
        let (client, name) = unsafe { (borrow(client, "client")?, text(name, "name")?) };
        let name = name.ok_or_else(|| Ending::invalid("`name` is NULL".into()))?;
        Ok(Function(client.0.function(name)?))
    };
    // SAFETY: the header says of `error` that it is NULL or may be written to.
    unsafe { giving(error, find) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_function_free(function: *mut Function) {
    // SAFETY: see `free`; the header says that this came from `qf_find`.
    unsafe { free(function) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn qf_call(
    function: *const Function,
    payload: *const c_void,
    size: usize,
    options_: *const CallOptions,
) -> *mut Outcome {
    ending(|| {
        // SAFETY: as the header says: from `qf_find` and not freed, `size` bytes, and a struct that begins with its size; or NULL. All of
        // it is used only until this function returns.
        let (function, payload, said) = unsafe { taken(function, payload, size, options_)? };
        let call = said.apply(function.0.call(payload))?;
        Err(call.wait().into())
    })
}

/// What calls of every kind have in common: whom, what, and how.
///
/// # Safety
/// As of [`borrow`], [`bytes`] and [`options`].
pub unsafe fn taken<'a>(
    function: *const Function,
    payload: *const c_void,
    size: usize,
    options_: *const CallOptions,
) -> Result<(&'a Function, &'a [u8], CallOptions), Ending> {
    // SAFETY: the contract above is that of all three.
    unsafe {
        let function = borrow(function, "function")?;
        let payload = bytes(payload, size, "payload")?;
        Ok((function, payload, options(options_, "qf_call_options")?.unwrap_or(CallOptions::NONE)))
    }
}

/// Drops what C gives back.
///
/// # Safety
/// `pointer` is NULL, or came from a `Box<T>` of this library that nobody has got back, and nobody uses it any more.
pub unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: the hazards are another pointer, freeing twice, and use after; the contract above excludes them.
        drop(unsafe { Box::from_raw(pointer) });
    }
}
