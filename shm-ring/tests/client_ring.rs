//! A client's ring from both ends: calls that go through it, and a client that writes what it likes. The router names
//! the fault, keeps its accounts, and goes on.

mod scribbled;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use shm_ring::client_ring::{
    Answer, Call, ClientEnd, ClientIdentity, ClientMisbehaved, READY, ServiceEnd, ServiceMisbehaved,
    WaitOutcome, call_slot, client_line, service_line,
};
use shm_ring::{
    AttachError, CopyFrom, Generation, Geometry, HeapMemory, Identity, Mapped, Memory, Outcome, PushRefused,
    Request, RouterEnd, SlotIndex, WorkerEnd,
};

use scribbled::{Scribbled, scribble};

const SLOT_COUNT: u32 = 4;
const REGION_SIZE: u32 = 4096;

fn geometry() -> Geometry {
    Geometry::new(SLOT_COUNT, REGION_SIZE).unwrap()
}

fn scribbled(size: usize) -> Scribbled {
    Scribbled::new(size, client_line::SUBMISSION_TAIL, geometry().request_region(SlotIndex(0)))
}

fn service<M: Memory>(memory: impl FnOnce(usize) -> M) -> ServiceEnd<M> {
    let identity = ClientIdentity { generation: Generation(7), client_id: 3 };
    ServiceEnd::new(memory(geometry().memory_size()), geometry(), identity)
}

fn pair() -> (ClientEnd<HeapMemory>, ServiceEnd<HeapMemory>) {
    let service = service(HeapMemory::new);
    (ClientEnd::attach(service.memory().clone()).unwrap(), service)
}

fn call(call_id: u64) -> Call {
    Call {
        call_id,
        function_id: 5,
        criticality: 2,
        deadline_at_ns: 99,
        flags: 0,
        trace: None,
        idempotency_key: None,
    }
}

const OK: Answer<'static> = Answer { status: 0, flags: 0, retry_after_us: 0, timings: None };

fn serve(service: &mut ServiceEnd<HeapMemory>, answer: Answer<'_>, result: &[u8]) {
    let taken = service.next_call().unwrap().expect("a call");
    service.note(taken.slot, taken.call_id);
    service.answer(taken.slot, answer, result.len() as u32, |memory, place| memory.write(place, result));
    service.publish();
    service.invariants();
}

#[test]
fn a_call_arrives_as_it_was_made_and_so_does_its_answer() {
    let (mut client, mut service) = pair();
    let made = Call { trace: Some([1; 32]), idempotency_key: Some([2; 16]), flags: 1 << 4, ..call(42) };
    client.submit(&made, b"payload").unwrap();
    assert_eq!(service.next_call(), Ok(None), "not published yet");
    assert!(!client.publish(), "the router looks");
    let taken = service.next_call().unwrap().unwrap();
    assert_eq!((taken.call_id, taken.function_id, taken.criticality), (42, 5, 2));
    assert_eq!((taken.deadline_at_ns, taken.payload_size, taken.flags), (99, 7, 0b1_0011));
    let mut payload = [0; 7];
    service.memory().read(service.payload_place(taken.slot, 7), &mut payload);
    assert_eq!(&payload, b"payload");
    assert_eq!(service.context(taken.slot, taken.flags), (Some([1; 32]), Some([2; 16])));
    service.note(taken.slot, 1000);
    assert_eq!((service.tag(taken.slot), service.call_id(taken.slot)), (Some(1000), Some(42)));

    let answer = Answer { status: 17, flags: 1 << 5, retry_after_us: 250, timings: None };
    service.answer(taken.slot, answer, 6, |memory, place| memory.write(place, b"result"));
    assert_eq!(service.tag(taken.slot), None);
    assert_eq!(client.next_answer(), Ok(None), "not published yet");
    service.publish();
    let answered = client.next_answer().unwrap().unwrap();
    assert_eq!((answered.call_id, answered.status, answered.flags), (42, 17, 1 << 5));
    assert_eq!((answered.retry_after_us, client.timings(&answered)), (250, None));
    assert_eq!(client.result(&answered), b"result");
    assert_eq!(client.outstanding(), 1);
    client.release(answered);
    assert_eq!(client.outstanding(), 0);
}

