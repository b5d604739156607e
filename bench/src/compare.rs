//! Two kept runs, quantity by quantity: what became better, worse, or only moved within its spread.
//!
//! Always: a change counts only when the spreads of the two runs do not touch. On another machine, or with other
//! lengths, everything changes: that is said first.

use std::path::Path;

use crate::Ending;
use crate::record::Record;
use crate::report::text::write_columns;
use crate::series::{Series, Summary, Unit};

/// With fewer values a spread is no spread.
const RUNS_MIN: usize = 3;

/// What became of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Better,
    Worse,
    /// Outside both spreads, of a unit where neither direction is better.
    Other,
    /// The spreads touch.
    Within,
}

/// Prints the comparison. Something worse ends it with `Short`.
pub fn run(before: &Path, after: &Path) -> Result<Ending, String> {
    let (before, after) = (Record::read(before)?, Record::read(after)?);
    let (text, has_worse) = compare(&before, &after);
    print!("{text}");
    Ok(if has_worse { Ending::Short } else { Ending::Ok })
}

fn compare(before: &Record, after: &Record) -> (String, bool) {
    let mut out = String::new();
    for (name, of) in [("before", before), ("after", after)] {
        let Record { machine, commit, date, seconds, window, .. } = of;
        out +=
            &format!("{name:<7} {date}, commit {commit}, runs of {seconds} s, window {window}, {machine}\n");
    }
    if before.machine != after.machine {
        out += "Two machines: only ratios can be compared.\n";
    } else if before.seconds != after.seconds || before.window != after.window {
        out += "The runs differ in length or window: compare with care.\n";
    }
    let shortest = |of: &Record| of.series.values().map(|series| series.values.len()).min().unwrap_or(0);
    if shortest(before).min(shortest(after)) < RUNS_MIN {
        out += "Fewer than three runs: their spread says little, and so does what lies outside it.\n";
    }
    let header = ["measured", "before", "(min .. max)", "after", "(min .. max)", "change", ""];
    let mut rows = vec![header.map(String::from)];
    let mut has_worse = false;
    for (name, series) in &after.series {
        let Some(summaries) = summaries(before.series.get(name), series) else { continue };
        let change = change_of(series.unit, &summaries.0, &summaries.1);
        has_worse |= change == Change::Worse;
        rows.push(row(name, series.unit, &summaries.0, &summaries.1, change));
    }
    // Writing to a String cannot fail.
    let _infallible = write_columns(&mut out, &rows);
    let missing = |from: &Record, of: &Record| -> Vec<String> {
        from.series.keys().filter(|name| !of.series.contains_key(*name)).cloned().collect()
    };
    for (what, names) in [("only before", missing(before, after)), ("only after", missing(after, before))] {
        if !names.is_empty() {
            out += &format!("{what}: {}\n", names.join(", "));
        }
    }
    (out, has_worse)
}

fn summaries(before: Option<&Series>, after: &Series) -> Option<(Summary, Summary)> {
    Some((Summary::of(&before?.values)?, Summary::of(&after.values)?))
}

fn change_of(unit: Unit, before: &Summary, after: &Summary) -> Change {
    let is_more = after.min > before.max;
    let is_less = after.max < before.min;
    match unit.is_more_better() {
        _ if !is_more && !is_less => Change::Within,
        None => Change::Other,
        Some(is_more_better) if is_more_better == is_more => Change::Better,
        Some(_) => Change::Worse,
    }
}

fn row(name: &str, unit: Unit, before: &Summary, after: &Summary, change: Change) -> [String; 7] {
    let spread = |it: &Summary| format!("({} .. {})", unit.show(it.min), unit.show(it.max));
    let percent = 100.0 * (after.median / before.median - 1.0);
    let word = match change {
        Change::Better => "better",
        Change::Worse => "worse",
        Change::Other => "different",
        Change::Within => "",
    };
    [
        name.into(),
        unit.show(before.median),
        spread(before),
        unit.show(after.median),
        spread(after),
        if percent.is_finite() { format!("{percent:+.1} %") } else { "-".into() },
        word.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rates: &[f64], latencies: &[f64]) -> Record {
        let mut record = Record::new(1.0, 1);
        rates.iter().for_each(|value| record.add("x/rate".into(), Unit::CallsPerS, *value));
        latencies.iter().for_each(|value| record.add("x/latency".into(), Unit::Ns, *value));
        record
    }

    #[test]
    fn a_change_counts_only_outside_both_spreads() {
        let (text, has_worse) =
            compare(&record(&[9.0, 10.0, 11.0], &[5.0]), &record(&[8.0, 9.0, 9.5], &[5.0]));
        assert!(!has_worse, "{text}");
        let (text, has_worse) =
            compare(&record(&[9.0, 10.0, 11.0], &[5.0]), &record(&[7.0, 8.0, 8.5], &[4.0]));
        assert!(has_worse);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_string();
        assert!(line("x/rate").ends_with("-20.0 %  worse"), "{text}");
        assert!(line("x/latency").ends_with("-20.0 %  better"), "{text}");
    }

    #[test]
    fn rows_of_one_side_only_and_other_machines_are_named() {
        let mut after = record(&[], &[1.0]);
        after.machine = "another".into();
        let (text, _) = compare(&record(&[1.0], &[]), &after);
        assert!(text.contains("only before: x/rate\n") && text.contains("only after: x/latency\n"));
        assert!(text.contains("Two machines"));
    }
}
