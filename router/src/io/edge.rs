//! [`Io`]: one type over two backends, chosen once, when a shard starts.
//!
//! Always: both keep the contract of `mod.rs`; who uses `Io` can't tell which one it is, except by asking.
//! Why an enum and not a trait object: the choice is a branch that is always predicted, and each method is inlined
//! behind it, so that the ring pays nothing for having an alternative.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::epoll::Epoll;
use super::uring::Uring;
use super::{Chunk, Event, IoCounters, IoOptions, SetupRefused, SourceId, Tag};
use crate::config::IoChoice;

/// One thread's edge to the kernel. Must be created by the thread that uses it.
pub struct Io {
    backend: Backend,
    kind: IoBackend,
}

#[allow(clippy::large_enum_variant, reason = "one for each thread, never moved after the start")]
enum Backend {
    Uring(Uring),
    Epoll(Epoll),
}

/// What an edge runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IoBackend {
    /// io_uring.
    Uring,
    /// epoll: asked for, or because io_uring was refused.
    Epoll {
        /// Why io_uring was refused, unless epoll was asked for.
        refused: Option<SetupRefused>,
    },
}

impl fmt::Display for IoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IoBackend::Uring => f.write_str("io_uring"),
            IoBackend::Epoll { .. } => f.write_str("epoll"),
        }
    }
}

/// The same method of whichever backend it is.
macro_rules! either {
    ($edge:expr, $backend:ident => $call:expr) => {
        match $edge {
            Backend::Uring($backend) => $call,
            Backend::Epoll($backend) => $call,
        }
    };
}

impl Io {
    /// The best that this host allows.
    pub fn new(options: IoOptions) -> Result<Io, SetupRefused> {
        Io::choose(IoChoice::Auto, options)
    }

    /// What the operator wants, if this host allows it.
    pub fn choose(choice: IoChoice, options: IoOptions) -> Result<Io, SetupRefused> {
        let epoll = |refused| {
            Ok(Io { backend: Backend::Epoll(Epoll::new(options)?), kind: IoBackend::Epoll { refused } })
        };
        let refused = match choice {
            IoChoice::Epoll => return epoll(None),
            IoChoice::Uring | IoChoice::Auto => match Uring::new(options) {
                Ok(ring) => return Ok(Io { backend: Backend::Uring(ring), kind: IoBackend::Uring }),
                Err(refused) => refused,
            },
        };
        if choice == IoChoice::Auto { epoll(Some(refused)) } else { Err(refused) }
    }

    /// What it runs on.
    pub fn backend(&self) -> &IoBackend {
        &self.kind
    }

    /// Accepts connections from a listening socket until it is closed.
    pub fn listen(&mut self, socket: Rc<dyn AsFd>, tag: Tag) -> SourceId {
        either!(&mut self.backend, io => io.listen(socket, tag))
    }

    /// Receives from a stream until it ends or is closed.
    pub fn receive(&mut self, socket: OwnedFd, tag: Tag) -> SourceId {
        either!(&mut self.backend, io => io.receive(socket, tag))
    }

    /// Tells whenever a descriptor becomes readable or hangs up.
    pub fn watch(&mut self, fd: Rc<dyn AsFd>, tag: Tag) -> SourceId {
        either!(&mut self.backend, io => io.watch(fd, tag))
    }

    /// Lets a listener that ended with [`Event::AcceptFailed`] accept again, or a paused stream be received from.
    pub fn resume(&mut self, source: SourceId) {
        either!(&mut self.backend, io => io.resume(source));
    }

    /// Stops receiving from a stream: [`Event::Paused`] follows what was received already. Sends are not concerned.
    pub fn pause(&mut self, stream: SourceId) {
        either!(&mut self.backend, io => io.pause(stream));
    }

    /// Gives the socket of a stream back that is paused and has no send under way; `None` for any other.
    pub fn release(&mut self, stream: SourceId) -> Option<OwnedFd> {
        either!(&mut self.backend, io => io.release(stream))
    }

    /// Sends the whole buffer, which comes back in [`Event::Sent`]. One send at a time and stream.
    #[inline]
    pub fn send(&mut self, stream: SourceId, buffer: Vec<u8>) {
        either!(&mut self.backend, io => io.send(stream, buffer));
    }

    /// Tells the peer that nothing more comes, while still receiving.
    pub fn shutdown_write(&mut self, stream: SourceId) {
        either!(&mut self.backend, io => io.shutdown_write(stream));
    }

    /// Ends a source. No further event about it is delivered; what the kernel still holds is freed when it lets go.
    pub fn close(&mut self, id: SourceId) {
        either!(&mut self.backend, io => io.close(id));
    }

    /// The bytes of a chunk.
    #[inline]
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        either!(&self.backend, io => io.bytes(chunk))
    }

    /// Gives a chunk's buffer back, to be received into again after the next [`Io::submit`].
    #[inline]
    pub fn recycle(&mut self, chunk: Chunk) {
        either!(&mut self.backend, io => io.recycle(chunk));
    }

    /// The next thing that happened, if the kernel has told of any.
    #[inline]
    pub fn poll(&mut self) -> Option<Event> {
        either!(&mut self.backend, io => io.poll())
    }

    /// Hands over what was asked for and takes what the kernel has to tell, without waiting.
    #[inline]
    pub fn submit(&mut self) {
        either!(&mut self.backend, io => io.submit());
    }

    /// True if there is something for us that `poll` does not show yet.
    pub fn has_pending(&mut self) -> bool {
        either!(&mut self.backend, io => io.has_pending())
    }

    /// Like [`Io::submit`], but sleeps until there is an event or the time is over.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        either!(&mut self.backend, io => io.wait(timeout));
    }

    /// Events about the edge itself.
    pub fn counters(&self) -> &IoCounters {
        either!(&self.backend, io => io.counters())
    }

    /// Whether the source has been let go of, and if not, whether a send is under way.
    #[cfg(test)]
    pub(super) fn is_sending(&mut self, id: SourceId) -> Option<bool> {
        either!(&mut self.backend, io => io.sources.find(id).map(|source| source.sending.is_some()))
    }
}
