//! How many processes there are follows the calls: none while nobody calls, one for each that waits, and what is idle goes. With
//! real processes, and kill -9 in the middle of it.

mod support;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::{CallError, Client};
use rustix::process::Signal;
use support::{Router, eventually, processes_in, signal};

/// The function of the tests below. It tells its process; asked to `wait PATH`, when somebody answers there. It does not attach
/// before the file GATE exists.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn teller() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let gate = std::env::var_os("GATE").unwrap_or_default();
    while !gate.is_empty() && !Path::new(&gate).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    serve(|call: &Call<'_>| -> Result<String, FunctionError> {
        if let Some(path) = std::str::from_utf8(call.payload())?.strip_prefix("wait ") {
            UnixStream::connect(path)?.read_to_string(&mut String::new())?;
        }
        Ok(std::process::id().to_string())
    })
    .unwrap();
}

/// A router with `echo`, and `teller` with these options.
struct Story {
    router: Router,
    home: tempfile::TempDir,
}

impl Story {
    fn new(options: &str) -> Self {
        Self::with_shards(1, options)
    }

    fn with_shards(shards: u32, options: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let gate = home.path().join("gate");
        let manifest = format!(
            "[router]\nshards = {shards}\n[functions.echo]\ncommand = [\"builtin:echo\"]\n[functions.teller]\n\
             command = [{program:?}, \"teller\", \"--exact\", \"--ignored\", \"--nocapture\"]\n\
             env = {{ GATE = {gate:?} }}\n{options}\n"
        );
        Self { router: Router::start_in(home.path(), &manifest), home }
    }

    /// Processes may attach from now on.
    fn open_gate(&self) {
        std::fs::write(self.home.path().join("gate"), "").unwrap();
    }

    fn client(&self) -> Client {
        Client::connect(&self.router.url).unwrap()
    }

    fn workers(&self) -> Vec<u32> {
        self.router.workers("teller")
    }

    /// What the shim counted.
    fn shim_counted(&self, what: &str) -> u64 {
        self.router.shim_status("teller")[what].as_u64().unwrap()
    }

    fn wait_for_workers(&self, count: usize) {
        eventually(&format!("there are {count} processes"), || {
            self.workers().len() == count
                && self.router.shim_status("teller")["places"].as_array().unwrap().len() == count
        });
    }

    fn counted(&self, what: &str) -> u64 {
        self.router.counter(&format!("engine.{what}"))
    }
}

fn ask(client: &Client) -> Result<u32, CallError> {
    let answer = client.function("teller").unwrap().call("who").wait()?;
    Ok(String::from_utf8_lossy(&answer.payload).parse().unwrap())
}

/// Calls that hold an instance until `release`.
struct Held {
    listener: UnixListener,
    calls: Vec<std::thread::JoinHandle<Result<u32, CallError>>>,
}

impl Held {
    /// So many calls, each on a connection of its own.
    fn new(story: &Story, count: u32) -> Self {
        let path = story.home.path().join(format!("hold-{count}.sock"));
        let listener = UnixListener::bind(&path).unwrap();
        let call = |_| {
            let (client, path) = (story.client(), path.clone());
            std::thread::spawn(move || {
                let answer =
                    client.function("teller").unwrap().call(&format!("wait {}", path.display())).wait()?;
                Ok(String::from_utf8_lossy(&answer.payload).parse().unwrap())
            })
        };
        Self { calls: (0..count).map(call).collect(), listener }
    }

    /// Lets each of them end, as it comes. The processes that answered.
    fn release(self) -> Vec<u32> {
        let Held { listener, calls } = self;
        let count = calls.len();
        let letting_go =
            std::thread::spawn(move || (0..count).for_each(|_| drop(listener.accept().unwrap())));
        let pids = calls.into_iter().map(|call| call.join().unwrap().unwrap()).collect();
        letting_go.join().unwrap();
        pids
    }
}

