//! Break-outs: programs that try to get at what is not theirs, in a sandbox and, where that does no harm, without one.
//!
//! Always: what a sandbox must refuse is also seen to succeed without it, so that a test that tries the wrong thing fails.
//! Each test runs as who runs the tests and, where that is root, also as an ordinary user: the kernel allows both different things.

mod support;

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Output;

use quickfire_client::serve::{Call, FunctionError, serve};

use rustix::process::Signal;
use support::{Filter, Router, echo_manifest, eventually, is_zombie, quickfire, signal};
use tempfile::TempDir;

/// A router with the program of attempts, with and without a sandbox, and a neighbour that has a secret.
struct Bench {
    router: Router,
    home: TempDir,
}

/// Who runs it: whoever runs the tests, and an ordinary user where that is root.
fn users() -> Vec<Filter> {
    let is_root = rustix::process::geteuid().is_root();
    if is_root { vec![Filter::None, Filter::OrdinaryUser] } else { vec![Filter::None] }
}

impl Bench {
    fn start(user: Filter, more: &str) -> Bench {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = bin.join("attempts.py");
        std::fs::write(&program, include_str!("support/attempts.py")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(home.path().join("secret"), "swordfish").unwrap();
        let attempts = "runtime = \"exec\"\ncommand = [\"./bin/attempts.py\"]\ntimeout = \"60s\"\n";
        let sandbox = "containment = \"process\"\ntmp_size_max = \"1MiB\"\nprocesses_max = 40\n";
        let manifest = echo_manifest(1)
            + "[functions.neighbour]\ncommand = [\"builtin:echo\"]\nenv = { SECRET = \"swordfish\" }\n"
            + &format!("[functions.free]\n{attempts}[functions.held]\n{attempts}{sandbox}{more}");
        let router = Router::start_in_behind(home.path(), &manifest, user);
        eventually("both functions are there", || {
            ["free", "held"].iter().all(|name| !router.workers(name).is_empty())
        });
        Bench { router, home }
    }

    fn call(&self, function: &str, attempt: &str) -> Output {
        self.router.invoke(&[function, "--data", attempt, "--deadline", "60s"])
    }

    /// What the program says of its attempt.
    fn told(&self, function: &str, attempt: &str) -> String {
        let output = self.call(function, attempt);
        assert!(output.status.success(), "{attempt}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Succeeds without a sandbox, and is refused with this error in one.
    #[track_caller]
    fn refuses(&self, attempt: &str, error: &str) {
        let free = self.told("free", attempt);
        assert!(free.starts_with("did "), "{attempt} without a sandbox: {free}");
        assert_eq!(self.told("held", attempt), format!("refused: {error}"), "{attempt}");
    }

    /// Kills the program in a sandbox. The caller is told, and the next call is served.
    #[track_caller]
    fn kills(&self, attempt: &str) {
        let output = self.call("held", attempt);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{attempt}: {told}");
        assert!(told.contains("signal: 31 (SIGSYS)"), "{attempt}: {told}");
        assert!(self.told("held", "loopback").starts_with("did "), "after {attempt}");
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn neighbour(&self) -> u32 {
        eventually("the neighbour is there", || !self.router.workers("neighbour").is_empty());
        self.router.workers("neighbour")[0]
    }
}

/// Whether the host restricts even without a sandbox who may look into whom.
fn has_yama() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0")
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !is_zombie(pid)
}

/// How long the daemon sleeps that is left behind: a word by which this test finds it, and no other's.
fn nap() -> String {
    (1_000_000 + std::process::id()).to_string()
}

/// The daemon, by its number on the host.
fn sleeper(nap: &str) -> Option<u32> {
    let command = format!("sleep\0{nap}\0");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| lives(*pid)).find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == command.as_bytes())
    })
}

