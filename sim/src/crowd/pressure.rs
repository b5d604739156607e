//! A function that is pushed back: its limit falls, keeps what it says, lets somebody find out, and recovers by itself.
//!
//! In: calls at a pace, and something downstream that refuses all of them at times.  Out: nothing, or what its operator was
//! promised and did not get.
//! Always: held to what an operator sees, the limit that the router tells (`DownstreamView`), pushes and refusals; never to
//! the arithmetic behind it. Each promise holds for windows as long as this one is looked at: nothing pauses for half of one.

use std::collections::VecDeque;

use engine::{BackpressureSpec, Finished, InvocationId, Nanos, Policy, Signal, WorkerId};
use protocol::{DownstreamName, FunctionId};

use super::{Crowd, Matter, Tenant, tenant};
use crate::chance::Chance;
use crate::contract::{Broken, Contract};

/// While calls wait, one goes at least this often, whatever the limit: one a second, and a look at the ledger.
const SILENCE_NS_MAX: u64 = 1_001_000_000;
/// A limited function is paced within a hundredth of a second: `engine/src/backpressure/pressure.rs`.
const BURSTS_PER_SECOND: u64 = 100;
/// Windows for which pushes and refusals are remembered.
const MEMORY: u64 = 4;

/// One function whose calls are quick, beside its window.
pub(super) fn tenants(chance: &mut Chance) -> Vec<Tenant> {
    let window = Nanos(10_000_000 + chance.length(30));
    let backpressure = Some(BackpressureSpec {
        window,
        threshold: 1 + chance.below(12) as u32,
        decrease_percent: 10 + chance.below(81) as u8,
        increase_percent: 5 + chance.below(46) as u8,
    });
    let mut tenant = tenant(0, 1, Policy { backpressure, ..Policy::default() });
    tenant.run_ns_max = 1 + window.0 / 1_000;
    vec![tenant]
}

/// What has been seen of one downstream.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// It refuses everything.
    is_in_trouble: bool,
    /// Since when it is as it is.
    changed_at_ns: u64,
    /// When calls were pushed, and refused, lately.
    pushes: VecDeque<u64>,
    refusals: VecDeque<u64>,
    pushed_at_ns: u64,
    /// When nothing had been pushed for half a window.
    paused_at_ns: u64,
    /// When calls waited last.
    waited_at_ns: u64,
    /// The limit that is told, since when, and the pushes since then.
    limit: Option<u32>,
    limit_at_ns: u64,
    limit_pushes: u64,
    fell_at_ns: u64,
    /// The limit of the last fall of this trouble, which is the first one's if `first`, and since when it has only grown.
    base: u32,
    base_at_ns: u64,
    first: u32,
}

impl Crowd {
    /// A call, at a pace of 8 to 64 in a window; now and then downstream gets into trouble, or out of it.
    pub(super) fn somebody_is_pushed_back(
        &mut self,
        chance: &mut Chance,
        divisor: u64,
    ) -> Result<(), Broken> {
        let (spec, run_ns) = self.pressure_spec();
        let in_window = 8 + self.options.seed % 57;
        let pause_ns = chance.exponential() * spec.window.0 as f64 / in_window as f64;
        self.advance(self.now_ns + pause_ns as u64 / divisor)?;
        // Three windows of trouble, and then twenty without.
        let windows = if self.pressure.is_in_trouble { 3 } else { 20 };
        if chance.below(windows * in_window) == 0 {
            self.pressure.is_in_trouble = !self.pressure.is_in_trouble;
            self.pressure.changed_at_ns = self.now_ns;
            self.totals.troubles += 1;
            let state = if self.pressure.is_in_trouble { "overloaded" } else { "well" };
            self.history.note(self.now_ns, || format!("downstream is {state}"));
        }
        self.ask(0, 0, run_ns);
        self.moment(self.now_ns)
    }

    fn pressure_spec(&self) -> (BackpressureSpec, u64) {
        let tenant = &self.tenants[0];
        let spec = tenant.function.policy.backpressure.expect("its function follows what lies downstream");
        (spec, tenant.run_ns_max)
    }

