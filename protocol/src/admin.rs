//! The admin protocol: what a person's command asks a running router, and what it is told. One question, one answer, on
//! `DIR/admin.sock` (docs/spec/admin.md).
//!
//! In: bytes of the admin socket.  Out: a [`Message`], or [`AdminPeerMisbehaved`].
//! Always: a record of 128 bytes (`admin/record.rs`), then two parts whose sizes it names: a text, and a text or bytes. What
//! is larger than both may be (a list, a payload) comes in pieces, one question each.
//! Never: trusts a size, a number or a text: the record is validated, parts are bounded, texts are UTF-8.
//! Why not the wire protocol: these questions are the operator's alone, and never remote.

mod kept;
mod record;
#[cfg(test)]
mod tests;

pub use kept::{CALLS_PER_LIST_MAX, KeptCall, PIECE_SIZE_MAX, Shelf};
use record::Record;
pub use record::{MAGIC, PARTS_SIZE_MAX, RECORD_SIZE, VERSION};

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
    /// Command to router: go back to the configuration that was in force before this one, or only say what that would change.
    Rollback {
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
    /// Command to router: which calls are kept?
    List {
        /// Where.
        shelf: Shelf,
        /// Only those with greater numbers.
        after: u64,
    },
    /// Router to command: these, by number; at most [`CALLS_PER_LIST_MAX`].
    Listed {
        /// When the router looked; CLOCK_MONOTONIC.
        looked_at_ns: u64,
        /// Which.
        calls: Vec<KeptCall>,
        /// There are more behind the last of them.
        has_more: bool,
    },
    /// Command to router: what is known of this call, and what is its payload?
    Show {
        /// Where it is kept.
        shelf: Shelf,
        /// Which.
        number: u64,
        /// From which byte of the payload on.
        offset: u64,
    },
    /// Router to command: this.
    Shown {
        /// When the router looked; CLOCK_MONOTONIC.
        looked_at_ns: u64,
        /// The call.
        call: KeptCall,
        /// The payload from the byte asked for, at most [`PIECE_SIZE_MAX`] of it.
        piece: Vec<u8>,
    },
    /// Command to router: run this call once more. It stays where it is kept.
    Replay {
        /// Where it is kept.
        shelf: Shelf,
        /// Which.
        number: u64,
    },
    /// Router to command: so it ended.
    Replayed {
        /// As on the wire.
        status: u16,
        /// How long it took.
        took_ns: u64,
        /// Bytes of the result.
        result_size: u64,
        /// The name of its function.
        function: String,
        /// The result's first bytes, at most [`PIECE_SIZE_MAX`].
        result: Vec<u8>,
    },
    /// Command to router: forget this call.
    Drop {
        /// Where it is kept.
        shelf: Shelf,
        /// Which.
        number: u64,
    },
    /// Router to command: it is gone. This it was.
    Dropped {
        /// When it went; CLOCK_MONOTONIC.
        looked_at_ns: u64,
        /// The call.
        call: KeptCall,
    },
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
    /// When it was handed to the worker that has it; at stage 4, when it joins its queue.
    pub pushed_at_ns: u64,
    /// The first look that found its function blocked as it is.
    pub blocked_since_ns: u64,
    /// The call that is run for it too; 0 is none.
    pub waits_for: u64,
    /// Calls of its function that go before it while it waits.
    pub ahead: u32,
    /// The process that has it.
    pub process_id: u32,
    /// 0 waits, 1 with a worker, 2 past its deadline with a worker, 3 answered, 4 is not due yet.
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
    /// More than any message has behind its record.
    #[error("{size} bytes behind the record are more than {PARTS_SIZE_MAX}")]
    PartsTooLarge {
        /// What was announced.
        size: u64,
    },
    /// A text is none.
    #[error("a text is not UTF-8")]
    TextInvalid,
    /// A list is not made of calls, or names a function that it does not carry.
    #[error("the list of calls is not valid")]
    ListInvalid,
    /// The bytes are not a record.
    #[error("the record is not valid")]
    RecordInvalid,
}

