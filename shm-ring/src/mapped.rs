//! Memory shared between processes: a sealed memfd for a ring, or a file for counters.
//!
//! Owns: the mapping. The file descriptor is handed to the caller, who passes it on and closes it.
//! Always: a memfd accepted from elsewhere is sealed against shrinking, because touching a page behind the end of a
//! file kills the process with SIGBUS, and the one who could shrink it is the other side.

use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::area::{Area, memory_through_area};

/// The seals of a ring: its size is final, and so is this list.
pub const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A shared mapping of a whole file.
pub struct Mapped {
    area: Area,
}

/// Why memory could not be shared.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The kernel refused.
    #[error("{operation}: {errno}")]
    Refused {
        /// Which system call.
        operation: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// The other side could shrink this file under our feet.
    #[error("memory without the seals SHRINK, GROW and SEAL (has {seals:#x})")]
    NotSealed {
        /// The seals there are.
        seals: u32,
    },
    /// Nothing to map, or more than an address can reach.
    #[error("cannot map a file of {size} bytes")]
    BadSize {
        /// Its size.
        size: u64,
    },
}

impl Mapped {
    /// Creates sealed shared memory of zeros. The descriptor is for the other side.
    pub fn create(name: &str, size: usize) -> Result<(Self, OwnedFd), MapError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(name, flags).map_err(refused("memfd_create"))?;
        rustix::fs::ftruncate(&fd, size as u64).map_err(refused("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SEALS).map_err(refused("fcntl(F_ADD_SEALS)"))?;
        Ok((Self::map(fd.as_fd(), Access::ReadWrite)?, fd))
    }

    /// Maps memory received from the other side, after making sure that it cannot shrink.
    pub fn attach(fd: impl AsFd) -> Result<Self, MapError> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(refused("fcntl(F_GET_SEALS)"))?;
        if !seals.contains(SEALS) {
            return Err(MapError::NotSealed { seals: seals.bits() });
        }
        Self::map(fd, Access::ReadWrite)
    }

    /// Creates a file of zeros, readable by its owner only, and maps it. For counters in a directory of our own: who can
    /// open the file can shrink it. A file that is already there is unlinked, not emptied: who still has it mapped
    /// would die of touching it.
    pub fn create_file(path: &Path, size: usize) -> Result<Self, MapError> {
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(MapError::Refused { operation: "unlink", errno }),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(refused("open"))?;
        rustix::fs::ftruncate(&fd, size as u64).map_err(refused("ftruncate"))?;
        Self::map(fd, Access::ReadWrite)
    }

    /// Maps a file, or a ring through `/proc/<pid>/fd/<n>`, to look at. Storing into it is a bug and panics.
    pub fn open_file(path: &Path) -> Result<Self, MapError> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(refused("open"))?;
        Self::map(fd, Access::ReadOnly)
    }

    /// Maps a file that another process made, to read and to answer in. As for counters: in a directory of our own, since who
    /// can open the file can shrink it.
    pub fn open_file_to_answer(path: &Path) -> Result<Self, MapError> {
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
            .map_err(refused("open"))?;
        Self::map(fd, Access::ReadWrite)
    }

    /// Has the kernel provide the first `size` bytes now, so that the first requests do not pay for page faults.
    /// Best effort: kernels before 5.14 do not know how.
    pub fn populate(&self, size: usize) {
        let size = size.min(self.area.size());
        // SAFETY: advice that discards pages would lose data; this one only provides them, inside our own mapping.
        let _ = unsafe {
            rustix::mm::madvise(self.area.base().as_ptr().cast::<c_void>(), size, Advice::LinuxPopulateWrite)
        };
    }

    fn map(fd: impl AsFd, access: Access) -> Result<Self, MapError> {
        let size = rustix::fs::fstat(&fd).map_err(refused("fstat"))?.st_size as u64;
        let bad_size = MapError::BadSize { size };
        let Ok(size) = usize::try_from(size) else { return Err(bad_size) };
        if size == 0 || size > isize::MAX as usize {
            return Err(bad_size);
        }
        let protection = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a fixed address could replace memory in use: the kernel chooses the address here.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, fd, 0) }
            .map_err(refused("mmap"))?;
        let base = NonNull::new(base.cast::<u8>()).expect("mmap without MAP_FIXED never answers address 0");
        // SAFETY: the mapping has `size` bytes, starts on a page, lives until `drop`, and nobody else has its address.
        let area = unsafe { Area::new(base, size, access == Access::ReadWrite) };
        Ok(Self { area })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: a reference into the mapping would dangle: all of them borrow `self`, which is going away.
        let result =
            unsafe { rustix::mm::munmap(self.area.base().as_ptr().cast::<c_void>(), self.area.size()) };
        debug_assert!(result.is_ok(), "unmapping what we mapped");
    }
}

memory_through_area!(Mapped);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

fn refused(operation: &'static str) -> impl Fn(Errno) -> MapError {
    move |errno| MapError::Refused { operation, errno }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::Memory;

    #[test]
    fn two_mappings_of_one_memfd_share_their_bytes() {
        let (ours, fd) = Mapped::create("test", 8192).unwrap();
        let theirs = Mapped::attach(&fd).unwrap();
        ours.store_u64(4096, 7, Ordering::Release);
        assert_eq!(theirs.load_u64(4096, Ordering::Acquire), 7);
        ours.populate(usize::MAX);
    }

    #[test]
    fn memory_that_may_shrink_is_not_mapped() {
        let fd = rustix::fs::memfd_create("loose", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        rustix::fs::fcntl_add_seals(&fd, SealFlags::GROW).unwrap();
        assert!(matches!(Mapped::attach(&fd), Err(MapError::NotSealed { .. })));
    }

    #[test]
    fn sealed_memory_keeps_its_size() {
        let (_memory, fd) = Mapped::create("test", 4096).unwrap();
        assert_eq!(rustix::fs::ftruncate(&fd, 1).unwrap_err(), Errno::PERM);
        assert_eq!(rustix::fs::ftruncate(&fd, 8192).unwrap_err(), Errno::PERM);
    }

    #[test]
    fn empty_memory_is_refused() {
        assert!(matches!(Mapped::create("empty", 0), Err(MapError::BadSize { size: 0 })));
    }

    #[test]
    fn a_file_is_read_by_another_mapping_and_never_written_through_it() {
        let directory = std::env::temp_dir().join(format!("shm-ring-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("counters");
        let ours = Mapped::create_file(&path, 4096).unwrap();
        ours.store_u32(0, 5, Ordering::Relaxed);
        let theirs = Mapped::open_file(&path).unwrap();
        assert_eq!(theirs.load_u32(0, Ordering::Relaxed), 5);
        let store = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            theirs.store_u32(0, 6, Ordering::Relaxed)
        }));
        assert!(store.is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
