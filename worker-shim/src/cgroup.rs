//! Stage 6 of 8: control groups: what bounds the memory, the processor time and the number of the processes of one place.
//!
//! ```text
//!   the shim's own group, or the one above it
//!     └─ quickfire-<run directory>      this shim's
//!          ├─ echo.0.1                  one process of place echo.0: its keeper, the program, and whatever that starts
//!          └─ echo.0.2                  the next, which may come before all of the one before is gone
//! ```
//! In: limits.  Out: a [`Group`] to start a process in, and when that has ended what the kernel counted.
//! Always: a process is in its group before it runs its first instruction; when it has ended, whatever is left in the group is killed
//! and the group is removed. What a dead shim left is emptied and removed by the next one.
//! Always: both versions. On the new one a group that has processes cannot limit others, so that the group above our own is taken
//! where that is so and we may.
//! Never: a limit that is asked for and not there: where groups cannot be made, the reason is kept and told.

mod host;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use host::{Controller, Hierarchy, Version};

/// The length in which processor time is shared out; the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// How long a new shim waits for what a dead one left to be gone.
const LEFT_BEHIND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two tries to remove a group whose processes were killed.
const REMOVE_RETRY: Duration = Duration::from_millis(10);

/// What one place may use; none: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, of all its processes together.
    pub memory_max: Option<u64>,
    /// Percent of one processor.
    pub cpu_max: Option<u32>,
    /// Processes and threads. Wanted only as far as groups can be made: a sandbox bounds it by other means too.
    pub processes_max: Option<u64>,
}

impl Limits {
    /// Whether there is one that nothing but a group can keep.
    pub fn need_group(&self) -> bool {
        self.memory_max.is_some() || self.cpu_max.is_some()
    }

    fn wants(&self, controller: Controller) -> bool {
        match controller {
            Controller::Memory => self.memory_max.is_some(),
            Controller::Cpu => self.cpu_max.is_some(),
            // Always: no more than there are can come while all are killed.
            Controller::Pids => true,
        }
    }
}

/// Why groups cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host has no control groups for memory_max and cpu_max: {0}")]
pub struct CgroupsMissing(String);

/// Whether groups can be made here.
pub fn check() -> Result<(), CgroupsMissing> {
    let name = format!("quickfire-trial-{}", std::process::id());
    Cgroups::open_in(&here()?, &name).map(Cgroups::close)
}

/// The shim's groups.
pub struct Cgroups {
    /// Ours in each hierarchy.
    bases: Vec<Base>,
    /// Groups whose processes were killed and are not gone yet.
    ending: Vec<Group>,
    /// Groups made until now: no two have one name, so that what is killed in one is never of another.
    made_count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Base {
    version: Version,
    controllers: Vec<Controller>,
    dir: PathBuf,
}

/// The group of one place.
pub struct Group {
    /// Its folder in each hierarchy.
    parts: Vec<Base>,
    limits: Limits,
}

/// What the kernel counted in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Processes killed because memory_max was reached.
    pub memory_kills: u64,
    /// Processes and threads refused because of processes_max.
    pub processes_refused: u64,
}

impl Cgroups {
    /// Makes ours, and removes what a shim of this run directory left behind.
    pub fn open(run_dir: &Path) -> Result<Cgroups, CgroupsMissing> {
        Self::open_in(&here()?, &name_for(run_dir)?)
    }

    /// Whether a shim of this run directory left groups behind that are there still.
    pub fn are_left_behind(run_dir: &Path) -> bool {
        let (Ok(hierarchies), Ok(name)) = (here(), name_for(run_dir)) else { return false };
        let places = hierarchies.iter().flat_map(|it| [Some(it.own.as_path()), it.own.parent()]).flatten();
        places.map(|place| place.join(&name)).any(|dir| dir.exists())
    }

    fn open_in(hierarchies: &[Hierarchy], name: &str) -> Result<Cgroups, CgroupsMissing> {
        let mut bases = Vec::new();
        let mut refused = Vec::new();
        for hierarchy in hierarchies {
            match base(hierarchy, name) {
                Ok(base) => bases.push(base),
                Err(error) => refused.push(format!("{}: {error}", hierarchy.own.display())),
            }
        }
        let has = |controller: &Controller| bases.iter().any(|base| base.controllers.contains(controller));
        if let Some(absent) = Controller::ALL.iter().find(|controller| !has(controller)) {
            bases.iter().for_each(|base| drop(fs::remove_dir(&base.dir)));
            let reason =
                if refused.is_empty() { "no hierarchy has it".to_owned() } else { refused.join("; ") };
            return Err(CgroupsMissing(format!("the controller {} cannot be used: {reason}", absent.name())));
        }
        let mut cgroups = Cgroups { bases, ending: Vec::new(), made_count: 0 };
        cgroups.remove_left_behind();
        Ok(cgroups)
    }

