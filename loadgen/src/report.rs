//! What a run showed, as one value; `text.rs`, `html.rs` and serde turn it into something to read.
//!
//! In: the tally and the verdict.  Out: a [`Report`].
//! Always: the JSON is this struct, field by field. Names are only ever added.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::generator::Outcome;
use crate::plan::{Check, Plan, Workload};
use crate::timeline::Interval;
use crate::verdict::{Evidence, GeneratorReport, judge};

mod html;
mod text;

/// The whole report of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was run.
    pub plan: PlanReport,
    /// Repeats the run.
    pub seed: u64,
    /// From the first send to the last answer.
    pub elapsed_s: f64,
    /// Results per second while calls were being sent.
    pub calls_per_s: f64,
    /// Calls sent.
    pub sent: u64,
    /// Answers of any kind received.
    pub answered: u64,
    /// Of these: results that belong to their calls.
    pub ok: u64,
    /// Answers that belong to no call of ours, or carry another call's payload.
    pub mismatched: u64,
    /// Of the answered: calls that went past the router, through direct lanes.
    pub direct: u64,
    /// Everything but ok, by reason.
    pub errors: BTreeMap<String, u64>,
    /// Calls sent later than scheduled by more than the plan's threshold.
    pub late_sends: u64,
    /// Of these: the router had left no credit when they were due.
    pub late_sends_held: u64,
    /// The worst delay of a send.
    pub send_delay_ns_max: u64,
    /// Latency of results since their intended send.
    pub latency_ns: LatencyReport,
    /// Latency of results since their actual send: what a generator that waits for answers would have measured.
    pub latency_uncorrected_ns: LatencyReport,
    /// Whether the figures are the router's.
    pub generator: GeneratorReport,
    /// Latency at ever rarer percentiles, for plots.
    pub latency_curve_ns: Vec<CurvePoint>,
    /// The run in slices of time, for plots.
    pub timeline: Vec<Interval>,
}

/// The plan, in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanReport {
    /// The router's address.
    pub target: String,
    /// The function called.
    pub function: String,
    /// `closed` or `open`.
    pub workload: &'static str,
    /// Open loop: calls per second.
    pub rate: Option<f64>,
    /// Open loop: how they are spread.
    pub arrivals: Option<String>,
    /// Closed loop: calls outstanding.
    pub window: Option<u32>,
    /// Connections.
    pub connections: u32,
    /// Whether direct lanes were asked for.
    pub direct: bool,
    /// Calls that could be outstanding at once: less than the window where the router granted fewer credits.
    pub slot_count: u64,
    /// How long calls were sent.
    pub duration_s: f64,
    /// Bytes in each request.
    pub payload_size: u32,
    /// The budget of each call.
    pub deadline_us: Option<u64>,
    /// The criticality of each call.
    pub criticality: &'static str,
    /// How answers were matched to calls.
    pub check: &'static str,
    /// The threshold of a late send.
    pub late_after_us: u64,
}

/// Percentiles in nanoseconds; all zero without results.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct LatencyReport {
    /// Results measured.
    pub count: u64,
    /// The quickest.
    pub min: u64,
    /// The average.
    pub mean: f64,
    /// Half were at most this.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// 99.99 %.
    pub p99_99: u64,
    /// The slowest.
    pub max: u64,
}

/// One point of the percentile curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// 0 to 100.
    pub percentile: f64,
    /// Since the intended send.
    pub corrected: u64,
    /// Since the actual send.
    pub uncorrected: u64,
}

impl Report {
    pub(crate) fn new(plan: &Plan, outcome: Outcome) -> Self {
        let Outcome { tally, lateness, elapsed_ns, sending_ns, cpu_ns, idle_ns, slot_count } = outcome;
        let sent = tally.sent;
        let evidence = Evidence { workload: plan.workload, sent, lateness, elapsed_ns, cpu_ns, idle_ns };
        let (answered, ok, mismatched, direct) = (tally.answered, tally.ok, tally.mismatched, tally.direct);
        let calls_per_s = tally.ok_in_time as f64 * 1e9 / sending_ns.max(1) as f64;
        let errors = tally.errors_by_reason();
        let (corrected, uncorrected, timeline) = tally.into_parts();
        Self {
            plan: PlanReport::new(plan, slot_count),
            seed: plan.seed,
            elapsed_s: elapsed_ns as f64 / 1e9,
            calls_per_s,
            sent,
            answered,
            ok,
            mismatched,
            direct,
            errors,
            late_sends: lateness.late,
            late_sends_held: lateness.late_held,
            send_delay_ns_max: lateness.delay_ns_max,
            latency_ns: LatencyReport::new(&corrected),
            latency_uncorrected_ns: LatencyReport::new(&uncorrected),
            generator: judge(&evidence),
            latency_curve_ns: curve(&corrected, &uncorrected),
            timeline,
        }
    }

