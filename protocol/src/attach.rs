//! The attach protocol: fixed records between a router shard, its workers, the shim and clients with a ring of their own,
//! on a local stream socket.
//!
//! In: bytes of the attach socket.  Out: [`Message`]s, or [`AttachPeerMisbehaved`].
//! Always: a record is 64 bytes, followed by `name_size` bytes of a function's name where the kind has one. Each
//! carries magic and version, because the two ends may come from different builds after an upgrade.
//! Never: allocates on decode, trusts a peer's size or text, or says anything about calls: those are in the ring.
//! Why not the wire protocol's frames: this socket also carries file descriptors and peer death, is never remote,
//! and changes with the ring's layout instead of with clients.
//!
//! ```text
//!  0 u32 magic "QKFA" |  4 u16 version     |  6 u16 kind       |  8 u16 name_size | 10 u16 reason | 12 u32 process_id
//! 16 u64 token        | 24 u64 config_digest
//! 32 u32 worker_index | 36 u32 generation  | 40 u32 slot_count | 44 u32 region_size
//! 48 u32 function_id  | 52 u16 shard | 54 u16 status | 56 u32 exit_code | 60 u32 zero     fields of other kinds: zero
//!
//! worker                          router shard                        shim
//!   | AttachWorker ------------------>|<------------------ AttachShim  |
//!   |<-- Attached + memfd + eventfd   |   ShimAccepted --------------->|
//!   |    (or Refused, then closed)    |   (or Refused, then closed)    |
//!   |          ... calls go through the ring ...                       |
//!   |                                 |<------------- FunctionFailing  |
//!   |                                 |   ShimReload ----------------->|
//!   |                                 |   EditionServes -------------->|
//!   |                                 |   PlacesWanted --------------->|
//!   |<-- Stop                         |   ShimStop ------------------->|
//!   | end of stream: the peer is dead                                  |
//!
//! client                          router shard      (docs/spec/shm.md, "Client attach")
//!   | AttachClient ------------------>|
//!   |<-- ClientAttached + memfd + eventfd, or Refused, then closed
//!   | Resolve ----------------------->|
//!   |<--------------------- Resolved  |
//!   | CancelCall -------------------->|
//!   |<----------------------- Goaway  |
//! ```
//!
//! Direct lanes have a picture of their own: [`lane`].
//!
//! Why a client's few words that are not calls travel here and not in its ring: they are rare, and a ring of which
//! every entry is a call needs one check less on the path of each.

pub mod lane;
mod misbehaved;

use crate::ids::FunctionId;
use crate::name::FunctionName;
use core::mem::{offset_of, size_of};
use rkyv::api::low;
use rkyv::rancor::Failure;
use rkyv::util::Align;
use rkyv::{Archive, Deserialize, Serialize};

use lane::{LaneEnd, LaneOpened, LaneRefused};
pub use misbehaved::AttachPeerMisbehaved;

/// Bytes of a record without its name.
pub const RECORD_SIZE: usize = 64;
/// Bytes of the largest message.
pub const MESSAGE_SIZE_MAX: usize = RECORD_SIZE + crate::limits::NAME_SIZE_MAX;
/// "QKFA" as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"QKFA");
/// The one version spoken. The shared-memory ring has its own.
pub const VERSION: u16 = 1;