    /// Makes a group with these limits, for a process of the place with this name.
    pub fn make(&mut self, place: &str, limits: &Limits) -> io::Result<Group> {
        self.made_count += 1;
        let name = format!("{place}.{}", self.made_count);
        let wanted = self.bases.iter().filter(|base| base.controllers.iter().any(|each| limits.wants(*each)));
        let mut group = Group { parts: Vec::new(), limits: *limits };
        for base in wanted {
            let part = Base { dir: base.dir.join(&name), ..base.clone() };
            let made = fs::create_dir(&part.dir).and_then(|()| {
                group.parts.push(part);
                group.limit_last()
            });
            if let Err(error) = made {
                self.ending.push(group);
                return Err(error);
            }
        }
        Ok(group)
    }

    /// Kills what is left in a group, and removes it now or a little later.
    pub fn end(&mut self, group: Group) {
        if !group.try_remove() {
            self.ending.push(group);
        }
    }

    /// Tries again.
    pub fn turn(&mut self) {
        self.ending.retain(|group| !group.try_remove());
    }

    /// After which time `turn` has something to do, if anything.
    pub fn next_turn(&self) -> Option<Duration> {
        (!self.ending.is_empty()).then_some(REMOVE_RETRY)
    }

    /// Removes ours: every place is gone.
    pub fn close(mut self) {
        self.remove_left_behind();
        for base in &self.bases {
            // A group that cannot be emptied stays, for the next shim.
            let _ = fs::remove_dir(&base.dir);
        }
    }

    fn remove_left_behind(&mut self) {
        let give_up_at = Instant::now() + LEFT_BEHIND_TIMEOUT;
        loop {
            let left: Vec<_> = self.bases.iter().flat_map(children).collect();
            let is_gone = left.iter().filter(|part| !remove(part)).count() == 0;
            if is_gone || Instant::now() > give_up_at {
                return;
            }
            std::thread::sleep(REMOVE_RETRY);
        }
    }
}

impl Group {
    /// Where a process enters: it writes `0` to each.
    pub fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        let open =
            |part: &Base| Ok(OpenOptions::new().write(true).open(part.dir.join("cgroup.procs"))?.into());
        self.parts.iter().map(open).collect()
    }

    /// What the kernel has counted until now.
    pub fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for Base { version, controllers, dir } in &self.parts {
            let read = |file: &str, word: &str| {
                let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
                text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok()).unwrap_or(0)
            };
            let events = if *version == Version::V1 { "memory.oom_control" } else { "memory.events" };
            if controllers.contains(&Controller::Memory) {
                counted.memory_kills += read(events, "oom_kill ");
            }
            if controllers.contains(&Controller::Pids) {
                counted.processes_refused += read("pids.events", "max ");
            }
        }
        counted
    }

    /// What of that ended or hindered the processes, for people; nothing if nothing did.
    pub fn remark(&self, counted: &Counted) -> Option<String> {
        let Counted { memory_kills, processes_refused } = *counted;
        let memory = (memory_kills > 0).then(|| {
            let max = self.limits.memory_max.unwrap_or_default();
            format!("out of memory: memory_max of {max} bytes was reached, and {memory_kills} processes were killed")
        });
        let processes = (processes_refused > 0).then(|| {
            let max = self.limits.processes_max.unwrap_or_default();
            format!("processes_max of {max} was reached {processes_refused} times")
        });
        let both: Vec<_> = memory.into_iter().chain(processes).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    fn limit_last(&self) -> io::Result<()> {
        let Some(Base { version, controllers, dir }) = self.parts.last() else { return Ok(()) };
        let Limits { memory_max, cpu_max, processes_max } = self.limits;
        let write = |file: &str, text: String| write_to(&dir.join(file), &text);
        let has = |controller| controllers.contains(&controller);
        if let Some(max) = memory_max.filter(|_| has(Controller::Memory)) {
            match version {
                Version::V1 => {
                    write("memory.limit_in_bytes", max.to_string())?;
                    // A kernel that does not count what is swapped out has no such file; nor need it have swap.
                    if_there(write("memory.memsw.limit_in_bytes", max.to_string()))?;
                }
                Version::V2 => {
                    write("memory.max", max.to_string())?;
                    if_there(write("memory.swap.max", "0".to_owned()))?;
                    // One of them killed alone would leave the others to wait for it.
                    if_there(write("memory.oom.group", "1".to_owned()))?;
                }
            }
        }
        if let Some(percent) = cpu_max.filter(|_| has(Controller::Cpu)) {
            let quota_us = u64::from(percent) * CPU_PERIOD_US / 100;
            match version {
                Version::V1 => {
                    write("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                    write("cpu.cfs_quota_us", quota_us.to_string())?;
                }
                Version::V2 => write("cpu.max", format!("{quota_us} {CPU_PERIOD_US}"))?,
            }
        }
        if let Some(max) = processes_max.filter(|_| has(Controller::Pids)) {
            write("pids.max", max.to_string())?;
        }
        Ok(())
    }

    fn try_remove(&self) -> bool {
        self.parts.iter().filter(|part| !remove(part)).count() == 0
    }
}

/// The name of the groups of a run directory. It is another one's as soon as that is another directory.
fn name_for(run_dir: &Path) -> Result<String, CgroupsMissing> {
    let identity = fs::metadata(run_dir).map_err(|error| cannot_read(run_dir, &error))?;
    Ok(format!("quickfire-{:x}-{:x}", identity.dev(), identity.ino()))
}

/// The hierarchies that this process is in.
fn here() -> Result<Vec<Hierarchy>, CgroupsMissing> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| cannot_read(Path::new(path), &error));
    Ok(host::hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
}

