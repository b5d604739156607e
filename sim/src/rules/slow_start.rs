//! Slow start: how many calls each window had, from the beginning of time.

use std::collections::BTreeMap;

use engine::SlowStart;

#[derive(Debug)]
pub struct Windows {
    spec: SlowStart,
    counts: BTreeMap<u64, u64>,
}

impl Windows {
    pub fn new(spec: SlowStart) -> Windows {
        Windows { spec, counts: BTreeMap::new() }
    }

    /// Whether the window that is now has all it may have: what the one before had, grown, or what is always allowed.
    pub fn is_full(&self, now_ns: u64) -> bool {
        let window = now_ns / self.spec.window.0;
        let count_of = |window| self.counts.get(&window).copied().unwrap_or(0);
        let before = window.checked_sub(1).map_or(0, count_of);
        let grown = before * (100 + u64::from(self.spec.growth_percent)) / 100;
        count_of(window) >= grown.max(self.spec.calls_min.into())
    }

    pub fn admitted(&mut self, now_ns: u64) {
        *self.counts.entry(now_ns / self.spec.window.0).or_default() += 1;
    }
}
