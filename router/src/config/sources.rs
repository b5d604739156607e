//! Where values come from, as closures, so that everything behind them is a function of its arguments.

use crate::processors::Machine;

/// The sources of a configuration, the later over the earlier: default, file, environment, flag.
pub struct Sources<'a> {
    /// A configuration file that was read already.
    pub file: Option<FileText<'a>>,
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The values of a flag of the option table, empty if it was not given.
    pub flags: &'a dyn Fn(&str) -> Vec<String>,
    /// What `auto` is chosen from; asked only where a value says `auto`.
    pub machine: &'a dyn Fn() -> Machine,
}

/// A configuration file.
#[derive(Debug, Clone, Copy)]
pub struct FileText<'a> {
    /// Its content.
    pub text: &'a str,
    /// Its path, or any name that says where the text came from.
    pub origin: &'a str,
}
