//! A client's ring whose other side writes anything, anywhere, between any two of our reads.
//!
//! In: a story, read from the fuzzer's bytes: which end is ours, what we do, and what the memory does meanwhile.
//! Ours is the router: it keeps its account whatever the client does. A slot is taken at most once before it is answered, with
//! a payload that fits, and nothing is lost.
//! Ours is the client: each call is answered at most once, with its own number and a result that fits; a slot answered and
//! released is free again, and no other is.
//! An honest other side plays along on the same memory, because scribbling alone rarely gets as far as an answer.
#![no_main]

mod hostile_memory;

use std::cell::RefCell;
use std::time::Duration;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use shm_ring::client_ring::{
    Answer, Answered, Call, ClientEnd, ClientIdentity, ServiceEnd, TakenCall, call_slot, client_line,
    service_line,
};
use shm_ring::{Generation, Geometry, HeapMemory, Memory, PushRefused, SlotIndex};

use hostile_memory::{HostileMemory, Places, Script, choose, pick};

const PLACES: Places = Places {
    answers_tail: service_line::COMPLETION_TAIL,
    lines: [client_line::SUBMISSION_TAIL, client_line::CLIENT_SLEEPING, service_line::ROUTER_SLEEPING],
    answer: [call_slot::SERVICE_CONTROL, call_slot::RESULT_SIZE, call_slot::ANSWERED_ID],
    request: [call_slot::CLIENT_CONTROL, call_slot::PAYLOAD_SIZE, call_slot::CALL_ID],
};

const IDENTITY: ClientIdentity = ClientIdentity { generation: Generation(7), client_id: 1 };

fuzz_target!(|bytes: &[u8]| {
    let script = RefCell::new(Unstructured::new(bytes));
    let is_ours_the_router = choose(&script, 2) == 0;
    // Few slots, so that they run out; the smallest regions.
    let geometry = Geometry::new(1 << choose(&script, 4), 1).expect("a power of two and a page");
    let memory = HeapMemory::new(geometry.memory_size());
    let memory = HostileMemory { memory, script: &script, places: &PLACES };
    if is_ours_the_router { service_story(memory, geometry) } else { client_story(memory, geometry) }
});

fn service_story(memory: HostileMemory<'_>, geometry: Geometry) {
    let script = memory.script;
    let shared = memory.memory.clone();
    let mut service = ServiceEnd::new(memory, geometry, IDENTITY);
    let mut client = ClientEnd::attach(shared.clone()).ok();
    let mut taken: Vec<TakenCall> = Vec::new();
    while !script.borrow().is_empty() {
        match choose(script, 7) {
            0 | 1 => match service.next_call() {
                Ok(Some(call)) => {
                    assert!(
                        taken.iter().all(|other| other.slot != call.slot),
                        "{} was taken twice",
                        call.slot
                    );
                    check_call(&service, &call, geometry);
                    service.note(call.slot, 1 + u64::from(call.slot.0));
                    taken.push(call);
                }
                Ok(None) => {}
                Err(fault) => {
                    assert!(fault.to_string().contains("client at fault"), "{fault}");
                    // A slot that was taken before it was found wanting is told by the table.
                    assert_eq!(service.taken_count() as usize, taken.len());
                }
            },
            2 | 3 => {
                if !taken.is_empty() {
                    let call = taken.swap_remove(choose(script, taken.len()));
                    answer(&mut service, call.slot, script);
                }
            }
            4 => drop(service.publish()),
            5 => drop(service.announce_sleep()),
            _ => service.announce_awake(),
        }
        // A client that finds its ring damaged goes, and another uses the same memory.
        if choose(script, 3) == 0 {
            client = match client.take() {
                Some(client) => honest_client(client, script),
                None => ClientEnd::attach(shared.clone()).ok(),
            };
        }
        service.invariants();
        assert_eq!(service.taken_count() as usize, taken.len());
        for slot in (0..=geometry.slot_count()).map(SlotIndex) {
            let call = taken.iter().find(|call| call.slot == slot);
            assert_eq!(service.tag(slot), call.map(|_| 1 + u64::from(slot.0)));
            assert_eq!(service.call_id(slot), call.map(|call| call.call_id));
        }
    }
}

fn check_call<M: Memory>(service: &ServiceEnd<M>, call: &TakenCall, geometry: Geometry) {
    assert!(call.payload_size <= geometry.region_size());
    let mut payload = vec![0; call.payload_size as usize];
    service.memory().read(service.payload_place(call.slot, call.payload_size), &mut payload);
    let (trace, key) = service.context(call.slot, call.flags);
    assert_eq!((trace.is_some(), key.is_some()), (call.flags & 2 != 0, call.flags & 1 != 0));
}

