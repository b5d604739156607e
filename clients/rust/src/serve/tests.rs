//! The whole of `serve` in one process: the function on a thread, and a router that is nothing but its end of the ring.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::attach::{self, AttachRefused, Attached, Message};
use protocol::{Criticality, FunctionId, FunctionName, TraceContext};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::layout::{Outcome, router_line};
use shm_ring::{Context, Generation, Geometry, Identity, Mapped, Memory, Request, RouterEnd, pass};

use super::environment::Environment;
use super::*;

#[path = "tests/lanes.rs"]
mod direct_lanes;

/// When a test gives up. Never reached on a machine that works.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const NEVER_NS: u64 = u64::MAX;

/// What the tests' function does with each payload.
fn function(call: &Call<'_>, reply: &mut Reply) -> Result<(), FunctionError> {
    match call.payload() {
        b"panic" => panic!("as asked"),
        b"fail" => Err(FunctionError::new("as asked")),
        b"push back" => Err(FunctionError::backpressure("data base", 0)),
        b"large" => {
            reply.bytes_mut().resize(call.result_size_max() + 1, 7);
            Ok(())
        }
        b"fill" => {
            reply.bytes_mut().resize(call.result_size_max(), 7);
            Ok(())
        }
        b"context" => {
            let trace_flags = call.trace().map_or(0, |trace| trace.trace_flags);
            let key = call.idempotency_key().map_or(0, |key| key[0]);
            let has_time_left = call.time_left().is_some_and(|left| left > Duration::ZERO);
            let text = format!("{} {trace_flags} {key} {has_time_left}", call.criticality().name());
            reply.write(text.as_bytes());
            Ok(())
        }
        b"wait for cancel" => {
            while !call.is_cancelled() {
                std::thread::yield_now();
            }
            reply.write(b"noticed");
            Ok(())
        }
        payload => {
            reply.write(payload);
            Ok(())
        }
    }
}

/// The place where routers and functions of one test meet.
struct Place {
    dir: tempfile::TempDir,
    listener: UnixListener,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("attach-0.sock")).unwrap();
        Self { dir, listener }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("attach-0.sock")
    }

    /// Starts a function process, on a thread.
    fn start(&self, reattach_timeout: Duration) -> JoinHandle<Result<(), ServeFailed>> {
        self.start_with(reattach_timeout, function)
    }

    fn start_with(
        &self,
        reattach_timeout: Duration,
        handler: impl FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError> + Send + 'static,
    ) -> JoinHandle<Result<(), ServeFailed>> {
        self.start_until(&Stop::new(), reattach_timeout, handler)
    }

    fn start_until(
        &self,
        stop: &Stop,
        reattach_timeout: Duration,
        mut handler: impl FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError> + Send + 'static,
    ) -> JoinHandle<Result<(), ServeFailed>> {
        let environment = Environment {
            attach_socket: self.socket(),
            function: FunctionName::new("test").unwrap(),
            token: 42,
            reattach_timeout,
            spin_count_max: 0, // sleeps at once: the harder case
        };
        let stop = stop.clone();
        std::thread::spawn(move || serve_environment(&environment, &stop, &mut handler))
    }

    /// Takes a connection and its greeting.
    fn accept(&self) -> UnixStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut bytes = [0; attach::RECORD_SIZE + "test".len()];
        stream.read_exact(&mut bytes).unwrap();
        let (greeting, _) = attach::decode(&bytes).unwrap().unwrap();
        let name = FunctionName::new("test").unwrap();
        assert_eq!(
            greeting,
            Message::AttachWorker {
                name,
                token: 42,
                process_id: std::process::id(),
                lanes_max: lanes::LANES_MAX
            }
        );
        stream
    }

    /// Takes a function process as a router does.
    fn attach(&self) -> Router {
        static GENERATIONS: AtomicU32 = AtomicU32::new(1);
        let generation = Generation(GENERATIONS.fetch_add(1, Ordering::Relaxed));
        let stream = self.accept();
        let geometry = Geometry::new(4, 4096).unwrap();
        let identity = Identity { generation, worker_id: 0, function_id: 3 };
        let (memory, memory_fd) = Mapped::create("ring", geometry.memory_size()).unwrap();
        let ring = RouterEnd::new(memory, geometry, identity);
        let bell = EventDoorbell::new().unwrap();
        let attached = Message::Attached(Attached {
            worker_index: 0,
            generation: generation.0,
            shard: 0,
            function_id: FunctionId(3),
            slot_count: 4,
            region_size: 4096,
        });
        let mut bytes = Vec::new();
        attached.encode(&mut bytes);
        pass::send_with_fds(&stream, &bytes, &[memory_fd.as_fd(), bell.as_fd()]).unwrap();
        Router { ring, bell, stream, next_id: 1 }
    }
}