    /// A run ends; if what is downstream refused it, it says so. True: it did.
    pub(super) fn is_pushed_back(&mut self, worker: WorkerId, id: InvocationId, finished: Finished) -> bool {
        if self.matter != Matter::Pressure || !self.pressure.is_in_trouble {
            return false;
        }
        let signal = Signal { downstream: DownstreamName::from_bytes(b"database"), severity: 1 };
        self.engines[0].handle_backpressure(Nanos(self.now_ns), worker, id, finished, signal);
        self.pressure.refusals.push_back(self.now_ns);
        *self.totals.answers.entry("backpressure").or_default() += 1;
        true
    }

    /// A call was pushed: within the limit that was told, and not while downstream gets too much for too long.
    pub(super) fn check_pressure(&mut self) -> Result<(), Broken> {
        if self.matter != Matter::Pressure {
            return Ok(());
        }
        let (spec, _) = self.pressure_spec();
        let (window_ns, now_ns) = (spec.window.0, self.now_ns);
        let seen = &mut self.pressure;
        if now_ns - seen.pushed_at_ns > window_ns / 2 {
            seen.paused_at_ns = now_ns;
        }
        seen.pushed_at_ns = now_ns;
        seen.pushes.push_back(now_ns);
        seen.limit_pushes += 1;
        for times in [&mut seen.pushes, &mut seen.refusals] {
            while times.front().is_some_and(|at_ns| at_ns + MEMORY * window_ns < now_ns) {
                times.pop_front();
            }
        }
        if let Some(limit) = seen.limit.map(u64::from) {
            let span_ns = now_ns - seen.limit_at_ns;
            let burst = (limit / BURSTS_PER_SECOND).max(1);
            let pushes_max = burst + (u128::from(limit) * u128::from(span_ns)).div_ceil(1_000_000_000) as u64;
            let pushes = seen.limit_pushes;
            self.options.judge.check(Contract::BackPressure, pushes <= pushes_max, || {
                format!(
                    "{pushes} calls in {span_ns} ns under a limit of {limit} a second, more than {pushes_max}"
                )
            })?;
        }
        self.check_fall(&spec)
    }

    /// Refusals of three thresholds in two windows lie in three windows of the router at most, one of which had a threshold of them:
    /// by the end of the next one the limit is lower, if it can be and the trouble lasts: a burst of refusals is forgotten.
    fn check_fall(&self, spec: &BackpressureSpec) -> Result<(), Broken> {
        let (seen, now_ns, window_ns) = (&self.pressure, self.now_ns, spec.window.0);
        let from_ns = now_ns.saturating_sub(3 * window_ns);
        let lies_there = |at_ns: &&u64| **at_ns > from_ns && **at_ns <= now_ns.saturating_sub(window_ns);
        let refusals = seen.refusals.iter().filter(lies_there).count() as u64;
        let lasts = seen.is_in_trouble && seen.changed_at_ns < from_ns && seen.paused_at_ns < from_ns;
        let is_due = refusals >= 3 * u64::from(spec.threshold) && lasts;
        let holds = !is_due || seen.limit == Some(1) || seen.fell_at_ns >= from_ns;
        self.options.judge.check(Contract::BackPressure, holds, || {
            let limit = seen.limit;
            format!("{refusals} refusals in two windows, and the limit is still {limit:?}")
        })
    }

