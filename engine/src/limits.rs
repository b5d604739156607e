//! Everything in the engine that can grow, and how far.
//!
//! Always: a table that is full has a defined, tested answer, named beside its limit.
//! Memory: tables start at 1024 invocations and double up to the limit as they are needed, so a generous limit costs
//! nothing until it is used. Per invocation: 64 bytes of state, 8 of queue links, 8 of timer links, 8 of timer tick,
//! 4 of free list = 92 bytes; 8 more of links once a call of it has aged, 24 once a call with a key came.
//!
//! Tests: `tests/limits_full.rs`.

use crate::invocation::SLOT_BITS;
use crate::time::Nanos;

/// The bounds of one engine. `Limits::default()` serves one shard of a 2-core host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Invocations admitted and not yet forgotten. Full: `Overloaded`.
    pub invocations_max: u32,
    /// Workers attached at once, over all functions. Full: [`AttachRefused::WorkersFull`].
    ///
    /// [`AttachRefused::WorkersFull`]: crate::AttachRefused::WorkersFull
    pub workers_max: u32,
    /// Functions known. More: [`EngineRefused::FunctionsFull`] at the start.
    ///
    /// [`EngineRefused::FunctionsFull`]: crate::EngineRefused::FunctionsFull
    pub functions_max: u32,
    /// Tenants known. More: [`EngineRefused::TenantCount`] at the start.
    ///
    /// [`EngineRefused::TenantCount`]: crate::EngineRefused::TenantCount
    pub tenants_max: u16,
    /// Ring slots, that is credits, of one worker. More: [`AttachRefused::SlotsOutOfRange`].
    ///
    /// [`AttachRefused::SlotsOutOfRange`]: crate::AttachRefused::SlotsOutOfRange
    pub worker_slots_max: u32,
    /// How much work a worker may be given before it gets to it; see `run_ahead.rs`. [`Nanos::NEVER`] fills its ring.
    pub run_ahead: Nanos,
    /// A function whose workers may hold at least this many calls is quick: a call that finds nothing waiting and a worker
    /// open is pushed on admission, without a stay in the queue. See `dispatch.rs`. None: every call stands in its queue.
    pub direct_depth_min: Option<u32>,
    /// Idempotency keys that can be told apart at once; a power of two. More calls in flight with keys, or hardly more than a
    /// quarter of it: `Overloaded` for some of them. See `join.rs`.
    pub keys_max: u32,
    /// Calls that may wait for the result of one with the same key. More: `Overloaded`.
    pub joiners_max: u32,
    /// Leases of credits at once, over all workers. Full: [`LeaseRefused::LeasesFull`].
    ///
    /// [`LeaseRefused::LeasesFull`]: crate::LeaseRefused::LeasesFull
    pub leases_max: u32,
    /// The same of one worker, which looks at every lane before it sleeps.
    pub worker_leases_max: u32,
    /// Credits of one lease. More wanted: fewer given.
    pub lease_slots_max: u32,
    /// How long calls may wait in a function's queue before its leases end.
    pub lease_queue_wait_max: Nanos,
    /// How long a worker may hold a call after it was asked to stop, before the worker is killed.
    pub kill_grace: Nanos,
    /// How long after its receipt a call may start at the latest. Later: `StartTooLate`.
    pub start_after_max: Nanos,
    /// Workers that may hold calls at once. More: calls wait, and tenants take turns (`turns.rs`). None: as many as there are.
    pub running_max: Option<u32>,
    /// Processors that count as the whole when it is measured how busy workers are, without `running_max`.
    pub processor_count: u32,
    /// Nested calls that are looked after while they wait, so that circles of them are found. More: a circle in which none of those
    /// is ends at its deadlines. See `circles.rs`.
    pub waits_max: u32,
    /// Workers looked at in one `handle_waits`. More: the rest follows in the next; a circle that is larger ends at its deadlines.
    pub wait_visits_max: u32,
    /// Instances of one function that are started at once because calls ask for them. More needed: when these have attached, and if
    /// they still are. See `pool.rs`.
    pub pool_starts_max: u32,
    /// Timers looked at in one `handle_time`. The rest follow in the next call: `next_timer` stays in the past.
    pub timer_visits_max: u32,
}

/// Downstreams of one function that are told apart. More: the silent ones go, then the strictest answers for the rest; see
/// `backpressure.rs`. A function that is pushed back by five things at once is slowed whatever their names are.
pub const DOWNSTREAMS_MAX: usize = 4;