#[test]
fn files_of_the_host_and_of_the_router_are_not_there() {
    for user in users() {
        let bench = Bench::start(user, "");
        bench.refuses(&format!("read {}", bench.path("secret")), "ENOENT");
        bench.refuses(&format!("read {}", bench.path("quickfire.toml")), "ENOENT");
        bench.refuses(&format!("read {}", bench.path("run/shim.toml")), "ENOENT");
        bench.refuses(&format!("write {}", bench.path("run/x")), "EROFS");
        bench.refuses(&format!("write {}", bench.path("bin/x")), "EROFS");
        bench.refuses(&format!("unix {}", bench.path("run/admin.sock")), "ENOENT");
        bench.refuses(&format!("unix {}", bench.path("run/router.sock")), "ENOENT");
        // It needs these, and its own folder.
        assert_eq!(bench.told("held", &format!("folder {}", bench.path("run"))), "did attach-0.sock");
        assert!(bench.told("held", &format!("folder {}", bench.path("bin"))).contains("attempts.py"));
        assert_eq!(bench.told("held", "write /usr/x"), "refused: EROFS");
    }
}

#[test]
fn what_the_manifest_shows_can_be_read_or_written_and_nothing_beside_it() {
    for user in users() {
        let host_network = "read = [\"./secret\"]\nwrite = [\"./out\"]\nnetwork = \"host\"\n";
        // Given: a folder of the user's own. The router is started after it is made.
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("out")).unwrap();
        let out = home.path().join("out").display().to_string();
        if user == Filter::OrdinaryUser {
            std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let bench = Bench::start(user, &host_network.replace("./out", &out));
        assert_eq!(bench.told("held", &format!("read {}", bench.path("secret"))), "did swordfish");
        assert_eq!(bench.told("held", &format!("write {}", bench.path("secret"))), "refused: EROFS");
        assert_eq!(bench.told("held", &format!("write {out}/x")), "did 1");
        assert_eq!(std::fs::read_to_string(format!("{out}/x")).unwrap(), "x");
        bench.refuses(&format!("read {}", bench.path("quickfire.toml")), "ENOENT");

        // Expect: the host's network by port, and still not by a socket without a path.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(bench.told("held", &format!("tcp {port}")), "did connect");
        let name = format!("quickfire-test-{}-{}", std::process::id(), port);
        let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        bench.refuses(&format!("unix @{name}"), "EPERM");
    }
}

#[test]
fn the_network_of_the_host_is_not_there() {
    for user in users() {
        let bench = Bench::start(user, "");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        bench.refuses(&format!("tcp {port}"), "ECONNREFUSED");
        assert_eq!(bench.told("held", "loopback"), "did connect", "it reaches itself");
        let name = format!("quickfire-test-{}-{}", std::process::id(), port);
        let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let free = bench.told("free", &format!("unix @{name}"));
        assert_eq!(free, "did connect");
        assert!(bench.told("held", &format!("unix @{name}")).starts_with("refused: "));
    }
}

#[test]
fn neighbours_cannot_be_seen_read_traced_or_signalled() {
    for user in users() {
        let bench = Bench::start(user, "");
        let neighbour = bench.neighbour();
        let secret = bench.told("free", &format!("read /proc/{neighbour}/environ"));
        assert!(secret.contains("SECRET=swordfish"), "{secret}");
        assert_eq!(bench.told("held", &format!("read /proc/{neighbour}/environ")), "refused: ENOENT");
        bench.refuses(&format!("kill {neighbour}"), "ESRCH");
        // The first process of its own sandbox is ours.
        for file in ["environ", "mem", "maps"] {
            assert_eq!(bench.told("held", &format!("read /proc/1/{file}")), "refused: EACCES", "{file}");
        }
        if has_yama() {
            assert_eq!(bench.told("held", &format!("memory {neighbour}")), "refused: ENOENT");
        } else {
            bench.refuses(&format!("memory {neighbour}"), "ENOENT");
            assert_eq!(bench.told("free", &format!("ptrace {neighbour}")), "did it");
        }
        bench.kills(&format!("ptrace {neighbour}"));
        assert!(lives(neighbour), "and is none the worse for it");
    }
}

