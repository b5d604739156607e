//! What can be wrong with a configuration, said so that the reader can mend it without the manual:
//! where it stands, which key, what is wrong, what is allowed.

use std::fmt;

use crate::processors::{TopologyUnknown, list};

/// Every problem of one configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order in which they were found: file from top to bottom, then environment, then flags.
    pub problems: Vec<Problem>,
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the text stands.
    pub place: Place,
    /// The key in question, `router.shards` or `functions.echo.warm`; empty where no key could be read.
    pub key: String,
    /// What is wrong, and what would be right.
    pub kind: ProblemKind,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// In a file, lines and columns counted from 1.
    File {
        /// The file's path as given.
        origin: String,
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
    },
    /// In an environment variable.
    Environment(&'static str),
    /// On the command line.
    Flag(&'static str),
    /// Nowhere: the option table's default.
    #[default]
    Default,
}

/// What is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// The same key, or the same function, twice.
    #[error("is written twice")]
    Duplicate,
    /// No option has this name.
    #[error("no such key{}", .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The option whose name is nearest, if any is near.
        nearest: Option<String>,
    },
    /// A table where a value belongs, a number where a text belongs, and so on.
    #[error("is {found}, expected {expected}")]
    WrongType {
        /// What the option takes.
        expected: String,
        /// What was written.
        found: &'static str,
    },
    /// The text cannot be read as the option's type.
    #[error("`{found}` {reason}")]
    Unreadable {
        /// What was written.
        found: String,
        /// Completes the sentence.
        reason: String,
    },
    /// A shard or a process can't run where it is to.
    #[error("names processors that this process may not use: {}; it may use {}", list::format(.impossible), list::format(.allowed))]
    ProcessorsNotOurs {
        /// Those named and not in the affinity mask.
        impossible: Vec<u32>,
        /// The affinity mask.
        allowed: Vec<u32>,
    },
    /// Nothing can be chosen, because the machine does not tell what there is.
    #[error("cannot be chosen automatically: {0}")]
    MachineUnknown(#[from] TopologyUnknown),
    /// Readable, but outside the allowed range.
    #[error("{found} is not allowed; allowed: {allowed}")]
    NotAllowed {
        /// What was written.
        found: String,
        /// What may be written.
        allowed: String,
    },
    /// A key that has no default is absent.
    #[error("is missing; {needed}")]
    Missing {
        /// What to write.
        needed: &'static str,
    },
    /// A function belongs to somebody who is not there.
    #[error("there is no table [tenants.{tenant}]{}", .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoSuchTenant {
        /// The tenant as written.
        tenant: String,
        /// The tenant whose name is nearest, if any is near.
        nearest: Option<String>,
    },
    /// Nothing can be started under this name.
    #[error("cannot start `{program}`: {reason}")]
    NoSuchProgram {
        /// The program as written.
        program: String,
        /// What was found instead.
        reason: String,
    },
    /// Two values that are each allowed do not fit together.
    #[error("{0}")]
    Contradiction(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { origin, line, column } => write!(f, "{origin}:{line}:{column}"),
            Place::Environment(name) => write!(f, "environment variable {name}"),
            Place::Flag(name) => write!(f, "--{name}"),
            Place::Default => write!(f, "default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        write!(f, "{}", self.kind)
    }
}
