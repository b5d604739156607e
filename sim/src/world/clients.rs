//! Clients: calls, cancels, and connections that end. Some of them misbehave.
//!
//! Always: every refusal is held to the one reason that was true, worked out here from what can be seen from outside.

use engine::{CancelReason, Cancelled, Nanos, Origin, Refused, Request, Verdict};
use protocol::{CallId, Flags, FunctionId, Status};

use super::World;
use crate::contract::{Broken, Contract};
use crate::oracle::{Call, CallKey};

/// Connections; each is a tenant of its own.
const CLIENT_COUNT: u64 = 6;
/// Calls of a client that sends all it can.
const FLOOD_COUNT: u64 = 60;

impl World {
    /// A few calls of anybody.
    pub(super) fn submit(&mut self) -> Result<(), Broken> {
        for _ in 0..=self.chance.below(6) {
            let client = self.chance.below(CLIENT_COUNT) as u32;
            let function = self.chance.below(self.functions.len() as u64) as u32;
            self.call(client, function)?;
        }
        Ok(())
    }

    /// One client calls one function as often as it can.
    pub(super) fn flood(&mut self) -> Result<(), Broken> {
        let client = self.chance.below(CLIENT_COUNT) as u32;
        let function = self.chance.below(self.functions.len() as u64) as u32;
        for _ in 0..FLOOD_COUNT {
            self.call(client, function)?;
        }
        Ok(())
    }

    /// Numbers that no honest client sends, each a way to be refused.
    pub(super) fn hostile(&mut self) -> Result<(), Broken> {
        let client = self.chance.below(CLIENT_COUNT) as u32;
        let mut request = self.request(client, 0);
        match self.chance.below(6) {
            0 => {
                request.function = FunctionId(self.functions.len() as u32 + self.chance.below(1 << 20) as u32)
            }
            1 => request.criticality = 4 + self.chance.below(252) as u8,
            2 => request.payload_size = 65 + self.chance.below(u64::from(u32::MAX) - 65) as u32,
            3 => request.budget_us = u32::MAX,
            4 => request.received_at = Nanos(self.now_ns.saturating_add(self.chance.length(33))),
            _ => return self.cancel_nothing(),
        }
        self.send(client, request)
    }

    /// A cancel that names a call of nobody.
    fn cancel_nothing(&mut self) -> Result<(), Broken> {
        let Some(router) = &mut self.router else { return Ok(()) };
        let id = engine::InvocationId(self.chance.next() << 20 | self.chance.below(1 << 20));
        let is_known = self.oracle.seen(CallKey { epoch: self.epoch, id }).is_some();
        let cancelled = router.engine.handle_cancel(Nanos(self.now_ns), id, CancelReason::Asked);
        self.options.judge.check(Contract::TrueAnswer, is_known || cancelled == Cancelled::Unknown, || {
            format!("a cancel of {id:?}, which never was, did something: {cancelled:?}")
        })
    }

    fn call(&mut self, client: u32, function: u32) -> Result<(), Broken> {
        let request = self.request(client, function);
        self.send(client, request)
    }

    /// A call as an honest client makes it.
    fn request(&mut self, client: u32, function: u32) -> Request {
        self.call_count += 1;
        // Some wait on their way into the engine: in a socket, or in a mailbox.
        let delay_ns = if self.chance.per_mille(100) { self.chance.length(22) } else { 0 };
        Request {
            origin: Origin { connection: client, connection_generation: 0, call_id: CallId(self.call_count) },
            received_at: Nanos(self.now_ns.saturating_sub(delay_ns)),
            function: FunctionId(function),
            criticality: self.chance.below(4) as u8,
            budget_us: self.budget_us(),
            payload_size: 8,
            flags: if self.chance.per_mille(200) { Flags::IDEMPOTENT } else { Flags::default() },
        }
    }

    /// None for one call in five; for the rest anything from 1 us to 16 s, most of them with time to run.
    fn budget_us(&mut self) -> u32 {
        let floor_us = if self.chance.per_mille(700) { 20_000 } else { 0 };
        if self.chance.per_mille(200) { 0 } else { floor_us + self.chance.length(24) as u32 }
    }

