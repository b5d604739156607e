//! Whose turn it is among tenants, when they compete for the places in which calls may run.
//!
//! ```text
//!   fresh    tenants that have just begun to want something and owe nothing      served first
//!   backlog  the others, in turn                                                 served when no fresh one waits
//! ```
//! In: which tenants have a function that could run now; what their calls cost, in nanoseconds of worker time.  Out: the
//! tenant to serve.
//! Always: deficit round robin (Shreedhar and Varghese, SIGCOMM '95). A tenant is served while its deficit is positive, pays
//! what its calls cost, and gets `QUANTUM` times its weight whenever it comes round. What a call costs is known only when it
//! has run: it is charged with what the function's calls usually cost, and the difference when it ends, so a deficit may be
//! below zero (surplus round robin, Adiseshu, Parulkar and Varghese, SIGCOMM '96).
//! Always: one quantum for each round, whether a tenant waits in it or not. Who was away has those of the rounds that passed, up to
//! one quantum of credit: its debt is paid as others use their time, and nothing is saved up. Who comes again in the same round
//! has nothing more.
//! Always: a tenant that wants little is served before those with a backlog, for at most one quantum; and it gets that
//! advance again only after its turn in the backlog came (fresh flows of RFC 8290, section 4.2).
//! Hence the bound: of two tenants that have calls waiting all the time, what each has used, divided by its weight, differs by
//! at most one quantum plus, for each, what its calls that run at one time may cost beyond the estimate. And a tenant that stays below its share
//! waits for a place to become free, and for one quantum of each other fresh tenant; never for anybody's backlog.
//! Never: a loop longer than twice the number of tenants that wait: debts are paid in one step when nobody is in credit.
//! Tests: below, `tests/fairness.rs`, `sim`.

use queue::{Links, List};

use crate::tenant::TenantSpec;
use crate::time::Nanos;

/// Worker time for each unit of weight when a tenant comes round: as long as the work that a worker is given ahead
/// (`limits.run_ahead`), so that a quick function's batches are not cut smaller than its ring makes them.
pub(crate) const QUANTUM: Nanos = Nanos::from_us(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Fresh,
    Backlog,
}

#[derive(Debug)]
struct Account {
    quantum_ns: i64,
    deficit_ns: i64,
    /// The round whose quantum it had last.
    round: u64,
    place: Place,
    /// A function of it could run now.
    is_ready: bool,
}

impl Account {
    fn new(tenant: &TenantSpec) -> Account {
        let quantum_ns = quantum_ns(tenant);
        Account { quantum_ns, deficit_ns: quantum_ns, round: 0, place: Place::Nowhere, is_ready: false }
    }

    /// Takes the quanta of the rounds that passed.
    fn catch_up(&mut self, round: u64) {
        let passed = i64::try_from(round.saturating_sub(self.round)).unwrap_or(i64::MAX);
        let deficit_ns = self.deficit_ns.saturating_add(passed.saturating_mul(self.quantum_ns));
        self.deficit_ns = deficit_ns.min(self.quantum_ns);
        self.round = self.round.max(round);
    }

    /// So many rounds come while it waits.
    fn wait(&mut self, rounds: i64) {
        self.deficit_ns += rounds * self.quantum_ns;
        self.round += rounds as u64;
    }
}

fn quantum_ns(tenant: &TenantSpec) -> i64 {
    QUANTUM.0 as i64 * i64::from(tenant.weight.max(1))
}

/// The accounts of all tenants.
#[derive(Debug)]
pub(crate) struct Turns {
    accounts: Vec<Account>,
    links: Links,
    fresh: List,
    backlog: List,
    backlog_count: u32,
    /// The latest in which a tenant of the backlog had its quantum.
    round: u64,
}

impl Turns {
    pub fn new(tenants: &[TenantSpec]) -> Turns {
        Turns {
            accounts: tenants.iter().map(Account::new).collect(),
            links: Links::with_capacity(tenants.len() as u32),
            fresh: List::default(),
            backlog: List::default(),
            backlog_count: 0,
            round: 0,
        }
    }

    /// The tenants are these now: those there were, in their places, and new ones.
    pub fn set_tenants(&mut self, tenants: &[TenantSpec]) {
        self.links.grow_to(tenants.len() as u32);
        for (index, tenant) in tenants.iter().enumerate() {
            match self.accounts.get_mut(index) {
                Some(account) => account.quantum_ns = quantum_ns(tenant),
                None => self.accounts.push(Account { round: self.round, ..Account::new(tenant) }),
            }
        }
    }

