//! Functions that come, go, and get another program while real processes run calls; and kill -9 in the middle of it.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::{CallError, Client};
use rustix::process::Signal;
use support::{Router, eventually, signal};

/// The function of the tests below. It tells which version it is; asked to `wait PATH`, when somebody answers there. With a
/// gate, it does not attach before that file exists.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn teller() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let version = std::env::var("VERSION").unwrap();
    let gate = std::env::var_os("GATE").unwrap_or_default();
    while !gate.is_empty() && !Path::new(&gate).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    serve(|call: &Call<'_>| -> Result<String, FunctionError> {
        if let Some(path) = std::str::from_utf8(call.payload())?.strip_prefix("wait ") {
            UnixStream::connect(path)?.read_to_string(&mut String::new())?;
        }
        Ok(version.clone())
    })
    .unwrap();
}

/// A table of `teller` in this version, with a gate if there is a path.
fn teller_of(version: u32, warm: u32, gate: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "[functions.teller]\ncommand = [{program:?}, \"teller\", \"--exact\", \"--ignored\", \"--nocapture\"]\n\
         warm = {warm}\nenv = {{ VERSION = \"{version}\", GATE = \"{gate}\" }}\n"
    )
}

/// The same with a program that ends at once.
fn broken_teller() -> String {
    "[functions.teller]\ncommand = [\"/bin/false\"]\nwarm = 2\n".to_owned()
}

/// Two shards, so that both have to take what changes, and a function that nothing happens to.
fn manifest(rest: &str) -> String {
    format!("[router]\nshards = 2\n[functions.echo]\ncommand = [\"builtin:echo\"]\n{rest}")
}

/// Makes this the router's file, and has it applied.
fn apply(router: &Router, home: &Path, manifest: &str, arguments: &[&str]) -> Output {
    let path = home.join("quickfire.toml");
    std::fs::write(&path, manifest).unwrap();
    router.command("apply").arg(path).args(arguments).output().unwrap()
}

/// What it printed, of a run that ended well.
#[track_caller]
fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ask(client: &Client) -> String {
    let answer = client.function("teller").unwrap().call("who").wait().unwrap();
    String::from_utf8_lossy(&answer.payload).into_owned()
}

/// Runs `story` while three callers, who have had an answer each, call `function` without a pause; gives what they were answered.
/// Every answer is ok.
fn under_load(router: &Router, function: &str, story: impl FnOnce()) -> Vec<Vec<String>> {
    let is_over = AtomicBool::new(false);
    let clients: Vec<_> = (0..3).map(|_| Client::connect(&router.url).unwrap()).collect();
    let ask = |client: &Client| {
        let answer = client.function(function).unwrap().call("who").wait();
        String::from_utf8_lossy(&answer.unwrap_or_else(|error| panic!("{error}")).payload).into_owned()
    };
    std::thread::scope(|scope| {
        let start = |client| {
            let mut answers = vec![ask(client)];
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    answers.push(ask(client));
                }
                answers
            })
        };
        let callers: Vec<_> = clients.iter().map(start).collect();
        story();
        is_over.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

#[test]
fn a_function_that_is_added_under_load_is_served_and_others_notice_nothing() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest(""));
    let pids = router.workers("echo");
    under_load(&router, "echo", || {
        let wanted = manifest(&teller_of(1, 2, ""));
        let dry = told(&apply(&router, home.path(), &wanted, &["--dry-run"]));
        assert_eq!(dry, "would be in force:\n  functions.teller: added\n");
        let told = told(&apply(&router, home.path(), &wanted, &["--wait", "60s"]));
        assert!(told.starts_with("in force:\n  functions.teller: added\n"), "{told}");
        assert_eq!(router.row("teller").workers, 4, "two for each shard");
        assert_eq!(ask(&Client::connect(&router.url).unwrap()), "1");
    });
    let row = router.row("echo");
    assert_eq!((row.errors, row.otherwise), (0, 0));
    assert_eq!(router.workers("echo"), pids);
}

