//! Calls that outlive their answers: listed, shown, run once more, dropped; from any thread.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use protocol::{Extensions, Flags, FrameParts, FunctionId, Status, encode};
use router::kept::{KeptCalls, Shelf, Told, Wish};
use shm_ring::Outcome;
use support::*;

const FRAGILE: &str =
    "[functions.fragile]\ncommand = [\"true\"]\nslots = 4\nidempotent = true\nretry_errors = true\n";

/// What the only shard tells about its dead letters.
fn ask(bench: &Bench, wish: Wish) -> Told {
    bench.router.ask_kept(0, Shelf::DeadLetters, wish).expect("the shard answers")
}

fn count(bench: &Bench) -> usize {
    match ask(bench, Wish::List) {
        Told::List(calls) => calls.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_letter_is_listed_shown_replayed_and_dropped() {
    // Given: a function that fails three times, twice for one call, and then works.
    let bench = Setup::new(FRAGILE).start();
    let failures_left = Arc::new(AtomicU32::new(3));
    let _worker = bench.worker("fragile", move |shift| {
        if let Some(taken) = shift.take() {
            let is_failure =
                failures_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            let outcome = if is_failure.is_ok() { Outcome::FunctionError } else { Outcome::Ok };
            let payload = shift.payload(&taken);
            shift.complete(taken, outcome, &payload);
            shift.publish();
        }
    });
    let mut client = bench.client();
    let mut bytes = Vec::new();
    let extensions = Extensions { idempotency_key: Some([7; 16]), ..Extensions::NONE };
    encode(&mut bytes, &FrameParts::invoke(call(0), FunctionId(0)), &extensions, b"precious");
    client.send(&bytes);
    let reply = client.reply(call(0));
    assert_eq!((reply.status, &reply.payload[..]), (Status::FunctionError, &b"precious"[..]));

    // Expect: it is kept with everything that its worker was given.
    let Told::List(list) = ask(&bench, Wish::List) else { panic!("a list") };
    let [summary] = list[..] else { panic!("{list:?}") };
    assert_eq!((summary.status, summary.attempts, summary.payload_size), (Status::FunctionError, 2, 8));
    assert_eq!(KeptCalls::shard_of(summary.number), 0);
    let Told::Call(kept) = ask(&bench, Wish::Show(summary.number)) else { panic!("a call") };
    assert_eq!((&kept.payload[..], &kept.extensions[..]), (&b"precious"[..], &[7; 16][..]));
    assert!(kept.manner.flags.contains(Flags::IDEMPOTENCY_KEY));

    // Expect: run once more it is a new call, with retries of its own.
    let Told::Replayed(_, ticket) = ask(&bench, Wish::Replay(summary.number)) else { panic!("a ticket") };
    let answer = ticket.wait();
    assert_eq!((answer.status, &answer.payload[..]), (Status::Ok, &b"precious"[..]));
    assert_eq!(count(&bench), 1, "it stays until it is dropped");
    assert!(matches!(ask(&bench, Wish::Drop(summary.number)), Told::Dropped(_)));
    assert!(matches!(ask(&bench, Wish::Show(summary.number)), Told::NoSuchCall));
    assert_eq!(count(&bench), 0);
}

#[test]
fn a_shard_that_is_not_there_tells_nothing() {
    let bench = Setup::new(FRAGILE).start();
    assert!(bench.router.ask_kept(9, Shelf::Quarantine, Wish::List).is_none());
}
