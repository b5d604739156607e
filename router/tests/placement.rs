//! Two shards, real threads and sockets: where connections go, and that a move under full load costs no answer.

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::{CallId, Status};
use router::placement::{Load, Thresholds};
use support::*;

/// Two shards with a worker of `echo` each, and what each tells of itself.
struct TwoShards {
    bench: Bench,
    seen: [Seen; 2],
    _workers: [Worker; 2],
}

impl TwoShards {
    fn start(thresholds: Thresholds) -> TwoShards {
        let seen = [Seen::default(), Seen::default()];
        let told = seen.clone();
        let setup = Setup {
            router: "shards = 2".to_owned(),
            publish: Some(Box::new(move |shard| Box::new(told[shard as usize].clone()))),
            placement: Some(thresholds),
            ..echo()
        };
        let bench = setup.start();
        let workers = [0, 1].map(|shard| {
            bench.worker_of(shard, "echo", |shift| shift.answer_all(|payload| payload.to_vec()))
        });
        TwoShards { bench, seen, _workers: workers }
    }

    fn replies(&self) -> [u64; 2] {
        self.seen.each_ref().map(|seen| seen.shard(|counters| counters.replies))
    }

    fn moved_out(&self) -> u64 {
        self.seen.iter().map(|seen| seen.shard(|counters| counters.connections_moved_out)).sum()
    }

    /// The shard that serves this client.
    fn home_of(&self, client: &mut Wire, call_id: CallId) -> usize {
        let before = self.replies();
        client.call(call_id, b"where am I");
        let mut home = None;
        wait_until("a shard tells of the call", || {
            let after = self.replies();
            home = (0..2).find(|shard| after[*shard] > before[*shard]);
            home.is_some()
        });
        home.expect("one of the two")
    }
}

/// So that a test with a machine to itself and one beside many others both find a loaded shard.
const EASILY_LOADED: Thresholds = Thresholds { loaded_min: Load(50), gap_min: Load(25) };

#[test]
fn connections_are_spread_evenly_wherever_the_kernel_puts_them() {
    let shards = TwoShards::start(Thresholds::default());
    let clients: Vec<_> = (0..8).map(|_| shards.bench.client()).collect();
    wait_until("four on each", || {
        shards.seen.iter().all(|seen| seen.shard(|counters| counters.connections_open) == 4)
    });
    drop(clients);
    wait_until("all are gone", || {
        shards.seen.iter().all(|seen| seen.shard(|counters| counters.connections_open) == 0)
    });
}

#[test]
fn the_load_of_one_shard_becomes_even_and_every_call_is_answered_once() {
    let shards = TwoShards::start(EASILY_LOADED);
    // Given: four connections, and all calls come through the two that one shard has.
    let mut clients: Vec<_> = (0..4).map(|_| shards.bench.client()).collect();
    let homes: Vec<_> =
        clients.iter_mut().map(|client| shards.home_of(client, CallId::new(WINDOW, 0))).collect();
    assert_eq!(homes.iter().sum::<usize>(), 2, "two on each: {homes:?}");
    assert_eq!(shards.replies().iter().sum::<u64>(), 4);
    let moved_before = shards.moved_out();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = clients
        .into_iter()
        .zip(homes)
        .filter(|(_, home)| *home == 0)
        .map(|(client, _)| {
            let is_over = is_over.clone();
            std::thread::spawn(move || call_until(client, &is_over))
        })
        .collect();

    wait_until("a connection moved", || shards.moved_out() > moved_before);
    let at_move = shards.replies();
    wait_until("both shards serve now", || {
        shards.replies().iter().zip(at_move).all(|(now, before)| *now > before + 1000)
    });
    is_over.store(true, Ordering::SeqCst);
    let calls: u64 = callers.into_iter().map(|caller| caller.join().expect("every call is answered")).sum();

    // Expect: as many answers as calls, and nobody was told to go.
    wait_until("all answers are counted", || shards.replies().iter().sum::<u64>() == calls + 4);
    for seen in &shards.seen {
        assert_eq!(seen.shard(|counters| counters.replies_orphaned), 0);
        assert_eq!(seen.shard(|counters| counters.clients_misbehaved), 0);
    }
}

/// Calls that are outstanding at one time.
const WINDOW: u32 = 64;

/// Keeps a window of calls outstanding until told to stop, and checks that each is answered once, with what it said.
/// Returns how many they were.
fn call_until(mut client: Wire, is_over: &AtomicBool) -> u64 {
    let mut calls = 0u64;
    let mut free: VecDeque<u32> = (0..WINDOW).collect();
    let mut outstanding = [None; WINDOW as usize];
    loop {
        let mut bytes = Vec::new();
        while !is_over.load(Ordering::SeqCst)
            && let Some(slot) = free.pop_front()
        {
            calls += 1;
            outstanding[slot as usize] = Some(calls);
            bytes.extend(invoke(CallId::new(slot, calls as u32), &calls.to_le_bytes()));
        }
        client.send(&bytes);
        if free.len() == WINDOW as usize {
            return calls;
        }
        let reply = client.next().expect("the connection lasts");
        let slot = reply.header.call_id.slot();
        let call = outstanding[slot as usize].take().expect("answered once");
        assert_eq!((reply.status, reply.header.call_id), (Status::Ok, CallId::new(slot, call as u32)));
        assert_eq!(reply.payload, call.to_le_bytes());
        free.push_back(slot);
    }
}
