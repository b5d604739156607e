//! The wire, from a client's side: what calls get, and what bad bytes get.

mod support;

use std::io::Write;

use engine::Nanos;
use protocol::{
    CallId, Class, Extensions, Flags, FrameHeader, FrameParts, FunctionId, Hello, Kind, Status, Timings,
    TraceContext, encode, encode_header,
};
use support::*;

#[test]
fn a_call_is_answered_with_the_functions_result() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.client();
    client.send(&frame(&FrameParts::resolve(call(0)), b"echo"));
    let resolved = client.next().expect("RESOLVED");
    assert_eq!(
        (resolved.kind, resolved.status, resolved.header.function_id),
        (Kind::Resolved, Status::Ok, FunctionId(0))
    );

    let reply = client.call(call(1), b"hello");
    assert_eq!((reply.status, reply.payload.as_slice()), (Status::Ok, &b"hello"[..]));
}

#[test]
fn ten_thousand_pipelined_calls_are_each_answered_once() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.client();
    const COUNT: u32 = 10_000;
    let mut bytes = Vec::new();
    for slot in 0..COUNT {
        bytes.extend(invoke(call(slot), format!("payload {slot}").as_bytes()));
    }
    client.send(&bytes);
    let mut is_answered = vec![false; COUNT as usize];
    for _ in 0..COUNT {
        let reply = client.next().expect("a reply");
        let slot = reply.header.call_id.slot();
        assert_eq!(reply.status, Status::Ok);
        assert_eq!(reply.payload, format!("payload {slot}").as_bytes());
        assert!(!std::mem::replace(&mut is_answered[slot as usize], true), "answered once");
    }
}

#[test]
fn a_frame_split_at_any_byte_is_the_same_frame() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.client();
    let payload = b"split me anywhere you like";
    let size = invoke(call(0), payload).len();
    for split in 1..size {
        let bytes = invoke(call(split as u32), payload);
        let before = bench.seen.shard(|counters| counters.bytes_received);
        client.send(&bytes[..split]);
        // The router has taken the front before the rest is sent.
        bench.until("the front of the frame", |seen| {
            seen.shard(|counters| counters.bytes_received) >= before + split as u64
        });
        client.send(&bytes[split..]);
        let reply = client.reply(call(split as u32));
        assert_eq!((reply.status, reply.payload.as_slice()), (Status::Ok, &payload[..]), "split at {split}");
        let whole = before + size as u64;
        bench.until("the whole frame", |seen| seen.shard(|counters| counters.bytes_received) >= whole);
    }
}

#[test]
fn a_client_may_speak_one_byte_at_a_time() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.connect();
    let mut bytes = frame(&FrameParts::hello(), &Hello::from_client(0, 0).encode());
    bytes.extend(invoke(call(0), b"slow"));
    bytes.iter().for_each(|byte| client.send(&[*byte]));
    assert_eq!(client.next().expect("HELLO").kind, Kind::Hello);
    assert_eq!(client.reply(call(0)).payload, b"slow");
}

#[test]
fn payloads_larger_than_a_receive_buffer_arrive_whole() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.client();
    for (size, slot) in [0, 1, 160, 161, 32 * 1024, 40_000, 200_000, 1 << 20].into_iter().zip(0..) {
        let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let reply = client.call(call(slot), &payload);
        assert_eq!(reply.status, Status::Ok);
        assert!(reply.payload == payload, "{size} bytes");
    }
    // And many of them at once.
    let payload: Vec<u8> = (0..50_000).map(|i| (i % 253) as u8).collect();
    let bytes: Vec<u8> = (0..50).flat_map(|slot| invoke(call(slot), &payload)).collect();
    let mut writer = client.stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || writer.write_all(&bytes).expect("the router reads"));
    for _ in 0..50 {
        assert!(client.next().expect("a reply").payload == payload);
    }
    sender.join().expect("sender");
}

/// Sends `bytes` after HELLO, expects to be told `status` and closed, and that nobody else notices.
fn check_offence(bytes: &[u8], status: Status) -> String {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut other = bench.client();
    let mut client = bench.client();
    client.send_anyway(bytes);
    let reason = client.expect_goaway(status);
    bench.until("the offence is counted", |seen| seen.shard(|counters| counters.clients_misbehaved) == 1);
    assert_eq!(other.call(call(0), b"still here").payload, b"still here");
    reason
}

/// A header with one thing changed.
fn header(change: impl FnOnce(&mut FrameHeader)) -> Vec<u8> {
    let mut header = FrameHeader {
        frame_size: 32,
        payload_size: 0,
        call_id: call(0),
        function_id: FunctionId(0),
        budget_us: 0,
        kind: Kind::Invoke as u8,
        criticality: 1,
        flags: Flags::NONE,
        status: 0,
        extension_size: 0,
    };
    change(&mut header);
    encode_header(&header).to_vec()
}

