//! What a relay runs, and how. Built from the manifest by whoever starts the relay.

use std::path::PathBuf;
use std::time::Duration;

/// One function as its relay sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The function's name.
    pub function: String,
    /// Program and arguments; not empty.
    pub command: Vec<String>,
    /// What the program speaks.
    pub runtime: Runtime,
    /// How long it may take to become ready, where the runtime knows when it is.
    pub start_timeout: Duration,
}

/// The contracts a relay speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// A process for each call: the payload on stdin, the result on stdout.
    Exec,
    /// A line of JSON for each call and each answer.
    Stdio,
    /// An HTTP request for each call.
    Http(HttpPlan),
    /// The Runtime API of AWS Lambda.
    Lambda,
}

/// How an HTTP server is talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPlan {
    /// Where it listens.
    pub listen: HttpListen,
    /// The path of calls.
    pub path: String,
    /// The type of payloads, as the header Content-Type has it.
    pub content_type: String,
    /// The path that is answered 2xx once it is ready; none: it is ready once it listens.
    pub ready_path: Option<String>,
    /// How it is asked, beside calls, whether it still is; none: not at all. Needs a readiness path.
    pub health: Option<HealthPlan>,
}

/// How often a server is asked, and what is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// As many in a row that are not answered well, and it is replaced.
    pub failures_max: u32,
}

/// Where an HTTP server is told to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// On a port of 127.0.0.1, in the variable PORT.
    Port,
    /// On a Unix socket in this folder, in the variable SOCKET.
    Socket {
        /// Ours alone.
        folder: PathBuf,
    },
}
