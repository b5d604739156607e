//! A function process in virtual time: the worker's end of a real ring, one small step at a time, so that a crash
//! can fall between any two of them.
//!
//! The steps are those of `clients/rust/src/serve.rs`: take (which marks the slot), look at the cancel flag and the
//! deadline, stamp the start, run, complete, publish.

use std::sync::atomic::Ordering;

use engine::InvocationId;
use shm_ring::layout::{CONTROL_PAGE_SIZE, slot, worker_line};
use shm_ring::{HeapMemory, Memory, Outcome, Taken, WorkerEnd};

use crate::chance::Chance;

/// One living process.
pub struct Process {
    /// Which function it runs.
    pub function: u32,
    end: Option<WorkerEnd<HeapMemory>>,
    running: Option<Running>,
    unpublished_count: u32,
    /// It does nothing before this: a page fault, a debugger, a garbage collection.
    pub stalled_until_ns: u64,
    /// It has written what it must not; nothing it says counts any more.
    pub has_scribbled: bool,
}

struct Running {
    taken: Taken,
    started_at_ns: u64,
    finish_at_ns: u64,
}

/// What a step did that others must know.
pub enum Step {
    /// Nothing to tell.
    Quiet,
    /// The function began to run this call.
    Started(InvocationId),
}

impl Process {
    /// A process that has started and not yet attached.
    pub fn new(function: u32) -> Self {
        Self {
            function,
            end: None,
            running: None,
            unpublished_count: 0,
            stalled_until_ns: 0,
            has_scribbled: false,
        }
    }

    /// It got its ring.
    pub fn attach(&mut self, memory: HeapMemory) {
        self.end = Some(WorkerEnd::attach(memory).expect("a ring the router has just made is sound"));
    }

    /// Whether it has a ring.
    pub fn is_attached(&self) -> bool {
        self.end.is_some()
    }

    /// Does one small thing.
    pub fn step(&mut self, now_ns: u64, chance: &mut Chance) -> Step {
        let Some(end) = &mut self.end else { return Step::Quiet };
        if now_ns < self.stalled_until_ns {
            return Step::Quiet;
        }
        if let Some(running) = self.running.take_if(|running| running.finish_at_ns <= now_ns) {
            let mut result = Vec::new();
            end.read_payload(&running.taken, &mut result);
            let outcome = if chance.per_mille(50) { Outcome::FunctionError } else { Outcome::Ok };
            end.complete(running.taken, outcome, running.started_at_ns, now_ns, &result);
            self.unpublished_count += 1;
            return Step::Quiet;
        }
        // Publishing is a step of its own and may come late: until then the router knows nothing.
        if self.unpublished_count > 0 && chance.per_mille(600) {
            end.publish();
            self.unpublished_count = 0;
            return Step::Quiet;
        }
        if self.running.is_some() {
            return Step::Quiet;
        }
        let Ok(Some(taken)) = end.next_request() else { return Step::Quiet };
        let unstarted = if end.is_cancelled(&taken) {
            Some(Outcome::Cancelled)
        } else if taken.deadline_at_ns <= now_ns {
            Some(Outcome::Expired)
        } else {
            None
        };
        if let Some(outcome) = unstarted {
            end.complete(taken, outcome, now_ns, now_ns, &[]);
            self.unpublished_count += 1;
            return Step::Quiet;
        }
        end.note_started(&taken, now_ns);
        let id = InvocationId(taken.invocation_id);
        let finish_at_ns = now_ns + chance.length(24);
        self.running = Some(Running { taken, started_at_ns: now_ns, finish_at_ns });
        Step::Started(id)
    }

    /// Writes garbage into the words a worker may write, or anywhere in front of the regions.
    pub fn scribble(&mut self, chance: &mut Chance) {
        let Some(end) = &self.end else { return };
        self.has_scribbled = true;
        let slot_count = u64::from(end.geometry().slot_count());
        let value = if chance.per_mille(500) { chance.next() as u32 } else { chance.below(8) as u32 };
        let offset = match chance.below(4) {
            0 => worker_line::COMPLETION_TAIL,
            1 => worker_line::SUBMISSION_HEAD,
            _ => CONTROL_PAGE_SIZE + 4 * chance.below(slot_count * slot::SIZE as u64 / 4) as usize,
        };
        end.memory().store_u32(offset, value, Ordering::Release);
    }
}
