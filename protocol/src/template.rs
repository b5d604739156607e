//! The snapshot protocol: fixed records between the shim, a template process and the copies that are made of it.
//!
//! In: one message of a sequenced-packet socket.  Out: a [`Message`], or [`TemplateMisbehaved`].
//! Always: a message is one record of 128 bytes, whole or wrong: the socket keeps the bounds of messages.
//! Never: says which process a copy is. The kernel tells that with each message (SCM_CREDENTIALS), and what it tells cannot be
//! made up.
//! Why not the attach records: those end at the router, carry a function's name, and change with the ring; these never leave the
//! shim's own processes.
//!
//! ```text
//!  0 u32 magic "QKFT" |  4 u16 version | 6 u16 kind | 8 u64 order | 16 u32 number | 20 path, NUL-padded     unused: zero
//!
//! shim                                   template, on its standard input             copy, on the socket of its order
//!   |                                      | (initialises)                              |
//!   |<------------------------------ Ready |                                            |
//!   |    (or Threads, then it ends)        |                                            |
//!   | Copy + stdout, stderr, socket ------>| forks twice                                |
//!   |    (or CopyFailed <------------------|)                                           |
//!   |<------------------------------------------------------------------- Born + who ---|
//!   | Go ------------------------------------------------------------------------------>| attaches, serves
//! ```
//!
//! What each side owes: docs/coding/snapshots.md.  Why so: docs/decisions/0034-snapshots.md.

/// Bytes of a record.
pub const RECORD_SIZE: usize = 128;
/// "QKFT" as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"QKFT");
/// The one version spoken.
pub const VERSION: u16 = 1;
/// The longest path of an attach socket: what a socket's address has room for, without the NUL.
pub const PATH_SIZE_MAX: usize = 107;

const PATH_AT: usize = 20;
const _: () = assert!(PATH_AT + PATH_SIZE_MAX < RECORD_SIZE, "a path is followed by at least one NUL");

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Template to shim: initialised, and ready to be copied.
    Ready,
    /// Template to shim: it cannot be copied, because it has threads besides the one that would be copied.
    Threads {
        /// How many it has in all.
        count: u32,
    },
    /// Shim to template: make a copy. Three descriptors come along: its stdout, its stderr, and the socket on which it tells that it
    /// is there.
    Copy {
        /// Names the order.
        order: u64,
        /// The attach socket of the shard that the copy serves.
        attach_socket: SocketPath,
    },
    /// Template to shim: the kernel would not make it.
    CopyFailed {
        /// Which order.
        order: u64,
        /// What the kernel said.
        errno: u32,
    },
    /// Copy to shim: here, and a child of the shim by now.
    Born,
    /// Shim to copy: known. From here on it dies with the shim.
    Go,
}

/// The path of a Unix socket, held without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SocketPath {
    // Bytes behind `size` are zero, so that the derived comparison is right.
    bytes: [u8; PATH_SIZE_MAX],
    size: u8,
}

/// Why bytes are no record of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateMisbehaved {
    /// Not the size of a record.
    #[error("a message has {size} bytes, not {RECORD_SIZE}")]
    Size {
        /// How many.
        size: usize,
    },
    /// Not a record at all.
    #[error("a message begins with {found:#010x}")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// Of another version of the protocol.
    #[error("a message of version {found}; this is version {VERSION}")]
    Version {
        /// Which.
        found: u16,
    },
    /// A kind that there is not.
    #[error("a message of kind {found}")]
    Kind {
        /// Which.
        found: u16,
    },
    /// A path that cannot be one.
    #[error("a message with a path that is empty or has no end")]
    Path,
}

impl SocketPath {
    /// Checks and copies a path; `None` if no socket can have it.
    pub fn from_bytes(path: &[u8]) -> Option<SocketPath> {
        let mut bytes = [0; PATH_SIZE_MAX];
        bytes.get_mut(..path.len())?.copy_from_slice(path);
        (!path.is_empty() && !path.contains(&0)).then_some(SocketPath { bytes, size: path.len() as u8 })
    }

