//! The table of targets: what each experiment must show, and how that is judged.
//!
//! In: a [`Record`].  Out: a [`Judged`] row for each target.
//! Always: judged by the median of the runs, except where one slow call would already break the target; ratios run by
//! run. What was not measured is neither `pass` nor `short`.
//! Never: holds a target that no experiment measures (a test compares the two tables).
//! What each row means: docs/performance.md.

use serde::Serialize;

use crate::record::Record;
use crate::series::{Summary, Unit, ratios};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Which experiment measures it.
    pub experiment: &'static str,
    /// What is held against the bound.
    pub what: &'static str,
    /// Where the value comes from.
    pub value: Value,
    /// Of the value.
    pub unit: Unit,
    /// What it has to keep.
    pub bound: Bound,
}

/// Where a target's value comes from; names are `side/quantity` within the experiment.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A quantity itself; its median counts.
    Median(&'static str),
    /// A quantity of which the largest of all runs counts.
    Worst(&'static str),
    /// One quantity over another of the same run.
    Ratio(&'static str, &'static str),
}

/// What a value has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
    /// Nothing: shown because it belongs to the picture.
    None,
}

/// How a target fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The bound is kept.
    Pass,
    /// It is not.
    Short,
    /// There is no bound to keep.
    Reported,
    /// It cannot be measured here, and why.
    NotAvailable(String),
    /// Measuring it went wrong, and how.
    Failed(String),
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// Which experiment measured it.
    pub experiment: &'static str,
    /// What was held against the bound.
    pub what: &'static str,
    /// Of the value.
    pub unit: Unit,
    /// What it has to keep.
    pub bound: Bound,
    /// The values of all runs, in short.
    pub summary: Option<Summary>,
    /// How it fared.
    pub verdict: Verdict,
}

impl Judged {
    /// The bound, to be read.
    pub fn show_bound(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!(">= {}", self.unit.show(least)),
            Bound::AtMost(most) => format!("<= {}", self.unit.show(most)),
            Bound::None => "-".into(),
        }
    }
}

impl Verdict {
    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Short => "short",
            Self::Reported => "-",
            Self::NotAvailable(_) => "not available",
            Self::Failed(_) => "failed",
        }
    }
}

/// Every target of an experiment that ran, or should have.
pub fn judge_all(record: &Record, is_selected: impl Fn(&str) -> bool) -> Vec<Judged> {
    TABLE.iter().filter(|target| is_selected(target.experiment)).map(|target| judge(record, target)).collect()
}

fn judge(record: &Record, target: &Target) -> Judged {
    let values_of = |name: &str| record.values(&format!("{}/{name}", target.experiment)).to_vec();
    let values = match target.value {
        Value::Median(name) | Value::Worst(name) => values_of(name),
        Value::Ratio(of, to) => ratios(&values_of(of), &values_of(to)),
    };
    let summary = Summary::of(&values);
    let held = summary.map(|summary| match target.value {
        Value::Worst(_) => summary.max,
        _ => summary.median,
    });
    let verdict = if let Some(error) = record.failed.get(target.experiment) {
        Verdict::Failed(error.clone())
    } else if let Some(reason) = record.absent.get(target.experiment) {
        Verdict::NotAvailable(reason.clone())
    } else {
        match (held, target.bound) {
            (None, _) => Verdict::NotAvailable("nothing was measured".into()),
            (Some(_), Bound::None) => Verdict::Reported,
            (Some(value), Bound::AtLeast(least)) if value >= least => Verdict::Pass,
            (Some(value), Bound::AtMost(most)) if value <= most => Verdict::Pass,
            _ => Verdict::Short,
        }
    };
    let Target { experiment, what, unit, bound, .. } = *target;
    Judged { experiment, what, unit, bound, summary, verdict }
}

const fn median(
    experiment: &'static str,
    what: &'static str,
    name: &'static str,
    unit: Unit,
    bound: Bound,
) -> Target {
    Target { experiment, what, value: Value::Median(name), unit, bound }
}

const fn worst(
    experiment: &'static str,
    what: &'static str,
    name: &'static str,
    unit: Unit,
    bound: Bound,
) -> Target {
    Target { experiment, what, value: Value::Worst(name), unit, bound }
}

const fn ratio(
    experiment: &'static str,
    what: &'static str,
    of: &'static str,
    to: &'static str,
    bound: Bound,
) -> Target {
    Target { experiment, what, value: Value::Ratio(of, to), unit: Unit::Times, bound }
}

use Bound::{AtLeast, AtMost};