/// One message on the attach socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Worker to router: I run this function, give me a ring.
    AttachWorker {
        /// The function it runs.
        name: FunctionName,
        /// What the shim gave it in its environment: the edition of the function that it was started as.
        token: u64,
        /// Its process, to be compared with what the kernel says of the socket's peer.
        process_id: u32,
        /// Direct lanes it can serve at once; 0: it knows none.
        lanes_max: u32,
    },
    /// Shim to router: I keep the function processes.
    AttachShim {
        /// Over what it was started for and keeps for its life: a router with another number refuses.
        config_digest: u64,
        /// Its process.
        process_id: u32,
    },
    /// Router to worker, together with two file descriptors: the ring's memory and the router's doorbell.
    Attached(Attached),
    /// Router to shim: you are the keeper.
    ShimAccepted {
        /// The shard that speaks.
        shard: u16,
    },
    /// Router to worker, shim or client: no, and the socket is closed.
    Refused {
        /// Why.
        reason: AttachRefused,
    },
    /// Router to worker: finish what you have taken, then exit with 0.
    Stop,
    /// Router to shim: stop the processes, then exit with 0.
    ShimStop,
    /// Router to shim: the run directory says anew which processes are to be kept.
    ShimReload,
    /// Router to shim: in this shard, a process of this edition takes the calls of the function. Those of every other edition
    /// end when they have answered what they hold, and are not to be started again.
    EditionServes {
        /// The function.
        name: FunctionName,
        /// The token of the processes that serve.
        edition: u64,
    },
    /// Router to shim: in this shard, so many processes of this edition of the function are to be kept. The shim keeps them
    /// between the least and the most that it was configured with; until it is told, the least.
    PlacesWanted {
        /// The function.
        name: FunctionName,
        /// The token of the processes that are meant.
        edition: u64,
        /// How many.
        count: u32,
        /// The one that is told to end and is not among them; 0: none is.
        leaving: u32,
    },
    /// Shim to router: the processes of this function keep failing.
    FunctionFailing {
        /// The function.
        name: FunctionName,
        /// How its last process ended: the exit code, or 128 + the signal.
        exit_code: u32,
    },
    /// Client to router: I want to call functions through a ring.
    AttachClient {
        /// Its process.
        process_id: u32,
        /// Slots wanted; 0 for what is usual.
        slot_count: u32,
        /// The largest payload wanted; 0 for what is usual.
        payload_size_max: u32,
    },
    /// Router to client, together with two file descriptors: the ring's memory and the router's doorbell.
    ClientAttached(ClientAttached),
    /// Client to router: which number has this function?
    Resolve {
        /// The function.
        name: FunctionName,
    },
    /// Router to client: the answer to the oldest `Resolve` without one.
    Resolved {
        /// The function's number, if the status is ok.
        function_id: FunctionId,
        /// As in the wire's RESOLVED.
        status: u16,
    },
    /// Client to router: nobody wants this call's answer any more. It is answered all the same.
    CancelCall {
        /// Its place in the ring.
        slot: u32,
        /// The client's own number of it.
        call_id: u64,
    },
    /// Router to client: no new calls; as the wire's GOAWAY.
    Goaway {
        /// Why, as on the wire.
        status: u16,
    },
    /// Client to router: I want to call this function through a lane.
    LaneWanted {
        /// The function's number.
        function_id: FunctionId,
        /// Slots wanted; 0 for what is usual.
        slot_count: u32,
        /// The largest payload wanted; 0 for what is usual.
        payload_size_max: u32,
    },
    /// Router to client and worker, together with two file descriptors: the lane's memory and the worker's doorbell.
    LaneOpened(LaneOpened),
    /// Router to client: no lane.
    LaneRefused {
        /// Why.
        reason: LaneRefused,
    },
    /// Router to worker: take nothing more from this lane.
    LaneRevoke {
        /// Which.
        lane_id: u32,
    },
    /// Router to client: this lane is over.
    LaneClosed {
        /// Which.
        lane_id: u32,
        /// Why.
        reason: LaneEnd,
    },
}

/// What a client is told about its ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientAttached {
    /// Its place in the shard's table of clients.
    pub client_index: u32,
    /// Which client in that place: told apart from earlier ones.
    pub generation: u32,
    /// Its shard.
    pub shard: u16,
    /// Slots of its ring.
    pub slot_count: u32,
    /// Bytes of each slot's request region and result region.
    pub region_size: u32,
}

/// What a worker is told about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Its place in the shard's table of workers.
    pub worker_index: u32,
    /// Which worker in that place: told apart from earlier ones.
    pub generation: u32,
    /// Its shard.
    pub shard: u16,
    /// The number of its function.
    pub function_id: FunctionId,
    /// Slots of its ring.
    pub slot_count: u32,
    /// Bytes of each slot's request region and result region.
    pub region_size: u32,
}

