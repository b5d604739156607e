//! A function whose last instance is kept as its calls so far suggest, and started ahead of those that are expected.

use super::*;

const IDLE: Nanos = Nanos::from_secs(60);
const HOUR: Nanos = Nanos::from_secs(3_600);
const START: Nanos = Nanos::from_ms(200);

/// `echo` with a pool that learns, and the shim that does as it is told.
struct Host {
    story: Story,
    there: Vec<WorkerId>,
    wanted: u32,
    words: Vec<(u32, Option<WorkerId>)>,
}

impl Host {
    fn new(min: u32, max: u32) -> Host {
        let story = Story::with(Limits::default(), vec![spec_of(min, max, true), spec("other")]);
        Host { story, there: Vec::new(), wanted: min, words: Vec::new() }
    }

    /// A moment passes: the shim hears what it is to do, and whoever was told to end has ended.
    fn look(&mut self) {
        while let Some(word) = self.story.engine.poll_places(self.story.now) {
            self.wanted = word.count;
            self.words.push((word.count, word.leaving));
        }
        self.story.engine.invariants();
        for action in self.story.actions() {
            let WorkerAction::Stop { worker } = action else { panic!("{action:?}") };
            self.there.retain(|other| *other != worker);
            self.story.lose(worker, NOT_STARTED);
        }
    }

    /// Time passes, from one thing that is due to the next; instances that are wanted are there a start later.
    fn wait(&mut self, length: Nanos) {
        let end = self.story.now.plus(length);
        loop {
            self.look();
            if self.there.len() < self.wanted as usize && self.story.now.plus(START) <= end {
                self.story.pass(START, NOT_STARTED);
                while self.there.len() < self.wanted as usize {
                    self.there.push(self.story.attach(ECHO, 1));
                }
                continue;
            }
            let due = self.story.engine.next_timer().filter(|due| *due < end);
            let Some(due) = due else { break };
            self.story.pass(due.since(self.story.now).max(Nanos(1)), NOT_STARTED);
        }
        self.story.pass(end.since(self.story.now), NOT_STARTED);
        self.look();
    }

    /// Calls, waits for an instance if there is none, and runs for a second.
    fn call(&mut self) {
        self.story.call();
        let push = self.story.push().or_else(|| {
            self.wait(START);
            self.story.push()
        });
        self.run(push);
    }

    /// Calls run for a second.
    fn run(&mut self, pushes: impl IntoIterator<Item = Push>) {
        let started_at = self.story.now;
        self.wait(Nanos::from_secs(1));
        let finished_at = self.story.now;
        for push in pushes {
            let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at };
            let engine = &mut self.story.engine;
            let completed = engine.handle_completion(finished_at, push.worker, push.invocation, finished);
            assert_eq!(status_of(completed), Some(Status::Ok));
        }
        self.story.engine.invariants();
    }

    /// Calls every hour, so many times.
    fn call_every_hour(&mut self, count: u64) {
        for _ in 0..count {
            let next = Nanos((self.story.now.0 / HOUR.0 + 1) * HOUR.0);
            self.wait(next.since(self.story.now));
            self.call();
        }
    }

    fn counts(&self) -> [u64; 3] {
        [Counter::ColdStarts, Counter::InstancesPrewarmed, Counter::InstancesReleased]
            .map(|counter| self.story.count(counter))
    }
}

fn spec_of(min: u32, max: u32, is_predictive: bool) -> FunctionSpec {
    let pool = Some(PoolSpec { min, max, idle_timeout: IDLE, is_predictive });
    FunctionSpec { timeout: Nanos::from_secs(1000), pool, workers_max: max, ..spec("echo") }
}

#[test]
fn a_call_every_hour_starts_cold_until_it_is_expected_and_then_finds_an_instance() {
    let mut host = Host::new(0, 3);
    // Given: eleven calls with ten idle times between them, each of them cold.
    host.call_every_hour(11);
    host.wait(Nanos(2 * IDLE.0));
    assert_eq!(host.counts(), [11, 0, 11]);
    // Expect: from the tenth idle time on the instance goes soon after its call, and is there before the next.
    host.words.clear();
    host.wait(Nanos(50 * 60 * 1_000_000_000));
    assert!(host.words.is_empty() && host.there.is_empty());
    host.call_every_hour(5);
    assert_eq!(host.counts(), [11, 5, 15]);
}

