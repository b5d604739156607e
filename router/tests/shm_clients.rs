//! Clients with a ring of their own: honest ones, and ones that scribble, jump, submit twice, vanish, ring without calling
//! or never read. What happens to them, and that nobody else notices.

mod support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::Counter;
use protocol::attach::{self, AttachRefused, Message};
use protocol::{Criticality, Flags, FrameParts, FunctionId, Status};
use quickfire_client::shm::{Call, Options, ShmClient, SubmitRefused, now_ns};
use quickfire_client::{CallError, ConnectError, Disconnect, Expiry, ResolveError, TraceContext};
use shm_ring::client_ring::{self, ClientEnd, READY, call_slot, client_line, service_line};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Mapped, Memory, Outcome, SlotIndex, pass};
use support::*;

const ECHO: FunctionId = FunctionId(0);

fn client(bench: &Bench) -> ShmClient {
    client_with(bench, &Options { slot_count: 8, ..Options::default() })
}

fn client_with(bench: &Bench, options: &Options) -> ShmClient {
    ShmClient::attach(bench.router.run_dir().path(), options).unwrap_or_else(|error| panic!("{error}"))
}

fn echo_call() -> Call {
    Call::of(ECHO)
}

/// Waits for the next answer and copies it.
fn next(client: &mut ShmClient) -> (u64, Result<Vec<u8>, CallError>) {
    wait_until("an answer", || client.wait(Some(Duration::from_millis(10))).expect("an honest router"));
    let answered = client.poll().expect("an honest router").expect("waited for");
    let outcome = client.outcome(&answered).map(|answer| answer.payload.to_vec());
    let call_id = answered.call_id;
    client.release(answered);
    (call_id, outcome)
}

/// A socket client and a ring client are served as if nothing had happened.
fn others_notice_nothing(bench: &Bench) {
    let _worker = bench.echo_worker();
    let mut wire = bench.client();
    assert_eq!(wire.call(call(0), b"by socket").payload, b"by socket");
    let mut shm = client(bench);
    assert_eq!(&shm.call(&echo_call(), b"by ring").expect("served").payload[..], b"by ring");
}

#[test]
fn calls_of_every_size_come_back_unchanged() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = client_with(&bench, &Options { payload_size_max: 1 << 20, ..Options::default() });
    assert_eq!(client.resolve("echo").expect("known"), ECHO);
    assert!(matches!(client.resolve("nothing"), Err(ResolveError::UnknownFunction { .. })));
    for size in [0, 1, 64, 96, 97, 160, 161, 4096, 100_000, 1 << 20] {
        let payload: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let answer = client.call(&echo_call(), &payload).unwrap_or_else(|error| panic!("{size}: {error}"));
        assert!(answer.payload == payload, "{size} bytes");
        assert_eq!(answer.timings, None);
    }
    let refused = client.submit(&echo_call(), &vec![0; (1 << 20) + 1]);
    assert!(matches!(refused, Err(SubmitRefused::PayloadTooLarge { .. })));
    bench.until("payloads took no memory of the router", |seen| {
        seen.shard(|counters| counters.shm_calls == 10 && counters.payload_bytes_claimed == 0)
    });
}

#[test]
fn thousands_of_pipelined_calls_are_each_answered_once() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = client_with(&bench, &Options { slot_count: 64, ..Options::default() });
    let (mut sent, mut seen) = (0_u64, std::collections::HashSet::new());
    while seen.len() < 20_000 {
        while sent < 20_000 && client.free_slots() > 0 {
            client.submit(&Call { call_id: sent, ..echo_call() }, &sent.to_le_bytes()).expect("a slot");
            sent += 1;
        }
        client.wait(None).expect("an honest router");
        while let Some(answered) = client.poll().expect("an honest router") {
            assert_eq!(client.result(&answered), answered.call_id.to_le_bytes());
            assert!(seen.insert(answered.call_id), "answered once");
            client.release(answered);
        }
    }
    assert_eq!(client.outstanding(), 0);
}

