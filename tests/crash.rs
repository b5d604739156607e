//! kill -9 under load. Of workers: every call is answered exactly once, and nobody else notices. Of the router: the same
//! warm processes serve the next one.
//!
//! Of anything, at any moment, under calls of every runtime: every call ends once, and nothing is left.
//!
//! `QUICKFIRE_KILLS` says how often to kill (default 10, to keep `cargo test` short), `QUICKFIRE_ROUTER_KILLS` how many routers where it is
//! routers only (default 3), and `QUICKFIRE_KILLS_SEED` in which order where it is anything.

#[path = "crash/leftovers.rs"]
mod leftovers;
#[path = "crash/mixed_load.rs"]
mod mixed_load;
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mixed_load::MixedLoad;
use quickfire_client::serve::{Call, serve};
use rustix::process::Signal;
use support::{GIVE_UP, Router, children, eventually, processes_in, signal};

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
    // would take minutes.
    let mut random = Random(0x5EED);
    println!("seed 0x5eed, {kills} kills");
    for killed in 0..kills {
        let mut proved = Vec::new();
        eventually("all are back, and one has proved itself", || {
            proved = if are_back_after(&router, killed) { warm_workers(&router) } else { Vec::new() };
            !proved.is_empty()
        });
        kill_one(&proved, &mut random);
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

/// What writes its payload down before it answers, as a native function: whoever runs a call twice is found out.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn ledger() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let path = std::env::var_os("LEDGER").unwrap();
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    serve(|call: &Call<'_>| {
        file.write_all(&[call.payload(), b"\n"].concat())?;
        Ok(call.payload().to_vec())
    })
    .unwrap();
}

