use super::*;

fn limited(per_second: u32, burst: u32) -> Story {
    let policy = Policy { rate: Some(Rate { per_second, burst }), ..Policy::default() };
    Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }, spec("other")])
}

#[test]
fn calls_beyond_the_rate_are_refused_with_the_time_to_wait() {
    // Given
    let mut story = limited(1000, 2);
    story.call_many(2);

    // Expect
    let refused = Refused { status: Status::RateLimited, retry_after_us: 1000 };
    assert_eq!(story.request(request()), Verdict::Refused(refused));
    assert_eq!(story.count(Counter::RefusedRateLimited), 1);
    story.admit(Request { function: OTHER, ..request() });

    story.pass(Nanos::from_ms(1), NOT_STARTED);
    story.call();
}

#[test]
fn a_call_refused_for_another_reason_uses_nothing_of_the_rate() {
    // Given: one call a second, and a call that is too large.
    let mut story = limited(1, 1);
    let refused = story.request(Request { payload_size: 1001, ..request() });
    assert_eq!(refused, super::refused(Status::PayloadTooLarge));

    // Expect
    story.call();
}

#[test]
fn a_full_table_uses_nothing_of_the_rate() {
    // Given: a table of one that is taken.
    let policy = Policy { rate: Some(Rate { per_second: 1, burst: 2 }), ..Policy::default() };
    let limits = Limits { invocations_max: 1, ..Limits::default() };
    let mut story = Story::with(limits, vec![FunctionSpec { policy, ..spec("echo") }]);
    let id = story.call();
    assert_eq!(story.request(request()), refused(Status::Overloaded));

    // Expect
    story.cancel(id, CancelReason::Asked);
    story.answers();
    story.call();
}