    /// A tenant has a function that could run now, or has none any more.
    pub fn set_ready(&mut self, tenant: u32, is_ready: bool) {
        let account = &mut self.accounts[tenant as usize];
        account.is_ready = is_ready;
        if is_ready && account.place == Place::Nowhere {
            account.catch_up(self.round);
            if account.deficit_ns > 0 {
                account.place = Place::Fresh;
                self.fresh.push_back(&mut self.links, tenant);
            } else {
                self.queue_up(tenant);
            }
        }
    }

    /// The tenant to serve, if any is ready.
    pub fn next(&mut self) -> Option<u32> {
        let mut in_debt = 0;
        loop {
            if in_debt > self.backlog_count {
                self.pay_debts();
                in_debt = 0;
            }
            let tenant = self.fresh.front().or_else(|| self.backlog.front())?;
            let account = &mut self.accounts[tenant as usize];
            if account.is_ready && account.deficit_ns > 0 {
                return Some(tenant);
            }
            let was_fresh = account.place == Place::Fresh;
            let is_ready = account.is_ready;
            if is_ready {
                account.wait(1);
                self.round = self.round.max(account.round);
                in_debt += 1;
            }
            self.leave(tenant);
            // A fresh one that wants nothing more stands in the backlog once, so that it is not fresh again before the others
            // have had a turn.
            if is_ready || (was_fresh && self.backlog_count > 0) {
                self.queue_up(tenant);
            }
        }
    }

    /// Its calls used, or will probably use, this much worker time; less than nothing: less than was thought.
    #[inline]
    pub fn charge(&mut self, tenant: u32, cost_ns: i64) {
        let account = &mut self.accounts[tenant as usize];
        account.deficit_ns = account.deficit_ns.saturating_sub(cost_ns);
    }

    fn queue_up(&mut self, tenant: u32) {
        self.accounts[tenant as usize].place = Place::Backlog;
        self.backlog.push_back(&mut self.links, tenant);
        self.backlog_count += 1;
    }

    fn leave(&mut self, tenant: u32) {
        let account = &mut self.accounts[tenant as usize];
        match account.place {
            Place::Fresh => self.fresh.remove(&mut self.links, tenant),
            Place::Backlog => {
                self.backlog.remove(&mut self.links, tenant);
                self.backlog_count -= 1;
            }
            Place::Nowhere => {}
        }
        account.place = Place::Nowhere;
    }

    /// Everybody who waits is in debt: as many rounds at once as it takes for the first of them to be out of it.
    #[cold]
    fn pay_debts(&mut self) {
        let rounds_of = |account: &Account| -account.deficit_ns / account.quantum_ns;
        let waiting = || self.accounts.iter().filter(|it| it.is_ready && it.place == Place::Backlog);
        let rounds = waiting().map(rounds_of).min().unwrap_or(0).max(0);
        for account in &mut self.accounts {
            if account.is_ready && account.place == Place::Backlog {
                account.wait(rounds);
                self.round = self.round.max(account.round);
            }
        }
    }

    pub fn invariants(&self, is_ready: impl Fn(u32) -> bool) {
        let fresh = self.fresh.invariants(&self.links);
        assert_eq!(self.backlog.invariants(&self.links), self.backlog_count as usize);
        let mut placed = 0;
        for (tenant, account) in (0..).zip(&self.accounts) {
            assert_eq!(account.is_ready, is_ready(tenant), "tenant {tenant}: ready");
            assert!(!account.is_ready || account.place != Place::Nowhere, "tenant {tenant} waits nowhere");
            placed += usize::from(account.place != Place::Nowhere);
        }
        assert_eq!(placed, fresh + self.backlog_count as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32]) -> Turns {
        let spec = |weight: &u32| TenantSpec { weight: *weight, ..TenantSpec::named("") };
        Turns::new(&weights.iter().map(spec).collect::<Vec<_>>())
    }

