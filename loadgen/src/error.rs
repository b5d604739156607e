//! Why a run did not take place. What goes wrong during a run is no error but part of its report.

use std::io;

use protocol::{ClientMisbehaved, Kind, Status};
use quickfire_client::shm::LaneNotOpened;

use crate::plan::{PlanInvalid, Target};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The plan contradicts itself.
    #[error(transparent)]
    PlanInvalid(#[from] PlanInvalid),
    /// Nothing answers at the target, or not to so many connections.
    #[error("no router at {target} for connection {number} of {connections}: {source}")]
    Unreachable {
        /// Where it was tried.
        target: Target,
        /// Which connection, from 1.
        number: u32,
        /// How many were wanted.
        connections: u32,
        /// What the system says.
        source: io::Error,
    },
    /// A router answered and does not want this connection.
    #[error("the router at {target} refused connection {number} of {connections}: {status}")]
    Refused {
        /// Where it was tried.
        target: Target,
        /// Which connection, from 1.
        number: u32,
        /// How many were wanted.
        connections: u32,
        /// Its status.
        status: Status,
    },
    /// The router has no such function.
    #[error("the router has no function `{name}`")]
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// Its status.
        status: Status,
    },
    /// The router has no lane for a connection.
    #[error("no direct lane for connection {number} of {connections}: {source}")]
    NoLane {
        /// Which connection, from 1.
        number: u32,
        /// How many were wanted.
        connections: u32,
        /// What the router said.
        source: LaneNotOpened,
    },
    /// Whatever answered does not speak this protocol.
    #[error("{target} does not answer like a router: {source}")]
    RouterMisbehaved {
        /// Where it was tried.
        target: Target,
        /// What it sent.
        source: RouterMisbehaved,
    },
    /// The payload does not fit the frames this router takes.
    #[error("a payload of {size} bytes is larger than the {size_max} this router takes")]
    PayloadTooLarge {
        /// What the plan says.
        size: u32,
        /// What HELLO agreed on.
        size_max: u32,
    },
    /// The system gave no event queue or thread.
    #[error("cannot run the generator: {0}")]
    NoResources(#[source] io::Error),
}

/// The router's bytes break the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouterMisbehaved {
    /// The bytes do not decode.
    #[error("{0}")]
    Malformed(#[from] ClientMisbehaved),
    /// Another frame than the one that had to come next.
    #[error("a frame of kind {0:?} where its answer to the last one had to come")]
    AnswerExpected(Kind),
    /// What it gave or said is no ring of shared memory.
    #[error("it gave no ring that can be used")]
    NotARing,
    /// It granted no credit.
    #[error("it granted no credits")]
    NoCredits,
}