#[test]
fn everything_said_about_a_call_reaches_the_worker() {
    let bench = echo().start();
    let _worker = bench.worker("echo", |shift| {
        if let Some(taken) = shift.take() {
            let told = format!("{:?} {:?} {}", taken.trace, taken.idempotency_key, taken.criticality);
            shift.complete(taken, Outcome::Ok, told.as_bytes());
            shift.publish();
        }
    });
    let mut client = client(&bench);
    let trace = TraceContext::decode(&[3; 32]);
    let call = Call {
        trace: Some(trace),
        idempotency_key: Some([4; 16]),
        criticality: Criticality::High,
        flags: Flags::WANT_TIMINGS,
        ..echo_call()
    };
    let answer = client.call(&call, b"").expect("served");
    let expected = format!("{:?} {:?} 2", Some(trace.encode()), Some([4; 16]));
    assert_eq!(String::from_utf8_lossy(&answer.payload), expected);
    let timings = answer.timings.expect("asked for");
    assert!(timings.stages().iter().all(|(_, stamp)| stamp.is_some()), "{timings:?}");
}

#[test]
fn refusals_are_typed_and_deadlines_are_kept() {
    let bench = echo().start();
    let mut client = client(&bench);
    let refused = |outcome: Result<_, CallError>| match outcome {
        Err(CallError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(client.call(&Call::of(FunctionId(9)), b"")), Status::UnknownFunction);
    let late = Call { deadline_at_ns: Some(now_ns() - 1), ..echo_call() };
    assert_eq!(refused(client.call(&late, b"")), Status::DeadlinePassed);
    // Nobody serves the function: the call waits until its deadline.
    let soon = Call { deadline_at_ns: Some(now_ns() + 5_000_000), ..echo_call() };
    let expired = client.call(&soon, b"").expect_err("nobody serves it");
    assert!(matches!(expired, CallError::Expired(Expiry::NeverStarted | Expiry::NoAnswer)), "{expired}");
}

#[test]
fn a_result_larger_than_the_client_takes_is_told_of() {
    let bench = echo().start();
    let _worker = bench.worker("echo", |shift| shift.answer_all(|_| vec![1; 5000]));
    let mut client = client_with(&bench, &Options { payload_size_max: 4096, ..Options::default() });
    let error = client.call(&echo_call(), b"").expect_err("too large");
    assert_eq!(error, CallError::WorkerLost { status: Status::ResultTooLarge, started: true });
}

#[test]
fn a_cancelled_call_is_answered_so_and_its_slot_is_free_again() {
    let bench = echo().start();
    let mut client = client(&bench);
    let slot = client.submit(&Call { call_id: 7, ..echo_call() }, b"nobody serves").expect("a slot");
    client.cancel(slot, 6);
    client.cancel(SlotIndex(99), 7);
    client.cancel(slot, 7);
    assert_eq!(next(&mut client), (7, Err(CallError::Cancelled { started: false })));
    others_notice_nothing(&bench);
}

#[test]
fn a_client_that_vanishes_has_its_calls_cancelled() {
    let bench = echo().start();
    let mut client = client(&bench);
    for call_id in 0..8 {
        client.submit(&Call { call_id, ..echo_call() }, b"mine").expect("a slot");
    }
    assert_eq!(client.submit(&echo_call(), b""), Err(SubmitRefused::NoCredit));
    client.flush();
    bench.until("they are admitted", |seen| seen.engine(Counter::CallsAdmitted) == 8);
    drop(client);
    bench.until("they are forgotten", |seen| {
        seen.engine(Counter::CallsForgotten) == 8
            && seen
                .shard(|counters| counters.clients_gone_calls == 8 && counters.shm_clients_attached_now == 0)
    });
    others_notice_nothing(&bench);
}

#[test]
fn a_client_that_vanishes_while_its_call_runs_harms_nobody() {
    let bench = echo().start();
    let may_answer = Arc::new(AtomicBool::new(false));
    let gate = may_answer.clone();
    let mut held = None;
    let worker = bench.worker("echo", move |shift| {
        held = held.take().or_else(|| shift.take());
        if gate.load(Ordering::SeqCst)
            && let Some(taken) = held.take()
        {
            let payload = shift.payload(&taken);
            shift.complete(taken, Outcome::Ok, &payload);
            shift.publish();
        }
    });
    let mut client = client(&bench);
    client.submit(&echo_call(), b"unread").expect("a slot");
    client.flush();
    wait_until("it runs", || worker.taken.load(Ordering::SeqCst) == 1);
    drop(client);
    bench.until("it is gone", |seen| seen.shard(|counters| counters.shm_clients_detached == 1));
    // Its place is taken by another, whose slot 0 is not given the answer.
    let mut successor = self::client(&bench);
    may_answer.store(true, Ordering::SeqCst);
    bench.until("the result is dropped", |seen| seen.shard(|counters| counters.completions_stale == 1));
    assert_eq!(&successor.call(&echo_call(), b"its own").expect("served").payload[..], b"its own");
}

#[test]
fn a_call_whose_worker_dies_is_tried_again_with_the_same_bytes_if_it_may() {
    let bench = echo().start();
    let _first = bench.worker("echo", |shift| shift.is_over = shift.take().is_some());
    let mut client = client(&bench);
    let payload: Vec<u8> = (0..1000).map(|index| (index % 251) as u8).collect();
    let may = Call {
        call_id: 1,
        flags: Flags::IDEMPOTENT,
        trace: Some(TraceContext::decode(&[3; 32])),
        ..echo_call()
    };
    client.submit(&may, &payload).expect("a slot");
    client.flush();
    bench.until("the first is gone", |seen| seen.shard(|counters| counters.workers_detached) == 1);
    let _second = bench.echo_worker();
    assert_eq!(next(&mut client), (1, Ok(payload)));
}

#[test]
fn a_call_that_had_begun_in_a_worker_that_dies_is_answered_as_lost() {
    let bench = echo().start();
    let _worker = bench.worker("echo", |shift| shift.is_over = shift.take().is_some());
    let error = client(&bench).call(&echo_call(), b"").expect_err("its worker died");
    assert_eq!(error, CallError::WorkerLost { status: Status::WorkerLost, started: true });
}

#[test]
fn a_ring_is_attached_by_the_address_of_the_run_directory_and_no_other() {
    let bench = echo().start();
    let url = format!("shm://{}", bench.router.run_dir().path().display());
    assert!(ShmClient::connect(&url, &Options::default()).is_ok());
    assert!(ShmClient::connect("unix:///x", &Options::default()).is_err());
}

#[test]
fn a_client_that_reads_no_answers_blocks_itself_only() {
    let bench = echo().start();
    let worker = bench.echo_worker();
    let mut deaf = client(&bench);
    for _ in 0..8 {
        deaf.submit(&echo_call(), b"unread").expect("a slot");
    }
    deaf.flush();
    bench.until("all are answered", |seen| seen.shard(|counters| counters.replies == 8));
    worker.stop();
    others_notice_nothing(&bench);
    assert_eq!(deaf.free_slots(), 0);
    assert!(deaf.wait(Some(Duration::ZERO)).expect("an honest router"), "they are still there");
}

#[test]
fn clients_beyond_the_bound_and_rings_beyond_theirs_are_refused() {
    let mut setup = echo();
    setup.router = "shm_clients_max = 2\nshm_memory_max = \"1MiB\"".into();
    let bench = setup.start();
    let refused = |options: &Options| match ShmClient::attach(bench.router.run_dir().path(), options) {
        Err(ConnectError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    };
    let large = Options { payload_size_max: 1 << 20, ..Options::default() };
    assert_eq!(refused(&large), Status::PayloadTooLarge);
    let first = client_with(&bench, &Options { slot_count: 100, payload_size_max: 1, ..Options::default() });
    assert_eq!((first.slot_count(), first.payload_size_max()), (64, 4096), "a power of two, whole pages");
    let second = client_with(&bench, &Options::default());
    assert_eq!((second.slot_count(), second.payload_size_max()), (32, 16 << 10), "what fits 1 MiB");
    assert_eq!(refused(&Options::default()), Status::TooManyConnections);
    drop(first);
    bench.until("there is room", |seen| seen.shard(|counters| counters.shm_clients_attached_now == 1));
    let _third = client(&bench);
    bench.until("refusals are counted", |seen| seen.shard(|counters| counters.shm_clients_refused == 2));
}

#[test]
fn a_draining_router_answers_what_was_asked_then_says_goodbye() {
    let bench = echo().start();
    let may_answer = Arc::new(AtomicBool::new(false));
    let gate = may_answer.clone();
    let worker = bench.worker("echo", move |shift| {
        if gate.load(Ordering::SeqCst) {
            shift.answer_all(|payload| payload.to_vec());
        }
    });
    let mut idle = client(&bench);
    let mut busy = client(&bench);
    busy.submit(&Call { call_id: 1, ..echo_call() }, b"before the end").expect("a slot");
    busy.flush();
    bench.until("it is pushed", |seen| seen.shard(|counters| counters.pushes == 1));
    bench.router.drain();
    wait_until("told", || busy.is_router_draining());
    let goodbye = Err(Disconnect::GoAway(Status::GoingAway));
    assert_eq!(idle.wait(Some(GIVE_UP)), Ok(false));
    assert_eq!(idle.poll(), goodbye, "nothing was outstanding");
    busy.submit(&Call { call_id: 2, ..echo_call() }, b"too late").expect("a slot");
    let refused = CallError::Refused { status: Status::Draining, retry_after: None };
    assert_eq!(next(&mut busy), (2, Err(refused)));
    may_answer.store(true, Ordering::SeqCst);
    assert_eq!(next(&mut busy), (1, Ok(b"before the end".to_vec())));
    wait_until("closed", || {
        busy.look_at_socket();
        busy.poll() == goodbye
    });
    worker.stop();
    assert!(bench.router.join());
}

#[test]
fn an_idle_client_is_parked_and_heard_again() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = Hostile::attach(&bench);
    for _ in 0..3 {
        let is_parked =
            || client.ring.memory().load_u32(service_line::ROUTER_SLEEPING, Ordering::Acquire) % 2 == 1;
        wait_until("it is parked", is_parked);
        client.submit(b"after a pause");
        assert!(client.ring.publish(), "a parked ring asks to be rung for");
        client.ring_bell();
        wait_until("an answer", || {
            let outcome = client.ring.wait(0, Some(Duration::from_millis(10))).expect("honest");
            outcome == client_ring::WaitOutcome::Ready
        });
        let answered = client.ring.next_answer().expect("honest").expect("waited for");
        client.ring.release(answered);
    }
}

/// A client by hand.
struct Hostile {
    ring: ClientEnd<Mapped>,
    bell: EventDoorbell,
    socket: UnixStream,
}

impl Hostile {
    fn attach(bench: &Bench) -> Hostile {
        let socket = raw(bench);
        let wanted = Message::AttachClient { process_id: 0, slot_count: 4, payload_size_max: 4096 };
        say(&socket, wanted);
        let mut bytes = [0; 256];
        let mut fds = Vec::new();
        let size = pass::receive_with_fds(&socket, &mut bytes, &mut fds).expect("an answer");
        let (message, _) = attach::decode(&bytes[..size]).expect("a record").expect("a whole record");
        assert!(matches!(message, Message::ClientAttached(_)), "{message:?}");
        let [memory, bell] = <[OwnedFd; 2]>::try_from(fds).expect("two descriptors");
        let ring = ClientEnd::attach(Mapped::attach(memory).expect("sealed memory")).expect("a ring");
        Hostile { ring, bell: EventDoorbell::from_fd(bell), socket }
    }

    fn submit(&mut self, payload: &[u8]) -> SlotIndex {
        let call = client_ring::Call {
            call_id: 1,
            function_id: 0,
            criticality: 1,
            deadline_at_ns: u64::MAX,
            flags: 0,
            trace: None,
            idempotency_key: None,
        };
        self.ring.submit(&call, payload).expect("a slot")
    }

    fn store(&self, offset: usize, value: u32) {
        self.ring.memory().store_u32(offset, value, Ordering::Release);
    }

    fn ring_bell(&self) {
        self.bell.ring().expect("the router's bell");
    }

    /// Told to go with this status, then closed.
    fn expect_goaway(&mut self, status: Status) {
        let messages = messages_until_end(&self.socket);
        assert_eq!(messages, [Message::Goaway { status: status as u16 }]);
    }
}

fn raw(bench: &Bench) -> UnixStream {
    let path: PathBuf = bench.router.run_dir().attach_socket(0);
    let socket = UnixStream::connect(path).expect("the attach socket");
    socket.set_read_timeout(Some(GIVE_UP)).expect("timeout");
    socket
}

fn say(mut socket: &UnixStream, message: Message) {
    let mut record = Vec::new();
    message.encode(&mut record);
    socket.write_all(&record).expect("the router reads");
}

fn messages_until_end(mut socket: &UnixStream) -> Vec<Message> {
    let mut bytes = Vec::new();
    // A reset is an end too: we were still talking.
    let _ = socket.read_to_end(&mut bytes);
    let mut messages = Vec::new();
    while let Some((message, size)) = attach::decode(&bytes).expect("records") {
        messages.push(message);
        bytes.drain(..size);
    }
    messages
}

/// One outstanding call, then something bad.
fn check_misbehaviour(status: Status, scribble: impl Fn(&mut Hostile, SlotIndex)) {
    let bench = echo().start();
    let mut hostile = Hostile::attach(&bench);
    let slot = hostile.submit(b"waits, for nobody serves");
    hostile.ring.publish();
    hostile.ring_bell();
    bench.until("it is admitted", |seen| seen.engine(Counter::CallsAdmitted) == 1);
    scribble(&mut hostile, slot);
    hostile.ring_bell();
    hostile.expect_goaway(status);
    bench.until("it is closed and counted, its call cancelled", |seen| {
        seen.shard(|counters| counters.clients_misbehaved == 1 && counters.shm_clients_attached_now == 0)
            && seen.engine(Counter::CallsForgotten) == 1
    });
    // Whatever it does now is done to memory that nobody looks at.
    hostile.store(client_line::SUBMISSION_TAIL, 77);
    hostile.ring_bell();
    others_notice_nothing(&bench);
}

#[test]
fn a_client_whose_cursor_jumps_is_closed() {
    for tail in [9, u32::MAX, 0] {
        check_misbehaviour(Status::MalformedFrame, |hostile, _| {
            hostile.store(client_line::SUBMISSION_TAIL, tail);
        });
    }
}

#[test]
fn a_client_that_submits_a_slot_twice_is_closed() {
    check_misbehaviour(Status::MalformedFrame, |hostile, slot| {
        let entry = hostile.ring.geometry().submission_entry(1);
        hostile.store(entry, slot.0);
        hostile.store(client_line::SUBMISSION_TAIL, 2);
    });
}

#[test]
fn a_client_that_submits_a_slot_it_does_not_have_is_closed() {
    check_misbehaviour(Status::MalformedFrame, |hostile, _| {
        let entry = hostile.ring.geometry().submission_entry(1);
        hostile.store(entry, 4);
        hostile.store(client_line::SUBMISSION_TAIL, 2);
    });
}

#[test]
fn a_client_whose_payload_ends_behind_its_region_is_closed() {
    check_misbehaviour(Status::MalformedFrame, |hostile, _| {
        let slot = hostile.submit(b"");
        let place = hostile.ring.geometry().slot(slot);
        hostile.store(place + call_slot::PAYLOAD_SIZE, u32::MAX);
        hostile.ring.publish();
    });
}

#[test]
fn a_client_with_a_flag_that_must_be_understood_is_closed() {
    check_misbehaviour(Status::UnknownCriticalFlag, |hostile, _| {
        let slot = hostile.submit(b"");
        let place = hostile.ring.geometry().slot(slot);
        hostile.store(place + call_slot::CLIENT_CONTROL, u32::from(READY) | 0x0100_0000);
        hostile.ring.publish();
    });
}

#[test]
fn a_client_that_rings_without_calling_is_closed() {
    let bench = echo().start();
    let hostile = Hostile::attach(&bench);
    wait_until("it is closed", || {
        hostile.ring_bell();
        bench.seen.shard(|counters| counters.clients_misbehaved == 1)
    });
    others_notice_nothing(&bench);
}

#[test]
fn a_payload_that_changes_after_it_was_submitted_reaches_its_own_function_only() {
    let bench = echo().start();
    let mut hostile = Hostile::attach(&bench);
    let slot = hostile.submit(b"as it was");
    hostile.ring.publish();
    hostile.ring_bell();
    bench.until("it is admitted", |seen| seen.engine(Counter::CallsAdmitted) == 1);
    // Sizes and ids are those of the first reading, the bytes those of the copy.
    let place = hostile.ring.geometry().slot(slot);
    hostile.store(place + call_slot::PAYLOAD_SIZE, 4096);
    hostile.store(place + call_slot::FUNCTION_ID, 99);
    hostile.ring.memory().write(place + call_slot::INLINE_PAYLOAD, b"as it is.");
    let _worker = bench.echo_worker();
    wait_until("an answer", || {
        hostile.ring.wait(0, Some(Duration::from_millis(10))).expect("honest")
            == client_ring::WaitOutcome::Ready
    });
    let answered = hostile.ring.next_answer().expect("honest").expect("waited for");
    assert_eq!((answered.status, hostile.ring.result(&answered)), (0, &b"as it is."[..]));
}

#[test]
fn records_that_do_not_belong_to_a_client_end_it() {
    for message in [
        Message::AttachClient { process_id: 0, slot_count: 0, payload_size_max: 0 },
        Message::Goaway { status: 88 },
        Message::Stop,
    ] {
        let bench = echo().start();
        let hostile = Hostile::attach(&bench);
        say(&hostile.socket, message);
        let refused = Message::Refused { reason: AttachRefused::PeerUntrusted };
        assert_eq!(messages_until_end(&hostile.socket), [refused]);
        bench.until("it is gone", |seen| {
            seen.shard(|counters| counters.attach_misbehaved == 1 && counters.shm_clients_attached_now == 0)
        });
        others_notice_nothing(&bench);
    }
}

#[test]
fn a_client_that_asks_without_reading_the_answers_is_closed() {
    let bench = echo().start();
    let hostile = Hostile::attach(&bench);
    let name = protocol::FunctionName::new("echo").expect("a name");
    let mut record = Vec::new();
    Message::Resolve { name }.encode(&mut record);
    wait_until("it is closed", || {
        let _ = (&hostile.socket).write_all(&record);
        bench.seen.shard(|counters| counters.shm_clients_detached == 1)
    });
    others_notice_nothing(&bench);
}

#[test]
fn a_visitor_that_cancels_or_asks_before_it_attached_is_not_one_of_ours() {
    let name = protocol::FunctionName::new("echo").expect("a name");
    for message in [Message::Resolve { name }, Message::CancelCall { slot: 0, call_id: 0 }] {
        let bench = echo().start();
        let socket = raw(&bench);
        say(&socket, message);
        let refused = Message::Refused { reason: AttachRefused::PeerUntrusted };
        assert_eq!(messages_until_end(&socket), [refused]);
    }
}

#[test]
fn a_client_that_scribbles_at_random_while_it_calls_never_harms_the_router() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut state = 0x9E37_79B9_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut wire = bench.client();
    for round in 0..200_u32 {
        let mut hostile = Hostile::attach(&bench);
        let end = hostile.ring.geometry().request_region(SlotIndex(0)) as u64;
        for _ in 0..50 {
            if hostile.ring.free_slots() > 0 {
                hostile.submit(&random().to_le_bytes());
                hostile.ring.publish();
            }
            let offset = match random() % 4 {
                0 => client_line::SUBMISSION_TAIL as u64,
                1 => 4096 + random() % 256,
                _ => 128 + random() % (end - 128),
            };
            let value = if random() % 2 == 0 { random() % 8 } else { random() };
            hostile.store(offset as usize & !3, value as u32);
            if random() % 8 == 0 {
                hostile.ring_bell();
            }
            while let Ok(Some(answered)) = hostile.ring.next_answer() {
                hostile.ring.release(answered);
            }
        }
        drop(hostile);
        let parts = FrameParts::invoke(call(round % 8), ECHO);
        wire.send(&frame(&parts, &round.to_le_bytes()));
        assert_eq!(wire.reply(call(round % 8)).payload, round.to_le_bytes());
    }
    bench.until("all are gone", |seen| seen.shard(|counters| counters.shm_clients_attached_now == 0));
}
