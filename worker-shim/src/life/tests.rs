use super::*;
use proptest::prelude::*;

/// Small numbers that are easy to read in the snapshot.
const PATIENCE: Patience =
    Patience { delay_min_ns: 20, delay_max_ns: 1_000, stable_after_ns: 100, stop_grace_ns: 200 };
const NOW_NS: u64 = 1_000;
const FULL: u32 = u32::MAX;

/// Every (state, event) pair. A change here is a change of the contract.
const SNAPSHOT: &str = "\
BackingOff { retry_at_ns: 999, failure_count: 2 }
  Time        -> Spawning { failure_count: 2 }, Spawn
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> impossible
  LeaveAsked  -> Gone
  StayAsked   -> same
  StopAsked   -> Gone
BackingOff { retry_at_ns: 1001, failure_count: 2 }
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> impossible
  LeaveAsked  -> Gone
  StayAsked   -> same
  StopAsked   -> Gone
Spawning { failure_count: 2 }
  Time        -> same
  Started     -> Starting { stable_at_ns: 1100, failure_count: 2 }
  SpawnFailed -> BackingOff { retry_at_ns: 1080, failure_count: 3 }
  Exited      -> BackingOff { retry_at_ns: 1080, failure_count: 3 }
  LeaveAsked  -> Gone, Withdraw
  StayAsked   -> same
  StopAsked   -> Gone, Withdraw
Starting { stable_at_ns: 999, failure_count: 2 }
  Time        -> Warm
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> BackingOff { retry_at_ns: 1080, failure_count: 3 }
  LeaveAsked  -> Leaving { terminate_at_ns: 1050 }
  StayAsked   -> same
  StopAsked   -> Stopping { kill_at_ns: Some(1200) }, Terminate
Starting { stable_at_ns: 1001, failure_count: 2 }
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> BackingOff { retry_at_ns: 1080, failure_count: 3 }
  LeaveAsked  -> Leaving { terminate_at_ns: 1050 }
  StayAsked   -> same
  StopAsked   -> Stopping { kill_at_ns: Some(1200) }, Terminate
Warm
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> BackingOff { retry_at_ns: 1020, failure_count: 1 }
  LeaveAsked  -> Leaving { terminate_at_ns: 1050 }
  StayAsked   -> same
  StopAsked   -> Stopping { kill_at_ns: Some(1200) }, Terminate
Leaving { terminate_at_ns: 999 }
  Time        -> Stopping { kill_at_ns: Some(1200) }, Terminate
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> Gone
  LeaveAsked  -> same
  StayAsked   -> Warm
  StopAsked   -> Stopping { kill_at_ns: Some(1200) }, Terminate
Leaving { terminate_at_ns: 1001 }
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> Gone
  LeaveAsked  -> same
  StayAsked   -> Warm
  StopAsked   -> Stopping { kill_at_ns: Some(1200) }, Terminate
Stopping { kill_at_ns: Some(999) }
  Time        -> Stopping { kill_at_ns: None }, Kill
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> Gone
  LeaveAsked  -> same
  StayAsked   -> same
  StopAsked   -> same
Stopping { kill_at_ns: Some(1001) }
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> Gone
  LeaveAsked  -> same
  StayAsked   -> same
  StopAsked   -> same
Stopping { kill_at_ns: None }
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> Gone
  LeaveAsked  -> same
  StayAsked   -> same
  StopAsked   -> same
Gone
  Time        -> same
  Started     -> impossible
  SpawnFailed -> impossible
  Exited      -> impossible
  LeaveAsked  -> same
  StayAsked   -> same
  StopAsked   -> same
";

