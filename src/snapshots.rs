//! What a router published in its run directory, read without asking it.

use std::path::{Path, PathBuf};

use router::counters::Snapshot;
use router::run_dir;

use crate::ending::{Ending, Failure};

/// The counters of every shard, and whether a router still writes them.
pub struct Snapshots {
    /// In the order of the shards.
    pub shards: Vec<Snapshot>,
    /// `pid N` of the router that holds the directory now.
    pub holder: Option<String>,
    /// What could not be read of the rest.
    pub damage: Vec<String>,
}

impl Snapshots {
    /// Reads every counters file of a run directory.
    pub fn read(run_dir: &Path) -> Result<Snapshots, Failure> {
        let mut shards = Vec::new();
        let mut damage = Vec::new();
        for path in counters_files(run_dir)? {
            match Snapshot::read(&path) {
                Ok(snapshot) => shards.push(snapshot),
                Err(error) => damage.push(format!("{}: {error}", path.display())),
            }
        }
        if shards.is_empty() {
            let mut told = vec![format!("no router has published counters in {}", run_dir.display())];
            told.append(&mut damage);
            return Err(Failure::new(Ending::Unreachable, told.join("\n")));
        }
        let mut shards = of_last_router(shards);
        shards.sort_by_key(|snapshot| snapshot.shard);
        let holder = run_dir::lock_holder(&run_dir.join("router.lock")).unwrap_or_default();
        Ok(Snapshots { shards, holder, damage })
    }

    /// What became of the router that wrote this: `running`, `stopped`, or `dead` without having stopped.
    pub fn router_state(&self) -> &'static str {
        match (&self.holder, self.shards.iter().all(|shard| shard.state == "stopped")) {
            (Some(_), false) => "running",
            (_, true) => "stopped",
            (None, false) => "dead",
        }
    }
}

/// The same clock as the stamps in the counters and rings.
pub fn now_ns() -> u64 {
    router::clock::now().0
}

/// A router with fewer shards leaves files of a former one with more: they are not about this one.
fn of_last_router(mut shards: Vec<Snapshot>) -> Vec<Snapshot> {
    let last = shards.iter().max_by_key(|shard| shard.started_at_unix_ns).map(|shard| shard.pid);
    shards.retain(|shard| Some(shard.pid) == last);
    shards
}

fn counters_files(run_dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(run_dir).map_err(|error| {
        Failure::new(Ending::Unreachable, format!("no router has run in {}: {error}", run_dir.display()))
    })?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| is_counters(path)).collect())
}

fn is_counters(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let shard = name.and_then(|name| name.strip_prefix("counters-"));
    shard.is_some_and(|shard| !shard.is_empty() && shard.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(shard: u32, pid: u32, started_at_unix_ns: u64) -> Snapshot {
        Snapshot {
            shard,
            pid,
            started_at_unix_ns,
            started_at_ns: 0,
            published_at_ns: 0,
            config_digest: 0,
            pinned_to: None,
            state: "running",
            is_torn: false,
            counters: Vec::new(),
            functions: Vec::new(),
            workers: Vec::new(),
            histograms: Vec::new(),
        }
    }

    #[test]
    fn files_of_a_former_router_with_more_shards_are_left_out() {
        let kept = of_last_router(vec![snapshot(1, 7, 100), snapshot(0, 8, 200), snapshot(2, 7, 101)]);
        assert_eq!(kept, [snapshot(0, 8, 200)]);
        assert_eq!(of_last_router(Vec::new()), []);
    }

    #[test]
    fn only_numbered_files_are_counters() {
        let check = |name: &str, expected| assert_eq!(is_counters(Path::new(name)), expected, "{name}");
        check("/run/counters-0", true);
        check("/run/counters-12", true);
        check("/run/counters-", false);
        check("/run/counters-0.old", false);
        check("/run/shim.json", false);
    }
}
