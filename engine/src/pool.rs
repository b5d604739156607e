//! Beside stage 4 of 8: how many instances a function is to have. This file: what is remembered of one function, and the rule.
//!
//! ```text
//!   min ◀── idle for `idle_timeout`, one by one ── wanted ── calls wait and would wait longer than a start takes ──▶ max
//!           the coldest first; never one with a call          as many as the waiting calls need, a few starts at a time
//! ```
//! In: what is known of the function when something changed: calls that wait, calls that run, instances that serve.
//! Out: how many instances the shim is to keep, and which one is told to end (`pool/places.rs`).
//! Always: `min <= wanted <= max`. What was asked for and has not attached counts as if it were there, so that one burst asks
//! once for what it needs.
//! Always: a call is worth a start only if it would wait longer without: what the instances that serve get done while another
//! one starts needs no other one. While nothing is known of how long calls run, each call is worth one.
//! Never: asked about on the path of a call that finds a worker: a function is looked at when calls wait that nobody can take, when
//! a worker comes or goes, and when something is due.
//! Why the shim does not decide: it sees processes and no calls. Why not the router: this is a decision, and those are made
//! where they can be replayed.
//! When an idle instance goes, and whether one is started before it is asked for, is the answer of `warming.rs`, which is told of
//! arrivals by `pool/arrivals.rs`.
//! Decision: docs/decisions/0030-how-many-to-keep-warm.md.  Tests: below, `tests/pool.rs`, `sim`.

use std::collections::VecDeque;

use crate::time::Nanos;

mod arrivals;
mod places;

use crate::warming::{Learning, Predictive, WarmPlan, Warming};
pub use places::PlacesWanted;
pub(crate) use places::Pools;

/// What the configuration says about the number of a function's instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Instances that are there whether anybody calls or not.
    pub min: u32,
    /// Instances that are there at most.
    pub max: u32,
    /// How long an instance beyond `min` may have nothing to do.
    pub idle_timeout: Nanos,
    /// The last instance is kept as its calls so far suggest, and one is started ahead of those that are expected; `idle_timeout` is
    /// for who is not understood, and for the others.
    pub is_predictive: bool,
}

/// A pool as it is now, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Its bounds.
    pub spec: PoolSpec,
    /// Instances that the shim is to keep.
    pub wanted: u32,
    /// Of them, those that do not serve yet.
    pub starting: u32,
    /// Starts that calls had asked for and that ended with a worker.
    pub cold_starts: u64,
    /// How long the last of them took, from being asked for to attaching.
    pub start_last: Nanos,
    /// The longest of them.
    pub start_max: Nanos,
    /// Calls that waited when one of them was the first to serve.
    pub calls_held: u64,
}

/// How long a start is taken to last while none was seen: between a native program and one that loads much.
const START_ASSUMED: Nanos = Nanos::from_ms(100);
/// A start is never taken to be quicker than this: it would make a look at the queue due in every turn.
const START_MIN: Nanos = Nanos::from_ms(1);
/// A start that nobody waits for any more is given up after `idle_timeout`, but not before this: a program that never
/// attaches is then tried anew no more often.
const START_PATIENCE_MIN: Nanos = Nanos::from_secs(10);

/// How soon a function is looked at again whose instances are busy now and may be let go as soon as they are not: starts are not worth
/// more haste.
const LOOK_INTERVAL: Nanos = Nanos::from_secs(1);

/// What is known of a function when it is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Instances of the edition in force that are given calls.
    pub serving: u32,
    /// Instances that take none of the calls that wait: their own call waits for one that it made, or they are kept for others.
    pub held_up: u32,
    /// Calls in the hands of the others.
    pub running: u32,
    /// Calls that wait for an instance, and for nothing else.
    pub queued: u32,
    /// Since when the oldest of them waits.
    pub oldest_at: Option<Nanos>,
    /// How long calls run; zero while nothing is known.
    pub run: Nanos,
    /// More instances than this are of no use: as many of its calls may run.
    pub useful_max: u32,
    /// Its processes die as they are started.
    pub is_failing: bool,
}

/// What is remembered of one function's instances.
#[derive(Debug)]
pub(crate) struct Pool {
    pub spec: PoolSpec,
    warming: Warming,
    /// Since when no call runs and none waits, if that is so and was seen. Of a pool that learns.
    idle_since: Option<Nanos>,
    /// Instances that the shim is to keep.
    pub wanted: u32,
    /// What the shim was told last, and of which edition.
    pub told: Option<(u64, u32)>,
    /// When calls asked for those that have not attached, oldest first. No more than starts at once.
    asked_at: VecDeque<Nanos>,
    /// When a start began last, as far as we know. Never: at the next look.
    asked_last: Nanos,
    /// When one is to be started though nobody asks.
    start_at: Nanos,
    /// It was, and has not attached.
    is_prewarming: bool,
    /// How long a start takes, smoothed.
    start: Nanos,
    start_last: Nanos,
    start_max: Nanos,
    start_count: u64,
    cold_starts: u64,
    pub calls_held: u64,
    /// Another keeper is there: at the next look, as many as serve by then are to be there.
    counts_anew: bool,
    /// When it has to be looked at though nothing happens.
    pub look_at: Nanos,
    /// It stands in the list of those to be looked at.
    pub is_noted: bool,
}