    /// Everything due has happened: how does the limit move, does it let anybody through, and does it end?
    pub(super) fn look_at_pressure(&mut self) -> Result<(), Broken> {
        if self.matter != Matter::Pressure {
            return Ok(());
        }
        let (spec, _) = self.pressure_spec();
        let (now_ns, window_ns) = (self.now_ns, spec.window.0);
        let view = self.engines[0].function_view(FunctionId(0)).expect("it is configured");
        let told = view.downstreams.iter().flatten().find_map(|downstream| downstream.per_second);
        if self.tenants[0].waiting[0] > 0 {
            self.pressure.waited_at_ns = now_ns;
        }
        self.check_step(&spec, told)?;
        self.check_growth(&spec, told)?;
        let seen = &mut self.pressure;
        // The lowest there is may be lowered unseen.
        if told == Some(1) && seen.refusals.back().is_some_and(|at_ns| at_ns + 2 * window_ns >= now_ns) {
            seen.base_at_ns = now_ns;
        }
        if told != seen.limit {
            let is_lower = told.is_some_and(|told| seen.limit.is_none_or(|limit| told < limit));
            if let Some(limit) = told.filter(|_| is_lower) {
                seen.fell_at_ns = now_ns;
                (seen.base, seen.base_at_ns) = (limit, now_ns);
                if seen.limit.is_none() {
                    seen.first = limit;
                }
                self.totals.falls += 1;
            }
            (seen.limit, seen.limit_at_ns, seen.limit_pushes) = (told, now_ns, 0);
            self.history.note(now_ns, || format!("the limit is {told:?}"));
        }
        let (seen, judge) = (&self.pressure, self.options.judge);
        let silence_ns = now_ns - seen.pushed_at_ns;
        let is_blocked = self.tenants[0].waiting[0] > 0 && self.tenants[0].running[0] == 0;
        judge.check(Contract::BackPressure, !is_blocked || silence_ns <= SILENCE_NS_MAX, || {
            format!("calls wait, and none was pushed for {silence_ns} ns under a limit of {told:?}")
        })?;
        let windows = 100 / u64::from(spec.increase_percent) + 5;
        let since_ns = seen.changed_at_ns.max(seen.waited_at_ns);
        let is_well = !seen.is_in_trouble && now_ns >= since_ns + windows * window_ns;
        judge.check(Contract::BackPressure, !is_well || told.is_none(), || {
            format!("{told:?} is the limit after {windows} quiet windows in which nothing waited")
        })
    }

    /// Another limit is told than a moment ago: lower for a reason, by the part that was asked for, once a window.
    fn check_step(&self, spec: &BackpressureSpec, told: Option<u32>) -> Result<(), Broken> {
        let (seen, now_ns, window_ns) = (&self.pressure, self.now_ns, spec.window.0);
        let Some(limit) = told.filter(|told| seen.limit.is_none_or(|before| *told < before)) else {
            return Ok(());
        };
        let lately = |times: &VecDeque<u64>, windows: u64| {
            times.iter().filter(|at_ns| **at_ns + windows * window_ns >= now_ns).count() as u64
        };
        let refusals = lately(&seen.refusals, 2);
        // Of windows of which an eighth was enough to measure a rate.
        let rate_max = lately(&seen.pushes, 2) * 8 * 1_000_000_000 / window_ns;
        let from = seen.limit.map_or(rate_max, |before| rate_max.min(before.into()));
        let highest = (from * u64::from(100 - spec.decrease_percent) / 100).max(1);
        let is_first = seen.fell_at_ns == 0;
        for (what, holds) in [
            ("without refusals enough", refusals >= u64::from(spec.threshold)),
            ("twice in a window", is_first || now_ns >= seen.fell_at_ns + window_ns),
            ("by too little", u64::from(limit) <= highest),
        ] {
            self.options.judge.check(Contract::BackPressure, holds, || {
                format!(
                    "the limit fell from {:?} to {limit} {what}: {refusals} refusals, {highest} at most",
                    seen.limit
                )
            })?;
        }
        Ok(())
    }

    /// From one fall to the next a limit grows in each window by the part of the rate before the trouble that was asked for, until it
    /// has reached that rate.
    fn check_growth(&self, spec: &BackpressureSpec, told: Option<u32>) -> Result<(), Broken> {
        let seen = &self.pressure;
        let Some(before) = seen.limit else { return Ok(()) };
        let (first, kept) = (u64::from(seen.first), u64::from(100 - spec.decrease_percent));
        // The first limit is what was kept of the rate before, rounded down to at least one.
        let rate_min = if first == 1 { 1 } else { (first * 100).div_ceil(kept) };
        let rate_max = ((first + 1) * 100).div_ceil(kept);
        let step_of = |rate: u64| (rate * u64::from(spec.increase_percent) / 100).max(1);
        let windows = (self.now_ns - seen.base_at_ns) / spec.window.0;
        let base = u64::from(seen.base);
        let (least, most) = (base + windows * step_of(rate_min), base + (windows + 1) * step_of(rate_max));
        let holds = match told {
            None => u64::from(before) >= rate_min,
            Some(told) if told < before => true,
            Some(told) => (least..=most).contains(&told.into()),
        };
        self.options.judge.check(Contract::BackPressure, holds, || {
            format!(
                "{told:?} is the limit {windows} windows after it fell to {base}, and {least} to {most} is right; it is over \
                 at {rate_min}"
            )
        })
    }
}
