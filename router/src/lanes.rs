//! Direct lanes: which client has credits of which worker on lease, and when that ends.
//!
//! ```text
//!   LaneWanted ──▶ engine.lease ──▶ Open ── recalled, unused, client gone ──▶ Revoking ──▶ closed by the worker ──▶ over
//!                     └▶ LaneRefused   └────────── worker dead ──────────────────┴─────────────────────────────────▶ over
//! ```
//! In: wishes of clients, what workers write into their lanes, recalls of the engine.  Out: lanes, and words about them
//! on the attach sockets of both ends; the function's statistics.
//! Owns: for each lane the lease and a mapping, to look at and never to write.
//! Always: credits go back to the engine only when the worker said that it takes nothing more, or is dead: what a client
//! then submits again through its ring can't be running.
//! Always: a lane costs the shard nothing while calls go through it, but for a look at one cache line every 10 ms. In that
//! look calls are counted, and a call that runs past its time is found.
//! Never: reads a word that the client may write: on its word no worker is killed and no call counted.
//! Why a lease and no right: docs/decisions/0010-direct-lanes.md.  Spec: docs/spec/shm.md, "Direct lanes".
//! Tests: `tests/direct_lanes.rs` of the workspace, with real processes.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use engine::{Lease, Nanos, Recall, WorkerId};
use protocol::FunctionId;
use protocol::attach::Message;
use protocol::attach::lane::{LaneEnd, LaneOpened, LaneRefused};
use shm_ring::client_ring::{ClientIdentity, LaneClosed, LaneLook, LaneUsage, LaneWatch};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Generation, Geometry, Mapped, pass};

use crate::net::Desk;
use crate::shm_clients::ClientId;
use crate::stats::ShardStats;
use crate::workers::Workers;

/// Time between two looks at a lane: as often as counters are published.
const LOOK_PERIOD: Nanos = Nanos::from_ms(10);

/// How long a lease runs; one in which calls were made is renewed. Also how long a worker that stands still with calls in
/// its lane, of which nobody can tell the router but the client, goes unnoticed.
const LEASE: Nanos = Nanos::from_secs(2);

/// Slots of a lane for a client that does not say how many it wants.
const SLOT_COUNT_USUAL: u32 = 64;

/// What a client asks for; 0 for what is usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneWanted {
    /// Where the lane shall lead.
    pub function: FunctionId,
    /// Slots.
    pub slot_count: u32,
    /// The largest payload, and the largest result.
    pub payload_size_max: u32,
}

/// The lanes of a shard.
pub struct Lanes {
    /// The operator allows them.
    is_allowed: bool,
    /// Bytes that the regions of one lane may have.
    memory_max: u64,
    lanes: Vec<Lane>,
    lane_id_next: u32,
    look_at: Nanos,
}

struct Lane {
    lane_id: u32,
    client: ClientId,
    lease: Lease,
    watch: LaneWatch<Mapped>,
    stage: Stage,
    /// Its client is gone.
    is_abandoned: bool,
    /// Its worker is killed for a call of this lane.
    has_overstayed: bool,
    seen: LaneLook,
    /// Of what the worker said: what the function's statistics have.
    counted: LaneUsage,
    /// When the call that runs was first seen running.
    running_since: Nanos,
    /// When the lease ends, and the calls taken when it was granted.
    lease_end_at: Nanos,
    taken_count_leased: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The worker was told. It has the grace to let go, and the time of the call that it runs.
    Revoking {
        why: LaneEnd,
        since: Nanos,
    },
}

impl Lanes {
    /// Without lanes.
    pub fn new(is_allowed: bool, memory_max: u64) -> Lanes {
        Lanes { is_allowed, memory_max, lanes: Vec::new(), lane_id_next: 0, look_at: Nanos::NEVER }
    }

