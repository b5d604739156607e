//! What stands between a function's processes and the host, as the operator names it. The shim does it; the router only asks for it.

use std::path::PathBuf;

/// The value of the option `containment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    /// Nothing.
    None,
    /// A sandbox of the kernel's means.
    Process,
}

/// A sandbox, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainmentConfig {
    /// Whether processes run without what the host lacks.
    pub is_best_effort: bool,
    /// Whether they have the host's network.
    pub has_host_network: bool,
    /// What may be read beside what every program needs and the folder of this one. Absolute.
    pub read: Vec<PathBuf>,
    /// What may be written too. Absolute.
    pub write: Vec<PathBuf>,
    /// Bytes in /tmp.
    pub tmp_size_max: u64,
    /// Processes and threads.
    pub processes_max: u32,
}

/// What one instance may use, with or without a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Bytes; none: no bound.
    pub memory_max: Option<u64>,
    /// Percent of one processor; none: no bound.
    pub cpu_max: Option<u32>,
    /// Whether it runs without what the host cannot bound.
    pub is_best_effort: bool,
}

impl Containment {
    /// What an operator may write.
    pub const NAMES: &'static [&'static str] = &["none", "process"];

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Containment> {
        let levels = [Containment::None, Containment::Process];
        Containment::NAMES.iter().zip(levels).find(|(known, _)| **known == name).map(|(_, level)| level)
    }
}
