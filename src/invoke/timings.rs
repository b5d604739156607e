//! Where the time of one call went, drawn: a line for each stage, a bar for the part of the time it took.

use std::time::Duration;

use quickfire_client::Timings;

use crate::table;

/// Columns of the drawing; 48 leave room for names and numbers on a terminal of 80.
const WIDTH: usize = 48;

/// The drawing. `round_trip` is what the caller saw, of which the router's part is drawn.
pub fn draw(name: &str, timings: &Timings, connected: Duration, round_trip: Duration) -> String {
    let round_trip_ns = nanos(round_trip);
    let reached: Vec<(&str, u64)> =
        timings.stages().into_iter().filter_map(|(stage, stamp)| Some((stage, stamp?))).collect();
    let total_ns = reached.iter().map(|(_, stamp)| *stamp).max().unwrap_or(0);
    let mut out = format!(
        "{name}: {} in the router, {} round trip, {} to connect\n",
        table::length(total_ns),
        table::length(round_trip_ns),
        table::length(nanos(connected)),
    );
    let mut before_ns = 0;
    for (stage, stamp_ns) in reached {
        let bar = bar(before_ns, stamp_ns, total_ns);
        out.push_str(&format!(
            "  {stage:<9} {:>8}  |{bar}|\n",
            format!("+{}", table::length(stamp_ns.saturating_sub(before_ns)))
        ));
        before_ns = before_ns.max(stamp_ns);
    }
    out.push_str(&format!("  {}\n", timings.cause.explain()));
    out
}

/// A bar from one point of the whole to another; what took any time at all is at least a thin line.
fn bar(from: u64, to: u64, whole: u64) -> String {
    let place = |stamp: u64| (u128::from(stamp) * WIDTH as u128 / u128::from(whole.max(1))) as usize;
    let (start, end) = (place(from).min(WIDTH), place(to).min(WIDTH));
    let mut cells = vec![' '; WIDTH];
    if let Some(cells) = cells.get_mut(start..end) {
        cells.fill('█');
    }
    if to > from
        && start >= end
        && let Some(cell) = cells.get_mut(start.min(WIDTH - 1))
    {
        *cell = '▏';
    }
    cells.into_iter().collect()
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use quickfire_client::Cause;

    use super::*;

    #[test]
    fn each_stage_reached_gets_a_line_and_the_bars_follow_each_other() {
        let timings = Timings {
            received_at_ns: 5,
            admitted_ns: 100,
            queued_ns: 100,
            pushed_ns: 24_000,
            started_ns: Timings::NOT_REACHED,
            finished_ns: Timings::NOT_REACHED,
            answered_ns: 48_000,
            cause: Cause::Worker,
        };
        let drawn = draw("echo", &timings, Duration::from_micros(200), Duration::from_micros(90));
        let lines: Vec<_> = drawn.lines().collect();
        assert_eq!(lines[0], "echo: 48.0us in the router, 90.0us round trip, 200us to connect");
        assert_eq!(lines.len(), 1 + 4 + 1);
        assert!(lines[1].starts_with("  admitted    +100ns  |▏"));
        assert!(lines[2].starts_with("  queued        +0ns  | "));
        assert_eq!(lines[3].matches('█').count(), 24);
        assert_eq!(lines[4].matches('█').count(), 24);
        assert!(lines[4].ends_with("█|"));
    }

    #[test]
    fn nonsense_from_a_router_is_drawn_without_panic() {
        for (from, to, whole) in [(5, 3, 4), (0, u64::MAX, 1), (u64::MAX, u64::MAX, u64::MAX), (0, 0, 0)] {
            assert_eq!(bar(from, to, whole).chars().count(), WIDTH);
        }
    }
}
