//! Calls that running calls make: with less time than their callers, who wait for them.
//!
//! Always: as `clients/rust/src/serve/nested.rs` does it. A process has a connection of its own for its calls, which ends
//! with it; the router sees that in its own time.

use engine::{CalledBy, Nanos, Origin, Request, Special};
use protocol::{CallId, Flags, FunctionId, Status};
use shm_ring::Outcome;

use super::World;
use super::clients::Asked;
use crate::contract::Broken;
use crate::oracle::CallKey;
use crate::shim::ProcessId;

/// Connections of processes are numbered from here, by their names.
const FIRST_CLIENT: u32 = 1_000;
/// Of its time a call keeps so much for itself, of a whole,
const RESERVE_PART: u64 = 20;
/// and at least this.
const RESERVE_NS_MIN: u64 = 1_000_000;

impl World {
    /// The call that a process has just begun may make another one, and go on when that has ended.
    pub(super) fn nest(&mut self, name: ProcessId, caller: CallKey, length_ns: u64) -> Result<(), Broken> {
        let is_wanted = self.chance.per_mille(self.options.scenario.nested_per_mille);
        let Some(call) = self.oracle.seen(self.oracle.stands_for(caller)).filter(|_| is_wanted) else {
            return Ok(());
        };
        let left_ns = call.deadline_at_ns.saturating_sub(self.now_ns);
        let reserve_ns = (left_ns / RESERVE_PART).max(RESERVE_NS_MIN);
        let budget_us = (left_ns.saturating_sub(reserve_ns) / 1_000) as u32;
        let criticality = call.criticality;
        let is_connected = self.router.as_ref().is_some_and(|router| router.epoch == caller.epoch);
        if budget_us == 0 || !is_connected {
            return Ok(());
        }
        self.call_count += 1;
        let request = Request {
            origin: Origin {
                connection: client_of(name),
                connection_generation: 0,
                call_id: CallId(self.call_count),
            },
            received_at: Nanos(self.now_ns),
            function: FunctionId(self.chance.below(self.functions.len() as u64) as u32),
            criticality,
            budget_us,
            payload_size: 8,
            flags: if self.chance.per_mille(200) { Flags::IDEMPOTENT } else { Flags::NONE },
        };
        let process = self.processes.get_mut(&name).expect("it has just begun a call");
        let called_by = CalledBy { caller: caller.id, depth: 1, wait_token: process.wait(length_ns) };
        let special = Special { called_by: Some(called_by), ..Special::default() };
        let is_admitted = self.send(Asked { special, made_by: Some(caller), ..Asked::of(request) })?;
        if !is_admitted && let Some(process) = self.processes.get_mut(&name) {
            process.give_up_waiting(self.now_ns);
        }
        self.totals.nested += u64::from(is_admitted);
        Ok(())
    }

    /// A call has an answer: whoever made it goes on.
    pub(super) fn go_on(&mut self, made: CallKey) {
        let Some(call) = self.oracle.seen(made) else { return };
        let Some(caller) = call.made_by else { return };
        let outcome = if call.answer == Some(Status::Ok) { Outcome::Ok } else { Outcome::FunctionError };
        let now_ns = self.now_ns;
        let runs_it = |it: &&mut crate::worker::Process| it.runs().any(|(key, _)| key == caller);
        if let Some(process) = self.processes.values_mut().find(runs_it) {
            process.go_on(now_ns, caller.id, outcome);
        }
    }

    /// Connections of processes that have ended are seen to be gone.
    pub(super) fn gone_with_processes(&mut self) -> Result<(), Broken> {
        for client in std::mem::take(&mut self.gone_clients) {
            self.client_gone(client)?;
        }
        Ok(())
    }

    /// A process has ended, and its connection with it.
    pub(super) fn disconnect(&mut self, name: ProcessId) {
        self.gone_clients.push(client_of(name));
    }
}

fn client_of(name: ProcessId) -> u32 {
    FIRST_CLIENT + name.0 as u32
}
