//! What will happen in a run, worked out before it begins: a list of events, each with numbers of its own.
//!
//! In: a seed, a scenario, a length.  Out: events by index.
//! Always: the same seed gives the same list, and an event does the same whatever was left out before it, as far as
//! the world lets it. That makes a failure shrinkable: leave out events and shorten waits, and run again.
//! Never: looks at the world. "Which worker" is a number that is reduced to those there are when the event happens.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::chance::Chance;
use crate::scenario::Scenario;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Time passes, for at most 8 ms.
    Pass,
    /// Clients make a few calls.
    Submit,
    /// A client takes a call back.
    Cancel,
    /// A client is gone, with all that it waits for.
    LoseClient,
    /// The shim looks after its places.
    Shim,
    /// Every process does a few steps.
    Work,
    /// One process does one step.
    WorkOne,
    /// The router's turn.
    Turn,
    /// One client makes many calls of one function.
    Flood,
    /// A client sends numbers that mean nothing.
    Hostile,
    /// kill -9 of a function process.
    KillWorker,
    /// A process closes its socket and lives on.
    CloseSocket,
    /// A process stands still.
    Stall,
    /// A process writes anything anywhere in its ring.
    Scribble,
    /// kill -9 of the router; another one comes after a while.
    KillRouter,
    /// kill -9 of the shim, with which its processes die.
    KillShim,
    /// The host was suspended: the clock is further for everybody.
    Jump,
    /// What functions need downstream is slow for a while.
    Overload,
    /// The processes of a function die as fast as they are started, for a while.
    CrashLoop,
    /// Another configuration is applied.
    Reload,
    /// Several clients make the same call.
    Herd,
    /// A client makes calls that start later.
    Later,
    /// A client is lent credits of a worker, for a lane of its own.
    Lease,
    /// A lane ends.
    EndLease,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// How long, where that means something: ns.
    pub length_ns: u64,
    /// Where everything else that the event leaves open comes from.
    pub salt: u64,
}

/// The events of a run.
pub fn plan(seed: u64, scenario: &Scenario, steps: u32) -> Vec<Event> {
    // A stream of its own, so that more events do not change what the functions are like.
    let mut chance = Chance::new(seed ^ 0x504C_414E);
    let total: u32 = scenario.weights.iter().map(|(_, weight)| weight).sum();
    (0..steps)
        .map(|_| {
            let mut left = chance.below(u64::from(total)) as u32;
            let kind = scenario.weights.iter().find_map(|(kind, weight)| {
                let is_it = left < *weight;
                left = left.saturating_sub(*weight);
                is_it.then_some(*kind)
            });
            let kind = kind.expect("a draw below the sum of the weights meets one of them");
            let bits_max = match kind {
                Kind::Pass => 23,
                Kind::Jump => 33,
                Kind::Stall | Kind::Overload => 32,
                Kind::CrashLoop => 36,
                Kind::KillRouter | Kind::KillShim => 30,
                _ => 10,
            };
            Event { kind, length_ns: chance.length(bits_max), salt: chance.next() }
        })
        .collect()
}

/// Which events of a plan happen, and how much shorter they are: `3,8-11,17/4` are the events 3, 8 to 11, and 17 with a
/// quarter of its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep(Vec<Kept>);

/// One event that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place in the plan.
    pub index: u32,
    /// What its length is divided by.
    pub divisor: u64,
}

impl Keep {
    /// All events of a plan of this length.
    pub fn all(steps: u32) -> Keep {
        Keep((0..steps).map(|index| Kept { index, divisor: 1 }).collect())
    }

    /// Only these.
    pub fn only(kept: Vec<Kept>) -> Keep {
        Keep(kept)
    }

    /// In order.
    pub fn kept(&self) -> &[Kept] {
        &self.0
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(RangeInclusive<u32>, u64)> = Vec::new();
        for Kept { index, divisor } in &self.0 {
            match runs.last_mut() {
                Some((run, of)) if *run.end() + 1 == *index && of == divisor => {
                    *run = *run.start()..=*index;
                }
                _ => runs.push((*index..=*index, *divisor)),
            }
        }
        for (number, (run, divisor)) in runs.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(out, "{comma}{}", run.start())?;
            if run.start() != run.end() {
                write!(out, "-{}", run.end())?;
            }
            if *divisor != 1 {
                write!(out, "/{divisor}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Keep, String> {
        let mut kept = Vec::new();
        for part in text.split(',') {
            let wrong = |_| format!("{part:?} is not of the form 3, 8-11, 17/4 or 8-11/2");
            let (run, divisor) = part.split_once('/').unwrap_or((part, "1"));
            let (start, end) = run.split_once('-').unwrap_or((run, run));
            let divisor = divisor.parse::<u64>().map_err(wrong)?.max(1);
            let run = start.parse::<u32>().map_err(wrong)?..=end.parse::<u32>().map_err(wrong)?;
            kept.extend(run.map(|index| Kept { index, divisor }));
        }
        if !kept.is_sorted_by_key(|kept| kept.index) {
            return Err("events are kept in their order".to_owned());
        }
        Ok(Keep(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    #[test]
    fn a_seed_gives_one_plan_and_every_kind_of_its_scenario_happens() {
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.crowd.is_none()) {
            let events = plan(5, scenario, 20_000);
            let again = plan(5, scenario, 20_000);
            assert!(events.iter().zip(&again).all(|(left, right)| left.salt == right.salt));
            for (kind, _) in scenario.weights {
                assert!(events.iter().any(|event| event.kind == *kind), "{}: no {kind:?}", scenario.name);
            }
        }
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_written() {
        let texts = ["0-1999", "3,8-11,17/4", "5/2,6-7/2,9"];
        let written = ["0-1999", "3,8-11,17/4", "5-7/2,9"];
        for (text, written) in texts.iter().zip(written) {
            let keep: Keep = text.parse().expect("a list of events");
            assert_eq!(keep.to_string(), written);
            assert_eq!(keep.to_string().parse::<Keep>(), Ok(keep));
        }
        assert_eq!(Keep::all(2_000).to_string(), "0-1999");
        for wrong in ["", "a", "3,", "9,3", "1-", "4/x"] {
            assert!(wrong.parse::<Keep>().is_err(), "{wrong:?}");
        }
    }
}