/// What a message is, and the flags of its record.
mod kind {
    pub const APPLY: u16 = 1;
    pub const APPLIED: u16 = 2;
    pub const REFUSED: u16 = 3;
    pub const WHY: u16 = 4;
    pub const CALL: u16 = 5;
    pub const NO_SUCH_CALL: u16 = 6;
    pub const STOPPING: u16 = 7;
    pub const LIST: u16 = 8;
    pub const LISTED: u16 = 9;
    pub const SHOW: u16 = 10;
    pub const SHOWN: u16 = 11;
    pub const REPLAY: u16 = 12;
    pub const REPLAYED: u16 = 13;
    pub const DROP: u16 = 14;
    pub const DROPPED: u16 = 15;
    pub const ROLLBACK: u16 = 16;

    /// Of `APPLY` and `ROLLBACK`: change nothing.
    pub const FLAG_DRY_RUN: u32 = 1;
    /// Of questions about kept calls: the dead letters; otherwise the quarantine.
    pub const FLAG_DEAD_LETTERS: u32 = 1 << 1;
    /// Of `LISTED`: there are more.
    pub const FLAG_HAS_MORE: u32 = 1 << 2;
}

/// Looks at the front of `bytes`. `Ok(None)` means that the message is not complete yet.
pub fn decode(bytes: &[u8]) -> Result<Option<Message>, AdminPeerMisbehaved> {
    let Some((record_bytes, rest)) = bytes.split_first_chunk::<RECORD_SIZE>() else { return Ok(None) };
    // What is wrong with the record is said before its parts are waited for.
    let record = Record::decode(record_bytes)?;
    if !(kind::APPLY..=kind::ROLLBACK).contains(&record.kind) {
        return Err(AdminPeerMisbehaved::UnknownKind(record.kind));
    }
    let [first_size, second_size] = record.part_sizes.map(|size| size as usize);
    let Some(parts) = rest.get(..first_size + second_size) else { return Ok(None) };
    let (first, second) = parts.split_at(first_size);
    decode_whole(&record, text(first)?, second).map(Some)
}

fn text(bytes: &[u8]) -> Result<String, AdminPeerMisbehaved> {
    core::str::from_utf8(bytes).map(str::to_owned).map_err(|_| AdminPeerMisbehaved::TextInvalid)
}

fn decode_whole(record: &Record, first: String, second: &[u8]) -> Result<Message, AdminPeerMisbehaved> {
    let Record { number, looked_at_ns, size, flags, .. } = *record;
    let shelf = if flags & kind::FLAG_DEAD_LETTERS != 0 { Shelf::DeadLetters } else { Shelf::Quarantine };
    Ok(match record.kind {
        kind::APPLY => {
            Message::Apply { origin: first, text: text(second)?, is_dry_run: flags & kind::FLAG_DRY_RUN != 0 }
        }
        kind::ROLLBACK => Message::Rollback { is_dry_run: flags & kind::FLAG_DRY_RUN != 0 },
        kind::APPLIED => Message::Applied { taken: first, needs_restart: text(second)? },
        kind::REFUSED => Message::Refused { reasons: first },
        kind::WHY => Message::Why { invocation_id: record.invocation_id },
        kind::CALL => Message::Call { report: record.report(), function: first },
        kind::NO_SUCH_CALL => Message::NoSuchCall,
        kind::STOPPING => Message::Stopping,
        kind::LIST => Message::List { shelf, after: number },
        kind::LISTED => Message::Listed {
            looked_at_ns,
            calls: kept::decode_list(&first, second).ok_or(AdminPeerMisbehaved::ListInvalid)?,
            has_more: flags & kind::FLAG_HAS_MORE != 0,
        },
        kind::SHOW => Message::Show { shelf, number, offset: record.offset },
        kind::SHOWN => Message::Shown { looked_at_ns, call: record.kept_call(first), piece: second.to_vec() },
        kind::REPLAY => Message::Replay { shelf, number },
        kind::REPLAYED => Message::Replayed {
            status: record.status,
            took_ns: record.took_ns,
            result_size: size,
            function: first,
            result: second.to_vec(),
        },
        kind::DROP => Message::Drop { shelf, number },
        kind::DROPPED => Message::Dropped { looked_at_ns, call: record.kept_call(first) },
        unknown => return Err(AdminPeerMisbehaved::UnknownKind(unknown)),
    })
}

