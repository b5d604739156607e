//! A batch is its calls one after the other, and nothing else: two engines are told the same, one of them in batches.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Ask(Vec<Asked>),
    /// So many calls that workers hold end well, those pushed first before the others.
    End {
        count: usize,
        run_ns: u64,
    },
    /// One of them ends otherwise.
    Fail,
    Cancel {
        which: usize,
    },
    Pass {
        ns: u64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    function: u32,
    criticality: u8,
    budget_us: u32,
    payload_size: u32,
    flags: u16,
}

/// One engine, and what its workers hold.
struct Side {
    engine: Engine,
    held: Vec<Push>,
    told: Vec<String>,
}

const SLOTS: u32 = 128;

/// Whether only one function has a policy, or all have several.
#[derive(Clone, Copy, Debug)]
enum Governed {
    One,
    All,
}

impl Governed {
    fn running_max(self) -> Option<u32> {
        matches!(self, Governed::All).then_some(2)
    }

    fn specs(self) -> (Vec<TenantSpec>, Vec<FunctionSpec>) {
        let limited = FunctionSpec {
            policy: Policy { concurrency_max: Some(8), ..Policy::default() },
            ..spec("limited")
        };
        if let Governed::One = self {
            return (TenantSpec::only_default(), vec![spec("echo"), spec("other"), limited]);
        }
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        let owner = TenantSpec {
            rate: rate(2_000_000, 150),
            concurrency_max: Some(90),
            weight: 3,
            ..TenantSpec::named("owner")
        };
        let breaker = BreakerSpec {
            failure_percent: 30,
            calls_min: 3,
            window: Nanos::from_ms(200),
            open_for: Nanos::from_ms(30),
            probes_max: 3,
        };
        let policy = Policy {
            rate: rate(1_000_000, 120),
            breaker: Some(breaker),
            retry: RetrySpec { on_error: true, retries_max: 2, ..RetrySpec::default() },
            slow_start: Some(SlowStart { window: Nanos::from_ms(20), calls_min: 60, growth_percent: 50 }),
            concurrency_max: Some(70),
            queue_delay_max: Some(Nanos::from_ms(50)),
            ageing: Some(Nanos::from_ms(15)),
            canary: Some(CanarySpec { function: OTHER, percent: 7 }),
            ..Policy::default()
        };
        let of = |name, policy| FunctionSpec { policy, tenant: TenantIndex(1), ..spec(name) };
        let other = Policy { concurrency_max: Some(40), ..Policy::default() };
        let specs = vec![of("echo", policy), of("other", other), limited];
        (TenantSpec::only_default().into_iter().chain([owner]).collect(), specs)
    }
}

impl Side {
    fn new(governed: Governed) -> Side {
        let limits = Limits { invocations_max: 300, ..Limits::default() };
        let (tenants, specs) = governed.specs();
        let limits = Limits { running_max: governed.running_max(), ..limits };
        let mut engine = Engine::new(ShardId(5), limits, tenants, specs).expect("a sound configuration");
        for function in [ECHO, OTHER, FunctionId(2)] {
            engine.handle_worker_attached(Nanos::from_secs(1), function, SLOTS).expect("there is room");
        }
        Side { engine, held: Vec::new(), told: Vec::new() }
    }

    fn note(&mut self, verdict: Verdict) {
        self.told.push(format!("{verdict:?}"));
        if let Verdict::Pushed(push) = verdict {
            self.held.push(push);
        }
    }

    /// As `admit_all` of a front-end does.
    fn ask_batched(&mut self, now: Nanos, requests: &[Request]) {
        let mut rest = requests;
        while let Some(first) = rest.first() {
            let mut pushes = Vec::new();
            if let Some(mut batch) = self.engine.open_batch(now, first.function) {
                pushes.extend(rest.iter().map_while(|request| batch.push(request)));
                assert_eq!(batch.count() as usize, pushes.len());
                batch.close();
                self.engine.invariants();
            }
            rest = &rest[pushes.len()..];
            pushes.into_iter().for_each(|push| self.note(Verdict::Pushed(push)));
            if let Some((request, behind)) = rest.split_first() {
                let verdict = self.engine.handle_request(now, *request);
                self.note(verdict);
                rest = behind;
            }
        }
    }

