//! The whole path with real processes: the command, a router, a shim, function processes.

mod support;

use std::process::{Child, Stdio};
use std::time::Duration;

use quickfire_client::serve::{Call, FunctionError, serve};
use rustix::process::Signal;
use support::{
    Filter, Router, echo_manifest, eventually, processes_in, quickfire, quickfire_behind, signal, workers_in,
};

const ALL: &str = r#"
[functions.echo]
command = ["builtin:echo"]
[functions.noop]
command = ["builtin:noop"]
[functions.thumbnail]
command = ["builtin:thumbnail"]
[functions.moderate]
command = ["builtin:moderate"]
[functions.sleeper]
command = ["/bin/sleep", "1000"]
"#;

#[test]
fn bundled_functions_do_their_work() {
    let router = Router::start(ALL);
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions/samples");

    // Expect: the same bytes back.
    let echo = router.invoke(&["echo", "--data", "hello"]);
    assert_eq!(String::from_utf8_lossy(&echo.stdout).trim_end(), "hello");

    // Expect: nothing, and that is fine.
    let noop = router.invoke(&["noop", "--data", "hello"]);
    assert!(noop.status.success());
    assert!(noop.stdout.is_empty());

    // Expect: a PNG that fits 128 by 128 pixels.
    let small = router.dir.join("small.png");
    let thumbnail = router.invoke(&[
        "thumbnail",
        "--in",
        &format!("{samples}/picture.png"),
        "--out",
        small.to_str().unwrap(),
    ]);
    assert!(thumbnail.status.success(), "{}", String::from_utf8_lossy(&thumbnail.stderr));
    let png = std::fs::read(&small).unwrap();
    assert_eq!(&png[1..4], b"PNG");
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert!(side(16) <= 128);
    assert!(side(20) <= 128);

    // Expect: JSON that says what was found.
    let moderate = router.invoke(&["moderate", "--in", &format!("{samples}/comment.txt")]);
    let verdict: serde_json::Value = serde_json::from_slice(&moderate.stdout).unwrap();
    assert_eq!(verdict["flagged"], true);
}

#[test]
fn every_kind_of_ending_has_its_exit_code() {
    let router = Router::start(ALL);
    let check = |arguments: &[&str], code: i32, says: &str| {
        let output = router.invoke(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?} says {text:?}, not {says:?}");
    };
    check(&["echo", "--data", "x"], 0, "");
    check(&["thumbnail", "--data", "this is no picture"], 1, "function");
    check(&["echo", "--data", "x", "--criticality", "urgent"], 2, "critical");
    check(&["nothing", "--data", "x"], 3, "nothing");
    // No process of `sleeper` ever attaches, so its call waits until the deadline and never starts.
    check(&["sleeper", "--data", "x", "--deadline", "50ms"], 3, "expired");
    let nobody = format!("unix://{}", router.dir.join("nobody.sock").display());
    let unreachable = quickfire().args(["invoke", "echo", "--connect", &nobody]).output().unwrap();
    assert_eq!(unreachable.status.code(), Some(4));
}

