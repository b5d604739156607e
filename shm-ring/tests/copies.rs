//! How often the bytes of a call are copied on their way: counted by the memory, which sees every copy into it, out of it
//! and across. Headers are words, read and written as such, and no copies.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use shm_ring::client_ring::{Answer, Call, ClientEnd, ClientIdentity, ServiceEnd};
use shm_ring::layout::slot::INLINE_RESULT_SIZE_MAX;
use shm_ring::{
    BorrowPayload, CopyFrom, Generation, Geometry, HeapMemory, Identity, Memory, Outcome, Request, RouterEnd,
    WorkerEnd,
};

/// One side's view of a ring's memory.
struct Counting {
    memory: HeapMemory,
    copied: Rc<Cell<usize>>,
}

impl Counting {
    fn new(geometry: Geometry, copied: &Rc<Cell<usize>>) -> Self {
        Self { memory: HeapMemory::new(geometry.memory_size()), copied: Rc::clone(copied) }
    }

    /// The same memory, seen by the other side.
    fn other_side(&self) -> Self {
        Self { memory: self.memory.clone(), copied: Rc::clone(&self.copied) }
    }

    fn count(&self, size: usize) {
        self.copied.set(self.copied.get() + size);
    }
}

impl Memory for Counting {
    fn size(&self) -> usize {
        self.memory.size()
    }
    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.memory.load_u32(offset, order)
    }
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.memory.store_u32(offset, value, order);
    }
    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.memory.load_u64(offset, order)
    }
    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.memory.store_u64(offset, value, order);
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.count(into.len());
        self.memory.read(offset, into);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.count(from.len());
        self.memory.write(offset, from);
    }
    fn append_to(&self, offset: usize, size: usize, out: &mut Vec<u8>) {
        self.count(size);
        self.memory.append_to(offset, size, out);
    }
    fn fence_seq_cst(&self) {
        self.memory.fence_seq_cst();
    }
}

impl CopyFrom<Counting> for Counting {
    fn copy_from(&self, offset: usize, source: &Counting, source_offset: usize, size: usize) {
        self.count(size);
        self.memory.copy_from(offset, &source.memory, source_offset, size);
    }
}

// SAFETY: a wrong or dangling slice would be undefined: the memory inside makes them, and lives as long as this.
unsafe impl BorrowPayload for Counting {
    unsafe fn bytes(&self, offset: usize, size: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on unchanged.
        unsafe { self.memory.bytes(offset, size) }
    }
    unsafe fn bytes_mut(&self, offset: usize, size: usize) -> &mut [u8] {
        // SAFETY: the caller's promise, passed on unchanged.
        unsafe { self.memory.bytes_mut(offset, size) }
    }
}

/// Inline in both directions, in one, and in none.
const SIZES: [usize; 6] = [1, 96, 97, 160, 161, 4096];

fn geometry() -> Geometry {
    Geometry::new(4, 4096).unwrap()
}

fn worker_ring(copied: &Rc<Cell<usize>>) -> (RouterEnd<Counting>, WorkerEnd<Counting>) {
    let memory = Counting::new(geometry(), copied);
    let other = memory.other_side();
    let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
    (RouterEnd::new(memory, geometry(), identity), WorkerEnd::attach(other).unwrap())
}

fn request() -> Request<'static> {
    Request {
        invocation_id: 1,
        deadline_at_ns: u64::MAX,
        pushed_at_ns: 0,
        flags: 0,
        criticality: 1,
        context: None,
    }
}

/// Bytes that `step` copied.
fn counted<T>(copied: &Cell<usize>, step: impl FnOnce() -> T) -> (usize, T) {
    let before = copied.get();
    let value = step();
    (copied.get() - before, value)
}

#[test]
fn a_payload_is_copied_once_into_a_workers_slot_and_its_result_once_in_and_once_out() {
    for size in SIZES {
        let copied = Rc::default();
        let (mut router, mut worker) = worker_ring(&copied);
        let payload = vec![7; size];

        assert_eq!(counted(&copied, || router.push(request(), &payload).unwrap()).0, size, "in");
        router.publish();
        let (looked_at, taken) = counted(&copied, || {
            let taken = worker.next_request().unwrap().unwrap();
            assert!(worker.payload(&taken) == payload);
            taken
        });
        assert_eq!(looked_at, 0, "the function reads in place");
        assert_eq!(counted(&copied, || worker.complete(taken, Outcome::Ok, 1, 2, &payload)).0, size, "in");
        worker.publish();

        let mut output = Vec::new();
        let completion = router.next_completion().unwrap().unwrap();
        assert_eq!(counted(&copied, || router.read_result(&completion, &mut output)).0, size, "out");
        assert!(output == payload);
        assert_eq!(counted(&copied, || router.release(completion)).0, 0);
    }
}

#[test]
fn a_large_result_made_in_place_is_not_copied_by_its_worker() {
    for size in SIZES {
        let copied = Rc::default();
        let (mut router, mut worker) = worker_ring(&copied);
        router.push(request(), b"").unwrap();
        router.publish();
        let taken = worker.next_request().unwrap().unwrap();
        worker.buffers(&taken).1[..size].fill(7);
        let (moved, ()) = counted(&copied, || worker.complete_in_place(taken, Outcome::Ok, 1, 2, size));
        // A small one moves from its region into the slot: once out, once in.
        assert_eq!(moved, if size > INLINE_RESULT_SIZE_MAX { 0 } else { 2 * size }, "{size}");
    }
}

#[test]
fn a_ring_clients_payload_is_copied_once_to_the_worker_and_its_result_once_back() {
    for size in SIZES {
        let copied = Rc::default();
        let (mut router, mut worker) = worker_ring(&copied);
        let memory = Counting::new(geometry(), &copied);
        let mut client_side = memory.other_side();
        client_side.copied = Rc::default();
        let on_client_side = Rc::clone(&client_side.copied);
        let identity = ClientIdentity { generation: Generation(1), client_id: 0 };
        let mut service = ServiceEnd::new(memory, geometry(), identity);
        let mut client = ClientEnd::attach(client_side).unwrap();

        let call = Call {
            call_id: 1,
            function_id: 0,
            criticality: 1,
            deadline_at_ns: u64::MAX,
            flags: 0,
            trace: None,
            idempotency_key: None,
        };
        client.submit_in_place(&call, size, |payload| payload.fill(7)).unwrap();
        client.publish();
        let (to_worker, slot) = counted(&copied, || {
            let call = service.next_call().unwrap().unwrap();
            let place = service.payload_place(call.slot, call.payload_size);
            router.push_from(request(), service.memory(), place, size).unwrap();
            call.slot
        });
        assert_eq!(to_worker, size, "from ring to ring");
        router.publish();
        let taken = worker.next_request().unwrap().unwrap();
        let result = worker.payload(&taken).to_vec();
        worker.complete(taken, Outcome::Ok, 1, 2, &result);
        worker.publish();
        let (to_client, ()) = counted(&copied, || {
            let completion = router.next_completion().unwrap().unwrap();
            let answer = Answer { status: 0, flags: 0, retry_after_us: 0, timings: None };
            let place = router.result_place(&completion);
            service.answer(slot, answer, completion.result_size, |memory, offset| {
                memory.copy_from(offset, router.memory(), place, size);
            });
            router.release(completion);
        });
        assert_eq!(to_client, size, "and back");
        service.publish();
        let answered = client.next_answer().unwrap().unwrap();
        assert!(client.result(&answered) == vec![7; size]);
        client.release(answered);
        assert_eq!(on_client_side.get(), 0, "the client writes and reads in place");
    }
}
