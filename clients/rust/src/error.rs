//! Every way a connection or a call can go wrong, each saying who is at fault and whether trying again is safe.
//!
//! In: statuses from the router, failures of the connection, the caller's own deadline.  Out: [`ConnectError`],
//! [`CallError`].  The verdicts on statuses are not made here: they are the protocol's table
//! (`protocol::Status`, docs/spec/wire.md). Only what never was a status is judged here.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Class, ClientMisbehaved, DownstreamName, Fault, NameInvalid, Retry, Status};

use crate::url::{RouterUrl, UrlError};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be read.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Nothing answers there.
    #[error("no router at {url}: {source}")]
    Unreachable {
        /// Where it was tried.
        url: RouterUrl,
        /// What the system says.
        source: io::Error,
    },
    /// A router answered and does not want this connection.
    #[error("the router at {url} refused the connection: {status}{}", reason_suffix(.reason))]
    Refused {
        /// Where it was tried.
        url: RouterUrl,
        /// Its status, as in the table of docs/spec/wire.md.
        status: Status,
        /// Its words, perhaps empty.
        reason: String,
    },
    /// Whatever answered does not speak this protocol.
    #[error("{url} does not answer like a router: {source}")]
    RouterMisbehaved {
        /// Where it was tried.
        url: RouterUrl,
        /// What it sent.
        source: RouterMisbehaved,
    },
    /// The system gave no thread or descriptor for the connection.
    #[error("cannot run the connection: {0}")]
    NoResources(#[source] io::Error),
}

/// Why a function has no handle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The router has no function of this name.
    #[error("the router has no function `{name}`")]
    UnknownFunction {
        /// The name asked for.
        name: String,
    },
    /// The name cannot be a function's.
    #[error(transparent)]
    NameInvalid(#[from] NameInvalid),
    /// The question itself did not get through.
    #[error("cannot ask for function `{name}`: {source}")]
    Failed {
        /// The name asked for.
        name: String,
        /// What happened to the question.
        source: CallError,
    },
}

/// Every end of a call that is not its result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Not admitted; the function has not run.
    #[error("refused: {status}")]
    Refused {
        /// Why.
        status: Status,
        /// When the router thinks that trying again may succeed.
        retry_after: Option<Duration>,
    },
    /// The function ran and answered with an error of its own; these are its bytes.
    #[error("the function answered with an error ({} bytes)", .0.len())]
    FunctionError(Bytes),
    /// The function ran and found something overloaded that it calls.
    #[error("the function was pushed back by {downstream}")]
    Backpressure {
        /// What is overloaded, by the name that the function gives it.
        downstream: DownstreamName,
        /// When the router thinks that trying again may succeed.
        retry_after: Option<Duration>,
    },
    /// The deadline or the function's time-out came first.
    #[error("expired: {0}")]
    Expired(Expiry),
    /// Cancelled, by [`Call::cancel`](crate::Call::cancel) or by the router.
    #[error("cancelled {}", if *.started { "after it had started" } else { "before it started" })]
    Cancelled {
        /// Whether the function had begun.
        started: bool,
    },
    /// The worker failed this call: it died, misbehaved, or made a result that is too large.
    #[error("the worker failed the call: {status}")]
    WorkerLost {
        /// Which of these.
        status: Status,
        /// Whether the function had begun.
        started: bool,
    },
    /// The router is newer than this client and answered with a status that only its class is known of.
    #[error("ended with status {number}, unknown to this client, of class {}", .class.name())]
    UnknownStatus {
        /// The status.
        number: u16,
        /// What kind of end it is.
        class: Class,
        /// Whether the function had begun.
        started: bool,
    },
    /// The connection ended, or none could be made, before the answer came.
    #[error("disconnected ({cause}); the function {}", if *.maybe_started { "may have run" } else { "has not run" })]
    Disconnected {
        /// `false` when the request provably never left this process in full.
        maybe_started: bool,
        /// What ended the connection.
        cause: Disconnect,
    },
    /// Only from `try_start`: there is no credit, or no connection, just now.
    #[error("no credit is free just now")]
    WouldBlock,
}

impl CallError {
    /// Who has to change something for the call to succeed.
    pub fn fault(&self) -> Fault {
        match self.status() {
            Some(status) => status.fault(),
            None => match self {
                Self::Disconnected { .. } => Fault::Router,
                _ => Fault::Nobody,
            },
        }
    }

