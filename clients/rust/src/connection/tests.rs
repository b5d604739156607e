//! One connection against an imagined router: frames in, frames out, no socket.

use super::*;
use protocol::ClientMisbehaved;

const CREDITS: u32 = 4;

fn session() -> Session<u32> {
    Session::new(&Hello::from_client(4096, CREDITS))
}

fn invoke(session: &mut Session<u32>, waiter: u32) -> CallId {
    session.invoke(&Invocation::default(), b"request", waiter).expect("a credit is free")
}

fn reply(call_id: CallId, status: Status, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, &FrameParts::reply(call_id, status), &Extensions::NONE, payload);
    bytes
}

fn frame(parts: &FrameParts) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, parts, &Extensions::NONE, &[]);
    bytes
}

/// Feeds `bytes` and gives the events as (waiter, outcome in short).
fn feed(session: &mut Session<u32>, bytes: &[u8]) -> Result<Vec<(u32, String)>, RouterMisbehaved> {
    let mut events = Vec::new();
    session.handle_bytes(bytes, &mut events)?;
    Ok(events
        .into_iter()
        .map(|event| match event {
            Event::Answered { waiter, outcome: Ok(answer) } => (waiter, format!("{:?}", answer.payload)),
            Event::Answered { waiter, outcome: Err(error) } => (waiter, error.to_string()),
            Event::Resolved { waiter, outcome: Ok(id) } => (waiter, format!("{id:?}")),
            Event::Resolved { waiter, outcome: Err(error) } => (waiter, error.to_string()),
        })
        .collect())
}

fn written(session: &mut Session<u32>) -> Vec<(Kind, CallId)> {
    let bytes = session.take_outbound(Vec::new());
    let mut rest = &bytes[..];
    std::iter::from_fn(|| {
        let frame = decode(rest, u32::MAX).unwrap()?;
        rest = &rest[frame.size()..];
        Some((frame.kind, frame.header.call_id))
    })
    .collect()
}

#[test]
fn answers_reach_their_callers_in_any_order() {
    let mut session = session();
    let ids: Vec<_> = (0..4).map(|waiter| invoke(&mut session, waiter)).collect();
    assert_eq!(written(&mut session), ids.iter().map(|id| (Kind::Invoke, *id)).collect::<Vec<_>>());
    for waiter in [2, 0, 3, 1] {
        let events = feed(&mut session, &reply(ids[waiter as usize], Status::Ok, b"x")).unwrap();
        assert_eq!(events, [(waiter, "b\"x\"".into())]);
    }
    assert!(session.is_idle());
}

#[test]
fn answers_cut_anywhere_are_put_together() {
    let mut session = session();
    let first = invoke(&mut session, 1);
    let second = invoke(&mut session, 2);
    let bytes = [reply(first, Status::Ok, b"one"), reply(second, Status::Ok, b"two")].concat();
    for cut in 0..bytes.len() {
        let mut session = self::session();
        invoke(&mut session, 1);
        invoke(&mut session, 2);
        let mut events = Vec::new();
        let consumed = session.handle_bytes(&bytes[..cut], &mut events).unwrap();
        let rest = session.handle_bytes(&bytes[consumed..], &mut events).unwrap();
        assert_eq!(consumed + rest, bytes.len(), "cut at {cut}");
        assert_eq!(events.len(), 2, "cut at {cut}");
    }
}

#[test]
fn without_a_credit_a_call_is_given_back_until_one_is_answered() {
    let mut session = session();
    let ids: Vec<_> = (0..CREDITS).map(|waiter| invoke(&mut session, waiter)).collect();
    let refused = session.invoke(&Invocation::default(), b"", 9);
    assert_eq!(refused, Err((NotTaken::NoRoom, 9)));
    feed(&mut session, &reply(ids[1], Status::Ok, b"")).unwrap();
    let next = invoke(&mut session, 9);
    assert_eq!(next.slot(), ids[1].slot());
    assert_ne!(next, ids[1], "the generation tells them apart");
}

#[test]
fn a_payload_that_no_frame_can_hold_is_refused_and_takes_no_slot() {
    let mut session = session();
    let refused = session.invoke(&Invocation::default(), &[0; 4096], 1);
    assert_eq!(refused, Err((NotTaken::PayloadTooLarge, 1)));
    assert!(session.is_idle());
}

