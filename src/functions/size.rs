//! How many processes the traffic of a function would need, as it was measured.
//!
//! In: of each shard, how many calls were answered, how long they ran, and how many there were in the busiest ten seconds.
//! Out: a line that suggests `warm` and `warm_max`.
//! Always: Little's law (1961): on average `calls a second x seconds a call` are busy. To that, twice its square root as head-room:
//! square-root staffing (Halfin and Whitt, 1981), with which about 3 % of calls that come at random find all busy.
//! Always: for one shard, as the options are; of several, the one that needs most.

use router::counters::{Function, PEAK_WINDOW, Snapshot};

use crate::snapshots::Snapshots;

/// What one shard measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Measured {
    /// Processes busy on average since the start.
    mean: f64,
    /// The same in the busiest ten seconds.
    peak: f64,
}

/// The line; nothing while no call was answered.
pub fn suggestion(snapshots: &Snapshots, name: &str) -> String {
    let of_shard = |shard: &Snapshot| {
        let function = shard.functions.iter().find(|function| function.name == name)?;
        measured(function, shard.published_at_ns.saturating_sub(shard.started_at_ns))
    };
    let larger = |one: Measured, other: Measured| Measured {
        mean: one.mean.max(other.mean),
        peak: one.peak.max(other.peak),
    };
    let shards = snapshots.shards.iter().filter_map(of_shard);
    shards.reduce(larger).map_or_else(String::new, |measured| tell(name, measured))
}

fn measured(function: &Function, uptime_ns: u64) -> Option<Measured> {
    let runs = function.answered_ok + function.answered_error;
    if runs == 0 || uptime_ns == 0 {
        return None;
    }
    let run_ns = function.run_ns as f64 / runs as f64;
    let mean = function.run_ns as f64 / uptime_ns as f64;
    let peak = function.answered_peak as f64 * run_ns / PEAK_WINDOW.0 as f64;
    // The first ten seconds are not over: what is known of the mean is all that is known.
    Some(Measured { mean, peak: peak.max(mean) })
}

fn tell(name: &str, Measured { mean, peak }: Measured) -> String {
    format!(
        "  {name}: {mean:.2} processes busy on average, {peak:.2} in the busiest ten seconds, of one shard: warm = {} and warm_max = {} \
         would do\n",
        staffing(mean),
        staffing(peak)
    )
}

/// Processes for so many that are busy on average.
fn staffing(busy: f64) -> u64 {
    (busy + 2.0 * busy.sqrt()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_room_is_twice_the_square_root() {
        for (busy, expected) in [(0.0, 0), (0.001, 1), (0.25, 2), (1.0, 3), (4.0, 8), (100.0, 120)] {
            assert_eq!(staffing(busy), expected, "{busy}");
        }
    }

    #[test]
    fn the_line_says_what_was_measured_and_what_would_do() {
        let told = tell("report", Measured { mean: 0.4, peak: 2.61 });
        assert_eq!(
            told,
            "  report: 0.40 processes busy on average, 2.61 in the busiest ten seconds, of one shard: warm = 2 and warm_max = 6 would \
             do\n"
        );
    }
}
