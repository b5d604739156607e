//! `sim --flood FILE`: how long calls of tenants within their share wait on a host, with and without one that floods it.
//!
//! In: nothing but a seed.  Out: delays of both, beside the bound of docs/decisions/0018-fairness.md; a drawing.
//! Always: the same calls of the others in both: arrivals and run times are drawn from a stream for each tenant.
//! Modelled: ten tenants of one weight and four places. Nine call at random, for a quarter of their share each; the tenth
//! calls at a pace of [`FLOOD_SHARES`] times its own, evenly, and is refused what its queue does not hold.
//! The bound on each single call is the scenario `neighbours`; here is the figure that the page shows.

use engine::Policy;

use super::{Asked, Crowd, Matter, Tenant, tenant};
use crate::chance::Chance;
use crate::contract::{Broken, Contract};
use crate::world::Options;

mod drawing;

/// Calls of the flood, over what its share of the places can run.
const FLOOD_SHARES: u64 = 1_000;
const TENANT_COUNT: usize = 10;
const PLACES: u32 = 4;
/// A run takes between the half of it and one and a half.
const RUN_NS_MEAN: u64 = 1_000_000;
/// Of its share, what each of the others asks for.
const LOAD: f64 = 0.25;
const QUEUE_COUNT_MAX: u32 = 10_000;

/// What was seen on a host.
#[derive(Debug)]
pub struct Delays {
    /// Of all calls of those that do not flood, shortest first.
    sorted_ns: Vec<u64>,
    /// Calls that were refused: the flood's.
    refused: u64,
}

impl Delays {
    fn percentile_ns(&self, share: f64) -> u64 {
        let last = self.sorted_ns.len().saturating_sub(1);
        self.sorted_ns.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

/// A host without the flood, and the same one with it.
#[derive(Debug)]
pub struct Flood {
    calm: Delays,
    flooded: Delays,
    bound_ns: u64,
}

impl Flood {
    /// Runs both for so long. Broken: the flood moved the delays of the others by more than the bound.
    pub fn run(options: Options, length_ns: u64) -> Result<Flood, Broken> {
        let calm = delays(options, length_ns, false)?;
        let flooded = delays(options, length_ns, true)?;
        let crowd = host(options);
        let flood = Flood { calm, flooded, bound_ns: crowd.delay_max_ns(1) };
        let (calm_ns, flooded_ns) = (flood.calm.percentile_ns(0.99), flood.flooded.percentile_ns(0.99));
        let is_bounded = flooded_ns.saturating_sub(calm_ns) <= flood.bound_ns;
        options.judge.check(Contract::FairDelay, is_bounded, || {
            format!("a flood moved the p99 of the others' delays from {calm_ns} to {flooded_ns} ns")
        })?;
        Ok(flood)
    }

    /// Rows for the page.
    pub fn rows(&self) -> String {
        let us = |ns: u64| format!("{:.0} us", ns as f64 / 1e3);
        let row = |name: &str, delays: &Delays| {
            let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| us(delays.percentile_ns(share)));
            let (count, refused) = (delays.sorted_ns.len(), delays.refused);
            format!("| {name} | {count} | {p50} | {p99} | {p999} | {most} | {refused} |\n")
        };
        let bound = us(self.bound_ns);
        format!("{}{}the bound: {bound}\n", row("without", &self.calm), row("with", &self.flooded))
    }

    /// The picture as text.
    pub fn draw(&self) -> String {
        drawing::draw(self)
    }
}

fn host(options: Options) -> Crowd {
    let make = |number: usize| -> Tenant {
        let mut tenant = tenant(number, 1, Policy::default());
        tenant.function.queue_count_max = QUEUE_COUNT_MAX;
        tenant.run_ns_min = RUN_NS_MEAN / 2;
        tenant.run_ns_max = RUN_NS_MEAN + RUN_NS_MEAN / 2;
        // The first floods; without a flood its calls are those of one more neighbour.
        tenant.delays = if number == 0 { Asked::Nothing } else { Asked::Length };
        tenant
    };
    Crowd::with(options, Matter::Neighbours, PLACES, (0..TENANT_COUNT).map(make).collect())
}

/// A tenant that calls, and when it does next.
struct Caller {
    at_ns: u64,
    chance: Chance,
}

fn delays(options: Options, length_ns: u64, is_flooded: bool) -> Result<Delays, Broken> {
    let mut crowd = host(options);
    // What the share of one tenant runs takes so long for each call.
    let share_ns = RUN_NS_MEAN * TENANT_COUNT as u64 / u64::from(PLACES);
    let seed_of = |number: u64| options.seed ^ (number << 32);
    let mut callers: Vec<_> = (0..TENANT_COUNT as u64)
        .map(|number| Caller { at_ns: 1, chance: Chance::new(seed_of(number)) })
        .collect();
    loop {
        let next = (0..TENANT_COUNT).min_by_key(|number| callers[*number].at_ns).expect("there are tenants");
        let caller = &mut callers[next];
        let at_ns = caller.at_ns;
        if at_ns >= length_ns {
            break;
        }
        let is_flood = next == 0 && is_flooded;
        let pause_ns = match is_flood {
            true => share_ns / FLOOD_SHARES,
            false => (caller.chance.exponential() * share_ns as f64 / LOAD) as u64,
        };
        caller.at_ns += pause_ns.max(1);
        let run_ns = RUN_NS_MEAN / 2 + caller.chance.below(RUN_NS_MEAN);
        crowd.advance(at_ns)?;
        crowd.ask(0, next, run_ns);
        crowd.moment(at_ns)?;
    }
    crowd.is_over = true;
    crowd.advance(u64::MAX)?;
    let mut sorted_ns = std::mem::take(&mut crowd.totals.delays_ns);
    sorted_ns.sort_unstable();
    let refused = crowd.totals.refusals.values().sum();
    Ok(Delays { sorted_ns, refused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Judge;
    use crate::scenario;

    #[test]
    fn a_flood_of_a_thousand_shares_moves_nobodys_p99_by_more_than_the_bound() {
        let scenario = scenario::named("neighbours").expect("a scenario of this name");
        let options =
            Options { seed: 1, scenario, steps: 0, judge: Judge::default(), is_history_kept: false };
        let flood = Flood::run(options, 2_000_000_000).unwrap_or_else(|broken| panic!("{broken}"));
        let (calm_ns, flooded_ns) = (flood.calm.percentile_ns(0.99), flood.flooded.percentile_ns(0.99));
        assert!(flooded_ns > calm_ns, "the flood is felt");
        // Of each thousand of its calls 999 do not fit.
        assert!(flood.calm.refused == 0 && flood.flooded.refused > 500_000, "{}", flood.flooded.refused);
    }

    #[test]
    fn the_page_shows_the_drawing_and_names_the_command() {
        let page = include_str!("../../../docs/simulation.md");
        assert!(page.contains("cargo run --release -p sim -- --flood docs/simulation-flood.svg"));
        assert!(page.contains("](simulation-flood.svg)"));
    }
}
