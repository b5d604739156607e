//! More than one shard with real processes: each has its own connections and workers, and nobody outside can tell.

mod support;

use router::{counters, run_dir};
use rustix::process::Signal;
use support::{Router, echo_manifest, eventually, processes_in, signal};

fn two_shards() -> Router {
    Router::start(&format!("[router]\nshards = 2\n{}", echo_manifest(1)))
}

/// A counter of one shard.
fn counter(router: &Router, shard: u32, name: &str) -> u64 {
    let snapshot = counters::Snapshot::read(&run_dir::counters(&router.dir, shard)).unwrap();
    snapshot.counter(name).unwrap()
}

fn wait_until_each_has_its_process(router: &Router) {
    eventually("each shard has its process", || {
        [0, 1].iter().all(|shard| counter(router, *shard, "shard.workers_attached_now") == 1)
    });
}

fn is_answered(router: &Router, data: &str) -> bool {
    let output = router.invoke(&["echo", "--data", data, "--deadline", "10s"]);
    output.status.success() && output.stdout.starts_with(data.as_bytes())
}

#[test]
fn callers_are_served_by_whichever_shard_took_their_connection() {
    let mut router = two_shards();
    wait_until_each_has_its_process(&router);
    // The kernel spreads connections by their ports: that all of 32 go to one shard is as likely as 2 in 4 billion.
    for number in 0..32 {
        let data = format!("call {number}");
        assert!(is_answered(&router, &data), "{data}");
    }
    eventually("both shards served", || {
        let answered = [0, 1].map(|shard| counter(&router, shard, "engine.answered_ok"));
        // One more: the first call, by which the router was known to be there.
        answered.iter().all(|count| *count > 0) && answered.iter().sum::<u64>() >= 33
    });

    // A drain ends both, and leaves nothing behind.
    assert!(router.terminate().success());
    eventually("nothing is left", || processes_in(&router.dir).is_empty());
}

#[test]
fn a_shard_whose_only_process_is_killed_gets_another_and_loses_no_queued_call() {
    let router = two_shards();
    wait_until_each_has_its_process(&router);
    for _ in 0..2 {
        let before = router.workers("echo");
        for pid in &before {
            signal(*pid, Signal::KILL);
        }
        // Expect: calls wait for the successors, on both shards.
        for number in 0..8 {
            assert!(is_answered(&router, &format!("after the kill {number}")));
        }
        eventually("both are replaced", || {
            let now = router.workers("echo");
            now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
        });
    }
}
