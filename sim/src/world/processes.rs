//! The shim's places and the processes in them, and what those need downstream.

use engine::Nanos;
use protocol::FunctionId;
use shm_ring::Outcome;

use super::World;
use crate::chance::Chance;
use crate::contract::Broken;
use crate::oracle::CallKey;
use crate::shim::{Asked, ProcessId};
use crate::worker::{Process, Step};

/// Calls that what is downstream serves without getting slower.
const DOWNSTREAM_CAPACITY: u64 = 2;
/// While it is overloaded, calls take this many times as long,
const DOWNSTREAM_SLOWDOWN: u64 = 10;
/// and so many in 1,000 fail.
const DOWNSTREAM_ERROR_PER_MILLE: u64 = 500;
/// Processes that do not come back after their router died: another configuration, or a bug.
const LOST_WITH_ROUTER_PER_MILLE: u64 = 100;

impl World {
    /// The shim sees who ended, and starts who is due.
    pub(super) fn shim_step(&mut self) {
        self.start_what_is_due();
        self.keep_wanted();
        for process in std::mem::take(&mut self.ended) {
            for index in 0..self.keepers.len() {
                let keeper = &mut self.keepers[index];
                if keeper.on_exit(self.now_ns, process, &mut self.chance) {
                    let function = keeper.function;
                    self.tell_failing(function);
                }
                let keeper = &self.keepers[index];
                if keeper.has_none() && self.is_surplus(keeper.function) {
                    self.keepers[index].give_up(self.now_ns);
                }
            }
        }
        for index in 0..self.keepers.len() {
            let name = ProcessId(self.process_count + 1);
            match self.keepers[index].tick(self.now_ns, name, &mut self.chance) {
                Some(Asked::Spawn(process)) => {
                    self.process_count += 1;
                    let number = self.keepers[index].function;
                    let parallel_max = self.functions[number as usize].parallel_max;
                    let secret = self.chance.next();
                    self.processes.insert(process, Process::new(number, parallel_max, secret));
                }
                Some(Asked::End(process)) => self.end_process(process),
                None => {}
            }
        }
    }

    fn tell_failing(&mut self, number: u32) {
        let Some(router) = &mut self.router else { return };
        for (shard, engine) in router.engines_mut().enumerate() {
            engine.handle_function_failing(FunctionId(number), true);
            self.functions[number as usize].failing_on.insert(shard);
        }
        self.note(|_| format!("the shim says that function {number} keeps failing"));
    }

    /// Every process does a few steps.
    pub(super) fn work(&mut self) -> Result<(), Broken> {
        let names: Vec<_> = self.processes.keys().copied().collect();
        for name in names {
            for _ in 0..=self.chance.below(4) {
                self.process_step(name)?;
            }
        }
        Ok(())
    }

    /// One process does one step.
    pub(super) fn work_one(&mut self) -> Result<(), Broken> {
        match self.any_process() {
            Some(name) => self.process_step(name),
            None => Ok(()),
        }
    }

    fn process_step(&mut self, name: ProcessId) -> Result<(), Broken> {
        self.attach_if_it_can(name);
        let Some(process) = self.processes.get_mut(&name) else { return Ok(()) };
        match process.step(self.now_ns, &mut self.chance) {
            Step::Quiet => Ok(()),
            // As for those that it starts.
            Step::Declines(_) if process.has_scribbled => Ok(()),
            Step::Begins(key) => self.begin(name, key),
            Step::Declines(key) => self.oracle.taken(key),
            Step::Detached => {
                self.liars.remove(&name);
                if self.chance.per_mille(LOST_WITH_ROUTER_PER_MILLE) {
                    self.end_process(name);
                } else {
                    self.totals.reattachments += 1;
                }
                Ok(())
            }
            Step::Ended => {
                self.end_process(name);
                Ok(())
            }
        }
    }

