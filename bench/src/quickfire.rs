//! Quickfire as its users run it: `quickfire up` and `quickfire load`, real processes, everything switched on.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// How long a router may take to answer its first call before the benchmark gives up.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What one run of `quickfire load` measured, with the CPU time of everybody who took part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Checked answers per second.
    pub calls_per_s: f64,
    /// Median latency.
    pub latency_ns_p50: u64,
    /// 99th percentile latency.
    pub latency_ns_p99: u64,
    /// CPU time of the generator per million calls, in milliseconds.
    pub client_cpu_ms_per_million: f64,
    /// The same for the router process.
    pub router_cpu_ms_per_million: f64,
    /// The same for the shim and the function processes.
    pub workers_cpu_ms_per_million: f64,
}

/// A running `quickfire up` with the bundled functions; stopped when dropped.
pub struct Router {
    child: Child,
    url: String,
    dir: TempDir,
}

impl Router {
    /// Starts a router on a free port and waits for its first answer.
    pub fn start(host: &str) -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("quickfire://127.0.0.1:{port}");
        let dir = tempfile::Builder::new().prefix("quickfire-bench-").tempdir()?;
        let child = Command::new(binary()?)
            .args(["up", "--listen", &url, "--host", host])
            .env("QUICKFIRE_DIR", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let router = Self { child, url, dir };
        let give_up_at = Instant::now() + START_TIMEOUT;
        while !router.answers()? {
            if Instant::now() > give_up_at {
                return Err(std::io::Error::other("quickfire up did not answer a call in time"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(router)
    }

    fn answers(&self) -> std::io::Result<bool> {
        let status = Command::new(binary()?)
            .args(["invoke", "echo", "--data", "ready?", "--deadline", "1s", "--connect", &self.url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    }

    /// Runs a closed loop over one connection and reports it.
    pub fn load(&self, function: &str, window: u32, seconds: f64) -> std::io::Result<Measured> {
        let json = self.dir.path().join("load.json");
        let before = self.cpu_ns();
        let mut generator = Command::new(binary()?)
            .args(["load", function, "--payload", "32", "--connections", "1", "--connect", &self.url])
            .args(["--window", &window.to_string()])
            .args(["--duration", &format!("{}ms", (seconds * 1000.0) as u64)])
            .arg("--json")
            .arg(&json)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let (status, generator_cpu_ns) = wait_with_cpu(&mut generator)?;
        let after = self.cpu_ns();
        if !status {
            return Err(std::io::Error::other("quickfire load failed"));
        }
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json)?)?;
        let number =
            |pointer: &str| report.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        let calls = number("/answered").max(1.0);
        Ok(Measured {
            calls_per_s: number("/calls_per_s"),
            latency_ns_p50: number("/latency_ns/p50") as u64,
            latency_ns_p99: number("/latency_ns/p99") as u64,
            client_cpu_ms_per_million: generator_cpu_ns as f64 / calls,
            router_cpu_ms_per_million: (after.0 - before.0) as f64 / calls,
            workers_cpu_ms_per_million: (after.1 - before.1) as f64 / calls,
        })
    }

    /// CPU time of the router process, and of all processes below it.
    fn cpu_ns(&self) -> (u64, u64) {
        let router = self.child.id();
        let below: Vec<u32> = descendants(router);
        (process_cpu_ns(router), below.into_iter().map(process_cpu_ns).sum())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The `quickfire` program beside this one; built first when it is not there.
fn binary() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("quickfire");
    if !path.exists() {
        eprintln!("building quickfire");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo).args(["build", "--release", "--bin", "quickfire"]).status()?;
        if !status.success() {
            return Err(std::io::Error::other("quickfire could not be built"));
        }
    }
    Ok(path)
}

/// Waits for a child, watching its CPU time until it ends.
fn wait_with_cpu(child: &mut Child) -> std::io::Result<(bool, u64)> {
    let mut cpu_ns = 0;
    loop {
        cpu_ns = cpu_ns.max(process_cpu_ns(child.id()));
        if let Some(status) = child.try_wait()? {
            return Ok((status.success(), cpu_ns));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn process_cpu_ns(pid: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    threads.flatten().map(|thread| thread_cpu_ns(&thread.path())).sum()
}

/// The first field of schedstat: nanoseconds on a core.
fn thread_cpu_ns(thread: &Path) -> u64 {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found.split_off(1)
}
