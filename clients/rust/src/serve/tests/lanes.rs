//! Direct lanes from the worker's side, which sleeps at once when it has nothing to do: the harder case.

use std::sync::Arc;

use protocol::Status;
use protocol::attach::lane::LaneOpened;
use shm_ring::client_ring::{
    Answered, Call as ClientCall, ClientEnd, ClientIdentity, LaneClosed, LaneUsage, LaneWatch, client_line,
};

use super::*;

/// A client with a lane, and the router's look at it.
struct Lane {
    client: ClientEnd<Mapped>,
    watch: LaneWatch<Mapped>,
    bell: EventDoorbell,
    next_id: u64,
}

impl Router {
    fn open_lane(&mut self, lane_id: u32) -> Lane {
        let geometry = Geometry::new(4, 4096).unwrap();
        let (memory, memory_fd) = Mapped::create("lane", geometry.memory_size()).unwrap();
        let identity = ClientIdentity { generation: Generation(lane_id), client_id: lane_id };
        let watch = LaneWatch::new(memory, geometry, identity);
        let bell = EventDoorbell::new().unwrap();
        let opened = Message::LaneOpened(LaneOpened {
            lane_id,
            generation: lane_id,
            function_id: FunctionId(3),
            slot_count: 4,
            region_size: 4096,
            payload_size_max: 3_500,
            timeout_ns: 1_000_000_000,
        });
        let mut bytes = Vec::new();
        opened.encode(&mut bytes);
        pass::send_with_fds(&self.stream, &bytes, &[memory_fd.as_fd(), bell.as_fd()]).unwrap();
        let client = ClientEnd::attach(Mapped::attach(&memory_fd).unwrap()).unwrap();
        Lane { client, watch, bell, next_id: 1 }
    }
}

impl Lane {
    fn submit_to(&mut self, function_id: u32, deadline_at_ns: u64, payload: &[u8]) -> shm_ring::SlotIndex {
        let call = ClientCall {
            call_id: self.next_id,
            function_id,
            criticality: Criticality::High as u8,
            deadline_at_ns,
            flags: 0,
            trace: Some(TraceContext { trace_flags: 5, ..TraceContext::default() }.encode()),
            idempotency_key: Some([9; 16]),
        };
        self.next_id += 1;
        let slot = self.client.submit(&call, payload).unwrap();
        if self.client.publish() {
            self.bell.ring().unwrap();
        }
        slot
    }

    fn submit(&mut self, payload: &[u8]) -> shm_ring::SlotIndex {
        self.submit_to(3, NEVER_NS, payload)
    }

    /// Waits for the next answer.
    fn answer(&mut self) -> (u8, Vec<u8>) {
        let mut answered: Option<Answered> = None;
        until("an answer", || {
            answered = self.client.next_answer().unwrap();
            answered.is_some()
        });
        let answered = answered.unwrap();
        let told = (answered.status, self.client.result(&answered).to_vec());
        self.client.release(answered);
        told
    }

    fn call(&mut self, payload: &[u8]) -> (u8, Vec<u8>) {
        self.submit(payload);
        self.answer()
    }

    fn until_closed(&self) -> LaneClosed {
        until("the lane is closed", || self.watch.look().closed.is_some());
        self.watch.look().closed.unwrap()
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + GIVE_UP_AFTER;
    while !is_so() {
        assert!(Instant::now() < give_up_at, "gave up waiting for {what}");
        std::thread::yield_now();
    }
}

fn status(status: Status) -> u8 {
    status as u16 as u8
}

#[test]
fn ring_and_lanes_are_served_side_by_side() {
    let place = Place::new();
    let served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let mut lanes = [router.open_lane(1), router.open_lane(2)];
    for number in 0..300_u32 {
        let payload = vec![number as u8; if number % 2 == 0 { 10 } else { 3_000 }];
        assert_eq!(router.call(&payload), ok(&payload));
        for lane in &mut lanes {
            assert_eq!(lane.call(&payload), (0, payload.clone()));
        }
    }
    assert_eq!(lanes[0].watch.look().usage.answered_ok, 300);
    router.send(Message::Stop);
    assert!(matches!(served.join().unwrap(), Ok(())));
    assert_eq!(lanes[0].until_closed(), LaneClosed::Ended);
}

#[test]
fn a_call_in_a_lane_is_judged_as_one_in_the_ring() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let mut lane = router.open_lane(1);
    assert_eq!(lane.call(b"context"), (0, b"high 5 9 true".to_vec()));
    assert_eq!(lane.call(b"fail"), (status(Status::FunctionError), b"as asked".to_vec()));
    assert_eq!(lane.call(b"panic"), (status(Status::FunctionError), b"panicked: as asked".to_vec()));
    assert_eq!(lane.call(b"push back"), (status(Status::Backpressure), b"data?base".to_vec()));
    assert_eq!(lane.call(b"large"), (status(Status::ResultTooLarge), vec![]));
    assert_eq!(lane.call(&[1; 3_501]), (status(Status::PayloadTooLarge), vec![]));
    lane.submit_to(4, NEVER_NS, b"another function's");
    assert_eq!(lane.answer(), (status(Status::UnknownFunction), vec![]));
    lane.submit_to(3, 1, b"too late");
    assert_eq!(lane.answer(), (status(Status::Expired), vec![]));
    let slot = lane.submit(b"wait for cancel");
    until("it runs", || lane.watch.look().running_until_ns.is_some());
    lane.client.request_cancel(slot);
    assert_eq!(lane.answer(), (0, b"noticed".to_vec()));
    let LaneUsage { answered_ok, answered_error, answered_otherwise, run_ns } = lane.watch.look().usage;
    assert_eq!((answered_ok, answered_error, answered_otherwise), (2, 2, 5));
    assert!(run_ns > 0, "the time that calls took is told");
}

