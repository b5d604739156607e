//! Workers that scribble, answer twice, exit, stop or are not ours: what their calls get, and that nobody else notices.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::Counter;
use protocol::attach::{self, AttachRefused, Message};
use protocol::{Flags, FrameParts, FunctionId, FunctionName, Status};
use shm_ring::layout::worker_line;
use shm_ring::{Mapped, Memory, Outcome};
use support::*;

const TWO: &str =
    "[functions.echo]\ncommand = [\"true\"]\nslots = 4\n[functions.other]\ncommand = [\"true\"]\nslots = 4\n";

/// A call of `other`, whose workers behave: the second function in the order of their names.
fn others_notice_nothing(bench: &Bench) {
    let _worker = bench.worker("other", |shift| shift.answer_all(|payload| payload.to_vec()));
    let mut client = bench.client();
    client.send(&frame(&FrameParts::invoke(call(0), FunctionId(1)), b"fine"));
    assert_eq!(client.reply(call(0)).payload, b"fine");
}

/// Takes one call, then does something bad to its ring.
fn check_misbehaviour(scribble: impl Fn(&mut Shift<'_>) + Send + 'static) {
    let bench = Setup::new(TWO).start();
    let worker = bench.worker("echo", move |shift| {
        if let Some(taken) = shift.take() {
            scribble(shift);
            drop(taken);
            shift.ring_bell();
        }
    });
    let mut client = bench.client();
    let reply = client.call(call(0), b"into bad hands");
    assert_eq!(reply.status, Status::WorkerMisbehaved);
    assert!(reply.header.flags.contains(Flags::STARTED));
    bench.until("it is quarantined", |seen| {
        seen.shard(|counters| counters.workers_misbehaved == 1 && counters.workers_detached == 1)
    });
    others_notice_nothing(&bench);
    // A successor serves.
    worker.stop();
    let _worker = bench.echo_worker();
    assert_eq!(client.call(call(0), b"into good hands").payload, b"into good hands");
}

fn scribble_u32(shift: &Shift<'_>, offset: usize, value: u32) {
    let memory = Mapped::attach(shift.memory).expect("the ring's memory");
    memory.store_u32(offset, value, Ordering::Release);
}

#[test]
fn a_worker_that_scribbles_over_its_cursor_is_quarantined() {
    check_misbehaviour(|shift| scribble_u32(shift, worker_line::COMPLETION_TAIL, 0xdead_beef));
}

#[test]
fn a_worker_that_answers_what_it_has_not_finished_is_quarantined() {
    check_misbehaviour(|shift| scribble_u32(shift, worker_line::COMPLETION_TAIL, 1));
}

#[test]
fn a_worker_that_answers_twice_is_quarantined_and_its_first_answer_counts() {
    let bench = Setup::new(TWO).start();
    let mut answered = 0;
    let _worker = bench.worker("echo", move |shift| {
        if let Some(taken) = shift.take() {
            shift.complete(taken, Outcome::Ok, b"once");
            shift.publish();
            answered += 1;
            // One answer more than there are: an entry of the index ring that was not written yet names slot 0.
            scribble_u32(shift, worker_line::COMPLETION_TAIL, answered + 1);
            shift.ring_bell();
        }
    });
    let mut client = bench.client();
    assert_eq!(client.call(call(0), b"").payload, b"once");
    // The router may have taken the first answer before the second was there, and looks again with the next call.
    wait_until("it is quarantined", || {
        let parts = FrameParts { budget_us: 100_000, ..FrameParts::invoke(call(0), FunctionId(0)) };
        client.send(&frame(&parts, b""));
        client.reply(call(0));
        bench.seen.shard(|counters| counters.workers_misbehaved) == 1
    });
    others_notice_nothing(&bench);
}

#[test]
fn what_a_quarantined_worker_leaves_behind_does_not_reach_the_next_attempt() {
    let bench = Setup::new(TWO).start();
    let may_scribble = Arc::new(AtomicBool::new(false));
    let gate = may_scribble.clone();
    let mut has_begun = false;
    let _hostile = bench.worker("echo", move |shift| {
        has_begun |= shift.take().is_some();
        if has_begun && gate.load(Ordering::SeqCst) {
            scribble_u32(shift, worker_line::COMPLETION_TAIL, 0xdead_beef);
            shift.ring_bell();
        }
    });
    let mut client = bench.client();
    let parts = FrameParts { flags: Flags::IDEMPOTENT, ..FrameParts::invoke(call(0), FunctionId(0)) };
    client.send(&frame(&parts, b"may run twice"));
    bench.until("the first has it", |seen| seen.shard(|counters| counters.pushes) == 1);
    let may_answer = Arc::new(AtomicBool::new(false));
    let gate = may_answer.clone();
    let _second = bench.worker("echo", move |shift| {
        if gate.load(Ordering::SeqCst) {
            shift.answer_all(|payload| payload.to_vec());
        }
    });
    may_scribble.store(true, Ordering::SeqCst);

    // Expect: the call lies in the second ring and nowhere else. Bytes taken back once more, out of the ring of the
    // worker that was quarantined, would be sent in its place if the second worker died.
    let claimed = std::cell::Cell::new(u64::MAX);
    bench.until("the second has it", |seen| {
        seen.shard(|counters| {
            claimed.set(counters.payload_bytes_claimed);
            counters.pushes == 2 && counters.workers_detached == 1
        })
    });
    assert_eq!(claimed.get(), 0);
    may_answer.store(true, Ordering::SeqCst);
    assert_eq!(client.reply(call(0)).payload, b"may run twice");
}

#[test]
fn a_worker_that_exits_loses_what_it_had_begun() {
    let bench = Setup::new(TWO).start();
    let _worker = bench.worker("echo", |shift| shift.is_over = shift.take().is_some());
    let mut client = bench.client();
    let reply = client.call(call(0), b"the last thing it does");
    assert_eq!(reply.status, Status::WorkerLost);
    assert!(reply.header.flags.contains(Flags::STARTED));
    bench.until("it is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
    others_notice_nothing(&bench);
}

#[test]
fn calls_that_a_dead_worker_never_began_are_given_to_the_next() {
    let bench = Setup::new(TWO).start();
    let must_exit = Arc::new(AtomicBool::new(false));
    let gate = must_exit.clone();
    // Is quick once, then looks at nothing: its ring fills with calls that never begin.
    let mut was_quick = false;
    let idle = bench.worker("echo", move |shift| {
        shift.is_over = gate.load(Ordering::SeqCst);
        if !was_quick && let Some(taken) = shift.take() {
            was_quick = true;
            shift.complete(taken, Outcome::Ok, b"quick");
            shift.publish();
        }
    });
    let mut client = bench.client();
    assert_eq!(client.call(call(0), b"").payload, b"quick");
    let large: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
    client.invoke(call(0), b"small");
    client.invoke(call(1), &large);
    bench.until("they are in its ring", |seen| seen.shard(|counters| counters.pushes) == 3);
    must_exit.store(true, Ordering::SeqCst);
    idle.stop();
    bench.until("it is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);

    let _worker = bench.echo_worker();
    for _ in 0..2 {
        let reply = client.next().expect("a reply");
        assert_eq!(reply.status, Status::Ok);
        match reply.header.call_id {
            id if id == call(0) => assert_eq!(reply.payload, b"small"),
            _ => assert!(reply.payload == large),
        }
    }
}

#[test]
fn a_call_that_may_run_twice_is_given_to_the_next_worker_even_if_it_had_begun() {
    let bench = Setup::new(TWO).start();
    let _first = bench.worker("echo", |shift| shift.is_over = shift.take().is_some());
    let mut client = bench.client();
    let parts = FrameParts { flags: Flags::IDEMPOTENT, ..FrameParts::invoke(call(0), FunctionId(0)) };
    client.send(&frame(&parts, b"twice does no harm"));
    bench.until("the first is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
    let _second = bench.echo_worker();
    assert_eq!(client.reply(call(0)).payload, b"twice does no harm");
}

#[test]
fn a_worker_that_stops_has_its_call_timed_out_and_is_cut_off() {
    let bench = Setup::new(TWO).start();
    let mut held = Vec::new();
    let _worker = bench.worker("echo", move |shift| held.extend(shift.take()));
    let mut client = bench.client();
    client.send(&frame(
        &FrameParts { budget_us: 20_000, ..FrameParts::invoke(call(0), FunctionId(0)) },
        b"zzz",
    ));
    let reply = client.reply(call(0));
    assert_eq!(reply.status, Status::TimedOut);
    assert!(reply.header.flags.contains(Flags::STARTED));
    bench.until("it is killed", |seen| seen.shard(|counters| counters.workers_killed) == 1);
    others_notice_nothing(&bench);
}

#[test]
fn a_worker_that_wakes_the_router_for_nothing_is_quarantined() {
    let bench = Setup::new(TWO).start();
    let _worker = bench.worker("echo", |shift| (0..1_000).for_each(|_| shift.ring_bell()));
    bench.until("it is quarantined", |seen| {
        seen.shard(|counters| counters.workers_misbehaved == 1 && counters.workers_detached == 1)
    });
    others_notice_nothing(&bench);
}

#[test]
fn a_functions_error_is_the_callers_answer() {
    let bench = Setup::new(TWO).start();
    let _worker = bench.worker("echo", |shift| {
        while let Some(taken) = shift.take() {
            shift.complete(taken, Outcome::FunctionError, b"no such picture");
        }
        shift.publish();
    });
    let reply = bench.client().call(call(0), b"");
    assert_eq!((reply.status, reply.payload.as_slice()), (Status::FunctionError, &b"no such picture"[..]));
}

#[test]
fn several_workers_share_the_calls_of_a_function() {
    let bench = Setup::new(TWO).start();
    let workers: Vec<Worker> = (0..3).map(|_| bench.echo_worker()).collect();
    let mut client = bench.client();
    let bytes: Vec<u8> = (0..3_000).flat_map(|slot| invoke(call(slot), b"shared")).collect();
    client.send(&bytes);
    for _ in 0..3_000 {
        assert_eq!(client.next().expect("a reply").status, Status::Ok);
    }
    let taken: u64 = workers.iter().map(|worker| worker.taken.load(Ordering::SeqCst)).sum();
    assert_eq!(taken, 3_000);
}

/// Says one thing on the attach socket and returns the answer, if any came before the end.
fn say(bench: &Bench, bytes: &[u8]) -> Option<Message> {
    let mut socket = UnixStream::connect(bench.router.run_dir().attach_socket(0)).expect("the attach socket");
    socket.set_read_timeout(Some(GIVE_UP)).expect("timeout");
    // Who is refused for who it is may be told so, and closed, before it says anything.
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 64];
    while answer.len() < attach::RECORD_SIZE {
        match socket.read(&mut buffer) {
            Ok(size) if size > 0 => answer.extend_from_slice(&buffer[..size]),
            _ => return None,
        }
    }
    attach::decode(&answer).expect("a record").map(|(message, _)| message)
}

fn attach_worker(name: &str, token: u64) -> Vec<u8> {
    let mut record = Vec::new();
    let name = FunctionName::new(name).expect("a name");
    Message::AttachWorker { name, token, process_id: std::process::id(), lanes_max: 0 }.encode(&mut record);
    record
}

fn attach_shim(config_digest: u64) -> Vec<u8> {
    let mut record = Vec::new();
    Message::AttachShim { config_digest, process_id: std::process::id() }.encode(&mut record);
    record
}

#[test]
fn who_is_not_one_of_ours_may_not_attach() {
    let bench = Setup::new(TWO).start();
    let refused = |reason| Some(Message::Refused { reason });
    assert_eq!(say(&bench, &attach_worker("nobody", 0)), refused(AttachRefused::UnknownFunction));
    assert_eq!(say(&bench, &[0xaa; 64]), None, "what is no record is closed without a word");
    let mut stop = Vec::new();
    Message::Stop.encode(&mut stop);
    assert_eq!(say(&bench, &stop), refused(AttachRefused::PeerUntrusted));
    bench.until("they are counted", |seen| {
        seen.shard(|counters| counters.workers_refused == 2 && counters.attach_misbehaved == 2)
    });
    others_notice_nothing(&bench);
}

#[test]
fn a_process_of_another_user_may_not_attach_even_with_the_token() {
    let mut setup = Setup::new(TWO);
    setup.attach_user_id = Some(rustix::process::geteuid().as_raw() ^ 1);
    let bench = setup.start();
    let refused = Some(Message::Refused { reason: AttachRefused::PeerUntrusted });
    let digest = bench.config.digest();
    assert_eq!(say(&bench, &attach_worker("echo", digest)), refused);
    assert_eq!(say(&bench, &attach_shim(digest)), refused);
    bench.until("they are counted", |seen| seen.shard(|counters| counters.attach_misbehaved) == 2);
}

#[test]
fn one_shim_with_our_configuration_is_taken_and_its_word_counts() {
    let bench = Setup::new(TWO).start();
    let digest = bench.config.digest();
    let refused = |reason| Some(Message::Refused { reason });
    assert_eq!(say(&bench, &attach_shim(digest ^ 1)), refused(AttachRefused::ConfigDiffers));
    assert_eq!(bench.router.shim().process_id(), None);

    let mut shim = UnixStream::connect(bench.router.run_dir().attach_socket(0)).expect("the attach socket");
    shim.write_all(&attach_shim(digest)).expect("the router reads");
    assert_eq!(hear(&mut shim), Message::ShimAccepted { shard: 0 });
    assert_eq!(hear(&mut shim), Message::ShimReload, "it may keep what a router before this one wanted");
    assert_eq!(bench.router.shim().process_id(), Some(std::process::id()));
    assert_eq!(say(&bench, &attach_shim(digest)), refused(AttachRefused::ShimPresent));

    // It says that a function keeps failing: its calls are refused at once instead of waiting for nobody.
    let mut failing = Vec::new();
    let name = FunctionName::new("echo").expect("a name");
    Message::FunctionFailing { name, exit_code: 1 }.encode(&mut failing);
    shim.write_all(&failing).expect("the router reads");
    let mut client = bench.client();
    let mut slot = 0;
    wait_until("calls are refused", || {
        client.invoke(call(slot), b"");
        client.send(&frame(&FrameParts::cancel(call(slot)), b""));
        let status = client.reply(call(slot)).status;
        slot += 1;
        status == Status::NoWorker
    });
    assert!(bench.seen.engine(Counter::WorkersLost) == 0);

    bench.router.drain();
    assert_eq!(hear(&mut shim), Message::ShimStop);
    drop(shim);
    assert!(bench.router.join());
}
