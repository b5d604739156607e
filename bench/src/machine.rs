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
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// The commit the figures belong to, or "unknown" outside a checkout.
pub fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    output.map_or_else(|_| "unknown".into(), |out| String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// `bench/baselines/<date>-<cores>core/`, created when missing.
pub fn baseline_dir() -> std::io::Result<PathBuf> {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = format!("{}-{cores}core", String::from_utf8_lossy(&date.stdout).trim());
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baselines").join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
