//! The shim with real processes: this test binary starts itself once more as the shim (`shim_process`), with shell scripts
//! for functions.
//!
//! What a shim started is recognised by its run directory, which stands in the environment of each of its processes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::FunctionName;
use protocol::attach::{self, Message};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use worker_shim::logs::LogBounds;
use worker_shim::logs::line::Line;
use worker_shim::{FunctionConfig, ShimConfig};

/// When a test gives up. Never reached on a machine that works.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
const DIGEST: u64 = 0xD16E57;
/// A function that works.
const WAIT: &str = "exec sleep 1000";

/// Not a test: the shim's process, configured by its environment.
#[test]
#[ignore = "started by the other tests"]
fn shim_process() {
    let Some(run_dir) = std::env::var_os("SHIM_TEST_DIR").map(PathBuf::from) else { return };
    let functions = std::env::var("SHIM_TEST_FUNCTIONS").unwrap();
    let config = ShimConfig {
        run_dir: run_dir.clone(),
        shards: variable("SHIM_TEST_SHARDS", 1),
        functions: functions_of(&functions),
        reattach_timeout: Duration::from_millis(variable("SHIM_TEST_REATTACH_MS", 60_000)),
        stop_grace: Duration::from_millis(200),
        config_digest: DIGEST,
    };
    let again = config.clone();
    let read_again = move || {
        let functions = functions_of(&fs::read_to_string(run_dir.join("functions")).ok()?);
        Some(ShimConfig { functions, ..again.clone() })
    };
    match worker_shim::run(config, read_again) {
        Ok(stopped) => println!("stopped: {stopped:?}"),
        Err(error) => {
            println!("failed: {error}");
            std::process::exit(1);
        }
    }
}

fn variable<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).map_or(usual, |text| text.parse().ok().expect("a number"))
}

/// Whatever tells one command from another.
fn edition_of(command: &[impl AsRef<str>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    command.iter().for_each(|word| word.as_ref().hash(&mut hasher));
    hasher.finish()
}

fn functions_of(lines: &str) -> Vec<FunctionConfig> {
    let function = |line: &str| {
        let mut fields = line.split('\t').map(String::from);
        let mut next = || fields.next().unwrap();
        let (name, warm, program) = (next(), next().parse().unwrap(), next());
        let mut command = vec![program];
        command.extend(fields);
        let processors = std::env::var("SHIM_TEST_PROCESSOR").iter().map(|it| it.parse().unwrap()).collect();
        let env = vec![("EXTRA".into(), "given".into())];
        let leave_timeout = Duration::from_millis(variable("SHIM_TEST_LEAVE_MS", 60_000));
        let (edition, warm_max) = (edition_of(&command), variable("SHIM_TEST_WARM_MAX", warm));
        let usual = FunctionConfig::default();
        let log = LogBounds { rate_max: 1 << 30, ..LogBounds::default() };
        FunctionConfig {
            name,
            edition,
            command,
            warm,
            warm_max,
            processors,
            env,
            leave_timeout,
            log,
            ..usual
        }
    };
    lines.lines().map(function).collect()
}

fn lines_of(functions: &[Function<'_>]) -> String {
    let line = |(name, warm, command): &Function<'_>| format!("{name}\t{warm}\t{}\n", command.join("\t"));
    functions.iter().map(line).collect()
}

/// A shim, and everything it started.
struct Shim {
    process: Child,
    dir: PathBuf,
}

/// Name, processes, command.
type Function<'a> = (&'a str, u32, &'a [&'a str]);

