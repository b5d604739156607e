//! `sim --replay FILE`: the calls of a recording through the real engine, with the recorded run times, in virtual time.
//!
//! In: a recording of `quickfire record`.  Out: how the calls end here, beside how they ended there.
//! Always: each function has as many workers as ran its calls at once in the recording, each of which runs one call at a
//! time; a call that did not run there runs for the median of its function.
//! Never: sockets, rings or waking: what they took is the difference between the latencies.  Page: docs/simulation.md.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use engine::{
    Engine, Finished, FunctionSpec, InvocationId, Limits, Nanos, Origin, Push, Request, RunOutcome, ShardId,
    Started, TenantSpec, Verdict, WorkerAction, WorkerId,
};
use protocol::recording::{FUNCTIONS_MAX, RecordedCall, Recording};
use protocol::{CallId, Flags, FunctionId, Status};

/// Both sides of a replay.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    recorded: Side,
    replayed: Side,
}

/// How the calls ended, and how long those took that ended well.
#[derive(Debug, Default, PartialEq, Eq)]
struct Side {
    outcomes: BTreeMap<&'static str, u64>,
    latencies_ns: Vec<u64>,
}

impl Side {
    fn add(&mut self, status: Option<Status>, latency_ns: u64) {
        *self.outcomes.entry(status.map_or("unknown", Status::name)).or_default() += 1;
        if status == Some(Status::Ok) {
            self.latencies_ns.push(latency_ns);
        }
    }

    fn percentile_ns(&self, share: f64) -> u64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        self.latencies_ns.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { recorded, replayed } = self;
        writeln!(out, "{:<22}{:>14}{:>14}", "", "recorded", "simulated")?;
        let mut names: Vec<_> = recorded.outcomes.keys().chain(replayed.outcomes.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let count = |side: &Side| side.outcomes.get(name).copied().unwrap_or_default();
            writeln!(out, "{name:<22}{:>14}{:>14}", count(recorded), count(replayed))?;
        }
        for (name, share) in [("latency p50", 0.5), ("latency p99", 0.99), ("latency max", 1.0)] {
            let ms = |side: &Side| format!("{:.3} ms", side.percentile_ns(share) as f64 / 1e6);
            writeln!(out, "{name:<22}{:>14}{:>14}", ms(recorded), ms(replayed))?;
        }
        Ok(())
    }
}

/// Runs a recording.
pub fn replay(recording: &Recording) -> Comparison {
    let mut replay = Replay::new(recording);
    for index in 0..recording.calls.len() {
        let now_ns = recording.calls[index].received_at_ns;
        replay.advance(now_ns);
        replay.arrive(now_ns, index);
    }
    replay.finish()
}

struct Replay<'a> {
    recording: &'a Recording,
    engine: Engine,
    run_medians_ns: Vec<u64>,
    /// Which call of the recording it is, by the slot of the invocation.
    calls: BTreeMap<u32, usize>,
    /// When each pushed call began, and who runs it.
    running: BTreeMap<InvocationId, (WorkerId, u64)>,
    ends: BinaryHeap<Reverse<(u64, InvocationId)>>,
    comparison: Comparison,
    now_ns: u64,
}

impl<'a> Replay<'a> {
    fn new(recording: &'a Recording) -> Self {
        let limits = Limits {
            functions_max: FUNCTIONS_MAX as u32,
            run_ahead: Nanos::NEVER,
            direct_depth_min: None,
            ..Limits::default()
        };
        let function_count = recording.functions.len() as u32;
        // A budget is never longer than its function's time-out, so the longest is the best guess at that.
        let timeout = |number| {
            let calls = recording.calls.iter().filter(|call| call.function == number);
            Nanos(calls.map(|call| call.budget_ns).max().unwrap_or_default().max(1))
        };
        let specs = (0..function_count).map(|number| FunctionSpec {
            timeout: timeout(number),
            ..FunctionSpec::named(format!("{number}"))
        });
        let mut engine = Engine::new(ShardId(0), limits, TenantSpec::only_default(), specs.collect())
            .expect("numbers as names are sound, and a recording has no more than FUNCTIONS_MAX");
        for number in 0..function_count {
            for _ in 0..at_once(recording, number) {
                // More than the engine takes are none.
                let _ = engine.handle_worker_attached(Nanos(1), FunctionId(number), 1);
            }
        }
        let run_medians_ns = (0..function_count).map(|number| run_median_ns(recording, number)).collect();
        let mut comparison = Comparison::default();
        for call in &recording.calls {
            comparison.recorded.add(Status::try_from(call.status).ok(), call.answered_ns);
        }
        Self {
            recording,
            engine,
            run_medians_ns,
            calls: BTreeMap::new(),
            running: BTreeMap::new(),
            ends: BinaryHeap::new(),
            comparison,
            now_ns: 0,
        }
    }

