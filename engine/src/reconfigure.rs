//! A configuration takes the place of another while calls run.
//!
//! In: the table of tenants and functions by id.  Out: the same engine, with no call lost and none answered anew.
//! Always: all of a table or nothing of it: it is checked whole before anything is changed.
//! Always: an id means one name for as long as the engine lives. A removed function keeps its id, and has it again if it
//! comes back; so do tenants, which are never taken out of the table. Clients may hold an id for ever.
//!
//! ```text
//!   changed   the new numbers hold for calls that are admitted from now on; those admitted keep their deadlines
//!   edition   another edition is another program or ring: the workers of the old one serve on until the first of the new
//!             one attaches, and are drained then. Another one of theirs that comes is taken until then; so is one of any
//!             edition while nobody serves
//!   removed   admits nothing; when the last call is off its hands its workers are drained
//! ```
//! Why the old workers wait for the new ones: a program that takes long to start, or never does, then costs nothing.
//! Why the larger payload waits with them: their rings have no room for it.
//! Always: a call gives back the places that it took, whatever the limits are by then; a tenant's places follow the function.
//! Never: on the path of a call. A removed function refuses by the one test that every function has for all its policies,
//! and its queue takes nothing because it may hold nothing.  Tests: `tests/reconfigure.rs`, `tests/random.rs`.

use protocol::FunctionId;

use crate::canary::CanarySpec;
use crate::fallback::Fallback;
use crate::function::{Function, FunctionSpec};
use crate::policy::Checks;
use crate::tenant::TenantSpec;
use crate::{Engine, EngineRefused, check_tenants, is_host_limited};

impl Engine {
    /// Takes this table instead of the one in force; `None` is a function that is removed. Known tenants and functions
    /// stand where they stood, new ones behind them.
    pub fn handle_reconfigure(
        &mut self,
        tenants: Vec<TenantSpec>,
        functions: Vec<Option<FunctionSpec>>,
    ) -> Result<(), EngineRefused> {
        self.check_reconfigure(&tenants, &functions)?;
        let is_host_limited = is_host_limited(&self.limits, functions.iter().flatten());
        self.permits.respecify(&tenants);
        self.ready.set_tenants(&tenants);
        for (number, spec) in (0..).zip(functions) {
            match spec {
                None => self.retire(number),
                Some(spec) if self.functions.get(number as usize).is_some() => {
                    self.respecify(number, spec, is_host_limited)
                }
                Some(spec) => {
                    let tenant = &tenants[usize::from(spec.tenant.0)];
                    self.functions.push(Function::new(spec, tenant, is_host_limited, &self.limits));
                    self.set_pool(number, true);
                }
            }
        }
        self.ready.grow_to(self.functions.len() as u32);
        self.names = (0..)
            .zip(&self.functions)
            .filter(|(_, function)| !function.is_retired)
            .map(|(number, function)| (function.spec.name.clone().into_boxed_str(), FunctionId(number)))
            .collect();
        self.names.sort();
        self.finish_retirements();
        Ok(())
    }

    fn check_reconfigure(
        &self,
        tenants: &[TenantSpec],
        functions: &[Option<FunctionSpec>],
    ) -> Result<(), EngineRefused> {
        check_tenants(&self.limits, tenants)?;
        for (index, known) in self.permits.tenants().enumerate() {
            if tenants.get(index).is_none_or(|tenant| tenant.name != known.name) {
                return Err(EngineRefused::PlaceTaken(known.name.clone()));
            }
        }
        if functions.len() > self.limits.functions_max as usize {
            return Err(EngineRefused::FunctionsFull {
                count: functions.len(),
                max: self.limits.functions_max,
            });
        }
        for (number, known) in self.functions.iter().enumerate() {
            let is_moved = match functions.get(number) {
                Some(Some(spec)) => spec.name != known.spec.name,
                Some(None) => false,
                None => true,
            };
            if is_moved {
                return Err(EngineRefused::PlaceTaken(known.spec.name.clone()));
            }
        }
        if let Some(number) = functions.iter().skip(self.functions.len()).position(Option::is_none) {
            return Err(EngineRefused::NoName(FunctionId((self.functions.len() + number) as u32)));
        }
        check_functions(functions.iter().flatten(), tenants.len())?;
        check_others(&functions.iter().map(Option::as_ref).collect::<Vec<_>>())
    }

    fn respecify(&mut self, number: u32, spec: FunctionSpec, is_host_limited: bool) {
        self.retiring.retain(|other| *other != number);
        let function = &mut self.functions[number as usize];
        let is_other_program = function.is_retired || function.spec.edition != spec.edition;
        // Another program, or one that is started anew, has not failed yet.
        function.is_failing &= !function.is_retired && function.spec.edition == spec.edition;
        function.is_retired = false;
        let members = || function.members.iter().map(|index| &self.workers[*index as usize]);
        let has_old_rings = members().any(|worker| worker.edition != spec.edition);
        let payload_size_max = match has_old_rings {
            true => spec.payload_size_max.min(function.spec.payload_size_max),
            false => spec.payload_size_max,
        };
        function.payload_size_max_wanted = spec.payload_size_max;
        self.leave_tenant(number, spec.tenant);
        let tenant = self.permits.tenant_mut(spec.tenant);
        let function = &mut self.functions[number as usize];
        let nested_reserve = spec.policy.nested_reserve;
        function.respecify(FunctionSpec { payload_size_max, ..spec }, &tenant.spec, is_host_limited);
        if function.checks.any_at_dispatch() {
            self.count_running(number);
        }
        self.set_reserve(number, nested_reserve);
        // Whatever limit closed it may be another one.
        self.open_gate(number);
        self.look_at_pressure(number);
        self.ready.refresh(number, &mut self.functions[number as usize]);
        self.drain_surplus(number);
        self.set_pool(number, is_other_program);
    }