fn answer<M: Memory>(service: &mut ServiceEnd<M>, slot: SlotIndex, script: &Script<'_>) {
    let region_size = service.geometry().region_size();
    let size = *pick(script, &[0, 32, 33, 96, 97, region_size]);
    let timings = (choose(script, 2) == 0).then_some(&[5; call_slot::TIMINGS_SIZE]);
    let answer = Answer {
        status: choose(script, 64) as u8,
        flags: choose(script, 1 << 16) as u16,
        retry_after_us: 9,
        timings,
    };
    service.answer(slot, answer, size, |memory, place| memory.write(place, &vec![6; size as usize]));
}

/// One step of a client that keeps the rules; `None` when it has had enough of this ring.
fn honest_client(mut client: ClientEnd<HeapMemory>, script: &Script<'_>) -> Option<ClientEnd<HeapMemory>> {
    let _ = submit(&mut client, 3, script);
    client.publish();
    if let Some(answered) = client.next_answer().ok()? {
        client.release(answered);
    }
    Some(client)
}

fn submit<M: Memory>(
    client: &mut ClientEnd<M>,
    call_id: u64,
    script: &Script<'_>,
) -> (usize, Result<SlotIndex, PushRefused>) {
    let region_size = client.geometry().region_size() as usize;
    let size = *pick(script, &[0, 1, 160, 161, region_size, region_size + 1]);
    let call = Call {
        call_id,
        function_id: 4,
        criticality: choose(script, 4) as u8,
        deadline_at_ns: u64::MAX,
        flags: choose(script, 1 << 16) as u16,
        trace: (choose(script, 2) == 0).then_some([1; 32]),
        idempotency_key: (choose(script, 2) == 0).then_some([2; 16]),
    };
    (size, client.submit(&call, &vec![3; size]))
}

fn client_story(memory: HostileMemory<'_>, geometry: Geometry) {
    let script = memory.script;
    let shared = memory.memory.clone();
    // Its constants are good here, and may be scribbled over while the client reads them.
    let mut service = ServiceEnd::new(shared.clone(), geometry, IDENTITY);
    let Ok(mut client) = ClientEnd::attach(memory) else { return };
    // Constants that changed meanwhile are another ring, but one that lies inside of the memory.
    let geometry = client.geometry();
    assert!(geometry.memory_size() <= shared.size());
    // The number of the call in each slot that waits for its answer.
    let mut submitted = vec![None; geometry.slot_count() as usize];
    let mut answered: Vec<Answered> = Vec::new();
    let mut call_id_next = 1;
    while !script.borrow().is_empty() {
        match choose(script, 8) {
            0 | 1 => {
                let has_room = client.free_slots() > 0;
                match submit(&mut client, call_id_next, script) {
                    (size, Ok(slot)) => {
                        assert!(
                            size <= geometry.region_size() as usize,
                            "a payload that does not fit was taken"
                        );
                        assert!(answered.iter().all(|answer| answer.slot != slot), "{slot} holds an answer");
                        let before = submitted[slot.0 as usize].replace(call_id_next);
                        assert_eq!(before, None, "{slot} was given out twice");
                        call_id_next += 1;
                    }
                    (_, Err(PushRefused::NoCredit)) => assert!(!has_room, "refused with a slot free"),
                    (size, Err(PushRefused::PayloadTooLarge { .. })) => {
                        assert!(size > geometry.region_size() as usize);
                    }
                }
            }
            2 | 3 => match client.next_answer() {
                Ok(Some(answer)) => {
                    let expected = submitted[answer.slot.0 as usize].take();
                    assert_eq!(Some(answer.call_id), expected, "an answer to what was not asked");
                    assert!(answer.result_size <= geometry.region_size());
                    let mut result = Vec::new();
                    client.read_result(&answer, &mut result);
                    assert_eq!(result.len(), answer.result_size as usize);
                    let _ = client.timings(&answer);
                    answered.push(answer);
                }
                Ok(None) => {}
                Err(fault) => assert!(fault.to_string().contains("router at fault"), "{fault}"),
            },
            4 => {
                if !answered.is_empty() {
                    let answer = answered.swap_remove(choose(script, answered.len()));
                    client.release(answer);
                }
            }
            5 => drop(client.publish()),
            6 => {
                client.publish();
                let _ = client.wait(2, Some(Duration::ZERO));
            }
            _ => drop(client.announce_sleep()),
        }
        // An honest router plays along, as long as the ring is the one it made.
        if choose(script, 3) == 0
            && let Ok(Some(call)) = service.next_call()
        {
            answer(&mut service, call.slot, script);
            service.publish();
        }
        let waiting = submitted.iter().flatten().count();
        assert_eq!(client.outstanding() as usize, waiting + answered.len());
    }
}
