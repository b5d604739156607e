//! The generator for shared memory: the same plans, schedules, patterns and checks, through rings instead of sockets.
//!
//! In: a plan.  Out: a tally.
//! Always: as in `generator.rs`: the schedule decides when a call is due, and answers never move it. An answer counts only
//! for the call that its slot holds: `ClientEnd` compares the numbers, this file the payloads.
//! Always: the clock is read after a batch of answers was taken out of the ring, so that no latency is told too short.
//! Never: allocates in steady state; makes a system call for a call, unless the router does not look at the ring.
//! Why not a third kind of socket in `generator.rs`: that loop turns on readiness events, and a ring has none.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::{FunctionId, Status};
use quickfire_client::shm::{Answered, Call, Options, ShmClient, now_ns as monotonic_ns};
use quickfire_client::{ConnectError, Disconnect, ResolveError};

use crate::error::{LoadError, RouterMisbehaved};
use crate::generator::{
    Outcome, SENDS_PER_TURN_MAX, SLEEP_MARGIN_NS, SLEEP_MAX, SPIN_NS, ns_since, thread_cpu_ns,
};
use crate::pattern::Pattern;
use crate::plan::{Plan, Workload};
use crate::schedule::{Lateness, Pacer, Schedule};
use crate::tally::{self, Tally, Unanswered, Watched};

/// Answers between two readings of the clock: 128 take about 3 us, and reading it costs 25 ns.
const ANSWERS_PER_BATCH_MAX: usize = 128;

/// With several rings in use there is no one futex to sleep on: they are looked at again after this long.
const NAP: Duration = Duration::from_micros(50);

/// A router that ends wakes nobody; its socket is looked at this often while nothing is answered.
const SOCKET_LOOK_NS: u64 = 5_000_000;

/// Results of functions that do not echo: as much as the router usually grants.
const RESULT_SIZE_USUAL: u32 = 16 << 10;

pub(crate) struct RingGenerator<'a> {
    plan: &'a Plan,
    function: FunctionId,
    rings: Vec<Ring>,
    /// Open loop: whose turn it is to send.
    turn: usize,
    batch: Vec<Answered>,
    tally: Tally,
    pacer: Option<Pacer>,
    started_at: Instant,
    end_at_ns: u64,
    idle_ns: u64,
    active_at_ns: u64,
    looked_at_ns: u64,
    slot_count: u64,
}

struct Ring {
    client: ShmClient,
    pattern: Pattern,
    /// By the slot of the ring.
    slots: Vec<Slot>,
    /// Calls that may be outstanding.
    window: u32,
    calls: u64,
    is_lost: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    intended_at_ns: u64,
    sent_at_ns: u64,
}

impl<'a> RingGenerator<'a> {
    /// Attaches a ring for each connection of the plan, spread over the router's shards.
    pub(crate) fn connect(plan: &'a Plan, run_dir: &Path) -> Result<Self, LoadError> {
        let shards = shard_count(run_dir);
        let mut rings = Vec::with_capacity(plan.connections as usize);
        let mut function = FunctionId(0);
        for index in 0..plan.connections {
            let share = match plan.workload {
                Workload::Closed { window } => plan.window_of(window, index),
                Workload::Open { .. } => 0,
            };
            let options = Options {
                shard: index % shards,
                slot_count: share.next_power_of_two() * u32::from(share > 0),
                payload_size_max: plan.payload_size.max(RESULT_SIZE_USUAL),
                timeout: plan.connect_timeout,
                ..Options::default()
            };
            let mut client =
                ShmClient::attach(run_dir, &options).map_err(|error| cannot_connect(plan, index, error))?;
            if index == 0 {
                // Function numbers are the router's, the same in all its shards.
                function = client.resolve(&plan.function).map_err(|error| cannot_resolve(plan, error))?;
            }
            if plan.direct {
                let (number, connections) = (index + 1, plan.connections);
                client.open_lane(function, share).map_err(|source| LoadError::NoLane {
                    number,
                    connections,
                    source,
                })?;
            }
            let slot_count = client.slot_count();
            rings.push(Ring {
                window: if share > 0 { share.min(slot_count) } else { slot_count },
                client,
                pattern: Pattern::new(plan.seed, index as usize),
                slots: vec![Slot::default(); slot_count as usize],
                calls: 0,
                is_lost: false,
            });
        }
        let end_at_ns = u64::try_from(plan.duration.as_nanos()).unwrap_or(u64::MAX);
        let pacer = match plan.workload {
            Workload::Closed { .. } => None,
            Workload::Open { rate, arrivals } => {
                Some(Pacer::new(Schedule::new(rate, arrivals, plan.duration, plan.seed), plan.late_after))
            }
        };
        Ok(Self {
            plan,
            function,
            slot_count: rings.iter().map(|ring| u64::from(ring.window)).sum(),
            rings,
            turn: 0,
            batch: Vec::with_capacity(ANSWERS_PER_BATCH_MAX),
            tally: Tally::new(plan.workload, end_at_ns),
            pacer,
            started_at: Instant::now(),
            end_at_ns,
            idle_ns: 0,
            active_at_ns: 0,
            looked_at_ns: 0,
        })
    }

