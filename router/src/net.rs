//! Stages 1 and 8 of 8: the connections of a shard. Bytes become frames and calls; answers become bytes.
//!
//! In: the edge's events about listeners and connections; answers.  Out: requests to the engine; whole output buffers.
//! Owns: for each connection its life, its outstanding calls, the front half of a frame that is not complete yet, and
//! the output that is not with the kernel.
//! Always: frames are read where the kernel put them; one send is outstanding per connection, and everything written in
//! a turn goes out in it; everything a client can make grow is bounded (`NetOptions`), and a client over a bound is told
//! (GOAWAY) and closed.
//! Never: panics on what a client sends; lets one client's misbehaviour reach another.
//! Reading order: [`life`], [`connection`] (frames), [`calls`], [`outbox`], [`listener`], [`moves`] (between shards).
//! Tests: beside the code, `tests/wire.rs`, `tests/clients.rs`.
#![forbid(unsafe_code)]

pub mod calls;
pub mod connection;
pub mod life;
pub mod listener;
pub mod moves;
pub mod outbox;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use engine::{Answer, CancelReason, Engine, Nanos, Origin};
use protocol::{Extensions, Flags, FrameParts, Status, encode_front, encode_padding, limits};

use crate::io::{Chunk, Io, SourceId};
use crate::payloads::Payloads;
use crate::placement::Placement;
use crate::placement::balance::Candidate;
use crate::shard::Owner;
use crate::stats::ShardStats;
use crate::tape::Tape;
use crate::workers::{ResultBytes, Workers};

use connection::{Connection, Intake, Offence};
use life::{Happening, Life};
use moves::Departure;
use outbox::Outbox;

/// What handlers of one turn work with.
pub struct Desk<'a> {
    /// The turn's one reading of the clock.
    pub now: Nanos,
    /// All decisions.
    pub engine: &'a mut Engine,
    /// Where the bodies of calls lie.
    pub payloads: &'a mut Payloads,
    /// What is counted.
    pub stats: &'a mut ShardStats,
    /// What `quickfire record` wants to know.
    pub tape: &'a mut Tape,
}

/// The bounds of a shard's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetOptions {
    /// The largest frame accepted.
    pub frame_size_max: u32,
    /// Calls one connection may have outstanding.
    pub credits: u32,
    /// Connections at one time.
    pub connections_max: u32,
    /// Bytes of output that may wait behind the send that is under way, if that send makes no progress.
    pub output_size_max: usize,
    /// How long a send may make no progress while more than `output_size_max` wait behind it.
    pub output_stall_max: Nanos,
    /// Bytes of output of all connections together, waiting or with the kernel. Above it, the connections that hold
    /// most are slow readers, however fast they read.
    pub output_memory_max: usize,
    /// How long a fresh connection may take to say HELLO.
    pub hello_timeout: Nanos,
    /// How long a connection that was told to go may take to read it and close.
    pub close_timeout: Nanos,
}

/// Output that makes a connection a slow reader at once, in multiples of `output_size_max`: a client with a window of
/// 64 results of 1 MiB may be that far behind for a moment while it reads at full speed.
pub const OUTPUT_FACTOR_MAX: usize = 8;

/// Connections beyond `connections_max` that are told so at one time; more are closed without a word.
const REFUSALS_MAX: usize = 256;

/// After a listener ran out of descriptors it is tried again this much later.
const ACCEPT_PAUSE: Nanos = Nanos::from_ms(50);

/// Bytes, received or sent, that cost a shard about as much as the rest of a call's way through it: 50 ns.
const BYTES_PER_WEIGHT: u64 = 256;

struct Deadline {
    at: Nanos,
    index: u32,
    generation: u32,
}

/// All connections of a shard.
pub struct Net {
    options: NetOptions,
    connections: Vec<Connection>,
    free: Vec<u32>,
    open_count: u32,
    outbox: Outbox,
    listeners: Vec<SourceId>,
    paused_listeners: Vec<(Nanos, u32)>,
    /// In the order of their time, because each queue has one length of time.
    hello_deadlines: VecDeque<Deadline>,
    close_deadlines: VecDeque<Deadline>,
    is_draining: bool,
    /// This shard among others; `None`: it is alone.
    placement: Option<Placement>,
    departures: Vec<Departure>,
    /// Empty except while it is decided who leaves.
    candidates: Vec<Candidate>,
}

