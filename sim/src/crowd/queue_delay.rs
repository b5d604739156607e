//! A queue that is bounded in time: who is admitted does not wait much longer than the bound says.

use engine::{Nanos, Policy};

use super::{Call, Crowd, Matter, Tenant, tenant};
use crate::chance::Chance;
use crate::contract::{Broken, Contract};

/// The time over which the engine measures how fast a queue drains: `engine/src/drain_rate.rs`.
const WINDOW_NS: u64 = 10_000_000;

/// One whose calls all take the same time.
pub(super) fn tenants(chance: &mut Chance) -> Vec<Tenant> {
    let queue_delay_max = Some(Nanos(5_000_000 + chance.length(27)));
    let mut tenant = tenant(0, 1, Policy { queue_delay_max, ..Policy::default() });
    tenant.run_ns_max = 1_000 + chance.length(24);
    vec![tenant]
}

impl Crowd {
    /// A call, at between half and twenty times the pace that workers keep.
    pub(super) fn somebody_queues(&mut self, chance: &mut Chance, divisor: u64) -> Result<(), Broken> {
        let run_ns = self.tenants[0].run_ns_max;
        let halves = 1 + self.options.seed % 40;
        let pace_ns = 2 * run_ns / u64::from(self.workers) / halves;
        self.advance(self.now_ns + (chance.exponential() * pace_ns as f64) as u64 / divisor)?;
        let waiting_before = self.tenants[0].waiting[0];
        let is_admitted = self.ask(0, 0, run_ns);
        if waiting_before == 0 {
            self.busy_since_ns = Some(self.now_ns);
        }
        self.options.judge.check(Contract::QueueDelay, is_admitted || waiting_before > 0, || {
            "a call was refused for those before it, and there are none".to_owned()
        })?;
        self.moment(self.now_ns)
    }

    /// A call begins that was admitted when it was known how fast the queue drains.
    pub(super) fn check_queue_delay(&self, call: &Call) -> Result<(), Broken> {
        let Some(max) = self.tenants[call.tenant].function.policy.queue_delay_max else { return Ok(()) };
        let known_since_ns =
            self.busy_since_ns.map_or(u64::MAX, |at_ns| at_ns + 2 * (WINDOW_NS + call.run_ns));
        if self.matter != Matter::QueueDelay || call.asked_at_ns < known_since_ns {
            return Ok(());
        }
        let delay_ns = self.now_ns - call.asked_at_ns;
        let delay_max_ns = 2 * max.0 + 2 * (WINDOW_NS + call.run_ns);
        self.options.judge.check(Contract::QueueDelay, delay_ns <= delay_max_ns, || {
            format!(
                "a call waited {delay_ns} ns in a queue that is bounded to {max}, more than {delay_max_ns} ns"
            )
        })
    }
}