#[test]
fn of_whose_calls_too_little_is_known_for_a_prediction_is_kept_for_the_idle_timeout() {
    let story = Story::new("warm = 0\nwarm_max = 3\nidle_timeout = \"300ms\"\nwarming = \"predictive\"");
    story.open_gate();
    let client = story.client();
    let first = ask(&client).unwrap();
    assert_eq!(ask(&client).unwrap(), first);
    // When nobody calls. Expect: it goes, and the next call starts another one.
    story.wait_for_workers(0);
    assert_ne!(ask(&client).unwrap(), first);
    assert_eq!((story.counted("cold_starts"), story.counted("instances_prewarmed")), (2, 0));
}

#[test]
fn nobody_calls_and_no_process_is_there_and_the_first_call_is_held_until_one_is() {
    let story = Story::new("warm = 0\nwarm_max = 3\nidle_timeout = \"300ms\"");
    assert!(story.workers().is_empty());
    assert_eq!(story.shim_counted("warm_wanted"), 0);
    // When a call comes. Expect: a process is started, and the call waits for it.
    let client = story.client();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&client));
        story.wait_for_workers(1);
        eventually("it is said why it waits", || {
            let told = story.router.command("functions").arg("teller").output().unwrap();
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            let is_row = |line: &str| line.trim_start().starts_with("teller ") && line.contains("cold start");
            told.lines().any(is_row) && told.contains("1 of them starting")
        });
        story.open_gate();
        let pid = first.join().unwrap().unwrap();
        assert!(pid > 0);
    });
    // Expect: when nobody calls any more it goes, and that is no failure. The next call starts another one.
    story.wait_for_workers(0);
    let first = ask(&client).unwrap();
    story.wait_for_workers(0);
    assert_ne!(ask(&client).unwrap(), first);
    assert_eq!((story.shim_counted("starts"), story.shim_counted("exits")), (3, 0));
    let told = story.router.command("functions").arg("teller").output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("processes wanted, of 0 to 3") && told.contains("3 cold starts, the last took"),
        "{told}"
    );
    assert!(told.contains("3 calls waited for the first process"), "{told}");
    assert!(told.contains("processes busy on average") && told.contains("warm_max = "), "{told}");
    eventually("each of them is counted", || {
        ["cold_starts", "calls_held_for_start", "instances_asked_for"].map(|it| story.counted(it)) == [3; 3]
    });
}

#[test]
fn a_burst_starts_as_many_processes_as_it_has_calls_and_no_more_than_may_be() {
    let story = Story::new("warm = 0\nwarm_max = 4\nidle_timeout = \"1h\"");
    let two = Held::new(&story, 2);
    story.wait_for_workers(2);
    eventually("both wait", || story.router.row("teller").queued == 2);
    // Given: two processes that are starting. Expect: six more calls start two more.
    let six = Held::new(&story, 6);
    eventually("all wait", || story.router.row("teller").queued == 8);
    story.wait_for_workers(4);
    let four = story.workers();
    story.open_gate();
    let answered = [two.release(), six.release()].concat();
    assert!(answered.iter().all(|pid| four.contains(pid)), "{answered:?} of {four:?}");
    assert_eq!(story.shim_counted("starts"), 4);
    eventually("each is counted", || story.counted("instances_asked_for") == 4);
    assert_eq!(story.workers().len(), 4, "they have time left");
}

#[test]
fn idle_processes_go_and_the_minimum_stays() {
    let story = Story::with_shards(2, "warm = 1\nwarm_max = 3\nidle_timeout = \"200ms\"");
    story.open_gate();
    story.wait_for_workers(2);
    let least = story.workers();
    let held = Held::new(&story, 12);
    eventually("as many as may be", || story.workers().len() > 2);
    let answered = held.release();
    assert_eq!(answered.len(), 12);
    story.wait_for_workers(2);
    // Expect: of each shard one, and nobody had to be killed.
    let status = story.router.shim_status("teller");
    let shards: Vec<_> = status["places"].as_array().unwrap().iter().map(|place| &place["shard"]).collect();
    assert!(shards.contains(&&0.into()) && shards.contains(&&1.into()), "{status:#}");
    assert_eq!(status["exits"], 0);
    assert_eq!(least.len(), 2);
    ask(&story.client()).unwrap();
}

