//! What a relay runs, and how. Built from the manifest by whoever starts the relay.

/// One function as its relay sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The function's name.
    pub function: String,
    /// Program and arguments; not empty.
    pub command: Vec<String>,
    /// What the program speaks.
    pub runtime: Runtime,
}

/// The contracts a relay speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// A process for each call: the payload on stdin, the result on stdout.
    Exec,
    /// A line of JSON for each call and each answer.
    Stdio,
}
