//! A ring whose other side writes anything, anywhere, between any two of our reads.
//!
//! In: a story, read from the fuzzer's bytes: which end is ours, what we do, and what the memory does meanwhile.
//! Ours is the router: it keeps its account whatever the worker does. Each push takes a free slot, each slot in flight
//! is answered at most once and with a size that fits, each answered slot is released once, and nothing is lost.
//! An honest worker plays along on the same memory, because scribbling alone rarely gets as far as an answer.
//! Ours is the worker: what it is told to run is inside of the memory, and nothing makes it panic.
//! Both: `inspect` reads the ring in any condition.
#![no_main]

mod hostile_memory;

use std::cell::RefCell;
use std::time::Duration;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use shm_ring::layout::{router_line, slot, worker_line};
use shm_ring::{
    Completion, Context, Generation, Geometry, HeapMemory, Identity, Memory, Outcome, PushRefused, Request,
    RouterEnd, SlotIndex, Started, Taken, WorkerEnd, inspect,
};

use hostile_memory::{HostileMemory, Places, Script, choose, pick};

fuzz_target!(|bytes: &[u8]| {
    let script = RefCell::new(Unstructured::new(bytes));
    let is_ours_the_router = choose(&script, 2) == 0;
    // Few slots, so that they run out; the smallest regions.
    let geometry = Geometry::new(1 << choose(&script, 4), 1).expect("a power of two and a page");
    let memory = HeapMemory::new(geometry.memory_size());
    if is_ours_the_router {
        let memory = HostileMemory { memory, script: &script, places: &PLACES };
        router_story(memory, geometry);
    } else {
        worker_story(HostileMemory { memory, script: &script, places: &PLACES }, geometry);
    }
});

const PLACES: Places = Places {
    answers_tail: worker_line::COMPLETION_TAIL,
    lines: [router_line::SUBMISSION_TAIL, router_line::ROUTER_SLEEPING, worker_line::WORKER_SLEEPING],
    answer: [slot::WORKER_CONTROL, slot::RESULT_SIZE, slot::ANSWERED_ID],
    request: [slot::ROUTER_CONTROL, slot::PAYLOAD_SIZE, slot::INVOCATION_ID],
};

const IDENTITY: Identity = Identity { generation: Generation(7), worker_id: 1, function_id: 2 };

fn router_story(memory: HostileMemory<'_>, geometry: Geometry) {
    let script = memory.script;
    let shared = memory.memory.clone();
    let mut router = RouterEnd::new(memory, geometry, IDENTITY);
    let mut worker = WorkerEnd::attach(shared.clone()).ok();
    let mut taken = Vec::new();
    let mut account = Account::new(geometry);
    while !script.borrow().is_empty() {
        match choose(script, 11) {
            0 | 1 => account.push(&mut router, script),
            2 => drop(router.publish()),
            3 | 4 => {
                // As a turn does it: nothing is left unpublished when answers are looked at.
                router.publish();
                account.next_completion(&mut router);
            }
            5 => account.release(&mut router, script),
            6 => account.request_cancel(&mut router, script),
            7 => drop(router.announce_sleep()),
            8 => router.announce_awake(),
            9 => account.was_started(&router, script),
            _ => drop(inspect(&shared)),
        }
        match choose(script, 4) {
            // A worker that finds its ring damaged goes, and another attaches to the same memory.
            0 => match worker.as_mut().map(WorkerEnd::next_request) {
                Some(Ok(request)) => taken.extend(request),
                Some(Err(_)) | None => worker = WorkerEnd::attach(shared.clone()).ok(),
            },
            1 => {
                if let (Some(worker), Some(request)) = (&mut worker, taken.pop()) {
                    complete(worker, request, script);
                }
            }
            2 => drop(worker.as_mut().map(WorkerEnd::publish)),
            _ => {}
        }
        router.invariants();
        account.check(&router);
    }
    account.release_all(&mut router);
    account.check(&router);
}

/// What the router must believe, kept beside it.
struct Account {
    region_size: u32,
    slots: Vec<Life>,
    answered: Vec<Completion>,
    invocation_id_next: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Free,
    Pushed { invocation_id: u64 },
    Answered,
}