    fn attach_if_it_can(&mut self, name: ProcessId) {
        let Some(process) = self.processes.get_mut(&name).filter(|process| !process.is_attached()) else {
            return;
        };
        if self.now_ns < self.functions[process.function as usize].crashes_until_ns {
            return self.end_process(name);
        }
        let Some(router) = &mut self.router else { return };
        if let Some(memory) = router.attach(Nanos(self.now_ns), process.function, name) {
            process.attach(memory, router.epoch);
            let shard = router.shard_index_of(name);
            self.functions[process.function as usize].failing_on.remove(&shard);
            self.note_attached(name);
            self.note(|_| format!("{name:?} attaches"));
        }
    }

    /// A function begins to run a call: for how long, and how will it end?
    fn begin(&mut self, name: ProcessId, key: CallKey) -> Result<(), Broken> {
        let (length_ns, outcome) = {
            let number = self.processes[&name].function;
            let load =
                if self.functions[number as usize].needs_downstream { self.downstream_load() } else { 0 };
            let function = &self.functions[number as usize];
            let is_overloaded = function.needs_downstream && self.now_ns < self.downstream_slow_until_ns;
            let slowdown = if is_overloaded { DOWNSTREAM_SLOWDOWN } else { 1 };
            let factor = slowdown * (1 + load / DOWNSTREAM_CAPACITY);
            let error_per_mille =
                if is_overloaded { DOWNSTREAM_ERROR_PER_MILLE } else { function.error_per_mille };
            let length_ns = function.service.draw_ns(&mut self.chance).saturating_mul(factor);
            (length_ns, any_outcome(error_per_mille, &mut self.chance))
        };
        self.note(|_| format!("{name:?} starts {key:?} for {} us", length_ns / 1_000));
        let Some(process) = self.processes.get_mut(&name) else { return Ok(()) };
        process.run(length_ns, outcome);
        // Who has scribbled over its own ring may read anything from it, also calls of the past.
        if process.has_scribbled {
            return Ok(());
        }
        self.oracle.started(self.now_ns, key)?;
        self.nest(name, key, length_ns)
    }

    /// Calls that wait for what is downstream.
    fn downstream_load(&self) -> u64 {
        let needs = |process: &&Process| self.functions[process.function as usize].needs_downstream;
        self.processes.values().filter(needs).map(|process| u64::from(process.running_count())).sum()
    }

    /// A process is told to finish what it has, and to end.
    pub(super) fn stop_process(&mut self, name: ProcessId) {
        if let Some(process) = self.processes.get_mut(&name) {
            process.is_stopping = true;
        }
    }

    /// A process ends at once. Shim and router see it, each in its own time.
    pub(super) fn end_process(&mut self, name: ProcessId) {
        if self.processes.remove(&name).is_none() {
            return;
        }
        self.oracle.died(name);
        self.disconnect(name);
        self.ended.push(name);
        self.unseen.push(name);
    }

    /// The router sees the ends of some processes.
    pub(super) fn router_notices(&mut self) -> Result<(), Broken> {
        let now_ns = self.now_ns;
        for (_, name) in self.leaving.extract_if(.., |(at_ns, _)| *at_ns <= now_ns).collect::<Vec<_>>() {
            self.end_process(name);
        }
        self.gone_with_processes()?;
        for name in std::mem::take(&mut self.unseen) {
            if self.chance.per_mille(300) {
                self.unseen.push(name);
                continue;
            }
            let Some(router) = &mut self.router else { continue };
            let mut did = Vec::new();
            router.on_process_gone(Nanos(now_ns), name, &mut did);
            self.note(|_| format!("{name:?} is gone"));
            self.account(did)?;
        }
        Ok(())
    }

    /// Some process, if there is one.
    pub(super) fn any_process(&mut self) -> Option<ProcessId> {
        let names: Vec<_> = self.processes.keys().copied().collect();
        self.chance.pick(&names).copied()
    }
}

fn any_outcome(error_per_mille: u64, chance: &mut Chance) -> Outcome {
    match chance.per_mille(error_per_mille) {
        true if chance.per_mille(200) => Outcome::ResultTooLarge,
        true => Outcome::FunctionError,
        false => Outcome::Ok,
    }
}
