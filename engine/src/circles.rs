//! Circles of calls that wait for each other: found while they wait, and ended by an answer to one of them.
//!
//! ```text
//!   worker 1 of A ─ waits for a call of ─▶ B ─ whose every worker ─▶ worker 2 of B ─ waits for a call of ─▶ A
//!        ▲                                                                                                  │
//!        └───────────────────────────────── whose every worker ─────────────────────────────────────────────┘
//! ```
//!
//! In: nested calls that no worker has yet; a look into the rings (`WaitEvidence`).  Out: for one call of each circle the answer
//! `WouldDeadlock`, so that its caller goes on and the others with it.
//! Always: a worker is in a circle only if its own ring says that its process waits for the nested call that is part of it. Whom
//! somebody else names as his caller is in none for that: see `nesting.rs` for what a claim is worth. A process that says so and
//! does not wait does what it might do by waiting in truth: who depends on its function suffers, and nobody else.
//! Always: a circle is closed: of each function in it that a call waits for, every worker waits; each of them for a call that waits
//! for a function in it, or for a worker in it that runs that call (or one that it joined). One worker that does not wait is a
//! way out, for it will be free; so is one that is about to go, because another may come; but not one that is kept for calls which
//! are nested deeper (`reserve.rs`).
//! Always: the newest call of a circle is the one that is answered. A call that waits for a circle without being part of it goes
//! on waiting: it is served when the circle is gone.
//! Always: looked for in the turn in which a nested call has to wait, and again every `LOOK_PERIOD` while one does. So it does not
//! matter how a circle came about: by a call, by a worker that died or was drained, by a call that is tried again, by a process
//! that began to wait late for a call that it had made before.
//! Not found, and ended by deadlines: circles over several shards; of processes that do not show what they wait for; through
//! calls that wait for a limit while a worker is free, or that are hedged; of one call's nested ones those before the last `MADE_MAX`.
//! Never: on the path of a call that is not nested, or of one that finds a worker. Never more than `limits.wait_visits_max` looks at
//! workers in one turn; what they were not enough for goes on in the next look.
//! Why reachability and not a fixpoint: to end, a call needs one worker and a worker needs one call. So one way out that can be
//! reached from a call is a way out for everything between.  Why not at admission: the last step into a circle need not be a call.
//! Decision: docs/decisions/0026-circles-of-waiting.md.  Tests: `tests/circles.rs`, `tests/random/nested.rs`.

use protocol::WaitToken;

use crate::Engine;
use crate::invocation::{InvocationId, State};
use crate::reply::Ending;
use crate::time::Nanos;
use crate::worker::{Worker, WorkerId, WorkerState};

/// As often as people are told what a function waits for.
const LOOK_PERIOD: Nanos = Nanos::from_ms(10);
/// Nested calls of one process that are told apart: those it made last. More at a time are a crowd that seldom waits for its first.
const MADE_MAX: usize = 32;

/// What workers show of what they wait for.
pub trait WaitEvidence {
    /// For which nested call the call waits that this worker runs, by its own word.
    fn waits_for(&self, worker: WorkerId) -> WaitToken;
}

/// What is known of calls that wait for each other.
#[derive(Debug)]
pub(crate) struct Circles {
    /// By worker, and by the number of the call: what its process made last. Grows when a worker makes its first call. Nothing is
    /// cleaned up: an id tells by itself whether it still means something.
    made: Vec<[InvocationId; MADE_MAX]>,
    /// Nested calls that waited when they were seen last, in the order in which they began to. At most `limits.waits_max`.
    waiting: Vec<InvocationId>,
    /// When the next look is.
    look_at: Nanos,
    /// The last look was not enough for those before this one.
    resume_at: usize,
    search: Search,
}

/// How far one search has come. Its lists are as long as those of the engine, and stay.
#[derive(Debug, Default)]
struct Search {
    /// By number, in which search a worker or a function was met last.
    workers: Vec<u32>,
    functions: Vec<u32>,
    number: u32,
    /// Workers that have not been asked what they wait for.
    to_visit: Vec<u32>,
    /// Workers met in this look, and how many may be.
    visits: u32,
    visits_max: u32,
}

