//! Retries of attempts that may have begun, counted beside the traffic of which they may be a fraction.

use crate::contract::{Broken, Contract, Judge};

/// Retries that may come beyond the fraction: `engine/src/budget.rs`.
const BURST: u64 = 10;

#[derive(Debug)]
pub struct Retries {
    percent: u8,
    pushes: u64,
    retries: u64,
}

impl Retries {
    pub fn new(percent: u8) -> Retries {
        Retries { percent, pushes: 0, retries: 0 }
    }

    pub fn pushed(&mut self) {
        self.pushes += 1;
    }

    pub fn retried(&mut self, judge: Judge) -> Result<(), Broken> {
        self.retries += 1;
        let burst = if self.percent == 0 { 0 } else { BURST };
        let retries_max = burst + self.pushes * u64::from(self.percent) / 100;
        judge.check(Contract::RetryBudget, self.retries <= retries_max, || {
            let Retries { percent, pushes, retries } = self;
            format!("{retries} retries beside {pushes} other pushes, with a budget of {percent} %")
        })
    }
}