#[test]
fn the_calls_of_a_removed_function_end_as_they_were_promised() {
    // Given: for each process a call that runs, and some that wait.
    let home = tempfile::tempdir().unwrap();
    let with = manifest(&teller_of(1, 1, ""));
    let router = Router::start_in(home.path(), &with);
    let client = Client::connect(&router.url).unwrap();
    let teller = client.function("teller").unwrap();
    let path = home.path().join("oracle").display().to_string();
    let oracle = UnixListener::bind(&path).unwrap();
    let running = teller.call(&format!("wait {path}")).start().unwrap();
    let (asking, _) = oracle.accept().unwrap();
    let waiting: Vec<_> = (0..3).map(|_| teller.call("who").start().unwrap()).collect();
    // When
    let removed = told(&apply(&router, home.path(), &manifest(""), &[]));
    // Expect
    assert!(removed.contains("functions.teller: removed\n"), "{removed}");
    let refused = teller.call("who").wait().unwrap_err();
    assert!(
        matches!(refused, CallError::Refused { status, .. } if status.name() == "unknown_function"),
        "{refused}"
    );
    let output = router.invoke(&["teller", "--data", "who"]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    drop(asking);
    assert_eq!(running.wait().unwrap().payload[..], *b"1");
    waiting.into_iter().for_each(|call| assert_eq!(call.wait().unwrap().payload[..], *b"1"));
    eventually("its processes are gone", || router.workers("teller").is_empty());
    // When it comes back. Expect: the number that the client holds is its own again.
    told(&apply(&router, home.path(), &with, &["--wait", "60s"]));
    assert_eq!(teller.call("who").wait().unwrap().payload[..], *b"1");
}

#[test]
fn every_call_is_answered_first_by_the_old_program_and_then_by_the_new_one() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest(&teller_of(1, 2, "")));
    eventually("all run", || router.row("teller").workers == 4);
    let answers = under_load(&router, "teller", || {
        for version in 2..=4 {
            told(&apply(&router, home.path(), &manifest(&teller_of(version, 2, "")), &["--wait", "60s"]));
            assert_eq!(ask(&Client::connect(&router.url).unwrap()), version.to_string());
        }
    });
    for answers in answers {
        assert_eq!(answers.first().map(String::as_str), Some("1"));
        assert!(answers.iter().all(|answer| ["1", "2", "3", "4"].contains(&answer.as_str())), "{answers:?}");
    }
    let row = router.row("teller");
    assert_eq!((row.errors, row.otherwise, row.workers), (0, 0, 4));
    eventually("the old processes are gone", || router.workers("teller").len() == 4);
}

#[test]
fn a_program_that_ends_at_once_leaves_the_old_one_serving_and_the_operator_sees_why() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest(&teller_of(1, 1, "")));
    eventually("all run", || router.row("teller").workers == 2);
    let answers = under_load(&router, "teller", || {
        // When
        let output = apply(&router, home.path(), &manifest(&broken_teller()), &[]);
        // Expect
        let told = told(&output);
        let line = "teller: 0 of 4 processes of its new edition attached; 2 of the one before serve on";
        assert!(told.contains(&format!("going on:\n  {line}\n")), "{told}");
        let output = apply(&router, home.path(), &manifest(&broken_teller()), &["--wait", "100ms"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(line));
        eventually("the operator sees it", || {
            let output = router.command("functions").arg("teller").output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            let why = [line, "last end: exited with code 1"];
            why.iter().all(|part| told.contains(part))
        });
    });
    assert!(answers.iter().flatten().all(|answer| answer == "1"), "{answers:?}");
    let row = router.row("teller");
    assert_eq!((row.errors, row.otherwise, row.workers), (0, 0, 2));
    // When all that serve are killed, between calls.
    let old = router.workers("teller");
    old.iter().for_each(|pid| signal(*pid, Signal::KILL));
    let client = Client::connect(&router.url).unwrap();
    assert_eq!(ask(&client), "1", "others of the old program took their places");
    // When the next version can start. Expect: it serves, and nothing of the others is left.
    told(&apply(&router, home.path(), &manifest(&teller_of(3, 1, "")), &["--wait", "60s"]));
    assert_eq!(ask(&client), "3");
    eventually("two are left", || router.workers("teller").len() == 2);
}

