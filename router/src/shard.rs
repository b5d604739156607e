//! The loop. One shard is one thread with its ring, its connections, its queues and its workers; nothing is shared.
//!
//! In: completions of the kernel, completions of workers, in-process calls, commands.  Out: sends, pushes, wakes.
//! Owns: everything a call touches between its first and its last byte.
//! Always: the clock is read once in a turn; whatever was collected in a turn leaves in it, in one batch for each
//! receiver; after a turn without work `idle` says whether the shard looks again or sleeps in the kernel.
//! Never: locks, blocks (except to sleep) or, once its tables have grown, allocates.
//! Why a plain function: the bare thread, the glommio executor and the tests all call the same `turn`.
#![forbid(unsafe_code)]

mod commands;

use std::sync::Arc;
use std::time::Duration;

use engine::{Answer, Engine, EngineRefused, FunctionSpec, Keep, Limits, Nanos, ShardId, TenantSpec};
use queue::{Ledger, Mailbox};

use crate::clock;
use crate::config::IoChoice;
use crate::drain::{Drain, DrainOptions, Remaining, Step};
use crate::frontend::{Bell, LOCAL, LocalEnd};
use crate::idle::{Idle, IdleStrategy, Rest, Surroundings};
use crate::io::{Event, Io, IoBackend, IoOptions, SetupRefused, Tag};
use crate::kept::{KeptBounds, KeptCalls};
use crate::net::{Desk, Net, NetOptions};
use crate::payloads::{Body, Manner, Payloads};
use crate::placement::Placement;
use crate::shm_clients::{ShmClients, ShmOptions};
use crate::stats::ShardStats;
use crate::tape::Tape;
use crate::workers::{Attach, AttachOptions, Deliver, NoResult, ResultBytes, ShimState, Workers};

pub use commands::{Command, Explained, Reconfigure};

/// Events of the kernel handled in one turn: 64 receive buffers hold 2 MiB, about 30,000 small calls and two
/// milliseconds. More would make the calls at the front wait for those behind.
const EVENTS_PER_TURN_MAX: usize = 64;
/// How often the counters are published while there is work.
const PUBLISH_PERIOD: Nanos = Nanos::from_ms(10);
/// A shard that sleeps and wakes thousands of times a second publishes no more often than this before it sleeps; the
/// first sleep that would hide something newer is cut to this length.
const PUBLISH_PERIOD_MIN: Nanos = Nanos::from_ms(1);

/// Shows a shard's counters to the outside: called about every 10 ms and before the shard sleeps.
pub trait Publish: Send {
    /// Copies what should be seen.
    fn publish(&mut self, now: Nanos, stats: &ShardStats, engine: &Engine);
}

/// Everything a shard is made of.
pub struct ShardOptions {
    /// Its number.
    pub shard: ShardId,
    /// Sizes of its edge to the kernel.
    pub io: IoOptions,
    /// What that is to run on.
    pub io_choice: IoChoice,
    /// Bounds of its connections.
    pub net: NetOptions,
    /// Bounds of its shared-memory clients.
    pub shm: ShmOptions,
    /// Who may attach.
    pub attach: AttachOptions,
    /// Bounds of its engine.
    pub limits: Limits,
    /// Where the shards of this process count concurrency together.
    pub ledger: Arc<Ledger>,
    /// The tenants of its functions; the first is the default one.
    pub tenants: Vec<TenantSpec>,
    /// Its functions; the index is the id.
    pub functions: Vec<FunctionSpec>,
    /// Bytes of payloads that may wait.
    pub payload_memory_max: u64,
    /// Bounds of what it keeps beyond answers.
    pub kept: KeptBounds,
    /// Where the engine's chance comes from.
    pub chance_seed: u64,
    /// What it does without work.
    pub idle: IdleStrategy,
    /// The longest it looks for work before it sleeps, if that is adaptive.
    pub spin: Nanos,
    /// Processors that this process may use.
    pub processor_count: u32,
    /// Shards of this process.
    pub shard_count: u32,
    /// How it ends.
    pub drain: DrainOptions,
}