#[test]
fn results_lie_where_the_page_says_with_and_without_timings() {
    for timings in [None, Some(&[9; call_slot::TIMINGS_SIZE])] {
        for size in [0, 1, 32, 33, 96, 97, 4096] {
            let (mut client, mut service) = pair();
            client.submit(&call(1), b"").unwrap();
            client.publish();
            let result: Vec<u8> = (0..size).map(|index| index as u8).collect();
            serve(&mut service, Answer { timings, ..OK }, &result);
            let answered = client.next_answer().unwrap().unwrap();
            assert_eq!(client.result(&answered), result, "{size} bytes");
            assert_eq!(client.timings(&answered).as_ref(), timings, "{size} bytes");
            client.release(answered);
        }
    }
}

#[test]
fn the_ring_carries_as_many_calls_as_it_has_slots_again_and_again() {
    let (mut client, mut service) = pair();
    for lap in 0..10 {
        for number in 0..u64::from(SLOT_COUNT) {
            client.submit(&call(lap * 100 + number), &number.to_le_bytes()).unwrap();
        }
        assert_eq!(client.submit(&call(0), b""), Err(PushRefused::NoCredit));
        client.publish();
        // Answered in another order than asked.
        let taken: Vec<_> = std::iter::from_fn(|| service.next_call().unwrap()).collect();
        assert_eq!(service.taken_count(), SLOT_COUNT);
        for call in taken.iter().rev() {
            service.answer(call.slot, OK, 0, |_, _| ());
        }
        service.publish();
        let mut seen = HashSet::new();
        while let Some(answered) = client.next_answer().unwrap() {
            seen.insert(answered.call_id);
            client.release(answered);
        }
        assert_eq!(seen.len(), SLOT_COUNT as usize);
        service.invariants();
    }
}

#[test]
fn slots_are_used_in_their_order_and_one_whose_region_was_touched_before_the_others() {
    let (mut client, mut service) = pair();
    // Given a call, its slot and its answer are given back at once.
    let mut used = |payload_size: usize, result_size: usize| {
        let slot = client.submit(&call(1), &vec![0; payload_size]).unwrap();
        client.publish();
        serve(&mut service, OK, &vec![0; result_size]);
        let answered = client.next_answer().unwrap().unwrap();
        client.release(answered);
        slot.0
    };
    assert_eq!([used(160, 96), used(0, 0), used(0, 0), used(0, 0), used(0, 0)], [0, 1, 2, 3, 0]);
    assert_eq!([used(161, 0), used(0, 0), used(4096, 0)], [1, 1, 1], "a large payload has touched a region");
    assert_eq!(used(0, 97), 1);

    // Expect a result to touch one as a payload does.
    let (mut client, mut service) = pair();
    client.submit(&call(1), b"").unwrap();
    client.publish();
    serve(&mut service, OK, &[0; 97]);
    let answered = client.next_answer().unwrap().unwrap();
    client.release(answered);
    assert_eq!(client.submit(&call(2), b""), Ok(SlotIndex(0)));
}

#[test]
fn a_payload_goes_from_ring_to_ring_and_the_result_back_in_one_copy_each() {
    for size in [0_usize, 64, 160, 161, 4096] {
        let (memory, _fd) = Mapped::create("client", geometry().memory_size()).unwrap();
        let identity = ClientIdentity { generation: Generation(7), client_id: 3 };
        let mut service = ServiceEnd::new(memory, geometry(), identity);
        let mut client = ClientEnd::attach(Mapped::attach(&_fd).unwrap()).unwrap();
        let (memory, worker_fd) = Mapped::create("worker", geometry().memory_size()).unwrap();
        let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
        let mut router = RouterEnd::new(memory, geometry(), identity);
        let mut worker = WorkerEnd::attach(Mapped::attach(&worker_fd).unwrap()).unwrap();

        let payload: Vec<u8> = (0..size).map(|index| (index * 7) as u8).collect();
        client.submit_in_place(&call(1), size, |bytes| bytes.copy_from_slice(&payload)).unwrap();
        client.publish();
        let taken = service.next_call().unwrap().unwrap();
        let request = Request {
            invocation_id: 9,
            deadline_at_ns: u64::MAX,
            pushed_at_ns: 0,
            flags: 0,
            criticality: 1,
            context: None,
        };
        let place = service.payload_place(taken.slot, taken.payload_size);
        router.push_from(request, service.memory(), place, size).unwrap();
        router.publish();
        let running = worker.next_request().unwrap().unwrap();
        let result = worker.payload(&running).to_vec();
        worker.complete(running, Outcome::Ok, 1, 2, &result);
        worker.publish();
        let completion = router.next_completion().unwrap().unwrap();
        let source = router.result_place(&completion);
        service.answer(taken.slot, OK, completion.result_size, |memory, place| {
            memory.copy_from(place, router.memory(), source, size);
        });
        service.publish();
        router.release(completion);
        let answered = client.next_answer().unwrap().unwrap();
        assert_eq!(client.result(&answered), payload);
    }
}