/// Why a worker, shim or client is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[repr(u16)]
pub enum AttachRefused {
    /// Its version of this protocol is not spoken.
    #[error("the version of the attach protocol is not spoken here")]
    VersionUnsupported = 1,
    /// No function has this name.
    #[error("no function has this name")]
    UnknownFunction = 2,
    /// It was started as another edition of its function than the one in force, and than those that serve.
    #[error("the function is served by processes of another edition")]
    TokenWrong = 3,
    /// The shard's table of workers is full.
    #[error("the shard has as many workers as it may")]
    TooManyWorkers = 4,
    /// The shim was started for a router with other shards, another run directory or another patience.
    #[error("the shim was started for another router")]
    ConfigDiffers = 5,
    /// There is a shim already.
    #[error("another shim is attached")]
    ShimPresent = 6,
    /// The router is shutting down.
    #[error("the router is shutting down")]
    Draining = 7,
    /// The function is quarantined: its calls killed too many workers.
    #[error("the function is quarantined")]
    Quarantined = 8,
    /// Memory or file descriptors for the ring could not be had.
    #[error("the router could not create the ring")]
    RingUnavailable = 9,
    /// The process is not the one that the kernel names, or belongs to another user.
    #[error("the peer's credentials are not those of a process of this router")]
    PeerUntrusted = 10,
    /// The shard's table of clients is full.
    #[error("the shard has as many shared-memory clients as it may")]
    TooManyClients = 11,
    /// Not even one slot of that size fits the memory that one client may have.
    #[error("a ring for payloads of that size is larger than the memory one client may have")]
    RingTooLarge = 12,
}

impl AttachRefused {
    /// Every reason, by number.
    pub const ALL: [AttachRefused; 12] = [
        AttachRefused::VersionUnsupported,
        AttachRefused::UnknownFunction,
        AttachRefused::TokenWrong,
        AttachRefused::TooManyWorkers,
        AttachRefused::ConfigDiffers,
        AttachRefused::ShimPresent,
        AttachRefused::Draining,
        AttachRefused::Quarantined,
        AttachRefused::RingUnavailable,
        AttachRefused::PeerUntrusted,
        AttachRefused::TooManyClients,
        AttachRefused::RingTooLarge,
    ];
}

/// The record as it lies in memory. Private: people use [`Message`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Default)]
struct Record {
    magic: u32,
    version: u16,
    kind: u16,
    name_size: u16,
    reason: u16,
    process_id: u32,
    token: u64,
    config_digest: u64,
    worker_index: u32,
    generation: u32,
    slot_count: u32,
    region_size: u32,
    function_id: u32,
    shard: u16,
    status: u16,
    exit_code: u32,
    reserved_60: u32,
}

const _: () = assert!(size_of::<ArchivedRecord>() == RECORD_SIZE);
const _: () = assert!(offset_of!(ArchivedRecord, magic) == 0);
const _: () = assert!(offset_of!(ArchivedRecord, version) == 4);
const _: () = assert!(offset_of!(ArchivedRecord, kind) == 6);
const _: () = assert!(offset_of!(ArchivedRecord, name_size) == 8);
const _: () = assert!(offset_of!(ArchivedRecord, reason) == 10);
const _: () = assert!(offset_of!(ArchivedRecord, process_id) == 12);
const _: () = assert!(offset_of!(ArchivedRecord, token) == 16);
const _: () = assert!(offset_of!(ArchivedRecord, config_digest) == 24);
const _: () = assert!(offset_of!(ArchivedRecord, worker_index) == 32);
const _: () = assert!(offset_of!(ArchivedRecord, generation) == 36);
const _: () = assert!(offset_of!(ArchivedRecord, slot_count) == 40);
const _: () = assert!(offset_of!(ArchivedRecord, region_size) == 44);
const _: () = assert!(offset_of!(ArchivedRecord, function_id) == 48);
const _: () = assert!(offset_of!(ArchivedRecord, shard) == 52);
const _: () = assert!(offset_of!(ArchivedRecord, status) == 54);
const _: () = assert!(offset_of!(ArchivedRecord, exit_code) == 56);
const _: () = assert!(offset_of!(ArchivedRecord, reserved_60) == 60);

const KIND_ATTACH_WORKER: u16 = 1;
const KIND_ATTACH_SHIM: u16 = 2;
const KIND_ATTACHED: u16 = 3;
const KIND_SHIM_ACCEPTED: u16 = 4;
const KIND_REFUSED: u16 = 5;
const KIND_STOP: u16 = 6;
const KIND_SHIM_STOP: u16 = 7;
const KIND_FUNCTION_FAILING: u16 = 8;
const KIND_ATTACH_CLIENT: u16 = 9;
const KIND_CLIENT_ATTACHED: u16 = 10;
const KIND_RESOLVE: u16 = 11;
const KIND_RESOLVED: u16 = 12;
const KIND_CANCEL_CALL: u16 = 13;
const KIND_GOAWAY: u16 = 14;
const KIND_LANE_WANTED: u16 = 15;
const KIND_LANE_OPENED: u16 = 16;
const KIND_LANE_REFUSED: u16 = 17;
const KIND_LANE_REVOKE: u16 = 18;
const KIND_LANE_CLOSED: u16 = 19;
const KIND_SHIM_RELOAD: u16 = 20;
const KIND_EDITION_SERVES: u16 = 21;
const KIND_PLACES_WANTED: u16 = 22;
/// The last of them.
const KIND_MAX: u16 = KIND_PLACES_WANTED;

