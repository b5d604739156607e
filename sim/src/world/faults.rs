//! What goes wrong, to any party, between any two steps.

use super::World;
use crate::worker::Process;

/// How long a process may live after its socket closed, as in `router/src/workers.rs`.
const EXIT_GRACE_NS: u64 = 1_000_000_000;

impl World {
    /// kill -9 of a function process.
    pub(super) fn kill_worker(&mut self) {
        let Some(name) = self.any_process() else { return };
        self.note(|_| format!("kill -9 {name:?}"));
        self.totals.worker_deaths += 1;
        self.end_process(name);
    }

    /// A process closes its socket: it is about to end, and may take its time.
    pub(super) fn close_socket(&mut self) {
        let Some(name) = self.any_process() else { return };
        let Some(router) = &mut self.router else { return };
        router.on_socket_closed(name);
        self.leaving.push((self.now_ns + EXIT_GRACE_NS, name));
        self.note(|_| format!("{name:?} closes its socket"));
        self.stop_process(name);
    }

    /// A process stands still.
    pub(super) fn stall(&mut self, length_ns: u64) {
        let Some(name) = self.any_process() else { return };
        self.note(|_| format!("{name:?} stalls for {} us", length_ns / 1_000));
        let until_ns = self.now_ns + length_ns;
        self.processes.entry(name).and_modify(|process| process.stalled_until_ns = until_ns);
    }

    /// A process writes what it must not.
    pub(super) fn scribble(&mut self) {
        let Some(name) = self.any_process() else { return };
        let Some(process) = self.processes.get_mut(&name).filter(|process| process.is_attached()) else {
            return;
        };
        process.scribble(&mut self.chance);
        self.note(|_| format!("{name:?} scribbles over its ring"));
        self.totals.scribbles += 1;
        self.liars.insert(name);
        self.oracle.scribbled(name);
    }

    /// kill -9 of the router. Its clients lose their connections; its workers finish what they run, and attach to the
    /// next router, which knows nothing of any of them.
    pub(super) fn kill_router(&mut self, away_ns: u64) {
        if self.router.take().is_none() {
            return;
        }
        self.note(|world| format!("kill -9 of router {}, for {} us", world.epoch, away_ns / 1_000));
        self.totals.router_deaths += 1;
        self.router_back_at_ns = self.now_ns + away_ns;
        self.oracle.router_died(self.epoch);
        self.open.clear();
        self.unseen.clear();
        self.gone_clients.clear();
        for process in self.processes.values_mut().filter(|process| process.is_attached()) {
            process.give_up_waiting(self.now_ns);
            process.sees_end_at_ns.get_or_insert(self.now_ns + self.chance.length(22));
        }
    }

    /// kill -9 of the shim: its processes die with it, and another shim starts them anew.
    pub(super) fn kill_shim(&mut self, away_ns: u64) {
        if self.shim_back_at_ns.is_some() {
            return;
        }
        self.note(|_| format!("kill -9 of the shim, for {} us", away_ns / 1_000));
        self.totals.shim_deaths += 1;
        self.shim_back_at_ns = Some(self.now_ns + away_ns);
        self.keepers.clear();
        let names: Vec<_> = self.processes.keys().copied().collect();
        names.into_iter().for_each(|name| self.end_process(name));
        self.ended.clear();
    }

    /// What functions need downstream is slow for a while.
    pub(super) fn overload(&mut self, length_ns: u64) {
        self.note(|_| format!("downstream is overloaded for {} us", length_ns / 1_000));
        self.downstream_slow_until_ns = self.now_ns + length_ns;
    }

    /// The processes of a function die, and for a while those that follow die before they attach.
    pub(super) fn crash_loop(&mut self, length_ns: u64) {
        let number = self.chance.below(self.functions.len() as u64) as usize;
        self.note(|_| format!("function {number} crashes at start for {} us", length_ns / 1_000));
        self.functions[number].crashes_until_ns = self.now_ns + length_ns;
        let is_its = |process: &Process| process.function as usize == number;
        let its = self.processes.iter().filter(|(_, process)| is_its(process)).map(|(name, _)| *name);
        its.collect::<Vec<_>>().into_iter().for_each(|name| self.end_process(name));
    }

    /// The host was suspended: for everybody it is later at once.
    pub(super) fn jump(&mut self, length_ns: u64) {
        self.note(|_| format!("the clock jumps by {} us", length_ns / 1_000));
        self.now_ns += length_ns;
    }
}
