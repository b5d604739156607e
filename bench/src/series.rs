//! Repeated measurements of one thing, and the unit they are in.
//!
//! Always: a median is shown with its spread; a ratio is taken within each run and only then its median, so that a slow
//! spell of the machine meets both sides.

use serde::{Deserialize, Serialize};

/// What a value counts, and with it which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// More is better.
    CallsPerS,
    /// More is better.
    BytesPerS,
    /// Calls for each second of CPU time. More is better.
    CallsPerCpuS,
    /// CPU time.
    NsPerCall,
    /// A latency.
    Ns,
    /// One core is 100.
    Percent,
    /// Memory.
    Bytes,
    /// How many times as much.
    Times,
    /// A number of things, of which none is better or worse.
    Count,
}

impl Unit {
    /// Whether a larger value is the better one; `None` where neither is.
    pub fn is_more_better(self) -> Option<bool> {
        match self {
            Self::CallsPerS | Self::BytesPerS | Self::CallsPerCpuS => Some(true),
            Self::NsPerCall | Self::Ns | Self::Percent | Self::Bytes => Some(false),
            Self::Times | Self::Count => None,
        }
    }

    /// A value with its unit, three digits or so.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::CallsPerS => format!("{}/s", short(value)),
            Self::CallsPerCpuS => format!("{}/CPU s", short(value)),
            Self::BytesPerS => format!("{:.2} GB/s", value / 1e9),
            Self::NsPerCall => format!("{value:.1} ns"),
            Self::Ns if value < 1e3 => format!("{value:.0} ns"),
            Self::Ns if value < 1e6 => format!("{:.1} us", value / 1e3),
            Self::Ns => format!("{:.2} ms", value / 1e6),
            Self::Percent => format!("{value:.2} %"),
            Self::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
            Self::Times => format!("{value:.2} x"),
            Self::Count => short(value),
        }
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value => format!("{value:.0}"),
    }
}

/// One value for each run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Of every value.
    pub unit: Unit,
    /// In the order of the runs.
    pub values: Vec<f64>,
}

/// Median and spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value; of an even number the upper of the two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of these values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: *sorted.get(sorted.len() / 2)?, min: *sorted.first()?, max: *sorted.last()? })
    }
}

/// The ratio of each run's pair of values.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).filter(|(_, to)| **to != 0.0).map(|(of, to)| of / to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_one_whatever_the_order() {
        let summary = Summary::of(&[5.0, 1.0, 9.0]).unwrap();
        assert_eq!(summary, Summary { median: 5.0, min: 1.0, max: 9.0 });
        assert_eq!(Summary::of(&[1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        // A machine twice as slow in the second run slows both sides.
        assert_eq!(ratios(&[10.0, 5.0], &[20.0, 10.0]), [0.5, 0.5]);
        assert_eq!(ratios(&[10.0, 5.0], &[0.0, 10.0]), [0.5]);
    }

    #[test]
    fn values_are_shown_in_a_unit_that_fits() {
        assert_eq!(Unit::CallsPerS.show(16_000_000.0), "16.00 M/s");
        assert_eq!(Unit::Ns.show(15_600.0), "15.6 us");
        assert_eq!(Unit::Ns.show(5e6), "5.00 ms");
        assert_eq!(Unit::Bytes.show(104_857_600.0), "100.0 MiB");
        assert_eq!(Unit::Times.show(0.5), "0.50 x");
    }
}