impl Account {
    fn new(geometry: Geometry) -> Self {
        let slots = vec![Life::Free; geometry.slot_count() as usize];
        Self { region_size: geometry.region_size(), slots, answered: Vec::new(), invocation_id_next: 1 }
    }

    fn push(&mut self, router: &mut RouterEnd<HostileMemory<'_>>, script: &Script<'_>) {
        let invocation_id = self.invocation_id_next;
        let pushed_at_ns = u64::from(choose(script, 256) as u8) << choose(script, 56);
        let context = Context {
            trace: (choose(script, 2) == 0).then_some([1; 32]),
            idempotency_key: (choose(script, 2) == 0).then_some([2; 16]),
        };
        let request = Request {
            invocation_id,
            deadline_at_ns: u64::MAX,
            pushed_at_ns,
            flags: choose(script, 1 << 16) as u16,
            criticality: choose(script, 4) as u8,
            context: (choose(script, 2) == 0).then_some(&context),
        };
        // Around each border: inline or region, fits or does not.
        let sizes = [0, 1, slot::INLINE_PAYLOAD_SIZE_MAX, slot::INLINE_PAYLOAD_SIZE_MAX + 1];
        let region_size = self.region_size as usize;
        let size = *pick(script, &[sizes.as_slice(), &[region_size, region_size + 1]].concat());
        let has_room = self.slots.contains(&Life::Free);
        match router.push(request, &vec![3; size]) {
            Ok(slot) => {
                self.invocation_id_next += 1;
                let life = &mut self.slots[slot.0 as usize];
                assert!(*life == Life::Free, "{slot} was given out twice");
                assert!(size <= region_size, "a payload that does not fit was taken");
                *life = Life::Pushed { invocation_id };
            }
            Err(PushRefused::NoCredit) => assert!(!has_room, "refused with a slot free"),
            Err(PushRefused::PayloadTooLarge { .. }) => assert!(size > region_size),
        }
    }

    fn next_completion(&mut self, router: &mut RouterEnd<HostileMemory<'_>>) {
        let completion = match router.next_completion() {
            Ok(Some(completion)) => completion,
            Ok(None) => return,
            Err(fault) => return assert!(fault.to_string().contains("worker at fault")),
        };
        let life = &mut self.slots[completion.slot.0 as usize];
        let Life::Pushed { invocation_id } = *life else { panic!("{} was not in flight", completion.slot) };
        assert_eq!(completion.invocation_id, invocation_id);
        assert!(completion.result_size <= self.region_size);
        *life = Life::Answered;
        let mut result = vec![9];
        router.read_result(&completion, &mut result);
        assert_eq!(result.len(), 1 + completion.result_size as usize);
        self.answered.push(completion);
    }

    fn release(&mut self, router: &mut RouterEnd<HostileMemory<'_>>, script: &Script<'_>) {
        if self.answered.is_empty() {
            return;
        }
        let completion = self.answered.swap_remove(choose(script, self.answered.len()));
        self.slots[completion.slot.0 as usize] = Life::Free;
        router.release(completion);
    }

    fn release_all(&mut self, router: &mut RouterEnd<HostileMemory<'_>>) {
        for completion in self.answered.drain(..) {
            self.slots[completion.slot.0 as usize] = Life::Free;
            router.release(completion);
        }
    }

    fn request_cancel(&mut self, router: &mut RouterEnd<HostileMemory<'_>>, script: &Script<'_>) {
        // One slot too many, to ask about what is not there.
        let slot = SlotIndex(choose(script, self.slots.len() + 1) as u32);
        let id = choose(script, self.invocation_id_next as usize + 1) as u64;
        let is_in_flight = matches!(
            self.slots.get(slot.0 as usize),
            Some(Life::Pushed { invocation_id }) if *invocation_id == id
        );
        assert_eq!(router.request_cancel(slot, id), is_in_flight);
    }