    /// Serves whoever is next, with calls of these lengths, all of them ready all the time.
    fn used(weights: &[u32], cost_ns: &[i64], calls: u32) -> Vec<i64> {
        let mut turns = turns(weights);
        (0..weights.len() as u32).for_each(|tenant| turns.set_ready(tenant, true));
        let mut used = vec![0; weights.len()];
        for _ in 0..calls {
            let tenant = turns.next().expect("all are ready");
            turns.charge(tenant, cost_ns[tenant as usize]);
            used[tenant as usize] += cost_ns[tenant as usize];
            turns.invariants(|_| true);
        }
        used
    }

    /// Quanta and calls, in units of weight, that two tenants may be apart.
    fn check(weights: &[u32], cost_ns: &[i64], calls: u32) {
        let used = used(weights, cost_ns, calls);
        let per_weight: Vec<i64> =
            used.iter().zip(weights).map(|(used, weight)| used / i64::from(*weight)).collect();
        let (low, high) = (per_weight.iter().min().unwrap(), per_weight.iter().max().unwrap());
        let slack =
            QUANTUM.0 as i64 + 2 * cost_ns.iter().max().unwrap() / i64::from(*weights.iter().min().unwrap());
        assert!(high - low <= slack, "{used:?} for weights {weights:?}: {per_weight:?}, slack {slack}");
    }

    #[test]
    fn worker_time_follows_the_weights_whatever_the_calls_cost() {
        check(&[1, 1], &[1_000, 1_000], 10_000);
        check(&[1, 1], &[100, 10_000_000], 200_000);
        check(&[1, 3], &[50_000, 70_000], 10_000);
        check(&[1, 10, 100], &[1_000_000, 3_000, 20_000], 200_000);
        check(&[1000, 1], &[5_000, 5_000], 2_000_000);
    }

    #[test]
    fn a_tenant_that_wants_little_does_not_wait_for_a_backlog() {
        // Given: nine tenants that always want more.
        let mut turns = turns(&[1; 10]);
        (1..10).for_each(|tenant| turns.set_ready(tenant, true));
        for _ in 0..1000 {
            let tenant = turns.next().expect("nine are ready");
            turns.charge(tenant, 10_000);
        }

        // Expect: the tenth is next, as often as it comes after all others had a turn.
        for _ in 0..10 {
            turns.set_ready(0, true);
            assert_eq!(turns.next(), Some(0));
            turns.charge(0, 10_000);
            turns.set_ready(0, false);
            for _ in 0..200 {
                let tenant = turns.next().expect("nine are ready");
                assert_ne!(tenant, 0);
                turns.charge(tenant, 10_000);
            }
        }
    }

    #[test]
    fn going_and_coming_earns_no_more_than_a_share() {
        // Given: a tenant that is never ready for more than one call, and one that always is.
        let mut turns = turns(&[1, 1]);
        turns.set_ready(1, true);
        let mut used = [0, 0];
        for _ in 0..100_000 {
            turns.set_ready(0, true);
            let tenant = turns.next().expect("both are ready");
            turns.charge(tenant, 90_000);
            used[tenant as usize] += 90_000;
            turns.set_ready(0, false);
        }

        // Expect
        assert!(used[0] <= used[1] + 2 * QUANTUM.0 as i64, "{used:?}");
    }

    /// Seed 20 of the simulator (`neighbours`): its debt was not paid while it was away, so each call waited for the backlog.
    #[test]
    fn who_calls_seldom_is_next_though_each_of_its_calls_is_longer_than_a_quantum() {
        // Given: calls of 50 quanta, and another tenant that always wants more and has had twice as much since the last of them.
        let mut turns = turns(&[1, 1]);
        turns.set_ready(1, true);
        for _ in 0..2 {
            assert_eq!(turns.next(), Some(1));
            turns.charge(1, QUANTUM.0 as i64);
        }
        for _ in 0..10 {
            turns.set_ready(0, true);
            assert_eq!(turns.next(), Some(0));
            turns.charge(0, 50 * QUANTUM.0 as i64);
            turns.set_ready(0, false);
            for _ in 0..100 {
                assert_eq!(turns.next(), Some(1));
                turns.charge(1, QUANTUM.0 as i64);
            }
        }
    }

    #[test]
    fn a_long_debt_is_paid_in_one_step_by_who_is_alone() {
        let mut turns = turns(&[1, 1]);
        turns.set_ready(0, true);
        assert_eq!(turns.next(), Some(0));
        turns.charge(0, i64::MAX / 4);
        assert_eq!(turns.next(), Some(0), "nobody else wants the time");
    }
}