    fn retire(&mut self, number: u32) {
        let function = &mut self.functions[number as usize];
        if !function.is_retired {
            function.is_retired = true;
            function.spec.queue_count_max = 0;
            function.checks = function.checks.with(Checks::RETIRED, true);
            self.retiring.push(number);
            self.note_pool(number);
        }
    }

    /// A worker of the edition in force attached: those of the one before may go, and those that are too many.
    pub(crate) fn on_edition(&mut self, number: u32) {
        let function = &mut self.functions[number as usize];
        function.spec.payload_size_max = function.payload_size_max_wanted;
        let edition = function.spec.edition;
        for position in (0..function.members.len()).rev() {
            let index = self.functions[number as usize].members[position];
            if self.workers[index as usize].edition != edition {
                self.drain_worker(index);
            }
        }
        self.drain_surplus(number);
    }

    /// The edition of the workers that take calls of this function, if there are any. There is one at a time.
    pub fn serving_edition(&self, function: FunctionId) -> Option<u64> {
        let members = &self.functions.get(function.0 as usize)?.members;
        let mut serving =
            members.iter().map(|index| &self.workers[*index as usize]).filter(|worker| worker.serves());
        serving.next().map(|worker| worker.edition)
    }

    /// Sends away what is more than may be, those that have not been used for longest first.
    pub(crate) fn drain_surplus(&mut self, number: u32) {
        loop {
            let function = &self.functions[number as usize];
            let serves = |index: &&u32| self.workers[**index as usize].serves();
            let count = function.members.iter().filter(serves).count();
            let pool_max = function.spec.pool.map_or(u32::MAX, |pool| pool.max.max(pool.min));
            if count <= function.spec.workers_max.min(pool_max) as usize {
                return;
            }
            let coldest = function.warm.first().or_else(|| function.members.iter().find(serves)).copied();
            let Some(index) = coldest else { return };
            self.drain_worker(index);
        }
    }

    /// Drains the workers of removed functions that have nothing left to do. One test for each turn while none is removed.
    pub(crate) fn finish_retirements(&mut self) {
        let mut position = 0;
        while let Some(&number) = self.retiring.get(position) {
            let function = &self.functions[number as usize];
            let is_done = |index: &u32| {
                let worker = &self.workers[*index as usize];
                worker.held_count() == 0 && worker.lease_count == 0
            };
            let has_calls = !function.queue.is_empty() || function.scheduled > 0;
            if has_calls || !function.members.iter().all(is_done) {
                position += 1;
                continue;
            }
            self.retiring.swap_remove(position);
            for index in function.members.clone() {
                self.drain_worker(index);
            }
        }
    }
}

/// What is wrong with a list of functions in itself, whatever was in force before.
pub(crate) fn check_functions<'a>(
    specs: impl Iterator<Item = &'a FunctionSpec>,
    tenant_count: usize,
) -> Result<(), EngineRefused> {
    let mut names = Vec::new();
    for spec in specs {
        if let Some(field) = spec.first_zero() {
            return Err(EngineRefused::ZeroInSpec { name: spec.name.clone(), field });
        }
        if usize::from(spec.tenant.0) >= tenant_count {
            return Err(EngineRefused::UnknownTenant(spec.name.clone()));
        }
        names.push(spec.name.as_str());
    }
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(EngineRefused::DuplicateName(pair[0].to_owned())),
        None => Ok(()),
    }
}

/// A function's fallback is another one that is there, and so is its canary. By id; none is a function that is removed.
pub(crate) fn check_others(specs: &[Option<&FunctionSpec>]) -> Result<(), EngineRefused> {
    for (number, spec) in (0..).zip(specs) {
        let Some(spec) = spec else { continue };
        let other = |other: FunctionId| match other {
            FunctionId(other) if other == number => None,
            FunctionId(other) => specs.get(other as usize).copied().flatten(),
        };
        if let Some(Fallback::Function(fallback)) = spec.policy.fallback
            && other(fallback).is_none()
        {
            return Err(EngineRefused::FallbackOfNobody(spec.name.clone()));
        }
        if let Some(CanarySpec { function, percent }) = spec.policy.canary
            && (percent > 100 || other(function).is_none_or(|next| next.policy.canary.is_some()))
        {
            return Err(EngineRefused::CanaryOfNobody(spec.name.clone()));
        }
    }
    Ok(())
}