    /// Runs the plan to its end, or until `stop`.
    pub(crate) fn run(mut self, watched: &Watched, stop: &AtomicBool) -> Outcome {
        let cpu_before_ns = thread_cpu_ns();
        self.started_at = Instant::now();
        let mut now_ns = self.now_ns();
        while now_ns < self.end_at_ns && !stop.load(Ordering::Relaxed) && !self.are_all_over() {
            now_ns = self.turn(now_ns, true, watched);
        }
        let sending_ns = now_ns.min(self.end_at_ns);
        // As in `generator.rs`: what was due before the end goes out late rather than not at all.
        while now_ns >= self.end_at_ns && self.send_due() > 0 {}
        if let Some(pacer) = &mut self.pacer {
            let unsent = pacer.count_unsent(sending_ns);
            self.tally.count_unanswered(Unanswered::NotSent, unsent);
        }
        let drain_ns = u64::try_from(self.plan.drain_timeout.as_nanos()).unwrap_or(u64::MAX);
        let give_up_at_ns = now_ns.saturating_add(drain_ns);
        while now_ns < give_up_at_ns && self.outstanding() > 0 {
            now_ns = self.turn(now_ns, false, watched);
        }
        let missing = self.outstanding();
        self.tally.count_unanswered(Unanswered::NoAnswer, missing);
        let (elapsed_ns, lateness) = (self.now_ns(), self.lateness());
        watched.publish(&self.tally, lateness.late, elapsed_ns);
        Outcome {
            lateness,
            tally: self.tally,
            elapsed_ns,
            sending_ns,
            cpu_ns: thread_cpu_ns().saturating_sub(cpu_before_ns),
            idle_ns: self.idle_ns,
            slot_count: self.slot_count,
        }
    }

    /// One turn: answers, then what is due, then a rest if there was nothing. Returns the time after it.
    fn turn(&mut self, turn_at_ns: u64, is_sending: bool, watched: &Watched) -> u64 {
        let mut progress = 0;
        for index in 0..self.rings.len() {
            progress += self.take_answers(index);
            if is_sending && self.pacer.is_none() {
                progress += self.fill_window(index);
            }
        }
        if is_sending {
            progress += self.send_due();
        }
        if progress == 0 {
            self.rest(turn_at_ns, is_sending);
        }
        let now_ns = self.now_ns();
        if progress > 0 {
            self.active_at_ns = now_ns;
        } else {
            self.idle_ns += now_ns - turn_at_ns;
        }
        self.tally.advance(now_ns);
        watched.publish(&self.tally, self.lateness().late, now_ns);
        now_ns
    }

