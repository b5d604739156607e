//! What a client can do wrong on the wire, as values that say what exactly it was.
//!
//! Every one of these ends the connection: the router sends GOAWAY with [`ClientMisbehaved::status`] and the
//! display text as the reason, then closes (W-82). Faults of a well-formed call (an unknown function, say) are not
//! here: those are answered with a REPLY and the connection lives on.
//!
//! A client decodes the router's frames with the same functions; there the same values describe the router.

use crate::header::HEADER_SIZE;
use crate::hello;
use crate::limits::FRAME_SIZE_MAX_FLOOR;
use crate::status::Status;

/// Why a connection's bytes are not the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientMisbehaved {
    /// The frame is larger than negotiated. Known from the header, before the body is read.
    #[error("frame of {size} bytes is larger than the {size_max} negotiated")]
    FrameTooLarge {
        /// What the header says.
        size: u32,
        /// What HELLO agreed on.
        size_max: u32,
    },
    /// The frame cannot even hold its header.
    #[error("frame of {size} bytes is smaller than its header of {HEADER_SIZE}")]
    FrameTooSmall {
        /// What the header says.
        size: u32,
    },
    /// The frame size is not a multiple of 16.
    #[error("frame size {size} is not a multiple of 16")]
    FrameSizeUnaligned {
        /// What the header says.
        size: u32,
    },
    /// The extension size is not a multiple of 16.
    #[error("extension size {size} is not a multiple of 16")]
    ExtensionSizeUnaligned {
        /// What the header says.
        size: u16,
    },
    /// Header, extensions and padded payload do not add up to the frame.
    #[error(
        "frame size {frame_size} disagrees with {extension_size} bytes of extensions and {payload_size} of payload"
    )]
    SizesDisagree {
        /// The whole frame.
        frame_size: u32,
        /// The extensions.
        extension_size: u16,
        /// The payload without padding.
        payload_size: u32,
    },
    /// The flags announce more extensions than the frame has.
    #[error("flags announce {size_needed} bytes of extensions, the frame has {size}")]
    ExtensionsMissing {
        /// What the header says.
        size: u16,
        /// What its flags need.
        size_needed: u16,
    },
    /// The kind is not defined.
    #[error("kind {0} is not defined")]
    UnknownKind(u8),
    /// A flag that must not be ignored is not defined.
    #[error("critical flags {0:#06x} are not defined")]
    UnknownCriticalFlag(u16),
    /// The header's bytes are not a header. No bytes are known to do this: the archived type holds integers only.
    #[error("the header is not valid")]
    HeaderInvalid,
    /// Another frame came before HELLO.
    #[error("a frame of kind {kind} came before HELLO")]
    HelloExpected {
        /// What came.
        kind: u8,
    },
    /// HELLO's payload is too short.
    #[error("HELLO carries {size} bytes, at least {} are needed", hello::HELLO_SIZE)]
    HelloTooShort {
        /// What came.
        size: usize,
    },
    /// HELLO does not carry the magic: the peer speaks something else.
    #[error("HELLO carries magic {magic:#010x}, {:#010x} is needed", hello::MAGIC)]
    HelloMagicWrong {
        /// What came.
        magic: u32,
    },
    /// No version is spoken by both sides, or the range is empty.
    #[error("versions {version_min} to {version_max} are offered, {} is spoken here", crate::VERSION)]
    UnsupportedVersion {
        /// The lowest offered.
        version_min: u16,
        /// The highest offered.
        version_max: u16,
    },
    /// The frames the client can take are too small for the protocol's own answers.
    #[error("frame_size_max {size_max} is below the least of {FRAME_SIZE_MAX_FLOOR}")]
    FrameSizeMaxTooSmall {
        /// What came.
        size_max: u32,
    },
    /// A kind that only the other side sends, or a second HELLO.
    #[error("a frame of kind {kind} is not expected from this side at this point")]
    UnexpectedFrame {
        /// What came.
        kind: u8,
    },
}

impl ClientMisbehaved {
    /// The fault's name in the specification (W-8), for counters and vectors.
    pub const fn name(&self) -> &'static str {
        match self {
            ClientMisbehaved::FrameTooLarge { .. } => "frame_too_large",
            ClientMisbehaved::FrameTooSmall { .. } => "frame_too_small",
            ClientMisbehaved::FrameSizeUnaligned { .. } => "frame_size_unaligned",
            ClientMisbehaved::ExtensionSizeUnaligned { .. } => "extension_size_unaligned",
            ClientMisbehaved::SizesDisagree { .. } => "sizes_disagree",
            ClientMisbehaved::ExtensionsMissing { .. } => "extensions_missing",
            ClientMisbehaved::UnknownKind(_) => "unknown_kind",
            ClientMisbehaved::UnknownCriticalFlag(_) => "unknown_critical_flag",
            ClientMisbehaved::HeaderInvalid => "header_invalid",
            ClientMisbehaved::HelloExpected { .. } => "hello_expected",
            ClientMisbehaved::HelloTooShort { .. } => "hello_too_short",
            ClientMisbehaved::HelloMagicWrong { .. } => "hello_magic_wrong",
            ClientMisbehaved::UnsupportedVersion { .. } => "unsupported_version",
            ClientMisbehaved::FrameSizeMaxTooSmall { .. } => "frame_size_max_too_small",
            ClientMisbehaved::UnexpectedFrame { .. } => "unexpected_frame",
        }
    }

    /// The status of the GOAWAY that answers it.
    pub const fn status(&self) -> Status {
        match self {
            ClientMisbehaved::FrameTooLarge { .. } => Status::FrameTooLarge,
            ClientMisbehaved::FrameTooSmall { .. }
            | ClientMisbehaved::FrameSizeUnaligned { .. }
            | ClientMisbehaved::ExtensionSizeUnaligned { .. }
            | ClientMisbehaved::SizesDisagree { .. }
            | ClientMisbehaved::ExtensionsMissing { .. }
            | ClientMisbehaved::HeaderInvalid
            | ClientMisbehaved::HelloTooShort { .. }
            | ClientMisbehaved::HelloMagicWrong { .. }
            | ClientMisbehaved::FrameSizeMaxTooSmall { .. } => Status::MalformedFrame,
            ClientMisbehaved::UnknownKind(_) => Status::UnknownKind,
            ClientMisbehaved::UnknownCriticalFlag(_) => Status::UnknownCriticalFlag,
            ClientMisbehaved::HelloExpected { .. } => Status::HelloExpected,
            ClientMisbehaved::UnsupportedVersion { .. } => Status::UnsupportedVersion,
            ClientMisbehaved::UnexpectedFrame { .. } => Status::UnexpectedFrame,
        }
    }
}
