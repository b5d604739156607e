//! The admin protocol: what a person's command asks a running router, and what it is told. One question, one answer, on
//! `DIR/admin.sock` (docs/spec/admin.md).
//!
//! In: bytes of the admin socket.  Out: a [`Message`], or [`AdminPeerMisbehaved`].
//! Always: a record of 128 bytes, then two texts whose sizes it names. It carries magic and version, because command and
//! router may come from different builds.
//! Never: trusts a size, a number or a text: the record is validated, texts are bounded and UTF-8.
//! Why not the wire protocol: these questions are the operator's alone, and never remote.

use core::mem::size_of;

use rkyv::api::low;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rkyv::util::Align;
use rkyv::{Archive, Deserialize, Serialize};

/// Bytes of a record without its texts.
pub const RECORD_SIZE: usize = 128;
/// Bytes of both texts together: a configuration file of 4 MiB, and its path or what is said about it.
pub const TEXT_SIZE_MAX: usize = 5 << 20;
/// "QKFC" as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"QKFC");
/// The one version spoken.
pub const VERSION: u16 = 1;

/// One message on the admin socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Command to router: take this configuration, or only say what that would change.
    Apply {
        /// The file's absolute path, for messages and relative programs.
        origin: String,
        /// The file.
        text: String,
        /// Change nothing.
        is_dry_run: bool,
    },
    /// Router to command: it is in force, or would be. A line for each change.
    Applied {
        /// What is in force at once.
        taken: String,
        /// What needs a restart.
        needs_restart: String,
    },
    /// Router to command: no, and the configuration in force is the one before. A line for each reason.
    Refused {
        /// Why.
        reasons: String,
    },
    /// Command to router: where is this call?
    Why {
        /// As `quickfire inspect` shows it.
        invocation_id: u64,
    },
    /// Router to command: there.
    Call {
        /// Everything that is a number.
        report: CallReport,
        /// The name of its function.
        function: String,
    },
    /// Router to command: no call has this id (any more).
    NoSuchCall,
    /// Router to command: it is going away.
    Stopping,
}

/// What is known of a call. Times are CLOCK_MONOTONIC in nanoseconds; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallReport {
    /// Which.
    pub invocation_id: u64,
    /// When it was looked at.
    pub looked_at_ns: u64,
    /// When the router read it.
    pub received_at_ns: u64,
    /// When its answer is worth nothing any more.
    pub deadline_at_ns: u64,
    /// When it was handed to the worker that has it.
    pub pushed_at_ns: u64,
    /// The first look that found its function blocked as it is.
    pub blocked_since_ns: u64,
    /// Calls of its function that go before it while it waits.
    pub ahead: u32,
    /// The process that has it.
    pub process_id: u32,
    /// 0 waits, 1 with a worker, 2 past its deadline with a worker, 3 answered.
    pub stage: u8,
    /// 0 to 3.
    pub criticality: u8,
    /// Times it was handed to a worker.
    pub attempts: u8,
    /// As in the counters file.
    pub blocked_on: u8,
}

/// What a peer on the admin socket can do wrong. The socket is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminPeerMisbehaved {
    /// It speaks something else.
    #[error("the record carries magic {magic:#010x}, {MAGIC:#010x} is needed")]
    MagicWrong {
        /// What came.
        magic: u32,
    },
    /// It speaks another version.
    #[error("the admin protocol of version {version} is not spoken here, only version {VERSION}")]
    VersionUnsupported {
        /// What came.
        version: u16,
    },
    /// The kind is not defined.
    #[error("record kind {0} is not defined")]
    UnknownKind(u16),
    /// More text than any message has.
    #[error("{size} bytes of text are more than {TEXT_SIZE_MAX}")]
    TextTooLarge {
        /// What was announced.
        size: u64,
    },
    /// A text is none.
    #[error("a text is not UTF-8")]
    TextInvalid,
    /// The bytes are not a record.
    #[error("the record is not valid")]
    RecordInvalid,
}

/// The record as it lies in the stream. Private: people use [`Message`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Default)]
struct Record {
    magic: u32,
    version: u16,
    kind: u16,
    text_sizes: [u32; 2],
    flags: u32,
    reserved_20: u32,
    invocation_id: u64,
    looked_at_ns: u64,
    received_at_ns: u64,
    deadline_at_ns: u64,
    pushed_at_ns: u64,
    blocked_since_ns: u64,
    ahead: u32,
    process_id: u32,
    stage: u8,
    criticality: u8,
    attempts: u8,
    blocked_on: u8,
    reserved_84: u32,
    reserved_88: [u64; 5],
}

const _: () = assert!(size_of::<ArchivedRecord>() == RECORD_SIZE);

