//! The edge on epoll, where io_uring is refused: the kernel says what is ready, and a system call for each accept,
//! receive and send does it.
//!
//! ```text
//!  listen / receive / watch ──▶ armed ── edge ──▶ due, last in the queue ──┬─ served, there may be more ──▶ due, last
//!                                 ▲                  ▲                     ├─ drained ──▶ armed
//!                                 │                  │                     ├─ no buffer left ──▶ starved ─┐
//!                                 │                  └── buffers are back ─┼──────────────────────────────┘
//!                                 └────────────────────────────────────────┘ ended, paused, or accept failed ──▶ off
//!
//!  send ──▶ unsent ── at the next submit ──┬─ all of it taken ──▶ Sent
//!             ▲                            └─ part or nothing taken ──▶ blocked
//!             └────────── edge: there is room ─────────────────────────────┘
//! ```
//! In and out: as in `mod.rs`. This thread is the only one that touches buffers and queues, so that there is nothing to
//! wait for when a source is closed: its slot is free at once.
//! Always: a living source stands in `ready` or `starved` at most once (its `Arm` says which), and what a closed one
//! left there is dropped when its turn comes; whoever was served goes behind everybody else who waits, with at most one
//! buffer's worth.
//! Never: looks at a source the kernel has not told of. Edges instead of levels, because a level would be told in every
//! turn for each connection that waits for its next turn or for a buffer.
//! Costs beside the ring: a system call for each receive and send, one more in each turn, and timeouts in whole
//! milliseconds (docs/decisions/0006-epoll-fallback.md).  Tests: `io/tests.rs`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::buffers::{Chunk, FreeList};
use super::source::{Arm, Descriptor, Sending, SourceId, SourceKind, Sources};
use super::{Event, IoCounters, IoOptions, SetupRefused, Tag};

/// Edges taken from the kernel in one system call: four times the events a shard handles in one turn, so that those
/// that follow from one edge leave room for others. What is left stays with the kernel, in order.
const EDGES_MAX: usize = 256;
/// The longest sleep. Nobody needs to be woken by it; a longer one does not fit every kernel's system call.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// How soon a source that the kernel had no memory to watch is tried again.
const REGISTER_RETRY: Duration = Duration::from_millis(10);

/// One thread's edge to the kernel.
pub(super) struct Epoll {
    epoll: OwnedFd,
    buffers: FreeList,
    pub(super) sources: Sources<Told>,
    /// Sources whose arm is `Due`, in the order in which they are served.
    ready: VecDeque<SourceId>,
    /// Sources whose arm is `Starved`.
    starved: Vec<SourceId>,
    /// Streams whose buffer, or the rest of it, may be taken by the kernel now.
    unsent: Vec<SourceId>,
    /// What became of sends, for `poll` to tell.
    outcomes: VecDeque<(SourceId, Outcome)>,
    /// Sources the kernel had no memory to watch.
    unregistered: Vec<SourceId>,
    edges: Vec<epoll::Event>,
    counters: IoCounters,
}

/// What the kernel knows of a source, and has told of it.
#[derive(Default)]
pub(super) struct Told {
    is_registered: bool,
    /// The other side closed or the connection broke: what is left to read ends with that.
    has_hung_up: bool,
    /// The send under way waits for room.
    is_blocked: bool,
    /// The kernel was asked to tell of room.
    is_room_asked: bool,
}

enum Outcome {
    Progress,
    Whole,
    Failed(Errno),
}