#[test]
fn every_state_and_event_pair_has_the_documented_outcome() {
    let states = [
        Life::BackingOff { retry_at_ns: NOW_NS - 1, failure_count: 2 },
        Life::BackingOff { retry_at_ns: NOW_NS + 1, failure_count: 2 },
        Life::Spawning { failure_count: 2 },
        Life::Starting { stable_at_ns: NOW_NS - 1, failure_count: 2 },
        Life::Starting { stable_at_ns: NOW_NS + 1, failure_count: 2 },
        Life::Warm,
        Life::Leaving { terminate_at_ns: NOW_NS - 1 },
        Life::Leaving { terminate_at_ns: NOW_NS + 1 },
        Life::Stopping { kill_at_ns: Some(NOW_NS - 1) },
        Life::Stopping { kill_at_ns: Some(NOW_NS + 1) },
        Life::Stopping { kill_at_ns: None },
        Life::Gone,
    ];
    let events = [
        ("Time", Event::Time),
        ("Started", Event::Started),
        ("SpawnFailed", Event::SpawnFailed { jitter: FULL }),
        ("Exited", Event::Exited { jitter: FULL }),
        ("LeaveAsked", Event::LeaveAsked { within_ns: 50 }),
        ("StayAsked", Event::StayAsked),
        ("StopAsked", Event::StopAsked),
    ];

    let mut table = String::new();
    for state in states {
        table.push_str(&format!("{state:?}\n"));
        for (name, event) in events {
            let outcome = match state.next(NOW_NS, &PATIENCE, event) {
                Err(Impossible) => "impossible".to_owned(),
                Ok((next, action)) => {
                    let next = if next == state { "same".to_owned() } else { format!("{next:?}") };
                    if action == Action::None { next } else { format!("{next}, {action:?}") }
                }
            };
            table.push_str(&format!("  {name:<11} -> {outcome}\n"));
        }
    }
    assert_eq!(table, SNAPSHOT, "the table is now:\n{table}");
}

#[test]
fn a_program_that_always_dies_waits_twice_as_long_each_time_up_to_the_most() {
    // Given a place whose process dies the moment it is started
    let (mut life, mut now_ns) = (Life::new(0), 0);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(life.on_event(now_ns, &PATIENCE, Event::Time), Action::Spawn);
        assert_eq!(life.on_event(now_ns, &PATIENCE, Event::Started), Action::None);
        assert_eq!(life.on_event(now_ns, &PATIENCE, Event::Exited { jitter: FULL }), Action::None);
        let due_at_ns = life.due_at_ns().expect("backing off has a due time");
        waits.push(due_at_ns - now_ns);
        // Expect that a moment before, nothing is started
        assert_eq!(life.on_event(due_at_ns - 1, &PATIENCE, Event::Time), Action::None);
        now_ns = due_at_ns;
    }
    assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]);
}

#[test]
fn a_process_that_lived_long_enough_is_restarted_after_the_shortest_wait() {
    let mut life = Life::Starting { stable_at_ns: 100, failure_count: 7 };
    assert_eq!(life.on_event(100, &PATIENCE, Event::Time), Action::None);
    assert_eq!(life, Life::Warm);
    assert_eq!(life.on_event(500, &PATIENCE, Event::Exited { jitter: FULL }), Action::None);
    assert_eq!(life, Life::BackingOff { retry_at_ns: 520, failure_count: 1 });
}