#[test]
fn a_revoked_lane_keeps_what_was_not_begun() {
    let place = Place::new();
    let count = Arc::new(AtomicU32::new(0));
    let (may_go_on, begun) = (Arc::new(AtomicBool::new(false)), Arc::clone(&count));
    let gate = Arc::clone(&may_go_on);
    let _served = place.start_with(GIVE_UP_AFTER, move |call, reply| {
        begun.fetch_add(1, Ordering::Relaxed);
        until("the test goes on", || gate.load(Ordering::Acquire));
        function(call, reply)
    });
    let mut router = place.attach();
    let mut lane = router.open_lane(1);
    for payload in [b"1", b"2", b"3"] {
        lane.submit(payload);
    }
    until("the first one runs", || count.load(Ordering::Relaxed) == 1);
    router.send(Message::LaneRevoke { lane_id: 1 });
    router.send(Message::LaneRevoke { lane_id: 7 });
    // Slow until proved quick: a batch of one, and the order is seen behind it.
    may_go_on.store(true, Ordering::Release);
    assert_eq!(lane.until_closed(), LaneClosed::Ended);
    let mut answered = 0;
    while let Some(answer) = lane.client.next_answer().unwrap() {
        lane.client.release(answer);
        answered += 1;
    }
    let left = lane.client.take_back();
    assert_eq!(answered + left.len(), 3);
    assert!(left.iter().all(|call| call.payload.is_some()), "what was begun is answered");
    assert_eq!(count.load(Ordering::Relaxed) as usize, answered, "what is left was not begun");
    assert_eq!(router.call(b"x"), ok(b"x"));
}

#[test]
fn a_client_that_scribbles_loses_its_lane_and_nobody_else_notices() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let (mut bad, mut good) = (router.open_lane(1), router.open_lane(2));
    assert_eq!(bad.call(b"x"), (0, b"x".to_vec()));
    bad.client.memory().store_u32(client_line::SUBMISSION_TAIL, 1_000, Ordering::Release);
    bad.bell.ring().unwrap();
    assert_eq!(bad.until_closed(), LaneClosed::ClientAtFault);
    assert_eq!(good.call(b"y"), (0, b"y".to_vec()));
    assert_eq!(router.call(b"z"), ok(b"z"));
}

#[test]
fn a_client_that_rings_for_nothing_loses_its_lane() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let bad = router.open_lane(1);
    until("the lane is closed", || {
        bad.bell.ring().unwrap();
        bad.watch.look().closed.is_some()
    });
    assert_eq!(bad.until_closed(), LaneClosed::ClientAtFault);
    assert_eq!(router.call(b"z"), ok(b"z"));
}

#[test]
fn a_lane_whose_memory_is_not_as_told_is_not_served() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let opened = Message::LaneOpened(LaneOpened {
        lane_id: 1,
        generation: 1,
        function_id: FunctionId(3),
        slot_count: 4,
        region_size: 4096,
        payload_size_max: 4096,
        timeout_ns: 1,
    });
    let mut bytes = Vec::new();
    opened.encode(&mut bytes);
    let bell = EventDoorbell::new().unwrap();
    pass::send_with_fds(&router.stream, &bytes, &[bell.as_fd(), bell.as_fd()]).unwrap();
    pass::send_with_fds(&router.stream, &bytes, &[bell.as_fd()]).unwrap();
    assert_eq!(router.call(b"x"), ok(b"x"));
    let mut good = router.open_lane(2);
    assert_eq!(good.call(b"y"), (0, b"y".to_vec()));
}

#[test]
fn a_dead_router_ends_every_lane_and_the_next_one_may_open_others() {
    let place = Place::new();
    let _served = place.start(GIVE_UP_AFTER);
    let mut router = place.attach();
    let mut lane = router.open_lane(1);
    assert_eq!(lane.call(b"x"), (0, b"x".to_vec()));
    drop(router);
    assert_eq!(lane.until_closed(), LaneClosed::Ended);
    let mut next = place.attach();
    assert_eq!(next.open_lane(1).call(b"y"), (0, b"y".to_vec()));
}
