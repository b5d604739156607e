//! The Rust client: callers, and [`serve`] for function authors.
//!
//! ```no_run
//! use std::time::Duration;
//! use quickfire_client::Client;
//!
//! let client = Client::connect("quickfire://127.0.0.1:7450")?;
//! let echo = client.function("echo")?;
//!
//! // One call, waiting for its answer.
//! let answer = echo.call("hello").deadline(Duration::from_millis(50)).wait()?;
//! assert_eq!(&answer.payload[..], b"hello");
//!
//! // Many calls at once; each is also a future, for any runtime.
//! let calls: Vec<_> = (0..100).map(|_| echo.call("hello").start()).collect::<Result<_, _>>()?;
//! for call in calls {
//!     call.wait()?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A call ends exactly once, as an [`Answer`] or as a [`CallError`] that says whose fault it was
//! ([`CallError::fault`]) and whether trying again is safe ([`CallError::retry`]).
//!
//! The way of a call through this crate:
//!
//! ```text
//! client.rs  Client, Function     what a program holds
//! call.rs    CallBuilder, Call    one call: options, waiting, cancelling
//! link.rs    Link                 the lock between callers and the I/O thread; writes
//! connection.rs  Session          slots, frames, deadlines: pure, no socket, no clock
//! io_thread.rs                    reads, deadlines, reconnecting
//! ring.rs, link/looking.rs, ring_thread.rs    the same three through shared memory
//! dial.rs, stream.rs, url.rs      socket, HELLO, addresses
//! shm.rs                          ShmClient: the same calls through shared memory, for one thread
//! ```
//!
//! Guide: docs/coding/rust-client.md.  Wire protocol: docs/spec/wire.md.

#![forbid(unsafe_code)]

mod backoff;
mod call;
mod cell;
mod client;
mod connection;
mod dial;
mod error;
mod io_thread;
mod link;
mod ring;
mod ring_thread;
pub mod shm;
mod stream;
mod url;
mod waits;

pub use call::{Answer, Call, CallBuilder};
pub use client::{Client, ClientBuilder, Function, HeldWrites};
pub use error::{CallError, ConnectError, Disconnect, Expiry, ResolveError, RouterMisbehaved};
pub use protocol::{Cause, Criticality, DownstreamName, Fault, Retry, Status, Timings, TraceContext};
pub use shm::ShmClient;
pub use url::{RouterUrl, URL_DEFAULT, URL_VARIABLE, UrlError};

pub mod serve;

/// Compiles the guide's examples.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/coding/rust-client.md")]
struct Guide;
