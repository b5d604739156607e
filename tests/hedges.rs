//! Second attempts with real processes: a process that is slow, or stands still, holds no call up.
//!
//! The function asks the test what to answer, on a socket that its payload names, and adds which process it is.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use quickfire_client::Client;
use quickfire_client::serve::{Call, FunctionError, serve};
use rustix::process::Signal;
use support::{Router, eventually, signal};

#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn asker() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    serve(|call: &Call<'_>| -> Result<String, FunctionError> {
        let mut answer = String::new();
        UnixStream::connect(std::str::from_utf8(call.payload())?)?.read_to_string(&mut answer)?;
        Ok(format!("{} {answer}", std::process::id()))
    })
    .unwrap();
}

struct Story {
    router: Router,
    client: Client,
    oracle: UnixListener,
    path: String,
    _home: tempfile::TempDir,
}

impl Story {
    /// Long enough until the second attempt that the first process has asked by then, also where tests crowd each other.
    fn new() -> Story {
        let program = std::env::current_exe().unwrap();
        let router = Router::start(&format!(
            "[functions.echo]\ncommand = [\"builtin:echo\"]\n\
             [functions.asker]\ncommand = [{program:?}, \"asker\", \"--exact\", \"--ignored\", \"--nocapture\"]\n\
             warm = 2\nidempotent = true\nhedge = true\nhedge_after = \"1s\"\n"
        ));
        eventually("all processes are attached", || router.row("asker").workers == 2);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("oracle").display().to_string();
        let oracle = UnixListener::bind(Path::new(&path)).unwrap();
        let client = Client::connect(&router.url).unwrap();
        Story { router, client, oracle, path, _home: home }
    }

    fn start(&self) -> quickfire_client::Call {
        self.client.function("asker").unwrap().call(&self.path).start().unwrap()
    }

    /// Tells the next process that asks what to say.
    fn say(&self, word: &str) {
        self.oracle.accept().unwrap().0.write_all(word.as_bytes()).unwrap();
    }
}

/// The process and the word of an answer.
fn heard(call: quickfire_client::Call) -> (i32, String) {
    let answer = call.wait().unwrap().payload;
    let (process, word) = std::str::from_utf8(&answer).unwrap().split_once(' ').unwrap();
    (process.parse().unwrap(), word.to_owned())
}

#[test]
fn a_call_that_one_process_is_slow_with_is_answered_by_another() {
    let story = Story::new();
    let call = story.start();
    let mut slow = story.oracle.accept().unwrap().0;
    story.say("sooner");
    assert_eq!(heard(call).1, "sooner");
    assert_eq!(story.router.counter("engine.hedges_won"), 1);
    // Expect: the late answer is dropped.
    slow.write_all(b"later").unwrap();
    drop(slow);
    eventually("it is counted", || story.router.counter("engine.results_dropped") == 1);
}

#[test]
fn a_process_that_stands_still_holds_no_call_up() {
    let story = Story::new();
    let call = story.start();
    story.say("first");
    let (process, _) = heard(call);
    // Given: the process that gets the next call, because it was used last, is stopped.
    signal(process as u32, Signal::STOP);
    let call = story.start();
    story.say("second");
    let (other, word) = heard(call);
    assert_eq!(word, "second");
    assert_ne!(other, process);
    signal(process as u32, Signal::CONT);
}
