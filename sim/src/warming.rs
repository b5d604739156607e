//! Two weeks of calls as "Serverless in the Wild" found them, and the policies that keep functions warm through them: how many calls
//! start cold, and for how much memory that does nothing.
//!
//! In: nothing but a seed.  Out: figures for each [`Policy`], and a drawing (`drawing.rs`).
//! Always: the same calls for every policy (`trace.rs`); each application is alone, so that its calls are drawn once and all
//! policies see them as they come.
//! Real here: `engine::warming`, which says when an application is let go and when it is warm again. Modelled: its calls, and a pool
//! that does as it is told: an application is warm as a whole, while it runs and for as long as the plan says, and starting takes no
//! time, as in the paper's own simulation.
//! Never: a queue, a worker or a limit; those are the other scenarios' matter.  Page: docs/simulation.md, "Keeping functions warm".

mod drawing;
mod figures;
#[cfg(test)]
mod host;
#[cfg(test)]
mod tests;
mod trace;

use engine::warming::{Learning, Predictive};
use engine::{Nanos, WarmPlan, Warming};

pub use drawing::draw;
pub use figures::{Figures, HEAD};

use trace::{Application, Call};

const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 60 * MINUTE_NS;
const DAY_NS: u64 = 24 * HOUR_NS;
/// As long as the paper's trace.
const SPAN_NS: u64 = 14 * DAY_NS;

/// Applications of the page.
pub const APPLICATION_COUNT: u32 = 4_000;

/// What keeps an application warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// For so many minutes after the last call.
    Fixed(u64),
    /// The hybrid histogram policy, with so many minutes for an application of which it knows too little.
    Hybrid(u64),
    /// The same, and the time of day.
    HybridAndTimeOfDay(u64),
}

impl Policy {
    /// All that are run, in the order of the page.
    pub const ALL: [Policy; 14] = [
        Policy::Fixed(0),
        Policy::Fixed(5),
        Policy::Fixed(10),
        Policy::Fixed(20),
        Policy::Fixed(30),
        Policy::Fixed(60),
        Policy::Fixed(120),
        Policy::Fixed(240),
        Policy::Hybrid(10),
        Policy::Hybrid(60),
        Policy::Hybrid(240),
        Policy::HybridAndTimeOfDay(10),
        Policy::HybridAndTimeOfDay(60),
        Policy::HybridAndTimeOfDay(240),
    ];
    /// What wasted memory is measured by, as in the paper.
    pub const STANDARD: Policy = Policy::Fixed(10);

    /// As the page and the drawing call it.
    pub fn name(self) -> String {
        match self {
            Policy::Fixed(0) => "no keep-alive".to_owned(),
            Policy::Fixed(minutes) => format!("fixed {minutes} min"),
            Policy::Hybrid(minutes) => format!("hybrid, else {minutes} min"),
            Policy::HybridAndTimeOfDay(minutes) => format!("hybrid and time of day, else {minutes} min"),
        }
    }

    fn warming(self) -> Warming {
        let predictive = |minutes, learning| {
            Warming::Predictive(Box::new(Predictive::new(Nanos(minutes * MINUTE_NS), learning)))
        };
        match self {
            Policy::Fixed(minutes) => Warming::KeepAlive(Nanos(minutes * MINUTE_NS)),
            Policy::Hybrid(minutes) => predictive(minutes, Learning::IdleTimes),
            Policy::HybridAndTimeOfDay(minutes) => predictive(minutes, Learning::IdleTimesAndTimeOfDay),
        }
    }
}

/// Runs the two weeks under all policies, and says what the calls were like.
pub fn run(application_count: u32, seed: u64) -> (Vec<(Policy, Figures)>, trace::Figures) {
    let mut figures: Vec<(Policy, Figures)> =
        Policy::ALL.iter().map(|policy| (*policy, Figures::default())).collect();
    let mut trace_figures = trace::Figures::default();
    for application in trace::applications(application_count, seed) {
        let mut pools: Vec<Pool> = Policy::ALL.iter().map(|policy| Pool::new(policy.warming())).collect();
        let mut calls = trace::CallFigures::default();
        for call in application.calls() {
            calls.note(&call);
            pools.iter_mut().for_each(|pool| pool.call(&call));
        }
        trace_figures.add(&application, &calls);
        for ((_, figures), pool) in figures.iter_mut().zip(pools) {
            figures.add(&application, pool.finish(application.span_ns));
        }
    }
    (figures, trace_figures)
}

/// The rows of the page's table, under [`HEAD`].
pub fn rows(policies: &[(Policy, Figures)]) -> Vec<String> {
    let standard =
        policies.iter().find(|(policy, _)| *policy == Policy::STANDARD).map(|(_, figures)| figures);
    let row = |(policy, figures): &(Policy, Figures)| Some(figures.row(&policy.name(), standard?));
    policies.iter().filter_map(row).collect()
}

/// What became of an application's calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub call_count: u64,
    pub cold_count: u64,
    /// Warm, and at nothing.
    pub wasted_ns: u64,
}

/// One application that is kept warm by one policy.
struct Pool {
    warming: Warming,
    /// When the last of its calls ends that have come; none before the first.
    busy_until_ns: Option<u64>,
    outcome: Outcome,
}

impl Pool {
    fn new(warming: Warming) -> Pool {
        Pool { warming, busy_until_ns: None, outcome: Outcome::default() }
    }

    fn call(&mut self, call: &Call) {
        let is_warm = match self.busy_until_ns {
            Some(busy_until_ns) if busy_until_ns > call.at_ns => true,
            Some(busy_until_ns) => self.idle(busy_until_ns, call.at_ns),
            None => false,
        };
        self.outcome.call_count += 1;
        self.outcome.cold_count += u64::from(!is_warm);
        self.warming.on_arrival(Nanos(call.at_ns));
        let end_ns = call.at_ns + call.run_ns;
        self.busy_until_ns = Some(self.busy_until_ns.unwrap_or(0).max(end_ns));
    }

    /// Nothing to do from one time to another. True: it is warm at the end of it.
    fn idle(&mut self, from_ns: u64, to_ns: u64) -> bool {
        let mut warm_from_ns = from_ns;
        let mut plan = self.warming.on_idle(Nanos(from_ns));
        loop {
            let WarmPlan { release_at, prewarm_at } = plan;
            self.outcome.wasted_ns += release_at.0.min(to_ns).saturating_sub(warm_from_ns);
            if release_at.0 > to_ns {
                return true;
            }
            match prewarm_at.filter(|at| at.0 <= to_ns) {
                Some(at) => {
                    warm_from_ns = at.0;
                    plan = self.warming.on_prewarmed(at);
                }
                None => return false,
            }
        }
    }

    /// What is wasted after the last call counts as well.
    fn finish(mut self, span_ns: u64) -> Outcome {
        if let Some(busy_until_ns) = self.busy_until_ns.filter(|until| *until < span_ns) {
            self.idle(busy_until_ns, span_ns);
        }
        self.outcome
    }
}

impl Application {
    /// Seconds of one byte, over the whole span, of which only a part may have been simulated.
    fn wasted_byte_seconds(&self, outcome: &Outcome) -> f64 {
        outcome.wasted_ns as f64 / 1e9 * self.weight() * self.memory_bytes
    }
}
