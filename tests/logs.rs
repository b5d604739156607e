//! What functions print, from their processes to `quickfire logs`, with real processes.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use quickfire_client::serve::{Call, FunctionError, eprintln, println, serve};
use rustix::process::Signal;
use serde_json::Value;
use support::{GIVE_UP, Router, echo_manifest, eventually, processes_in, quickfire, signal};

/// The function of the tests below: prints on both streams, and answers with the number of its call.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn speaker() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let speak = |call: &Call<'_>| -> Result<String, FunctionError> {
        let payload = String::from_utf8_lossy(call.payload()).into_owned();
        println!("out {payload}\nand more");
        eprintln!("err {payload}");
        std::eprintln!("unmarked {payload}");
        assert_ne!(payload, "panic", "as asked");
        Ok(format!("{:x}", call.invocation_id()))
    };
    std::println!(); // the test harness has begun a line
    serve(speak).unwrap();
}

fn speaker_manifest() -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = r#""speaker", "--exact", "--ignored", "--nocapture", "--test-threads=1""#;
    format!("[functions.native]\ncommand = [{program:?}, {arguments}]\n")
}

/// One function by a Python program.
fn python(name: &str, program: &str) -> String {
    format!("[functions.{name}]\nruntime = {name:?}\ncommand = [\"python3\", \"-c\", {program:?}]\n")
}

const EXEC: &str = r#"
import os, sys
sys.stderr.write(f"err {sys.stdin.read()}\n")
sys.stdout.write(os.environ["QUICKFIRE_CALL_ID"])
"#;

const STDIO: &str = r#"
import json, sys
sys.stderr.write("between\n")
for line in sys.stdin:
    call = json.loads(line)
    sys.stderr.write(f"err {call['body']}\n")
    sys.stderr.flush()
    print(json.dumps({"id": call["id"], "result": call["id"]}), flush=True)
"#;