#[test]
fn a_call_that_comes_while_the_last_process_goes_is_answered() {
    // Given: calls that come just when a process has been idle for its time.
    let story = Story::new("warm = 0\nwarm_max = 2\nidle_timeout = \"100ms\"");
    story.open_gate();
    let client = story.client();
    let rounds = 40;
    for round in 0..rounds {
        ask(&client).unwrap_or_else(|error| panic!("round {round}: {error}"));
        std::thread::sleep(Duration::from_millis(96 + round % 9));
    }
    eventually("each is counted", || story.router.row("teller").ok == rounds);
    let row = story.router.row("teller");
    assert_eq!((row.errors, row.otherwise), (0, 0));
    assert!(story.counted("instances_released") > 0, "none of them went");
    assert_eq!(story.shim_counted("exits"), 0, "the shim knew of each that it was told to end");
}

#[test]
fn calls_are_not_held_for_a_program_that_cannot_start() {
    let manifest = "[functions.echo]\ncommand = [\"builtin:echo\"]\n[functions.broken]\ncommand = [\"/bin/false\"]\n\
                    warm = 0\nwarm_max = 4\n";
    let router = Router::start(manifest);
    let client = Client::connect(&router.url).unwrap();
    let function = client.function("broken").unwrap();
    for _ in 0..2 {
        let error = function.call("x").deadline(Duration::from_secs(30)).wait().unwrap_err();
        assert!(
            error.to_string().contains("no worker") || format!("{error:?}").contains("NoWorker"),
            "{error:?}"
        );
    }
    assert_eq!(router.shim_status("broken")["warm_wanted"], 1, "one goes on being tried");
    assert_eq!(router.row("echo").otherwise, 0);
}

#[test]
fn processes_of_a_killed_router_serve_the_next_one_and_go_when_they_are_idle() {
    let mut story = Story::new("warm = 0\nwarm_max = 3\nidle_timeout = \"1s\"");
    // Given: three are starting when the router dies.
    let held = Held::new(&story, 3);
    story.wait_for_workers(3);
    let three = story.workers();
    story.router.kill_and_start_again();
    assert!(held.calls.into_iter().all(|call| call.join().unwrap().is_err()), "its callers know");
    // Expect: the next one starts no other ones while these are on their way.
    story.open_gate();
    let pid = ask(&story.client()).unwrap();
    assert!(three.contains(&pid), "{pid} is none of {three:?}");
    story.wait_for_workers(0);
    assert_eq!((story.shim_counted("starts"), story.shim_counted("exits")), (3, 0));
}

#[test]
fn a_killed_shim_takes_its_processes_along_and_the_next_one_is_told_what_waits() {
    let story = Story::new("warm = 0\nwarm_max = 3\nidle_timeout = \"500ms\"");
    let held = Held::new(&story, 3);
    story.wait_for_workers(3);
    let before = story.workers();
    // When the shim dies while three are starting.
    signal(story.router.shim().unwrap(), Signal::KILL);
    eventually("three others are there", || {
        let now = story.workers();
        now.len() == 3 && now.iter().all(|pid| !before.contains(pid))
    });
    // Expect: the calls waited on.
    story.open_gate();
    let answered = held.release();
    assert!(answered.iter().all(|pid| !before.contains(pid)), "{answered:?}");
    story.wait_for_workers(0);
    assert_eq!(story.router.row("teller").otherwise, 0);
}

#[test]
fn a_drain_leaves_nothing_of_a_pool_that_is_growing() {
    let mut story = Story::with_shards(2, "warm = 0\nwarm_max = 3");
    story.open_gate();
    let client = story.client();
    ask(&client).unwrap();
    let held = Held::new(&story, 4);
    eventually("some run", || story.workers().len() >= 2);
    assert_eq!(held.release().len(), 4);
    assert_eq!(story.router.terminate().code(), Some(0));
    eventually("all processes are gone", || processes_in(&story.router.dir).is_empty());
}
