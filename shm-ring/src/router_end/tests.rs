use super::*;
use crate::layout::Generation;
use crate::{HeapMemory, RingReport, WorkerEnd, inspect};

fn ring(slot_count: u32) -> (RouterEnd<HeapMemory>, WorkerEnd<HeapMemory>) {
    let geometry = Geometry::new(slot_count, 4096).unwrap();
    let memory = HeapMemory::new(geometry.memory_size());
    let identity = Identity { generation: Generation(1), worker_id: 2, function_id: 3 };
    let router = RouterEnd::new(memory.clone(), geometry, identity);
    (router, WorkerEnd::attach(memory).unwrap())
}

fn request(invocation_id: u64) -> Request<'static> {
    Request {
        invocation_id,
        deadline_at_ns: u64::MAX,
        pushed_at_ns: 100,
        flags: 0,
        criticality: 1,
        context: None,
    }
}

fn report(router: &RouterEnd<HeapMemory>) -> RingReport {
    inspect(router.memory()).unwrap()
}

#[test]
fn a_request_goes_there_and_its_answer_comes_back() {
    let (mut router, mut worker) = ring(2);
    let slot = router.push(request(7), b"ping").unwrap();
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    assert_eq!((taken.slot, taken.invocation_id), (slot, 7));
    assert_eq!(worker.payload(&taken), b"ping");
    worker.complete(taken, Outcome::Ok, 110, 120, b"pong");
    worker.publish();
    let completion = router.next_completion().unwrap().unwrap();
    assert_eq!((completion.invocation_id, completion.outcome), (7, Outcome::Ok));
    assert_eq!((completion.started_at_ns, completion.finished_at_ns), (110, 120));
    let mut result = b"result: ".to_vec();
    router.read_result(&completion, &mut result);
    assert_eq!(result, b"result: pong");
    router.release(completion);
    assert_eq!(router.free_slots(), 2);
    assert_eq!(router.next_completion(), Ok(None));
    router.invariants();
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let (mut router, mut worker) = ring(2);
    router.push(request(1), b"").unwrap();
    assert_eq!(worker.next_request(), Ok(None));
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, b"");
    assert_eq!(router.next_completion(), Ok(None));
    worker.publish();
    assert!(router.next_completion().unwrap().is_some());
}

#[test]
fn a_full_ring_refuses_and_a_released_slot_is_used_first() {
    let (mut router, mut worker) = ring(2);
    let first = router.push(request(1), b"").unwrap();
    router.push(request(2), b"").unwrap();
    assert_eq!(router.push(request(3), b""), Err(PushRefused::NoCredit));
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, b"");
    worker.publish();
    let completion = router.next_completion().unwrap().unwrap();
    assert_eq!(router.push(request(3), b""), Err(PushRefused::NoCredit), "not before the release");
    router.release(completion);
    assert_eq!(router.push(request(3), b""), Ok(first));
    router.invariants();
}

#[test]
fn a_payload_larger_than_a_region_is_refused_and_costs_no_slot() {
    let (mut router, _worker) = ring(1);
    let refused = PushRefused::PayloadTooLarge { payload_size: 4097, payload_size_max: 4096 };
    assert_eq!(router.push(request(1), &[0; 4097]), Err(refused));
    assert_eq!(router.free_slots(), 1);
}

#[test]
fn stamps_of_a_worker_with_a_strange_clock_are_passed_on_as_they_are() {
    let (mut router, mut worker) = ring(1);
    router.push(request(1), b"").unwrap();
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 50, 20, b"");
    worker.publish();
    let completion = router.next_completion().unwrap().unwrap();
    assert_eq!((completion.started_at_ns, completion.finished_at_ns), (50, 20));
}

#[test]
fn cancel_reaches_the_worker_before_and_after_it_took_the_request() {
    let (mut router, mut worker) = ring(2);
    let first = router.push(request(1), b"").unwrap();
    let second = router.push(request(2), b"").unwrap();
    assert!(router.request_cancel(first, 1));
    assert!(!router.request_cancel(second, 1), "another invocation");
    assert!(!router.request_cancel(SlotIndex(99), 1), "no such slot");
    router.publish();
    let taken_first = worker.next_request().unwrap().unwrap();
    assert!(taken_first.cancelled);
    let taken_second = worker.next_request().unwrap().unwrap();
    assert!(!worker.is_cancelled(&taken_second));
    router.request_cancel(second, 2);
    assert!(worker.is_cancelled(&taken_second));
    worker.complete(taken_first, Outcome::Cancelled, 0, 0, b"");
    worker.complete(taken_second, Outcome::Ok, 0, 0, b"");
    worker.publish();
    assert_eq!(router.next_completion().unwrap().unwrap().outcome, Outcome::Cancelled);
    assert!(!router.request_cancel(first, 1), "answered");
}

