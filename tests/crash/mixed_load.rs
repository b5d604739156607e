//! Calls of every runtime, with deadlines and without, important and not, some taken back: and a judge of how each of them ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use quickfire_client::{Answer, CallError, Client, Criticality, Disconnect};

use super::{Random, function_arguments};

/// Who calls at once: half of them any function, and half of them the native ones, which would otherwise wait for the others.
const CALLERS: u64 = 4;
/// Calls that one caller has on their way at once, at most: of any function,
const BATCH_MAX: u64 = 8;
/// and of native ones, so that some lie in a ring, not begun, behind one that runs.
const NATIVE_BATCH_MAX: u64 = 64;

/// Writes down what it is given, and gives it back: whoever runs a call twice is found out.
const SCRIPT: &str = "read -r x; echo \"$x\" >> \"$LEDGER\"; printf %s \"$x\"";
const LINES: &str = r#"
while read -r line; do
    id=${line#*'"id":"'}; id=${id%%'"'*}
    body=${line#*'"body":"'}; body=${body%%'"'*}
    echo "{\"id\":\"$id\",\"result\":\"$body\"}"
done"#;
const SERVER: &str = r#"
import http.server, os, socketserver
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
    def address_string(self): return "relay"
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True
Server(os.environ["SOCKET"], Echo).serve_forever()
"#;

/// The functions, and how many processes each keeps warm.
pub const FUNCTIONS: [(&str, u64); 6] =
    [("echo", 3), ("again", 2), ("ledger", 2), ("lines", 1), ("server", 1), ("script", 1)];
/// The first of them are native.
const NATIVE_COUNT: u64 = 3;

/// Each of them in its own way: native and retried as usual, copied and idempotent with three retries, native with a ledger, and a program
/// behind a relay for each runtime that a plain host can run.
pub fn manifest(run_dir: &Path, ledger: &Path) -> String {
    let ledger_function = function_arguments("ledger");
    // What a relay starts is known by this in its environment.
    let env = format!("env = {{ CRASH_RUN_DIR = {run_dir:?}, LEDGER = {ledger:?} }}\n");
    format!(
        "[functions.echo]\ncommand = [\"builtin:echo\"]\nwarm = 3\n\
         [functions.again]\ncommand = [\"builtin:echo\"]\nidempotent = true\nretries = 3\nsnapshot = true\nwarm = 2\n\
         [functions.ledger]\ncommand = {ledger_function}\nwarm = 2\n{env}\
         [functions.lines]\nruntime = \"stdio\"\ncommand = [\"sh\", \"-c\", {LINES:?}]\n{env}\
         [functions.server]\nruntime = \"http\"\nhttp_listen = \"socket\"\ncommand = [\"python3\", \"-c\", {SERVER:?}]\n{env}\
         [functions.script]\nruntime = \"exec\"\ncommand = [\"sh\", \"-c\", {SCRIPT:?}]\nretries = 0\n{env}"
    )
}

/// What calls have come to.
#[derive(Default)]
pub struct Tally {
    pub ok: AtomicU64,
    /// By the kind of end.
    pub ends: Mutex<BTreeMap<String, u64>>,
    /// What must be in the ledger.
    pub written: Mutex<Vec<String>>,
    /// Ends that cannot be.
    pub wrong: Mutex<Vec<String>>,
    /// Odd while there is no router; a call during which it changes may lose its connection.
    pub router_deaths: AtomicU64,
    stop: AtomicBool,
}

/// The callers.
pub struct MixedLoad {
    pub tally: Arc<Tally>,
    callers: Vec<JoinHandle<()>>,
}

impl MixedLoad {
    pub fn start(url: &str, seed: u64) -> MixedLoad {
        let tally = Arc::new(Tally::default());
        let caller = |number| {
            let (tally, url) = (Arc::clone(&tally), url.to_owned());
            std::thread::spawn(move || call(&tally, &url, number, Random(seed ^ (number + 1))))
        };
        MixedLoad { callers: (0..CALLERS).map(caller).collect(), tally }
    }

    /// Every call that was begun has ended when this returns.
    pub fn stop(self) -> Arc<Tally> {
        self.tally.stop.store(true, Ordering::Relaxed);
        self.callers.into_iter().for_each(|caller| caller.join().unwrap());
        self.tally
    }
}

fn call(tally: &Tally, url: &str, caller: u64, mut random: Random) {
    let is_on = || !tally.stop.load(Ordering::Relaxed);
    let mut sequence = 0;
    let mut connected = None;
    while is_on() {
        let deaths = tally.router_deaths.load(Ordering::SeqCst);
        let Some(client) = connected.as_ref() else {
            connected = Client::connect(url).ok();
            continue;
        };
        let (batch_max, kinds) = if caller.is_multiple_of(2) {
            (NATIVE_BATCH_MAX, NATIVE_COUNT)
        } else {
            (BATCH_MAX, FUNCTIONS.len() as u64)
        };
        let mut calls = Vec::new();
        for _ in 0..=random.below(batch_max) {
            let (name, _) = FUNCTIONS[random.below(kinds) as usize];
            let Ok(function) = client.function(name) else { continue };
            sequence += 1;
            let payload = format!("{caller}-{sequence}");
            let mut builder = function.call(&payload);
            builder = builder.criticality(match random.below(4) {
                0 => Criticality::Low,
                1 => Criticality::Normal,
                2 => Criticality::High,
                _ => Criticality::Critical,
            });
            let deadline_ms = [5, 50, 1_000, 10_000, 0][random.below(5) as usize];
            if deadline_ms > 0 {
                builder = builder.deadline(Duration::from_millis(deadline_ms));
            }
            let expected =
                Expected { name, payload: payload.clone(), may_expire: deadline_ms > 0, is_cancelled: false };
            calls.push((expected, builder.start()));
        }
        for (mut expected, started) in calls {
            let ended = started.and_then(|call| {
                if random.below(20) == 0 {
                    expected.is_cancelled = true;
                    call.cancel();
                }
                call.wait()
            });
            let has_router = deaths == tally.router_deaths.load(Ordering::SeqCst) && deaths.is_multiple_of(2);
            tally.note(&expected, ended, has_router);
        }
    }
}

struct Expected {
    name: &'static str,
    payload: String,
    may_expire: bool,
    is_cancelled: bool,
}

impl Tally {
    fn note(&self, expected: &Expected, ended: Result<Answer, CallError>, has_router: bool) {
        let told = format!("{} {}: {ended:?}", expected.name, expected.payload);
        match judge(expected, ended, has_router) {
            Some(kind) => {
                *self.ends.lock().unwrap().entry(format!("{} {kind}", expected.name)).or_default() += 1;
                if kind == "ok" {
                    self.ok.fetch_add(1, Ordering::Relaxed);
                    if matches!(expected.name, "ledger" | "script") {
                        self.written.lock().unwrap().push(expected.payload.clone());
                    }
                }
            }
            None => self.wrong.lock().unwrap().push(told),
        }
    }
}

/// The kind of end; none if a call like this cannot end so, whatever was killed.
fn judge(expected: &Expected, ended: Result<Answer, CallError>, has_router: bool) -> Option<String> {
    let error = match ended {
        Ok(answer) => return (answer.payload == expected.payload.as_bytes()).then(|| "ok".to_owned()),
        Err(error) => error,
    };
    match error {
        CallError::FunctionError(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let word = text.split(':').next().unwrap_or_default().to_owned();
            let of_a_relay = matches!(expected.name, "lines" | "server" | "script");
            let known = [
                "cannot_connect",
                "closed",
                "died",
                "exit",
                "init_failed",
                "output_closed",
                "partial_line",
                "paused",
                "pipe",
                "starting",
                "stopped",
                "withdrawn",
            ];
            (of_a_relay && known.contains(&&*word)).then_some(word)
        }
        CallError::Refused { status, .. } => {
            let known = ["no_worker", "deadline_unreachable", "queue_full"];
            known.contains(&status.name()).then(|| status.name().to_owned())
        }
        CallError::Expired(how) => expected.may_expire.then(|| format!("expired: {how}")),
        CallError::Cancelled { .. } => expected.is_cancelled.then(|| "cancelled".to_owned()),
        CallError::WorkerLost { status, .. } => {
            ["worker_lost", "quarantined"].contains(&status.name()).then(|| status.name().to_owned())
        }
        // A second answer, or one to nobody's call, is `RouterMisbehaved`.
        CallError::Disconnected { cause: Disconnect::RouterMisbehaved(_), .. } => None,
        CallError::Disconnected { .. } => (!has_router).then(|| "disconnected".to_owned()),
        _ => None,
    }
}