impl Net {
    /// Without listeners or connections.
    pub fn new(options: NetOptions) -> Net {
        Net {
            options,
            connections: Vec::new(),
            free: Vec::new(),
            open_count: 0,
            outbox: Outbox::default(),
            listeners: Vec::new(),
            paused_listeners: Vec::new(),
            hello_deadlines: VecDeque::new(),
            close_deadlines: VecDeque::new(),
            is_draining: false,
            placement: None,
            departures: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Accepts connections from `socket`.
    pub fn listen(&mut self, io: &mut Io, socket: OwnedFd) {
        let tag = Owner::Listener(self.listeners.len() as u32).tag();
        self.listeners.push(io.listen(Rc::new(socket), tag));
    }

    /// A client connected.
    pub fn on_accepted(&mut self, desk: &mut Desk<'_>, io: &mut Io, socket: OwnedFd) {
        desk.stats.counters.connections_accepted += 1;
        if let Some(socket) = self.pass_on(desk, socket) {
            self.open(desk, io, socket);
        }
    }

    /// A connection begins here.
    fn open(&mut self, desk: &mut Desk<'_>, io: &mut Io, socket: OwnedFd) {
        if self.is_draining
            || self.open_count as usize >= self.options.connections_max as usize + REFUSALS_MAX
        {
            desk.stats.counters.connections_refused += 1;
            return;
        }
        // W-70: nobody holds memory here with a large frame before saying who it is.
        let frame_size_max = self.options.frame_size_max.min(limits::FRAME_SIZE_MAX_FLOOR);
        let index = self.claim_slot(desk, io, socket, frame_size_max);
        self.hello_deadlines.push_back(Deadline {
            at: desk.now.plus(self.options.hello_timeout),
            index,
            generation: self.connections[index as usize].generation,
        });
        if self.open_count > self.options.connections_max {
            desk.stats.counters.connections_refused += 1;
            self.offend(desk, io, index, &Offence::TooManyConnections);
        }
    }

    /// A slot of the slab for a connection, which is received from.
    fn claim_slot(&mut self, desk: &mut Desk<'_>, io: &mut Io, socket: OwnedFd, frame_size_max: u32) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::vacant());
            (self.connections.len() - 1) as u32
        });
        let source = io.receive(socket, Owner::Connection(index).tag());
        self.connections[index as usize].open(source, frame_size_max);
        self.open_count += 1;
        self.note_open_count(desk);
        index
    }

    /// Called whenever it changed.
    fn note_open_count(&self, desk: &mut Desk<'_>) {
        desk.stats.counters.connections_open = u64::from(self.open_count);
        if let Some(placement) = &self.placement {
            placement.note_connections(self.open_count);
        }
    }

    /// A listener ran out of descriptors or memory: it rests, because asking again at once would get the same answer.
    pub fn on_accept_failed(&mut self, desk: &mut Desk<'_>, listener: u32) {
        desk.stats.counters.accept_failures += 1;
        self.paused_listeners.push((desk.now.plus(ACCEPT_PAUSE), listener));
    }

    /// Bytes arrived.
    pub fn on_received(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        index: u32,
        chunk: Chunk,
    ) {
        let size = chunk.size() as u64;
        let frames_before = desk.stats.counters.frames_received;
        desk.stats.counters.bytes_received += size;
        let chunk = desk.payloads.hold(chunk);
        let bytes = desk.payloads.chunk_bytes(io, chunk);
        let connection = &mut self.connections[index as usize];
        let outbox = &mut self.outbox;
        let intake = &mut Intake { desk, workers, outbox, options: &self.options, index };
        let outcome = connection.on_bytes(intake, bytes, chunk);
        let frames = intake.desk.stats.counters.frames_received - frames_before;
        connection.weight += frames + size / BYTES_PER_WEIGHT;
        if let Err(offence) = outcome {
            self.offend(desk, io, index, &offence);
        }
    }

