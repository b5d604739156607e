//! Extra attempts (retries of what may have begun, second attempts at what is slow), counted beside the traffic of which they
//! may be a fraction.

use crate::contract::{Broken, Contract, Judge};

/// Extra attempts that may come beyond the fraction: `engine/src/budget.rs`.
const BURST: u64 = 10;

#[derive(Debug)]
pub struct Budget {
    percent: u8,
    pushes: u64,
    extra: u64,
}

impl Budget {
    pub fn new(percent: u8) -> Budget {
        Budget { percent, pushes: 0, extra: 0 }
    }

    pub fn pushed(&mut self) {
        self.pushes += 1;
    }

    pub fn extra(&mut self, judge: Judge, contract: Contract) -> Result<(), Broken> {
        self.extra += 1;
        let burst = if self.percent == 0 { 0 } else { BURST };
        let extra_max = burst + self.pushes * u64::from(self.percent) / 100;
        judge.check(contract, self.extra <= extra_max, || {
            let Budget { percent, pushes, extra } = self;
            format!("{extra} extra attempts beside {pushes} other pushes, with a budget of {percent} %")
        })
    }
}
