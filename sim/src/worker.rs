//! A function process in virtual time: the worker's end of a real ring, one small step at a time, so that a crash
//! can fall between any two of them.
//!
//! The steps are those of `clients/rust/src/serve.rs`: take (which marks the slot), look at the cancel flag and the
//! deadline, stamp the start, run, complete, publish. A process may run several calls at once, as foreign runtimes do:
//! then they finish in another order than they began in.
//! Always: it notices the router's death late, as a watcher thread does; until then it may begin what lies in its ring.

use std::sync::atomic::Ordering;

use engine::InvocationId;
use protocol::WaitToken;
use shm_ring::layout::{CONTROL_PAGE_SIZE, slot, worker_line};
use shm_ring::{HeapMemory, Memory, Outcome, Taken, WorkerEnd, waits};

use crate::chance::Chance;
use crate::oracle::CallKey;

/// One living process.
pub struct Process {
    /// Which function it runs.
    pub function: u32,
    ring: Option<Attached>,
    running: Vec<Running>,
    /// Calls it runs at once.
    pub parallel_max: usize,
    /// It does nothing before this: a page fault, a debugger, a garbage collection.
    pub stalled_until_ns: u64,
    /// It has written what it must not; nothing it says counts any more.
    pub has_scribbled: bool,
    /// It ends when it holds nothing.
    pub is_stopping: bool,
    /// When it sees that its router is dead, if it is.
    pub sees_end_at_ns: Option<u64>,
    /// By which the router knows its calls from what others say of them.
    token: WaitToken,
    made_count: u32,
}

struct Attached {
    end: WorkerEnd<HeapMemory>,
    epoch: u32,
    unpublished_count: u32,
}

struct Running {
    taken: Taken,
    started_at_ns: u64,
    /// `u64::MAX` while it waits for a call that it has made.
    finish_at_ns: u64,
    /// What is left to do then.
    length_ns: u64,
    outcome: Outcome,
}

/// What a step did that others must know.
pub enum Step {
    /// Nothing to tell.
    Quiet,
    /// It took this call and asks how long it will run.
    Begins(CallKey),
    /// It took this call and does not run it: its time is over, or nobody wants it.
    Declines(CallKey),
    /// It gave its ring up, because its router is dead.
    Detached,
    /// It was told to stop, and has nothing left to do.
    Ended,
}

impl Process {
    /// A process that has started and not yet attached. Nobody else has its secret.
    pub fn new(function: u32, parallel_max: usize, secret: u64) -> Self {
        Self {
            function,
            ring: None,
            running: Vec::new(),
            parallel_max,
            stalled_until_ns: 0,
            has_scribbled: false,
            is_stopping: false,
            sees_end_at_ns: None,
            token: WaitToken::of_process(secret),
            made_count: 0,
        }
    }

    /// It got its ring.
    pub fn attach(&mut self, memory: HeapMemory, epoch: u32) {
        let end = WorkerEnd::attach(memory).expect("a ring the router has just made is sound");
        self.ring = Some(Attached { end, epoch, unpublished_count: 0 });
        self.show(self.token);
        self.has_scribbled = false;
        self.sees_end_at_ns = None;
    }

    /// Whether it has a ring.
    pub fn is_attached(&self) -> bool {
        self.ring.is_some()
    }

    /// Calls it runs now.
    pub fn running_count(&self) -> u32 {
        self.running.len() as u32
    }

