//! Whole runs against a router that is only a loop around a socket: it answers what it reads, or misbehaves on
//! purpose. Runs are short; nothing is asserted about how quick anything was.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use loadgen::{Arrivals, Check, LoadError, Plan, PlanInvalid, Report, Target, Workload, run, run_until};
use protocol::{Extensions, Frame, FrameParts, FunctionId, Hello, Kind, Offer, Status, decode, encode};

/// What the fake router does with a batch of INVOKEs: `(call, payload)` in, replies out. `None` closes.
type Behaviour = fn(&[Frame<'_>], &mut Vec<u8>) -> Option<()>;

const CREDITS: u32 = 256;

fn echo(calls: &[Frame<'_>], out: &mut Vec<u8>) -> Option<()> {
    for call in calls {
        reply(out, call, Status::Ok, call.payload);
    }
    Some(())
}

fn reply(out: &mut Vec<u8>, call: &Frame<'_>, status: Status, payload: &[u8]) {
    encode(out, &FrameParts::reply(call.header.call_id, status), &Extensions::NONE, payload);
}

/// Serves any number of connections, each on a thread that ends with it.
fn fake_router(behaviour: Behaviour) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream, behaviour));
        }
    });
    Target::Tcp { host: "127.0.0.1".into(), port }
}

fn serve(mut stream: impl Read + Write, behaviour: Behaviour) {
    let mut received = Vec::new();
    let mut out = Vec::new();
    let mut room = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut room) {
        received.extend_from_slice(&room[..count]);
        let mut rest = &received[..];
        let mut calls = Vec::new();
        while let Some(frame) = decode(rest, u32::MAX).expect("the generator speaks the protocol") {
            rest = &rest[frame.size()..];
            match frame.kind {
                Kind::Hello => {
                    let offer = Offer { credits_default: CREDITS, credits_max: CREDITS, ..Offer::default() };
                    let hello = Hello::decode(frame.payload).unwrap().answer(&offer).unwrap();
                    encode(&mut out, &FrameParts::hello(), &Extensions::NONE, &hello.encode());
                }
                Kind::Resolve => {
                    let status = if frame.payload == b"nope" { Status::UnknownFunction } else { Status::Ok };
                    let parts = FrameParts::resolved(frame.header.call_id, FunctionId(3), status);
                    encode(&mut out, &parts, &Extensions::NONE, &[]);
                }
                Kind::Invoke => calls.push(frame),
                other => panic!("a generator does not send {other:?}"),
            }
        }
        let goes_on = calls.is_empty() || behaviour(&calls, &mut out).is_some();
        let consumed = received.len() - rest.len();
        received.drain(..consumed);
        if stream.write_all(&out).is_err() || !goes_on {
            return;
        }
        out.clear();
    }
}

fn short(target: Target) -> Plan {
    Plan { target, duration: Duration::from_millis(200), seed: 7, ..Plan::default() }
}

fn run_quietly(plan: &Plan) -> Report {
    run(plan, &mut |_progress| {}).unwrap()
}

#[track_caller]
fn assert_all_ok(report: &Report) {
    assert_eq!(report.error_count(), 0, "{:?}", report.errors);
    assert!(report.ok > 0);
    assert_eq!((report.sent, report.answered), (report.ok, report.ok));
    assert_eq!(report.latency_ns.count, report.ok);
    assert!(report.calls_per_s > 0.0);
}

#[test]
fn a_closed_loop_answers_every_call_it_sends() {
    for (connections, window) in [(1, 1), (1, 64), (7, 100)] {
        let plan = Plan { connections, workload: Workload::Closed { window }, ..short(fake_router(echo)) };
        assert_all_ok(&run_quietly(&plan));
    }
}

#[test]
fn an_open_loop_sends_exactly_what_its_schedule_says() {
    let plan = Plan {
        connections: 3,
        workload: Workload::Open { rate: 5_000.0, arrivals: Arrivals::Constant },
        ..short(fake_router(echo))
    };
    let report = run_quietly(&plan);
    assert_all_ok(&report);
    // 200 ms at 5000/s.
    assert_eq!(report.sent, 1_000);
}

#[test]
fn the_same_seed_sends_the_same_number_of_poisson_arrivals() {
    let workload = Workload::Open { rate: 10_000.0, arrivals: Arrivals::Poisson };
    let target = fake_router(echo);
    let count = |seed| {
        let report = run_quietly(&Plan { workload, seed, ..short(target.clone()) });
        report.sent + report.errors.get("not_sent").copied().unwrap_or_default()
    };
    assert_eq!(count(1), count(1));
    assert_ne!(count(1), count(2));
}