#[test]
fn each_class_of_status_becomes_its_typed_end() {
    let check = |status: Status, expected: CallError| {
        let mut session = session();
        let id = invoke(&mut session, 1);
        let mut events = Vec::new();
        session.handle_bytes(&reply(id, status, b"why"), &mut events).unwrap();
        assert_eq!(events, [Event::Answered { waiter: 1, outcome: Err(expected) }]);
    };
    check(Status::FunctionError, CallError::FunctionError(Bytes::from_static(b"why")));
    let pushed_back =
        CallError::Backpressure { downstream: DownstreamName::from_bytes(b"why"), retry_after: None };
    check(Status::Backpressure, pushed_back);
    check(Status::QueueFull, CallError::Refused { status: Status::QueueFull, retry_after: None });
    check(Status::Expired, CallError::Expired(Expiry::NeverStarted));
    check(Status::TimedOut, CallError::Expired(Expiry::Stopped));
    check(Status::Cancelled, CallError::Cancelled { started: false });
    check(Status::WorkerLost, CallError::WorkerLost { status: Status::WorkerLost, started: false });
}

#[test]
fn advice_and_started_flag_come_with_the_error() {
    let mut session = session();
    let id = invoke(&mut session, 1);
    let parts = FrameParts { budget_us: 250, ..FrameParts::reply(id, Status::Overloaded) };
    let mut events = Vec::new();
    session.handle_bytes(&frame(&parts), &mut events).unwrap();
    let retry_after = Some(Duration::from_micros(250));
    let refused = CallError::Refused { status: Status::Overloaded, retry_after };
    assert_eq!(events, [Event::Answered { waiter: 1, outcome: Err(refused) }]);

    let id = invoke(&mut session, 1);
    let parts = FrameParts { flags: Flags::STARTED, ..FrameParts::reply(id, Status::WorkerLost) };
    events.clear();
    session.handle_bytes(&frame(&parts), &mut events).unwrap();
    let lost = CallError::WorkerLost { status: Status::WorkerLost, started: true };
    assert_eq!(events, [Event::Answered { waiter: 1, outcome: Err(lost) }]);
}

#[test]
fn a_status_from_a_newer_router_keeps_its_class() {
    let mut session = session();
    let id = invoke(&mut session, 1);
    let mut bytes = reply(id, Status::Ok, b"");
    bytes[28..30].copy_from_slice(&29u16.to_le_bytes());
    let mut events = Vec::new();
    session.handle_bytes(&bytes, &mut events).unwrap();
    let unknown = CallError::UnknownStatus { number: 29, class: Class::Refused, started: false };
    assert_eq!(events, [Event::Answered { waiter: 1, outcome: Err(unknown) }]);
}

#[test]
fn what_no_router_may_send_names_the_fault() {
    let check = |bytes: Vec<u8>, expected: RouterMisbehaved| {
        let mut session = session();
        invoke(&mut session, 1);
        assert_eq!(feed(&mut session, &bytes), Err(expected));
    };
    check(frame(&FrameParts::hello()), RouterMisbehaved::UnexpectedFrame(Kind::Hello));
    let unasked = CallId::new(3, 1);
    check(reply(unasked, Status::Ok, b""), RouterMisbehaved::AnswerToNothing(unasked.0));
    let beyond = CallId::new(99, 1);
    check(reply(beyond, Status::Ok, b""), RouterMisbehaved::AnswerToNothing(beyond.0));
    let stale = CallId::new(0, 7);
    check(reply(stale, Status::Ok, b""), RouterMisbehaved::AnswerToNothing(stale.0));
    // RESOLVED for an INVOKE: right slot, wrong kind.
    let other = CallId::new(0, 1);
    check(
        frame(&FrameParts::resolved(other, FunctionId(1), Status::Ok)),
        RouterMisbehaved::AnswerToNothing(other.0),
    );
    check(reply(other, Status::GoingAway, b""), RouterMisbehaved::StatusMisplaced(88));
    check(
        vec![0xff; 64],
        RouterMisbehaved::Malformed(ClientMisbehaved::FrameTooLarge { size: u32::MAX, size_max: 4096 }),
    );
}

#[test]
fn an_answer_given_twice_is_the_routers_fault() {
    let mut session = session();
    let id = invoke(&mut session, 1);
    let twice = [reply(id, Status::Ok, b""), reply(id, Status::Ok, b"")].concat();
    assert_eq!(feed(&mut session, &twice), Err(RouterMisbehaved::AnswerToNothing(id.0)));
}