    /// Does one small thing. After [`Step::Begins`], [`run`](Process::run) says how it goes on.
    pub fn step(&mut self, now_ns: u64, chance: &mut Chance) -> Step {
        let Some(ring) = self.ring.as_mut().filter(|_| now_ns >= self.stalled_until_ns) else {
            return Step::Quiet;
        };
        let is_end_seen = self.sees_end_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
        let due = self.running.iter().position(|running| running.finish_at_ns <= now_ns);
        if let Some(running) = due.map(|position| self.running.swap_remove(position)) {
            let mut result = Vec::new();
            ring.end.read_payload(&running.taken, &mut result);
            ring.end.complete(running.taken, running.outcome, running.started_at_ns, now_ns, &result);
            ring.unpublished_count += 1;
            return Step::Quiet;
        }
        // Publishing is a step of its own and may come late: until then the router knows nothing.
        if ring.unpublished_count > 0 && chance.per_mille(600) {
            ring.end.publish();
            ring.unpublished_count = 0;
            return Step::Quiet;
        }
        if is_end_seen && self.running.is_empty() {
            self.ring = None;
            return Step::Detached;
        }
        if is_end_seen || self.running.len() >= self.parallel_max {
            return Step::Quiet;
        }
        let Ok(Some(taken)) = ring.end.next_request() else {
            let is_done = self.is_stopping && self.running.is_empty() && ring.unpublished_count == 0;
            return if is_done { Step::Ended } else { Step::Quiet };
        };
        let unstarted = if ring.end.is_cancelled(&taken) {
            Some(Outcome::Cancelled)
        } else if taken.deadline_at_ns <= now_ns {
            Some(Outcome::Expired)
        } else {
            None
        };
        let key = CallKey { epoch: ring.epoch, id: InvocationId(taken.invocation_id) };
        if let Some(outcome) = unstarted {
            ring.end.complete(taken, outcome, now_ns, now_ns, &[]);
            ring.unpublished_count += 1;
            return Step::Declines(key);
        }
        ring.end.note_started(&taken, now_ns);
        self.running.push(Running {
            taken,
            started_at_ns: now_ns,
            finish_at_ns: now_ns,
            length_ns: 0,
            outcome: Outcome::Ok,
        });
        Step::Begins(key)
    }

    /// What it runs, and whether it can see that it is asked to stop.
    pub fn runs(&self) -> impl Iterator<Item = (CallKey, bool)> + '_ {
        let look = |ring: &Attached, running: &Running| {
            let id = InvocationId(running.taken.invocation_id);
            (CallKey { epoch: ring.epoch, id }, ring.end.is_cancelled(&running.taken))
        };
        self.ring.iter().flat_map(move |ring| self.running.iter().map(move |running| look(ring, running)))
    }

    /// The run of this call goes on, for so long.
    pub fn go_on(&mut self, now_ns: u64, id: InvocationId, outcome: Outcome) {
        self.show(self.token);
        for running in self.running.iter_mut().filter(|running| running.taken.invocation_id == id.0) {
            running.finish_at_ns = running.length_ns.saturating_add(now_ns);
            running.outcome = outcome;
        }
    }

    /// The call that it began last makes another one, waits for it, and then takes this long. The other one's token, which its
    /// ring shows.
    pub fn wait(&mut self, length_ns: u64) -> WaitToken {
        let token = self.token.of_call(self.made_count);
        self.made_count += 1;
        self.show(token);
        let running = self.running.last_mut().expect("a call began in the step before");
        running.length_ns = length_ns;
        running.finish_at_ns = u64::MAX;
        token
    }

    fn show(&self, token: WaitToken) {
        if let Some(ring) = &self.ring {
            waits::show(ring.end.memory(), token.bits());
        }
    }

    /// Whatever its calls wait for will never come.
    pub fn give_up_waiting(&mut self, now_ns: u64) {
        self.show(self.token);
        for running in self.running.iter_mut().filter(|running| running.finish_at_ns == u64::MAX) {
            running.finish_at_ns = now_ns;
            running.outcome = Outcome::FunctionError;
        }
    }

    /// The call that it began last takes this long, and ends like this.
    pub fn run(&mut self, length_ns: u64, outcome: Outcome) {
        let running = self.running.last_mut().expect("a call began in the step before");
        running.finish_at_ns = running.started_at_ns + length_ns;
        running.outcome = outcome;
    }

    /// Writes garbage into the words a worker may write, or anywhere in front of the regions.
    pub fn scribble(&mut self, chance: &mut Chance) {
        let Some(ring) = &self.ring else { return };
        self.has_scribbled = true;
        let slot_count = u64::from(ring.end.geometry().slot_count());
        let value = if chance.per_mille(500) { chance.next() as u32 } else { chance.below(8) as u32 };
        let offset = match chance.below(4) {
            0 => worker_line::COMPLETION_TAIL,
            1 => worker_line::SUBMISSION_HEAD,
            _ => CONTROL_PAGE_SIZE + 4 * chance.below(slot_count * slot::SIZE as u64 / 4) as usize,
        };
        ring.end.memory().store_u32(offset, value, Ordering::Release);
    }
}
