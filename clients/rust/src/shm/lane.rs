//! The client's side of a direct lane: a second ring, straight to a worker, for the calls of one function.
//!
//! ```text
//!             submit                          answer
//!   caller ─────────▶ in the lane ───────────────────────────────▶ caller
//!                          │ the lane ended
//!                          ├─ not taken by the worker ─▶ returned ─▶ in the router's ring ─▶ caller
//!                          └─ taken ─────────────────────────────▶ worker_lost or timed_out ─▶ caller
//! ```
//! Always: each call gets exactly one answer, whichever way it went; its slot is named by the number that `submit` gave. A
//! call that was not taken when the lane ended is provably not begun, and is submitted again through the router, in
//! order. One that was taken is never submitted again.
//! Always: the lane's memory stays until the last answer in it is released.
//! Never: reads anything of a returned call from the lane but its payload: what it is, and of which function, is in this
//! process's own memory, which a worker can't change.

use std::collections::VecDeque;
use std::hint;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use protocol::attach::lane::{LaneEnd, LaneOpened, LaneRefused};
use protocol::attach::{MESSAGE_SIZE_MAX, Message};
use protocol::{Flags, FunctionId, Status};
use shm_ring::client_ring::{self, ClientEnd, ServiceMisbehaved, WaitOutcome, call_slot};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Mapped, SlotIndex, pass};

use super::{Answered, Call, ShmClient, SubmitRefused, now_ns};
use crate::error::{Disconnect, RouterMisbehaved};

/// With calls in both rings there is no one futex to sleep on: the other one is looked at after this long.
const NAP: Duration = Duration::from_millis(1);

/// As in `ClientEnd`.
const SPINS_PER_YIELD: u32 = 64;

/// Why there is no lane. Calls go through the ring as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaneNotOpened {
    /// The router said no.
    #[error("the router refused the lane: {0}")]
    Refused(LaneRefused),
    /// The router is gone, or said what no router says.
    #[error("the router could not be asked for a lane: {0}")]
    Disconnected(Disconnect),
}

/// Where an answer's result lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Ring(client_ring::Answered),
    Lane(client_ring::Answered),
    /// Nobody wrote one.
    Nowhere,
}

/// See the module's header.
pub(super) struct Lane {
    ring: ClientEnd<Mapped>,
    bell: EventDoorbell,
    opened: LaneOpened,
    /// Its slots are numbered from here, behind those of the router's ring.
    first_slot: u32,
    /// What was said about each call, by slot, to say it again.
    calls: Vec<Call>,
    /// The router has said that it is over, so that nobody takes anything from it.
    end: Option<LaneEnd>,
    /// What it left has been taken back.
    is_over: bool,
    /// Calls not begun that still have to be submitted through the router.
    returned: VecDeque<Returned>,
    /// Slots of the router's ring with such calls, and the slots their callers know.
    moved: Vec<(SlotIndex, SlotIndex)>,
    /// Answers that nobody else will give.
    settled: VecDeque<Answered>,
    spin_count: u32,
}

struct Returned {
    slot: SlotIndex,
    call: Call,
    payload: Vec<u8>,
}

impl Lane {
    #[inline]
    pub(super) fn submit(
        &mut self,
        call: &Call,
        submit: impl FnOnce(&mut ClientEnd<Mapped>, &client_ring::Call) -> Result<SlotIndex, SubmitRefused>,
    ) -> Result<SlotIndex, SubmitRefused> {
        let slot = submit(&mut self.ring, &call.in_ring())?;
        self.calls[slot.0 as usize] = *call;
        Ok(self.name_of(slot))
    }

    #[inline]
    pub(super) fn flush(&mut self) {
        if self.ring.publish() {
            let _ = self.bell.ring();
        }
    }

    #[inline]
    pub(super) fn result<'a>(&'a self, answered: &'a client_ring::Answered) -> &'a [u8] {
        self.ring.result(answered)
    }

    pub(super) fn timings(&self, answered: &client_ring::Answered) -> Option<[u8; call_slot::TIMINGS_SIZE]> {
        self.ring.timings(answered)
    }

