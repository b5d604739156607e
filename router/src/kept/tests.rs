use engine::{Engine, FunctionSpec, Limits, Origin, Request, ShardId, TenantSpec, Verdict};
use protocol::{CallId, Flags};

use super::*;

const MANNER: Manner = Manner { flags: Flags::NONE, criticality: 2, extension_size: 0 };

/// An answer as the engine would give it to a call that is kept so.
fn answer(keep: Keep) -> Answer {
    let spec = FunctionSpec::named("f");
    let mut engine = Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), vec![spec])
        .expect("a sound configuration");
    let request = Request {
        origin: Origin { connection: 0, connection_generation: 0, call_id: CallId(1) },
        received_at: Nanos(1),
        function: FunctionId(0),
        criticality: 1,
        budget_us: 0,
        payload_size: 0,
        flags: Flags::NONE,
    };
    let Verdict::Admitted(id) = engine.handle_request(Nanos(1), request) else { panic!("not admitted") };
    engine.handle_cancel(Nanos(2), id, engine::CancelReason::Asked);
    Answer { keep, ..engine.poll_answer().expect("an answer") }
}

fn keep(calls: &mut KeptCalls, keep: Keep, payload: &[u8]) -> u64 {
    calls.keep(Nanos(5), &answer(keep), MANNER, Body { extensions: &[], payload })
}

fn never(_: &KeptCall) -> Ticket {
    panic!("nothing is to be replayed")
}

fn payloads(calls: &mut KeptCalls, shelf: Shelf) -> Vec<Vec<u8>> {
    let Told::List(summaries) = calls.obey(shelf, Wish::List, never) else { panic!("a list") };
    let numbers = summaries.iter().map(|summary| summary.number);
    numbers
        .map(|number| match calls.obey(shelf, Wish::Show(number), never) {
            Told::Call(call) => call.payload.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect()
}

const BOUNDS: KeptBounds = KeptBounds { count_max: 3, size_max: 100 };

#[test]
fn each_call_is_kept_on_its_shelf_with_its_bytes_and_a_number_of_its_own() {
    let mut calls = KeptCalls::new(7, BOUNDS);
    keep(&mut calls, Keep::InQuarantine, b"poison");
    keep(&mut calls, Keep::AsDeadLetter, b"letter");
    keep(&mut calls, Keep::No, b"nothing");
    assert_eq!(payloads(&mut calls, Shelf::Quarantine), [b"poison"]);
    assert_eq!(payloads(&mut calls, Shelf::DeadLetters), [b"letter"]);

    let Told::List(list) = calls.obey(Shelf::Quarantine, Wish::List, never) else { panic!("a list") };
    let number = list[0].number;
    assert_eq!(KeptCalls::shard_of(number), 7);
    assert_eq!((list[0].criticality, list[0].payload_size, list[0].ended_at), (2, 6, Nanos(5)));
    for wish in [Wish::Show(number), Wish::Drop(number)] {
        assert!(matches!(calls.obey(Shelf::DeadLetters, wish, never), Told::NoSuchCall));
    }
    let dropped = calls.obey(Shelf::Quarantine, Wish::Drop(number), never);
    assert!(matches!(dropped, Told::Dropped(summary) if summary == list[0]), "{dropped:?}");
    assert!(matches!(calls.obey(Shelf::Quarantine, Wish::Drop(number), never), Told::NoSuchCall));
    assert_eq!(calls.counts(), (0, 1));
}

#[test]
fn a_full_shelf_forgets_the_oldest_by_number_and_by_size() {
    let mut calls = KeptCalls::new(0, BOUNDS);
    let forgotten: u64 =
        [b"1", b"2", b"3", b"4"].into_iter().map(|it| keep(&mut calls, Keep::InQuarantine, it)).sum();
    assert_eq!(forgotten, 1);
    assert_eq!(payloads(&mut calls, Shelf::Quarantine), [b"2", b"3", b"4"]);

    // Expect: 98 bytes fit beside one other, and 101 beside nothing.
    assert_eq!(keep(&mut calls, Keep::InQuarantine, &[0; 99]), 2);
    assert_eq!(calls.counts(), (2, 0));
    assert_eq!(keep(&mut calls, Keep::InQuarantine, &[0; 101]), 1);
    assert_eq!(calls.counts(), (2, 0), "what can't be kept pushes nothing out");
}

#[test]
fn shelves_of_no_size_keep_nothing() {
    let mut calls = KeptCalls::new(0, KeptBounds { count_max: 0, ..BOUNDS });
    assert_eq!(keep(&mut calls, Keep::AsDeadLetter, b"x"), 1);
    assert_eq!(calls.counts(), (0, 0));
}
