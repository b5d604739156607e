//! Stage 8 of 8: reply, its last step, and a client's first: writes frames at the end of a byte vector.
//!
//! In: the parts of a frame.  Out: bytes appended; what is already in the vector stays as it is.
//! Always: sizes and the flags of the extensions are computed here, never given (W-5, W-21); padding is zero (W-4).
//! Never: allocates if the vector has room; produces a frame that [`decode`](crate::decode) would refuse.
//! Why a payload can also be appended by the caller ([`encode_front`], [`encode_padding`]): a result that lies in
//! shared memory is then copied once, from the worker's ring to the connection's output.

use crate::extensions::Extensions;
use crate::flags::Flags;
use crate::header::{FRAME_ALIGN, FrameHeader, HEADER_SIZE, Kind, encode_header};
use crate::ids::{CallId, Criticality, FunctionId};
use crate::status::Status;

/// What a frame says, apart from its sizes, extensions and payload. Build with one of the constructors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameParts {
    /// What the frame is for.
    pub kind: Kind,
    /// The call it is about.
    pub call_id: CallId,
    /// INVOKE, RESOLVED.
    pub function_id: FunctionId,
    /// INVOKE: time left. REPLY: when to try again. PING, PONG: opaque.
    pub budget_us: u32,
    /// INVOKE: a [`Criticality`]. A number, because the other kinds carry zero.
    pub criticality: u8,
    /// Flags without an extension; those with one are set by the extensions.
    pub flags: Flags,
    /// REPLY, RESOLVED, GOAWAY.
    pub status: Status,
}

impl FrameParts {
    const fn of(kind: Kind) -> FrameParts {
        FrameParts {
            kind,
            call_id: CallId::NONE,
            function_id: FunctionId(0),
            budget_us: 0,
            criticality: 0,
            flags: Flags::NONE,
            status: Status::Ok,
        }
    }

    /// HELLO; the payload is [`Hello::encode`](crate::Hello::encode).
    pub const fn hello() -> FrameParts {
        FrameParts::of(Kind::Hello)
    }

    /// RESOLVE; the payload is the function's name.
    pub const fn resolve(call_id: CallId) -> FrameParts {
        FrameParts { call_id, ..FrameParts::of(Kind::Resolve) }
    }

    /// RESOLVED.
    pub const fn resolved(call_id: CallId, function_id: FunctionId, status: Status) -> FrameParts {
        FrameParts { call_id, function_id, status, ..FrameParts::of(Kind::Resolved) }
    }

    /// INVOKE of normal criticality without a deadline; set the other fields as needed.
    pub const fn invoke(call_id: CallId, function_id: FunctionId) -> FrameParts {
        FrameParts {
            call_id,
            function_id,
            criticality: Criticality::Normal as u8,
            ..FrameParts::of(Kind::Invoke)
        }
    }

    /// REPLY without retry advice; the payload is the function's result.
    pub const fn reply(call_id: CallId, status: Status) -> FrameParts {
        FrameParts { call_id, status, ..FrameParts::of(Kind::Reply) }
    }

    /// CANCEL.
    pub const fn cancel(call_id: CallId) -> FrameParts {
        FrameParts { call_id, ..FrameParts::of(Kind::Cancel) }
    }

    /// PING.
    pub const fn ping(opaque: u32) -> FrameParts {
        FrameParts { budget_us: opaque, ..FrameParts::of(Kind::Ping) }
    }

    /// PONG.
    pub const fn pong(opaque: u32) -> FrameParts {
        FrameParts { budget_us: opaque, ..FrameParts::of(Kind::Pong) }
    }

    /// GOAWAY; the payload is the reason, at most [`limits::REASON_SIZE_MAX`](crate::limits::REASON_SIZE_MAX) bytes.
    pub const fn goaway(status: Status) -> FrameParts {
        FrameParts { status, ..FrameParts::of(Kind::Goaway) }
    }
}

/// Appends a whole frame: header, extensions, payload, zero padding. Returns the bytes appended.
///
/// # Panics
/// If the frame would be larger than 4 GiB. Whether it is within the negotiated limit is the caller's to check,
/// with [`limits::payload_size_max`](crate::limits::payload_size_max).
#[inline]
pub fn encode(out: &mut Vec<u8>, parts: &FrameParts, extensions: &Extensions, payload: &[u8]) -> usize {
    let frame_size = encode_front(out, parts, extensions, payload.len());
    out.extend_from_slice(payload);
    encode_padding(out, payload.len());
    frame_size
}

/// Appends header and extensions of a frame whose payload the caller appends itself: exactly `payload_size` bytes,
/// followed by [`encode_padding`]. Reserves room for all of it. Returns the size of the whole frame.
///
/// # Panics
/// As [`encode`].
#[inline]
pub fn encode_front(
    out: &mut Vec<u8>,
    parts: &FrameParts,
    extensions: &Extensions,
    payload_size: usize,
) -> usize {
    let extension_flags = extensions.flags();
    let extension_size = extension_flags.known_extension_size();
    let frame_size = HEADER_SIZE + extension_size + payload_size.next_multiple_of(FRAME_ALIGN);
    let header = FrameHeader {
        frame_size: u32::try_from(frame_size).expect("a frame is smaller than 4 GiB"),
        payload_size: payload_size as u32,
        call_id: parts.call_id,
        function_id: parts.function_id,
        budget_us: parts.budget_us,
        kind: parts.kind as u8,
        criticality: parts.criticality,
        flags: parts.flags.without(Flags::WITH_EXTENSION).with(extension_flags),
        status: parts.status as u16,
        extension_size: extension_size as u16,
    };
    out.reserve(frame_size + FRAME_ALIGN);
    out.extend_from_slice(&encode_header(&header));
    if extension_size > 0 {
        extensions.append_to(out);
    }
    frame_size
}

/// Appends the zero bytes behind a payload of `payload_size`.
#[inline]
pub fn encode_padding(out: &mut Vec<u8>, payload_size: usize) {
    const ZEROS: [u8; FRAME_ALIGN] = [0; FRAME_ALIGN];
    let padding_size = payload_size.next_multiple_of(FRAME_ALIGN) - payload_size;
    if padding_size > 0 {
        // A whole block and back again: a copy of fixed size is one store, of variable size a call.
        let end = out.len() + padding_size;
        out.extend_from_slice(&ZEROS);
        out.truncate(end);
    }
}
