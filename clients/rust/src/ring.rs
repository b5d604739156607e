//! One ring's calls for many threads: which slots are taken and by whom, what an answer means, who looks at the ring.
//!
//! In: calls to make, answers in the ring, records on its socket, the time.  Out: [`Event`]s that end calls.
//! Owns: the ring, and for each taken slot the waiter. The counterpart of `connection.rs`, which does this for sockets.
//! Always: a slot is free, outstanding or abandoned, as there; it is freed only by the router's answer. While a call is
//! outstanding somebody looks at the ring, or the router knows that it has to wake the thread.
//! Never: waits, locks, or completes a call by itself: that is `link/looking.rs`, after unlocking.
//!
//! Who looks at the ring:
//!
//! ```text
//! Nobody -- a caller waits --> Caller -- its answer came, or it has spun long enough --> Nobody
//!   |                            ^
//!   |                            | (a caller that waits takes over)
//!   +-- the thread has work --> Thread -- nothing came for a while --> Nobody, and the sleep is announced
//! ```

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use protocol::{CallId, FunctionName, Status};
use shm_ring::{Mapped, Memory, SlotIndex};

use crate::connection::{Event, Invocation, NotTaken};
use crate::error::{CallError, Disconnect};
use crate::link::Waiter;
use crate::shm::{self, ShmClient, SubmitRefused};

/// The longest sleep of the thread while calls are outstanding: a router that dies wakes nobody.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// The same while a function's number is waited for, which comes by the socket and wakes nobody who sleeps on the ring.
const SLEEP_MAX_ASKING: Duration = Duration::from_millis(1);

/// See the module's header.
#[derive(Debug)]
pub(crate) struct RingUp {
    shm: ShmClient,
    slots: Box<[Slot]>,
    /// Who waits for a function's number, in the order of the questions; the router answers in this order.
    asked: VecDeque<Waiter>,
    /// Calls ever submitted, and how many of them the router was shown.
    submitted: u64,
    published: u64,
    /// No outstanding call's deadline is earlier.
    deadline_next: Option<Instant>,
    looker: Looker,
    thread: ThreadState,
    /// How long looking has been worth it lately, in rounds.
    spin_count: u32,
    sleeper: Arc<Sleeper>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Which call, counted from 1: also the number the router knows it by.
    number: u64,
    /// `None` while the slot is free or its call abandoned.
    waiter: Option<Waiter>,
    deadline_at: Option<Instant>,
}

/// Who looks at the ring without sleeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looker {
    Nobody,
    Caller,
    Thread,
}

/// What the client's thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThreadState {
    /// It runs, and looks at everything before it sleeps.
    Awake,
    /// It waits for the socket and for [`Link::ring`](crate::link::Link::ring): no call is outstanding.
    Idle,
    /// It sleeps on the ring, at most until then.
    Asleep(Instant),
}

/// What the thread sleeps on without the lock: the ring's memory mapped once more, and its socket.
pub(crate) struct Sleeper {
    pub(crate) memory: Mapped,
    pub(crate) socket: UnixStream,
}

/// How the thread may rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// There is more to do.
    No,
    /// Until the socket says something or the thread is rung: no call is outstanding, so that nothing can be due.
    Idle,
    /// On this word of the ring while it has this value, for at most so long.
    OnRing { word: usize, value: u32, timeout: Duration },
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Answers, also those that nobody waits for any more: each makes room.
    pub(crate) count: u32,
    /// The ring is over, and there will be no more.
    pub(crate) ended: Option<Disconnect>,
}

/// Whether somebody will see the next answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    Yes,
    /// If the thread is woken now.
    IfThreadIsRung,
    /// If the thread's sleep on the ring is ended now.
    IfSleepEnds,
    /// There are answers now.
    AnswersWait,
}

impl RingUp {
    /// A ring with nothing outstanding.
    pub(crate) fn new(shm: ShmClient, sleeper: Sleeper) -> Self {
        let slots = (0..shm.slot_count()).map(|_| Slot::default()).collect();
        Self {
            spin_count: spin_count_max(&shm),
            shm,
            slots,
            asked: VecDeque::new(),
            submitted: 0,
            published: 0,
            deadline_next: None,
            looker: Looker::Nobody,
            thread: ThreadState::Awake,
            sleeper: Arc::new(sleeper),
        }
    }

    pub(crate) fn sleeper(&self) -> Arc<Sleeper> {
        Arc::clone(&self.sleeper)
    }

