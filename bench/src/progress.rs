//! What is being measured, and how long it still takes: a bar on a terminal, a line for each experiment elsewhere.
//!
//! Always: "still" is what the plan says of the rest, corrected by how wrong it was so far.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// News of a suite.
pub struct Progress {
    bar: ProgressBar,
    planned_s: f64,
    done_s: Cell<f64>,
    started: Instant,
    title: std::cell::RefCell<String>,
}

impl Progress {
    /// A suite that is planned to take so long.
    pub fn new(planned_s: f64) -> Self {
        let bar = ProgressBar::new((planned_s * 1000.0) as u64);
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:24.blue} {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            bar,
            planned_s,
            done_s: Cell::new(0.0),
            started: Instant::now(),
            title: std::cell::RefCell::default(),
        }
    }

    /// The next experiment begins.
    pub fn begin(&self, run: usize, runs: usize, name: &str) {
        let still =
            show_seconds(still_s(self.planned_s, self.done_s.get(), self.started.elapsed().as_secs_f64()));
        let title = format!("run {run} of {runs}, {name} (still {still})");
        if self.bar.is_hidden() {
            eprintln!("{title}");
        }
        self.bar.set_message(title.clone());
        self.title.replace(title);
    }

    /// One of its sides begins.
    pub fn side(&self, side: &str) {
        self.bar.set_message(format!("{}: {side}", self.title.borrow()));
    }

    /// It is over, as planned or not.
    pub fn end(&self, planned_s: f64) {
        self.done_s.set(self.done_s.get() + planned_s);
        self.bar.set_position((self.done_s.get() * 1000.0) as u64);
    }

    /// All is over.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn still_s(planned_s: f64, done_s: f64, elapsed_s: f64) -> f64 {
    // One experiment says little about the next: the plan is believed until a tenth is done.
    let slowness = if done_s < planned_s / 10.0 { 1.0 } else { elapsed_s / done_s };
    (planned_s - done_s).max(0.0) * slowness
}

fn show_seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds => format!("{:.0} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_as_slow_as_what_was_done() {
        assert_eq!(still_s(100.0, 5.0, 50.0), 95.0);
        assert_eq!(still_s(100.0, 50.0, 100.0), 100.0);
        assert_eq!(still_s(100.0, 110.0, 100.0), 0.0);
        assert_eq!((show_seconds(89.0), show_seconds(300.0)), ("89 s".into(), "5 min".into()));
    }
}
