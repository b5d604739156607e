//! What `quickfire record` costs a shard for one call, in instructions: the difference of two runs under valgrind.
//!
//! In: a number of turns, and `on` or `off`.  Out: nothing worth reading; the count is valgrind's.
//! A turn takes 64 calls through the engine, from a request to its answer; with `on`, a shard's tape is told of each as the
//! router tells it. `valgrind --tool=callgrind recording 1000 on`, less the same with `off`, divided by 64,000.
//! Always: the same calls in the same order, on a tape that a recorder has opened; all of them fit its ring.
//! Not in it: what the cache does to the shard while the recorder reads; docs/decisions/0023-simulation.md has both.

#![forbid(unsafe_code)]

use std::hint::black_box;

use engine::{
    Engine, Finished, FunctionSpec, Limits, Nanos, Origin, Push, Request, RunOutcome, ShardId, TenantSpec,
    Verdict,
};
use protocol::{CallId, Flags, FunctionId};
use router::tape::{Tape, TapeReader};

/// Calls of one turn, as in `turn`.
const BATCH: u32 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [turns, mode] = &arguments[..] else { return usage() };
    let (Ok(turns), "on" | "off") = (turns.parse::<u64>(), mode.as_str()) else { return usage() };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tape");
    let mut tape = Tape::create(&path, 0).expect("a tape");
    let reader = TapeReader::open(&path).expect("the tape just made");
    reader.renew(if mode == "on" { u64::MAX } else { 0 }, false);

    let spec = FunctionSpec::named("echo");
    let mut engine = Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), vec![spec])
        .expect("a sound configuration");
    let worker = engine.handle_worker_attached(Nanos(1), FunctionId(0), 1024).expect("room for a worker");
    let mut pushes: Vec<Push> = Vec::with_capacity(BATCH as usize);
    for turn in 1..=turns {
        let now = Nanos(turn * 3_000);
        let is_recording = tape.begin_turn(now);
        let mut waiting = 0;
        for slot in 0..BATCH {
            match engine.handle_request(now, request(now, slot)) {
                Verdict::Pushed(push) => pushes.push(push),
                Verdict::Admitted(_) => waiting += 1,
                other => panic!("a call of ours was not admitted: {other:?}"),
            }
        }
        while !pushes.is_empty() || waiting > 0 {
            for push in pushes.drain(..) {
                let finished = Finished { outcome: RunOutcome::Ok, started_at: now, finished_at: now };
                let mut found = None;
                let results = std::iter::once((push.invocation, finished));
                engine.handle_results(now, worker, results, |answer| found = Some(answer));
                let answer = black_box(found.expect("a call of ours ends as nearly every one does"));
                if is_recording {
                    tape.answered(&engine, &answer, 32, |_| black_box(32));
                }
            }
            while let Some(push) = engine.poll_push(now) {
                waiting -= 1;
                pushes.push(push);
            }
        }
        if is_recording {
            tape.end_turn();
        }
    }
    assert_eq!(reader.lost_count(), 0, "every call has room on the tape");
}

fn request(now: Nanos, slot: u32) -> Request {
    Request {
        origin: Origin { connection: 0, connection_generation: 1, call_id: CallId::new(slot, 1) },
        received_at: now,
        function: FunctionId(0),
        criticality: 1,
        budget_us: 0,
        payload_size: 32,
        flags: Flags::NONE,
    }
}

fn usage() {
    eprintln!("usage: recording TURNS (of {BATCH} calls each, at most 2,000) on|off");
    std::process::exit(2);
}
