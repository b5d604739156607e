//! Record and replay with real processes: what was asked of one router is asked of it again.

mod support;

use std::path::Path;
use std::process::{Child, Stdio};

use protocol::Status;
use protocol::recording::Recording;
use rustix::process::Signal;
use support::{Router, echo_manifest, eventually, signal};

/// A recorder that records already.
fn recorder(router: &Router, out: &Path, more: &[&str]) -> Child {
    let mut command = router.command("record");
    let child = command.arg("--out").arg(out).args(more).stdout(Stdio::null()).spawn().unwrap();
    // Until the first call is on the tape, nobody knows that it has been opened.
    eventually("the recorder records", || {
        router.invoke(&["echo", "--data", "probe"]);
        std::fs::read(out).is_ok_and(|bytes| Recording::read(&bytes).is_ok_and(|it| !it.calls.is_empty()))
    });
    child
}

fn stop(mut recorder: Child) {
    signal(recorder.id(), Signal::TERM);
    assert!(recorder.wait().unwrap().success());
}

fn read(out: &Path) -> Recording {
    Recording::read(&std::fs::read(out).unwrap()).expect("a recording of our own")
}

#[test]
fn what_was_recorded_is_replayed_with_the_same_functions_sizes_and_outcomes() {
    let manifest = format!("{}[functions.noop]\ncommand = [\"builtin:noop\"]\n", echo_manifest(1));
    let router = Router::start(&manifest);
    let home = tempfile::tempdir().unwrap();
    let (first, second) = (home.path().join("first"), home.path().join("second"));

    // Given calls of two functions, with a criticality, a deadline and bytes of their own.
    let running = recorder(&router, &first, &["--bodies"]);
    for number in 0..20 {
        let data = format!("payload {number}");
        assert!(router.invoke(&["echo", "--data", &data, "--criticality", "high"]).status.success());
        assert!(router.invoke(&["noop", "--deadline", "5s"]).status.success());
    }
    stop(running);
    let recording = read(&first);
    assert!(recording.is_complete && recording.has_bodies);
    assert_eq!(recording.functions, ["echo", "noop"]);
    let bodies: Vec<_> = (0..recording.calls.len()).map(|index| recording.body(index)).collect();
    for number in 0..20 {
        assert!(
            bodies.contains(&format!("payload {number}").as_bytes()),
            "payload {number} was not recorded"
        );
    }
    let noops: Vec<_> = recording.calls.iter().filter(|call| call.function == 1).collect();
    assert_eq!(noops.len(), 20);
    assert!(
        noops.iter().all(|call| (1..=5_000_000_000).contains(&call.budget_ns) && call.run_ns().is_some())
    );

    // When they are replayed to the same router, which is recorded again.
    let running = recorder(&router, &second, &[]);
    let report = home.path().join("report.json");
    let replay = router
        .command("load")
        .arg("--replay")
        .arg(&first)
        .args(["--speed", "10", "--connections", "2", "--connect", &router.url, "--json"])
        .arg(&report)
        .output()
        .unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    stop(running);

    // Expect the same calls with the same ends: in the report, and in the second recording.
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let count = recording.calls.len();
    assert_eq!(report["sent"], count);
    assert_eq!(report["recorded"]["outcomes"], report["replayed"]["outcomes"]);
    let again = read(&second);
    let what = |recording: &Recording, criticality| {
        let calls = recording.calls.iter().filter(|call| call.criticality == criticality);
        calls.map(|call| (call.function, call.payload_size, call.status)).collect::<Vec<_>>()
    };
    let high = 2;
    let mut replayed = what(&again, high);
    let mut recorded = what(&recording, high);
    replayed.sort_unstable();
    recorded.sort_unstable();
    assert_eq!(replayed, recorded);
    assert!(recorded.iter().all(|(_, _, status)| *status == Status::Ok as u16));
}

#[test]
fn two_recorders_do_not_take_each_others_calls() {
    let router = Router::start(&echo_manifest(1));
    let home = tempfile::tempdir().unwrap();
    let running = recorder(&router, &home.path().join("first"), &[]);
    let second = router.command("record").arg("--out").arg(home.path().join("second")).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another `quickfire record`"));
    stop(running);
}

#[test]
fn a_recording_ends_with_its_router_and_says_so() {
    let mut router = Router::start(&echo_manifest(1));
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("calls");
    let running = recorder(&router, &out, &[]);
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(read(&out).is_complete);
}

#[test]
fn what_is_no_recording_is_refused() {
    let router = Router::start(&echo_manifest(1));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("wrong");
    std::fs::write(&file, "this is something else").unwrap();
    let replay =
        router.command("load").arg("--replay").arg(&file).args(["--connect", &router.url]).output().unwrap();
    assert_eq!(replay.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&replay.stderr).contains("no recording of `quickfire record`"));
}