/// Why an instance was started that has attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartedFor {
    /// For calls that wait.
    Waiting,
    /// For calls that are expected, and none has come.
    Expected,
}

/// A policy that knows nothing yet.
fn warming(spec: &PoolSpec) -> Warming {
    if spec.is_predictive {
        Warming::Predictive(Box::new(Predictive::new(spec.idle_timeout, Learning::IdleTimesAndTimeOfDay)))
    } else {
        Warming::KeepAlive(spec.idle_timeout)
    }
}

impl Pool {
    pub fn new(spec: PoolSpec) -> Pool {
        let spec = PoolSpec { max: spec.max.max(spec.min), ..spec };
        Pool {
            warming: warming(&spec),
            idle_since: None,
            wanted: spec.min,
            told: None,
            asked_at: VecDeque::new(),
            asked_last: Nanos::NEVER,
            start_at: Nanos::NEVER,
            is_prewarming: false,
            start: START_ASSUMED,
            start_last: Nanos::ZERO,
            start_max: Nanos::ZERO,
            start_count: 0,
            cold_starts: 0,
            calls_held: 0,
            counts_anew: false,
            look_at: Nanos::NEVER,
            is_noted: false,
            spec,
        }
    }

    /// Goes on with these bounds. Whatever was told is told again: the shim may know the function anew.
    pub fn respecify(&mut self, spec: PoolSpec) {
        let spec = PoolSpec { max: spec.max.max(spec.min), ..spec };
        self.wanted = self.wanted.clamp(spec.min, spec.max);
        self.asked_at.truncate(self.wanted as usize);
        if spec.is_predictive != self.spec.is_predictive {
            self.warming = warming(&spec);
            (self.idle_since, self.start_at) = (None, Nanos::NEVER);
        }
        self.warming.keep_alive_for(spec.idle_timeout);
        self.told = None;
        self.spec = spec;
    }

    /// Nothing is known of what was asked for any more: there is another keeper. Those that serve are to be there, and whatever
    /// waits will ask for more. Counted at the next look: processes that died with the keeper before are seen to be gone by then.
    pub fn count_anew(&mut self) {
        self.counts_anew = true;
    }

    /// The same for another program: as many of it as serve of the one before.
    pub fn begin_anew(&mut self, serving: u32) {
        self.wanted = serving.clamp(self.spec.min, self.spec.max);
        self.asked_at.clear();
        self.asked_last = Nanos::NEVER;
        self.told = None;
    }

    /// An instance attached; `is_awaited`: calls wait. Why it had been started, if that was asked for.
    pub fn on_attached(&mut self, now: Nanos, is_awaited: bool) -> Option<StartedFor> {
        let asked_at = self.asked_at.pop_front()?;
        let start = now.since(asked_at);
        self.start_last = start;
        self.start_max = self.start_max.max(start);
        // The first one is all that is known; later ones count a quarter, for starts are few and change with the program.
        let before = if self.start_count == 0 { start } else { self.start };
        self.start = Nanos(before.0 - before.0 / 4 + start.0 / 4).max(START_MIN);
        self.start_count += 1;
        if std::mem::take(&mut self.is_prewarming) && !is_awaited {
            return Some(StartedFor::Expected);
        }
        self.cold_starts += 1;
        Some(StartedFor::Waiting)
    }

    /// An instance is gone that nobody sent away: the shim starts another one in its place.
    pub fn on_lost(&mut self, now: Nanos) {
        self.asked_last = now;
    }

