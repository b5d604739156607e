//! Functions that initialise once and are copied, with real processes: what copies have in common and what not, and kill -9 of
//! everybody involved.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Output, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use protocol::template::{Message, RECORD_SIZE};
use quickfire_client::serve::{Call, Reply, serve_instance};
use rustix::process::Signal;
use serde_json::Value;
use support::{Router, eventually, processes_in, signal};

/// What the function of the tests has counted before it is copied.
const BUILT: u64 = 100;

/// The tests, or the function: a test harness would be a thread more than a process that is copied may have.
fn main() -> ExitCode {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_some() {
        notes();
        return ExitCode::SUCCESS;
    }
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

macro_rules! named {
    ($($test:ident),* $(,)?) => { [$((stringify!($test), $test as fn())),*] };
}

const TESTS: &[(&str, fn())] = &named![
    copies_share_what_was_built_once_and_nothing_that_they_change_after,
    each_copy_shows_a_secret_of_its_own,
    a_copy_has_the_descriptors_of_a_process_that_was_started_and_no_more,
    a_killed_copy_is_replaced_without_another_initialisation,
    a_killed_template_is_built_again_and_its_copies_do_not_notice,
    a_killed_shim_takes_template_and_copies_along_and_the_next_one_begins_anew,
    a_shim_that_is_killed_while_copies_are_made_leaves_none_behind,
    a_killed_router_leaves_template_and_copies_as_they_are,
    every_call_is_answered_once_while_templates_and_copies_are_killed,
    a_template_that_cannot_initialise_is_tried_less_and_less_often_and_its_reason_told,
    a_template_that_never_gets_ready_is_killed,
    a_template_with_threads_is_not_copied_and_told_how_many_it_has,
    a_process_that_cannot_begin_after_it_was_copied_is_a_failing_process,
    templates_that_break_the_contract_are_named_and_cost_nobody_else,
    another_edition_has_a_template_of_its_own_and_the_one_before_goes,
    a_function_that_is_removed_loses_its_template_too,
    a_program_that_was_replaced_on_disk_is_what_the_next_copy_runs,
    a_command_that_names_a_file_which_always_changes_still_gets_its_copies,
    a_bundled_function_is_copied_too_and_each_shard_gets_its_own_copies_of_one_template,
];

/// The function of the tests below. It notes when it initialises and when a process begins, and misbehaves as its mode says.
fn notes() {
    let notes = PathBuf::from(std::env::var_os("NOTES").unwrap());
    note(&notes, "init");
    let mode = std::env::var("MODE").unwrap_or_default();
    match mode.as_str() {
        "" => {}
        "fail" => {
            eprintln!("no table");
            std::process::exit(3);
        }
        "hang" => forever(),
        "thread" => drop(std::thread::spawn(|| forever())),
        _ => misbehave(&mode),
    }

    // As most programs do: from here on, all copies have the same keys.
    let _drawn = std::hash::RandomState::new();
    let mut counter = BUILT;
    print!("half a line"); // written out once, and not by each copy
    let outcome = serve_instance(move || {
        note(&notes, &format!("begin {}", std::process::id()));
        if mode == "fail" || std::env::var_os("BEGIN_FAILS").is_some() {
            return Err("no connection".into());
        }
        Ok(move |call: &Call<'_>, reply: &mut Reply| {
            match call.payload() {
                // Counts, when as many processes as are said have been asked to.
                [b'm', count @ ..] => {
                    let count: usize = std::str::from_utf8(count)?.parse()?;
                    note(&notes, &format!("met {}", std::process::id()));
                    while noted(&notes, "met").len() < count {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    counter += 1;
                    write!(reply, "{counter}")?;
                }
                b"fds" => {
                    for entry in std::fs::read_dir("/proc/self/fd")? {
                        let target = std::fs::read_link(entry?.path()).unwrap_or_default();
                        // Which one it is does not matter, only of what kind.
                        let kind = target.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "");
                        writeln!(reply, "{kind}")?;
                    }
                }
                b"parent" => write!(reply, "{}", std::os::unix::process::parent_id())?,
                _ => write!(reply, "{}", std::process::id())?,
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// A template that does not keep to its contract.
fn misbehave(mode: &str) -> ! {
    let stdin = std::io::stdin();
    let say = |socket: &dyn Fn() -> std::os::fd::OwnedFd, message: &[u8]| {
        shm_ring::pass::send_with_fds(socket(), message, &[]).unwrap()
    };
    let orders = || stdin.as_fd().try_clone_to_owned().unwrap();
    match mode {
        "nonsense" => drop(say(&orders, b"nonsense")),
        "leaves" => rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null").unwrap()).unwrap(),
        // It says of itself that it is the copy.
        "impostor" => {
            say(&orders, &Message::Ready.encode());
            let (mut bytes, mut fds) = ([0; RECORD_SIZE], Vec::new());
            shm_ring::pass::receive_with_fds(orders(), &mut bytes, &mut fds).unwrap();
            say(&|| fds[2].try_clone().unwrap(), &Message::Born.encode());
        }
        "chatters" => {
            say(&orders, &Message::Ready.encode());
            say(&orders, &Message::CopyFailed { order: u64::MAX, errno: 11 }.encode());
        }
        "makes nothing" => drop(say(&orders, &Message::Ready.encode())),
        other => panic!("no mode {other}"),
    }
    forever()
}

/// One line for all to see: small appends do not mix.
fn note(notes: &Path, line: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(notes).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// What follows this word in the lines that begin with it.
fn noted(notes: &Path, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(notes).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned()).collect()
}

/// A router with the function `notes`, and what belongs to it.
struct Stand {
    router: Router,
    home: tempfile::TempDir,
}

impl Stand {
    /// With so many copies kept up.
    fn new(warm: u32, more: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let router = Router::start_in(home.path(), &manifest(home.path(), &test_program(), warm, "1", more));
        Self { router, home }
    }

    /// The same, when all of them serve.
    fn serving(warm: u32) -> Self {
        let stand = Self::new(warm, "");
        stand.wait_until_serving(warm);
        stand
    }

    fn wait_until_serving(&self, warm: u32) {
        eventually("all copies serve", || self.router.row("notes").workers == u64::from(warm));
    }

    fn noted(&self, word: &str) -> Vec<String> {
        noted(&self.home.path().join("notes"), word)
    }

    /// What the shim says of the function.
    fn status(&self) -> Value {
        self.router.shim_status("notes")
    }

    fn copies(&self) -> BTreeSet<u32> {
        let status = self.status();
        let places = status["places"].as_array().unwrap();
        places.iter().filter_map(|place| place["pid"].as_u64()).map(|pid| pid as u32).collect()
    }

    /// The template that is ready.
    fn template(&self) -> Option<u32> {
        let status = self.status();
        let templates = status["templates"].as_array().unwrap();
        let ready = templates.iter().find(|template| template["state"] == "ready")?;
        Some(ready["pid"].as_u64()? as u32)
    }

    fn ask(&self, payload: &str) -> String {
        let output = self.router.invoke(&["notes", "--data", payload, "--deadline", "30s"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn apply(&self, warm: u32, version: &str) -> Output {
        let path = self.home.path().join("quickfire.toml");
        let text = manifest(self.home.path(), &test_program(), warm, version, "");
        std::fs::write(&path, text).unwrap();
        self.router.command("apply").arg(path).output().unwrap()
    }

    /// Waits until something was told of the last end; gives reason and stderr.
    fn last_end(&self, is_it: impl Fn(&str) -> bool) -> (String, Vec<Value>) {
        let mut end = (String::new(), Vec::new());
        eventually("the reason is told", || {
            let last = self.status()["last_exit"].clone();
            end.0 = last["reason"].as_str().unwrap_or_default().to_owned();
            end.1 = last["stderr"].as_array().cloned().unwrap_or_default();
            is_it(&end.0)
        });
        end
    }

    /// Ends it all, and checks that nothing is left.
    fn end(mut self) {
        assert_eq!(self.router.terminate().code(), Some(0));
        // A router that found its shim there does not wait for the shim's end.
        eventually("nothing is left behind", || processes_in(&self.router.dir).is_empty());
    }
}

fn test_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn manifest(home: &Path, program: &Path, warm: u32, version: &str, more: &str) -> String {
    let notes = home.join("notes");
    format!(
        "[functions.echo]\ncommand = [\"builtin:echo\"]\n\
         [functions.notes]\n\
         command = [{program:?}]\n\
         snapshot = true\nwarm = {warm}\nslots = 1\nidempotent = true\n\
         env = {{ NOTES = {notes:?}, VERSION = \"{version}\", {more} }}\n"
    )
}

fn copies_share_what_was_built_once_and_nothing_that_they_change_after() {
    let mut stand = Stand::serving(3);
    // Expect: initialised once, begun three times, by three processes whose parent is the shim.
    assert_eq!(stand.noted("init").len(), 1);
    let begun: BTreeSet<u32> = stand.noted("begin").iter().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(begun, stand.copies());
    assert_eq!(begun.len(), 3);
    assert_eq!(stand.ask("parent"), stand.router.shim().unwrap().to_string());

    // When each of them counts on, expect that each does so from what was built, and by itself.
    let asked: Vec<_> = (0..3)
        .map(|_| {
            let mut command = stand.router.command("invoke");
            command.args(["notes", "--data", "m3", "--deadline", "30s", "--connect", &stand.router.url]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in asked {
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (BUILT + 1).to_string());
    }
    let met: BTreeSet<u32> = stand.noted("met").iter().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(met, begun);

    // Expect: what the shim tells.
    let status = stand.status();
    for place in status["places"].as_array().unwrap() {
        assert_eq!(place["start"], "snapshot");
    }
    let template = &status["templates"][0];
    assert_eq!([&template["state"], &template["edition"]], ["ready", "in_force"]);
    assert_eq!(template["copies"], 3);
    assert_eq!(status["starts"], 3);
    let told = stand.router.command("functions").arg("notes").output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("template 0 (in force): ready, pid"), "{told}");
    // Expect: what was printed but not written out when it was copied is written by the template alone.
    let logs = stand.router.dir.join("logs");
    assert_eq!(stand.router.terminate().code(), Some(0));
    let texts = std::fs::read_dir(&logs)
        .unwrap()
        .flatten()
        .map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default());
    assert_eq!(texts.map(|text| text.matches("half a line").count()).sum::<usize>(), 1);
    stand.end();
}

/// By which the router tells who makes a nested call (decision 0026): no copy may know that of another.
fn each_copy_shows_a_secret_of_its_own() {
    let stand = Stand::serving(3);
    let shown = |pid: &u32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let ring = descriptors.map(|entry| entry.path()).find(|path| {
            std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:"))
        });
        let mut bytes = [0; 8];
        let place = shm_ring::layout::worker_line::WAITS_FOR as u64;
        std::fs::File::open(ring?).ok()?.read_exact_at(&mut bytes, place).ok()?;
        Some(u64::from_le_bytes(bytes)).filter(|bits| *bits != 0)
    };
    let mut secrets = BTreeSet::new();
    eventually("all have attached", || {
        secrets = stand.copies().iter().filter_map(shown).collect();
        stand.copies().iter().filter_map(shown).count() == 3
    });
    assert_eq!(secrets.len(), 3, "{secrets:x?}");
}

fn a_copy_has_the_descriptors_of_a_process_that_was_started_and_no_more() {
    let copied = Stand::serving(1);
    let started = {
        let home = tempfile::tempdir().unwrap();
        let text =
            manifest(home.path(), &test_program(), 1, "1", "").replace("snapshot = true", "snapshot = false");
        Stand { router: Router::start_in(home.path(), &text), home }
    };
    started.wait_until_serving(1);
    let kinds = |stand: &Stand| {
        let mut lines: Vec<_> = stand.ask("fds").lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(kinds(&copied), kinds(&started));
    assert_eq!(started.status()["places"][0]["start"], "exec");
    copied.end();
    started.end();
}

fn a_killed_copy_is_replaced_without_another_initialisation() {
    let stand = Stand::serving(2);
    let before = stand.copies();
    signal(*before.first().unwrap(), Signal::KILL);
    eventually("another copy serves", || {
        stand.status()["starts"] == 3 && stand.router.row("notes").workers == 2
    });
    assert_eq!(stand.noted("init").len(), 1);
    assert_eq!(stand.copies().intersection(&before).count(), 1);
    assert_eq!(stand.status()["last_exit"]["reason"], "killed by SIGKILL");
    stand.end();
}

fn a_killed_template_is_built_again_and_its_copies_do_not_notice() {
    let stand = Stand::serving(2);
    let (copies, template) = (stand.copies(), stand.template().unwrap());
    signal(template, Signal::KILL);
    eventually("another template is ready", || stand.template().is_some_and(|other| other != template));
    assert_eq!(stand.copies(), copies);
    assert_eq!(stand.noted("init").len(), 2);
    assert!(stand.status()["last_exit"]["place"].is_null(), "it was no place's process that ended");
    // And the next copy is made of it.
    signal(*copies.first().unwrap(), Signal::KILL);
    eventually("another copy serves", || {
        stand.status()["starts"] == 3 && stand.router.row("notes").workers == 2
    });
    assert_eq!(stand.noted("init").len(), 2);
    stand.end();
}

fn a_killed_shim_takes_template_and_copies_along_and_the_next_one_begins_anew() {
    let stand = Stand::serving(2);
    let mut before: Vec<u32> = stand.copies().into_iter().collect();
    before.push(stand.template().unwrap());
    signal(stand.router.shim().unwrap(), Signal::KILL);
    eventually("all that it had are gone", || {
        let left = processes_in(&stand.router.dir);
        before.iter().all(|pid| !left.contains(pid))
    });
    eventually("calls are answered by processes of the next shim", || {
        stand.router.row("notes").workers == 2 && stand.noted("init").len() == 2
    });
    assert!(!before.contains(&stand.ask("who").parse().unwrap()));
    stand.end();
}

/// `QUICKFIRE_SHIM_KILLS` says how many (default 4: the next shim is started less and less quickly).
fn a_shim_that_is_killed_while_copies_are_made_leaves_none_behind() {
    let kills: u64 = std::env::var("QUICKFIRE_SHIM_KILLS").map_or(4, |text| text.parse().expect("a count"));
    let mut stand = Stand::serving(12);
    // A linear congruential step (Knuth's MMIX constants) picks the moment, within the time that a template and its copies take.
    let mut random = 0x5EED_u64;
    println!("seed {random:#x}, {kills} kills");
    for _ in 0..kills {
        let mut shim = None;
        eventually("there is a shim", || {
            shim = stand.router.shim();
            shim.is_some()
        });
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 60_000));
        signal(shim.unwrap(), Signal::KILL);
        eventually("it is gone", || stand.router.shim() != shim);
    }
    eventually("all copies of the last one serve, and there are no others", || {
        let status = std::fs::read_to_string(stand.router.dir.join("shim.json")).unwrap_or_default();
        let pid = serde_json::from_str::<Value>(&status).map_or(Value::Null, |status| status["pid"].clone());
        pid.as_u64() == stand.router.shim().map(u64::from)
            && stand.router.row("notes").workers == 12
            && support::workers_in(&stand.router.dir, "notes").len() == 13
    });
    stand.ask("who");
    stand.router.terminate();
    eventually("nothing is left", || processes_in(&stand.router.dir).is_empty());
}

fn a_killed_router_leaves_template_and_copies_as_they_are() {
    let mut stand = Stand::serving(2);
    let before = (stand.copies(), stand.template());
    stand.router.kill_and_start_again();
    stand.wait_until_serving(2);
    assert_eq!((stand.copies(), stand.template()), before);
    assert_eq!(stand.noted("init").len(), 1);
    stand.ask("who");
    stand.end();
}

fn every_call_is_answered_once_while_templates_and_copies_are_killed() {
    let stand = Stand::new(3, "");
    let json = stand.router.dir.join("load.json");
    stand.wait_until_serving(3);
    let mut command = stand.router.command("load");
    command.args(["notes", "--rate", "2k", "--connections", "2", "--duration", "1h"]);
    command.args(["--connect", &stand.router.url]).arg("--json").arg(&json);
    let mut generator = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for round in 1..=6_u64 {
        let template = stand.template().unwrap();
        // The template first, so that the copies that are missing wait for the next one.
        if round % 2 == 0 {
            signal(template, Signal::KILL);
        }
        for copy in stand.copies().iter().take(2) {
            signal(*copy, Signal::KILL);
        }
        eventually("all are back", || {
            stand.status()["starts"].as_u64() >= Some(3 + 2 * round)
                && stand.copies().len() == 3
                && stand.router.row("notes").workers == 3
                && stand.template().is_some()
        });
    }
    signal(generator.id(), Signal::INT);
    assert!(generator.wait().unwrap().code().is_some());
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["sent"], report["answered"]);
    assert_eq!(report["mismatched"].as_u64(), Some(0));
    assert!(report["answered"].as_u64() > Some(100), "{report}");
    stand.end();
}

fn a_template_that_cannot_initialise_is_tried_less_and_less_often_and_its_reason_told() {
    let stand = Stand::new(2, "MODE = \"fail\"");
    let (reason, stderr) = stand.last_end(|reason| reason == "exited with code 3");
    assert_eq!(reason, "exited with code 3");
    assert_eq!(stderr, ["no table"]);
    eventually("the router refuses calls at once", || {
        let output = stand.router.invoke(&["notes", "--data", "x", "--deadline", "50ms"]);
        String::from_utf8_lossy(&output.stderr).contains("no_worker")
    });
    assert!(stand.status()["templates"][0]["failures"].as_u64() >= Some(5));
    assert_eq!(stand.status()["starts"], 0);
    assert_eq!(stand.status()["places"][0]["life"], "spawning");
    stand.end();
}

fn a_template_that_never_gets_ready_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let text = manifest(home.path(), &test_program(), 1, "1", "MODE = \"hang\"");
    let text = text.replace("snapshot = true", "snapshot = true\nstart_timeout = \"150ms\"");
    let stand = Stand { router: Router::start_in(home.path(), &text), home };
    stand.last_end(|reason| reason == "was not initialised after 150 ms (start_timeout)");
    eventually("it is tried again", || stand.noted("init").len() >= 2);
    stand.end();
}

fn a_template_with_threads_is_not_copied_and_told_how_many_it_has() {
    let stand = Stand::new(1, "MODE = \"thread\"");
    let (reason, stderr) = stand.last_end(|reason| reason.contains("threads"));
    assert_eq!(reason, "cannot be copied: it has 2 threads, and only a process with one can be");
    assert!(
        stderr[0].as_str().unwrap().contains("docs/coding/snapshots.md"),
        "its author is told what to do: {stderr:?}"
    );
    assert_eq!(stand.status()["starts"], 0);
    stand.end();
}

fn a_process_that_cannot_begin_after_it_was_copied_is_a_failing_process() {
    let stand = Stand::new(1, "BEGIN_FAILS = \"1\"");
    let (_, stderr) = stand.last_end(|reason| reason == "exited with code 1");
    assert_eq!(stderr, ["this process cannot begin: no connection"]);
    assert_eq!(stand.status()["templates"][0]["failures"], 0, "the template is not at fault");
    eventually("it is tried again", || stand.noted("begin").len() >= 2);
    stand.end();
}

fn templates_that_break_the_contract_are_named_and_cost_nobody_else() {
    for (mode, expected) in [
        ("nonsense", "sent what is no word of a template: a message has 8 bytes, not 128"),
        ("leaves", "closed the socket on which it gets its orders"),
        ("impostor", "the copy is a process that the shim already has"),
        ("chatters", "sent a word out of turn"),
        ("makes nothing", "made no copy within 5 s"),
    ] {
        let stand = Stand::new(1, &format!("MODE = \"{mode}\""));
        stand.last_end(|reason| reason == expected);
        assert_eq!(stand.status()["starts"], 0, "{mode}");
        let output = stand.router.invoke(&["echo", "--data", "x"]);
        assert!(output.status.success());
        stand.end();
    }
}

fn another_edition_has_a_template_of_its_own_and_the_one_before_goes() {
    let stand = Stand::serving(2);
    let (copies, template) = (stand.copies(), stand.template().unwrap());
    let output = stand.apply(2, "2");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("copies of the new template serve, and nothing is left of the old one", || {
        let status = stand.status();
        let templates = status["templates"].as_array().unwrap();
        stand.router.row("notes").workers == 2
            && stand.copies().len() == 2
            && stand.copies().is_disjoint(&copies)
            && templates.len() == 1
            && templates[0]["state"] == "ready"
    });
    assert_ne!(stand.template(), Some(template));
    assert_eq!(stand.noted("init").len(), 2);
    stand.ask("who");
    stand.end();
}

fn a_function_that_is_removed_loses_its_template_too() {
    let stand = Stand::serving(1);
    let path = stand.home.path().join("quickfire.toml");
    std::fs::write(&path, "[functions.echo]\ncommand = [\"builtin:echo\"]\n").unwrap();
    assert!(stand.router.command("apply").arg(path).output().unwrap().status.success());
    eventually("its processes are gone", || support::workers_in(&stand.router.dir, "notes").is_empty());
    stand.end();
}

fn a_program_that_was_replaced_on_disk_is_what_the_next_copy_runs() {
    // Given: a program file of its own.
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("program");
    std::fs::copy(test_program(), &program).unwrap();
    let text = manifest(home.path(), &program, 1, "1", "");
    let stand = Stand { router: Router::start_in(home.path(), &text), home };
    stand.wait_until_serving(1);
    let (copy, template) = (*stand.copies().first().unwrap(), stand.template().unwrap());

    // When: another file takes its place. Expect that nothing happens to who serves,
    let aside = stand.home.path().join("aside");
    std::fs::copy(test_program(), &aside).unwrap();
    std::fs::rename(&aside, &program).unwrap();
    assert_eq!(stand.ask("who"), copy.to_string());
    // and that the next process comes from the new file.
    signal(copy, Signal::KILL);
    eventually("another copy serves, of another template", || {
        stand.router.row("notes").workers == 1
            && stand.copies().iter().any(|other| *other != copy)
            && stand.template().is_some_and(|other| other != template)
    });
    assert_eq!(stand.noted("init").len(), 2);
    stand.end();
}

fn a_command_that_names_a_file_which_always_changes_still_gets_its_copies() {
    // Given: a file that each initialisation writes to, so that each template is made of another one than there is.
    let home = tempfile::tempdir().unwrap();
    let text = manifest(home.path(), &test_program(), 2, "1", "");
    let text = text.replace(
        &format!("[{:?}]", test_program()),
        &format!("[{:?}, {:?}]", test_program(), home.path().join("notes")),
    );
    let stand = Stand { router: Router::start_in(home.path(), &text), home };
    stand.wait_until_serving(2);
    stand.ask("who");
    stand.end();
}

fn a_bundled_function_is_copied_too_and_each_shard_gets_its_own_copies_of_one_template() {
    let mut router = Router::start(
        "[router]\nshards = 2\n[functions.echo]\ncommand = [\"builtin:echo\"]\nsnapshot = true\nwarm = 2\n",
    );
    eventually("all serve", || router.row("echo").workers == 4);
    let status = router.shim_status("echo");
    assert_eq!(status["templates"].as_array().unwrap().len(), 1);
    assert_eq!(status["templates"][0]["copies"], 4);
    let shards: BTreeSet<u64> =
        status["places"].as_array().unwrap().iter().map(|place| place["shard"].as_u64().unwrap()).collect();
    assert_eq!(shards, BTreeSet::from([0, 1]));
    let output = router.invoke(&["echo", "--data", "hello"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hello");
    assert_eq!(router.terminate().code(), Some(0));
    assert_eq!(processes_in(&router.dir), [0; 0]);
}
