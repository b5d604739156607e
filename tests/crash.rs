//! kill -9 under load. Of workers: every call is answered exactly once, and nobody else notices. Of the router: the same
//! warm processes serve the next one.
//!
//! `QUICKFIRE_KILLS` says how many workers to kill (default 10, to keep `cargo test` short), and
//! `QUICKFIRE_ROUTER_KILLS` how many routers (default 3).

mod support;

use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use support::{Router, eventually, processes_in, signal};

/// Credits bound what can be outstanding, 8 x 1024 calls, well below what the router may hold: on a machine too slow for the
/// load, calls then wait in the generators, where they belong, and none is refused as overloaded.
const MANIFEST: &str = r#"
[router]
connection_credits = 1024
[functions.echo]
command = ["builtin:echo"]
warm = 3
[functions.bystander]
command = ["builtin:noop"]
"#;
/// Calls answered for each kill, at least: the load is 20,000 a second, and a killed process is away for 10 ms or more.
const ANSWERS_PER_KILL: u64 = 20;

#[test]
fn every_call_is_answered_once_while_workers_are_killed() {
    let kills = count_from("QUICKFIRE_KILLS", 10);
    let router = Router::start(MANIFEST);
    let victim_json = router.dir.join("victim.json");
    let bystander_json = router.dir.join("bystander.json");
    let mut generators =
        [load(&router, "echo", Some(&victim_json)), load(&router, "bystander", Some(&bystander_json))];

    // When: random workers are killed, each time all are back. Only those that have lived for a second, because the shim
    // lets a place whose processes die young wait longer and longer: that is tested with the shim, and a hundred kills
    // would take minutes. A linear congruential step (Knuth's MMIX constants) picks the victim.
    let mut random = 0x5EED_u64;
    println!("seed {random:#x}, {kills} kills");
    for killed in 0..kills {
        let mut proved = Vec::new();
        eventually("all are back, and one has proved itself", || {
            proved = if are_back_after(&router, killed) { warm_workers(&router) } else { Vec::new() };
            !proved.is_empty()
        });
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        signal(proved[(random >> 33) as usize % proved.len()], Signal::KILL);
    }
    eventually("all are back", || are_back_after(&router, kills));
    for generator in &mut generators {
        signal(generator.id(), Signal::INT);
        assert!(generator.wait().unwrap().code().is_some(), "the generator ends by itself when interrupted");
    }

    // Expect: as many answers as calls; only the killed function's callers saw losses.
    let victim = report(&victim_json);
    check_one_answer_each(&victim, &["worker_lost"]);
    check_one_answer_each(&report(&bystander_json), &[]);
    let answered = victim["answered"].as_u64().unwrap();
    assert!(answered >= kills * ANSWERS_PER_KILL, "{answered} answers are too few to have been in the way");

    // Expect: every kill hit a worker that served, and nobody died who was not killed.
    eventually("the router counted every loss", || router.counter("shard.workers_detached") == kills);
    assert_eq!(router.shim_status("echo")["exits"].as_u64(), Some(kills));
    assert_eq!(router.shim_status("bystander")["exits"].as_u64(), Some(0));
}

#[test]
fn warm_processes_serve_the_next_router_after_each_kill_in_the_middle_of_load() {
    let kills = count_from("QUICKFIRE_ROUTER_KILLS", 3);
    let home = tempfile::tempdir().unwrap();
    let mut router = Router::start_in(home.path(), MANIFEST);
    let are_attached = |router: &Router| {
        router.row("echo").workers == 3
            && router.row("bystander").workers == 1
            && router.counter("shard.workers_attached") == 4
    };
    eventually("all workers are attached", || are_attached(&router));
    let shim = router.shim();
    let workers = [router.workers("echo"), router.workers("bystander")];

    for _ in 0..kills {
        // Given: rings full of calls, some of them running.
        let generators = [load(&router, "echo", None), load(&router, "bystander", None)];
        eventually("calls are answered", || {
            ["echo", "bystander"].iter().all(|function| router.row(function).ok > 1_000)
        });

        // When: the router dies. Expect: the next one finds its addresses free, and the same processes find it.
        router.kill_and_start_again();
        eventually("all workers are attached", || are_attached(&router));
        assert_eq!([router.workers("echo"), router.workers("bystander")], workers);
        assert_eq!(router.shim(), shim);
        for function in ["echo", "bystander"] {
            let output = router.invoke(&[function, "--data", "x"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for mut generator in generators {
            generator.kill().unwrap();
            generator.wait().unwrap();
        }
    }

    // Expect: nothing is left when the last router is told to end, though it started none of them.
    assert_eq!(router.terminate().code(), Some(0));
    eventually("all processes are gone", || processes_in(&router.dir).is_empty());
}

fn count_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a count"))
}

/// Four attached at first, and one for each that was killed.
fn are_back_after(router: &Router, kills: u64) -> bool {
    router.counter("shard.workers_attached") == 4 + kills
}

/// Process ids of `echo` that the shim no longer holds for young.
fn warm_workers(router: &Router) -> Vec<u32> {
    let status = router.shim_status("echo");
    let places = status["places"].as_array().unwrap();
    let warm = places.iter().filter(|place| place["life"] == "warm");
    warm.map(|place| place["pid"].as_u64().unwrap() as u32).collect()
}

/// Twenty thousand calls a second until it is interrupted.
fn load(router: &Router, function: &str, json: Option<&Path>) -> Child {
    let mut command = router.command("load");
    command.args([function, "--rate", "20k", "--connections", "4", "--duration", "1h"]);
    command.args(["--connect", &router.url]);
    if let Some(json) = json {
        command.arg("--json").arg(json);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn report(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn check_one_answer_each(report: &serde_json::Value, losses: &[&str]) {
    assert_eq!(report["sent"], report["answered"]);
    // No second answer, and none to somebody else's call.
    assert_eq!(report["mismatched"].as_u64(), Some(0));
    // Calls that were due before the end, but never sent because every credit was in use (a slow machine, or the moment
    // after a kill): the generator owns up to them. They are no answers, and no calls.
    let is_allowed = |reason: &str| reason == "not_sent" || losses.contains(&reason);
    let reasons: Vec<_> = report["errors"].as_object().unwrap().keys().cloned().collect();
    assert!(reasons.iter().all(|reason| is_allowed(reason)), "unexpected errors: {}", report["errors"]);
}
