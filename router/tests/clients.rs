//! Clients that vanish, do not read, are too many, or are there when the router ends.

mod support;

use engine::{Counter, Nanos};
use protocol::{FrameParts, FunctionId, Kind, Status};
use router::io::IoOptions;
use rustix::process::{Resource, getrlimit};
use shm_ring::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::*;

/// A worker that takes calls and answers none of them before it is allowed to. It was quick once, so that its ring is
/// filled.
fn held_worker(bench: &Bench) -> (Worker, Arc<AtomicBool>) {
    let may_answer = Arc::new(AtomicBool::new(true));
    let gate = may_answer.clone();
    let mut held = Vec::new();
    let worker = bench.worker("echo", move |shift| {
        while let Some(taken) = shift.take() {
            held.push(taken);
        }
        if gate.load(Ordering::SeqCst) {
            for taken in held.drain(..) {
                let payload = shift.payload(&taken);
                shift.complete(taken, Outcome::Ok, &payload);
            }
            shift.publish();
        }
    });
    bench.client().call(call(0), b"quick");
    may_answer.store(false, Ordering::SeqCst);
    worker.taken.store(0, Ordering::SeqCst);
    (worker, may_answer)
}

#[test]
fn a_client_that_vanishes_mid_frame_has_all_its_calls_cancelled() {
    let bench = echo().start();
    let (worker, may_answer) = held_worker(&bench);
    let mut other = bench.client();
    let mut client = bench.client();
    for slot in 0..10 {
        client.invoke(call(slot), b"who asked?");
    }
    wait_until("the worker holds them", || worker.taken.load(Ordering::SeqCst) == 10);
    let front = invoke(call(10), &[1; 100]);
    client.send(&front[..50]);
    drop(client);

    bench.until("it is noticed", |seen| seen.shard(|counters| counters.clients_gone_mid_frame) == 1);
    bench.until("its calls are cancelled", |seen| seen.engine(Counter::CallsForgotten) == 10);
    // Their results come too late for anybody, and harm nobody.
    may_answer.store(true, Ordering::SeqCst);
    assert_eq!(other.call(call(0), b"still here").payload, b"still here");
    bench.until("late results are dropped", |seen| seen.shard(|counters| counters.completions_stale) == 10);
}

#[test]
fn a_client_that_ends_its_sending_half_has_ended_the_connection() {
    let bench = echo().start();
    let (worker, _gate) = held_worker(&bench);
    let mut client = bench.client();
    client.invoke(call(0), b"who will hear the answer?");
    wait_until("the worker holds it", || worker.taken.load(Ordering::SeqCst) == 1);
    client.stream.shutdown(std::net::Shutdown::Write).expect("still connected");
    assert!(client.next().is_none(), "W-77");
    bench.until("its call is cancelled", |seen| seen.engine(Counter::CallsForgotten) == 1);
}

#[test]
fn a_client_that_does_not_read_is_told_and_closed() {
    let mut setup = echo();
    setup.net = Some(|net| {
        net.output_size_max = 64 * 1024;
        net.output_stall_max = Nanos::ZERO;
        net.close_timeout = Nanos::from_secs(60);
    });
    let bench = setup.start();
    let _worker = bench.echo_worker();
    let mut other = bench.client();
    let mut client = bench.client();
    // Asks for far more than the sockets hold, and reads nothing until the router has had enough.
    let payload = vec![7; 16 * 1024];
    let mut slot = 0;
    wait_until("the router has had enough", || {
        if slot < 30_000 {
            client.send_anyway(&invoke(call(slot), &payload));
            slot += 1;
        }
        bench.seen.shard(|counters| counters.slow_readers) == 1
    });
    let mut last = None;
    while let Some(received) = client.next() {
        last = Some((received.kind, received.status));
    }
    assert_eq!(last, Some((Kind::Goaway, Status::SlowReader)));
    assert_eq!(other.call(call(0), b"still here").payload, b"still here");
}

#[test]
fn answers_that_together_fill_the_memory_for_them_end_the_connections_that_hold_most() {
    let mut setup = echo();
    // Given: connections that may each hold far more than all of them together.
    setup.net = Some(|net| net.output_memory_max = 4 << 20);
    let bench = setup.start();
    let _worker = bench.echo_worker();
    let mut reader = bench.client();
    let mut hogs = [bench.client(), bench.client()];
    let payload = vec![7; 16 * 1024];
    let mut slot = 0;
    wait_until("one had to go", || {
        if slot < 30_000 {
            hogs.iter_mut().for_each(|hog| hog.send_anyway(&invoke(call(slot), &payload)));
            slot += 1;
        }
        bench.seen.shard(|counters| counters.slow_readers) >= 1
    });
    // Expect: who reads is served as ever, and what is held stays within the bound.
    assert_eq!(reader.call(call(0), b"still here").payload, b"still here");
    bench.until("there is room", |seen| {
        seen.shard(|counters| counters.output_bytes_held <= 4 << 20 && counters.connections_open < 3)
    });
    drop(hogs);
    bench.until("nothing is held", |seen| {
        seen.shard(|counters| counters.output_bytes_held == 0 && counters.connections_open == 1)
    });
}

