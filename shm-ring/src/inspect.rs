//! Reads a ring that nobody may be alive to explain: after a crash, or from outside while it works.
//!
//! In: memory, in whatever condition.  Out: a [`RingReport`], or the reason why this is no ring.
//! Never: panics or writes, whatever the bytes are. A running ring moves while it is read, so the report of one is a
//! blurred picture; that of a dead one is exact.

use std::sync::atomic::Ordering;

use crate::access::Memory;
use crate::fault::AttachError;
use crate::layout::{
    self, AnswerHeader, CONTROL_PAGE_SIZE, Generation, Geometry, Identity, RouterControl, SlotIndex,
    WorkerControl, constants, router_line, router_state, slot, worker_line, worker_state,
};
use crate::router_end::request_header;

/// Everything a ring says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingReport {
    /// Whose ring.
    pub identity: Identity,
    /// Its sizes.
    pub geometry: Geometry,
    /// Requests the router has published.
    pub submission_tail: u32,
    /// Requests the worker has taken, as of its last publish.
    pub submission_head: u32,
    /// Answers the worker has published.
    pub completion_tail: u32,
    /// Answers the router has read, as of its last publish.
    pub completion_head: u32,
    /// The router sleeps or is about to.
    pub router_sleeping: bool,
    /// The router takes no new calls.
    pub router_draining: bool,
    /// The worker sleeps or is about to.
    pub worker_sleeping: bool,
    /// Every slot that is not empty.
    pub slots: Vec<SlotReport>,
}

/// One occupied slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// Which.
    pub slot: SlotIndex,
    /// How far it has come.
    pub stage: SlotStage,
    /// Nobody wants the answer any more.
    pub cancel_requested: bool,
    /// Whose it is.
    pub invocation_id: u64,
    /// Bytes of its payload.
    pub payload_size: u32,
    /// CLOCK_MONOTONIC nanoseconds, `u64::MAX` for none.
    pub deadline_at_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub pushed_at_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds; `None` if not started, or the worker did not say when.
    pub started_at_ns: Option<u64>,
    /// CLOCK_MONOTONIC nanoseconds; `None` if not finished.
    pub finished_at_ns: Option<u64>,
}

impl SlotReport {
    /// How long ago it was pushed.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.pushed_at_ns)
    }
}

/// How far the request in a slot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStage {
    /// No request.
    Empty,
    /// The router was filling it.
    Writing,
    /// The worker may take it and has not.
    Ready,
    /// The worker took it; the function may have begun.
    Taken,
    /// The worker answered; the router has not released it.
    Done,
    /// States that no honest pair of processes leaves behind.
    Unreadable {
        /// As found.
        router_state: u8,
        /// As found.
        worker_state: u8,
    },
}

/// Reads the whole ring.
pub fn inspect<M: Memory>(memory: &M) -> Result<RingReport, AttachError> {
    let (geometry, identity) = read_constants(memory)?;
    let word = |offset| memory.load_u32(offset, Ordering::Acquire);
    Ok(RingReport {
        identity,
        geometry,
        submission_tail: word(router_line::SUBMISSION_TAIL),
        submission_head: word(worker_line::SUBMISSION_HEAD),
        completion_tail: word(worker_line::COMPLETION_TAIL),
        completion_head: word(router_line::COMPLETION_HEAD),
        router_sleeping: word(router_line::ROUTER_SLEEPING) & 1 == 1,
        router_draining: word(router_line::ROUTER_DRAINING) != 0,
        worker_sleeping: word(worker_line::WORKER_SLEEPING) & 1 == 1,
        slots: (0..geometry.slot_count())
            .filter_map(|slot| inspect_slot(memory, geometry, SlotIndex(slot)))
            .collect(),
    })
}

fn inspect_slot<M: Memory>(memory: &M, geometry: Geometry, slot: SlotIndex) -> Option<SlotReport> {
    let request = request_header(memory, geometry, slot);
    let answer = AnswerHeader::from_record(&memory.read_record(geometry.slot(slot) + slot::WORKER_CONTROL));
    let control = RouterControl(request.control);
    let stage = stage_of(control, request.invocation_id, &answer);
    let has_started = matches!(stage, SlotStage::Taken | SlotStage::Done);
    let is_finished = stage == SlotStage::Done;
    (stage != SlotStage::Empty).then_some(SlotReport {
        slot,
        stage,
        cancel_requested: control.is_cancel_requested(),
        invocation_id: request.invocation_id,
        payload_size: request.payload_size,
        deadline_at_ns: request.deadline_at_ns,
        pushed_at_ns: request.pushed_at_ns,
        started_at_ns: (has_started && answer.started_at_ns != 0).then_some(answer.started_at_ns),
        finished_at_ns: is_finished.then_some(answer.finished_at_ns),
    })
}

/// The one reading of a slot's two halves, shared by inspection and by the judgement over a lost worker.
///
/// A worker's half that names another invocation is the remains of the slot's former user. TAKEN cannot be such a
/// remainder, because a taken slot is not reused.
pub(crate) fn stage_of(control: RouterControl, invocation_id: u64, answer: &AnswerHeader) -> SlotStage {
    let worker_state = WorkerControl(answer.control).state();
    let is_about_this = answer.invocation_id == invocation_id;
    match (control.state(), worker_state) {
        (router_state::EMPTY, _) => SlotStage::Empty,
        (router_state::WRITING, _) => SlotStage::Writing,
        (router_state::READY, worker_state::TAKEN) if is_about_this => SlotStage::Taken,
        (router_state::READY, worker_state::DONE) if is_about_this => SlotStage::Done,
        (router_state::READY, worker_state::IDLE | worker_state::DONE) => SlotStage::Ready,
        (router_state, worker_state) => SlotStage::Unreadable { router_state, worker_state },
    }
}

/// Checks that this is a ring of our layout whose parts all lie inside of the memory.
pub(crate) fn read_constants<M: Memory>(memory: &M) -> Result<(Geometry, Identity), AttachError> {
    let size = memory.size();
    if size < CONTROL_PAGE_SIZE {
        return Err(AttachError::TooSmall { size });
    }
    let word = |offset| memory.load_u32(offset, Ordering::Relaxed);
    let magic = memory.load_u64(constants::MAGIC, Ordering::Acquire);
    if magic != layout::MAGIC {
        return Err(AttachError::WrongMagic { magic });
    }
    let version = word(constants::VERSION);
    if version != layout::VERSION {
        return Err(AttachError::WrongVersion { version });
    }
    let slot_count = word(constants::SLOT_COUNT);
    let region_size = word(constants::REGION_SIZE);
    // A size that is no multiple of a page comes back rounded, and is refused by the comparison.
    let geometry = match Geometry::new(slot_count, region_size) {
        Ok(geometry) if geometry.region_size() == region_size => geometry,
        _ => return Err(AttachError::BadGeometry { slot_count, region_size }),
    };
    let stated = memory.load_u64(constants::MEMORY_SIZE, Ordering::Relaxed);
    let needed = geometry.memory_size();
    if stated != needed as u64 || needed > size {
        return Err(AttachError::SizesDisagree { needed, stated, size });
    }
    let identity = Identity {
        generation: Generation(word(constants::GENERATION)),
        worker_id: word(constants::WORKER_ID),
        function_id: word(constants::FUNCTION_ID),
    };
    Ok((geometry, identity))
}
