//! What the program of a function speaks, as the operator names it. The router does not care: whatever it is, a process attaches
//! to the function's ring. For all but `native` that is a relay, which the shim starts in the program's place.

use std::time::Duration;

/// The value of the option `runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The program attaches by itself.
    Native,
    /// A process for each call.
    Exec,
    /// A line of JSON for each call.
    Stdio,
    /// An HTTP request for each call.
    Http,
    /// The Runtime API of AWS Lambda.
    Lambda,
}

/// How an HTTP server is talked to, where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: HttpListen,
    /// The path of calls.
    pub path: String,
    /// The type of payloads.
    pub content_type: String,
    /// The path that says that it is ready.
    pub ready_path: Option<String>,
    /// How it is asked between calls whether it still is; none: not at all.
    pub health: Option<HealthConfig>,
}

/// How often a server is asked whether it is well, and what is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthConfig {
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// As many bad ones in a row, and it is replaced.
    pub failures_max: u32,
}

/// Where an HTTP server is told to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpListen {
    /// On a port of 127.0.0.1.
    Port,
    /// On a Unix socket.
    Socket,
}

impl Runtime {
    /// Every one.
    const ALL: [Runtime; 5] =
        [Runtime::Native, Runtime::Exec, Runtime::Stdio, Runtime::Http, Runtime::Lambda];
    /// What an operator may write.
    pub const NAMES: &'static [&'static str] = &["native", "exec", "stdio", "http", "lambda"];

    /// What an operator writes.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Native => "native",
            Runtime::Exec => "exec",
            Runtime::Stdio => "stdio",
            Runtime::Http => "http",
            Runtime::Lambda => "lambda",
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
            Runtime::Http => &["PORT", "SOCKET"],
            Runtime::Lambda => &["AWS_LAMBDA_RUNTIME_API"],
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
