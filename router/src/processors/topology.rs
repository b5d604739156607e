//! Which of the processors we may use share a core, and which a node of memory: what `pin = "auto"` is chosen from.
//!
//! In: a directory like `/sys/devices/system` and the affinity mask.  Out: [`Topology`], or which file says no.
//! Always: holds the allowed processors and no other; nodes without any of them are left out. A kernel that knows no nodes
//! has one. Two processors whose files do not name each other as siblings do not share a core.
//! Why not the standard fields `core_id` and `physical_package_id`: core ids repeat in every package and, on some machines,
//! in every die; the list of siblings needs no such knowledge.  Tests: below, on directories made for them.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::list;

/// The allowed processors by node and core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The node with the most cores first; of equals the one with the lower number.
    nodes: Vec<Vec<Core>>,
}

/// The processors of one core, in order.
type Core = Vec<u32>;

/// Why nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyUnknown {
    /// The affinity mask.
    #[error("the kernel does not say which processors this process may use")]
    NoMask,
    /// A file could not be read.
    #[error("cannot read {}: {kind}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What came back.
        kind: io::ErrorKind,
    },
    /// A file says something else than a list of processors.
    #[error("{} says `{text}`, which is no list of processors", .path.display())]
    NoList {
        /// Which.
        path: PathBuf,
        /// Its text.
        text: String,
    },
}

impl Topology {
    /// Reads the topology of the allowed processors below `system`, which is `/sys/devices/system` but in tests.
    pub fn read(system: &Path, allowed: &[u32]) -> Result<Topology, TopologyUnknown> {
        let mut nodes = Vec::new();
        for members in nodes_below(&system.join("node"), allowed)? {
            let mut cores: Vec<Core> = Vec::new();
            for processor in members {
                let siblings = read_list(
                    &system.join("cpu").join(format!("cpu{processor}")).join("topology/thread_siblings_list"),
                )?;
                let its = cores.iter_mut().find(|core| core.iter().any(|other| siblings.contains(other)));
                match its {
                    Some(core) => core.push(processor),
                    None => cores.push(vec![processor]),
                }
            }
            if !cores.is_empty() {
                nodes.push(cores);
            }
        }
        // Stable: nodes with as many cores stay in the order of their numbers.
        nodes.sort_by_key(|cores| std::cmp::Reverse(cores.len()));
        Ok(Topology { nodes })
    }

    /// All processors, those first that a shard should get first: those not in `avoided`, then one of each core before a second
    /// of any, then the node with the most cores. `count` shards take the first `count`.
    pub fn spread(&self, avoided: &[u32]) -> Vec<u32> {
        let threads_max = self.nodes.iter().flatten().map(Vec::len).max().unwrap_or(0);
        let cores = || self.nodes.iter().flatten();
        let mut order: Vec<u32> = (0..threads_max)
            .flat_map(|thread| cores().filter_map(move |core| core.get(thread)))
            .copied()
            .collect();
        order.sort_by_key(|processor| avoided.contains(processor));
        order
    }
}

/// The allowed processors of each node, in the order of the nodes' numbers.
fn nodes_below(directory: &Path, allowed: &[u32]) -> Result<Vec<Vec<u32>>, TopologyUnknown> {
    let online = match read_list(&directory.join("online")) {
        Err(TopologyUnknown::Unreadable { kind: io::ErrorKind::NotFound, .. }) => {
            return Ok(vec![allowed.to_vec()]);
        }
        online => online?,
    };
    let mut nodes = Vec::new();
    for node in online {
        let members = read_list(&directory.join(format!("node{node}")).join("cpulist"))?;
        nodes.push(allowed.iter().copied().filter(|processor| members.contains(processor)).collect());
    }
    Ok(nodes)
}

