//! Stage 2 of 8: admission. Decides once whether a call becomes our obligation, and if not, why.
//!
//! In: what the frame's header says.  Out: an invocation in its queue, or a status to answer with.
//! Always: one ordered list of checks (`Engine::admit`), cheapest and most final first: what can never work, then
//! what comes too late, then what there is no room for now. Each refusal has a counter.
//! Never: touches a queue before all checks are done, so that refusing costs less than serving. Only a policy's refusal gives a
//! slot back.
//! Tests: `tests/admission.rs`, one row per reason.

use protocol::{Criticality, Flags, FunctionId, Status};
use queue::LaneIndex;

use crate::counters::Counter;
use crate::dispatch::Push;
use crate::function::Function;
use crate::invocation::{Event, Invocation, InvocationId, Marks, Origin};
use crate::reply::{Ending, status_of};
use crate::time::Nanos;
use crate::{Engine, run_queue};

mod policy;
mod special;

pub use special::Special;

/// A call as the wire brought it. Numbers that a client chose are taken as they came and checked here.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Where the answer goes.
    pub origin: Origin,
    /// When the router read it: `now`, or earlier if it waited on its way to this shard. The budget counts from here.
    pub received_at: Nanos,
    /// Which function.
    pub function: FunctionId,
    /// How much it matters, 0 to 3.
    pub criticality: u8,
    /// Microseconds the caller still has; 0 = the function's timeout applies.
    pub budget_us: u32,
    /// Bytes of payload.
    pub payload_size: u32,
    /// Flags of the frame; `WANT_TIMINGS` and `IDEMPOTENT` mean something here.
    pub flags: Flags,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will be answered exactly once.
    Admitted(InvocationId),
    /// The same, and it is bound to a worker already: write it into that ring.
    Pushed(Push),
    /// It is answered now, and forgotten.
    Refused(Refused),
    /// It is answered now with the status `Ok` and the bytes of [`Engine::static_answer`] of this function, and forgotten.
    Fallback(FunctionId),
}

/// The answer to a call that was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub status: Status,
    /// Advice when to try again, in microseconds; 0 = none.
    pub retry_after_us: u32,
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Draining,
    UnknownFunction,
    UnknownCriticality,
    PayloadTooLarge,
    DeadlinePassed,
    NoWorker,
    QueueFull {
        retry_after: Nanos,
    },
    Overloaded,
    RateLimited {
        retry_after: Nanos,
    },
    DeadlineUnreachable {
        retry_after: Nanos,
    },
    WouldDeadlock,
    BreakerOpen {
        retry_after: Nanos,
    },
    StartTooLate,
    /// As many wait for the same call as may, or no more keys can be remembered.
    JoinFull,
}

impl Refusal {
    fn counter(self) -> Counter {
        match self {
            Refusal::Draining => Counter::RefusedDraining,
            Refusal::UnknownFunction => Counter::RefusedUnknownFunction,
            Refusal::UnknownCriticality => Counter::RefusedUnknownCriticality,
            Refusal::PayloadTooLarge => Counter::RefusedPayloadTooLarge,
            Refusal::DeadlinePassed => Counter::RefusedDeadlinePassed,
            Refusal::NoWorker => Counter::RefusedNoWorker,
            Refusal::QueueFull { .. } => Counter::RefusedQueueFull,
            Refusal::RateLimited { .. } => Counter::RefusedRateLimited,
            Refusal::DeadlineUnreachable { .. } => Counter::RefusedDeadlineUnreachable,
            Refusal::WouldDeadlock => Counter::RefusedWouldDeadlock,
            Refusal::StartTooLate => Counter::RefusedStartTooLate,
            Refusal::BreakerOpen { .. } => Counter::RefusedBreakerOpen,
            Refusal::Overloaded => Counter::RefusedOverloaded,
            Refusal::JoinFull => Counter::RefusedJoinFull,
        }
    }