/// Looks at the front of `bytes`. `Ok(None)` means that the message is not complete yet; otherwise the message and
/// its size, behind which the next one starts.
pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, AttachPeerMisbehaved> {
    let Some((record_bytes, rest)) = bytes.split_first_chunk::<RECORD_SIZE>() else {
        return Ok(None);
    };
    let aligned = Align(*record_bytes);
    let archived = low::access::<ArchivedRecord, Failure>(aligned.as_slice())
        .map_err(|_| AttachPeerMisbehaved::RecordInvalid)?;
    let record =
        low::deserialize::<Record, Failure>(archived).map_err(|_| AttachPeerMisbehaved::RecordInvalid)?;
    check_record(&record)?;
    let name_size = usize::from(record.name_size);
    let Some(name) = rest.get(..name_size) else {
        return Ok(None);
    };
    let message = match record.kind {
        KIND_ATTACH_WORKER => Message::AttachWorker {
            name: FunctionName::from_bytes(name)?,
            token: record.token,
            process_id: record.process_id,
            lanes_max: record.slot_count,
        },
        KIND_ATTACH_SHIM => {
            Message::AttachShim { config_digest: record.config_digest, process_id: record.process_id }
        }
        KIND_ATTACHED => Message::Attached(Attached {
            worker_index: record.worker_index,
            generation: record.generation,
            shard: record.shard,
            function_id: FunctionId(record.function_id),
            slot_count: record.slot_count,
            region_size: record.region_size,
        }),
        KIND_SHIM_ACCEPTED => Message::ShimAccepted { shard: record.shard },
        KIND_REFUSED => {
            let reason = find_reason(&AttachRefused::ALL, |known| known as u16, record.reason)?;
            Message::Refused { reason }
        }
        KIND_STOP => Message::Stop,
        KIND_SHIM_STOP => Message::ShimStop,
        KIND_SHIM_RELOAD => Message::ShimReload,
        KIND_EDITION_SERVES => {
            Message::EditionServes { name: FunctionName::from_bytes(name)?, edition: record.token }
        }
        KIND_PLACES_WANTED => Message::PlacesWanted {
            name: FunctionName::from_bytes(name)?,
            edition: record.token,
            count: record.slot_count,
            leaving: record.process_id,
        },
        KIND_FUNCTION_FAILING => {
            Message::FunctionFailing { name: FunctionName::from_bytes(name)?, exit_code: record.exit_code }
        }
        KIND_ATTACH_CLIENT => Message::AttachClient {
            process_id: record.process_id,
            slot_count: record.slot_count,
            payload_size_max: record.region_size,
        },
        KIND_CLIENT_ATTACHED => Message::ClientAttached(ClientAttached {
            client_index: record.worker_index,
            generation: record.generation,
            shard: record.shard,
            slot_count: record.slot_count,
            region_size: record.region_size,
        }),
        KIND_RESOLVE => Message::Resolve { name: FunctionName::from_bytes(name)? },
        KIND_RESOLVED => {
            Message::Resolved { function_id: FunctionId(record.function_id), status: record.status }
        }
        KIND_CANCEL_CALL => Message::CancelCall { slot: record.worker_index, call_id: record.token },
        KIND_GOAWAY => Message::Goaway { status: record.status },
        KIND_LANE_WANTED => Message::LaneWanted {
            function_id: FunctionId(record.function_id),
            slot_count: record.slot_count,
            payload_size_max: record.region_size,
        },
        KIND_LANE_OPENED => Message::LaneOpened(LaneOpened {
            lane_id: record.worker_index,
            generation: record.generation,
            function_id: FunctionId(record.function_id),
            slot_count: record.slot_count,
            region_size: record.region_size,
            payload_size_max: record.exit_code,
            timeout_ns: record.token,
        }),
        KIND_LANE_REFUSED => {
            let reason = find_reason(&LaneRefused::ALL, |known| known as u16, record.reason)?;
            Message::LaneRefused { reason }
        }
        KIND_LANE_REVOKE => Message::LaneRevoke { lane_id: record.worker_index },
        KIND_LANE_CLOSED => {
            let reason = find_reason(&LaneEnd::ALL, |known| known as u16, record.reason)?;
            Message::LaneClosed { lane_id: record.worker_index, reason }
        }
        unknown => return Err(AttachPeerMisbehaved::UnknownKind(unknown)),
    };
    Ok(Some((message, RECORD_SIZE + name_size)))
}

