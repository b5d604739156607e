//! Lanes: clients are lent credits of workers, and give them back or not. One shard has all of them here.

use engine::{Lease, Nanos, Recall};
use protocol::FunctionId;

use super::World;
use crate::contract::{Broken, Contract};
use crate::router::{Router, SLOT_COUNT};
use crate::shim::ProcessId;

/// Slots that a client asks for.
const LEASE_SLOTS: u64 = 4;

impl World {
    /// A client asks for a lane.
    pub(super) fn lease(&mut self) -> Result<(), Broken> {
        let number = self.chance.below(self.functions.len() as u64) as u32;
        let slots = self.chance.below(LEASE_SLOTS) as u32;
        let waiting_count = self.oracle.waiting_count((0, number));
        let Some(shard) = self.router.as_mut().map(|router| &mut router.shards[0]) else { return Ok(()) };
        let Ok(lease) = shard.engine.lease(FunctionId(number), slots, |_| true) else { return Ok(()) };
        let process = shard.process_of(lease.worker).expect("a lease is of an attached worker");
        let credits_left = shard.engine.worker_view(lease.worker).map_or(0, |view| view.credits);
        self.leases.push((lease, process));
        self.totals.leases += 1;
        self.note(|_| format!("{process:?} lends {} of its slots", lease.slots));
        let is_right = waiting_count == 0 && credits_left >= 1 && lease.slots < SLOT_COUNT;
        self.options.judge.check(Contract::Slots, is_right, || {
            format!(
                "{process:?} lent {} slots and kept {credits_left}; {waiting_count} calls wait",
                lease.slots
            )
        })
    }

    /// A client gives its lane back.
    pub(super) fn end_lease(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let position = self.chance.below(self.leases.len() as u64) as usize;
        let (lease, process) = self.leases.swap_remove(position);
        self.note(|_| format!("{process:?} has {} slots back", lease.slots));
        if let Some(router) = &mut self.router {
            router.shards[0].engine.end_lease(lease);
        }
    }

    /// Lanes that must end: those of workers that are gone, and of those for which others wait.
    pub(super) fn recall_leases(&mut self) -> Result<(), Broken> {
        let Some(router) = &mut self.router else { return Ok(()) };
        for (lease, process) in std::mem::take(&mut self.leases) {
            let recall = router.shards[0].engine.recall(Nanos(self.now_ns), &lease);
            let is_attached = router.shards[0].process_of(lease.worker).is_some();
            self.options.judge.check(
                Contract::Slots,
                (recall == Some(Recall::WorkerLost)) != is_attached,
                || format!("a lease of {process:?}, attached: {is_attached}, is recalled as {recall:?}"),
            )?;
            match recall {
                Some(_) => router.shards[0].engine.end_lease(lease),
                None => self.leases.push((lease, process)),
            }
        }
        Ok(())
    }

    /// Slots of this process that are lent.
    pub(super) fn leased_count(&self, router: &Router, process: ProcessId) -> u32 {
        let is_its = |(lease, owner): &&(Lease, _)| {
            *owner == process && router.shards[0].process_of(lease.worker) == Some(process)
        };
        self.leases.iter().filter(is_its).map(|(lease, _)| lease.slots).sum()
    }
}