#[test]
fn a_process_in_a_sandbox_cannot_be_given_the_calls_of_another_function() {
    for user in users() {
        let bench = Bench::start(user, "");
        // Given: all that a worker has to know.
        let environment = bench.told("free", &format!("read /proc/{}/environ", bench.neighbour()));
        let token = environment.split("QUICKFIRE_TOKEN=").nth(1).unwrap().split(' ').next().unwrap();
        let socket = bench.path("run/attach-0.sock");
        assert_eq!(bench.told("free", &format!("attach {socket} neighbour {token}")), "did attach");
        // Expect: the router's answer is PeerUntrusted; as itself it would have been one whose token is wrong.
        assert_eq!(bench.told("held", &format!("attach {socket} neighbour {token}")), "did get reason 10");
        assert_ne!(bench.told("held", &format!("attach {socket} held {token}")), "did get reason 10");
        let served = bench.router.invoke(&["neighbour", "--data", "x", "--deadline", "30s"]);
        assert!(served.status.success(), "{served:?}");
    }
}

#[test]
fn calls_by_which_one_gets_out_of_a_sandbox_kill_who_makes_them() {
    for user in users() {
        let bench = Bench::start(user, "");
        assert_eq!(bench.told("free", "mount"), "did leave the namespaces");
        assert!(bench.told("free", "keyctl").starts_with("did "));
        for attempt in ["mount", "mount_at_once", "keyctl", "bpf"] {
            bench.kills(attempt);
        }
    }
}

#[test]
fn disk_and_processes_are_bounded_and_the_next_call_is_served() {
    for user in users() {
        let bench = Bench::start(user, "");
        let told = bench.told("held", "fill /tmp/x");
        let size: u64 = told.split([' ', ',']).nth(1).unwrap().parse().unwrap();
        assert!(told.ends_with("then ENOSPC") && size <= 1 << 20, "{told}");
        // The kernel counts no processes of root's but in a group.
        if user == Filter::OrdinaryUser || !rustix::process::geteuid().is_root() || has_groups() {
            assert_eq!(bench.told("free", "processes 60"), "did 60");
            let told = bench.told("held", "processes 60");
            let count: u64 = told.split([' ', ',']).nth(1).unwrap().parse().unwrap();
            assert!(told.ends_with("then EAGAIN") && count < 40, "{told}");
        }
        let look = bench.told("held", "look");
        let words: Vec<_> = look.split_whitespace().collect();
        assert_ne!(words[1], "0", "root in its sandbox: {look}");
        assert_eq!(words[3..], ["/tmp", "/tmp", "function"], "{look}");
    }
}

/// A function process that takes as many MiB as its payload says.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn hog() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    serve(|call: &Call<'_>| -> Result<String, FunctionError> {
        let count: usize = std::str::from_utf8(call.payload())?.parse()?;
        let mut memory = vec![0_u8; count << 20];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Ok(std::hint::black_box(memory).len().to_string())
    })
    .unwrap();
}

/// A table of a function that is this very program.
fn hog_table(name: &str, options: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = r#""hog", "--exact", "--ignored", "--nocapture", "--test-threads=1""#;
    format!("[functions.{name}]\ncommand = [{program:?}, {arguments}]\n{options}\n")
}

/// Whether who runs the tests may make control groups.
fn has_groups() -> bool {
    worker_shim::cgroup::check().is_ok()
}

#[test]
fn limits_that_need_control_groups_are_refused_where_there_are_none() {
    let table = hog_table("bounded", "memory_max = \"64MiB\"");
    for user in users() {
        if user == Filter::None && has_groups() {
            continue;
        }
        let home = tempfile::tempdir().unwrap();
        let refused = Router::refused_behind(user, home.path(), &(echo_manifest(1) + &table));
        assert!(refused.contains("`functions.bounded`: this host has no control groups"), "{refused}");
        // Expect: on request a warning, and no bound.
        let home = tempfile::tempdir().unwrap();
        let manifest = echo_manifest(1) + "memory_max = \"64MiB\"\ncontainment_missing = \"best-effort\"\n";
        let router = Router::start_in_behind(home.path(), &manifest, user);
        assert!(router.log().contains("this host has no control groups"), "{}", router.log());
    }
}

