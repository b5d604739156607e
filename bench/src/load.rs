//! `quickfire load` as a measuring instrument: one function, one connection or many, closed or open loop, every answer
//! checked.
//!
//! In: a [`Load`] and a running router.  Out: [`Measured`], with the CPU time of everybody who took part.
//! Always: a run with answers missing or wrong is an error, never a figure.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::experiments::NotMeasured;
use crate::floor::Transport;
use crate::process;
use crate::quickfire::{self, Router, Spent};

/// Answers other than results, in a thousand, above which a run says nothing about results. Unless refusals are what is
/// measured.
const ERRORS_PER_MILLE_MAX: f64 = 1.0;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Which function.
    pub function: &'static str,
    /// Which way in.
    pub transport: Transport,
    /// Connections.
    pub connections: u32,
    /// When the next call goes.
    pub pace: Pace,
    /// Bytes in each request.
    pub payload_size: u32,
    /// How long.
    pub seconds: f64,
    /// How much the calls matter, as `quickfire load --criticality` names it.
    pub criticality: &'static str,
    /// Whether calls may end otherwise than with a result.
    pub may_be_refused: bool,
}

/// When the next call goes.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many are outstanding.
    Window(u32),
    /// So many a second, at random.
    Rate(f64),
    /// So many a second, evenly spaced.
    Even(f64),
    /// So many a second, in bursts of so many.
    Bursts(f64, u32),
}

/// What one run measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Checked results per second.
    pub calls_per_s: f64,
    /// Results in all.
    pub calls: u64,
    /// Answers that were none.
    pub refused: u64,
    /// Median latency since the intended send.
    pub latency_ns_p50: f64,
    /// 99th percentile.
    pub latency_ns_p99: f64,
    /// 99.9th percentile.
    pub latency_ns_p999: f64,
    /// The slowest.
    pub latency_ns_max: f64,
    /// Sends late by the generator's own fault.
    pub late_percent: f64,
    /// CPU time of the generator.
    pub client_cpu_ns_per_call: f64,
    /// The same for the router.
    pub middle_cpu_ns_per_call: f64,
    /// The same for the shim and the function processes.
    pub worker_cpu_ns_per_call: f64,
}

/// A generator at work.
pub struct Running {
    load: Load,
    generator: Child,
    report: PathBuf,
    log: PathBuf,
    spent_before: Spent,
}

/// Runs it.
pub fn run(router: &Router, load: Load) -> Result<Measured, NotMeasured> {
    start(router, load)?.finish(router)
}

/// Starts it. Generators that run beside each other have the router's time of both.
pub fn start(router: &Router, load: Load) -> Result<Running, NotMeasured> {
    let file = |kind: &str| router.dir().join(format!("load-{}-{}.{kind}", load.function, load.criticality));
    let (report, log) = (file("json"), file("log"));
    let rate = |rate: f64| format!("{}", rate.round().max(1.0));
    let pace = match load.pace {
        Pace::Window(window) => vec!["--window".to_string(), window.to_string()],
        Pace::Rate(per_second) => vec!["--rate".to_string(), rate(per_second)],
        Pace::Even(per_second) => {
            ["--rate", &rate(per_second), "--arrivals", "constant"].map(String::from).to_vec()
        }
        Pace::Bursts(per_second, size) => {
            ["--rate", &rate(per_second), "--arrivals", &format!("bursts:{size}")].map(String::from).to_vec()
        }
    };
    let spent_before = router.spent();
    let generator = Command::new(quickfire::binary()?)
        .args(["load", load.function, "--connect", &router.url(load.transport)])
        .args(pace)
        .args(["--payload", &load.payload_size.to_string(), "--connections", &load.connections.to_string()])
        .args(["--duration", &format!("{}ms", (load.seconds * 1000.0) as u64)])
        .args(["--criticality", load.criticality])
        .arg("--json")
        .arg(&report)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    Ok(Running { load, generator, report, log, spent_before })
}