const KIND_APPLY: u16 = 1;
const KIND_APPLIED: u16 = 2;
const KIND_REFUSED: u16 = 3;
const KIND_WHY: u16 = 4;
const KIND_CALL: u16 = 5;
const KIND_NO_SUCH_CALL: u16 = 6;
const KIND_STOPPING: u16 = 7;

const FLAG_DRY_RUN: u32 = 1;

/// Looks at the front of `bytes`. `Ok(None)` means that the message is not complete yet.
pub fn decode(bytes: &[u8]) -> Result<Option<Message>, AdminPeerMisbehaved> {
    let Some((record_bytes, rest)) = bytes.split_first_chunk::<RECORD_SIZE>() else { return Ok(None) };
    let record = decode_record(record_bytes)?;
    let [first_size, second_size] = record.text_sizes.map(|size| size as usize);
    let Some(texts) = rest.get(..first_size + second_size) else { return Ok(None) };
    let (first, second) = texts.split_at(first_size);
    let text = |bytes: &[u8]| {
        core::str::from_utf8(bytes).map(str::to_owned).map_err(|_| AdminPeerMisbehaved::TextInvalid)
    };
    let (first, second) = (text(first)?, text(second)?);
    Ok(Some(match record.kind {
        KIND_APPLY => {
            Message::Apply { origin: first, text: second, is_dry_run: record.flags & FLAG_DRY_RUN != 0 }
        }
        KIND_APPLIED => Message::Applied { taken: first, needs_restart: second },
        KIND_REFUSED => Message::Refused { reasons: first },
        KIND_WHY => Message::Why { invocation_id: record.invocation_id },
        KIND_CALL => Message::Call { report: report_of(&record), function: first },
        KIND_NO_SUCH_CALL => Message::NoSuchCall,
        KIND_STOPPING => Message::Stopping,
        unknown => return Err(AdminPeerMisbehaved::UnknownKind(unknown)),
    }))
}

/// Everything that is wrong without looking at the texts, so that a bad peer is refused before it sends them.
fn decode_record(bytes: &[u8; RECORD_SIZE]) -> Result<Record, AdminPeerMisbehaved> {
    let aligned = Align(*bytes);
    let archived = low::access::<ArchivedRecord, Failure>(aligned.as_slice())
        .map_err(|_| AdminPeerMisbehaved::RecordInvalid)?;
    let record =
        low::deserialize::<Record, Failure>(archived).map_err(|_| AdminPeerMisbehaved::RecordInvalid)?;
    let Record { magic, version, kind, .. } = record;
    if magic != MAGIC {
        return Err(AdminPeerMisbehaved::MagicWrong { magic });
    }
    if version != VERSION {
        return Err(AdminPeerMisbehaved::VersionUnsupported { version });
    }
    if !(KIND_APPLY..=KIND_STOPPING).contains(&kind) {
        return Err(AdminPeerMisbehaved::UnknownKind(kind));
    }
    let size: u64 = record.text_sizes.iter().map(|size| u64::from(*size)).sum();
    if size > TEXT_SIZE_MAX as u64 {
        return Err(AdminPeerMisbehaved::TextTooLarge { size });
    }
    Ok(record)
}

fn report_of(record: &Record) -> CallReport {
    CallReport {
        invocation_id: record.invocation_id,
        looked_at_ns: record.looked_at_ns,
        received_at_ns: record.received_at_ns,
        deadline_at_ns: record.deadline_at_ns,
        pushed_at_ns: record.pushed_at_ns,
        blocked_since_ns: record.blocked_since_ns,
        ahead: record.ahead,
        process_id: record.process_id,
        stage: record.stage,
        criticality: record.criticality,
        attempts: record.attempts,
        blocked_on: record.blocked_on,
    }
}

impl Message {
    /// The message as bytes. Texts that together are longer than [`TEXT_SIZE_MAX`] are refused by whoever decodes them.
    pub fn encode(&self) -> Vec<u8> {
        let (record, texts) = self.to_record();
        let mut space = Align([0; RECORD_SIZE]);
        let written = low::to_bytes_in_with_alloc::<_, _, Failure>(
            &record,
            Buffer::from(&mut *space),
            SubAllocator::empty(),
        );
        assert!(written.is_ok(), "a record of integers fits its own size");
        let mut out = space.to_vec();
        texts.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
        out
    }