    fn arrive(&mut self, now_ns: u64, index: usize) {
        let call = &self.recording.calls[index];
        let request = Request {
            origin: Origin { connection: 0, connection_generation: 0, call_id: CallId(index as u64) },
            received_at: Nanos(now_ns),
            function: FunctionId(call.function),
            criticality: call.criticality,
            budget_us: u32::try_from(call.budget_ns.div_ceil(1_000)).unwrap_or(u32::MAX),
            payload_size: 0,
            flags: Flags::NONE,
        };
        match self.engine.handle_request(Nanos(now_ns), request) {
            Verdict::Admitted(id) => {
                self.calls.insert(id.slot(), index);
                self.dispatch(now_ns);
            }
            Verdict::Pushed(push) => {
                self.calls.insert(push.invocation.slot(), index);
                self.begin(now_ns, push);
            }
            Verdict::Refused(refused) => self.comparison.replayed.add(Some(refused.status), 0),
            Verdict::Fallback(_) => self.comparison.replayed.add(Some(Status::Ok), 0),
        }
    }

    /// Everything that happens until `now_ns`.
    fn advance(&mut self, now_ns: u64) {
        while let Some(Reverse((at_ns, id))) = self.ends.peek().copied().filter(|end| end.0.0 <= now_ns) {
            self.ends.pop();
            self.look_at_time(at_ns);
            self.complete(at_ns, id, None);
            self.dispatch(at_ns);
        }
        self.look_at_time(now_ns);
        self.dispatch(now_ns);
        self.now_ns = now_ns;
    }

    fn look_at_time(&mut self, now_ns: u64) {
        // A worker has one slot, and begins what it gets.
        self.engine.handle_time(Nanos(now_ns), &|_, _| Started::Yes);
        self.take_answers(now_ns);
        while let Some(action) = self.engine.poll_worker_action() {
            // A function that stops when it is asked is never killed.
            if let WorkerAction::Cancel { invocation, .. } = action {
                self.complete(now_ns, invocation, Some(RunOutcome::Cancelled));
            }
        }
    }

    fn dispatch(&mut self, now_ns: u64) {
        while let Some(push) = self.engine.poll_push(Nanos(now_ns)) {
            self.begin(now_ns, push);
        }
        self.take_answers(now_ns);
    }

    fn begin(&mut self, now_ns: u64, push: Push) {
        let call = self.call(push.invocation);
        let run_ns = call.run_ns().unwrap_or(self.run_medians_ns[call.function as usize]);
        self.running.insert(push.invocation, (push.worker, now_ns));
        self.ends.push(Reverse((now_ns.saturating_add(run_ns), push.invocation)));
    }

    /// A call ends as it is told, or as it did in the recording.
    fn complete(&mut self, now_ns: u64, id: InvocationId, outcome: Option<RunOutcome>) {
        let Some((worker, started_at_ns)) = self.running.remove(&id) else { return };
        let call = self.call(id);
        let as_recorded = match Status::try_from(call.status) {
            Ok(Status::FunctionError) => RunOutcome::FunctionError,
            Ok(Status::ResultTooLarge) => RunOutcome::ResultTooLarge,
            Ok(Status::Backpressure) => RunOutcome::Backpressure,
            _ => RunOutcome::Ok,
        };
        let latency_ns = now_ns - call.received_at_ns;
        let outcome = outcome.unwrap_or(as_recorded);
        let finished = Finished { outcome, started_at: Nanos(started_at_ns), finished_at: Nanos(now_ns) };
        let completed = self.engine.handle_completion(Nanos(now_ns), worker, id, finished);
        if let engine::Completed::Answer(answer) = completed {
            self.comparison.replayed.add(Some(answer.status), latency_ns);
        }
    }

    fn take_answers(&mut self, now_ns: u64) {
        while let Some(answer) = self.engine.poll_answer() {
            let latency_ns = now_ns - self.call(answer.invocation).received_at_ns;
            self.comparison.replayed.add(Some(answer.status), latency_ns);
        }
    }

