//! A breaker as its operator understands it: a list of verdicts, and three ways to be.

use engine::BreakerSpec;

/// Slices of its window, on the clock's grid: what is counted is at most one of them older than it should be.
const SLICE_COUNT: u64 = 8;

#[derive(Debug)]
pub struct Breaker {
    spec: BreakerSpec,
    is: Is,
}

#[derive(Debug)]
enum Is {
    /// When runs ended, and whether they failed.
    Closed {
        verdicts: Vec<(u64, bool)>,
    },
    Open {
        since_ns: u64,
    },
    HalfOpen {
        since_ns: u64,
        probed_at_ns: u64,
        probes: u32,
        well: u32,
    },
}

impl Breaker {
    pub fn new(spec: BreakerSpec) -> Breaker {
        Breaker { spec, is: Is::Closed { verdicts: Vec::new() } }
    }

    pub fn refuses(&self, now_ns: u64) -> bool {
        match self.is {
            Is::Closed { .. } => false,
            Is::Open { since_ns } => now_ns < since_ns + self.spec.open_for.0,
            Is::HalfOpen { probed_at_ns, probes, .. } => {
                probes >= self.spec.probes_max && now_ns < probed_at_ns + self.spec.open_for.0
            }
        }
    }

    pub fn admitted(&mut self, now_ns: u64) {
        match &mut self.is {
            Is::Closed { .. } => {}
            Is::HalfOpen { probes, probed_at_ns, .. } if *probes < self.spec.probes_max => {
                *probes += 1;
                *probed_at_ns = now_ns;
            }
            Is::Open { .. } | Is::HalfOpen { .. } => {
                self.is = Is::HalfOpen { since_ns: now_ns, probed_at_ns: now_ns, probes: 1, well: 0 };
            }
        }
    }

    /// Whether it opens.
    pub fn ran(&mut self, now_ns: u64, admitted_at_ns: u64, has_failed: bool) -> bool {
        let opens = match &mut self.is {
            Is::Closed { verdicts } => {
                verdicts.push((now_ns, has_failed));
                let slice_ns = (self.spec.window.0 / SLICE_COUNT).max(1);
                let is_young = |at_ns: u64| at_ns / slice_ns + SLICE_COUNT > now_ns / slice_ns;
                verdicts.retain(|(at_ns, _)| is_young(*at_ns));
                let failures = verdicts.iter().filter(|(_, has_failed)| *has_failed).count() as u64;
                let count = verdicts.len() as u64;
                has_failed
                    && count >= self.spec.calls_min.into()
                    && failures * 100 >= u64::from(self.spec.failure_percent) * count
            }
            Is::HalfOpen { since_ns, .. } if has_failed => admitted_at_ns >= *since_ns,
            Is::HalfOpen { since_ns, well, .. } if admitted_at_ns >= *since_ns => {
                *well += 1;
                if *well >= self.spec.probes_max {
                    self.is = Is::Closed { verdicts: Vec::new() };
                }
                false
            }
            Is::HalfOpen { .. } | Is::Open { .. } => false,
        };
        if opens {
            self.is = Is::Open { since_ns: now_ns };
        }
        opens
    }
}
