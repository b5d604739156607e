//! A configuration file that changes while real processes run calls.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use quickfire_client::Client;
use rustix::process::Signal;
use support::{Router, eventually, signal};

fn write(home: &Path, manifest: &str) {
    // Whole or not at all, as an operator's editor does it.
    std::fs::write(home.join("new.toml"), manifest).unwrap();
    std::fs::rename(home.join("new.toml"), home.join("quickfire.toml")).unwrap();
}

/// Two shards, so that both have to take what changes.
fn manifest(timeout: &str, weight: u32, rest: &str) -> String {
    format!(
        "[router]\nshards = 2\n[tenants.team]\nweight = {weight}\n\
         [functions.echo]\ncommand = [\"builtin:echo\"]\nwarm = 2\ntenant = \"team\"\ntimeout = \"{timeout}\"\n{rest}"
    )
}

/// Writes the file, says so, and waits for the `count`-th word about it.
fn reload(router: &Router, home: &Path, manifest: &str, says: &str, count: usize) {
    write(home, manifest);
    signal(router.child.id(), Signal::HUP);
    eventually("the router says what became of the file", || router.log().matches(says).count() == count);
}

#[test]
fn no_call_is_lost_or_answered_wrongly_while_the_file_is_read_again_and_again() {
    // Given: three callers that check every answer.
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest("30s", 1, ""));
    let before = router.row("echo");
    let is_over = AtomicBool::new(false);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3u64)
            .map(|caller| {
                scope.spawn({
                    let (router, is_over) = (&router, &is_over);
                    move || call_until(router, is_over, caller)
                })
            })
            .collect();
        // When
        for round in 1..=10u32 {
            let wanted = manifest(&format!("{}s", 30 + round), round + 1, "");
            reload(&router, home.path(), &wanted, "reloaded: 2 changes in force", round as usize);
        }
        is_over.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    // Expect: everybody was served, and each call is counted once.
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    let answered = counts.iter().sum::<u64>();
    eventually("all are counted", || router.row("echo").ok == before.ok + answered);
    let after = router.row("echo");
    assert_eq!((after.errors, after.otherwise), (before.errors, before.otherwise));
}

#[test]
fn processes_come_and_go_under_load_and_no_call_is_lost() {
    // Given: two shards, and callers that check every answer.
    let home = tempfile::tempdir().unwrap();
    let with_warm = |warm: u32| manifest("30s", 1, "").replace("warm = 2", &format!("warm = {warm}"));
    let router = Router::start_in(home.path(), &with_warm(2));
    eventually("all run", || router.row("echo").workers == 4);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3u64)
            .map(|caller| {
                scope.spawn({
                    let (router, is_over) = (&router, &is_over);
                    move || call_until(router, is_over, caller)
                })
            })
            .collect();
        // When: more, fewer, none too many, and more again.
        for (round, warm) in (1..).zip([4, 1, 3]) {
            reload(&router, home.path(), &with_warm(warm), "reloaded: 1 changes in force, 0 after", round);
            let wanted = u64::from(warm) * 2;
            eventually("as many as asked for", || {
                router.row("echo").workers == wanted && router.workers("echo").len() as u64 == wanted
            });
        }
        is_over.store(true, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| assert!(caller.join().unwrap() > 0));
    });
    let row = router.row("echo");
    assert_eq!((row.errors, row.otherwise), (0, 0), "nobody noticed");

    // Expect: a shim that is started again keeps as many as the last one did.
    let old = router.workers("echo");
    signal(router.shim().unwrap(), Signal::KILL);
    eventually("six others", || {
        let new = router.workers("echo");
        new.len() == 6 && router.row("echo").workers == 6 && new.iter().all(|pid| !old.contains(pid))
    });
}

/// Calls `echo` again and again, and checks each answer. Returns how many there were.
fn call_until(router: &Router, is_over: &AtomicBool, caller: u64) -> u64 {
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let mut count = 0u64;
    while !is_over.load(Ordering::Relaxed) {
        let payload = (caller << 32 | count).to_le_bytes();
        let answer = echo.call(&payload).wait().unwrap_or_else(|error| panic!("call {count}: {error}"));
        assert_eq!(answer.payload[..], payload, "the answer of another call");
        count += 1;
    }
    count
}