/// A router's end of one attachment.
struct Router {
    ring: RouterEnd<Mapped>,
    bell: EventDoorbell,
    stream: UnixStream,
    next_id: u64,
}

impl Router {
    fn request(&mut self) -> Request<'static> {
        let invocation_id = self.next_id;
        self.next_id += 1;
        Request {
            invocation_id,
            deadline_at_ns: NEVER_NS,
            pushed_at_ns: 0,
            flags: 0,
            criticality: Criticality::Normal as u8,
            context: None,
        }
    }

    fn push(&mut self, payload: &[u8]) {
        let request = self.request();
        self.ring.push(request, payload).unwrap();
    }

    fn publish(&mut self) {
        if self.ring.publish() {
            self.ring.wake();
        }
    }

    /// Waits for the next answer.
    fn answer(&mut self) -> (Outcome, Vec<u8>) {
        let give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            if let Some(completion) = self.ring.next_completion().unwrap() {
                let mut result = Vec::new();
                self.ring.read_result(&completion, &mut result);
                let outcome = completion.outcome;
                self.ring.release(completion);
                return (outcome, result);
            }
            assert!(Instant::now() < give_up_at, "no answer");
            std::thread::yield_now();
        }
    }

    fn call(&mut self, payload: &[u8]) -> (Outcome, Vec<u8>) {
        self.push(payload);
        self.publish();
        self.answer()
    }

    fn send(&mut self, message: Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }
}

fn ok(result: &[u8]) -> (Outcome, Vec<u8>) {
    (Outcome::Ok, result.to_vec())
}

#[test]
fn calls_are_answered_in_order_until_the_router_says_stop() {
    let place = Place::new();
    let served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    assert_eq!(router.call(b""), ok(b""));
    let mut expected = VecDeque::new();
    for number in 0..1_000_u32 {
        if expected.len() == 4 {
            assert_eq!(router.answer(), expected.pop_front().unwrap());
        }
        // Inline and in a region, in turn
        let payload = vec![number as u8; if number % 2 == 0 { 10 } else { 3_000 }];
        router.push(&payload);
        router.publish();
        expected.push_back(ok(&payload));
    }
    for answer in expected {
        assert_eq!(router.answer(), answer);
    }
    router.send(Message::Stop);
    assert!(matches!(served.join().unwrap(), Ok(())));
}

#[test]
fn what_was_sent_before_stop_is_finished() {
    let place = Place::new();
    let served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    for payload in [b"1", b"2", b"3"] {
        router.push(payload);
    }
    router.publish();
    router.send(Message::Stop);
    assert!(matches!(served.join().unwrap(), Ok(())));
    for payload in [b"1", b"2", b"3"] {
        assert_eq!(router.answer(), ok(payload));
    }
}

