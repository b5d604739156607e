//! Function processes that are processes: killed, stopped, and told to stop.

mod support;

use std::process::{Child, Command, Stdio};

use protocol::{Flags, FrameParts, FunctionId, Status};
use quickfire_client::serve::serve;
use rustix::process::{Pid, Signal, kill_process};
use support::*;

/// Not a test: the body of the function processes below.
#[test]
#[ignore = "is the function process of the other tests"]
fn function_process() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return;
    }
    serve(|call| {
        // "hang" runs until it is killed.
        while call.payload() == b"hang" {
            std::thread::yield_now();
        }
        Ok(call.payload().to_vec())
    })
    .expect("served until told to stop");
}

fn start(bench: &Bench) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", "function_process", "--nocapture"])
        .env("QUICKFIRE_FUNCTION", "echo")
        .env("QUICKFIRE_ATTACH", bench.router.run_dir().attach_socket(0))
        .env("QUICKFIRE_TOKEN", bench.config.functions[0].edition().to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts")
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("our own child");
}

#[test]
fn a_killed_process_loses_its_running_call_and_its_successor_serves() {
    let bench = echo().start();
    let mut first = start(&bench);
    let mut client = bench.client();
    assert_eq!(client.call(call(0), b"warm").payload, b"warm");
    client.invoke(call(1), b"hang");
    bench.until("it is in the ring", |seen| seen.shard(|counters| counters.pushes) == 2);
    let mut second = start(&bench);
    bench.until("both are attached", |seen| seen.shard(|counters| counters.workers_attached) == 2);
    signal(&first, Signal::KILL);
    let reply = client.next().expect("a reply");
    // It may have died before it began; then its successor hangs with it, and is killed in turn.
    if reply.header.call_id == call(1) {
        assert_eq!(reply.status, Status::WorkerLost);
        assert!(reply.header.flags.contains(Flags::STARTED));
    }
    bench.until("the first is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
    first.wait().expect("reaped");
    assert_eq!(client.call(call(2), b"still served").payload, b"still served");
    bench.router.drain();
    assert!(second.wait().expect("ends").success(), "told to stop, it exits with 0");
    assert!(bench.router.join());
    let attached_last = bench.seen.shard(|counters| counters.workers_attached_now);
    assert_eq!(attached_last, 0, "the last word of a shard is about its end");
}

#[test]
fn a_stopped_process_has_its_call_timed_out_and_is_killed() {
    let bench = echo().start();
    let mut process = start(&bench);
    let mut client = bench.client();
    assert_eq!(client.call(call(0), b"warm").payload, b"warm");
    let parts = FrameParts { budget_us: 100_000, ..FrameParts::invoke(call(1), FunctionId(0)) };
    client.send(&frame(&parts, b"hang"));
    let reply = client.reply(call(1));
    assert_eq!(reply.status, Status::TimedOut);
    bench.until("it is killed", |seen| seen.shard(|counters| counters.workers_killed) == 1);
    assert!(!process.wait().expect("ended").success());
    bench.until("and gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
}
