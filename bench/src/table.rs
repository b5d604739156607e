//! Rows of repeated measurements: median, spread, and ratios between rows of the same run.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use crate::{floor, machine, quickfire};

/// One measurement of a row, whatever it measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Sample {
    calls_per_s: f64,
    latency_ns_p50: Option<u64>,
    latency_ns_p99: Option<u64>,
    client_cpu_ms_per_million: f64,
    middle_cpu_ms_per_million: f64,
    worker_cpu_ms_per_million: f64,
}

/// All rows of one benchmark run.
pub struct Table {
    title: &'static str,
    rows: BTreeMap<String, Vec<Sample>>,
    ratios: Vec<(String, String)>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &'static str) -> Self {
        Self { title, rows: BTreeMap::new(), ratios: Vec::new() }
    }

    /// Adds one measurement of the floor to `row`.
    pub fn floor(&mut self, row: &str, measured: &floor::Measured) {
        self.rows.entry(row.into()).or_default().push(Sample {
            calls_per_s: measured.calls_per_s,
            latency_ns_p50: measured.latency_ns_p50,
            latency_ns_p99: measured.latency_ns_p99,
            client_cpu_ms_per_million: measured.client_cpu_ms_per_million,
            middle_cpu_ms_per_million: measured.forwarder_cpu_ms_per_million,
            worker_cpu_ms_per_million: measured.worker_cpu_ms_per_million,
        });
    }

    /// Adds one measurement of Quickfire to `row`.
    pub fn quickfire(&mut self, row: &str, measured: &quickfire::Measured) {
        self.rows.entry(row.into()).or_default().push(Sample {
            calls_per_s: measured.calls_per_s,
            latency_ns_p50: Some(measured.latency_ns_p50),
            latency_ns_p99: Some(measured.latency_ns_p99),
            client_cpu_ms_per_million: measured.client_cpu_ms_per_million,
            middle_cpu_ms_per_million: measured.router_cpu_ms_per_million,
            worker_cpu_ms_per_million: measured.workers_cpu_ms_per_million,
        });
    }

    /// Asks for the ratio of two rows' medians.
    pub fn ratio(&mut self, row: &str, to: &str) {
        self.ratios.push((row.into(), to.into()));
    }

    /// Everything measured, for `bench/baselines/`.
    pub fn raw(&self, window: u32, seconds: f64) -> serde_json::Value {
        json!({
            "title": self.title,
            "machine": machine::description(),
            "commit": machine::commit(),
            "window": window,
            "seconds": seconds,
            "payload": 32,
            "rows": self.rows,
        })
    }

    fn median(&self, row: &str, of: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rows.get(row).into_iter().flatten().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}\n{}, commit {}\n", self.title, machine::description(), machine::commit())?;
        writeln!(
            out,
            "{:<32}{:>12}{:>18}{:>10}{:>10}   CPU ns per call: client, middle, worker",
            "median of runs", "M calls/s", "(min .. max)", "p50 us", "p99 us"
        )?;
        for (row, samples) in &self.rows {
            let rate = |pick: fn(f64, f64) -> f64, start| {
                samples.iter().map(|sample| sample.calls_per_s / 1e6).fold(start, pick)
            };
            let latency = |of: fn(&Sample) -> Option<u64>| {
                samples
                    .iter()
                    .all(|sample| of(sample).is_some())
                    .then(|| self.median(row, |sample| of(sample).unwrap_or(0) as f64 / 1e3))
            };
            let show = |value: Option<f64>| value.map_or("-".into(), |us| format!("{us:.1}"));
            writeln!(
                out,
                "{row:<32}{:>12.3}{:>18}{:>10}{:>10}   {:.1}, {:.1}, {:.1}",
                self.median(row, |sample| sample.calls_per_s / 1e6),
                format!("({:.3} .. {:.3})", rate(f64::min, f64::MAX), rate(f64::max, 0.0)),
                show(latency(|sample| sample.latency_ns_p50)),
                show(latency(|sample| sample.latency_ns_p99)),
                self.median(row, |sample| sample.client_cpu_ms_per_million),
                self.median(row, |sample| sample.middle_cpu_ms_per_million),
                self.median(row, |sample| sample.worker_cpu_ms_per_million),
            )?;
        }
        writeln!(out)?;
        for (row, to) in &self.ratios {
            writeln!(
                out,
                "{row} / {to}: {:.3} x throughput, {:.2} x CPU in the middle",
                self.median(row, |sample| sample.calls_per_s) / self.median(to, |sample| sample.calls_per_s),
                self.median(row, |sample| sample.middle_cpu_ms_per_million)
                    / self.median(to, |sample| sample.middle_cpu_ms_per_million),
            )?;
        }
        Ok(())
    }
}