const HTTP: &str = r#"
import http.server, os, sys
class Speaker(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(f"out {body}", flush=True)
        print(f"err {body}", file=sys.stderr, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["ce-callid"].encode())
    def log_message(self, *_): pass
print("between", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Speaker).serve_forever()
"#;

const LAMBDA: &str = r#"
import os, urllib.request
base = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
print("between", flush=True)
while True:
    with urllib.request.urlopen(f"{base}/next") as answer:
        id, body = answer.headers["Lambda-Runtime-Aws-Request-Id"], answer.read().decode()
    print(f"out {body}", flush=True)
    number = id.replace("-", "")[16:].lstrip("0")
    urllib.request.urlopen(urllib.request.Request(f"{base}/{id}/response", number.encode())).close()
"#;

/// What `quickfire logs` says with these arguments.
fn logs(router: &Router, arguments: &[&str]) -> Output {
    router.command("logs").args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of a call, `STREAM TEXT`, sorted: two streams have no order between them.
fn of_call(router: &Router, name: &str, call: &str) -> Vec<String> {
    let told = stdout(&logs(router, &[name, "--json", "--call", call]));
    let mut lines: Vec<String> = told
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["call"], call);
            format!("{} {}", line["stream"].as_str().unwrap(), line["text"].as_str().unwrap())
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn every_line_of_a_call_is_found_by_its_number_whatever_the_runtime() {
    let runtimes = [
        ("native", speaker_manifest(), &["err err", "out out", "out and more"][..]),
        ("exec", python("exec", EXEC), &["err err"]),
        ("stdio", python("stdio", STDIO), &["err err"]),
        ("http", python("http", HTTP), &["err err", "out out"]),
        ("lambda", python("lambda", LAMBDA), &["out out"]),
    ];
    let manifest: String = runtimes.iter().map(|(_, table, _)| table.as_str()).collect();
    let router = Router::start(&(echo_manifest(1) + &manifest));
    for (name, _, expected) in &runtimes {
        let calls: Vec<String> = (0..3)
            .map(|number| {
                stdout(&router.invoke(&[name, "--data", &format!("{name}-{number}")])).trim().to_owned()
            })
            .collect();
        for (number, call) in calls.iter().enumerate() {
            let mut expected: Vec<_> = expected
                .iter()
                .map(|line| {
                    if line.ends_with("more") {
                        (*line).to_owned()
                    } else {
                        format!("{line} {name}-{number}")
                    }
                })
                .collect();
            expected.sort();
            eventually("the shim has read what was printed", || {
                of_call(&router, name, call).len() >= expected.len()
            });
            assert_eq!(of_call(&router, name, call), expected);
        }
        // Expect: what is of no call is there all the same, and of none.
        let told = stdout(&logs(&router, &[name]));
        let unmarked = match *name {
            "native" => "unmarked native-1",
            "exec" => "started, pid",
            _ => "between",
        };
        let line = told.lines().find(|line| line.contains(unmarked)).unwrap_or_else(|| panic!("{told}"));
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!((words[1], words[3]), (&*format!("{name}.0"), "-"), "{line}");
    }
    // A panic is of its call, and only that much of it: what the hook of `std` prints knows no call.
    let output = router.invoke(&["native", "--data", "panic"]);
    assert_eq!(output.status.code(), Some(1));
    eventually("the panic is logged", || {
        let told = stdout(&logs(&router, &["native", "--stderr", "--json"]));
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).any(|line| {
            line["text"].as_str().unwrap().starts_with("the call panicked: ") && line["call"].is_string()
        })
    });
}

#[test]
fn half_a_line_of_a_process_that_was_killed_is_a_line_of_its_call() {
    let table =
        "[functions.half]\nruntime = \"exec\"\ncommand = [\"sh\", \"-c\", \"printf half >&2; kill -9 $$\"]\n";
    let router = Router::start(&(echo_manifest(1) + table));
    for _ in 0..2 {
        assert_eq!(router.invoke(&["half", "--data", ""]).status.code(), Some(1));
    }
    let lines = || {
        let told = stdout(&logs(&router, &["half", "--stderr", "--json"]));
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    eventually("both are logged", || lines().iter().filter(|line| line["text"] == "half").count() == 2);
    let calls: Vec<_> =
        lines().into_iter().filter(|line| line["text"] == "half").map(|line| line["call"].clone()).collect();
    assert!(calls[0].is_string() && calls[1].is_string() && calls[0] != calls[1], "{calls:?}");
}

/// `quickfire logs ... -f`, line by line.
struct Followed {
    child: Child,
    lines: Receiver<String>,
    reader: JoinHandle<()>,
}

impl Followed {
    fn start(router: &Router, name: &str) -> Followed {
        let mut command = router.command("logs");
        let mut child = command.args([name, "-f"]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Of no bound: a test that waits for a line reads them all.
        let (send, lines) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            // Until the end, or until the test has seen enough and closes both.
            let _ = stdout.lines().try_for_each(|line| send.send(line.unwrap()));
        });
        Followed { child, lines, reader }
    }

    /// Reads until a line has this.
    fn until(&self, text: &str) {
        loop {
            let line = self.lines.recv_timeout(GIVE_UP);
            let line = line.unwrap_or_else(|error| panic!("{error} while waiting for a line with {text}"));
            if line.contains(text) {
                return;
            }
        }
    }
}

#[test]
fn following_goes_on_across_deaths_new_instances_rotation_and_the_routers_end() {
    let home = tempfile::tempdir().unwrap();
    let table = |options: &str| {
        let script = "for i in $(seq 100); do echo $i $(head -c 50 /dev/zero | tr '\\0' x); done >&2; echo last $(cat) >&2";
        format!(
            "{}[functions.say]\nruntime = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n{options}",
            echo_manifest(1)
        )
    };
    let mut router = Router::start_in(home.path(), &table("log_size_max = \"64KiB\"\n"));
    let followed = Followed::start(&router, "say");
    followed.until(" say.0 ");
    // Expect: 10 KiB with each call, so that files come and go, and nothing is missing
    for call in 0..10 {
        stdout(&router.invoke(&["say", "--data", &format!("{call}")]));
        (1..=100).for_each(|number| followed.until(&format!(" err {number} xxxxx")));
        followed.until(&format!(" err last {call}"));
    }
    let names = || std::fs::read_dir(router.dir.join("logs")).unwrap().map(|entry| entry.unwrap());
    let files = names().filter(|entry| entry.file_name().to_str().unwrap().starts_with("say.0."));
    let sizes: Vec<u64> = files.map(|entry| entry.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 4 && sizes.iter().sum::<u64>() <= 64 << 10, "{sizes:?}");

    // When: a process dies. Expect: its end and its successor's beginning.
    signal(router.workers("say")[0], Signal::KILL);
    followed.until("killed by SIGKILL");
    followed.until("started, pid");

    // When: there is another instance.
    std::fs::write(home.path().join("quickfire.toml"), table("warm = 2\n")).unwrap();
    signal(router.child.id(), Signal::HUP);
    followed.until(" say.1 ");

    // When: router and shim end, and others come. Expect: the same stream of lines.
    assert_eq!(router.terminate().code(), Some(0));
    router.start_again();
    followed.until("started, pid");

    // When: nobody reads any more. Expect: it ends.
    let Followed { mut child, lines, reader } = followed;
    drop(lines);
    stdout(&router.invoke(&["say", "--data", "more than the reader takes before it ends"]));
    reader.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_dead_routers_logs_are_read_and_a_wrong_question_is_told_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let mut router = Router::start_in(home.path(), &(echo_manifest(2) + &speaker_manifest()));
    let call = stdout(&router.invoke(&["native", "--data", "x"])).trim().to_owned();
    eventually("it is logged", || !of_call(&router, "native", &call).is_empty());
    let check = |router: &Router| {
        assert_eq!(of_call(router, "native", &call), ["err err x", "out and more", "out out x"]);
        let unknown = logs(router, &["nativ"]);
        let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
        assert_eq!(unknown.status.code(), Some(3), "{told}");
        assert!(told.contains("`nativ`") && told.contains("echo, native"), "{told}");
        let one = stdout(&logs(router, &["echo", "--instance", "1"]));
        assert!(one.contains(" echo.1 ") && !one.contains(" echo.0 "), "{one}");
        assert_eq!(stdout(&logs(router, &["echo", "--stderr"])), "", "it said nothing");
        assert_eq!(stdout(&logs(router, &["native", "--call", "0"])), "", "no call of ours");
    };
    check(&router);
    // When: killed, router and shim and all.
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    eventually("nobody is left", || {
        processes_in(&router.dir).into_iter().for_each(|pid| signal(pid, Signal::KILL));
        processes_in(&router.dir).is_empty()
    });
    check(&router);
    for (arguments, code) in
        [(&["native", "--call", "xyz"][..], 2), (&["native", "--since", "5"], 2), (&[], 2)]
    {
        assert_eq!(logs(&router, arguments).status.code(), Some(code), "{arguments:?}");
    }
    let nowhere = home.path().join("nowhere");
    let output = quickfire().args(["logs", "echo", "--run-dir"]).arg(&nowhere).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("no shim has kept logs in"), "{told}");
}