#[test]
fn a_frame_too_large_is_refused_before_its_body_is_sent() {
    let bytes = header(|header| {
        header.frame_size = 1 << 30;
        header.payload_size = (1 << 30) - 32;
    });
    let reason = check_offence(&bytes, Status::FrameTooLarge);
    assert!(reason.contains("1073741824"), "{reason}");
}

#[test]
fn a_large_frame_before_hello_is_refused_before_its_body_is_sent() {
    let bench = echo().start();
    let mut client = bench.connect();
    let hello = frame(&FrameParts::hello(), &[0; 8192]);
    client.send(&hello[..32]);
    client.expect_goaway(Status::FrameTooLarge);
}

#[test]
fn malformed_frames_are_named_and_end_the_connection() {
    check_offence(&header(|header| header.frame_size = 40), Status::MalformedFrame);
    check_offence(&header(|header| header.frame_size = 16), Status::MalformedFrame);
    check_offence(&header(|header| header.payload_size = 7), Status::MalformedFrame);
    check_offence(&header(|header| header.extension_size = 8), Status::MalformedFrame);
    check_offence(&header(|header| header.flags = Flags::TRACE), Status::MalformedFrame);
    check_offence(&header(|header| header.kind = 77), Status::UnknownKind);
    check_offence(&header(|header| header.flags = Flags(0x4000)), Status::UnknownCriticalFlag);
}

#[test]
fn frames_that_only_a_router_sends_end_the_connection() {
    check_offence(&frame(&FrameParts::reply(call(0), Status::Ok), b""), Status::UnexpectedFrame);
    check_offence(
        &frame(&FrameParts::resolved(call(0), FunctionId(0), Status::Ok), b""),
        Status::UnexpectedFrame,
    );
    let second = frame(&FrameParts::hello(), &Hello::from_client(0, 0).encode());
    check_offence(&second, Status::UnexpectedFrame);
}

#[test]
fn random_bytes_end_only_their_own_connection() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut other = bench.client();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..50 {
        let garbage: Vec<u8> = (0..200)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let mut client = if round % 2 == 0 { bench.connect() } else { bench.client() };
        client.send_anyway(&garbage);
        let told = client.next().expect("GOAWAY");
        assert_eq!(told.kind, Kind::Goaway, "round {round}: {told:?}");
        assert_eq!(told.status.class(), Class::Protocol);
        assert!(client.next().is_none());
    }
    assert_eq!(other.call(call(0), b"still here").payload, b"still here");
}

#[test]
fn a_client_of_another_version_is_told_so() {
    let bench = echo().start();
    let mut client = bench.connect();
    let hello = Hello { version_min: 7, version_max: 9, ..Hello::from_client(0, 0) };
    client.send(&frame(&FrameParts::hello(), &hello.encode()));
    client.expect_goaway(Status::UnsupportedVersion);
}

#[test]
fn a_client_that_calls_before_hello_is_told_so() {
    let bench = echo().start();
    let mut client = bench.connect();
    client.invoke(call(0), b"too early");
    client.expect_goaway(Status::HelloExpected);
}

#[test]
fn a_client_that_says_nothing_is_told_so_and_closed() {
    let mut setup = echo();
    setup.net = Some(|net| net.hello_timeout = Nanos::from_ms(20));
    let bench = setup.start();
    let mut spoke = bench.client();
    bench.connect().expect_goaway(Status::HelloExpected);
    bench.until("the silence is counted", |seen| seen.shard(|counters| counters.hello_timeouts) == 1);
    spoke.send(&frame(&FrameParts::ping(7), b""));
    assert_eq!(spoke.next().expect("PONG").header.budget_us, 7);
}

#[test]
fn a_call_id_in_use_and_one_beyond_the_credits_are_refused() {
    let bench = echo().start();
    let mut client = bench.connect();
    client.send(&frame(&FrameParts::hello(), &Hello::from_client(0, 4).encode()));
    assert_eq!(Hello::decode(&client.next().expect("HELLO").payload).expect("HELLO").credits, 4);

    // Nobody serves yet, so that the first call stays outstanding.
    client.invoke(call(3), b"first");
    assert_eq!(client.call(call(3), b"replayed").status, Status::CallIdInUse);
    assert_eq!(client.call(CallId::new(3, 9), b"another generation").status, Status::CallIdInUse);
    assert_eq!(client.call(call(4), b"one too many").status, Status::CreditsExceeded);
    let _worker = bench.echo_worker();
    assert_eq!(client.reply(call(3)).payload, b"first");
    assert_eq!(client.call(call(3), b"free again").payload, b"free again");
}

