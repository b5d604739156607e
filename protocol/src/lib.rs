//! Stage 1 of 8: wire. The meaning of every byte that callers, the router, workers and the shim exchange.
//!
//! In: bytes.  Out: frames and records, or a value that names who is at fault.
//! Owns: nothing; a decoded [`Frame`] borrows the bytes it was read from.
//! Always: `docs/spec/wire.md` is normative and this crate is one implementation of it. Comments cite its rules
//! as `W-n`; a test holds the document's tables to the enums here, and golden vectors (`protocol/vectors`) hold
//! both to bytes.
//! Never: does I/O, reads a clock, allocates while decoding, or panics on bytes from a peer.
//! Why plain integers in the header instead of archived enums: an unknown number has to be readable before it can
//! be refused politely or ignored, and a C or Python programmer needs nothing but the byte table.
//!
//! ```text
//! | header, 32 bytes | extensions, n x 16 bytes | payload | zero padding to a multiple of 16 |
//! ```
//!
//! Reading order: [`header`] (the byte table), [`frame`] (decode), [`mod@encode`], [`extensions`], [`hello`],
//! [`status`], [`limits`]; [`attach`] is the other, local protocol between router, workers and shim,
//! [`template`] the one by which the shim has initialised processes copied, and [`log_mark`] what functions put before what they print.

#![forbid(unsafe_code)]

pub mod admin;
pub mod attach;
pub mod downstream;
pub mod encode;
pub mod extensions;
pub mod flags;
pub mod frame;
pub mod header;
pub mod hello;
pub mod ids;
pub mod limits;
pub mod log_mark;
pub mod misbehaviour;
pub mod name;
pub mod recording;
pub mod status;
pub mod template;
pub mod wait_token;

pub use downstream::{DOWNSTREAM_NAME_SIZE_MAX, DownstreamName};
pub use encode::{FrameParts, encode, encode_front, encode_padding};
pub use extensions::{CalledBy, Cause, Extensions, StartAfter, Timings, TraceContext};
pub use flags::Flags;
pub use frame::{Frame, decode, decode_header};
pub use header::{ArchivedFrameHeader, FRAME_ALIGN, FrameHeader, HEADER_SIZE, Kind, encode_header};
pub use hello::{Hello, Offer};
pub use ids::{CallId, Criticality, FunctionId};
pub use misbehaviour::ClientMisbehaved;
pub use name::{FunctionName, NameInvalid};
pub use status::{Class, Fault, Retry, Status};
pub use wait_token::WaitToken;

/// The one version of the wire protocol this crate speaks.
pub const VERSION: u16 = 1;

// Both ends of every connection copy integers as they lie in memory, and the shared-memory ring (crate
// `shm-ring`) does the same: a big-endian build would be silently wrong, so it is refused here.
const _: () = assert!(cfg!(target_endian = "little"), "Quickfire supports little-endian machines only");