#[test]
fn a_router_that_is_killed_while_a_program_is_replaced_finds_the_processes_that_serve() {
    // Given: version 1 serves, version 2 is not ready.
    let home = tempfile::tempdir().unwrap();
    let gate = home.path().join("gate").display().to_string();
    let mut router = Router::start_in(home.path(), &manifest(&teller_of(1, 1, "")));
    eventually("all run", || router.row("teller").workers == 2);
    let (shim, old, echo) = (router.shim(), router.workers("teller"), router.workers("echo"));
    told(&apply(&router, home.path(), &manifest(&teller_of(2, 1, &gate)), &[]));
    eventually("version 2 is on its way", || router.workers("teller").len() == 4);
    // When
    router.kill_and_start_again();
    // Expect: the same processes serve.
    eventually("version 1 is attached", || router.row("teller").workers == 2);
    assert_eq!(ask(&Client::connect(&router.url).unwrap()), "1");
    assert_eq!((router.shim(), router.workers("echo")), (shim, echo.clone()));
    assert!(old.iter().all(|pid| router.workers("teller").contains(pid)));
    // When version 2 is ready. Expect: it serves, and version 1 is gone.
    std::fs::write(&gate, "").unwrap();
    eventually("version 2 serves", || {
        let living = router.workers("teller");
        living.len() == 2 && !living.iter().any(|pid| old.contains(pid)) && router.row("teller").workers == 2
    });
    assert_eq!(ask(&Client::connect(&router.url).unwrap()), "2");

    // When the file changes while no router is there. Expect: what it does not change is found again.
    let new = router.workers("teller");
    std::fs::write(home.path().join("quickfire.toml"), manifest(&teller_of(2, 2, &gate))).unwrap();
    router.kill_and_start_again();
    eventually("two more", || router.row("teller").workers == 4);
    assert!(new.iter().all(|pid| router.workers("teller").contains(pid)), "the same, and two more");
    assert_eq!((router.shim(), router.workers("echo")), (shim, echo));
}

#[test]
fn a_shim_that_is_killed_while_a_program_is_replaced_starts_what_is_in_force() {
    let home = tempfile::tempdir().unwrap();
    let gate = home.path().join("gate").display().to_string();
    let router = Router::start_in(home.path(), &manifest(&teller_of(1, 1, "")));
    eventually("all run", || router.row("teller").workers == 2);
    told(&apply(&router, home.path(), &manifest(&teller_of(2, 1, &gate)), &[]));
    eventually("version 2 is on its way", || router.workers("teller").len() == 4);
    // When: with it go all processes.
    let old = router.workers("teller");
    signal(router.shim().unwrap(), Signal::KILL);
    eventually("another shim has started version 2", || {
        let living = router.workers("teller");
        living.len() == 2 && !living.iter().any(|pid| old.contains(pid))
    });
    // Expect: a call waits until it is ready.
    let client = Client::connect(&router.url).unwrap();
    let call = client.function("teller").unwrap().call("who").start().unwrap();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(call.wait().unwrap().payload[..], *b"2");
    eventually("both serve", || router.row("teller").workers == 2);
    assert_eq!(router.workers("teller").len(), 2, "nothing of version 1 came back");
}

