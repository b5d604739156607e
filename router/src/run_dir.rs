//! The run directory: where sockets, locks, counters and logs of one router live, and who may be in it.
//!
//! In: the configured path.  Out: [`RunDir`], which holds `router.lock` as long as it lives.
//! Always: the directory is ours alone (mode 0700, our user), so that what lies in it was put there by us.
//! Never: deletes what another router left; sockets are replaced by those who bind them, counters stay readable.
//! Why a lock on a file and not a pid in it: the kernel lets go of the lock however the router dies.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{getpid, getuid};

/// The run directory of a router, claimed until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Holds the lock; nobody else reads it.
    _router_lock: File,
}

/// Why a directory cannot be the run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another user put it there, perhaps to read along.
    #[error(
        "{path} belongs to user {owner}, not to us (user {us}); choose another place with --run-dir or QUICKFIRE_DIR"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our user.
        us: u32,
    },
    /// Others may write into it or read from it.
    #[error("{path} is open to others (mode {mode:03o}); close it with: chmod 700 {path}")]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file, or a link that somebody else may turn elsewhere.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A lock is held.
    #[error("another router runs here ({holder}); its run directory is {path}")]
    RouterRuns {
        /// The directory.
        path: PathBuf,
        /// `pid N`, or that the holder did not say.
        holder: String,
    },
    /// The kernel said no.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// What came back.
        error: io::Error,
    },
}