fn cannot_read(path: &Path, error: &io::Error) -> CgroupsMissing {
    CgroupsMissing(format!("cannot read {}: {error}", path.display()))
}

/// Ours in one hierarchy, with every controller that it has and we use.
fn base(hierarchy: &Hierarchy, name: &str) -> io::Result<Base> {
    let Hierarchy { version, own, top, .. } = hierarchy;
    match version {
        Version::V1 => {
            let base =
                Base { version: *version, controllers: hierarchy.controllers.clone(), dir: own.join(name) };
            create(&base.dir).map(|()| base)
        }
        Version::V2 => {
            let above = own.parent().filter(|above| above.starts_with(top));
            let places = [Some(own.as_path()), above].into_iter().flatten();
            let mut refused = io::Error::other("it has none of the controllers");
            for place in places {
                let named = fs::read_to_string(place.join("cgroup.controllers"))?;
                let is_named = |each: &Controller| named.split_whitespace().any(|name| name == each.name());
                let controllers: Vec<_> = Controller::ALL.into_iter().filter(is_named).collect();
                if controllers.is_empty() {
                    continue;
                }
                let base = Base { version: *version, controllers, dir: place.join(name) };
                match delegate(place, &base.controllers)
                    .and_then(|()| create(&base.dir))
                    .and_then(|()| delegate(&base.dir, &base.controllers))
                {
                    Ok(()) => return Ok(base),
                    Err(error) => refused = error,
                }
            }
            Err(refused)
        }
    }
}

/// Lets groups below this one limit by these.
fn delegate(place: &Path, controllers: &[Controller]) -> io::Result<()> {
    controllers.iter().try_for_each(|controller| {
        write_to(&place.join("cgroup.subtree_control"), &format!("+{}", controller.name()))
    })
}

fn create(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Kills what is in a group and removes it. True if it is gone.
fn remove(part: &Base) -> bool {
    match fs::remove_dir(&part.dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {}
        _ => return true,
    }
    // None may come while they are killed, nor stay because it was stopped.
    let _ = write_to(&part.dir.join("pids.max"), "0");
    if write_to(&part.dir.join("cgroup.kill"), "1").is_err() {
        let listed = fs::read_to_string(part.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            // Listed a moment ago as one of a group in which nobody but processes of its place ever is.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    fs::remove_dir(&part.dir).is_ok()
}

/// The groups below one of ours.
fn children(base: &Base) -> Vec<Base> {
    let entries = fs::read_dir(&base.dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| Base { dir: entry.path(), ..base.clone() }).collect()
}

/// In one write: the kernel takes each for a whole value.
fn write_to(path: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
