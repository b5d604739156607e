//! Functions that come, go, and get another program or another ring while a router runs; with workers on threads.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use protocol::attach::{AttachRefused, Message};
use protocol::{Criticality, FrameParts, FunctionId, FunctionName, Status};
use router::frontend::{Local, Request};
use router::{Config, ReloadRefused};
use support::*;

const ECHO: &str = "[functions.echo]\ncommand = [\"true\"]\nslots = 64\n";
const OTHER_ECHO: &str = "[functions.echo]\ncommand = [\"true\", \"-v\"]\nslots = 128\n";
const MORE: &str = "[functions.more]\ncommand = [\"true\"]\n";

/// What a file with these functions and nothing else asks for.
fn wanted(functions: &str) -> Config {
    Config::parse(functions, "wanted").expect("a configuration")
}

impl Reloading for Bench {
    fn reload(&mut self, functions: &str) {
        let config = wanted(functions);
        self.router.reconfigure(&config).expect("taken");
        // Workers that the test starts from now on are of what is in force.
        self.config = config;
    }
}

trait Reloading {
    fn reload(&mut self, functions: &str);
}

fn call_of(local: &Local, function: FunctionId) -> (Status, Bytes) {
    let request = Request {
        function,
        payload: Bytes::from_static(b"x"),
        criticality: Criticality::Normal,
        budget: None,
    };
    let answer = local.submit(request).expect("room").wait();
    (answer.status, answer.payload)
}

fn edition(functions: &str) -> u64 {
    wanted(functions).functions[0].edition()
}

/// A process that attaches as this edition of `echo`, by hand; and what it is told.
fn attach(bench: &Bench, token: u64) -> (UnixStream, Message) {
    let mut socket = UnixStream::connect(bench.router.run_dir().attach_socket(0)).expect("the attach socket");
    let mut record = Vec::new();
    let name = FunctionName::new("echo").expect("a name");
    Message::AttachWorker { name, token, process_id: std::process::id(), lanes_max: 0 }.encode(&mut record);
    socket.write_all(&record).expect("the router reads");
    let told = hear(&mut socket);
    (socket, told)
}

/// A shim that was accepted and told to look.
fn shim(bench: &Bench) -> UnixStream {
    let mut socket = UnixStream::connect(bench.router.run_dir().attach_socket(0)).expect("the attach socket");
    let mut record = Vec::new();
    let config_digest = bench.config.digest();
    Message::AttachShim { config_digest, process_id: std::process::id() }.encode(&mut record);
    socket.write_all(&record).expect("the router reads");
    assert_eq!(hear(&mut socket), Message::ShimAccepted { shard: 0 });
    assert_eq!(hear(&mut socket), Message::ShimReload);
    socket
}

fn serves(edition: u64) -> Message {
    Message::EditionServes { name: FunctionName::new("echo").expect("a name"), edition }
}

