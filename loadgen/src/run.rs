//! One run from plan to report: dial, generate on a thread of its own, tell how it goes, judge.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use protocol::{CallId, FrameParts, limits};

use crate::connection::{Connection, Template};
use crate::dial::dial;
use crate::error::LoadError;
use crate::generator::{Generator, Outcome};
use crate::pattern::Pattern;
use crate::plan::{Plan, Target, Workload};
use crate::progress::Progress;
use crate::report::Report;
use crate::rings::RingGenerator;
use crate::tally::Watched;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the plan to its end. `progress` is called about ten times a second, on the calling thread.
///
/// # Errors
/// If the plan is impossible or the run cannot begin. What goes wrong later is counted in the report.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(Progress)) -> Result<Report, LoadError> {
    run_until(plan, progress, &AtomicBool::new(false))
}

/// As [`run`], but ends early, with a report, when `stop` becomes true.
///
/// # Errors
/// As [`run`].
pub fn run_until(
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
    stop: &AtomicBool,
) -> Result<Report, LoadError> {
    plan.validate()?;
    let generate = generator(plan)?;
    let watched = &Watched::default();
    let outcome = thread::scope(|scope| {
        // Never sent on: its sender is dropped when the generator ends, however it ends.
        let (running, ended) = mpsc::channel::<()>();
        let generating =
            thread::Builder::new().name("quickfire-load".into()).spawn_scoped(scope, move || {
                let _running = running;
                generate(watched, stop)
            })?;
        let mut news = News::new(plan.duration);
        while ended.recv_timeout(PROGRESS_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            progress(news.next(watched));
        }
        let outcome = generating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        progress(news.next(watched));
        outcome
    });
    Ok(Report::new(plan, outcome.map_err(LoadError::NoResources)?))
}

/// What the generating thread does: over sockets or through rings, connected already.
type Generate<'a> = Box<dyn FnOnce(&Watched, &AtomicBool) -> io::Result<Outcome> + Send + 'a>;

fn generator(plan: &Plan) -> Result<Generate<'_>, LoadError> {
    if let Target::Shm(run_dir) = &plan.target {
        let generator = RingGenerator::connect(plan, run_dir)?;
        return Ok(Box::new(move |watched, stop| Ok(generator.run(watched, stop))));
    }
    let (connections, template) = connect(plan)?;
    let generator = Generator::new(plan, template, connections).map_err(LoadError::NoResources)?;
    Ok(Box::new(move |watched, stop| generator.run(watched, stop)))
}

fn connect(plan: &Plan) -> Result<(Vec<Connection>, Template), LoadError> {
    let (dialled, function_id) = dial(plan)?;
    let size_max = dialled
        .iter()
        .map(|dialled| limits::payload_size_max(dialled.hello.frame_size_max, 0))
        .min()
        .unwrap_or_default();
    if plan.payload_size > size_max {
        return Err(LoadError::PayloadTooLarge { size: plan.payload_size, size_max });
    }
    let budget_us =
        plan.deadline.map_or(0, |budget| u32::try_from(budget.as_micros()).unwrap_or(u32::MAX).max(1));
    let parts = FrameParts {
        budget_us,
        criticality: plan.criticality as u8,
        ..FrameParts::invoke(CallId::NONE, function_id)
    };
    let template = Template::new(&parts, plan.payload_size as usize, plan.compares_payloads());
    let connections = (0u32..)
        .zip(dialled)
        .map(|(index, dialled)| {
            let slot_count = match plan.workload {
                Workload::Closed { window } => plan.window_of(window, index).min(dialled.hello.credits),
                Workload::Open { .. } => dialled.hello.credits,
            };
            Connection::new(dialled, slot_count, Pattern::new(plan.seed, index as usize))
        })
        .collect::<Result<_, _>>()
        .map_err(LoadError::NoResources)?;
    Ok((connections, template))
}

/// Turns counts into news: rates are since the last time.
struct News {
    duration: Duration,
    elapsed_ns_before: u64,
    ok_before: u64,
}

impl News {
    fn new(duration: Duration) -> Self {
        Self { duration, elapsed_ns_before: 0, ok_before: 0 }
    }

    fn next(&mut self, watched: &Watched) -> Progress {
        let elapsed_ns = watched.elapsed_ns.load(Ordering::Relaxed);
        let ok = watched.ok.load(Ordering::Relaxed);
        let since_ns = elapsed_ns.saturating_sub(self.elapsed_ns_before).max(1);
        let rate = ok.saturating_sub(self.ok_before) as f64 * 1e9 / since_ns as f64;
        (self.elapsed_ns_before, self.ok_before) = (elapsed_ns, ok);
        Progress {
            elapsed: Duration::from_nanos(elapsed_ns),
            duration: self.duration,
            sent: watched.sent.load(Ordering::Relaxed),
            answered: watched.answered.load(Ordering::Relaxed),
            rate,
            errors: watched.errors.load(Ordering::Relaxed),
            late_sends: watched.late_sends.load(Ordering::Relaxed),
        }
    }
}