#[test]
fn random_bytes_never_panic() {
    let mut word = 1u64;
    for _ in 0..2_000 {
        let mut session = session();
        invoke(&mut session, 1);
        let bytes: Vec<u8> = (0..96)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Small numbers often, so that some headers get past the size checks.
                if word >> 63 == 0 { 0 } else { (word >> 33) as u8 & 0x3f }
            })
            .collect();
        let _misbehaved_or_not = session.handle_bytes(&bytes, &mut Vec::new());
    }
}

#[test]
fn cancel_is_written_once_the_call_is_out_and_never_after_its_end() {
    let mut session = session();
    let id = invoke(&mut session, 1);
    session.cancel(id);
    assert_eq!(written(&mut session), [(Kind::Invoke, id), (Kind::Cancel, id)]);
    feed(&mut session, &reply(id, Status::Cancelled, b"")).unwrap();
    session.cancel(id);
    assert_eq!(written(&mut session), []);
}

#[test]
fn an_abandoned_call_keeps_its_slot_until_the_router_answers() {
    let mut session = session();
    let id = invoke(&mut session, 7);
    assert_eq!(session.abandon(id), Some(7));
    assert_eq!(session.abandon(id), None);
    assert!(!session.is_idle());
    assert_eq!(feed(&mut session, &reply(id, Status::Ok, b"late")), Ok(vec![]));
    assert!(session.is_idle());
}

#[test]
fn only_calls_whose_deadline_has_passed_expire() {
    let mut session = session();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for (waiter, ms) in [(1, 30), (2, 10), (3, 20)] {
        let invocation = Invocation { deadline_at: Some(at(ms)), ..Invocation::default() };
        session.invoke(&invocation, b"", waiter).unwrap();
    }
    assert_eq!(session.deadline_next(), Some(at(10)));
    let mut expired = Vec::new();
    session.expire(at(9), &mut expired);
    assert!(expired.is_empty());
    session.expire(at(20), &mut expired);
    expired.sort_unstable();
    assert_eq!(expired, [2, 3]);
    assert_eq!(session.deadline_next(), Some(at(30)));
}

#[test]
fn after_goaway_no_call_is_taken_and_the_outstanding_ones_still_end() {
    let mut session = session();
    let id = invoke(&mut session, 1);
    feed(&mut session, &frame(&FrameParts::goaway(Status::GoingAway))).unwrap();
    assert_eq!(session.goaway(), Some(Status::GoingAway));
    assert_eq!(session.invoke(&Invocation::default(), b"", 2), Err((NotTaken::NoRoom, 2)));
    assert!(!session.is_idle());
    feed(&mut session, &reply(id, Status::Ok, b"")).unwrap();
    assert!(session.is_idle());
}

#[test]
fn a_ping_is_answered_with_its_own_content() {
    let mut session = session();
    feed(&mut session, &frame(&FrameParts::ping(77))).unwrap();
    let bytes = session.take_outbound(Vec::new());
    let pong = decode(&bytes, 4096).unwrap().unwrap();
    assert_eq!((pong.kind, pong.header.budget_us), (Kind::Pong, 77));
}

#[test]
fn a_resolved_function_gives_its_number_or_the_refusal() {
    let mut session = session();
    let id = session.resolve("echo", 1).unwrap();
    let answer = frame(&FrameParts::resolved(id, FunctionId(5), Status::Ok));
    assert_eq!(feed(&mut session, &answer).unwrap(), [(1, "FunctionId(5)".into())]);
    let id = session.resolve("nope", 2).unwrap();
    let answer = frame(&FrameParts::resolved(id, FunctionId(0), Status::UnknownFunction));
    assert_eq!(feed(&mut session, &answer).unwrap(), [(2, "refused: unknown_function".into())]);
}

#[test]
fn only_requests_that_left_whole_may_have_started() {
    let mut session = session();
    invoke(&mut session, 1);
    invoke(&mut session, 2);
    // Given: the first frame and half of the second were written, and a third waits.
    let bytes = session.take_outbound(Vec::new());
    let frame_size = bytes.len() / 2;
    invoke(&mut session, 3);
    session.give_back(bytes[frame_size + 16..].to_vec());
    let mut waiters: Vec<_> = session.into_waiters().collect();
    waiters.sort_unstable();
    assert_eq!(waiters, [(1, true), (2, false), (3, false)]);
}

#[test]
fn what_was_given_back_is_written_before_what_came_after() {
    let mut session = session();
    let first = invoke(&mut session, 1);
    let bytes = session.take_outbound(Vec::new());
    let second = invoke(&mut session, 2);
    session.give_back(bytes);
    assert_eq!(written(&mut session), [(Kind::Invoke, first), (Kind::Invoke, second)]);
}
