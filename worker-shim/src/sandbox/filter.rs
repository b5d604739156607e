//! Which system calls a process in a sandbox may make.
//!
//! ```text
//!   ALLOWED     as without a filter
//!   FORBIDDEN   the process is killed by SIGSYS: calls by which one gets out of a sandbox, and that no function needs
//!   all others  ENOSYS, so that libraries fall back to older ones: io_uring, clone3, and what a later kernel has
//! ```
//! Always: judged by number and plain arguments. What pointers lead to is not looked at: a filter could be told one thing and the
//! kernel another.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::failed::{Mechanism, SandboxFailed, missing};

/// The flags of `clone` that make namespaces.
const CLONE_NEW: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Unix, IPv4, IPv6, and netlink, by which libraries list the addresses of their network.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Expands to the numbers of system calls by their names.
macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

const ALLOWED: &[libc::c_long] = calls! {
    // Files
    SYS_chdir SYS_close SYS_close_range SYS_copy_file_range SYS_dup SYS_dup3 SYS_faccessat SYS_faccessat2 SYS_fadvise64
    SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync
    SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_getcwd SYS_getdents64
    SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_ioctl SYS_lgetxattr SYS_linkat
    SYS_listxattr SYS_llistxattr SYS_lseek SYS_mkdirat SYS_mknodat SYS_newfstatat SYS_openat SYS_openat2 SYS_pipe2
    SYS_pread64 SYS_preadv SYS_preadv2 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat
    SYS_readv SYS_renameat SYS_renameat2 SYS_sendfile SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync_file_range
    SYS_tee SYS_truncate SYS_umask SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_write SYS_writev
    // Memory
    SYS_brk SYS_madvise SYS_mbind SYS_membarrier SYS_memfd_create SYS_get_mempolicy SYS_mincore SYS_mlock SYS_mlock2
    SYS_mlockall SYS_mmap SYS_mprotect SYS_mremap SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_pkey_alloc
    SYS_pkey_free SYS_pkey_mprotect SYS_set_mempolicy
    SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_semctl SYS_semget SYS_semop SYS_semtimedop
    SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd
    // Threads and processes
    SYS_capget SYS_capset SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_futex SYS_futex_waitv SYS_get_robust_list
    SYS_getcpu SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority
    SYS_getresgid SYS_getresuid SYS_getrusage SYS_getsid SYS_gettid SYS_getuid SYS_ioprio_get SYS_ioprio_set SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_pidfd_open
    SYS_pidfd_send_signal SYS_prctl SYS_prlimit64 SYS_restart_syscall SYS_rseq SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler
    SYS_sched_yield SYS_seccomp SYS_set_robust_list SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid
    SYS_setgroups SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setsid
    SYS_setuid SYS_sysinfo SYS_tgkill SYS_times SYS_tkill SYS_uname SYS_wait4 SYS_waitid
    // Signals
    SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend
    SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sigaltstack SYS_signalfd4
    // Sockets and waiting; `socket` itself is below
    SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_eventfd2 SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen SYS_ppoll SYS_pselect6 SYS_recvfrom
    SYS_recvmmsg SYS_recvmsg SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_shutdown SYS_socketpair
    // Time and chance
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_getitimer SYS_getrandom SYS_gettimeofday SYS_nanosleep
    SYS_setitimer SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime
    SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime
};

/// Older names of the same, which only this architecture still has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait SYS_eventfd
    SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir
    SYS_mknod SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_setrlimit SYS_signalfd
    SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = &[];

const FORBIDDEN: &[libc::c_long] = calls! {
    // Other mounts, other namespaces
    SYS_chroot SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount SYS_mount_setattr SYS_move_mount
    SYS_open_by_handle_at SYS_open_tree SYS_pivot_root SYS_setns SYS_umount2 SYS_unshare
    // Other processes
    SYS_kcmp SYS_pidfd_getfd SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace
    // The kernel's keys, programs in the kernel, and the kernel itself
    SYS_add_key SYS_bpf SYS_delete_module SYS_finit_module SYS_init_module SYS_kexec_file_load SYS_kexec_load SYS_keyctl
    SYS_perf_event_open SYS_request_key SYS_syslog SYS_userfaultfd
    // The host's time, names, disks and accounts
    SYS_acct SYS_adjtimex SYS_clock_adjtime SYS_clock_settime SYS_quotactl SYS_reboot SYS_setdomainname SYS_sethostname
    SYS_settimeofday SYS_swapoff SYS_swapon
};

/// Both filters, as the kernel takes them.
pub struct Filter([BpfProgram; 2]);

impl Filter {
    /// Compiled for this machine.
    pub fn new() -> Result<Filter, SandboxFailed> {
        compile()
            .map(Filter)
            .map_err(|error| missing(Mechanism::Seccomp, "make a filter")(io::Error::other(error)))
    }

    /// From here on, for this process and all it starts.
    pub fn apply(&self) -> Result<(), SandboxFailed> {
        for program in &self.0 {
            apply_filter(program)
                .map_err(|error| missing(Mechanism::Seccomp, "set a filter")(io::Error::other(error)))?;
        }
        Ok(())
    }
}

/// The one that kills first: the other does not allow what it would take to set it later.
fn compile() -> Result<[BpfProgram; 2], BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let always = |calls: &[libc::c_long]| calls.iter().map(|call| (*call, Vec::new())).collect::<Vec<_>>();
    let forbidden: BTreeMap<i64, Vec<SeccompRule>> = always(FORBIDDEN).into_iter().collect();
    let kill = SeccompFilter::new(forbidden, SeccompAction::Allow, SeccompAction::KillProcess, arch)?;

    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        always(ALLOWED).into_iter().chain(always(ALLOWED_OLD)).collect();
    let makes_no_namespace =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(CLONE_NEW), 0)?;
    allowed.insert(libc::SYS_clone, vec![SeccompRule::new(vec![makes_no_namespace])?]);
    let is_of = |family: libc::c_int| {
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family as u64)?;
        SeccompRule::new(vec![condition])
    };
    allowed.insert(libc::SYS_socket, FAMILIES.into_iter().map(is_of).collect::<Result<_, _>>()?);
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let allow = SeccompFilter::new(allowed, unknown, SeccompAction::Allow, arch)?;
    Ok([kill.try_into()?, allow.try_into()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_no_call_is_both_allowed_and_forbidden() {
        let filter = Filter::new().unwrap();
        assert!(filter.0.iter().all(|program| program.len() < 4096), "BPF_MAXINSNS");
        let both = FORBIDDEN.iter().find(|call| ALLOWED.contains(call) || ALLOWED_OLD.contains(call));
        assert_eq!(both, None);
    }
}
