//! What the attach socket says about direct lanes: rings from a client straight to a worker, leased by the router.
//!
//! ```text
//! client                          router shard                      worker
//!   | LaneWanted --------------------->|                               |
//!   |<-- LaneOpened + memfd + eventfd  |  LaneOpened + memfd + eventfd |
//!   |    (or LaneRefused)              | ----------------------------->|
//!   |          ... calls go through the lane, past the router ...      |
//!   |                                  | LaneRevoke ------------------>|  takes nothing more, says so in the lane
//!   |<---------------------- LaneClosed|                               |
//! ```
//! Normative text: docs/spec/shm.md, "Direct lanes".

use crate::ids::FunctionId;

/// What both ends of a lane are told about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneOpened {
    /// The router's name for it.
    pub lane_id: u32,
    /// As in the constants of its memory.
    pub generation: u32,
    /// The one function it leads to.
    pub function_id: FunctionId,
    /// Its slots: the credits leased.
    pub slot_count: u32,
    /// Bytes of each slot's request region and result region.
    pub region_size: u32,
    /// The largest payload the function takes, and this lane carries.
    pub payload_size_max: u32,
    /// The longest a call may run: a call's own deadline can only be earlier.
    pub timeout_ns: u64,
}

/// Why a client gets no lane. Its calls go through its ring as before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[repr(u16)]
pub enum LaneRefused {
    /// The operator has not allowed lanes.
    #[error("direct lanes are switched off at this router (direct_lanes = false)")]
    SwitchedOff = 1,
    /// The router is shutting down.
    #[error("the router is shutting down")]
    Draining = 2,
    /// No function has this number.
    #[error("no function has this number")]
    UnknownFunction = 3,
    /// No worker of the function serves lanes and has credits to spare.
    #[error("no process of the function can serve a lane and has credits to spare")]
    NoWorker = 4,
    /// Calls wait for the function: there is nothing to lease.
    #[error("calls are waiting for the function")]
    Busy = 5,
    /// The client has a lane.
    #[error("the client has a lane already")]
    LanePresent = 6,
    /// As many lanes as the shard, or each worker of the function, may have.
    #[error("there are as many lanes as there may be")]
    TooManyLanes = 7,
    /// Memory or file descriptors could not be had, or the ring wanted is too large.
    #[error("the router could not create the lane")]
    Unavailable = 8,
    /// The function's calls are governed by policies, which live in the router.
    #[error("the function has policies that every call has to pass")]
    Governed = 9,
}

impl LaneRefused {
    /// Every reason, by number.
    pub const ALL: [LaneRefused; 9] = [
        LaneRefused::SwitchedOff,
        LaneRefused::Draining,
        LaneRefused::UnknownFunction,
        LaneRefused::NoWorker,
        LaneRefused::Busy,
        LaneRefused::LanePresent,
        LaneRefused::TooManyLanes,
        LaneRefused::Unavailable,
        LaneRefused::Governed,
    ];
}

/// Why a lane ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[repr(u16)]
pub enum LaneEnd {
    /// The router is shutting down.
    #[error("the router is shutting down")]
    Draining = 1,
    /// The worker is to finish and go.
    #[error("the process behind the lane is to finish and go")]
    WorkerDraining = 2,
    /// The worker is dead: nothing in the lane that it had not taken will ever be run.
    #[error("the process behind the lane is gone")]
    WorkerLost = 3,
    /// Others wait for the function.
    #[error("calls of others were waiting for the function")]
    OthersWait = 4,
    /// No call for a whole lease.
    #[error("the lane was not used")]
    Idle = 5,
    /// The worker found bytes in the lane that no honest client writes.
    #[error("the client wrote what no honest client writes into the lane")]
    ClientMisbehaved = 6,
    /// The client went away. Nobody is told.
    #[error("the client went away")]
    ClientGone = 7,
    /// As `WorkerLost`: killed because it ran a call of this lane past its time.
    #[error("the process behind the lane ran a call past its time and was stopped")]
    WorkerOverstayed = 8,
}

impl LaneEnd {
    /// Every reason, by number.
    pub const ALL: [LaneEnd; 8] = [
        LaneEnd::Draining,
        LaneEnd::WorkerDraining,
        LaneEnd::WorkerLost,
        LaneEnd::OthersWait,
        LaneEnd::Idle,
        LaneEnd::ClientMisbehaved,
        LaneEnd::ClientGone,
        LaneEnd::WorkerOverstayed,
    ];
}
