//! `quickfire top`: all functions at once, refreshed, the busiest first. From the counters alone, at no cost to the router.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use router::counters::Function;

use crate::ending::{EXIT_CODES_HELP, Ending, Failure};
use crate::flags;
use crate::functions::{is_here, oldest, summed, waits_for};
use crate::live;
use crate::snapshots::{Snapshots, now_ns};
use crate::table;

/// What the table can be sorted by; the first is the default.
const SORTS: [&str; 6] = ["calls", "queued", "oldest", "running", "busy", "name"];

/// Arguments and help.
pub fn command() -> Command {
    Command::new("top")
        .about("Shows what all functions do and wait for, refreshed until q or Ctrl-C")
        .arg(
            Arg::new("sort")
                .long("sort")
                .value_name("COLUMN")
                .default_value(SORTS[0])
                .value_parser(PossibleValuesParser::new(SORTS))
                .help("Which functions stand first"),
        )
        .arg(flags::run_dir_flag())
        .args(live::flags())
        .after_help(format!(
            "Reads the run directory and does not disturb the router. Rates are those since the last showing; the first \
             showing has those since the router started.\n\n\
             Examples:\n  quickfire top\n  quickfire top --sort queued --interval 200ms\n  quickfire top --once\n\n{EXIT_CODES_HELP}"
        ))
}

/// Shows the table until somebody has seen enough.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    let sort = matches.get_one::<String>("sort").map_or(SORTS[0], String::as_str);
    let mut before: Option<Reading> = None;
    live::run(matches, || {
        let snapshots = Snapshots::read(&run_dir)?;
        let now = Reading::of(&snapshots);
        // Another router has taken over: its counts do not go on from those of the last one.
        let same = before.take().filter(|before| before.started_at_ns == now.started_at_ns);
        let mut rows = now.rows(same.as_ref());
        rows.sort_by(|one, other| one.compare(other, sort));
        let mut out = format!("{}: the router is {}\n\n", run_dir.display(), snapshots.router_state());
        out.push_str(&show(&rows, now_ns()));
        before = Some(now);
        Ok(out)
    })
}

/// All functions at one time.
struct Reading {
    functions: Vec<Function>,
    started_at_ns: u64,
    published_at_ns: u64,
}

/// A function between two readings.
struct Row {
    function: Function,
    calls_per_s: f64,
    /// Worker time used of worker time there was. More than 1 where a process runs several calls at once.
    busy: f64,
}

impl Reading {
    fn of(snapshots: &Snapshots) -> Reading {
        let first = |time: fn(&router::counters::Snapshot) -> u64| snapshots.shards.iter().map(time);
        Reading {
            functions: summed(snapshots),
            started_at_ns: first(|shard| shard.started_at_ns).min().unwrap_or(0),
            published_at_ns: first(|shard| shard.published_at_ns).max().unwrap_or(0),
        }
    }

    fn rows(&self, before: Option<&Reading>) -> Vec<Row> {
        let since_ns = before.map_or(self.started_at_ns, |before| before.published_at_ns);
        let length_ns = self.published_at_ns.saturating_sub(since_ns) as f64;
        let row = |function: &Function| {
            let old = before.and_then(|it| it.functions.iter().find(|old| old.name == function.name));
            let calls = answered(function).saturating_sub(old.map_or(0, answered));
            let run_ns = function.run_ns.saturating_sub(old.map_or(0, |old| old.run_ns));
            // Nothing was published in between: nothing is known to have happened.
            let share = |amount: f64, of: f64| if of > 0.0 { amount / of } else { 0.0 };
            Row {
                calls_per_s: share(calls as f64 * 1e9, length_ns),
                busy: share(run_ns as f64, length_ns * function.workers as f64),
                function: function.clone(),
            }
        };
        self.functions.iter().filter(|function| is_here(function)).map(row).collect()
    }
}

