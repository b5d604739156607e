//! A day of traffic at scale, in virtual time, through the real engine: what order is worth when there is not enough for
//! everybody.
//!
//! In: nothing but a seed.  Out: figures for each [`Order`], and a drawing (`drawing.rs`).
//! Always: the same calls for every order: arrivals, functions and run times are drawn from streams of their own.
//! Modelled: a day is run 60 times as fast (1,440 s), so that a run of one second is one of a minute. The host's processors
//! are places in which calls may run (`running_max`); each function has processes enough, of one call each. A running call
//! holds its place until it ends, or until the router asks it to stop at its deadline.
//! Always: two days are run and the second is measured, which begins with what the first left waiting.
//! Never: a ring or a shim; those are the other scenarios' matter.  Page: docs/simulation.md, "A day at scale".

mod drawing;
mod figures;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine::{
    Engine, Finished, FunctionSpec, InvocationId, Limits, Nanos, Origin, Policy, Quota, Rate, Request,
    RunOutcome, ShardId, Started, TenantSpec, Verdict, WorkerAction, WorkerId,
};
use protocol::{CallId, Flags, FunctionId};

use crate::chance::Chance;
use crate::service::ServiceTime;

pub use drawing::draw;
pub use figures::{Figures, SLOT_COUNT};

/// How calls are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One criticality and one deadline for all, so that the engine has nothing to order by: first come, first served
    /// within a function, and functions take turns. Late results are counted as missed; nobody tells them apart before.
    Fifo,
    /// Each call with its own criticality and deadline.
    CriticalityDeadline,
    /// The same, and the functions of low criticality are opportunistic (`engine/src/opportunistic.rs`): their calls may wait for
    /// a day, and run at the share of their rate that the others leave.
    Opportunistic,
}

impl Order {
    /// All of them, in the order of the page.
    pub const ALL: [Order; 3] = [Order::Fifo, Order::CriticalityDeadline, Order::Opportunistic];

    /// As the page and the drawing call it.
    pub fn name(self) -> &'static str {
        match self {
            Order::Fifo => "FIFO",
            Order::CriticalityDeadline => "criticality and deadline",
            Order::Opportunistic => "the same, low calls opportunistic",
        }
    }
}

/// The size of it all.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub worker_count: u32,
    pub function_count: u32,
    pub tenant_count: u32,
}

/// What the page shows.
pub const FULL: Scale = Scale { worker_count: 2_000, function_count: 1_000, tenant_count: 100 };

/// 24 hours, 60 times as fast.
pub const DAY_NS: u64 = 1_440_000_000_000;
/// Calls at the peak over calls in the trough, as XFaaS has it.
pub const PEAK_TO_TROUGH: f64 = 4.3;
/// Work that is asked for in a day, over what all processors can do in a day.
const LOAD_MEAN: f64 = 0.7;
/// The mean run: a minute of the real day.
const RUN_MEAN_NS: f64 = 1e9;
/// Calls a second of an opportunistic function at most, over its mean: so many that a quiet night makes up for a busy noon.
const QUOTA_FACTOR: f64 = 1.25;
/// Processes of a function, over the calls of it that run at one time on average. The busiest hour wants 1.6 of it.
const PROCESSES_FACTOR: f64 = 4.0;
/// The spread of run times within a function: the longest of a hundred is five times the median.
const RUN_SIGMA: f64 = 0.7;

/// Of 10 calls so many have each criticality, low first, and so long is their deadline, in real minutes.
const MIX: [(u64, u64); 4] = [(4, 60), (3, 20), (2, 10), (1, 5)];
const MINUTE_NS: u64 = 1_000_000_000;

/// How often work is asked for at a time of the day, over the mean: one sine, highest at noon.
pub fn demand_at(at_ns: u64) -> f64 {
    let swing = (PEAK_TO_TROUGH - 1.0) / (PEAK_TO_TROUGH + 1.0);
    1.0 - swing * (std::f64::consts::TAU * at_ns as f64 / DAY_NS as f64).cos()
}

/// One function: whose it is, how much it matters, how long it runs.
struct Function {
    tenant: u32,
    criticality: u8,
    service: ServiceTime,
    /// Of all calls.
    share: f64,
    /// Up to and including it: where a draw below 1 finds its function.
    cumulative_share: f64,
}

impl Function {
    /// Its calls a second, over the day; and as many run at one time, because a run takes a second.
    fn mean_per_second(&self, scale: Scale) -> f64 {
        self.share * LOAD_MEAN * f64::from(scale.worker_count)
    }