#[test]
fn memory_beyond_its_bound_ends_the_instance_and_the_reason_is_told() {
    if !has_groups() {
        return; // refused, by the test above
    }
    let bound = "memory_max = \"96MiB\"\n";
    let bench = Bench::start(
        Filter::None,
        &(bound.to_owned()
            + &hog_table("hog", &(bound.to_owned() + "containment = \"process\""))
            + &hog_table("unbounded", "")),
    );
    let call = |name: &str, count: &str| bench.router.invoke(&[name, "--data", count, "--deadline", "60s"]);
    assert!(call("hog", "8").status.success());
    assert!(call("unbounded", "256").status.success());
    // Expect: the caller learns that the process was lost, the operator why; the next call is served.
    let lost = call("hog", "256");
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    eventually("the shim knows why", || bench.router.shim_status("hog")["memory_kills"] != 0);
    let reason = bench.router.shim_status("hog")["last_exit"]["reason"].to_string();
    assert!(reason.contains("killed by SIGKILL; out of memory: memory_max of 100663296 bytes"), "{reason}");
    eventually("another one serves", || call("hog", "8").status.success());

    // Expect: behind a relay only the program is killed, and the caller told so.
    assert_eq!(bench.told("free", "hog 256"), format!("did {}", 256 << 20));
    let killed = bench.call("held", "hog 256");
    let told = String::from_utf8_lossy(&killed.stderr);
    assert!(told.contains("signal: 9 (SIGKILL)"), "{told}");
    assert!(bench.told("held", "loopback").starts_with("did "));
    // A /tmp is memory too.
    assert!(bench.told("held", "fill /tmp/x").ends_with("then ENOSPC"));
}

#[test]
fn one_that_computes_without_end_leaves_the_processor_to_others() {
    if !has_groups() {
        return;
    }
    let bench = Bench::start(Filter::None, "cpu_max = 20\n");
    let told = std::thread::scope(|scope| {
        let burning = scope.spawn(|| bench.told("held", "burn 3"));
        assert!(bench.router.invoke(&["neighbour", "--data", "x", "--deadline", "30s"]).status.success());
        burning.join().unwrap()
    });
    // A fifth, and what it takes in the last period of 100 ms before it is stopped.
    let percent: u64 = told.trim_start_matches("did ").parse().unwrap();
    assert!(percent <= 30, "{told}");
}