    /// The path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

impl core::fmt::Debug for SocketPath {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl Message {
    /// The record.
    pub fn encode(&self) -> [u8; RECORD_SIZE] {
        let (kind, order, number, path): (u16, u64, u32, &[u8]) = match self {
            Message::Ready => (1, 0, 0, &[]),
            Message::Threads { count } => (2, 0, *count, &[]),
            Message::Copy { order, attach_socket } => (3, *order, 0, attach_socket.as_bytes()),
            Message::CopyFailed { order, errno } => (4, *order, *errno, &[]),
            Message::Born => (5, 0, 0, &[]),
            Message::Go => (6, 0, 0, &[]),
        };
        let mut record = [0; RECORD_SIZE];
        record[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        record[4..6].copy_from_slice(&VERSION.to_le_bytes());
        record[6..8].copy_from_slice(&kind.to_le_bytes());
        record[8..16].copy_from_slice(&order.to_le_bytes());
        record[16..20].copy_from_slice(&number.to_le_bytes());
        record[PATH_AT..PATH_AT + path.len()].copy_from_slice(path);
        record
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Message, TemplateMisbehaved> {
        let record: &[u8; RECORD_SIZE] =
            bytes.try_into().map_err(|_| TemplateMisbehaved::Size { size: bytes.len() })?;
        let u16_at = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(0) != MAGIC {
            return Err(TemplateMisbehaved::Magic { found: u32_at(0) });
        }
        if u16_at(4) != VERSION {
            return Err(TemplateMisbehaved::Version { found: u16_at(4) });
        }
        Ok(match u16_at(6) {
            1 => Message::Ready,
            2 => Message::Threads { count: u32_at(16) },
            3 => {
                let text = &record[PATH_AT..];
                let size = text.iter().position(|byte| *byte == 0).ok_or(TemplateMisbehaved::Path)?;
                let attach_socket = SocketPath::from_bytes(&text[..size]).ok_or(TemplateMisbehaved::Path)?;
                Message::Copy { order: u64_at(8), attach_socket }
            }
            4 => Message::CopyFailed { order: u64_at(8), errno: u32_at(16) },
            5 => Message::Born,
            6 => Message::Go,
            found => return Err(TemplateMisbehaved::Kind { found }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(bytes: &[u8]) -> SocketPath {
        SocketPath::from_bytes(bytes).unwrap()
    }

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        let messages = [
            Message::Ready,
            Message::Threads { count: 3 },
            Message::Copy { order: u64::MAX, attach_socket: path(b"/run/q/attach-0.sock") },
            Message::Copy { order: 1, attach_socket: path(&[b'x'; PATH_SIZE_MAX]) },
            Message::CopyFailed { order: 7, errno: 11 },
            Message::Born,
            Message::Go,
        ];
        for message in messages {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_no_record_is_refused_and_says_why() {
        let good = Message::Ready.encode();
        let with = |at: usize, byte: u8| {
            let mut record = good;
            record[at] = byte;
            Message::decode(&record)
        };
        assert_eq!(Message::decode(&[]), Err(TemplateMisbehaved::Size { size: 0 }));
        assert_eq!(Message::decode(&good[1..]), Err(TemplateMisbehaved::Size { size: RECORD_SIZE - 1 }));
        assert!(matches!(with(0, 0), Err(TemplateMisbehaved::Magic { .. })));
        assert_eq!(with(4, 2), Err(TemplateMisbehaved::Version { found: 2 }));
        assert_eq!(with(6, 0), Err(TemplateMisbehaved::Kind { found: 0 }));
        assert_eq!(with(6, 7), Err(TemplateMisbehaved::Kind { found: 7 }));
        assert_eq!(with(6, 3), Err(TemplateMisbehaved::Path), "an order without a path");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        for bytes in [&b""[..], b"a\0b", &[b'x'; PATH_SIZE_MAX + 1]] {
            assert_eq!(SocketPath::from_bytes(bytes), None);
        }
    }

    proptest! {
        /// Whatever a template sends is a message or an error, and a message means one thing.
        #[test]
        fn any_bytes_are_a_message_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..8u16) {
            if bytes.len() >= 8 {
                bytes[..6].copy_from_slice(&Message::Ready.encode()[..6]);
                bytes[6..8].copy_from_slice(&kind.to_le_bytes());
            }
            bytes.resize(bytes.len().clamp(RECORD_SIZE - 1, RECORD_SIZE + 1), 0);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