/// What stands between a call and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Time, or something else that passes by itself.
    Nothing,
    /// A worker of this function, at this depth.
    AnyWorkerOf { function: u32, depth: u8 },
    /// What this worker runs.
    Worker(u32),
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Circle,
    WayOut,
    VisitsUsedUp,
}

impl Circles {
    pub fn new() -> Circles {
        Circles {
            made: Vec::new(),
            waiting: Vec::new(),
            look_at: Nanos::NEVER,
            resume_at: 0,
            search: Search::default(),
        }
    }

    /// When the next look is due.
    pub fn next(&self) -> Option<Nanos> {
        (self.look_at != Nanos::NEVER).then_some(self.look_at)
    }

    /// The process of this worker made this call.
    pub fn note_made(&mut self, worker: u32, token: WaitToken, id: InvocationId) {
        let worker = worker as usize;
        if worker >= self.made.len() {
            self.made.resize(worker + 1, [InvocationId::NONE; MADE_MAX]);
        }
        self.made[worker][usize::from(token.number()) % MADE_MAX] = id;
    }
}

impl Engine {
    /// A nested call was admitted, or stands in its queue again. If its process shows what it waits for, it is looked after.
    pub(crate) fn note_waiting(&mut self, id: InvocationId) {
        let is_proved = self.nested_of(id).is_some_and(|nested| nested.is_proved());
        if is_proved && self.circles.waiting.len() < self.limits.waits_max as usize {
            self.circles.waiting.push(id);
            self.circles.look_at = Nanos::ZERO;
        }
    }

    /// Ends circles of calls that wait for each other. Called once a turn, after `poll_push`; `next_timer` says when it is needed.
    #[inline]
    pub fn handle_waits(&mut self, now: Nanos, evidence: &impl WaitEvidence) {
        if now >= self.circles.look_at {
            self.look_for_circles(now, evidence);
        }
    }

    #[cold]
    fn look_for_circles(&mut self, now: Nanos, evidence: &impl WaitEvidence) {
        let mut waiting = std::mem::take(&mut self.circles.waiting);
        waiting.retain(|id| self.is_waiting(*id));
        let mut search = std::mem::take(&mut self.circles.search);
        (search.visits, search.visits_max) = (0, self.limits.wait_visits_max);
        let count = waiting.len();
        let mut position = if self.circles.resume_at > 0 { self.circles.resume_at.min(count) } else { count };
        let first = position;
        // The newest first, so that it is the one that is answered.
        while position > 0 {
            let id = waiting[position - 1];
            match self.search(&mut search, id, evidence) {
                Found::Circle => self.break_circle(now, id),
                Found::WayOut => {}
                // A search that is too long for a whole look is given up: its call has a deadline.
                Found::VisitsUsedUp if position < first => break,
                Found::VisitsUsedUp => {}
            }
            position -= 1;
        }
        self.circles.resume_at = position;
        self.circles.look_at = if waiting.is_empty() { Nanos::NEVER } else { now.plus(LOOK_PERIOD) };
        self.circles.waiting = waiting;
        self.circles.search = search;
    }

    fn is_waiting(&self, id: InvocationId) -> bool {
        let slot = self.invocations.slot_of(id);
        slot.is_some_and(|slot| matches!(self.invocations.at(slot).state, State::Queued | State::Joined))
    }

    /// Whether the process that made this call waits for it, and it for that process.
    fn search(&self, search: &mut Search, id: InvocationId, evidence: &impl WaitEvidence) -> Found {
        let Some(nested) = self.nested_of(id) else { return Found::WayOut };
        if self.waited_for(nested.made_by, evidence) != Some(id) {
            return Found::WayOut;
        }
        search.begin(self.workers.len(), self.functions.len());
        let mut call = id;
        loop {
            if !self.meet(search, self.need_of(call)) {
                return Found::WayOut;
            }
            if search.visits > search.visits_max {
                return Found::VisitsUsedUp;
            }
            let Some(worker) = search.to_visit.pop() else { break };
            match self.waited_for(worker, evidence) {
                Some(next) => call = next,
                None => return Found::WayOut,
            }
        }
        if search.has_met(nested.made_by) { Found::Circle } else { Found::WayOut }
    }