impl Epoll {
    /// Sets up the descriptor and the receive buffers.
    pub fn new(options: IoOptions) -> Result<Epoll, SetupRefused> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(SetupRefused::Epoll)?;
        let buffers =
            FreeList::new(options.buffer_count, options.buffer_size).map_err(SetupRefused::Epoll)?;
        Ok(Epoll {
            epoll,
            buffers,
            sources: Sources::default(),
            ready: VecDeque::new(),
            starved: Vec::new(),
            unsent: Vec::new(),
            outcomes: VecDeque::new(),
            unregistered: Vec::new(),
            edges: Vec::with_capacity(EDGES_MAX),
            counters: IoCounters::default(),
        })
    }

    pub fn listen(&mut self, socket: Rc<dyn AsFd>, tag: Tag) -> SourceId {
        // Whoever connected may be gone again before we accept: that must not block. Sockets that are accepted don't
        // inherit it.
        ioctl_fionbio(socket.as_fd(), true).expect("every socket can be made nonblocking");
        self.add(SourceKind::Listener, Descriptor::Shared(socket), tag)
    }

    pub fn receive(&mut self, socket: OwnedFd, tag: Tag) -> SourceId {
        self.add(SourceKind::Stream, Descriptor::Owned(socket), tag)
    }

    pub fn watch(&mut self, fd: Rc<dyn AsFd>, tag: Tag) -> SourceId {
        self.add(SourceKind::Watched, Descriptor::Shared(fd), tag)
    }

    pub fn resume(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        source.is_paused = false;
        if source.arm == Arm::Off {
            self.counters.rearmed += 1;
            source.arm = Arm::Due;
            self.ready.push_back(id);
        }
    }

    pub fn pause(&mut self, stream: SourceId) {
        let Some(source) = self.sources.find(stream) else { return };
        source.is_paused = true;
        // Told when its turn comes, and after it no edge is looked at; one that waits for its turn already has one.
        if source.arm == Arm::Armed {
            source.arm = Arm::Due;
            self.ready.push_back(stream);
        }
    }

    pub fn release(&mut self, stream: SourceId) -> Option<OwnedFd> {
        if !self.sources.is_at_rest(stream) {
            return None;
        }
        self.unregister(stream);
        match self.sources.remove(stream)? {
            Descriptor::Owned(socket) => Some(socket),
            Descriptor::Shared(_) => None,
        }
    }

    pub fn send(&mut self, stream: SourceId, buffer: Vec<u8>) {
        let Some(source) = self.sources.find(stream) else { return };
        assert!(source.sending.is_none(), "one send at a time");
        if buffer.is_empty() {
            return;
        }
        source.sending = Some(Sending { buffer, sent: 0 });
        self.unsent.push(stream);
    }

    pub fn shutdown_write(&mut self, stream: SourceId) {
        if let Some(fd) = self.sources.find(stream).and_then(|source| source.fd.as_ref()) {
            // A peer that is gone already needs no telling.
            let _ = rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Write);
        }
    }

    pub fn close(&mut self, id: SourceId) {
        self.unregister(id);
        let Some(source) = self.sources.find(id) else { return };
        source.sending = None;
        source.arm = Arm::Off;
        self.sources.remove(id);
    }

    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    pub fn recycle(&mut self, chunk: Chunk) {
        self.buffers.give_back(chunk);
    }

    pub fn poll(&mut self) -> Option<Event> {
        while let Some((id, outcome)) = self.outcomes.pop_front() {
            if let Some(event) = self.tell(id, outcome) {
                return Some(event);
            }
        }
        while let Some(id) = self.ready.pop_front() {
            if let Some(event) = self.serve(id) {
                return Some(event);
            }
        }
        None
    }

    pub fn submit(&mut self) {
        self.prepare();
        self.collect(Some(Duration::ZERO));
    }

    pub fn has_pending(&self) -> bool {
        !self.ready.is_empty()
            || !self.outcomes.is_empty()
            || !self.unsent.is_empty()
            || (!self.starved.is_empty() && self.buffers.has_free())
    }

    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.prepare();
        if self.has_pending() {
            return self.collect(Some(Duration::ZERO));
        }
        let retry = (!self.unregistered.is_empty()).then_some(REGISTER_RETRY);
        self.collect([timeout, retry].into_iter().flatten().min());
    }

    pub fn counters(&self) -> &IoCounters {
        &self.counters
    }

    fn add(&mut self, kind: SourceKind, fd: Descriptor, tag: Tag) -> SourceId {
        let id = self.sources.insert(kind, fd, tag);
        if let Some(source) = self.sources.find(id) {
            source.arm = Arm::Armed;
        }
        self.register(id);
        id
    }

    /// From here on the kernel tells of the source; what is there already counts as an edge.
    fn register(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        let Some(fd) = &source.fd else { return };
        self.counters.enters += 1;
        let interest = interest(&source.state);
        match epoll::add(&self.epoll, fd.as_fd(), epoll::EventData::new_u64(id.to_bits()), interest) {
            Ok(()) => source.state.is_registered = true,
            // The host's memory, or its bound of watched descriptors (fs.epoll.max_user_watches): others may let go.
            Err(Errno::NOMEM | Errno::NOSPC) => self.unregistered.push(id),
            // Anything else says that we broke the contract of the call.
            Err(error) => panic!("epoll_ctl failed: {error}"),
        }
    }

    /// From here on the kernel tells nothing of the source, whoever else has its descriptor.
    fn unregister(&mut self, id: SourceId) {
        if let Some(source) = self.sources.find(id)
            && source.state.is_registered
            && let Some(fd) = &source.fd
        {
            self.counters.enters += 1;
            epoll::delete(&self.epoll, fd.as_fd()).expect("the source is registered");
        }
    }

    /// Asks the kernel to tell of room to send, or not to any more. Room that is there already counts as an edge.
    fn ask_for_room(&mut self, id: SourceId, is_blocked: bool) {
        let Some(source) = self.sources.find(id) else { return };
        source.state.is_blocked = is_blocked;
        source.state.is_room_asked = is_blocked;
        if !source.state.is_registered {
            return; // `register` will say it.
        }
        let Some(fd) = &source.fd else { return };
        self.counters.enters += 1;
        let interest = interest(&source.state);
        epoll::modify(&self.epoll, fd.as_fd(), epoll::EventData::new_u64(id.to_bits()), interest)
            .expect("the source is registered");
    }

    /// Everything that waited for us: sources to register, streams to go on with, buffers to send.
    fn prepare(&mut self) {
        for id in std::mem::take(&mut self.unregistered) {
            self.register(id);
        }
        if !self.starved.is_empty() && self.buffers.has_free() {
            for id in self.starved.drain(..) {
                if let Some(source) = self.sources.find(id) {
                    self.counters.rearmed += 1;
                    source.arm = Arm::Due;
                    self.ready.push_back(id);
                }
            }
        }
        if !self.unsent.is_empty() {
            let mut unsent = std::mem::take(&mut self.unsent);
            unsent.drain(..).for_each(|id| self.send_some(id));
            self.unsent = unsent;
        }
    }

    /// Takes the edges the kernel has, and waits for one if there is none.
    fn collect(&mut self, timeout: Option<Duration>) {
        self.counters.enters += 1;
        let timeout = timeout.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut edges = std::mem::take(&mut self.edges);
        match epoll::wait(&self.epoll, spare_capacity(&mut edges), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            // Anything else says that we broke the contract of the call.
            Err(error) => panic!("epoll_wait failed: {error}"),
        }
        self.counters.completions += edges.len() as u64;
        for edge in edges.drain(..) {
            self.on_edge(SourceId::from_bits(edge.data.u64()), edge.flags);
        }
        self.edges = edges;
    }

    fn on_edge(&mut self, id: SourceId, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        // Told before it was closed, and meant for nobody any more.
        let Some(source) = self.sources.find(id) else { return };
        source.state.has_hung_up |= flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR);
        if source.arm == Arm::Armed && flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR) {
            source.arm = Arm::Due;
            self.ready.push_back(id);
        }
        // Not for RDHUP: a peer that says nothing more may still read, and nothing says that it made room.
        if source.state.is_blocked && flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR) {
            source.state.is_blocked = false;
            self.unsent.push(id);
        }
    }

    /// One step for a source that is due: one connection, one buffer of bytes, one word.
    fn serve(&mut self, id: SourceId) -> Option<Event> {
        let source = self.sources.find(id)?;
        match source.kind {
            SourceKind::Watched => {
                source.arm = Arm::Armed;
                Some(Event::Ready { tag: source.tag })
            }
            SourceKind::Listener => self.accept(id),
            SourceKind::Stream if source.is_paused => {
                source.arm = Arm::Off;
                Some(Event::Paused { tag: source.tag })
            }
            SourceKind::Stream => self.receive_some(id),
        }
    }

    fn accept(&mut self, id: SourceId) -> Option<Event> {
        let source = self.sources.find(id)?;
        let tag = source.tag;
        self.counters.enters += 1;
        let fd = source.fd.as_ref()?.as_fd();
        match retry_on_intr(|| rustix::net::accept_with(fd, SocketFlags::CLOEXEC)) {
            Ok(socket) => {
                self.ready.push_back(id);
                Some(Event::Accepted { tag, socket })
            }
            Err(Errno::AGAIN) => {
                source.arm = Arm::Armed;
                None
            }
            // The connection broke before we could take it; the listener is as good as ever.
            Err(Errno::CONNABORTED) => {
                self.ready.push_back(id);
                None
            }
            Err(error) => {
                source.arm = Arm::Off;
                Some(Event::AcceptFailed { tag, error })
            }
        }
    }

    fn receive_some(&mut self, id: SourceId) -> Option<Event> {
        let source = self.sources.find(id)?;
        let tag = source.tag;
        let fd = source.fd.as_ref()?.as_fd();
        if !self.buffers.has_free() {
            self.counters.starved += 1;
            source.arm = Arm::Starved;
            self.starved.push(id);
            return None;
        }
        self.counters.enters += 1;
        let received = self.buffers.fill(|bytes| {
            retry_on_intr(|| rustix::net::recv(fd, &mut *bytes, RecvFlags::DONTWAIT)).map(|(size, _)| size)
        });
        match received {
            Ok(Some(chunk)) => {
                // Less than would fit says that nothing is left, and what comes later is a new edge. Only an end that
                // was told already is not told again.
                if chunk.size() == self.buffers.buffer_size() || source.state.has_hung_up {
                    self.ready.push_back(id);
                } else {
                    source.arm = Arm::Armed;
                }
                Some(Event::Received { tag, chunk })
            }
            Ok(None) => {
                source.arm = Arm::Off;
                Some(Event::Ended { tag, error: None })
            }
            Err(Errno::AGAIN) => {
                source.arm = Arm::Armed;
                None
            }
            Err(error) => {
                source.arm = Arm::Off;
                Some(Event::Ended { tag, error: Some(error) })
            }
        }
    }

    fn send_some(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        let (Some(fd), Some(sending)) = (source.fd.as_ref(), source.sending.as_mut()) else { return };
        self.counters.enters += 1;
        let rest = &sending.buffer[sending.sent..];
        match retry_on_intr(|| rustix::net::send(fd, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)) {
            Ok(size) => {
                sending.sent += size;
                if sending.sent < sending.buffer.len() {
                    self.counters.short_sends += 1;
                    self.outcomes.push_back((id, Outcome::Progress));
                    return self.ask_for_room(id, true);
                }
                self.outcomes.push_back((id, Outcome::Whole));
                if source.state.is_room_asked {
                    self.ask_for_room(id, false);
                }
            }
            Err(Errno::AGAIN) => self.ask_for_room(id, true),
            Err(error) => self.outcomes.push_back((id, Outcome::Failed(error))),
        }
    }

    fn tell(&mut self, id: SourceId, outcome: Outcome) -> Option<Event> {
        let source = self.sources.find(id)?;
        let tag = source.tag;
        match outcome {
            Outcome::Progress => Some(Event::Progress { tag }),
            Outcome::Whole => Some(Event::Sent { tag, buffer: source.sending.take()?.buffer }),
            Outcome::Failed(error) => {
                source.sending = None;
                Some(Event::SendFailed { tag, error })
            }
        }
    }
}

/// What the kernel shall tell of a source. Room to send is not among it by default: a Unix socket would tell of it each
/// time its peer reads.
fn interest(state: &Told) -> epoll::EventFlags {
    let always = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    if state.is_room_asked { always | epoll::EventFlags::OUT } else { always }
}