#[test]
fn memory_without_a_shortcut_copies_through_a_private_buffer() {
    let source = scribbled(4096);
    let target = scribbled(4096);
    let bytes: Vec<u8> = (0..1300).map(|index| (index % 251) as u8).collect();
    source.write(100, &bytes);
    target.copy_from(7, &source, 100, bytes.len());
    let mut found = vec![0; bytes.len()];
    target.read(7, &mut found);
    assert_eq!(found, bytes);
}

#[test]
fn each_side_is_rung_once_for_each_of_its_sleeps() {
    let (mut client, mut service) = pair();
    assert!(service.announce_sleep());
    client.submit(&call(1), b"").unwrap();
    assert!(client.publish(), "the router sleeps");
    client.submit(&call(2), b"").unwrap();
    assert!(!client.publish(), "it was rung already");
    assert!(!service.announce_sleep(), "there are calls");
    let first = service.next_call().unwrap().unwrap();
    let second = service.next_call().unwrap().unwrap();

    assert!(client.announce_sleep());
    service.answer(first.slot, OK, 0, |_, _| ());
    assert!(service.publish(), "the client sleeps");
    service.answer(second.slot, OK, 0, |_, _| ());
    assert!(!service.publish(), "it was woken already");
    assert!(!client.announce_sleep(), "there are answers");
    assert_eq!(client.wait(0, Some(Duration::ZERO)), Ok(WaitOutcome::Ready));
}

#[test]
fn a_workers_ring_is_no_clients_ring() {
    let memory = HeapMemory::new(geometry().memory_size());
    let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
    RouterEnd::new(memory.clone(), geometry(), identity);
    assert!(matches!(ClientEnd::attach(memory), Err(AttachError::WrongMagic { .. })));
    let (client, _service) = pair();
    assert!(WorkerEnd::attach(client.memory().clone()).is_err());
    assert_eq!(client.identity(), ClientIdentity { generation: Generation(7), client_id: 3 });
}

#[test]
fn damage_is_noticed_by_the_client() {
    let check = |scribble: &dyn Fn(&HeapMemory, usize)| {
        let (mut client, mut service) = pair();
        let slot = client.submit(&call(1), b"").unwrap();
        client.publish();
        serve(&mut service, OK, b"");
        scribble(client.memory(), geometry().slot(slot));
        client.next_answer().expect_err("damage")
    };
    let word = |offset, value| {
        move |memory: &HeapMemory, _: usize| memory.store_u32(offset, value, Ordering::Relaxed)
    };
    let of_slot = |offset, value| {
        move |memory: &HeapMemory, slot: usize| memory.store_u32(slot + offset, value, Ordering::Relaxed)
    };
    let expected = ServiceMisbehaved::CursorOutOfRange { tail: 9, head: 0, slot_count: SLOT_COUNT };
    assert_eq!(check(&word(service_line::COMPLETION_TAIL, 9)), expected);
    let entry = geometry().completion_entry(0);
    assert_eq!(check(&word(entry, 2)), ServiceMisbehaved::SlotNotInFlight { slot: 2 });
    assert_eq!(check(&word(entry, u32::MAX)), ServiceMisbehaved::SlotNotInFlight { slot: u32::MAX });
    let found = check(&of_slot(call_slot::ANSWERED_ID, 2));
    assert!(matches!(found, ServiceMisbehaved::NotTheAnswer { expected: 1, answered: 2, .. }));
    assert!(matches!(check(&of_slot(call_slot::SERVICE_CONTROL, 0)), ServiceMisbehaved::NotTheAnswer { .. }));
    let found = check(&of_slot(call_slot::RESULT_SIZE, 4097));
    assert!(matches!(found, ServiceMisbehaved::ResultTooLarge { result_size: 4097, .. }));
}

/// One honest call, changed by `scribble`.
fn fault(tail: u32, scribble: impl FnOnce(&HeapMemory, usize)) -> Option<ClientMisbehaved> {
    let (mut client, mut service) = pair();
    let slot = client.submit(&call(1), b"").unwrap();
    client.publish();
    scribble(client.memory(), geometry().slot(slot));
    client.memory().store_u32(client_line::SUBMISSION_TAIL, tail, Ordering::Relaxed);
    let found = service.next_call().err();
    service.invariants();
    found
}