/// Bounds are for two cores that generator, router and function share.
pub const TABLE: &[Target] = &[
    median("tcp-pipelined", "calls, whole system", "quickfire/calls_per_s", Unit::CallsPerS, AtLeast(16e6)),
    ratio(
        "tcp-pipelined",
        "calls over the floor's",
        "quickfire/calls_per_s",
        "floor/calls_per_s",
        AtLeast(0.5),
    ),
    median("tcp-pipelined", "router CPU per call", "quickfire/middle_cpu", Unit::NsPerCall, AtMost(55.0)),
    median("shm-pipelined", "calls, whole system", "quickfire/calls_per_s", Unit::CallsPerS, AtLeast(25e6)),
    ratio(
        "shm-pipelined",
        "calls over the floor's",
        "quickfire/calls_per_s",
        "floor/calls_per_s",
        AtLeast(0.35),
    ),
    median("shm-pipelined", "router CPU per call", "quickfire/middle_cpu", Unit::NsPerCall, AtMost(30.0)),
    median("mix", "calls, whole system", "mixed/calls_per_s", Unit::CallsPerS, Bound::None),
    ratio(
        "mix",
        "router CPU per call over one function's",
        "mixed/middle_cpu",
        "single/middle_cpu",
        AtMost(1.25),
    ),
    ratio("shm-latency", "p50 over the floor's", "quickfire/latency_p50", "floor/latency_p50", AtMost(1.4)),
    ratio("shm-latency", "p99 over the floor's", "quickfire/latency_p99", "floor/latency_p99", AtMost(2.0)),
    worst("shm-latency", "slowest call of all runs", "quickfire/latency_max", Unit::Ns, AtMost(5e6)),
    ratio("unix-latency", "p50 over the floor's", "quickfire/latency_p50", "floor/latency_p50", AtMost(1.4)),
    ratio("unix-latency", "p99 over the floor's", "quickfire/latency_p99", "floor/latency_p99", AtMost(2.0)),
    worst("unix-latency", "slowest call of all runs", "quickfire/latency_max", Unit::Ns, AtMost(5e6)),
    ratio("tcp-latency", "p50 over the floor's", "quickfire/latency_p50", "floor/latency_p50", AtMost(1.4)),
    ratio("tcp-latency", "p99 over the floor's", "quickfire/latency_p99", "floor/latency_p99", AtMost(2.0)),
    worst("tcp-latency", "slowest call of all runs", "quickfire/latency_max", Unit::Ns, AtMost(5e6)),
    ratio("lane-latency", "p50 over the floor's", "quickfire/latency_p50", "floor/latency_p50", AtMost(1.3)),
    ratio("lane-latency", "p99 over the floor's", "quickfire/latency_p99", "floor/latency_p99", AtMost(2.0)),
    median("lane-latency", "p50", "quickfire/latency_p50", Unit::Ns, AtMost(1e3)),
    worst("lane-latency", "slowest call of all runs", "quickfire/latency_max", Unit::Ns, AtMost(5e6)),
    median("shm-open-loop", "p99 at half of capacity", "quickfire/latency_p99", Unit::Ns, AtMost(200e3)),
    median("shm-open-loop", "p99.9 at half of capacity", "quickfire/latency_p999", Unit::Ns, Bound::None),
    median("shm-open-loop", "late sends", "quickfire/late_sends", Unit::Percent, AtMost(0.1)),
    median("tcp-open-loop", "p99 at half of capacity", "quickfire/latency_p99", Unit::Ns, Bound::None),
    median("tcp-open-loop", "p99.9 at half of capacity", "quickfire/latency_p999", Unit::Ns, Bound::None),
    median("tcp-open-loop", "late sends", "quickfire/late_sends", Unit::Percent, AtMost(0.1)),
    ratio(
        "overload",
        "goodput at 2 x over the peak",
        "twice-tenth/goodput",
        "capacity/calls_per_s",
        AtLeast(0.95),
    ),
    ratio(
        "overload",
        "goodput at 10 x over the peak",
        "tenfold-tenth/goodput",
        "capacity/calls_per_s",
        AtLeast(0.95),
    ),
    median(
        "overload",
        "critical calls served at 10 x",
        "tenfold-tenth-critical/served",
        Unit::Percent,
        AtLeast(99.0),
    ),
    ratio(
        "overload",
        "p99 of critical calls at 2 x over alone",
        "twice-tenth-critical/latency_p99",
        "alone-tenth/latency_p99",
        AtMost(1.2),
    ),
    ratio(
        "overload",
        "p99 of critical calls at 10 x over alone",
        "tenfold-tenth-critical/latency_p99",
        "alone-tenth/latency_p99",
        AtMost(1.2),
    ),
    ratio(
        "overload",
        "the same, half of capacity critical",
        "tenfold-half-critical/latency_p99",
        "alone-half/latency_p99",
        Bound::None,
    ),
    ratio(
        "overload",
        "router CPU of a refusal over a served call's, in bursts",
        "bursts/refusal_cpu",
        "capacity/middle_cpu",
        AtMost(0.1),
    ),
    ratio(
        "overload",
        "the same, call by call",
        "tenfold-tenth/refusal_cpu",
        "capacity/middle_cpu",
        Bound::None,
    ),
    median("overload", "late sends at 10 x", "tenfold-tenth/late_sends", Unit::Percent, AtMost(0.1)),
    ratio(
        "policies",
        "calls with all on over off, TCP",
        "tcp-on/calls_per_s",
        "tcp-off/calls_per_s",
        AtLeast(0.95),
    ),
    ratio(
        "policies",
        "calls with all on over off, shm",
        "shm-on/calls_per_s",
        "shm-off/calls_per_s",
        AtLeast(0.95),
    ),
    ratio(
        "policies",
        "router CPU with all on over off, shm",
        "shm-on/middle_cpu",
        "shm-off/middle_cpu",
        Bound::None,
    ),
    ratio(
        "recording",
        "router CPU per call, recorded over not",
        "on/middle_cpu",
        "off/middle_cpu",
        AtMost(1.05),
    ),
    ratio("fairness", "p99 moved by a flood over the bound", "beside/moved", "bound/moved", AtMost(1.0)),
    median("fairness", "p99 moved by a flood", "beside/moved", Unit::Ns, Bound::None),
    median("fairness", "late sends of the flood", "flood/late_sends", Unit::Percent, Bound::None),
    median(
        "nginx",
        "calls per CPU second of the router",
        "quickfire/per_cpu_s",
        Unit::CallsPerCpuS,
        Bound::None,
    ),
    ratio(
        "nginx",
        "calls per CPU second over nginx's",
        "quickfire/per_cpu_s",
        "nginx/per_cpu_s",
        AtLeast(5.0),
    ),
    ratio(
        "functions-growth",
        "router CPU per call, 1 to 4,096 functions",
        "many/middle_cpu",
        "one/middle_cpu",
        AtMost(1.3),
    ),
    ratio(
        "connections-growth",
        "router CPU per call, 1 to 10,000 connections",
        "many/middle_cpu",
        "one/middle_cpu",
        AtMost(1.3),
    ),
    ratio(
        "queue-growth",
        "router CPU per call, 8,192 to 1 M outstanding",
        "many/middle_cpu",
        "one/middle_cpu",
        AtMost(1.3),
    ),
    ratio(
        "payload-64k",
        "bytes over the floor's",
        "quickfire/bytes_per_s",
        "floor/bytes_per_s",
        AtLeast(0.7),
    ),
    ratio("payload-1m", "bytes over the floor's", "quickfire/bytes_per_s", "floor/bytes_per_s", AtLeast(0.7)),
    median("idle", "CPU of router, shim and 100 workers", "system/cpu", Unit::Percent, AtMost(1.0)),
    median(
        "idle",
        "resident memory of the router",
        "router/resident",
        Unit::Bytes,
        AtMost(100.0 * 1024.0 * 1024.0),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const RATIO: Target = ratio("tcp-pipelined", "ratio", "a/rate", "b/rate", AtLeast(0.5));

    fn record(a: &[f64], b: &[f64]) -> Record {
        let mut record = Record::new(1.0, 1);
        for (name, values) in [("a", a), ("b", b)] {
            for value in values {
                record.add(format!("tcp-pipelined/{name}/rate"), Unit::CallsPerS, *value);
            }
        }
        record
    }

    #[test]
    fn a_ratio_is_judged_by_the_median_of_its_runs() {
        let verdict = |a, b| judge(&record(a, b), &RATIO).verdict;
        assert_eq!(verdict(&[5.0, 5.0, 1.0], &[10.0, 10.0, 10.0]), Verdict::Pass);
        assert_eq!(verdict(&[5.0, 4.0, 1.0], &[10.0, 10.0, 10.0]), Verdict::Short);
        assert!(matches!(verdict(&[], &[]), Verdict::NotAvailable(_)));
    }

    #[test]
    fn one_slow_call_breaks_a_target_of_the_worst() {
        let target = worst("tcp-pipelined", "slowest", "a/rate", Unit::Ns, AtMost(5.0));
        assert_eq!(judge(&record(&[1.0, 1.0, 6.0], &[]), &target).verdict, Verdict::Short);
        assert_eq!(judge(&record(&[1.0, 1.0, 5.0], &[]), &target).verdict, Verdict::Pass);
    }

    #[test]
    fn what_was_absent_or_failed_is_said_with_its_reason() {
        let mut absent = record(&[], &[]);
        absent.absent.insert("tcp-pipelined".into(), "no such thing".into());
        assert_eq!(judge(&absent, &RATIO).verdict, Verdict::NotAvailable("no such thing".into()));
        let mut failed = record(&[9.0], &[1.0]);
        failed.failed.insert("tcp-pipelined".into(), "it broke".into());
        assert_eq!(judge(&failed, &RATIO).verdict, Verdict::Failed("it broke".into()));
    }
}