    /// Notes whom somebody waits for. False: one of them is a way out.
    fn meet(&self, search: &mut Search, need: Need) -> bool {
        match need {
            Need::Nothing => false,
            Need::Worker(index) => {
                search.meet_worker(index);
                is_held_up(&self.workers[index as usize])
            }
            Need::AnyWorkerOf { function: number, depth } => {
                let function = &self.functions[number as usize];
                let has_free = !function.warm.is_empty() && function.reserve.lets(depth, function.warm.len());
                if has_free || function.may_grow() {
                    return false;
                }
                if search.has_met_function(number) {
                    return true;
                }
                // Those that are free are kept for calls that are nested deeper.
                let is_taken = |index: &&u32| !self.workers[**index as usize].is_warm;
                let taken = || function.members.iter().filter(is_taken);
                taken().for_each(|index| search.meet_worker(*index));
                taken().count() > 0 && taken().all(|index| is_held_up(&self.workers[*index as usize]))
            }
        }
    }

    /// The call that the process of a worker waits for, by its own word.
    fn waited_for(&self, index: u32, evidence: &impl WaitEvidence) -> Option<InvocationId> {
        let worker = self.workers.get(index as usize).filter(|worker| is_held_up(worker))?;
        let token = evidence.waits_for(WorkerId { index, generation: worker.generation });
        let made = self.circles.made.get(index as usize)?;
        let id = made[usize::from(token.number()) % MADE_MAX];
        let nested = self.nested_of(id)?;
        (nested.made_by == index && nested.called_by.wait_token == token).then_some(id)
    }

    fn need_of(&self, id: InvocationId) -> Need {
        let Some(own) = self.invocations.slot_of(id) else { return Need::Nothing };
        let slot = self.leader_of(own).map_or(own, |leader| leader.slot());
        let call = self.invocations.at(slot);
        match call.state {
            // Two workers have it: where either is free, both are.
            _ if self.has_twin(slot) => Need::Nothing,
            State::Queued => Need::AnyWorkerOf { function: call.function.0, depth: self.proved_depth(slot) },
            State::Pushed => Need::Worker(call.worker),
            // It runs on for those who joined it.
            State::AnsweringHeld | State::Abandoned if slot != own => Need::Worker(call.worker),
            _ => Need::Nothing,
        }
    }

    fn break_circle(&mut self, now: Nanos, id: InvocationId) {
        match self.invocations.at(id.slot()).state {
            State::Joined => self.end_joined(now, id.slot(), Ending::WouldDeadlock),
            _ => self.end_queued(now, id.slot(), Ending::WouldDeadlock),
        }
    }

    /// Those who wait are looked after, and not more of them than may be.
    pub(crate) fn circles_invariants(&self) {
        let circles = &self.circles;
        assert!(circles.waiting.len() <= self.limits.waits_max as usize, "too many waits are looked after");
        assert!(circles.waiting.is_empty() || circles.next().is_some(), "nobody looks after those who wait");
        assert!(circles.search.to_visit.len() <= self.workers.len());
    }
}

/// It has something to do, and gets nothing more before that is done.
fn is_held_up(worker: &Worker) -> bool {
    !worker.is_warm && matches!(worker.state, WorkerState::Busy | WorkerState::Draining)
}

impl Search {
    fn begin(&mut self, worker_count: usize, function_count: usize) {
        self.to_visit.clear();
        if self.workers.len() < worker_count || self.functions.len() < function_count {
            self.workers.resize(worker_count, 0);
            self.functions.resize(function_count, 0);
            self.to_visit.reserve(worker_count);
        }
        self.number = self.number.wrapping_add(1);
        if self.number == 0 {
            // All numbers were used once; none may be taken for this search's.
            self.workers.fill(0);
            self.functions.fill(0);
            self.number = 1;
        }
    }

    fn meet_worker(&mut self, index: u32) {
        if std::mem::replace(&mut self.workers[index as usize], self.number) != self.number {
            self.to_visit.push(index);
            self.visits += 1;
        }
    }

    fn has_met(&self, worker: u32) -> bool {
        self.workers.get(worker as usize) == Some(&self.number)
    }

    /// Notes a function. True: it was met before, and its workers with it.
    fn has_met_function(&mut self, number: u32) -> bool {
        std::mem::replace(&mut self.functions[number as usize], self.number) == self.number
    }
}
