//! The tree of files of a sandbox: a new, empty one, into which single folders of the host are mounted.
//!
//! ```text
//!   /usr /lib ... /etc/hosts ...   of the host, read-only: what programs of this host need to run
//!   `read` `write`                 of the host, at their own paths; the folder of the program is among `read`
//!   DIR                            the run directory: nothing of it but the sockets at which workers attach
//!   /tmp                           memory, bounded
//!   /dev /proc                     null, zero, full, random, urandom; the sandbox's own processes
//! ```
//! In: what is to be seen.  Out: a process whose root is that tree; the host's is not mounted any more.
//! Always: what is not listed does not exist. A socket of another program cannot be connected to, because its path leads
//! nowhere; Landlock alone would allow it.
//! Why by descriptors: each folder of the host is opened while paths still mean the host's, and mounted when they mean the new
//! tree's, so that no symbolic link leads from one into the other.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use super::failed::{Mechanism, SandboxFailed, missing};
use super::kernel::set_mount_attributes;

/// The host's programs and libraries.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"];

/// Files of /etc that libraries read. Not all of /etc: a router that runs as root would lay its keys and password hashes open.
const SETTINGS: [&str; 22] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
];

const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Where the host's tree hangs while the new one is filled.
const HOST: &str = "/.host";

/// What may be done with a folder or file of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read and executed.
    Read,
    /// Written too.
    Write,
    /// Read and written as a device.
    Device,
}

/// Something of the host that is seen in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is in the sandbox.
    pub path: PathBuf,
    /// See there.
    pub access: Access,
}

impl Shown {
    fn at_its_place(path: &Path, access: Access) -> Shown {
        Shown { source: path.to_owned(), path: path.to_owned(), access }
    }
}

/// All of it, folders before what lies in them: the host's own as far as it exists, then what is asked for.
pub fn view(read: &[PathBuf], write: &[PathBuf]) -> Vec<Shown> {
    let host = SYSTEM.iter().chain(&SETTINGS).map(Path::new).filter(|path| path.exists());
    let devices = DEVICES.iter().map(Path::new).filter(|path| path.exists());
    let devices = devices.map(|path| Shown::at_its_place(path, Access::Device));
    let readable =
        host.chain(read.iter().map(PathBuf::as_path)).map(|path| Shown::at_its_place(path, Access::Read));
    let writable = write.iter().map(|path| Shown::at_its_place(path, Access::Write));
    let mut all: Vec<_> = readable.chain(writable).chain(devices).collect();
    all.sort_by(|a, b| (&a.path, b.access).cmp(&(&b.path, a.access)));
    let mut shown: Vec<Shown> = Vec::new();
    for next in all {
        // What lies in a folder that is shown is shown already, and with the same rights unless it may be written.
        let around = shown.iter().rev().find(|earlier| next.path.starts_with(&earlier.path));
        let is_known = around.is_some_and(|around| around.access >= next.access);
        if !is_known {
            shown.push(next);
        }
    }
    shown
}

/// What is mounted beside what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Furniture {
    /// Bytes that /tmp may hold.
    pub tmp_size_max: u64,
    /// The run directory, and the folder that is mounted in its place.
    pub run_dir: PathBuf,
    /// See above.
    pub attach_dir: PathBuf,
}

