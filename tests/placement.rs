//! Which processors the threads of shards and the processes of functions run on, asked of the kernel.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use router::processors;
use support::{Router, eventually, processes_in, quickfire, signal};

/// The processors that a thread or process may use, as the kernel says.
fn mask(status_file: &str) -> Option<String> {
    let status = std::fs::read_to_string(status_file).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix("Cpus_allowed_list:")?.trim().to_owned()))
}

/// The mask of a thread of a process.
fn mask_of_thread(pid: u32, name: &str) -> Option<String> {
    let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let task = tasks.find(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    })?;
    mask(task.path().join("status").to_str()?)
}

fn allowed() -> Vec<u32> {
    processors::allowed().expect("the kernel tells the mask")
}

#[test]
fn shards_and_functions_run_where_they_were_put_and_inspect_says_so() {
    // Given: the last processor for one function, all for another, the first for the shard.
    let all = allowed();
    let (first, last) = (all[0], all[all.len() - 1]);
    let mut router = Router::start(&format!(
        "[router]\npin = \"{first}\"\n\
         [functions.echo]\ncommand = [\"builtin:echo\"]\nwarm = 2\nprocessors = \"{last}\"\n\
         [functions.noop]\ncommand = [\"builtin:noop\"]\n"
    ));
    // Expect
    assert_eq!(mask_of_thread(router.child.id(), "shard-0"), Some(first.to_string()));
    eventually("each function has its processes", || {
        router.workers("echo").len() == 2 && router.workers("noop").len() == 1
    });
    let masks = |router: &Router, name: &str| -> Vec<_> {
        router.workers(name).iter().filter_map(|pid| mask(&format!("/proc/{pid}/status"))).collect()
    };
    assert_eq!(masks(&router, "echo"), [last.to_string(), last.to_string()]);
    assert_eq!(masks(&router, "noop"), [processors::list::format(&all)]);
    // One that takes another's place is put there too.
    let killed = router.workers("echo")[0];
    signal(killed, rustix::process::Signal::KILL);
    eventually("it is replaced", || {
        let pids = router.workers("echo");
        pids.len() == 2 && !pids.contains(&killed)
    });
    assert_eq!(masks(&router, "echo"), [last.to_string(), last.to_string()]);

    let shown = |report: &str, what: &str| {
        let placement = report.split("\nplacement\n").nth(1).unwrap_or_default();
        let line = placement.lines().find(|line| line.trim_start().starts_with(what)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let report = router.inspect();
    assert_eq!(shown(&report, "shard 0"), format!("shard 0 processor {first}"));
    assert_eq!(shown(&report, "echo"), format!("echo processors {last}"));
    assert_eq!(shown(&report, "noop"), "noop any processor");
    // Also of a router that died.
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    assert_eq!(shown(&router.inspect(), "shard 0"), format!("shard 0 processor {first}"));
}

#[test]
fn an_automatic_placement_is_said_at_start_and_printed_as_numbers() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let print = quickfire()
        .args(["print-config", "--shards", "auto", "--pin", "auto"])
        .env("QUICKFIRE_DIR", &dir)
        .output()
        .unwrap();
    let printed = String::from_utf8(print.stdout).unwrap();
    let line = |key: &str| printed.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("shards = ").contains("# --shards: auto, processors "), "{printed}");
    assert!(line("pin = ").contains("# --pin: auto"), "{printed}");
    let pin = line("pin = ").split('"').nth(1).and_then(processors::list::parse).expect("a list");
    assert!(pin.iter().all(|processor| allowed().contains(processor)), "{printed}");

    let mut up = quickfire()
        .args(["up", "--listen", "quickfire://127.0.0.1:0", "--shards", "auto", "--pin", "auto"])
        .env("QUICKFIRE_DIR", &dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.find(|line| line.trim_start().starts_with("placement")).expect("it is said");
    assert!(said.contains(&format!("shard 0 on {}", pin[0])), "{said}");
    assert_eq!(mask_of_thread(up.id(), "shard-0"), Some(pin[0].to_string()));
    signal(up.id(), rustix::process::Signal::TERM);
    assert!(up.wait().unwrap().success());
    eventually("nothing is left", || processes_in(&dir).is_empty());
}

#[test]
fn a_processor_that_is_not_ours_is_refused_before_anything_starts() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("q.toml");
    let beyond = allowed().iter().max().unwrap() + 1;
    let text = format!("[functions.echo]\ncommand = [\"builtin:echo\"]\nprocessors = \"{beyond}\"\n");
    std::fs::write(&file, text).unwrap();
    for command in ["check", "up"] {
        let mut quickfire = quickfire();
        quickfire.arg(command).env("QUICKFIRE_DIR", home.path().join("run"));
        let output = match command {
            "up" => quickfire.arg("--config").arg(&file).output(),
            _ => quickfire.arg(&file).output(),
        };
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command}: {told}");
        let expected =
            format!("`functions.echo.processors`: names processors that this process may not use: {beyond}");
        assert!(told.contains(&expected), "{command}: {told}");
    }
    assert!(!home.path().join("run/shim.lock").exists(), "no shim was started");
}
