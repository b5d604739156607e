//! The floor's ring: a stream of bytes from one process to one other, nothing else.
//!
//! Always: `tail` is written by the sender only, `head` by the receiver only, each on a line of its own. Cursors count
//! bytes and wrap; the capacity is a power of two, so that a place is a mask away.
//! Never: sleeps, checks what the other side wrote, or knows where a message ends. That is what makes it a floor.
//! Why bytes and not slots: whatever lies in a row is moved by one copy (two at the wrap) and shown by one store,
//! however many messages it is. A bounds-checked call for each message cost the first version of this floor half of
//! its throughput.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::Ordering;

use shm_ring::{Mapped, Memory};

const TAIL: usize = 0;
const HEAD: usize = 128;
const STOP: usize = 256;
const BYTES: usize = 4096;

/// The four directions a call takes; each is a link in the run's directory.
pub const NAMES: [&str; 4] = ["client-forwarder", "forwarder-worker", "worker-forwarder", "forwarder-client"];

/// The memories of one run. Other processes open them by the links in its directory.
pub struct Rings(Vec<(Mapped, OwnedFd)>);

impl Rings {
    /// Creates the rings, each with room for all that can be outstanding, so that no sender ever has to wait.
    pub fn create(dir: &Path, outstanding_size_max: usize) -> std::io::Result<Self> {
        let capacity = outstanding_size_max.next_power_of_two().max(BYTES);
        let create = |name| {
            let (memory, fd) = Mapped::create(name, BYTES + capacity).map_err(std::io::Error::other)?;
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
    capacity: usize,
    tail: u32,
    head: u32,
}

impl Ring {
    /// Opens the ring `name` of the run in `dir`.
    pub fn open(dir: &Path, name: &str) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(dir.join(name))?;
        let memory = Mapped::attach(&file).map_err(std::io::Error::other)?;
        let capacity = memory.size() - BYTES;
        assert!(capacity.is_power_of_two());
        Ok(Self { memory, capacity, tail: 0, head: 0 })
    }

    /// Whether the run is over.
    pub fn is_stopped(&self) -> bool {
        self.memory.load_u32(STOP, Ordering::Relaxed) != 0
    }

    /// Sends all of it and shows it with one store. There is room: see [`Rings::create`].
    pub fn send(&mut self, bytes: &[u8]) {
        let place = self.tail as usize & (self.capacity - 1);
        let (before, after) = bytes.split_at(bytes.len().min(self.capacity - place));
        self.memory.write(BYTES + place, before);
        if !after.is_empty() {
            self.memory.write(BYTES, after);
        }
        self.tail = self.tail.wrapping_add(bytes.len() as u32);
        self.memory.store_u32(TAIL, self.tail, Ordering::Release);
    }

    /// Takes what waits and fits; answers how many bytes that were.
    pub fn receive(&mut self, out: &mut [u8]) -> usize {
        if self.tail == self.head {
            self.tail = self.memory.load_u32(TAIL, Ordering::Acquire);
        }
        let size = (self.tail.wrapping_sub(self.head) as usize).min(out.len());
        if size == 0 {
            return 0;
        }
        let place = self.head as usize & (self.capacity - 1);
        let (before, after) = out[..size].split_at_mut(size.min(self.capacity - place));
        self.memory.read(BYTES + place, before);
        if !after.is_empty() {
            self.memory.read(BYTES, after);
        }
        self.head = self.head.wrapping_add(size as u32);
        self.memory.store_u32(HEAD, self.head, Ordering::Release);
        size
    }
}