impl Row {
    /// The larger first, names from a to z; equals by name.
    fn compare(&self, other: &Row, sort: &str) -> std::cmp::Ordering {
        let larger_first = match sort {
            "calls" => other.calls_per_s.total_cmp(&self.calls_per_s),
            "busy" => other.busy.total_cmp(&self.busy),
            "queued" => other.function.queued.cmp(&self.function.queued),
            "running" => other.function.running.cmp(&self.function.running),
            // The oldest came first; functions where nothing waits come last.
            "oldest" => {
                let arrival = |row: &Row| row.function.oldest_queued_at_ns.wrapping_sub(1);
                arrival(self).cmp(&arrival(other))
            }
            _ => std::cmp::Ordering::Equal,
        };
        larger_first.then_with(|| self.function.name.cmp(&other.function.name))
    }
}

fn answered(function: &Function) -> u64 {
    function.answered_ok + function.answered_error + function.answered_otherwise
}

fn show(rows: &[Row], now_ns: u64) -> String {
    let head = ["function", "calls/s", "running", "queued", "oldest", "workers", "busy", "waits for"];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let function = &row.function;
        cells.push(vec![
            function.name.clone(),
            table::count(row.calls_per_s.round() as u64),
            table::count(function.running),
            table::count(function.queued),
            oldest(function, now_ns),
            function.workers.to_string(),
            format!("{:.0}%", row.busy * 100.0),
            waits_for(function, now_ns),
        ]);
    }
    table::columns(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, answered_ok: u64, run_ns: u64, oldest_queued_at_ns: u64) -> Function {
        Function {
            name: name.into(),
            function_id: 0,
            workers: 2,
            workers_with_credit: 0,
            credit_free: 0,
            queued: u64::from(oldest_queued_at_ns > 0),
            running: 0,
            oldest_queued_at_ns,
            is_failing: false,
            workers_wanted: 0,
            workers_earlier: 0,
            is_removed: false,
            workers_min: 0,
            workers_max: 0,
            cold_starts: 0,
            cold_start_last_ns: 0,
            cold_start_max_ns: 0,
            calls_held_for_start: 0,
            answered_peak: 0,
            answered_ok,
            answered_error: 0,
            answered_otherwise: 0,
            run_ns,
            blocked_on: 0,
            blocked_since_ns: 0,
            downstreams: Vec::new(),
        }
    }

    fn reading(published_at_ns: u64, functions: Vec<Function>) -> Reading {
        Reading { functions, started_at_ns: 1_000_000_000, published_at_ns }
    }

    #[test]
    fn rates_are_those_since_the_last_reading_or_since_the_start() {
        let first = reading(3_000_000_000, vec![function("a", 100, 1_000_000_000, 0)]);
        let second = reading(3_500_000_000, vec![function("a", 600, 1_500_000_000, 0)]);
        let check = |rows: Vec<Row>, calls_per_s: f64, busy: f64| {
            assert_eq!((rows[0].calls_per_s, rows[0].busy), (calls_per_s, busy));
        };
        check(first.rows(None), 50.0, 0.25);
        check(second.rows(Some(&first)), 1000.0, 0.5);
        check(second.rows(Some(&second)), 0.0, 0.0);
    }

    #[test]
    fn rows_stand_in_the_order_asked_for() {
        let all = vec![function("a", 10, 0, 0), function("b", 30, 0, 900), function("c", 20, 0, 500)];
        let check = |sort: &str, expected: &str| {
            let mut rows = reading(2_000_000_000, all.clone()).rows(None);
            rows.sort_by(|one, other| one.compare(other, sort));
            let names: String = rows.iter().map(|row| row.function.name.as_str()).collect();
            assert_eq!(names, expected, "{sort}");
        };
        check("calls", "bca");
        check("oldest", "cba");
        check("queued", "bca");
        check("running", "abc");
        check("busy", "abc");
        check("name", "abc");
    }

    #[test]
    fn every_column_that_can_be_sorted_by_orders_by_something() {
        let quiet = function("a", 0, 0, 0);
        let busy = Function { running: 5, queued: 5, ..function("b", 50, 5, 5) };
        for sort in SORTS.into_iter().filter(|sort| *sort != "name") {
            let mut rows = reading(2_000_000_000, vec![quiet.clone(), busy.clone()]).rows(None);
            rows.sort_by(|one, other| one.compare(other, sort));
            assert_eq!(rows[0].function.name, "b", "{sort}");
        }
    }
}