impl Running {
    /// Waits for its end.
    pub fn finish(mut self, router: &Router) -> Result<Measured, NotMeasured> {
        let (is_ok, generator_cpu_ns) = process::wait_with_cpu(&mut self.generator)?;
        let (before, after) = (self.spent_before, router.spent());
        if !is_ok {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            return Err(explain(self.load.transport, &log));
        }
        let report: Value =
            serde_json::from_slice(&std::fs::read(&self.report)?).map_err(std::io::Error::from)?;
        let mut measured = read(&report, self.load.may_be_refused)?;
        let answered = report["answered"].as_f64().unwrap_or(0.0).max(1.0);
        measured.client_cpu_ns_per_call = generator_cpu_ns as f64 / answered;
        measured.middle_cpu_ns_per_call = (after.router_ns - before.router_ns) as f64 / answered;
        measured.worker_cpu_ns_per_call =
            after.workers_ns.saturating_sub(before.workers_ns) as f64 / answered;
        Ok(measured)
    }
}

/// A generator that does not know the way in is an older one, not a broken one.
fn explain(transport: Transport, log: &str) -> NotMeasured {
    let said = log.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
    if transport == Transport::Shm && log.contains("is not a router address") {
        return NotMeasured::Absent(
            "this quickfire has no shared-memory client (--connect shm:///RUN_DIR)".into(),
        );
    }
    NotMeasured::Failed(format!("quickfire load: {said}"))
}

fn read(report: &Value, may_be_refused: bool) -> Result<Measured, NotMeasured> {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (sent, ok) = (number(&report["sent"]), number(&report["ok"]));
    let has_too_many_errors = !may_be_refused && (sent - ok) * 1e3 > sent * ERRORS_PER_MILLE_MAX;
    if ok == 0.0 || has_too_many_errors {
        return Err(NotMeasured::Failed(format!(
            "{ok} of {sent} calls succeeded, the others ended as {}",
            report["errors"]
        )));
    }
    let late = number(&report["late_sends"]) - number(&report["late_sends_held"]);
    let latency = &report["latency_ns"];
    Ok(Measured {
        calls_per_s: number(&report["calls_per_s"]),
        calls: ok as u64,
        refused: (sent - ok) as u64,
        latency_ns_p50: number(&latency["p50"]),
        latency_ns_p99: number(&latency["p99"]),
        latency_ns_p999: number(&latency["p99_9"]),
        latency_ns_max: number(&latency["max"]),
        late_percent: 100.0 * late / sent,
        ..Measured::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_read_and_sends_held_by_the_router_are_not_late() {
        let report = json!({
            "calls_per_s": 10.5, "sent": 1000, "ok": 1000, "late_sends": 30, "late_sends_held": 20,
            "latency_ns": { "p50": 5, "p99": 9, "p99_9": 10, "max": 11 }, "errors": {}
        });
        let measured = read(&report, false).unwrap();
        assert_eq!((measured.calls, measured.latency_ns_p999), (1000, 10.0));
        assert_eq!((measured.calls_per_s, measured.late_percent), (10.5, 1.0));
    }

    #[test]
    fn a_run_with_calls_that_did_not_succeed_is_no_figure() {
        let report = json!({ "sent": 1000, "ok": 998, "errors": { "expired": 2 }, "latency_ns": {} });
        assert!(matches!(read(&report, false), Err(NotMeasured::Failed(why)) if why.contains("expired")));
        // Unless that is what is looked at.
        assert_eq!(read(&report, true).unwrap().refused, 2);
    }

    #[test]
    fn an_unknown_way_in_is_absent_and_everything_else_failed() {
        let log = "quickfire: `shm:///x` is not a router address: expected quickfire://HOST:PORT";
        assert!(matches!(explain(Transport::Shm, log), NotMeasured::Absent(_)));
        assert!(matches!(explain(Transport::Tcp, log), NotMeasured::Failed(_)));
        assert!(matches!(explain(Transport::Shm, "connection refused"), NotMeasured::Failed(_)));
    }
}
