//! What the program of a function speaks, as the operator names it. The router does not care: whatever it is, a process attaches
//! to the function's ring. For all but `native` that is a relay, which the shim starts in the program's place.

/// The value of the option `runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The program attaches by itself.
    Native,
    /// A process for each call.
    Exec,
    /// A line of JSON for each call.
    Stdio,
}

impl Runtime {
    /// Every one.
    const ALL: [Runtime; 3] = [Runtime::Native, Runtime::Exec, Runtime::Stdio];
    /// What an operator may write.
    pub const NAMES: &'static [&'static str] = &["native", "exec", "stdio"];

    /// What an operator writes.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Native => "native",
            Runtime::Exec => "exec",
            Runtime::Stdio => "stdio",
        }
    }

    /// The runtime of this name.
    pub fn from_name(name: &str) -> Option<Runtime> {
        Runtime::ALL.into_iter().find(|runtime| runtime.name() == name)
    }

    /// Variables that the runtime itself sets for the program, and that a function's `env` therefore cannot. Those that start
    /// with QUICKFIRE_ are reserved for all.
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Runtime::Native | Runtime::Stdio => &[],
            Runtime::Exec => &["TRACEPARENT"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_has_the_name_it_is_found_by() {
        let names: Vec<_> = Runtime::ALL.iter().map(|runtime| runtime.name()).collect();
        assert_eq!(names, Runtime::NAMES);
        for runtime in Runtime::ALL {
            assert_eq!(Runtime::from_name(runtime.name()), Some(runtime));
        }
        assert_eq!(Runtime::from_name("cgi"), None);
    }
}
