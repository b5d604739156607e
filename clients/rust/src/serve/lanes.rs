//! Stage 7 of 8 without the eight: calls that clients bring straight to this process, through lanes the router leased.
//!
//! In: lanes and orders to leave them, from the watcher; calls.  Out: for each call taken exactly one answer.
//! Always: lanes and the router's ring take turns, a batch each, so that neither starves the other.
//! Always: a call is taken only when it is its turn to run, as in the ring: what is left in a lane that is closed, or
//! whose worker died, was not begun, and the client takes it back to the router.
//! Never: trusts a client. Its bytes are checked by `ServiceEnd`; a payload is copied before the function sees it, because
//! the client could change it under a reference. One that breaks the rules loses its lane and nobody else notices.
//! The look of a function at a call is the same whichever way it came: [`Call`].
//!
//! Spec: docs/spec/shm.md, "Direct lanes".  Why: docs/decisions/0010-direct-lanes.md.
//! Tests: `tests/direct_lanes.rs` of the workspace, with real processes.

use std::hint;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use protocol::attach::lane::LaneOpened;
use protocol::{Cause, Flags, FunctionId, Status, Timings};
use shm_ring::client_ring::{Answer, LaneClosed, LaneService, TakenCall};
use shm_ring::clock::Clock;
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Mapped, RouterMisbehaved, WorkerEnd};

use super::call::{Call, FunctionError, Reply};
use super::calls::{Pace, Ran, run_guarded};

/// Lanes one process serves at once: each is one more line to look at before it sleeps.
pub const LANES_MAX: u32 = 4;

/// Times a client may ring without calling, as for the router's clients (S-46).
const BELLS_UNEARNED_MAX: u64 = 1024;

/// As in `WorkerEnd`: 64 rounds are about 1 us, a `sched_yield` with nobody waiting a third of that.
const SPINS_PER_YIELD: u32 = 64;

/// What the watcher hands to the loop.
pub enum LaneOrder {
    /// Serve this one too.
    Open(Box<Lane>),
    /// Take nothing more from it.
    Revoke {
        /// Which.
        lane_id: u32,
    },
}

/// A lane's bell, which the watcher waits for.
pub struct LaneBell {
    pub bell: EventDoorbell,
    /// Times it rang.
    pub ring_count: AtomicU64,
    /// False: the loop has left the lane.
    pub is_served: AtomicBool,
}

/// One lane.
pub struct Lane {
    lane_id: u32,
    function: FunctionId,
    payload_size_max: u32,
    timeout_ns: u64,
    service: LaneService<Mapped>,
    bell: Arc<LaneBell>,
    call_count: u64,
    /// The payload of the call that runs.
    payload: Vec<u8>,
}

impl Lane {
    /// Maps what the router sent; `None` if it is not what the router said, which a client that got its memory a moment
    /// earlier may have caused. Such a lane is never served, and the router ends it with its lease.
    pub fn attach(opened: &LaneOpened, fds: Vec<OwnedFd>) -> Option<Self> {
        let [memory_fd, bell_fd] = <[OwnedFd; 2]>::try_from(fds).ok()?;
        let service = LaneService::attach(Mapped::attach(&memory_fd).ok()?).ok()?;
        let (geometry, identity) = (service.ring().geometry(), service.ring().identity());
        let told = (opened.slot_count, opened.region_size, opened.generation);
        if told != (geometry.slot_count(), geometry.region_size(), identity.generation.0) {
            return None;
        }
        let bell = LaneBell {
            bell: EventDoorbell::from_fd(bell_fd),
            ring_count: AtomicU64::new(0),
            is_served: AtomicBool::new(true),
        };
        Some(Self {
            lane_id: opened.lane_id,
            function: opened.function_id,
            payload_size_max: opened.payload_size_max,
            timeout_ns: opened.timeout_ns,
            service,
            bell: Arc::new(bell),
            call_count: 0,
            payload: Vec::new(),
        })
    }

    /// Its bell, for the watcher.
    pub fn bell(&self) -> Arc<LaneBell> {
        Arc::clone(&self.bell)
    }

