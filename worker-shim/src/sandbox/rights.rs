//! What a process in a sandbox may still do: its capabilities, its limits, and the kernel's rules on files.
//!
//! Always: taken for good, from this process and everything it starts.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::failed::{Mechanism, SandboxFailed, failed_to, missing};
use super::root::{Access, Shown};

/// The newest rules we know. An older kernel enforces those that it knows; what they add beside files (sockets without a path,
/// signals) is ruled out by namespaces too, unless the function asks for the host's network.
const LANDLOCK: ABI = ABI::V6;

/// No capability, now or by starting a program that has some.
pub fn drop_capabilities() -> Result<(), SandboxFailed> {
    let give_up = failed_to("give up capabilities");
    let drop = || -> io::Result<()> {
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // The first that this kernel does not know: there is none behind it. Or there are none to give up.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => break,
                result => result?,
            }
        }
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::clear_ambient_capability_set()?;
        rustix::thread::set_capabilities(None, sets)?;
        Ok(rustix::thread::set_no_new_privs(true)?)
    };
    drop().map_err(give_up)
}

/// No dump of memory into a file.
pub fn limit_dump() -> Result<(), SandboxFailed> {
    limit(Resource::Core, 0)
}

/// So many processes and threads. The kernel counts those of this user in this user namespace; it counts none of root's.
pub fn limit_processes(processes_max: u64) -> Result<(), SandboxFailed> {
    limit(Resource::Nproc, processes_max)
}

fn limit(resource: Resource, max: u64) -> Result<(), SandboxFailed> {
    let max = getrlimit(resource).maximum.map_or(max, |host| host.min(max));
    setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) }).map_err(failed_to("set limits"))
}

/// Files outside of what is shown, of /proc and /tmp cannot be opened; nor can sockets without a path or processes that are not
/// in the sandbox be reached.
pub fn rule_files(shown: &[Shown], run_dir: &Path, has_namespaces: bool) -> Result<(), SandboxFailed> {
    let failed = |error: RulesetError| missing(Mechanism::Landlock, "make rules")(io::Error::other(error));
    let of =
        |access: Access| shown.iter().filter(move |shown| shown.access == access).map(|shown| &shown.path);
    let (all, read) = (AccessFs::from_all(LANDLOCK), AccessFs::from_read(LANDLOCK));
    let device: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    // Without a tree of files of its own, /tmp is everybody's.
    let tmp = has_namespaces.then_some(Path::new("/tmp"));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(of(Access::Read), read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([Path::new("/proc"), run_dir], read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(of(Access::Write), all)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(tmp, all)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(of(Access::Device), device)))
        .and_then(|rules| rules.restrict_self())
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            Err(missing(Mechanism::Landlock, "make rules")(io::Error::from(io::ErrorKind::Unsupported)))
        }
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