    /// A client wants a lane. Both ends are told if it gets one.
    pub fn open(
        &mut self,
        desk: &mut Desk<'_>,
        workers: &Workers,
        client: (ClientId, &UnixStream),
        wanted: LaneWanted,
        payload_size_usual: u32,
    ) -> Result<(), LaneRefused> {
        if !self.is_allowed {
            return Err(LaneRefused::SwitchedOff);
        }
        if self.has_lane(client.0) {
            return Err(LaneRefused::LanePresent);
        }
        let or_usual = |wanted: u32, usual: u32| if wanted == 0 { usual } else { wanted };
        let region_size = or_usual(wanted.payload_size_max, payload_size_usual);
        let one = Geometry::new(1, region_size).map_err(|_| LaneRefused::Unavailable)?;
        let room = self.memory_max / (2 * u64::from(one.region_size()));
        let slots =
            or_usual(wanted.slot_count, SLOT_COUNT_USUAL).min(u32::try_from(room).unwrap_or(u32::MAX));
        if slots == 0 {
            return Err(LaneRefused::Unavailable);
        }
        let lanes = &self.lanes;
        let can_serve = |worker| {
            let count = lanes.iter().filter(|lane| lane.lease.worker == worker).count();
            count < workers.lanes_max(worker) as usize
        };
        let lease = desk.engine.lease(wanted.function, slots, can_serve).map_err(reason_of)?;
        let opened = self.connect(desk.now, workers, client, lease, region_size);
        if opened.is_err() {
            desk.engine.end_lease(lease);
        } else {
            desk.stats.counters.lanes_opened += 1;
            desk.stats.counters.lanes_open_now += 1;
        }
        opened
    }

    /// Makes the memory and gives it to both ends, the worker first.
    fn connect(
        &mut self,
        now: Nanos,
        workers: &Workers,
        (client, client_socket): (ClientId, &UnixStream),
        lease: Lease,
        region_size: u32,
    ) -> Result<(), LaneRefused> {
        let unavailable = |_| LaneRefused::Unavailable;
        let geometry = Geometry::new(lease.slots, region_size).map_err(|_| LaneRefused::Unavailable)?;
        let (memory, memory_fd) =
            Mapped::create("quickfire-lane", geometry.memory_size()).map_err(|_| LaneRefused::Unavailable)?;
        let bell = EventDoorbell::new().map_err(unavailable)?;
        let lane_id = self.lane_id_next;
        let identity = ClientIdentity { generation: Generation(lane_id), client_id: lane_id };
        let watch = LaneWatch::new(memory, geometry, identity);
        let opened = Message::LaneOpened(LaneOpened {
            lane_id,
            generation: lane_id,
            function_id: lease.function,
            slot_count: geometry.slot_count(),
            region_size: geometry.region_size(),
            payload_size_max: lease.payload_size_max.min(geometry.region_size()),
            timeout_ns: lease.timeout.0,
        });
        let mut record = Vec::new();
        opened.encode(&mut record);
        let fds = [memory_fd.as_fd(), bell.as_fd()];
        let worker_socket = workers.socket(lease.worker).ok_or(LaneRefused::NoWorker)?;
        // A worker that takes no 64 bytes is stuck: the rest of the record would never fit what comes behind it.
        if pass::send_with_fds(worker_socket, &record, &fds) != Ok(record.len()) {
            let _ = worker_socket.shutdown(std::net::Shutdown::Both);
            return Err(LaneRefused::Unavailable);
        }
        // The same of a client ends it, which comes as its own event and takes the lane along.
        if pass::send_with_fds(client_socket, &record, &fds) != Ok(record.len()) {
            let _ = client_socket.shutdown(std::net::Shutdown::Both);
        }
        self.lane_id_next = self.lane_id_next.wrapping_add(1);
        self.look_at = self.look_at.min(now.plus(LOOK_PERIOD));
        self.lanes.push(Lane {
            lane_id,
            client,
            lease,
            seen: watch.look(),
            watch,
            stage: Stage::Open,
            is_abandoned: false,
            has_overstayed: false,
            counted: LaneUsage::default(),
            running_since: now,
            lease_end_at: now.plus(LEASE),
            taken_count_leased: 0,
        });
        Ok(())
    }

