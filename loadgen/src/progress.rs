//! News of a run while it goes on.
//!
//! In: the counts the generator publishes.  Out: a [`Progress`] ten times a second, and a bar to draw it with.
//! Why on another thread than the generator: drawing takes as long as hundreds of calls, and would show up in the
//! latencies it reports on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::report::show_count;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Since the first send.
    pub elapsed: Duration,
    /// How long calls are sent.
    pub duration: Duration,
    /// Calls sent.
    pub sent: u64,
    /// Answers of any kind.
    pub answered: u64,
    /// Results per second since the last news.
    pub rate: f64,
    /// Calls that did not end ok.
    pub errors: u64,
    /// Calls sent later than scheduled.
    pub late_sends: u64,
}

/// A progress bar on standard error, silent when that is no terminal, gone when it is dropped. Give it to [`run`](crate::run):
///
/// ```no_run
/// let plan = loadgen::Plan::default();
/// let report = loadgen::run(&plan, &mut loadgen::progress_bar(&plan))?;
/// print!("{}", report.to_text());
/// # Ok::<(), loadgen::LoadError>(())
/// ```
pub fn progress_bar(plan: &crate::Plan) -> impl FnMut(Progress) + use<> {
    let total_ms = u64::try_from(plan.duration.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(total_ms).with_finish(ProgressFinish::AndClear);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:30.blue} {msg}") {
        bar.set_style(style.progress_chars("━╸─"));
    }
    move |progress: Progress| {
        let elapsed_ms = u64::try_from(progress.elapsed.as_millis()).unwrap_or(u64::MAX);
        bar.set_position(elapsed_ms.min(total_ms));
        bar.set_message(describe(&progress));
    }
}

fn describe(progress: &Progress) -> String {
    let mut text = format!("{} calls/s", show_count(progress.rate.round() as u64));
    if progress.errors > 0 {
        text += &format!(", {} errors", show_count(progress.errors));
    }
    if progress.late_sends > 0 {
        text += &format!(", {} late", show_count(progress.late_sends));
    }
    text
}
