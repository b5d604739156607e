//! Routers of several shards: who serves what, and a shard that dies.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Engine, Nanos};
use router::shard::Publish;
use router::stats::ShardStats;
use router::{Config, StartOptions};
use support::wait_until;

/// Panics on the shard's thread once told to: as a bug of ours would.
struct Bug(Arc<AtomicBool>);

impl Publish for Bug {
    fn publish(&mut self, _now: Nanos, _stats: &ShardStats, _engine: &Engine) {
        assert!(!self.0.load(Ordering::SeqCst), "the bug of this test");
    }
}

#[test]
fn a_shard_that_panics_is_noticed_while_the_other_serves_and_told_at_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!(
        "[router]\nlisten = [\"quickfire://127.0.0.1:0\"]\nshards = 2\nrun_dir = \"{}\"\n[functions.echo]\ncommand = [\"true\"]\n",
        dir.path().join("run").display()
    );
    let config = Config::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    let is_due = Arc::new(AtomicBool::new(false));
    let bug = is_due.clone();
    let publish = move |shard| (shard == 1).then(|| Box::new(Bug(bug.clone())) as Box<dyn Publish>);
    let options = StartOptions { publish: Some(Box::new(publish)), ..StartOptions::default() };
    let router = router::start_with(&config, options).unwrap_or_else(|error| panic!("{error}"));
    assert!(!router.has_failed());

    is_due.store(true, Ordering::SeqCst);
    // Wakes the shard, which publishes before it sleeps again.
    let local = router.local(1).expect("the second shard");
    let request = router::frontend::Request {
        function: local.resolve("echo").expect("a function"),
        payload: Default::default(),
        criticality: protocol::Criticality::Normal,
        budget: None,
    };
    let ticket = local.submit(request).expect("room");
    wait_until("it is noticed", || router.has_failed());
    assert!(!router.has_ended(), "the other shard lives");
    assert_eq!(ticket.wait().status, protocol::Status::Draining, "what the dead shard owed is answered");
    router.drain();
    wait_until("the other ends in good order", || router.has_ended());
    assert!(!router.join(), "and the end says that one did not");
}
