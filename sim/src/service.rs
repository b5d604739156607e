//! How long a function runs: the distributions that queues are usually studied with.
//!
//! Always: a drawn time is at least 1 ns and at most [`RUN_NS_MAX`], so that a long tail cannot outlast a run.

use crate::chance::Chance;

/// Ten minutes: longer than any time-out here.
pub const RUN_NS_MAX: u64 = 600_000_000_000;

/// One distribution of run times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServiceTime {
    /// Always the same.
    Constant { ns: u64 },
    /// Without memory: many short, few long.
    Exponential { mean_ns: u64 },
    /// What real functions look like: the logarithm is normal.
    Lognormal { median_ns: u64, sigma: f64 },
    /// Two kinds of calls under one name, as hits and misses of a cache.
    Bimodal { quick_ns: u64, slow_ns: u64, slow_per_mille: u64 },
}

impl ServiceTime {
    /// Any of them, from microseconds to some 16 ms.
    pub fn any(chance: &mut Chance) -> ServiceTime {
        let scale_ns = chance.length(24);
        match chance.below(4) {
            0 => ServiceTime::Constant { ns: scale_ns },
            1 => ServiceTime::Exponential { mean_ns: scale_ns },
            2 => ServiceTime::Lognormal { median_ns: scale_ns, sigma: 1.0 },
            _ => ServiceTime::Bimodal {
                quick_ns: scale_ns,
                slow_ns: scale_ns.saturating_mul(50),
                slow_per_mille: 1 + chance.below(200),
            },
        }
    }

    /// Longer than some turns, and for three calls in ten much longer.
    pub fn uneven(chance: &mut Chance) -> ServiceTime {
        let quick_ns = 500_000 + chance.length(18);
        ServiceTime::Bimodal { quick_ns, slow_ns: 10 * quick_ns, slow_per_mille: 300 }
    }

    /// One run.
    pub fn draw_ns(&self, chance: &mut Chance) -> u64 {
        let ns = match *self {
            ServiceTime::Constant { ns } => ns as f64,
            ServiceTime::Exponential { mean_ns } => mean_ns as f64 * chance.exponential(),
            ServiceTime::Lognormal { median_ns, sigma } => median_ns as f64 * (sigma * chance.normal()).exp(),
            ServiceTime::Bimodal { quick_ns, slow_ns, slow_per_mille } => {
                (if chance.per_mille(slow_per_mille) { slow_ns } else { quick_ns }) as f64
            }
        };
        (ns as u64).clamp(1, RUN_NS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of many.
    fn mean_ns(service: ServiceTime) -> f64 {
        match service {
            ServiceTime::Constant { ns } => ns as f64,
            ServiceTime::Exponential { mean_ns } => mean_ns as f64,
            ServiceTime::Lognormal { median_ns, sigma } => median_ns as f64 * (sigma * sigma / 2.0).exp(),
            ServiceTime::Bimodal { quick_ns, slow_ns, slow_per_mille } => {
                let slow_share = slow_per_mille as f64 / 1_000.0;
                quick_ns as f64 * (1.0 - slow_share) + slow_ns as f64 * slow_share
            }
        }
    }

    #[test]
    fn drawn_times_have_the_mean_of_their_distribution() {
        let cases = [
            ServiceTime::Constant { ns: 5_000 },
            ServiceTime::Exponential { mean_ns: 5_000 },
            ServiceTime::Lognormal { median_ns: 5_000, sigma: 0.7 },
            ServiceTime::Bimodal { quick_ns: 1_000, slow_ns: 50_000, slow_per_mille: 100 },
        ];
        for service in cases {
            let mut chance = Chance::new(3);
            let sum: f64 = (0..100_000).map(|_| service.draw_ns(&mut chance) as f64).sum();
            let ratio = sum / 100_000.0 / mean_ns(service);
            assert!((ratio - 1.0).abs() < 0.03, "{service:?}: {ratio} of its mean");
        }
    }
}