/// What a shard is given from outside its thread.
pub struct ShardInputs {
    /// Listening sockets.
    pub listeners: Vec<std::os::fd::OwnedFd>,
    /// The listening attach socket.
    pub attach: std::os::fd::OwnedFd,
    /// Commands.
    pub commands: Arc<Mailbox<Command>>,
    /// Wakes it.
    pub bell: Arc<Bell>,
    /// In-process calls.
    pub local: LocalEnd,
    /// Its part of the decision which shard serves which connection; `None`: it is alone.
    pub placement: Option<Placement>,
    /// Tells who keeps the function processes.
    pub shim: ShimState,
    /// Shows its counters.
    pub publish: Option<Box<dyn Publish>>,
    /// Tells of each call, to whoever records.
    pub tape: Tape,
}

/// Why a shard could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ShardRefused {
    /// No ring.
    #[error(transparent)]
    Io(#[from] SetupRefused),
    /// No ring for the thread's host.
    #[error("host = \"glommio\" has rings of its own, whatever `io` says (host = \"bare\" needs none): {0}")]
    Glommio(SetupRefused),
    /// No engine.
    #[error(transparent)]
    Engine(#[from] EngineRefused),
}

/// One shard.
pub struct Shard {
    io: Io,
    engine: Engine,
    net: Net,
    shm: ShmClients,
    workers: Workers,
    attach: Attach,
    local: LocalEnd,
    payloads: Payloads,
    kept: KeptCalls,
    stats: ShardStats,
    commands: Arc<Mailbox<Command>>,
    drain: Drain,
    drain_options: DrainOptions,
    publish: Option<Box<dyn Publish>>,
    published_at: Nanos,
    tape: Tape,
    idle: Idle,
    processor_count: u32,
    shard_count: u32,
    /// When the turn began, and whether the next reading of the clock tells its length.
    turn_at: Nanos,
    is_turn_timed: bool,
    /// Work of the last turn.
    turn_work: usize,
}

/// Whose event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A listening socket for clients.
    Listener(u32),
    /// A client's connection.
    Connection(u32),
    /// The bell for commands and in-process calls.
    Bell,
    /// The listening socket for workers and the shim.
    AttachListener,
    /// Somebody on the attach socket.
    AttachPeer(u32),
    /// A worker's bell.
    WorkerBell(u32),
    /// A worker's process.
    WorkerProcess(u32),
    /// The bell of a client with a ring.
    ClientBell(u32),
}

impl Shard {
    /// Makes a shard on the thread that will run it.
    pub fn new(options: ShardOptions, inputs: ShardInputs) -> Result<Shard, ShardRefused> {
        let mut io = Io::choose(options.io_choice, options.io)?;
        let function_count = options.functions.len();
        let mut stats = ShardStats::new(function_count);
        stats.respecify(function_count, &options.attach.rings);
        let mut engine = Engine::new(options.shard, options.limits, options.tenants, options.functions)?;
        engine.share_ledger(options.ledger);
        engine.seed_chance(options.chance_seed);
        let mut net = Net::new(options.net);
        inputs.placement.into_iter().for_each(|placement| net.join(placement));
        inputs.listeners.into_iter().for_each(|socket| net.listen(&mut io, socket));
        let attach = Attach::new(&mut io, inputs.attach, options.attach, inputs.shim);
        io.watch(std::rc::Rc::new(inputs.bell.clone()), Owner::Bell.tag());
        stats.counters.io_on_epoll = u64::from(*io.backend() != IoBackend::Uring);
        let now = clock::now();
        Ok(Shard {
            io,
            engine,
            net,
            shm: ShmClients::new(options.shm),
            workers: Workers::default(),
            attach,
            local: inputs.local,
            payloads: Payloads::new(options.payload_memory_max),
            kept: KeptCalls::new(options.shard.0, options.kept),
            stats,
            commands: inputs.commands,
            drain: Drain::Running,
            drain_options: options.drain,
            publish: inputs.publish,
            published_at: now,
            tape: inputs.tape,
            idle: Idle::new(options.idle, options.spin, now),
            processor_count: options.processor_count,
            shard_count: options.shard_count,
            turn_at: now,
            is_turn_timed: false,
            turn_work: 0,
        })
    }