#[test]
fn refusals_name_their_reason_and_the_connection_lives_on() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.client();
    client.send(&frame(&FrameParts::invoke(call(0), FunctionId(9)), b""));
    assert_eq!(client.reply(call(0)).status, Status::UnknownFunction);
    client.send(&frame(&FrameParts { criticality: 9, ..FrameParts::invoke(call(0), FunctionId(0)) }, b""));
    assert_eq!(client.reply(call(0)).status, Status::UnknownCriticality);
    client.send(&frame(&FrameParts::resolve(call(5)), b"nobody"));
    let resolved = client.next().expect("RESOLVED");
    assert_eq!((resolved.kind, resolved.status), (Kind::Resolved, Status::UnknownFunction));
    client.send(&frame(&FrameParts::resolve(call(5)), &[0xff, 0xfe]));
    assert_eq!(client.next().expect("RESOLVED").status, Status::UnknownFunction);
    assert_eq!(client.call(call(0), b"fine").status, Status::Ok);
}

#[test]
fn a_queued_call_expires_and_a_cancelled_one_is_answered_so() {
    let bench = echo().start();
    let mut client = bench.client();
    client.send(&frame(
        &FrameParts { budget_us: 5_000, ..FrameParts::invoke(call(0), FunctionId(0)) },
        b"late",
    ));
    let expired = client.reply(call(0));
    assert_eq!(expired.status, Status::Expired);
    assert!(!expired.header.flags.contains(Flags::STARTED));

    client.invoke(call(1), b"never mind");
    client.send(&frame(&FrameParts::cancel(call(1)), b""));
    assert_eq!(client.reply(call(1)).status, Status::Cancelled);
    // A cancel of a call that is over is nothing.
    client.send(&frame(&FrameParts::cancel(call(1)), b""));
    client.send(&frame(&FrameParts::ping(1), b"payload"));
    let pong = client.next().expect("PONG");
    assert_eq!((pong.kind, pong.payload.as_slice()), (Kind::Pong, &b"payload"[..]));
}

#[test]
fn timings_come_in_order_to_who_asks() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let mut client = bench.client();
    client.send(&frame(
        &FrameParts { flags: Flags::WANT_TIMINGS, ..FrameParts::invoke(call(0), FunctionId(0)) },
        b"x",
    ));
    let reply = client.reply(call(0));
    assert!(reply.header.flags.contains(Flags::TIMINGS));
    let timings = Timings::decode(reply.extensions.first_chunk().expect("64 bytes"));
    let stamps = timings.stages().map(|(_, stamp)| stamp.expect("every stage was reached"));
    assert!(stamps.is_sorted(), "{timings:?}");
    assert!(!client.call(call(0), b"x").header.flags.contains(Flags::TIMINGS));
}

#[test]
fn trace_and_idempotency_key_reach_the_function() {
    let bench = echo().start();
    let _worker = bench.worker("echo", |shift| {
        while let Some(taken) = shift.take() {
            let mut result = Vec::new();
            taken.idempotency_key.iter().for_each(|key| result.extend_from_slice(key));
            taken.trace.iter().for_each(|trace| result.extend_from_slice(trace));
            result.push(taken.criticality);
            result.extend(shift.payload(&taken));
            shift.complete(taken, shm_ring::Outcome::Ok, &result);
        }
        shift.publish();
    });
    let mut client = bench.client();
    let trace = TraceContext { trace_id: [3; 16], parent_span_id: [4; 8], trace_flags: 5 };
    let extensions =
        Extensions { idempotency_key: Some([9; 16]), trace: Some(trace), timings: None, ..Extensions::NONE };
    let mut bytes = Vec::new();
    let parts = FrameParts { criticality: 3, ..FrameParts::invoke(call(0), FunctionId(0)) };
    encode(&mut bytes, &parts, &extensions, b"body");
    client.send(&bytes);
    let expected = [&[9; 16][..], &trace.encode(), &[3], b"body"].concat();
    assert_eq!(client.reply(call(0)).payload, expected);
}

#[test]
fn a_result_larger_than_the_client_takes_is_told_not_sent() {
    let bench = echo().start();
    let _worker = bench.worker("echo", |shift| shift.answer_all(|_| vec![1; 100_000]));
    let mut client = bench.connect();
    client.send(&frame(&FrameParts::hello(), &Hello::from_client(8192, 0).encode()));
    client.next().expect("HELLO");
    assert_eq!(client.call(call(0), b"").status, Status::ResultTooLarge);
    client.send(&frame(&FrameParts::ping(0), b""));
    assert_eq!(client.next().expect("PONG").kind, Kind::Pong);
}
