//! Where the bytes of each admitted call lie until a worker has them. Between stages 2 (admission) and 5 (ring).
//!
//! ```text
//!              admitted                pushed in the same turn
//!  receive buffer ─────▶ InChunk ───────────────────────────────▶ Nowhere: in the worker's ring
//!                           │ turn ends, still queued               ▲   │
//!                           ▼                               pushed  │   │ worker lost, tried again
//!  too large for one, ▶ InPool / Kept ──────────────────────────────┘   │
//!  or in-process           ▲────────────────────────────────────────────┘
//!  shared-memory client ──▶ InClient (its own slot) ──▶ Nowhere
//! ```
//! A call of a quick function is bound to a worker on admission: its bytes go from the receive buffer straight into the
//! ring, and never come here unless the worker is lost.
//!
//! In: extensions and payload of a frame, as they lie.  Out: the same bytes for the ring, then nothing.
//! Owns: the receive buffers of this turn (given back when it ends) and the copies of what has to wait longer.
//! Always: bytes of queued calls are bounded (`bytes_max`); a call that would exceed it is refused as `Overloaded`
//! before it is admitted. A call pushed in the turn it arrived in is copied exactly once, into its ring slot.
//! Why not keep the receive buffers instead of copying: one slow call would hold 32 KiB that hundreds of others need.
//! Tests: below.
#![forbid(unsafe_code)]

use bytes::Bytes;
use engine::InvocationId;
use protocol::Flags;

use crate::io::{Chunk, Io};

mod pool;

pub use pool::Pool;

use pool::Block;

/// Frames assembled from several receive buffers are kept as they are from this size, and copied below it: the copy
/// then costs less than holding an allocation of its own.
pub const KEPT_SIZE_MIN: usize = 16 * 1024;

/// Empty buffers for frames that come in pieces: 2 MiB at most. A turn puts together one for each connection it hears of.
const EMPTY_COUNT_MAX: usize = 64;

/// What of a frame goes to the worker besides the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// The frame's flags.
    pub flags: Flags,
    /// Its criticality.
    pub criticality: u8,
    /// Bytes of extensions in front of the payload.
    pub extension_size: u16,
}

/// Extensions and payload of a frame, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a> {
    /// As on the wire.
    pub extensions: &'a [u8],
    /// Without padding.
    pub payload: &'a [u8],
}

impl Body<'_> {
    /// Nothing.
    pub const EMPTY: Body<'static> = Body { extensions: &[], payload: &[] };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Nowhere,
    /// In the n-th receive buffer of this turn.
    InChunk {
        chunk: u32,
        offset: u32,
    },
    InPool(Block),
    /// In an allocation of its own, `offset` bytes from its start.
    Kept {
        index: u32,
        offset: u32,
    },
    /// In the ring of a shared-memory client, whose slot is occupied until the answer.
    InClient(ClientPlace),
}

/// Where the body of a shared-memory client's call lies: in the client's own memory, not in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientPlace {
    /// The client's index.
    pub client: u32,
    /// The slot of its ring.
    pub slot: u32,
}

#[derive(Clone, Copy)]
struct Place {
    at: At,
    /// Extensions and payload.
    size: u32,
    manner: Manner,
}

const NOWHERE: Place = Place {
    at: At::Nowhere,
    size: 0,
    manner: Manner { flags: Flags::NONE, criticality: 0, extension_size: 0 },
};

/// All of them, by the slot of their invocation.
pub struct Payloads {
    places: Vec<Place>,
    /// Receive buffers of this turn.
    chunks: Vec<Chunk>,
    /// Invocations admitted in this turn whose bytes may still lie in a receive buffer.
    fresh: Vec<InvocationId>,
    kept: Vec<Bytes>,
    kept_free: Vec<u32>,
    pool: Pool,
    /// Buffers in which frames were put together, for the next ones.
    empty: Vec<Vec<u8>>,
    /// Bytes claimed by calls that are not pushed yet, and by half-received frames.
    bytes_claimed: u64,
    bytes_max: u64,
}