    fn ask_each(&mut self, now: Nanos, requests: &[Request]) {
        for request in requests {
            let verdict = self.engine.handle_request(now, *request);
            self.note(verdict);
        }
    }

    fn end_batched(&mut self, now: Nanos, ended: &[Push], finished: Finished) {
        for of_one in ended.chunk_by(|one, next| one.worker == next.worker) {
            let mut rest = of_one;
            while let Some((push, behind)) = rest.split_first() {
                let mut answers = Vec::new();
                let results = rest.iter().map(|push| (push.invocation, finished));
                self.engine.handle_results(now, push.worker, results, |answer| answers.push(answer));
                self.engine.invariants();
                rest = &rest[answers.len()..];
                let is_stuck = answers.is_empty();
                answers.into_iter().for_each(|answer| self.tell(Completed::Answer(answer)));
                if is_stuck {
                    let completed =
                        self.engine.handle_completion(now, push.worker, push.invocation, finished);
                    self.tell(completed);
                    rest = behind;
                }
            }
        }
    }

    fn end_each(&mut self, now: Nanos, ended: &[Push], finished: Finished) {
        for push in ended {
            let completed = self.engine.handle_completion(now, push.worker, push.invocation, finished);
            self.tell(completed);
        }
    }

    fn tell(&mut self, completed: Completed) {
        self.told.push(format!("{completed:?}"));
    }

    /// What a router does in each turn beside.
    fn turn(&mut self, now: Nanos) {
        self.engine.handle_time(now, &NeverStarted);
        while let Some(push) = self.engine.poll_push(now) {
            self.told.push(format!("{push:?}"));
            self.held.push(push);
        }
        while let Some(action) = self.engine.poll_worker_action() {
            self.told.push(format!("{action:?}"));
        }
        while let Some(answer) = self.engine.poll_answer() {
            self.told.push(format!("{answer:?}"));
        }
        self.engine.invariants();
    }

