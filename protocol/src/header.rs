//! The 32 bytes at the front of every frame: the layout, its rkyv twin, and the proof that both are the same.
//!
//! ```text
//!  0          4             8                    16             20           24
//!  | frame_size | payload_size | call_id          | function_id  | budget_us  |
//!  24     25            26      28       30               32
//!  | kind | criticality | flags | status | extension_size |
//! ```
//!
//! Always: little endian, no implicit padding, every field aligned to its size (W-1, W-2).
//! Why both an archived type and a byte table: rkyv's validated access reads the header in about the time of the
//! copy, and the table keeps other languages free of rkyv. The assertions below fail the build when the two part.

use crate::flags::Flags;
use crate::ids::{CallId, FunctionId};
use core::mem::{align_of, offset_of, size_of};
use rkyv::{Archive, Deserialize, Serialize};

/// Size of the header, which is also the smallest frame.
pub const HEADER_SIZE: usize = 32;

/// Frames, extensions and padded payloads are multiples of this.
pub const FRAME_ALIGN: usize = 16;

/// A header in native integers. Which fields mean something depends on the kind; the others are zero (W-6).
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameHeader {
    /// The whole frame in bytes: header, extensions, payload and padding.
    pub frame_size: u32,
    /// The payload in bytes, without padding.
    pub payload_size: u32,
    /// The call this frame is about, or [`CallId::NONE`].
    pub call_id: CallId,
    /// INVOKE, RESOLVED: the function.
    pub function_id: FunctionId,
    /// INVOKE: the time left, in microseconds; 0 = none given. REPLY: when to try again; 0 = no advice.
    /// PING and PONG: the sender's, echoed.
    pub budget_us: u32,
    /// A [`Kind`], as a number because it may be unknown.
    pub kind: u8,
    /// INVOKE: a [`Criticality`](crate::Criticality), as a number because it may be unknown.
    pub criticality: u8,
    /// What else is true of this frame.
    pub flags: Flags,
    /// REPLY, RESOLVED, GOAWAY: a [`Status`](crate::Status), as a number because it may be unknown.
    pub status: u16,
    /// Bytes of extensions between header and payload.
    pub extension_size: u16,
}

const _: () = assert!(size_of::<ArchivedFrameHeader>() == HEADER_SIZE);
const _: () = assert!(align_of::<ArchivedFrameHeader>() == 8);
const _: () = assert!(offset_of!(ArchivedFrameHeader, frame_size) == 0);
const _: () = assert!(offset_of!(ArchivedFrameHeader, payload_size) == 4);
const _: () = assert!(offset_of!(ArchivedFrameHeader, call_id) == 8);
const _: () = assert!(offset_of!(ArchivedFrameHeader, function_id) == 16);
const _: () = assert!(offset_of!(ArchivedFrameHeader, budget_us) == 20);
const _: () = assert!(offset_of!(ArchivedFrameHeader, kind) == 24);
const _: () = assert!(offset_of!(ArchivedFrameHeader, criticality) == 25);
const _: () = assert!(offset_of!(ArchivedFrameHeader, flags) == 26);
const _: () = assert!(offset_of!(ArchivedFrameHeader, status) == 28);
const _: () = assert!(offset_of!(ArchivedFrameHeader, extension_size) == 30);
const _: () = assert!(HEADER_SIZE.is_multiple_of(FRAME_ALIGN));

impl From<&ArchivedFrameHeader> for FrameHeader {
    #[inline]
    fn from(archived: &ArchivedFrameHeader) -> FrameHeader {
        FrameHeader {
            frame_size: archived.frame_size.to_native(),
            payload_size: archived.payload_size.to_native(),
            call_id: CallId(archived.call_id.0.to_native()),
            function_id: FunctionId(archived.function_id.0.to_native()),
            budget_us: archived.budget_us.to_native(),
            kind: archived.kind,
            criticality: archived.criticality,
            flags: Flags(archived.flags.0.to_native()),
            status: archived.status.to_native(),
            extension_size: archived.extension_size.to_native(),
        }
    }
}

/// The header's bytes, exactly as given: sizes are neither computed nor checked here.
///
/// Written field by field from the byte table. A test compares it with rkyv's own serialization; the compiler
/// turns it into four stores, which the general serializer does not become.
#[inline]
pub fn encode_header(header: &FrameHeader) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[0..4].copy_from_slice(&header.frame_size.to_le_bytes());
    bytes[4..8].copy_from_slice(&header.payload_size.to_le_bytes());
    bytes[8..16].copy_from_slice(&header.call_id.0.to_le_bytes());
    bytes[16..20].copy_from_slice(&header.function_id.0.to_le_bytes());
    bytes[20..24].copy_from_slice(&header.budget_us.to_le_bytes());
    bytes[24] = header.kind;
    bytes[25] = header.criticality;
    bytes[26..28].copy_from_slice(&header.flags.0.to_le_bytes());
    bytes[28..30].copy_from_slice(&header.status.to_le_bytes());
    bytes[30..32].copy_from_slice(&header.extension_size.to_le_bytes());
    bytes
}

