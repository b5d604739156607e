//! A real router with real functions for tests: `quickfire up` in a directory and on a port of its own.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up: generous, because it is no measure of speed.
pub const GIVE_UP: Duration = Duration::from_secs(60);

/// A running `quickfire up`; killed with everything below it when dropped.
pub struct Router {
    pub child: Child,
    pub url: String,
    pub dir: PathBuf,
    home: PathBuf,
    filter: Filter,
    _home: Option<TempDir>,
}

/// What stands between a router and the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Nothing.
    None,
    /// io_uring_setup is denied, as in most containers.
    NoIoUring,
    /// The profile for containers that we ship.
    OurProfile,
    /// No privileges, where the tests run as root.
    OrdinaryUser,
}

/// What `quickfire functions` says of one function.
#[derive(Debug, PartialEq, Eq)]
pub struct FunctionRow {
    pub workers: u64,
    pub queued: u64,
    pub ok: u64,
    pub errors: u64,
    pub otherwise: u64,
}

impl Router {
    /// Starts a router with these manifest tables (see `functions`), and waits until `echo` answers.
    pub fn start(manifest: &str) -> Self {
        Self::start_behind(Filter::None, manifest)
    }

    /// The same behind a filter, which all processes of the router inherit.
    pub fn start_behind(filter: Filter, manifest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut router = Self::start_as(home.path(), manifest, filter);
        router._home = Some(home);
        router
    }

    /// The same in a directory that outlives the router.
    pub fn start_in(home: &Path, manifest: &str) -> Self {
        Self::start_as(home, manifest, Filter::None)
    }

    /// The same in a directory that outlives the router, behind a filter.
    pub fn start_in_behind(home: &Path, manifest: &str, filter: Filter) -> Self {
        Self::start_as(home, manifest, filter)
    }

    /// What a router says that must not start.
    pub fn refused_behind(filter: Filter, home: &Path, manifest: &str) -> String {
        std::fs::write(home.join("quickfire.toml"), manifest).unwrap();
        let mut child = up(home, "quickfire://127.0.0.1:0", filter);
        assert_eq!(child.wait().unwrap().code(), Some(2));
        std::fs::read_to_string(home.join("up.log")).unwrap()
    }

