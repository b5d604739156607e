//! A worker that writes what it likes, when it likes. The router names the fault, keeps its accounts, and goes on.

mod scribbled;

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use shm_ring::layout::{WorkerControl, router_line, slot, worker_line, worker_state};
use shm_ring::{
    Generation, Geometry, HeapMemory, Identity, Memory, Outcome, Request, RouterEnd, SlotIndex, WorkerEnd,
    WorkerMisbehaved, inspect,
};

use scribbled::{Scribbled, scribble};

const SLOT_COUNT: u32 = 4;

fn ring<M: Memory>(memory: impl FnOnce(usize) -> M) -> RouterEnd<M> {
    let geometry = Geometry::new(SLOT_COUNT, 4096).unwrap();
    let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
    RouterEnd::new(memory(geometry.memory_size()), geometry, identity)
}

fn scribbled(size: usize) -> Scribbled {
    let end = Geometry::new(SLOT_COUNT, 4096).unwrap().request_region(SlotIndex(0));
    Scribbled::new(size, router_line::SUBMISSION_TAIL, end)
}

fn request(invocation_id: u64) -> Request<'static> {
    Request {
        invocation_id,
        deadline_at_ns: u64::MAX,
        pushed_at_ns: 0,
        flags: 0,
        criticality: 1,
        context: None,
    }
}

/// One request is in flight, the worker says what the test says, and claims `tail` answers.
fn fault(tail: u32, scribble: impl FnOnce(&HeapMemory, Geometry, SlotIndex)) -> Option<WorkerMisbehaved> {
    let mut router = ring(HeapMemory::new);
    let slot = router.push(request(7), b"payload").unwrap();
    router.publish();
    let place = router.geometry().slot(slot);
    let memory = router.memory().clone();
    // Given: an honest answer, changed by `scribble`.
    memory.store_u32(
        place + slot::WORKER_CONTROL,
        WorkerControl::new(worker_state::DONE, 0).0,
        Ordering::Relaxed,
    );
    memory.store_u64(place + slot::ANSWERED_ID, 7, Ordering::Relaxed);
    memory.store_u32(router.geometry().completion_entry(0), slot.0, Ordering::Relaxed);
    scribble(&memory, router.geometry(), slot);
    memory.store_u32(worker_line::COMPLETION_TAIL, tail, Ordering::Relaxed);
    let result = router.next_completion();
    router.invariants();
    if result.is_err() {
        assert_eq!(router.in_flight().count(), 1, "the request is still owed an answer");
    }
    result.err()
}

#[test]
fn an_honest_answer_is_no_fault() {
    assert_eq!(fault(1, |_, _, _| ()), None);
}

#[test]
fn a_cursor_beyond_the_ring_is_named() {
    let expected = WorkerMisbehaved::CursorOutOfRange { tail: 5, head: 0, slot_count: 4 };
    assert_eq!(fault(5, |_, _, _| ()), Some(expected));
    assert!(matches!(fault(u32::MAX, |_, _, _| ()), Some(WorkerMisbehaved::CursorOutOfRange { .. })));
}

#[test]
fn a_slot_beyond_the_table_is_named() {
    let found =
        fault(1, |memory, geometry, _| memory.store_u32(geometry.completion_entry(0), 4, Ordering::Relaxed));
    assert_eq!(found, Some(WorkerMisbehaved::SlotOutOfRange { slot: 4, slot_count: 4 }));
}

#[test]
fn an_answer_to_nothing_is_named() {
    let found =
        fault(1, |memory, geometry, _| memory.store_u32(geometry.completion_entry(0), 3, Ordering::Relaxed));
    assert_eq!(found, Some(WorkerMisbehaved::SlotNotInFlight { slot: SlotIndex(3) }));
}

#[test]
fn an_answer_about_another_invocation_is_named() {
    let found = fault(1, |memory, geometry, slot| {
        memory.store_u64(geometry.slot(slot) + slot::ANSWERED_ID, 6, Ordering::Relaxed);
    });
    assert!(matches!(found, Some(WorkerMisbehaved::StaleAnswer { expected: 7, answered: 6, .. })));
}

#[test]
fn an_announced_slot_that_is_not_done_is_named() {
    let found = fault(1, |memory, geometry, slot| {
        let taken = WorkerControl::new(worker_state::TAKEN, 0).0;
        memory.store_u32(geometry.slot(slot) + slot::WORKER_CONTROL, taken, Ordering::Relaxed);
    });
    assert!(matches!(found, Some(WorkerMisbehaved::BadSlotState { state: worker_state::TAKEN, .. })));
}

#[test]
fn an_unknown_outcome_is_named() {
    let found = fault(1, |memory, geometry, slot| {
        let done = WorkerControl::new(worker_state::DONE, 6).0;
        memory.store_u32(geometry.slot(slot) + slot::WORKER_CONTROL, done, Ordering::Relaxed);
    });
    assert!(matches!(found, Some(WorkerMisbehaved::UnknownOutcome { outcome: 6, .. })));
}

#[test]
fn back_pressure_that_stands_for_nothing_or_has_no_name_is_named() {
    let told = |severity: u8, name_size: u32| {
        fault(1, |memory, geometry, slot| {
            let place = geometry.slot(slot);
            let done = WorkerControl::pushed_back(severity).0;
            memory.store_u32(place + slot::WORKER_CONTROL, done, Ordering::Relaxed);
            memory.store_u32(place + slot::RESULT_SIZE, name_size, Ordering::Relaxed);
        })
    };
    assert_eq!([told(1, 1), told(255, 32)], [None, None], "honest");
    for (severity, name_size) in [(0, 1), (1, 0), (1, 33), (255, 4096), (1, u32::MAX)] {
        let slot = SlotIndex(0);
        let expected = WorkerMisbehaved::BackpressureOutOfRange { slot, severity, name_size };
        assert_eq!(told(severity, name_size), Some(expected));
    }
}

