use super::*;
use crate::layout::{Generation, constants};
use crate::{Context, HeapMemory, Request, RouterEnd};

fn ring(slot_count: u32) -> (RouterEnd<HeapMemory>, WorkerEnd<HeapMemory>) {
    let geometry = Geometry::new(slot_count, 8192).unwrap();
    let memory = HeapMemory::new(geometry.memory_size());
    let identity = Identity { generation: Generation(9), worker_id: 8, function_id: 7 };
    let router = RouterEnd::new(memory.clone(), geometry, identity);
    (router, WorkerEnd::attach(memory).unwrap())
}

fn request(invocation_id: u64) -> Request<'static> {
    Request {
        invocation_id,
        deadline_at_ns: 5,
        pushed_at_ns: 4,
        flags: 0b11111,
        criticality: 1,
        context: None,
    }
}

#[test]
fn the_worker_learns_whose_ring_it_has() {
    let (router, worker) = ring(4);
    assert_eq!(worker.identity(), router.identity());
    assert_eq!(worker.geometry(), router.geometry());
}

#[test]
fn context_arrives_whole_or_not_at_all() {
    let (mut router, mut worker) = ring(1);
    let trace: [u8; 32] = std::array::from_fn(|index| index as u8);
    let both = Context { trace: Some(trace), idempotency_key: Some([9; 16]) };
    let key = Context { idempotency_key: Some([1; 16]), ..Context::default() };
    let trace = Context { trace: Some(trace), ..Context::default() };
    let requests = [
        Request { context: Some(&both), criticality: 3, ..request(1) },
        request(2),
        Request { context: Some(&key), ..request(3) },
        Request { criticality: 0, ..request(4) },
        Request { context: Some(&trace), ..request(5) },
    ];
    for sent in requests {
        router.push(sent, b"").unwrap();
        router.publish();
        let taken = worker.next_request().unwrap().unwrap();
        let Context { trace, idempotency_key } = sent.context.copied().unwrap_or_default();
        assert_eq!((taken.trace, taken.idempotency_key), (trace, idempotency_key));
        assert_eq!(taken.criticality, sent.criticality);
        assert_eq!((taken.deadline_at_ns, taken.pushed_at_ns), (5, 4));
        let context_flags = u16::from(idempotency_key.is_some()) | u16::from(trace.is_some()) << 1;
        assert_eq!(taken.flags, 0b11100 | context_flags, "the two flags follow from the fields");
        worker.complete(taken, Outcome::Ok, 0, 0, b"");
        worker.publish();
        let completion = router.next_completion().unwrap().unwrap();
        router.release(completion);
    }
}

#[test]
fn payloads_and_results_of_every_size_class_arrive_unchanged() {
    let (mut router, mut worker) = ring(2);
    let sizes = [0, 1, 7, 8, 9, 31, 32, 95, 96, 97, 159, 160, 161, 4096, 8191, 8192];
    for (index, size) in sizes.into_iter().enumerate() {
        let payload: Vec<u8> = (0..size).map(|byte| (byte * 31 + index) as u8).collect();
        for in_place in [false, true] {
            router.push(request(1), &payload).unwrap();
            router.publish();
            let taken = worker.next_request().unwrap().unwrap();
            let mut copied = Vec::new();
            worker.read_payload(&taken, &mut copied);
            assert_eq!(copied, payload);
            if in_place {
                let (borrowed, result) = worker.buffers(&taken);
                assert_eq!(borrowed, payload);
                result[..size].copy_from_slice(borrowed);
                worker.complete_in_place(taken, Outcome::Ok, 0, 0, size);
            } else {
                worker.complete(taken, Outcome::FunctionError, 0, 0, &copied);
            }
            worker.publish();
            let completion = router.next_completion().unwrap().unwrap();
            let mut result = Vec::new();
            router.read_result(&completion, &mut result);
            assert_eq!(result, payload);
            router.release(completion);
        }
    }
}

#[test]
fn who_pushed_back_arrives_by_name_with_how_hard() {
    let (mut router, mut worker) = ring(1);
    for (downstream, severity) in [(&b"d"[..], 1), (b"database", 7), (&[b'x'; 32], 255)] {
        router.push(request(1), b"").unwrap();
        router.publish();
        let taken = worker.next_request().unwrap().unwrap();
        worker.complete_pushed_back(taken, severity, 3, 4, downstream);
        worker.publish();
        let completion = router.next_completion().unwrap().unwrap();
        assert_eq!((completion.outcome, completion.severity), (Outcome::Backpressure, severity));
        assert_eq!((completion.started_at_ns, completion.finished_at_ns), (3, 4));
        assert_eq!(router.read_downstream(&completion, &mut [0; 32]), downstream);
        router.release(completion);
    }
}

