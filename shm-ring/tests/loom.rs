//! Every order in which two threads may see each other's stores, within loom's bound on preemptions.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p shm-ring --release --test loom`
//!
//! The ring's code is the shipped one; only the memory is loom's. Words are loom atomics; payload bytes are loom cells,
//! so that a payload read without an order to its writing fails as a race. A lost wake-up fails as a deadlock.
#![cfg(loom)]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use shm_ring::client_ring::{self, ClientEnd, ClientIdentity, ServiceEnd, service_line};
use shm_ring::layout::{constants, router_line, slot, worker_line};
use shm_ring::{
    Generation, Geometry, Identity, Memory, Outcome, Request, RouterEnd, SlotIndex, Started, WorkerEnd,
};

const SLOT_COUNT: u32 = 2;
const PAYLOAD_SIZE: usize = 4;

#[derive(Clone)]
struct LoomMemory(Arc<Shared>);

struct Shared {
    words: BTreeMap<usize, AtomicU32>,
    payloads: BTreeMap<usize, UnsafeCell<[u8; PAYLOAD_SIZE]>>,
    /// The kernel's queue of sleepers: compare and sleep are one step under its lock.
    futex: Mutex<()>,
    woken: Condvar,
}

// SAFETY: loom's cells check at run time what sharing them would put at risk: that is what the test is for.
unsafe impl Sync for Shared {}
// SAFETY: as for Sync.
unsafe impl Send for Shared {}

impl LoomMemory {
    fn new(geometry: Geometry) -> Self {
        let mut offsets: Vec<usize> = (0..constants::SIZE).step_by(4).collect();
        offsets.extend((router_line::SUBMISSION_TAIL..=router_line::WAKE_COUNT).step_by(4));
        offsets.extend((worker_line::SUBMISSION_HEAD..=service_line::WAKE_COUNT).step_by(4));
        let mut payloads = Vec::new();
        for index in 0..SLOT_COUNT {
            offsets.extend([geometry.submission_entry(index), geometry.completion_entry(index)]);
            let place = geometry.slot(SlotIndex(index));
            for header in [place + slot::ROUTER_CONTROL, place + slot::WORKER_CONTROL] {
                offsets.extend((header..header + slot::HEADER_SIZE).step_by(4));
            }
            payloads.extend([place + slot::INLINE_PAYLOAD, place + slot::INLINE_RESULT]);
        }
        Self(Arc::new(Shared {
            words: offsets.into_iter().map(|offset| (offset, AtomicU32::new(0))).collect(),
            payloads: payloads
                .into_iter()
                .map(|offset| (offset, UnsafeCell::new([0; PAYLOAD_SIZE])))
                .collect(),
            futex: Mutex::new(()),
            woken: Condvar::new(),
        }))
    }
}

impl Memory for LoomMemory {
    fn size(&self) -> usize {
        usize::MAX
    }
    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.0.words[&offset].load(order)
    }
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.0.words[&offset].store(value, order);
    }
    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        u64::from(self.load_u32(offset, order)) | u64::from(self.load_u32(offset + 4, order)) << 32
    }
    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.store_u32(offset + 4, (value >> 32) as u32, order);
        self.store_u32(offset, value as u32, order);
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        if !into.is_empty() {
            // SAFETY: loom checks that nobody writes meanwhile.
            self.0.payloads[&offset].with(|bytes| into.copy_from_slice(unsafe { &*bytes }));
        }
    }
    fn write(&self, offset: usize, from: &[u8]) {
        if !from.is_empty() {
            // SAFETY: loom checks that nobody reads or writes meanwhile.
            self.0.payloads[&offset].with_mut(|bytes| unsafe { &mut *bytes }.copy_from_slice(from));
        }
    }
    fn fence_seq_cst(&self) {
        fence(Ordering::SeqCst);
    }
    fn futex_wait(&self, offset: usize, expected: u32, _timeout: Option<Duration>) {
        let queue = self.0.futex.lock().unwrap();
        if self.load_u32(offset, Ordering::Relaxed) == expected {
            drop(self.0.woken.wait(queue).unwrap());
        }
    }
    fn futex_wake(&self, _offset: usize) {
        let _queue = self.0.futex.lock().unwrap();
        self.0.woken.notify_one();
    }
}

/// An eventfd: stays rung until it is heard.
#[derive(Clone)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }
    fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
    fn hear(&self) {
        let mut is_ringing = self.0.0.lock().unwrap();
        while !*is_ringing {
            is_ringing = self.0.1.wait(is_ringing).unwrap();
        }
        *is_ringing = false;
    }
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