#[test]
fn a_client_whose_every_frame_is_split_may_not_leave_its_answers_unread_either() {
    let mut setup = echo();
    setup.io =
        Some(IoOptions { submission_count: 64, completion_count: 256, buffer_count: 64, buffer_size: 48 });
    setup.net = Some(|net| {
        net.output_size_max = 64 * 1024;
        net.output_stall_max = Nanos::ZERO;
    });
    let bench = setup.start();
    let mut client = bench.client();
    // No frame fits a receive buffer, and each is refused with an answer about as long.
    let calls: Vec<u8> = (0..1_000)
        .flat_map(|_| frame(&FrameParts::invoke(call(0), FunctionId(9)), b"to a function that is not there"))
        .collect();
    let mut count = 0;
    wait_until("the router has had enough", || {
        if count < 2_000 {
            client.send_anyway(&calls);
            count += 1;
        }
        bench.seen.shard(|counters| counters.slow_readers) == 1
    });
}

#[test]
fn one_connection_too_many_is_told_so() {
    let mut setup = echo();
    setup.net = Some(|net| net.connections_max = 2);
    let bench = setup.start();
    let (mut first, second) = (bench.client(), bench.client());
    bench.connect().expect_goaway(Status::TooManyConnections);
    drop(second);
    bench.until("there is room again", |seen| seen.shard(|counters| counters.connections_open) == 1);
    bench.client();
    first.send(&frame(&FrameParts::ping(0), b""));
    assert_eq!(first.next().expect("PONG").kind, Kind::Pong);
}

#[test]
fn thousands_of_connections_may_be_idle_while_some_call() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    // Both ends of each connection are in this process.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = (limit.saturating_sub(500) / 2).min(10_000) as usize;
    let mut clients: Vec<Wire> = (0..count).map(|_| bench.client()).collect();
    bench.until("all are open", |seen| seen.shard(|counters| counters.connections_open) == count as u64);
    for client in clients.iter_mut().step_by(100) {
        assert_eq!(client.call(call(0), b"one in a hundred").payload, b"one in a hundred");
    }
    drop(clients);
    bench.until("all are closed", |seen| seen.shard(|counters| counters.connections_open) == 0);
}

#[test]
fn few_receive_buffers_slow_things_down_and_lose_nothing() {
    let mut setup = echo();
    setup.io =
        Some(IoOptions { submission_count: 8, completion_count: 16, buffer_count: 2, buffer_size: 128 });
    let bench = setup.start();
    let _worker = bench.echo_worker();
    let mut clients: Vec<Wire> = (0..8).map(|_| bench.client()).collect();
    const COUNT: u32 = 500;
    let bytes: Vec<u8> = (0..COUNT).flat_map(|slot| invoke(call(slot), &slot.to_le_bytes())).collect();
    clients.iter_mut().for_each(|client| client.send(&bytes));
    for client in &mut clients {
        for _ in 0..COUNT {
            let reply = client.next().expect("a reply");
            assert_eq!(reply.payload, reply.header.call_id.slot().to_le_bytes());
        }
    }
    bench.until("it was starved", |seen| seen.shard(|counters| counters.io_starved) > 0);
}

#[test]
fn payload_memory_that_is_full_refuses_calls_until_there_is_room() {
    let bench =
        Setup::new("payload_memory_max = \"2MiB\"\n[functions.echo]\ncommand = [\"true\"]\nslots = 2\n")
            .start();
    let mut client = bench.client();
    // Nobody serves: 80 x 32 KiB is more than may wait.
    let payload = vec![1; 30_000];
    for slot in 0..80 {
        client.invoke(call(slot), &payload);
    }
    let refused = client.next().expect("a refusal");
    assert_eq!((refused.kind, refused.status), (Kind::Reply, Status::Overloaded));
    let _worker = bench.echo_worker();
    let mut ok = 0;
    for _ in 1..80 {
        let reply = client.next().expect("a reply");
        match reply.status {
            Status::Ok => ok += 1,
            status => assert_eq!(status, Status::Overloaded),
        }
    }
    assert!(ok >= 32, "{ok}");
    assert_eq!(client.call(call(90), &payload).status, Status::Ok, "there is room again");
}

#[test]
fn a_draining_router_finishes_what_was_begun_and_takes_nothing_new() {
    let bench = echo().start();
    let (worker, may_answer) = held_worker(&bench);
    let mut client = bench.client();
    let mut idle = bench.client();
    client.invoke(call(0), b"begun before");
    wait_until("the worker holds it", || worker.taken.load(Ordering::SeqCst) == 1);

    bench.router.drain();
    let told = client.next().expect("GOAWAY");
    assert_eq!((told.kind, told.status), (Kind::Goaway, Status::GoingAway));
    idle.expect_goaway_then_end();
    client.invoke(call(1), b"too late");
    assert_eq!(client.reply(call(1)).status, Status::Draining);

    may_answer.store(true, Ordering::SeqCst);
    assert_eq!(client.reply(call(0)).payload, b"begun before");
    assert!(client.next_is_end(), "closed when nothing is left");
    assert!(bench.router.join());
}

#[test]
fn a_drain_that_takes_too_long_cancels_what_is_left() {
    let bench =
        Setup::new("drain_timeout = \"100ms\"\n[functions.echo]\ncommand = [\"true\"]\nslots = 2\n").start();
    let (_worker, _gate) = held_worker(&bench);
    let mut client = bench.client();
    client.send(&frame(&FrameParts::invoke(call(0), FunctionId(0)), b"takes for ever"));
    client.invoke(call(1), b"x");
    client.invoke(call(2), b"queued behind");
    client.send(&frame(&FrameParts::ping(0), b""));
    assert_eq!(client.next().expect("PONG").kind, Kind::Pong);
    bench.router.drain();
    let mut statuses = Vec::new();
    while let Some(received) = client.next() {
        if received.kind == Kind::Reply {
            statuses.push(received.status);
        }
    }
    assert_eq!(statuses, [Status::Cancelled; 3], "every call is answered");
    assert!(bench.router.join());
}
