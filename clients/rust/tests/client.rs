//! The client against a router that is only a script: real sockets, real frames, no Quickfire behind them.
//!
//! Every test hands the fake router a script for each connection it accepts. Nothing here sleeps to synchronise:
//! a side that has to wait, waits for bytes.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use protocol::{
    CallId, Extensions, FrameParts, FunctionId, Hello, Kind, Offer, Status, TraceContext, decode, encode,
};
use quickfire_client::{
    CallError, Client, ConnectError, Criticality, Disconnect, Expiry, Fault, ResolveError, Retry,
    RouterMisbehaved,
};

/// How long a test waits for what must come, before it fails.
const GIVE_UP: Duration = Duration::from_secs(20);

// ---- the fake router ----

struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A frame as the client sent it.
#[derive(Debug)]
struct Sent {
    kind: Kind,
    call_id: CallId,
    budget_us: u32,
    criticality: u8,
    trace: Option<TraceContext>,
    key: Option<[u8; 16]>,
    payload: Vec<u8>,
}

impl Peer {
    /// The next frame; `None` when the client closed.
    fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(frame) = decode(&self.received, u32::MAX).expect("the client speaks the protocol") {
                let sent = Sent {
                    kind: frame.kind,
                    call_id: frame.header.call_id,
                    budget_us: frame.header.budget_us,
                    criticality: frame.header.criticality,
                    trace: frame.trace(),
                    key: frame.idempotency_key(),
                    payload: frame.payload.to_vec(),
                };
                let size = frame.size();
                self.received.drain(..size);
                return Some(sent);
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.received.extend_from_slice(&bytes[..count]);
        }
    }

    fn expect(&mut self, kind: Kind) -> Sent {
        let sent = self.next().expect("the client is still there");
        assert_eq!(sent.kind, kind, "{sent:?}");
        sent
    }

    fn send(&mut self, parts: &FrameParts, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode(&mut bytes, parts, &Extensions::NONE, payload);
        self.send_bytes(&bytes);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        // A client that left is for the test's other half to judge.
        let _client_left = self.stream.write_all(bytes);
    }

    fn greet(&mut self, credits: u32) {
        let hello = Hello::decode(&self.expect(Kind::Hello).payload).unwrap();
        let offer = Offer { credits_max: credits, ..Offer::default() };
        self.send(&FrameParts::hello(), &hello.answer(&offer).unwrap().encode());
    }

    fn resolve(&mut self, name: &str, id: u32) {
        let asked = self.expect(Kind::Resolve);
        assert_eq!(asked.payload, name.as_bytes());
        self.send(&FrameParts::resolved(asked.call_id, FunctionId(id), Status::Ok), &[]);
    }

    /// The beginning of most scripts: HELLO and the function `echo`.
    fn open(&mut self, credits: u32) {
        self.greet(credits);
        self.resolve("echo", 1);
    }

    fn answer(&mut self, call: &Sent) {
        self.send(&FrameParts::reply(call.call_id, Status::Ok), &call.payload);
    }

    /// Stays until the client closes.
    fn until_closed(&mut self) {
        while self.next().is_some() {}
    }
}

type Script = Box<dyn FnOnce(&mut Peer) + Send>;

struct FakeRouter {
    url: String,
    thread: JoinHandle<()>,
}

impl FakeRouter {
    /// Plays one script for each connection, in turn; closes each connection when its script ends.
    fn play(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("quickfire://{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            for script in scripts {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(GIVE_UP)).unwrap();
                script(&mut Peer { stream, received: Vec::new() });
            }
        });
        Self { url, thread }
    }

    fn play_one(script: impl FnOnce(&mut Peer) + Send + 'static) -> Self {
        Self::play(vec![Box::new(script)])
    }

    fn finish(self) {
        self.thread.join().expect("the script ran as written");
    }
}

// ---- calls ----

#[test]
fn a_call_returns_what_the_function_returned() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        peer.answer(&call);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let answer = client.function("echo").unwrap().call("hello").wait().unwrap();
    assert_eq!(&answer.payload[..], b"hello");
    assert_eq!(answer.timings, None);
    drop(client);
    router.finish();
}

