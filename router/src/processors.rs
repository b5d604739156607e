//! How many processors this process may use: those of its affinity mask, and no more than its cgroup's quota pays for.
//!
//! In: `sched_getaffinity`, `/proc/self/cgroup`, `/proc/self/mountinfo`, and the quota files of the cgroup and its
//! parents (v1 `cpu.cfs_quota_us` over `cpu.cfs_period_us`, v2 `cpu.max`).  Out: [`Processors`].
//! Always: a file that is absent or says something else means no quota: a count that is too high costs some waiting, a
//! router that does not start costs everything. The tightest quota on the way up counts, because the kernel applies all.
//! Never: asks what the host has. In a container that is somebody else's.
//! Reading order: this file, `topology.rs` (which of them share a core), `list.rs` (how lists of them are written).
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity};

pub mod list;
pub mod topology;

pub use topology::{Topology, TopologyUnknown};

/// What `auto` in a configuration is chosen from.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// How many processors.
    pub processors: Processors,
    /// Which, if that can be found out.
    pub topology: Result<Topology, TopologyUnknown>,
}

impl Machine {
    /// Asks the kernel about the calling thread.
    pub fn of_this_process() -> Machine {
        let topology = match allowed() {
            Some(allowed) => Topology::read(Path::new("/sys/devices/system"), &allowed),
            None => Err(TopologyUnknown::NoMask),
        };
        Machine { processors: Processors::of_this_process(), topology }
    }
}

/// What this process may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Processors {
    /// Processors in the affinity mask, at least 1.
    pub affinity_count: u32,
    /// Processors' worth of time in each period, if the cgroup has a quota.
    pub quota: Option<f64>,
}

impl Processors {
    /// Asks the kernel about the calling thread and its cgroup.
    pub fn of_this_process() -> Processors {
        let affinity_count = sched_getaffinity(None).map_or(1, |set| set.count().max(1));
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let quota = quota(&cgroup, &mountinfo, &|path| fs::read_to_string(path).ok());
        Processors { affinity_count, quota }
    }

