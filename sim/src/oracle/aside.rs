//! Calls that stand neither in a queue nor in a ring: they start later, are tried again later, or wait for another one.
//!
//! Always: told by the router as they move, and held here to what each of the three promises: not before its time, not
//! longer than the back-off may be, and to somebody who is still there.

use engine::Nanos;

use super::{Call, CallKey, Oracle, TICK_NS};
use crate::contract::{Broken, Contract};
use crate::router::Stand;

/// Why a call stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// Until the start that its caller gave.
    Starts,
    /// Between two attempts, until then at the latest.
    BacksOff { until_ns: u64 },
    /// Until this one brings a result.
    Joined(CallKey),
}

/// What a function's owner says about the waits between attempts.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    /// The longest before the first retry,
    pub first: Nanos,
    /// and before any.
    pub max: Nanos,
}

impl BackOff {
    /// The longest after so many attempts, of a call with so much time left.
    fn longest_ns(self, attempts: u32, left_ns: u64) -> u64 {
        let doubled = u128::from(self.first.0) << attempts.saturating_sub(1).min(63);
        (doubled.min(self.max.0.into()) as u64).min(left_ns / 2)
    }
}

/// Waits this long say something about how they are spread,
const BACKOFF_NS_MIN: u64 = 1_000_000;
/// if there are so many of them: one run in a million would have nine of ten in one part by chance.
const BACKOFFS_MIN: usize = 10;
/// Equal parts of the longest wait, of which none may have nearly all of them.
const PARTS: u32 = 8;

impl Oracle {
    /// An admitted call did not go into its queue.
    pub fn stands_aside(&mut self, key: CallKey, stand: Stand) {
        let aside = match stand {
            Stand::InLine => return,
            Stand::NotBefore(_) => Aside::Starts,
            Stand::Joined(leader) => Aside::Joined(CallKey { id: leader, ..key }),
        };
        self.waiting.remove(&key);
        self.aside.insert(key, aside);
    }

    /// A call stands elsewhere than it stood. The function whose retry that is, if it is one.
    pub fn stands(
        &mut self,
        now_ns: u64,
        key: CallKey,
        stand: Stand,
        back_off: BackOff,
    ) -> Result<Option<u32>, Broken> {
        let before = self.aside.remove(&key);
        // What its caller has given up stands nowhere for us.
        if !self.owed.contains(&key) || self.calls[&key].was_cancelled {
            return Ok(None);
        }
        let run = match before {
            Some(Aside::Joined(leader)) if self.lost.contains(&leader) => Some(leader),
            _ => self.lost.contains(&key).then_some(key),
        };
        let is_heir = !matches!(stand, Stand::Joined(_));
        let lost =
            run.filter(|run| is_heir || *run == key).filter(|run| self.lost.remove(run)).filter(|_| is_heir);
        self.place(now_ns, key, before, stand, back_off)?;
        let has_lied = lost.is_some_and(|run| self.calls[&run].holder_scribbled);
        let call = self.call(key, "moved")?;
        call.is_retry |= lost.is_some();
        Ok(lost.filter(|_| !has_lied).map(|_| call.function))
    }

    fn place(
        &mut self,
        now_ns: u64,
        key: CallKey,
        before: Option<Aside>,
        stand: Stand,
        back_off: BackOff,
    ) -> Result<(), Broken> {
        match stand {
            Stand::InLine => {
                let start_at_ns = self.calls[&key].start_at_ns;
                let is_early = before == Some(Aside::Starts) && now_ns < start_at_ns;
                self.judge.check(Contract::NotEarly, !is_early, || {
                    format!("{key:?} stands in its queue {} ns before its start", start_at_ns - now_ns)
                })?;
                self.waiting.insert(key);
                self.call(key, "queued")?.waits_since_ns = now_ns;
            }
            Stand::Joined(leader) => {
                _ = self.aside.insert(key, Aside::Joined(CallKey { id: leader, ..key }));
            }
            Stand::NotBefore(due_at) => {
                let call = &self.calls[&key];
                let left_ns = call.deadline_at_ns.saturating_sub(now_ns);
                let longest_ns = back_off.longest_ns(call.push_count, left_ns);
                let wait_ns = due_at.0.saturating_sub(now_ns);
                self.judge.check(Contract::BackOff, wait_ns <= longest_ns, || {
                    format!("{key:?} backs off for {wait_ns} ns, more than {longest_ns} ns")
                })?;
                if longest_ns >= BACKOFF_NS_MIN {
                    self.backoffs.push((wait_ns * 1_000 / longest_ns) as u32);
                }
                self.aside.insert(key, Aside::BacksOff { until_ns: now_ns + longest_ns });
            }
        }
        Ok(())
    }

    /// Calls of this queue whose start is still to come.
    pub fn later_count(&self, queue: super::Queue) -> u32 {
        let later = self
            .aside
            .iter()
            .filter(|(key, aside)| **aside == Aside::Starts && self.queue_of(**key) == queue);
        later.count() as u32
    }

    /// After a turn of this shard: does anybody stand aside for longer than there is a reason?
    pub(super) fn check_aside(&self, now_ns: u64, shard: u8) -> Result<(), Broken> {
        for (key, aside) in self.aside.iter().filter(|(key, _)| key.shard() == shard) {
            let (contract, is_right) = match aside {
                Aside::Starts => (Contract::NotEarly, now_ns < self.calls[key].start_at_ns + TICK_NS),
                Aside::BacksOff { until_ns } => (Contract::BackOff, now_ns < until_ns + TICK_NS),
                Aside::Joined(leader) => (Contract::OneRun, self.is_somewhere(*leader)),
            };
            self.judge.check(contract, is_right, || format!("{key:?} stands aside too long: {aside:?}"))?;
        }
        Ok(())
    }

    fn is_somewhere(&self, key: CallKey) -> bool {
        self.held.contains_key(&key) || self.waiting.contains(&key) || self.aside.contains_key(&key)
    }

    /// A call is given to a worker, or begins.
    pub(super) fn check_start(&self, now_ns: u64, key: CallKey, call: &Call) -> Result<(), Broken> {
        self.judge.check(Contract::NotEarly, now_ns >= call.start_at_ns, || {
            format!("{key:?} was to start {} ns later", call.start_at_ns - now_ns)
        })
    }

    /// The run is over: were waits between attempts spread over the whole of what they may be?
    pub(super) fn check_backoffs(&self) -> Result<(), Broken> {
        let count = self.backoffs.len();
        let part_of = |backoff: &u32| (backoff * PARTS / 1_000).min(PARTS - 1);
        let in_part = |part| self.backoffs.iter().filter(|backoff| part_of(backoff) == part).count();
        let fullest = (0..PARTS).map(in_part).max().unwrap_or(0);
        self.judge.check(Contract::BackOff, count < BACKOFFS_MIN || fullest * 10 < count * 9, || {
            format!("of {count} waits {fullest} end in one eighth of the longest")
        })
    }
}