#[test]
fn a_flood_holds_nobody_up_and_leaves_a_bounded_log_that_owns_up() {
    // Given: 64 MB on stderr, some of it no text, as fast as it goes, and a last word on stdout's log
    let script = "head -c 64000000 /dev/urandom >&2; head -c 3000000 /dev/zero >&2; echo; echo done";
    let table = format!(
        "[functions.flood]\nruntime = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\ntimeout = \"10m\"\n"
    );
    let router = Router::start(&(echo_manifest(1) + &table));
    let mut flood = router.command("invoke");
    flood.args(["flood", "--data", "", "--deadline", "10m", "--connect", &router.url]);
    let mut flood = flood.stdout(Stdio::piped()).spawn().unwrap();
    // Expect: the neighbour, whose output the same shim reads, is answered meanwhile.
    let mut count = 0;
    while flood.try_wait().unwrap().is_none() {
        assert!(router.invoke(&["echo", "--data", "x"]).status.success());
        count += 1;
    }
    assert!(count > 0);
    let mut answer = String::new();
    flood.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("done\n"), "{answer:?}");
    eventually("the shim says what it dropped", || {
        router.shim_status("flood")["log_lines_dropped"].as_u64().unwrap() > 1000
    });
    let size: u64 = std::fs::read_dir(router.dir.join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < 3 << 20, "{size}");
    // Expect: readable to the end, and no byte of it a command to a terminal.
    let told = stdout(&logs(&router, &["flood"]));
    assert!(!told.bytes().any(|byte| byte.is_ascii_control() && byte != b'\n' && byte != b'\t'));
    // When: the process ends. Expect: the count stands in the log
    signal(router.workers("flood")[0], Signal::KILL);
    eventually("it is told where the lines would be", || {
        stdout(&logs(&router, &["flood"])).contains("were dropped here: more than log_rate_max")
    });
}
