//! Stage 1 of 8: wire, the reading half. Finds the frame at the front of received bytes, or the fault in them.
//!
//! In: bytes as they arrived, cut anywhere.  Out: a [`Frame`] borrowing them, "more bytes needed", or
//! [`ClientMisbehaved`].
//! Always: a fault that the 32 header bytes show is reported as soon as they are there, so that a huge frame is
//! refused before its body is read (W-7). Sizes are checked against each other before any is used.
//! Never: allocates, panics, or reads behind the frame.
//! Why the header is copied first: received bytes start anywhere, the archived type wants alignment 8, and the copy
//! of 32 bytes is two vector moves.
//! Tests: `frame/tests.rs`, the golden vectors, fuzz target `frame_decode`.

use crate::extensions::{CalledBy, Extensions, StartAfter, Timings, TraceContext};
use crate::flags::Flags;
use crate::header::{ArchivedFrameHeader, FRAME_ALIGN, FrameHeader, HEADER_SIZE, Kind};
use crate::misbehaviour::ClientMisbehaved;
use rkyv::api::low;
use rkyv::rancor::Failure;
use rkyv::util::Align;

/// One whole frame, still lying in the bytes it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The header, sizes checked.
    pub header: FrameHeader,
    /// `header.kind`, known to be defined.
    pub kind: Kind,
    /// The bytes between header and payload.
    pub extensions: &'a [u8],
    /// The payload without padding.
    pub payload: &'a [u8],
}

/// Looks at the front of `bytes`. `Ok(None)` means that the frame is not complete yet.
///
/// Always inlined: a result of this size handed from function to function is copied through memory three times, in pieces
/// that the processor has to wait for.
#[inline(always)]
pub fn decode(bytes: &[u8], frame_size_max: u32) -> Result<Option<Frame<'_>>, ClientMisbehaved> {
    let Some((header_bytes, body)) = bytes.split_first_chunk::<HEADER_SIZE>() else {
        return Ok(None);
    };
    let header = decode_header(header_bytes, frame_size_max)?;
    let kind = Kind::try_from(header.kind).map_err(|unknown| ClientMisbehaved::UnknownKind(unknown.0))?;
    // `decode_header` proved frame_size >= HEADER_SIZE, and that the parts add up to it.
    let Some(body) = body.get(..header.frame_size as usize - HEADER_SIZE) else {
        return Ok(None);
    };
    let (extensions, padded) = body.split_at(usize::from(header.extension_size));
    let payload = &padded[..header.payload_size as usize];
    Ok(Some(Frame { header, kind, extensions, payload }))
}

/// Reads and checks a header alone, for refusal before the body is read.
///
/// The order of the checks is part of the specification (W-8), so that every implementation names the same fault.
#[inline]
pub fn decode_header(
    bytes: &[u8; HEADER_SIZE],
    frame_size_max: u32,
) -> Result<FrameHeader, ClientMisbehaved> {
    let aligned = Align(*bytes);
    let archived = low::access::<ArchivedFrameHeader, Failure>(aligned.as_slice())
        .map_err(|_| ClientMisbehaved::HeaderInvalid)?;
    let header = FrameHeader::from(archived);
    check_sizes(&header, frame_size_max)?;
    Kind::try_from(header.kind).map_err(|unknown| ClientMisbehaved::UnknownKind(unknown.0))?;
    match header.flags.unknown_critical() {
        0 => Ok(header),
        unknown => Err(ClientMisbehaved::UnknownCriticalFlag(unknown)),
    }
}

#[inline]
fn check_sizes(header: &FrameHeader, frame_size_max: u32) -> Result<(), ClientMisbehaved> {
    let FrameHeader { frame_size, payload_size, extension_size, .. } = *header;
    if frame_size > frame_size_max {
        return Err(ClientMisbehaved::FrameTooLarge { size: frame_size, size_max: frame_size_max });
    }
    if (frame_size as usize) < HEADER_SIZE {
        return Err(ClientMisbehaved::FrameTooSmall { size: frame_size });
    }
    if !frame_size.is_multiple_of(FRAME_ALIGN as u32) {
        return Err(ClientMisbehaved::FrameSizeUnaligned { size: frame_size });
    }
    if !extension_size.is_multiple_of(FRAME_ALIGN as u16) {
        return Err(ClientMisbehaved::ExtensionSizeUnaligned { size: extension_size });
    }
    // In 64 bits, because payload_size may be anything up to u32::MAX.
    let needed = HEADER_SIZE as u64
        + u64::from(extension_size)
        + u64::from(payload_size).next_multiple_of(FRAME_ALIGN as u64);
    if needed != u64::from(frame_size) {
        return Err(ClientMisbehaved::SizesDisagree { frame_size, extension_size, payload_size });
    }
    let size_needed = header.flags.known_extension_size();
    if size_needed > usize::from(extension_size) {
        return Err(ClientMisbehaved::ExtensionsMissing {
            size: extension_size,
            size_needed: size_needed as u16,
        });
    }
    Ok(())
}

impl<'a> Frame<'a> {
    /// Bytes of the whole frame: where the next one starts.
    #[inline]
    pub fn size(&self) -> usize {
        self.header.frame_size as usize
    }

    /// The idempotency key, if the frame has one.
    #[inline]
    pub fn idempotency_key(&self) -> Option<[u8; 16]> {
        self.extension(Flags::IDEMPOTENCY_KEY).copied()
    }

    /// The trace context, if the frame has one.
    #[inline]
    pub fn trace(&self) -> Option<TraceContext> {
        self.extension(Flags::TRACE).map(TraceContext::decode)
    }

    /// The trace context as it came, if the frame has one: for who only hands it on.
    #[inline]
    pub fn trace_bytes(&self) -> Option<[u8; 32]> {
        self.extension(Flags::TRACE).copied()
    }

    /// The stage timings, if the frame has them.
    #[inline]
    pub fn timings(&self) -> Option<Timings> {
        self.extension(Flags::TIMINGS).map(Timings::decode)
    }

    /// By whom the call is made, if the frame says so.
    #[inline]
    pub fn called_by(&self) -> Option<CalledBy> {
        self.extension(Flags::CALLED_BY).map(CalledBy::decode)
    }

    /// When the call may start, if the frame says so.
    #[inline]
    pub fn start_after(&self) -> Option<StartAfter> {
        self.extension(Flags::START_AFTER).map(StartAfter::decode)
    }

    /// All extensions this version knows.
    pub fn known_extensions(&self) -> Extensions {
        Extensions {
            idempotency_key: self.idempotency_key(),
            trace: self.trace(),
            timings: self.timings(),
            called_by: self.called_by(),
            start_after: self.start_after(),
        }
    }

    #[inline]
    fn extension<const SIZE: usize>(&self, flag: Flags) -> Option<&'a [u8; SIZE]> {
        if !self.header.flags.contains(flag) {
            return None;
        }
        self.extensions.get(Extensions::offset_of(flag, self.header.flags)..)?.first_chunk()
    }
}

#[cfg(test)]
mod tests;
