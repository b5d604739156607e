//! What a day came to: how busy the processors were, who was served in time, and how evenly.

use super::{DAY_NS, Scale};

/// Half hours of the real day.
pub const SLOT_COUNT: usize = 48;
const SLOT_NS: u64 = DAY_NS / SLOT_COUNT as u64;

/// Sums over a day.
#[derive(Clone, Debug)]
pub struct Figures {
    scale: Scale,
    /// Work asked for in each slot.
    asked_ns: [u64; SLOT_COUNT],
    /// Processor time used in each slot.
    busy_ns: [u64; SLOT_COUNT],
    calls_by_criticality: [u64; 4],
    in_time_by_criticality: [u64; 4],
    asked_by_tenant: Vec<u64>,
    done_by_tenant: Vec<u64>,
}

impl Figures {
    pub(super) fn new(scale: Scale) -> Figures {
        let tenants = vec![0; scale.tenant_count as usize];
        Figures {
            scale,
            asked_ns: [0; SLOT_COUNT],
            busy_ns: [0; SLOT_COUNT],
            calls_by_criticality: [0; 4],
            in_time_by_criticality: [0; 4],
            asked_by_tenant: tenants.clone(),
            done_by_tenant: tenants,
        }
    }

    pub(super) fn asked(&mut self, now_ns: u64, tenant: u32, criticality: u8, run_ns: u64) {
        self.asked_ns[(now_ns / SLOT_NS) as usize] += run_ns;
        self.calls_by_criticality[usize::from(criticality)] += 1;
        self.asked_by_tenant[tenant as usize] += run_ns;
    }

    /// A processor was busy. What lies behind midnight is of another day.
    pub(super) fn ran(&mut self, from_ns: u64, to_ns: u64) {
        let mut from_ns = from_ns;
        let to_ns = to_ns.min(DAY_NS);
        while from_ns < to_ns {
            let slot = from_ns / SLOT_NS;
            let end_ns = to_ns.min((slot + 1) * SLOT_NS);
            self.busy_ns[slot as usize] += end_ns - from_ns;
            from_ns = end_ns;
        }
    }

    pub(super) fn in_time(&mut self, tenant: u32, criticality: u8, run_ns: u64) {
        self.in_time_by_criticality[usize::from(criticality)] += 1;
        self.done_by_tenant[tenant as usize] += run_ns;
    }

    /// Calls of the day.
    pub fn call_count(&self) -> u64 {
        self.calls_by_criticality.iter().sum()
    }

    /// Of all processors, by slot.
    pub fn utilisation(&self) -> [f64; SLOT_COUNT] {
        let whole_ns = f64::from(self.scale.worker_count) * SLOT_NS as f64;
        self.busy_ns.map(|busy_ns| busy_ns as f64 / whole_ns)
    }

    /// Work asked for, in the same unit: above 1 it is more than there is.
    pub fn demand(&self) -> [f64; SLOT_COUNT] {
        let whole_ns = f64::from(self.scale.worker_count) * SLOT_NS as f64;
        self.asked_ns.map(|asked_ns| asked_ns as f64 / whole_ns)
    }

    /// Over the day.
    pub fn utilisation_mean(&self) -> f64 {
        self.utilisation().iter().sum::<f64>() / SLOT_COUNT as f64
    }

    /// The busiest slot over the least busy one.
    pub fn peak_to_trough(&self) -> f64 {
        let utilisation = self.utilisation();
        let (most, least) = utilisation
            .iter()
            .fold((0.0, f64::MAX), |(most, least): (f64, f64), share| (most.max(*share), least.min(*share)));
        most / least
    }

    /// Work that was done in time, of all that was asked for.
    pub fn useful(&self) -> f64 {
        self.done_by_tenant.iter().sum::<u64>() as f64 / self.asked_by_tenant.iter().sum::<u64>() as f64
    }

    /// Calls without a result in time, low first.
    pub fn missed(&self) -> [f64; 4] {
        std::array::from_fn(|index| {
            1.0 - self.in_time_by_criticality[index] as f64 / self.calls_by_criticality[index].max(1) as f64
        })
    }

    /// Jain's index of what each tenant got of what it asked for: 1 for equal shares, 1/n if one of n gets everything
    /// (Jain, Chiu, Hawe, DEC TR-301, 1984).
    pub fn fairness(&self) -> f64 {
        let shares = self.done_by_tenant.iter().zip(&self.asked_by_tenant);
        let shares =
            shares.filter(|(_, asked)| **asked > 0).map(|(done, asked)| *done as f64 / *asked as f64);
        let (count, sum, squares) = shares.fold((0.0, 0.0, 0.0), |(count, sum, squares), share| {
            (count + 1.0, sum + share, squares + share * share)
        });
        if squares == 0.0 { 1.0 } else { sum * sum / (count * squares) }
    }

    /// A row of the page's table.
    pub fn row(&self, name: &str) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let [low, normal, high, critical] = self.missed().map(percent);
        format!(
            "| {name} | {} | {:.2} | {} | {critical} | {high} | {normal} | {low} | {:.3} |",
            percent(self.utilisation_mean()),
            self.peak_to_trough(),
            percent(self.useful()),
            self.fairness()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { worker_count: 2, function_count: 1, tenant_count: 4 };

    #[test]
    fn equal_shares_are_fair_and_one_who_gets_everything_is_not() {
        let mut figures = Figures::new(SCALE);
        (0..4).for_each(|tenant| figures.asked(0, tenant, 0, 100));
        figures.in_time(0, 0, 100);
        assert_eq!(figures.fairness(), 0.25);
        (1..4).for_each(|tenant| figures.in_time(tenant, 0, 100));
        assert_eq!(figures.fairness(), 1.0);
        assert_eq!(figures.missed()[0], 0.0);
    }

    #[test]
    fn busy_time_is_counted_in_the_slots_it_lies_in() {
        let mut figures = Figures::new(SCALE);
        figures.ran(SLOT_NS / 2, SLOT_NS * 2);
        figures.ran(DAY_NS - SLOT_NS, DAY_NS + SLOT_NS);
        let utilisation = figures.utilisation();
        assert_eq!((utilisation[0], utilisation[1], utilisation[2]), (0.25, 0.5, 0.0));
        assert_eq!(utilisation[SLOT_COUNT - 1], 0.5);
    }
}