/// A list in a file; an empty one for a node that is memory and nothing else.
fn read_list(path: &Path) -> Result<Vec<u32>, TopologyUnknown> {
    let text = fs::read_to_string(path)
        .map_err(|error| TopologyUnknown::Unreadable { path: path.to_owned(), kind: error.kind() })?;
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    list::parse(text).ok_or_else(|| TopologyUnknown::NoList { path: path.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory as the kernel shows one: siblings of each processor by number, processors of each node.
    fn system(siblings: &[&str], nodes: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        for (processor, siblings) in siblings.iter().enumerate() {
            write(format!("cpu/cpu{processor}/topology/thread_siblings_list"), siblings);
        }
        for (node, processors) in nodes.iter().enumerate() {
            write(format!("node/node{node}/cpulist"), processors);
        }
        if !nodes.is_empty() {
            write("node/online".into(), &format!("0-{}", nodes.len() - 1).replace("0-0", "0"));
        }
        dir
    }

    fn check(siblings: &[&str], nodes: &[&str], allowed: &[u32], avoided: &[u32], expected: &[u32]) {
        let dir = system(siblings, nodes);
        let topology = Topology::read(dir.path(), allowed).unwrap();
        assert_eq!(topology.spread(avoided), expected, "{topology:?}");
    }

    /// Eight processors on four cores: 0 and 4, 1 and 5, and so on.
    const FOUR_CORES: [&str; 8] = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"];
    /// The same numbered core by core: 0 and 1, 2 and 3, and so on.
    const NEIGHBOURS: [&str; 8] = ["0-1", "0-1", "2-3", "2-3", "4-5", "4-5", "6-7", "6-7"];

    #[test]
    fn every_core_gets_one_before_any_gets_a_second() {
        check(&FOUR_CORES, &["0-7"], &[0, 1, 2, 3, 4, 5, 6, 7], &[], &[0, 1, 2, 3, 4, 5, 6, 7]);
        check(&NEIGHBOURS, &["0-7"], &[0, 1, 2, 3, 4, 5, 6, 7], &[], &[0, 2, 4, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn a_node_is_filled_before_the_next_one_is_begun() {
        // Cores of the two nodes are numbered in turn, as some machines do.
        check(
            &["0", "1", "2", "3", "4", "5"],
            &["0,2,4", "1,3,5"],
            &[0, 1, 2, 3, 4, 5],
            &[],
            &[0, 2, 4, 1, 3, 5],
        );
    }

    #[test]
    fn the_node_with_the_most_cores_that_we_may_use_is_first() {
        check(&NEIGHBOURS, &["0-3", "4-7"], &[0, 1, 4, 5, 6, 7], &[], &[4, 6, 0, 5, 7, 1]);
    }

    #[test]
    fn a_processor_that_is_not_allowed_is_never_chosen() {
        check(&FOUR_CORES, &["0-7"], &[3, 4, 7], &[], &[3, 4, 7]);
    }

    #[test]
    fn processors_of_functions_come_last() {
        check(&NEIGHBOURS, &["0-7"], &[0, 1, 2, 3, 4, 5, 6, 7], &[0, 2], &[4, 6, 1, 3, 5, 7, 0, 2]);
    }

    #[test]
    fn a_kernel_without_nodes_has_one_and_a_node_without_processors_counts_for_nothing() {
        check(&["0", "1"], &[], &[0, 1], &[], &[0, 1]);
        check(&["0", "1"], &["", "0-1"], &[0, 1], &[], &[0, 1]);
    }

    #[test]
    fn a_file_that_is_missing_or_no_list_is_named() {
        let dir = system(&["0", "0 and 1"], &["0-1"]);
        let path = dir.path().join("cpu/cpu1/topology/thread_siblings_list");
        let error = Topology::read(dir.path(), &[0, 1]).unwrap_err();
        assert_eq!(error, TopologyUnknown::NoList { path, text: "0 and 1".into() });

        let path = dir.path().join("cpu/cpu2/topology/thread_siblings_list");
        fs::write(dir.path().join("node/node0/cpulist"), "0-2").unwrap();
        let error = Topology::read(dir.path(), &[0, 2]).unwrap_err();
        assert_eq!(error, TopologyUnknown::Unreadable { path, kind: io::ErrorKind::NotFound });
        assert!(error.to_string().contains("cpu2/topology"), "{error}");
    }
}
