//! A configuration takes the place of another while calls run.

use super::*;

fn reconfigure(story: &mut Story, table: Vec<Option<FunctionSpec>>) -> Result<(), EngineRefused> {
    let done = story.engine.handle_reconfigure(TenantSpec::only_default(), table);
    story.engine.invariants();
    done
}

fn names(story: &Story) -> Vec<Option<FunctionId>> {
    ["echo", "other", "new"].map(|name| story.engine.resolve(name)).to_vec()
}

#[test]
fn changed_numbers_hold_for_calls_that_are_admitted_from_now_on() {
    // Given: a call with the old time-out of 30 s.
    let mut story = Story::new();
    story.call();
    // When
    let short = FunctionSpec { timeout: Nanos::from_secs(5), queue_count_max: 2, ..spec("echo") };
    reconfigure(&mut story, vec![Some(short), Some(spec("other"))]).unwrap();
    // Expect: the next one has the new time-out, the one after it finds the queue full.
    story.call();
    assert_eq!(story.refusal(request()), Status::QueueFull);
    story.pass(Nanos::from_secs(6), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
    story.pass(Nanos::from_secs(30), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
}

#[test]
fn an_added_function_gets_the_next_id_and_runs() {
    let mut story = Story::new();
    reconfigure(&mut story, vec![Some(spec("echo")), Some(spec("other")), Some(spec("new"))]).unwrap();
    assert_eq!(names(&story), [Some(ECHO), Some(OTHER), Some(FunctionId(2))]);
    story.attach(FunctionId(2), 1);
    let id = story.admit(Request { function: FunctionId(2), ..request() });
    let push = story.push().expect("it has a worker");
    assert_eq!(push.invocation, id);
    assert_eq!(status_of(story.complete(push, RunOutcome::Ok)), Some(Status::Ok));
}

#[test]
fn a_removed_function_admits_nothing_and_finishes_what_it_has() {
    // Given: one call runs, one waits.
    let mut story = Story::new();
    let worker = story.attach(ECHO, 1);
    story.call_many(2);
    let first = story.push().expect("a worker is free");
    // When
    reconfigure(&mut story, vec![None, Some(spec("other"))]).unwrap();
    // Expect
    assert_eq!(names(&story), [None, Some(OTHER), None]);
    assert_eq!(story.refusal(request()), Status::UnknownFunction);
    assert_eq!(story.actions(), [], "its worker is needed");
    assert_eq!(status_of(story.complete(first, RunOutcome::Ok)), Some(Status::Ok));
    let second = story.push().expect("what waits still runs");
    story.pass(Nanos::from_ms(1), NOT_STARTED);
    assert_eq!(story.actions(), [], "its worker is still needed");
    assert_eq!(status_of(story.complete(second, RunOutcome::Ok)), Some(Status::Ok));
    story.pass(Nanos::from_ms(1), NOT_STARTED);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker }]);
    let refused = story.engine.handle_worker_attached(story.now, ECHO, 1);
    assert_eq!(refused, Err(AttachRefused::UnknownFunction(ECHO)));
}

#[test]
fn a_call_of_a_removed_function_whose_worker_dies_is_run_by_another() {
    let mut story = Story::new();
    let [first, _second] = [story.attach(ECHO, 1), story.attach(ECHO, 1)];
    story.call_many(2);
    let pushes = story.pushes();
    reconfigure(&mut story, vec![None, Some(spec("other"))]).unwrap();
    story.lose(first, NOT_STARTED);
    let kept = pushes.iter().find(|push| push.worker != first).expect("both run");
    assert_eq!(status_of(story.complete(*kept, RunOutcome::Ok)), Some(Status::Ok));
    let again = story.push().expect("the worker that is left takes it");
    assert_eq!(status_of(story.complete(again, RunOutcome::Ok)), Some(Status::Ok));
}

#[test]
fn a_removed_function_that_comes_back_has_its_old_id() {
    let mut story = Story::new();
    reconfigure(&mut story, vec![None, Some(spec("other"))]).unwrap();
    reconfigure(&mut story, vec![None, Some(spec("other")), Some(spec("new"))]).unwrap();
    reconfigure(&mut story, vec![Some(spec("echo")), Some(spec("other")), None]).unwrap();
    assert_eq!(names(&story), [Some(ECHO), Some(OTHER), None]);
    story.attach(ECHO, 1);
    story.call();
    assert!(story.push().is_some());
}

