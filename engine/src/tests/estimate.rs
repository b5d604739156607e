use super::*;
use crate::estimate::PROBE_EVERY;

const RUN: Nanos = Nanos::from_ms(10);

/// A function with so many workers of one slot, whose calls have all run for 10 ms.
fn known_story(workers: u32) -> Story {
    let policy = Policy { refuse_infeasible: true, ..Policy::default() };
    let mut story =
        Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }, spec("other")]);
    for _ in 0..workers {
        story.attach(ECHO, 1);
    }
    for _ in 0..100 {
        story.call();
        run_one(&mut story, RUN);
    }
    story
}

/// Pushes the next call and lets it run.
fn run_one(story: &mut Story, length: Nanos) -> Push {
    let push = story.push().expect("something waits and a worker is free");
    story.pass(length, HAS_STARTED);
    let finished =
        Finished { outcome: RunOutcome::Ok, started_at: push_time(story, length), finished_at: story.now };
    let completed = story.engine.handle_completion(story.now, push.worker, push.invocation, finished);
    assert_eq!(status_of(completed), Some(Status::Ok));
    story.engine.invariants();
    push
}

fn push_time(story: &Story, length: Nanos) -> Nanos {
    Nanos(story.now.0 - length.0)
}

/// Calls that are before every other, whatever their deadlines.
fn urgent_calls(story: &mut Story, count: u32) {
    for _ in 0..count {
        story.admit(Request { criticality: 3, ..request() });
    }
}

fn within(ms: u32) -> Request {
    Request { budget_us: ms * 1000, ..request() }
}

fn unreachable(verdict: Verdict) -> Option<u32> {
    match verdict {
        Verdict::Refused(Refused { status: Status::DeadlineUnreachable, retry_after_us }) => {
            Some(retry_after_us)
        }
        _ => None,
    }
}

#[test]
fn refused_when_those_before_it_would_take_longer_than_it_has() {
    // Given: one worker, busy, and five calls that wait: 50 ms, and 10 of its own.
    let mut story = known_story(1);
    urgent_calls(&mut story, 6);
    story.push();
    for (budget_ms, expected) in [(70, false), (40, true), (50, true), (61, false)] {
        let verdict = story.request(within(budget_ms));
        assert_eq!(unreachable(verdict).is_some(), expected, "{budget_ms} ms: {verdict:?}");
    }
    assert_eq!(story.count(Counter::RefusedDeadlineUnreachable), 2);
}

#[test]
fn the_advice_is_the_time_after_which_the_queue_would_be_short_enough() {
    let mut story = known_story(1);
    urgent_calls(&mut story, 6);
    story.push();
    let advice = unreachable(story.request(within(40))).expect("60 ms are too long");
    assert!((19_000..=21_000).contains(&advice), "{advice} us");

    // Expect: who follows it is served.
    let push = story.pushes();
    assert!(push.is_empty(), "the worker is busy");
    let worker = WorkerId { index: 0, generation: 1 };
    story.pass(Nanos::from_us(u64::from(advice)), HAS_STARTED);
    story.lose(worker, HAS_STARTED);
    story.attach(ECHO, 1);
    (0..2).for_each(|_| _ = run_one(&mut story, Nanos(1)));
    story.admit(within(40));
}

#[test]
fn workers_share_what_waits() {
    let mut story = known_story(4);
    urgent_calls(&mut story, 24);
    story.pushes();
    // 20 wait for four workers: five rounds and its own.
    assert!(unreachable(story.request(within(55))).is_some());
    story.admit(within(65));
}

#[test]
fn only_those_as_urgent_or_more_are_before_it() {
    let mut story = known_story(1);
    story.attach(ECHO, 1);
    story.push();
    for _ in 0..50 {
        story.admit(Request { criticality: 0, ..request() });
    }
    // Two run; fifty of low criticality wait behind a critical call, and before a low one.
    let critical = Request { criticality: 3, ..within(30) };
    assert!(unreachable(story.request(critical)).is_none());
    let low = Request { criticality: 0, ..within(30) };
    assert!(matches!(story.request(low), Verdict::Admitted(_)), "its deadline is nearer than theirs");
    let tail = Request { criticality: 0, ..within(20_000) };
    assert!(unreachable(story.request(tail)).is_none());
}

#[test]
fn never_refused_with_nothing_waiting_however_short_the_time() {
    let mut story = known_story(1);
    story.admit(Request { budget_us: 1, ..request() });
}

#[test]
fn never_refused_while_little_is_known_or_nobody_works_or_nobody_asked_for_it() {
    let policy = Policy { refuse_infeasible: true, ..Policy::default() };
    let mut unknown = Story::with(Limits::default(), vec![FunctionSpec { policy, ..spec("echo") }]);
    unknown.attach(ECHO, 1);
    for _ in 0..31 {
        unknown.call();
        run_one(&mut unknown, RUN);
    }
    let mut alone = known_story(1);
    alone.lose(WorkerId { index: 0, generation: 1 }, NOT_STARTED);
    let mut unasked = Story::new();
    unasked.attach(ECHO, 1);
    for _ in 0..100 {
        unasked.call();
        run_one(&mut unasked, RUN);
    }
    for mut story in [unknown, alone, unasked] {
        story.call_many(50);
        story.admit(within(1));
    }
}

#[test]
fn one_in_sixteen_hopeless_calls_is_let_through() {
    let mut story = known_story(1);
    story.call_many(50);
    let verdicts: Vec<_> = (0..64).map(|_| unreachable(story.request(within(5))).is_some()).collect();
    let admitted: Vec<_> = (0..64u32).filter(|index| !verdicts[*index as usize]).collect();
    assert_eq!(admitted, [PROBE_EVERY - 1, 2 * PROBE_EVERY - 1, 3 * PROBE_EVERY - 1, 4 * PROBE_EVERY - 1]);
}

#[test]
fn a_function_that_turns_fast_again_is_open_to_short_calls_after_forty_runs() {
    // Given: calls of 10 ms, so that 20 ms behind a queue of four are hopeless.
    let mut story = known_story(1);
    urgent_calls(&mut story, 5);
    story.push();
    assert!(unreachable(story.request(within(20))).is_some());

    // Expect: with calls of 1 ms they are not.
    story.lose(WorkerId { index: 0, generation: 1 }, HAS_STARTED);
    story.attach(ECHO, 1);
    for _ in 0..40 {
        story.call();
        run_one(&mut story, Nanos::from_ms(1));
    }
    assert!(unreachable(story.request(within(20))).is_none());
}