    /// Starts a call; the router learns of it by [`RingUp::publish`]. Gives the waiter back if it cannot be taken.
    pub(crate) fn invoke(
        &mut self,
        invocation: &Invocation,
        payload: &[u8],
        waiter: Waiter,
    ) -> Result<CallId, (NotTaken, Waiter)> {
        if self.goaway().is_some() {
            return Err((NotTaken::NoRoom, waiter));
        }
        if invocation.start_after.is_some() {
            return Err((NotTaken::NotCarried, waiter));
        }
        let number = self.submitted + 1;
        let call = shm::Call {
            call_id: number,
            criticality: invocation.criticality,
            deadline_at_ns: (invocation.budget_us > 0)
                .then(|| shm::now_ns() + u64::from(invocation.budget_us) * 1_000),
            flags: invocation.flags,
            trace: invocation.trace,
            idempotency_key: invocation.idempotency_key,
            ..shm::Call::of(invocation.function_id)
        };
        let index = match self.shm.submit(&call, payload) {
            Ok(index) => index,
            Err(SubmitRefused::NoCredit) => return Err((NotTaken::NoRoom, waiter)),
            Err(SubmitRefused::PayloadTooLarge { .. }) => return Err((NotTaken::PayloadTooLarge, waiter)),
        };
        self.submitted = number;
        let deadline_at = invocation.deadline_at;
        if let Some(at) = deadline_at {
            self.deadline_next = Some(self.deadline_next.map_or(at, |next| next.min(at)));
        }
        // The ring gives out places below its slot count, which is ours.
        let slot = &mut self.slots[index.0 as usize];
        let generation = slot.generation.wrapping_add(1);
        *slot = Slot { generation, number, waiter: Some(waiter), deadline_at };
        Ok(CallId::new(index.0, generation))
    }

    /// Asks for a function's number. `name` is a valid function name.
    pub(crate) fn resolve(&mut self, name: &str, waiter: Waiter) -> Result<(), Waiter> {
        let Ok(name) = FunctionName::new(name) else { return Err(waiter) };
        if self.goaway().is_some() || self.shm.ask(name).is_err() {
            return Err(waiter);
        }
        self.asked.push_back(waiter);
        Ok(())
    }

    /// Shows the router what was submitted.
    pub(crate) fn publish(&mut self) {
        self.shm.flush();
        self.published = self.submitted;
    }

    /// Asks the router to stop a call. Its answer, whichever it is, still comes. Nothing happens if it is over.
    pub(crate) fn cancel(&mut self, call_id: CallId) {
        if let Some(slot) = self.slot_of(call_id) {
            let number = slot.number;
            self.publish();
            self.shm.cancel(SlotIndex(call_id.slot()), number);
        }
    }

    /// Nobody waits for this call any more: it is cancelled, and its answer will be dropped.
    pub(crate) fn abandon(&mut self, call_id: CallId) -> Option<Waiter> {
        self.cancel(call_id);
        self.slot_of(call_id)?.waiter.take()
    }

