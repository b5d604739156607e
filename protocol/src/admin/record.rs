//! The record that begins each message: 128 bytes, little endian, as docs/spec/admin.md has them.
//!
//! Always: it carries magic and version, because command and router may come from different builds. Fields that a kind does
//! not use are zero.
//! Never: known to anybody but the messages.

use core::mem::size_of;

use rkyv::api::low;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rkyv::util::Align;
use rkyv::{Archive, Deserialize, Serialize};

use super::{AdminPeerMisbehaved, CallReport, KeptCall};

/// Bytes of a record without what follows it.
pub const RECORD_SIZE: usize = 128;
/// Bytes of both parts that follow it: a configuration file of 4 MiB, and its path or what is said about it.
pub const PARTS_SIZE_MAX: usize = 5 << 20;
/// "QKFC" as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"QKFC");
/// The one version spoken.
pub const VERSION: u16 = 1;

/// The record as it lies in the stream.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Default)]
pub struct Record {
    pub magic: u32,
    pub version: u16,
    pub kind: u16,
    pub part_sizes: [u32; 2],
    pub flags: u32,
    pub reserved_20: u32,
    pub invocation_id: u64,
    pub looked_at_ns: u64,
    pub received_at_ns: u64,
    pub deadline_at_ns: u64,
    pub pushed_at_ns: u64,
    pub blocked_since_ns: u64,
    pub ahead: u32,
    pub process_id: u32,
    pub stage: u8,
    pub criticality: u8,
    pub attempts: u8,
    pub blocked_on: u8,
    pub status: u16,
    pub reserved_86: u16,
    pub number: u64,
    pub ended_at_ns: u64,
    pub took_ns: u64,
    pub size: u64,
    pub offset: u64,
}

const _: () = assert!(size_of::<ArchivedRecord>() == RECORD_SIZE);

impl Record {
    /// Everything that is wrong without looking at the parts, so that a bad peer is refused before it sends them.
    pub fn decode(bytes: &[u8; RECORD_SIZE]) -> Result<Record, AdminPeerMisbehaved> {
        let aligned = Align(*bytes);
        let archived = low::access::<ArchivedRecord, Failure>(aligned.as_slice())
            .map_err(|_| AdminPeerMisbehaved::RecordInvalid)?;
        let record =
            low::deserialize::<Record, Failure>(archived).map_err(|_| AdminPeerMisbehaved::RecordInvalid)?;
        let Record { magic, version, .. } = record;
        if magic != MAGIC {
            return Err(AdminPeerMisbehaved::MagicWrong { magic });
        }
        if version != VERSION {
            return Err(AdminPeerMisbehaved::VersionUnsupported { version });
        }
        let size: u64 = record.part_sizes.iter().map(|size| u64::from(*size)).sum();
        if size > PARTS_SIZE_MAX as u64 {
            return Err(AdminPeerMisbehaved::PartsTooLarge { size });
        }
        Ok(record)
    }

    /// The whole message, if this record begins it.
    pub fn followed_by(self, first: &str, second: &[u8]) -> Vec<u8> {
        let part_sizes = [first.len(), second.len()].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let record = Record { magic: MAGIC, version: VERSION, part_sizes, ..self };
        let mut space = Align([0; RECORD_SIZE]);
        let written = low::to_bytes_in_with_alloc::<_, _, Failure>(
            &record,
            Buffer::from(&mut *space),
            SubAllocator::empty(),
        );
        assert!(written.is_ok(), "a record of integers fits its own size");
        [&space[..], first.as_bytes(), second].concat()
    }

    /// Of a message that tells where a call is.
    pub fn of_report(report: &CallReport) -> Record {
        Record {
            invocation_id: report.invocation_id,
            looked_at_ns: report.looked_at_ns,
            received_at_ns: report.received_at_ns,
            deadline_at_ns: report.deadline_at_ns,
            pushed_at_ns: report.pushed_at_ns,
            blocked_since_ns: report.blocked_since_ns,
            number: report.waits_for,
            ahead: report.ahead,
            process_id: report.process_id,
            stage: report.stage,
            criticality: report.criticality,
            attempts: report.attempts,
            blocked_on: report.blocked_on,
            ..Record::default()
        }
    }

    /// The reverse.
    pub fn report(&self) -> CallReport {
        CallReport {
            invocation_id: self.invocation_id,
            looked_at_ns: self.looked_at_ns,
            received_at_ns: self.received_at_ns,
            deadline_at_ns: self.deadline_at_ns,
            pushed_at_ns: self.pushed_at_ns,
            blocked_since_ns: self.blocked_since_ns,
            waits_for: self.number,
            ahead: self.ahead,
            process_id: self.process_id,
            stage: self.stage,
            criticality: self.criticality,
            attempts: self.attempts,
            blocked_on: self.blocked_on,
        }
    }

    /// Of a message about one kept call.
    pub fn of_kept_call(call: &KeptCall) -> Record {
        Record {
            criticality: call.criticality,
            attempts: call.attempts,
            status: call.status,
            number: call.number,
            ended_at_ns: call.ended_at_ns,
            size: call.payload_size,
            ..Record::default()
        }
    }

    /// The reverse, with the name that followed.
    pub fn kept_call(&self, function: String) -> KeptCall {
        KeptCall {
            number: self.number,
            function,
            status: self.status,
            attempts: self.attempts,
            criticality: self.criticality,
            ended_at_ns: self.ended_at_ns,
            payload_size: self.size,
        }
    }
}
