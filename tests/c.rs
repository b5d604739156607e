//! Functions and callers in C and C++, built by a C compiler as a user would build them, with a real router and real processes.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use rustix::process::Signal;
use support::{Router, eventually, signal};

/// What a static library of Rust needs of the system: docs/coding/c.md says the same.
const LIBRARIES: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

/// The folder with `libquickfire.a` and `libquickfire.so`: cargo names neither to a test of another package.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--locked", "--message-format=json"]);
    let output = cargo.args(["-p", "quickfire-c"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let messages = cargo_metadata::Message::parse_stream(&output.stdout[..]);
    let files = messages.filter_map(|message| match message {
        Ok(cargo_metadata::Message::CompilerArtifact(artifact)) => Some(artifact.filenames),
        _ => None,
    });
    let library = files.flatten().find(|file| file.file_name() == Some("libquickfire.a"));
    library.expect("cargo has built it").parent().unwrap().into()
});

/// What all compilers are told.
fn compiler(program: &str, standard: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-g", standard, "-D_DEFAULT_SOURCE", "-I"]);
    command.arg(root().join("clients/c/include"));
    command
}

/// Builds a program of `clients/c/tests/programs` into `dir`.
fn build(dir: &Path, mut compiler: Command, source: &str, name: &str) -> PathBuf {
    let program = dir.join(name);
    compiler.arg("-o").arg(&program).arg(root().join("clients/c/tests/programs").join(source));
    compiler.args(["-x", "none"]).arg(LIBRARY.join("libquickfire.a")).args(LIBRARIES);
    let output = compiler.output().expect("cc and c++");
    assert!(output.status.success(), "{source}: {}", text(&output.stderr));
    program
}

fn c11() -> Command {
    compiler("cc", "-std=c11")
}

fn as_cpp() -> Command {
    let mut compiler = compiler("c++", "-std=c++11");
    compiler.args(["-x", "c++"]);
    compiler
}

/// A router with the function in C, of two processes, so that one can call another.
fn router(dir: &Path) -> Router {
    let function = build(dir, c11(), "function.c", "function");
    let socket = "unix://$DIR/run/router.sock";
    let table =
        format!("[functions.c]\ncommand = [{function:?}]\nwarm = 2\nenv = {{ ROUTER = \"{socket}\" }}\n");
    let home = dir.join("home");
    std::fs::create_dir(&home).unwrap();
    let table = table.replace("$DIR", &home.display().to_string());
    Router::start_in(&home, &(support::echo_manifest(1) + &table))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn well(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_caller_and_a_function_in_c_agree_over_every_way_to_the_router() {
    let dir = tempfile::tempdir().unwrap();
    let router = router(dir.path());
    let caller = build(dir.path(), c11(), "caller.c", "caller");
    let unix = format!("unix://{}", router.dir.join("router.sock").display());
    let shm = format!("shm://{}", router.dir.display());
    for url in [&router.url, &unix, &shm] {
        well(&Command::new(&caller).arg(url).output().unwrap());
    }
    // Expect: the function noticed each end of a call, and nothing else made it say so.
    let log =
        |place| std::fs::read_to_string(router.dir.join(format!("logs/c.{place}.log"))).unwrap_or_default();
    eventually("what was to end has been noticed", || {
        let logs = log(0) + &log(1);
        logs.matches("began").count() == logs.matches("noticed").count()
    });
}

#[test]
fn the_same_caller_is_a_program_in_cpp() {
    let dir = tempfile::tempdir().unwrap();
    let router = router(dir.path());
    let caller = build(dir.path(), as_cpp(), "caller.c", "caller");
    well(&Command::new(&caller).arg(&router.url).output().unwrap());
}

#[test]
#[ignore = "needs valgrind: .ci/run installs it"]
fn a_caller_leaks_nothing_and_reads_nothing_that_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let router = router(dir.path());
    let caller = build(dir.path(), c11(), "caller.c", "caller");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    well(&valgrind.arg(&caller).arg(&router.url).output().unwrap());
}

#[test]
fn a_function_in_c_that_is_killed_is_replaced_and_one_that_stops_itself_ends_tidily() {
    let dir = tempfile::tempdir().unwrap();
    let router = router(dir.path());
    let invoke = |word: &str| router.invoke(&["c", "--data", word, "--deadline", "20s"]);
    let pid: u32 = well(&invoke("pid")).trim().parse().unwrap();
    signal(pid, Signal::KILL);
    eventually("another process has come", || {
        let workers = router.workers("c");
        workers.len() == 2 && !workers.contains(&pid)
    });
    assert_ne!(well(&invoke("pid")).trim(), pid.to_string());

    assert_eq!(well(&invoke("stop")).trim_end(), "stopping");
    let log =
        |place| std::fs::read_to_string(router.dir.join(format!("logs/c.{place}.log"))).unwrap_or_default();
    eventually("it has ended by itself", || (log(0) + &log(1)).contains("served "));
    assert_eq!(well(&invoke("still served")).trim_end(), "still served");
}

#[test]
fn a_function_in_c_stays_warm_when_its_router_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut router = router(dir.path());
    let mut before = router.workers("c");
    router.kill_and_start_again();
    let mut after = Vec::new();
    eventually("it serves the next router", || {
        after = router.workers("c");
        router.invoke(&["c", "--data", "x", "--deadline", "1s"]).status.success()
    });
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
}