impl Payloads {
    /// Bytes of queued calls are bounded by `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        Payloads {
            places: Vec::new(),
            chunks: Vec::new(),
            fresh: Vec::new(),
            kept: Vec::new(),
            kept_free: Vec::new(),
            pool: Pool::default(),
            empty: Vec::new(),
            bytes_claimed: 0,
            bytes_max,
        }
    }

    /// May `size` more bytes wait?
    #[inline]
    pub fn has_room(&self, size: usize) -> bool {
        self.bytes_claimed + pool::claim(size) <= self.bytes_max
    }

    /// Bytes claimed now.
    pub fn bytes_claimed(&self) -> u64 {
        self.bytes_claimed
    }

    /// Takes a receive buffer over until the turn ends; its index is for [`Payloads::put_in_chunk`].
    #[inline]
    pub fn hold(&mut self, chunk: Chunk) -> u32 {
        self.chunks.push(chunk);
        (self.chunks.len() - 1) as u32
    }

    /// The held receive buffer's bytes.
    #[inline]
    pub fn chunk_bytes<'a>(&self, io: &'a Io, chunk: u32) -> &'a [u8] {
        io.bytes(&self.chunks[chunk as usize])
    }

    /// Notes that an admitted call's body lies at `offset` in a held receive buffer.
    #[inline]
    pub fn put_in_chunk(
        &mut self,
        invocation: InvocationId,
        manner: Manner,
        chunk: u32,
        offset: usize,
        size: usize,
    ) {
        self.claim(size);
        self.fresh.push(invocation);
        let at = At::InChunk { chunk, offset: offset as u32 };
        self.set(invocation, Place { at, size: size as u32, manner });
    }

    /// Copies the body of an admitted call.
    pub fn put_copy(&mut self, invocation: InvocationId, manner: Manner, body: Body<'_>) {
        let size = body.extensions.len() + body.payload.len();
        self.claim(size);
        let block = self.pool.store(body.extensions, body.payload);
        self.set(invocation, Place { at: At::InPool(block), size: size as u32, manner });
    }

    /// Takes over the body of an admitted call: `size` bytes at `offset` of an allocation. For frames from
    /// [`KEPT_SIZE_MIN`] on.
    pub fn put_kept(
        &mut self,
        invocation: InvocationId,
        manner: Manner,
        bytes: Bytes,
        offset: usize,
        size: usize,
    ) {
        self.claim(size);
        let index = match self.kept_free.pop() {
            Some(index) => {
                self.kept[index as usize] = bytes;
                index
            }
            None => {
                self.kept.push(bytes);
                (self.kept.len() - 1) as u32
            }
        };
        let at = At::Kept { index, offset: offset as u32 };
        self.set(invocation, Place { at, size: size as u32, manner });
    }

    /// Notes that an admitted call's body lies in its client's ring, and stays there: it takes no room of ours.
    #[inline]
    pub fn put_in_client(&mut self, invocation: InvocationId, manner: Manner, place: ClientPlace, size: u32) {
        self.set(invocation, Place { at: At::InClient(place), size, manner });
    }

    /// The body of a call that is about to be pushed, if it lies in its client's ring: where, and how many bytes.
    #[inline]
    pub fn in_client(&self, invocation: InvocationId) -> Option<(Manner, ClientPlace, u32)> {
        let place = &self.places[slot(invocation)];
        match place.at {
            At::InClient(client) => Some((place.manner, client, place.size)),
            _ => None,
        }
    }

    /// The body of a call that is about to be pushed.
    #[inline]
    pub fn body<'a>(&'a self, io: &'a Io, invocation: InvocationId) -> (Manner, Body<'a>) {
        let place = self.places[slot(invocation)];
        let size = place.size as usize;
        let bytes = match place.at {
            At::InChunk { chunk, offset } => &self.chunk_bytes(io, chunk)[offset as usize..][..size],
            At::InPool(block) => self.pool.bytes(block, size),
            At::Kept { index, offset } => &self.kept[index as usize][offset as usize..][..size],
            At::Nowhere | At::InClient(_) => {
                panic!("the engine pushes a call only while its bytes are kept")
            }
        };
        let (extensions, payload) = bytes.split_at(usize::from(place.manner.extension_size));
        (place.manner, Body { extensions, payload })
    }

    /// The call's bytes are in its worker's ring now.
    #[inline]
    pub fn on_pushed(&mut self, invocation: InvocationId) {
        self.vacate(invocation);
    }

    /// Bytes of the payload of a call that waits; 0 of any other, of which nothing is known here.
    pub fn size_of(&self, invocation: InvocationId) -> u32 {
        let place = self.places.get(slot(invocation)).filter(|place| !matches!(place.at, At::Nowhere));
        place.map_or(0, |place| place.size - u32::from(place.manner.extension_size))
    }

    /// The call is answered, and not by its worker: nobody asks for its bytes any more. After a worker's answer there is
    /// nothing to do: the bytes were in its ring, and the ring no longer names the call.
    #[inline]
    pub fn release(&mut self, invocation: InvocationId) {
        self.vacate(invocation);
    }

    /// A buffer to put a frame together in that comes in pieces.
    pub fn empty_buffer(&mut self) -> Vec<u8> {
        self.empty.pop().unwrap_or_default()
    }

    /// Such a buffer is not needed any more: the next frame gets it, if it is worth keeping.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * KEPT_SIZE_MIN && self.empty.len() < EMPTY_COUNT_MAX {
            buffer.clear();
            self.empty.push(buffer);
        }
    }

    /// Memory taken for a frame that is only half here.
    pub fn claim_partial(&mut self, size: usize) {
        self.bytes_claimed += size as u64;
    }

    /// The reverse of [`Payloads::claim_partial`].
    pub fn release_partial(&mut self, size: usize) {
        self.bytes_claimed -= size as u64;
    }

    /// The turn ends: bodies of calls that still wait are copied, receive buffers go back to the kernel.
    #[inline]
    pub fn settle(&mut self, io: &mut Io) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for invocation in fresh.drain(..) {
            let place = self.places[slot(invocation)];
            let At::InChunk { chunk, offset } = place.at else { continue };
            let bytes = &self.chunk_bytes(io, chunk)[offset as usize..][..place.size as usize];
            let block = self.pool.store(bytes, &[]);
            self.places[slot(invocation)].at = At::InPool(block);
        }
        self.fresh = fresh;
        for chunk in self.chunks.drain(..) {
            io.recycle(chunk);
        }
    }

    #[inline]
    fn claim(&mut self, size: usize) {
        self.bytes_claimed += pool::claim(size);
    }

    #[inline]
    fn set(&mut self, invocation: InvocationId, place: Place) {
        let slot = slot(invocation);
        if slot >= self.places.len() {
            self.places.resize((slot + 1).next_power_of_two().max(1024), NOWHERE);
        }
        self.places[slot] = place;
    }

    #[inline]
    fn vacate(&mut self, invocation: InvocationId) {
        let Some(place) = self.places.get_mut(slot(invocation)) else { return };
        let at = std::mem::replace(&mut place.at, At::Nowhere);
        let size = place.size as usize;
        match at {
            At::Nowhere | At::InClient(_) => return,
            At::InChunk { .. } => {}
            At::InPool(block) => self.pool.give_back(block),
            At::Kept { index, .. } => {
                self.kept[index as usize] = Bytes::new();
                self.kept_free.push(index);
            }
        }
        self.bytes_claimed -= pool::claim(size);
    }
}