    /// A part of a connection's output went out.
    pub fn on_progress(&mut self, desk: &mut Desk<'_>, index: u32) {
        self.connections[index as usize].progress_at = desk.now;
    }

    /// A connection's output went out; what was written meanwhile follows.
    pub fn on_sent(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32, buffer: Vec<u8>) {
        self.outbox.recycle(buffer);
        let connection = &mut self.connections[index as usize];
        connection.sending_size = 0;
        connection.progress_at = desk.now;
        self.outbox.count(connection);
        if connection.output.is_empty() {
            self.on_idle_output(desk, io, index);
        } else {
            self.outbox.touch(connection, index);
        }
    }

    /// The peer closed, or the connection broke.
    pub fn on_gone(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        self.happen(desk, io, index, Happening::PeerGone);
    }

    /// Writes answers to calls of one connection; `result` tells the bytes that the n-th carries.
    #[inline(always)]
    pub fn answer<R: ResultBytes>(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        origin: Origin,
        answers: &[Answer],
        result: impl Fn(usize) -> R,
    ) {
        let index = origin.connection;
        for (n, answer) in answers.iter().enumerate() {
            let connection = self
                .connections
                .get_mut(index as usize)
                .filter(|connection| connection.generation == origin.connection_generation)
                .and_then(|connection| connection.calls.remove(answer.origin.call_id).then_some(connection))
                .filter(|connection| connection.life.is_answered());
            let Some(connection) = connection else {
                desk.stats.counters.replies_orphaned += 1;
                continue;
            };
            desk.stats.counters.replies += 1;
            let frame_size_max = connection.frame_size_max;
            let output = self.outbox.open(connection, index);
            write_reply(output, answer, frame_size_max, &result(n));
            let is_slow = connection.is_slow(desk.now, &self.options);
            let is_last = connection.life == Life::Leaving && connection.calls.count() == 0;
            if is_slow {
                self.offend(desk, io, index, &Offence::SlowReader);
            } else if is_last {
                self.finish_leaving(desk, io, index);
            }
        }
    }

    /// Hands everything written in this turn to the kernel: one send for each connection that has none under way.
    pub fn flush(&mut self, desk: &mut Desk<'_>, io: &mut Io) {
        while let Some(index) = self.outbox.next_touched() {
            let connection = &mut self.connections[index as usize];
            connection.is_touched = false;
            self.outbox.count(connection);
            if connection.is_sending() || connection.output.is_empty() || connection.life == Life::Closed {
                continue;
            }
            let output = std::mem::take(&mut connection.output);
            desk.stats.counters.bytes_sent += output.len() as u64;
            connection.weight += output.len() as u64 / BYTES_PER_WEIGHT;
            connection.sending_size = output.len();
            connection.progress_at = desk.now;
            io.send(connection.source, output);
        }
        if self.outbox.held_size() > self.options.output_memory_max {
            self.shed_output(desk, io);
        }
        desk.stats.counters.output_bytes_held = self.outbox.held_size() as u64;
    }

    /// All connections together hold more output than they may: who holds most goes, until there is room. What waits
    /// behind a send is freed at once; a send under way only by closing, so whoever still holds most then is closed.
    #[cold]
    fn shed_output(&mut self, desk: &mut Desk<'_>, io: &mut Io) {
        while self.outbox.held_size() > self.options.output_memory_max {
            let largest = self.connections.iter().zip(0..).max_by_key(|(connection, _)| connection.held_size);
            let Some((connection, index)) = largest else { return };
            if connection.life == Life::Told {
                self.happen(desk, io, index, Happening::TimedOut);
            } else {
                self.offend(desk, io, index, &Offence::SlowReader);
                self.outbox.count(&mut self.connections[index as usize]);
            }
        }
    }

