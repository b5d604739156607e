//! Calls with one idempotency key, with real processes: run once, answered each.
//!
//! The function asks the test what to answer, on a socket that its payload names: who was run, and how often, is counted there.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use quickfire_client::Client;
use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::shm::{self, ShmClient};
use support::{Router, eventually};

const KEY: [u8; 16] = *b"one and the same";

#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn asker() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    serve(|call: &Call<'_>| -> Result<String, FunctionError> {
        let mut answer = String::new();
        UnixStream::connect(std::str::from_utf8(call.payload())?)?.read_to_string(&mut answer)?;
        if answer == "die" {
            std::process::exit(1);
        }
        Ok(answer)
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
    fn new() -> Story {
        let program = std::env::current_exe().unwrap();
        let router = Router::start(&format!(
            "[router]\nshards = 1\ndirect_lanes = true\n\
             [functions.echo]\ncommand = [\"builtin:echo\"]\n\
             [functions.asker]\ncommand = [{program:?}, \"asker\", \"--exact\", \"--ignored\", \"--nocapture\"]\n\
             warm = 2\n"
        ));
        eventually("all processes are attached", || router.row("asker").workers == 2);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("oracle").display().to_string();
        let oracle = UnixListener::bind(Path::new(&path)).unwrap();
        let client = Client::connect(&router.url).unwrap();
        Story { router, client, oracle, path, _home: home }
    }

    fn start(&self) -> quickfire_client::Call {
        self.client.function("asker").unwrap().call(&self.path).idempotency_key(KEY).start().unwrap()
    }

    /// A function that runs, and waits to be told what to say.
    fn run(&self) -> UnixStream {
        self.oracle.accept().unwrap().0
    }

    fn joined(&self, count: u64) {
        eventually("the others have joined", || self.router.counter("engine.calls_joined") == count);
    }

    /// Nobody asks that was not heard.
    fn expect_no_other_run(&self) {
        self.oracle.set_nonblocking(true).unwrap();
        let other = self.oracle.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(other, Err(std::io::ErrorKind::WouldBlock), "somebody else ran");
    }
}

#[test]
fn callers_of_every_kind_share_one_run_and_its_large_result() {
    let story = Story::new();
    let result = "a result of some size ".repeat(10_000);
    let calls: Vec<_> = (0..3).map(|_| story.start()).collect();
    let mut asking = story.run();
    // Given: two more through a ring, of a client that would rather call the function directly.
    let options = shm::Options { payload_size_max: 512 << 10, ..shm::Options::default() };
    let mut near = ShmClient::attach(&story.router.dir, &options).unwrap();
    let function = near.resolve("asker").unwrap();
    let call = shm::Call { idempotency_key: Some(KEY), ..shm::Call::of(function) };
    for call_id in [1, 2] {
        near.submit(&shm::Call { call_id, ..call }, story.path.as_bytes()).unwrap();
    }
    near.wait(Some(std::time::Duration::ZERO)).unwrap();
    story.joined(4);

    // When
    asking.write_all(result.as_bytes()).unwrap();
    drop(asking);

    // Expect
    for call in calls {
        assert_eq!(call.wait().unwrap().payload, result);
    }
    for _ in 0..2 {
        let answered = loop {
            match near.poll().unwrap() {
                Some(answered) => break answered,
                None => drop(near.wait(None).unwrap()),
            }
        };
        assert!(near.result(&answered) == result.as_bytes());
        near.release(answered);
    }
    story.expect_no_other_run();
}

#[test]
fn a_run_goes_on_for_the_others_when_the_first_caller_is_gone() {
    let story = Story::new();
    let first_client = Client::connect(&story.router.url).unwrap();
    let first = first_client.function("asker").unwrap();
    let first = first.call(&story.path).idempotency_key(KEY).start().unwrap();
    let mut asking = story.run();
    let second = story.start();
    story.joined(1);
    drop((first, first_client));
    eventually("the first one is gone", || {
        let inspected = |name: &str| story.router.counter(name);
        inspected("engine.calls_forgotten") + inspected("engine.answered_cancelled") == 1
    });
    asking.write_all(b"for who stays").unwrap();
    drop(asking);
    assert_eq!(&second.wait().unwrap().payload[..], b"for who stays");
    story.expect_no_other_run();
}

#[test]
fn a_run_that_dies_is_tried_again_for_all_of_them() {
    let story = Story::new();
    let calls = [story.start(), story.start()];
    let mut asking = story.run();
    story.joined(1);
    asking.write_all(b"die").unwrap();
    drop(asking);
    let mut asking = story.run();
    asking.write_all(b"at last").unwrap();
    drop(asking);
    for call in calls {
        assert_eq!(&call.wait().unwrap().payload[..], b"at last");
    }
    story.expect_no_other_run();
}