    /// One turn: everything this thread ever does is reached from here. Returns how much there was to do.
    pub fn turn(&mut self) -> usize {
        let now = self.begin_turn(); //                                                         clock.rs
        if !self.tape.begin_turn(now) {
            return self.turn_at::<false>(now);
        }
        let work = self.turn_at::<true>(now);
        self.tape.end_turn();
        work
    }

    /// The turn, recorded or not: two bodies, so that a call that nobody records is not asked about it.
    #[inline(always)]
    fn turn_at<const IS_RECORDED: bool>(&mut self, now: Nanos) -> usize {
        let mut desk = Desk {
            now,
            engine: &mut self.engine,
            payloads: &mut self.payloads,
            stats: &mut self.stats,
            tape: &mut self.tape,
        };
        let mut replies = Replies::<IS_RECORDED> {
            net: &mut self.net,
            shm: &mut self.shm,
            local: &mut self.local,
            kept: &mut self.kept,
        };

        let mut work = self.workers.reap(&mut desk, &mut self.io, &mut replies); // results, 8      workers.rs
        work += replies.local.take(&mut desk, &mut self.workers); //           in-process calls  frontend.rs
        work += take_events(&mut desk, &mut self.io, &mut replies, &mut self.workers, &mut self.attach); // 1, 2  net.rs
        work += replies.shm.take(&mut desk, &mut self.io, &mut self.workers); // 1, 2  shm_clients.rs
        replies.net.on_time(&mut desk, &mut self.io); //                       who is too late
        self.attach.on_time(&mut desk, &mut self.io);
        replies.shm.look_at_lanes(&mut desk, &self.workers); //                leases              lanes.rs
        self.workers.on_time(now);
        desk.engine.handle_time(now, &self.workers); //                        deadlines         engine: deadlines.rs
        work += self.workers.push_hedges(&mut desk); //                         second attempts   engine: hedge.rs
        while let Some(push) = desk.engine.poll_push(now) {
            self.workers.push(&mut desk, &self.io, replies.shm, push); //                   stages 3, 4, 5    engine: dispatch.rs
            work += 1;
        }
        desk.engine.handle_waits(now, &self.workers); //                       circles           engine: circles.rs
        work += self.attach.tell_places(&mut desk, &self.workers); //           processes wanted  engine: pool.rs
        while let Some(answer) = desk.engine.poll_answer() {
            let invocation = answer.invocation;
            if answer.keep != Keep::No {
                replies.keep_taken_back(&mut desk, &self.io, &answer); //       quarantine          kept.rs
            }
            replies.deliver(&mut desk, &mut self.io, &[answer], |_| NoResult); //    stage 8           engine: reply.rs
            desk.payloads.release(invocation);
            work += 1;
        }
        work += self.workers.act(&mut desk, &mut self.io); //                  cancel, stop, kill
        self.workers.publish(&mut desk); //                                    once for each touched ring
        replies.shm.publish(&mut desk, &mut self.io); //                        once for each touched client
        replies.net.flush(&mut desk, &mut self.io); //                         one send for each connection
        work += replies.net.balance(&mut desk, &mut self.io); //               connections that move  net/moves.rs
        desk.payloads.settle(&mut self.io); //                                 buffers back      payloads.rs
        self.io.submit(); //                                                   one system call   io/
        work += self.obey(); //                                                commands, drain   drain.rs
        self.end_turn(work);
        work
    }

    /// After a turn without work: looks again for a while, then sleeps until something happens.
    pub fn rest(&mut self) {
        self.rest_at_most(Duration::MAX);
    }

