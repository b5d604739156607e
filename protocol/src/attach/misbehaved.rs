//! What a peer on the attach socket can do wrong.

use crate::name::NameInvalid;

use super::{MAGIC, VERSION};

/// What a peer on the attach socket can do wrong. The socket is closed; a worker's function is told to the shim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachPeerMisbehaved {
    /// It speaks something else.
    #[error("the record carries magic {magic:#010x}, {MAGIC:#010x} is needed")]
    MagicWrong {
        /// What came.
        magic: u32,
    },
    /// It speaks another version.
    #[error("the record has version {version}, {VERSION} is spoken here")]
    VersionUnsupported {
        /// What came.
        version: u16,
    },
    /// The kind is not defined.
    #[error("record kind {0} is not defined")]
    UnknownKind(u16),
    /// A name is longer than a name may be, or stands behind a kind that has none.
    #[error("a name of {name_size} bytes does not belong behind record kind {kind}")]
    NameUnexpected {
        /// The record's kind.
        kind: u16,
        /// What came.
        name_size: u16,
    },
    /// The name is none.
    #[error(transparent)]
    NameInvalid(#[from] NameInvalid),
    /// The reason of a refusal is not defined.
    #[error("refusal reason {0} is not defined")]
    UnknownReason(u16),
    /// The record's bytes are not a record. No bytes are known to do this: the archived type holds integers only.
    #[error("the record is not valid")]
    RecordInvalid,
}