#[test]
fn a_function_comes_goes_and_comes_back_under_the_number_that_clients_hold() {
    let mut bench = Setup::new(ECHO).start();
    let _echo = bench.echo_worker();
    let local = bench.router.local(0).expect("shard 0");
    let mut client = bench.client();
    assert_eq!(local.resolve("more"), None);
    // When it comes. Expect: it is resolved and called, here and over the wire.
    bench.reload(&format!("{ECHO}{MORE}"));
    let more = local.resolve("more").expect("it is there");
    assert_eq!(more, FunctionId(1));
    let worker = bench.worker("more", |shift| shift.answer_all(|_| b"more".to_vec()));
    assert_eq!(call_of(&local, more), (Status::Ok, Bytes::from_static(b"more")));
    let parts = FrameParts::invoke(call(0), more);
    client.send(&frame(&parts, b""));
    assert_eq!(client.reply(call(0)).payload, b"more");
    // When it goes. Expect: its worker is sent away, its number means nothing, and the other function notices nothing.
    bench.reload(ECHO);
    assert_eq!(local.resolve("more"), None);
    assert_eq!(call_of(&local, more).0, Status::UnknownFunction);
    client.send(&frame(&FrameParts::invoke(call(1), more), b""));
    assert_eq!(client.reply(call(1)).status, Status::UnknownFunction);
    bench.until("its worker is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
    drop(worker);
    assert_eq!(client.call(call(2), b"still").payload, b"still");
    assert_eq!(bench.router.function_name(more).as_deref(), Some("more"), "kept calls of it have a name");
    // When others come first, and then it comes back. Expect: its number is its own.
    bench.reload(&format!("{ECHO}[functions.a]\ncommand = [\"true\"]\n"));
    bench.reload(&format!("{ECHO}{MORE}"));
    assert_eq!(local.resolve("more"), Some(more));
    let _worker = bench.worker("more", |shift| shift.answer_all(|_| b"again".to_vec()));
    assert_eq!(call_of(&local, more), (Status::Ok, Bytes::from_static(b"again")));
}

#[test]
fn a_removed_function_finishes_the_calls_that_it_has() {
    // Given: a call that waits for a worker.
    let mut bench = Setup::new(&format!("{ECHO}{MORE}")).start();
    let local = bench.router.local(0).expect("shard 0");
    let more = local.resolve("more").expect("it is there");
    let request = Request {
        function: more,
        payload: Bytes::from_static(b"promised"),
        criticality: Criticality::Normal,
        budget: None,
    };
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let _worker = bench.worker("more", move |shift| {
        // Answers when the test says so.
        if gone.try_recv().is_ok() {
            shift.answer_all(<[u8]>::to_vec);
        }
    });
    let ticket = local.submit(request).expect("room");
    bench.until("it is in the ring", |seen| seen.shard(|counters| counters.pushes) == 1);
    // When
    bench.reload(ECHO);
    assert_eq!(call_of(&local, more).0, Status::UnknownFunction);
    go.send(()).expect("the worker lives");
    // Expect
    let answer = ticket.wait();
    assert_eq!((answer.status, &answer.payload[..]), (Status::Ok, &b"promised"[..]));
    bench.until("its worker is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
}

#[test]
fn workers_of_the_edition_before_serve_until_the_first_of_the_new_one_is_there() {
    let mut bench = Setup::new(ECHO).start();
    let mut shim = shim(&bench);
    let old = bench.worker("echo", |shift| shift.answer_all(|_| b"old".to_vec()));
    assert_eq!(hear(&mut shim), serves(edition(ECHO)));
    let mut client = bench.client();
    assert_eq!(client.call(call(0), b"").payload, b"old");
    // When
    bench.reload(OTHER_ECHO);
    assert_eq!(hear(&mut shim), Message::ShimReload);
    // Expect: the old one serves; and so does another one, which was on its way.
    assert_eq!(client.call(call(1), b"").payload, b"old");
    let (_late, told) = attach(&bench, edition(ECHO));
    let Message::Attached(attached) = told else { panic!("{told:?}") };
    assert_eq!(attached.slot_count, 128, "its ring is new");
    // When the first of the new one is there. Expect: the others are told to stop, and the shim hears of it.
    let _new = bench.worker("echo", |shift| shift.answer_all(|_| b"new".to_vec()));
    assert_eq!(hear(&mut shim), serves(edition(OTHER_ECHO)));
    assert_eq!(client.call(call(2), b"").payload, b"new");
    bench.until("the old one is gone", |seen| seen.shard(|counters| counters.workers_detached) >= 1);
    drop(old);
    // Expect: who comes too late is told so.
    let (mut socket, told) = attach(&bench, edition(ECHO));
    assert_eq!(told, Message::Refused { reason: AttachRefused::TokenWrong });
    assert_eq!(socket.read(&mut [0]).expect("its end"), 0);
    assert_eq!(client.call(call(3), b"").payload, b"new");
}

#[test]
fn a_shim_that_comes_later_hears_which_editions_serve_and_back_to_one_that_does_is_told_at_once() {
    let mut bench = Setup::new(&format!("{ECHO}{MORE}")).start();
    let _old = bench.worker("echo", |shift| shift.answer_all(|_| b"old".to_vec()));
    let mut shim = shim(&bench);
    assert_eq!(hear(&mut shim), serves(edition(ECHO)), "and nothing of a function without workers");
    bench.reload(OTHER_ECHO);
    assert_eq!(hear(&mut shim), Message::ShimReload);
    bench.reload(ECHO);
    assert_eq!(hear(&mut shim), serves(edition(ECHO)));
    assert_eq!(hear(&mut shim), Message::ShimReload);
}

#[test]
fn a_router_that_is_started_with_another_file_takes_the_processes_that_it_finds() {
    // Given: a process of another program than the file names, as a router before this one left it.
    let bench = Setup::new(ECHO).start();
    let (_found, told) = attach(&bench, edition(OTHER_ECHO));
    assert!(matches!(told, Message::Attached(_)), "{told:?}");
    // Expect: it goes when one of the file's own is there.
    let _own = bench.echo_worker();
    let (_late, told) = attach(&bench, edition(OTHER_ECHO));
    assert_eq!(told, Message::Refused { reason: AttachRefused::TokenWrong });
    assert_eq!(bench.client().call(call(0), b"served").payload, b"served");
}

#[test]
fn more_functions_than_functions_max_are_refused_whole_and_nothing_is_changed() {
    let mut setup = Setup::new(ECHO);
    setup.router = "functions_max = 2".to_owned();
    let mut bench = setup.start();
    let _worker = bench.echo_worker();
    let local = bench.router.local(0).expect("shard 0");
    bench.reload(&format!("{ECHO}{MORE}"));
    let third = format!("{OTHER_ECHO}[functions.third]\ncommand = [\"true\"]\n");
    let refused = bench.router.reconfigure(&wanted(&third)).expect_err("there is no room");
    assert!(matches!(refused, ReloadRefused::Config(_)), "{refused:?}");
    assert!(refused.to_string().contains("needs a restart"), "{refused}");
    assert!(bench.router.compare(&wanted(&third)).is_err(), "a dry run says the same");
    assert_eq!([local.resolve("third"), local.resolve("more")], [None, Some(FunctionId(1))]);
    assert_eq!(bench.client().call(call(0), b"served").payload, b"served");
    let shim_config = router::run_dir::shim_config(bench.router.run_dir().path());
    let told = std::fs::read_to_string(shim_config).expect("what the shim reads");
    assert!(told.contains("[functions.more]") && !told.contains("third"), "{told}");
}
