//! How workers and the shim come: the attach socket of a shard.
//!
//! ```text
//!  connect ──▶ Visitor ── AttachWorker ──▶ Worker   gets ring and bell, is watched until its end
//!                 │   ├── AttachShim ────▶ Shim     is told what shim_peer.rs says, and listened to until its end
//!                 │   └── AttachClient ──▶ Client   gets ring and bell, is listened to until its end (shm_clients.rs)
//!                 └── anything else, too late, or not our user ──▶ refused and closed
//! ```
//! In: records on a Unix socket (`protocol::attach`).  Out: seats in [`Workers`], words to the engine.
//! Always: peers run as our user (SO_PEERCRED), and who is in a sandbox is a worker of its own function (`contained.rs`); visitors are bounded in number, bytes and time, and what one peer may say in
//! one turn is bounded too.
//! Always: a worker's token is the edition of its function that it was started as. The engine takes one of another edition
//! than the one in force only if nobody serves, or others of its own do.
//! Never: blocks: every read and write is done with what is there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::{Nanos, PlacesWanted, WorkerId};
use protocol::attach::{self, Attached, Message};
use protocol::{FunctionId, FunctionName};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Generation, Geometry, Identity, Mapped, RouterEnd, pass, peer};

use super::contained::Contained;
use super::seat::Process;
use super::shim_peer::ShimPeer;
use super::{Deliver, FunctionRing, Seat, Workers};
use crate::io::{Io, SourceId};
use crate::lanes::LaneWanted;
use crate::net::Desk;
use crate::shard::Owner;
use crate::shm_clients::{ClientId, ShmClients, Wanted};

/// Peers that have not said who they are, at one time.
const VISITORS_MAX: usize = 256;
/// How long they may take to say it.
const VISIT_TIMEOUT: Nanos = Nanos::from_secs(5);
/// A listener that ran out of descriptors rests this long.
const ACCEPT_PAUSE: Nanos = Nanos::from_ms(50);

/// Readings of one peer's socket in one turn. A client may cancel all of its 4096 calls at once; one that never stops
/// talking would hold the shard.
const READS_PER_EVENT_MAX: usize = 16_384;

/// What peers are measured against.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// Our number.
    pub shard: u16,
    /// The user whose processes may attach.
    pub user_id: u32,
    /// What a shim must be for: `Config::digest`.
    pub config_digest: u64,
    /// Rings, by function.
    pub rings: Vec<FunctionRing>,
}

/// Who keeps the function processes, as the rest of the router may ask.
#[derive(Debug, Clone, Default)]
pub struct ShimState(Arc<AtomicU64>);

impl ShimState {
    /// The shim's process, while one is attached.
    pub fn process_id(&self) -> Option<u32> {
        u32::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|id| *id != 0)
    }

    fn set(&self, process_id: Option<u32>) {
        self.0.store(u64::from(process_id.unwrap_or(0)), Ordering::Relaxed);
    }
}

enum Role {
    Visitor { until: Nanos },
    Worker(WorkerId),
    Shim,
    Client(ClientId),
}

struct Peer {
    role: Role,
    socket: Rc<UnixStream>,
    source: SourceId,
    credentials: peer::Credentials,
    /// The front of a message that is not complete.
    partial: Vec<u8>,
}

/// The attach socket and everybody connected to it.
pub struct Attach {
    options: AttachOptions,
    shim: ShimState,
    listener: Option<SourceId>,
    resume_at: Option<Nanos>,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    visitor_count: usize,
    /// In the order of their time.
    deadlines: VecDeque<(Nanos, u32)>,
    is_draining: bool,
    shim_peer: ShimPeer,
    own_process_id: u32,
}

impl Attach {
    /// Listens on `socket`.
    pub fn new(io: &mut Io, socket: OwnedFd, options: AttachOptions, shim: ShimState) -> Attach {
        let listener = io.listen(Rc::new(socket), Owner::AttachListener.tag());
        Attach {
            options,
            shim,
            listener: Some(listener),
            resume_at: None,
            peers: Vec::new(),
            free: Vec::new(),
            visitor_count: 0,
            deadlines: VecDeque::new(),
            is_draining: false,
            shim_peer: ShimPeer::default(),
            own_process_id: std::process::id(),
        }
    }