fn ring() -> (RouterEnd<LoomMemory>, WorkerEnd<LoomMemory>) {
    let geometry = Geometry::new(SLOT_COUNT, 4096).unwrap();
    let memory = LoomMemory::new(geometry);
    let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
    let router = RouterEnd::new(memory.clone(), geometry, identity);
    (router, WorkerEnd::attach(memory).unwrap())
}

fn payload(invocation_id: u64) -> [u8; PAYLOAD_SIZE] {
    (invocation_id as u32 * 0x0101_0101).to_le_bytes()
}

/// Takes one request and returns the payload as the result.
fn answer_one(worker: &mut WorkerEnd<LoomMemory>) -> bool {
    let Some(taken) = worker.next_request().unwrap() else { return false };
    let mut bytes = Vec::new();
    worker.read_payload(&taken, &mut bytes);
    assert_eq!(bytes, payload(taken.invocation_id));
    worker.complete(taken, Outcome::Ok, 1, 2, &bytes);
    true
}

fn accept_one(router: &mut RouterEnd<LoomMemory>, expected: u64) -> bool {
    let Some(completion) = router.next_completion().unwrap() else { return false };
    assert_eq!(completion.invocation_id, expected);
    let mut bytes = Vec::new();
    router.read_result(&completion, &mut bytes);
    assert_eq!(bytes, payload(expected));
    router.release(completion);
    true
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn what_is_published_is_seen_whole_or_not_at_all() {
    model(|| {
        let (mut router, mut worker) = ring();
        let thread = thread::spawn(move || {
            let answered = answer_one(&mut worker);
            worker.publish();
            answered
        });
        router.push(request(1), &payload(1)).unwrap();
        router.push(request(2), &payload(2)).unwrap();
        router.publish();
        let accepted = accept_one(&mut router, 1);
        // Given: a slot that was used before, used again.
        if accepted {
            router.push(request(3), &payload(3)).unwrap();
            router.publish();
        }
        let answered = thread.join().unwrap();
        assert!(answered || !accepted);
        if answered && !accepted {
            assert!(accept_one(&mut router, 1));
        }
        router.invariants();
    });
}

#[test]
fn no_wake_up_of_the_worker_is_lost() {
    model(|| {
        let (mut router, mut worker) = ring();
        let thread = thread::spawn(move || {
            while !answer_one(&mut worker) {
                worker.wait(0, None).unwrap();
            }
        });
        router.push(request(1), &payload(1)).unwrap();
        if router.publish() {
            router.wake();
        }
        thread.join().unwrap();
    });
}

#[test]
fn no_second_wake_up_of_the_worker_is_lost_either() {
    model(|| {
        let (mut router, mut worker) = ring();
        let thread = thread::spawn(move || {
            for _ in 0..2 {
                while !answer_one(&mut worker) {
                    worker.wait(0, None).unwrap();
                }
                assert!(!worker.publish(), "the router does not sleep in this test");
            }
        });
        for invocation_id in 1..=2 {
            router.push(request(invocation_id), &payload(invocation_id)).unwrap();
            if router.publish() {
                router.wake();
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn no_ring_of_the_router_is_lost() {
    model(|| {
        let (mut router, mut worker) = ring();
        let bell = Bell::new();
        let workers_bell = bell.clone();
        for invocation_id in 1..=2 {
            router.push(request(invocation_id), &payload(invocation_id)).unwrap();
        }
        router.publish();
        let thread = thread::spawn(move || {
            while answer_one(&mut worker) {
                if worker.publish() {
                    workers_bell.ring();
                }
            }
        });
        for invocation_id in 1..=2 {
            while !accept_one(&mut router, invocation_id) {
                if router.announce_sleep() {
                    bell.hear();
                    router.announce_awake();
                }
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_marked_request_that_looks_untaken_never_begins() {
    model(|| {
        let (mut router, mut worker) = ring();
        let slot = router.push(request(1), &payload(1)).unwrap();
        router.publish();
        let thread = thread::spawn(move || {
            let taken = worker.next_request().unwrap().expect("published before the thread began");
            !taken.cancelled
        });
        assert!(router.request_cancel(slot, 1));
        let is_untaken = router.was_started(slot) == Started::No;
        let has_begun = thread.join().unwrap();
        assert!(!(is_untaken && has_begun));
    });
}

#[test]
fn a_call_goes_there_and_back_while_both_sides_sleep() {
    model(|| {
        let (mut router, mut worker) = ring();
        let bell = Bell::new();
        let workers_bell = bell.clone();
        let thread = thread::spawn(move || {
            while !answer_one(&mut worker) {
                worker.wait(0, None).unwrap();
            }
            if worker.publish() {
                workers_bell.ring();
            }
        });
        router.push(request(1), &payload(1)).unwrap();
        if router.publish() {
            router.wake();
        }
        while !accept_one(&mut router, 1) {
            if router.announce_sleep() {
                bell.hear();
                router.announce_awake();
            }
        }
        thread.join().unwrap();
        router.invariants();
    });
}

fn client_ring() -> (ClientEnd<LoomMemory>, ServiceEnd<LoomMemory>) {
    let geometry = Geometry::new(SLOT_COUNT, 4096).unwrap();
    let memory = LoomMemory::new(geometry);
    let identity = ClientIdentity { generation: Generation(1), client_id: 0 };
    let service = ServiceEnd::new(memory.clone(), geometry, identity);
    (ClientEnd::attach(memory).unwrap(), service)
}

fn submit(client: &mut ClientEnd<LoomMemory>, call_id: u64) {
    let call = client_ring::Call {
        call_id,
        function_id: 0,
        criticality: 1,
        deadline_at_ns: u64::MAX,
        flags: 0,
        trace: None,
        idempotency_key: None,
    };
    client.submit(&call, &payload(call_id)).unwrap();
}

/// Takes one call and returns its payload as the result.
fn serve_one(service: &mut ServiceEnd<LoomMemory>) -> bool {
    let Some(call) = service.next_call().unwrap() else { return false };
    let mut bytes = [0; PAYLOAD_SIZE];
    let place = service.payload_place(call.slot, call.payload_size);
    service.memory().read(place, &mut bytes);
    assert_eq!(bytes, payload(call.call_id));
    let answer = client_ring::Answer { status: 0, flags: 0, retry_after_us: 0, timings: None };
    service.answer(call.slot, answer, PAYLOAD_SIZE as u32, |memory, place| memory.write(place, &bytes));
    true
}

fn receive_one(client: &mut ClientEnd<LoomMemory>, expected: u64) -> bool {
    let Some(answered) = client.next_answer().unwrap() else { return false };
    assert_eq!(answered.call_id, expected);
    let mut bytes = Vec::new();
    client.read_result(&answered, &mut bytes);
    assert_eq!(bytes, payload(expected));
    client.release(answered);
    true
}

#[test]
fn a_clients_call_goes_there_and_back_while_both_sides_sleep() {
    model(|| {
        let (mut client, mut service) = client_ring();
        let bell = Bell::new();
        let clients_bell = bell.clone();
        let thread = thread::spawn(move || {
            submit(&mut client, 1);
            if client.publish() {
                clients_bell.ring();
            }
            while !receive_one(&mut client, 1) {
                client.wait(0, None).unwrap();
            }
        });
        while !serve_one(&mut service) {
            if service.announce_sleep() {
                bell.hear();
                service.announce_awake();
            }
        }
        if service.publish() {
            service.wake();
        }
        thread.join().unwrap();
        service.invariants();
    });
}

#[test]
fn no_second_wake_up_of_a_client_is_lost_either() {
    model(|| {
        let (mut client, mut service) = client_ring();
        submit(&mut client, 1);
        submit(&mut client, 2);
        client.publish();
        let thread = thread::spawn(move || {
            for call_id in 1..=2 {
                while !receive_one(&mut client, call_id) {
                    client.wait(0, None).unwrap();
                }
            }
        });
        for _ in 0..2 {
            assert!(serve_one(&mut service));
            if service.publish() {
                service.wake();
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn no_ring_of_a_client_is_lost() {
    model(|| {
        let (mut client, mut service) = client_ring();
        let bell = Bell::new();
        let clients_bell = bell.clone();
        let thread = thread::spawn(move || {
            for call_id in 1..=2 {
                submit(&mut client, call_id);
                if client.publish() {
                    clients_bell.ring();
                }
            }
        });
        for _ in 0..2 {
            while !serve_one(&mut service) {
                if service.announce_sleep() {
                    bell.hear();
                    service.announce_awake();
                }
            }
        }
        thread.join().unwrap();
    });
}
