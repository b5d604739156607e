//! The report for a browser: one file with inline style and inline SVG, nothing to load, nothing to run.
//!
//! Three plots: results per second over time, latency over time, and latency by percentile with rarity growing by a
//! factor of ten for each step, so that the tail has room.

use std::fmt::Write;

use super::{Report, show_count, show_ns};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 84.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 12.0;
const RIGHT: f64 = 16.0;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:900px;margin:2.5rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1rem;margin:2rem 0 .4rem}p.sub{color:#666;margin:.2rem 0 1.5rem}\
.tiles{display:flex;flex-wrap:wrap;gap:1rem}.tile{border:1px solid #e3e3e3;border-radius:8px;padding:.6rem 1rem}\
.tile b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}.tile span{color:#666;font-size:.85rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem 1rem .15rem 0;text-align:right}\
td:first-child,th:first-child{text-align:left}th{font-weight:600;color:#666}\
.warn{border-left:4px solid #d9822b;background:#fdf5ec;padding:.5rem .9rem;margin:1.2rem 0}\
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#666}.grid{stroke:#ececec}\
.a,.b,.c{fill:none;stroke-width:1.6;stroke-linejoin:round}.a{stroke:#2563a8}.b{stroke:#d9822b}.c{stroke:#b9b9b9}\
.legend i{display:inline-block;width:1.1rem;height:3px;margin:0 .35rem 0 .9rem;vertical-align:middle}";

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let plan = &report.plan;
    let function = escape(&plan.function);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Load on {function}</title>\
         <style>{STYLE}</style></head><body>\n<h1>Load on {function}</h1>\n<p class=\"sub\">{}</p>\n",
        escape(&describe(report))
    )?;
    write_tiles(report, out)?;
    if let Some(why) = &report.generator.why {
        writeln!(out, "<p class=\"warn\"><b>The generator was the limit.</b> {}</p>", escape(why))?;
    }
    write_plots(report, out)?;
    write_tables(report, out)?;
    writeln!(out, "</body></html>")
}

fn describe(report: &Report) -> String {
    let plan = &report.plan;
    let workload = plan.describe_workload();
    format!(
        "{}; {workload}, {}, {}, payload {} bytes, seed {}",
        plan.target,
        plan.describe_connections(),
        report.describe_duration(),
        plan.payload_size,
        report.seed
    )
}

fn write_tiles(report: &Report, out: &mut String) -> std::fmt::Result {
    write!(out, "<div class=\"tiles\">")?;
    let mut tile =
        |name: &str, value: &str| write!(out, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    let tiles = [
        ("calls per second", show_count(report.calls_per_s.round() as u64)),
        ("p50", show_ns(report.latency_ns.p50)),
        ("p99", show_ns(report.latency_ns.p99)),
        ("p99.9", show_ns(report.latency_ns.p99_9)),
        ("errors", show_count(report.error_count())),
        ("late sends", show_count(report.late_sends)),
    ];
    for (name, value) in &tiles {
        tile(name, value)?;
    }
    writeln!(out, "</div>")
}

fn write_plots(report: &Report, out: &mut String) -> std::fmt::Result {
    let slices = &report.timeline;
    let seconds_max = slices.last().map_or(1.0, |slice| slice.at_s);
    let mut previous_s = 0.0;
    let mut rates = Vec::new();
    for slice in slices {
        let length_s = (slice.at_s - previous_s).max(1e-9);
        rates.push((slice.at_s, slice.ok as f64 / length_s));
        previous_s = slice.at_s;
    }
    let over_time = |value: fn(&crate::timeline::Interval) -> u64| {
        slices.iter().filter(|slice| slice.ok > 0).map(|slice| (slice.at_s, value(slice) as f64)).collect()
    };

    write!(out, "<h2>Results per second over time</h2>")?;
    let x = Axis { min: 0.0, max: seconds_max, ticks: time_ticks(seconds_max) };
    Plot { x: x.clone(), y: Axis::linear(&rates), lines: vec![("a", rates)] }.write(out)?;

    write!(out, "<h2>Latency over time</h2>")?;
    write_legend(out, &[("#b9b9b9", "maximum"), ("#d9822b", "p99"), ("#2563a8", "p50")])?;
    let lines: Vec<Line<'_>> = vec![
        ("c", over_time(|slice| slice.latency_ns_max)),
        ("b", over_time(|slice| slice.latency_ns_p99)),
        ("a", over_time(|slice| slice.latency_ns_p50)),
    ];
    Plot { x, y: Axis::latency(&lines), lines: logarithms(lines) }.write(out)?;

    write!(out, "<h2>Latency by percentile</h2>")?;
    write_legend(
        out,
        &[("#2563a8", "since the intended send"), ("#b9b9b9", "since the actual send (uncorrected)")],
    )?;
    let rarity = |percentile: f64| -(1.0 - percentile / 100.0).max(1e-12).log10();
    let curve = &report.latency_curve_ns;
    let lines = vec![
        ("c", curve.iter().map(|point| (rarity(point.percentile), point.uncorrected as f64)).collect()),
        ("a", curve.iter().map(|point| (rarity(point.percentile), point.corrected as f64)).collect()),
    ];
    let rarity_max = curve.last().map_or(1.0, |point| rarity(point.percentile)).max(0.1);
    let ticks = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %", "99.99999 %"];
    let ticks =
        (0u32..).map(f64::from).zip(ticks.map(String::from)).filter(|(at, _)| *at <= rarity_max).collect();
    let x = Axis { min: 0.0, max: rarity_max, ticks };
    Plot { x, y: Axis::latency(&lines), lines: logarithms(lines) }.write(out)
}

fn write_legend(out: &mut String, entries: &[(&str, &str)]) -> std::fmt::Result {
    write!(out, "<div class=\"legend\">")?;
    for (colour, name) in entries {
        write!(out, "<i style=\"background:{colour}\"></i>{name}")?;
    }
    writeln!(out, "</div>")
}

fn write_tables(report: &Report, out: &mut String) -> std::fmt::Result {
    write!(out, "<h2>Latency</h2><table><tr><th></th><th>corrected</th><th>uncorrected</th></tr>")?;
    for ((name, corrected), (_, uncorrected)) in
        report.latency_ns.rows().iter().zip(report.latency_uncorrected_ns.rows())
    {
        write!(
            out,
            "<tr><td>{name}</td><td>{}</td><td>{}</td></tr>",
            show_ns(*corrected),
            show_ns(uncorrected)
        )?;
    }
    write!(out, "</table>\n<h2>Calls</h2><table>")?;
    let counts = [("sent", report.sent), ("answered", report.answered), ("ok", report.ok)];
    for (name, count) in counts {
        write!(out, "<tr><td>{name}</td><td>{}</td></tr>", show_count(count))?;
    }
    for (reason, count) in &report.errors {
        let reason = escape(&reason.replace('_', " "));
        write!(out, "<tr><td>{reason}</td><td>{}</td></tr>", show_count(*count))?;
    }
    let generator = &report.generator;
    writeln!(
        out,
        "</table>\n<p class=\"sub\">Answers checked by {}. Sends later than {} us count as late; the worst was {}. \
         Generator: {:.0} % busy, {:.0} % of a processor.</p>",
        report.plan.check.replace('_', " "),
        report.plan.late_after_us,
        show_ns(report.send_delay_ns_max),
        generator.busy_percent,
        generator.cpu_percent
    )
}

/// A style class, and points in the plot's units.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Latencies are drawn by their logarithm: a tail a thousand times the median must not flatten it.
fn logarithms(lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let log = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (x, y.max(1.0).log10())).collect();
    lines.into_iter().map(|(class, points)| (class, log(points))).collect()
}

#[derive(Clone)]
struct Axis {
    min: f64,
    max: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero, with four or five round ticks.
    fn linear(points: &[(f64, f64)]) -> Self {
        let max = points.iter().map(|(_, y)| *y).fold(1.0, f64::max);
        let step = round_step(max / 4.0);
        let ticks = (0..=5).map(|index| f64::from(index) * step).take_while(|at| *at <= max * 1.001);
        Self { min: 0.0, max, ticks: ticks.map(|at| (at, show_count(at.round() as u64))).collect() }
    }

    /// Logarithmic in nanoseconds, with a tick at each power of ten.
    fn latency(lines: &[Line<'_>]) -> Self {
        let values = || lines.iter().flat_map(|(_, points)| points.iter().map(|(_, y)| y.max(1.0)));
        let min = values().fold(f64::INFINITY, f64::min).min(1e9).log10().floor();
        let max = values().fold(10.0, f64::max).log10().ceil().max(min + 1.0);
        let ticks = (min as i32..=max as i32)
            .map(|power| (f64::from(power), round_ns(10u64.saturating_pow(power as u32))));
        Self { min, max, ticks: ticks.collect() }
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.min) / (self.max - self.min).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }
}

/// Powers of ten need no digits after the point.
fn round_ns(ns: u64) -> String {
    show_ns(ns).replace(".00 ", " ").replace(".0 ", " ")
}

fn time_ticks(seconds: f64) -> Vec<(f64, String)> {
    let step = round_step(seconds / 8.0);
    let shown = |at: f64| format!("{} s", (at * 1_000.0).round() / 1_000.0);
    (0..=16)
        .map(|index| f64::from(index) * step)
        .take_while(|at| *at <= seconds)
        .map(|at| (at, shown(at)))
        .collect()
}

/// The least of 1, 2, 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|round| *round >= step)
        .unwrap_or(step)
}

struct Plot<'a> {
    x: Axis,
    y: Axis,
    lines: Vec<Line<'a>>,
}

impl Plot<'_> {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let x_of = |x: f64| LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT);
        let y_of = |y: f64| HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - BOTTOM - TOP);
        write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">")?;
        for (at, label) in &self.y.ticks {
            let y = y_of(*at);
            write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            )?;
        }
        for (at, label) in &self.x.ticks {
            let (x, y) = (x_of(*at), HEIGHT - BOTTOM + 18.0);
            write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>")?;
        }
        for (class, points) in &self.lines {
            write!(out, "<polyline class=\"{class}\" points=\"")?;
            for (x, y) in points {
                write!(out, "{:.1},{:.1} ", x_of(*x), y_of(*y))?;
            }
            write!(out, "\"/>")?;
        }
        writeln!(out, "</svg>")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
