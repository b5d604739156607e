//! Calls in flight, read from the workers' rings.
//!
//! A ring is a memfd without a name; the way to it is a descriptor of the worker, which survives its router. What lies
//! in it was written by two processes of which one may have died in the middle: `shm_ring::inspect` takes anything.

use std::path::PathBuf;

use router::counters::{Snapshot, Worker};
use shm_ring::inspect::{SlotReport, SlotStage};
use shm_ring::{Mapped, RingReport};

use crate::table;

/// A line for each call in each ring, and what waits outside of them.
pub fn show(shards: &[Snapshot], now_ns: u64) -> String {
    let head = ["call", "function", "worker pid", "slot", "stage", "age", "deadline in", "payload"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut remarks = Vec::new();
    for shard in shards {
        for worker in &shard.workers {
            let function = shard.functions.iter().find(|function| function.function_id == worker.function_id);
            let function = function.map_or("?", |function| function.name.as_str());
            match ring_of(worker) {
                Some(report) => {
                    rows.extend(report.slots.iter().map(|slot| row(function, worker, slot, now_ns)))
                }
                None if worker.credits_free < worker.slots => remarks.push(format!(
                    "  {function}: the ring of pid {} is gone with {} calls\n",
                    worker.pid,
                    worker.slots - worker.credits_free
                )),
                None => {}
            }
        }
    }
    let mut out =
        if rows.len() > 1 { table::columns(&rows) } else { "  none in the workers' rings\n".into() };
    out.extend(remarks);
    for function in shards.iter().flat_map(|shard| &shard.functions).filter(|function| function.queued > 0) {
        out.push_str(&format!("  {} of {} queued for a worker", function.queued, function.name));
        let age = now_ns.saturating_sub(function.oldest_queued_at_ns);
        out.push_str(&format!(", the oldest for {}\n", table::length(age)));
    }
    out
}

fn row(function: &str, worker: &Worker, slot: &SlotReport, now_ns: u64) -> Vec<String> {
    let stage = match slot.stage {
        SlotStage::Empty => "empty".into(),
        SlotStage::Writing => "being pushed".into(),
        SlotStage::Ready => "in the ring".into(),
        SlotStage::Taken => "running".into(),
        SlotStage::Done => "answered by the worker".into(),
        SlotStage::Unreadable { router_state, worker_state } => {
            format!("unreadable ({router_state}, {worker_state})")
        }
    };
    vec![
        format!("{:x}", slot.invocation_id),
        function.to_owned(),
        worker.pid.to_string(),
        slot.slot.0.to_string(),
        if slot.cancel_requested { format!("{stage}, cancelled") } else { stage },
        table::length(slot.age_ns(now_ns)),
        match slot.deadline_at_ns {
            u64::MAX => "none".into(),
            at if at <= now_ns => "passed".into(),
            at => table::length(at - now_ns),
        },
        table::count(slot.payload_size.into()),
    ]
}

/// The ring among a worker's descriptors whose constants name this very attachment.
fn ring_of(worker: &Worker) -> Option<RingReport> {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", worker.pid)).ok()?;
    let memfds = descriptors.flatten().map(|entry| entry.path()).filter(is_memfd);
    memfds.filter_map(|path| shm_ring::inspect(&Mapped::open_file(&path).ok()?).ok()).find(|report| {
        let identity = &report.identity;
        u64::from(identity.worker_id) == worker.worker_id
            && u64::from(identity.generation.0) == worker.generation
    })
}

fn is_memfd(path: &PathBuf) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
}
