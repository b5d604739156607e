//! Whose turn it was: among the calls of a function that wait, criticality first, then the deadline within a bound; and
//! one push in so many for the one that has waited longest.

use std::collections::BTreeMap;

use super::{Call, CallKey, Oracle, TICK_NS};
use crate::contract::{Broken, Contract};

/// By how much more than twice its remaining time a call may be overtaken: the width of the tightest bucket, which
/// also covers the timer tick by which a call may move late. See `docs/decisions/0004-deadline-buckets.md`.
const SLACK_NS: u64 = 1 << 21;
/// While aged calls wait, one push in this many is of the oldest of them. See `docs/decisions/0016-ageing.md`.
const TURN_EVERY: u32 = 8;

impl Oracle {
    /// A call was pushed: who waits and should have come before it?
    pub(super) fn check_turn(&mut self, now_ns: u64, key: CallKey, call: &Call) -> Result<(), Broken> {
        let number = call.function;
        let queue = (key.shard(), number);
        let pushes = self.pushes_since_turn.entry(queue).or_insert(0);
        *pushes += 1;
        if let Some(what) = self.passed_over(now_ns, key, call) {
            let ageing_ns = self.ageing_ns(number);
            let is_turn_of_aged = ageing_ns
                .is_some_and(|ageing_ns| now_ns - call.admitted_at_ns >= ageing_ns)
                && self.pushes_since_turn.insert(queue, 0).is_some_and(|pushes| pushes >= TURN_EVERY);
            self.judge.check(Contract::Order, is_turn_of_aged, || what)?;
        }
        self.calls.entry(key).and_modify(|call| call.pushes_left = None);
        for other_key in &self.waiting {
            let is_there = |other: &&mut Call| (other_key.shard(), other.function) == queue;
            let Some(other) = self.calls.get_mut(other_key).filter(is_there) else { continue };
            let Some(left) = &mut other.pushes_left else { continue };
            *left = left.saturating_sub(1);
            let is_due = *left > 0 || other.deadline_at_ns <= now_ns;
            self.judge.check(Contract::Ageing, is_due, || {
                format!("{other_key:?} has aged, and {key:?} came before it though its turn was due")
            })?;
        }
        Ok(())
    }

    fn passed_over(&self, now_ns: u64, key: CallKey, call: &Call) -> Option<String> {
        let remaining_ns = call.deadline_at_ns.saturating_sub(now_ns);
        for other_key in &self.waiting {
            let other = &self.calls[other_key];
            // Who is past the deadline cannot be overtaken any more: it will be answered expired.
            let is_there = (other_key.shard(), other.function) == (key.shard(), call.function);
            if !is_there || other.deadline_at_ns <= now_ns {
                continue;
            }
            if other.criticality > call.criticality {
                let (mine, its) = (call.criticality, other.criticality);
                return Some(format!("{key:?} (criticality {mine}) overtook {other_key:?} ({its})"));
            }
            let other_remaining_ns = other.deadline_at_ns - now_ns;
            let is_bound_kept = remaining_ns <= 2 * other_remaining_ns + SLACK_NS;
            if other.criticality == call.criticality && !is_bound_kept {
                let (mine_us, its_us) = (remaining_ns / 1_000, other_remaining_ns / 1_000);
                return Some(format!(
                    "{key:?} with {mine_us} us left overtook {other_key:?} with {its_us} us left"
                ));
            }
        }
        None
    }

    /// A shard looked at its timers: from now on each call that has surely aged has its turn within the bound, which is
    /// eight pushes for itself and for each that may have aged before it.
    pub(super) fn note_aged(&mut self, now_ns: u64, shard: u8) {
        let mut aged_counts: BTreeMap<u32, u32> = BTreeMap::new();
        for key in self.waiting.iter().filter(|key| key.shard() == shard) {
            let call = &self.calls[key];
            if self
                .ageing_ns(call.function)
                .is_some_and(|ageing_ns| now_ns - call.admitted_at_ns >= ageing_ns)
            {
                *aged_counts.entry(call.function).or_default() += 1;
            }
        }
        for key in self.waiting.iter().filter(|key| key.shard() == shard) {
            let call = &self.calls[key];
            let Some(ageing_ns) = self.ageing_ns(call.function) else { continue };
            let ages_at_ns = (call.admitted_at_ns + ageing_ns).max(call.waits_since_ns);
            if call.pushes_left.is_none() && now_ns >= ages_at_ns + TICK_NS {
                let pushes_left = TURN_EVERY * aged_counts[&call.function];
                self.calls.entry(*key).and_modify(|call| call.pushes_left = Some(pushes_left));
            }
        }
    }
}
