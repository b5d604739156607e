//! Why an edge to the kernel can't be had on this host, in one line that says how to allow it.
#![forbid(unsafe_code)]

use rustix::io::Errno;

/// The kernel, or somebody who filters its calls, refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupRefused {
    /// The sysctl forbids it.
    #[error(
        "io_uring is switched off on this host (EPERM, kernel.io_uring_disabled={setting}): \
         allow it with `sysctl kernel.io_uring_disabled=0`"
    )]
    SwitchedOff {
        /// The value found.
        setting: String,
    },
    /// A seccomp filter forbids it, as the default profiles of Docker and containerd do.
    #[error(
        "io_uring_setup is forbidden by a seccomp filter, as in Docker's default profile (EPERM): \
         allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile"
    )]
    Filtered,
    /// There is no such system call.
    #[error(
        "this kernel has no io_uring (ENOSYS): Linux 6.1 or newer is needed, or a seccomp filter hides the call and must allow it"
    )]
    Absent,
    /// It exists without the features used here.
    #[error("this kernel's io_uring is too old (EINVAL): Linux 6.1 or newer is needed")]
    TooOld,
    /// Locked memory is limited.
    #[error(
        "no memory for the io_uring queues (ENOMEM): raise the limit of locked memory (`ulimit -l`, or `--ulimit memlock=-1` for a container)"
    )]
    NoMemory,
    /// Not even the alternative can be had.
    #[error("epoll could not be set up: {0}")]
    Epoll(Errno),
    /// Anything else.
    #[error("io_uring could not be set up: {0}")]
    Other(Errno),
}

impl SetupRefused {
    /// Judges an error of `io_uring_setup` with the sysctl's text, if it could be read.
    pub fn judge(error: Errno, disabled: Option<&str>) -> Self {
        match error {
            Errno::PERM => match disabled.map(str::trim) {
                Some(setting @ ("1" | "2")) => SetupRefused::SwitchedOff { setting: setting.to_owned() },
                _ => SetupRefused::Filtered,
            },
            Errno::NOSYS => SetupRefused::Absent,
            Errno::INVAL => SetupRefused::TooOld,
            Errno::NOMEM => SetupRefused::NoMemory,
            other => SetupRefused::Other(other),
        }
    }

    /// Judges an error met on this host.
    pub(super) fn from_setup(error: &std::io::Error) -> Self {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        Self::judge(errno, disabled.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: Errno, disabled: Option<&str>, expected: SetupRefused) {
        let judged = SetupRefused::judge(error, disabled);
        assert_eq!(judged, expected);
        assert_eq!(judged.to_string().lines().count(), 1, "one line tells why");
    }

    #[test]
    fn each_refusal_says_who_refuses_and_how_to_allow_it() {
        check(Errno::PERM, Some("2\n"), SetupRefused::SwitchedOff { setting: "2".to_owned() });
        check(Errno::PERM, Some("0\n"), SetupRefused::Filtered);
        check(Errno::PERM, None, SetupRefused::Filtered);
        check(Errno::NOSYS, None, SetupRefused::Absent);
        check(Errno::INVAL, Some("0"), SetupRefused::TooOld);
        check(Errno::NOMEM, None, SetupRefused::NoMemory);
        check(Errno::MFILE, None, SetupRefused::Other(Errno::MFILE));
    }
}