#[test]
fn a_unix_socket_carries_calls_as_tcp_does() {
    let directory = std::env::temp_dir().join(format!("quickfire-loadgen-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("router.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0, echo));
    assert_all_ok(&run_quietly(&short(Target::Unix(path))));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn payloads_of_every_size_come_back_whole() {
    let target = fake_router(echo);
    for payload_size in [0, 1, 15, 16, 17, 4_096, 300_000, 1_048_576] {
        let plan = Plan { payload_size, workload: Workload::Closed { window: 4 }, ..short(target.clone()) };
        assert_all_ok(&run_quietly(&plan));
    }
}

#[test]
fn swapped_payloads_are_seen() {
    fn swap(calls: &[Frame<'_>], out: &mut Vec<u8>) -> Option<()> {
        // Each call gets the payload of its neighbour; a call alone gets its own, backwards.
        for (index, call) in calls.iter().enumerate() {
            let payload: Vec<u8> = match calls.len() {
                1 => call.payload.iter().rev().copied().collect(),
                count => calls[(index + 1) % count].payload.to_vec(),
            };
            reply(out, call, Status::Ok, &payload);
        }
        Some(())
    }
    let report = run_quietly(&short(fake_router(swap)));
    assert_eq!(report.ok, 0);
    assert!(report.mismatched > 0);
    assert_eq!(report.errors["mismatched"], report.mismatched);
    assert_eq!(report.latency_ns.count, 0, "a wrong answer has no latency worth reporting");
}

#[test]
fn answers_to_calls_that_are_not_outstanding_are_seen() {
    fn answer_twice(calls: &[Frame<'_>], out: &mut Vec<u8>) -> Option<()> {
        echo(calls, out)?;
        // The first call again: its slot is free by now, or holds a call of another generation.
        reply(out, &calls[0], Status::Ok, calls[0].payload);
        Some(())
    }
    let report = run_quietly(&short(fake_router(answer_twice)));
    assert!(report.mismatched > 0);
    assert!(report.ok > 0);
}

#[test]
fn a_function_that_does_not_echo_is_checked_by_call_id() {
    fn noop(calls: &[Frame<'_>], out: &mut Vec<u8>) -> Option<()> {
        calls.iter().for_each(|call| reply(out, call, Status::Ok, b""));
        Some(())
    }
    let target = fake_router(noop);
    assert_all_ok(&run_quietly(&Plan { function: "noop".into(), ..short(target.clone()) }));
    let report = run_quietly(&Plan { function: "noop".into(), check: Check::Echo, ..short(target) });
    assert_eq!(report.ok, 0, "echo was insisted on");
}

#[test]
fn refusals_are_counted_by_reason_and_do_not_count_as_calls() {
    fn refuse(calls: &[Frame<'_>], out: &mut Vec<u8>) -> Option<()> {
        calls.iter().for_each(|call| reply(out, call, Status::QueueFull, b""));
        Some(())
    }
    let report = run_quietly(&short(fake_router(refuse)));
    assert_eq!(report.errors["queue_full"], report.answered);
    assert_eq!(report.calls_per_s, 0.0);
}

#[test]
fn a_router_that_closes_in_the_middle_is_reported_not_fatal() {
    fn close(_calls: &[Frame<'_>], _out: &mut Vec<u8>) -> Option<()> {
        None
    }
    let report = run_quietly(&short(fake_router(close)));
    assert_eq!(report.errors["disconnected"], report.sent);
    assert_eq!(report.answered, 0);
}

#[test]
fn a_router_that_sends_garbage_is_reported_not_fatal() {
    fn garbage(_calls: &[Frame<'_>], out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(&[0xff; 64]);
        Some(())
    }
    let report = run_quietly(&short(fake_router(garbage)));
    assert_eq!(report.errors["router_misbehaved"], report.sent);
}

#[test]
fn answers_that_never_come_are_counted_and_what_has_no_credit_is_held() {
    fn silence(_calls: &[Frame<'_>], _out: &mut Vec<u8>) -> Option<()> {
        Some(())
    }
    let plan = Plan {
        workload: Workload::Open { rate: 10_000.0, arrivals: Arrivals::Constant },
        drain_timeout: Duration::from_millis(10),
        ..short(fake_router(silence))
    };
    let report = run_quietly(&plan);
    assert_eq!(report.sent, u64::from(CREDITS));
    assert_eq!(report.errors["no_answer"], u64::from(CREDITS));
    assert_eq!(report.errors["not_sent"], 2_000 - u64::from(CREDITS));
}

#[test]
fn news_come_while_the_run_goes_on_and_a_stop_ends_it_early_with_a_report() {
    let stop = AtomicBool::new(false);
    let plan = Plan { duration: Duration::from_secs(600), ..short(fake_router(echo)) };
    let mut news = Vec::new();
    let report = run_until(
        &plan,
        &mut |progress| {
            news.push(progress);
            stop.store(progress.answered > 0, Ordering::Relaxed);
        },
        &stop,
    )
    .unwrap();
    assert_all_ok(&report);
    assert!(report.elapsed_s < 600.0);
    assert_eq!(news.last().unwrap().answered, report.answered);
}

#[test]
fn a_run_that_cannot_begin_says_why() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = Target::Tcp { host: "127.0.0.1".into(), port: unused };
    let check = |plan: Plan| run(&plan, &mut |_| {}).unwrap_err();
    assert!(matches!(check(short(nobody)), LoadError::Unreachable { number: 1, .. }));

    let router = fake_router(echo);
    let unknown = Plan { function: "nope".into(), ..short(router.clone()) };
    assert!(matches!(check(unknown), LoadError::UnknownFunction { ref name, .. } if name == "nope"));
    let large = Plan { payload_size: 16 << 20, ..short(router.clone()) };
    assert!(matches!(check(large), LoadError::PayloadTooLarge { .. }));
    let none = Plan { connections: 0, ..short(router) };
    assert!(matches!(check(none), LoadError::PlanInvalid(PlanInvalid::NoConnections)));
}

#[test]
fn what_is_no_router_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
        let _hello = stream.read(&mut [0; 64]);
        let _client_left = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: something else\r\n\r\n");
    });
    let error = run(&short(Target::Tcp { host: "127.0.0.1".into(), port }), &mut |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::RouterMisbehaved { .. }), "{error}");
}
