use super::*;

/// `echo` is reserved, `other` opportunistic with a thousand calls a second at most; one worker makes the host busy.
fn story() -> Story {
    let rate = Some(Rate { per_second: 1000, burst: 1 });
    let policy = Policy { rate, quota: Quota::Opportunistic, ..Policy::default() };
    let limits = Limits { processor_count: 1, ..Limits::default() };
    let mut story = Story::with(limits, vec![spec("echo"), FunctionSpec { policy, ..spec("other") }]);
    story.attach(ECHO, 4);
    story.attach(OTHER, 4);
    story
}

fn ask_other(story: &mut Story) {
    story.admit(Request { function: OTHER, ..request() });
}

#[test]
fn calls_over_the_rate_wait_instead_of_being_refused() {
    let mut story = story();
    (0..3).for_each(|_| ask_other(&mut story));
    let first = story.push().expect("the host is idle");
    assert_eq!(story.push(), None);
    story.engine.look_at_queues(story.now);
    let blocked = story.engine.function_view(OTHER).map(|view| view.blocked.on);
    assert_eq!(blocked, Some(BlockedOn::Quota));
    story.complete(first, RunOutcome::Ok);

    story.pass(Nanos::from_ms(1), NOT_STARTED);
    assert!(story.push().is_some());
    assert_eq!(story.push(), None);
}

#[test]
fn nothing_runs_while_others_want_all_the_time_and_everything_when_they_are_done() {
    // Given: a call that keeps the host busy for two seconds.
    let mut story = story();
    story.call();
    let busy = story.push().expect("a worker is free");
    for _ in 0..20 {
        story.pass(Nanos::from_ms(100), HAS_STARTED);
        ask_other(&mut story);
        while let Some(push) = story.push() {
            story.complete(push, RunOutcome::Ok);
        }
    }
    let waiting = story.engine.function_view(OTHER).map(|view| view.queued);
    assert!(waiting > Some(5), "{waiting:?} wait");

    // Expect
    story.complete(busy, RunOutcome::Ok);
    for _ in 0..100 {
        story.pass(Nanos::from_ms(20), HAS_STARTED);
        while let Some(push) = story.push() {
            story.complete(push, RunOutcome::Ok);
        }
    }
    assert_eq!(story.engine.function_view(OTHER).map(|view| view.queued), Some(0));
}

#[test]
fn a_call_that_gets_no_time_expires() {
    let mut story = story();
    story.call();
    story.push().expect("a worker is free");
    (0..20).for_each(|_| story.pass(Nanos::from_ms(100), HAS_STARTED));
    // One may have a token from before; the second has none.
    story.admit(Request { function: OTHER, budget_us: 50_000, ..request() });
    assert_eq!(story.push(), None);
    story.pass(Nanos::from_ms(51), HAS_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
}
