//! A shard at work allocates nothing: between two of its looks at the world, and in everything that a turn calls.
//!
//! The allocator of this program counts, for each thread. The shard shows the count of its own thread together with its
//! counters, which it does before it sleeps. So when it says that it has answered everything, the count is of all it did.
//!
//! Frames of 16 KiB and more that the end of a receive buffer cuts in two are not here: they are put together in memory of
//! their own, which they keep until they are pushed.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use engine::{Counter, Engine, Nanos};
use protocol::{FunctionId, Kind, Status};
use quickfire_client::shm::{Call, Options, ShmClient};
use router::shard::Publish;
use router::stats::ShardStats;
use support::*;

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

/// What the shard said last.
#[derive(Clone, Copy, Default)]
struct Told {
    admitted: u64,
    answered: u64,
    allocations: u64,
}

#[derive(Clone, Default)]
struct Account(Arc<Mutex<Told>>);

impl Publish for Account {
    fn publish(&mut self, _now: Nanos, _stats: &ShardStats, engine: &Engine) {
        let counted = |counter| engine.counters().value(counter);
        *self.0.lock().expect("lock") = Told {
            admitted: counted(Counter::CallsAdmitted),
            answered: counted(Counter::AnsweredOk),
            allocations: ALLOCATIONS.with(Cell::get),
        };
    }
}

impl Account {
    fn setup(&self) -> Setup {
        let account = self.clone();
        Setup { publish: Some(Box::new(move |_| Box::new(account.clone()))), ..echo() }
    }

    fn told(&self) -> Told {
        *self.0.lock().expect("lock")
    }

    /// Allocations of the shard's thread until it had answered so many calls.
    fn allocations_after(&self, answered: u64) -> u64 {
        wait_until("the shard has told of its answers", || self.told().answered >= answered);
        self.told().allocations
    }
}

/// Twice what a worker's ring holds, so that calls wait in their queue too.
const WINDOW: u32 = 128;
const WARMING_BATCHES: u64 = 20;
const BATCHES: u64 = 100;
/// What cannot be warmed on purpose is the second buffer for output, which is made when a send is first overtaken by more
/// answers. So one of these rounds may grow it; who allocates for each call or in each turn allocates in every round.
const ROUNDS_MAX: usize = 3;

/// Inline in a slot, in a region, and so large that windows are cut by the ends of receive buffers.
const PAYLOAD_SIZES: [usize; 3] = [32, 161, 6_000];

/// A worker that answers nothing before the shard has admitted so many calls.
fn held_echo_worker(bench: &Bench, account: &Account, held_until_admitted: &Arc<AtomicU64>) -> Worker {
    let (account, held_until_admitted) = (account.clone(), held_until_admitted.clone());
    bench.worker("echo", move |shift| {
        if account.told().admitted >= held_until_admitted.load(Ordering::SeqCst) {
            shift.answer_all(|payload| payload.to_vec());
        }
    })
}

/// Warms up, then counts. `batch` makes one window of calls and takes their answers. In the warming batches the worker
/// waits for the whole window to be with the router: as much as can ever wait there has waited once.
fn check(account: &Account, held_until_admitted: &AtomicU64, mut batch: impl FnMut()) {
    let mut made = 0;
    for _ in 0..WARMING_BATCHES {
        made += u64::from(WINDOW);
        held_until_admitted.store(made, Ordering::SeqCst);
        batch();
    }
    let mut counted = account.allocations_after(made);
    let rounds = [(); ROUNDS_MAX].map(|()| {
        for _ in 0..BATCHES {
            made += u64::from(WINDOW);
            batch();
        }
        let before = std::mem::replace(&mut counted, account.allocations_after(made));
        counted - before
    });
    assert!(rounds.contains(&0), "allocations in each {} calls: {rounds:?}", BATCHES * u64::from(WINDOW));
}

#[test]
fn a_shard_with_socket_clients_at_work_allocates_nothing() {
    let account = Account::default();
    let bench = account.setup().start();
    let held_until_admitted = Arc::default();
    let _worker = held_echo_worker(&bench, &account, &held_until_admitted);
    let mut wire = bench.client();
    let payload_of = |index: u32| vec![index as u8; PAYLOAD_SIZES[index as usize % PAYLOAD_SIZES.len()]];
    let frames: Vec<u8> = (0..WINDOW).flat_map(|index| invoke(call(index), &payload_of(index))).collect();
    check(&account, &held_until_admitted, || {
        wire.send(&frames);
        for _ in 0..WINDOW {
            let reply = wire.next().expect("a reply");
            assert_eq!((reply.kind, reply.status), (Kind::Reply, Status::Ok));
            let index = reply.header.call_id.slot();
            assert!(reply.payload == payload_of(index), "call {index}");
        }
    });
}

#[test]
fn a_shard_with_ring_clients_at_work_allocates_nothing() {
    let account = Account::default();
    let bench = account.setup().start();
    let held_until_admitted = Arc::default();
    let _worker = held_echo_worker(&bench, &account, &held_until_admitted);
    let options = Options { slot_count: WINDOW, ..Options::default() };
    let mut client = ShmClient::attach(bench.router.run_dir().path(), &options).expect("a ring");
    assert_eq!(client.slot_count(), WINDOW);
    check(&account, &held_until_admitted, || {
        for index in 0..WINDOW {
            let call = Call { call_id: index.into(), ..Call::of(FunctionId(0)) };
            let size = PAYLOAD_SIZES[index as usize % PAYLOAD_SIZES.len()];
            client.submit_in_place(&call, size, |payload| payload.fill(index as u8)).expect("a slot");
        }
        while client.outstanding() > 0 {
            client.wait(None).expect("an honest router");
            while let Some(answered) = client.poll().expect("an honest router") {
                let size = PAYLOAD_SIZES[answered.call_id as usize % PAYLOAD_SIZES.len()];
                let result = client.result(&answered);
                assert!(result.len() == size && result.iter().all(|byte| *byte == answered.call_id as u8));
                client.release(answered);
            }
        }
    });
}
