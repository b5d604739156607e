//! Whether the figures are the router's or the generator's own.
//!
//! In: how busy the generator's thread was, and how late its sends were.  Out: a verdict with its reason.
//! Why it is part of every report: a generator that cannot keep its schedule measures itself, and nothing in the
//! latencies says so.

use serde::Serialize;

use crate::plan::Workload;
use crate::schedule::Lateness;

/// The generator on itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GeneratorReport {
    /// Processor time of its thread over the time of the run.
    pub cpu_percent: f64,
    /// Share of the run in which its loop had something to send or to take, rather than looking or sleeping.
    pub busy_percent: f64,
    /// The figures are limited by the generator, not by the router.
    pub was_limit: bool,
    /// Why, if it was.
    pub why: Option<String>,
}

/// Late sends of the generator's own making above this share make an open loop's figures its own.
const LATE_PERCENT_MAX: f64 = 0.1;

/// A loop busier than this has nothing left to give.
const BUSY_PERCENT_MAX: f64 = 95.0;

/// What the verdict rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    pub(crate) workload: Workload,
    pub(crate) sent: u64,
    pub(crate) lateness: Lateness,
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) idle_ns: u64,
}

pub(crate) fn judge(evidence: &Evidence) -> GeneratorReport {
    let elapsed_ns = evidence.elapsed_ns.max(1) as f64;
    let cpu_percent = 100.0 * evidence.cpu_ns as f64 / elapsed_ns;
    let busy_percent = 100.0 * (1.0 - (evidence.idle_ns as f64 / elapsed_ns).min(1.0));
    let why = match evidence.workload {
        Workload::Closed { .. } => closed_loop_limit(busy_percent, cpu_percent),
        Workload::Open { .. } => open_loop_limit(evidence, busy_percent, cpu_percent),
    };
    GeneratorReport { cpu_percent, busy_percent, was_limit: why.is_some(), why }
}

fn closed_loop_limit(busy_percent: f64, cpu_percent: f64) -> Option<String> {
    if busy_percent < BUSY_PERCENT_MAX {
        return None;
    }
    let cause = if cpu_percent >= BUSY_PERCENT_MAX {
        "the router may be able to do more"
    } else {
        "it shares its processor; leave a core free for it"
    };
    Some(format!(
        "answers were always waiting for it (busy {busy_percent:.0} %, {cpu_percent:.0} % of a processor): {cause}"
    ))
}

fn open_loop_limit(evidence: &Evidence, busy_percent: f64, cpu_percent: f64) -> Option<String> {
    let Lateness { late, late_held, .. } = evidence.lateness;
    // What was held back for want of credits is the router's doing.
    let late_percent = 100.0 * late.saturating_sub(late_held) as f64 / evidence.sent.max(1) as f64;
    if late_percent <= LATE_PERCENT_MAX {
        return None;
    }
    let cause = if busy_percent >= BUSY_PERCENT_MAX && cpu_percent >= BUSY_PERCENT_MAX {
        "its thread could not send faster"
    } else {
        "its thread was not given the processor in time; leave a core free for it"
    };
    Some(format!(
        "{late_percent:.2} % of the sends were late through the generator itself (busy {busy_percent:.0} %, \
         {cpu_percent:.0} % of a processor): {cause}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Arrivals;

    const OPEN: Workload = Workload::Open { rate: 1_000.0, arrivals: Arrivals::Constant };
    const CLOSED: Workload = Workload::Closed { window: 64 };

    fn evidence(workload: Workload, idle_ns: u64, late: u64, late_held: u64) -> Evidence {
        let lateness = Lateness { late, late_held, delay_ns_max: 0 };
        Evidence { workload, sent: 10_000, lateness, elapsed_ns: 1_000, cpu_ns: 1_000, idle_ns }
    }

    #[test]
    fn an_open_loop_on_time_is_no_limit_however_busy_it_looks() {
        assert!(!judge(&evidence(OPEN, 0, 10, 0)).was_limit);
    }

    #[test]
    fn an_open_loop_that_is_late_by_itself_is_the_limit_and_says_why() {
        let verdict = judge(&evidence(OPEN, 0, 11, 0));
        assert!(verdict.was_limit);
        assert!(verdict.why.unwrap().contains("could not send faster"));
        let verdict = judge(&evidence(OPEN, 600, 11, 0));
        assert!(verdict.why.unwrap().contains("not given the processor"));
    }

    #[test]
    fn sends_held_back_by_the_router_are_not_the_generators_fault() {
        assert!(!judge(&evidence(OPEN, 0, 5_000, 4_999)).was_limit);
    }

    #[test]
    fn a_closed_loop_is_the_limit_when_it_never_had_to_wait() {
        assert!(judge(&evidence(CLOSED, 10, 0, 0)).was_limit);
        assert!(!judge(&evidence(CLOSED, 100, 0, 0)).was_limit);
    }
}
