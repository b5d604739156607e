//! The floor's ring: fixed 64-byte messages from one process to one other, nothing else.
//!
//! Always: `tail` is written by the sender only, `head` by the receiver only, each on a line of its own.
//! Never: sleeps, checks what the other side wrote, or knows a message's meaning. That is what makes it a floor.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering;

use shm_ring::{Mapped, Memory};

/// Bytes of one message: the 32-byte frame header and a 32-byte payload.
pub const MESSAGE_SIZE: usize = 64;
/// Messages a ring holds: four times the largest window a run uses per batch, so that a batch never waits.
pub const CAPACITY: u32 = 65_536;

const TAIL: usize = 0;
const HEAD: usize = 128;
const STOP: usize = 256;
const MESSAGES: usize = 4096;
const SIZE: usize = MESSAGES + CAPACITY as usize * MESSAGE_SIZE;

/// The four directions a call takes; each is a link in the run's directory.
pub const NAMES: [&str; 4] = ["client-forwarder", "forwarder-worker", "worker-forwarder", "forwarder-client"];

/// The memories of one run. Other processes open them by the links in its directory.
pub struct Rings(Vec<(Mapped, OwnedFd)>);

impl Rings {
    /// Creates the rings and their links.
    pub fn create(dir: &Path) -> std::io::Result<Self> {
        let create = |name| {
            let (memory, fd) = Mapped::create(name, SIZE).map_err(std::io::Error::other)?;
            let target = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
            symlink(target, dir.join(name))?;
            Ok((memory, fd))
        };
        NAMES.into_iter().map(create).collect::<std::io::Result<_>>().map(Self)
    }

    /// Tells every role to end.
    pub fn stop(&self) {
        self.0.iter().for_each(|(memory, _)| memory.store_u32(STOP, 1, Ordering::Release));
    }
}

/// One end of a ring: the sender's or the receiver's, by which methods are called.
pub struct Ring {
    memory: Mapped,
    tail: u32,
    head: u32,
}

impl Ring {
    /// Opens the ring `name` of the run in `dir`.
    pub fn open(dir: &Path, name: &str) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(dir.join(name))?;
        let memory = Mapped::attach(&file).map_err(std::io::Error::other)?;
        Ok(Self { memory, tail: 0, head: 0 })
    }

    /// Whether the run is over.
    pub fn is_stopped(&self) -> bool {
        self.memory.load_u32(STOP, Ordering::Relaxed) != 0
    }

    /// Messages that can be sent now; looks at the receiver's cursor only when the last look says too few.
    pub fn room(&mut self, wanted: u32) -> u32 {
        if CAPACITY - self.tail.wrapping_sub(self.head) < wanted {
            self.head = self.memory.load_u32(HEAD, Ordering::Acquire);
        }
        CAPACITY - self.tail.wrapping_sub(self.head)
    }

    /// Sends whole messages and publishes them with one store. The caller has asked `room`.
    pub fn send(&mut self, messages: &[u8]) {
        for message in messages.chunks_exact(MESSAGE_SIZE) {
            self.memory.write(Self::place(self.tail), message);
            self.tail = self.tail.wrapping_add(1);
        }
        self.memory.store_u32(TAIL, self.tail, Ordering::Release);
    }

    /// Copies waiting messages to `out`, as many as are there and fit; answers the bytes.
    pub fn receive_into(&mut self, out: &mut [u8]) -> usize {
        if self.tail == self.head {
            self.tail = self.memory.load_u32(TAIL, Ordering::Acquire);
        }
        let count = self.tail.wrapping_sub(self.head).min((out.len() / MESSAGE_SIZE) as u32);
        if count == 0 {
            return 0;
        }
        let size = count as usize * MESSAGE_SIZE;
        for message in out[..size].chunks_exact_mut(MESSAGE_SIZE) {
            self.memory.read(Self::place(self.head), message);
            self.head = self.head.wrapping_add(1);
        }
        self.memory.store_u32(HEAD, self.head, Ordering::Release);
        size
    }

    fn place(cursor: u32) -> usize {
        MESSAGES + (cursor % CAPACITY) as usize * MESSAGE_SIZE
    }
}
