//! What one shard counts and measures, in its own memory; published about every 10 ms and before it sleeps.
//!
//! Always: one table, [`ShardCounters::TABLE`], names every counter with its unit and meaning; readers show it as it
//! stands here.  The engine counts its decisions itself (`engine::counters`).
//! Never: locks, or allocates after the start but for a reload.
#![forbid(unsafe_code)]

mod latency;
mod peaks;

use engine::{Answer, Nanos};
use protocol::{FunctionId, Status};

use crate::counters::Roster;
use crate::io::IoCounters;
use crate::workers::FunctionRing;

pub use latency::Latency;
pub use peaks::{PEAK_WINDOW, Peaks};

/// One counter's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRow {
    /// As `quickfire inspect` shows it.
    pub name: &'static str,
    /// `count`, `bytes` or `ns`.
    pub unit: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

macro_rules! counters {
    ($($name:ident: $unit:literal, $meaning:literal;)*) => {
        /// Events of one shard since its start.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct ShardCounters {
            $(#[doc = $meaning] pub $name: u64,)*
        }

        impl ShardCounters {
            /// Names, units and meanings, in the order of [`ShardCounters::values`].
            pub const TABLE: &[CounterRow] =
                &[$(CounterRow { name: stringify!($name), unit: $unit, meaning: $meaning },)*];

            /// All values, in the order of the table.
            pub fn values(&self) -> impl Iterator<Item = u64> + '_ {
                [$(self.$name,)*].into_iter()
            }
        }
    };
}

counters! {
    turns: "count", "Turns of the loop.";
    turns_empty: "count", "Turns that found nothing to do.";
    busy_ns: "ns", "Time in turns that found something to do. Its share of all time is how loaded the shard is.";
    sleeps: "count", "Times the shard slept for want of work.";
    turn_ns_max: "ns", "The longest turn since the last publishing.";
    connections_accepted: "count", "Connections accepted.";
    connections_closed: "count", "Connections closed, for any reason.";
    connections_open: "count", "Connections open now.";
    connections_refused: "count", "Connections refused because there were too many.";
    connections_moved_out: "count", "Connections given to another shard: right after accept, or later and at rest.";
    connections_moved_in: "count", "Connections that another shard gave to this one.";
    moves_refused: "count", "Connections that stayed because the other shard's inbox was full, or it was ending.";
    moves_given_up: "count", "Connections that stayed because they did not come to rest in time.";
    accept_failures: "count", "Times accepting stopped for want of descriptors or memory.";
    hello_timeouts: "count", "Connections closed because they said no HELLO in time.";
    clients_misbehaved: "count", "Connections and client rings closed because their bytes broke the protocol.";
    slow_readers: "count", "Connections closed because they did not read their answers.";
    clients_gone_mid_frame: "count", "Connections that ended inside a frame.";
    clients_gone_calls: "count", "Calls cancelled because their client went away.";
    frames_received: "count", "Frames received.";
    bytes_received: "bytes", "Bytes received from clients.";
    bytes_sent: "bytes", "Bytes handed to the kernel for clients.";
    replies: "count", "REPLY frames written.";
    replies_orphaned: "count", "Answers whose client was gone.";
    refused_credits_exceeded: "count", "Calls refused because their id is beyond the credits granted.";
    refused_call_id_in_use: "count", "Calls refused because their id belongs to an outstanding call.";
    refused_payload_memory: "count", "Calls refused because the memory for waiting payloads is full.";
    local_calls: "count", "Calls of front-ends in this process.";
    workers_attached: "count", "Function processes that attached.";
    workers_refused: "count", "Attach requests refused.";
    workers_detached: "count", "Function processes that went away.";
    workers_misbehaved: "count", "Function processes quarantined because of what they wrote into their ring.";
    workers_killed: "count", "Function processes killed because they ran past a time-out.";
    workers_attached_now: "count", "Function processes attached now.";
    attach_misbehaved: "count", "Peers of the attach socket that broke its protocol or were somebody else's.";
    completions: "count", "Results taken from rings.";
    completions_stale: "count", "Results nobody waits for any more.";
    pushes: "count", "Calls pushed into rings.";
    push_refused: "count", "Calls the ring refused although the engine saw room; each is a bug.";
    worker_wakes: "count", "Sleeping workers woken.";
    payload_bytes_claimed: "bytes", "Bytes of payloads that wait for a worker now.";
    io_on_epoll: "count", "1 if this shard runs on epoll instead of io_uring.";
    io_enters: "count", "System calls into the ring, or of every kind on epoll.";
    io_starved: "count", "Receives that found no free buffer.";
    io_completion_overflows: "count", "Times the completion queue overflowed.";
    io_rearmed: "count", "Sources armed again because the kernel had ended their operation, or after they starved.";
    io_short_sends: "count", "Sends that went out in parts.";
    output_bytes_held: "bytes", "Bytes of answers now that clients have not taken yet.";
    shm_clients_attached: "count", "Clients that attached a ring of their own.";
    shm_clients_attached_now: "count", "Clients with a ring of their own now.";
    shm_clients_detached: "count", "Clients with a ring that went away, or were closed.";
    shm_clients_refused: "count", "Clients that asked for a ring and were refused.";
    shm_calls: "count", "Calls taken from clients' rings.";
    shm_client_bells: "count", "Times a client's bell rang.";
    shm_client_wakes: "count", "Sleeping clients woken.";
    lanes_opened: "count", "Direct lanes opened between a client and a worker.";
    lanes_open_now: "count", "Direct lanes now, those that are being revoked included.";
    lanes_refused: "count", "Direct lanes that clients asked for and did not get.";
    lanes_revoked: "count", "Direct lanes that were ended before their client went away.";
    lane_calls: "count", "Calls that workers answered through direct lanes; no other counter of this shard has them.";
    quarantined_now: "count", "Calls in the quarantine now.";
    dead_letters_now: "count", "Dead letters now.";
    kept_calls_forgotten: "count", "Quarantined calls and dead letters forgotten for want of room.";
}