#[test]
fn groups_end_with_their_places_and_with_what_escaped_from_a_process_group() {
    if !has_groups() {
        return;
    }
    let attempts = |home: &Path| home.join("bin/attempts.py").display().to_string();
    // Given: no sandbox, but a bound, so that there is a group.
    let bench = Bench::start(
        Filter::None,
        "memory_max = \"256MiB\"\n[functions.grouped]\nruntime = \"exec\"\ncommand = [\"./bin/attempts.py\"]\nmemory_max = \"256MiB\"\n",
    );
    assert!(Path::new(&attempts(bench.home.path())).exists());
    for is_shim in [false, true] {
        let nap = format!("{}{}", u8::from(is_shim), nap());
        assert!(bench.told("grouped", &format!("daemon {nap}")).starts_with("did "));
        let daemon = sleeper(&nap).expect("it lives on when its call is over");
        let before = bench.router.workers("grouped");
        let victim = if is_shim { bench.router.shim().unwrap() } else { before[0] };
        signal(victim, Signal::KILL);
        // Expect: at the end of its place, or by the next shim.
        eventually("it is killed by its group", || !lives(daemon));
        eventually("another one serves", || bench.call("grouped", "loopback").status.success());
    }
    // Expect: a group for each place that has one, and none once all is over.
    let groups = support::groups_in(&bench.router.dir);
    let places = |group: &std::path::PathBuf| {
        let entries = std::fs::read_dir(group).unwrap().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    let counts: Vec<_> = groups.iter().map(places).collect();
    assert!(
        counts.contains(&2) && counts.iter().all(|count| [0, 2].contains(count)),
        "{groups:?}: {counts:?}"
    );
    let Bench { mut router, home } = bench;
    assert!(router.terminate().success());
    eventually("the shim has ended, and its groups with it", || support::groups_in(&router.dir).is_empty());
    drop(home);
}

#[test]
fn nothing_that_left_its_group_outlives_its_shim_or_its_instance() {
    for user in users() {
        for (is_shim, name) in [(true, "held"), (false, "held"), (true, "free")] {
            let bench = Bench::start(user, "");
            assert!(bench.told(name, &format!("daemon {}", nap())).starts_with("did "));
            let daemon = sleeper(&nap()).expect("it lives on when its call is over");
            if is_shim {
                signal(bench.router.shim().unwrap(), Signal::KILL);
            } else {
                // The relay, as the router ends one that overruns: the newest of keeper, init and relay.
                let relay = bench.router.workers(name).into_iter().max().unwrap();
                signal(relay, Signal::KILL);
            }
            if name == "held" {
                eventually("it ended with its sandbox", || !lives(daemon));
                assert!(bench.told("held", "loopback").starts_with("did "), "another one serves");
            } else {
                // Without a sandbox or a group nothing leads to it. This test does.
                eventually("another shim serves", || bench.call("free", "loopback").status.success());
                assert!(lives(daemon));
                signal(daemon, Signal::KILL);
            }
            eventually("it is gone", || !lives(daemon));
        }
    }
}

#[test]
fn every_runtime_serves_from_a_sandbox_and_attaches_to_the_next_router() {
    for user in users() {
        let sandbox = "containment = \"process\"\n";
        let server = "import http.server, os\n\
            class H(http.server.BaseHTTPRequestHandler):\n\
            \x20   def do_POST(self):\n\
            \x20       body = self.rfile.read(int(self.headers['Content-Length']))\n\
            \x20       self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
            \x20   def log_message(self, *words): pass\n\
            http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n";
        let manifest = echo_manifest(1)
            + &format!("[functions.native]\ncommand = [\"builtin:echo\"]\n{sandbox}")
            + &format!("[functions.exec]\ncommand = [\"cat\"]\nruntime = \"exec\"\n{sandbox}")
            + &format!(
                "[functions.http]\ncommand = [\"/usr/bin/python3\", \"-c\", {server:?}]\nruntime = \"http\"\n{sandbox}"
            );
        let home = tempfile::tempdir().unwrap();
        let mut router = Router::start_in_behind(home.path(), &manifest, user);
        for name in ["native", "exec", "http"] {
            let output = router.invoke(&[name, "--data", "hello", "--deadline", "30s"]);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.stdout, b"hello", "{name}");
        }
        // Given: another router. Expect: the same processes, at their sandbox's socket.
        let before = router.workers("native");
        assert_eq!(before.len(), 3, "keeper, init and function");
        router.kill_and_start_again();
        eventually("it serves again", || {
            router.invoke(&["native", "--data", "x", "--deadline", "1s"]).status.success()
        });
        assert_eq!(router.workers("native"), before);
        // Expect: a drain ends all of them.
        assert!(router.terminate().success());
        eventually("nobody is left", || router.workers("native").is_empty());
    }
}

#[test]
fn a_host_without_user_namespaces_is_named_at_start_and_done_without_on_request() {
    // Given: a router behind our own profile for containers, which allows no namespaces.
    let function = "[functions.f]\ncommand = [\"cat\"]\nruntime = \"exec\"\ncontainment = \"process\"\n";
    let home = tempfile::tempdir().unwrap();
    let refused = Router::refused_behind(Filter::OurProfile, home.path(), &(echo_manifest(1) + function));
    assert!(
        refused.contains("`functions.f.containment`: this host has no namespaces for a sandbox"),
        "{refused}"
    );
    assert!(refused.contains("containment_missing = \"best-effort\""), "{refused}");

    // Expect: a warning, and what there is: still no file that is not shown.
    let bench = Bench::start(Filter::OurProfile, "containment_missing = \"best-effort\"\n");
    let log = bench.router.log();
    assert!(log.contains("this host has no namespaces for a sandbox"), "{log}");
    bench.refuses(&format!("read {}", bench.path("secret")), "EACCES");
    bench.kills("keyctl");
}

#[test]
fn a_path_that_is_not_there_is_a_mistake_in_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let manifest = echo_manifest(1) + "containment = \"process\"\nread = [\"/nowhere\"]\n";
    let refused = Router::refused_behind(Filter::None, home.path(), &manifest);
    assert!(refused.contains("`functions.echo.read`: /nowhere does not exist"), "{refused}");
    let everything = manifest.replace("/nowhere", "//");
    std::fs::write(home.path().join("q.toml"), everything).unwrap();
    let checked = quickfire().arg("check").arg(home.path().join("q.toml")).output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stderr).contains("would show everything"), "{checked:?}");
}