#[test]
fn every_fault_of_a_client_is_named() {
    assert_eq!(fault(1, |_, _| ()), None);
    let slot_count = SLOT_COUNT;
    for tail in [5, u32::MAX] {
        let expected = ClientMisbehaved::CursorOutOfRange { tail, head: 0, slot_count };
        assert_eq!(fault(tail, |_, _| ()), Some(expected));
    }
    let entry = geometry().submission_entry(0);
    let store = |offset, value| {
        move |memory: &HeapMemory, _: usize| memory.store_u32(offset, value, Ordering::Relaxed)
    };
    let expected = ClientMisbehaved::SlotOutOfRange { slot: 4, slot_count };
    assert_eq!(fault(1, store(entry, 4)), Some(expected));
    let in_slot = |offset, value| {
        move |memory: &HeapMemory, slot: usize| memory.store_u32(slot + offset, value, Ordering::Relaxed)
    };
    let slot = SlotIndex(0);
    let expected = ClientMisbehaved::BadSlotState { slot, state: 3 };
    assert_eq!(fault(1, in_slot(call_slot::CLIENT_CONTROL, 3)), Some(expected));
    let (payload_size, payload_size_max) = (REGION_SIZE + 1, REGION_SIZE);
    let expected = ClientMisbehaved::PayloadTooLarge { slot, payload_size, payload_size_max };
    assert_eq!(fault(1, in_slot(call_slot::PAYLOAD_SIZE, payload_size)), Some(expected));
    let control = u32::from(READY) | 0x8000_0000;
    let expected = ClientMisbehaved::UnknownFlags { slot, flags: 0x8000 };
    assert_eq!(fault(1, in_slot(call_slot::CLIENT_CONTROL, control)), Some(expected));
}

#[test]
fn a_slot_submitted_twice_is_named_until_it_is_answered() {
    let (mut client, mut service) = pair();
    let slot = client.submit(&call(1), b"").unwrap();
    client.publish();
    let taken = service.next_call().unwrap().unwrap();
    let again = |tail: u32| {
        client.memory().store_u32(geometry().submission_entry(tail - 1), slot.0, Ordering::Relaxed);
        client.memory().store_u32(client_line::SUBMISSION_TAIL, tail, Ordering::Relaxed);
    };
    again(2);
    assert_eq!(service.next_call(), Err(ClientMisbehaved::SlotInUse { slot }));
    assert_eq!(service.next_call(), Ok(None), "the entry is not stumbled over again");
    assert_eq!(service.taken().collect::<Vec<_>>(), [(slot, u64::MAX)]);
    service.answer(taken.slot, OK, 0, |_, _| ());
    again(3);
    assert!(service.next_call().unwrap().is_some(), "answered and free, whoever reads the answer");
    service.invariants();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn scribbling_between_any_two_reads_never_breaks_the_routers_accounts(
        script in proptest::collection::vec(scribble(u32::from(READY)), 0..600),
        turns in 1_u64..200,
    ) {
        let mut service = service(scribbled);
        let mut client = ClientEnd::attach(service.memory().memory.clone()).unwrap();
        *service.memory().script.borrow_mut() = script;
        let mut held = Vec::new();
        for turn in 0..turns {
            // The honest half of the client's mind. It may see nonsense as well, and says so.
            while client.submit(&call(turn), &turn.to_le_bytes()).is_ok() {}
            client.publish();
            for _ in 0..2 * SLOT_COUNT {
                if let Ok(Some(taken)) = service.next_call() {
                    prop_assert!(taken.slot.0 < SLOT_COUNT);
                    prop_assert!(taken.payload_size <= REGION_SIZE);
                    let mut payload = vec![0; taken.payload_size as usize];
                    service.memory().read(service.payload_place(taken.slot, taken.payload_size), &mut payload);
                    let _ = service.context(taken.slot, taken.flags);
                    service.note(taken.slot, turn + 1);
                    prop_assert!(!held.contains(&taken.slot), "held once");
                    held.push(taken.slot);
                }
            }
            prop_assert_eq!(service.taken_count() as usize, held.len(), "nothing lost, nothing invented");
            for slot in held.drain(..(turn as usize % 3).min(held.len())) {
                let timings = (turn % 2 == 0).then_some(&[1; call_slot::TIMINGS_SIZE]);
                let answer = Answer { timings, ..OK };
                service.answer(slot, answer, turn as u32 % REGION_SIZE, |memory, place| memory.write(place, b"x"));
            }
            service.publish();
            while let Ok(Some(answered)) = client.next_answer() {
                client.release(answered);
            }
            service.announce_sleep();
            service.announce_awake();
            service.invariants();
        }
    }
}