/// Latencies of all calls of a shard.
#[derive(Default)]
pub struct Latencies {
    /// From received to answered.
    pub total_ns: Latency,
    /// From queued to pushed.
    pub queue_wait_ns: Latency,
    /// From started to finished, by the function's own clock readings.
    pub run_ns: Latency,
}

impl Latencies {
    /// Calls of one function were answered.
    #[inline]
    pub fn note(&mut self, answers: &[Answer], function: Option<&mut FunctionStats>) {
        let mut unknown = FunctionStats::default();
        let function = function.unwrap_or(&mut unknown);
        for answer in answers {
            self.total_ns.record(answer.stamps.total().0);
            if let Some(queue_wait) = answer.stamps.queue_wait() {
                self.queue_wait_ns.record(queue_wait.0);
            }
            if let Some(run) = answer.stamps.run() {
                self.run_ns.record(run.0);
                function.run_ns += run.0;
            }
            match answer.status {
                Status::Ok => function.answered_ok += 1,
                Status::FunctionError => function.answered_error += 1,
                _ => function.answered_otherwise += 1,
            }
        }
    }

    /// Brings all of them up to date.
    #[inline]
    pub fn settle(&mut self) {
        self.total_ns.settle();
        self.queue_wait_ns.settle();
        self.run_ns.settle();
    }
}

/// What one function did on this shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FunctionStats {
    /// Calls answered with the function's own answer.
    pub answered_ok: u64,
    /// Calls answered with the function's own error.
    pub answered_error: u64,
    /// Calls answered otherwise.
    pub answered_otherwise: u64,
    /// Sum of the run times.
    pub run_ns: u64,
}

/// Everything one shard counts and measures.
pub struct ShardStats {
    /// Plain counters.
    pub counters: ShardCounters,
    /// Latencies of all answered calls.
    pub latencies: Latencies,
    /// By function, in the order of their ids.
    pub functions: Vec<FunctionStats>,
    /// The busiest ten seconds of each.
    pub peaks: Peaks,
    /// The same: processes that are to be kept; none of a function that was removed.
    pub workers_wanted: Vec<u32>,
    /// Who is attached.
    pub roster: Roster,
}

impl ShardStats {
    /// Nothing counted yet.
    pub fn new(function_count: usize) -> Self {
        ShardStats {
            counters: ShardCounters::default(),
            latencies: Latencies::default(),
            functions: vec![FunctionStats::default(); function_count],
            peaks: Peaks::default(),
            workers_wanted: vec![0; function_count],
            roster: Roster::default(),
        }
    }

    /// So many functions are known by now, and these are given workers. What was counted stays.
    pub fn respecify(&mut self, function_count: usize, rings: &[FunctionRing]) {
        self.functions.resize_with(function_count, FunctionStats::default);
        self.workers_wanted = vec![0; function_count];
        for ring in rings {
            if let Some(wanted) = self.workers_wanted.get_mut(ring.function.0 as usize) {
                *wanted = ring.workers_wanted;
            }
        }
    }

    /// The stats of a function; `None` for an id that no function has.
    pub fn function(&mut self, function: FunctionId) -> Option<&mut FunctionStats> {
        self.functions.get_mut(function.0 as usize)
    }

    /// A turn is over.
    pub fn on_turn(&mut self, work: usize, length: Nanos) {
        self.counters.turns += 1;
        self.counters.turns_empty += u64::from(work == 0);
        self.counters.busy_ns += if work > 0 { length.0 } else { 0 };
        self.counters.turn_ns_max = self.counters.turn_ns_max.max(length.0);
    }

    /// Copies what the edge to the kernel counted.
    pub fn note_io(&mut self, io: &IoCounters) {
        self.counters.io_enters = io.enters;
        self.counters.io_starved = io.starved;
        self.counters.io_completion_overflows = io.completion_overflows;
        self.counters.io_rearmed = io.rearmed;
        self.counters.io_short_sends = io.short_sends;
    }
}