    /// Calls that did not end ok, however they ended.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The report for a terminal.
    pub fn to_text(&self) -> String {
        text::render(self)
    }

    /// The report for a program, indented.
    pub fn to_json(&self) -> String {
        // Numbers, texts and maps with text keys cannot fail to serialise.
        serde_json::to_string_pretty(self).expect("a report has nothing that JSON cannot say") + "\n"
    }

    /// The report for a browser: one file, with its plots, asking nothing of any network.
    pub fn to_html(&self) -> String {
        html::render(self)
    }
}

impl Report {
    /// How long calls were sent; and how long they were meant to be, if somebody, or a router that went
    /// away, ended the run early.
    fn describe_duration(&self) -> String {
        let planned_s = self.plan.duration_s;
        if self.elapsed_s < planned_s {
            return format!("ended after {:.1} of {planned_s} s", self.elapsed_s);
        }
        format!("{planned_s} s")
    }
}

impl PlanReport {
    fn describe_connections(&self) -> String {
        match self.connections {
            1 => "1 connection".into(),
            connections => format!("{connections} connections"),
        }
    }

    /// The workload in a few words.
    fn describe_workload(&self) -> String {
        match (self.rate, &self.arrivals, self.window) {
            (Some(rate), Some(arrivals), _) => {
                format!("open loop, {} calls/s {arrivals}", show_count(rate.round() as u64))
            }
            (_, _, Some(window)) if u64::from(window) > self.slot_count => {
                format!("closed loop, window {window} (of which the router granted {})", self.slot_count)
            }
            (_, _, window) => format!("closed loop, window {}", window.unwrap_or_default()),
        }
    }

    fn new(plan: &Plan, slot_count: u64) -> Self {
        let (workload, rate, arrivals, window) = match plan.workload {
            Workload::Closed { window } => ("closed", None, None, Some(window)),
            Workload::Open { rate, arrivals } => ("open", Some(rate), Some(arrivals.to_string()), None),
        };
        Self {
            target: plan.target.to_string(),
            function: plan.function.clone(),
            workload,
            rate,
            arrivals,
            window,
            connections: plan.connections,
            direct: plan.direct,
            slot_count,
            duration_s: plan.duration.as_secs_f64(),
            payload_size: plan.payload_size,
            deadline_us: plan
                .deadline
                .map(|deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX)),
            criticality: plan.criticality.name(),
            check: match plan.check {
                Check::Auto if plan.compares_payloads() => "echo",
                Check::Auto | Check::CallId => "call_id",
                Check::Echo => "echo",
            },
            late_after_us: u64::try_from(plan.late_after.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl LatencyReport {
    /// The percentiles by name, in the order in which they are read.
    pub fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("min", self.min),
            ("mean", self.mean as u64),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("max", self.max),
        ]
    }

    pub(crate) fn new(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            p99_99: histogram.value_at_quantile(0.9999),
            max: histogram.max(),
        }
    }
}

/// From the minimum on, ten points for each factor of ten of rarity, as far as there are results to tell.
fn curve(corrected: &Histogram<u64>, uncorrected: &Histogram<u64>) -> Vec<CurvePoint> {
    if corrected.is_empty() {
        return Vec::new();
    }
    let rarity_max = (corrected.len() as f64).log10().max(0.5);
    (0..)
        .map(|step| f64::from(step) / 10.0)
        .take_while(|rarity| *rarity <= rarity_max)
        .map(|rarity| {
            let quantile = 1.0 - 10f64.powf(-rarity);
            CurvePoint {
                percentile: 100.0 * quantile,
                corrected: corrected.value_at_quantile(quantile),
                uncorrected: uncorrected.value_at_quantile(quantile),
            }
        })
        .collect()
}

/// Nanoseconds in the unit that keeps three digits readable.
pub(crate) fn show_ns(ns: u64) -> String {
    let ns_f64 = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns_f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns_f64 / 1e6),
        _ => format!("{:.2} s", ns_f64 / 1e9),
    }
}

/// A count or rate, with separators a reader can count by: `1,234,567`.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
pub(crate) mod tests;
