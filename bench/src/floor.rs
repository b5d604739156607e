//! The floor: what the machine allows when a router does nothing but forward.
//!
//! Three processes, the same hops and the same bytes as a Quickfire call with a 32-byte payload and a 32-byte
//! result: client -> forwarder -> worker -> forwarder -> client, 64 bytes each way. No validation, no
//! admission, no order, no deadlines, no counters. Client and forwarder talk over loopback TCP or over a
//! shared-memory ring; forwarder and worker always over a ring.
//!
//! In: a transport, a window (messages outstanding) and a duration.  Out: [`Measured`].
//! Why it exists: a ratio to the floor of the same run survives a noisy machine; a bare figure does not.

pub mod ring;
pub mod roles;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

/// How the client reaches the forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Loopback TCP.
    Tcp,
    /// A shared-memory ring pair.
    Shm,
}

/// What one run of the floor measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Answers per second seen by the client.
    pub calls_per_s: f64,
    /// Round-trip time in nanoseconds, median; only measured when one call is outstanding.
    pub latency_ns_p50: Option<u64>,
    /// The same, 99th percentile.
    pub latency_ns_p99: Option<u64>,
    /// CPU time of the client process per million calls, in milliseconds (1 ms per million = 1 ns per call).
    pub client_cpu_ms_per_million: f64,
    /// The same for the process in the middle.
    pub forwarder_cpu_ms_per_million: f64,
    /// The same for the worker.
    pub worker_cpu_ms_per_million: f64,
}

/// The line each role prints when it ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RoleReport {
    /// Answers received (client only).
    pub calls: u64,
    /// Wall-clock length of the measurement (client only).
    pub elapsed_ns: u64,
    /// CPU time of the whole process.
    pub cpu_ns: u64,
    /// Median round trip, with one call outstanding.
    pub latency_ns_p50: Option<u64>,
    /// 99th percentile round trip, with one call outstanding.
    pub latency_ns_p99: Option<u64>,
}

/// Runs the floor once.
pub fn run(transport: Transport, window: u32, seconds: f64) -> std::io::Result<Measured> {
    let dir = tempfile::Builder::new().prefix("floor-").tempdir()?;
    let rings = ring::Rings::create(dir.path())?;
    let worker = spawn("worker", transport, dir.path(), window, seconds)?;
    let forwarder = spawn("forwarder", transport, dir.path(), window, seconds)?;
    let client = spawn("client", transport, dir.path(), window, seconds)?;
    let client = finish(client)?;
    rings.stop();
    let forwarder = finish(forwarder)?;
    let worker = finish(worker)?;
    let per_million = |cpu_ns: u64| cpu_ns as f64 / client.calls.max(1) as f64;
    Ok(Measured {
        calls_per_s: client.calls as f64 * 1e9 / client.elapsed_ns.max(1) as f64,
        latency_ns_p50: client.latency_ns_p50,
        latency_ns_p99: client.latency_ns_p99,
        client_cpu_ms_per_million: per_million(client.cpu_ns),
        forwarder_cpu_ms_per_million: per_million(forwarder.cpu_ns),
        worker_cpu_ms_per_million: per_million(worker.cpu_ns),
    })
}

fn spawn(role: &str, transport: Transport, dir: &Path, window: u32, seconds: f64) -> std::io::Result<Child> {
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Shm => "shm",
    };
    Command::new(std::env::current_exe()?)
        .args(["floor-role", role, transport])
        .arg(dir)
        .args([window.to_string(), seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
}

fn finish(mut child: Child) -> std::io::Result<RoleReport> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    child.wait()?;
    serde_json::from_str(&line)
        .map_err(|error| std::io::Error::other(format!("a floor role said {line:?}: {error}")))
}