#[test]
fn what_cannot_be_started_or_finds_no_room_is_refused_whole() {
    let home = tempfile::tempdir().unwrap();
    let with_room = |rest: &str| manifest(rest).replace("shards = 2", "shards = 2\nfunctions_max = 2");
    let router = Router::start_in(home.path(), &with_room(&teller_of(1, 1, "")));
    eventually("all run", || router.row("teller").workers == 2);
    let pids = router.workers("teller");
    let third = "[functions.third]\ncommand = [\"builtin:noop\"]\n";
    let cases = [
        (
            teller_of(2, 1, "") + third,
            "`functions.third.command`: makes 3 functions since the router started, which has room for 2",
        ),
        (teller_of(2, 1, "").replace("command = [\"/", "command = [\"/no/such"), "no such file"),
        (teller_of(2, 1, "") + "processors = \"1023\"\n", "1023"),
    ];
    for (wanted, says) in cases {
        let wanted = with_room(&wanted).replace("functions_max = 2", "functions_max = 9");
        let output = apply(&router, home.path(), &wanted, &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(says) && told.contains("stays as it is"), "{told}");
    }
    assert_eq!(ask(&Client::connect(&router.url).unwrap()), "1");
    assert_eq!(router.workers("teller"), pids);
    // Expect: a place that was taken once is not free again, and is kept for its name.
    told(&apply(&router, home.path(), &with_room(""), &["--wait", "60s"]));
    let output = apply(&router, home.path(), &with_room(third), &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs a restart"));
    told(&apply(&router, home.path(), &with_room(&teller_of(2, 1, "")), &["--wait", "60s"]));
    assert_eq!(ask(&Client::connect(&router.url).unwrap()), "2");
}

#[test]
fn programs_are_replaced_while_processes_are_killed_and_every_call_ends_once() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest(&teller_of(1, 2, "")));
    eventually("all run", || router.row("teller").workers == 4);
    let is_over = AtomicBool::new(false);
    let (answered, lost) = std::thread::scope(|scope| {
        // Given: callers of which each loses a call only with the process that ran it.
        let call = || {
            let client = Client::connect(&router.url).unwrap();
            let teller = client.function("teller").unwrap();
            let (mut answered, mut lost) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                match teller.call("who").wait() {
                    Ok(_) => answered += 1,
                    Err(CallError::WorkerLost { .. }) => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            (answered, lost)
        };
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(call)).collect();
        // When: any process may die while the next version takes over, and once the shim with all of them.
        for (version, victim) in (2..=7).zip([0, 3, 1, 2, 5, 4]) {
            let warm = 1 + version % 3;
            told(&apply(&router, home.path(), &manifest(&teller_of(version, warm, "")), &[]));
            let living = router.workers("teller");
            signal(living[victim % living.len()], Signal::KILL);
            if version == 5 {
                signal(router.shim().unwrap(), Signal::KILL);
            }
            eventually("the version has taken over", || {
                let row = router.row("teller");
                row.workers == u64::from(2 * warm) && router.workers("teller").len() as u32 == 2 * warm
            });
            assert_eq!(ask(&Client::connect(&router.url).unwrap()), version.to_string());
        }
        is_over.store(true, Ordering::Relaxed);
        let counts = callers.into_iter().map(|caller| caller.join().unwrap());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    });
    // Expect: as many answers as the router counts, with those that this test asked for itself.
    assert!(answered > 0);
    eventually("all are counted", || router.row("teller").ok == answered + 6);
    let row = router.row("teller");
    assert_eq!((row.errors, row.otherwise), (0, lost));
}

/// Nothing that a client holds is lost on the way: results come back over the connection that asked.
#[test]
fn a_call_that_runs_while_its_program_is_replaced_is_answered_by_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest(&teller_of(1, 1, "")));
    let path = home.path().join("oracle").display().to_string();
    let oracle = UnixListener::bind(&path).unwrap();
    let client = Client::connect(&router.url).unwrap();
    let running = client.function("teller").unwrap().call(&format!("wait {path}")).start().unwrap();
    let (mut asking, _) = oracle.accept().unwrap();
    // When: version 2 serves, on the shard of that call too.
    told(&apply(&router, home.path(), &manifest(&teller_of(2, 1, "")), &[]));
    eventually("version 2 serves", || ask(&client) == "2");
    let told = router.command("functions").arg("teller").output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("of the one before finish their calls"), "{told}");
    // Expect
    asking.write_all(b"go").unwrap();
    drop(asking);
    assert_eq!(running.wait().unwrap().payload[..], *b"1");
    eventually("version 1 is gone", || router.workers("teller").len() == 2);
}
