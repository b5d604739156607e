//! Makes a failure small: leaves out events and shortens waits, as long as the same thing still breaks.
//!
//! In: a seed that fails.  Out: the fewest events found with which it still does (delta debugging: Zeller and Hildebrandt,
//! "Simplifying and isolating failure-inducing input", IEEE TSE 2002).
//! Always: bounded by [`RUNS_MAX`], and the same every time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::contract::{Broken, Contract};
use crate::crowd::Crowd;
use crate::history::History;
use crate::plan::{Keep, Kept};
use crate::totals::Totals;
use crate::world::{Options, World};

/// Runs at most: about half a minute of the longest.
const RUNS_MAX: u32 = 3_000;
/// What a wait is divided by, one after the other.
const DIVISORS: [u64; 3] = [1_000_000, 64, 4];

/// How a run failed.
#[derive(Debug)]
pub struct Failure {
    /// None: an assertion of ours.
    pub contract: Option<Contract>,
    /// What was seen.
    pub what: String,
    /// Events that had happened.
    pub event_count: usize,
    pub history: History,
}

/// One run, in which a broken assertion of ours is a failure like others.
pub fn run(options: Options, keep: &Keep) -> Result<Totals, Failure> {
    match options.scenario.crowd {
        None => {
            let mut world = World::new(options);
            let result = catch_unwind(AssertUnwindSafe(|| world.run(keep)));
            told(result, world.event_count, &mut world.history)
        }
        Some(matter) => {
            let mut crowd = Crowd::new(options, matter);
            let result = catch_unwind(AssertUnwindSafe(|| crowd.run(keep)));
            told(result, crowd.event_count, &mut crowd.history)
        }
    }
}

/// How a run ended, of which this is left.
fn told(
    result: std::thread::Result<Result<Totals, Broken>>,
    event_count: usize,
    history: &mut History,
) -> Result<Totals, Failure> {
    let (contract, what) = match result {
        Ok(Ok(totals)) => return Ok(totals),
        Ok(Err(broken @ Broken { contract, .. })) => (Some(contract), broken.to_string()),
        Err(panic) => (None, format!("an assertion failed: {}", text_of(&*panic))),
    };
    Err(Failure { contract, what, event_count, history: std::mem::take(history) })
}

/// A shorter list of events that breaks the same, and how many runs that took.
pub fn shrink(options: Options, keep: Keep, first: &Failure) -> (Keep, u32) {
    let still_breaks = |kept: &[Kept]| {
        let result = run(options, &Keep::only(kept.to_vec()));
        result.is_err_and(|failure| failure.contract == first.contract)
    };
    let mut shrinker = Shrinker { still_breaks, run_count: 0 };
    // What came after the failure had no part in it.
    let mut kept = keep.kept().to_vec();
    kept.truncate(first.event_count);
    shrinker.shrink(&mut kept);
    (Keep::only(kept), shrinker.run_count)
}

struct Shrinker<F> {
    still_breaks: F,
    run_count: u32,
}

impl<F: FnMut(&[Kept]) -> bool> Shrinker<F> {
    fn shrink(&mut self, kept: &mut Vec<Kept>) {
        let mut size = kept.len().div_ceil(2).max(1);
        loop {
            let before = kept.len();
            self.leave_out(kept, size);
            if size > 1 {
                size = size.div_ceil(2);
            } else if kept.len() == before || self.is_tired() {
                break;
            }
        }
        self.shorten(kept);
    }

    /// Leaves out pieces of this many events, from the end, where it makes no difference.
    fn leave_out(&mut self, kept: &mut Vec<Kept>, size: usize) {
        let mut end = kept.len();
        while end > 0 && !self.is_tired() {
            let start = end.saturating_sub(size);
            let mut fewer = kept.clone();
            fewer.drain(start..end);
            if self.breaks(&fewer) {
                *kept = fewer;
            }
            end = start;
        }
    }

    /// Shortens the waits of what is left.
    fn shorten(&mut self, kept: &mut [Kept]) {
        for position in 0..kept.len() {
            for divisor in DIVISORS {
                let before = std::mem::replace(&mut kept[position].divisor, divisor);
                if !self.is_tired() && self.breaks(kept) {
                    break;
                }
                kept[position].divisor = before;
            }
        }
    }

    fn breaks(&mut self, kept: &[Kept]) -> bool {
        self.run_count += 1;
        (self.still_breaks)(kept)
    }

    fn is_tired(&self) -> bool {
        self.run_count >= RUNS_MAX
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no text)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_events_that_matter_are_left_and_their_waits_are_short() {
        // Given a failure that needs the events 700, 705 and 1,900, and a wait of at least a quarter in the last.
        let still_breaks = |kept: &[Kept]| {
            let divisor = |index| kept.iter().find(|kept| kept.index == index).map(|kept| kept.divisor);
            divisor(700).is_some() && divisor(705).is_some() && divisor(1_900).is_some_and(|by| by <= 4)
        };
        let mut shrinker = Shrinker { still_breaks, run_count: 0 };
        let mut kept = Keep::all(2_000).kept().to_vec();

        shrinker.shrink(&mut kept);

        let by_most = DIVISORS[0];
        assert_eq!(Keep::only(kept).to_string(), format!("700/{by_most},705/{by_most},1900/4"));
        assert!(shrinker.run_count < 200, "{} runs", shrinker.run_count);
    }

    #[test]
    fn a_failure_that_needs_everything_is_given_up_in_time() {
        let mut shrinker = Shrinker { still_breaks: |kept: &[Kept]| kept.len() == 5_000, run_count: 0 };
        let mut kept = Keep::all(5_000).kept().to_vec();
        shrinker.shrink(&mut kept);
        assert_eq!((kept.len(), shrinker.run_count), (5_000, RUNS_MAX));
    }
}
