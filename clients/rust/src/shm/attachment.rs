//! How a client gets its ring: connect, AttachClient, and what comes back (`protocol::attach`).
//!
//! In: the router's run directory, and what is wanted.  Out: a [`ShmClient`], or why there is none.
//! Always: what was received is checked before it is used: the seals of the memory, the constants of the ring, and that
//! both belong to the answer they came with.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::Status;
use protocol::attach::{self, AttachRefused, MESSAGE_SIZE_MAX, Message};
use shm_ring::client_ring::ClientEnd;
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Mapped, pass};

use super::{Aside, Options, SPIN_ROUND_NS, ShmClient};
use crate::error::{ConnectError, RouterMisbehaved};
use crate::url::RouterUrl;

/// Where a shard of the router listens for those who attach.
pub(crate) fn attach_socket(run_dir: &Path, shard: u32) -> PathBuf {
    run_dir.join(format!("attach-{shard}.sock"))
}

/// Why there is no ring.
pub(crate) enum Failed {
    Io(io::Error),
    Misbehaved(RouterMisbehaved),
    Refused(AttachRefused),
}

impl<E: Into<io::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

impl Failed {
    /// As who asked is told.
    pub(super) fn at(self, run_dir: &Path) -> ConnectError {
        let url = RouterUrl::Shm(run_dir.to_owned());
        match self {
            Self::Io(source) => ConnectError::Unreachable { url, source },
            Self::Misbehaved(source) => ConnectError::RouterMisbehaved { url, source },
            Self::Refused(reason) => {
                ConnectError::Refused { url, status: status_of(reason), reason: reason.to_string() }
            }
        }
    }
}

/// One try.
pub(super) fn try_attach(run_dir: &Path, options: &Options) -> Result<ShmClient, Failed> {
    try_attach_with_memory(run_dir, options).map(|(client, _memory_fd)| client)
}

/// The same, with the descriptor of the ring's memory for those who map it once more.
pub(super) fn try_attach_with_memory(
    run_dir: &Path,
    options: &Options,
) -> Result<(ShmClient, OwnedFd), Failed> {
    let socket = UnixStream::connect(attach_socket(run_dir, options.shard))?;
    // A time limit of zero means "none" to sockets.
    let timeout = Some(options.timeout.max(Duration::from_millis(1)));
    socket.set_read_timeout(timeout)?;
    socket.set_write_timeout(timeout)?;
    let mut bytes = Vec::with_capacity(MESSAGE_SIZE_MAX);
    let Options { slot_count, payload_size_max, .. } = *options;
    Message::AttachClient { process_id: std::process::id(), slot_count, payload_size_max }.encode(&mut bytes);
    (&socket).write_all(&bytes)?;

    let mut unread = Vec::with_capacity(MESSAGE_SIZE_MAX);
    let mut fds = Vec::new();
    let unexpected = || Failed::Misbehaved(RouterMisbehaved::RecordUnexpected);
    let attached = loop {
        if let Some((message, size)) = attach::decode(&unread).map_err(|_| unexpected())? {
            unread.drain(..size);
            match message {
                Message::ClientAttached(attached) => break attached,
                Message::Refused { reason } => return Err(Failed::Refused(reason)),
                _ => return Err(unexpected()),
            }
        }
        let mut bytes = [0; MESSAGE_SIZE_MAX];
        match pass::receive_with_fds(&socket, &mut bytes, &mut fds)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            size => unread.extend_from_slice(&bytes[..size]),
        }
    };
    let Ok([memory_fd, bell_fd]) = <[OwnedFd; 2]>::try_from(fds) else { return Err(unexpected()) };
    let memory = Mapped::attach(&memory_fd).map_err(io::Error::other)?;
    let ring = ClientEnd::attach(memory).map_err(io::Error::other)?;
    let (geometry, identity) = (ring.geometry(), ring.identity());
    let told = (attached.client_index, attached.generation, attached.slot_count, attached.region_size);
    let found = (identity.client_id, identity.generation.0, geometry.slot_count(), geometry.region_size());
    if told != found {
        return Err(unexpected());
    }
    // Page faults now instead of in the first calls. The regions come when they are needed.
    let regions_size = geometry.slot_count() as usize * 2 * geometry.region_size() as usize;
    ring.memory().populate(geometry.memory_size() - regions_size);
    let spin_rounds = u64::try_from(options.spin.as_nanos()).unwrap_or(u64::MAX) / SPIN_ROUND_NS;
    let client = ShmClient {
        ring,
        bell: EventDoorbell::from_fd(bell_fd),
        socket,
        unread,
        attached,
        aside: Box::new(Aside {
            run_dir: run_dir.to_owned(),
            options: options.clone(),
            asked_count: 0,
            resolved: VecDeque::new(),
        }),
        goaway: None,
        ended: None,
        spin_count_max: u32::try_from(spin_rounds).unwrap_or(u32::MAX),
        lane: None,
        lane_end: None,
    };
    Ok((client, memory_fd))
}

/// The status that says the same on a connection.
pub(crate) fn status_of(reason: AttachRefused) -> Status {
    match reason {
        AttachRefused::TooManyClients => Status::TooManyConnections,
        AttachRefused::Draining => Status::GoingAway,
        AttachRefused::RingTooLarge => Status::PayloadTooLarge,
        AttachRefused::VersionUnsupported => Status::UnsupportedVersion,
        _ => Status::Overloaded,
    }
}
