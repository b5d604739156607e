//! The bytes of a recording: what callers asked of a router, when, and what became of it. The normative text is
//! docs/spec/record.md.
//!
//! In: calls as a shard saw them end.  Out: records; and from the bytes of a file a [`Recording`], or who is at fault.
//! Always: every number is little endian and of fixed size; a record says its own size, a multiple of 8, so that a reader
//! goes past kinds it does not know. A file that ends in the middle of a record is what a recorder that died left behind:
//! what came before it counts.
//! Never: panics on a file, or allocates more than a few times its size.
//! Tests: `protocol/tests/recording.rs`, with arbitrary bytes.

/// The first bytes of a file.
pub const MAGIC: [u8; 8] = *b"QFRECORD";
/// Raised when an old reader would misread; new kinds of records need no new version.
pub const VERSION: u32 = 1;
/// Bytes of the file's header.
pub const FILE_HEADER_SIZE: usize = 32;
/// Bytes of a call's record without its body.
pub const CALL_SIZE: usize = 88;
/// Bytes that every record begins with: size, kind, shard.
pub const RECORD_HEADER_SIZE: usize = 8;
/// More functions than a router may have.
pub const FUNCTIONS_MAX: usize = 1 << 20;

/// Set in the file's header if bodies were asked for.
const FILE_FLAG_BODIES: u32 = 1;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordKind {
    /// The name of the next function number.
    Function = 1,
    /// A call that ended.
    Call = 2,
    /// Calls that could not be recorded, because the recorder was slower than the router.
    Lost = 3,
    /// The recording ended in good order.
    End = 4,
}

/// One call. Lengths count from its receipt; 0 stands for what did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedCall {
    /// The shard that answered it.
    pub shard: u16,
    /// The router's CLOCK_MONOTONIC.
    pub received_at_ns: u64,
    /// From receipt to deadline.
    pub budget_ns: u64,
    /// Until a worker had it.
    pub pushed_ns: u64,
    /// Until the function began.
    pub started_ns: u64,
    /// Until the function ended.
    pub finished_ns: u64,
    /// Until the answer; of a call that was refused, 0.
    pub answered_ns: u64,
    /// The function's number.
    pub function: u32,
    /// Bytes of the request.
    pub payload_size: u32,
    /// Bytes of the answer.
    pub result_size: u32,
    /// Which of the router's connections it came by.
    pub connection: u32,
    /// How it ended, as on the wire.
    pub status: u16,
    /// Flags of the answer, as on the wire.
    pub flags: u16,
    /// 0 low to 3 critical.
    pub criticality: u8,
}

impl RecordedCall {
    /// How long the function ran, if it did.
    pub fn run_ns(&self) -> Option<u64> {
        (self.finished_ns > 0).then(|| self.finished_ns.saturating_sub(self.started_ns))
    }

    /// Appends the record. The body is the request's payload, or nothing.
    pub fn encode(&self, body: &[u8], out: &mut Vec<u8>) {
        let size = (CALL_SIZE + body.len()).next_multiple_of(8);
        let end = out.len() + size;
        header(out, size, RecordKind::Call, self.shard);
        let lengths = [
            self.received_at_ns,
            self.budget_ns,
            self.pushed_ns,
            self.started_ns,
            self.finished_ns,
            self.answered_ns,
        ];
        lengths.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        let numbers = [self.function, self.payload_size, self.result_size, self.connection];
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&[self.criticality, 0, 0, 0]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(body);
        out.resize(end, 0);
    }

    fn decode(record: &[u8], shard: u16) -> Option<(RecordedCall, usize)> {
        let call = RecordedCall {
            shard,
            received_at_ns: u64_at(record, 8)?,
            budget_ns: u64_at(record, 16)?,
            pushed_ns: u64_at(record, 24)?,
            started_ns: u64_at(record, 32)?,
            finished_ns: u64_at(record, 40)?,
            answered_ns: u64_at(record, 48)?,
            function: u32_at(record, 56)?,
            payload_size: u32_at(record, 60)?,
            result_size: u32_at(record, 64)?,
            connection: u32_at(record, 68)?,
            status: u16_at(record, 72)?,
            flags: u16_at(record, 74)?,
            criticality: *record.get(76)?,
        };
        let body_size = u32_at(record, 80)? as usize;
        (CALL_SIZE + body_size <= record.len()).then_some((call, body_size))
    }
}

/// Appends a file's header.
pub fn encode_file_header(has_bodies: bool, started_at_unix_ns: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(FILE_HEADER_SIZE as u32).to_le_bytes());
    out.extend_from_slice(&u32::from(has_bodies).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&started_at_unix_ns.to_le_bytes());
}

/// Appends the name of the next function number.
pub fn encode_function(name: &str, out: &mut Vec<u8>) {
    let size = (RECORD_HEADER_SIZE + 4 + name.len()).next_multiple_of(8);
    let end = out.len() + size;
    header(out, size, RecordKind::Function, 0);
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.resize(end, 0);
}

/// Appends that calls of a shard were lost.
pub fn encode_lost(shard: u16, count: u64, out: &mut Vec<u8>) {
    header(out, RECORD_HEADER_SIZE + 8, RecordKind::Lost, shard);
    out.extend_from_slice(&count.to_le_bytes());
}

/// Appends the end, with how many calls were recorded.
pub fn encode_end(call_count: u64, out: &mut Vec<u8>) {
    header(out, RECORD_HEADER_SIZE + 8, RecordKind::End, 0);
    out.extend_from_slice(&call_count.to_le_bytes());
}