    /// Connections whose time is over.
    pub fn on_time(&mut self, desk: &mut Desk<'_>, io: &mut Io) {
        while let Some(deadline) = pop_due(&mut self.hello_deadlines, desk.now) {
            let connection = &self.connections[deadline.index as usize];
            if connection.generation == deadline.generation && connection.life == Life::AwaitHello {
                desk.stats.counters.hello_timeouts += 1;
                self.offend(desk, io, deadline.index, &Offence::HelloLate);
            }
        }
        while let Some(deadline) = pop_due(&mut self.close_deadlines, desk.now) {
            if self.connections[deadline.index as usize].generation == deadline.generation {
                self.happen(desk, io, deadline.index, Happening::TimedOut);
            }
        }
        while let Some(position) = self.paused_listeners.iter().position(|(at, _)| *at <= desk.now) {
            let (_, listener) = self.paused_listeners.swap_remove(position);
            io.resume(self.listeners[listener as usize]);
        }
    }

    /// When `on_time` has something to do next.
    pub fn next_timer(&self) -> Option<Nanos> {
        let hello = self.hello_deadlines.front().map(|deadline| deadline.at);
        let close = self.close_deadlines.front().map(|deadline| deadline.at);
        let paused = self.paused_listeners.iter().map(|(at, _)| *at).min();
        [hello, close, paused, self.next_departure_timer()].into_iter().flatten().min()
    }

    /// No new connections and no new calls; every client is told.
    pub fn drain(&mut self, desk: &mut Desk<'_>, io: &mut Io) {
        self.is_draining = true;
        self.placement.iter().for_each(Placement::note_draining);
        self.cancel_departures(io);
        self.listeners.iter().for_each(|listener| io.close(*listener));
        for index in 0..self.connections.len() as u32 {
            self.leave(desk, io, index);
        }
    }

    /// The router drains: the connection is told so.
    fn leave(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        let connection = &mut self.connections[index as usize];
        match connection.life.on(Happening::DrainBegan) {
            Life::Leaving if connection.life == Life::Open => {
                connection.life = Life::Leaving;
                let output = self.outbox.open(connection, index);
                write_goaway(output, Status::GoingAway, "the router is going away");
                if connection.calls.count() == 0 {
                    self.finish_leaving(desk, io, index);
                }
            }
            Life::Told if connection.life == Life::AwaitHello => {
                self.offend(desk, io, index, &Offence::Draining);
            }
            _ => {}
        }
    }

    /// Cancels every outstanding call; the answers come as usual.
    pub fn cancel_all(&mut self, desk: &mut Desk<'_>) {
        for connection in &self.connections {
            for invocation in connection.calls.iter() {
                desk.engine.handle_cancel(desk.now, invocation, CancelReason::Asked);
            }
        }
    }

    /// Connections that are not closed yet.
    pub fn open_count(&self) -> u32 {
        self.open_count
    }

    /// There is no connection, and none on its way here.
    pub fn is_quiet(&self) -> bool {
        self.open_count == 0 && self.is_inbox_empty()
    }

    fn is_inbox_empty(&self) -> bool {
        self.placement.as_ref().is_none_or(Placement::is_inbox_empty)
    }

    /// The shard is about to sleep. False: there is a connection to take.
    pub fn announce_sleep(&self) -> bool {
        self.placement.as_ref().is_none_or(Placement::announce_sleep)
    }

    /// Awake again.
    pub fn announce_awake(&self) {
        self.placement.iter().for_each(Placement::announce_awake);
    }

    /// Ends a connection with a reason: GOAWAY stands last in its output, its calls are cancelled.
    fn offend(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32, offence: &Offence) {
        let connection = &mut self.connections[index as usize];
        if connection.life.on(Happening::Offended) != Life::Told || connection.life == Life::Told {
            return;
        }
        match offence {
            Offence::Misbehaved(_) => desk.stats.counters.clients_misbehaved += 1,
            Offence::SlowReader => {
                desk.stats.counters.slow_readers += 1;
                // It would not read that either, and the memory is what it goes for.
                self.outbox.recycle(std::mem::take(&mut connection.output));
            }
            _ => {}
        }
        let output = self.outbox.open(connection, index);
        write_goaway(output, offence.status(), &offence.to_string());
        self.happen(desk, io, index, Happening::Offended);
    }

