//! What the kernel says about processes: their CPU time, their memory, who descends from whom.
//!
//! Always: read from `/proc`, so that nothing measured has to cooperate.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// Nanoseconds that all living threads of a process have spent on a core.
pub fn cpu_ns(pid: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    threads.flatten().map(|thread| thread_cpu_ns(&thread.path())).sum()
}

/// The first field of schedstat: nanoseconds on a core.
fn thread_cpu_ns(thread: &Path) -> u64 {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Bytes of memory a process has resident.
pub fn resident_size(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_resident_size(&status).unwrap_or(0)
}

/// Bytes of memory a process has, those that it shares in proportion to how many have them.
pub fn proportional_size(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    parse_size(&text, "Pss:").unwrap_or(0)
}

fn parse_resident_size(status: &str) -> Option<u64> {
    parse_size(status, "VmRSS:")
}

/// The size behind this title.
fn parse_size(text: &str, title: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(title))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// All processes below this one.
pub fn descendants(root: u32) -> Vec<u32> {
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

/// Waits for a child; answers whether it succeeded, and its CPU time up to 10 ms before its end.
pub fn wait_with_cpu(child: &mut Child) -> std::io::Result<(bool, u64)> {
    let mut spent_ns = 0;
    loop {
        spent_ns = spent_ns.max(cpu_ns(child.id()));
        if let Some(status) = child.try_wait()? {
            return Ok((status.success(), spent_ns));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How long a process may take to end when asked: longer than a router drains.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Asks a process to end, makes it end if it does not, and waits until it has.
pub fn end(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let asked_at = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && asked_at.elapsed() < END_TIMEOUT {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Lets this process, and those it starts, open as many files as the system allows.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The path of a program, if it is installed.
pub fn installed(program: &str) -> Option<std::path::PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|place| place.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_size_is_read_from_its_line_in_bytes() {
        assert_eq!(parse_resident_size("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(parse_resident_size("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_used_a_core_and_memory() {
        assert!(cpu_ns(std::process::id()) > 0);
        assert!(resident_size(std::process::id()) > 1 << 16);
        assert!(proportional_size(std::process::id()) > 1 << 16);
    }
}
