use super::*;

/// Admits calls with these (criticality, budget in ms), lets `after` pass, and returns the order in which they go.
fn order_of(calls: &[(u8, u32)], after: Nanos) -> Vec<usize> {
    let mut story = Story::new();
    let ids: Vec<_> = calls
        .iter()
        .map(|(criticality, budget_ms)| {
            story.admit(Request { criticality: *criticality, budget_us: budget_ms * 1000, ..request() })
        })
        .collect();
    story.pass(after, NOT_STARTED);
    story.attach(ECHO, 64);
    let number_of = |push: Push| ids.iter().position(|id| *id == push.invocation).expect("one of ours");
    story.pushes().into_iter().map(number_of).collect()
}

#[test]
fn criticality_goes_before_deadline() {
    assert_eq!(order_of(&[(0, 10), (1, 100), (2, 1000), (3, 10_000)], Nanos::ZERO), [3, 2, 1, 0]);
}

#[test]
fn tighter_deadlines_go_first_within_a_criticality() {
    assert_eq!(order_of(&[(1, 10_000), (1, 10), (1, 1000), (1, 100)], Nanos::ZERO), [1, 3, 2, 0]);
}

#[test]
fn equal_urgency_is_served_in_the_order_of_arrival() {
    assert_eq!(order_of(&[(1, 500), (1, 501), (1, 499)], Nanos::ZERO), [0, 1, 2]);
}

#[test]
fn no_budget_counts_as_the_functions_timeout() {
    assert_eq!(order_of(&[(1, 0), (1, 1000), (1, 30_000)], Nanos::ZERO), [1, 0, 2]);
}

#[test]
fn a_call_that_has_waited_overtakes_one_that_has_more_time() {
    // Given: 20 ms and 400 ms; after 395 ms of a third, which had 400, 5 are left.
    let mut story = Story::new();
    let old = story.admit(Request { budget_us: 400_000, ..request() });
    story.pass(Nanos::from_ms(395), NOT_STARTED);
    let young = story.admit(Request { budget_us: 20_000, ..request() });
    story.attach(ECHO, 2);

    // Expect
    let order: Vec<_> = story.pushes().into_iter().map(|push| push.invocation).collect();
    assert_eq!(order, [old, young]);
    assert!(story.count(Counter::CallsRelaned) >= 1);
}

#[test]
fn a_clock_jump_moves_a_call_several_buckets_at_once() {
    assert_eq!(order_of(&[(1, 20_000), (1, 16_500)], Nanos::from_ms(16_490)), [1, 0]);
}

#[test]
fn a_blocked_function_does_not_block_another() {
    let mut story = Story::new();
    for _ in 0..5 {
        story.admit(Request { criticality: 3, ..request() });
    }
    let patient = story.admit(Request { function: OTHER, criticality: 0, ..request() });
    story.attach(OTHER, 1);
    assert_eq!(story.push().map(|push| push.invocation), Some(patient));
    assert_eq!(story.push(), None);
}

#[test]
fn functions_of_equal_urgency_take_turns() {
    let mut story = Story::with(Limits::default(), vec![spec("a"), spec("b"), spec("c")]);
    for number in 0..3 {
        story.attach(FunctionId(number), 8);
        for _ in 0..3 {
            story.admit(Request { function: FunctionId(number), ..request() });
        }
    }
    let turns: Vec<_> = story.pushes().into_iter().map(|push| push.function.0).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_function_with_a_more_urgent_call_goes_before_the_others() {
    let mut story = Story::new();
    story.attach(ECHO, 8);
    story.attach(OTHER, 8);
    story.call();
    story.call();
    story.admit(Request { function: OTHER, criticality: 2, ..request() });
    story.admit(Request { function: OTHER, criticality: 2, ..request() });
    let turns: Vec<_> = story.pushes().into_iter().map(|push| push.function).collect();
    assert_eq!(turns, [OTHER, OTHER, ECHO, ECHO]);
}
