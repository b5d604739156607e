//! What a policy comes to: cold starts of applications and of calls, and memory that is warm for nothing.

use super::{Application, Outcome};

/// The head of the table that [`Figures::row`] fills.
pub const HEAD: &str = "\
| policy | cold starts of the median application | of the third-quartile application | of all calls | always cold | wasted memory |
|---|---|---|---|---|---|";

/// Of one policy.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of each application that was called: the share of its calls that started cold.
    cold_shares: Vec<f64>,
    calls: f64,
    cold_calls: f64,
    wasted_byte_seconds: f64,
}

impl Figures {
    pub fn add(&mut self, application: &Application, outcome: Outcome) {
        self.cold_shares.push(outcome.cold_count as f64 / outcome.call_count as f64);
        self.calls += outcome.call_count as f64 * application.weight();
        // The first call of all is cold once, however often what is simulated stands for the rest.
        self.cold_calls += 1.0 + (outcome.cold_count as f64 - 1.0) * application.weight();
        self.wasted_byte_seconds += application.wasted_byte_seconds(&outcome);
    }

    /// The share of cold starts that so many percent of applications do not exceed.
    pub fn cold_percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.cold_shares.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * percent / 100]
    }

    /// Of all calls.
    pub fn cold_calls(&self) -> f64 {
        self.cold_calls / self.calls
    }

    /// The share of applications of which every call started cold.
    pub fn always_cold(&self) -> f64 {
        let count = self.cold_shares.iter().filter(|share| **share == 1.0).count();
        count as f64 / self.cold_shares.len() as f64
    }

    /// Over that of another policy.
    pub fn wasted_over(&self, standard: &Figures) -> f64 {
        self.wasted_byte_seconds / standard.wasted_byte_seconds
    }

    /// A row of the page's table.
    pub fn row(&self, name: &str, standard: &Figures) -> String {
        format!(
            "| {name} | {:.1} % | {:.1} % | {:.3} % | {:.1} % | {:.2} |",
            100.0 * self.cold_percentile(50),
            100.0 * self.cold_percentile(75),
            100.0 * self.cold_calls(),
            100.0 * self.always_cold(),
            self.wasted_over(standard),
        )
    }
}
