//! Why a call may be refused: the one reason that is true, worked out from what can be seen from outside.

use engine::WorkerState;
use protocol::Status;

use super::World;
use super::clients::{Asked, Place};
use crate::contract::{Broken, Contract};
use crate::oracle::CallKey;
use crate::shim::ProcessId;

/// Beyond a queue's bound, one more place for each so many is kept for calls that running calls make.
const RESERVE_OF: u32 = 8;

impl World {
    /// The call which this one has to join.
    pub(super) fn leader_of(&self, shard: u8, asked: &Asked) -> Option<CallKey> {
        let number = asked.request.function.0;
        self.oracle.joinable(self.now_ns, self.epoch, shard, number, asked.key?)
    }

    /// The reason for which this request must be refused now, if there is one.
    pub(super) fn refusal_of(&self, asked: &Asked, place: Place) -> Option<Status> {
        let shard = &self.router.as_ref()?.shards[usize::from(place.shard)];
        let request = &asked.request;
        let number = request.function.0;
        let starts_later = asked.starts_later(self.now_ns);
        let Some(function) = self.functions.get(number as usize) else {
            return Some(Status::UnknownFunction);
        };
        let queue = (place.shard, number);
        let waiting_count = self.oracle.waiting_count(queue);
        let later_count = self.oracle.later_count(queue);
        let count_max = function.spec.queue_count_max;
        let reserve = if asked.made_by.is_some() { count_max.div_ceil(RESERVE_OF) } else { 0 };
        // It will not stand behind those that wait now, or not for long.
        let is_queued = place.leader.is_none() && !starts_later;
        let has_worker = shard.seats().any(|seat| seat.function == number);
        let full = if function.is_removed { Status::UnknownFunction } else { Status::QueueFull };
        let reasons = [
            (starts_later && asked.special.start_after > self.limits.start_after_max, Status::StartTooLate),
            (starts_later && later_count >= count_max, full),
            (request.criticality > 3, Status::UnknownCriticality),
            (request.payload_size > function.spec.payload_size_max, Status::PayloadTooLarge),
            (self.now_ns >= self.deadline_of(asked), Status::DeadlinePassed),
            (function.failing_on.contains(&place.shard.into()) && !has_worker, Status::NoWorker),
            (function.is_removed && waiting_count > 0 && is_queued, Status::UnknownFunction),
            (waiting_count >= count_max + reserve && is_queued, Status::QueueFull),
            (shard.engine.in_flight() >= self.limits.invocations_max, Status::Overloaded),
            (function.is_removed && place.leader.is_none(), Status::UnknownFunction),
        ];
        reasons.into_iter().find(|(is_true, _)| *is_true).map(|(_, status)| status)
    }

    /// The same, if nothing but a policy speaks against it. Who joins another call uses nothing up.
    pub(super) fn policy_refusal_of(&self, asked: &Asked, place: Place) -> Option<(Contract, Status)> {
        let number = asked.request.function.0;
        let is_asked = (number as usize) < self.functions.len() && place.leader.is_none();
        let rules = &self.rules[usize::from(place.shard)];
        is_asked.then(|| rules.refusal(self.now_ns, number, asked.starts_later(self.now_ns))).flatten()
    }

    /// A request was refused. Is it true?
    pub(super) fn check_refused(
        &self,
        asked: &Asked,
        place: Place,
        expected: Option<Status>,
        status: Status,
    ) -> Result<(), Broken> {
        if let (Status::WouldDeadlock, Some(caller)) = (status, asked.made_by) {
            let number = asked.request.function.0;
            let members = |number| self.members(place.shard, number);
            let is_true = !self.oracle.is_worth_it(self.now_ns, caller)
                || self.oracle.waits_in_a_circle(number, caller, &members);
            return self.options.judge.check(Contract::Nested, is_true, || {
                format!("{asked:?} was refused as {status:?}, and there is no circle of calls that wait")
            });
        }
        self.options.judge.check(Contract::TrueRefusal, expected == Some(status), || {
            format!("{asked:?} was refused as {status:?}; the truth is {expected:?}")
        })
    }

    /// A call that a running one made was admitted. Is there anybody to run it?
    pub(super) fn check_nested_admitted(&self, asked: &Asked, place: Place) -> Result<(), Broken> {
        let Some(caller) = asked.made_by else { return Ok(()) };
        let number = asked.request.function.0;
        let members = |number| self.members(place.shard, number);
        let is_right = !self.oracle.is_worth_it(self.now_ns, caller)
            || !self.oracle.waits_for_itself(number, caller, &members);
        self.options.judge.check(Contract::Nested, is_right, || {
            format!("{asked:?} was admitted, and waits for nobody but those that wait for it")
        })
    }

    /// After a turn of a shard: circles of calls that wait for each other end.
    pub(super) fn look_for_circles(&mut self, shard: u8) -> Result<(), Broken> {
        let members = self.all_members(shard);
        self.oracle.check_circles(self.now_ns, shard, &|number| members[number as usize].clone())
    }

    /// A call that waited was told that it waits in a circle.
    pub(super) fn check_told(&mut self, key: CallKey) -> Result<(), Broken> {
        let members = self.all_members(key.shard());
        self.totals.circles += 1;
        self.oracle.check_told(key, &|number| members[number as usize].clone())
    }

    /// By function, the processes that a shard has; none if one of them is about to end, because another may come.
    fn all_members(&self, shard: u8) -> Vec<Vec<ProcessId>> {
        let Some(router) = &self.router else { return Vec::new() };
        let mut members = vec![Vec::new(); self.functions.len()];
        let mut is_changing = vec![false; self.functions.len()];
        for seat in router.shards[usize::from(shard)].seats() {
            members[seat.function as usize].push(seat.process);
            is_changing[seat.function as usize] |=
                !matches!(seat.state, WorkerState::Idle | WorkerState::Busy | WorkerState::Draining);
        }
        for (processes, _) in members.iter_mut().zip(&is_changing).filter(|(_, is_changing)| **is_changing) {
            processes.clear();
        }
        members
    }

    /// The processes that a shard has for a function.
    fn members(&self, shard: u8, number: u32) -> Vec<ProcessId> {
        let Some(router) = &self.router else { return Vec::new() };
        let seats = router.shards[usize::from(shard)].seats();
        seats.filter(|seat| seat.function == number).map(|seat| seat.process).collect()
    }
}