fn header(out: &mut Vec<u8>, size: usize, kind: RecordKind, shard: u16) {
    out.extend_from_slice(&(size as u32).to_le_bytes());
    out.extend_from_slice(&(kind as u16).to_le_bytes());
    out.extend_from_slice(&shard.to_le_bytes());
}

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// Names by number.
    pub functions: Vec<String>,
    /// In the order of receipt.
    pub calls: Vec<RecordedCall>,
    /// Calls that are missing.
    pub lost_count: u64,
    /// It ended in good order.
    pub is_complete: bool,
    /// Bodies were recorded too.
    pub has_bodies: bool,
    /// Bodies one after the other, and where each call's lies.
    bodies: Vec<u8>,
    places: Vec<(usize, usize)>,
}

/// The file is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingDamaged {
    /// Something else.
    #[error("this is no recording of `quickfire record`")]
    NotARecording,
    /// By a newer program.
    #[error("the recording has version {version}; this program reads version {VERSION}")]
    UnknownVersion {
        /// What it says.
        version: u32,
    },
    /// A record that cannot be.
    #[error("the record at byte {at} has a size of {size} bytes")]
    BadSize {
        /// Where in the file.
        at: usize,
        /// What it says.
        size: u32,
    },
    /// A record whose content is not of its kind.
    #[error("the record at byte {at} is damaged")]
    BadRecord {
        /// Where in the file.
        at: usize,
    },
    /// A call of a function that has no name.
    #[error("a call is of function {function}, which the recording does not name")]
    UnknownFunction {
        /// The number.
        function: u32,
    },
}

impl Recording {
    /// Reads the bytes of a file.
    pub fn read(bytes: &[u8]) -> Result<Recording, RecordingDamaged> {
        if bytes.get(..8) != Some(&MAGIC[..]) {
            return Err(RecordingDamaged::NotARecording);
        }
        let version = u32_at(bytes, 8).ok_or(RecordingDamaged::NotARecording)?;
        if version != VERSION {
            return Err(RecordingDamaged::UnknownVersion { version });
        }
        let header_size = u32_at(bytes, 12).ok_or(RecordingDamaged::NotARecording)? as usize;
        let flags = u32_at(bytes, 16).ok_or(RecordingDamaged::NotARecording)?;
        if header_size < FILE_HEADER_SIZE || !header_size.is_multiple_of(8) || header_size > bytes.len() {
            return Err(RecordingDamaged::NotARecording);
        }
        let mut recording = Recording { has_bodies: flags & FILE_FLAG_BODIES != 0, ..Recording::default() };
        let mut at = header_size;
        while let Some(size) = u32_at(bytes, at) {
            let wanted = size as usize;
            if wanted < RECORD_HEADER_SIZE || !wanted.is_multiple_of(8) {
                return Err(RecordingDamaged::BadSize { at, size });
            }
            // Cut off by the death of the recorder.
            let Some(record) = bytes.get(at..).and_then(|rest| rest.get(..wanted)) else { break };
            recording.take(record, at)?;
            at += wanted;
        }
        // Functions that a reload brought are named behind the first of their calls.
        let known = recording.functions.len();
        if let Some(call) = recording.calls.iter().find(|call| call.function as usize >= known) {
            return Err(RecordingDamaged::UnknownFunction { function: call.function });
        }
        recording.sort();
        Ok(recording)
    }

    /// The payload of a call, by its place in `calls`; empty if it was not recorded.
    pub fn body(&self, index: usize) -> &[u8] {
        let place = self.places.get(index).copied().unwrap_or_default();
        self.bodies.get(place.0..place.0 + place.1).unwrap_or_default()
    }

    fn take(&mut self, record: &[u8], at: usize) -> Result<(), RecordingDamaged> {
        let damaged = RecordingDamaged::BadRecord { at };
        let kind = u16_at(record, 4).ok_or(damaged)?;
        let shard = u16_at(record, 6).ok_or(damaged)?;
        match kind {
            kind if kind == RecordKind::Function as u16 => {
                let size = u32_at(record, 8).ok_or(damaged)? as usize;
                let name = record.get(12..).and_then(|rest| rest.get(..size)).ok_or(damaged)?;
                if self.functions.len() >= FUNCTIONS_MAX {
                    return Err(damaged);
                }
                self.functions.push(std::str::from_utf8(name).map_err(|_| damaged)?.to_owned());
            }
            kind if kind == RecordKind::Call as u16 => {
                let (call, body_size) = RecordedCall::decode(record, shard).ok_or(damaged)?;
                if call.criticality > 3 || (body_size != 0 && body_size != call.payload_size as usize) {
                    return Err(damaged);
                }
                let body = record.get(CALL_SIZE..CALL_SIZE + body_size).ok_or(damaged)?;
                self.places.push((self.bodies.len(), body_size));
                self.bodies.extend_from_slice(body);
                self.calls.push(call);
            }
            kind if kind == RecordKind::Lost as u16 => {
                self.lost_count = self.lost_count.saturating_add(u64_at(record, 8).ok_or(damaged)?);
            }
            kind if kind == RecordKind::End as u16 => {
                let count = u64_at(record, 8).ok_or(damaged)?;
                self.is_complete = count == self.calls.len() as u64;
            }
            // A newer recorder knows more.
            _ => {}
        }
        Ok(())
    }

    /// Calls are written as they end; they are wanted as they came.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.calls.len()).collect();
        order.sort_by_key(|index| self.calls[*index].received_at_ns);
        self.calls = order.iter().map(|index| self.calls[*index]).collect();
        self.places = order.iter().map(|index| self.places[*index]).collect();
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u64::from_le_bytes(*bytes))
}