#[test]
fn a_result_larger_than_a_region_becomes_an_outcome() {
    let (mut router, mut worker) = ring(1);
    router.push(request(1), b"").unwrap();
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, &[0; 8193]);
    worker.publish();
    let completion = router.next_completion().unwrap().unwrap();
    assert_eq!((completion.outcome, completion.result_size), (Outcome::ResultTooLarge, 0));
}

#[test]
fn waiting_ends_at_once_when_requests_are_there_and_with_nothing_after_the_time_out() {
    let (mut router, mut worker) = ring(1);
    assert_eq!(worker.wait(100, Some(Duration::from_millis(1))), Ok(WaitOutcome::Nothing));
    router.push(request(1), b"").unwrap();
    assert!(!router.publish(), "it is awake again");
    assert_eq!(worker.wait(100, None), Ok(WaitOutcome::Ready));
    assert_eq!(worker.wait(0, None), Ok(WaitOutcome::Ready), "still there");
}

#[test]
fn a_sleeping_worker_is_woken_by_the_router() {
    let (mut router, mut worker) = ring(1);
    let thread = std::thread::spawn(move || {
        while worker.wait(0, None).unwrap() == WaitOutcome::Nothing {}
        worker.next_request().unwrap().unwrap().invocation_id
    });
    while router.memory().load_u32(worker_line::WORKER_SLEEPING, Ordering::Relaxed) & 1 == 0 {
        std::thread::yield_now();
    }
    router.push(request(11), b"").unwrap();
    assert!(router.publish());
    router.wake();
    assert_eq!(thread.join().unwrap(), 11);
}

#[test]
#[should_panic(expected = "answers would be kept")]
fn sleeping_on_unpublished_answers_is_our_bug() {
    let (mut router, mut worker) = ring(1);
    router.push(request(1), b"").unwrap();
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, b"");
    let _ = worker.wait(0, None);
}

#[test]
fn memory_that_is_no_ring_is_refused_with_the_reason() {
    let attach = |change: &dyn Fn(&HeapMemory)| {
        let (router, _worker) = ring(4);
        change(router.memory());
        WorkerEnd::attach(router.memory().clone()).err()
    };
    let store = |offset, value| move |memory: &HeapMemory| memory.store_u32(offset, value, Ordering::Relaxed);
    assert_eq!(attach(&|_| ()), None);
    assert!(matches!(attach(&store(constants::MAGIC, 0)), Some(AttachError::WrongMagic { .. })));
    assert_eq!(attach(&store(constants::VERSION, 3)), Some(AttachError::WrongVersion { version: 3 }));
    for slot_count in [0, 3, 1 << 31] {
        let refused = AttachError::BadGeometry { slot_count, region_size: 8192 };
        assert_eq!(attach(&store(constants::SLOT_COUNT, slot_count)), Some(refused));
    }
    assert!(matches!(attach(&store(constants::REGION_SIZE, 8193)), Some(AttachError::BadGeometry { .. })));
    assert!(matches!(attach(&store(constants::SLOT_COUNT, 8)), Some(AttachError::SizesDisagree { .. })));
    assert!(matches!(attach(&store(constants::MEMORY_SIZE, 1)), Some(AttachError::SizesDisagree { .. })));
    assert_eq!(WorkerEnd::attach(HeapMemory::new(10)).err(), Some(AttachError::TooSmall { size: 10 }));
}

#[test]
fn a_router_that_writes_nonsense_is_named_as_the_one_at_fault() {
    let (mut router, mut worker) = ring(4);
    let geometry = router.geometry();
    let memory = router.memory().clone();
    memory.store_u32(router_line::SUBMISSION_TAIL, 5, Ordering::Relaxed);
    let out_of_range = RouterMisbehaved::CursorOutOfRange { tail: 5, head: 0, slot_count: 4 };
    assert_eq!(worker.next_request(), Err(out_of_range));
    memory.store_u32(router_line::SUBMISSION_TAIL, 3, Ordering::Relaxed);
    memory.store_u32(geometry.submission_entry(0), 4, Ordering::Relaxed);
    assert_eq!(worker.next_request(), Err(RouterMisbehaved::SlotOutOfRange { slot: 4, slot_count: 4 }));
    assert!(matches!(worker.next_request(), Err(RouterMisbehaved::BadSlotState { state: 0, .. })));
    let slot = router.push(request(1), b"").unwrap();
    memory.store_u32(geometry.submission_entry(2), slot.0, Ordering::Relaxed);
    memory.store_u32(geometry.slot(slot) + slot::PAYLOAD_SIZE, 8193, Ordering::Relaxed);
    assert!(matches!(
        worker.next_request(),
        Err(RouterMisbehaved::PayloadTooLarge { payload_size: 8193, .. })
    ));
}
