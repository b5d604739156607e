//! The edge on io_uring: operations out, completions in, at most one system call a turn.
//!
//! Set up with SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN, TASKRUN_FLAG and SUBMIT_ALL: completions are then made only
//! when this thread enters the kernel, so a look at the queue alone shows nothing new; [`Uring::submit`] enters whenever
//! the kernel's TASKRUN flag says that something waits, also with nothing to submit.
//! Not SQPOLL: its thread costs half of a two-core machine and saves one system call in a turn that carries hundreds
//! of calls.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::buffers::{Chunk, GROUP, KernelRing};
use super::operation::{OperationKind, pack, unpack};
use super::source::{Arm, Descriptor, Sending, SourceId, SourceKind, Sources};
use super::{Event, IoCounters, IoOptions, SetupRefused, Tag};

/// `SOCK_CLOEXEC`, for accepted sockets: they must not leak into function processes.
const ACCEPT_FLAGS: i32 = rustix::net::SocketFlags::CLOEXEC.bits() as i32;

/// Rounds of waiting for cancelled operations when the ring is dropped; each ends at the first completion or after
/// [`DROP_WAIT`].
const DROP_ROUNDS: u32 = 64;
const DROP_WAIT: Duration = Duration::from_millis(10);

/// One thread's edge to the kernel. Must be created by the thread that uses it.
pub(super) struct Uring {
    // Closed before the memory below is given back: see `drop`.
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<KernelRing>,
    pub(super) sources: Sources<()>,
    /// Sources whose arm is `Due`.
    due: Vec<SourceId>,
    /// Sources whose arm is `Starved`.
    starved: Vec<SourceId>,
    /// Paused streams of which the kernel has let go, for `poll` to tell.
    paused: Vec<SourceId>,
    operations_outstanding: u32,
    counters: IoCounters,
}