    fn start_as(home: &Path, manifest: &str, filter: Filter) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("quickfire://127.0.0.1:{port}");
        std::fs::write(home.join("quickfire.toml"), manifest).unwrap();
        let (child, dir) = (up(home, &url, filter), home.join("run"));
        let mut router = Self { child, url, dir, home: home.to_owned(), filter, _home: None };
        router.wait_until_it_answers();
        router
    }

    /// kill -9, and at once another router in the same place with the same addresses.
    pub fn kill_and_start_again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }

    /// Another router in the place of one that has ended, with the same addresses.
    pub fn start_again(&mut self) {
        self.child = up(&self.home, &self.url, self.filter);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        eventually("the router answers its first call", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("quickfire up ended with {status}: {}", self.log());
            }
            self.invoke(&["echo", "--data", "ready", "--deadline", "1s"]).status.success()
        });
    }

    /// What `quickfire up` said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("up.log")).unwrap_or_default()
    }

    /// Runs `quickfire invoke` against this router.
    pub fn invoke(&self, arguments: &[&str]) -> Output {
        self.command("invoke").args(arguments).args(["--connect", &self.url]).output().unwrap()
    }

    /// A `quickfire` command that finds this router's directory.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = quickfire();
        command.arg(subcommand).env("QUICKFIRE_DIR", &self.dir);
        command
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        signal(self.child.id(), rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }

    /// Process ids of the function processes of `name`.
    pub fn workers(&self, name: &str) -> Vec<u32> {
        workers_in(&self.dir, name)
    }

    /// What the counters say of a function.
    pub fn row(&self, name: &str) -> FunctionRow {
        let output = self.command("functions").arg(name).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = |first: &str| {
            let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|words| words.first() == Some(&first));
            line.unwrap_or_else(|| panic!("`quickfire functions {name}` has no line {first}: {text}"))
        };
        let (titles, row) = (words("function"), words(name));
        let number = |title: &str| {
            let column = titles.iter().position(|word| *word == title).unwrap();
            row[column].replace(',', "").parse().unwrap()
        };
        FunctionRow {
            workers: number("workers"),
            queued: number("queued"),
            ok: number("ok"),
            errors: number("errors"),
            otherwise: number("other"),
        }
    }

    /// What the shim last wrote of a function.
    pub fn shim_status(&self, name: &str) -> serde_json::Value {
        let text = std::fs::read(self.dir.join("shim.json")).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let functions = status["functions"].as_array().unwrap();
        functions.iter().find(|function| function["name"] == name).unwrap().clone()
    }

    /// The value of a counter, as `quickfire inspect` shows it; 0 while it does not show it.
    pub fn counter(&self, name: &str) -> u64 {
        let report = self.inspect();
        let mut rows = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.len() == 2 && row[0] == name);
        row.map_or(0, |row| row[1].replace(',', "").parse().unwrap())
    }

    /// What `quickfire inspect` prints.
    pub fn inspect(&self) -> String {
        let output = self.command("inspect").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The shim's process id.
    pub fn shim(&self) -> Option<u32> {
        processes_in(&self.dir).into_iter().find(|pid| arguments_of(*pid).iter().any(|word| word == "shim"))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in processes_in(&self.dir) {
            signal(pid, rustix::process::Signal::KILL);
        }
        // A shim that was killed leaves its groups to the next one, and here is none.
        let give_up_at = Instant::now() + GIVE_UP;
        loop {
            let groups = groups_in(&self.dir);
            for group in &groups {
                let below =
                    std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
                below.filter(|path| path.is_dir()).for_each(|path| drop(std::fs::remove_dir(path)));
                let _ = std::fs::remove_dir(group);
            }
            // Those who were killed are not dead at once, and a group has them until they are.
            if groups.is_empty() || Instant::now() > give_up_at {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The control groups of the run directory `dir`, in each hierarchy.
pub fn groups_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(identity) = std::fs::metadata(dir) else { return Vec::new() };
    let name = format!("quickfire-{:x}-{:x}", identity.dev(), identity.ino());
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
        {
            if path.ends_with(&name) { found.push(path) } else { folders.push(path) }
        }
    }
    found
}

/// The manifest most tests use: `count` warm echo processes.
pub fn echo_manifest(count: u32) -> String {
    format!("[functions.echo]\ncommand = [\"builtin:echo\"]\nwarm = {count}\n")
}

fn up(home: &Path, url: &str, filter: Filter) -> Child {
    let dir = home.join("run");
    let log = std::fs::File::options().create(true).append(true).open(home.join("up.log")).unwrap();
    let mut command = match filter {
        Filter::OrdinaryUser => as_nobody(home),
        filter => quickfire_behind(filter),
    };
    command
        .arg("up")
        .arg("--config")
        .arg(home.join("quickfire.toml"))
        .args(["--listen", url, "--listen"])
        .arg(format!("unix://{}", dir.join("router.sock").display()))
        .env("QUICKFIRE_DIR", &dir)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A copy of the program under test, in a directory that becomes nobody's, with everything that is in it by now.
fn as_nobody(home: &Path) -> Command {
    let program = home.join("quickfire");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_quickfire"), &program).unwrap();
    }
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(home).status().unwrap();
    assert!(owned.success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]).arg(program);
    command.env("HOME", "/nonexistent");
    command
}

/// The program under test.
pub fn quickfire() -> Command {
    quickfire_behind(Filter::None)
}

/// The program under test, with everything it starts, behind a filter.
pub fn quickfire_behind(filter: Filter) -> Command {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_quickfire");
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).arg(PROGRAM);
        command
    };
    let mut command = match filter {
        Filter::None => Command::new(PROGRAM),
        Filter::OrdinaryUser => unreachable!("needs a directory: `up`"),
        Filter::NoIoUring => python(&["tests/support/deny_io_uring.py"]),
        Filter::OurProfile => {
            python(&["tests/support/under_profile.py", "docs/operating/seccomp-quickfire.json"])
        }
    };
    command.env_remove("QUICKFIRE_CONNECT").env_remove("QUICKFIRE_DIR").env_remove("QUICKFIRE_CONFIG");
    command
}

/// Function processes of `name` that belong to the run directory `dir`; not the programs that relays among them started.
pub fn workers_in(dir: &Path, name: &str) -> Vec<u32> {
    let variable = format!("QUICKFIRE_FUNCTION={name}\0");
    let is_one =
        |environment: String| environment.contains(&variable) && environment.contains("QUICKFIRE_TOKEN=");
    processes_in(dir).into_iter().filter(|pid| is_one(environment_of(*pid))).collect()
}

/// Every living process whose environment names the run directory, except this one.
pub fn processes_in(dir: &Path) -> Vec<u32> {
    let needle = dir.to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && !is_zombie(*pid))
        .filter(|pid| environment_of(*pid).contains(&needle))
        .collect()
}

/// The processes that `pid` started and that live.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let text = lists.collect::<Vec<_>>().join(" ");
    text.split_whitespace().map(|word| word.parse().unwrap()).filter(|pid| lives(*pid)).collect()
}

/// Whether there is such a process, and it has not ended.
pub fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !is_zombie(pid)
}

/// Whether a process has ended but was not waited for.
pub fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

/// Polls until `condition` holds, and fails the test if it never does.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + GIVE_UP;
    while !condition() {
        assert!(Instant::now() < give_up_at, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn environment_of(pid: u32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned()
}

fn arguments_of(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
