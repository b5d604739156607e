//! Calls that workers make while they run one, and what the router believes of what is said about them.

mod support;

use std::sync::mpsc::{Receiver, channel};

use engine::Counter;
use protocol::{CallId, CalledBy, Extensions, Flags, FrameParts, FunctionId, Status, WaitToken, encode};
use shm_ring::waits;
use support::*;

const TWO: &str = "[functions.echo]\ncommand = [\"true\"]\n[functions.other]\ncommand = [\"true\"]\n";

/// A worker that takes one call, shows this, and then waits for ever.
fn waiting_worker(bench: &Bench, name: &str, shows: WaitToken) -> (Worker, Receiver<u64>) {
    let (tell, told) = channel();
    let worker = bench.worker(name, move |shift| {
        if let Some(taken) = shift.take() {
            waits::show(shift.ring.memory(), shows.bits());
            tell.send(taken.invocation_id).expect("the test listens");
            drop(taken); // never answered
        }
    });
    (worker, told)
}

fn nested(call_id: CallId, function: FunctionId, invocation_id: u64, wait_token: WaitToken) -> Vec<u8> {
    let called_by = Some(CalledBy { invocation_id, depth: 1, wait_token });
    let mut bytes = Vec::new();
    encode(
        &mut bytes,
        &FrameParts::invoke(call_id, function),
        &Extensions { called_by, ..Extensions::NONE },
        b"",
    );
    bytes
}

#[test]
fn only_a_call_with_the_token_of_its_callers_own_process_ties_that_one_to_it() {
    // Given: each of two functions has one process, which runs a call and waits for one that it has made.
    let (echo, other) = (FunctionId(0), FunctionId(1));
    let of_echo = WaitToken::of_process(0x1234_5678).of_call(0);
    let of_other = WaitToken::of_process(0x8765_4321).of_call(0);
    let bench = Setup::new(TWO).start();
    let (_echo, echo_runs) = waiting_worker(&bench, "echo", of_echo);
    let (_other, other_runs) = waiting_worker(&bench, "other", of_other);
    let mut client = bench.client();
    client.send(&frame(&FrameParts::invoke(call(0), echo), b""));
    client.send(&frame(&FrameParts::invoke(call(1), other), b""));
    let echo_runs = echo_runs.recv_timeout(GIVE_UP).expect("echo runs");
    let other_runs = other_runs.recv_timeout(GIVE_UP).expect("other runs");

    // A stranger who has guessed the number of a call, but not the secret; who has another process's; who says nothing.
    let guesses = [WaitToken::of_process(7).of_call(0), of_other, WaitToken::NONE];
    for (slot, guess) in (2..).zip(guesses) {
        client.send(&nested(call(slot), other, echo_runs, guess));
    }
    client.send(&nested(call(5), echo, other_runs, of_other));
    bench.until("all nested calls are admitted", |seen| seen.engine(Counter::CallsNested) == 4);
    let ended = || bench.seen.engine(Counter::AnsweredWouldDeadlock);
    assert_eq!(ended(), 0, "the stranger's calls are no wait of echo's process");

    // Expect: its own call is, and closes the circle.
    client.send(&nested(call(6), other, echo_runs, of_echo));
    let reply = client.reply(call(6));
    assert_eq!(reply.status, Status::WouldDeadlock);
    assert!(!reply.header.flags.contains(Flags::STARTED), "it was never begun");
    bench.until("one call is told, and no other", |_| ended() == 1);
}