#[test]
fn a_removed_function_grants_no_lease_and_takes_those_back_that_it_granted() {
    let mut story = Story::new();
    let worker = story.attach(ECHO, 8);
    let lease = story.engine.lease(ECHO, 2, |_| true).expect("it has credits");
    reconfigure(&mut story, vec![None, Some(spec("other"))]).unwrap();
    assert_eq!(story.engine.lease(ECHO, 2, |_| true), Err(LeaseRefused::UnknownFunction(ECHO)));
    assert_eq!(story.engine.recall(story.now, &lease), Some(Recall::WorkerLeaving));
    story.pass(Nanos::from_ms(1), NOT_STARTED);
    assert_eq!(story.actions(), [], "a call may still run in the lane");
    story.engine.end_lease(lease);
    story.pass(Nanos::from_ms(1), NOT_STARTED);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker }]);
}

#[test]
fn workers_of_the_edition_before_serve_until_the_first_of_the_new_one_attaches() {
    // Given: one old worker that runs a call, and one that does not.
    let mut story = Story::new();
    let [idle, busy] = [story.attach(ECHO, 1), story.attach(ECHO, 1)];
    story.call();
    let running = story.push().expect("a worker is free");
    assert_eq!(running.worker, busy);
    // When
    reconfigure(&mut story, vec![Some(FunctionSpec { edition: 2, ..spec("echo") }), None]).unwrap();
    // Expect: they go on, until a new one is there.
    story.call();
    let on_old = story.push().expect("the old one serves");
    assert_eq!(on_old.worker, idle);
    story.complete(on_old, RunOutcome::Ok);
    assert_eq!(story.actions(), []);
    let fresh = story.attach(ECHO, 1);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: idle }]);
    story.call();
    assert_eq!(story.push().map(|push| push.worker), Some(fresh));
    assert_eq!(status_of(story.complete(running, RunOutcome::Ok)), Some(Status::Ok), "it finishes its call");
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: busy }]);
}

#[test]
fn a_worker_of_another_edition_is_taken_while_others_of_its_own_serve_or_nobody_does() {
    // Given: a router that knows edition 3 only, and the processes that one before it left.
    let mut story = Story::new();
    reconfigure(&mut story, vec![Some(FunctionSpec { edition: 3, ..spec("echo") }), None]).unwrap();
    let come = |story: &mut Story, edition| {
        let come = story.engine.handle_worker_of_edition(story.now, ECHO, edition, 1);
        story.engine.invariants();
        come
    };
    story.engine.handle_function_failing(ECHO, true);
    let [first, second] = [come(&mut story, 1).unwrap(), come(&mut story, 1).unwrap()];
    // Expect: they serve, and what is said of the program in force still stands. Those of a third edition do not mix with them.
    story.call();
    let running = story.push().expect("an earlier one serves");
    assert_eq!(running.worker, second);
    let view = story.engine.function_view(ECHO).unwrap();
    assert_eq!((view.workers, view.workers_earlier, view.is_failing), (2, 2, true));
    assert_eq!(story.engine.serving_edition(ECHO), Some(1));
    assert_eq!(come(&mut story, 2), Err(AttachRefused::Superseded(ECHO)));
    // When the first of edition 3 is there, they go, and no other one is taken.
    let fresh = come(&mut story, 3).unwrap();
    assert_eq!(story.engine.serving_edition(ECHO), Some(3));
    assert!(!story.engine.function_view(ECHO).unwrap().is_failing);
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: first }]);
    assert_eq!(come(&mut story, 1), Err(AttachRefused::Superseded(ECHO)));
    assert_eq!(status_of(story.complete(running, RunOutcome::Ok)), Some(Status::Ok));
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: second }]);
    // When edition 3 has no worker any more, an earlier one is better than none.
    story.lose(fresh, NOT_STARTED);
    assert_eq!(story.engine.serving_edition(ECHO), None);
    come(&mut story, 2).unwrap();
    story.call();
    assert!(story.push().is_some());
}