    fn call(&self, id: InvocationId) -> &'a RecordedCall {
        &self.recording.calls[self.calls[&id.slot()]]
    }

    fn finish(mut self) -> Comparison {
        while !self.engine.is_idle() {
            let end_ns = self.ends.peek().map(|end| end.0.0);
            let timer_ns = self.engine.next_timer().map(|at| at.0);
            let Some(at_ns) = end_ns.into_iter().chain(timer_ns).min() else { break };
            self.advance(at_ns.max(self.now_ns));
        }
        self.comparison.recorded.latencies_ns.sort_unstable();
        self.comparison.replayed.latencies_ns.sort_unstable();
        self.comparison
    }
}

/// How many calls of a function ran at the same time, at least one.
fn at_once(recording: &Recording, number: u32) -> u32 {
    let ran = recording.calls.iter().filter(|call| call.function == number && call.finished_ns > 0);
    let mut changes: Vec<(u64, i32)> = ran
        .flat_map(|call| {
            let at = |length_ns: u64| call.received_at_ns.saturating_add(length_ns);
            [(at(call.started_ns), 1), (at(call.finished_ns), -1)]
        })
        .collect();
    // Who ends at the moment at which another begins makes room for it.
    changes.sort_unstable();
    let (mut count, mut most) = (0, 1);
    for (_, change) in changes {
        count += change;
        most = most.max(count);
    }
    most as u32
}

/// The median of the runs of a function; a microsecond if it never ran.
fn run_median_ns(recording: &Recording, number: u32) -> u64 {
    let calls = recording.calls.iter().filter(|call| call.function == number);
    let mut runs_ns: Vec<_> = calls.filter_map(RecordedCall::run_ns).collect();
    runs_ns.sort_unstable();
    runs_ns.get(runs_ns.len() / 2).copied().unwrap_or(1_000)
}

#[cfg(test)]
mod tests {
    use protocol::recording::{encode_end, encode_file_header, encode_function};

    use super::*;

    const MS: u64 = 1_000_000;

    /// A call that ran for 10 ms without waiting.
    fn call(at_ms: u64, status: Status) -> RecordedCall {
        RecordedCall {
            received_at_ns: 1_000 * MS + at_ms * MS,
            budget_ns: 25 * MS,
            pushed_ns: 1,
            started_ns: 1,
            finished_ns: 10 * MS + 1,
            answered_ns: 10 * MS + 2,
            status: status as u16,
            criticality: 1,
            ..RecordedCall::default()
        }
    }

    fn recording(calls: &[RecordedCall]) -> Recording {
        let mut bytes = Vec::new();
        encode_file_header(false, 0, &mut bytes);
        encode_function("f", &mut bytes);
        calls.iter().for_each(|call| call.encode(&[], &mut bytes));
        encode_end(calls.len() as u64, &mut bytes);
        Recording::read(&bytes).expect("a recording of our own")
    }

    #[test]
    fn what_had_room_ends_as_it_ended() {
        let calls = [call(0, Status::Ok), call(20, Status::FunctionError), call(40, Status::Ok)];
        let comparison = replay(&recording(&calls));
        assert_eq!(comparison.recorded.outcomes, comparison.replayed.outcomes);
        assert_eq!(comparison.replayed.latencies_ns, [10 * MS, 10 * MS]);
    }

    #[test]
    fn what_comes_too_fast_for_the_workers_there_were_waits_and_expires() {
        // Given four calls at once that never ran at the same time: one worker.
        let mut calls: Vec<_> = (0..4).map(|_| call(0, Status::Ok)).collect();
        for (call, wait) in calls.iter_mut().zip(0..) {
            call.started_ns += wait * 10 * MS;
            call.finished_ns += wait * 10 * MS;
        }
        let comparison = replay(&recording(&calls));
        // Expect that the third is stopped at its deadline of 25 ms, and the fourth never begins.
        let outcomes: Vec<_> = comparison.replayed.outcomes.into_iter().collect();
        assert_eq!(outcomes, [("expired", 1), ("ok", 2), ("timed_out", 1)]);
        assert_eq!(comparison.replayed.latencies_ns, [10 * MS, 20 * MS]);
    }

    #[test]
    fn workers_are_as_many_as_ran_at_once() {
        let calls = [call(0, Status::Ok), call(5, Status::Ok), call(12, Status::Ok)];
        assert_eq!(at_once(&recording(&calls), 0), 2);
    }
}