#[test]
fn a_new_time_out_holds_for_the_next_call() {
    // Given: a process that is stopped, so that only the time-out ends a call.
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest("10m", 1, ""));
    for worker in router.workers("echo") {
        signal(worker, Signal::STOP);
    }
    // When
    reload(&router, home.path(), &manifest("50ms", 1, ""), "reloaded: 1 changes in force, 0 after", 1);
    // Expect
    let output = router.invoke(&["echo", "--data", "x"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest("10s", 1, ""));
    let pids = router.workers("echo");
    let wanted = manifest("20s", 1, "").replace("shards = 2", "shards = 2\nspin = \"1ms\"");
    reload(&router, home.path(), &wanted, "reloaded: 1 changes in force, 1 after a restart", 1);
    let log = router.log();
    assert!(log.contains("reload: functions.echo.timeout: \"10s\" -> \"20s\"\n"), "{log}");
    assert!(log.contains("reload: router.spin: \"50us\" -> \"1ms\" (needs a restart)\n"), "{log}");
    assert_eq!(router.workers("echo"), pids, "no process was touched");
}

#[test]
fn a_signal_brings_functions_and_takes_them_away_as_apply_does() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest("10s", 1, ""));
    let pids = router.workers("echo");
    let with = manifest("10s", 1, "[functions.noop]\ncommand = [\"builtin:noop\"]\n");
    reload(&router, home.path(), &with, "reloaded: 1 changes in force, 0 after", 1);
    assert!(router.log().contains("reload: functions.noop: added\n"), "{}", router.log());
    assert!(router.invoke(&["noop", "--data", "x"]).status.success(), "it waits for its first process");
    reload(&router, home.path(), &manifest("10s", 1, ""), "reloaded: 1 changes in force, 0 after", 2);
    assert_eq!(router.invoke(&["noop", "--data", "x"]).status.code(), Some(3));
    eventually("its processes have left", || router.workers("noop").is_empty());
    // With two changes in one file: another ring, and with it other processes.
    let wider = manifest("20s", 1, "slots = 8\n");
    reload(&router, home.path(), &wider, "reloaded: 2 changes in force, 0 after", 1);
    let told = "reload: functions.echo.slots: 1024 -> 8 (as soon as a process with it serves)\n";
    assert!(router.log().contains(told), "{}", router.log());
    eventually("others have taken over", || {
        let living = router.workers("echo");
        living.len() == 4 && !living.iter().any(|pid| pids.contains(pid)) && router.row("echo").workers == 4
    });
    assert!(router.invoke(&["echo", "--data", "x"]).status.success());
}

#[test]
fn a_file_with_one_mistake_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest("10s", 1, ""));
    let wrong = manifest("20s", 5, "[functions.b]\ncommand = [\"/no/such/program\"]\ntenant = \"nobody\"\n");
    reload(&router, home.path(), &wrong, "the configuration was refused; the one before stays in force", 1);
    assert!(router.log().contains("there is no table [tenants.nobody]"), "{}", router.log());
    // Expect: against what is still in force the mended file is two changes.
    reload(&router, home.path(), &manifest("20s", 5, ""), "reloaded: 2 changes in force, 0 after", 1);
    assert!(router.invoke(&["echo", "--data", "x"]).status.success());
}

/// Runs `quickfire apply` and checks what it ends with and says.
#[track_caller]
fn check_apply(router: &Router, arguments: &[&str], code: i32, says: &[&str]) {
    let output = router.command("apply").args(arguments).output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for expected in says {
        assert!(told.contains(expected), "{told:?} does not say {expected:?}");
    }
}

#[test]
fn a_file_is_shown_and_then_applied_or_refused_whole() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest("10s", 1, ""));
    let path = home.path().join("other.toml");
    let file = path.to_str().unwrap();
    let wanted = manifest("20s", 3, "").replace("shards = 2", "shards = 3");
    std::fs::write(&path, wanted).unwrap();
    // The dry run says what the run then does, which is nothing the second time.
    let taken = ["tenants.team.weight: 1 -> 3", "functions.echo.timeout: \"10s\" -> \"20s\""];
    let waits = "needs a restart:\n  router.shards: 2 -> 3\n";
    let dry = ["would be in force:", taken[0], taken[1], waits];
    check_apply(&router, &[file, "--dry-run"], 0, &dry);
    check_apply(&router, &[file], 0, &["in force:", taken[0], taken[1], waits]);
    check_apply(&router, &[file], 0, &[waits]);
    // One mistake refuses all of it.
    std::fs::write(&path, manifest("30s", 0, "")).unwrap();
    let refused = ["other.toml:4:1: `tenants.team.weight`: 0 is not allowed", "stays as it is"];
    check_apply(&router, &[file], 2, &refused);
    std::fs::write(&path, manifest("20s", 3, "")).unwrap();
    check_apply(&router, &[file], 0, &["nothing changes"]);
    check_apply(&router, &["/no/such/file"], 2, &["cannot read /no/such/file"]);
}
