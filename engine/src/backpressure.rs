//! Back-pressure: a function that finds something overloaded which it calls (a *downstream*) is called less often for a while.
//!
//! ```text
//!   calls a second
//!     │ ─────┐                      /   + increase_percent of the rate before, for each window without
//!     │      │                  /
//!     │      │      ┐       /
//!     │      └──────┘   /               - decrease_percent, as soon as the signals of a window reach the threshold
//!     │             └──
//!     └────────────────────────────── time
//! ```
//!
//! In: signals (a downstream's name, and how many refusals of it they stand for); each push of the function.  Out: whether one
//! more call may be pushed, and when; how long one would have to wait.
//! Always: for each downstream of a function a limit of its own, and the lowest is the function's: which of them a call will
//! use is known only when it has run. A limit is lowered at most once a `window`, from what the function was really called;
//! it is never less than one call a second, by which the end of the trouble is found out.
//! Always: a limit grows whatever else happens, and is dropped when it has reached the rate from before the trouble and held
//! nobody up for a window.
//! Always: at most `DOWNSTREAMS_MAX` downstreams. One more takes the place of one that limits nothing and has been silent since
//! its window began; if there is none, its signals count for the one that limits most: the function is slowed, if under
//! another name.
//! Never: costs a function anything that was never pushed back. While it has a limit, and only then, it is asked at admission
//! and at dispatch (`Checks::BACKPRESSURE`).
//! Source: XFaaS (SOSP '23), section 4.6.3. Why our numbers, and what else was considered: docs/decisions/0024.
//! Here is what the engine does about it; the arithmetic is in `backpressure/pressure.rs`.  Tests: `tests/backpressure.rs`.

use protocol::DownstreamName;

use crate::Engine;
use crate::admission::Refusal;
use crate::counters::Counter;
use crate::function::Function;
use crate::invocation::InvocationId;
use crate::policy::Checks;
use crate::reply::{Completed, Finished};
use crate::time::Nanos;
use crate::worker::WorkerId;

mod pressure;

pub(crate) use pressure::Pressure;

/// How the calls of a function follow what lies downstream of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackpressureSpec {
    /// How long signals are summed, and how often a limit grows.
    pub window: Nanos,
    /// Refusals in a window from which on a limit is lowered, at least 1.
    pub threshold: u32,
    /// What is taken from the rate then, 1 to 99.
    pub decrease_percent: u8,
    /// What each window without gives back, of the rate before the trouble, at least 1.
    pub increase_percent: u8,
}

/// What a function says about something that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What is overloaded.
    pub downstream: DownstreamName,
    /// How many refusals this stands for.
    pub severity: u8,
}

/// A downstream of a function as it is now, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamView {
    /// How the function calls it.
    pub name: DownstreamName,
    /// Calls a second that the function may have on its account; none while it does not limit.
    pub per_second: Option<u32>,
    /// Refusals told of since it was first named.
    pub refusals: u64,
}

impl Engine {
    /// A worker gave a call back and said that something which it calls is overloaded. As
    /// [`handle_completion`](Engine::handle_completion); the answer tells when to come again.
    #[cold]
    pub fn handle_backpressure(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        invocation: InvocationId,
        finished: Finished,
        signal: Signal,
    ) -> Completed {
        let held = self.held_by(worker, invocation);
        let number = held.map(|slot| self.invocations.at(slot).function.0);
        let advice = number.and_then(|number| self.note_signal(now, number, signal));
        let mut completed = self.handle_completion(now, worker, invocation, finished);
        if let (Completed::Answer(answer) | Completed::LastAnswer(answer), Some(advice)) =
            (&mut completed, advice)
        {
            answer.retry_after_us = u32::try_from(advice.0.div_ceil(1_000)).unwrap_or(u32::MAX);
        }
        completed
    }

    /// The advice for who was pushed back; none if the function does not follow what lies downstream.
    fn note_signal(&mut self, now: Nanos, number: u32, signal: Signal) -> Option<Nanos> {
        let function = &mut self.functions[number as usize];
        let spec = function.spec.policy.backpressure?;
        let pressure = function.pressure.get_or_insert_with(|| Box::new(Pressure::new(spec)));
        let noted = pressure.note(now, function.pushes, signal);
        let advice = pressure.advice(now, signal.downstream, function.queue.len());
        function.mark_pressure();
        (0..noted.lowered).for_each(|_| self.counters.count(Counter::BackpressureLowered));
        if noted.is_crowded {
            self.counters.count(Counter::BackpressureCrowded);
        }
        self.look_at_pressure(number);
        Some(advice)
    }

    /// Ends the windows whose time has come, of all functions: a limit ends also when nobody calls.
    pub(crate) fn end_due_windows(&mut self, now: Nanos) {
        if now < self.pressure_look_at {
            return;
        }
        self.pressure_look_at = Nanos::NEVER;
        (0..self.functions.len() as u32).for_each(|number| self.advance_pressure(now, number));
    }

    /// A limit of this function may be another one, or have another window.
    pub(crate) fn look_at_pressure(&mut self, number: u32) {
        if let Some(pressure) = &self.functions[number as usize].pressure {
            self.pressure_look_at = self.pressure_look_at.min(pressure.next_window());
        }
    }

    /// Ends the windows of a function that are over.
    pub(crate) fn advance_pressure(&mut self, now: Nanos, number: u32) {
        let function = &mut self.functions[number as usize];
        let Some(pressure) = &mut function.pressure else { return };
        let lowered = pressure.advance(now, function.pushes);
        function.mark_pressure();
        (0..lowered).for_each(|_| self.counters.count(Counter::BackpressureLowered));
        self.look_at_pressure(number);
    }

    /// Every limit is looked at in time.
    pub(crate) fn pressure_invariants(&self) {
        for function in &self.functions {
            let pressure = function.pressure.as_ref();
            let is_limiting = pressure.is_some_and(|pressure| pressure.is_limiting());
            assert_eq!(function.checks.has(Checks::BACKPRESSURE), is_limiting, "{}", function.spec.name);
            if let Some(pressure) = pressure {
                pressure.invariants();
                assert!(self.pressure_look_at <= pressure.next_window(), "{}", function.spec.name);
            }
        }
    }
}

impl Function {
    /// Other numbers, or none: what is known and in force stays, unless it is switched off.
    pub fn respecify_pressure(&mut self, spec: Option<BackpressureSpec>) {
        match (spec, &mut self.pressure) {
            (Some(spec), Some(pressure)) => pressure.spec = spec,
            _ => self.pressure = None,
        }
        self.mark_pressure();
    }

    /// Whether its calls have to be asked.
    fn mark_pressure(&mut self) {
        let is_limiting = self.pressure.as_ref().is_some_and(|pressure| pressure.is_limiting());
        self.checks = self.checks.without(Checks::BACKPRESSURE).with(Checks::BACKPRESSURE, is_limiting);
    }

    /// What a limit says about one more call, behind `ahead` others and with so much time left.
    pub fn admit_under_pressure(&self, now: Nanos, ahead: u32, remaining: Nanos) -> Result<(), Refusal> {
        let Some(pressure) = &self.pressure else { return Ok(()) };
        let policy = &self.spec.policy;
        let least = pressure.least_wait_behind(ahead, remaining);
        if policy.refuse_infeasible && least > remaining {
            return Err(Refusal::DeadlineUnreachable { retry_after: least.since(remaining) });
        }
        let wait = pressure.wait_behind(now, ahead);
        match policy.queue_delay_max {
            Some(max) if wait > max => Err(Refusal::QueueFull { retry_after: wait.since(max) }),
            _ => Ok(()),
        }
    }
}
