//! Calls within calls with real processes: time is inherited, and a circle is told instead of waited for.

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::{CallError, Client};
use support::{Router, echo_manifest};

/// The functions `one` and `two`, each a single process that calls on as its payload says.
fn manifest() -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = r#""relay", "--exact", "--ignored", "--nocapture", "--test-threads=1""#;
    let mut manifest = echo_manifest(1);
    for name in ["one", "two"] {
        manifest.push_str(&format!("[functions.{name}]\ncommand = [{program:?}, {arguments}]\n"));
    }
    manifest
}

/// The function of the tests below. Its payload is an address and a path: `URL two one` calls `two` with `URL one`. At the
/// end of the path it says how many milliseconds are left. `URL read=FIFO two` first meets whoever comes with `write=FIFO`, and
/// `URL two,read=FIFO one` starts its call, meets, and then waits for the call.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn relay() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let mut client = None;
    let relay = |call: &Call<'_>| -> Result<String, FunctionError> {
        let payload = std::str::from_utf8(call.payload())?;
        let (url, path) = payload.split_once(' ').unwrap_or((payload, ""));
        let (mut next, mut rest) = path.split_once(' ').unwrap_or((path, ""));
        if meet(next)? {
            (next, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        }
        let (next, meeting) = next.split_once(',').unwrap_or((next, ""));
        if next.is_empty() {
            let left = call.time_left().unwrap_or_default();
            return Ok(format!("left {}", left.as_millis()));
        }
        if client.is_none() {
            client = Some(Client::connect(url)?);
        }
        let Some(client) = &client else { unreachable!("connected above") };
        let function = client.function(next)?;
        let payload = format!("{url} {rest}");
        let nested = call.nested(&function, payload.trim_end());
        let answer = if meeting.is_empty() {
            nested.wait()
        } else {
            let started = nested.start()?;
            meet(meeting)?;
            started.wait()
        };
        match answer {
            Ok(answer) => Ok(format!("{next}>{}", String::from_utf8_lossy(&answer.payload))),
            Err(CallError::Refused { status, .. }) => Ok(format!("{next}:{}", status.name())),
            Err(other) => Err(other.into()),
        }
    };
    serve(relay).unwrap();
}

/// Returns when two are here, one that reads and one that writes. False: this is no place to meet.
fn meet(place: &str) -> std::io::Result<bool> {
    if let Some(path) = place.strip_prefix("read=") {
        File::open(path)?;
        return Ok(true);
    }
    let Some(path) = place.strip_prefix("write=") else { return Ok(false) };
    File::options().write(true).open(path)?;
    Ok(true)
}

/// A place to meet.
fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

fn walk(router: &Router, first: &str, path: &str, deadline: &str) -> String {
    let payload = format!("{} {path}", router.url);
    let output = router.invoke(&[first, "--data", payload.trim_end(), "--deadline", deadline]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[test]
fn a_nested_call_has_less_time_than_its_caller() {
    let router = Router::start(&manifest());
    let walked = walk(&router, "one", "two", "40s");
    let left = walked.strip_prefix("two>left ").unwrap_or_else(|| panic!("{walked}"));
    // The function's own time-out, 30 s, less the twentieth that `one` keeps.
    let left = Duration::from_millis(left.parse().unwrap());
    assert!(left <= Duration::from_millis(28_500), "{left:?}");
    assert!(left > Duration::ZERO);
}

#[test]
fn a_circle_of_single_processes_is_told_instead_of_waited_for() {
    let router = Router::start(&manifest());
    assert_eq!(walk(&router, "one", "one", "30s"), "one:would_deadlock");
    assert_eq!(walk(&router, "one", "two one", "30s"), "two>one:would_deadlock");
    assert_eq!(walk(&router, "one", "two two", "30s"), "two>two:would_deadlock");

    // Expect: afterwards both are as they were.
    assert!(walk(&router, "two", "one", "30s").starts_with("one>left "));
}

#[test]
fn with_a_process_more_the_circle_is_walked_once() {
    let router = Router::start(&manifest().replace("[functions.one]\n", "[functions.one]\nwarm = 2\n"));
    let both = || router.workers("one").len() == 2 && router.row("one").workers == 2;
    support::eventually("both processes of `one` are attached", both);
    assert!(walk(&router, "one", "two one", "30s").starts_with("two>one>left "));
    assert_eq!(walk(&router, "one", "two one one", "30s"), "two>one>one:would_deadlock");
}

/// Two walks at once, of which each holds the process that the other one needs.
fn walk_both(router: &Router, paths: [String; 2]) -> [String; 2] {
    std::thread::scope(|scope| {
        let [one, two] = [("one", &paths[0]), ("two", &paths[1])]
            .map(|(first, path)| scope.spawn(move || walk(router, first, path, "30s")));
        [one.join().unwrap(), two.join().unwrap()]
    })
}

/// One of them is told, and the other gets what it asked for, long before its deadline.
fn check_walks(mut walked: [String; 2]) {
    walked.sort_by_key(|walked| !walked.ends_with(":would_deadlock"));
    let [told, served] = &walked;
    assert!(told.ends_with(":would_deadlock"), "{walked:?}");
    let (_, left) = served.split_once(">left ").unwrap_or_else(|| panic!("{walked:?}"));
    assert_ne!(left, "0");
}

#[test]
fn two_chains_that_hold_each_others_process_end_by_a_word_and_not_by_their_deadlines() {
    let router = Router::start(&manifest());
    let fifo = fifo(&router.dir, "held");
    let fifo = fifo.display();
    let paths = [format!("read={fifo} two"), format!("write={fifo} one")];
    check_walks(walk_both(&router, paths));
    assert_eq!(router.counter("engine.answered_would_deadlock"), 1);

    // Expect: afterwards both are as they were.
    assert!(walk(&router, "two", "one", "30s").starts_with("one>left "));
}

#[test]
fn so_do_chains_that_make_their_calls_first_and_wait_for_them_later() {
    let router = Router::start(&manifest());
    let [held, made] = ["held", "made"].map(|name| fifo(&router.dir, name));
    let (held, made) = (held.display(), made.display());
    let paths = [format!("read={held} two,read={made}"), format!("write={held} one,write={made}")];
    check_walks(walk_both(&router, paths));
}

#[test]
fn with_a_reserve_a_second_chain_waits_for_its_turn_while_a_process_is_free() {
    // Given: two processes of a function that calls itself, one of them kept for that.
    let kept = "[functions.one]\nwarm = 2\nnested_reserve = 1\n";
    let router = Router::start(&manifest().replace("[functions.one]\n", kept));
    support::eventually("both processes of `one` are attached", || router.row("one").workers == 2);
    let fifo = fifo(&router.dir, "held");
    let functions = || {
        let output = router.command("functions").arg("one").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = format!("read={} one", fifo.display());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| walk(&router, "one", &path, "30s"));
        let holds = |line: &str| line.contains(" one ") && line.contains(" running ");
        support::eventually("it holds its process", || router.inspect().lines().any(holds));
        let second = scope.spawn(|| walk(&router, "one", "one", "30s"));
        support::eventually("the other chain waits", || functions().contains("nested reserve"));

        // Expect: the first one finds the process that was kept for it, and then the second one does.
        drop(File::options().write(true).open(&fifo).unwrap());
        for walked in [first, second].map(|walk| walk.join().unwrap()) {
            assert!(walked.starts_with("one>left "), "{walked}");
        }
    });
    assert_eq!(router.counter("engine.answered_would_deadlock"), 0);
}
