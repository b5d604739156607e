//! What the configuration asks of a function beyond its bounds, and which stages have to ask for it.
//!
//! Always: a function without policies pays one test of one number at each stage, whatever the number of policies there
//! are: [`Checks`] says which of them it has, and everything else is off the path of its calls.
//! Why bits and not a list of policies as objects: the order in which policies are asked is part of their meaning, and
//! stands in one place for each stage (`admission/policy.rs` for admission).

use crate::backpressure::BackpressureSpec;
use crate::breaker::BreakerSpec;
use crate::canary::CanarySpec;
use crate::fallback::Fallback;
use crate::hedge::HedgeSpec;
use crate::rate::Rate;
use crate::retry::RetrySpec;
use crate::slow_start::SlowStart;
use crate::tenant::TenantSpec;
use crate::time::Nanos;

/// The policies of a function; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Calls admitted per second, with the burst that may come at once. More: `RateLimited`.
    pub rate: Option<Rate>,
    /// A queued call that has waited this long gets one push in eight, whatever its criticality; see `ageing.rs`. None, or
    /// anything that is not less than the function's `timeout`: none ages.
    pub ageing: Option<Nanos>,
    /// A call is refused at once if those before it would take longer than it has: `DeadlineUnreachable`; see `estimate.rs`.
    pub refuse_infeasible: bool,
    /// How its calls follow what lies downstream of it, once that has pushed it back.
    pub backpressure: Option<BackpressureSpec>,
    /// When to leave a failing function alone: `BreakerOpen`.
    pub breaker: Option<BreakerSpec>,
    /// What is given instead of that refusal.
    pub fallback: Option<Fallback>,
    /// Which function gets a share of its calls.
    pub canary: Option<CanarySpec>,
    /// Which attempts are made again, how often and when.
    pub retry: RetrySpec,
    /// What the rate bounds.
    pub quota: Quota,
    /// Calls in the hands of workers at once, over all shards of the host. More wait.
    pub concurrency_max: Option<u32>,
    /// How long a call may have to wait for those of its criticality or a higher one, as far as that can be told. More:
    /// `QueueFull`.
    pub queue_delay_max: Option<Nanos>,
    /// When a second attempt is made at a call of which a second run does no harm; see `hedge.rs`.
    pub hedge: Option<HedgeSpec>,
    /// How fast its calls may grow. Faster: `RateLimited`.
    pub slow_start: Option<SlowStart>,
    /// Calls per second of one caller that stand in their lanes. More wait behind the others; see `callers.rs`.
    pub caller_rate: Option<Rate>,
    /// Workers that only nested calls may use; see `reserve.rs`.
    pub nested_reserve: u32,
}

/// What the rate of a function bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quota {
    /// Calls that are admitted: one over the rate is refused, one within it runs as soon as a worker is free.
    #[default]
    Reserved,
    /// Calls that run: one over the rate waits, and the rate shrinks to nothing while workers are busy (`opportunistic.rs`).
    Opportunistic,
}

impl Policy {
    /// Which of them are set.
    pub(crate) fn checks(&self, tenant: &TenantSpec, is_host_limited: bool) -> Checks {
        let is_reserved = self.quota == Quota::Reserved;
        Checks::NONE
            .with(Checks::RATE, self.rate.is_some() && is_reserved)
            .with(Checks::TENANT_RATE, tenant.rate.is_some())
            .with(Checks::SLOW_START, self.slow_start.is_some())
            .with(Checks::QUEUE_DELAY, self.queue_delay_max.is_some())
            .with(Checks::CONCURRENCY, self.concurrency_max.is_some() || tenant.concurrency_max.is_some())
            .with(Checks::HOST, is_host_limited || !is_reserved)
            .with(Checks::BREAKER, self.breaker.is_some())
            .with(Checks::RETRY_ON_ERROR, self.retry.on_error)
            .with(Checks::HEDGE, self.hedge.is_some())
            .with(Checks::CALLER_RATE, self.caller_rate.is_some())
            .with(Checks::CANARY, self.canary.is_some())
            .with(Checks::NESTED_RESERVE, self.nested_reserve > 0)
    }
}

/// The policies that a function has, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks(u16);

impl Checks {
    pub const NONE: Checks = Checks(0);
    pub const RATE: Checks = Checks(1 << 0);
    /// Not a policy: the function is not configured any more. See `reconfigure.rs`.
    pub const RETIRED: Checks = Checks(1 << 15);

    pub const TENANT_RATE: Checks = Checks(1 << 1);
    pub const SLOW_START: Checks = Checks(1 << 2);
    pub const QUEUE_DELAY: Checks = Checks(1 << 3);
    /// Its own or its tenant's.
    pub const CONCURRENCY: Checks = Checks(1 << 4);
    /// The host counts how many workers are busy.
    pub const HOST: Checks = Checks(1 << 5);
    pub const BREAKER: Checks = Checks(1 << 6);
    pub const RETRY_ON_ERROR: Checks = Checks(1 << 7);
    pub const CALLER_RATE: Checks = Checks(1 << 9);
    pub const CANARY: Checks = Checks(1 << 10);
    /// Not a policy: how long it is kept warm follows from when it is called. See `pool/arrivals.rs`.
    pub const LEARNING: Checks = Checks(1 << 11);
    pub const HEDGE: Checks = Checks(1 << 13);
    /// Nobody has to ask for it: it only keeps workers from being leased.
    pub const NESTED_RESERVE: Checks = Checks(1 << 12);
    /// Not a policy: others have joined one of its calls. See `join.rs`.
    pub const JOINED: Checks = Checks(1 << 14);
    /// Something downstream limits it now. Comes and goes while it runs.
    pub const BACKPRESSURE: Checks = Checks(1 << 8);

    /// Those that may refuse a call, or say where it stands, or whose it is.
    const AT_ADMISSION: Checks = Checks(
        Checks::RATE.0
            | Checks::TENANT_RATE.0
            | Checks::SLOW_START.0
            | Checks::QUEUE_DELAY.0
            | Checks::BREAKER.0
            | Checks::BACKPRESSURE.0
            | Checks::CALLER_RATE.0
            | Checks::CANARY.0
            | Checks::LEARNING.0
            | Checks::RETIRED.0,
    );
    /// Those that a call needs something from before it is pushed, and gives it back to; or that look at it again.
    const AT_DISPATCH: Checks =
        Checks(Checks::CONCURRENCY.0 | Checks::HOST.0 | Checks::HEDGE.0 | Checks::BACKPRESSURE.0);

    pub const fn with(self, other: Checks, is_set: bool) -> Checks {
        Checks(if is_set { self.0 | other.0 } else { self.0 })
    }

    pub const fn without(self, other: Checks) -> Checks {
        Checks(self.0 & !other.0)
    }

    #[inline]
    pub const fn has(self, other: Checks) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether dispatch has to ask, and has to be told when a call is off its worker's hands.
    #[inline]
    pub const fn any_at_dispatch(self) -> bool {
        self.has(Checks::AT_DISPATCH)
    }

    /// Whether admission has to ask.
    #[inline]
    pub const fn any_at_admission(self) -> bool {
        self.has(Checks::AT_ADMISSION)
    }
}
