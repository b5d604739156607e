//! Two kinds of plot as inline SVG: dots (every run of every row, with the median marked) and lines (one quantity over
//! another, with the spread as bars).
//!
//! Never: loads anything or runs anything; a page with these can be mailed.

use std::fmt::Write;

use crate::series::{Summary, Unit};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 90.0;
const ROW_HEIGHT: f64 = 22.0;
const LINES_HEIGHT: f64 = 260.0;
const LINES_LEFT: f64 = 90.0;
const BOTTOM: f64 = 34.0;

/// A row of dots.
pub struct Row {
    /// Said at its left.
    pub label: String,
    /// One dot each.
    pub values: Vec<f64>,
    /// Style: `a` for Quickfire, `b` for what it is compared with.
    pub class: &'static str,
    /// A bound, drawn across the row.
    pub bound: Option<f64>,
}

/// One line with its points: where, and the values measured there.
pub struct Line {
    /// Style.
    pub class: &'static str,
    /// From left to right.
    pub points: Vec<(f64, Vec<f64>)>,
}

/// All runs of each row on one axis from zero; logarithmic where the rows are more than a factor of fifty apart.
pub fn dots(out: &mut String, unit: Unit, rows: &[Row]) -> std::fmt::Result {
    let values = || rows.iter().flat_map(|row| row.values.iter().copied().chain(row.bound));
    let max = values().fold(0.0, f64::max);
    let min = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    if max <= 0.0 {
        return Ok(());
    }
    let axis = if max / min > 50.0 { Axis::logarithmic(min, max) } else { Axis::linear(max) };
    let height = ROW_HEIGHT * rows.len() as f64 + BOTTOM;
    let x_of = |value: f64| LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT);
    write!(out, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">")?;
    for tick in &axis.ticks {
        let (x, bottom) = (x_of(*tick), height - BOTTOM);
        write!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            unit.show(*tick)
        )?;
    }
    for (index, row) in rows.iter().enumerate() {
        let y = ROW_HEIGHT * (index as f64 + 0.5);
        let label = escape(&row.label);
        write!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>", LEFT - 10.0, y + 4.0)?;
        if let Some(bound) = row.bound {
            let x = x_of(bound);
            write!(
                out,
                "<line class=\"bound\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>",
                y - 9.0,
                y + 9.0
            )?;
        }
        for value in &row.values {
            write!(out, "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{y}\" r=\"3.5\"/>", row.class, x_of(*value))?;
        }
        if let Some(summary) = Summary::of(&row.values) {
            let (x, from, to) = (x_of(summary.median), y - 7.0, y + 7.0);
            write!(
                out,
                "<line class=\"median {}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from}\" y2=\"{to}\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text>",
                row.class,
                WIDTH - RIGHT + 10.0,
                y + 4.0,
                unit.show(summary.median)
            )?;
        }
    }
    writeln!(out, "</svg>")
}

/// Medians over a logarithmic axis, joined by lines, with a bar from the smallest to the largest.
pub fn lines(out: &mut String, unit: Unit, lines: &[Line]) -> std::fmt::Result {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let max = points().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
    let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let x_min = points().map(|(x, _)| *x).fold(x_max, f64::min).max(1.0);
    let (y_axis, x_axis) = (Axis::linear(max.max(1e-9)), Axis::logarithmic(x_min, x_max.max(x_min * 2.0)));
    let x_of = |x: f64| LINES_LEFT + x_axis.share(x) * (WIDTH - LINES_LEFT - 30.0);
    let y_of = |y: f64| LINES_HEIGHT - BOTTOM - y_axis.share(y) * (LINES_HEIGHT - BOTTOM - 12.0);
    write!(out, "<svg viewBox=\"0 0 {WIDTH} {LINES_HEIGHT}\" role=\"img\">")?;
    for tick in &y_axis.ticks {
        let y = y_of(*tick);
        write!(
            out,
            "<line class=\"grid\" x1=\"{LINES_LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LINES_LEFT - 8.0,
            y + 4.0,
            unit.show(*tick)
        )?;
    }
    for (x, _) in lines.first().map_or(&[][..], |line| &line.points) {
        let label = Unit::Count.show(*x);
        write!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            x_of(*x),
            LINES_HEIGHT - 16.0
        )?;
    }
    for line in lines {
        let summaries = line.points.iter().filter_map(|(x, values)| Some((*x, Summary::of(values)?)));
        let mut path = String::new();
        for (x, summary) in summaries {
            let x = x_of(x);
            write!(path, "{x:.1},{:.1} ", y_of(summary.median))?;
            write!(
                out,
                "<line class=\"spread {}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                line.class,
                y_of(summary.min),
                y_of(summary.max)
            )?;
        }
        write!(out, "<polyline class=\"line {}\" points=\"{path}\"/>", line.class)?;
    }
    writeln!(out, "</svg>")
}

struct Axis {
    min: f64,
    max: f64,
    is_logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From zero, with four or five round ticks.
    fn linear(max: f64) -> Self {
        let power = 10f64.powf((max / 4.0).log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= max / 4.0);
        let step = step.unwrap_or(max / 4.0);
        let ticks = (0..=5).map(|index| f64::from(index) * step).take_while(|tick| *tick <= max * 1.001);
        Self { min: 0.0, max, is_logarithmic: false, ticks: ticks.collect() }
    }

    /// With a tick at each power of ten.
    fn logarithmic(min: f64, max: f64) -> Self {
        let powers = min.log10().floor() as i32..=max.log10().ceil() as i32;
        let ticks = powers.map(|power| 10f64.powi(power)).filter(|tick| (min..=max).contains(tick));
        Self { min, max, is_logarithmic: true, ticks: ticks.collect() }
    }

    fn share(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.min) / self.min).ln() / (self.max / self.min).ln()
        } else {
            (value - self.min) / (self.max - self.min)
        };
        share.clamp(0.0, 1.0)
    }
}

/// Text that may stand in a page.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_puts_its_ends_at_its_ends() {
        let linear = Axis::linear(16.0);
        assert_eq!((linear.share(0.0), linear.share(16.0)), (0.0, 1.0));
        assert_eq!(linear.ticks, [0.0, 5.0, 10.0, 15.0]);
        let logarithmic = Axis::logarithmic(1.0, 100.0);
        assert!((logarithmic.share(10.0) - 0.5).abs() < 1e-9);
        assert_eq!(logarithmic.ticks, [1.0, 10.0, 100.0]);
    }

    #[test]
    fn every_value_is_a_dot_and_labels_are_escaped() {
        let mut out = String::new();
        let row = Row { label: "a < b".into(), values: vec![1.0, 2.0, 3.0], class: "a", bound: Some(2.5) };
        dots(&mut out, Unit::Ns, &[row]).unwrap();
        assert_eq!(out.matches("<circle").count(), 3);
        assert!(out.contains("a &lt; b") && out.contains("class=\"bound\""));
    }
}
