//! What a run is to do: everything that decides it, in one plain value that the report prints again.
//!
//! In: the command's flags.  Out: a [`Plan`] that [`Plan::validate`] has found possible.
//! Always: two runs of the same plan send the same calls at the same intended times.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use protocol::Criticality;

/// A whole run. Start from `Plan::default()` and change what matters.
///
/// ```
/// use loadgen::{Arrivals, Plan, Workload};
///
/// let plan = Plan {
///     function: "echo".into(),
///     workload: Workload::Open { rate: 100_000.0, arrivals: Arrivals::Poisson },
///     connections: 8,
///     ..Plan::default()
/// };
/// assert!(plan.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The router.
    pub target: Target,
    /// The function to call.
    pub function: String,
    /// Closed loop (as fast as answers come) or open loop (as fast as the schedule says).
    pub workload: Workload,
    /// Connections to spread the calls over.
    pub connections: u32,
    /// Each connection is a ring with a direct lane to a process of the function.
    pub direct: bool,
    /// How long calls are sent.
    pub duration: Duration,
    /// Bytes in each request.
    pub payload_size: u32,
    /// The budget each call carries; `None` leaves it to the function's own time-out.
    pub deadline: Option<Duration>,
    /// The criticality each call carries.
    pub criticality: Criticality,
    /// How an answer is known to belong to its request.
    pub check: Check,
    /// Decides the schedule and the payloads. See [`seed_from_entropy`](crate::seed_from_entropy).
    pub seed: u64,
    /// A send this much after its intended time counts as late.
    pub late_after: Duration,
    /// How long to wait for outstanding answers after the last send.
    pub drain_timeout: Duration,
    /// How long connecting may take, all in all per connection.
    pub connect_timeout: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            target: Target::Tcp { host: "127.0.0.1".into(), port: PORT_DEFAULT },
            function: "echo".into(),
            workload: Workload::Closed { window: 64 },
            connections: 1,
            direct: false,
            duration: Duration::from_secs(10),
            payload_size: 64,
            deadline: None,
            criticality: Criticality::Normal,
            check: Check::Auto,
            seed: 1,
            late_after: Duration::from_micros(100),
            drain_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Where the router listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `quickfire://HOST:PORT`.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:///PATH`.
    Unix(PathBuf),
    /// `shm:///RUN_DIR`: rings in shared memory, one for each connection.
    Shm(PathBuf),
}

/// What decides when the next call is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Workload {
    /// A fixed number of calls is outstanding over all connections; each answer lets the next call go.
    /// Measures throughput. Its latency is that of a queue the generator itself keeps full.
    Closed {
        /// Calls outstanding, split evenly over the connections.
        window: u32,
    },
    /// Calls are due at fixed times, whatever the router does. Measures latency.
    Open {
        /// Calls per second.
        rate: f64,
        /// How the calls are spread in time.
        arrivals: Arrivals,
    },
}

/// How the calls of an open loop are spread in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// At random, as from many independent callers.
    Poisson,
    /// Many at once, then none: the same rate on average.
    Bursts {
        /// Calls due at the same instant.
        size: u32,
    },
}

/// How an answer is known to belong to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// [`Check::Echo`] for the function `echo`, [`Check::CallId`] for every other.
    Auto,
    /// The answer's payload must equal the request's, which no other call of the run shares.
    Echo,
    /// The answer must name a call that is outstanding.
    CallId,
}

/// Why a plan cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanInvalid {
    /// No connection.
    #[error("at least one connection is needed")]
    NoConnections,
    /// A connection would never send.
    #[error(
        "a window of {window} leaves some of {connections} connections idle: use at least one call for each"
    )]
    WindowBelowConnections {
        /// Calls outstanding.
        window: u32,
        /// Connections.
        connections: u32,
    },
    /// Not a positive, finite rate.
    #[error("a rate of {0} calls per second cannot be scheduled")]
    RateImpossible(f64),
    /// A burst without calls.
    #[error("a burst needs at least one call")]
    BurstEmpty,
    /// Nothing would be sent.
    #[error("the duration must be above zero")]
    NoDuration,
    /// A lane beside a socket.
    #[error("direct lanes need shared memory: connect to shm:///RUN_DIR")]
    DirectWithoutRing,
    /// Not a router's address.
    #[error("`{0}` is not a router address: expected quickfire://HOST:PORT, unix:///PATH or shm:///RUN_DIR")]
    TargetUnreadable(String),
}