#[test]
fn the_example_knows_a_message_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = root().join("examples/functions");
    let program = dir.path().join("duplicates");
    let mut cc = c11();
    cc.arg(folder.join("native/duplicates.c")).arg(LIBRARY.join("libquickfire.a")).args(LIBRARIES);
    let built = cc.arg("-o").arg(&program).output().unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let manifest = std::fs::read_to_string(folder.join("c.toml")).unwrap();
    let manifest = manifest.replace("../../target/duplicates", &program.display().to_string());
    let messages = folder.join("samples/messages.tsv");
    let router = Router::start(
        &(support::echo_manifest(1) + &manifest + &format!("env = {{ MESSAGES = {messages:?} }}\n")),
    );
    let ask = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&well(&router.invoke(&[&["duplicates"], arguments].concat()))).unwrap()
    };
    let changed = ask(&["--data", "Congratulations! You have won a free cruise. Claim the prize now"]);
    assert_eq!((&changed["duplicate"], &changed["judged"]), (&true.into(), &"spam".into()), "{changed}");
    let other = ask(&["--in", &folder.join("samples/comment.txt").display().to_string()]);
    assert_eq!(other["duplicate"], false, "{other}");
    let empty = router.invoke(&["duplicates", "--data", "?"]);
    assert!(text(&empty.stderr).contains("less than four letters"), "{}", text(&empty.stderr));
}

#[test]
fn the_guides_programs_are_what_a_compiler_takes() {
    let guide = std::fs::read_to_string(root().join("docs/coding/c.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let programs: Vec<_> =
        guide.split("```c\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(programs.len(), 2);
    for (number, program) in programs.into_iter().enumerate() {
        let source = dir.path().join(format!("{number}.c"));
        std::fs::write(&source, program).unwrap();
        let mut cc = c11();
        cc.arg(&source)
            .arg(LIBRARY.join("libquickfire.a"))
            .args(LIBRARIES)
            .arg("-o")
            .arg(dir.path().join("program"));
        let built = cc.output().unwrap();
        assert!(built.status.success(), "{}", text(&built.stderr));
    }
}

#[test]
fn a_router_that_dies_ends_the_calls_of_a_caller_in_c() {
    let dir = tempfile::tempdir().unwrap();
    let mut router = router(dir.path());
    let caller = build(dir.path(), c11(), "caller.c", "caller");
    let waiting = Command::new(&caller).args([&router.url, "wait"]).stderr(Stdio::piped()).spawn().unwrap();
    let log =
        |place| std::fs::read_to_string(router.dir.join(format!("logs/c.{place}.log"))).unwrap_or_default();
    eventually("its call runs", || (log(0) + &log(1)).contains("began"));
    router.child.kill().unwrap();
    well(&waiting.wait_with_output().unwrap());
}

#[test]
fn a_function_in_c_is_copied_too() {
    let dir = tempfile::tempdir().unwrap();
    let function = build(dir.path(), c11(), "function.c", "function");
    let table = format!("[functions.c]\ncommand = [{function:?}]\nwarm = 2\nsnapshot = true\n");
    let router = Router::start(&(support::echo_manifest(1) + &table));
    let pid: u64 = well(&router.invoke(&["c", "--data", "pid", "--deadline", "20s"])).trim().parse().unwrap();
    eventually("the shim tells of copies, and that one of them answered", || {
        let status = router.shim_status("c");
        let places = status["places"].as_array().unwrap();
        places.iter().all(|place| place["start"] == "snapshot")
            && places.iter().any(|place| place["pid"] == pid)
    });
}

#[test]
fn an_exception_that_leaves_a_handler_ends_the_process_and_not_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let function = build(dir.path(), compiler("c++", "-std=c++11"), "throws.cpp", "throws");
    let table = format!("[functions.throws]\ncommand = [{function:?}]\n");
    let router = Router::start(&(support::echo_manifest(1) + &table));
    assert_eq!(well(&router.invoke(&["throws", "--data", "fine"])).trim_end(), "fine");
    let thrown = router.invoke(&["throws", "--data", "throw", "--deadline", "20s"]);
    assert!(text(&thrown.stderr).contains("worker_lost"), "{}", text(&thrown.stderr));
    assert_eq!(well(&router.invoke(&["throws", "--data", "fine"])).trim_end(), "fine");
}

#[test]
fn a_program_started_by_hand_says_how_to_start_it() {
    let dir = tempfile::tempdir().unwrap();
    let function = build(dir.path(), c11(), "function.c", "function");
    let output = Command::new(function).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("this program is a Quickfire function"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_program_can_use_the_shared_library() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("caller");
    let mut cc = c11();
    cc.arg("-o").arg(&program).arg(root().join("clients/c/tests/programs/caller.c")).arg("-L").arg(&*LIBRARY);
    // -Bdynamic: both libraries are in that folder.
    let output = cc.args(["-Wl,-Bdynamic", "-lquickfire", "-lpthread"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let router = router(dir.path());
    let mut caller = Command::new(&program);
    well(&caller.arg(&router.url).env("LD_LIBRARY_PATH", &*LIBRARY).output().unwrap());
}