#[test]
fn a_process_that_ends_itself_answers_the_call_it_runs_and_begins_no_other() {
    // Given a function that asks for its own end while it runs a call
    let (place, stop) = (Place::new(), Stop::new());
    let served = place.start_until(&stop, GIVE_UP_AFTER, {
        let stop = stop.clone();
        move |call, reply| {
            if call.payload() == b"end" {
                stop.stop();
            }
            reply.write(call.payload());
            Ok(())
        }
    });
    let mut router = place.attach();
    assert_eq!(router.call(b"before"), ok(b"before"));
    router.push(b"end");
    router.push(b"not begun");
    router.publish();
    assert!(matches!(served.join().unwrap(), Ok(())));
    assert_eq!(router.answer(), ok(b"end"));
    assert!(router.ring.next_completion().unwrap().is_none(), "nothing else was begun");
}

#[test]
fn a_process_is_ended_by_another_thread_in_its_sleep_and_before_it_has_a_router() {
    let (place, stop) = (Place::new(), Stop::new());
    let served = place.start_until(&stop, GIVE_UP_AFTER, function);
    let mut router = place.attach();
    assert_eq!(router.call(b"before"), ok(b"before"));
    stop.stop();
    assert!(matches!(served.join().unwrap(), Ok(())));
    assert!(matches!(place.start_until(&stop, GIVE_UP_AFTER, function).join().unwrap(), Ok(())));

    let (nowhere, stop) = (Place::new(), Stop::new());
    std::fs::remove_file(nowhere.socket()).unwrap();
    let waits = nowhere.start_until(&stop, GIVE_UP_AFTER, function);
    stop.stop();
    assert!(matches!(waits.join().unwrap(), Ok(())));
}

#[test]
fn a_failure_and_a_panic_are_answers_and_the_process_goes_on() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    assert_eq!(router.call(b"fail"), (Outcome::FunctionError, b"as asked".to_vec()));
    assert_eq!(router.call(b"panic"), (Outcome::FunctionError, b"panicked: as asked".to_vec()));
    assert_eq!(router.call(b"push back"), (Outcome::Backpressure, b"data?base".to_vec()));
    assert_eq!(router.call(b"large"), (Outcome::ResultTooLarge, vec![]));
    assert_eq!(router.call(b"fill"), ok(&[7; 4096]));
    assert_eq!(router.call(b"still here"), ok(b"still here"));
}

#[test]
fn expired_and_cancelled_calls_never_start() {
    let place = Place::new();
    let started_count = std::sync::Arc::new(AtomicU32::new(0));
    let count = std::sync::Arc::clone(&started_count);
    let _served = place.start_with(GIVE_UP_AFTER, move |call, reply| {
        count.fetch_add(1, Ordering::Relaxed);
        function(call, reply)
    });
    let mut router = place.attach();
    let expired = Request { deadline_at_ns: 1, ..router.request() };
    router.ring.push(expired, b"too late").unwrap();
    let cancelled = router.request();
    let slot = router.ring.push(cancelled, b"never mind").unwrap();
    assert!(router.ring.request_cancel(slot, cancelled.invocation_id));
    router.publish();
    assert_eq!(router.answer(), (Outcome::Expired, vec![]));
    assert_eq!(router.answer(), (Outcome::Cancelled, vec![]));
    assert_eq!(router.call(b"x"), ok(b"x"));
    assert_eq!(started_count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_running_call_sees_its_cancellation() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let request = router.request();
    let slot = router.ring.push(request, b"wait for cancel").unwrap();
    router.publish();
    let give_up_at = Instant::now() + GIVE_UP_AFTER;
    while router.ring.was_started(slot) != shm_ring::Started::Yes {
        assert!(Instant::now() < give_up_at, "not started");
        std::thread::yield_now();
    }
    assert!(router.ring.request_cancel(slot, request.invocation_id));
    assert_eq!(router.answer(), ok(b"noticed"));
}

#[test]
fn a_call_knows_its_context() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    assert_eq!(router.call(b"context"), ok(b"normal 0 0 false"));
    let context = Context {
        trace: Some(TraceContext { trace_flags: 5, ..TraceContext::default() }.encode()),
        idempotency_key: Some([9; 16]),
    };
    let full = Request {
        criticality: Criticality::Critical as u8,
        deadline_at_ns: NEVER_NS - 1,
        context: Some(&context),
        ..router.request()
    };
    router.ring.push(full, b"context").unwrap();
    router.publish();
    assert_eq!(router.answer(), ok(b"critical 5 9 true"));
}