    /// Whether the same call may be made again.
    pub fn retry(&self) -> Retry {
        match (self, self.status()) {
            (Self::Cancelled { started } | Self::WorkerLost { started, .. }, Some(status)) => {
                status.retry_of_reply(*started)
            }
            (_, Some(status)) => status.retry(),
            (Self::Disconnected { maybe_started: true, .. } | Self::Expired(_), None)
            | (Self::UnknownStatus { started: true, .. }, None) => Retry::IfIdempotent,
            _ => Retry::Safe,
        }
    }

    /// The status the router answered with; `None` for what happened on this side of the wire.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Refused { status, .. } | Self::WorkerLost { status, .. } => Some(*status),
            Self::FunctionError(_) => Some(Status::FunctionError),
            Self::Backpressure { .. } => Some(Status::Backpressure),
            Self::Expired(Expiry::NeverStarted) => Some(Status::Expired),
            Self::Expired(Expiry::Stopped) => Some(Status::TimedOut),
            Self::Cancelled { .. } => Some(Status::Cancelled),
            Self::UnknownStatus { .. }
            | Self::Expired(Expiry::NoAnswer)
            | Self::Disconnected { .. }
            | Self::WouldBlock => None,
        }
    }
}

/// How far a call that expired had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The function never began.
    NeverStarted,
    /// The function had begun and was stopped.
    Stopped,
    /// The router did not answer by the deadline: the function may or may not have run.
    NoAnswer,
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverStarted => "the function never started",
            Self::Stopped => "the function was stopped",
            Self::NoAnswer => "the router did not answer in time",
        })
    }
}

/// What ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disconnect {
    /// The router closed it.
    Closed,
    /// The router said why before it closed.
    GoAway(Status),
    /// The system reported an error.
    Io(io::ErrorKind),
    /// The router sent what no router may send.
    RouterMisbehaved(RouterMisbehaved),
    /// No connection could be made in time.
    Unreachable,
    /// The [`Client`](crate::Client) was dropped.
    ClientDropped,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the router closed the connection"),
            Self::GoAway(status) => write!(f, "the router closed the connection: {status}"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::RouterMisbehaved(what) => write!(f, "{what}"),
            Self::Unreachable => f.write_str("no router could be reached"),
            Self::ClientDropped => f.write_str("the client was dropped"),
        }
    }
}

impl std::error::Error for Disconnect {}

/// The router's bytes break the protocol. The connection is closed; the caller is not at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouterMisbehaved {
    /// The frame or HELLO does not decode. The codec words its findings for both sides alike.
    #[error("the router's bytes are not the protocol: {0}")]
    Malformed(ClientMisbehaved),
    /// Another frame than the one that had to come next, while connecting.
    #[error("the router did not answer {0:?} with its counterpart")]
    AnswerExpected(protocol::Kind),
    /// It chose a version that was not offered.
    #[error("the router chose protocol version {0}, which was not offered")]
    VersionNotOffered(u16),
    /// It granted no credit, or more than any table can hold.
    #[error("the router granted {0} credits")]
    CreditsOutOfRange(u32),
    /// A kind of frame that only clients send.
    #[error("the router sent a frame only clients send ({0:?})")]
    UnexpectedFrame(protocol::Kind),
    /// An answer to nothing that is outstanding.
    #[error("the router answered call {0:#x}, which is not outstanding")]
    AnswerToNothing(u64),
    /// What it wrote into a shared-memory ring.
    #[error("{0}")]
    Ring(shm_ring::client_ring::ServiceMisbehaved),
    /// A record on the attach socket that has no place there.
    #[error("the router's record is not one a client is sent")]
    RecordUnexpected,
    /// A status that ends connections, as the end of a call.
    #[error("the router answered a call with status {0}, which ends connections")]
    StatusMisplaced(u16),
}

fn reason_suffix(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_reached_the_router_is_safe_to_retry() {
        let error = CallError::Disconnected { maybe_started: false, cause: Disconnect::Closed };
        assert_eq!(error.retry(), Retry::Safe);
        assert_eq!(CallError::WouldBlock.retry(), Retry::Safe);
    }

    #[test]
    fn what_may_have_run_is_retried_only_if_idempotent() {
        let error = CallError::Disconnected { maybe_started: true, cause: Disconnect::Closed };
        assert_eq!(error.retry(), Retry::IfIdempotent);
        assert_eq!(error.fault(), Fault::Router);
        assert_eq!(CallError::Expired(Expiry::NoAnswer).retry(), Retry::IfIdempotent);
    }

    #[test]
    fn answers_are_judged_by_the_protocols_table() {
        let error = CallError::Refused { status: Status::QueueFull, retry_after: None };
        assert_eq!(error.retry(), Status::QueueFull.retry());
        assert_eq!(error.fault(), Status::QueueFull.fault());
    }
}