/// Gives this process, which has a mount and a process namespace of its own, the new tree for its root.
pub fn enter(shown: &[Shown], furniture: &Furniture) -> Result<(), SandboxFailed> {
    let propagation = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", propagation).map_err(failed("keep mounts to itself"))?;
    let mut mounts = Vec::new();
    for each in shown {
        mounts.push((each.path.as_path(), open(&each.source, each.access)?));
    }
    // After the folder around it, if the run directory is in one: nothing else of it is to be seen, also not where a link leads.
    let real = furniture.run_dir.canonicalize().ok().filter(|real| *real != furniture.run_dir);
    let is_seen = |real: &&PathBuf| shown.iter().any(|shown| real.starts_with(&shown.path));
    for run_dir in real.as_ref().filter(is_seen).into_iter().chain([&furniture.run_dir]) {
        let sockets = open(&furniture.attach_dir, Access::Read)?;
        let place = mounts.partition_point(|(path, _)| *path <= run_dir.as_path());
        mounts.insert(place, (run_dir, sockets));
    }

    // On /proc, because it is surely there; it is covered only until the next line.
    tmpfs(Path::new("/proc"), "mode=0755,size=1m,nr_inodes=4096", MountFlags::empty())?;
    fs::create_dir("/proc/.host").map_err(failed("make a folder"))?;
    rustix::process::pivot_root("/proc", "/proc/.host").map_err(failed("change its root"))?;
    std::env::set_current_dir("/").map_err(failed("change its root"))?;

    for folder in ["/tmp", "/proc", "/dev"] {
        fs::create_dir(folder).map_err(failed("make a folder"))?;
    }
    // Before what is mounted: a folder of the host may lie in /tmp.
    let tmp = format!("mode=1777,size={},nr_inodes=65536", furniture.tmp_size_max);
    tmpfs(Path::new("/tmp"), &tmp, MountFlags::NOSUID | MountFlags::NODEV)?;
    // Writable by nobody: files of /proc/sys are the host's, and those of a router that is root belong to its user.
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("proc", "/proc", "proc", closed, None).map_err(failed("mount a /proc of its own"))?;
    for (path, tree) in mounts {
        place_at(path, &tree).map_err(|source| SandboxFailed::Path { path: path.to_owned(), source })?;
    }
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("shm", "/tmp")]
    {
        std::os::unix::fs::symlink(target, Path::new("/dev").join(link)).map_err(failed("make a link"))?;
    }
    unmount(HOST, UnmountFlags::DETACH).map_err(failed("let go of the host's files"))?;
    fs::remove_dir(HOST).map_err(failed("let go of the host's files"))?;
    let root = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(failed("open its root"))?;
    set_mount_attributes(root.as_fd(), libc::MOUNT_ATTR_RDONLY, false).map_err(failed("close its root"))
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> SandboxFailed {
    missing(Mechanism::Files, doing)
}

fn tmpfs(at: &Path, options: &str, flags: MountFlags) -> Result<(), SandboxFailed> {
    let options = std::ffi::CString::new(options).map_err(missing(Mechanism::Files, "mount memory"))?;
    mount("tmpfs", at, "tmpfs", flags, options.as_c_str()).map_err(missing(Mechanism::Files, "mount memory"))
}

/// A mount of the host's folder or file that is not yet anywhere.
fn open(source: &Path, access: Access) -> Result<OwnedFd, SandboxFailed> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags).map_err(|errno| match errno {
        rustix::io::Errno::PERM | rustix::io::Errno::NOSYS => {
            missing(Mechanism::Files, format!("mount {}", source.display()))(errno)
        }
        _ => SandboxFailed::Path { path: source.to_owned(), source: errno.into() },
    })?;
    let attributes = match access {
        Access::Read => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        Access::Write => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        Access::Device => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
    };
    set_mount_attributes(tree.as_fd(), attributes, true)
        .map_err(missing(Mechanism::Files, format!("take rights from the mount of {}", source.display())))?;
    Ok(tree)
}

/// Mounts it, and makes what it is mounted on.
fn place_at(path: &Path, tree: &OwnedFd) -> io::Result<()> {
    let is_folder = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode).is_dir();
    if !path.exists() {
        match path.parent() {
            Some(parent) if !is_folder => {
                fs::create_dir_all(parent)?;
                fs::write(path, "")?;
            }
            _ => fs::create_dir_all(path)?,
        }
    }
    Ok(move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(shown: &[Shown], of: &str) -> Vec<(String, Access)> {
        let below = shown.iter().filter(|shown| shown.path.starts_with(of));
        below.map(|shown| (shown.path.display().to_string(), shown.access)).collect()
    }

    #[test]
    fn folders_come_before_what_lies_in_them_and_what_they_show_is_not_shown_again() {
        let read = ["/x/f/lib", "/x/f", "/usr/bin", "/x/f", "/x/w/r"].map(PathBuf::from);
        let write = ["/x/f/out", "/x/w"].map(PathBuf::from);
        let shown = view(&read, &write);
        let expected = [("/x/f", Access::Read), ("/x/f/out", Access::Write), ("/x/w", Access::Write)];
        assert_eq!(paths(&shown, "/x"), expected.map(|(path, access)| (path.to_owned(), access)));
        assert_eq!(paths(&shown, "/usr"), [("/usr".to_owned(), Access::Read)]);
    }

    #[test]
    fn a_folder_that_is_named_for_both_may_be_written() {
        let both = ["/x/y".into()];
        assert_eq!(paths(&view(&both, &both), "/x"), [("/x/y".to_owned(), Access::Write)]);
    }
}
