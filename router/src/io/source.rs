//! What the kernel works on for us: listeners, streams and watched descriptors, in one slab.
//!
//! Always: a slot is given away again only when no operation on it is outstanding, with a new generation.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::Tag;

/// Names a source as long as it lives, and nobody afterwards. The default names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl SourceId {
    /// The id as the number that epoll carries for us.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.slot) | u64::from(self.generation) << 32
    }

    /// The reverse of [`SourceId::to_bits`].
    pub(super) fn from_bits(bits: u64) -> SourceId {
        SourceId { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl Default for SourceId {
    fn default() -> Self {
        SourceId { slot: u32::MAX, generation: u32::MAX }
    }
}

/// What is asked of the kernel for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    Listener,
    Stream,
    Watched,
}

/// Whether the operation that brings events is with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arm {
    /// The kernel has it.
    Armed,
    /// It ended; it is armed again at the next submit.
    Due,
    /// It ended for want of receive buffers; it is armed again when some are back.
    Starved,
    /// It ended for good, or until its owner resumes it.
    Off,
}

/// What a source's operations are about.
pub(super) enum Descriptor {
    /// A stream: nobody else has it, so that it can be given away.
    Owned(OwnedFd),
    /// Others use it as well.
    Shared(Rc<dyn AsFd>),
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Descriptor::Owned(fd) => fd.as_fd(),
            Descriptor::Shared(fd) => fd.as_fd(),
        }
    }
}

/// A buffer on its way out.
pub(super) struct Sending {
    pub buffer: Vec<u8>,
    pub sent: usize,
}

/// A listener, a stream or a watched descriptor; `S` is what a backend remembers about it besides.
pub(super) struct Source<S> {
    pub generation: u32,
    pub tag: Tag,
    pub kind: SourceKind,
    pub arm: Arm,
    pub closing: bool,
    /// Nothing more is received until its owner resumes it.
    pub is_paused: bool,
    /// Kept until the last operation ended, so that the descriptor's number can't be reused under the kernel's hands.
    pub fd: Option<Descriptor>,
    pub sending: Option<Sending>,
    pub state: S,
}

/// The slab.
#[derive(Default)]
pub(super) struct Sources<S> {
    slots: Vec<Source<S>>,
    free: Vec<u32>,
}

impl<S: Default> Sources<S> {
    pub fn insert(&mut self, kind: SourceKind, fd: Descriptor, tag: Tag) -> SourceId {
        if let Some(slot) = self.free.pop() {
            let source = &mut self.slots[slot as usize];
            source.tag = tag;
            source.kind = kind;
            source.arm = Arm::Off;
            source.closing = false;
            source.is_paused = false;
            source.fd = Some(fd);
            source.state = S::default();
            return SourceId { slot, generation: source.generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^24 sources");
        self.slots.push(Source {
            generation: 0,
            tag,
            kind,
            arm: Arm::Off,
            closing: false,
            is_paused: false,
            fd: Some(fd),
            sending: None,
            state: S::default(),
        });
        SourceId { slot, generation: 0 }
    }

    /// `None` when the source is gone.
    pub fn find(&mut self, id: SourceId) -> Option<&mut Source<S>> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|source| source.generation == id.generation && source.fd.is_some())
    }

    /// Ends the source's life; its descriptor comes back, to be closed or given away.
    pub fn remove(&mut self, id: SourceId) -> Option<Descriptor> {
        let source = self.find(id)?;
        assert!(source.sending.is_none(), "a source is freed only after its send ended");
        assert_ne!(source.arm, Arm::Armed, "a source is freed only after its watch ended");
        let fd = source.fd.take();
        source.generation = source.generation.wrapping_add(1);
        self.free.push(id.slot);
        fd
    }

    /// True for a stream of which the kernel has nothing: it is paused, and no send is under way.
    pub fn is_at_rest(&mut self, id: SourceId) -> bool {
        self.find(id).is_some_and(|source| {
            source.is_paused && source.arm == Arm::Off && source.sending.is_none() && !source.closing
        })
    }

    /// Ids of all sources that live.
    pub fn ids(&self) -> impl Iterator<Item = SourceId> + '_ {
        self.slots
            .iter()
            .zip(0..)
            .filter(|(source, _)| source.fd.is_some())
            .map(|(source, slot)| SourceId { slot, generation: source.generation })
    }
}