/// A burst of a million queued calls per shard: 2^20 x 92 bytes = 92 MiB when all of it is used.
const INVOCATIONS_MAX_DEFAULT: u32 = 1 << 20;
/// A shard's share of a large host: 100 functions with 40 processes each.
const WORKERS_MAX_DEFAULT: u32 = 4096;
const FUNCTIONS_MAX_DEFAULT: u32 = 16_384;
/// Teams of one host, generously.
const TENANTS_MAX_DEFAULT: u16 = 1024;
/// The largest ring of `docs/spec/shm.md`.
const WORKER_SLOTS_MAX: u32 = 4096;
/// Three times the 30 us that waking a process on another core can take, so that a fast function never runs dry.
const RUN_AHEAD_DEFAULT: Nanos = Nanos::from_us(100);
/// 64 calls in 100 us: at most 1.6 us a call.
const DIRECT_DEPTH_MIN_DEFAULT: u32 = 64;
/// 2 MiB at 32 bytes, claimed when the first key comes: room for 16,384 calls with keys in flight, more than a shard has of
/// any kind but in a burst.
const KEYS_MAX_DEFAULT: u32 = 1 << 16;
/// A result is copied for each of them in one turn: 64 of 1 MiB take about 10 ms.
const JOINERS_MAX_DEFAULT: u32 = 64;
/// A lane's memory is some 100 KiB and up: 64 of them are a few megabytes.
const LEASES_MAX_DEFAULT: u32 = 64;
/// Each lane is one more cache line to look at for a worker that spins.
const WORKER_LEASES_MAX_DEFAULT: u32 = 4;
/// 100 us of work for a function of 400 ns: who has more to say is served better by the queue.
const LEASE_SLOTS_MAX_DEFAULT: u32 = 256;
/// Half of the time between two looks of the router at its lanes.
const LEASE_QUEUE_WAIT_MAX_DEFAULT: Nanos = Nanos::from_ms(5);
/// Long enough for what is put off to a quieter hour; what waits longer belongs where it outlives a router.
const START_AFTER_MAX_DEFAULT: Nanos = Nanos::from_secs(3600);
/// Each holds a process that waits for it: more than a shard has processes that do so for longer than a turn.
const WAITS_MAX_DEFAULT: u32 = 1024;
/// Four times as many workers as there can be, at about 10 ns each: 0.2 ms in the worst look, of which there are a hundred a
/// second.
const WAIT_VISITS_MAX_DEFAULT: u32 = 4 * WORKERS_MAX_DEFAULT;
/// Starting is work for processors. More at a time would each be slower, and the first ones tell how long calls run, and so
/// whether more are needed.
const POOL_STARTS_MAX_DEFAULT: u32 = 8;
/// At about 20 ns a visit, a full call costs 0.1 ms: less than one tick of the wheel.
const TIMER_VISITS_MAX_DEFAULT: u32 = 4096;

const _: () = assert!(INVOCATIONS_MAX_DEFAULT <= 1 << SLOT_BITS, "a slot index must fit in an InvocationId");
const _: () = assert!(WORKERS_MAX_DEFAULT < u32::MAX, "u32::MAX marks the end of a list");
const _: () = assert!(
    TIMER_VISITS_MAX_DEFAULT as u64 * 20 < crate::timers::TICK.0,
    "one handle_time must not take longer than a tick"
);

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            invocations_max: INVOCATIONS_MAX_DEFAULT,
            workers_max: WORKERS_MAX_DEFAULT,
            functions_max: FUNCTIONS_MAX_DEFAULT,
            tenants_max: TENANTS_MAX_DEFAULT,
            worker_slots_max: WORKER_SLOTS_MAX,
            run_ahead: RUN_AHEAD_DEFAULT,
            direct_depth_min: Some(DIRECT_DEPTH_MIN_DEFAULT),
            keys_max: KEYS_MAX_DEFAULT,
            joiners_max: JOINERS_MAX_DEFAULT,
            leases_max: LEASES_MAX_DEFAULT,
            worker_leases_max: WORKER_LEASES_MAX_DEFAULT,
            lease_slots_max: LEASE_SLOTS_MAX_DEFAULT,
            lease_queue_wait_max: LEASE_QUEUE_WAIT_MAX_DEFAULT,
            running_max: None,
            processor_count: 1,
            kill_grace: Nanos::from_secs(1),
            start_after_max: START_AFTER_MAX_DEFAULT,
            waits_max: WAITS_MAX_DEFAULT,
            wait_visits_max: WAIT_VISITS_MAX_DEFAULT,
            pool_starts_max: POOL_STARTS_MAX_DEFAULT,
            timer_visits_max: TIMER_VISITS_MAX_DEFAULT,
        }
    }
}

impl Limits {
    /// The name of the first limit outside what the engine's types can hold.
    pub(crate) fn first_out_of_range(&self) -> Option<&'static str> {
        let ranges = [
            ("invocations_max", (1..=1 << SLOT_BITS).contains(&self.invocations_max)),
            ("workers_max", (1..=1 << 20).contains(&self.workers_max)),
            ("functions_max", (1..=1 << 20).contains(&self.functions_max)),
            ("tenants_max", self.tenants_max >= 1),
            ("worker_slots_max", (1..=WORKER_SLOTS_MAX).contains(&self.worker_slots_max)),
            ("keys_max", self.keys_max.is_power_of_two() && self.keys_max <= 1 << SLOT_BITS),
            ("joiners_max", self.joiners_max >= 1),
            ("run_ahead", self.run_ahead > Nanos::ZERO),
            ("lease_slots_max", (1..=WORKER_SLOTS_MAX).contains(&self.lease_slots_max)),
            ("kill_grace", self.kill_grace >= crate::timers::TICK),
            ("running_max", self.running_max != Some(0)),
            ("processor_count", self.processor_count >= 1),
            ("waits_max", self.waits_max <= 1 << SLOT_BITS),
            ("wait_visits_max", self.wait_visits_max >= 1),
            ("pool_starts_max", self.pool_starts_max >= 1),
            ("timer_visits_max", self.timer_visits_max >= 1),
        ];
        ranges.into_iter().find(|(_, is_in_range)| !is_in_range).map(|(name, _)| name)
    }
}