    fn spec(&self, order: Order, scale: Scale, number: usize) -> FunctionSpec {
        let is_opportunistic = order == Order::Opportunistic && self.criticality == 0;
        let per_second = ((self.mean_per_second(scale) * QUOTA_FACTOR).ceil() as u32).max(1);
        let rate = Rate { per_second, burst: 1 };
        let quota = if is_opportunistic { Quota::Opportunistic } else { Quota::Reserved };
        let policy = Policy { quota, rate: is_opportunistic.then_some(rate), ..Policy::default() };
        FunctionSpec {
            timeout: Nanos(3 * DAY_NS),
            queue_count_max: 1 << 22,
            policy,
            ..FunctionSpec::named(format!("function-{number}"))
        }
    }

    fn process_count(&self, scale: Scale) -> u32 {
        1 + (self.mean_per_second(scale) * PROCESSES_FACTOR).ceil() as u32
    }
}

/// A call between its arrival and its end.
#[derive(Clone, Copy, Default)]
struct Call {
    function: u32,
    run_ns: u64,
    deadline_at_ns: u64,
    /// Who runs it, and as which invocation; none before and after.
    running: Option<(WorkerId, InvocationId)>,
    started_at_ns: u64,
    /// It came on the second day.
    is_measured: bool,
}

struct Day {
    order: Order,
    engine: Engine,
    functions: Vec<Function>,
    /// By the slot of the invocation.
    calls: Vec<Call>,
    running: BinaryHeap<Reverse<(u64, InvocationId)>>,
    figures: Figures,
}

/// Runs a day.
pub fn run(order: Order, scale: Scale, seed: u64) -> Figures {
    let functions = functions(scale, &mut Chance::new(seed));
    let mut day = Day::new(order, scale, functions);
    let mut arrivals = Chance::new(seed ^ 0x4441_5900);
    let per_ns_peak = {
        let swing = (PEAK_TO_TROUGH - 1.0) / (PEAK_TO_TROUGH + 1.0);
        LOAD_MEAN * f64::from(scale.worker_count) / RUN_MEAN_NS * (1.0 + swing)
    };
    let mut at_ns = 0.0;
    loop {
        // Arrivals of the peak, of which as many are left out as the time of the day says (Lewis and Shedler 1979).
        at_ns += arrivals.exponential() / per_ns_peak;
        let now_ns = at_ns as u64;
        if now_ns >= 2 * DAY_NS {
            break;
        }
        let is_kept = arrivals.unit() * per_ns_peak * RUN_MEAN_NS
            <= demand_at(now_ns) * LOAD_MEAN * f64::from(scale.worker_count);
        day.advance(now_ns);
        if is_kept {
            day.arrive(now_ns, &mut arrivals);
        }
    }
    day.finish()
}

fn functions(scale: Scale, chance: &mut Chance) -> Vec<Function> {
    // A few functions have most of the calls, and a few tenants most of the functions that count.
    let weights: Vec<f64> = (1..=scale.function_count).map(|rank| 1.0 / f64::from(rank).powf(0.8)).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let mean_factor = (RUN_SIGMA * RUN_SIGMA / 2.0).exp();
    weights
        .iter()
        .zip(0..)
        .map(|(weight, number)| {
            sum += weight / total;
            Function {
                tenant: number % scale.tenant_count,
                criticality: criticality_of(chance.below(10)),
                service: ServiceTime::Lognormal {
                    median_ns: (RUN_MEAN_NS / mean_factor) as u64,
                    sigma: RUN_SIGMA,
                },
                share: weight / total,
                cumulative_share: sum,
            }
        })
        .collect()
}

fn criticality_of(draw: u64) -> u8 {
    let mut left = draw;
    for (criticality, (share, _)) in (0..).zip(MIX) {
        if left < share {
            return criticality;
        }
        left -= share;
    }
    0
}

impl Day {
    fn new(order: Order, scale: Scale, functions: Vec<Function>) -> Day {
        let process_count: u32 = functions.iter().map(|function| function.process_count(scale)).sum();
        let limits = Limits {
            invocations_max: 1 << 22,
            workers_max: process_count,
            running_max: Some(scale.worker_count),
            direct_depth_min: None,
            ..Limits::default()
        };
        let specs = functions.iter().enumerate().map(|(number, it)| it.spec(order, scale, number)).collect();
        let mut engine = Engine::new(ShardId(0), limits, TenantSpec::only_default(), specs)
            .expect("a sound configuration");
        for (function, number) in functions.iter().zip(0..) {
            for _ in 0..function.process_count(scale) {
                let attached = engine.handle_worker_attached(Nanos(1), FunctionId(number), 1);
                attached.expect("room for all of them");
            }
        }
        let figures = Figures::new(scale);
        Day { order, engine, functions, calls: Vec::new(), running: BinaryHeap::new(), figures }
    }

