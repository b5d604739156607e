use super::*;
use crate::ageing::TURN_EVERY;

const AGEING: Nanos = Nanos::from_secs(10);
const TICK: Nanos = crate::timers::TICK;

fn aged_story() -> Story {
    Story::with(
        Limits::default(),
        vec![
            FunctionSpec { policy: Policy { ageing: Some(AGEING), ..Policy::default() }, ..spec("echo") },
            spec("other"),
        ],
    )
}

fn low() -> Request {
    Request { criticality: Criticality::Low as u8, ..request() }
}

fn critical() -> Request {
    Request { criticality: Criticality::Critical as u8, ..request() }
}

/// Pushes one call after the other, with a critical one more than can be served, until this one's turn; returns how
/// many pushes that took.
fn pushes_until(story: &mut Story, patient: InvocationId) -> u32 {
    let worker = story.attach(ECHO, 1);
    for pushes in 1..1_000 {
        story.admit(critical());
        let push = story.push().expect("something waits and the worker is free");
        assert_eq!(push.worker, worker);
        story.complete(push, RunOutcome::Ok);
        if push.invocation == patient {
            return pushes;
        }
    }
    panic!("starved");
}

#[test]
fn an_aged_call_has_its_turn_within_eight_pushes_for_each_before_it() {
    for older in 0..5 {
        let mut story = aged_story();
        story.admit(critical());
        for _ in 0..older {
            story.admit(low());
        }
        let patient = story.admit(low());
        story.pass(AGEING.plus(TICK), NOT_STARTED);
        assert_eq!(story.count(Counter::CallsAged), u64::from(older) + 2);
        // The critical call has aged too and was first; it is served in its lane's order, which never makes others wait.
        assert_eq!(pushes_until(&mut story, patient), TURN_EVERY * (older + 1));
    }
}

#[test]
fn a_call_that_has_not_aged_waits_as_long_as_others_are_more_urgent() {
    let mut story = aged_story();
    let patient = story.admit(low());
    story.pass(Nanos(AGEING.0 - TICK.0), NOT_STARTED);
    story.attach(ECHO, 100);
    for _ in 0..50 {
        story.admit(critical());
    }
    let order: Vec<_> = story.pushes().into_iter().map(|push| push.invocation).collect();
    assert_eq!(order.last(), Some(&patient));
    assert_eq!(story.count(Counter::CallsAged), 0);
}

#[test]
fn seven_of_eight_pushes_stay_with_the_urgent_calls() {
    // Given: everything low has aged, more than there are turns.
    let mut story = aged_story();
    for _ in 0..30 {
        story.admit(low());
    }
    story.pass(AGEING.plus(TICK), NOT_STARTED);
    story.attach(ECHO, 64);
    for _ in 0..64 {
        story.admit(critical());
    }

    // Expect
    let lows: Vec<_> = story.pushes().into_iter().map(|push| push.invocation.slot() < 30).collect();
    let turns: Vec<_> = (0..64).filter(|index| lows[*index]).collect();
    assert_eq!(turns, [7, 15, 23, 31, 39, 47, 55, 63]);
}

#[test]
fn growing_old_does_not_cost_a_call_its_place_among_its_equals() {
    let mut story = aged_story();
    let first = story.call();
    story.pass(Nanos::from_ms(5), NOT_STARTED);
    let second = story.call();
    // The first one ages, the second one not yet; both are in one lane.
    story.pass(Nanos(AGEING.0 - Nanos::from_ms(4).0), NOT_STARTED);
    assert_eq!(story.count(Counter::CallsAged), 1);
    story.attach(ECHO, 2);
    let order: Vec<_> = story.pushes().into_iter().map(|push| push.invocation).collect();
    assert_eq!(order, [first, second]);
}

#[test]
fn an_aged_call_can_be_cancelled_can_expire_and_can_lose_its_worker() {
    let mut story = aged_story();
    let cancelled = story.admit(low());
    let forgotten = story.admit(low());
    let pushed = story.admit(low());
    story.admit(low());
    story.pass(AGEING.plus(TICK), NOT_STARTED);
    story.cancel(cancelled, CancelReason::Asked);
    story.cancel(forgotten, CancelReason::ClientGone);
    let worker = story.attach(ECHO, 1);
    assert_eq!(story.push().map(|push| push.invocation), Some(pushed));
    story.lose(worker, NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Cancelled, false)]);

    // Expect: the one taken back is old still, and ages again.
    story.pass(TICK, NOT_STARTED);
    story.pass(TICK, NOT_STARTED);
    assert_eq!(story.count(Counter::CallsAged), 5);
    story.pass(Nanos::from_secs(30), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false); 2]);
    assert!(story.engine.is_idle());
}

#[test]
fn without_ageing_nothing_ages() {
    let mut story = Story::new();
    story.admit(low());
    story.pass(Nanos::from_secs(29), NOT_STARTED);
    assert_eq!(story.count(Counter::CallsAged), 0);
}
