//! A canary: a share of a function's calls goes to another function, which is its next version.
//!
//! In: calls of a function.  Out: for each of them, which of the two functions it is a call of.
//! Always: decided once, before anything else is asked, and never again: a call is a call of that function from there on, in its
//! queue, with its workers, limits and counters, and ends with the version it began with.
//! Always: of any hundred calls in a row exactly `percent` go to the canary, as evenly spaced as they can be; no chance is in it.
//! Calls with an idempotency key are told apart by it instead, so that equal keys meet in one version, where they are one call.
//! Always: a canary gets nothing before its first process has attached, if it keeps any without calls, and while its processes keep
//! failing. What it does to calls that it takes is its breaker's business, whose fallback can be the function that they were meant for.
//! Never: followed twice: the canary of a canary is not asked.
//! Why a function and not a second program of one: whatever can be said of a function, limits, breaker, pool, log, can then be said of
//! a version, and the path of a call learns nothing new. See docs/decisions/0036-canary.md.  Tests: `tests/canary.rs`.

use protocol::FunctionId;

use crate::Engine;
use crate::admission::Request;
use crate::counters::Counter;
use crate::join::IdempotencyKey;
use crate::policy::Checks;

/// Which function gets a share of another one's calls, and how large a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanarySpec {
    /// The next version.
    pub function: FunctionId,
    /// Of a hundred calls, up to 100.
    pub percent: u8,
}

/// The calls of a function, as far as their share is concerned.
#[derive(Debug)]
pub(crate) struct Canary {
    spec: CanarySpec,
    /// `percent` for each call since the canary's last one: at a hundred the next is due. Below a hundred between two calls.
    debt: u32,
}

const WHOLE: u32 = 100;

impl Canary {
    pub fn new(spec: CanarySpec) -> Canary {
        Canary { spec, debt: 0 }
    }

    /// How many calls come before the canary's next one, up to `wanted`.
    pub fn room(&self, wanted: u32) -> u32 {
        match u32::from(self.spec.percent) {
            0 => wanted,
            percent => wanted.min((WHOLE - self.debt).div_ceil(percent) - 1),
        }
    }

    /// Counts so many calls, none of which is the canary's.
    pub fn take_many(&mut self, count: u32) {
        self.debt += count * u32::from(self.spec.percent);
        debug_assert!(self.debt < WHOLE, "one of these calls was the canary's");
    }

    /// Counts a call. True: it is the canary's.
    fn take(&mut self) -> bool {
        self.debt += u32::from(self.spec.percent);
        let is_due = self.debt >= WHOLE;
        self.debt -= if is_due { WHOLE } else { 0 };
        is_due
    }

    /// The same for a call with a key: the same answer for each call with that key.
    fn takes(&self, key: &IdempotencyKey) -> bool {
        // Keys may be counters, so that their bits have to be mixed: multiplicative hashing, Knuth, The Art of Computer Programming,
        // volume 3, section 6.4, with a constant of the golden ratio for 128 bits.
        let mixed = u128::from_le_bytes(*key).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let share = ((mixed >> 96) as u64 * u64::from(WHOLE)) >> 32;
        share < u64::from(self.spec.percent)
    }
}

impl Engine {
    /// The request as a call of the version that it goes to.
    pub(crate) fn choose_version(&mut self, request: Request, key: Option<&IdempotencyKey>) -> Request {
        let function = self.functions.get_mut(request.function.0 as usize);
        let Some(canary) = function.and_then(|function| function.canary.as_mut()) else { return request };
        let is_due = match key {
            Some(key) => canary.takes(key),
            None => canary.take(),
        };
        let number = canary.spec.function;
        let can_serve = self.functions.get(number.0 as usize).is_some_and(|next| {
            let may_have_none = next.spec.pool.is_some_and(|pool| pool.min == 0);
            let is_there = !next.members.is_empty() || may_have_none;
            is_there && !next.is_failing && !next.checks.has(Checks::RETIRED)
        });
        if !is_due || !can_serve {
            return request;
        }
        self.counters.count(Counter::CallsToCanary);
        Request { function: number, ..request }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(percent: u8) -> Canary {
        Canary::new(CanarySpec { function: FunctionId(1), percent })
    }

    #[test]
    fn of_a_hundred_calls_in_a_row_the_share_is_exact_wherever_they_begin() {
        for percent in 0..=100 {
            let mut canary = canary(percent);
            let taken: Vec<bool> = (0..300).map(|_| canary.take()).collect();
            for hundred in taken.windows(100) {
                let count = hundred.iter().filter(|is_taken| **is_taken).count();
                assert_eq!(count, usize::from(percent));
            }
        }
    }

    #[test]
    fn room_says_how_many_calls_come_before_the_next_of_the_canary() {
        for percent in 0..=100 {
            let mut canary = canary(percent);
            for _ in 0..200 {
                let room = canary.room(64);
                canary.take_many(room);
                if room < 64 {
                    assert!(canary.take(), "{percent} %: the next one is due");
                }
            }
        }
    }

    #[test]
    fn keys_that_count_up_are_shared_out_about_as_wanted() {
        for percent in [1, 10, 50] {
            let canary = canary(percent);
            let taken = (0..10_000_u128).filter(|key| canary.takes(&key.to_le_bytes())).count();
            let expected = 100 * usize::from(percent);
            assert!(taken.abs_diff(expected) < expected / 5 + 20, "{taken} of 10,000 at {percent} %");
        }
        assert_eq!((0..1000_u128).filter(|key| canary(0).takes(&key.to_le_bytes())).count(), 0);
        assert_eq!((0..1000_u128).filter(|key| canary(100).takes(&key.to_le_bytes())).count(), 1000);
    }
}