    /// Calls without an answer that are not in the router's ring, and answers not released.
    #[inline]
    /// Slot and call id of each call that was given to the lane and has no answer. Those that went on to the ring are there.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (SlotIndex, u64)> + '_ {
        let in_lane = self.ring.unanswered().map(|(slot, call_id)| (self.name_of(slot), call_id));
        in_lane.chain(self.returned.iter().map(|returned| (returned.slot, returned.call.call_id)))
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.ring.outstanding() + self.returned_count() + self.settled.len() as u32
    }

    #[inline]
    pub(super) fn free_slots(&self) -> u32 {
        if self.is_open() { self.ring.free_slots() } else { 0 }
    }

    pub(super) fn slot_count(&self) -> u32 {
        self.opened.slot_count
    }

    #[inline]
    pub(super) fn returned_count(&self) -> u32 {
        self.returned.len() as u32
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.end.is_none() && !self.is_over && !self.ring.is_closed()
    }

    fn name_of(&self, slot: SlotIndex) -> SlotIndex {
        SlotIndex(self.first_slot + slot.0)
    }

    /// Nothing of it is needed any more.
    fn is_done(&self) -> bool {
        self.is_over && self.outstanding() == 0 && self.moved.is_empty()
    }

    /// The next answer that a worker wrote.
    #[inline]
    fn next_answer(&mut self) -> Option<Answered> {
        let answered = match self.ring.next_answer() {
            Ok(answered) => answered?,
            Err(misbehaved) => {
                self.give_up(misbehaved);
                return None;
            }
        };
        Some(Answered {
            slot: self.name_of(answered.slot),
            call_id: answered.call_id,
            status: answered.status,
            flags: answered.flags,
            retry_after_us: answered.retry_after_us,
            place: Place::Lane(answered),
        })
    }

    /// The worker wrote what no worker writes: nothing in the lane counts any more, also not that a call was not taken.
    #[cold]
    fn give_up(&mut self, _: ServiceMisbehaved) {
        self.is_over = true;
        for left in self.ring.take_back() {
            self.settle(left.slot, left.call_id, Status::WorkerMisbehaved, Flags::STARTED);
        }
    }

    /// What the lane leaves, once nobody takes from it any more and every answer was taken.
    #[cold]
    fn take_back(&mut self) {
        self.is_over = true;
        let now = now_ns();
        for left in self.ring.take_back() {
            let call = self.calls[left.slot.0 as usize];
            match left.payload {
                Some(payload) => {
                    self.returned.push_back(Returned { slot: self.name_of(left.slot), call, payload });
                }
                None => {
                    let is_late = self.end == Some(LaneEnd::WorkerOverstayed)
                        || call.deadline_at_ns.is_some_and(|deadline_at_ns| deadline_at_ns <= now);
                    let status = if is_late { Status::TimedOut } else { Status::WorkerLost };
                    self.settle(left.slot, left.call_id, status, Flags::STARTED);
                }
            }
        }
    }

    fn settle(&mut self, slot: SlotIndex, call_id: u64, status: Status, flags: Flags) {
        let slot = self.name_of(slot);
        self.settled.push_back(settled(slot, call_id, status, flags));
    }
}

/// An answer that this side gives.
fn settled(slot: SlotIndex, call_id: u64, status: Status, flags: Flags) -> Answered {
    let (status, flags) = (status as u16 as u8, flags.0);
    Answered { slot, call_id, status, flags, retry_after_us: 0, place: Place::Nowhere }
}

impl ShmClient {
    /// Asks the router for a lane: a ring straight to a warm process of this function, for up to `slot_count` calls at
    /// once (0 leaves that to the router). Calls of the function then go past the router while the lane has room, and
    /// through it otherwise; the answers come by [`ShmClient::poll`] all the same. The router may end the lane at any
    /// time: what had not begun then goes through the router, on its own. One lane at a time.
    ///
    /// In a lane, a call's criticality means nothing, and its deadline counts as it always does; the function's time-out
    /// begins when the call does. Waits for the router's answer.
    ///
    /// # Errors
    /// If the router has no lane for this client, or can't be asked.
    pub fn open_lane(&mut self, function: FunctionId, slot_count: u32) -> Result<(), LaneNotOpened> {
        self.drop_lane_if_done();
        if self.lane.is_some() {
            return Err(LaneNotOpened::Refused(LaneRefused::LanePresent));
        }
        if let Some(cause) = self.ended {
            return Err(LaneNotOpened::Disconnected(cause));
        }
        let (function_id, payload_size_max) = (function, self.payload_size_max());
        let mut bytes = Vec::new();
        Message::LaneWanted { function_id, slot_count, payload_size_max }.encode(&mut bytes);
        let lost = |error: io::Error| LaneNotOpened::Disconnected(Disconnect::Io(error.kind()));
        (&self.socket).write_all(&bytes).map_err(lost)?;
        let mut fds = Vec::new();
        loop {
            while let Some(message) = self.next_message().map_err(LaneNotOpened::Disconnected)? {
                match message {
                    Message::LaneOpened(opened) => return self.begin_lane(opened, fds),
                    Message::LaneRefused { reason } => return Err(LaneNotOpened::Refused(reason)),
                    other => self.on_message(&other).map_err(LaneNotOpened::Disconnected)?,
                }
            }
            let mut bytes = [0; MESSAGE_SIZE_MAX];
            match pass::receive_with_fds(&self.socket, &mut bytes, &mut fds) {
                Ok(0) => return Err(LaneNotOpened::Disconnected(self.end(Disconnect::Closed))),
                Ok(size) => self.unread.extend_from_slice(&bytes[..size]),
                Err(errno) => return Err(lost(errno.into())),
            }
        }
    }

