//! What is promised, by name: section "What always holds" of ARCHITECTURE.md as things that can be checked from outside.

use std::fmt;

/// One promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Every admitted call is answered exactly once, unless its client is gone.
    OneAnswer,
    /// An answer says what happened: no result without a run, no "expired" of what began.
    TrueAnswer,
    /// Nothing is handed to a worker or begun after its deadline, or after an answer that says it was not begun.
    NeverLate,
    /// Every call is answered at its deadline; where its ring cannot be read, the graces after it.
    InTime,
    /// A call begins twice only if it is idempotent, or was provably not begun.
    AtMostOnce,
    /// Criticality first, then the deadline, within the documented bound.
    Order,
    /// Slots and credits are conserved: what is in flight and what workers hold add up, and nothing leaks.
    Slots,
    /// No more is queued, held or in flight than may be.
    Bounds,
    /// A call is refused for the reason that is true, and only then.
    TrueRefusal,
    /// No call waits while a worker of its function has nothing to do.
    NoIdle,
    /// Only who lied is quarantined.
    HonestWorkers,
    /// No span of time has more admitted calls than the burst and the rate allow.
    Rate,
    /// No window has more calls than slow start allows after the one before.
    SlowStart,
    /// A breaker opens, refuses, probes and closes as its operator was told.
    Breaker,
    /// Attempts that may have begun are tried again for no more than a fraction of the traffic.
    RetryBudget,
    /// No more calls are in workers' hands than their function, their tenant and the host may have.
    Concurrency,
    /// A call that has waited long has its turn within the documented bound.
    Ageing,
    /// Who is within its share waits for a place and for others like it, and for nobody's backlog.
    FairDelay,
    /// Who always wants more has worker time by weight, within the documented bound.
    FairShare,
    /// A call that a running one makes is told at once when nobody could run it but those that wait for it, and only then.
    Nested,
    /// Second attempts are a fraction of the pushes, of calls that are owed an answer, on workers that have nothing to do.
    Hedge,
    /// Who runs what nobody waits for any more is asked to stop.
    Stop,
    /// Calls that are the same run once at a time, and each caller has the answer.
    OneRun,
    /// Nothing begins, or stands in its queue, before the start that its caller gave; and it stands there then.
    NotEarly,
    /// A retry waits no longer than its back-off may be, and not all of them as long.
    BackOff,
    /// A function that is pushed back is called less often, as its limit says; the limit ends by itself.
    BackPressure,
    /// A call that was admitted to a queue bounded in time does not wait much longer than the bound.
    QueueDelay,
    /// How many instances there are follows the calls, within its bounds, and costs no call.
    Pool,
}

/// All of them, with what `--list` says.
pub const CONTRACTS: &[(Contract, &str, &str)] = &[
    (
        Contract::OneAnswer,
        "one-answer",
        "every admitted call is answered exactly once, unless its client is gone",
    ),
    (Contract::TrueAnswer, "true-answer", "an answer says what happened"),
    (
        Contract::NeverLate,
        "never-late",
        "nothing begins after its deadline, or after an answer that says it did not",
    ),
    (
        Contract::InTime,
        "in-time",
        "every call is answered at its deadline, or the graces after it where a ring is unreadable",
    ),
    (Contract::AtMostOnce, "at-most-once", "a call begins twice only if that does no harm"),
    (Contract::Order, "order", "criticality first, then the deadline, within the documented bound"),
    (Contract::Slots, "slots", "slots and credits are conserved"),
    (Contract::Bounds, "bounds", "no more is queued, held or in flight than may be"),
    (Contract::TrueRefusal, "true-refusal", "a call is refused for the reason that is true, and only then"),
    (Contract::NoIdle, "no-idle", "no call waits while a worker of its function has nothing to do"),
    (Contract::HonestWorkers, "honest-workers", "only who lied is quarantined"),
    (Contract::Rate, "rate", "no span of time has more admitted calls than the burst and the rate allow"),
    (Contract::SlowStart, "slow-start", "no window has more calls than the one before allows"),
    (Contract::Breaker, "breaker", "a breaker opens, refuses, probes and closes as its operator was told"),
    (Contract::RetryBudget, "retry-budget", "retries of what may have begun are a fraction of the traffic"),
    (Contract::Concurrency, "concurrency", "no more calls are in workers' hands than may be"),
    (Contract::Ageing, "ageing", "a call that has waited long has its turn within the documented bound"),
    (Contract::FairDelay, "fair-delay", "who is within its share does not wait for anybody's backlog"),
    (Contract::FairShare, "fair-share", "who always wants more has worker time by weight, within the bound"),
    (
        Contract::Nested,
        "nested",
        "a nested call is refused exactly when none but its own callers could run it",
    ),
    (Contract::Hedge, "hedge", "second attempts are a fraction of the pushes, and take nobody's place"),
    (Contract::Stop, "stop", "who runs what nobody waits for is asked to stop"),
    (Contract::OneRun, "one-run", "calls that are the same run once at a time, for all of them"),
    (Contract::NotEarly, "not-early", "nothing begins before its start, and everything stands in line then"),
    (Contract::BackOff, "back-off", "a retry waits within its back-off, and not all of them as long"),
    (
        Contract::BackPressure,
        "back-pressure",
        "who is pushed back is called less, as the limit says, and it ends by itself",
    ),
    (
        Contract::QueueDelay,
        "queue-delay",
        "who is admitted to a queue bounded in time waits about as long at most",
    ),
    (
        Contract::Pool,
        "pool",
        "instances are within their bounds, needed when they start, and idle when they go",
    ),
];

impl Contract {
    /// For `--only`.
    pub fn name(self) -> &'static str {
        let row = CONTRACTS.iter().find(|(contract, ..)| *contract == self);
        row.map_or("?", |(_, name, _)| name)
    }

    /// The contract of this name.
    pub fn named(name: &str) -> Option<Contract> {
        CONTRACTS.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// A contract that did not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub contract: Contract,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.contract.name(), self.what)
    }
}

/// Which contracts are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    /// Only this one; none: all.
    pub only: Option<Contract>,
}

impl Judge {
    /// Holds a contract to what was seen.
    pub fn check(self, contract: Contract, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
        if holds || self.only.is_some_and(|only| only != contract) {
            return Ok(());
        }
        Err(Broken { contract, what: what() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contract_is_found_by_its_name() {
        for (contract, name, _) in CONTRACTS {
            assert_eq!(contract.name(), *name);
            assert_eq!(Contract::named(name), Some(*contract));
        }
        assert_eq!(Contract::named("?"), None);
    }
}