    /// Rounded up, so that who follows the advice does not come too early.
    fn retry_after_us(self) -> u32 {
        match self {
            Refusal::RateLimited { retry_after }
            | Refusal::QueueFull { retry_after }
            | Refusal::DeadlineUnreachable { retry_after }
            | Refusal::BreakerOpen { retry_after } => {
                u32::try_from(retry_after.0.div_ceil(1_000)).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }
}

/// Why a queue takes nothing more: it is full, or its function is not configured any more.
#[cold]
pub(crate) fn full(function: &Function) -> Refusal {
    if function.is_retired {
        return Refusal::UnknownFunction;
    }
    Refusal::QueueFull { retry_after: function.drain_rate.interval() }
}

/// How much of its function's queue a call may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueRoom {
    /// Up to `queue_count_max`.
    Usual,
    /// Beyond it what is kept for nested calls.
    WithReserve,
    /// It will not stand there.
    NotNeeded,
    /// It does not stand there yet, and what stands there now says nothing about it.
    Later,
}

/// What admission worked out on its way to a yes.
pub(crate) struct Admitted {
    pub criticality: Criticality,
    pub deadline_at: Nanos,
    /// A place in the table: the last thing that can be refused.
    pub slot: u32,
    /// Its caller has sent more than its rate allows: it stands behind those of others.
    pub is_beyond_rate: bool,
}

impl Engine {
    /// Takes a call or refuses it. An admitted one is queued, and `poll_push` may hand it out at once; or it is pushed
    /// without a stay in the queue.
    ///
    /// Always inlined: the request would be written to memory in words and read back in vectors, for which the processor
    /// waits, and so would the verdict.
    #[inline(always)]
    pub fn handle_request(&mut self, now: Nanos, request: Request) -> Verdict {
        self.counters.count(Counter::CallsReceived);
        let function = self.functions.get(request.function.0 as usize);
        if function.is_some_and(|function| function.checks.any_at_admission()) {
            return self.handle_governed(now, request);
        }
        match self.admit(now, &request, QueueRoom::Usual) {
            Ok(admitted) => self.accept(now, &request, admitted),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// A call of a function with policies at admission: a way of its own, so that the others do not carry what it needs.
    #[inline(never)]
    fn handle_governed(&mut self, now: Nanos, request: Request) -> Verdict {
        let request = self.choose_version(request, None);
        self.handle_version(now, request)
    }

    /// The same for a request of which it is known to which version of its function it goes.
    pub(crate) fn handle_version(&mut self, now: Nanos, request: Request) -> Verdict {
        match self.admit_governed(now, &request, QueueRoom::Usual) {
            Ok(admitted) => self.accept(now, &request, admitted),
            Err(refusal) => self.say_no(now, request, refusal),
        }
    }

    /// Every reason to say no, also those of policies, which come last.
    pub(crate) fn admit_governed(
        &mut self,
        now: Nanos,
        request: &Request,
        room: QueueRoom,
    ) -> Result<Admitted, Refusal> {
        let mut admitted = self.admit(now, request, room)?;
        if let Err(refusal) = self.admit_by_policy(now, request, &mut admitted, room) {
            self.invocations.release(admitted.slot);
            return Err(refusal);
        }
        if room != QueueRoom::Later {
            self.note_arrival(now, request.function.0);
        }
        Ok(admitted)
    }

    /// The refusal, or what is given instead of it.
    #[cold]
    fn say_no(&mut self, now: Nanos, request: Request, refusal: Refusal) -> Verdict {
        match refusal {
            Refusal::BreakerOpen { .. } => {
                self.fall_back(now, request).unwrap_or_else(|| self.refuse(refusal))
            }
            _ => self.refuse(refusal),
        }
    }

    #[cold]
    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Verdict {
        self.counters.count(refusal.counter());
        Verdict::Refused(Refused {
            status: status_of(Ending::Refused(refusal), false),
            retry_after_us: refusal.retry_after_us(),
        })
    }

    /// Every reason to say no that needs no policy, in order.
    #[inline(always)]
    pub(crate) fn admit(
        &mut self,
        now: Nanos,
        request: &Request,
        room: QueueRoom,
    ) -> Result<Admitted, Refusal> {
        // 1. What can never work, whenever it is asked.
        if self.is_draining {
            return Err(Refusal::Draining);
        }
        let function = self.functions.get(request.function.0 as usize).ok_or(Refusal::UnknownFunction)?;
        let criticality =
            Criticality::try_from(request.criticality).map_err(|_| Refusal::UnknownCriticality)?;
        if request.payload_size > function.spec.payload_size_max {
            return Err(Refusal::PayloadTooLarge);
        }
        // (policy to come: may this caller call this function?)

        // 2. What comes too late.
        let timeout = function.spec.timeout;
        let budget = if request.budget_us == 0 { timeout } else { Nanos::from_us(request.budget_us.into()) };
        let deadline_at = request.received_at.plus(budget.min(timeout));
        if now >= deadline_at {
            return Err(Refusal::DeadlinePassed);
        }

        // 3. What nobody could serve.
        if function.is_failing && function.members.is_empty() {
            return Err(Refusal::NoWorker);
        }

        // 4. What there is no room for now.
        if !function.queue.is_empty() {
            self.admit_behind(request.function, criticality, deadline_at.since(now), room)?;
        }
        // Answers that nobody polls count as room taken: they are bounded by the same limit.
        if self.answers.len() >= self.limits.invocations_max as usize {
            return Err(Refusal::Overloaded);
        }
        let slot = match self.invocations.claim() {
            Some(slot) => slot,
            None => self.grow_tables().ok_or(Refusal::Overloaded)?,
        };
        Ok(Admitted { criticality, deadline_at, slot, is_beyond_rate: false })
    }

    #[inline(always)]
    pub(crate) fn accept(&mut self, now: Nanos, request: &Request, admitted: Admitted) -> Verdict {
        self.counters.count(Counter::CallsAdmitted);
        let slot = admitted.slot;
        let function = &self.functions[request.function.0 as usize];
        let is_idempotent = function.spec.idempotent || request.flags.contains(Flags::IDEMPOTENT);
        let direct_worker = function.direct_worker();
        let is_limited = function.checks.any_at_dispatch();
        let invocation = self.invocations.at_mut(slot);
        invocation.on(Event::Admit);
        *invocation = invocation.admitted(now, request, &admitted, is_idempotent);
        match direct_worker {
            // Nothing may be called between the record above and this: what both write is then written once.
            Some(worker_index) if !is_limited => Verdict::Pushed(self.bind(now, worker_index, slot)),
            _ => self.accept_in_line(now, request.function, admitted, direct_worker),
        }
    }

    /// A call that has to stand in its queue, or that a limit at dispatch has to do with.
    #[inline(never)]
    fn accept_in_line(
        &mut self,
        now: Nanos,
        function: FunctionId,
        admitted: Admitted,
        direct_worker: Option<u32>,
    ) -> Verdict {
        let slot = admitted.slot;
        if let Some(worker_index) = direct_worker
            && self.may_go_direct(now, slot, function)
        {
            let push = self.bind(now, worker_index, slot);
            self.watch(now, slot);
            return Verdict::Pushed(push);
        }
        let function = &mut self.functions[function.0 as usize];
        if function.queue.is_empty() {
            function.drain_rate.begin(now);
        }
        if admitted.is_beyond_rate {
            self.enqueue_last(slot);
        } else {
            let bucket = run_queue::bucket_of(admitted.deadline_at.since(now));
            self.enqueue(slot, LaneIndex::new(admitted.criticality as u8, bucket));
        }
        Verdict::Admitted(self.invocations.id_of(slot))
    }

    /// Rare: makes room in every table that is indexed by slot, in all of them at once: a call that was bound on admission
    /// may have to stand in a queue later. A slot of the new ones, if there are any.
    #[cold]
    pub(crate) fn grow_tables(&mut self) -> Option<u32> {
        let slot = self.invocations.grow()?;
        let capacity = self.invocations.capacity();
        self.run_links.grow_to(capacity);
        self.timers.grow_to(capacity);
        Some(slot)
    }
}

impl Invocation {
    /// What is remembered of a call that was admitted into this slot, before it is given to anybody.
    #[inline(always)]
    pub(crate) fn admitted(
        &self,
        now: Nanos,
        request: &Request,
        admitted: &Admitted,
        is_idempotent: bool,
    ) -> Invocation {
        Invocation {
            generation: self.generation,
            state: self.state,
            lane: LaneIndex::new(admitted.criticality as u8, 0).index() as u8,
            attempts: 0,
            marks: Marks::NONE
                .with(Marks::WANT_TIMINGS, request.flags.contains(Flags::WANT_TIMINGS))
                .with(Marks::IDEMPOTENT, is_idempotent),
            function: request.function,
            worker: u32::MAX,
            deadline_at: admitted.deadline_at,
            // A stamp from the future is a front-end's bug that must not turn waits negative.
            received_at: request.received_at.min(now),
            queued_at: now,
            pushed_at: Nanos::ZERO,
            origin: request.origin,
        }
    }
}
