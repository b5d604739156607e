//! What machine the figures were taken on, and where they are kept.

use std::path::PathBuf;
use std::process::Command;

/// The processor's model name, the kernel, and the number of cores, in one line.
pub fn description() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What stands behind the first dash is the builder's name for the same kernel.
    let kernel = release.trim().split('-').next().unwrap_or_default().to_string();
    format!("{model}, {} cores, Linux {kernel}", cores())
}

/// Cores this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The commit the figures belong to, or "unknown" outside a checkout.
pub fn commit() -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").args(["-C", folder, "describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_string(),
        _ => "unknown".into(),
    }
}

/// The date in UTC, as `date` formats it.
pub fn date(format: &str) -> String {
    let output = Command::new("date").args(["-u", format]).output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Where saved figures lie.
pub fn baselines() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baselines")
}

/// `bench/baselines/<date>-<cores>core/`.
pub fn baseline_dir() -> PathBuf {
    baselines().join(format!("{}-{}core", date("+%Y-%m-%d"), cores()))
}

/// Where this run's report goes when nobody says otherwise: `target/bench/`.
pub fn report_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program
        .parent()
        .and_then(|release| release.parent())
        .map_or_else(|| "bench-report".into(), |target| target.join("bench"))
}