    /// Somebody connected.
    pub fn on_accepted(&mut self, desk: &mut Desk<'_>, io: &mut Io, socket: OwnedFd) {
        let credentials = match peer::credentials(&socket) {
            Ok(credentials) if credentials.uid == self.options.user_id => credentials,
            _ => {
                desk.stats.counters.attach_misbehaved += 1;
                send(&UnixStream::from(socket), refused(attach::AttachRefused::PeerUntrusted));
                return;
            }
        };
        if self.visitor_count >= VISITORS_MAX {
            desk.stats.counters.workers_refused += 1;
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            (self.peers.len() - 1) as u32
        });
        let socket = Rc::new(UnixStream::from(socket));
        let source = io.watch(socket.clone(), Owner::AttachPeer(index).tag());
        let until = desk.now.plus(VISIT_TIMEOUT);
        self.visitor_count += 1;
        self.deadlines.push_back((until, index));
        self.peers[index as usize] =
            Some(Peer { role: Role::Visitor { until }, socket, source, credentials, partial: Vec::new() });
    }

    /// The listener ran out of descriptors or memory.
    pub fn on_accept_failed(&mut self, desk: &mut Desk<'_>) {
        desk.stats.counters.accept_failures += 1;
        self.resume_at = Some(desk.now.plus(ACCEPT_PAUSE));
    }

    /// A peer's socket has something to read, or ended.
    pub fn on_ready(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        replies: &mut impl Deliver,
        index: u32,
    ) {
        let mut bytes = [0; attach::MESSAGE_SIZE_MAX];
        for _ in 0..READS_PER_EVENT_MAX {
            let Some(peer) = self.peers.get_mut(index as usize).and_then(Option::as_mut) else { return };
            match rustix::net::recv(&*peer.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.on_gone(desk, io, workers, replies, index),
                Ok((size, _)) => {
                    peer.partial.extend_from_slice(&bytes[..size]);
                    if !self.take_messages(desk, io, workers, replies.clients(), index) {
                        return self.on_gone(desk, io, workers, replies, index);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.on_gone(desk, io, workers, replies, index),
            }
        }
        desk.stats.counters.attach_misbehaved += 1;
        self.on_gone(desk, io, workers, replies, index);
    }

    /// Visitors that took too long, and a listener that rested long enough.
    pub fn on_time(&mut self, desk: &mut Desk<'_>, io: &mut Io) {
        while let Some(&(at, index)) = self.deadlines.front()
            && at <= desk.now
        {
            self.deadlines.pop_front();
            let is_late = self.peers[index as usize]
                .as_ref()
                .is_some_and(|peer| matches!(peer.role, Role::Visitor { until } if until == at));
            if is_late {
                desk.stats.counters.attach_misbehaved += 1;
                self.close(io, index);
            }
        }
        self.shim_peer.on_time(desk.now);
        if self.resume_at.is_some_and(|at| at <= desk.now) {
            self.resume_at = None;
            self.listener.into_iter().for_each(|listener| io.resume(listener));
        }
    }

    /// When `on_time` has something to do next.
    pub fn next_timer(&self) -> Option<Nanos> {
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        [deadline, self.resume_at, self.shim_peer.next_timer()].into_iter().flatten().min()
    }

    /// Nobody may attach any more.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Tells the shim to stop this shard's processes; it exits when every shard has said so.
    pub fn stop_shim(&mut self, now: Nanos) {
        self.shim_peer.tell(now, Message::ShimStop);
    }

    /// Tells the shim to look which processes are to be kept.
    pub fn reload_shim(&mut self, now: Nanos) {
        self.shim_peer.tell(now, Message::ShimReload);
    }

    /// Tells the shim how many processes are to be kept, where that changed.
    pub fn tell_places(&mut self, desk: &mut Desk<'_>, workers: &Workers) -> usize {
        let mut work = 0;
        while let Some(PlacesWanted { function, edition, count, leaving }) = desk.engine.poll_places(desk.now)
        {
            work += 1;
            let Some(view) = desk.engine.function_view(function) else { continue };
            // The configuration has the same bound of names.
            let Ok(name) = FunctionName::new(view.name) else { continue };
            let leaving = leaving.and_then(|worker| workers.process_id(worker)).unwrap_or(0);
            self.shim_peer.tell(desk.now, Message::PlacesWanted { name, edition, count, leaving });
        }
        work
    }

    /// Workers are given these rings from now on. The engine has taken the same configuration.
    pub fn respecify(&mut self, desk: &Desk<'_>, rings: Vec<FunctionRing>) {
        let before = std::mem::replace(&mut self.options.rings, rings);
        let editions: BTreeMap<_, _> = before.into_iter().map(|ring| (ring.function, ring.edition)).collect();
        // Back to what still serves: no worker need attach, so that it is said here.
        for ring in &self.options.rings {
            let is_other = editions.get(&ring.function) != Some(&ring.edition);
            if is_other && desk.engine.serving_edition(ring.function) == Some(ring.edition) {
                tell_serving(&mut self.shim_peer, desk, ring.function);
            }
        }
    }

    /// Takes the complete messages of a peer. False: it is to be closed.
    fn take_messages(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        clients: &mut ShmClients,
        index: u32,
    ) -> bool {
        loop {
            let Some(peer) = self.peers[index as usize].as_mut() else { return false };
            match attach::decode(&peer.partial) {
                Ok(None) => return true,
                Ok(Some((message, size))) => {
                    peer.partial.drain(..size);
                    if let Err(reason) = self.on_message(desk, io, workers, clients, index, message) {
                        match message {
                            Message::AttachClient { .. } => desk.stats.counters.shm_clients_refused += 1,
                            _ => desk.stats.counters.workers_refused += 1,
                        }
                        if let Some(peer) = &self.peers[index as usize] {
                            send(&peer.socket, refused(reason));
                        }
                        return false;
                    }
                }
                Err(misbehaved) => {
                    desk.stats.counters.attach_misbehaved += 1;
                    if matches!(misbehaved, attach::AttachPeerMisbehaved::VersionUnsupported { .. }) {
                        send(&peer.socket, refused(attach::AttachRefused::VersionUnsupported));
                    }
                    return false;
                }
            }
        }
    }

    fn on_message(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        clients: &mut ShmClients,
        index: u32,
        message: Message,
    ) -> Result<(), attach::AttachRefused> {
        let Some(peer) = self.peers[index as usize].as_ref() else { return Ok(()) };
        match (&peer.role, message) {
            (Role::Visitor { .. }, Message::AttachWorker { name, token, lanes_max, .. }) => {
                self.take_worker(desk, io, workers, index, (&name, token, lanes_max))
            }
            (Role::Visitor { .. }, Message::AttachShim { config_digest, .. }) => {
                self.take_shim(desk, index, config_digest)
            }
            (Role::Visitor { .. }, Message::AttachClient { slot_count, payload_size_max, .. }) => {
                let wanted = Wanted { slot_count, payload_size_max };
                let client = clients.attach(desk, io, &peer.socket, self.options.shard, wanted)?;
                let Some(peer) = self.peers[index as usize].as_mut() else { return Ok(()) };
                peer.role = Role::Client(client);
                self.visitor_count -= 1;
                Ok(())
            }
            (Role::Client(client), Message::Resolve { name }) => {
                clients.resolve(desk, *client, &name);
                Ok(())
            }
            (Role::Client(client), Message::CancelCall { slot, call_id }) => {
                clients.cancel(desk, io, workers, *client, (slot, call_id));
                Ok(())
            }
            (Role::Client(client), Message::LaneWanted { function_id, slot_count, payload_size_max }) => {
                let wanted = LaneWanted { function: function_id, slot_count, payload_size_max };
                clients.want_lane(desk, workers, *client, wanted);
                Ok(())
            }
            (Role::Shim, Message::FunctionFailing { name, .. }) => {
                if let Some(function) = desk.engine.resolve(name.as_str()) {
                    desk.engine.handle_function_failing(function, true);
                }
                Ok(())
            }
            // A record that only the router sends, or one that does not belong here: not one of ours.
            _ => {
                desk.stats.counters.attach_misbehaved += 1;
                Err(attach::AttachRefused::PeerUntrusted)
            }
        }
    }

    fn take_shim(
        &mut self,
        desk: &mut Desk<'_>,
        index: u32,
        config_digest: u64,
    ) -> Result<(), attach::AttachRefused> {
        if self.is_draining {
            return Err(attach::AttachRefused::Draining);
        }
        if config_digest != self.options.config_digest {
            return Err(attach::AttachRefused::ConfigDiffers);
        }
        if self.shim_peer.is_attached() {
            return Err(attach::AttachRefused::ShimPresent);
        }
        let Some(peer) = self.peers[index as usize].as_mut() else { return Ok(()) };
        if !Contained::of(peer.credentials.pid).may_keep() {
            return Err(attach::AttachRefused::PeerUntrusted);
        }
        peer.role = Role::Shim;
        self.visitor_count -= 1;
        // One shard speaks for all of them: there is one file and one shim.
        let is_first = self.options.shard == 0;
        if is_first {
            self.shim.set(Some(peer.credentials.pid));
        }
        self.shim_peer.attach(peer.socket.clone());
        self.shim_peer.tell(desk.now, Message::ShimAccepted { shard: self.options.shard });
        if is_first {
            // It may be that of a router before this one, with other functions.
            self.shim_peer.tell(desk.now, Message::ShimReload);
        }
        let known = self.options.rings.iter().map(|ring| ring.function);
        known.for_each(|function| tell_serving(&mut self.shim_peer, desk, function));
        // What it was told before may have been told to another one.
        desk.engine.handle_keeper_attached();
        Ok(())
    }

    fn take_worker(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        index: u32,
        (name, token, lanes_max): (&FunctionName, u64, u32),
    ) -> Result<(), attach::AttachRefused> {
        if self.is_draining {
            return Err(attach::AttachRefused::Draining);
        }
        let function = desk.engine.resolve(name.as_str()).ok_or(attach::AttachRefused::UnknownFunction)?;
        let ring = self.options.rings.iter().find(|ring| ring.function == function);
        let ring = ring.ok_or(attach::AttachRefused::UnknownFunction)?.clone();
        let Some(peer) = self.peers[index as usize].as_mut() else { return Ok(()) };
        if !Contained::of(peer.credentials.pid).may_serve(name.as_str()) {
            return Err(attach::AttachRefused::PeerUntrusted);
        }
        // Everything that can fail comes before the engine hears of the worker, except its number.
        let geometry = Geometry::new(ring.slots, ring.payload_size_max)
            .map_err(|_| attach::AttachRefused::RingUnavailable)?;
        let (memory, memory_fd) = Mapped::create(name.as_str(), geometry.memory_size())
            .map_err(|_| attach::AttachRefused::RingUnavailable)?;
        let bell = EventDoorbell::new().map_err(|_| attach::AttachRefused::RingUnavailable)?;
        let process_fd = match peer.credentials.pid {
            // A front-end's or a test's worker on a thread of ours.
            own if own == self.own_process_id => None,
            pid => Some(peer::pidfd_open(pid).map_err(|_| attach::AttachRefused::PeerUntrusted)?),
        };
        let was_serving = desk.engine.serving_edition(function);
        let slots = geometry.slot_count();
        let taken = desk.engine.handle_worker_of_edition(desk.now, function, token, slots);
        let id = taken.map_err(|refused| match refused {
            engine::AttachRefused::UnknownFunction(_) => attach::AttachRefused::UnknownFunction,
            engine::AttachRefused::Superseded(_) => attach::AttachRefused::TokenWrong,
            engine::AttachRefused::WorkersFull { .. } => attach::AttachRefused::TooManyWorkers,
            engine::AttachRefused::SlotsOutOfRange { .. } => attach::AttachRefused::RingUnavailable,
        })?;
        if was_serving != Some(token) {
            tell_serving(&mut self.shim_peer, desk, function);
        }
        let identity =
            Identity { generation: Generation(id.generation), worker_id: id.index, function_id: function.0 };
        let bell = Rc::new(bell);
        let seat = Seat {
            id,
            process_id: peer.credentials.pid,
            ring: RouterEnd::new(memory, geometry, identity),
            socket: peer.socket.clone(),
            bell_source: io.watch(bell.clone(), Owner::WorkerBell(id.index).tag()),
            process: process_fd.map(|fd| {
                let fd = Rc::new(fd);
                Process { source: io.watch(fd.clone(), Owner::WorkerProcess(id.index).tag()), fd }
            }),
            held_count: 0,
            answer_count: 0,
            bell_count: 0,
            lanes_max,
            is_touched: false,
            is_quarantined: false,
            misbehaved: None,
        };
        peer.role = Role::Worker(id);
        self.visitor_count -= 1;
        let mut record = Vec::new();
        let attached = Attached {
            worker_index: id.index,
            generation: id.generation,
            shard: self.options.shard,
            function_id: function,
            slot_count: geometry.slot_count(),
            region_size: geometry.region_size(),
        };
        Message::Attached(attached).encode(&mut record);
        // The socket is fresh, so 64 bytes fit. A peer that is gone meanwhile, or too many descriptors on their way to
        // others: without its ring it would be given calls and never see them, so its socket ends here.
        if pass::send_with_fds(&*peer.socket, &record, &[memory_fd.as_fd(), bell.as_fd()]).is_err() {
            let _ = peer.socket.shutdown(std::net::Shutdown::Both);
        }
        workers.seat_down(desk, seat);
        Ok(())
    }

    fn on_gone(
        &mut self,
        desk: &mut Desk<'_>,
        io: &mut Io,
        workers: &mut Workers,
        replies: &mut impl Deliver,
        index: u32,
    ) {
        let worker = match self.peers[index as usize].as_ref().map(|peer| &peer.role) {
            Some(Role::Worker(worker)) => Some(*worker),
            Some(Role::Client(client)) => {
                replies.clients().on_socket_closed(desk, io, *client);
                None
            }
            _ => None,
        };
        self.close(io, index);
        if let Some(worker) = worker
            && workers.seat(worker).is_some()
        {
            workers.on_socket_closed(desk, io, replies, worker.index);
        }
    }

    fn close(&mut self, io: &mut Io, index: u32) {
        let Some(peer) = self.peers[index as usize].take() else { return };
        match peer.role {
            Role::Visitor { .. } => self.visitor_count -= 1,
            Role::Shim => {
                self.shim_peer.detach();
                if self.options.shard == 0 {
                    self.shim.set(None);
                }
            }
            Role::Worker(_) | Role::Client(_) => {}
        }
        io.close(peer.source);
        self.free.push(index);
    }
}

/// Tells the shim which edition of a function serves, if any does.
fn tell_serving(shim: &mut ShimPeer, desk: &Desk<'_>, function: FunctionId) {
    if let Some(edition) = desk.engine.serving_edition(function)
        && let Some(view) = desk.engine.function_view(function)
    {
        shim.tell_serves(desk.now, view.name, edition);
    }
}

fn refused(reason: attach::AttachRefused) -> Message {
    Message::Refused { reason }
}

/// Sends a short record to a peer that has room for it; one that has not is as good as gone.
fn send(socket: &UnixStream, message: Message) {
    let mut record = Vec::new();
    message.encode(&mut record);
    let _ = rustix::net::send(socket, &record, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}
