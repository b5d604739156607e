//! A direct lane from its three sides: client, worker and the router that watches.

use shm_ring::client_ring::{
    Answer, Call, ClientEnd, ClientIdentity, ClientMisbehaved, LaneClosed, LaneService, LaneUsage, LaneWatch,
    client_line,
};
use shm_ring::{Generation, Geometry, HeapMemory, Memory};
use std::sync::atomic::Ordering;

const SLOT_COUNT: u32 = 4;
const NEVER: u64 = u64::MAX;
const OK: Answer<'static> = Answer { status: 0, flags: 0, retry_after_us: 0, timings: None };

struct Lane {
    client: ClientEnd<HeapMemory>,
    worker: LaneService<HeapMemory>,
    router: LaneWatch<HeapMemory>,
    memory: HeapMemory,
}

fn lane() -> Lane {
    let geometry = Geometry::new(SLOT_COUNT, 4096).unwrap();
    let memory = HeapMemory::new(geometry.memory_size());
    let identity = ClientIdentity { generation: Generation(7), client_id: 3 };
    let router = LaneWatch::new(memory.clone(), geometry, identity);
    let client = ClientEnd::attach(memory.clone()).unwrap();
    let worker = LaneService::attach(memory.clone()).unwrap();
    Lane { client, worker, router, memory }
}

impl Lane {
    fn submit(&mut self, call_id: u64, payload: &[u8]) -> shm_ring::SlotIndex {
        let call = Call {
            call_id,
            function_id: 5,
            criticality: 1,
            deadline_at_ns: NEVER,
            flags: 0,
            trace: None,
            idempotency_key: None,
        };
        let slot = self.client.submit(&call, payload).unwrap();
        self.client.publish();
        slot
    }

    fn take(&mut self) -> shm_ring::client_ring::TakenCall {
        self.worker.next_call(NEVER).unwrap().expect("a call")
    }

    fn answer_one(&mut self, result: &[u8]) {
        let taken = self.take();
        self.worker.answer(&taken, OK, result);
        self.worker.publish();
    }
}

#[test]
fn a_call_goes_past_the_router_which_sees_that_it_did() {
    let mut lane = lane();
    lane.submit(42, b"payload");
    let taken = lane.take();
    let mut payload = b"old".to_vec();
    lane.worker.read_payload(&taken, &mut payload);
    assert_eq!((taken.call_id, &payload[..]), (42, &b"payload"[..]));
    assert_eq!(lane.router.look().taken_count, 1, "told before the function begins");
    lane.worker.answer(&taken, OK, b"result");
    lane.worker.usage_mut().answered_ok += 1;
    lane.worker.usage_mut().run_ns += 250;
    lane.worker.publish();
    let answered = lane.client.next_answer().unwrap().expect("an answer");
    assert_eq!((answered.call_id, lane.client.result(&answered)), (42, &b"result"[..]));
    lane.client.release(answered);
    let look = lane.router.look();
    assert_eq!(look.usage, LaneUsage { answered_ok: 1, run_ns: 250, ..LaneUsage::default() });
    assert_eq!((look.running_until_ns, look.closed), (None, None));
}

#[test]
fn the_earlier_of_two_deadlines_holds_and_the_router_sees_it() {
    let mut lane = lane();
    lane.submit(1, b"");
    let taken = lane.worker.next_call(1_000).unwrap().expect("a call");
    assert_eq!(taken.deadline_at_ns, 1_000);
    assert_eq!(lane.router.look().running_until_ns, Some(1_000));
}

#[test]
fn a_dead_worker_leaves_what_it_had_begun_and_what_nobody_will_begin() {
    let mut lane = lane();
    for number in 0..4 {
        lane.submit(number, &[number as u8]);
    }
    lane.answer_one(b"done");
    let answered = lane.client.next_answer().unwrap().expect("an answer");
    lane.client.release(answered);
    let _runs_when_the_worker_dies = lane.take();
    let left = lane.client.take_back();
    let told: Vec<_> = left.iter().map(|call| (call.call_id, call.payload.clone())).collect();
    assert_eq!(told, [(1, None), (2, Some(vec![2])), (3, Some(vec![3]))]);
    assert_eq!(lane.client.outstanding(), 0);
}

#[test]
fn what_is_left_comes_back_in_the_order_in_which_it_was_submitted_however_slots_were_used() {
    let mut lane = lane();
    for round in 0..10 {
        let first = lane.submit(round, b"");
        let second = lane.submit(round + 100, b"");
        assert_ne!(first, second);
        lane.answer_one(b"");
        lane.answer_one(b"");
        while let Some(answered) = lane.client.next_answer().unwrap() {
            lane.client.release(answered);
        }
    }
    // The slot used last is used first: now the later call lies in the lower or the higher slot, whichever.
    for call_id in [7, 7, 7, 9] {
        lane.submit(call_id, &[call_id as u8]);
    }
    let told: Vec<_> = lane.client.take_back().into_iter().map(|call| call.call_id).collect();
    assert_eq!(told, [7, 7, 7, 9]);
}

#[test]
fn a_closed_lane_has_told_all_its_answers_and_the_rest_was_never_begun() {
    let mut lane = lane();
    lane.submit(1, b"");
    lane.submit(2, b"again");
    let taken = lane.take();
    lane.worker.answer(&taken, OK, b"");
    assert!(!lane.client.is_closed());
    lane.worker.close(LaneClosed::Ended);
    assert!(lane.client.is_closed());
    assert_eq!(lane.router.look().closed, Some(LaneClosed::Ended));
    let answered = lane.client.next_answer().unwrap().expect("an answer");
    assert_eq!(answered.call_id, 1);
    lane.client.release(answered);
    let left = lane.client.take_back();
    assert_eq!((left.len(), left[0].payload.as_deref()), (1, Some(&b"again"[..])));
}

#[test]
fn a_cancel_mark_reaches_the_worker() {
    let mut lane = lane();
    let slot = lane.submit(1, b"");
    let taken = lane.take();
    assert!(!lane.worker.is_cancelled(taken.slot));
    lane.client.request_cancel(slot);
    assert!(lane.worker.is_cancelled(taken.slot));
}

#[test]
fn a_client_that_lies_is_named_and_its_call_is_not_taken() {
    let mut lane = lane();
    lane.submit(1, b"");
    lane.memory.store_u32(client_line::SUBMISSION_TAIL, 99, Ordering::Relaxed);
    let error = lane.worker.next_call(NEVER).unwrap_err();
    assert!(matches!(error, ClientMisbehaved::CursorOutOfRange { .. }), "{error}");
    assert_eq!(lane.router.look().taken_count, 0);
    lane.worker.close(LaneClosed::ClientAtFault);
    assert_eq!(lane.router.look().closed, Some(LaneClosed::ClientAtFault));
}

#[test]
fn counts_may_wrap() {
    let mut lane = lane();
    lane.submit(1, b"x");
    // A worker that took 2^31 calls more than there are, or lies about it: each call is told of once, whatever it says.
    for count in [1_u32, 2, 1 << 31, u32::MAX] {
        lane.memory.store_u32(shm_ring::client_ring::lane_line::TAKEN_COUNT, count, Ordering::Relaxed);
        assert_eq!(lane.client.take_back().len(), 1);
        lane.submit(1, b"x");
    }
}