impl Shim {
    fn start(dir: &Path, functions: &[Function<'_>]) -> Self {
        Self::start_with(dir, functions, &[])
    }

    /// The same with more said: see `shim_process`.
    fn start_with(dir: &Path, functions: &[Function<'_>], variables: &[(&str, u32)]) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            // On the main thread, as in production.
            .args(["shim_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env("SHIM_TEST_DIR", dir)
            .env("SHIM_TEST_FUNCTIONS", lines_of(functions))
            .env("A_SECRET", "of the operator")
            .envs(variables.iter().map(|(name, value)| (name, value.to_string())))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, dir: dir.to_owned() }
    }

    /// Has the router ask for these from now on.
    fn reload(&self, router: &mut Router, functions: &[Function<'_>]) {
        fs::write(self.dir.join("functions"), lines_of(functions)).unwrap();
        router.send(Message::ShimReload);
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits until `shim.json` is as wanted.
    fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_until(|| {
            let Ok(text) = fs::read_to_string(self.dir.join("shim.json")) else { return false };
            last = serde_json::from_str(&text).expect("whole JSON at any time");
            is_so(&last)
        })
        .unwrap_or_else(|()| panic!("{what}: not so in {last:#}"));
        last
    }

    /// Waits until each function has as many processes as it should.
    fn wait_until_warm(&self) -> Vec<u32> {
        let status = self.wait_for("every place has a process", |status| {
            let mut functions = array(&status["functions"]);
            functions.all(|function| array(&function["places"]).all(|place| place["pid"].is_u64()))
        });
        pids(&status)
    }

    /// Waits for its end; gives what it said, and checks that it left nothing behind.
    fn wait_for_end(mut self) -> String {
        let mut said = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let exit = self.process.wait().unwrap();
        assert_eq!(started_by(&self.dir), [0; 0], "processes left behind");
        let word = said.lines().find_map(|line| line.split_once("stopped: ").or(line.split_once("failed: ")));
        let word = word.unwrap_or_else(|| panic!("{exit}: {said}")).1.to_owned();
        assert_eq!(exit.success(), said.contains("stopped: "), "{said}");
        word
    }

    /// What a log file has, each line as ` STREAM TEXT`.
    fn log(&self, file: &str) -> String {
        let bytes = fs::read(self.dir.join("logs").join(file)).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(Line::read);
        let shown =
            |line: Line<'_>| format!(" {} {}\n", line.source.name(), String::from_utf8_lossy(line.text));
        lines.map(shown).collect()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sh(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

fn wait_until(mut is_so: impl FnMut() -> bool) -> Result<(), ()> {
    let give_up_at = Instant::now() + GIVE_UP_AFTER;
    while !is_so() {
        if Instant::now() > give_up_at {
            return Err(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn pids(status: &Value) -> Vec<u32> {
    let places = array(&status["functions"]).flat_map(|function| array(&function["places"]));
    places.filter_map(|place| place["pid"].as_u64()).map(|pid| pid as u32).collect()
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// All processes there are.
fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Processes that a shim with this run directory started, and those that they started.
fn started_by(dir: &Path) -> Vec<u32> {
    let mark = format!("QUICKFIRE_ATTACH={}", dir.join("attach-0.sock").display());
    let is_marked = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    };
    processes().filter(is_marked).collect()
}

/// Dead children of a process that it has not reaped.
fn zombies_of(parent: u32) -> usize {
    let is_its_zombie = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (name, which may hold anything) state ppid ...
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
    };
    processes().filter(is_its_zombie).count()
}

/// A child that has just died is a zombie for the moment it takes to reap it, and not longer.
fn expect_no_zombies(shim: &Shim) {
    wait_until(|| zombies_of(shim.pid()) == 0).expect("every dead child is reaped");
}

#[test]
fn the_wanted_number_is_kept_warm_and_told_what_it_needs_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    // Given a function that tells what it was given: environment, stdin, descriptors, process group
    let script = "cat; \
        echo \"f=$QUICKFIRE_FUNCTION t=$QUICKFIRE_TOKEN a=$QUICKFIRE_ATTACH x=$EXTRA s=$A_SECRET\"; \
        ls -m /proc/$$/fd; \
        echo \"group=$(($(cut -d' ' -f5 /proc/$$/stat) - $$))\" >&2; \
        exec sleep 1000";
    let shim = Shim::start(dir.path(), &[("tell", 2, &sh(script)), ("other", 1, &sh(WAIT))]);
    let pids = shim.wait_until_warm();
    assert_eq!(pids.len(), 3);
    for file in ["tell.0.log", "tell.1.log"] {
        wait_until(|| shim.log(file).contains("group=")).unwrap();
        let log = shim.log(file);
        let attach = dir.path().join("attach-0.sock");
        let token = edition_of(&sh(script));
        let told = format!(" out f=tell t={token} a={} x=given s=\n", attach.display());
        assert!(log.contains(&told), "{log}");
        assert!(log.contains(" out 0, 1, 2\n"), "{log}");
        assert!(log.contains(" err group=0\n"), "{log}");
        assert!(log.contains(" shim started, pid "), "{log}");
    }
    shim.signal(Signal::TERM);
    assert_eq!(shim.wait_for_end(), "BySignal");
}

#[test]
fn a_process_is_on_its_processors_from_its_first_instruction_and_so_is_what_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    // Given: the last processor we may use. A shim with all of them, and a function that tells where it and its child are.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let last: u32 = own.rsplit([',', '-']).next().unwrap().parse().unwrap();
    let script = "grep Cpus_allowed_list /proc/$$/status; exec grep Cpus_allowed_list /proc/self/status";
    let tell: Function<'_> = ("tell", 1, &sh(script));
    let shim = Shim::start_with(dir.path(), &[tell], &[("SHIM_TEST_PROCESSOR", last)]);
    // Expect
    let line = format!(" out Cpus_allowed_list:\t{last}\n");
    wait_until(|| shim.log("tell.0.log").matches(&line).count() >= 2)
        .unwrap_or_else(|()| panic!("{}", shim.log("tell.0.log")));
    shim.wait_for("it is told", |status| status["functions"][0]["processors"][0] == last);
    shim.signal(Signal::TERM);
    assert_eq!(shim.wait_for_end(), "BySignal");
}

#[test]
fn a_killed_process_is_replaced_and_the_reason_told() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::start(dir.path(), &[("echo", 1, &sh(WAIT))]);
    let mut pid = shim.wait_until_warm()[0];
    for round in 1..=3 {
        kill(pid, Signal::KILL);
        let status = shim.wait_for("another process", |status| {
            status["functions"][0]["exits"] == round && pids(status).iter().any(|&other| other != pid)
        });
        assert_eq!(status["functions"][0]["last_exit"]["reason"], "killed by SIGKILL");
        pid = pids(&status)[0];
    }
    assert!(shim.log("echo.0.log").contains("killed by SIGKILL"));
    expect_no_zombies(&shim);
}

#[test]
fn a_program_that_exits_at_once_is_started_less_and_less_often_and_others_do_not_suffer() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let functions: [Function<'_>; 2] =
        [("broken", 1, &sh("echo no model file >&2; exit 3")), ("echo", 1, &sh(WAIT))];
    let shim = Shim::start(dir.path(), &functions);
    let status = shim.wait_for("six exits", |status| status["functions"][0]["exits"].as_u64() >= Some(6));
    // The waits between six starts are at least 10 + 20 + 40 + 80 + 160 ms.
    assert!(begun.elapsed() >= Duration::from_millis(310));
    let broken = &status["functions"][0];
    assert_eq!(broken["last_exit"]["reason"], "exited with code 3");
    assert_eq!(broken["last_exit"]["stderr"][0], "no model file");
    assert!(broken["places"][0]["failures"].as_u64() >= Some(6));
    assert_eq!(status["functions"][1]["starts"], 1);
    shim.signal(Signal::INT);
    assert_eq!(shim.wait_for_end(), "BySignal");
}

#[test]
fn a_missing_program_is_told_by_its_name_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::start(dir.path(), &[("lost", 1, &["/nowhere/program"])]);
    let tried_twice = |status: &Value| status["functions"][0]["spawn_failures"].as_u64() >= Some(2);
    let status = shim.wait_for("two failures", tried_twice);
    let reason = status["functions"][0]["last_exit"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("cannot start /nowhere/program: No such file"), "{reason}");
    assert_eq!(status["functions"][0]["starts"], 0);
    expect_no_zombies(&shim);
}

#[test]
fn stopping_leaves_nothing_behind_whatever_functions_do() {
    let dir = tempfile::tempdir().unwrap();
    let functions: [Function<'_>; 3] = [
        ("polite", 1, &sh(WAIT)),
        ("deaf", 1, &sh("trap '' TERM; echo ready; while :; do sleep 1; done")),
        // A child in the group, and one that left it and has lost its parent.
        ("parent", 1, &sh("sleep 1000 & (setsid sleep 1000 &); echo ready; wait")),
    ];
    let shim = Shim::start(dir.path(), &functions);
    shim.wait_until_warm();
    for file in ["deaf.0.log", "parent.0.log"] {
        wait_until(|| shim.log(file).contains("ready")).unwrap();
    }
    wait_until(|| started_by(dir.path()).len() >= 6).unwrap();
    shim.signal(Signal::TERM);
    let told = shim.dir.join("logs/deaf.0.log");
    assert_eq!(shim.wait_for_end(), "BySignal");
    assert!(fs::read_to_string(told).unwrap().contains("did not end in time: SIGKILL"));
}

#[test]
fn when_the_shim_is_killed_its_processes_die_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let functions: [Function<'_>; 2] =
        [("a", 3, &sh(WAIT)), ("deaf", 1, &sh("trap '' TERM; exec sleep 1000"))];
    let shim = Shim::start(dir.path(), &functions);
    shim.wait_until_warm();
    // A process in the middle of `exec` has no environment to be recognised by.
    wait_until(|| started_by(dir.path()).len() == 4).expect("four processes");
    shim.signal(Signal::KILL);
    wait_until(|| started_by(dir.path()).is_empty()).expect("all are gone");

    // Expect that the next shim finds the directory free.
    let next = Shim::start(dir.path(), &functions);
    next.wait_for("the next shim's status", |status| status["pid"] == next.pid() && pids(status).len() == 4);
}

#[test]
fn what_a_killed_shim_left_is_ended_by_the_next_one_of_its_directory_and_by_no_other() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Given: a process with a child in its group and one that has left it, and a neighbour with another directory.
    let script = "sleep 1000 & setsid sleep 1000 & wait";
    let parent: Function<'_> = ("parent", 1, &sh(script));
    let other = Shim::start(other_dir.path(), &[parent]);
    wait_until(|| started_by(other_dir.path()).len() == 3).expect("three processes");
    let shim = Shim::start(dir.path(), &[parent]);
    wait_until(|| started_by(dir.path()).len() == 3).expect("three processes");
    let parent_pid = shim.wait_until_warm()[0];
    let left: Vec<u32> = started_by(dir.path()).into_iter().filter(|pid| *pid != parent_pid).collect();
    shim.signal(Signal::KILL);
    wait_until(|| !started_by(dir.path()).contains(&parent_pid))
        .expect("the kernel ends what the shim started");
    // Expect: nobody has ended what that had started.
    assert_eq!(started_by(dir.path()).len(), 2);

    // When: another shim has something else to do. Expect: they are gone, and the neighbour's are not.
    let next = Shim::start(dir.path(), &[("echo", 1, &sh(WAIT))]);
    next.wait_for("the next shim's status", |status| status["pid"] == next.pid() && pids(status).len() == 1);
    assert!(!started_by(dir.path()).iter().any(|pid| left.contains(pid)));
    assert_eq!(started_by(other_dir.path()).len(), 3);
    for shim in [&next, &other] {
        shim.signal(Signal::TERM);
    }
    wait_until(|| started_by(dir.path()).is_empty() && started_by(other_dir.path()).is_empty())
        .expect("all are gone");
}

#[test]
fn orphans_are_adopted_and_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let script = "(sleep 0.1 &); (setsid sleep 0.1 &); exec sleep 1000";
    let shim = Shim::start(dir.path(), &[("parent", 1, &sh(script))]);
    shim.wait_for("two orphans", |status| status["orphans_reaped"].as_u64() >= Some(2));
    expect_no_zombies(&shim);
}

#[test]
fn what_a_process_leaves_in_its_group_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' HUP; sleep 1000 & echo child $!; wait";
    let shim = Shim::start(dir.path(), &[("parent", 1, &sh(script))]);
    let pid = shim.wait_until_warm()[0];
    wait_until(|| shim.log("parent.0.log").contains("child ")).unwrap();
    let log = shim.log("parent.0.log");
    let child: u32 = log.split("child ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    kill(pid, Signal::KILL);
    wait_until(|| !started_by(dir.path()).contains(&child)).expect("the child is gone too");
}

#[test]
fn a_second_shim_in_one_directory_is_refused_and_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let first = Shim::start(dir.path(), &[("echo", 1, &sh(WAIT))]);
    first.wait_until_warm();
    let mut second = Shim::start(dir.path(), &[("echo", 1, &sh(WAIT))]);
    let mut said = String::new();
    second.process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(
        said.contains(&format!(
            "a shim is already running in {} (pid {})",
            dir.path().display(),
            first.pid()
        )),
        "{said}"
    );
}

#[test]
fn output_without_end_is_kept_in_bounded_files() {
    let dir = tempfile::tempdir().unwrap();
    let script = "yes 0123456789 | head -c 5000000; echo; echo done; exec sleep 1000";
    let shim = Shim::start(dir.path(), &[("loud", 1, &sh(script))]);
    wait_until(|| shim.log("loud.0.log").ends_with("out done\n")).unwrap();
    let sizes: Vec<u64> = fs::read_dir(dir.path().join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 4);
    assert!(sizes.iter().sum::<u64>() <= LogBounds::default().size_max, "{sizes:?}");
}

/// What the shim needs of a router.
struct Router {
    stream: UnixStream,
}

impl Router {
    /// A shard that listens in this directory, and the shim that has found it.
    fn of_shard(dir: &Path, shard: u16) -> Self {
        Self::accept(&UnixListener::bind(dir.join(format!("attach-{shard}.sock"))).unwrap())
    }

    fn accept(listener: &UnixListener) -> Self {
        let mut router = Self { stream: listener.accept().unwrap().0 };
        assert!(matches!(router.receive(), Message::AttachShim { config_digest: DIGEST, .. }));
        router.send(Message::ShimAccepted { shard: 0 });
        router
    }

    /// Says that processes with this command take the calls.
    fn say_serves(&mut self, name: &str, command: &[&str]) {
        let name = FunctionName::new(name).unwrap();
        self.send(Message::EditionServes { name, edition: edition_of(command) });
    }

    fn send(&mut self, message: Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn receive(&mut self) -> Message {
        let mut bytes = Vec::new();
        loop {
            if let Some((message, _)) = attach::decode(&bytes).unwrap() {
                return message;
            }
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
    }
}

#[test]
fn the_router_hears_of_a_failing_function_and_stops_the_shim() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("attach-0.sock")).unwrap();
    let shim = Shim::start(dir.path(), &[("broken", 1, &sh("exit 9")), ("echo", 1, &sh(WAIT))]);
    let mut router = Router::accept(&listener);
    let Message::FunctionFailing { name, exit_code } = router.receive() else { panic!("something else") };
    assert_eq!((name.as_str(), exit_code), ("broken", 9));
    shim.wait_for("attached", |status| status["router"] == "attached");
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn processes_outlive_a_router_and_the_shim_finds_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("attach-0.sock")).unwrap();
    let shim = Shim::start(dir.path(), &[("echo", 2, &sh(WAIT))]);
    let router = Router::accept(&listener);
    let before = shim.wait_until_warm();
    drop(router);
    let mut router = Router::accept(&listener);
    let status = shim.wait_for("attached again", |status| status["router"] == "attached");
    assert_eq!(pids(&status), before);
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn without_a_router_everything_stops_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let functions: [Function<'_>; 1] = [("echo", 2, &sh(WAIT))];
    let shim = Shim::start_with(dir.path(), &functions, &[("SHIM_TEST_REATTACH_MS", 300)]);
    assert_eq!(shim.wait_for_end(), "RouterGone");
}

#[test]
fn processes_come_at_once_and_go_when_they_end_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("attach-0.sock")).unwrap();
    let shim = Shim::start(dir.path(), &[("echo", 2, &sh(WAIT)), ("broken", 3, &sh("exit 9"))]);
    let mut router = Router::accept(&listener);
    let count = |status: &Value, function: usize| array(&status["functions"][function]["places"]).count();
    let living = |status: &Value| pids(&json!({ "functions": [status["functions"][0]] }));
    let before = living(&shim.wait_for("both run", |status| living(status).len() == 2));

    // Expect: more are started, and those that were there are left alone.
    shim.reload(&mut router, &[("echo", 3, &sh(WAIT)), ("broken", 3, &sh("exit 9"))]);
    let status = shim.wait_for("a third one", |status| living(status).len() == 3);
    assert!(before.iter().all(|pid| living(&status).contains(pid)), "{status:#}");
    assert_eq!(status["functions"][0]["warm_wanted"], 3);

    // Expect: of too many, those that wait for a start go at once, and those that run when they end.
    shim.reload(&mut router, &[("echo", 1, &sh(WAIT)), ("broken", 0, &sh("exit 9"))]);
    let status = shim.wait_for("the broken ones are given up", |status| count(status, 1) == 0);
    assert_eq!(living(&status).len(), 3, "the router ends them, when it has no more calls for them");
    before.iter().for_each(|pid| kill(*pid, Signal::TERM));
    let status = shim.wait_for("one is left", |status| count(status, 0) == 1);
    assert!(!living(&status).is_empty() && !before.contains(&living(&status)[0]), "{status:#}");

    // Expect: and that one is kept, as ever.
    kill(living(&status)[0], Signal::KILL);
    let last = living(&status)[0];
    shim.wait_for("it is started again", |status| living(status).first().is_some_and(|pid| *pid != last));
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

/// The places of the first function, by their edition: `(place, life, pid)`.
fn places_of(status: &Value, edition: &str) -> Vec<(u64, String, Option<u32>)> {
    let of_it = array(&status["functions"][0]["places"]).filter(|place| place["edition"] == edition);
    let told = |place: &Value| {
        let life = place["life"].as_str().unwrap().to_owned();
        (place["place"].as_u64().unwrap(), life, place["pid"].as_u64().map(|pid| pid as u32))
    };
    of_it.map(told).collect()
}

fn pids_of(status: &Value, edition: &str) -> Vec<u32> {
    places_of(status, edition).into_iter().filter_map(|(_, _, pid)| pid).collect()
}

#[test]
fn another_program_runs_beside_the_one_that_serves_until_the_router_says_that_it_serves() {
    // Given: two processes of a program that serves.
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (sh(WAIT), sh("exec sleep 2000"));
    let shim = Shim::start(dir.path(), &[("echo", 2, &old)]);
    let mut router = Router::of_shard(dir.path(), 0);
    let before = shim.wait_until_warm();
    router.say_serves("echo", &old);
    // When
    shim.reload(&mut router, &[("echo", 2, &new)]);
    // Expect: two of the new one beside them, with logs of their own.
    let status = shim.wait_for("both run", |status| {
        pids_of(status, "earlier") == before && pids_of(status, "in_force").len() == 2
    });
    let numbers: Vec<_> = places_of(&status, "in_force").iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [2, 3]);
    let young = pids_of(&status, "in_force");

    // Expect: one of the old ones that dies is replaced by the old program, for nothing else serves.
    kill(before[0], Signal::KILL);
    let status = shim.wait_for("another of the old program", |status| {
        let old = pids_of(status, "earlier");
        old.len() == 2 && !old.contains(&before[0])
    });
    let replaced = pids_of(&status, "earlier");

    // When the new one serves. Expect: the old ones are left to their calls, and not replaced.
    router.say_serves("echo", &new);
    shim.wait_for("they leave", |status| {
        let lives = places_of(status, "earlier");
        lives.len() == 2 && lives.iter().all(|(_, life, _)| life == "leaving")
    });
    replaced.iter().for_each(|pid| kill(*pid, Signal::TERM));
    let status = shim.wait_for("they are gone", |status| places_of(status, "earlier").is_empty());
    assert_eq!(pids_of(&status, "in_force"), young);
    assert_eq!(status["functions"][0]["exits"], 1, "the one that was killed");
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn a_program_that_never_serves_costs_the_one_before_it_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, broken) = (sh(WAIT), sh("echo no model file >&2; exit 3"));
    let shim = Shim::start(dir.path(), &[("echo", 1, &old)]);
    let mut router = Router::of_shard(dir.path(), 0);
    let before = shim.wait_until_warm();
    router.say_serves("echo", &old);
    // When
    shim.reload(&mut router, &[("echo", 1, &broken)]);
    // Expect: the operator hears why. The router does not: calls have a process.
    let status =
        shim.wait_for("it keeps failing", |status| status["functions"][0]["exits"].as_u64() > Some(6));
    assert_eq!(status["functions"][0]["last_exit"]["stderr"][0], "no model file");
    assert_eq!(pids_of(&status, "earlier"), before);