    /// Abandons every call whose deadline has passed; the waiters are the caller's to tell.
    pub(crate) fn expire(&mut self, now: Instant, expired: &mut Vec<Waiter>) {
        if self.deadline_next.is_none_or(|at| at > now) {
            return;
        }
        self.deadline_next = None;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let Some(at) = slot.deadline_at.filter(|_| slot.waiter.is_some()) else { continue };
            if at <= now {
                expired.extend(self.abandon(CallId::new(index as u32, slot.generation)));
            } else {
                self.deadline_next = Some(self.deadline_next.map_or(at, |next| next.min(at)));
            }
        }
    }

    /// Takes every answer in the ring.
    pub(crate) fn take_answers(&mut self, events: &mut Vec<Event<Waiter>>) -> Looked {
        let mut count = 0;
        loop {
            let answered = match self.shm.poll() {
                Ok(Some(answered)) => answered,
                Ok(None) => return Looked { count, ended: None },
                Err(cause) => return Looked { count, ended: Some(cause) },
            };
            count += 1;
            let slot = self.slots.get_mut(answered.slot.0 as usize);
            if let Some(waiter) = slot.and_then(|slot| slot.waiter.take()) {
                events.push(Event::Answered { waiter, outcome: self.shm.outcome(&answered) });
            }
            self.shm.release(answered);
        }
    }

    /// Takes what the router said on the socket, and every answer in the ring.
    pub(crate) fn look_everywhere(&mut self, events: &mut Vec<Event<Waiter>>) -> Looked {
        self.shm.look_at_socket();
        let mut looked = self.take_answers(events);
        // As many answers as questions: the client took no more.
        while let Some(resolved) = self.shm.take_resolved() {
            let Some(waiter) = self.asked.pop_front() else { break };
            let outcome = resolved.map_err(|status| CallError::Refused { status, retry_after: None });
            events.push(Event::Resolved { waiter, outcome });
            looked.count += 1;
        }
        looked
    }

    /// Why the router takes no new calls, once it said so.
    pub(crate) fn goaway(&self) -> Option<Status> {
        self.shm.goaway().or_else(|| self.shm.is_router_draining().then_some(Status::GoingAway))
    }

    /// Nothing is outstanding: after a GOAWAY, the ring has done its duty.
    pub(crate) fn is_idle(&self) -> bool {
        self.shm.outstanding() == 0 && self.asked.is_empty()
    }

    /// Becomes the one who looks. `false`: somebody does who does not give way.
    pub(crate) fn begin_looking(&mut self, looker: Looker) -> bool {
        let may_look = match self.looker {
            Looker::Nobody => true,
            Looker::Thread => looker == Looker::Caller,
            Looker::Caller => false,
        };
        if may_look {
            self.looker = looker;
            self.shm.announce_awake();
        }
        may_look
    }

    /// `false`: somebody else has taken over.
    pub(crate) fn is_looking(&self, looker: Looker) -> bool {
        self.looker == looker
    }

    /// Looking is over; `was_worth_it` if something came.
    pub(crate) fn end_looking(&mut self, was_worth_it: bool) {
        self.looker = Looker::Nobody;
        let max = spin_count_max(&self.shm);
        // Cheap while answers are slow, and still there to notice when they are not: as in `ClientEnd::wait`.
        let next = if was_worth_it { self.spin_count.saturating_mul(2) } else { self.spin_count / 2 };
        self.spin_count = next.clamp(max / 16, max);
    }

    pub(crate) fn spin_count(&self) -> u32 {
        self.spin_count
    }

    /// Makes sure that the next answer is seen, as far as that can be done here.
    pub(crate) fn watch(&mut self) -> Watched {
        let due_at = self.deadline_next;
        let needs_nobody = self.shm.outstanding() == 0 || self.looker != Looker::Nobody;
        match self.thread {
            // It looks at everything before it sleeps.
            ThreadState::Awake => Watched::Yes,
            ThreadState::Idle if needs_nobody => Watched::Yes,
            ThreadState::Idle => {
                self.thread = ThreadState::Awake;
                Watched::IfThreadIsRung
            }
            ThreadState::Asleep(_) if !needs_nobody && !self.shm.announce_sleep() => Watched::AnswersWait,
            ThreadState::Asleep(until) if !self.asked.is_empty() || due_at.is_some_and(|at| at < until) => {
                Watched::IfSleepEnds
            }
            ThreadState::Asleep(_) => Watched::Yes,
        }
    }

    /// The thread is awake, or woke up.
    pub(crate) fn thread_is_awake(&mut self) {
        self.thread = ThreadState::Awake;
        self.shm.announce_awake();
    }

    /// Ends the thread's sleep on the ring. One that it is about to begin lasts [`SLEEP_MAX`].
    pub(crate) fn end_sleep(&self) {
        self.sleeper.memory.futex_wake(self.shm.sleep_word().0);
    }

    /// The router learns that nobody is here any more, and the thread wakes.
    pub(crate) fn shut_down(&self) {
        // One that is shut down already is fine.
        let _ = self.sleeper.socket.shutdown(Shutdown::Both);
        self.end_sleep();
    }

    /// How the thread may rest now. Announces its sleep, if nobody else looks.
    pub(crate) fn rest(&mut self, now: Instant) -> Rest {
        if self.shm.outstanding() == 0 {
            self.thread = ThreadState::Idle;
            return Rest::Idle;
        }
        if self.looker == Looker::Nobody && !self.shm.announce_sleep() {
            return Rest::No;
        }
        let (word, mut value) = self.shm.sleep_word();
        if self.looker != Looker::Nobody {
            // No sleep was announced, so that the value from the last one may be old. Whoever looks announces one when he
            // stops, and the router then changes this value.
            value = self.sleeper.memory.load_u32(word, Ordering::Acquire);
        }
        let longest = if self.asked.is_empty() { SLEEP_MAX } else { SLEEP_MAX_ASKING };
        let due_in = self.deadline_next.map(|at| at.saturating_duration_since(now));
        let timeout = due_in.map_or(longest, |due_in| due_in.min(longest));
        self.thread = ThreadState::Asleep(now + timeout);
        Rest::OnRing { word, value, timeout }
    }

    /// The ring is over: everyone who waits, and whether the router may have seen their call.
    pub(crate) fn into_waiters(self) -> Vec<(Waiter, bool)> {
        let published = self.published;
        let calls = self.slots.into_iter().filter_map(|slot| Some((slot.waiter?, slot.number <= published)));
        let questions = self.asked.into_iter().map(|waiter| (waiter, true));
        calls.chain(questions).collect()
    }

    /// The slot of a call that somebody waits for.
    fn slot_of(&mut self, call_id: CallId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(call_id.slot() as usize)?;
        (slot.generation == call_id.generation() && slot.waiter.is_some()).then_some(slot)
    }
}

/// A look takes the lock and gives it back: about two rounds of a ring that belongs to one thread.
fn spin_count_max(shm: &ShmClient) -> u32 {
    shm.spin_count_max() / 2
}

impl std::fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}