#[test]
fn the_wait_lies_between_half_and_whole_for_any_jitter() {
    for failure_count in [0, 1, 2, 5, 31, 32, 33, u32::MAX] {
        let whole_ns = PATIENCE.delay_ns(failure_count, FULL);
        assert!(whole_ns <= PATIENCE.delay_max_ns);
        assert_eq!(PATIENCE.delay_ns(failure_count, 0), whole_ns / 2);
        let middle_ns = PATIENCE.delay_ns(failure_count, FULL / 2);
        assert!((whole_ns / 2..=whole_ns).contains(&middle_ns));
    }
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_exactly_once() {
    let mut life = Life::Warm;
    assert_eq!(life.on_event(0, &PATIENCE, Event::StopAsked), Action::Terminate);
    assert_eq!(life.on_event(199, &PATIENCE, Event::Time), Action::None);
    assert_eq!(life.on_event(200, &PATIENCE, Event::Time), Action::Kill);
    assert_eq!(life.on_event(900, &PATIENCE, Event::Time), Action::None);
    assert_eq!(life.on_event(901, &PATIENCE, Event::Exited { jitter: 0 }), Action::None);
    assert!(life.is_gone());
}

#[test]
fn a_place_that_leaves_and_is_wanted_again_replaces_its_process() {
    let mut life = Life::Warm;
    assert_eq!(life.on_event(0, &PATIENCE, Event::LeaveAsked { within_ns: 500 }), Action::None);
    assert_eq!(life.on_event(499, &PATIENCE, Event::Time), Action::None);
    assert_eq!(life.on_event(499, &PATIENCE, Event::StayAsked), Action::None);
    assert_eq!(life.on_event(900, &PATIENCE, Event::Exited { jitter: FULL }), Action::None);
    assert_eq!(life.on_event(920, &PATIENCE, Event::Time), Action::Spawn);
}

#[test]
#[should_panic(expected = "impossible in the life of a place")]
fn the_exit_of_a_process_that_does_not_exist_is_our_bug() {
    let _ = Life::Gone.on_event(0, &PATIENCE, Event::Exited { jitter: 0 });
}

#[test]
fn times_near_the_end_of_the_clock_do_not_overflow() {
    let mut life = Life::new(u64::MAX);
    assert_eq!(life.on_event(u64::MAX, &PATIENCE, Event::Time), Action::Spawn);
    assert_eq!(life.on_event(u64::MAX, &PATIENCE, Event::Exited { jitter: FULL }), Action::None);
    assert_eq!(life.due_at_ns(), Some(u64::MAX));
}

#[test]
fn a_process_that_never_comes_counts_as_one_that_died_young_and_one_that_takes_its_time_does_not() {
    let mut life = Life::new(0);
    assert_eq!(life.on_event(0, &PATIENCE, Event::Time), Action::Spawn);
    assert_eq!(life.due_at_ns(), None, "whoever makes it has the time-out");
    assert_eq!(life.on_event(5_000, &PATIENCE, Event::SpawnFailed { jitter: FULL }), Action::None);
    assert_eq!(life, Life::BackingOff { retry_at_ns: 5_020, failure_count: 1 });
    assert_eq!(life.on_event(5_020, &PATIENCE, Event::Time), Action::Spawn);
    assert_eq!(life.on_event(9_000, &PATIENCE, Event::Started), Action::None);
    assert_eq!(life, Life::Starting { stable_at_ns: 9_100, failure_count: 1 });
}

#[test]
fn a_place_that_is_given_up_before_its_process_came_withdraws_the_wish() {
    for event in [Event::StopAsked, Event::LeaveAsked { within_ns: 50 }] {
        let mut life = Life::Spawning { failure_count: 0 };
        assert_eq!(life.on_event(0, &PATIENCE, event), Action::Withdraw);
        assert!(life.is_gone());
    }
}

/// What the world does to a place, in a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Come,
    Die(u32),
    FailToSpawn(u32),
    Leave,
    Stay,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..300_u64).prop_map(Step::Wait),
        6 => Just(Step::Come),
        4 => any::<u32>().prop_map(Step::Die),
        2 => any::<u32>().prop_map(Step::FailToSpawn),
        1 => Just(Step::Leave),
        1 => Just(Step::Stay),
        1 => Just(Step::Stop),
    ]
}

proptest! {
    /// The shell's duties are simple if this holds: it is never asked to start a second process, nor to signal one that is
    /// not there, and starts never follow each other without a wait.
    #[test]
    fn in_any_history_there_is_at_most_one_process_and_starts_keep_their_distance(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let (mut life, mut now_ns) = (Life::new(0), 0);
        let mut has_process = false;
        let mut is_asked_for = false;
        let mut last_start_ns: Option<u64> = None;
        let mut is_stopping = false;
        for step in steps {
            let event = match step {
                Step::Wait(ns) => { now_ns += ns; Event::Time }
                Step::Come if is_asked_for => { (is_asked_for, has_process) = (false, true); Event::Started }
                Step::Die(jitter) if has_process => { has_process = false; Event::Exited { jitter } }
                Step::FailToSpawn(jitter) if is_asked_for => { is_asked_for = false; Event::SpawnFailed { jitter } }
                Step::Leave => Event::LeaveAsked { within_ns: 50 },
                Step::Stay => Event::StayAsked,
                Step::Stop => { is_stopping = true; Event::StopAsked }
                Step::Come | Step::Die(_) | Step::FailToSpawn(_) => Event::Time,
            };
            match life.on_event(now_ns, &PATIENCE, event) {
                Action::None => {}
                Action::Terminate | Action::Kill => prop_assert!(has_process),
                Action::Withdraw => {
                    prop_assert!(is_asked_for);
                    is_asked_for = false;
                }
                Action::Spawn => {
                    prop_assert!(!has_process && !is_asked_for && !is_stopping);
                    if let Some(last_ns) = last_start_ns {
                        prop_assert!(now_ns - last_ns >= PATIENCE.delay_min_ns / 2);
                    }
                    last_start_ns = Some(now_ns);
                    is_asked_for = true;
                }
            }
            prop_assert_eq!(life.has_process(), has_process);
            prop_assert!(!is_stopping || has_process || life.is_gone(), "a stopped place without a process is gone");
        }
    }
}