    /// The same, for a host that wants the thread back now and then.
    pub fn rest_at_most(&mut self, length_max: Duration) {
        if self.has_ended() {
            // Nothing will ever wake it again.
            return;
        }
        match self.idle.next(self.turn_at, self.surroundings()) {
            Rest::Hot => return std::hint::spin_loop(),
            Rest::Yield => return std::thread::yield_now(),
            Rest::Sleep => {}
        }
        self.is_turn_timed = false;
        let Some(timeout) = self.sleep_length() else { return };
        let may_sleep = self.commands.announce_sleep()
            & self.local.announce_sleep()
            & self.workers.announce_sleep()
            & self.shm.announce_sleep()
            & self.net.announce_sleep()
            & !self.io.has_pending();
        if may_sleep {
            let unpublished_max = self.publish_before_sleep();
            let is_bounded = length_max < Duration::MAX;
            let timeout =
                [timeout, unpublished_max, is_bounded.then_some(length_max)].into_iter().flatten().min();
            self.stats.counters.sleeps += 1;
            self.io.wait(timeout);
        }
        self.commands.announce_awake();
        self.local.announce_awake();
        self.workers.announce_awake();
        self.net.announce_awake();
    }

    /// True once a drain is over.
    pub fn has_ended(&self) -> bool {
        self.drain == Drain::Ended
    }

    /// What its edge to the kernel runs on.
    pub fn io_backend(&self) -> &IoBackend {
        self.io.backend()
    }

    /// What it counted.
    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }

    /// Its decisions, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn begin_turn(&mut self) -> Nanos {
        let now = clock::now();
        if self.is_turn_timed {
            self.stats.on_turn(self.turn_work, now.since(self.turn_at));
        }
        self.is_turn_timed = true;
        self.turn_at = now;
        now
    }

    fn end_turn(&mut self, work: usize) {
        self.turn_work = work;
        if work > 0 {
            self.idle.on_work(self.turn_at);
        }
        if self.turn_at.since(self.published_at) >= PUBLISH_PERIOD {
            self.publish_now();
        }
    }

    /// Commands, and the steps of a drain.
    fn obey(&mut self) -> usize {
        let (work, is_drain_asked) = self.take_commands(); //                  shard/commands.rs
        let now = self.turn_at;
        let mut desk = Desk {
            now,
            engine: &mut self.engine,
            payloads: &mut self.payloads,
            stats: &mut self.stats,
            tape: &mut self.tape,
        };
        if is_drain_asked && self.drain.begin(now, &self.drain_options) {
            desk.engine.handle_drain();
            self.net.drain(&mut desk, &mut self.io);
            self.shm.drain(&mut desk, &mut self.io, &mut self.workers);
            self.attach.drain();
            self.workers.announce_draining();
        }
        if self.drain == Drain::Running {
            return work;
        }
        let remaining = Remaining {
            is_quiet: desk.engine.is_idle() && self.net.is_quiet() && self.shm.attached_count() == 0,
            workers: self.workers.attached_count(),
        };
        match self.drain.advance(now, &self.drain_options, remaining) {
            Some(Step::Cut) => {
                self.net.cancel_all(&mut desk);
                self.shm.cancel_all(&mut desk);
                self.local.cancel_all(&mut desk);
            }
            Some(Step::Stop) => {
                // The shim first: it would start again what exits.
                self.attach.stop_shim(now);
                self.workers.stop_all();
            }
            None => {
                if self.drain == Drain::Ended {
                    // The last word: what `inspect` shows of a router that is no more.
                    self.publish_now();
                }
                return work;
            }
        }
        work + 1
    }

    /// Who else wants a processor. Workers with calls are no more than there are calls or workers; behind sockets there is
    /// at least one client, most likely on this host.
    fn surroundings(&self) -> Surroundings {
        let in_flight = self.engine.in_flight();
        let workers = in_flight.min(self.workers.attached_count());
        let clients = self.shm.watched_count() + u32::from(self.net.open_count() > 0);
        let parties = self.shard_count + workers + clients;
        Surroundings { processor_count: self.processor_count, parties, is_call_in_flight: in_flight > 0 }
    }

    /// `None`: something is due already. `Some(None)`: nothing ever is.
    fn sleep_length(&self) -> Option<Option<Duration>> {
        let timers = [
            self.engine.next_timer(),
            self.net.next_timer(),
            self.shm.next_timer(),
            self.attach.next_timer(),
            self.workers.next_timer(),
            self.drain.next_timer(),
        ];
        match timers.into_iter().flatten().min() {
            None => Some(None),
            Some(at) if at <= self.turn_at => None,
            Some(at) => Some(Some(Duration::from_nanos(at.since(self.turn_at).0))),
        }
    }

    /// Publishes, or says how long the sleep may be until it is time to.
    fn publish_before_sleep(&mut self) -> Option<Duration> {
        let age = self.turn_at.since(self.published_at);
        if self.idle.worked_at() < self.published_at && age < PUBLISH_PERIOD {
            return None;
        }
        if age < PUBLISH_PERIOD_MIN {
            return Some(Duration::from_nanos(PUBLISH_PERIOD_MIN.0 - age.0));
        }
        self.publish_now();
        None
    }

    fn publish_now(&mut self) {
        self.published_at = self.turn_at;
        self.stats.latencies.settle();
        self.stats.peaks.look(self.turn_at, &self.stats.functions);
        self.stats.note_io(self.io.counters());
        self.stats.counters.payload_bytes_claimed = self.payloads.bytes_claimed();
        let (quarantined, dead_letters) = self.kept.counts();
        self.stats.counters.quarantined_now = quarantined as u64;
        self.stats.counters.dead_letters_now = dead_letters as u64;
        if let Some(publish) = &mut self.publish {
            self.engine.look_at_queues(self.turn_at);
            publish.publish(self.turn_at, &self.stats, &self.engine);
        }
        self.stats.counters.turn_ns_max = 0;
    }
}

