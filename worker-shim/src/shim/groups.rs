//! Stage 6 of 8: the shim's loop, as far as it goes about control groups: who starts in one, and what is told when it ends.
//!
//! Always: groups are looked for when a function first wants one, or where a dead shim left some: who bounds nothing has none.
//! Always: a place has a group only while it has a process, or is about to have one.

use std::io;
use std::os::fd::OwnedFd;

use super::Shim;
use crate::cgroup::{Cgroups, Group, Limits};
use crate::config::FunctionConfig;

impl Shim {
    /// Makes a group for the next process of a place, if it has limits; gives how to enter it. Without groups, limits that must be
    /// kept are an error.
    pub(super) fn enter_group(&mut self, index: usize) -> io::Result<Vec<OwnedFd>> {
        let place = &mut self.places[index];
        let FunctionConfig { name, limits, is_best_effort, .. } = &*place.program;
        if *limits == Limits::default() {
            return Ok(Vec::new());
        }
        let run_dir = &self.config.run_dir;
        match self.cgroups.get_or_insert_with(|| Cgroups::open(run_dir)) {
            Ok(cgroups) => {
                let group = cgroups.make(&format!("{name}.{}", place.number), limits)?;
                place.group.insert(group).entrances()
            }
            Err(missing) if limits.need_group() && !is_best_effort => Err(io::Error::other(missing.clone())),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The process of a place has ended, or was never there. Kills what is left in its group; tells what the kernel did in it.
    pub(super) fn end_group(&mut self, index: usize, group: Group) -> Option<String> {
        let counted = group.counted();
        let tally = &mut self.functions[self.places[index].function].tally;
        tally.memory_kills += counted.memory_kills;
        tally.processes_refused += counted.processes_refused;
        let remark = group.remark(&counted).map(|remark| format!("; {remark}"));
        if let Some(Ok(cgroups)) = &mut self.cgroups {
            cgroups.end(group);
        }
        remark
    }

    /// Removes what could not be removed at once.
    pub(super) fn turn_groups(&mut self) {
        if let Some(Ok(cgroups)) = &mut self.cgroups {
            cgroups.turn();
        }
    }

    /// When to come again for it.
    pub(super) fn groups_due_at_ns(&self) -> Option<u64> {
        let after = self.cgroups.as_ref()?.as_ref().ok()?.next_turn()?;
        Some(self.now_ns().saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}