    /// Takes what one ring has answered, a batch at a time.
    fn take_answers(&mut self, index: usize) -> u64 {
        let Some(ring) = self.rings.get_mut(index).filter(|ring| !ring.is_lost) else { return 0 };
        let compares_payloads = self.plan.compares_payloads();
        let payload_size = self.plan.payload_size as usize;
        let mut count = 0;
        loop {
            let lost = loop {
                if self.batch.len() == ANSWERS_PER_BATCH_MAX {
                    break None;
                }
                match ring.client.poll() {
                    Ok(Some(answered)) => self.batch.push(answered),
                    Ok(None) => break None,
                    Err(lost) => break Some(lost),
                }
            };
            let is_full = self.batch.len() == ANSWERS_PER_BATCH_MAX;
            count += self.batch.len() as u64;
            let now_ns = ns_since(self.started_at);
            for answered in self.batch.drain(..) {
                self.tally.direct += u64::from(answered.is_direct());
                let slot = ring.slots.get(answered.slot.0 as usize).copied().unwrap_or_default();
                let matches = !compares_payloads
                    || ring.pattern.matches(answered.call_id, payload_size, ring.client.result(&answered));
                let Slot { intended_at_ns, sent_at_ns } = slot;
                let status = answered.status.into();
                self.tally
                    .count_answer(now_ns, tally::Answered { intended_at_ns, sent_at_ns, status, matches });
                ring.client.release(answered);
            }
            if let Some(lost) = lost {
                ring.is_lost = true;
                let why = match lost {
                    Disconnect::RouterMisbehaved(_) => Unanswered::RouterMisbehaved,
                    _ => Unanswered::Disconnected,
                };
                self.tally.count_unanswered(why, ring.client.outstanding().into());
                return count;
            }
            if !is_full {
                return count;
            }
        }
    }

    /// Closed loop: one call for every free place in the ring's window. A call is due when its place is free.
    fn fill_window(&mut self, index: usize) -> u64 {
        let Some(ring) = self.rings.get_mut(index) else { return 0 };
        let room = ring.room();
        if room == 0 {
            return 0;
        }
        let batch = batch_of(self.plan, self.function);
        let now_ns = ns_since(self.started_at);
        let times = Slot { intended_at_ns: now_ns, sent_at_ns: now_ns };
        let mut sent = 0;
        while sent < u64::from(room) && ring.send(&batch, self.plan.payload_size, times) {
            sent += 1;
        }
        ring.client.flush();
        self.tally.count_sent(sent);
        sent
    }

    /// Open loop: sends what is due, spread evenly over the rings that have room.
    fn send_due(&mut self) -> u64 {
        let now_ns = self.now_ns();
        let Some(pacer) = &mut self.pacer else { return 0 };
        let batch = batch_of(self.plan, self.function);
        let mut sent = 0;
        while sent < SENDS_PER_TURN_MAX as u64 && pacer.next_at_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            let count = self.rings.len();
            let with_room = (self.turn..self.turn + count)
                .map(|index| index % count)
                .find(|index| self.rings.get(*index).is_some_and(|ring| ring.room() > 0));
            let Some(ring) = with_room.and_then(|index| self.rings.get_mut(index)) else {
                pacer.note_held(now_ns);
                break;
            };
            let Some(intended_at_ns) = pacer.take_due(now_ns) else { break };
            ring.send(&batch, self.plan.payload_size, Slot { intended_at_ns, sent_at_ns: now_ns });
            self.turn = with_room.unwrap_or_default() + 1;
            sent += 1;
        }
        if sent > 0 {
            self.rings.iter_mut().for_each(|ring| ring.client.flush());
        }
        self.tally.count_sent(sent);
        sent
    }

    /// Nothing to do just now: gives the processor away, and sleeps once that has gone on for a while and nothing is due.
    fn rest(&mut self, now_ns: u64, is_sending: bool) {
        if now_ns.saturating_sub(self.looked_at_ns) > SOCKET_LOOK_NS {
            self.looked_at_ns = now_ns;
            self.rings.iter_mut().for_each(|ring| ring.client.look_at_socket());
        }
        let has_room = self.rings.iter().any(|ring| ring.room() > 0);
        let due_at_ns = match &self.pacer {
            Some(pacer) if is_sending && has_room => pacer.next_at_ns(),
            _ => None,
        };
        let until_due_ns = due_at_ns.map_or(u64::MAX, |at_ns| at_ns.saturating_sub(now_ns));
        if until_due_ns < SLEEP_MARGIN_NS || now_ns.saturating_sub(self.active_at_ns) < SPIN_NS {
            return std::thread::yield_now();
        }
        let sleep = Duration::from_nanos(until_due_ns - SLEEP_MARGIN_NS / 2).min(SLEEP_MAX);
        let mut waiting = self.rings.iter_mut().filter(|ring| !ring.is_lost && ring.client.outstanding() > 0);
        match (waiting.next(), waiting.next()) {
            // What went wrong, if something did, is told by the next `poll`.
            (Some(ring), None) => drop(ring.client.wait(Some(sleep))),
            (Some(_), Some(_)) => std::thread::sleep(NAP.min(sleep)),
            (None, _) => std::thread::sleep(sleep),
        }
    }

    fn outstanding(&self) -> u64 {
        let rings = self.rings.iter().filter(|ring| !ring.is_lost);
        rings.map(|ring| u64::from(ring.client.outstanding())).sum()
    }

    /// Nothing can be sent any more: the router drains or is gone.
    fn are_all_over(&self) -> bool {
        self.rings
            .iter()
            .all(|ring| ring.is_lost || (ring.client.is_router_draining() && ring.client.outstanding() == 0))
    }

    fn lateness(&self) -> Lateness {
        self.pacer.as_ref().map(Pacer::lateness).unwrap_or_default()
    }

    fn now_ns(&self) -> u64 {
        ns_since(self.started_at)
    }
}