    fn to_record(&self) -> (Record, [&str; 2]) {
        let with = |kind, texts: [&str; 2]| Record {
            magic: MAGIC,
            version: VERSION,
            kind,
            text_sizes: texts.map(|text| u32::try_from(text.len()).unwrap_or(u32::MAX)),
            ..Record::default()
        };
        match self {
            Message::Apply { origin, text, is_dry_run } => {
                let texts = [origin.as_str(), text.as_str()];
                let flags = if *is_dry_run { FLAG_DRY_RUN } else { 0 };
                (Record { flags, ..with(KIND_APPLY, texts) }, texts)
            }
            Message::Applied { taken, needs_restart } => {
                let texts = [taken.as_str(), needs_restart.as_str()];
                (with(KIND_APPLIED, texts), texts)
            }
            Message::Refused { reasons } => (with(KIND_REFUSED, [reasons, ""]), [reasons, ""]),
            Message::Why { invocation_id } => {
                (Record { invocation_id: *invocation_id, ..with(KIND_WHY, ["", ""]) }, ["", ""])
            }
            Message::Call { report, function } => {
                let texts = [function.as_str(), ""];
                let record = Record {
                    invocation_id: report.invocation_id,
                    looked_at_ns: report.looked_at_ns,
                    received_at_ns: report.received_at_ns,
                    deadline_at_ns: report.deadline_at_ns,
                    pushed_at_ns: report.pushed_at_ns,
                    blocked_since_ns: report.blocked_since_ns,
                    ahead: report.ahead,
                    process_id: report.process_id,
                    stage: report.stage,
                    criticality: report.criticality,
                    attempts: report.attempts,
                    blocked_on: report.blocked_on,
                    ..with(KIND_CALL, texts)
                };
                (record, texts)
            }
            Message::NoSuchCall => (with(KIND_NO_SUCH_CALL, ["", ""]), ["", ""]),
            Message::Stopping => (with(KIND_STOPPING, ["", ""]), ["", ""]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_message() -> Vec<Message> {
        let report = CallReport {
            invocation_id: 1,
            looked_at_ns: 2,
            received_at_ns: 3,
            deadline_at_ns: 4,
            pushed_at_ns: 5,
            blocked_since_ns: 6,
            ahead: 7,
            process_id: 8,
            stage: 9,
            criticality: 10,
            attempts: 11,
            blocked_on: 12,
        };
        vec![
            Message::Apply { origin: "/q.toml".into(), text: "[router]\n".into(), is_dry_run: true },
            Message::Apply { origin: String::new(), text: "é".into(), is_dry_run: false },
            Message::Applied { taken: "a".into(), needs_restart: "b\nc".into() },
            Message::Refused { reasons: "no".into() },
            Message::Why { invocation_id: u64::MAX },
            Message::Call { report, function: "echo".into() },
            Message::NoSuchCall,
            Message::Stopping,
        ]
    }

    #[test]
    fn every_message_reads_back_as_written_and_not_before_it_is_whole() {
        for message in every_message() {
            let bytes = message.encode();
            for size in 0..bytes.len() {
                assert_eq!(decode(&bytes[..size]), Ok(None), "{message:?}, {size} bytes");
            }
            assert_eq!(decode(&bytes), Ok(Some(message)));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let Message::Call { report, .. } = &every_message()[5] else { panic!("the order changed") };
        let bytes = Message::Call { report: *report, function: "f".into() }.encode();
        assert_eq!(bytes[..8], [b'Q', b'K', b'F', b'C', 1, 0, 5, 0]);
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
        let places = [(24, 1), (32, 2), (40, 3), (48, 4), (56, 5), (64, 6), (72, 7), (76, 8)];
        for (place, value) in places.into_iter().chain([(80, 9), (81, 10), (82, 11), (83, 12), (128, b'f')]) {
            assert_eq!(bytes[place], value, "byte {place}");
        }
    }

    #[test]
    fn what_no_honest_peer_sends_is_named() {
        let good = Message::NoSuchCall.encode();
        let check = |place: usize, value: u8, expected| {
            let mut bytes = good.clone();
            bytes[place] = value;
            assert_eq!(decode(&bytes), Err(expected));
        };
        check(0, b'X', AdminPeerMisbehaved::MagicWrong { magic: u32::from_le_bytes(*b"XKFC") });
        check(4, 2, AdminPeerMisbehaved::VersionUnsupported { version: 2 });
        check(6, 0, AdminPeerMisbehaved::UnknownKind(0));
        check(6, 8, AdminPeerMisbehaved::UnknownKind(8));
        check(11, 0xFF, AdminPeerMisbehaved::TextTooLarge { size: 0xFF00_0000 });
        let mut bytes = Message::Refused { reasons: "x".into() }.encode();
        bytes[RECORD_SIZE] = 0xFF;
        assert_eq!(decode(&bytes), Err(AdminPeerMisbehaved::TextInvalid));
    }
}
