//! Where the groups of this process are, by what the kernel lists. Pure.
//!
//! Two versions may be mounted beside each other: of a controller that an old hierarchy has, the new one knows nothing.

use std::path::{Path, PathBuf};

/// What a group limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    pub const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Pids];

    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Pids => "pids",
        }
    }
}

/// The two kinds of hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A tree for each controller, or for some of them together.
    V1,
    /// One tree for all.
    V2,
}

/// One hierarchy that this process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub version: Version,
    /// Of an old one; which a new one has is written in its files.
    pub controllers: Vec<Controller>,
    /// The folder of this process's own group.
    pub own: PathBuf,
    /// The uppermost folder there is.
    pub top: PathBuf,
}

/// The hierarchies that are mounted and have a controller that we use; `mounts` and `groups` as in `/proc/self/mountinfo` and
/// `/proc/self/cgroup`.
pub fn hierarchies(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    groups.lines().filter_map(|line| hierarchy(mounts, line)).collect()
}

fn hierarchy(mounts: &str, line: &str) -> Option<Hierarchy> {
    // 4:memory:/path, and 0::/path of the new version.
    let mut fields = line.splitn(3, ':');
    let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = if number == "0" && names.is_empty() { Version::V2 } else { Version::V1 };
    let is_its = |name: &str| names.split(',').any(|own| own == name);
    let controllers: Vec<_> = Controller::ALL.into_iter().filter(|each| is_its(each.name())).collect();
    if version == Version::V1 && controllers.is_empty() {
        return None;
    }
    mounts.lines().find_map(|mount| {
        // 35 31 0:32 /root /mountpoint rw,... - cgroup cgroup rw,memory
        let (before, behind) = mount.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut behind = behind.split(' ');
        let (kind, options) = (behind.next()?, behind.nth(1)?);
        let is_mount_of_it = match version {
            Version::V2 => kind == "cgroup2",
            Version::V1 => {
                kind == "cgroup"
                    && controllers.iter().all(|each| options.split(',').any(|one| one == each.name()))
            }
        };
        // In a container only what lies below its own group may be mounted.
        let below = Path::new(path).strip_prefix(root).ok()?;
        let top = PathBuf::from(point);
        is_mount_of_it.then(|| Hierarchy {
            version,
            controllers: controllers.clone(),
            own: top.join(below),
            top,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_hierarchies_are_found_where_this_process_is_in_them() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /pod /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let groups = "7:devices:/\n4:memory:/pod/a\n2:cpu,cpuacct:/\n3:pids:/x\n0::/user.slice/s\nnonsense\n";
        let found = hierarchies(mounts, groups);
        let told: Vec<_> =
            found.iter().map(|it| (it.version, &*it.controllers, it.own.to_str().unwrap())).collect();
        let expected = [
            (Version::V1, &[Controller::Memory][..], "/sys/fs/cgroup/memory/a"),
            (Version::V1, &[Controller::Cpu][..], "/sys/fs/cgroup/cpu/"),
            (Version::V2, &[][..], "/sys/fs/cgroup/unified/user.slice/s"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_group_that_lies_outside_of_what_is_mounted_is_not_found() {
        let mounts = "35 31 0:32 /pod /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(hierarchies(mounts, "4:memory:/other\n"), []);
    }
}