    /// Looks at every lane, if it is time. `tell` says something to a client; its lane is over when it was `LaneClosed`.
    pub fn on_time(
        &mut self,
        desk: &mut Desk<'_>,
        workers: &Workers,
        mut tell: impl FnMut(ClientId, Message),
    ) {
        if desk.now < self.look_at {
            return;
        }
        let lanes = self.lanes.iter_mut();
        let running: Vec<WorkerId> =
            lanes.filter_map(|lane| lane.look(desk).then_some(lane.lease.worker)).collect();
        self.lanes.retain_mut(|lane| match lane.judge(desk, workers, &running) {
            None => true,
            Some(reason) => {
                desk.engine.end_lease(lane.lease);
                desk.stats.counters.lanes_open_now -= 1;
                tell(lane.client, Message::LaneClosed { lane_id: lane.lane_id, reason });
                false
            }
        });
        self.look_at = if self.lanes.is_empty() { Nanos::NEVER } else { desk.now.plus(LOOK_PERIOD) };
    }

    /// When `on_time` has something to do next.
    pub fn next_timer(&self) -> Option<Nanos> {
        (self.look_at != Nanos::NEVER).then_some(self.look_at)
    }

    /// A client went away: its lane ends at the next look.
    pub fn on_client_gone(&mut self, client: ClientId) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.client == client) {
            lane.is_abandoned = true;
        }
    }

    /// Whether this client has a lane, be it one that is about to end.
    pub fn has_lane(&self, client: ClientId) -> bool {
        self.lanes.iter().any(|lane| lane.client == client)
    }
}

impl Lane {
    /// The one look of this time. True: a call runs, and its worker is not to be ended for it yet.
    fn look(&mut self, desk: &mut Desk<'_>) -> bool {
        let seen = self.watch.look();
        self.count(desk.stats, &seen);
        let has_taken = seen.taken_count != self.seen.taken_count;
        if has_taken {
            self.running_since = desk.now;
        }
        self.seen = seen;
        let has_time = self.runs_until().is_some_and(|until| {
            desk.now < until.plus(desk.engine.limits().kill_grace) // the same sum as in `judge`
        });
        if has_taken || has_time {
            desk.engine.handle_lease_progress(desk.now, self.lease.worker);
        }
        has_time
    }

    /// Sees from the last look whether it must end. Gives the reason once it is over. `running` are the workers that run a
    /// call of a lane, this one or another, and may go on.
    fn judge(&mut self, desk: &mut Desk<'_>, workers: &Workers, running: &[WorkerId]) -> Option<LaneEnd> {
        let recall = desk.engine.recall(desk.now, &self.lease);
        if recall == Some(Recall::WorkerLost) {
            return Some(if self.has_overstayed { LaneEnd::WorkerOverstayed } else { LaneEnd::WorkerLost });
        }
        if let Some(closed) = self.seen.closed {
            return Some(match (closed, self.stage) {
                (LaneClosed::ClientAtFault, _) => LaneEnd::ClientMisbehaved,
                (LaneClosed::Ended, Stage::Revoking { why, .. }) => why,
                // Of its own accord: it was told to stop.
                (LaneClosed::Ended, Stage::Open) => LaneEnd::WorkerDraining,
            });
        }
        let kill_grace = desk.engine.limits().kill_grace;
        if self.runs_until().is_some_and(|until| desk.now >= until.plus(kill_grace)) {
            self.has_overstayed = true;
            desk.engine.handle_lease_overstayed(self.lease.worker);
        }
        let gone = self.is_abandoned.then_some(LaneEnd::ClientGone);
        let why = gone.or(recall.map(end_of)).or_else(|| self.unused(desk.now));
        if let Some(why) = why
            && self.stage == Stage::Open
        {
            desk.stats.counters.lanes_revoked += u64::from(why != LaneEnd::ClientGone);
            self.revoke(desk.now, workers, why);
        }
        if let Stage::Revoking { since, .. } = self.stage
            && !running.contains(&self.lease.worker)
            && desk.now.since(since) >= kill_grace
        {
            desk.engine.handle_lease_kept(self.lease.worker, workers);
        }
        None
    }

