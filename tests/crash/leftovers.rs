//! What a process holds, and what stands in a run directory: to see whether there is more of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Descriptors and shared mappings of a process, by kind.
pub fn held_by(pid: u32) -> BTreeMap<String, u64> {
    let mut held = BTreeMap::new();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    for link in links.filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
        *held.entry(format!("fd {}", kind(&link.to_string_lossy()))).or_default() += 1;
    }
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    for path in maps.lines().filter_map(|line| line.split_once('/')) {
        if path.1.starts_with("memfd:") {
            *held.entry(format!("mapping {}", kind(path.1))).or_default() += 1;
        }
    }
    held
}

/// Without the number that tells one from another of its kind.
fn kind(name: &str) -> String {
    let end = name.find(":[").filter(|_| !name.starts_with("anon_inode")).unwrap_or(name.len());
    name[..end].chars().filter(|character| !character.is_ascii_digit()).collect()
}

/// The names in a folder, without logs: those outlive everything, on purpose.
pub fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "logs")
        .collect()
}