    /// Everything that can be seen of it.
    fn seen(&self) -> String {
        let functions = (0..3).map(|number| self.engine.function_view(FunctionId(number)));
        format!(
            "{:?} {:?} {:?} {:?}",
            self.told,
            self.engine.counters(),
            functions.collect::<Vec<_>>(),
            self.engine.next_timer(),
        )
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let function = prop_oneof![8 => Just(0_u32), 3 => Just(1), 1 => Just(2), 1 => Just(9)];
    let criticality = prop_oneof![8 => Just(1_u8), 2 => 0..4_u8, 1 => Just(7)];
    let budget_us = prop_oneof![4 => Just(0_u32), 2 => 1..100_u32, 2 => 1_000..100_000_u32];
    let payload_size = prop_oneof![8 => Just(32_u32), 1 => Just(1_001)];
    let flags =
        prop_oneof![4 => Just(0_u16), 1 => Just(Flags::IDEMPOTENT.0), 1 => Just(Flags::WANT_TIMINGS.0)];
    (function, criticality, budget_us, payload_size, flags).prop_map(
        |(function, criticality, budget_us, payload_size, flags)| Asked {
            function,
            criticality,
            budget_us,
            payload_size,
            flags,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec(asked(), 1..80).prop_map(Op::Ask),
        4 => (1..100_usize, prop_oneof![Just(200_u64), Just(5_000), Just(1_000_000)])
            .prop_map(|(count, run_ns)| Op::End { count, run_ns }),
        1 => Just(Op::Fail),
        1 => (0..100_usize).prop_map(|which| Op::Cancel { which }),
        2 => prop_oneof![Just(1_000_u64), Just(50_000), Just(20_000_000)].prop_map(|ns| Op::Pass { ns }),
    ]
}

fn check(governed: Governed, ops: &[Op]) {
    let (mut each, mut batched) = (Side::new(governed), Side::new(governed));
    let mut now = Nanos::from_secs(1);
    let mut calls = 0;
    for op in ops {
        match op {
            Op::Ask(asked) => {
                let requests: Vec<Request> = asked
                    .iter()
                    .map(|asked| {
                        calls += 1;
                        let mut asked_for = Request {
                            received_at: now,
                            function: FunctionId(asked.function),
                            criticality: asked.criticality,
                            budget_us: asked.budget_us,
                            payload_size: asked.payload_size,
                            flags: Flags(asked.flags),
                            ..request()
                        };
                        asked_for.origin.call_id = CallId(calls);
                        asked_for
                    })
                    .collect();
                each.ask_each(now, &requests);
                batched.ask_batched(now, &requests);
            }
            Op::End { count, run_ns } => {
                let count = (*count).min(each.held.len());
                let ended: Vec<Push> = each.held.drain(..count).collect();
                batched.held.drain(..count);
                let started_at = Nanos(now.0.saturating_sub(*run_ns));
                let finished = Finished { outcome: RunOutcome::Ok, started_at, finished_at: now };
                // By worker, as their rings are reaped.
                let mut by_worker = ended;
                by_worker.sort_by_key(|push| push.worker.index);
                each.end_each(now, &by_worker, finished);
                batched.end_batched(now, &by_worker, finished);
            }
            Op::Fail if !each.held.is_empty() => {
                let ended = [each.held.remove(0)];
                batched.held.remove(0);
                let finished = finished(RunOutcome::FunctionError);
                each.end_each(now, &ended, finished);
                batched.end_batched(now, &ended, finished);
            }
            Op::Cancel { which } if !each.held.is_empty() => {
                let invocation = each.held[which % each.held.len()].invocation;
                each.engine.handle_cancel(now, invocation, CancelReason::Asked);
                batched.engine.handle_cancel(now, invocation, CancelReason::Asked);
            }
            Op::Fail | Op::Cancel { .. } => {}
            Op::Pass { ns } => now = now.plus(Nanos(*ns)),
        }
        each.turn(now);
        batched.turn(now);
        assert_eq!(each.seen(), batched.seen(), "after {op:?}");
        assert_eq!(each.held, batched.held);
        each.told.clear();
        batched.told.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_is_what_its_calls_are_one_by_one(ops in prop::collection::vec(op(), 1..40)) {
        check(Governed::One, &ops);
    }

    #[test]
    fn with_policies_too(ops in prop::collection::vec(op(), 1..40)) {
        check(Governed::All, &ops);
    }
}

#[test]
fn a_batch_ends_where_its_worker_has_no_slot_left() {
    // Given: a function that is quick: 256 of its calls of 200 ns are 100 us of work, and its worker has 128 slots.
    let now = Nanos::from_secs(1);
    let mut side = Side::new(Governed::One);
    side.ask_each(now, &[request()]);
    side.turn(now);
    let first = side.held.pop().expect("an idle worker");
    side.end_each(
        now,
        &[first],
        Finished { outcome: RunOutcome::Ok, started_at: Nanos(now.0 - 200), finished_at: now },
    );
    // Expect: as many as it has slots are bound as they come, and the batch hands the next one back.
    let asked = Request { received_at: now, ..request() };
    let mut batch = side.engine.open_batch(now, ECHO).expect("nothing waits");
    let pushed = std::iter::from_fn(|| batch.push(&asked)).count();
    batch.close();
    assert_eq!(pushed, SLOTS as usize);
    side.engine.invariants();
    assert!(side.engine.open_batch(now, ECHO).is_none(), "there is no room for another one");
    assert!(matches!(side.engine.handle_request(now, asked), Verdict::Admitted(_)));
}
