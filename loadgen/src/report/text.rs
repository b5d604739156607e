//! The report for a terminal: what was run, what came of it, latencies beside a bar each, the run over time.

use std::fmt::Write;

use super::{Report, show_count, show_ns};

const BAR_WIDTH: usize = 32;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let plan = &report.plan;
    writeln!(out, "{} at {}", plan.function, plan.target)?;
    writeln!(
        out,
        "{}\n{}, {}, payload {} bytes, seed {}\n",
        plan.describe_workload(),
        plan.describe_connections(),
        report.describe_duration(),
        plan.payload_size,
        report.seed
    )?;

    let mut row = |name: &str, value: String, note: String| {
        writeln!(out, "{}", format!("{name:<14}{value:>14}  {note}").trim_end())
    };
    row("calls/s", show_count(report.calls_per_s.round() as u64), "results while sending".into())?;
    row("sent", show_count(report.sent), String::new())?;
    row("answered", show_count(report.answered), String::new())?;
    if plan.direct {
        row("direct", show_count(report.direct), "past the router, through direct lanes".into())?;
    }
    row("ok", show_count(report.ok), format!("checked by {}", plan.check.replace('_', " ")))?;
    if plan.workload == "open" {
        let held = match report.late_sends_held {
            0 => String::new(),
            held => format!(", {} of them for want of credit", show_count(held)),
        };
        let worst = show_ns(report.send_delay_ns_max);
        let note = format!("more than {} us after schedule{held}; worst {worst}", plan.late_after_us);
        row("late sends", show_count(report.late_sends), note)?;
    }
    for (reason, count) in &report.errors {
        row("error", show_count(*count), reason.replace('_', " "))?;
    }

    write_latencies(report, out)?;
    write_timeline(report, out)?;

    let generator = &report.generator;
    write!(
        out,
        "\ngenerator: {:.0} % busy, {:.0} % of a processor",
        generator.busy_percent, generator.cpu_percent
    )?;
    match &generator.why {
        Some(why) => writeln!(out, "\nTHE GENERATOR WAS THE LIMIT\n{}", wrapped(why)),
        None => writeln!(out, "; it was not the limit"),
    }
}

/// Bars are logarithmic between the least and the greatest value shown.
fn write_latencies(report: &Report, out: &mut String) -> std::fmt::Result {
    let latency = &report.latency_ns;
    if latency.count == 0 {
        return writeln!(out, "\nno results, so no latencies");
    }
    writeln!(out, "\n{:<8}{:>12}{:>14}", "latency", "corrected", "uncorrected")?;
    let floor = (latency.min.max(1) as f64).ln();
    let span = ((latency.max.max(2) as f64).ln() - floor).max(f64::MIN_POSITIVE);
    for ((name, corrected), (_, uncorrected)) in
        latency.rows().iter().zip(report.latency_uncorrected_ns.rows())
    {
        let share = ((*corrected as f64).max(1.0).ln() - floor) / span;
        let (corrected, uncorrected) = (show_ns(*corrected), show_ns(uncorrected));
        let line = format!("{name:<8}{corrected:>12}{uncorrected:>14}  {}", bar(share));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Lines that fit a terminal of 80 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.chars().count() + 1 + word.chars().count() > 78) {
            lines.push(String::from(" "));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// Eighths of a character cell, so that near values differ.
fn bar(share: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR_WIDTH * 8) as f64).round() as usize;
    let part = PARTS.get(eighths % 8).copied().unwrap_or_default();
    "█".repeat(eighths / 8) + part
}

fn write_timeline(report: &Report, out: &mut String) -> std::fmt::Result {
    // The last slice is usually cut short, and its drop would be the most striking feature of a healthy run.
    let slices: Vec<_> =
        report.timeline.iter().filter(|slice| slice.at_s <= report.plan.duration_s + 1e-9).collect();
    if slices.len() < 2 {
        return Ok(());
    }
    let rates: Vec<_> = slices.iter().map(|slice| slice.ok as f64).collect();
    let tails: Vec<_> = slices.iter().map(|slice| slice.latency_ns_p99 as f64).collect();
    writeln!(out, "\nresults over time   {}", sparkline(&rates))?;
    writeln!(out, "p99 over time       {}", sparkline(&tails))
}

/// One character for each slice (or for a few, if there are more than fit a line), from zero to the maximum.
fn sparkline(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDTH: usize = 50;
    let max = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    values
        .chunks(values.len().div_ceil(WIDTH).max(1))
        .map(|chunk| {
            let mean = chunk.iter().sum::<f64>() / chunk.len() as f64;
            let level = (mean / max * (LEVELS.len() - 1) as f64).round() as usize;
            LEVELS.get(level).copied().unwrap_or('█')
        })
        .collect()
}
