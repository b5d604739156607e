//! Clients: calls, cancels, and connections that end. Some of them misbehave.
//!
//! Always: every refusal is held to the one reason that was true (`refusals.rs`).

use engine::{
    CancelReason, Cancelled, InvocationId, Nanos, Origin, Push, Refused, Request, Special, Verdict,
};
use protocol::{CallId, Flags, FunctionId, Status};

use super::World;
use crate::contract::{Broken, Contract};
use crate::oracle::{Call, CallKey};
use crate::router::Stand;

/// Connections; each is a tenant of its own.
const CLIENT_COUNT: u64 = 6;
/// Calls of a client that sends all it can.
const FLOOD_COUNT: u64 = 60;
/// Keys that calls have: few, so that many are the same.
const KEY_COUNT: u64 = 3;
/// Marks the payload of a call with a key.
const KEYED: u64 = 1 << 63;

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
        self.send(Asked::of(request)).map(|_| ())
    }

    /// A cancel that names a call of nobody.
    fn cancel_nothing(&mut self) -> Result<(), Broken> {
        let Some(router) = &mut self.router else { return Ok(()) };
        let id = engine::InvocationId(self.chance.next() << 20 | self.chance.below(1 << 20));
        let is_known = self.oracle.seen(CallKey { epoch: self.epoch, id }).is_some();
        let shard = &mut router.shards[0];
        let cancelled = shard.engine.handle_cancel(Nanos(self.now_ns), id, CancelReason::Asked);
        self.options.judge.check(Contract::TrueAnswer, is_known || cancelled == Cancelled::Unknown, || {
            format!("a cancel of {id:?}, which never was, did something: {cancelled:?}")
        })
    }

    fn call(&mut self, client: u32, function: u32) -> Result<(), Broken> {
        let request = self.request(client, function);
        self.send(Asked::of(request)).map(|_| ())
    }

    /// Several clients want the same.
    pub(super) fn herd(&mut self) -> Result<(), Broken> {
        let function = self.chance.below(self.functions.len() as u64) as u32;
        let key = self.chance.below(KEY_COUNT);
        for _ in 0..=self.chance.below(5) {
            let client = self.chance.below(CLIENT_COUNT) as u32;
            let request = self.request(client, function);
            self.send(Asked { key: Some(key), ..Asked::of(request) })?;
        }
        Ok(())
    }

    /// A client makes a few calls that are to start later, or at once after all.
    pub(super) fn later(&mut self) -> Result<(), Broken> {
        for _ in 0..=self.chance.below(3) {
            let client = self.chance.below(CLIENT_COUNT) as u32;
            let function = self.chance.below(self.functions.len() as u64) as u32;
            let request = self.request(client, function);
            let start_after = Nanos::from_us(self.chance.length(18));
            self.send(Asked { special: Special { start_after, called_by: None }, ..Asked::of(request) })?;
        }
        Ok(())
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

    /// A request reaches the router. Whether it was admitted.
    pub(super) fn send(&mut self, asked: Asked) -> Result<bool, Broken> {
        let Some(router) = &mut self.router else { return Ok(false) };
        let client = asked.request.origin.connection;
        let shard = client % router.shards.len() as u32;
        let place = Place { shard: shard as u8, leader: self.leader_of(shard as u8, &asked) };
        let expected = self.refusal_of(&asked, place);
        let by_policy = self.policy_refusal_of(&asked, place).filter(|_| expected.is_none());
        let (now, request) = (Nanos(self.now_ns), asked.request);
        let Some(router) = &mut self.router else { return Ok(false) };
        let shard = router.shard_of_client(client);
        let verdict = match asked.key {
            Some(key) => shard.engine.handle_keyed_request(now, request, u128::from(key).to_le_bytes(), None),
            None if asked.special == Special::default() => shard.engine.handle_request(now, request),
            None => {
                let called_by = asked.special.called_by.map(|claimed| shard.called_by(claimed));
                shard.engine.handle_special_request(now, request, Special { called_by, ..asked.special })
            }
        };
        let (id, push) = match verdict {
            Verdict::Fallback(_) => unreachable!("no function of the simulator has a fallback"),
            Verdict::Refused(Refused { status, .. }) => {
                *self.totals.refusals.entry(status.name()).or_default() += 1;
                self.check_refused(&asked, place, expected.or(by_policy.map(|(_, status)| status)), status)?;
                return Ok(false);
            }
            Verdict::Admitted(id) => (id, None),
            Verdict::Pushed(push) => (push.invocation, Some(push)),
        };
        self.options.judge.check(Contract::TrueRefusal, expected.is_none(), || {
            format!("{asked:?} was admitted and should have been refused as {expected:?}")
        })?;
        self.check_nested_admitted(&asked, place)?;
        if let Some((contract, status)) = by_policy {
            self.options.judge.check(contract, false, || {
                format!("{asked:?} was admitted and should have been refused as {status:?}")
            })?;
        }
        self.admitted(asked, place, id, push)?;
        Ok(true)
    }

    fn admitted(
        &mut self,
        asked: Asked,
        place: Place,
        id: InvocationId,
        push: Option<Push>,
    ) -> Result<(), Broken> {
        let Some(router) = &mut self.router else { return Ok(()) };
        let shard = router.shard_of(id);
        let mark = asked.mark();
        let stand = shard.keep(id, mark);
        let mut did = Vec::new();
        if let Some(push) = push {
            shard.push_at_once(Nanos(self.now_ns), push, &mut did);
        }
        let key = CallKey { epoch: self.epoch, id };
        let joined = match stand {
            Stand::Joined(leader) => Some(self.oracle.stands_for(CallKey { id: leader, ..key })),
            _ => None,
        };
        self.options.judge.check(Contract::OneRun, joined == place.leader, || {
            format!("{key:?} is the same call as {:?}, and joined {joined:?}", place.leader)
        })?;
        let FunctionId(function) = asked.request.function;
        let starts_later = asked.starts_later(self.now_ns);
        if joined.is_none() {
            self.rules[usize::from(place.shard)].admitted(self.now_ns, function, starts_later);
        }
        self.totals.joins += u64::from(joined.is_some());
        self.totals.later += u64::from(starts_later);
        let client = asked.request.origin.connection;
        self.note(|_| format!("client {client} calls function {function}: {id:?}, {asked:?}, {stand:?}"));
        self.open.push((client, key));
        let call = Call {
            function,
            criticality: asked.request.criticality,
            deadline_at_ns: self.deadline_of(&asked),
            start_at_ns: if starts_later { asked.start_at_ns() } else { self.now_ns },
            is_idempotent: asked.request.flags.contains(Flags::IDEMPOTENT)
                || asked.key.is_some()
                || self.functions[function as usize].spec.idempotent,
            mark,
            key: asked.key,
            made_by: asked.made_by,
            ..Call::admitted_at(self.now_ns)
        };
        self.oracle.admitted(key, call)?;
        self.oracle.stands_aside(key, stand);
        self.account(did)
    }

    pub(super) fn deadline_of(&self, asked: &Asked) -> u64 {
        let request = &asked.request;
        let timeout_ns = self.functions[request.function.0 as usize].spec.timeout.0;
        let budget_ns =
            if request.budget_us == 0 { timeout_ns } else { u64::from(request.budget_us) * 1_000 };
        asked.start_at_ns().saturating_add(budget_ns.min(timeout_ns))
    }

    /// The router goes away: whatever is asked now is refused for that reason.
    pub(super) fn refuse_while_draining(&mut self) -> Result<(), Broken> {
        let request = self.request(0, 0);
        let Some(router) = &mut self.router else { return Ok(()) };
        for engine in router.engines_mut() {
            engine.handle_drain();
            let verdict = engine.handle_request(Nanos(self.now_ns), request);
            let is_draining = matches!(verdict, Verdict::Refused(Refused { status: Status::Draining, .. }));
            self.options.judge.check(Contract::TrueRefusal, is_draining, || {
                format!("a router that goes away said {verdict:?}")
            })?;
        }
        Ok(())
    }

    /// A caller takes a call back.
    pub(super) fn cancel(&mut self) -> Result<(), Broken> {
        let Some(&(client, key)) = self.chance.pick(&self.open) else { return Ok(()) };
        let Some(router) = &mut self.router else { return Ok(()) };
        self.oracle.cancelled(key)?;
        let mut did = Vec::new();
        router.shard_of(key.id).cancel(Nanos(self.now_ns), key.id, CancelReason::Asked, &mut did);
        self.note(|_| format!("client {client} cancels {:?}", key.id));
        self.account(did)
    }

    /// A connection ends. Its calls are cancelled, and none of them is answered any more.
    pub(super) fn lose_client(&mut self) -> Result<(), Broken> {
        let client = self.chance.below(CLIENT_COUNT) as u32;
        self.client_gone(client)
    }

    pub(super) fn client_gone(&mut self, client: u32) -> Result<(), Broken> {
        let Some(router) = &mut self.router else { return Ok(()) };
        let lost: Vec<_> = self.open.extract_if(.., |(owner, _)| *owner == client).collect();
        let mut did = Vec::new();
        for (_, key) in lost {
            let shard = router.shard_of(key.id);
            let cancelled = shard.cancel(Nanos(self.now_ns), key.id, CancelReason::ClientGone, &mut did);
            // An answer that was made but not yet polled still comes out; the shell drops it at the closed door.
            if cancelled == Cancelled::Forgotten {
                self.oracle.forgotten(key)?;
            }
        }
        self.note(|_| format!("client {client} is gone"));
        self.account(did)
    }
}

/// A request, and what it says beyond its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub request: Request,
    pub special: Special,
    /// Calls with one key of one function are the same call.
    pub key: Option<u64>,
    /// The call whose run makes it.
    pub made_by: Option<CallKey>,
}

impl Asked {
    /// A request that says no more than most.
    pub fn of(request: Request) -> Asked {
        Asked { request, special: Special::default(), key: None, made_by: None }
    }

    pub fn start_at_ns(&self) -> u64 {
        self.request.received_at.0.saturating_add(self.special.start_after.0)
    }

    pub fn starts_later(&self, now_ns: u64) -> bool {
        self.special.start_after > Nanos::ZERO && self.start_at_ns() > now_ns
    }

    /// The payload: calls that are the same have the same.
    fn mark(&self) -> u64 {
        self.key.map_or(self.request.origin.call_id.0, |key| KEYED | key)
    }
}

/// Where a request comes to, and the call that it joins, if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub shard: u8,
    pub leader: Option<CallKey>,
}