/// The reason of this number.
fn find_reason<R: Copy>(
    all: &[R],
    number_of: impl Fn(R) -> u16,
    number: u16,
) -> Result<R, AttachPeerMisbehaved> {
    let found = all.iter().copied().find(|reason| number_of(*reason) == number);
    found.ok_or(AttachPeerMisbehaved::UnknownReason(number))
}

/// Everything that is wrong without looking at the name, so that a bad peer is refused before it sends one.
fn check_record(record: &Record) -> Result<(), AttachPeerMisbehaved> {
    let Record { magic, version, kind, name_size, .. } = *record;
    if magic != MAGIC {
        return Err(AttachPeerMisbehaved::MagicWrong { magic });
    }
    if version != VERSION {
        return Err(AttachPeerMisbehaved::VersionUnsupported { version });
    }
    if !(KIND_ATTACH_WORKER..=KIND_MAX).contains(&kind) {
        return Err(AttachPeerMisbehaved::UnknownKind(kind));
    }
    let name_size_max = match kind {
        KIND_ATTACH_WORKER
        | KIND_FUNCTION_FAILING
        | KIND_RESOLVE
        | KIND_EDITION_SERVES
        | KIND_PLACES_WANTED => crate::limits::NAME_SIZE_MAX,
        _ => 0,
    };
    if usize::from(name_size) > name_size_max {
        return Err(AttachPeerMisbehaved::NameUnexpected { kind, name_size });
    }
    Ok(())
}