    /// Brings the number wanted up to what the calls need. How many more that are.
    pub fn grow(&mut self, now: Nanos, demand: &Demand, starts_max: u32) -> u32 {
        if std::mem::take(&mut self.counts_anew) {
            self.begin_anew(demand.serving);
        }
        // Who attached again has not been asked for by this router.
        self.wanted = self.wanted.max(demand.serving).min(self.spec.max);
        if self.asked_last == Nanos::NEVER {
            self.asked_last = now;
        }
        let is_broken = demand.is_failing && demand.serving == 0;
        if is_broken {
            // One goes on trying; it is the shim that waits longer from one start to the next.
            self.wanted = self.wanted.min(self.spec.min.max(1));
        }
        let before = self.wanted;
        if demand.queued > 0 && !is_broken {
            let may_be = demand.serving.saturating_add(starts_max);
            self.wanted = self.need(now, demand).min(may_be).max(self.wanted);
        } else if now >= self.start_at && self.wanted == 0 {
            self.wanted = self.spec.max.min(1);
            self.is_prewarming = true;
        } else if now >= self.gives_up_at() {
            self.wanted = self.at_least(demand);
            self.is_prewarming = false;
        }
        self.asked_at.truncate(before.min(self.wanted).saturating_sub(demand.serving) as usize);
        let more = self.wanted.saturating_sub(before);
        if more > 0 {
            self.asked_last = now;
            self.start_at = Nanos::NEVER;
            self.asked_at.extend((0..more).map(|_| now));
        }
        more
    }

    /// Instances that would get the waiting calls done about as soon as an instance can be started.
    fn need(&self, now: Nanos, demand: &Demand) -> u32 {
        // A call that runs longer than a start takes is worth one; so is each while nothing is known.
        let calls_each =
            self.start.0.checked_div(demand.run.0).unwrap_or(1).clamp(1, u64::from(u32::MAX)) as u32;
        let calls = demand.queued.saturating_add(demand.running);
        let need = demand.held_up.saturating_add(calls.div_ceil(calls_each));
        // Whatever the reason: who has waited as long as a start takes would have been better off with one.
        let has_waited = demand.oldest_at.is_some_and(|oldest_at| now.since(oldest_at) >= self.start);
        let one_more = if has_waited { demand.serving.saturating_add(1) } else { 0 };
        need.max(one_more).min(demand.useful_max).min(self.spec.max)
    }

    /// What is to become of an instance that does nothing since `since`. `last_end`: since when that is so of all of them; none while one
    /// has something to do.
    pub fn plan(&mut self, since: Nanos, last_end: Option<Nanos>, is_last: bool) -> WarmPlan {
        let alone = Warming::KeepAlive(self.spec.idle_timeout).on_idle(since);
        let Some(last_end) = last_end.filter(|_| self.spec.is_predictive) else { return alone };
        let idle_since = *self.idle_since.get_or_insert(last_end);
        let plan = if since > idle_since {
            // It came later than the last call went.
            self.warming.on_prewarmed(since)
        } else {
            self.warming.on_idle(idle_since)
        };
        let release_at = if is_last { plan.release_at } else { plan.release_at.min(alone.release_at) };
        WarmPlan { release_at, ..plan }
    }

    /// When an instance that is busy now may have to go.
    pub fn looks_again_at(&self, now: Nanos) -> Nanos {
        let timeout = self.spec.idle_timeout;
        now.plus(if self.spec.is_predictive { timeout.min(LOOK_INTERVAL) } else { timeout })
    }

    /// One was sent away by such a plan; `is_last`: none is left.
    pub fn on_released(&mut self, plan: WarmPlan, is_last: bool) {
        self.wanted = self.wanted.saturating_sub(1);
        if is_last {
            self.start_at = plan.prewarm_at.unwrap_or(Nanos::NEVER);
        }
    }

    /// When `grow` may have another answer though nothing happened.
    pub fn grows_at(&self, now: Nanos, demand: &Demand) -> Nanos {
        if demand.queued > 0 {
            return if self.wanted < self.spec.max { now.plus(self.start) } else { Nanos::NEVER };
        }
        let starts_at = if self.wanted == 0 { self.start_at } else { Nanos::NEVER };
        let gives_up_at = if self.wanted > self.at_least(demand) { self.gives_up_at() } else { Nanos::NEVER };
        starts_at.min(gives_up_at)
    }

    /// Instances that are there, or are to be whatever happens.
    fn at_least(&self, demand: &Demand) -> u32 {
        demand.serving.max(self.spec.min).min(self.spec.max)
    }

    fn gives_up_at(&self) -> Nanos {
        self.asked_last.plus(self.spec.idle_timeout.max(START_PATIENCE_MIN))
    }

    pub fn view(&self, serving: u32) -> PoolView {
        PoolView {
            spec: self.spec,
            wanted: self.wanted,
            starting: self.wanted.saturating_sub(serving),
            cold_starts: self.cold_starts,
            start_last: self.start_last,
            start_max: self.start_max,
            calls_held: self.calls_held,
        }
    }

    pub fn invariants(&self, number: u32, starts_max: u32) {
        let PoolSpec { min, max, .. } = self.spec;
        assert!((min..=max).contains(&self.wanted), "function {number}: {} instances wanted", self.wanted);
        assert!(self.asked_at.len() <= starts_max as usize, "function {number}: too many starts at once");
        assert!(self.asked_at.len() <= max as usize, "function {number}: more starts than instances");
    }
}
