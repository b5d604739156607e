//! Why calls wait: of a function, and of one call.

use super::*;

fn blocked(story: &mut Story) -> Blocked {
    story.engine.look_at_queues(story.now);
    story.engine.function_view(ECHO).expect("it is configured").blocked
}

#[test]
fn the_first_cause_is_named_with_the_look_that_found_it() {
    let mut story = Story::new();
    assert_eq!(blocked(&mut story).on, BlockedOn::Nothing);
    // No worker.
    story.call_many(2);
    let found_at = story.now;
    assert_eq!(blocked(&mut story), Blocked { on: BlockedOn::NoWorker, since: found_at });
    story.pass(Nanos::from_secs(1), NOT_STARTED);
    assert_eq!(blocked(&mut story).since, found_at, "a later look finds the same");
    // One worker, and it is full.
    let worker = story.attach(ECHO, 1);
    assert_eq!(blocked(&mut story).on, BlockedOn::Nothing, "the next push takes one");
    let push = story.push().expect("a slot is free");
    assert_eq!(blocked(&mut story), Blocked { on: BlockedOn::WorkersBusy, since: story.now });
    // The worker leaves: what is left of it takes no calls.
    story.engine.handle_worker_draining(worker);
    assert_eq!(blocked(&mut story).on, BlockedOn::NoWorker);
    story.complete(push, RunOutcome::Ok);
    story.attach(ECHO, 1);
    story.push().expect("the second call");
    assert_eq!(blocked(&mut story).on, BlockedOn::Nothing);
}

#[test]
fn every_cause_has_a_number_and_a_name_of_its_own() {
    for cause in BlockedOn::ALL {
        assert_eq!(BlockedOn::from_number(cause as u64), Some(cause));
        assert_eq!(BlockedOn::ALL.iter().filter(|other| other.name() == cause.name()).count(), 1);
    }
    assert_eq!(BlockedOn::from_number(250), None);
}

#[test]
fn a_call_tells_how_many_go_before_it_and_who_has_it() {
    // Given: three normal calls, and a critical one that came last.
    let mut story = Story::new();
    let ids: Vec<_> = (0..3).map(|_| story.call()).collect();
    let critical = story.admit(Request { criticality: Criticality::Critical as u8, ..request() });
    let view = |story: &Story, id| story.engine.call_view(id).expect("it is known");
    // Expect
    let ahead: Vec<_> = ids.iter().chain([&critical]).map(|id| view(&story, *id).ahead).collect();
    assert_eq!(ahead, [1, 2, 3, 0]);
    assert_eq!(view(&story, ids[0]).state, State::Queued);
    assert_eq!(view(&story, ids[0]).worker, None);
    // When the critical one is pushed.
    let worker = story.attach(ECHO, 1);
    story.push().expect("a slot is free");
    let pushed = view(&story, critical);
    assert_eq!((pushed.state, pushed.worker, pushed.attempts), (State::Pushed, Some(worker), 1));
    assert_eq!(pushed.criticality, Criticality::Critical as u8);
    assert_eq!(view(&story, ids[0]).ahead, 0);
}

#[test]
fn a_call_that_is_over_is_not_known_any_more() {
    let mut story = Story::new();
    story.attach(ECHO, 1);
    let id = story.call();
    let push = story.push().expect("a slot is free");
    story.complete(push, RunOutcome::Ok);
    assert_eq!(story.engine.call_view(id), None);
    assert_eq!(story.engine.call_view(InvocationId(u64::MAX)), None);
}