#[test]
fn options_travel_in_the_frame() {
    let trace = TraceContext { trace_id: [1; 16], parent_span_id: [2; 8], trace_flags: 1 };
    let router = FakeRouter::play_one(move |peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        assert!(call.budget_us > 0 && call.budget_us <= 60_000_000, "{}", call.budget_us);
        assert_eq!(call.criticality, Criticality::Critical as u8);
        assert_eq!(call.key, Some([7; 16]));
        assert_eq!(call.trace, Some(trace));
        peer.answer(&call);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let call = echo.call(b"x").deadline(Duration::from_secs(60)).criticality(Criticality::Critical);
    call.idempotency_key([7; 16]).trace(trace).with_timings().wait().unwrap();
    drop((echo, client));
    router.finish();
}

#[test]
fn pipelined_calls_are_answered_out_of_order_and_find_their_callers() {
    const CALLS: usize = 32;
    let router = FakeRouter::play_one(|peer| {
        peer.open(64);
        let calls: Vec<_> = (0..CALLS).map(|_| peer.expect(Kind::Invoke)).collect();
        for call in calls.iter().rev() {
            peer.answer(call);
        }
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let calls: Vec<_> = (0..CALLS).map(|n| echo.call(&n.to_string()).start().unwrap()).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(&call.wait().unwrap().payload[..], n.to_string().as_bytes());
    }
    drop((echo, client));
    router.finish();
}

#[test]
fn held_writes_go_out_when_the_guard_is_dropped_or_someone_waits() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(64);
        for _ in 0..5 {
            let call = peer.expect(Kind::Invoke);
            peer.answer(&call);
        }
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let held = client.hold_writes();
    let first = echo.call("1").start().unwrap();
    first.wait().unwrap();
    let rest: Vec<_> = (0..4).map(|_| echo.call("2").start().unwrap()).collect();
    drop(held);
    rest.into_iter().for_each(|call| assert!(call.wait().is_ok()));
    drop((echo, client));
    router.finish();
}

#[test]
fn a_payload_larger_than_any_socket_buffer_arrives_whole_both_ways() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(16);
        // Given: a router that reads nothing until all is under way, so that the client's socket fills up.
        for _ in 0..16 {
            let call = peer.expect(Kind::Invoke);
            peer.answer(&call);
        }
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let payload: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let calls: Vec<_> = (0..16).map(|_| echo.call(&payload).start().unwrap()).collect();
    for call in calls {
        assert!(call.wait().unwrap().payload == payload);
    }
    drop((echo, client));
    router.finish();
}

#[test]
fn many_threads_share_one_client() {
    const THREADS: usize = 4;
    const CALLS: usize = 200;
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        for _ in 0..THREADS * CALLS {
            let call = peer.expect(Kind::Invoke);
            peer.answer(&call);
        }
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let echo = &echo;
            scope.spawn(move || {
                for n in 0..CALLS {
                    let text = format!("{thread}-{n}");
                    assert_eq!(&echo.call(&text).wait().unwrap().payload[..], text.as_bytes());
                }
            });
        }
    });
    drop((echo, client));
    router.finish();
}

#[test]
fn a_call_is_a_future_that_wakes_its_task() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        peer.answer(&call);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let call = client.function("echo").unwrap().call("later").start().unwrap();
    assert_eq!(&block_on(call).unwrap().payload[..], b"later");
    drop(client);
    router.finish();
}

#[test]
fn a_waker_that_panics_ends_the_client_but_leaves_nobody_waiting() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        peer.expect(Kind::Invoke);
        peer.answer(&call);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let mut polled = echo.call("1").start().unwrap();
    let waker = Waker::from(Arc::new(Panics));
    assert!(std::pin::Pin::new(&mut polled).poll(&mut Context::from_waker(&waker)).is_pending());
    let waiting = echo.call("2").start().unwrap();
    let lost = CallError::Disconnected { maybe_started: true, cause: Disconnect::ClientDropped };
    assert_eq!(waiting.wait(), Err(lost));
    drop((polled, echo, client));
    router.finish();
}

/// All the runtime a future needs: poll, park until woken, poll again.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(GIVE_UP),
        }
    }
}

// ---- ends that are not results ----