    /// The last answer of a leaving connection is written.
    fn finish_leaving(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        self.happen(desk, io, index, Happening::CallsAnswered);
    }

    /// The one place where a connection's life changes after it was opened, with what follows from it.
    fn happen(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32, happening: Happening) {
        let connection = &mut self.connections[index as usize];
        let before = connection.life;
        let next = before.on(happening);
        if next == before {
            return;
        }
        connection.life = next;
        match next {
            Life::Told => {
                connection.forget_input(desk);
                cancel_all(connection, desk);
                let deadline = Deadline {
                    at: desk.now.plus(self.options.close_timeout),
                    index,
                    generation: connection.generation,
                };
                self.close_deadlines.push_back(deadline);
                let is_out = !connection.is_sending() && connection.output.is_empty();
                if is_out {
                    self.on_idle_output(desk, io, index);
                }
            }
            Life::Lingering => io.shutdown_write(connection.source),
            Life::Closed => {
                if happening == Happening::PeerGone && (!connection.partial.is_empty() || connection.skip > 0)
                {
                    desk.stats.counters.clients_gone_mid_frame += 1;
                }
                connection.forget_input(desk);
                cancel_all(connection, desk);
                io.close(connection.source);
                self.outbox.recycle(std::mem::take(&mut connection.output));
                connection.sending_size = 0;
                self.outbox.count(connection);
                connection.close();
                self.free.push(index);
                self.open_count -= 1;
                desk.stats.counters.connections_closed += u64::from(happening != Happening::Left);
                self.note_open_count(desk);
            }
            Life::AwaitHello | Life::Open | Life::Leaving => {}
        }
    }

    /// Everything written is with the kernel.
    fn on_idle_output(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32) {
        self.happen(desk, io, index, Happening::OutputSent);
    }
}

/// The next deadline that is over.
fn pop_due(deadlines: &mut VecDeque<Deadline>, now: Nanos) -> Option<Deadline> {
    if deadlines.front()?.at > now {
        return None;
    }
    deadlines.pop_front()
}

/// Cancels every outstanding call of a connection: nobody waits for the answers.
fn cancel_all(connection: &mut Connection, desk: &mut Desk<'_>) {
    for invocation in connection.calls.take_all() {
        desk.stats.counters.clients_gone_calls += 1;
        desk.engine.handle_cancel(desk.now, invocation, CancelReason::ClientGone);
        desk.payloads.release(invocation);
    }
}

/// Appends a REPLY.
#[inline(always)]
fn write_reply(output: &mut Vec<u8>, answer: &Answer, frame_size_max: u32, result: &impl ResultBytes) {
    let payload_size = result.size();
    let timings = answer.want_timings.then(|| answer.stamps.timings());
    let extensions = Extensions { timings, ..Extensions::NONE };
    let extension_size = if timings.is_some() { Flags::TIMINGS.known_extension_size() } else { 0 };
    let parts = FrameParts {
        budget_us: answer.retry_after_us,
        flags: answer.flags,
        ..FrameParts::reply(answer.origin.call_id, answer.status)
    };
    // The client said how large a frame it takes; a result beyond it can only be told of.
    if payload_size > limits::payload_size_max(frame_size_max, extension_size as u16) as usize {
        let parts = FrameParts { status: Status::ResultTooLarge, ..parts };
        encode_front(output, &parts, &extensions, 0);
        return;
    }
    encode_front(output, &parts, &extensions, payload_size);
    if payload_size > 0 {
        let before = output.len();
        result.append_to(output);
        assert_eq!(output.len(), before + payload_size, "the payload is as large as announced");
    }
    encode_padding(output, payload_size);
}

/// Appends a GOAWAY.
fn write_goaway(output: &mut Vec<u8>, status: Status, reason: &str) {
    protocol::encode(
        output,
        &FrameParts::goaway(status),
        &Extensions::NONE,
        limits::cut_reason(reason).as_bytes(),
    );
}
