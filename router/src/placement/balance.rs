//! The decisions: which shard a new connection belongs to, and how much of a loaded shard's load goes where.
//!
//! ```text
//!            uneven              still, for PATIENCE periods
//!   Even ────────────▶ Uneven ─────────────────────────────▶ Settling ── SETTLE periods ──▶ Even
//!    ▲   (measure)       │          (move)
//!    └──── even again ───┘
//! ```
//! In: what every shard says of itself ([`Seen`]), once a period.  Out: a [`Step`].
//! Always: same inputs, same outputs. No more goes away than brings the giver down to the mean, and of that no more than
//! its part of what the receiver lacks, but for a tenth ([`pick`]): however many give at once, the receiver does not
//! become one that has to give, so that nothing comes back. A connection that is more than that by itself stays: it
//! would only make the other shard the loaded one.
//! Never: moves for the sake of evenness: a shard that has time left serves its connections as well as an idle one.
//! Tests: below, with many shards and random connections.
#![forbid(unsafe_code)]

use engine::ShardId;

use super::Load;

/// Periods that a difference has to last: what is over after 150 ms was a burst.
const PATIENCE: u32 = 3;
/// Periods after a move in which nothing is decided: three half-lives, until the loads have followed.
const SETTLE: u32 = 6;
/// Connections that leave on one decision: a thousand small ones spread over some seconds, and half of an inbox.
pub const MOVES_MAX: usize = 32;

/// When a difference counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// A shard below it is not loaded. From half of a thread's time on, calls begin to wait for each other.
    pub loaded_min: Load,
    /// What another shard must have less. A quarter of a thread, far more than the noise of the measurement.
    pub gap_min: Load,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { loaded_min: Load(500), gap_min: Load(250) }
    }
}

/// What a shard says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How loaded it is.
    pub load: Load,
    /// Its connections.
    pub connections: u32,
    /// It serves, and has room for another connection.
    pub is_open: bool,
}

/// Connections are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Where to.
    pub target: ShardId,
    /// Together at most so much of the giver's load.
    pub load: Load,
    /// What that is a part of.
    pub of: Load,
}

/// What to do in this period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Begin to measure what each connection contributes.
    Measure,
    /// Let some of them go.
    Move(Order),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Even,
    Uneven { periods: u32 },
    Settling { periods: u32 },
}

/// One shard's decisions about its connections.
#[derive(Debug)]
pub struct Balance {
    thresholds: Thresholds,
    state: State,
}

impl Balance {
    /// Nothing seen yet.
    pub fn new(thresholds: Thresholds) -> Balance {
        Balance { thresholds, state: State::Even }
    }

    /// A period is over, in which the shards were as `seen`; `own` is ours among them.
    pub fn on_period(&mut self, own: usize, seen: &[Seen]) -> Step {
        let (state, step) = match (self.state, excess(own, seen, &self.thresholds)) {
            (State::Settling { periods }, _) if periods > 1 => {
                (State::Settling { periods: periods - 1 }, Step::Stay)
            }
            (_, None) => (State::Even, Step::Stay),
            (State::Even | State::Settling { .. }, Some(_)) => (State::Uneven { periods: 1 }, Step::Measure),
            (State::Uneven { periods }, Some(order)) if periods >= PATIENCE => {
                (State::Settling { periods: SETTLE }, Step::Move(order))
            }
            (State::Uneven { periods }, Some(_)) => (State::Uneven { periods: periods + 1 }, Step::Stay),
        };
        self.state = state;
        step
    }

    /// The shard that a connection just accepted by `own` belongs to, if that is another one: the one with the fewest
    /// connections among those that are not loaded. A shard keeps what it accepted while it has hardly more than that.
    pub fn home_of_new(&self, own: usize, seen: &[Seen]) -> Option<ShardId> {
        let is_loaded = |seen: &Seen| seen.load >= self.thresholds.loaded_min;
        let here = seen.get(own)?;
        let open = seen.iter().zip(0..).filter(|(shard, index)| shard.is_open && *index as usize != own);
        let (there, target) = open.min_by_key(|(shard, _)| (is_loaded(shard), shard.connections))?;
        let target = ShardId(target);
        if !here.is_open || is_loaded(here) && !is_loaded(there) {
            return Some(target);
        }
        // An eighth: connections that the kernel spread by chance are not passed on one by one.
        let is_clearly_less = here.connections > there.connections + here.connections / 8;
        (is_clearly_less && is_loaded(here) == is_loaded(there)).then_some(target)
    }
}

/// What `own` has too much, and for whom.
fn excess(own: usize, seen: &[Seen], thresholds: &Thresholds) -> Option<Order> {
    let of = seen.get(own)?.load;
    if of < thresholds.loaded_min {
        return None;
    }
    let open = seen.iter().zip(0..).filter(|(shard, index)| shard.is_open && *index as usize != own);
    let (least, target) = open.min_by_key(|(shard, _)| shard.load)?;
    if of.0 - least.load.0.min(of.0) < thresholds.gap_min.0 {
        return None;
    }
    let mean = seen.iter().map(|shard| shard.load.0).sum::<u32>() / seen.len() as u32;
    let above_mean = |load: Load| load.0.saturating_sub(mean);
    let given_by_all = seen.iter().map(|shard| above_mean(shard.load)).sum::<u32>();
    let lacking = mean.saturating_sub(least.load.0);
    let load = above_mean(of).min(lacking * above_mean(of) / given_by_all.max(1));
    (load > 0).then_some(Order { target: ShardId(target), load: Load(load), of })
}

/// A connection that could go, and what it contributed lately, in the same unit as the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub index: u32,
    /// Its part of the shard's work.
    pub weight: u64,
}

/// Who of `candidates` goes, at most [`MOVES_MAX`]; `total` is the weight of all connections, also of those that can't
/// go. The heaviest first that fit, so that few are disturbed. A tenth more than ordered fits: of two connections that
/// do about the same, one is always just over half. That is at most a tenth of a thread, well below what counts as a gap.
pub fn pick(order: &Order, candidates: &mut [Candidate], total: u64) -> impl Iterator<Item = u32> {
    let ordered = u128::from(total) * u128::from(order.load.0) / u128::from(order.of.0.max(1));
    let mut left = (ordered + ordered.div_ceil(10)) as u64;
    candidates.sort_unstable_by_key(|candidate| (std::cmp::Reverse(candidate.weight), candidate.index));
    candidates
        .iter()
        .filter(move |candidate| {
            let fits = candidate.weight > 0 && candidate.weight <= left;
            left -= if fits { candidate.weight } else { 0 };
            fits
        })
        .map(|candidate| candidate.index)
        .take(MOVES_MAX)
}

#[cfg(test)]
mod tests;