/// Of a hundred kills, on average: 6 routers, 6 shims, 6 templates, 22 programs behind relays, 60 function processes.
#[test]
fn every_call_ends_once_and_nothing_is_left_whatever_is_killed() {
    let kills = count_from("QUICKFIRE_KILLS", 10);
    let seed = count_from("QUICKFIRE_KILLS_SEED", 0x5EED);
    println!("seed {seed:#x}, {kills} kills: QUICKFIRE_KILLS_SEED={seed} QUICKFIRE_KILLS={kills}");
    let mut random = Random(seed);
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("ledger");

    // Given: what a router and a shim hold, and what stands in the run directory, without any kill.
    let mut router = Router::start_in(home.path(), &mixed_load::manifest(&home.path().join("run"), &ledger));
    wait_until_whole(&router);
    let held = held_by_both(&router);
    assert_eq!(router.terminate().code(), Some(0));
    eventually("all processes are gone", || processes_in(&router.dir).is_empty());
    let names = leftovers::names_in(&router.dir);
    router.start_again();
    wait_until_whole(&router);

    // When: one after the other is killed, at any moment, under load.
    let load = MixedLoad::start(&router.url, seed);
    let mut killed = [0; 5];
    for kill in 0..kills {
        // The last tenth leaves router and shim alone: what they hold in the end has then seen deaths.
        let victim = if kill < kills - kills.div_ceil(10) { random.below(32) } else { 4 + random.below(28) };
        let ok_before = load.tally.ok.load(Ordering::Relaxed);
        let is_done = match victim {
            0..2 => {
                load.tally.router_deaths.fetch_add(1, Ordering::SeqCst);
                router.kill_and_start_again();
                load.tally.router_deaths.fetch_add(1, Ordering::SeqCst);
                Some(0)
            }
            2..4 => router.shim().map(|shim| kill_one(&[shim], &mut random)).map(|()| 1),
            4..6 => {
                let templates = router.shim_status("again")["templates"].clone();
                let pid = templates[0]["pid"].as_u64();
                pid.map(|pid| kill_one(&[pid as u32], &mut random)).map(|()| 4)
            }
            6..13 => {
                let relays = ["lines", "server", "script"].iter().flat_map(|name| router.workers(name));
                let programs: Vec<_> = relays.flat_map(children).collect();
                (!programs.is_empty()).then(|| kill_one(&programs, &mut random)).map(|()| 2)
            }
            _ => {
                let workers: Vec<_> =
                    mixed_load::FUNCTIONS.iter().flat_map(|(name, _)| router.workers(name)).collect();
                (!workers.is_empty()).then(|| kill_one(&workers, &mut random)).map(|()| 3)
            }
        };
        if let Some(kind) = is_done {
            killed[kind] += 1;
        }
        // The schedule of the kills, and no wait for anything.
        std::thread::sleep(Duration::from_millis(random.below(500)));
        eventually("calls are answered again", || load.tally.ok.load(Ordering::Relaxed) > ok_before);
        let wrong = load.tally.wrong.lock().unwrap().clone();
        assert!(wrong.is_empty(), "after {kill} kills: {wrong:#?}");
    }

    // Expect: every call has ended, each in a way in which it can.
    let tally = load.stop();
    let [routers, shims, programs, workers, templates] = killed;
    println!(
        "killed: {routers} routers, {shims} shims, {templates} templates, {programs} programs, {workers} function processes"
    );
    println!("ends: {:#?}", tally.ends.lock().unwrap());
    assert!(tally.wrong.lock().unwrap().is_empty(), "{:#?}", tally.wrong.lock().unwrap());

    // Expect: no call ran twice that must not, and each that was answered well ran.
    let text = std::fs::read_to_string(&ledger).unwrap();
    let mut runs = BTreeMap::<&str, u64>::new();
    text.lines().filter(|line| *line != "whole").for_each(|line| *runs.entry(line).or_default() += 1);
    let twice: Vec<_> = runs.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let written = tally.written.lock().unwrap();
    let missing: Vec<_> = written.iter().filter(|payload| !runs.contains_key(payload.as_str())).collect();
    assert!(missing.is_empty(), "answered, and did not run: {missing:?}");

    // Expect: everything is back, at rest, and accounted for; and nothing is held that was not held before.
    wait_until_whole(&router);
    eventually("each admitted call is answered", || {
        let report = router.inspect();
        sum(&report, "engine.calls_admitted")
            == sum(&report, "engine.answered_") + sum(&report, "engine.calls_forgotten")
    });
    let mut now = held_by_both(&router);
    let give_up_at = Instant::now() + GIVE_UP;
    while now != held && Instant::now() < give_up_at {
        std::thread::sleep(Duration::from_millis(50)); // connections that were closed are still being closed
        now = held_by_both(&router);
    }
    assert_eq!(now, held, "held after, and before");
    assert_eq!(router.terminate().code(), Some(0));
    eventually("all processes are gone", || processes_in(&router.dir).is_empty());
    assert_eq!(leftovers::names_in(&router.dir), names);
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

/// Every function has its processes, and answers.
fn wait_until_whole(router: &Router) {
    for (name, warm) in mixed_load::FUNCTIONS {
        eventually(&format!("{name} has its processes"), || {
            let row = router.row(name);
            row.workers == warm && row.queued == 0
        });
        eventually(&format!("{name} answers"), || {
            // Not in the ledger's account: it may take more than one.
            router.invoke(&[name, "--data", "whole", "--deadline", "10s"]).status.success()
        });
    }
}

fn held_by_both(router: &Router) -> [BTreeMap<String, u64>; 2] {
    [router.child.id(), router.shim().unwrap()].map(leftovers::held_by)
}

/// All rows of `quickfire inspect` whose name begins so, together.
fn sum(report: &str, prefix: &str) -> u64 {
    let rows = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() == 2 && row[0].starts_with(prefix));
    rows.map(|row| row[1].replace(',', "").parse::<u64>().unwrap()).sum()
}

fn kill_one(pids: &[u32], random: &mut Random) {
    signal(pids[random.below(pids.len() as u64) as usize], Signal::KILL);
}

/// Program and arguments of a test of this program, as a function.
fn function_arguments(test: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!("[{program:?}, {test:?}, \"--exact\", \"--ignored\", \"--nocapture\", \"--test-threads=1\"]")
}

/// A linear congruential generator (Knuth's MMIX constants), whose high bits are good enough to pick a victim.
struct Random(u64);

impl Random {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}
