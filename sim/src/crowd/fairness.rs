//! Tenants beside those that flood: how long who wants little waits, and what those get who want everything.
//!
//! Always: a tenant that does not flood calls again only when its share of the host has paid for its last call, so it is
//! within its share, and the bound on its delay is that of docs/decisions/0018-fairness.md.

use super::{Asked, Call, Crowd, Tenant, tenant};
use crate::chance::Chance;
use crate::contract::{Broken, Contract};

/// Worker time that a tenant of weight 1 gets when it comes round: `engine/src/turns.rs`.
pub const QUANTUM_NS: u64 = 100_000;

/// One or two that flood, and some that do not.
pub(super) fn tenants(chance: &mut Chance) -> Vec<Tenant> {
    let flood_count = 1 + chance.below(2) as usize;
    let count = flood_count + 1 + chance.below(4) as usize;
    let make = |number: usize| {
        let mut tenant = tenant(number, 1 + chance.below(8) as u32, Default::default());
        tenant.is_flooding = number < flood_count;
        tenant.delays = if tenant.is_flooding { Asked::Nothing } else { Asked::Bound };
        tenant.run_ns_max = 100_000 + chance.length(23);
        tenant.run_ns_min = 1 + chance.below(tenant.run_ns_max);
        tenant
    };
    (0..count).map(make).collect()
}

/// What tenants had used when they began to flood side by side.
#[derive(Debug)]
pub(super) struct Shares {
    used_before_ns: Vec<Option<u64>>,
}

impl Shares {
    pub fn new(tenant_count: usize) -> Shares {
        Shares { used_before_ns: vec![None; tenant_count] }
    }
}

impl Crowd {
    /// A tenant that does not flood calls, as soon as it may.
    pub(super) fn neighbour_calls(&mut self, chance: &mut Chance, divisor: u64) -> Result<(), Broken> {
        let neighbours: Vec<_> =
            (0..self.tenants.len()).filter(|it| !self.tenants[*it].is_flooding).collect();
        let number = *chance.pick(&neighbours).expect("somebody does not flood");
        let tenant = &self.tenants[number];
        let run_ns = tenant.run_ns_min + chance.below(tenant.run_ns_max - tenant.run_ns_min + 1);
        let pause_ns = chance.length(22) / divisor;
        self.advance(tenant.calls_at_ns.max(self.now_ns) + pause_ns)?;
        self.ask(0, number, run_ns);
        // Until all others together have had what is theirs when it has this much, and what they may have beyond it.
        let weights: u64 = self.tenants.iter().map(|it| u64::from(it.spec.weight)).sum();
        let weight = u64::from(self.tenants[number].spec.weight);
        let longest_ns = self.tenants.iter().map(|it| it.run_ns_max).max().unwrap_or(0);
        let rounds = (run_ns + QUANTUM_NS * weight).div_ceil(QUANTUM_NS * weight) + 2;
        let others_ns = rounds * QUANTUM_NS * weights + 2 * longest_ns * self.tenants.len() as u64;
        self.tenants[number].calls_at_ns = self.now_ns + self.delay_max_ns(number) + run_ns + others_ns;
        self.moment(self.now_ns)
    }

    /// A place becomes free when a call ends; and each other tenant may be as fresh, with a quantum and the call in which it
    /// runs out.
    pub(super) fn delay_max_ns(&self, number: usize) -> u64 {
        let longest_ns = self.tenants.iter().map(|it| it.run_ns_max).max().unwrap_or(0);
        let others = self.tenants.iter().enumerate().filter(|(other, _)| *other != number);
        let quanta_ns = others.map(|(_, it)| QUANTUM_NS * u64::from(it.spec.weight) + it.run_ns_max);
        longest_ns + quanta_ns.sum::<u64>()
    }

    /// A call begins: has it waited for anybody's backlog?
    pub(super) fn check_delay(&mut self, call: &Call) -> Result<(), Broken> {
        let asked = self.tenants[call.tenant].delays;
        if asked == Asked::Nothing {
            return Ok(());
        }
        let delay_ns = self.now_ns - call.asked_at_ns;
        let delay_max_ns = self.delay_max_ns(call.tenant);
        self.totals.delays_ns.push(delay_ns);
        let is_bounded = asked == Asked::Length || delay_ns <= delay_max_ns;
        self.options.judge.check(Contract::FairDelay, is_bounded, || {
            let number = call.tenant;
            format!(
                "a call of tenant {number} waited {delay_ns} ns within its share, more than {delay_max_ns} ns"
            )
        })
    }

    /// Of two that flood, neither has more than the other, by weight, than the calls of one moment explain.
    pub(super) fn check_shares(&mut self) -> Result<(), Broken> {
        let flooding: Vec<_> = (0..self.tenants.len()).filter(|it| self.tenants[*it].is_flooding).collect();
        for number in &flooding {
            self.shares.used_before_ns[*number].get_or_insert(self.tenants[*number].used_ns);
        }
        let [left, right] = flooding[..] else { return Ok(()) };
        if self.is_over {
            return Ok(());
        }
        let per_weight = |number: usize| {
            let tenant = &self.tenants[number];
            let used_ns = tenant.used_ns - self.shares.used_before_ns[number].unwrap_or(0);
            let running_ns = 2 * u64::from(self.places) * tenant.run_ns_max;
            (used_ns / u64::from(tenant.spec.weight), running_ns / u64::from(tenant.spec.weight))
        };
        let ((left_ns, left_slack_ns), (right_ns, right_slack_ns)) = (per_weight(left), per_weight(right));
        let slack_ns = 2 * QUANTUM_NS + left_slack_ns + right_slack_ns;
        self.options.judge.check(Contract::FairShare, left_ns.abs_diff(right_ns) <= slack_ns, || {
            format!("tenants {left} and {right} used {left_ns} and {right_ns} ns by weight, {slack_ns} ns apart at most")
        })
    }
}