    fn was_started(&self, router: &RouterEnd<HostileMemory<'_>>, script: &Script<'_>) {
        let slot = SlotIndex(choose(script, self.slots.len() + 1) as u32);
        let started = router.was_started(slot);
        match self.slots.get(slot.0 as usize) {
            Some(Life::Free) => assert_eq!(started, Started::No),
            Some(Life::Answered) => assert_eq!(started, Started::Yes),
            Some(Life::Pushed { .. }) => {}
            None => assert_eq!(started, Started::Unknown),
        }
    }

    fn check(&self, router: &RouterEnd<HostileMemory<'_>>) {
        let free = self.slots.iter().filter(|life| **life == Life::Free).count();
        assert_eq!(router.free_slots() as usize, free);
        let in_flight = self.slots.iter().zip(0..).filter_map(|(life, index)| match life {
            Life::Pushed { invocation_id } => Some((SlotIndex(index), *invocation_id)),
            Life::Free | Life::Answered => None,
        });
        assert!(router.in_flight().eq(in_flight), "what is in flight is not what was pushed");
    }
}

fn worker_story(memory: HostileMemory<'_>, geometry: Geometry) {
    let script = memory.script;
    let shared = memory.memory.clone();
    // Its constants are good here, and may be scribbled over while the worker reads them.
    let mut router = RouterEnd::new(shared.clone(), geometry, IDENTITY);
    let Ok(mut worker) = WorkerEnd::attach(memory) else { return };
    // Constants that changed meanwhile are another ring, but one that lies inside of the memory.
    let geometry = worker.geometry();
    assert!(geometry.memory_size() <= shared.size());
    let mut taken = Vec::new();
    while !script.borrow().is_empty() {
        match choose(script, 8) {
            0 | 1 => match worker.next_request() {
                Ok(request) => taken.extend(request.inspect(|it| check_taken(&worker, it, geometry))),
                Err(fault) => assert!(fault.to_string().contains("router at fault")),
            },
            2 | 3 => {
                if let Some(request) = taken.pop() {
                    complete(&mut worker, request, script);
                }
            }
            4 => drop(worker.publish()),
            5 => {
                worker.publish();
                let _ = worker.wait(2, Some(Duration::ZERO));
            }
            6 => drop(worker.announce_sleep()),
            _ => drop(inspect(&shared)),
        }
        // An honest router plays along, as long as the ring is the one it made.
        if choose(script, 3) == 0 {
            let request = Request {
                invocation_id: 1,
                deadline_at_ns: 2,
                pushed_at_ns: 3,
                flags: 0,
                criticality: 0,
                context: None,
            };
            let _ = router.push(request, &[4; 200]);
            router.publish();
            if let Ok(Some(completion)) = router.next_completion() {
                router.release(completion);
            }
        }
    }
}

fn check_taken<M: Memory>(worker: &WorkerEnd<M>, taken: &Taken, geometry: Geometry) {
    assert!(taken.slot.0 < geometry.slot_count());
    assert!(taken.payload_size <= geometry.region_size());
    let mut payload = Vec::new();
    worker.read_payload(taken, &mut payload);
    assert_eq!(payload.len(), taken.payload_size as usize);
    let _ = worker.is_cancelled(taken);
}

fn complete<M: Memory>(worker: &mut WorkerEnd<M>, taken: Taken, script: &Script<'_>) {
    let outcome = Outcome::from_number(choose(script, 6) as u8).expect("there are six");
    if outcome == Outcome::Backpressure {
        let (severity, name_size) = (1 + choose(script, 255) as u8, 1 + choose(script, 32));
        return worker.complete_pushed_back(taken, severity, 1, 2, &vec![b'x'; name_size]);
    }
    let region_size = worker.geometry().region_size() as usize;
    let borders =
        [0, slot::INLINE_RESULT_SIZE_MAX, slot::INLINE_RESULT_SIZE_MAX + 1, region_size, region_size + 1];
    let size = *pick(script, &borders);
    worker.note_started(&taken, 5);
    worker.complete(taken, outcome, choose(script, 256) as u64, choose(script, 256) as u64, &vec![6; size]);
}
