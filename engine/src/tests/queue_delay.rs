use super::*;

/// One call a millisecond gets through; no more than 20 ms of queue.
fn story() -> Story {
    let policy = Policy { queue_delay_max: Some(Nanos::from_ms(20)), ..Policy::default() };
    let mut story = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    story.attach(ECHO, 1);
    story
}

/// So many of the calls that wait run, one after the other, for a millisecond each.
fn run(story: &mut Story, count: u32) {
    for _ in 0..count {
        let push = story.push().expect("calls wait");
        story.pass(Nanos::from_ms(1), HAS_STARTED);
        story.complete(push, RunOutcome::Ok);
    }
}

#[test]
fn a_queue_that_drains_too_slowly_is_full_before_its_count() {
    // Given: calls that run for a millisecond each, while others wait.
    let mut story = story();
    story.call_many(60);
    run(&mut story, 30);

    // Expect: thirty wait, which takes thirty milliseconds, so the next one is told to come ten later.
    let Verdict::Refused(refused) = story.request(request()) else { panic!("the queue is too long") };
    assert_eq!(refused.status, Status::QueueFull);
    assert!((8_000..=14_000).contains(&refused.retry_after_us), "{refused:?}");
    assert_eq!(story.count(Counter::RefusedQueueFull), 1);

    run(&mut story, 15);
    story.call();
}

#[test]
fn a_queue_that_stands_still_fills_up_in_time_too() {
    let mut story = story();
    story.call_many(5);
    story.push().expect("a worker is free");
    story.pass(Nanos::from_ms(100), HAS_STARTED);
    assert!(matches!(story.request(request()), Verdict::Refused(_)), "nothing was pushed for a long time");
}

#[test]
fn a_critical_call_is_not_refused_for_those_that_wait_behind_it() {
    // Given: thirty milliseconds of normal calls.
    let mut story = story();
    story.call_many(60);
    run(&mut story, 30);
    assert!(matches!(story.request(request()), Verdict::Refused(_)));

    // Expect: a critical one is next; twenty milliseconds of critical ones are as many as there may be.
    let critical = Request { criticality: Criticality::Critical as u8, ..request() };
    let first = story.admit(critical);
    let more = (0..100).take_while(|_| matches!(story.request(critical), Verdict::Admitted(_))).count();
    assert!((15..25).contains(&more), "{more}");
    assert_eq!(story.push().map(|push| push.invocation), Some(first));
}
