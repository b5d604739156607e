//! Closed gates: functions whose calls wait though a worker is free, because a limit says so.
//!
//! ```text
//!   open ── a limit is met when a call is to be pushed ──▶ closed(why, until) ── room again, or time ──▶ open
//! ```
//! In: a limit that is met, and when it may be different.  Out: the function leaves the ready queue, and comes back.
//! Always: a limit is asked when a call is about to be pushed, and for no other reason: an open gate promises nothing.
//! Always: a gate that nobody opens is tried again at `open_at`, so that what another shard does is seen too.
//! Why a gate and not a question for each call: a function at its limit costs nothing until something changes.
//! Tests: `tests/concurrency.rs`, `tests/opportunistic.rs`.

use crate::Engine;
use crate::blocked::BlockedOn;
use crate::time::Nanos;

/// A gate that is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Why.
    pub why: BlockedOn,
    /// When it is tried again at the latest.
    pub open_at: Nanos,
}

/// The functions whose gate is closed.
#[derive(Debug)]
pub(crate) struct Gates {
    /// By number, in the order in which they were closed.
    closed: Vec<u32>,
    /// The earliest `open_at` of them, or earlier.
    look_at: Nanos,
}

impl Gates {
    pub fn new() -> Gates {
        Gates { closed: Vec::new(), look_at: Nanos::NEVER }
    }

    /// When the next one is to be tried.
    pub fn next(&self) -> Option<Nanos> {
        (self.look_at != Nanos::NEVER).then_some(self.look_at)
    }
}

impl Engine {
    /// A limit is met: the function's calls wait.
    pub(crate) fn close_gate(&mut self, number: u32, why: BlockedOn, open_at: Nanos) {
        let function = &mut self.functions[number as usize];
        if function.gate.replace(Gate { why, open_at }).is_none() {
            self.gates.closed.push(number);
        }
        self.gates.look_at = self.gates.look_at.min(open_at);
        self.ready.refresh(number, function);
    }

    /// There may be room again.
    pub(crate) fn open_gate(&mut self, number: u32) {
        let function = &mut self.functions[number as usize];
        if function.gate.take().is_some() {
            self.gates.closed.retain(|other| *other != number);
            self.ready.refresh(number, function);
        }
    }

    /// Opens the gates whose time has come.
    pub(crate) fn open_due_gates(&mut self, now: Nanos) {
        if now < self.gates.look_at {
            return;
        }
        let mut look_at = Nanos::NEVER;
        let mut closed = std::mem::take(&mut self.gates.closed);
        closed.retain(|number| {
            let function = &mut self.functions[*number as usize];
            let not_due = function.gate.filter(|gate| gate.open_at > now);
            function.gate = not_due;
            match not_due {
                Some(gate) => look_at = look_at.min(gate.open_at),
                None => self.ready.refresh(*number, function),
            }
            not_due.is_some()
        });
        self.gates = Gates { closed, look_at };
    }

    /// Gates and functions agree.
    pub(crate) fn gates_invariants(&self) {
        for (number, function) in (0..).zip(&self.functions) {
            let is_listed = self.gates.closed.contains(&number);
            assert_eq!(function.gate.is_some(), is_listed, "function {number}: gate");
            if let Some(gate) = function.gate {
                assert!(self.gates.look_at <= gate.open_at, "function {number} is not looked at in time");
            }
        }
    }
}