#[test]
fn error_statuses_say_who_is_at_fault_and_whether_to_retry() {
    let statuses = [Status::FunctionError, Status::QueueFull, Status::TimedOut, Status::WorkerLost];
    let router = FakeRouter::play_one(move |peer| {
        peer.open(8);
        for status in statuses {
            let call = peer.expect(Kind::Invoke);
            peer.send(&FrameParts::reply(call.call_id, status), b"why");
        }
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let errors: Vec<_> = statuses.iter().map(|_| echo.call("x").wait().unwrap_err()).collect();
    assert!(matches!(&errors[0], CallError::FunctionError(bytes) if &bytes[..] == b"why"));
    assert!(matches!(errors[1], CallError::Refused { status: Status::QueueFull, .. }));
    assert_eq!(errors[1].retry(), Retry::Safe);
    assert_eq!(errors[2], CallError::Expired(Expiry::Stopped));
    assert_eq!(errors[3].fault(), Fault::Worker);
    drop((echo, client));
    router.finish();
}

#[test]
fn an_unknown_function_is_named() {
    let router = FakeRouter::play_one(|peer| {
        peer.greet(8);
        let asked = peer.expect(Kind::Resolve);
        peer.send(&FrameParts::resolved(asked.call_id, FunctionId(0), Status::UnknownFunction), &[]);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let error = client.function("nope").unwrap_err();
    assert!(matches!(error, ResolveError::UnknownFunction { ref name } if name == "nope"), "{error}");
    assert!(matches!(client.function("").unwrap_err(), ResolveError::NameInvalid(_)));
    drop(client);
    router.finish();
}

#[test]
fn cancel_reaches_the_router_and_the_call_ends_as_cancelled() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        assert_eq!(peer.expect(Kind::Cancel).call_id, call.call_id);
        peer.send(&FrameParts::reply(call.call_id, Status::Cancelled), &[]);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let call = client.function("echo").unwrap().call("x").start().unwrap();
    call.cancel();
    assert_eq!(call.wait(), Err(CallError::Cancelled { started: false }));
    drop(client);
    router.finish();
}

#[test]
fn a_dropped_call_is_cancelled_and_its_late_answer_is_ignored() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let dropped = peer.expect(Kind::Invoke);
        assert_eq!(peer.expect(Kind::Cancel).call_id, dropped.call_id);
        peer.answer(&dropped);
        let next = peer.expect(Kind::Invoke);
        peer.answer(&next);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    drop(echo.call("dropped").start().unwrap());
    assert_eq!(&echo.call("next").wait().unwrap().payload[..], b"next");
    drop((echo, client));
    router.finish();
}

#[test]
fn a_deadline_passes_on_this_side_when_the_router_says_nothing() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        assert_eq!(peer.expect(Kind::Cancel).call_id, call.call_id);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let started_at = Instant::now();
    let end = echo.call("x").deadline(Duration::from_millis(20)).wait();
    assert_eq!(end, Err(CallError::Expired(Expiry::NoAnswer)));
    assert!(started_at.elapsed() >= Duration::from_millis(20));
    assert_eq!(echo.call("x").deadline(Duration::ZERO).wait(), Err(CallError::Expired(Expiry::NeverStarted)));
    drop((echo, client));
    router.finish();
}

#[test]
fn waiting_with_a_timeout_gives_the_call_back_while_it_is_on_its_way() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let slow = peer.expect(Kind::Invoke);
        let go = peer.expect(Kind::Invoke);
        peer.answer(&go);
        peer.answer(&slow);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let slow = echo.call("slow").start().unwrap();
    let slow = slow.wait_timeout(Duration::from_millis(1)).expect_err("no answer yet");
    echo.call("go").wait().unwrap();
    assert_eq!(&slow.wait().unwrap().payload[..], b"slow");
    drop((echo, client));
    router.finish();
}