impl Message {
    /// Appends the message to `out`. Returns the bytes appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        let (record, name) = self.to_record();
        out.extend_from_slice(&encode_record(&record));
        if let Some(name) = name {
            out.extend_from_slice(name.as_bytes());
        }
        RECORD_SIZE + usize::from(record.name_size)
    }

    fn to_record(self) -> (Record, Option<FunctionName>) {
        let blank = Record { magic: MAGIC, version: VERSION, ..Record::default() };
        match self {
            Message::AttachWorker { name, token, process_id, lanes_max } => {
                let (kind, name_size) = (KIND_ATTACH_WORKER, name.as_bytes().len() as u16);
                let slot_count = lanes_max;
                (Record { kind, name_size, token, process_id, slot_count, ..blank }, Some(name))
            }
            Message::AttachShim { config_digest, process_id } => {
                (Record { kind: KIND_ATTACH_SHIM, config_digest, process_id, ..blank }, None)
            }
            Message::Attached(attached) => {
                let Attached { worker_index, generation, shard, function_id, slot_count, region_size } =
                    attached;
                let function_id = function_id.0;
                let record = Record {
                    kind: KIND_ATTACHED,
                    worker_index,
                    generation,
                    shard,
                    function_id,
                    slot_count,
                    region_size,
                    ..blank
                };
                (record, None)
            }
            Message::ShimAccepted { shard } => (Record { kind: KIND_SHIM_ACCEPTED, shard, ..blank }, None),
            Message::Refused { reason } => {
                (Record { kind: KIND_REFUSED, reason: reason as u16, ..blank }, None)
            }
            Message::Stop => (Record { kind: KIND_STOP, ..blank }, None),
            Message::ShimStop => (Record { kind: KIND_SHIM_STOP, ..blank }, None),
            Message::ShimReload => (Record { kind: KIND_SHIM_RELOAD, ..blank }, None),
            Message::EditionServes { name, edition } => {
                let (kind, name_size) = (KIND_EDITION_SERVES, name.as_bytes().len() as u16);
                (Record { kind, name_size, token: edition, ..blank }, Some(name))
            }
            Message::PlacesWanted { name, edition, count, leaving } => {
                let (kind, name_size) = (KIND_PLACES_WANTED, name.as_bytes().len() as u16);
                let places = Record { slot_count: count, process_id: leaving, ..blank };
                (Record { kind, name_size, token: edition, ..places }, Some(name))
            }
            Message::FunctionFailing { name, exit_code } => {
                let name_size = name.as_bytes().len() as u16;
                (Record { kind: KIND_FUNCTION_FAILING, name_size, exit_code, ..blank }, Some(name))
            }
            Message::AttachClient { process_id, slot_count, payload_size_max } => {
                let region_size = payload_size_max;
                (Record { kind: KIND_ATTACH_CLIENT, process_id, slot_count, region_size, ..blank }, None)
            }
            Message::ClientAttached(attached) => {
                let ClientAttached { client_index, generation, shard, slot_count, region_size } = attached;
                let worker_index = client_index;
                let kind = KIND_CLIENT_ATTACHED;
                (Record { kind, worker_index, generation, shard, slot_count, region_size, ..blank }, None)
            }
            Message::Resolve { name } => {
                let name_size = name.as_bytes().len() as u16;
                (Record { kind: KIND_RESOLVE, name_size, ..blank }, Some(name))
            }
            Message::Resolved { function_id, status } => {
                (Record { kind: KIND_RESOLVED, function_id: function_id.0, status, ..blank }, None)
            }
            Message::CancelCall { slot, call_id } => {
                (Record { kind: KIND_CANCEL_CALL, worker_index: slot, token: call_id, ..blank }, None)
            }
            Message::Goaway { status } => (Record { kind: KIND_GOAWAY, status, ..blank }, None),
            Message::LaneWanted { function_id, slot_count, payload_size_max } => {
                let (kind, function_id, region_size) = (KIND_LANE_WANTED, function_id.0, payload_size_max);
                (Record { kind, function_id, slot_count, region_size, ..blank }, None)
            }
            Message::LaneOpened(opened) => {
                let LaneOpened { generation, slot_count, region_size, .. } = opened;
                let (worker_index, function_id) = (opened.lane_id, opened.function_id.0);
                let (token, exit_code) = (opened.timeout_ns, opened.payload_size_max);
                let ring = Record { generation, slot_count, region_size, ..blank };
                (Record { kind: KIND_LANE_OPENED, worker_index, token, function_id, exit_code, ..ring }, None)
            }
            Message::LaneRefused { reason } => {
                (Record { kind: KIND_LANE_REFUSED, reason: reason as u16, ..blank }, None)
            }
            Message::LaneRevoke { lane_id } => {
                (Record { kind: KIND_LANE_REVOKE, worker_index: lane_id, ..blank }, None)
            }
            Message::LaneClosed { lane_id, reason } => {
                let (kind, reason) = (KIND_LANE_CLOSED, reason as u16);
                (Record { kind, worker_index: lane_id, reason, ..blank }, None)
            }
        }
    }
}

fn encode_record(record: &Record) -> [u8; RECORD_SIZE] {
    let mut bytes = [0; RECORD_SIZE];
    bytes[0..4].copy_from_slice(&record.magic.to_le_bytes());
    bytes[4..6].copy_from_slice(&record.version.to_le_bytes());
    bytes[6..8].copy_from_slice(&record.kind.to_le_bytes());
    bytes[8..10].copy_from_slice(&record.name_size.to_le_bytes());
    bytes[10..12].copy_from_slice(&record.reason.to_le_bytes());
    bytes[12..16].copy_from_slice(&record.process_id.to_le_bytes());
    bytes[16..24].copy_from_slice(&record.token.to_le_bytes());
    bytes[24..32].copy_from_slice(&record.config_digest.to_le_bytes());
    bytes[32..36].copy_from_slice(&record.worker_index.to_le_bytes());
    bytes[36..40].copy_from_slice(&record.generation.to_le_bytes());
    bytes[40..44].copy_from_slice(&record.slot_count.to_le_bytes());
    bytes[44..48].copy_from_slice(&record.region_size.to_le_bytes());
    bytes[48..52].copy_from_slice(&record.function_id.to_le_bytes());
    bytes[52..54].copy_from_slice(&record.shard.to_le_bytes());
    bytes[54..56].copy_from_slice(&record.status.to_le_bytes());
    bytes[56..60].copy_from_slice(&record.exit_code.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