#[test]
fn a_result_larger_than_its_region_is_named() {
    let found = fault(1, |memory, geometry, slot| {
        memory.store_u32(geometry.slot(slot) + slot::RESULT_SIZE, 4097, Ordering::Relaxed);
    });
    let expected =
        WorkerMisbehaved::ResultTooLarge { slot: SlotIndex(0), result_size: 4097, result_size_max: 4096 };
    assert_eq!(found, Some(expected));
}

#[test]
fn answering_twice_is_named_before_and_after_the_release() {
    for released in [false, true] {
        let mut router = ring(HeapMemory::new);
        let mut worker = WorkerEnd::attach(router.memory().clone()).unwrap();
        let slot = router.push(request(7), b"").unwrap();
        router.publish();
        let taken = worker.next_request().unwrap().unwrap();
        worker.complete(taken, Outcome::Ok, 0, 0, b"");
        worker.publish();
        let completion = router.next_completion().unwrap().unwrap();
        // Given: the same slot announced again.
        let memory = router.memory().clone();
        memory.store_u32(router.geometry().completion_entry(1), slot.0, Ordering::Relaxed);
        memory.store_u32(worker_line::COMPLETION_TAIL, 2, Ordering::Relaxed);
        let expected = if released {
            router.release(completion);
            WorkerMisbehaved::SlotNotInFlight { slot }
        } else {
            WorkerMisbehaved::AnsweredTwice { slot, invocation_id: 7 }
        };
        assert_eq!(router.next_completion(), Err(expected));
        assert_eq!(router.next_completion(), Ok(None), "the entry is not stumbled over again");
        router.invariants();
    }
}

#[test]
fn an_answer_announced_for_the_slots_next_user_is_stale() {
    let mut router = ring(HeapMemory::new);
    let mut worker = WorkerEnd::attach(router.memory().clone()).unwrap();
    router.push(request(1), b"").unwrap();
    router.publish();
    let taken = worker.next_request().unwrap().unwrap();
    worker.complete(taken, Outcome::Ok, 0, 0, b"old");
    worker.publish();
    let completion = router.next_completion().unwrap().unwrap();
    let slot = completion.slot;
    router.release(completion);
    // Slots go round: the last of these gets it.
    let slots = [2, 3, 4, 5].map(|id| router.push(request(id), b"").unwrap());
    assert_eq!(slots[3], slot);
    router.publish();
    router.memory().store_u32(router.geometry().completion_entry(1), slot.0, Ordering::Relaxed);
    router.memory().store_u32(worker_line::COMPLETION_TAIL, 2, Ordering::Relaxed);
    let expected = WorkerMisbehaved::StaleAnswer { slot, expected: 5, answered: 1 };
    assert_eq!(router.next_completion(), Err(expected));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn scribbling_between_any_two_reads_never_breaks_the_routers_accounts(
        script in proptest::collection::vec(scribble(0x0000_0104), 0..600),
        turns in 1_u64..200,
    ) {
        let mut router = ring(scribbled);
        let mut worker = WorkerEnd::attach(router.memory().memory.clone()).unwrap();
        *router.memory().script.borrow_mut() = script;
        let mut answered = HashSet::new();
        let mut pushed = 0_u64;
        let mut result = Vec::new();
        for turn in 0..turns {
            while router.push(request(pushed + 1), &turn.to_le_bytes()).is_ok() {
                pushed += 1;
            }
            router.publish();
            // The honest half of the worker's mind. It may see nonsense as well, and says so.
            while let Ok(Some(taken)) = worker.next_request() {
                result.clear();
                worker.read_payload(&taken, &mut result);
                worker.complete(taken, Outcome::Ok, turn, turn, &result);
            }
            worker.publish();
            for _ in 0..SLOT_COUNT {
                if let Ok(Some(completion)) = router.next_completion() {
                    prop_assert!(answered.insert(completion.invocation_id), "answered once");
                    prop_assert!(completion.invocation_id <= pushed, "answered something that was asked");
                    result.clear();
                    router.read_result(&completion, &mut result);
                    prop_assert_eq!(result.len(), completion.result_size as usize);
                    router.release(completion);
                }
            }
            let in_flight: Vec<_> = router.in_flight().collect();
            for (slot, invocation_id) in &in_flight {
                let _ = router.was_started(*slot);
                router.request_cancel(*slot, *invocation_id);
            }
            let _ = inspect(router.memory());
            router.announce_sleep();
            router.announce_awake();
            router.invariants();
            prop_assert_eq!(in_flight.len() as u32 + router.free_slots(), SLOT_COUNT);
            prop_assert_eq!(answered.len() as u64 + in_flight.len() as u64, pushed, "nothing lost, nothing invented");
        }
    }

    #[test]
    fn inspecting_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..6000), honest in any::<bool>()) {
        let memory = HeapMemory::new(32 * 1024);
        if honest {
            RouterEnd::new(
                memory.clone(),
                Geometry::new(2, 4096).unwrap(),
                Identity { generation: Generation(1), worker_id: 0, function_id: 0 },
            );
            memory.write(router_line::SUBMISSION_TAIL, &bytes);
        } else {
            memory.write(0, &bytes);
        }
        prop_assert_eq!(inspect(&memory).is_ok(), honest);
    }
}
