//! Why a sandbox cannot be made, and who can do something about it.

use std::io;
use std::path::PathBuf;

/// What a sandbox is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Users, processes, network and names of its own.
    Namespaces,
    /// A tree of files of its own.
    Files,
    /// Rules by which the kernel judges each file that is opened.
    Landlock,
    /// A list of system calls.
    Seccomp,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Namespaces => "namespaces",
            Mechanism::Files => "a file tree of its own",
            Mechanism::Landlock => "Landlock",
            Mechanism::Seccomp => "seccomp",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Mechanism::Namespaces => {
                "it needs user namespaces, which user.max_user_namespaces = 0, kernel.apparmor_restrict_unprivileged_userns = 1 \
                 or the seccomp profile of a container forbid"
            }
            Mechanism::Files => "it needs Linux 5.12, and in a container a /proc of which nothing is masked",
            Mechanism::Landlock => "it needs Linux 5.13 with landlock among its security modules (lsm=)",
            Mechanism::Seccomp => "it needs a kernel with CONFIG_SECCOMP_FILTER",
        }
    }
}

/// See above.
#[derive(Debug, thiserror::Error)]
pub enum SandboxFailed {
    /// The host does not have it, or does not let us.
    #[error(
        "this host has no {} for a sandbox: cannot {doing}: {source}; {}",
        .mechanism.name(),
        .mechanism.remedy()
    )]
    Missing {
        /// What.
        mechanism: Mechanism,
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration names a path that is not there.
    #[error("cannot show {} to the function: {source}", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program cannot be started in it.
    #[error("cannot start {program} in its sandbox: {source}")]
    CannotStart {
        /// Which.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something failed that no host lacks.
    #[error("the sandbox cannot {doing}: {source}")]
    System {
        /// What it tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// For `map_err`: the mechanism is missing.
pub fn missing<E: Into<io::Error>>(
    mechanism: Mechanism,
    doing: impl Into<String>,
) -> impl FnOnce(E) -> SandboxFailed {
    let doing = doing.into();
    move |source| SandboxFailed::Missing { mechanism, doing, source: source.into() }
}

/// For `map_err`: something else.
pub fn failed_to<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> SandboxFailed {
    move |source| SandboxFailed::System { doing, source: source.into() }
}