    /// Threads that can run at once. A quota is rounded up, so that its last fraction is used and not left; never below 1.
    pub fn count(&self) -> u32 {
        // `as` saturates, and a quota above the mask is cut to it.
        let paid_for = self.quota.map_or(u32::MAX, |quota| quota.ceil() as u32);
        self.affinity_count.min(paid_for).max(1)
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (affinity {}, ", self.count(), self.affinity_count)?;
        match self.quota {
            // Two digits, without zeros at the end.
            Some(quota) => write!(f, "cgroup quota {})", (quota * 100.0).round() / 100.0),
            None => write!(f, "no cgroup quota)"),
        }
    }
}

/// The processors in the affinity mask of the calling thread, in order; `None` where the kernel does not say, as on
/// machines with more processors than its mask has room for here.
pub fn allowed() -> Option<Vec<u32>> {
    let set = sched_getaffinity(None).ok()?;
    // The mask has 1024 places.
    Some((0..CpuSet::MAX_CPU as u32).filter(|index| set.is_set(*index as usize)).collect())
}

/// The tightest quota over this process, given the two files that say where it is and a way to read the others.
fn quota(cgroup: &str, mountinfo: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<f64> {
    let places = [Version::V1, Version::V2].into_iter().filter_map(|version| {
        let path = cgroup.lines().find_map(|line| version.cgroup_path(line))?;
        let mount = mountinfo.lines().find_map(|line| version.mount(line))?;
        Some((version, mount, path))
    });
    let quotas = places.flat_map(|(version, mount, path)| {
        mount.directories(path).into_iter().filter_map(move |directory| version.quota(&directory, read))
    });
    quotas.min_by(f64::total_cmp)
}

/// The two forms of the cgroup file system; a machine may have both mounted, the controller `cpu` is in one of them.
#[derive(Debug, Clone, Copy)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// The path in a line of `/proc/self/cgroup`, `ID:CONTROLLERS:PATH`, if the line is about the processors.
    fn cgroup_path(self, line: &str) -> Option<&str> {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match self {
            Version::V1 => controllers.split(',').any(|name| name == "cpu"),
            Version::V2 => id == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    }

    /// The mount in a line of `/proc/self/mountinfo`, if it is the file system of the processors' cgroups:
    /// `ID PARENT DEVICE ROOT MOUNT_POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS`.
    fn mount(self, line: &str) -> Option<Mount> {
        let (place, file_system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        let is_it = match self {
            Version::V1 => kind == "cgroup" && options.split(',').any(|name| name == "cpu"),
            Version::V2 => kind == "cgroup2",
        };
        is_it.then(|| Mount { root: root.to_owned(), point: PathBuf::from(point) })
    }

    /// The quota that a cgroup's directory tells of itself.
    fn quota(self, directory: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<f64> {
        match self {
            Version::V1 => {
                let quota_us = read(&directory.join("cpu.cfs_quota_us"))?;
                ratio(&quota_us, &read(&directory.join("cpu.cfs_period_us"))?)
            }
            Version::V2 => {
                let text = read(&directory.join("cpu.max"))?;
                let (quota_us, period_us) = text.trim().split_once(' ')?;
                ratio(quota_us, period_us)
            }
        }
    }
}

/// Where a cgroup file system is seen.
struct Mount {
    /// The cgroup that lies at the mount point; `/` unless a container is shown its own only.
    root: String,
    point: PathBuf,
}

impl Mount {
    /// The directory of a cgroup and of those above it, as far as they are seen. A path outside of the root, as another
    /// cgroup namespace writes it, leaves the mount point.
    fn directories(&self, cgroup_path: &str) -> Vec<PathBuf> {
        let below = Path::new(cgroup_path).strip_prefix(&self.root).unwrap_or(Path::new(""));
        below.ancestors().map(|path| self.point.join(path)).collect()
    }
}

/// A quota over its period. `-1` (v1) and `max` (v2) stand for no quota; a period of 0 does not exist.
fn ratio(quota_us: &str, period_us: &str) -> Option<f64> {
    let quota_us: u32 = quota_us.trim().parse().ok()?;
    let period_us: u32 = period_us.trim().parse().ok()?;
    (quota_us > 0 && period_us > 0).then(|| f64::from(quota_us) / f64::from(period_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_CGROUP: &str = "4:memory:/pod/a\n1:cpu,cpuacct:/pod/a\n0::/\n";
    const V1_MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n";
    const V2_CGROUP: &str = "0::/system.slice/quickfire.service\n";
    const V2_MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn check(cgroup: &str, mountinfo: &str, files: &[(&str, &str)], expected: Option<f64>) {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(quota(cgroup, mountinfo, &read), expected, "{files:?}");
    }

    #[test]
    fn a_quota_of_version_1_is_its_time_over_its_period() {
        let quota = |text| [("/sys/fs/cgroup/cpu/pod/a/cpu.cfs_quota_us", text), PERIOD];
        const PERIOD: (&str, &str) = ("/sys/fs/cgroup/cpu/pod/a/cpu.cfs_period_us", "100000\n");
        check(V1_CGROUP, V1_MOUNTS, &quota("150000\n"), Some(1.5));
        check(V1_CGROUP, V1_MOUNTS, &quota("-1\n"), None);
        check(V1_CGROUP, V1_MOUNTS, &quota("150000\n")[..1], None);
    }

    #[test]
    fn a_quota_of_version_2_is_its_time_over_its_period() {
        let file = "/sys/fs/cgroup/system.slice/quickfire.service/cpu.max";
        check(V2_CGROUP, V2_MOUNTS, &[(file, "250000 100000\n")], Some(2.5));
        check(V2_CGROUP, V2_MOUNTS, &[(file, "max 100000\n")], None);
    }

    #[test]
    fn the_tightest_quota_on_the_way_up_counts() {
        let own = "/sys/fs/cgroup/system.slice/quickfire.service/cpu.max";
        let parent = "/sys/fs/cgroup/system.slice/cpu.max";
        check(V2_CGROUP, V2_MOUNTS, &[(own, "400000 100000"), (parent, "100000 100000")], Some(1.0));
        check(V2_CGROUP, V2_MOUNTS, &[(own, "max 100000"), (parent, "300000 100000")], Some(3.0));
    }

    #[test]
    fn a_container_that_sees_its_own_cgroup_only_finds_it_at_the_mount_point() {
        let mounts = "32 31 0:29 /docker/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let files = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
        ];
        check("1:cpu:/docker/c1\n", mounts, &files, Some(0.5));
        // The same, as a cgroup namespace writes a path outside of it.
        check("1:cpu:/../elsewhere\n", mounts, &files, Some(0.5));
    }

    #[test]
    fn what_is_absent_or_unreadable_means_no_quota() {
        let file = "/sys/fs/cgroup/system.slice/quickfire.service/cpu.max";
        check("", "", &[], None);
        check("no colons", "no dash", &[], None);
        check(V2_CGROUP, "", &[(file, "100000 100000")], None);
        for text in ["", "100000", "a b", "100000 0", "0 100000", "-5 100000", "99999999999 1"] {
            check(V2_CGROUP, V2_MOUNTS, &[(file, text)], None);
        }
    }

    #[test]
    fn a_quota_is_rounded_up_and_never_exceeds_the_affinity() {
        let check = |affinity_count, quota, count, text: &str| {
            let processors = Processors { affinity_count, quota };
            assert_eq!(processors.count(), count);
            assert_eq!(processors.to_string(), text);
        };
        check(2, None, 2, "2 (affinity 2, no cgroup quota)");
        check(2, Some(1.5), 2, "2 (affinity 2, cgroup quota 1.5)");
        check(8, Some(0.25), 1, "1 (affinity 8, cgroup quota 0.25)");
        check(8, Some(64.0), 8, "8 (affinity 8, cgroup quota 64)");
        check(8, Some(10.0 / 3.0), 4, "4 (affinity 8, cgroup quota 3.33)");
    }

    #[test]
    fn this_process_has_at_least_one_processor() {
        assert!(Processors::of_this_process().count() >= 1);
    }
}