impl Plan {
    /// Whether the plan can be run at all.
    pub fn validate(&self) -> Result<(), PlanInvalid> {
        if self.connections == 0 {
            return Err(PlanInvalid::NoConnections);
        }
        if self.duration.is_zero() {
            return Err(PlanInvalid::NoDuration);
        }
        if self.direct && !matches!(self.target, Target::Shm(_)) {
            return Err(PlanInvalid::DirectWithoutRing);
        }
        match self.workload {
            Workload::Closed { window } if window < self.connections => {
                Err(PlanInvalid::WindowBelowConnections { window, connections: self.connections })
            }
            Workload::Open { rate, .. } if !rate.is_finite() || rate <= 0.0 => {
                Err(PlanInvalid::RateImpossible(rate))
            }
            Workload::Open { arrivals: Arrivals::Bursts { size: 0 }, .. } => Err(PlanInvalid::BurstEmpty),
            _ => Ok(()),
        }
    }

    /// Whether payloads are compared: [`Check::Auto`] resolved.
    pub(crate) fn compares_payloads(&self) -> bool {
        match self.check {
            Check::Echo => true,
            Check::CallId => false,
            Check::Auto => self.function == "echo",
        }
    }

    /// The share of a closed loop's window that one connection keeps outstanding.
    pub(crate) fn window_of(&self, window: u32, connection_index: u32) -> u32 {
        window / self.connections + u32::from(connection_index < window % self.connections)
    }
}

const PORT_DEFAULT: u16 = 7450;

impl FromStr for Target {
    type Err = PlanInvalid;

    fn from_str(text: &str) -> Result<Self, PlanInvalid> {
        let unreadable = || PlanInvalid::TargetUnreadable(text.into());
        if let Some(path) = text.strip_prefix("unix://") {
            return path.starts_with('/').then(|| Self::Unix(path.into())).ok_or_else(unreadable);
        }
        if let Some(path) = text.strip_prefix("shm://") {
            return path.starts_with('/').then(|| Self::Shm(path.into())).ok_or_else(unreadable);
        }
        let authority = text.strip_prefix("quickfire://").ok_or_else(unreadable)?.trim_end_matches('/');
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or_else(unreadable)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| unreadable())?,
            None if port.is_empty() => PORT_DEFAULT,
            None => return Err(unreadable()),
        };
        if host.is_empty() || host.contains('/') {
            return Err(unreadable());
        }
        Ok(Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "quickfire://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "quickfire://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Shm(path) => write!(f, "shm://{}", path.display()),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { window } => write!(f, "closed loop, window {window}"),
            Self::Open { rate, arrivals } => write!(f, "open loop, {rate} calls/s, {arrivals}"),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Poisson => f.write_str("poisson"),
            Self::Bursts { size } => write!(f, "bursts of {size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_split_without_losing_or_adding_a_call() {
        let plan = Plan { connections: 3, ..Plan::default() };
        let shares: Vec<_> = (0..3).map(|index| plan.window_of(64, index)).collect();
        assert_eq!(shares, [22, 21, 21]);
    }

    #[test]
    fn impossible_plans_are_refused_with_the_reason() {
        let check = |plan: Plan, expected| assert_eq!(plan.validate(), Err(expected));
        check(Plan { connections: 0, ..Plan::default() }, PlanInvalid::NoConnections);
        check(Plan { duration: Duration::ZERO, ..Plan::default() }, PlanInvalid::NoDuration);
        check(
            Plan { connections: 65, ..Plan::default() },
            PlanInvalid::WindowBelowConnections { window: 64, connections: 65 },
        );
        let open = |rate, arrivals| Plan { workload: Workload::Open { rate, arrivals }, ..Plan::default() };
        check(open(0.0, Arrivals::Constant), PlanInvalid::RateImpossible(0.0));
        check(open(f64::INFINITY, Arrivals::Poisson), PlanInvalid::RateImpossible(f64::INFINITY));
        check(open(1.0, Arrivals::Bursts { size: 0 }), PlanInvalid::BurstEmpty);
    }

    #[test]
    fn targets_are_read_and_written_back() {
        for text in
            ["quickfire://127.0.0.1:7450", "quickfire://[::1]:80", "unix:///run/q.sock", "shm:///run/q"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for wrong in [
            "http://a",
            "shm://a",
            "quickfire://",
            "quickfire://:1",
            "quickfire://a:x",
            "unix://a",
            "quickfire://a/b",
        ] {
            assert_eq!(wrong.parse::<Target>(), Err(PlanInvalid::TargetUnreadable(wrong.into())));
        }
    }

    #[test]
    fn payloads_are_compared_only_where_the_function_echoes_them() {
        assert!(Plan::default().compares_payloads());
        assert!(!Plan { function: "noop".into(), ..Plan::default() }.compares_payloads());
        assert!(Plan { function: "noop".into(), check: Check::Echo, ..Plan::default() }.compares_payloads());
    }
}
