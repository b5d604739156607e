//! The command itself: help, mistakes, exit codes, where configuration comes from, and what `inspect` sees in rings.

mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::Signal;
use support::{Router, echo_manifest, eventually, signal};
use tempfile::TempDir;

/// The program, away from whatever the environment of the tests says.
fn quickfire() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickfire"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUICKFIRE_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    quickfire().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn check(arguments: &[&str], code: i32, says: &str) {
    let output = run(arguments);
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert!(told.contains(says), "{arguments:?} says {told:?}, not {says:?}");
}

/// A configuration file, and the directory it lives in.
fn manifest(content: &str) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("quickfire.toml");
    std::fs::write(&path, content).unwrap();
    (home, path)
}

#[track_caller]
fn check_manifest(content: &str, code: i32, says: &[&str]) {
    let (_home, path) = manifest(content);
    let output = run(&["check", path.to_str().unwrap()]);
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for expected in says {
        assert!(told.contains(expected), "says {told:?}, not {expected:?}");
    }
}

#[test]
fn every_subcommand_has_help_with_an_example_and_the_exit_codes() {
    for subcommand in
        ["up", "invoke", "load", "functions", "top", "inspect", "why", "apply", "check", "print-config"]
    {
        let output = run(&[subcommand, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        assert!(
            help.contains(&format!("  quickfire {subcommand}")),
            "{subcommand} --help shows no example: {help}"
        );
        assert!(help.contains("Exit codes: 0 ok, 1 function error, 2"), "{subcommand} --help: {help}");
    }
    let help = text(&run(&["--help"]).stdout);
    assert!(!help.contains("shim  "), "what nobody starts by hand is hidden: {help}");
}

#[test]
fn the_help_of_up_follows_from_the_option_table() {
    let help = text(&run(&["up", "--help"]).stdout);
    for spec in router::options::ROUTER_OPTIONS {
        assert!(
            help.contains(&format!("--{} <", spec.flag.unwrap())),
            "no --{} in {help}",
            spec.flag.unwrap()
        );
        assert!(help.contains(spec.env.unwrap()), "no {} in {help}", spec.env.unwrap());
    }
}

#[test]
fn mistakes_in_arguments_end_with_code_two_and_a_suggestion() {
    check(&["invok", "echo"], 2, "invoke");
    check(&["invoke"], 2, "<NAME>");
    check(&["invoke", "echo", "--dedline", "5ms"], 2, "--deadline");
    check(&["invoke", "echo", "--data", "x", "--in", "y"], 2, "cannot be used with");
    check(&["invoke", "echo", "--deadline", "5"], 2, "needs a unit");
    check(&["invoke", "echo", "--criticality", "urgent"], 2, "critical");
    check(&["invoke", "echo", "--connect", "http://a"], 2, "quickfire://HOST:PORT");
    check(&["invoke", "echo", "--in", "/no/such/file"], 2, "cannot read /no/such/file");
    check(&["load", "echo", "--rate", "5k", "--window", "3"], 2, "cannot be used with");
    check(&["load", "echo", "--window", "1", "--connections", "2"], 2, "idle");
    check(
        &["up", "--shards", "0"],
        2,
        "--shards: `router.shards`: 0 is not allowed; allowed: auto, or a whole number from 1 to 256",
    );
    check(&["up", "--config", "/no/such/file"], 2, "cannot read /no/such/file");
    check(&["top", "--sort", "colour"], 2, "[possible values: calls, queued, oldest, running, busy, name]");
    check(&["top", "--interval", "5"], 2, "needs a unit");
    check(&["top", "--interval", "1ms"], 2, "the shortest is 10ms");
    check(&["functions", "--once"], 2, "--live");
    check(&["why", "xyz"], 2, "an id is hexadecimal");
    check(&["check", "/no/such/file"], 2, "cannot read /no/such/file");
}

#[test]
fn no_router_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("quickfire://{free}");
    check(&["invoke", "echo", "--data", "x", "--connect", &url], 4, "start one with `quickfire up`");
    check(&["load", "echo", "--connect", &url], 4, "no router at");
    check(&["inspect", "/no/such/directory"], 4, "no router has run in /no/such/directory");
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    check(&["functions", "--run-dir", empty], 4, "no router has published counters");
    check(&["functions", "echo", "--live", "--run-dir", empty], 4, "no router has published counters");
    check(&["why", "1", "--run-dir", empty], 4, "no router answers at");
    check(&["apply", "/dev/null", "--run-dir", empty], 4, "no router answers at");
    check(&["top", "--run-dir", empty], 4, "no router has published counters");
}

#[test]
fn the_environment_names_the_router_and_a_flag_wins() {
    let connect = |arguments: &[&str]| {
        text(
            &quickfire()
                .args(arguments)
                .env("QUICKFIRE_CONNECT", "unix:///from/environment")
                .output()
                .unwrap()
                .stderr,
        )
    };
    assert!(connect(&["invoke", "echo"]).contains("unix:///from/environment"));
    assert!(connect(&["invoke", "echo", "--connect", "unix:///from/flag"]).contains("unix:///from/flag"));
}

#[test]
fn a_good_manifest_is_ok() {
    check_manifest(
        "[functions.a]\ncommand = [\"builtin:echo\"]\n[functions.b]\ncommand = [\"sh\"]\n",
        0,
        &["ok; functions: a, b"],
    );
    check_manifest("", 0, &["ok; functions: echo, moderate, noop, thumbnail"]);
}

#[test]
fn a_bad_manifest_gets_all_its_mistakes_told() {
    check_manifest(
        "[router]\nshads = 2\nspin = \"1 day\"\n[functions.a]\ncommand = [\"builtin:echo\"]\nslots = 5000\n",
        2,
        &[
            "quickfire.toml:2:1: `router.shads`: no such key; did you mean `shards`?",
            "quickfire.toml:3:1: `router.spin`: `1 day` needs a unit",
            "quickfire.toml:6:1: `functions.a.slots`: 5000 is not allowed; allowed: a power of two from 1 to 4096",
        ],
    );
    check_manifest(
        "[functions.a]\ncommand = [\"./missing\"]\n[functions.b]\ncommand = [\"builtin:eco\"]\n",
        2,
        &["`functions.a.command`: cannot start", "no such file", "did you mean `builtin:echo`?"],
    );
    check_manifest(
        "[functions.a]\ncommand = [\"builtin:echo\"]\n[functions.a]\ncommand = [\"builtin:noop\"]\n",
        2,
        &["quickfire.toml:3:1: `functions.a`: is written twice"],
    );
    check_manifest("[functions.a]\nwarm = 1\n", 2, &["`functions.a.command`: is missing"]);
    check_manifest("[router\n", 2, &["quickfire.toml:1:"]);
}

#[test]
fn a_program_beside_the_manifest_is_found_from_anywhere() {
    let (home, path) = manifest("[functions.a]\ncommand = [\"./program\"]\n");
    std::fs::copy("/bin/true", home.path().join("program")).unwrap();
    let output = quickfire().args(["check", path.to_str().unwrap()]).current_dir("/").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_effective_configuration_names_its_sources_and_reads_back() {
    let (home, path) = manifest("[router]\nshards = 2\nspin = \"1ms\"\nhost = \"glommio\"\n");
    let print = |arguments: &[&str], env: &[(&str, &str)]| {
        let output =
            quickfire().arg("print-config").args(arguments).envs(env.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let env =
        [("QUICKFIRE_SHARDS", "3"), ("QUICKFIRE_SPIN", "2ms"), ("QUICKFIRE_CONFIG", path.to_str().unwrap())];
    let printed = print(&["--shards", "4", "--run-dir", "relative"], &env);
    let line = |key: &str| {
        let line = printed.lines().find(|line| line.starts_with(&format!("{key} ="))).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("shards"), "shards = 4 # --shards");
    assert_eq!(line("spin"), "spin = \"2ms\" # environment variable QUICKFIRE_SPIN");
    assert_eq!(line("host"), format!("host = \"glommio\" # {}:4:1", path.display()));
    assert_eq!(line("pin"), "pin = \"none\" # default");
    assert!(line("run_dir").starts_with("run_dir = \"/"), "{}", line("run_dir"));

    let again = home.path().join("again.toml");
    std::fs::write(&again, &printed).unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split('#').next().unwrap_or_default().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&print(&["--config", again.to_str().unwrap()], &[])), values(&printed));
}

#[test]
fn a_port_in_use_is_told_and_nothing_stays_behind() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("quickfire://{}", taken.local_addr().unwrap());
    let output = quickfire()
        .args(["up", "--listen", &url])
        .env("QUICKFIRE_DIR", home.path().join("run"))
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(&taken.local_addr().unwrap().to_string()), "{told}");
    assert!(told.contains("in use"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(!home.path().join("run/shim.lock").exists(), "no shim was started");
}

#[test]
fn a_run_directory_that_others_may_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(home.path().join("something"), "").unwrap();
    check(
        &["up", "--listen", "quickfire://127.0.0.1:0", "--run-dir", home.path().to_str().unwrap()],
        2,
        "open to others (mode 755)",
    );
}

#[test]
fn damaged_counters_are_told_as_such() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("counters-0"), [7; 512]).unwrap();
    check(&["inspect", home.path().to_str().unwrap()], 4, "not a counters file");
}