#[test]
fn a_sleeping_router_is_rung_once_there_is_an_answer() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    router.push(b"x");
    assert!(router.ring.announce_sleep(), "nothing to do but sleep");
    router.publish();
    let give_up_at = Instant::now() + GIVE_UP_AFTER;
    while !router.bell.silence().unwrap() {
        assert!(Instant::now() < give_up_at, "not rung");
        std::thread::yield_now();
    }
    router.ring.announce_awake();
    assert_eq!(router.answer(), ok(b"x"));
    assert!(!router.bell.silence().unwrap());
}

#[test]
fn a_function_stays_warm_when_its_router_dies_and_serves_the_next_one() {
    let place = Place::new();
    let mut calls_count = 0_u8;
    let served = place.start_with(GIVE_UP_AFTER, move |_, reply| {
        calls_count += 1;
        reply.write(&[calls_count]);
        Ok(())
    });
    for expected in 1..=5 {
        let mut router = place.attach();
        assert_eq!(router.call(b""), ok(&[expected]), "what the function keeps is kept");
    }
    let mut router = place.attach();
    router.send(Message::Stop);
    assert!(matches!(served.join().unwrap(), Ok(())));
}

#[test]
fn a_router_that_does_not_come_back_is_given_up() {
    let place = Place::new();
    let served = place.start(Duration::from_millis(1));
    let router = place.attach();
    std::fs::remove_file(place.socket()).unwrap();
    drop(router);
    assert!(matches!(served.join().unwrap(), Err(ServeFailed::RouterGone { .. })));
}

#[test]
fn a_damaged_ring_is_left_for_a_new_one() {
    let place = Place::new();
    let served = place.start(GIVE_UP_AFTER);
    let router = place.attach();
    router.ring.memory().store_u32(router_line::SUBMISSION_TAIL, 1_000, Ordering::Release);
    let is_attached = AtomicBool::new(false);
    let mut router = std::thread::scope(|scope| {
        scope.spawn(|| {
            // More than once: the function may not be asleep yet.
            while !is_attached.load(Ordering::Acquire) {
                router.ring.wake();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let next = place.attach();
        is_attached.store(true, Ordering::Release);
        next
    });
    assert_eq!(router.call(b"x"), ok(b"x"));
    router.send(Message::Stop);
    assert!(matches!(served.join().unwrap(), Ok(())));
}

#[test]
fn a_final_refusal_ends_the_process_and_a_passing_one_does_not() {
    let refuse = |place: &Place, reason| {
        let mut bytes = Vec::new();
        Message::Refused { reason }.encode(&mut bytes);
        place.accept().write_all(&bytes).unwrap();
    };
    let place = Place::new();
    let served = place.start(GIVE_UP_AFTER);
    refuse(&place, AttachRefused::Draining);
    refuse(&place, AttachRefused::UnknownFunction);
    let outcome = served.join().unwrap();
    assert!(matches!(outcome, Err(ServeFailed::Refused(AttachRefused::UnknownFunction))), "{outcome:?}");
}

#[test]
fn a_router_that_sends_no_ring_is_tried_again() {
    let place = Place::new();
    let served = place.start(GIVE_UP_AFTER);
    place.accept().write_all(&[0xAB; 100]).unwrap();
    drop(place.accept());
    let mut bytes = Vec::new();
    Message::ShimAccepted { shard: 0 }.encode(&mut bytes);
    place.accept().write_all(&bytes).unwrap();
    let mut router = place.attach();
    router.send(Message::Stop);
    assert!(matches!(served.join().unwrap(), Ok(())));
}