impl Message {
    /// The message as bytes. Parts that together are longer than [`PARTS_SIZE_MAX`] are refused by whoever decodes them.
    pub fn encode(&self) -> Vec<u8> {
        let about = |kind, shelf: &Shelf, number: &u64| {
            let flags = if *shelf == Shelf::DeadLetters { kind::FLAG_DEAD_LETTERS } else { 0 };
            Record { kind, flags, number: *number, ..Record::default() }
        };
        let with = |kind| Record { kind, ..Record::default() };
        let dry_run = |is_dry_run| if is_dry_run { kind::FLAG_DRY_RUN } else { 0 };
        match self {
            Message::Apply { origin, text, is_dry_run } => {
                Record { flags: dry_run(*is_dry_run), ..with(kind::APPLY) }
                    .followed_by(origin, text.as_bytes())
            }
            Message::Rollback { is_dry_run } => {
                Record { flags: dry_run(*is_dry_run), ..with(kind::ROLLBACK) }.followed_by("", &[])
            }
            Message::Applied { taken, needs_restart } => {
                with(kind::APPLIED).followed_by(taken, needs_restart.as_bytes())
            }
            Message::Refused { reasons } => with(kind::REFUSED).followed_by(reasons, &[]),
            Message::Why { invocation_id } => {
                Record { invocation_id: *invocation_id, ..with(kind::WHY) }.followed_by("", &[])
            }
            Message::Call { report, function } => {
                Record { kind: kind::CALL, ..Record::of_report(report) }.followed_by(function, &[])
            }
            Message::NoSuchCall => with(kind::NO_SUCH_CALL).followed_by("", &[]),
            Message::Stopping => with(kind::STOPPING).followed_by("", &[]),
            Message::List { shelf, after } => about(kind::LIST, shelf, after).followed_by("", &[]),
            Message::Listed { looked_at_ns, calls, has_more } => {
                let (names, rows) = kept::encode_list(calls);
                let flags = if *has_more { kind::FLAG_HAS_MORE } else { 0 };
                Record { flags, looked_at_ns: *looked_at_ns, ..with(kind::LISTED) }.followed_by(&names, &rows)
            }
            Message::Show { shelf, number, offset } => {
                Record { offset: *offset, ..about(kind::SHOW, shelf, number) }.followed_by("", &[])
            }
            Message::Shown { looked_at_ns, call, piece } => {
                Record { kind: kind::SHOWN, looked_at_ns: *looked_at_ns, ..Record::of_kept_call(call) }
                    .followed_by(&call.function, piece)
            }
            Message::Replay { shelf, number } => about(kind::REPLAY, shelf, number).followed_by("", &[]),
            Message::Replayed { status, took_ns, result_size, function, result } => {
                let record = with(kind::REPLAYED);
                Record { status: *status, took_ns: *took_ns, size: *result_size, ..record }
                    .followed_by(function, result)
            }
            Message::Drop { shelf, number } => about(kind::DROP, shelf, number).followed_by("", &[]),
            Message::Dropped { looked_at_ns, call } => {
                Record { kind: kind::DROPPED, looked_at_ns: *looked_at_ns, ..Record::of_kept_call(call) }
                    .followed_by(&call.function, &[])
            }
        }
    }
}
