//! System calls that no library wraps, each as one safe function. The only unsafe code of the sandbox.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which of the two a process is after [`fork`].
pub enum Forked {
    /// The one that asked.
    Parent(Pid),
    /// The copy.
    Child,
}

/// Leaves namespaces. Refused to a process with a second thread, as by the kernel for a new user namespace.
pub fn leave_namespaces(flags: UnshareFlags) -> io::Result<()> {
    be_single_threaded()?;
    // SAFETY: the hazard are descriptors that some thread holds for open and that are closed with the table it shared
    // (CLONE_FILES). There is one thread, and CLONE_FILES copies the table and closes nothing.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Makes a copy of this process. Refused to one with a second thread.
pub fn fork() -> io::Result<Forked> {
    be_single_threaded()?;
    // SAFETY: the hazard of a fork is a lock that another thread held at that moment and that stays taken in the copy for ever.
    // There is no other thread, so that the copy may do whatever this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        raw => match Pid::from_raw(raw) {
            Some(pid) => Ok(Forked::Parent(pid)),
            None => unreachable!("the kernel numbers processes from 1"),
        },
    }
}

fn be_single_threaded() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        count => Err(io::Error::other(format!("this process has {count} threads"))),
    }
}

/// Gives a mount, and all below it if `is_recursive`, attributes such as `MOUNT_ATTR_RDONLY` in addition to those that it has.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, attributes: u64, is_recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let recursive = if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads the empty path and `size_of` bytes of `attr`; both live across the call, and it writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Switches the loopback interface of this network namespace on.
pub fn loopback_up() -> io::Result<()> {
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all bytes zero are a valid `ifreq`: it is numbers, and a union of numbers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` and writes none; this one lives across the call, and the socket is open.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