impl Ring {
    /// Calls that can be sent now.
    #[inline]
    fn room(&self) -> u32 {
        if self.is_lost || self.client.is_router_draining() {
            return 0;
        }
        self.window.saturating_sub(self.client.outstanding())
    }

    /// Writes one call into the ring: `batch` with a number of its own. `false` without a slot.
    #[inline]
    fn send(&mut self, batch: &Call, payload_size: u32, times: Slot) -> bool {
        self.calls += 1;
        let call_id = self.calls;
        let pattern = self.pattern;
        let fill = |payload: &mut [u8]| pattern.fill(call_id, payload);
        let call = Call { call_id, ..*batch };
        let Ok(slot) = self.client.submit_in_place(&call, payload_size as usize, fill) else {
            return false;
        };
        if let Some(noted) = self.slots.get_mut(slot.0 as usize) {
            *noted = times;
        }
        true
    }
}

/// What the calls sent at once have in common: their deadline too, if the plan has one.
fn batch_of(plan: &Plan, function: FunctionId) -> Call {
    let budget_ns = |budget: Duration| u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
    let deadline_at_ns = plan.deadline.map(|budget| monotonic_ns().saturating_add(budget_ns(budget)));
    Call { criticality: plan.criticality, deadline_at_ns, ..Call::of(function) }
}

/// Shards that listen in this run directory: they are numbered from 0. One if there is none, to say so by its name.
fn shard_count(run_dir: &Path) -> u32 {
    let exists = |shard: u32| -> bool {
        let path: PathBuf = run_dir.join(format!("attach-{shard}.sock"));
        path.exists()
    };
    (0..256).take_while(|shard| exists(*shard)).count().max(1) as u32
}

fn cannot_connect(plan: &Plan, index: u32, error: ConnectError) -> LoadError {
    let (target, number, connections) = (plan.target.clone(), index + 1, plan.connections);
    match error {
        ConnectError::Unreachable { source, .. } => {
            LoadError::Unreachable { target, number, connections, source }
        }
        ConnectError::Refused { status, .. } => LoadError::Refused { target, number, connections, status },
        ConnectError::NoResources(source) => LoadError::NoResources(source),
        _ => LoadError::RouterMisbehaved { target, source: RouterMisbehaved::NotARing },
    }
}

fn cannot_resolve(plan: &Plan, error: ResolveError) -> LoadError {
    let name = plan.function.clone();
    match error {
        ResolveError::UnknownFunction { .. } | ResolveError::NameInvalid(_) => {
            LoadError::UnknownFunction { name, status: Status::UnknownFunction }
        }
        _ => LoadError::RouterMisbehaved { target: plan.target.clone(), source: RouterMisbehaved::NotARing },
    }
}