    fn begin_lane(&mut self, opened: LaneOpened, fds: Vec<OwnedFd>) -> Result<(), LaneNotOpened> {
        let unexpected =
            || LaneNotOpened::Disconnected(Disconnect::RouterMisbehaved(RouterMisbehaved::RecordUnexpected));
        let Ok([memory_fd, bell_fd]) = <[OwnedFd; 2]>::try_from(fds) else { return Err(unexpected()) };
        let ring = Mapped::attach(&memory_fd).ok().and_then(|memory| ClientEnd::attach(memory).ok());
        let ring = ring.ok_or_else(unexpected)?;
        let (geometry, identity) = (ring.geometry(), ring.identity());
        let told = (opened.slot_count, opened.region_size, opened.generation);
        if told != (geometry.slot_count(), geometry.region_size(), identity.generation.0) {
            return Err(unexpected());
        }
        ring.memory().populate(geometry.request_region(SlotIndex(0)));
        self.lane_end = None;
        self.lane = Some(Box::new(Lane {
            ring,
            bell: EventDoorbell::from_fd(bell_fd),
            first_slot: self.ring.geometry().slot_count(),
            calls: vec![Call::of(opened.function_id); opened.slot_count as usize],
            opened,
            end: None,
            is_over: false,
            returned: VecDeque::new(),
            moved: Vec::new(),
            settled: VecDeque::new(),
            spin_count: self.spin_count_max,
        }));
        Ok(())
    }