#[test]
fn a_lost_worker_leaves_proof_of_what_it_started() {
    let (mut router, mut worker) = ring(4);
    let done = router.push(request(1), b"").unwrap();
    let taken_slot = router.push(request(2), b"").unwrap();
    let ready = router.push(request(3), b"").unwrap();
    router.publish();
    let unpublished = router.push(request(4), b"").unwrap();
    // Given: a worker that answered one without saying so, began one, and died.
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, b"");
    let _running = worker.next_request().unwrap().unwrap();
    drop(worker);
    // Expect
    assert_eq!(router.was_started(done), Started::Yes);
    assert_eq!(router.was_started(taken_slot), Started::Yes);
    assert_eq!(router.was_started(ready), Started::No);
    assert_eq!(router.was_started(unpublished), Started::No);
    assert_eq!(router.was_started(SlotIndex(77)), Started::Unknown);
    let in_flight: Vec<_> = router.in_flight().map(|(_, invocation_id)| invocation_id).collect();
    assert_eq!(in_flight, [1, 2, 3, 4]);
}

#[test]
fn remains_of_the_former_user_do_not_make_a_request_started() {
    let (mut router, mut worker) = ring(1);
    router.push(request(1), b"").unwrap();
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, b"");
    worker.publish();
    let completion = router.next_completion().unwrap().unwrap();
    router.release(completion);
    let slot = router.push(request(2), b"").unwrap();
    assert_eq!(router.was_started(slot), Started::No);
    // Given: memory that claims to run the invocation before this one.
    let place = router.geometry().slot(slot) + slot::WORKER_CONTROL;
    router.memory().store_u32(place, WorkerControl::new(worker_state::TAKEN, 0).0, Ordering::Relaxed);
    assert_eq!(router.was_started(slot), Started::Unknown);
}

#[test]
fn inspection_tells_every_stage() {
    let (mut router, mut worker) = ring(4);
    for invocation_id in 1..=3 {
        router.push(request(invocation_id), b"abc").unwrap();
    }
    router.publish();
    router.request_cancel(SlotIndex(2), 3);
    let first = worker.next_request().unwrap().unwrap();
    let second = worker.next_request().unwrap().unwrap();
    worker.note_started(&second, 150);
    worker.complete(first, Outcome::Ok, 110, 120, b"");
    worker.publish();
    let writing = router.geometry().slot(SlotIndex(3));
    router.memory().store_u32(writing, RouterControl::of_state(router_state::WRITING).0, Ordering::Relaxed);

    let report = report(&router);
    assert_eq!((report.submission_tail, report.submission_head, report.completion_tail), (3, 2, 1));
    let stages: Vec<_> = report.slots.iter().map(|slot| slot.stage).collect();
    assert_eq!(stages, [SlotStage::Done, SlotStage::Taken, SlotStage::Ready, SlotStage::Writing]);
    assert_eq!((report.slots[0].started_at_ns, report.slots[0].finished_at_ns), (Some(110), Some(120)));
    assert_eq!((report.slots[1].started_at_ns, report.slots[1].finished_at_ns), (Some(150), None));
    assert!(report.slots[2].cancel_requested);
    assert_eq!(report.slots[2].age_ns(175), 75);
    assert_eq!(report.slots[2].payload_size, 3);
}

#[test]
fn each_sleep_of_the_worker_is_ended_by_one_wake_up() {
    let (mut router, mut worker) = ring(4);
    router.push(request(1), b"").unwrap();
    assert!(!router.publish(), "awake");
    assert!(!worker.announce_sleep(), "a request is waiting");
    let _running = worker.next_request().unwrap().unwrap();
    assert!(worker.announce_sleep());
    assert!(!router.publish(), "nothing to tell");
    router.push(request(2), b"").unwrap();
    assert!(router.publish());
    router.push(request(3), b"").unwrap();
    assert!(!router.publish(), "already being woken");
    worker.announce_awake();
    while worker.next_request().unwrap().is_some() {}
    assert!(worker.announce_sleep());
    router.push(request(4), b"").unwrap();
    assert!(router.publish(), "a new sleep");
}

#[test]
fn each_sleep_of_the_router_is_ended_by_one_ring() {
    let (mut router, mut worker) = ring(4);
    for invocation_id in 0..4 {
        router.push(request(invocation_id), b"").unwrap();
    }
    router.publish();
    let answer = |worker: &mut WorkerEnd<HeapMemory>| {
        let taken = worker.next_request().unwrap().unwrap();
        worker.complete(taken, Outcome::Ok, 0, 0, b"");
        worker.publish()
    };
    assert!(!answer(&mut worker), "awake");
    assert!(!router.announce_sleep(), "an answer is waiting");
    assert!(!report(&router).router_sleeping, "and so it is awake again");
    let completion = router.next_completion().unwrap().unwrap();
    router.release(completion);
    assert!(router.announce_sleep());
    assert!(report(&router).router_sleeping);
    assert!(answer(&mut worker));
    assert!(!answer(&mut worker), "already rung");
}

#[test]
fn draining_is_seen_by_the_worker() {
    let (mut router, worker) = ring(1);
    assert!(!worker.is_router_draining());
    router.announce_draining();
    assert!(worker.is_router_draining());
    assert!(report(&router).router_draining);
}

#[test]
fn what_a_worker_waits_for_is_what_it_shows_and_nothing_at_first() {
    let (router, worker) = ring(2);
    assert_eq!(router.waits_for(), 0);
    crate::waits::show(worker.memory(), u64::MAX);
    assert_eq!(router.waits_for(), u64::MAX, "any bits are told as they are");
}
