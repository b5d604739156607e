//! Programs that know nothing of Quickfire as functions, with real processes: the examples, and what becomes of a program when
//! its call, its relay or its shim ends first.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use support::{Router, children, echo_manifest, eventually, lives, signal};

/// The functions of the examples.
fn examples() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions");
    let manifest = std::fs::read_to_string(format!("{folder}/runtimes.toml")).unwrap();
    echo_manifest(1) + &manifest.replace("[\"./", &format!("[\"{folder}/"))
}

/// One function by a shell script.
fn function(name: &str, runtime: &str, script: &str) -> String {
    format!("[functions.{name}]\nruntime = {runtime:?}\ncommand = [\"sh\", \"-c\", {script:?}]\n")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// A program of two processes; gives both once both run.
fn family(router: &Router, name: &str) -> (u32, Vec<u32>) {
    let mut found = (0, Vec::new());
    eventually("relay, program and what that started run", || {
        let Some(relay) = router.workers(name).first().copied() else { return false };
        let programs = children(relay);
        let all: Vec<_> =
            programs.iter().copied().chain(programs.iter().copied().flat_map(children)).collect();
        found = (relay, all);
        found.1.len() == 2
    });
    found
}

/// Answers every call, with a child that lives longer than any test waits. (When a test has ended and all is killed at once, nobody is
/// left to end that child; it then ends by itself.)
const LONG_LIVED: &str = r#"
    sleep 100 &
    while read -r call; do
        id=${call#*:\"}; id=${id%%\"*}
        case $call in *hang*) sleep 100;; esac
        echo "{\"id\":\"$id\",\"result\":\"$$\"}"
    done"#;

#[test]
fn the_examples_do_their_work() {
    let router = Router::start(&examples());
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions/samples");

    // Expect: a line for each path, the most bytes first.
    let log = stdout(&router.invoke(&["access-log", "--in", &format!("{samples}/access.log")]));
    let first = log.lines().next().unwrap();
    assert!(first.starts_with('/') && first.contains(" requests="), "{log}");
    assert_eq!(log.lines().count(), 7, "{log}");
    let refused = stderr(&router.invoke(&["access-log", "--data", "no log"]), 1);
    assert!(refused.contains("line 1 is not in common log format"), "{refused}");

    // Expect: the model, learned once, tells spam from the rest.
    for (text, is_spam) in [("claim your free prize now", true), ("see you at the meeting tomorrow", false)] {
        let verdict = stdout(&router.invoke(&["spam", "--data", text]));
        let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(verdict["spam"], is_spam, "{text}: {verdict}");
    }

    // Expect: 2 x 8.90 + 7.75 + 3 x 2.40, and 5.5 percent; or why not.
    let priced = stdout(&router.invoke(&["orders", "--in", &format!("{samples}/order.json")]));
    let priced: serde_json::Value = serde_json::from_str(&priced).unwrap();
    assert_eq!((&priced["net"], &priced["total"]), (&"32.75".into(), &"34.55".into()), "{priced}");
    let refused = stderr(&router.invoke(&["orders", "--data", "{\"country\":\"FR\"}"]), 1);
    assert!(
        refused.contains("status: the program answered 422") && refused.contains("KeyError('lines')"),
        "{refused}"
    );

    let log = stdout(&router.command("logs").arg("spam").output().unwrap());
    assert!(log.contains(" err learned from 24 messages"), "{log}");
}

#[test]
fn a_program_has_no_descriptor_but_its_three_and_knows_nothing_of_its_router() {
    let tables = "[functions.fds]\nruntime = \"exec\"\ncommand = [\"ls\", \"/proc/self/fd\"]\n\
                  [functions.env]\nruntime = \"exec\"\ncommand = [\"env\"]\nenv = { LEVEL = \"3\" }\n";
    let router = Router::start(&(echo_manifest(1) + tables));
    // Expect: those, and the directory that is listed.
    assert_eq!(
        stdout(&router.invoke(&["fds", "--data", ""])).split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    let told = stdout(&router.invoke(&["env", "--data", ""]));
    for expected in ["LEVEL=3\n", "QUICKFIRE_FUNCTION=env\n", "QUICKFIRE_CALL_ID=", "QUICKFIRE_DEADLINE_MS="]
    {
        assert!(told.contains(expected), "{told}");
    }
    for withheld in ["QUICKFIRE_TOKEN", "QUICKFIRE_ATTACH", "QUICKFIRE_REATTACH_MS"] {
        assert!(!told.contains(withheld), "{told}");
    }
}

#[test]
fn the_end_of_stderr_reaches_caller_and_log() {
    let broken = function("broken", "exec", "echo no such table >&2; exit 9");
    let router = Router::start(&(echo_manifest(1) + &broken));
    let told = stderr(&router.invoke(&["broken", "--data", "x"]), 1);
    assert!(
        told.contains("exit: the program ended (exit status: 9)") && told.contains("no such table"),
        "{told}"
    );
    let log = stdout(&router.command("logs").arg("broken").output().unwrap());
    assert!(log.contains(" err no such table"), "{log}");
}

#[test]
fn a_result_over_the_limit_has_its_status() {
    let mut manifest = echo_manifest(1);
    for (name, runtime, script) in [
        ("large-exec", "exec", "cat /dev/zero"),
        ("large-stdio", "stdio", r#"read -r x; printf '{"id":'; tr '\0' x < /dev/zero"#),
    ] {
        manifest.push_str(&function(name, runtime, script));
        manifest.push_str("payload_size_max = \"4KiB\"\n");
    }
    let router = Router::start(&manifest);
    let told = stderr(&router.invoke(&["large-exec", "--data", "x"]), 1);
    assert!(told.contains("result_too_large"), "{told}");
    let told = stderr(&router.invoke(&["large-stdio", "--data", "x"]), 1);
    assert!(told.contains("line_too_large: "), "{told}");
}

#[test]
fn a_call_past_its_time_ends_program_and_children_and_not_the_relay() {
    let manifest = echo_manifest(1)
        + &function("long", "stdio", LONG_LIVED)
        + &function("short", "exec", "sleep 100 & sleep 100");
    let router = Router::start(&manifest);
    for name in ["long", "short"] {
        let late = router.invoke(&[name, "--data", "hang", "--deadline", "500ms"]);
        stderr(&late, 3);
        let Some(relay) = router.workers(name).first().copied() else { panic!("no relay of {name}") };
        eventually("its processes are those of a fresh program", || children(relay).len() <= 1);
        assert!(lives(relay), "{name}: the relay goes on");
    }
    let (relay, before) = family(&router, "long");
    stderr(&router.invoke(&["long", "--data", "hang", "--deadline", "500ms"]), 3);
    eventually("all of it has ended", || before.iter().all(|pid| !lives(*pid)));
    stdout(&router.invoke(&["long", "--data", "x"]));
    assert_eq!(router.workers("long"), [relay]);
}

#[test]
fn a_server_on_a_socket_serves_and_leaves_nothing_in_the_run_directory() {
    let server = "import http.server, os, socketserver\n\
                  class Handler(http.server.BaseHTTPRequestHandler):\n  \
                    def do_POST(self): self.send_response(200); self.end_headers(); self.wfile.write(b'on a socket')\n  \
                    def address_string(self): return 'socket'\n\
                  socketserver.ThreadingUnixStreamServer(os.environ['SOCKET'], Handler).serve_forever()";
    let table = format!(
        "[functions.server]\nruntime = \"http\"\nhttp_listen = \"socket\"\ncommand = [\"python3\", \"-c\", {server:?}]\n"
    );
    let mut router = Router::start(&(echo_manifest(1) + &table));
    assert_eq!(stdout(&router.invoke(&["server", "--data", ""])).trim_end(), "on a socket");
    assert!(router.terminate().success());
    let names = std::fs::read_dir(&router.dir).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("http-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_program_and_what_it_started_die_with_their_relay() {
    let router = Router::start(&(echo_manifest(1) + &function("long", "stdio", LONG_LIVED)));
    let (relay, before) = family(&router, "long");
    signal(relay, Signal::KILL);
    eventually("all of it has ended", || before.iter().all(|pid| !lives(*pid)));
    eventually("another one serves", || router.invoke(&["long", "--data", "x"]).status.success());
}

#[test]
fn a_program_dies_with_its_shim() {
    let router =
        Router::start(&(echo_manifest(1) + &function("long", "stdio", "while read -r x; do :; done")));
    eventually("the program runs", || {
        router.workers("long").first().is_some_and(|pid| children(*pid).len() == 1)
    });
    let program = children(router.workers("long")[0]);
    signal(router.shim().unwrap(), Signal::KILL);
    eventually("it has ended", || program.iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_router_that_stops_leaves_no_program() {
    let mut router = Router::start(&(echo_manifest(1) + &function("long", "stdio", LONG_LIVED)));
    let (relay, mut processes) = family(&router, "long");
    processes.push(relay);
    assert!(router.terminate().success());
    eventually("all have ended", || processes.iter().all(|pid| !lives(*pid)));
}

#[test]
fn a_program_is_asked_to_end_before_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, bye) = (dir.path().join("ready"), dir.path().join("bye"));
    let script = format!(
        "trap 'echo > {}; exit' TERM; echo > {}; while :; do sleep 0.01; done",
        bye.display(),
        ready.display()
    );
    let mut router = Router::start(&(echo_manifest(1) + &function("long", "stdio", &script)));
    // One whose relay has not attached yet has no call to finish, and is not asked.
    eventually("it runs and its relay is attached", || ready.exists() && router.row("long").workers == 1);
    assert!(router.terminate().success());
    eventually("it said good-bye", || bye.exists());
}

#[test]
fn a_killed_router_leaves_the_program_warm() {
    let mut router = Router::start(&(echo_manifest(1) + &function("long", "stdio", LONG_LIVED)));
    let before = stdout(&router.invoke(&["long", "--data", "x"]));
    router.kill_and_start_again();
    let mut after = String::new();
    eventually("it serves again", || {
        let output = router.invoke(&["long", "--data", "x"]);
        after = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
    });
    assert_eq!(before, after, "the same process answers");
}

#[test]
fn a_program_beside_its_file_is_found_though_the_file_was_named_by_a_relative_path() {
    // Given: a folder with a file and a program, and a router that is started from the folder above.
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("functions");
    std::fs::create_dir(&folder).unwrap();
    let manifest = echo_manifest(1) + "[functions.beside]\nruntime = \"exec\"\ncommand = [\"./answer.sh\"]\n";
    std::fs::write(folder.join("quickfire.toml"), manifest).unwrap();
    std::fs::write(folder.join("answer.sh"), "#!/bin/sh\necho beside\n").unwrap();
    std::fs::set_permissions(folder.join("answer.sh"), Permissions::from_mode(0o755)).unwrap();
    let url = format!("unix://{}/run/router.sock", home.path().display());
    let mut router = support::quickfire()
        .current_dir(home.path())
        .args(["up", "--config", "functions/quickfire.toml", "--listen", &url])
        .env("QUICKFIRE_DIR", home.path().join("run"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Expect
    let call = || {
        let arguments = ["invoke", "beside", "--data", "x", "--deadline", "1s", "--connect", &url];
        support::quickfire().args(arguments).output().unwrap()
    };
    eventually("the program answers", || call().stdout == b"beside\n");
    signal(router.id(), Signal::TERM);
    assert!(router.wait().unwrap().success());
}

#[test]
fn a_server_that_is_not_well_is_replaced_between_two_calls_and_one_that_is_well_is_not() {
    // Given: a server that a call can make ill.
    let program = r#"
import http.server, os
ill = False
class Server(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.answer(503 if ill else 200, b"")
    def do_POST(self):
        global ill
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"ill": ill = True
        self.answer(200, str(os.getpid()).encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Server).serve_forever()
"#;
    let table = format!(
        "[functions.server]\nruntime = \"http\"\ncommand = [\"python3\", \"-c\", {program:?}]\nhttp_ready_path = \"/\"\n\
         health_interval = \"20ms\"\nhealth_timeout = \"1m\"\nhealth_failures = 5\n"
    );
    let router = Router::start(&(echo_manifest(1) + &table));
    let ask = |data: &str| stdout(&router.invoke(&["server", "--data", data, "--deadline", "30s"]));
    let first = ask("who");
    assert_eq!(ask("who"), first);
    let exits = || router.shim_status("server")["exits"].as_u64().unwrap();
    let exits_before = exits();

    // When: it is ill. Expect: another answers, and why is told.
    ask("ill");
    eventually("the relay ends", || exits() > exits_before);
    assert_ne!(ask("who"), first);
    let last = router.shim_status("server")["last_exit"].clone();
    let told = last["stderr"].as_array().unwrap().last().unwrap().as_str().unwrap();
    assert!(told.starts_with("relay: not healthy, 5 in a row: GET / is answered 503"), "{last}");
}
