//! The drawing of the policies: cold starts against wasted memory, both the less the better. Plain SVG.

use super::{Figures, Policy};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 500.0;
/// Around the plot: left and below for the axes' numbers.
const LEFT: f64 = 64.0;
const TOP: f64 = 58.0;
const PLOT_WIDTH: f64 = 760.0;
const PLOT_HEIGHT: f64 = 340.0;
/// Over that of ten minutes, at the lower and the upper edge. What is below is not drawn.
const WASTED_MIN: f64 = 0.8;
const WASTED_MAX: f64 = 1.6;

/// Policies that differ in their minutes only are one line.
struct Line {
    name: &'static str,
    colour: &'static str,
    /// Told apart also without colours.
    dashes: &'static str,
    /// Where the minutes stand beside a point, so that those of two lines do not meet.
    label: (f64, f64, &'static str),
    minutes: fn(Policy) -> Option<u64>,
}

const LINES: [Line; 3] = [
    Line {
        name: "fixed keep-alive",
        colour: "#b04a3a",
        dashes: "2 4",
        label: (9.0, -7.0, "start"),
        minutes: |policy| match policy {
            Policy::Fixed(minutes) => Some(minutes),
            _ => None,
        },
    },
    Line {
        name: "hybrid histogram",
        colour: "#2f6db3",
        dashes: "8 4",
        label: (9.0, -7.0, "start"),
        minutes: |policy| match policy {
            Policy::Hybrid(minutes) => Some(minutes),
            _ => None,
        },
    },
    Line {
        name: "hybrid histogram and time of day",
        colour: "#2f8f4e",
        dashes: "",
        label: (-9.0, 15.0, "end"),
        minutes: |policy| match policy {
            Policy::HybridAndTimeOfDay(minutes) => Some(minutes),
            _ => None,
        },
    },
];

/// The picture as text.
pub fn draw(policies: &[(Policy, Figures)]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">Cold starts and wasted memory</text>\n\
         <text x=\"{LEFT}\" y=\"42\">memory that is warm at nothing, over that of a fixed keep-alive of 10 min; the lower and the \
         further left the better</text>\n"
    );
    axes(&mut out);
    let standard = policies.iter().find(|(policy, _)| *policy == Policy::STANDARD);
    if let Some((_, standard)) = standard {
        LINES.iter().for_each(|line| draw_line(&mut out, line, policies, standard));
    }
    legend(&mut out);
    out.push_str("</svg>\n");
    out
}

fn axes(out: &mut String) {
    for tenths in 8..=16 {
        let wasted = f64::from(tenths) / 10.0;
        let at = y(wasted);
        let colour = if tenths == 10 { "#444444" } else { "#dddddd" };
        out.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{wasted:.1}</text>\n",
            LEFT + PLOT_WIDTH,
            LEFT - 8.0,
            at + 4.0,
        ));
    }
    for percent in (0..=100).step_by(10) {
        let at = x(f64::from(percent) / 100.0);
        out.push_str(&format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{percent} %</text>\n",
            TOP + PLOT_HEIGHT + 20.0
        ));
    }
    out.push_str(&format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">calls of the third-quartile application that start cold</text>\n",
        LEFT + PLOT_WIDTH / 2.0,
        TOP + PLOT_HEIGHT + 40.0
    ));
}

fn draw_line(out: &mut String, line: &Line, policies: &[(Policy, Figures)], standard: &Figures) {
    let points: Vec<(u64, f64, f64)> = policies
        .iter()
        .filter_map(|(policy, figures)| {
            let minutes = (line.minutes)(*policy)?;
            let wasted =
                Some(figures.wasted_over(standard)).filter(|it| (WASTED_MIN..=WASTED_MAX).contains(it))?;
            Some((minutes, x(figures.cold_percentile(75)), y(wasted)))
        })
        .collect();
    let corners: Vec<String> = points.iter().map(|(_, x, y)| format!("{x:.1},{y:.1}")).collect();
    let Line { name, colour, dashes, label: (right, below, anchor), .. } = line;
    out.push_str(&format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\">\
         <title>{name}</title></polyline>\n",
        corners.join(" ")
    ));
    for (minutes, x, y) in points {
        out.push_str(&format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{minutes}</text>\n",
            x + right,
            y + below
        ));
    }
}

fn legend(out: &mut String) {
    let at = TOP + PLOT_HEIGHT + 70.0;
    let mut left = LEFT;
    for Line { name, colour, dashes, .. } in LINES {
        out.push_str(&format!(
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>\n<text x=\"{}\" y=\"{at:.1}\">{name}</text>\n",
            left + 30.0,
            at - 4.0,
            at - 4.0,
            left + 36.0,
        ));
        left += 76.0 + 6.5 * name.len() as f64;
    }
    out.push_str(&format!(
        "<text x=\"{LEFT}\" y=\"{:.1}\">Beside the points: minutes of keep-alive, of the hybrid policies for those of which too little \
         is known.</text>\n",
        at + 22.0
    ));
}

fn x(share: f64) -> f64 {
    LEFT + PLOT_WIDTH * share
}

fn y(wasted: f64) -> f64 {
    TOP + PLOT_HEIGHT * (WASTED_MAX - wasted) / (WASTED_MAX - WASTED_MIN)
}