#[test]
fn an_instance_that_was_started_ahead_goes_again_when_nobody_comes() {
    let mut host = Host::new(0, 3);
    host.call_every_hour(12);
    let end = host.story.now;
    host.words.clear();
    // Expect: away, there from 53 minutes (59, less a tenth) to 66 (60, and a tenth) after the last call, and away for good.
    host.wait(Nanos(54 * 60 * 1_000_000_000));
    assert_eq!((host.words.len(), host.there.len()), (2, 1));
    host.wait(end.plus(Nanos(65 * 60 * 1_000_000_000)).since(host.story.now));
    assert_eq!(host.there.len(), 1);
    host.wait(Nanos(2 * 60 * 1_000_000_000));
    assert_eq!((host.there.len(), host.wanted), (0, 0));
    host.wait(Nanos(5 * HOUR.0));
    assert_eq!(host.words.len(), 3);
    // Expect: the next call is held, and starts one.
    host.call();
    assert_eq!(host.counts()[0], 12);
}

#[test]
fn a_call_that_comes_while_one_is_started_ahead_waits_for_that_one_and_counts_as_cold() {
    let mut host = Host::new(0, 3);
    host.call_every_hour(12);
    let cold_before = host.counts()[0];
    host.wait(Nanos(2 * IDLE.0));
    // When the start is asked for, and before it has attached.
    while host.wanted == 0 {
        let due = host.story.engine.next_timer().expect("a start ahead");
        host.story.pass(due.since(host.story.now), NOT_STARTED);
        host.look();
    }
    assert_eq!((host.wanted, host.there.len()), (1, 0));
    host.call();
    // Expect: no second one.
    assert_eq!((host.wanted, host.counts()[0]), (1, cold_before + 1));
}

#[test]
fn of_several_instances_all_but_the_last_go_after_their_time() {
    let mut host = Host::new(0, 3);
    // Given: calls every twenty seconds of which nobody is ever idle for a minute.
    for _ in 0..20 {
        host.call();
        host.wait(Nanos::from_secs(19));
    }
    assert_eq!(host.counts(), [1, 0, 0]);
    // When three come at once, and one at a time from then on.
    host.story.call_many(3);
    let mut pushes = host.story.pushes();
    host.wait(START);
    pushes.extend(host.story.pushes());
    host.run(pushes);
    assert_eq!(host.there.len(), 3);
    for _ in 0..20 {
        host.wait(Nanos::from_secs(19));
        host.call();
    }
    assert_eq!(host.there.len(), 1);
    // Expect: the last goes after 66 s, which is the end of the first minute and a tenth.
    host.wait(Nanos::from_secs(65));
    assert_eq!(host.there.len(), 1);
    host.wait(Nanos::from_secs(2));
    assert_eq!(host.there.len(), 0);
}

#[test]
fn who_has_a_least_number_keeps_it_whatever_is_expected() {
    let mut host = Host::new(1, 3);
    host.call_every_hour(13);
    assert_eq!((host.there.len(), host.counts()), (1, [0, 0, 0]));
}

#[test]
fn another_configuration_keeps_what_was_learned_and_another_policy_forgets_it() {
    let mut host = Host::new(0, 3);
    host.call_every_hour(12);
    let reload = |host: &mut Host, max, is_predictive| {
        let specs = vec![Some(spec_of(0, max, is_predictive)), Some(spec("other"))];
        host.story.engine.handle_reconfigure(TenantSpec::only_default(), specs).expect("sound");
        host.look();
    };
    let cold_before = host.counts()[0];
    reload(&mut host, 5, true);
    host.call_every_hour(2);
    assert_eq!(host.counts()[0], cold_before);
    reload(&mut host, 5, false);
    reload(&mut host, 5, true);
    host.wait(Nanos(2 * IDLE.0));
    host.call_every_hour(2);
    assert_eq!(host.counts()[0], cold_before + 2);
}
