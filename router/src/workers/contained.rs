//! Whose sandbox a process is in, by the kernel's word: such a process attaches as its own function and as nothing else.
//!
//! In: the number of a process.  Out: the name of the function whose sandbox it is in, if it is in one.
//! Always: asked of what the process cannot write. Its process namespace says that it is in one; up its parents, the first
//! that is in ours is the sandbox's keeper, whose arguments the shim wrote (`quickfire sandbox --function=NAME ...`).
//! Why: a token says what a process was started as, and is no secret. A process that may read and run what the operator may could
//! learn the token of another function, or the shim's number; one in a sandbox could guess them. It could then be given
//! the other's calls.
//! Never: asked of callers: a function may call functions. What costs a few files of /proc is read once for each worker's life.
#![forbid(unsafe_code)]

use std::fs;

/// Sandboxes in sandboxes are not made; parents within one may be many. One of more is not believed.
const PARENTS_MAX: usize = 256;

/// What a process may attach as.
#[derive(Debug, PartialEq, Eq)]
pub enum Contained {
    /// Anything: it is in no sandbox of ours.
    No,
    /// A worker of this function.
    By(String),
    /// Nothing: it ended while it was asked for, or hides.
    Unknown,
}

impl Contained {
    /// Of this process.
    pub fn of(pid: u32) -> Contained {
        let mut pid = pid;
        for step in 0..PARENTS_MAX {
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
                return Contained::Unknown;
            };
            let Some((parent, depth)) = parse(&status) else { return Contained::Unknown };
            if depth > 1 {
                pid = parent;
                continue;
            }
            if step == 0 {
                return Contained::No;
            }
            let Ok(words) = fs::read(format!("/proc/{pid}/cmdline")) else { return Contained::Unknown };
            // Another way of making namespaces is the operator's own business.
            return keeper_of(&words).map_or(Contained::No, Contained::By);
        }
        Contained::Unknown
    }

    /// Whether it may be a worker of this function.
    pub fn may_serve(&self, function: &str) -> bool {
        match self {
            Contained::No => true,
            Contained::By(name) => name == function,
            Contained::Unknown => false,
        }
    }

    /// Whether it may be a shim.
    pub fn may_keep(&self) -> bool {
        *self == Contained::No
    }
}

/// The parent, and in how many namespaces, from the one in which the file is read, the process has a number.
fn parse(status: &str) -> Option<(u32, usize)> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let parent = field("PPid:")?.trim().parse().ok()?;
    // A kernel without namespaces has no such line.
    let depth = field("NSpid:").map_or(1, |numbers| numbers.split_ascii_whitespace().count());
    Some((parent, depth))
}

fn keeper_of(words: &[u8]) -> Option<String> {
    let mut words = words.split(|byte| *byte == 0);
    let is_sandbox = words.nth(1)? == b"sandbox";
    let name = words.next()?.strip_prefix(b"--function=")?;
    is_sandbox.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_no_sandbox_and_one_that_is_gone_may_be_nothing() {
        let own = Contained::of(std::process::id());
        assert!(own.may_keep() && own.may_serve("f"), "{own:?}");
        let gone = Contained::of(u32::MAX);
        assert!(!gone.may_keep() && !gone.may_serve("f"));
        let other = Contained::By("f".into());
        assert!(!other.may_keep() && other.may_serve("f") && !other.may_serve("g"));
    }

    #[test]
    fn status_and_arguments_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tpython3\nTgid:\t99\nPid:\t99\nPPid:\t97\nNStgid:\t99\t3\nNSpid:\t99\t3\n";
        assert_eq!(parse(status), Some((97, 2)));
        assert_eq!(parse("Name:\tx\nPPid:\t1\nNSpid:\t5\n"), Some((1, 1)));
        assert_eq!(parse("Name:\tx\nPPid:\t1\n"), Some((1, 1)));
        assert_eq!(parse("Name:\tx\n"), None);
        let keeper = b"/usr/bin/quickfire\0sandbox\0--function=resize\0--run-dir=/r\0";
        assert_eq!(keeper_of(keeper), Some("resize".to_owned()));
        assert_eq!(keeper_of(b"/usr/bin/bwrap\0--function=resize\0"), None);
        assert_eq!(keeper_of(b"bwrap"), None);
    }
}