    /// Until when the call that runs may run. Whatever the worker says: the same call is not seen running for longer than
    /// its function may take.
    fn runs_until(&self) -> Option<Nanos> {
        let until_ns = self.seen.running_until_ns?;
        Some(Nanos(until_ns).min(self.running_since.plus(self.lease.timeout)))
    }

    /// At the end of the lease: renews it if calls were made or one runs, else says that it is unused.
    fn unused(&mut self, now: Nanos) -> Option<LaneEnd> {
        if now < self.lease_end_at {
            return None;
        }
        if self.seen.taken_count == self.taken_count_leased && self.seen.running_until_ns.is_none() {
            return Some(LaneEnd::Idle);
        }
        self.lease_end_at = now.plus(LEASE);
        self.taken_count_leased = self.seen.taken_count;
        None
    }

    fn revoke(&mut self, now: Nanos, workers: &Workers, why: LaneEnd) {
        self.stage = Stage::Revoking { why, since: now };
        let mut record = Vec::new();
        Message::LaneRevoke { lane_id: self.lane_id }.encode(&mut record);
        // A worker that can't be told is stuck, and killed after the grace; one that is gone has no socket.
        if let Some(socket) = workers.socket(self.lease.worker) {
            let _ = pass::send_with_fds(socket, &record, &[]);
        }
    }

    /// Adds what the worker says it did since the last look. It may lie about its own function; nothing ever goes back.
    fn count(&mut self, stats: &mut ShardStats, look: &LaneLook) {
        let (seen, counted) = (&look.usage, &mut self.counted);
        let ok = advance(&mut counted.answered_ok, seen.answered_ok);
        let error = advance(&mut counted.answered_error, seen.answered_error);
        let otherwise = advance(&mut counted.answered_otherwise, seen.answered_otherwise);
        let run_ns = advance(&mut counted.run_ns, seen.run_ns);
        let all = ok.saturating_add(error).saturating_add(otherwise);
        stats.counters.lane_calls = stats.counters.lane_calls.saturating_add(all);
        if let Some(function) = stats.function(self.lease.function) {
            function.answered_ok = function.answered_ok.saturating_add(ok);
            function.answered_error = function.answered_error.saturating_add(error);
            function.answered_otherwise = function.answered_otherwise.saturating_add(otherwise);
            function.run_ns = function.run_ns.saturating_add(run_ns);
        }
    }
}

/// How far a counter has come since it was last seen; one that went back has not moved.
fn advance(counted: &mut u64, seen: u64) -> u64 {
    let step = seen.saturating_sub(*counted);
    *counted += step;
    step
}

fn reason_of(refused: engine::LeaseRefused) -> LaneRefused {
    match refused {
        engine::LeaseRefused::Draining => LaneRefused::Draining,
        engine::LeaseRefused::UnknownFunction(_) => LaneRefused::UnknownFunction,
        engine::LeaseRefused::NoWorker => LaneRefused::NoWorker,
        engine::LeaseRefused::Busy { .. } => LaneRefused::Busy,
        engine::LeaseRefused::LeasesFull => LaneRefused::TooManyLanes,
        engine::LeaseRefused::Governed => LaneRefused::Governed,
    }
}

fn end_of(recall: Recall) -> LaneEnd {
    match recall {
        Recall::Draining => LaneEnd::Draining,
        Recall::WorkerLeaving => LaneEnd::WorkerDraining,
        Recall::WorkerLost => LaneEnd::WorkerLost,
        Recall::OthersWait => LaneEnd::OthersWait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_goes_back_has_not_moved() {
        let mut counted = 0;
        assert_eq!(advance(&mut counted, 10), 10);
        assert_eq!(advance(&mut counted, 4), 0, "a worker that lies");
        assert_eq!(advance(&mut counted, 12), 2);
        assert_eq!(advance(&mut counted, u64::MAX), u64::MAX - 12);
    }
}
