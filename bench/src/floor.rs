//! The floor: what the machine allows when a router does nothing but forward.
//!
//! Three processes (two for [`Transport::Direct`]), the same hops and the same bytes as a Quickfire call: client -> forwarder -> worker -> forwarder ->
//! client, with request and reply frames of the same size as Quickfire's (64 bytes for a payload of 32). No validation, no
//! admission, no order, no deadlines, no counters; the worker answers with the request. Client and forwarder talk
//! over loopback TCP, a Unix socket or shared-memory rings; forwarder and worker always over rings.
//!
//! As tight as a forwarder without features can be, or a ratio to it would flatter: whole runs of messages are moved by
//! one copy and shown by one store ([`ring`]), sockets have buffers for a whole window and are read and written 64 KiB
//! at a time ([`link`]), and who finds nothing to do yields at once where cores are scarce ([`roles`]).
//!
//! In: a [`Shape`].  Out: [`Measured`].
//! Why it exists: a ratio to the floor of the same run survives a noisy machine; a bare figure does not.

pub mod link;
pub mod ring;
pub mod roles;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

/// How the client reaches the forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// Loopback TCP.
    Tcp,
    /// A Unix stream socket.
    Unix,
    /// A shared-memory ring pair.
    Shm,
    /// The same, straight to the worker: there is no forwarder.
    Direct,
}

impl Transport {
    /// Its name in rows and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Shm => "shm",
            Self::Direct => "direct",
        }
    }
}

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How the client reaches the forwarder.
    pub transport: Transport,
    /// Messages outstanding. With one, round trips are timed.
    pub window: u32,
    /// Bytes of one message each way, header included.
    pub message_size: usize,
    /// How long.
    pub seconds: f64,
}

/// What one run measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Answers per second seen by the client.
    pub calls_per_s: f64,
    /// Answers in all.
    pub calls: u64,
    /// Round-trip time in nanoseconds, median; only measured when one call is outstanding.
    pub latency_ns_p50: Option<u64>,
    /// The same, 99th percentile.
    pub latency_ns_p99: Option<u64>,
    /// The same, slowest.
    pub latency_ns_max: Option<u64>,
    /// CPU time of the client process.
    pub client_cpu_ns_per_call: f64,
    /// The same for the process in the middle.
    pub middle_cpu_ns_per_call: f64,
    /// The same for the worker.
    pub worker_cpu_ns_per_call: f64,
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
    /// Slowest round trip, with one call outstanding.
    pub latency_ns_max: Option<u64>,
}

/// Runs the floor once.
pub fn run(shape: Shape) -> std::io::Result<Measured> {
    let dir = tempfile::Builder::new().prefix("floor-").tempdir()?;
    let rings = ring::Rings::create(dir.path(), shape.window as usize * shape.message_size)?;
    let mut worker = spawn("worker", shape, dir.path())?;
    let mut forwarder = match shape.transport {
        Transport::Direct => None,
        _ => Some(spawn("forwarder", shape, dir.path())?),
    };
    let client = spawn("client", shape, dir.path()).and_then(finish);
    rings.stop();
    if client.is_err() {
        // The forwarder may wait for a client that never comes.
        for child in forwarder.iter_mut().chain([&mut worker]) {
            child.kill()?;
        }
    }
    let (forwarder, worker) = (forwarder.map(finish).transpose(), finish(worker));
    let (client, forwarder, worker) = (client?, forwarder?.unwrap_or_default(), worker?);
    let per_call = |cpu_ns: u64| cpu_ns as f64 / client.calls.max(1) as f64;
    Ok(Measured {
        calls_per_s: client.calls as f64 * 1e9 / client.elapsed_ns.max(1) as f64,
        calls: client.calls,
        latency_ns_p50: client.latency_ns_p50,
        latency_ns_p99: client.latency_ns_p99,
        latency_ns_max: client.latency_ns_max,
        client_cpu_ns_per_call: per_call(client.cpu_ns),
        middle_cpu_ns_per_call: per_call(forwarder.cpu_ns),
        worker_cpu_ns_per_call: per_call(worker.cpu_ns),
    })
}

fn spawn(role: &str, shape: Shape, dir: &Path) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["floor-role", role, shape.transport.name()])
        .arg(dir)
        .args([shape.window.to_string(), shape.message_size.to_string(), shape.seconds.to_string()])
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