    /// Calls of the lane's function go past the router.
    pub fn has_lane(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.is_open())
    }

    /// Why the last lane ended, once the router has said it.
    pub fn lane_end(&self) -> Option<LaneEnd> {
        self.lane_end
    }

    /// The lane, if it takes this call.
    #[inline]
    pub(super) fn lane_for(&mut self, call: &Call, payload_size: usize) -> Option<&mut Lane> {
        let lane = self.lane.as_mut()?;
        // Which calls are the same, only the router knows.
        let takes = lane.opened.function_id == call.function
            && call.idempotency_key.is_none()
            && payload_size <= lane.opened.payload_size_max as usize
            && lane.ring.free_slots() > 0
            && lane.is_open();
        takes.then_some(&mut **lane)
    }

    /// The next answer of a call that was given to the lane.
    #[inline]
    pub(super) fn poll_lane(&mut self) -> Option<Answered> {
        let lane = self.lane.as_mut()?;
        // Looked at before the answers: a lane that is closed has told all of them.
        let is_open = lane.is_open();
        if let Some(answered) = lane.next_answer() {
            return Some(answered);
        }
        if is_open {
            return None;
        }
        self.tend_lane();
        self.lane.as_mut()?.settled.pop_front()
    }

    /// Brings the calls of a lane that has ended on their way.
    #[cold]
    fn tend_lane(&mut self) {
        let Some(lane) = &mut self.lane else { return };
        if !lane.is_over {
            lane.take_back();
        }
        let is_refused = self.ended.is_some() || self.ring.is_router_draining();
        while let Some(returned) = lane.returned.pop_front() {
            let Returned { slot, call, payload } = &returned;
            let submitted = if is_refused { None } else { Some(self.ring.submit(&call.in_ring(), payload)) };
            let refusal = match submitted {
                Some(Ok(place)) => {
                    lane.moved.push((place, *slot));
                    continue;
                }
                Some(Err(SubmitRefused::NoCredit)) => {
                    lane.returned.push_front(returned);
                    break;
                }
                Some(Err(SubmitRefused::PayloadTooLarge { .. })) => Status::PayloadTooLarge,
                // It was not begun, and nobody is there to begin it.
                None => Status::Draining,
            };
            lane.settled.push_back(settled(*slot, call.call_id, refusal, Flags::NONE));
        }
        self.flush();
        self.drop_lane_if_done();
    }

    /// The slot that its caller knows, of a call in the router's ring.
    pub(super) fn name_of(&self, slot: SlotIndex) -> SlotIndex {
        let moved = self.lane.iter().flat_map(|lane| &lane.moved);
        moved.into_iter().find(|(place, _)| *place == slot).map_or(slot, |(_, name)| *name)
    }

    /// An answer out of the router's ring, under the name its caller knows.
    #[inline]
    pub(super) fn named_by_caller(&mut self, answered: client_ring::Answered) -> Answered {
        let mut slot = answered.slot;
        if let Some(lane) = &mut self.lane
            && let Some(position) = lane.moved.iter().position(|(place, _)| *place == slot)
        {
            slot = lane.moved.swap_remove(position).1;
        }
        Answered {
            slot,
            call_id: answered.call_id,
            status: answered.status,
            flags: answered.flags,
            retry_after_us: answered.retry_after_us,
            place: Place::Ring(answered),
        }
    }

    #[inline]
    pub(super) fn release_in_lane(&mut self, answered: client_ring::Answered) {
        if let Some(lane) = &mut self.lane {
            lane.ring.release(answered);
            if lane.is_over {
                self.drop_lane_if_done();
            }
        }
    }

    /// Cancels what is not in the router's ring. `Some`: the slot there of a call that is.
    pub(super) fn cancel_in_lane(&mut self, slot: SlotIndex) -> Option<SlotIndex> {
        let first_slot = self.ring.geometry().slot_count();
        let Some(index) = slot.0.checked_sub(first_slot) else { return Some(slot) };
        let lane = self.lane.as_mut()?;
        if let Some((place, _)) = lane.moved.iter().find(|(_, name)| *name == slot) {
            return Some(*place);
        }
        if let Some(position) = lane.returned.iter().position(|returned| returned.slot == slot) {
            let returned = lane.returned.remove(position)?;
            let call_id = returned.call.call_id;
            lane.settled.push_back(settled(slot, call_id, Status::Cancelled, Flags::NONE));
            return None;
        }
        lane.ring.request_cancel(SlotIndex(index));
        None
    }

    pub(super) fn on_lane_closed(&mut self, lane_id: u32, reason: LaneEnd) {
        if let Some(lane) = self.lane.as_mut().filter(|lane| lane.opened.lane_id == lane_id) {
            lane.end = Some(reason);
        }
        self.lane_end = Some(reason);
    }

    /// Waits as `ClientEnd::wait` does, for answers in either ring.
    pub(super) fn wait_with_lane(&mut self, sleep: Duration) -> Result<WaitOutcome, ServiceMisbehaved> {
        if self.lane.as_ref().is_some_and(|lane| !lane.is_open()) && !self.has_answers() {
            self.tend_lane();
        }
        if self.spin_for_both() {
            return Ok(WaitOutcome::Ready);
        }
        let Some(lane) = self.lane.as_mut().filter(|lane| lane.is_open() && lane.ring.outstanding() > 0)
        else {
            return self.ring.wait(0, Some(sleep));
        };
        let sleep = if self.ring.outstanding() == 0 { sleep } else { sleep.min(NAP) };
        match lane.ring.wait(0, Some(sleep)) {
            Ok(outcome) => Ok(outcome),
            Err(misbehaved) => {
                lane.give_up(misbehaved);
                Ok(WaitOutcome::Nothing)
            }
        }
    }

    /// `true` when there are answers.
    fn spin_for_both(&mut self) -> bool {
        let spin_count_max = self.spin_count_max;
        let spin_count = self.lane.as_ref().map_or(0, |lane| lane.spin_count);
        let spin_count = spin_count.clamp(spin_count_max / 16, spin_count_max);
        for round in 1..=spin_count.max(1) {
            if self.has_answers() {
                self.set_spin_count(spin_count.saturating_mul(2));
                return true;
            }
            if round % SPINS_PER_YIELD == 0 {
                rustix::thread::sched_yield();
            } else {
                hint::spin_loop();
            }
        }
        self.set_spin_count(spin_count / 2);
        false
    }

    fn set_spin_count(&mut self, spin_count: u32) {
        if let Some(lane) = &mut self.lane {
            lane.spin_count = spin_count;
        }
    }

    #[inline]
    fn has_answers(&mut self) -> bool {
        let in_lane = |lane: &mut Box<Lane>| !lane.settled.is_empty() || lane.ring.has_answers();
        self.lane.as_mut().is_some_and(in_lane) || self.ring.has_answers()
    }

    fn drop_lane_if_done(&mut self) {
        self.lane.take_if(|lane| lane.is_done());
    }
}