#[test]
fn without_a_credit_try_start_refuses_and_start_waits() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(2);
        let first = peer.expect(Kind::Invoke);
        let second = peer.expect(Kind::Invoke);
        // Given: the third call is started by a thread that has to wait for this answer.
        peer.answer(&first);
        let third = peer.expect(Kind::Invoke);
        assert_eq!(third.call_id.slot(), first.call_id.slot());
        peer.answer(&second);
        peer.answer(&third);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let first = echo.call("1").start().unwrap();
    // The first call's answer comes only after the second was sent, so the credit cannot be back yet.
    let held = client.hold_writes();
    let second = echo.call("2").start().unwrap();
    assert_eq!(echo.call("3").try_start().unwrap_err(), CallError::WouldBlock);
    drop(held);
    let third = echo.call("3").start().unwrap();
    for (call, text) in [(first, "1"), (second, "2"), (third, "3")] {
        assert_eq!(&call.wait().unwrap().payload[..], text.as_bytes());
    }
    drop((echo, client));
    router.finish();
}

#[test]
fn waiting_for_a_credit_ends_at_the_deadline() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(1);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let _only_credit = echo.call("1").start().unwrap();
    let end = echo.call("2").deadline(Duration::from_millis(10)).start().unwrap_err();
    assert_eq!(end, CallError::Expired(Expiry::NeverStarted));
    assert_eq!(end.retry(), Retry::Safe);
    drop((_only_credit, echo, client));
    router.finish();
}

#[test]
fn a_payload_too_large_for_the_connection_is_refused_before_it_is_sent() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        peer.until_closed();
    });
    let client = Client::builder().frame_size_max(8192).connect(&router.url).unwrap();
    let error = client.function("echo").unwrap().call(&[0; 10_000]).wait().unwrap_err();
    assert!(matches!(error, CallError::Refused { status: Status::PayloadTooLarge, .. }));
    drop(client);
    router.finish();
}

// ---- the connection's end ----

#[test]
fn calls_outstanding_at_a_disconnect_fail_and_later_ones_use_the_next_connection() {
    let router = FakeRouter::play(vec![
        Box::new(|peer| {
            peer.open(8);
            peer.expect(Kind::Invoke);
            peer.expect(Kind::Invoke);
        }),
        // The router numbers its functions anew: the handle must follow.
        Box::new(|peer| {
            peer.greet(8);
            peer.resolve("echo", 42);
            let call = peer.expect(Kind::Invoke);
            peer.answer(&call);
            peer.until_closed();
        }),
    ]);
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let calls = [echo.call("1").start().unwrap(), echo.call("2").start().unwrap()];
    for call in calls {
        let error = call.wait().unwrap_err();
        assert!(matches!(error, CallError::Disconnected { maybe_started: true, .. }), "{error}");
        assert_eq!(error.retry(), Retry::IfIdempotent);
    }
    assert_eq!(&echo.call("3").wait().unwrap().payload[..], b"3");
    drop((echo, client));
    router.finish();
}

#[test]
fn a_function_that_the_next_router_does_not_have_is_refused() {
    let router = FakeRouter::play(vec![
        Box::new(|peer| {
            peer.open(8);
            peer.expect(Kind::Invoke);
        }),
        Box::new(|peer| {
            peer.greet(8);
            let asked = peer.expect(Kind::Resolve);
            peer.send(&FrameParts::resolved(asked.call_id, FunctionId(0), Status::UnknownFunction), &[]);
            peer.until_closed();
        }),
    ]);
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let lost = echo.call("x").wait().unwrap_err();
    assert!(matches!(lost, CallError::Disconnected { .. }), "{lost}");
    let refused = echo.call("x").wait().unwrap_err();
    assert_eq!(refused, CallError::Refused { status: Status::UnknownFunction, retry_after: None });
    drop((echo, client));
    router.finish();
}

#[test]
fn garbage_from_the_router_ends_the_connection_and_is_named() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        peer.expect(Kind::Invoke);
        peer.send_bytes(&[0xff; 64]);
        peer.until_closed();
    });
    let client = Client::builder().connect_timeout(Duration::from_millis(100)).connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let error = echo.call("x").wait().unwrap_err();
    let CallError::Disconnected {
        cause: Disconnect::RouterMisbehaved(RouterMisbehaved::Malformed(_)), ..
    } = error
    else {
        panic!("{error}");
    };
    // The script has ended and with it the listener: nothing is left to connect to.
    router.finish();
    let error = echo.call("x").wait().unwrap_err();
    assert_eq!(error, CallError::Disconnected { maybe_started: false, cause: Disconnect::Unreachable });
    assert_eq!(error.retry(), Retry::Safe);
}

