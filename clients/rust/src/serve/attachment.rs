//! How a function process gets its ring: connect, AttachWorker, and what comes back (`protocol::attach`).
//!
//! In: the environment.  Out: an [`Attachment`], or why there is none.
//! Always: what was received is checked before it is used: the seals of the memory, the constants of the ring, and
//! that both belong to the answer they came with.
//! Never: waits for a router that took the connection and says nothing for longer than [`ANSWER_TIMEOUT`].

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use protocol::attach::{self, AttachRefused, Attached, MESSAGE_SIZE_MAX, Message};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Mapped, WorkerEnd, pass};

use super::environment::Environment;
use super::lanes::LANES_MAX;

/// A router answers within a turn; one that is stopped, or busy with something terrible, gets this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A ring, the router's bell, and the socket whose end is the router's death.
pub struct Attachment {
    /// This side of the ring.
    pub ring: WorkerEnd<Mapped>,
    /// Wakes the router.
    pub bell: EventDoorbell,
    /// Stays open as long as both live.
    pub stream: UnixStream,
    /// The same memory once more, for the thread that wakes this process from its sleep on the ring, and for what the process
    /// shows of its calls.
    pub waker: Arc<Mapped>,
    /// What came on the socket behind the answer.
    pub unread: Vec<u8>,
    /// The ring's memory. Kept open until the next ring comes, so that `quickfire inspect` can read it through
    /// `/proc/PID/fd` also when the router is dead.
    pub memory_fd: Option<OwnedFd>,
}

/// Why there is no attachment this time.
#[derive(Debug)]
pub enum AttachFailed {
    /// The router said no.
    Refused(AttachRefused),
    /// Nobody is there, or what is there does not talk like a router.
    System(io::Error),
}

impl<E: Into<io::Error>> From<E> for AttachFailed {
    fn from(error: E) -> Self {
        AttachFailed::System(error.into())
    }
}

impl Attachment {
    /// One try.
    pub fn new(environment: &Environment) -> Result<Self, AttachFailed> {
        let mut stream = UnixStream::connect(&environment.attach_socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;

        let mut bytes = Vec::with_capacity(MESSAGE_SIZE_MAX);
        let Environment { function, token, .. } = *environment;
        let (name, process_id, lanes_max) = (function, std::process::id(), LANES_MAX);
        Message::AttachWorker { name, token, process_id, lanes_max }.encode(&mut bytes);
        stream.write_all(&bytes)?;

        let (answer, fds, unread) = receive_answer(&stream)?;
        let attached = match answer {
            Message::Attached(attached) => attached,
            Message::Refused { reason } => return Err(AttachFailed::Refused(reason)),
            other => return Err(io::Error::other(format!("the router answered with {other:?}")).into()),
        };
        let Ok([memory_fd, bell_fd]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(io::Error::other("the router did not send a ring and a bell").into());
        };
        let ring = map_ring(&memory_fd, &attached)?;
        let waker = Arc::new(Mapped::attach(&memory_fd).map_err(io::Error::other)?);
        stream.set_read_timeout(None)?;
        Ok(Self {
            ring,
            bell: EventDoorbell::from_fd(bell_fd),
            stream,
            waker,
            unread,
            memory_fd: Some(memory_fd),
        })
    }
}

/// The first message, the descriptors that came with it, and the bytes behind it.
fn receive_answer(stream: &UnixStream) -> io::Result<(Message, Vec<OwnedFd>, Vec<u8>)> {
    let mut received = Vec::with_capacity(MESSAGE_SIZE_MAX);
    let mut fds = Vec::new();
    loop {
        if let Some((message, size)) = attach::decode(&received).map_err(io::Error::other)? {
            received.drain(..size);
            return Ok((message, fds, received));
        }
        let mut bytes = [0; MESSAGE_SIZE_MAX];
        match pass::receive_with_fds(stream, &mut bytes, &mut fds)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            size => received.extend_from_slice(&bytes[..size]),
        }
    }
}

fn map_ring(memory_fd: &OwnedFd, attached: &Attached) -> io::Result<WorkerEnd<Mapped>> {
    let memory = Mapped::attach(memory_fd).map_err(io::Error::other)?;
    let ring = WorkerEnd::attach(memory).map_err(io::Error::other)?;
    let (geometry, identity) = (ring.geometry(), ring.identity());
    let told = (attached.generation, attached.slot_count, attached.region_size, attached.function_id.0);
    let found = (identity.generation.0, geometry.slot_count(), geometry.region_size(), identity.function_id);
    if told != found {
        let text = format!("the ring (generation, slots, region, function) is {found:?} and not {told:?}");
        return Err(io::Error::other(text));
    }
    // Page faults now instead of in the first calls. The regions come when they are needed.
    let regions_size = geometry.slot_count() as usize * 2 * geometry.region_size() as usize;
    ring.memory().populate(geometry.memory_size() - regions_size);
    Ok(ring)
}
