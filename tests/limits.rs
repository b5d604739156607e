//! Limits and turns with real processes: who is over a rate is told when to come again, a team's backlog is its own, and a spike waits.

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use protocol::Status;
use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::{CallError, Client};
use support::{Router, eventually};

/// A table of a function that is this very program, which writes down what it is called with.
fn writer(name: &str, options: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = r#""scribe", "--exact", "--ignored", "--nocapture", "--test-threads=1""#;
    format!("[functions.{name}]\ncommand = [{program:?}, {arguments}]\n{options}\n")
}

/// The function of the tests below. Its payload is a directory and a word: it waits until the directory holds `go`, and adds the
/// word to `log`.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn scribe() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    serve(|call: &Call<'_>| -> Result<String, FunctionError> {
        let payload = std::str::from_utf8(call.payload())?;
        let (directory, word) = payload.split_once(' ').ok_or_else(|| FunctionError::new("no word"))?;
        while !Path::new(directory).join("go").exists() {
            std::thread::yield_now();
        }
        let mut log = OpenOptions::new().create(true).append(true).open(Path::new(directory).join("log"))?;
        writeln!(log, "{word}")?;
        Ok(String::new())
    })
    .unwrap();
}

#[test]
fn a_call_over_the_rate_is_refused_and_told_when_to_come_again() {
    // Given: one call a second, of a function and of a tenant.
    let router = Router::start(
        "[functions.echo]\ncommand = [\"builtin:echo\"]\n\
         [tenants.small]\nrate = 1\nrate_burst = 1\n\
         [functions.own]\ncommand = [\"builtin:echo\"]\nrate = 1\nrate_burst = 1\n\
         [functions.first]\ncommand = [\"builtin:echo\"]\ntenant = \"small\"\n\
         [functions.second]\ncommand = [\"builtin:echo\"]\ntenant = \"small\"\n",
    );
    let client = Client::connect(&router.url).unwrap();
    let call = |name: &str| client.function(name).unwrap().call("x").wait();

    // Expect: however slow this machine is, not every call has a second for itself.
    for pair in [["own", "own"], ["first", "second"]] {
        let refused = (0..100).flat_map(|_| pair).find_map(|name| call(name).err());
        match refused {
            Some(CallError::Refused { status: Status::RateLimited, retry_after: Some(wait) }) => {
                assert!(wait <= Duration::from_secs(1), "{wait:?}");
            }
            other => panic!("{pair:?}: {other:?}"),
        }
    }
}

#[test]
fn a_team_that_wants_little_does_not_wait_for_the_backlog_of_another() {
    // Given: one process may run at a time, and twenty calls of one team were there first.
    let home = tempfile::tempdir().unwrap();
    let router = Router::start(&format!(
        "[router]\nrunning_max = 1\n[tenants.many]\n[tenants.few]\n\
         [functions.echo]\ncommand = [\"builtin:echo\"]\n{}{}",
        writer("flood", "tenant = \"many\""),
        writer("trickle", "tenant = \"few\"")
    ));
    let client = Client::connect(&router.url).unwrap();
    let start = |name: &str| {
        let payload = format!("{} {name}", home.path().display());
        client.function(name).unwrap().call(&payload).start().unwrap()
    };
    let mut calls: Vec<_> = (0..20).map(|_| start("flood")).collect();
    eventually("one of the flood runs and the others wait", || router.row("flood").queued == 19);
    calls.push(start("trickle"));
    eventually("so does the trickle", || router.row("trickle").queued == 1);

    // When
    fs::write(home.path().join("go"), "").unwrap();
    calls.into_iter().for_each(|call| drop(call.wait().unwrap()));

    // Expect: only what was running went before it.
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    let place = log.lines().position(|word| word == "trickle");
    assert!(place.is_some_and(|place| place <= 1), "{log}");
    assert_eq!(log.lines().count(), 21);
}

#[test]
fn a_caller_that_sends_in_spikes_lets_others_go_before() {
    // Given: the only process is busy, ten calls of one connection wait, nearly all beyond its rate, and then one of another.
    let home = tempfile::tempdir().unwrap();
    let options = "slots = 1\ncaller_rate = 1\ncaller_burst = 1";
    let echo = "[functions.echo]\ncommand = [\"builtin:echo\"]\n";
    let router = Router::start(&format!("{echo}{}", writer("busy", options)));
    let clients = [Client::connect(&router.url).unwrap(), Client::connect(&router.url).unwrap()];
    let start = |client: &Client, word: &str| {
        let payload = format!("{} {word}", home.path().display());
        client.function("busy").unwrap().call(&payload).start().unwrap()
    };
    let mut calls: Vec<_> = (0..11).map(|_| start(&clients[0], "spike")).collect();
    eventually("one runs and the others wait", || router.row("busy").queued == 10);
    calls.push(start(&clients[1], "other"));
    eventually("so does the other's", || router.row("busy").queued == 11);

    // When
    fs::write(home.path().join("go"), "").unwrap();
    calls.into_iter().for_each(|call| drop(call.wait().unwrap()));

    // Expect: it was not the last one. How many a slow machine let into their lanes by the rate, nobody knows.
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    assert_eq!(log.lines().last(), Some("spike"), "{log}");
    assert_eq!(log.lines().filter(|word| *word == "other").count(), 1);
}
