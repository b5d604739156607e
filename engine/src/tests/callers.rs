//! Callers that send in spikes, and the others.

use super::*;

const AGEING: Nanos = Nanos::from_secs(3);

/// One call a second for each caller, two at once.
fn story() -> Story {
    let rate = Rate { per_second: 1, burst: 2 };
    let policy = Policy { caller_rate: Some(rate), ageing: Some(AGEING), ..Policy::default() };
    let limits = Limits::default();
    Story::with(limits, vec![FunctionSpec { policy, ..spec("echo") }, spec("other")])
}

fn from(connection: u32) -> Request {
    Request { origin: Origin { connection, ..request().origin }, ..request() }
}

/// The first caller has sent as much at once as it may.
fn use_up_the_rate_of_one(story: &mut Story) {
    for _ in 0..2 {
        story.admit(from(1));
    }
}

/// In which order the waiting calls are pushed.
fn order(story: &mut Story) -> Vec<InvocationId> {
    story.attach(ECHO, 100);
    story.pushes().into_iter().map(|push| push.invocation).collect()
}

#[test]
fn what_is_beyond_a_callers_rate_waits_behind_the_calls_of_others() {
    let mut story = story();
    // Given: a spike of five calls, and then two callers with a call each.
    let spike: Vec<_> = (0..5).map(|_| story.admit(from(1))).collect();
    let others = [story.admit(from(2)), story.admit(from(3))];
    // Expect: two of the spike are within the rate and keep their places; three are behind everybody.
    assert_eq!(story.count(Counter::CallsBeyondRate), 3);
    let expected: Vec<_> = spike[..2].iter().chain(&others).chain(&spike[2..]).copied().collect();
    assert_eq!(order(&mut story), expected);
}

#[test]
fn beyond_the_rate_criticality_still_counts_and_a_near_deadline_does_not() {
    let mut story = story();
    use_up_the_rate_of_one(&mut story);
    let in_haste = story.admit(Request { budget_us: 50_000, ..from(1) });
    let other = story.admit(from(2));
    let low = story.admit(Request { criticality: Criticality::Low as u8, ..from(2) });
    let order = order(&mut story);
    assert_eq!(order[2..], [other, in_haste, low]);
}

#[test]
fn a_spike_is_served_at_once_where_nothing_else_waits() {
    let mut story = story();
    story.attach(ECHO, 100);
    for _ in 0..10 {
        let id = story.admit(from(1));
        assert_eq!(story.push().map(|push| push.invocation), Some(id));
    }
}

#[test]
fn what_has_aged_stands_where_its_deadline_puts_it() {
    let mut story = story();
    use_up_the_rate_of_one(&mut story);
    // Given: a call beyond the rate that has waited for `ageing`, and one of the same deadline that came later.
    let deadline = AGEING.plus(Nanos::from_secs(3));
    let budget_us = |from: Nanos| (deadline.since(from).0 / 1_000) as u32;
    let spike = story.admit(Request { budget_us: budget_us(Nanos::ZERO), ..from(1) });
    story.pass(AGEING.plus(crate::timers::TICK), NOT_STARTED);
    let other = story.admit(Request { budget_us: budget_us(AGEING), ..from(2) });
    // Expect
    let order = order(&mut story);
    let place = |id| order.iter().position(|other| *other == id).expect("it is pushed");
    assert!(place(spike) < place(other), "{order:?}");
}

#[test]
fn beyond_the_rate_a_call_expires_as_any_other() {
    let mut story = story();
    use_up_the_rate_of_one(&mut story);
    story.admit(Request { budget_us: 1_000, ..from(1) });
    story.pass(Nanos::from_ms(2), NOT_STARTED);
    assert_eq!(story.answers(), [(Status::Expired, false)]);
}

#[test]
fn a_spike_leaves_a_quarter_of_the_queue_to_the_others() {
    let mut story = story();
    // Given: as many as fit, of the hundred that may wait.
    let admitted = (0..200).take_while(|_| matches!(story.request(from(1)), Verdict::Admitted(_))).count();
    assert_eq!(admitted, 75);
    assert_eq!(story.refusal(from(1)), Status::QueueFull);
    // Expect
    let others = (10..200).take_while(|other| matches!(story.request(from(*other)), Verdict::Admitted(_)));
    assert_eq!(others.count(), 25);
    assert_eq!(story.refusal(from(9)), Status::QueueFull);
}

#[test]
fn a_call_that_starts_later_counts_when_its_time_comes() {
    let mut story = story();
    // Given: a caller that has used its rate up, and sends a call for later.
    use_up_the_rate_of_one(&mut story);
    let special = Special { start_after: Nanos::from_ms(500), ..Special::default() };
    let asked = Request { received_at: story.now, ..from(1) };
    let Verdict::Admitted(later) = story.engine.handle_special_request(story.now, asked, special) else {
        panic!("not admitted");
    };
    assert_eq!(story.count(Counter::CallsBeyondRate), 0);
    story.pass(Nanos::from_ms(501), NOT_STARTED);
    // Expect
    assert_eq!(story.count(Counter::CallsBeyondRate), 1);
    let other = story.admit(from(2));
    assert_eq!(order(&mut story)[2..], [other, later]);
}

#[test]
fn another_rate_holds_from_the_reload_on() {
    let mut story = story();
    use_up_the_rate_of_one(&mut story);
    let policy = Policy { caller_rate: None, ..Policy::default() };
    let specs = vec![Some(FunctionSpec { policy, ..spec("echo") }), Some(spec("other"))];
    story.engine.handle_reconfigure(TenantSpec::only_default(), specs).expect("a sound configuration");
    let (spike, other) = (story.admit(from(1)), story.admit(from(2)));
    assert_eq!(order(&mut story)[2..], [spike, other]);
}