#[test]
fn timings_show_the_stages() {
    let router = Router::start(&echo_manifest(1));
    let output = router.invoke(&["echo", "--data", "x", "--timings"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for stage in ["admitted", "queued", "pushed", "started", "finished", "answered"] {
        assert!(text.contains(stage), "--timings shows {stage}: {text}");
    }
}

#[test]
fn calls_and_load_go_through_shared_memory_too() {
    let router = Router::start(ALL);
    let shm = format!("shm://{}", router.dir.display());
    let invoke = |arguments: &[&str]| {
        let output = router.command("invoke").args(arguments).args(["--connect", &shm]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, text)
    };
    let (code, answer, timings) = invoke(&["echo", "--data", "hello", "--timings"]);
    assert_eq!((code, answer.trim_ascii_end()), (Some(0), &b"hello"[..]), "{timings}");
    assert!(timings.contains("answered"), "{timings}");
    let (code, _, text) = invoke(&["thumbnail", "--data", "this is no picture"]);
    assert_eq!(code, Some(1), "{text}");
    let (code, _, text) = invoke(&["nothing", "--data", "x"]);
    assert_eq!(code, Some(3), "{text}");
    let (code, _, text) = invoke(&["sleeper", "--data", "x", "--deadline", "50ms"]);
    assert_eq!(code, Some(3), "{text}");
    let nobody = quickfire().args(["invoke", "echo", "--connect", "shm:///nobody/here"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(4));

    let json = router.dir.join("load.json");
    for shape in [
        ["--window", "512", "--connections", "1", "--payload", "64"],
        ["--window", "64", "--connections", "3", "--payload", "5KiB"],
        ["--rate", "5k", "--connections", "2", "--payload", "64"],
    ] {
        let output = router
            .command("load")
            .args(["echo", "--connect", &shm, "--duration", "300ms"])
            .args(shape)
            .arg("--json")
            .arg(&json)
            .output()
            .unwrap();
        assert!(output.status.success(), "{shape:?}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert!(report["answered"].as_u64().unwrap() > 0, "{shape:?}");
        assert_eq!(report["mismatched"].as_u64(), Some(0), "{shape:?}");
        assert_eq!(report["answered"], report["sent"], "{shape:?}");
        assert_eq!(report["ok"], report["sent"], "{shape:?}: {}", report["errors"]);
    }
}

#[test]
fn a_client_process_killed_in_the_middle_leaves_nothing_behind() {
    let router = Router::start(&echo_manifest(1));
    let shm = format!("shm://{}", router.dir.display());
    let mut load = router
        .command("load")
        .args(["echo", "--connect", &shm, "--duration", "60s", "--window", "256"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("calls go through its ring", || router.row("echo").ok > 1000);
    load.kill().unwrap();
    load.wait().unwrap();
    eventually("its calls are gone", || router.row("echo").queued == 0);
    assert!(router.invoke(&["echo", "--data", "still there"]).status.success());
    let again = router.command("invoke").args(["echo", "--data", "x", "--connect", &shm]).output().unwrap();
    assert!(again.status.success());
}

#[test]
fn load_reports_what_it_measured() {
    let router = Router::start(&echo_manifest(1));
    let (json, html) = (router.dir.join("load.json"), router.dir.join("load.html"));
    let run = |shape: &[&str]| -> serde_json::Value {
        let output = router
            .command("load")
            .args(["echo", "--connect", &router.url, "--duration", "300ms", "--connections", "2"])
            .args(shape)
            .arg("--json")
            .arg(&json)
            .arg("--html")
            .arg(&html)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap()
    };
    for shape in [["--window", "64"], ["--rate", "5k"]] {
        let report = run(&shape);
        assert!(report["calls_per_s"].as_f64().unwrap() > 0.0);
        assert!(report["answered"].as_u64().unwrap() > 0);
        assert_eq!(report["mismatched"].as_u64(), Some(0));
        assert_eq!(report["answered"], report["sent"]);
        assert!(
            report["latency_ns"]["p99"].as_u64().unwrap() >= report["latency_ns"]["p50"].as_u64().unwrap()
        );
        assert!(report["late_sends"].is_u64());
        assert!(report["errors"].is_object());
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg"));
    assert!(!page.contains("src=\"http"));
}

#[test]
fn functions_and_inspect_read_the_counters_also_of_a_dead_router() {
    let mut router = Router::start(ALL);
    let text = |subcommand: &str, arguments: &[&str]| {
        let output = router.command(subcommand).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("the first answered call is published", || router.row("echo").ok > 0);
    let before = router.row("echo");
    for _ in 0..3 {
        assert!(router.invoke(&["echo", "--data", "x"]).status.success());
    }
    eventually("three more calls are published", || router.row("echo").ok >= before.ok + 3);
    let after = router.row("echo");
    assert_eq!(after.ok, before.ok + 3);
    assert_eq!((after.workers, after.queued, after.errors), (1, 0, 0));
    assert_eq!(router.row("moderate").ok, 0);
    assert!(text("functions", &[]).contains("moderate"));
    assert!(text("inspect", &[]).contains("echo"));

    // Given: a call that waits, and a router that dies while it does.
    let mut waiting = router
        .command("invoke")
        .args(["sleeper", "--data", "x", "--deadline", "30s", "--connect", &router.url])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the waiting call is visible", || text("inspect", &[]).contains("queued"));
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    waiting.wait().unwrap();

    // Expect: the files still tell.
    let output = router.command("inspect").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("dead"), "inspect says that the router is dead: {report}");
    assert!(report.contains("sleeper"));
}

#[test]
fn sigterm_drains_and_leaves_nothing_behind() {
    let mut router = Router::start(&echo_manifest(2));
    eventually("both workers run", || router.workers("echo").len() == 2);
    let status = router.terminate();
    assert_eq!(status.code(), Some(0));
    eventually("all processes are gone", || processes_in(&router.dir).is_empty());
}

#[test]
fn a_killed_shim_takes_its_workers_along_and_comes_back() {
    let router = Router::start(&echo_manifest(2));
    let shim = router.shim().expect("a shim runs");
    eventually("both workers run", || router.workers("echo").len() == 2);
    let before = router.workers("echo");
    signal(shim, Signal::KILL);
    eventually("the old workers are gone", || {
        let now = router.workers("echo");
        before.iter().all(|pid| !now.contains(pid))
    });
    eventually("new workers answer", || {
        router.workers("echo").len() == 2
            && router.invoke(&["echo", "--data", "x", "--deadline", "1s"]).status.success()
    });
}

#[test]
fn warm_functions_survive_a_killed_router() {
    let home = tempfile::tempdir().unwrap();
    let manifest = echo_manifest(2);
    let mut router = Router::start_in(home.path(), &manifest);
    eventually("both workers are attached", || router.row("echo").workers == 2);
    let before = router.workers("echo");

    // Given: a new router in the same directory, started at once. Expect: the same processes serve it.
    router.kill_and_start_again();
    eventually("both workers are attached", || router.row("echo").workers == 2);
    assert_eq!(workers_in(&router.dir, "echo"), before);
}

#[test]
fn a_function_that_exits_at_once_gets_typed_answers_and_disturbs_nobody() {
    let router = Router::start(
        r#"
        [functions.echo]
        command = ["builtin:echo"]
        [functions.broken]
        command = ["/bin/false"]
        "#,
    );
    let echo = router.workers("echo");
    // Expect: first its calls wait for a process until their deadline; once it failed too often, they are refused.
    eventually("its calls are refused at once", || {
        let output = router.invoke(&["broken", "--data", "x", "--deadline", "50ms"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        let is_refused = text.contains("no_worker");
        // On a busy machine the client may give up before it hears either.
        let has_expired =
            text.contains("the function never started") || text.contains("the router did not answer in time");
        assert!(is_refused || has_expired, "{text}");
        assert!(router.invoke(&["echo", "--data", "x"]).status.success());
        is_refused
    });
    assert_eq!(router.workers("echo"), echo);
    assert_eq!(router.row("broken").ok, 0);
}

#[test]
fn a_stopped_worker_costs_its_caller_the_deadline_and_is_replaced() {
    let router = Router::start(&napper_manifest());
    eventually("it answers", || nap(&router, "0", "10s").wait().unwrap().success());

    // Given: a process that stands still in the middle of a call.
    let stopped = router.workers("napper");
    let call = nap(&router, "600000", "2s");
    eventually("the call runs", || running_nap(&router.inspect()).is_some());
    signal(stopped[0], Signal::STOP);
    expect_refusal(call, "the function was stopped");
    eventually("another process serves", || router.workers("napper") != stopped && is_serving(&router));

    // Given: one that stands still before the call comes.
    let stopped = router.workers("napper");
    signal(stopped[0], Signal::STOP);
    expect_refusal(nap(&router, "0", "200ms"), "the function never started");
    eventually("another process serves", || router.workers("napper") != stopped && is_serving(&router));
    assert!(router.invoke(&["echo", "--data", "x"]).status.success());
}

#[test]
fn inspect_of_a_killed_router_shows_the_call_its_worker_still_runs() {
    let mut router = Router::start(&napper_manifest());
    let mut call = nap(&router, "600000", "600s");
    eventually("the call runs", || running_nap(&router.inspect()).is_some());
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    assert_eq!(call.wait().unwrap().code(), Some(4), "the caller lost its router");

    let report = router.inspect();
    assert!(report.contains("the router is dead"), "{report}");
    let row = running_nap(&report).unwrap_or_else(|| panic!("the running call is shown: {report}"));
    assert_eq!(row.pid, router.workers("napper")[0]);
    // Expect: an age that grows, though nobody is left to measure it.
    assert!(!row.age.is_zero());
    let later = running_nap(&router.inspect()).unwrap();
    assert!(later.age > row.age, "{:?} after {:?}", later.age, row.age);
}

/// `echo`, and a function that sleeps for as many milliseconds as its payload says: this very program.
fn napper_manifest() -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        r#"
        [functions.echo]
        command = ["builtin:echo"]
        [functions.napper]
        command = ["{}", "--exact", "napper", "--ignored", "--nocapture"]
        timeout = "600s"
        "#,
        program.display()
    )
}

#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn napper() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let nap = |call: &Call<'_>| {
        let length =
            std::str::from_utf8(call.payload())?.parse().map_err(|_| FunctionError::new("a number"))?;
        std::thread::sleep(Duration::from_millis(length));
        Ok("slept well")
    };
    serve(nap).unwrap();
}

fn nap(router: &Router, length_ms: &str, deadline: &str) -> Child {
    router
        .command("invoke")
        .args(["napper", "--data", length_ms, "--deadline", deadline, "--connect", &router.url])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_serving(router: &Router) -> bool {
    nap(router, "0", "500ms").wait().unwrap().success()
}

/// The router says how far the call came; on a busy machine the client may give up before it hears that.
fn expect_refusal(call: Child, says: &str) {
    let output = call.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    let is_told = text.contains(says) || text.contains("the router did not answer in time");
    assert!(is_told, "{text:?} does not say {says:?}");
}

struct RunningNap {
    pid: u32,
    age: Duration,
}

/// The row of `inspect` about a nap in progress: call, function, pid, slot, stage, age, ...
fn running_nap(report: &str) -> Option<RunningNap> {
    let rows = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.get(1) == Some(&"napper") && row.get(4) == Some(&"running"))?;
    let digits = row[5].trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match &row[5][digits.len()..] {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        unit => panic!("{unit} is no unit"),
    };
    let age_ns: f64 = digits.parse::<f64>().unwrap() * scale;
    Some(RunningNap { pid: row[2].parse().unwrap(), age: Duration::from_nanos(age_ns as u64) })
}

#[test]
fn a_router_without_io_uring_says_so_in_one_line_and_serves_on_epoll() {
    let mut router = Router::start_behind(Filter::NoIoUring, ALL);
    let log = router.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("runs on epoll") && log.contains("allow io_uring_setup"), "{log}");

    // Expect: small and large calls, many at once, and a drain, as on a ring.
    let large = "large".repeat(20_000);
    let echo = router.invoke(&["echo", "--data", &large]);
    assert_eq!(String::from_utf8_lossy(&echo.stdout).trim_end(), large);
    let load = router
        .command("load")
        .args([
            "echo",
            "--connect",
            &router.url,
            "--duration",
            "300ms",
            "--connections",
            "2",
            "--window",
            "64",
        ])
        .output()
        .unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let report = router.inspect();
    let is_told = report.lines().any(|line| line.split_whitespace().eq(["shard.io_on_epoll", "1"]));
    assert!(is_told, "{report}");
    assert!(router.terminate().success());
}

#[test]
fn a_router_that_must_have_io_uring_does_not_start_without() {
    let check = |arguments: &[&str], says: &str| {
        let home = tempfile::tempdir().unwrap();
        let output = quickfire_behind(Filter::NoIoUring)
            .args(["up", "--listen", "quickfire://127.0.0.1:0"])
            .args(arguments)
            .env("QUICKFIRE_DIR", home.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("allow io_uring_setup") && text.contains(says), "{text}");
        assert!(processes_in(home.path()).is_empty());
    };
    check(&["--io", "uring"], "seccomp filter");
    check(&["--host", "glommio"], "host = \"bare\" needs none");
}

#[test]
fn our_profile_for_containers_is_enough_for_a_router_on_io_uring_and_its_functions() {
    // 77: the headers that say what number a system call has are not installed, so there is nothing to build from.
    if quickfire_behind(Filter::OurProfile).arg("--version").output().unwrap().status.code() == Some(77) {
        eprintln!("skipped: needs the kernel's headers");
        return;
    }
    let mut router = Router::start_behind(Filter::OurProfile, ALL);
    assert_eq!(router.log(), "", "nothing is refused");
    assert!(!router.inspect().contains("shard.io_on_epoll"));
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions/samples");
    let picture = format!("{samples}/picture.jpg");
    let thumbnail = router.invoke(&["thumbnail", "--in", &picture, "--out", "/dev/null"]);
    assert!(thumbnail.status.success(), "{}", String::from_utf8_lossy(&thumbnail.stderr));
    assert!(router.terminate().success());
}