/// What the kernel tells, to whom it concerns.
fn take_events<const IS_RECORDED: bool>(
    desk: &mut Desk<'_>,
    io: &mut Io,
    replies: &mut Replies<'_, IS_RECORDED>,
    workers: &mut Workers,
    attach: &mut Attach,
) -> usize {
    let mut work = 0;
    for _ in 0..EVENTS_PER_TURN_MAX {
        let Some(event) = io.poll() else { break };
        work += 1;
        match event {
            Event::Received { tag, chunk } => match Owner::of(tag) {
                Owner::Connection(index) => replies.net.on_received(desk, io, workers, index, chunk),
                _ => io.recycle(chunk),
            },
            Event::Sent { tag, buffer } => {
                if let Owner::Connection(index) = Owner::of(tag) {
                    replies.net.on_sent(desk, io, index, buffer);
                }
            }
            Event::Progress { tag } => {
                if let Owner::Connection(index) = Owner::of(tag) {
                    replies.net.on_progress(desk, index);
                }
            }
            Event::Paused { tag } => {
                if let Owner::Connection(index) = Owner::of(tag) {
                    replies.net.on_paused(index);
                }
            }
            Event::Ended { tag, .. } | Event::SendFailed { tag, .. } => {
                if let Owner::Connection(index) = Owner::of(tag) {
                    replies.net.on_gone(desk, io, index);
                }
            }
            Event::Accepted { tag, socket } => match Owner::of(tag) {
                Owner::AttachListener => attach.on_accepted(desk, io, socket),
                _ => replies.net.on_accepted(desk, io, socket),
            },
            Event::AcceptFailed { tag, .. } => match Owner::of(tag) {
                Owner::Listener(index) => replies.net.on_accept_failed(desk, index),
                _ => attach.on_accept_failed(desk),
            },
            Event::Ready { tag } => match Owner::of(tag) {
                Owner::AttachPeer(index) => attach.on_ready(desk, io, workers, replies, index),
                Owner::WorkerProcess(index) => workers.on_process_event(desk, io, replies, index),
                Owner::WorkerBell(index) => workers.on_bell(desk, index),
                Owner::ClientBell(index) => replies.shm.on_bell(desk, io, index),
                // Whoever rang has left what it rang for: commands and calls are taken in every turn.
                _ => {}
            },
        }
    }
    work
}