    fn arrive(&mut self, now_ns: u64, chance: &mut Chance) {
        let draw = chance.unit();
        let number = self.functions.partition_point(|function| function.cumulative_share < draw);
        let number = number.min(self.functions.len() - 1);
        let function = &self.functions[number];
        let run_ns = function.service.draw_ns(chance);
        let minutes = MIX[usize::from(function.criticality)].1;
        let is_opportunistic = self.order == Order::Opportunistic && function.criticality == 0;
        let budget_ns = if is_opportunistic { DAY_NS } else { minutes * MINUTE_NS };
        let is_ordered = self.order != Order::Fifo;
        let request = Request {
            origin: Origin { connection: 0, connection_generation: 0, call_id: CallId(0) },
            received_at: Nanos(now_ns),
            function: FunctionId(number as u32),
            criticality: if is_ordered { function.criticality } else { 1 },
            budget_us: if is_ordered { (budget_ns / 1_000) as u32 } else { 0 },
            payload_size: 0,
            flags: Flags::NONE,
        };
        let is_measured = now_ns >= DAY_NS;
        if is_measured {
            self.figures.asked(now_ns - DAY_NS, function.tenant, function.criticality, run_ns);
        }
        match self.engine.handle_request(Nanos(now_ns), request) {
            Verdict::Admitted(id) => {
                let slot = id.slot() as usize;
                if slot >= self.calls.len() {
                    self.calls.resize((slot + 1).next_power_of_two(), Call::default());
                }
                self.calls[slot] = Call {
                    function: number as u32,
                    run_ns,
                    deadline_at_ns: now_ns + budget_ns,
                    is_measured,
                    ..Call::default()
                };
                self.dispatch(now_ns);
            }
            Verdict::Pushed(_) => unreachable!("every call stands in its queue: direct_depth_min is none"),
            Verdict::Fallback(_) => unreachable!("no function of the day has a fallback"),
            Verdict::Refused(_) => {}
        }
    }

    /// Everything that happens until `now_ns`. In between two events timers may be late by as much as those are apart, which
    /// is less than a millisecond by day; the night after has no arrivals, and follows the timers.
    fn advance(&mut self, now_ns: u64) {
        while let Some(Reverse((at_ns, id))) = self.running.peek().copied().filter(|next| next.0.0 <= now_ns)
        {
            self.running.pop();
            self.look_at_time(at_ns);
            self.complete(at_ns, id, RunOutcome::Ok);
            self.dispatch(at_ns);
        }
        self.look_at_time(now_ns);
        self.dispatch(now_ns);
    }

    fn look_at_time(&mut self, now_ns: u64) {
        // All that was pushed has begun.
        self.engine.handle_time(Nanos(now_ns), &|_, _| Started::Yes);
        while self.engine.poll_answer().is_some() {}
        while let Some(action) = self.engine.poll_worker_action() {
            let WorkerAction::Cancel { invocation, .. } = action else {
                unreachable!("a function that stops when it is asked is never killed: {action:?}");
            };
            self.complete(now_ns, invocation, RunOutcome::Cancelled);
        }
    }

    /// A call ends and gives its processor back. A second end of the same call is what is left of a cancelled one.
    fn complete(&mut self, now_ns: u64, id: InvocationId, outcome: RunOutcome) {
        let call = &mut self.calls[id.slot() as usize];
        let Some((worker, _)) = call.running.take_if(|(_, running)| *running == id) else { return };
        let function = &self.functions[call.function as usize];
        self.figures.ran(call.started_at_ns.saturating_sub(DAY_NS), now_ns.saturating_sub(DAY_NS));
        if call.is_measured && outcome == RunOutcome::Ok && now_ns < call.deadline_at_ns {
            self.figures.in_time(function.tenant, function.criticality, call.run_ns);
        }
        let (started_at, finished_at) = (Nanos(call.started_at_ns), Nanos(now_ns));
        self.engine.handle_completion(
            Nanos(now_ns),
            worker,
            id,
            Finished { outcome, started_at, finished_at },
        );
    }

    fn dispatch(&mut self, now_ns: u64) {
        while let Some(push) = self.engine.poll_push(Nanos(now_ns)) {
            let call = &mut self.calls[push.invocation.slot() as usize];
            call.running = Some((push.worker, push.invocation));
            call.started_at_ns = now_ns;
            self.running.push(Reverse((now_ns + call.run_ns, push.invocation)));
        }
        while self.engine.poll_answer().is_some() {}
    }

    /// The night after: nothing new comes, and what waits is done or given up.
    fn finish(mut self) -> Figures {
        let mut now_ns = 2 * DAY_NS;
        while !self.engine.is_idle() {
            let next_ns = self.running.peek().map(|next| next.0.0);
            let timer_ns = self.engine.next_timer().map(|at| at.0);
            let Some(at_ns) = next_ns.into_iter().chain(timer_ns).min() else { break };
            now_ns = at_ns.max(now_ns);
            self.advance(now_ns);
        }
        self.figures
    }
}