    /// Serves one batch. An error closes the lane: its client is at fault.
    fn serve_batch<H>(&mut self, work: &mut Work<'_, H>) -> Result<bool, ClientAtFault>
    where
        H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
    {
        if !self.service.has_calls() {
            return Ok(false);
        }
        let mut now = work.clock.now_ns();
        let mut answered_count = 0;
        let outcome = loop {
            match self.service.next_call(now.saturating_add(self.timeout_ns)) {
                Ok(Some(taken)) => now = self.serve_one(work, &taken, now),
                Ok(None) => break Ok(answered_count > 0),
                Err(_) => break Err(ClientAtFault),
            }
            answered_count += 1;
            if answered_count >= work.pace.batch_count_max() {
                break Ok(true);
            }
        };
        self.call_count += u64::from(answered_count);
        if self.service.publish() {
            self.service.ring().wake();
        }
        outcome
    }

    /// Runs and answers one call, unless nobody waits for it. Gives the time at its end.
    fn serve_one<H>(&mut self, work: &mut Work<'_, H>, taken: &TakenCall, now: u64) -> u64
    where
        H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
    {
        if let Some(refusal) = self.refusal_of(taken, now) {
            self.service.usage_mut().answered_otherwise += 1;
            self.answer(
                taken,
                Ending { status: refusal, flags: Flags::NONE, began_at: now, ended_at: now },
                &[],
            );
            return now;
        }
        self.service.read_payload(taken, &mut self.payload);
        let region_size = self.service.ring().geometry().region_size() as usize;
        work.reply.clear(region_size);
        let ran = run_guarded(work.handler, &Call::in_lane(&self.service, taken, &self.payload), work.reply);
        let ended_at = work.clock.now_ns();
        let run_ns = ended_at.saturating_sub(now);
        work.pace.note_run(run_ns);
        let status = match ran {
            _ if ended_at > taken.deadline_at_ns => Status::TimedOut,
            _ if work.reply.bytes().len() > region_size => Status::ResultTooLarge,
            Ran::Well => Status::Ok,
            Ran::Failed => Status::FunctionError,
            Ran::PushedBack { .. } => Status::Backpressure,
        };
        let usage = self.service.usage_mut();
        usage.run_ns = usage.run_ns.wrapping_add(run_ns);
        let (counter, result) = match status {
            Status::Ok => (&mut usage.answered_ok, work.reply.bytes()),
            Status::FunctionError => (&mut usage.answered_error, work.reply.bytes()),
            Status::Backpressure => (&mut usage.answered_otherwise, work.reply.bytes()),
            _ => (&mut usage.answered_otherwise, &[][..]),
        };
        *counter += 1;
        self.answer(taken, Ending { status, flags: Flags::STARTED, began_at: now, ended_at }, result);
        ended_at
    }

    /// Why a call is not run, as admission and the worker's ring would say it.
    fn refusal_of(&self, taken: &TakenCall, now: u64) -> Option<Status> {
        if taken.function_id != self.function.0 {
            return Some(Status::UnknownFunction);
        }
        if taken.payload_size > self.payload_size_max {
            return Some(Status::PayloadTooLarge);
        }
        if self.service.is_cancelled(taken.slot) {
            return Some(Status::Cancelled);
        }
        (taken.deadline_at_ns <= now).then_some(Status::Expired)
    }

    fn answer(&mut self, taken: &TakenCall, ending: Ending, result: &[u8]) {
        let wants_timings = taken.flags & Flags::WANT_TIMINGS.0 != 0;
        let timings = wants_timings.then(|| ending.timings().encode());
        let status = ending.status as u16 as u8; // all are below 256
        let flags = ending.flags.0;
        let answer = Answer { status, flags, retry_after_us: 0, timings: timings.as_ref() };
        self.service.answer(taken, answer, result);
    }

    fn rings_for_nothing(&self) -> bool {
        self.bell.ring_count.load(Ordering::Relaxed) > self.call_count + BELLS_UNEARNED_MAX
    }

    fn close(mut self, why: LaneClosed) {
        self.bell.is_served.store(false, Ordering::Relaxed);
        self.service.close(why);
    }
}

/// The client wrote what no honest client writes.
struct ClientAtFault;

/// How a call ended.
struct Ending {
    status: Status,
    flags: Flags,
    began_at: u64,
    ended_at: u64,
}

impl Ending {
    /// A call in a lane is received when it is taken: nobody saw it before.
    fn timings(&self) -> Timings {
        let run_ns = self.ended_at.saturating_sub(self.began_at);
        let timings = Timings { received_at_ns: self.began_at, answered_ns: run_ns, ..Timings::default() };
        if self.flags == Flags::NONE {
            return timings;
        }
        let at_once = Timings { admitted_ns: 0, queued_ns: 0, pushed_ns: 0, started_ns: 0, ..timings };
        Timings { finished_ns: run_ns, cause: Cause::Function, ..at_once }
    }
}

/// What running a call takes, whichever way it came.
pub struct Work<'w, H> {
    pub clock: &'w mut Clock,
    pub reply: &'w mut Reply,
    pub pace: &'w mut Pace,
    pub handler: &'w mut H,
}

/// The lanes of a process.
#[derive(Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    /// How long spinning has been worth it lately, in rounds.
    spin_count: u32,
}

