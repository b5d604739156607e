//! A ring at work allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use shm_ring::client_ring::{Answer, Call, ClientEnd, ClientIdentity, ServiceEnd};
use shm_ring::{
    Context, Generation, Geometry, HeapMemory, Identity, Memory, Outcome, Request, RouterEnd, WorkerEnd,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: a wrong allocator would corrupt memory; every call is passed to the system's with its arguments unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise, passed on unchanged.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on unchanged.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_ring_at_work_allocates_nothing() {
    let geometry = Geometry::new(64, 4096).unwrap();
    let memory = HeapMemory::new(geometry.memory_size());
    let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
    let mut router = RouterEnd::new(memory.clone(), geometry, identity);
    let mut worker = WorkerEnd::attach(memory).unwrap();
    let mut result = Vec::with_capacity(4096);
    let payload = [7; 300];
    let before = ALLOCATIONS.with(Cell::get);
    for batch in 0..100_u64 {
        for index in 0..64 {
            let request = Request {
                invocation_id: batch * 64 + index,
                deadline_at_ns: u64::MAX,
                pushed_at_ns: 0,
                flags: 0,
                criticality: 2,
                context: Some(&Context { trace: Some([1; 32]), idempotency_key: Some([2; 16]) }),
            };
            router.push(request, &payload).unwrap();
        }
        router.publish();
        while let Some(taken) = worker.next_request().unwrap() {
            worker.complete(taken, Outcome::Ok, 0, 0, &payload[..100]);
        }
        worker.publish();
        while let Some(completion) = router.next_completion().unwrap() {
            result.clear();
            router.read_result(&completion, &mut result);
            router.release(completion);
        }
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}

#[test]
fn a_client_ring_at_work_allocates_nothing() {
    let geometry = Geometry::new(64, 4096).unwrap();
    let memory = HeapMemory::new(geometry.memory_size());
    let identity = ClientIdentity { generation: Generation(1), client_id: 0 };
    let mut service = ServiceEnd::new(memory.clone(), geometry, identity);
    let mut client = ClientEnd::attach(memory).unwrap();
    let payload = [7; 300];
    let before = ALLOCATIONS.with(Cell::get);
    for batch in 0..100_u64 {
        for index in 0..64 {
            let call = Call {
                call_id: batch * 64 + index,
                function_id: 0,
                criticality: 2,
                deadline_at_ns: u64::MAX,
                flags: 0,
                trace: Some([1; 32]),
                idempotency_key: Some([2; 16]),
            };
            client.submit(&call, &payload).unwrap();
        }
        client.publish();
        while let Some(call) = service.next_call().unwrap() {
            let answer = Answer { status: 0, flags: 0, retry_after_us: 0, timings: Some(&[3; 64]) };
            service.answer(call.slot, answer, 100, |memory, place| memory.write(place, &payload[..100]));
        }
        service.publish();
        while let Some(answered) = client.next_answer().unwrap() {
            assert_eq!(client.result(&answered).len(), 100);
            client.release(answered);
        }
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}