impl RunDir {
    /// Makes the directory if it is absent, checks that it is ours alone and takes the router's lock.
    pub fn claim(path: &Path) -> Result<RunDir, RunDirError> {
        prepare(path)?;
        let lock = Lock::acquire(&path.join("router.lock"))?;
        match lock {
            Lock::Acquired(file) => Ok(RunDir { path: path.to_owned(), _router_lock: file }),
            Lock::HeldBy(holder) => Err(RunDirError::RouterRuns { path: path.to_owned(), holder }),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where function processes of a shard attach.
    pub fn attach_socket(&self, shard: u32) -> PathBuf {
        attach_socket(&self.path, shard)
    }

    /// Shows the attach socket of a shard, which is bound, in [`attach_dir`] too.
    pub fn show_attach_socket(&self, shard: u32) -> io::Result<PathBuf> {
        let (socket, folder) = (self.attach_socket(shard), attach_dir(&self.path));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let shown = folder.join(socket.file_name().unwrap_or_default());
        // Put in the place of a dead router's in one step: who looks for it finds one or the other.
        let new = shown.with_extension("new");
        let _ = fs::remove_file(&new);
        fs::hard_link(&socket, &new)?;
        fs::rename(&new, &shown)?;
        Ok(shown)
    }

    /// The counters of a shard.
    pub fn counters(&self, shard: u32) -> PathBuf {
        counters(&self.path, shard)
    }
}

/// Where function processes of a shard attach.
pub fn attach_socket(run_dir: &Path, shard: u32) -> PathBuf {
    run_dir.join(format!("attach-{shard}.sock"))
}

/// A folder with the attach sockets and nothing else, under the same names: what a sandbox sees in the place of the run directory.
pub fn attach_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("attach")
}

/// The counters of a shard.
pub fn counters(run_dir: &Path, shard: u32) -> PathBuf {
    run_dir.join(format!("counters-{shard}"))
}

/// What `quickfire record` reads of a shard.
pub fn tape(run_dir: &Path, shard: u32) -> PathBuf {
    run_dir.join(format!("tape-{shard}"))
}

/// Where a running router answers its operator's commands.
pub fn admin_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

/// What the shim reads when the router goes on with another configuration.
pub fn shim_config(run_dir: &Path) -> PathBuf {
    run_dir.join("shim.toml")
}

/// Where the shim keeps its lock.
pub fn shim_lock(run_dir: &Path) -> PathBuf {
    run_dir.join("shim.lock")
}

/// The run directory of a user who configured none: `$XDG_RUNTIME_DIR/quickfire`, else `/tmp/quickfire-UID`.
pub fn usual_place(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match env("XDG_RUNTIME_DIR").filter(|place| place.starts_with('/')) {
        Some(place) => Path::new(&place).join("quickfire"),
        None => PathBuf::from(format!("/tmp/quickfire-{}", getuid().as_raw())),
    }
}

/// Whether somebody holds the lock file at `path`, and who by its own words. `None` also where there is no such file.
pub fn lock_holder(path: &Path) -> Result<Option<String>, RunDirError> {
    if !path.exists() {
        return Ok(None);
    }
    let io = |doing| move |error: io::Error| RunDirError::Io { doing, path: path.to_owned(), error };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(io("open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Let go at once, by closing: we only asked.
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(Lock::holder(&mut file))),
        Err(errno) => Err(io("lock")(errno.into())),
    }
}

enum Lock {
    Acquired(File),
    HeldBy(String),
}

impl Lock {
    fn acquire(path: &Path) -> Result<Lock, RunDirError> {
        let io = |doing| move |error: io::Error| RunDirError::Io { doing, path: path.to_owned(), error };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .map_err(io("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Lock::HeldBy(Lock::holder(&mut file))),
            Err(errno) => return Err(io("lock")(errno.into())),
        }
        file.set_len(0).map_err(io("write"))?;
        file.seek(SeekFrom::Start(0)).map_err(io("write"))?;
        writeln!(file, "{}", getpid().as_raw_nonzero()).map_err(io("write"))?;
        Ok(Lock::Acquired(file))
    }

    /// What the holder wrote into its lock. It may be about to write it.
    fn holder(file: &mut File) -> String {
        let mut text = String::new();
        let read = file.take(32).read_to_string(&mut text);
        match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
            Some(pid) => format!("pid {pid}"),
            None => "pid unknown".into(),
        }
    }
}

fn prepare(path: &Path) -> Result<(), RunDirError> {
    let io = |doing| move |error: io::Error| RunDirError::Io { doing, path: path.to_owned(), error };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io("create the directory above"))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io("create")(error)),
    }
    // Without following a link: in /tmp anybody can put one there before us.
    let metadata = std::fs::symlink_metadata(path).map_err(io("look at"))?;
    let us = getuid().as_raw();
    if !metadata.is_dir() {
        return Err(RunDirError::NotADirectory { path: path.to_owned() });
    }
    if metadata.uid() != us {
        return Err(RunDirError::NotOurs { path: path.to_owned(), owner: metadata.uid(), us });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        // Nobody can have put anything into an empty directory of ours: it is closed instead of refused.
        if std::fs::read_dir(path).map_err(io("look into"))?.next().is_some() {
            return Err(RunDirError::OpenToOthers { path: path.to_owned(), mode });
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io("close to others"))?;
    }
    let logs = path.join("logs");
    match DirBuilder::new().mode(0o700).create(&logs) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(RunDirError::Io { doing: "create", path: logs, error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("run");
        (above, path)
    }

    #[test]
    fn a_fresh_directory_is_made_and_closed_to_others() {
        let (_above, path) = place();
        let run_dir = RunDir::claim(&path).unwrap();
        assert_eq!(run_dir.path(), path);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(path.join("logs").is_dir());
        assert_eq!(run_dir.attach_socket(3), path.join("attach-3.sock"));
    }

    #[test]
    fn a_second_router_is_told_who_runs_here() {
        let (_above, path) = place();
        let first = RunDir::claim(&path).unwrap();
        let error = RunDir::claim(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("another router runs here (pid {})", std::process::id())), "{error}");
        assert!(lock_holder(&path.join("router.lock")).unwrap().is_some());
        drop(first);
        assert_eq!(lock_holder(&path.join("router.lock")).unwrap(), None);
        RunDir::claim(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused_unless_it_is_empty() {
        let (_above, path) = place();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        std::fs::write(path.join("put-here-by-somebody"), "").unwrap();
        assert!(matches!(RunDir::claim(&path), Err(RunDirError::OpenToOthers { mode: 0o755, .. })));
        std::fs::remove_file(path.join("put-here-by-somebody")).unwrap();
        RunDir::claim(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let (above, path) = place();
        std::os::unix::fs::symlink(above.path(), &path).unwrap();
        assert!(matches!(RunDir::claim(&path), Err(RunDirError::NotADirectory { .. })));
    }

    #[test]
    fn the_usual_place_follows_the_session_directory() {
        let with = |value: Option<&str>| {
            let value = value.map(str::to_owned);
            usual_place(&move |_| value.clone())
        };
        assert_eq!(with(Some("/run/user/7")), Path::new("/run/user/7/quickfire"));
        assert_eq!(with(Some("relative")), Path::new(&format!("/tmp/quickfire-{}", getuid().as_raw())));
        assert_eq!(with(None), Path::new(&format!("/tmp/quickfire-{}", getuid().as_raw())));
    }
}