#[test]
fn a_larger_payload_waits_for_rings_that_have_room_for_it() {
    let large = || Request { payload_size: 2000, ..request() };
    let wider = || FunctionSpec { edition: 2, payload_size_max: 2000, ..spec("echo") };
    // Given: a worker with the smaller ring.
    let mut story = Story::new();
    story.attach(ECHO, 4);
    reconfigure(&mut story, vec![Some(wider()), None]).unwrap();
    assert_eq!(story.refusal(large()), Status::PayloadTooLarge);
    // When the first one with the larger ring is there.
    let fresh = story.attach(ECHO, 4);
    // Expect
    story.admit(large());
    assert_eq!(story.push().map(|push| push.worker), Some(fresh));
    // A function without workers has no ring to wait for.
    let mut story = Story::new();
    reconfigure(&mut story, vec![Some(wider()), None]).unwrap();
    story.admit(large());
}

#[test]
fn a_smaller_payload_holds_at_once() {
    let mut story = Story::new();
    story.attach(ECHO, 4);
    let smaller = FunctionSpec { edition: 2, payload_size_max: 10, ..spec("echo") };
    reconfigure(&mut story, vec![Some(smaller), None]).unwrap();
    assert_eq!(story.refusal(request()), Status::PayloadTooLarge);
}

#[test]
fn workers_that_are_too_many_are_sent_away_the_coldest_first() {
    // Given: three workers; the last one attached is used first.
    let mut story = Story::new();
    let [cold, cool, warm] = [story.attach(ECHO, 2), story.attach(ECHO, 2), story.attach(ECHO, 2)];
    // When
    reconfigure(&mut story, vec![Some(FunctionSpec { workers_max: 1, ..spec("echo") }), None]).unwrap();
    // Expect
    assert_eq!(story.actions(), [WorkerAction::Stop { worker: cold }, WorkerAction::Stop { worker: cool }]);
    story.call();
    assert_eq!(story.push().map(|push| push.worker), Some(warm));
    // One that was on its way when it became too many finds the door open, and another goes.
    story.attach(ECHO, 2);
    assert_eq!(story.engine.function_view(ECHO).unwrap().workers_with_credit, 1);
}

#[test]
fn a_table_that_is_wrong_anywhere_changes_nothing() {
    let mut story = Story::new();
    let echo = || Some(FunctionSpec { timeout: Nanos::from_secs(1), ..spec("echo") });
    let zero = FunctionSpec { timeout: Nanos::ZERO, ..spec("other") };
    let foreign = FunctionSpec { tenant: TenantIndex(1), ..spec("other") };
    let taken = EngineRefused::PlaceTaken("other".to_owned());
    let cases = [
        (vec![echo()], taken.clone()),
        (vec![echo(), Some(spec("renamed"))], taken),
        (vec![echo(), None, None], EngineRefused::NoName(FunctionId(2))),
        (vec![echo(), None, Some(spec("echo"))], EngineRefused::DuplicateName("echo".to_owned())),
        (vec![echo(), Some(zero)], EngineRefused::ZeroInSpec { name: "other".to_owned(), field: "timeout" }),
        (vec![echo(), Some(foreign)], EngineRefused::UnknownTenant("other".to_owned())),
    ];
    for (table, expected) in cases {
        assert_eq!(reconfigure(&mut story, table), Err(expected));
        assert_eq!(names(&story), [Some(ECHO), Some(OTHER), None]);
    }
    let other_tenants = story.engine.handle_reconfigure(vec![TenantSpec::named("a")], vec![echo(), None]);
    assert_eq!(other_tenants, Err(EngineRefused::PlaceTaken("default".to_owned())));
    story.call();
    story.pass(Nanos::from_secs(2), NOT_STARTED);
    assert_eq!(story.answers(), [], "the old time-out is in force");
}

#[test]
fn more_functions_than_an_engine_holds_are_refused_also_later() {
    let limits = Limits { functions_max: 2, ..Limits::default() };
    let mut story = Story::with(limits, vec![spec("echo"), spec("other")]);
    let table = vec![None, None, Some(spec("new"))];
    assert_eq!(reconfigure(&mut story, table), Err(EngineRefused::FunctionsFull { count: 3, max: 2 }));
}
