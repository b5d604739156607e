use protocol::{Cause, Timings};

use super::*;

#[test]
fn each_outcome_has_its_status_and_tells_whether_it_started() {
    let cases = [
        (RunOutcome::Ok, Status::Ok, true),
        (RunOutcome::FunctionError, Status::FunctionError, true),
        (RunOutcome::ResultTooLarge, Status::ResultTooLarge, true),
        (RunOutcome::Backpressure, Status::Backpressure, true),
        (RunOutcome::Expired, Status::Expired, false),
        (RunOutcome::Cancelled, Status::Cancelled, false),
    ];
    for (outcome, status, has_started) in cases {
        let mut story = Story::new();
        story.attach(ECHO, 1);
        story.call();
        let push = story.push().expect("a worker has credit");
        let Completed::Answer(answer) = story.complete(push, outcome) else { panic!("no answer") };
        assert_eq!((answer.status, answer.flags.contains(Flags::STARTED)), (status, has_started));
    }
}

#[test]
fn an_answer_goes_where_its_request_came_from() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let id = story.admit(Request { flags: Flags::WANT_TIMINGS, ..request() });
    let push = story.push().expect("a worker has credit");
    let Completed::Answer(answer) = story.complete(push, RunOutcome::Ok) else { panic!("no answer") };
    assert_eq!(answer.origin, Origin { connection: 1, connection_generation: 2, call_id: CallId(1) });
    assert_eq!((answer.invocation, answer.function, answer.want_timings), (id, ECHO, true));
}

/// A call received at 0, admitted at 10, pushed at 100, with the worker's stamps, answered at 1000 (us after 1 s).
fn timings_of(started_us: u64, finished_us: u64) -> Timings {
    let mut story = Story::new();
    let received_at = story.now;
    let at = |us| received_at.plus(Nanos::from_us(us));
    story.now = at(10);
    story.admit(Request { received_at, ..request() });
    story.attach(ECHO, 1);
    story.now = at(100);
    let push = story.push().expect("a worker has credit");
    let finished =
        Finished { outcome: RunOutcome::Ok, started_at: at(started_us), finished_at: at(finished_us) };
    let Completed::Answer(answer) =
        story.engine.handle_completion(at(1000), push.worker, push.invocation, finished)
    else {
        panic!("no answer");
    };
    answer.stamps.timings()
}

#[test]
fn timings_are_counted_from_receipt_and_name_the_longest_wait() {
    let expected = Timings {
        received_at_ns: 1_000_000_000,
        admitted_ns: 10_000,
        queued_ns: 10_000,
        pushed_ns: 100_000,
        started_ns: 150_000,
        finished_ns: 900_000,
        answered_ns: 1_000_000,
        cause: Cause::Function,
    };
    assert_eq!(timings_of(150, 900), expected);
    assert_eq!(timings_of(800, 900).cause, Cause::Ring);
    assert_eq!(timings_of(110, 120).cause, Cause::Reply);
}

#[test]
fn a_workers_impossible_stamps_are_brought_into_order() {
    for (started_us, finished_us, expected) in
        [(0, 0, (100, 100)), (5000, 6000, (1000, 1000)), (500, 200, (500, 500)), (50, 5000, (100, 1000))]
    {
        let timings = timings_of(started_us, finished_us);
        assert_eq!((timings.started_ns / 1000, timings.finished_ns / 1000), expected);
    }
}

#[test]
fn a_call_that_expired_in_its_queue_has_no_later_stamps_and_waited_for_a_worker() {
    let mut story = Story::new();
    story.call();
    story.pass(Nanos::from_secs(31), NOT_STARTED);
    let timings = story.engine.poll_answer().expect("it expired").stamps.timings();
    assert_eq!(timings.cause, Cause::Worker);
    assert_eq!(timings.pushed_ns, Timings::NOT_REACHED);
    assert_eq!(timings.answered_ns, 31_000_000_000);
}

#[test]
fn a_call_overtaken_by_a_later_one_waited_for_the_order() {
    let mut story = Story::new();
    let patient = story.admit(Request { criticality: 0, ..request() });
    story.now = story.now.plus(Nanos::from_ms(1));
    story.admit(Request { criticality: 3, ..request() });
    story.attach(ECHO, 2);
    let causes: Vec<_> = story
        .pushes()
        .into_iter()
        .map(|push| match story.complete(push, RunOutcome::Cancelled) {
            Completed::Answer(answer) => (answer.invocation == patient, answer.stamps.timings().cause),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(causes, [(false, Cause::None), (true, Cause::Order)]);
}