    // When the old program is wanted again. Expect: the same process, and nothing of the other.
    shim.reload(&mut router, &[("echo", 1, &old)]);
    let status = shim.wait_for("as before", |status| places_of(status, "earlier").is_empty());
    assert_eq!(pids_of(&status, "in_force"), before);

    // When another one again, and a third before that served. Expect: two of three, of which one serves.
    shim.reload(&mut router, &[("echo", 1, &broken), ("alone", 1, &broken)]);
    shim.wait_for("it is tried", |status| pids_of(status, "earlier") == before);
    let Message::FunctionFailing { name, exit_code } = router.receive() else { panic!("something else") };
    assert_eq!((name.as_str(), exit_code), ("alone", 3), "the first word of a failing function");
    let (third, fourth) = (sh("trap '' TERM; exec sleep 3000"), sh("exec sleep 4000"));
    shim.reload(&mut router, &[("echo", 1, &third)]);
    let status = shim.wait_for("the broken one is given up", |status| {
        pids_of(status, "earlier") == before && pids_of(status, "in_force").len() == 1
    });
    // When a fourth one, whose predecessor never served either but lives. Expect: that is ended.
    let waiting = pids_of(&status, "in_force");
    shim.reload(&mut router, &[("echo", 1, &fourth)]);
    shim.wait_for("both are there", |status| pids_of(status, "earlier").len() == 2);
    let status = shim.wait_for("the third is ended", |status| pids_of(status, "earlier") == before);
    assert!(!pids_of(&status, "in_force").is_empty() && !pids_of(&status, "in_force").contains(&waiting[0]));
    // Given that a fifth is wanted, and the fourth begins to serve at that moment. Expect: it is kept, and the first leaves.
    shim.reload(&mut router, &[("echo", 1, &sh("exec sleep 5000"))]);
    router.say_serves("echo", &fourth);
    let fourth = pids_of(&status, "in_force")[0];
    let lives = |status: &Value| {
        let told = places_of(status, "earlier").into_iter();
        told.filter_map(|(_, life, pid)| Some((pid?, life))).collect::<Vec<_>>()
    };
    shim.wait_for("the fourth is kept", |status| {
        let lives = lives(status);
        lives.contains(&(before[0], "leaving".into())) && lives.contains(&(fourth, "warm".into()))
    });
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn functions_come_at_once_and_go_when_their_processes_have() {
    let dir = tempfile::tempdir().unwrap();
    let functions: [Function<'_>; 2] =
        [("echo", 2, &sh(WAIT)), ("deaf", 1, &sh("trap '' TERM; exec sleep 1000"))];
    let shim = Shim::start_with(dir.path(), &functions, &[("SHIM_TEST_LEAVE_MS", 60_000)]);
    let mut router = Router::of_shard(dir.path(), 0);
    let before = shim.wait_until_warm();
    // Expect: a function more is a process more, and the others are left alone.
    shim.reload(&mut router, &[functions[0], functions[1], ("more", 1, &sh(WAIT))]);
    let status = shim.wait_for("it runs", |status| pids(status).len() == 4);
    assert!(before.iter().all(|pid| pids(&status).contains(pid)), "{status:#}");

    // Expect: processes of a function that is gone stay until their router ends them, and are not replaced.
    shim.reload(&mut router, &[functions[1], ("more", 1, &sh(WAIT))]);
    let status = shim.wait_for("it leaves", |status| status["functions"][0]["is_removed"] == true);
    let leaving = pids_of(&status, "in_force");
    assert_eq!(leaving.len(), 2);
    kill(leaving[0], Signal::TERM);
    shim.wait_for("one is left", |status| pids_of(status, "in_force") == leaving[1..]);

    // Expect: one that comes back before it went is kept, and has as many as it is to have.
    shim.reload(&mut router, &functions);
    let status = shim.wait_for("it is back", |status| pids_of(status, "in_force").len() == 2);
    assert!(pids_of(&status, "in_force").contains(&leaving[1]), "{status:#}");
    shim.wait_for("and the other has gone or leaves", |status| {
        array(&status["functions"])
            .all(|function| function["name"] != "more" || function["is_removed"] == true)
    });
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn as_many_processes_are_kept_as_the_router_asks_for_and_those_that_it_sends_away_are_no_failures() {
    let dir = tempfile::tempdir().unwrap();
    let echo: Function<'_> = ("echo", 1, &sh(WAIT));
    let shim = Shim::start_with(dir.path(), &[echo], &[("SHIM_TEST_WARM_MAX", 3)]);
    let mut router = Router::of_shard(dir.path(), 0);
    let mut say = |count, leaving| {
        let name = FunctionName::new("echo").unwrap();
        router.send(Message::PlacesWanted { name, edition: edition_of(echo.2), count, leaving });
    };
    let lives = |status: &Value| {
        places_of(status, "in_force").into_iter().map(|(_, life, _)| life).collect::<Vec<_>>()
    };
    let first = shim.wait_until_warm();
    assert_eq!(first.len(), 1, "the least, as long as nobody says more");

    // Expect: more, but not more than may be.
    say(9, 0);
    let status = shim.wait_for("all that may be", |status| pids(status).len() == 3);
    assert_eq!(status["functions"][0]["warm_wanted"], 3);
    let three = pids(&status);
    assert_eq!(three[0], first[0]);

    // When two are wanted and one was told to end. Expect: it is left to its end, which is no failure, and not replaced.
    say(2, three[1]);
    shim.wait_for("it leaves", |status| lives(status).iter().any(|life| life == "leaving"));
    kill(three[1], Signal::TERM);
    let status = shim.wait_for("two are left", |status| places_of(status, "in_force").len() == 2);
    assert_eq!(pids(&status), [three[0], three[2]]);
    assert_eq!(
        (&status["functions"][0]["exits"], &status["functions"][0]["last_exit"]),
        (&json!(0), &Value::Null)
    );

    // When one is told to end and as many are wanted as before. Expect: another one beside it, at once.
    say(2, three[2]);
    let status = shim.wait_for("another one", |status| pids(status).len() == 3);
    assert!(lives(&status).contains(&"leaving".into()), "{status:#}");
    // Expect: one that does not end though it was told to is stopped, as is one that was never wanted again.
    let status = shim.wait_for("it is stopped", |status| pids(status).len() == 2);
    assert!(!pids(&status).contains(&three[2]));

    // When fewer are wanted and none is named. Expect: those that run are the router's to end; one that dies is not replaced.
    say(0, 0);
    let status = shim.wait_for("the least", |status| status["functions"][0]["warm_wanted"] == 1);
    let two = pids(&status);
    assert_eq!(two.len(), 2);
    kill(two[0], Signal::KILL);
    let status = shim.wait_for("one is left", |status| places_of(status, "in_force").len() == 1);
    assert_eq!(pids(&status), [two[1]]);
    // And one that dies below the least is.
    kill(two[1], Signal::KILL);
    shim.wait_for("another one", |status| pids(status).len() == 1 && pids(status) != [two[1]]);
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn a_word_about_a_function_that_is_not_known_yet_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (echo, more): (Function<'_>, Function<'_>) = (("echo", 0, &sh(WAIT)), ("more", 0, &sh(WAIT)));
    let shim = Shim::start_with(dir.path(), &[echo], &[("SHIM_TEST_WARM_MAX", 2)]);
    let mut router = Router::of_shard(dir.path(), 0);
    fs::write(dir.path().join("functions"), lines_of(&[echo, more])).unwrap();
    let name = FunctionName::new("more").unwrap();
    router.send(Message::PlacesWanted { name, edition: edition_of(more.2), count: 1, leaving: 0 });
    let status = shim.wait_for("it runs", |status| pids(status).len() == 1);
    assert_eq!(status["functions"][1]["name"], "more");
    // One that nobody knows changes nothing.
    let name = FunctionName::new("nobody").unwrap();
    router.send(Message::PlacesWanted { name, edition: 1, count: 1, leaving: 0 });
    let name = FunctionName::new("echo").unwrap();
    router.send(Message::PlacesWanted { name, edition: edition_of(echo.2), count: 1, leaving: 0 });
    let status = shim.wait_for("the other one runs", |status| pids(status).len() == 2);
    assert_eq!(array(&status["functions"]).count(), 2);
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn a_process_that_does_not_leave_is_stopped_when_no_call_of_it_can_be_left() {
    let dir = tempfile::tempdir().unwrap();
    let deaf: Function<'_> = ("deaf", 1, &sh("trap '' TERM; exec sleep 1000"));
    let shim = Shim::start_with(dir.path(), &[deaf], &[("SHIM_TEST_LEAVE_MS", 50)]);
    let mut router = Router::of_shard(dir.path(), 0);
    shim.wait_until_warm();
    shim.reload(&mut router, &[]);
    shim.wait_for("it is gone", |status| array(&status["functions"]).next().is_none());
    assert!(shim.log("deaf.0.log").contains("did not end in time: SIGKILL"), "{}", shim.log("deaf.0.log"));
    router.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}

#[test]
fn each_shard_speaks_for_its_own_processes() {
    // Given: a process for each of two shards.
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (sh(WAIT), sh("exec sleep 2000"));
    let shim = Shim::start_with(dir.path(), &[("echo", 1, &old)], &[("SHIM_TEST_SHARDS", 2)]);
    let [mut first, mut second] = [0, 1].map(|shard| Router::of_shard(dir.path(), shard));
    shim.wait_until_warm();
    [&mut first, &mut second].into_iter().for_each(|router| router.say_serves("echo", &old));
    shim.reload(&mut first, &[("echo", 1, &new)]);
    shim.wait_for("two and two", |status| pids(status).len() == 4);
    // When the new program serves in one of them. Expect: there the old one leaves.
    second.say_serves("echo", &new);
    let status = shim.wait_for("one leaves", |status| {
        places_of(status, "earlier").iter().any(|(_, life, _)| life == "leaving")
    });
    let leaving = array(&status["functions"][0]["places"]).filter(|place| place["life"] == "leaving");
    assert_eq!(leaving.map(|place| place["shard"].as_u64()).collect::<Vec<_>>(), [Some(1)]);
    // When one shard is done. Expect: the processes of the other go on.
    second.send(Message::ShimStop);
    let of_second = |place: &&Value| place["shard"] == 1;
    let status = shim.wait_for("those of the second shard end", |status| {
        array(&status["functions"][0]["places"]).filter(of_second).count() == 0
    });
    assert_eq!(pids(&status).len(), 2, "{status:#}");
    first.send(Message::ShimStop);
    assert_eq!(shim.wait_for_end(), "ByRouter");
}
