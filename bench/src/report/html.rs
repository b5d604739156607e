//! The page: the table of targets, then every run of every quantity as dots, one plot for each unit.

use std::fmt::Write;

use super::plot::{Row, dots, escape};
use crate::record::Record;
use crate::series::{Summary, Unit};
use crate::targets::{Bound, Judged, Verdict};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:960px;margin:2.5rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:2rem 0 .4rem}p.sub{color:#666;margin:.2rem 0 1.5rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem 1rem .15rem 0;text-align:left}\
th{font-weight:600;color:#666}.pass{color:#1a7f37}.short,.failed{color:#b35900;font-weight:600}.none{color:#888}\
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#666}.grid{stroke:#ececec}\
circle{fill-opacity:.55}circle.a{fill:#2563a8}circle.b{fill:#b9b9b9}.median{stroke-width:2.5}.line,.spread{fill:none}\
.a{stroke:#2563a8}.b{stroke:#999}.c{stroke:#d9822b}circle{stroke:none}.bound{stroke:#d9822b;stroke-width:2}\
.line{stroke-width:1.6}.spread{stroke-width:1;stroke-opacity:.5}\
i{display:inline-block;width:.8rem;height:.8rem;border-radius:50%;margin:0 .35rem 0 .9rem;vertical-align:middle}";

/// Plots in this order; other units are in the table only.
const PLOTTED: [(Unit, &str); 7] = [
    (Unit::CallsPerS, "Calls per second"),
    (Unit::NsPerCall, "CPU time per call"),
    (Unit::Ns, "Latency"),
    (Unit::CallsPerCpuS, "Calls per second of CPU time"),
    (Unit::BytesPerS, "Bytes per second"),
    (Unit::Percent, "Shares"),
    (Unit::Bytes, "Memory"),
];

/// The whole page.
pub fn render(record: &Record, judged: &[Judged]) -> String {
    let mut out = open("Quickfire against its targets", record);
    // Writing to a String cannot fail.
    let _infallible = write_targets(&mut out, judged).and_then(|()| write_plots(&mut out, record, judged));
    out + "</body></html>\n"
}

/// The head of a page about this record.
pub fn open(title: &str, record: &Record) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p class=\"sub\">{}, commit {}, {}; runs of {} s, window {}</p>\n",
        escape(&record.machine),
        escape(&record.commit),
        escape(&record.date),
        record.seconds,
        record.window
    )
}

fn write_targets(out: &mut String, judged: &[Judged]) -> std::fmt::Result {
    if judged.is_empty() {
        return Ok(());
    }
    write!(
        out,
        "<table><tr><th>experiment</th><th>target</th><th>median</th><th>spread</th><th>bound</th><th>verdict</th></tr>"
    )?;
    for row in judged {
        let show = |pick: fn(&Summary) -> f64| row.summary.map_or("-".into(), |it| row.unit.show(pick(&it)));
        let (class, why) = match &row.verdict {
            Verdict::Pass => ("pass", ""),
            Verdict::Short => ("short", ""),
            Verdict::Reported => ("none", ""),
            Verdict::NotAvailable(why) => ("none", why.as_str()),
            Verdict::Failed(why) => ("failed", why.as_str()),
        };
        let colon = if why.is_empty() { "" } else { ": " };
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{} .. {}</td><td>{}</td><td class=\"{class}\">{}{colon}{}</td></tr>",
            row.experiment,
            row.what,
            show(|it| it.median),
            show(|it| it.min),
            show(|it| it.max),
            escape(&row.show_bound()),
            row.verdict.word(),
            escape(why)
        )?;
    }
    writeln!(out, "</table>")
}

fn write_plots(out: &mut String, record: &Record, judged: &[Judged]) -> std::fmt::Result {
    writeln!(
        out,
        "<p class=\"sub\"><i style=\"background:#2563a8\"></i>Quickfire<i style=\"background:#b9b9b9\"></i>what it is \
         compared with<i style=\"background:#d9822b\"></i>bound. One dot for each run; the stroke and the number are \
         the median.</p>"
    )?;
    let ratios: Vec<Row> =
        judged.iter().filter(|row| row.unit == Unit::Times).filter_map(ratio_row).collect();
    if !ratios.is_empty() {
        writeln!(out, "<h2>Ratios: median of the runs, smallest and largest</h2>")?;
        dots(out, Unit::Times, &ratios)?;
    }
    for (unit, title) in PLOTTED {
        let of_unit = record.series.iter().filter(|(_, series)| series.unit == unit);
        let rows: Vec<Row> = of_unit
            .map(|(name, series)| Row {
                label: name.clone(),
                values: series.values.clone(),
                class: class_of(name),
                bound: None,
            })
            .collect();
        if !rows.is_empty() {
            writeln!(out, "<h2>{title}</h2>")?;
            dots(out, unit, &rows)?;
        }
    }
    Ok(())
}

fn ratio_row(row: &Judged) -> Option<Row> {
    let Summary { median, min, max } = row.summary?;
    let bound = match row.bound {
        Bound::AtLeast(bound) | Bound::AtMost(bound) => Some(bound),
        Bound::None => None,
    };
    let label = format!("{}: {}", row.experiment, row.what.split(',').next().unwrap_or(row.what));
    Some(Row { label: shorten(&label), values: vec![min, median, max], class: "a", bound })
}

/// As many letters as fit beside a plot.
fn shorten(label: &str) -> String {
    match label.char_indices().nth(42) {
        Some((end, _)) => format!("{}…", &label[..end]),
        None => label.into(),
    }
}

/// What Quickfire is held against is grey.
fn class_of(name: &str) -> &'static str {
    let side = name.split('/').nth(1).unwrap_or_default();
    if side.starts_with("floor-")
        || ["floor", "nginx", "single", "one", "off", "tcp-off", "shm-off", "alone", "capacity"]
            .contains(&side)
    {
        "b"
    } else {
        "a"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::judge_all;

    #[test]
    fn the_page_is_complete_in_itself_and_escapes_what_it_is_told() {
        let mut record = Record::new(1.0, 64);
        record.add("tcp-pipelined/floor/calls_per_s".into(), Unit::CallsPerS, 4.0);
        record.add("tcp-pipelined/quickfire/calls_per_s".into(), Unit::CallsPerS, 2.0);
        record.failed.insert("idle".into(), "<script>".into());
        let page = render(&record, &judge_all(&record, |_| true));
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</body></html>\n"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        for asked in ["http:", "https:", "src=", "@import", "<link"] {
            assert!(!page.contains(asked), "the page asks for {asked}");
        }
        assert!(page.matches("<circle").count() >= 2);
    }

    #[test]
    fn the_other_side_of_a_comparison_is_grey() {
        assert_eq!((class_of("x/floor/y"), class_of("x/quickfire/y")), ("b", "a"));
    }
}
