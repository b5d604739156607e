//! The edge to the kernel: sockets and descriptors in, events out. Serves stage 1 (bytes in) and stage 8 (bytes out).
//!
//! In: sources to listen on, receive from or watch; whole buffers to send.  Out: [`Event`]s, each with the tag its
//! owner gave to the source.
//! Owns: every byte and descriptor the kernel may touch. A receive buffer is lent out as a [`Chunk`] and comes back by
//! [`Io::recycle`]; a send buffer is given to [`Io::send`] and comes back in [`Event::Sent`]. In between, nobody else
//! can reach it, and that is the whole safety argument of this folder.
//! Always: after [`Io::close`] no event of that source is delivered; its memory and descriptor are kept until the
//! kernel has let go of every operation on it.
//! Never: knows what a frame, a call or a worker is.
//! Why so small: nothing outside of this folder sees what is behind it: an io_uring (`uring.rs`), or epoll (`epoll.rs`)
//! where that is refused.  Tests: `io/tests.rs`, each on both.
//!
//! ```text
//!  listen / receive / watch ──▶ armed ──┬─ event, more will come ──▶ armed
//!                                       ├─ event, the kernel stopped ──▶ due ──▶ armed again at the next submit
//!                                       ├─ no buffer left ──▶ starved ──▶ armed again once buffers are back
//!                                       ├─ pause ──▶ the kernel lets go ──▶ paused ──┬─ resume ──▶ due
//!                                       │                                            └─ release ──▶ its owner's again
//!                                       └─ close ──▶ the kernel lets go ──▶ slot free, descriptor closed
//! ```

mod buffers;
mod edge;
mod epoll;
mod operation;
mod refused;
mod source;
#[cfg(test)]
mod tests;
mod uring;

use std::os::fd::OwnedFd;

pub use buffers::Chunk;
pub use edge::{Io, IoBackend};
pub use refused::SetupRefused;
pub use source::SourceId;
pub use uring::probe;

/// What a source's owner wants to read back from every event about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// What the kernel did since the last turn.
#[derive(Debug)]
pub enum Event {
    /// Somebody connected to a listener.
    Accepted {
        /// The listener's tag.
        tag: Tag,
        /// The new connection.
        socket: OwnedFd,
    },
    /// A listener stopped because the process or the host lacks descriptors or memory: call [`Io::resume`] later.
    AcceptFailed {
        /// The listener's tag.
        tag: Tag,
        /// What was lacking.
        error: rustix::io::Errno,
    },
    /// Bytes arrived. The chunk must come back by [`Io::recycle`].
    Received {
        /// The stream's tag.
        tag: Tag,
        /// Where the bytes lie.
        chunk: Chunk,
    },
    /// A part of the buffer being sent went out; the rest is on its way.
    Progress {
        /// The stream's tag.
        tag: Tag,
    },
    /// The whole buffer went out; here it is, to be filled again.
    Sent {
        /// The stream's tag.
        tag: Tag,
        /// The buffer, with its old content.
        buffer: Vec<u8>,
    },
    /// Nothing is received from the stream until [`Io::resume`]: all that was is told.
    Paused {
        /// The stream's tag.
        tag: Tag,
    },
    /// Nothing more will be received: the peer closed (`None`), or the connection broke.
    Ended {
        /// The stream's tag.
        tag: Tag,
        /// Why, if it broke.
        error: Option<rustix::io::Errno>,
    },
    /// The buffer can't be sent any more; nothing further should be.
    SendFailed {
        /// The stream's tag.
        tag: Tag,
        /// Why.
        error: rustix::io::Errno,
    },
    /// A watched descriptor became readable or hung up.
    Ready {
        /// Its tag.
        tag: Tag,
    },
}

/// Sizes of the ring, where there is one, and of the receive buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoOptions {
    /// Operations that may be handed over in one system call.
    pub submission_count: u32,
    /// Completions the kernel can leave before it has to hold some back.
    pub completion_count: u32,
    /// Receive buffers; a power of two, at most 32768.
    pub buffer_count: u16,
    /// Bytes of one receive buffer.
    pub buffer_size: u32,
}

impl Default for IoOptions {
    fn default() -> Self {
        IoOptions {
            // One turn rarely hands over more than a send for each active connection.
            submission_count: 512,
            // Ten thousand connections that all speak in one turn leave one completion each.
            completion_count: 16_384,
            // 512 x 32 KiB = 16 MiB: a turn's worth of receiving at memory speed. A buffer holds 512 small calls, so
            // that the price of a completion disappears among them.
            buffer_count: 512,
            buffer_size: 32 * 1024,
        }
    }
}

/// Events about the edge itself, for the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// System calls: into the ring, or of every kind on epoll.
    pub enters: u64,
    /// Completions taken from the ring, or edges from epoll.
    pub completions: u64,
    /// Receives that found no free buffer.
    pub starved: u64,
    /// Times the completion queue was found to have overflowed into the kernel's memory.
    pub completion_overflows: u64,
    /// Sources armed again because the kernel had ended their operation, or after they waited for buffers.
    pub rearmed: u64,
    /// Sends that went out in parts.
    pub short_sends: u64,
    /// System calls the kernel asked to repeat.
    pub enter_retries: u64,
}
