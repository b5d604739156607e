//! The house rules about who may depend on whom, and what may happen inside a crate, held by reading
//! `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Each crate of ours and those of ours it may depend on. A missing line is an error, so that a new crate is
/// given its place on purpose.
const ARROWS: [(&str, &[&str]); 14] = [
    ("protocol", &[]),
    ("queue", &[]),
    ("shm-ring", &[]),
    ("engine", &["protocol", "queue"]),
    ("router", &["engine", "protocol", "queue", "shm-ring"]),
    ("worker-shim", &["protocol", "shm-ring"]),
    ("quickfire-client", &["protocol", "shm-ring"]),
    ("quickfire-c", &["protocol", "quickfire-client"]),
    ("relay", &["quickfire-client", "worker-shim"]),
    ("loadgen", &["protocol", "quickfire-client"]),
    ("example-functions", &["quickfire-client"]),
    (
        "quickfire",
        &[
            "engine",
            "example-functions",
            "loadgen",
            "protocol",
            "quickfire-client",
            "relay",
            "router",
            "shm-ring",
            "worker-shim",
        ],
    ),
    ("sim", &["engine", "protocol", "queue", "shm-ring", "worker-shim"]),
    ("bench", &["engine", "protocol", "queue", "quickfire-client", "router", "shm-ring"]),
];

/// Crates that decide or encode: same inputs, same outputs. They reach no clock and no I/O.
const PURE: [&str; 3] = ["protocol", "queue", "engine"];

/// Crates through which a pure one could reach the operating system.
const OUTSIDE_WORLD: [&str; 9] =
    ["glommio", "io-uring", "libc", "mio", "nix", "rand", "rustix", "signal-hook", "tokio"];

/// What a pure crate's sources never name.
const OUTSIDE_NAMES: [&str; 9] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
];

/// The only places where `unsafe` may stand. The test is one because an allocator cannot be counted without; the Python package
/// because Python knows no lifetimes.
const UNSAFE_PLACES: [&str; 8] = [
    "clients/c/src/",
    "clients/python/src/serve.rs",
    "queue/",
    "shm-ring/",
    "router/src/io/",
    "router/tests/allocation.rs",
    "worker-shim/src/process.rs",
    "worker-shim/src/sandbox/kernel.rs",
];

#[test]
fn cargo_run_without_a_name_runs_quickfire() {
    let metadata = metadata();
    let chosen: Vec<_> =
        metadata.workspace_packages().into_iter().filter_map(|it| it.default_run.clone()).collect();
    assert_eq!(chosen, ["quickfire"], "with a second default there is none");
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let arrows: BTreeMap<_, BTreeSet<_>> =
        ARROWS.iter().map(|(name, below)| (*name, below.iter().copied().collect())).collect();
    let ours: BTreeSet<_> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    for package in metadata.workspace_packages() {
        let allowed = arrows.get(package.name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{} has no line in ARROWS", package.name));
        let found =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        for dependency in found.filter(|dependency| ours.contains(&dependency.name)) {
            assert!(
                allowed.contains(dependency.name.as_str()),
                "{} -> {}: this arrow is not in ARROWS",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn pure_crates_reach_no_clock_and_no_io() {
    let metadata = metadata();
    for name in PURE {
        for reached in reachable(&metadata, name) {
            assert!(!OUTSIDE_WORLD.contains(&reached.as_str()), "{name} reaches {reached}");
        }
        for path in rust_files(&root().join(name).join("src")) {
            let code = product_code(&path);
            for banned in OUTSIDE_NAMES {
                assert!(!code.contains(banned), "{} names {banned}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_stays_in_its_places() {
    for path in rust_files(&root()) {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let is_evidence = relative.starts_with("target/") || relative.starts_with("fuzz/");
        if is_evidence || UNSAFE_PLACES.iter().any(|place| relative.starts_with(place)) {
            continue;
        }
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form) && !code.contains('"'));
            assert!(!is_unsafe, "{relative}:{}: unsafe outside its places", number + 1);
        }
    }
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .other_options(vec!["--offline".into()])
        .exec()
        .unwrap_or_else(|_| MetadataCommand::new().exec().expect("cargo metadata describes this workspace"))
}

/// Names of all packages that the normal dependencies of `name` lead to.
fn reachable(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| {
                    let is_loom =
                        kind.target.as_ref().is_some_and(|target| target.to_string().contains("loom"));
                    kind.kind == DependencyKind::Normal && !is_loom
                })
            });
            (&node.id, normal.map(|dependency| &dependency.pkg).collect())
        })
        .collect();
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let start = metadata.packages.iter().find(|package| package.name == name).expect("a workspace member");
    let mut waiting = vec![&start.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if seen.insert(id.clone()) {
            waiting.extend(edges.get(id).into_iter().flatten().copied());
        }
    }
    seen.iter().filter_map(|id| names.get(id)).map(|package| package.name.to_string()).collect()
}

/// A file's text without its unit tests and comments.
fn product_code(path: &Path) -> String {
    let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    let name = path.file_stem().unwrap().to_string_lossy();
    let parent = std::fs::read_to_string(path.with_file_name("lib.rs")).unwrap_or_default();
    if is_test || parent.contains(&format!("#[cfg(test)]\nmod {name};")) {
        return String::new();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