#[test]
fn a_function_started_by_hand_says_what_it_is() {
    check(&["function", "echo"], 2, "quickfire up");
    check(&["function", "eco"], 2, "echo, moderate, noop, thumbnail");
}

#[test]
fn calls_in_a_ring_are_seen_while_the_router_lives_and_after_it_was_killed() {
    // Given: a function process that is stopped, and two calls in its ring.
    let mut router = Router::start(&echo_manifest(1));
    let worker = router.workers("echo")[0];
    signal(worker, Signal::STOP);
    let call = || {
        let arguments = ["echo", "--data", "x", "--deadline", "50s", "--connect", &router.url];
        router.command("invoke").args(arguments).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let calls = [call(), call()];
    let report = |router: &Router| text(&router.command("inspect").output().unwrap().stdout);
    let ring_lines = |report: &str| {
        let lines = report.lines().filter(|line| line.contains(&worker.to_string()));
        lines.filter(|line| line.contains("in the ring") && line.contains("echo")).count()
    };
    eventually("both calls are seen", || ring_lines(&report(&router)) == 2);
    // When
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    // Expect
    let report = report(&router);
    assert!(report.contains("the router is dead"), "{report}");
    assert_eq!(ring_lines(&report), 2, "{report}");
    signal(worker, Signal::CONT);
    for mut call in calls {
        assert_eq!(call.wait().unwrap().code(), Some(4));
    }
}

/// A router whose only worker is stopped and holds one call, while a second one waits.
fn router_with_a_waiting_call() -> (Router, u32, Vec<std::process::Child>) {
    let router = Router::start("[functions.echo]\ncommand = [\"builtin:echo\"]\nslots = 1\n");
    let worker = router.workers("echo")[0];
    signal(worker, Signal::STOP);
    let call = || {
        let arguments = ["echo", "--data", "x", "--deadline", "50s", "--connect", &router.url];
        router.command("invoke").args(arguments).stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let calls = vec![call(), call()];
    eventually("one call runs and one waits", || router.row("echo").queued == 1);
    (router, worker, calls)
}

#[test]
fn a_function_that_waits_says_for_what_and_stops_saying_so_when_it_does_not() {
    let (router, worker, calls) = router_with_a_waiting_call();
    let says = |command: &str, arguments: &[&str]| {
        text(&router.command(command).args(arguments).output().unwrap().stdout)
    };
    eventually("it is seen to wait", || {
        says("functions", &["echo", "--live", "--once"]).contains("workers busy")
            && says("top", &["--once", "--sort", "queued"]).contains("workers busy")
    });
    // The call that is in the ring is known by its id.
    let inspected = says("inspect", &[]);
    let line = inspected.lines().find(|line| line.contains(&worker.to_string()) && line.contains("ring"));
    let id = line.and_then(|line| line.split_whitespace().next()).expect("a call is in the ring").to_owned();
    assert!(says("why", &[&id]).contains(&format!("with process {worker} since")), "{}", says("why", &[&id]));
    // When the worker goes on.
    signal(worker, Signal::CONT);
    for mut call in calls {
        assert_eq!(call.wait().unwrap().code(), Some(0));
    }
    let over = router.command("why").arg(&id).output().unwrap();
    assert_eq!(over.status.code(), Some(3));
    assert!(text(&over.stderr).contains("it was answered, or never was"), "{}", text(&over.stderr));
    eventually("nothing waits", || !says("functions", &["echo"]).contains("workers busy"));
}

#[test]
fn a_live_report_that_is_no_terminals_goes_on_line_by_line_until_nobody_reads_it() {
    use std::io::{BufRead, BufReader};
    let router = Router::start(&echo_manifest(1));
    for (command, arguments) in [("functions", ["echo", "--live"]), ("top", ["--sort", "name"])] {
        let mut live = router.command(command);
        live.args(arguments).args(["--interval", "10ms"]).stdout(std::process::Stdio::piped());
        let mut live = live.spawn().unwrap();
        let mut lines = BufReader::new(live.stdout.take().unwrap()).lines().map(Result::unwrap);
        for showing in 1..=3 {
            let seen = lines.by_ref().find(|line| line.trim_start().starts_with("echo "));
            assert!(seen.is_some(), "{command} ended before showing {showing}");
        }
        drop(lines);
        assert_eq!(live.wait().unwrap().code(), Some(0), "{command}");
    }
}