#[inline]
fn slot(invocation: InvocationId) -> usize {
    invocation.slot() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::IoOptions;

    const PLAIN: Manner = Manner { flags: Flags::NONE, criticality: 1, extension_size: 0 };

    fn invocation(slot: u64) -> InvocationId {
        InvocationId(slot << 8)
    }

    fn io() -> Io {
        Io::new(IoOptions { submission_count: 8, completion_count: 16, buffer_count: 2, buffer_size: 64 })
            .expect("tests need io_uring")
    }

    #[test]
    fn copies_and_kept_bodies_are_found_again_and_their_room_is_given_back() {
        let io = io();
        let mut payloads = Payloads::new(1 << 20);
        let manner = Manner { extension_size: 16, ..PLAIN };
        payloads.put_copy(invocation(0), manner, Body { extensions: &[7; 16], payload: b"small" });
        let large: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
        payloads.put_kept(invocation(5), PLAIN, Bytes::from(large.clone()), 32, 90_000);

        let (found, body) = payloads.body(&io, invocation(0));
        assert_eq!((found, body.extensions, body.payload), (manner, &[7; 16][..], &b"small"[..]));
        let (_, body) = payloads.body(&io, invocation(5));
        assert!(body.payload == &large[32..90_032]);

        payloads.on_pushed(invocation(0));
        payloads.release(invocation(0));
        payloads.release(invocation(5));
        payloads.release(invocation(5));
        assert_eq!(payloads.bytes_claimed(), 0);
    }

    #[test]
    fn room_ends_at_the_bound() {
        let mut payloads = Payloads::new(1024);
        assert!(payloads.has_room(1024));
        assert!(!payloads.has_room(1025));
        payloads.put_copy(invocation(1), PLAIN, Body { extensions: &[], payload: &[1; 500] });
        assert!(payloads.has_room(512));
        assert!(!payloads.has_room(513));
        payloads.claim_partial(512);
        assert!(!payloads.has_room(1));
        payloads.release_partial(512);
        assert!(payloads.has_room(512));
    }
}
