//! A whole shard in one process and on one thread with its client and its worker: what `bench instructions` counts under
//! valgrind beside `turn`, and what to profile when a call costs too much.
//!
//! In: how calls come in (`shm` or `tcp`), calls outstanding, a number of calls.  Out: nothing worth reading; the count is
//! valgrind's.
//! A round lets client, shard and worker do in turn whatever there is to do: the client takes all answers and fills its
//! window again, the shard takes one turn, the worker answers everything in its ring. Each is a function that is never
//! inlined, so that the profile names it.
//! Always: the shard as it is configured by default, made by the same function as in `quickfire up`, over a real attach
//! socket, real sealed memory, real sockets; the same calls in the same order, in the same batches.
//! Never: sleeps, or lets the kernel choose who runs. Sockets are on epoll because valgrind knows no io_uring; what the
//! kernel does for them is not counted.
//! Guide: docs/performance.md, "The instruction gate".

#![forbid(unsafe_code)]

mod client;
mod worker;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use engine::Limits;
use queue::{Mailbox, Waker};
use router::Config;
use router::frontend::{self, Bell};
use router::names::{Names, SharedNames};
use router::shard::{Shard, ShardInputs};
use router::start::{StartOptions, shard_options};
use router::tape::Tape;
use router::workers::ShimState;

use client::Client;
use worker::Worker;

const USAGE: &str = "usage: shard shm|tcp WINDOW CALLS; `bench instructions` runs it under valgrind";
/// The attach socket has the name that clients look for.
const ATTACH_SOCKET: &str = "attach-0.sock";
const FUNCTION: &str = "echo";
const COMMANDS_MAX: usize = 16;
const LOCAL_CALLS_MAX: u32 = 16;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [transport, window, calls] = words.as_slice() else { end_with(USAGE) };
    let (Ok(window), Ok(calls)) = (window.parse(), calls.parse()) else { end_with(USAGE) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut parties = match transport.as_str() {
        "shm" => Parties::over_shm(dir.path(), window),
        "tcp" => Parties::over_tcp(dir.path(), window),
        _ => end_with(USAGE),
    };
    parties.run(calls);
}

fn end_with(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2)
}

struct Parties {
    client: Client,
    shard: Shard,
    worker: Worker,
}

impl Parties {
    fn over_shm(dir: &Path, window: u32) -> Parties {
        let mut shard = shard(dir, Vec::new());
        let attach = || (Worker::attach(dir, FUNCTION), Client::over_shm(dir, window));
        let (worker, client) = while_turning(&mut shard, attach);
        Parties { client, shard, worker }
    }

    fn over_tcp(dir: &Path, window: u32) -> Parties {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let address = listener.local_addr().expect("a bound socket");
        let mut shard = shard(dir, vec![listener.into()]);
        let attach = || (Worker::attach(dir, FUNCTION), Client::over_tcp(address, window));
        let (worker, client) = while_turning(&mut shard, attach);
        Parties { client, shard, worker }
    }

    /// Takes turns until so many calls are answered.
    fn run(&mut self, calls: u64) {
        let mut answered = 0;
        while answered < calls {
            answered += client_turn(&mut self.client);
            shard_turn(&mut self.shard);
            worker_turn(&mut self.worker);
        }
    }
}

#[inline(never)]
fn client_turn(client: &mut Client) -> u64 {
    client.turn()
}

#[inline(never)]
fn shard_turn(shard: &mut Shard) -> usize {
    shard.turn()
}

#[inline(never)]
fn worker_turn(worker: &mut Worker) {
    worker.turn();
}

/// Whoever attaches waits for answers of the shard, which therefore goes on.
fn while_turning<T: Send>(shard: &mut Shard, attach: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let attaching = scope.spawn(attach);
        while !attaching.is_finished() {
            shard.turn();
        }
        attaching.join().expect("attaching succeeds")
    })
}

/// A shard with one `echo`, as `quickfire up` makes it for a configuration that says no more than that.
fn shard(dir: &Path, listeners: Vec<std::os::fd::OwnedFd>) -> Shard {
    let text = format!(
        "[router]\nrun_dir = {:?}\nio = \"epoll\"\n[functions.{FUNCTION}]\ncommand = [\"none\"]\n",
        dir.display().to_string()
    );
    let config = Config::parse(&text, "the example").expect("a sound configuration");
    let attach = UnixListener::bind(dir.join(ATTACH_SOCKET)).expect("a path of ours");
    attach.set_nonblocking(true).expect("a socket of ours");
    let bell = Arc::new(Bell::new().expect("an eventfd"));
    let names = SharedNames::new(Names::new([FUNCTION]));
    let (_local, local) = frontend::local(names, bell.clone(), LOCAL_CALLS_MAX);
    let inputs = ShardInputs {
        listeners,
        attach: attach.into(),
        commands: Arc::new(Mailbox::with_capacity(COMMANDS_MAX, NoWake)),
        bell,
        local,
        placement: None,
        shim: ShimState::default(),
        publish: None,
        tape: Tape::none(),
    };
    let ledger = Arc::new(engine::ledger(&Limits::default()));
    let options = shard_options(&config, &StartOptions::default(), 0, ledger);
    // There is no shim that gives its processes a token.
    Shard::new(options, inputs).expect("room for a shard")
}

/// Nobody sleeps here.
struct NoWake;

impl Waker for NoWake {
    fn wake(&self) {}
}