/// Where answers go: to a connection, to a client's ring, or to a ticket in this process. Every answer passes here, and is measured.
struct Replies<'a, const IS_RECORDED: bool> {
    net: &'a mut Net,
    shm: &'a mut ShmClients,
    local: &'a mut LocalEnd,
    kept: &'a mut KeptCalls,
}

impl<const IS_RECORDED: bool> Replies<'_, IS_RECORDED> {
    /// Keeps a call whose bytes were taken back from its lost worker.
    #[cold]
    fn keep_taken_back(&mut self, desk: &mut Desk<'_>, io: &Io, answer: &Answer) {
        let (manner, body) = desk.payloads.body(io, answer.invocation);
        desk.stats.counters.kept_calls_forgotten += self.kept.keep(desk.now, answer, manner, body);
    }
}

impl<const IS_RECORDED: bool> Deliver for Replies<'_, IS_RECORDED> {
    #[inline(always)]
    fn deliver<R: ResultBytes>(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        answers: &[Answer],
        result: impl Fn(usize) -> R,
    ) {
        measure(desk.stats, answers);
        if IS_RECORDED {
            answers.iter().enumerate().for_each(|(n, answer)| record(desk, answer, &result(n)));
        }
        let mut first = 0;
        for run in answers.chunk_by(|one, next| one.origin.is_same_caller(&next.origin)) {
            let origin = run[0].origin;
            let result = |n| result(first + n);
            if origin.connection == LOCAL {
                self.local.answer(desk, run, result);
            } else if ShmClients::is_origin(&origin) {
                self.shm.answer(desk, origin, run, result);
            } else {
                self.net.answer(desk, io, origin, run, result);
            }
            first += run.len();
        }
    }

    fn clients(&mut self) -> &mut ShmClients {
        self.shm
    }

    fn keep(&mut self, desk: &mut Desk<'_>, answer: &Answer, manner: Manner, body: Body<'_>) {
        desk.stats.counters.kept_calls_forgotten += self.kept.keep(desk.now, answer, manner, body);
    }
}

/// The call's end, for `quickfire record`.
#[inline(always)]
fn record(desk: &mut Desk<'_>, answer: &Answer, result: &impl ResultBytes) {
    let Desk { engine, payloads, tape, .. } = desk;
    let request = |out: Option<&mut Vec<u8>>| {
        result.request(out).unwrap_or_else(|| payloads.size_of(answer.invocation))
    };
    tape.answered(engine, answer, result.size(), request);
}

/// Where the time of calls went, into the histograms.
#[inline]
fn measure(stats: &mut ShardStats, answers: &[Answer]) {
    for run in answers.chunk_by(|one, next| one.function == next.function) {
        let function = stats.functions.get_mut(run[0].function.0 as usize);
        stats.latencies.note(run, function);
    }
}

impl Owner {
    /// What the edge to the kernel carries for this owner.
    pub fn tag(self) -> Tag {
        let (kind, index) = match self {
            Owner::Listener(index) => (0, index),
            Owner::Connection(index) => (1, index),
            Owner::Bell => (2, 0),
            Owner::AttachListener => (3, 0),
            Owner::AttachPeer(index) => (4, index),
            Owner::WorkerBell(index) => (5, index),
            Owner::WorkerProcess(index) => (6, index),
            Owner::ClientBell(index) => (7, index),
        };
        Tag(kind << 32 | u64::from(index))
    }

    /// The reverse.
    pub fn of(tag: Tag) -> Owner {
        let index = tag.0 as u32;
        match tag.0 >> 32 {
            0 => Owner::Listener(index),
            1 => Owner::Connection(index),
            2 => Owner::Bell,
            3 => Owner::AttachListener,
            4 => Owner::AttachPeer(index),
            5 => Owner::WorkerBell(index),
            6 => Owner::WorkerProcess(index),
            _ => Owner::ClientBell(index),
        }
    }
}
