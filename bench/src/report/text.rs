//! The table of targets for a terminal, and below it the raw rows it rests on.

use std::fmt::Write;

use crate::record::Record;
use crate::series::Summary;
use crate::targets::{Judged, Verdict};

/// The whole report.
pub fn render(record: &Record, judged: &[Judged]) -> String {
    let mut out = format!(
        "{}, commit {}, {}\nmedian of {} runs of {} s, window {}\n\n",
        record.machine,
        record.commit,
        record.date,
        record.series.values().map(|series| series.values.len()).max().unwrap_or(0),
        record.seconds,
        record.window
    );
    if !judged.is_empty() {
        let _ = write_targets(&mut out, judged);
        let _ = writeln!(out);
    }
    let _ = write_series(&mut out, record);
    out
}

fn write_targets(out: &mut String, judged: &[Judged]) -> std::fmt::Result {
    let header = ["experiment", "target", "measured", "(min .. max)", "bound", "verdict"];
    let mut rows = vec![header.map(String::from)];
    for row in judged {
        let (measured, spread) = row.summary.map_or(("-".into(), "-".into()), |it| show(row, &it));
        let cells = [
            row.experiment.to_string(),
            row.what.to_string(),
            measured,
            spread,
            row.show_bound(),
            row.verdict.word().to_string(),
        ];
        rows.push(cells);
    }
    write_columns(out, &rows)?;
    let mut told = std::collections::BTreeSet::new();
    for row in judged {
        if let Verdict::NotAvailable(why) | Verdict::Failed(why) = &row.verdict
            && told.insert(row.experiment)
        {
            writeln!(out, "{}: {}: {why}", row.experiment, row.verdict.word())?;
        }
    }
    Ok(())
}

fn show(row: &Judged, summary: &Summary) -> (String, String) {
    let spread = format!("({} .. {})", row.unit.show(summary.min), row.unit.show(summary.max));
    (row.unit.show(summary.median), spread)
}

fn write_series(out: &mut String, record: &Record) -> std::fmt::Result {
    let mut rows = vec![["measured", "median", "(min .. max)"].map(String::from)];
    for (name, series) in &record.series {
        if let Some(summary) = Summary::of(&series.values) {
            let unit = series.unit;
            let spread = format!("({} .. {})", unit.show(summary.min), unit.show(summary.max));
            rows.push([name.clone(), unit.show(summary.median), spread]);
        }
    }
    write_columns(out, &rows)
}

/// Columns as wide as their widest cell.
pub fn write_columns<const COUNT: usize>(out: &mut String, rows: &[[String; COUNT]]) -> std::fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COUNT).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:<width$}  ")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Unit;
    use crate::targets::judge_all;

    #[test]
    fn the_table_names_value_spread_bound_and_verdict_and_why_a_row_is_missing() {
        let mut record = Record::new(1.0, 64);
        for value in [0.4, 0.5, 1.2] {
            record.add("idle/system/cpu".into(), Unit::Percent, value);
        }
        record.absent.insert("nginx".into(), "install nginx-light and wrk".into());
        let text = render(&record, &judge_all(&record, |name| name == "idle" || name == "nginx"));
        let row = text.lines().find(|line| line.contains("CPU of router, shim")).unwrap();
        for part in ["0.50 %", "(0.40 % .. 1.20 %)", "<= 1.00 %", "pass"] {
            assert!(row.contains(part), "{part} is missing in {row}");
        }
        assert!(text.contains("nginx: not available: install nginx-light and wrk"));
    }
}