/// What a frame is for. Retired numbers are never used again (W-93).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Both ways, first: versions, limits, credits.
    Hello = 1,
    /// To the router: which number has the function of this name?
    Resolve = 2,
    /// From the router: this one, or a status.
    Resolved = 3,
    /// To the router: run this.
    Invoke = 4,
    /// From the router: how it ended. Exactly one per INVOKE.
    Reply = 5,
    /// To the router: the answer is no longer wanted.
    Cancel = 6,
    /// To the router: are you there?
    Ping = 7,
    /// From the router: yes.
    Pong = 8,
    /// From the router: this connection ends, and why.
    Goaway = 9,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Kind; 9] = [
        Kind::Hello,
        Kind::Resolve,
        Kind::Resolved,
        Kind::Invoke,
        Kind::Reply,
        Kind::Cancel,
        Kind::Ping,
        Kind::Pong,
        Kind::Goaway,
    ];

    /// The name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Hello => "HELLO",
            Kind::Resolve => "RESOLVE",
            Kind::Resolved => "RESOLVED",
            Kind::Invoke => "INVOKE",
            Kind::Reply => "REPLY",
            Kind::Cancel => "CANCEL",
            Kind::Ping => "PING",
            Kind::Pong => "PONG",
            Kind::Goaway => "GOAWAY",
        }
    }

    /// A client may send it. The router closes a connection that sends another kind (W-14).
    pub const fn is_sent_by_client(self) -> bool {
        matches!(self, Kind::Hello | Kind::Resolve | Kind::Invoke | Kind::Cancel | Kind::Ping)
    }

    /// A router may send it.
    pub const fn is_sent_by_router(self) -> bool {
        matches!(self, Kind::Hello | Kind::Resolved | Kind::Reply | Kind::Pong | Kind::Goaway)
    }
}

/// A kind number nobody has defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("kind {0} is not defined")]
pub struct UnknownKind(pub u8);

impl TryFrom<u8> for Kind {
    type Error = UnknownKind;

    #[inline]
    fn try_from(number: u8) -> Result<Kind, UnknownKind> {
        match number {
            1 => Ok(Kind::Hello),
            2 => Ok(Kind::Resolve),
            3 => Ok(Kind::Resolved),
            4 => Ok(Kind::Invoke),
            5 => Ok(Kind::Reply),
            6 => Ok(Kind::Cancel),
            7 => Ok(Kind::Ping),
            8 => Ok(Kind::Pong),
            9 => Ok(Kind::Goaway),
            unknown => Err(UnknownKind(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rkyv::api::low;
    use rkyv::rancor::Failure;
    use rkyv::ser::allocator::SubAllocator;
    use rkyv::ser::writer::Buffer;
    use rkyv::util::Align;

    #[test]
    fn kind_numbers_count_from_one_without_gaps_and_all_others_are_unknown() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index + 1);
            assert_eq!(Kind::try_from(kind as u8), Ok(kind));
        }
        for number in (0..=u8::MAX).filter(|number| !(1..=9).contains(number)) {
            assert_eq!(Kind::try_from(number), Err(UnknownKind(number)));
        }
    }

    #[test]
    fn the_hand_written_bytes_are_those_of_rkyv() {
        let header = FrameHeader {
            frame_size: 0x0403_0201,
            payload_size: 0x0807_0605,
            call_id: CallId(0x100F_0E0D_0C0B_0A09),
            function_id: FunctionId(0x1413_1211),
            budget_us: 0x1817_1615,
            kind: 0x19,
            criticality: 0x1A,
            flags: Flags(0x1C1B),
            status: 0x1E1D,
            extension_size: 0x201F,
        };
        let bytes = encode_header(&header);
        let counting: Vec<u8> = (1..=32).collect();
        assert_eq!(bytes[..], counting[..]);
        let mut space = Align([0; HEADER_SIZE]);
        let written = low::to_bytes_in_with_alloc::<_, _, Failure>(
            &header,
            Buffer::from(&mut *space),
            SubAllocator::empty(),
        );
        assert_eq!(written.unwrap()[..], bytes[..]);
    }

    #[test]
    fn every_kind_has_a_sender() {
        for kind in Kind::ALL {
            assert!(kind.is_sent_by_client() || kind.is_sent_by_router(), "{}", kind.name());
        }
    }
}