    fn send(&mut self, client: u32, request: Request) -> Result<(), Broken> {
        let expected = self.refusal_of(&request);
        let by_policy = self.policy_refusal_of(&request).filter(|_| expected.is_none());
        let now = Nanos(self.now_ns);
        let Some(router) = &mut self.router else { return Ok(()) };
        let (id, push) = match router.engine.handle_request(now, request) {
            Verdict::Fallback(_) => unreachable!("no function of the simulator has a fallback"),
            Verdict::Refused(Refused { status, .. }) => {
                *self.totals.refusals.entry(status.name()).or_default() += 1;
                let expected = expected.or(by_policy.map(|(_, status)| status));
                return self.options.judge.check(Contract::TrueRefusal, expected == Some(status), || {
                    format!("{request:?} was refused as {status:?}; the truth is {expected:?}")
                });
            }
            Verdict::Admitted(id) => (id, None),
            Verdict::Pushed(push) => (push.invocation, Some(push)),
        };
        self.options.judge.check(Contract::TrueRefusal, expected.is_none(), || {
            format!("{request:?} was admitted and should have been refused as {expected:?}")
        })?;
        if let Some((contract, status)) = by_policy {
            self.options.judge.check(contract, false, || {
                format!("{request:?} was admitted and should have been refused as {status:?}")
            })?;
        }
        router.keep_payload(id, request.origin.call_id.0);
        let mut did = Vec::new();
        if let Some(push) = push {
            router.push_at_once(now, push, &mut did);
        }
        let FunctionId(function) = request.function;
        self.rules.admitted(self.now_ns, function);
        let (criticality, budget_us) = (request.criticality, request.budget_us);
        self.note(|_| {
            format!(
                "client {client} calls function {function}: {id:?}, criticality {criticality}, {budget_us} us"
            )
        });
        let key = CallKey { epoch: self.epoch, id };
        self.open.push((client, key));
        let is_idempotent =
            request.flags.contains(Flags::IDEMPOTENT) || self.functions[function as usize].spec.idempotent;
        let deadline_at_ns = self.deadline_of(&request);
        let mark = request.origin.call_id.0;
        let call = Call {
            function,
            criticality,
            deadline_at_ns,
            is_idempotent,
            mark,
            ..Call::admitted_at(self.now_ns)
        };
        self.oracle.admitted(key, call)?;
        self.account(did)
    }

    fn deadline_of(&self, request: &Request) -> u64 {
        let timeout_ns = self.functions[request.function.0 as usize].spec.timeout.0;
        let budget_ns =
            if request.budget_us == 0 { timeout_ns } else { u64::from(request.budget_us) * 1_000 };
        request.received_at.0.saturating_add(budget_ns.min(timeout_ns))
    }

    /// The reason for which this request must be refused now, if there is one.
    fn refusal_of(&self, request: &Request) -> Option<Status> {
        let router = self.router.as_ref()?;
        let number = request.function.0;
        let Some(function) = self.functions.get(number as usize) else {
            return Some(Status::UnknownFunction);
        };
        let waiting_count = self.oracle.waiting_count(number);
        let has_worker = router.seats().any(|seat| seat.function == number);
        let reasons = [
            (request.criticality > 3, Status::UnknownCriticality),
            (request.payload_size > function.spec.payload_size_max, Status::PayloadTooLarge),
            (self.now_ns >= self.deadline_of(request), Status::DeadlinePassed),
            (function.is_failing && !has_worker, Status::NoWorker),
            (function.is_removed && waiting_count > 0, Status::UnknownFunction),
            (waiting_count >= function.spec.queue_count_max, Status::QueueFull),
            (router.engine.in_flight() >= self.limits.invocations_max, Status::Overloaded),
            (function.is_removed, Status::UnknownFunction),
        ];
        reasons.into_iter().find(|(is_true, _)| *is_true).map(|(_, status)| status)
    }

    /// The same, if nothing but a policy speaks against it.
    fn policy_refusal_of(&self, request: &Request) -> Option<(Contract, Status)> {
        let number = request.function.0;
        let is_known = (number as usize) < self.functions.len();
        is_known.then(|| self.rules.refusal(self.now_ns, number)).flatten()
    }

    /// The router goes away: whatever is asked now is refused for that reason.
    pub(super) fn refuse_while_draining(&mut self) -> Result<(), Broken> {
        let request = self.request(0, 0);
        let Some(router) = &mut self.router else { return Ok(()) };
        router.engine.handle_drain();
        let verdict = router.engine.handle_request(Nanos(self.now_ns), request);
        let is_draining = matches!(verdict, Verdict::Refused(Refused { status: Status::Draining, .. }));
        self.options
            .judge
            .check(Contract::TrueRefusal, is_draining, || format!("a router that goes away said {verdict:?}"))
    }

    /// A caller takes a call back.
    pub(super) fn cancel(&mut self) -> Result<(), Broken> {
        let Some(&(client, key)) = self.chance.pick(&self.open) else { return Ok(()) };
        let Some(router) = &mut self.router else { return Ok(()) };
        self.oracle.cancelled(key)?;
        router.engine.handle_cancel(Nanos(self.now_ns), key.id, CancelReason::Asked);
        self.note(|_| format!("client {client} cancels {:?}", key.id));
        Ok(())
    }

    /// A connection ends. Its calls are cancelled, and none of them is answered any more.
    pub(super) fn lose_client(&mut self) -> Result<(), Broken> {
        let client = self.chance.below(CLIENT_COUNT) as u32;
        let Some(router) = &mut self.router else { return Ok(()) };
        let lost: Vec<_> = self.open.extract_if(.., |(owner, _)| *owner == client).collect();
        for (_, key) in lost {
            let cancelled = router.engine.handle_cancel(Nanos(self.now_ns), key.id, CancelReason::ClientGone);
            // An answer that was made but not yet polled still comes out; the shell drops it at the closed door.
            if cancelled == Cancelled::Forgotten {
                self.oracle.forgotten(key)?;
            }
        }
        self.note(|_| format!("client {client} is gone"));
        Ok(())
    }
}
