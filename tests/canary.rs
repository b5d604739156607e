//! A next version that gets a share of the calls, and the way back, with real processes.

mod support;

use std::path::Path;
use std::process::Output;

use quickfire_client::{Client, Function};
use support::Router;

/// Two versions of a greeting, of which the second gets `percent` of the calls.
fn manifest(percent: Option<u32>) -> String {
    let canary = percent
        .map_or(String::new(), |percent| format!("canary = \"greet-next\"\ncanary_percent = {percent}\n"));
    format!(
        "[functions.echo]\ncommand = [\"builtin:echo\"]\n\
         [functions.greet]\nruntime = \"exec\"\ncommand = [\"echo\", \"good day\"]\n{canary}\
         [functions.greet-next]\nruntime = \"exec\"\ncommand = [\"echo\", \"hello\"]\n"
    )
}

fn apply(router: &Router, home: &Path, manifest: &str) -> Output {
    let path = home.join("next.toml");
    std::fs::write(&path, manifest).unwrap();
    router.command("apply").arg(path).output().unwrap()
}

/// Of so many calls, how many the next version answered; all were answered by one of the two.
fn hellos(greet: &Function, calls: usize) -> usize {
    let answers = (0..calls).map(|_| greet.call("").wait().unwrap_or_else(|error| panic!("{error}")));
    let said: Vec<_> = answers.map(|answer| String::from_utf8(answer.payload.to_vec()).unwrap()).collect();
    assert!(said.iter().all(|text| ["good day\n", "hello\n"].contains(&text.as_str())), "{said:?}");
    said.iter().filter(|text| *text == "hello\n").count()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn a_canary_gets_its_share_and_one_command_takes_it_back() {
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &manifest(None));
    let client = Client::connect(&router.url).unwrap();
    let greet = client.function("greet").unwrap();
    assert_eq!(hellos(&greet, 5), 0);
    assert!(apply(&router, home.path(), &manifest(Some(20))).status.success());
    assert_eq!(hellos(&greet, 50), 10);
    assert_eq!(router.counter("engine.calls_to_canary"), 10);
    let rows = ["greet", "greet-next"].map(|name| router.row(name).ok);
    assert_eq!(rows, [45, 10], "each version has its own line");
    // When: more, and then back twice.
    assert!(apply(&router, home.path(), &manifest(Some(100))).status.success());
    assert_eq!(hellos(&greet, 5), 5);
    let dry = router.command("rollback").arg("--dry-run").output().unwrap();
    let dry = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(dry.contains("would be in force:") && dry.contains("canary_percent"), "{dry}");
    assert_eq!(hellos(&greet, 5), 5, "nothing was changed");
    assert_eq!(code(&router.command("rollback").output().unwrap()), Some(0));
    assert_eq!(hellos(&greet, 10), 2);
    assert_eq!(code(&router.command("rollback").output().unwrap()), Some(0));
    assert_eq!(hellos(&greet, 10), 0);
    // Expect: there is nothing before the configuration of the start.
    let refused = router.command("rollback").output().unwrap();
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(code(&refused), Some(2), "{says}");
    assert!(says.contains("nothing was in force before"), "{says}");
    assert_eq!(hellos(&greet, 5), 0);
}

#[test]
fn a_canary_that_cannot_start_costs_no_call() {
    let broken = manifest(Some(50))
        .replace("runtime = \"exec\"\ncommand = [\"echo\", \"hello\"]", "command = [\"/bin/false\"]");
    let home = tempfile::tempdir().unwrap();
    let router = Router::start_in(home.path(), &broken);
    let client = Client::connect(&router.url).unwrap();
    let greet = client.function("greet").unwrap();
    assert_eq!(hellos(&greet, 50), 0);
    support::eventually("the canary is started again and again", || {
        router.shim_status("greet-next")["starts"].as_u64() > Some(3)
    });
    assert_eq!(hellos(&greet, 50), 0);
    assert_eq!(router.counter("engine.calls_to_canary"), 0);
}