impl Lanes {
    /// Opens or leaves a lane.
    pub fn obey(&mut self, order: LaneOrder) {
        match order {
            LaneOrder::Open(lane) => self.lanes.push(*lane),
            LaneOrder::Revoke { lane_id } => {
                if let Some(position) = self.lanes.iter().position(|lane| lane.lane_id == lane_id) {
                    self.lanes.swap_remove(position).close(LaneClosed::Ended);
                }
            }
        }
    }

    /// Answers one batch of each lane; `false` if there was nothing to answer.
    #[inline]
    pub fn serve_batch<H>(&mut self, mut work: Work<'_, H>) -> bool
    where
        H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
    {
        let mut has_worked = false;
        let mut position = 0;
        while let Some(lane) = self.lanes.get_mut(position) {
            match lane.serve_batch(&mut work) {
                Ok(has_answered) if !lane.rings_for_nothing() => {
                    has_worked |= has_answered;
                    position += 1;
                }
                // The last lane is at this position now.
                _ => self.lanes.swap_remove(position).close(LaneClosed::ClientAtFault),
            }
        }
        has_worked
    }

    /// Waits for calls of any kind, or for the watcher: spins while that has been worth it, then sleeps on the ring, with
    /// the sleep announced in every lane. Their bells reach the watcher, and the watcher wakes.
    pub fn wait(
        &mut self,
        ring: &mut WorkerEnd<Mapped>,
        spin_count_max: u32,
    ) -> Result<(), RouterMisbehaved> {
        if self.lanes.is_empty() {
            return ring.wait(spin_count_max, None).map(drop);
        }
        if self.spin(ring, spin_count_max) {
            return Ok(());
        }
        let may_sleep = self.lanes.iter_mut().all(|lane| lane.service.ring_mut().announce_sleep());
        let waited = if may_sleep { ring.wait(0, None).map(drop) } else { Ok(()) };
        self.lanes.iter_mut().for_each(|lane| lane.service.ring_mut().announce_awake());
        waited
    }

    /// `true` when there is something to do.
    fn spin(&mut self, ring: &WorkerEnd<Mapped>, spin_count_max: u32) -> bool {
        self.spin_count = self.spin_count.clamp(spin_count_max / 16, spin_count_max);
        for round in 1..=self.spin_count {
            if ring.has_requests() || self.lanes.iter().any(|lane| lane.service.has_calls()) {
                self.spin_count = self.spin_count.saturating_mul(2);
                return true;
            }
            if round % SPINS_PER_YIELD == 0 {
                rustix::thread::sched_yield();
            } else {
                hint::spin_loop();
            }
        }
        self.spin_count /= 2;
        false
    }
}

impl Drop for Lanes {
    /// Whatever ends the loop: nothing more is taken, and every client learns it.
    fn drop(&mut self) {
        self.lanes.drain(..).for_each(|lane| lane.close(LaneClosed::Ended));
    }
}