impl Uring {
    /// Sets up the ring and its receive buffers.
    pub fn new(options: IoOptions) -> Result<Uring, SetupRefused> {
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.completion_count)
            .build(options.submission_count)
            .map_err(|error| SetupRefused::from_setup(&error))?;
        self_test(&mut ring).map_err(|error| SetupRefused::from_setup(&error))?;
        let buffers =
            KernelRing::new(options.buffer_count, options.buffer_size).map_err(SetupRefused::Other)?;
        // SAFETY: the ring's mapping holds `count` entries and outlives the registration: `drop` closes the ring first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(buffers.address(), buffers.count(), GROUP, 0)
        }
        .map_err(|error| SetupRefused::from_setup(&error))?;
        Ok(Uring {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            sources: Sources::default(),
            due: Vec::new(),
            starved: Vec::new(),
            paused: Vec::new(),
            operations_outstanding: 0,
            counters: IoCounters::default(),
        })
    }

    /// Accepts connections from a listening socket until it is closed.
    pub fn listen(&mut self, socket: Rc<dyn AsFd>, tag: Tag) -> SourceId {
        self.add(SourceKind::Listener, Descriptor::Shared(socket), tag)
    }

    /// Receives from a stream until it ends or is closed.
    pub fn receive(&mut self, socket: OwnedFd, tag: Tag) -> SourceId {
        self.add(SourceKind::Stream, Descriptor::Owned(socket), tag)
    }

    /// Tells whenever a descriptor becomes readable or hangs up.
    pub fn watch(&mut self, fd: Rc<dyn AsFd>, tag: Tag) -> SourceId {
        self.add(SourceKind::Watched, Descriptor::Shared(fd), tag)
    }

    /// Lets a listener that ended with [`Event::AcceptFailed`] accept again, or a paused stream be received from.
    pub fn resume(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        source.is_paused = false;
        if source.arm == Arm::Off && !source.closing {
            source.arm = Arm::Due;
            self.due.push(id);
        }
    }

    /// Stops receiving from a stream; [`Event::Paused`] follows once the kernel has let go of it.
    pub fn pause(&mut self, stream: SourceId) {
        let Some(source) = self.sources.find(stream) else { return };
        if source.is_paused || source.closing {
            return;
        }
        source.is_paused = true;
        match source.arm {
            Arm::Armed => self.push_cancel(OperationKind::Watch, stream),
            Arm::Due | Arm::Starved => {
                source.arm = Arm::Off;
                self.paused.push(stream);
            }
            // It ended, and its owner knows.
            Arm::Off => {}
        }
    }

    /// Gives the socket of a stream back that is paused and has no send under way; `None` for any other.
    pub fn release(&mut self, stream: SourceId) -> Option<OwnedFd> {
        if !self.sources.is_at_rest(stream) {
            return None;
        }
        match self.sources.remove(stream)? {
            Descriptor::Owned(socket) => Some(socket),
            Descriptor::Shared(_) => None,
        }
    }

    /// Sends the whole buffer, which comes back in [`Event::Sent`]. One send at a time and stream.
    pub fn send(&mut self, stream: SourceId, buffer: Vec<u8>) {
        let Some(source) = self.sources.find(stream) else { return };
        assert!(source.sending.is_none(), "one send at a time");
        if source.closing || buffer.is_empty() {
            return;
        }
        source.sending = Some(Sending { buffer, sent: 0 });
        self.push_send(stream);
    }

    /// Tells the peer that nothing more comes, while still receiving.
    pub fn shutdown_write(&mut self, stream: SourceId) {
        if let Some(fd) = self.sources.find(stream).and_then(|source| source.fd.as_ref()) {
            // A peer that is gone already needs no telling.
            let _ = rustix::net::shutdown(fd.as_fd(), rustix::net::Shutdown::Write);
        }
    }

    /// Ends a source. No further event about it is delivered; what the kernel still holds is freed when it lets go.
    pub fn close(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        if source.closing {
            return;
        }
        source.closing = true;
        let armed = source.arm == Arm::Armed;
        let sending = source.sending.is_some();
        if armed {
            self.push_cancel(OperationKind::Watch, id);
        }
        if sending {
            self.push_cancel(OperationKind::Send, id);
        }
        self.free_if_done(id);
    }

    /// The bytes of a chunk.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    /// Gives a chunk's buffer back, to be received into again after the next [`Uring::submit`].
    pub fn recycle(&mut self, chunk: Chunk) {
        self.buffers.give_back(chunk);
    }

    /// The next thing that happened, if the kernel has told of any.
    pub fn poll(&mut self) -> Option<Event> {
        while let Some(id) = self.paused.pop() {
            // Unless it was resumed or closed since.
            if let Some(source) = self.sources.find(id)
                && source.is_paused
                && source.arm == Arm::Off
                && !source.closing
            {
                return Some(Event::Paused { tag: source.tag });
            }
        }
        loop {
            let completion = self.ring.completion().next()?;
            self.counters.completions += 1;
            if let Some(event) = self.on_completion(&completion) {
                return Some(event);
            }
        }
    }

    /// Hands over what was asked for and lets the kernel finish what it put off: one system call, or none.
    pub fn submit(&mut self) {
        self.prepare();
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return;
        }
        drop(queue);
        self.enter(0, None);
    }

    /// True if the kernel has something for us that `poll` does not show yet.
    pub fn has_pending(&mut self) -> bool {
        if !self.ring.completion().is_empty() || !self.paused.is_empty() {
            return true;
        }
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow() || !queue.is_empty()
    }

    /// Like [`Uring::submit`], but sleeps until there is an event or the time is over.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.prepare();
        let want = usize::from(self.ring.completion().is_empty());
        self.enter(want, timeout);
    }

    /// Events about the edge itself.
    pub fn counters(&self) -> &IoCounters {
        &self.counters
    }

    fn add(&mut self, kind: SourceKind, fd: Descriptor, tag: Tag) -> SourceId {
        let id = self.sources.insert(kind, fd, tag);
        self.push_watch(id);
        id
    }

    /// Buffers to the kernel, and every ended operation armed again.
    fn prepare(&mut self) {
        self.buffers.publish();
        if !self.starved.is_empty() && self.buffers.has_free() {
            let mut starved = std::mem::take(&mut self.starved);
            self.rearm(&mut starved, Arm::Starved);
            self.starved = starved;
        }
        if !self.due.is_empty() {
            let mut due = std::mem::take(&mut self.due);
            self.rearm(&mut due, Arm::Due);
            self.due = due;
        }
    }

    fn rearm(&mut self, ids: &mut Vec<SourceId>, arm: Arm) {
        for id in ids.drain(..) {
            if self.sources.find(id).is_some_and(|source| source.arm == arm && !source.closing) {
                self.counters.rearmed += 1;
                self.push_watch(id);
            }
        }
    }

    fn enter(&mut self, want: usize, timeout: Option<Duration>) {
        self.counters.enters += 1;
        if self.ring.submission().cq_overflow() {
            self.counters.completion_overflows += 1;
        }
        let result = match timeout {
            None => self.ring.submitter().submit_and_wait(want),
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                self.ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&timespec))
            }
        };
        let Err(error) = result else { return };
        match Errno::from_io_error(&error) {
            Some(Errno::TIME | Errno::INTR) => {}
            // The kernel lacks memory for a moment or wants its completions taken first: the next turn repeats it.
            Some(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => self.counters.enter_retries += 1,
            // Anything else says that we broke the contract of the call.
            _ => panic!("io_uring_enter failed: {error}"),
        }
    }

    fn push_watch(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        let Some(fd) = source.fd.as_ref() else { return };
        let fd = types::Fd(fd.as_fd().as_raw_fd());
        let entry = match source.kind {
            SourceKind::Listener => opcode::AcceptMulti::new(fd).flags(ACCEPT_FLAGS).build(),
            SourceKind::Stream => opcode::RecvMulti::new(fd, GROUP).build(),
            SourceKind::Watched => {
                opcode::PollAdd::new(fd, u32::from(PollFlags::IN.bits())).multi(true).build()
            }
        };
        source.arm = Arm::Armed;
        let entry = entry.user_data(pack(OperationKind::Watch, id));
        // SAFETY: the descriptor stays open until the operation's last completion (`Source::fd`); accept and poll use
        // no memory of ours; receive writes only into buffers of the registered ring, whose owner outlives the ring.
        unsafe { self.push(&entry) };
    }

    fn push_send(&mut self, id: SourceId) {
        let Some(source) = self.sources.find(id) else { return };
        let (Some(fd), Some(sending)) = (source.fd.as_ref(), source.sending.as_ref()) else { return };
        let rest = &sending.buffer[sending.sent..];
        // A single send carries at most 2^31 bytes; what is left goes with the next.
        let size = rest.len().min(1 << 30) as u32;
        let entry = opcode::Send::new(types::Fd(fd.as_fd().as_raw_fd()), rest.as_ptr(), size)
            .flags(SendFlags::NOSIGNAL.bits() as i32)
            .build()
            .user_data(pack(OperationKind::Send, id));
        // SAFETY: the kernel reads `rest` until the completion of this operation. The vector lies in `Source::sending`
        // and is neither changed, moved out of its allocation nor dropped before that completion: `on_sent` is the
        // only place that takes it, and slots with a send are never freed (`Sources::remove` asserts it).
        unsafe { self.push(&entry) };
    }

    fn push_cancel(&mut self, kind: OperationKind, id: SourceId) {
        let entry =
            opcode::AsyncCancel::new(pack(kind, id)).build().user_data(pack(OperationKind::Cancel, id));
        // SAFETY: carries two integers and refers to no memory.
        unsafe { self.push(&entry) };
    }

    /// # Safety
    /// Memory and descriptors the entry refers to must stay valid until its last completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        self.operations_outstanding += 1;
        loop {
            // SAFETY: passed on to the caller.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: let the kernel take it, without waiting for anything.
            self.enter(0, None);
        }
    }

    fn on_completion(&mut self, completion: &cqueue::Entry) -> Option<Event> {
        let more = cqueue::more(completion.flags());
        if !more {
            self.operations_outstanding -= 1;
        }
        let result = completion.result();
        let (kind, id) = unpack(completion.user_data())?;
        match kind {
            OperationKind::Cancel => None,
            OperationKind::Send => self.on_sent(id, result),
            OperationKind::Watch => self.on_watch(id, result, completion.flags(), more),
        }
    }

    fn on_watch(&mut self, id: SourceId, result: i32, flags: u32, more: bool) -> Option<Event> {
        // Taken first, whatever becomes of the rest: a buffer that was filled must come back.
        let chunk =
            cqueue::buffer_select(flags).and_then(|buffer| self.buffers.take(buffer, result.max(0) as u32));
        let source = self.sources.find(id)?;
        let (kind, tag) = (source.kind, source.tag);
        if !more {
            source.arm = Arm::Off;
        }
        if source.closing {
            chunk.into_iter().for_each(|chunk| self.buffers.give_back(chunk));
            if kind == SourceKind::Listener && result >= 0 {
                drop(accepted(result));
            }
            self.free_if_done(id);
            return None;
        }
        let outcome = if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(result) };
        match (kind, outcome) {
            (SourceKind::Listener, Ok(fd)) => {
                self.rearm_if_ended(id, more);
                Some(Event::Accepted { tag, socket: accepted(fd) })
            }
            // The connection broke before we could take it; the listener is as good as ever.
            (SourceKind::Listener, Err(Errno::CONNABORTED | Errno::INTR | Errno::AGAIN)) => {
                self.rearm_if_ended(id, more);
                None
            }
            (SourceKind::Listener, Err(error)) => Some(Event::AcceptFailed { tag, error }),
            (SourceKind::Stream, Ok(0)) => {
                chunk.into_iter().for_each(|chunk| self.buffers.give_back(chunk));
                Some(Event::Ended { tag, error: None })
            }
            (SourceKind::Stream, Ok(_)) => {
                self.rearm_if_ended(id, more);
                chunk.map(|chunk| Event::Received { tag, chunk })
            }
            (SourceKind::Stream, Err(Errno::NOBUFS)) => {
                self.counters.starved += 1;
                self.buffers.on_starved();
                if let Some(source) = self.sources.find(id).filter(|source| source.arm == Arm::Off) {
                    if source.is_paused {
                        self.paused.push(id);
                    } else {
                        source.arm = Arm::Starved;
                        self.starved.push(id);
                    }
                }
                None
            }
            // Cancelled by a pause, which may be over already.
            (SourceKind::Stream, Err(Errno::INTR | Errno::AGAIN | Errno::CANCELED)) => {
                self.rearm_if_ended(id, more);
                None
            }
            (SourceKind::Stream, Err(error)) => {
                chunk.into_iter().for_each(|chunk| self.buffers.give_back(chunk));
                Some(Event::Ended { tag, error: Some(error) })
            }
            (SourceKind::Watched, _) => {
                self.rearm_if_ended(id, more);
                Some(Event::Ready { tag })
            }
        }
    }

    fn on_sent(&mut self, id: SourceId, result: i32) -> Option<Event> {
        let source = self.sources.find(id)?;
        let tag = source.tag;
        let mut sending = source.sending.take()?;
        if source.closing {
            self.free_if_done(id);
            return None;
        }
        if result < 0 {
            let error = Errno::from_raw_os_error(-result);
            if matches!(error, Errno::INTR | Errno::AGAIN) {
                source.sending = Some(sending);
                self.push_send(id);
                return None;
            }
            return Some(Event::SendFailed { tag, error });
        }
        sending.sent += result as usize;
        if sending.sent < sending.buffer.len() {
            source.sending = Some(sending);
            self.counters.short_sends += 1;
            self.push_send(id);
            return Some(Event::Progress { tag });
        }
        Some(Event::Sent { tag, buffer: sending.buffer })
    }

    fn rearm_if_ended(&mut self, id: SourceId, more: bool) {
        if more {
            return;
        }
        if let Some(source) = self.sources.find(id) {
            if source.is_paused {
                self.paused.push(id);
            } else {
                source.arm = Arm::Due;
                self.due.push(id);
            }
        }
    }

    fn free_if_done(&mut self, id: SourceId) {
        let done = self
            .sources
            .find(id)
            .is_some_and(|source| source.closing && source.arm != Arm::Armed && source.sending.is_none());
        if done {
            self.sources.remove(id);
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let ids: Vec<SourceId> = self.sources.ids().collect();
        ids.into_iter().for_each(|id| self.close(id));
        for _ in 0..DROP_ROUNDS {
            while let Some(event) = self.poll() {
                if let Event::Received { chunk, .. } = event {
                    self.recycle(chunk);
                }
            }
            if self.operations_outstanding == 0 {
                break;
            }
            self.enter(1, Some(DROP_WAIT));
        }
        // SAFETY: neither field is touched again. The ring's descriptor is closed first, which ends the registration.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if self.operations_outstanding == 0 {
            // SAFETY: as above; no operation is left that could write into the buffers.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        } else {
            // The kernel may still hold an operation: its memory is leaked, because freeing it could not be proved safe.
            std::mem::forget(std::mem::take(&mut self.sources));
        }
    }
}

/// Whether this host allows a ring at all, for those who make one of their own.
pub fn probe() -> Result<(), SetupRefused> {
    let refused = |error| SetupRefused::from_setup(&error);
    self_test(&mut IoUring::new(1).map_err(refused)?).map_err(refused)
}

/// One operation there and back: a ring that can be made but not entered, as under a filter that knows only one of the
/// three system calls, is none.
fn self_test(ring: &mut IoUring) -> std::io::Result<()> {
    // SAFETY: it refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.expect("a fresh queue has room");
    ring.submitter().submit_and_wait(1)?;
    let completion = ring.completion().next();
    match completion.map(|completion| completion.result()) {
        Some(0) => Ok(()),
        other => Err(std::io::Error::other(format!("the first operation ended with {other:?}"))),
    }
}

/// Takes over a socket the kernel has just made for us.
fn accepted(fd: i32) -> OwnedFd {
    // SAFETY: a non-negative result of accept is a fresh descriptor that nobody else owns or knows of; every
    // completion is taken once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