#[test]
fn an_answer_to_nothing_ends_the_connection() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        let call = peer.expect(Kind::Invoke);
        peer.send(&FrameParts::reply(CallId::new(5, 99), Status::Ok), &call.payload);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    let error = client.function("echo").unwrap().call("x").wait().unwrap_err();
    let nothing = RouterMisbehaved::AnswerToNothing(CallId::new(5, 99).0);
    assert!(
        matches!(error, CallError::Disconnected { cause: Disconnect::RouterMisbehaved(what), .. } if what == nothing),
        "{error}"
    );
    drop(client);
    router.finish();
}

#[test]
fn a_router_that_goes_away_is_left_after_its_last_answer() {
    let router = FakeRouter::play(vec![
        Box::new(|peer| {
            peer.open(8);
            let call = peer.expect(Kind::Invoke);
            peer.send(&FrameParts::goaway(Status::GoingAway), b"restarting");
            peer.answer(&call);
            // Expect: the client closes, nobody else.
            assert!(peer.next().is_none());
        }),
        Box::new(|peer| {
            peer.open(8);
            let call = peer.expect(Kind::Invoke);
            peer.answer(&call);
            peer.until_closed();
        }),
    ]);
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    assert_eq!(&echo.call("1").wait().unwrap().payload[..], b"1");
    // The GOAWAY came before the first answer, so this call can only take the next connection.
    assert_eq!(&echo.call("2").wait().unwrap().payload[..], b"2");
    drop((echo, client));
    router.finish();
}

#[test]
fn a_ping_is_answered() {
    let router = FakeRouter::play_one(|peer| {
        peer.greet(8);
        peer.send(&FrameParts::ping(7), &[]);
        // PONG and RESOLVE may come in either order.
        let mut frames = [peer.next().unwrap(), peer.next().unwrap()];
        frames.sort_by_key(|frame| frame.kind as u8);
        assert_eq!((frames[1].kind, frames[1].budget_us), (Kind::Pong, 7));
        peer.send(&FrameParts::resolved(frames[0].call_id, FunctionId(1), Status::Ok), &[]);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    // The router answers this only after its PING was answered.
    client.function("echo").unwrap();
    drop(client);
    router.finish();
}

// ---- connecting ----

#[test]
fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("quickfire://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(matches!(Client::connect(&url).unwrap_err(), ConnectError::Unreachable { .. }));
    assert!(matches!(
        Client::connect("unix:///nowhere/q.sock").unwrap_err(),
        ConnectError::Unreachable { .. }
    ));
    assert!(matches!(Client::connect("http://x").unwrap_err(), ConnectError::Url(_)));
}

#[test]
fn a_refused_connection_gives_status_and_reason() {
    let router = FakeRouter::play_one(|peer| {
        peer.expect(Kind::Hello);
        peer.send(&FrameParts::goaway(Status::TooManyConnections), b"10000 are open");
        peer.until_closed();
    });
    let error = Client::connect(&router.url).unwrap_err();
    let ConnectError::Refused { status: Status::TooManyConnections, ref reason, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(reason, "10000 are open");
    router.finish();
}

#[test]
fn what_is_no_router_is_told_so() {
    let http = FakeRouter::play_one(|peer| {
        peer.expect(Kind::Hello);
        peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\nServer: something else entirely\r\n\r\n");
        peer.until_closed();
    });
    assert!(matches!(Client::connect(&http.url).unwrap_err(), ConnectError::RouterMisbehaved { .. }));
    http.finish();

    let mute = FakeRouter::play_one(Peer::until_closed);
    let patient = Client::builder().connect_timeout(Duration::from_millis(20));
    assert!(matches!(patient.connect(&mute.url).unwrap_err(), ConnectError::Unreachable { .. }));
    mute.finish();
}

#[test]
fn dropping_the_client_closes_the_connection_and_ends_its_calls() {
    let router = FakeRouter::play_one(|peer| {
        peer.open(8);
        peer.until_closed();
    });
    let client = Client::connect(&router.url).unwrap();
    drop(client.function("echo").unwrap());
    drop(client);
    // Expect: the script sees the connection closed and ends.
    router.finish();
}
