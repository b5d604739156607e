//! The drawing of a flood: which part of the calls of others has waited no longer than so long. Plain SVG.

use super::{Delays, Flood};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 50.0;
const PLOT_WIDTH: f64 = 760.0;
const PLOT_HEIGHT: f64 = 290.0;
/// Shares that have a line, from the lower edge to the upper: each leaves a tenth of what the one below it leaves.
const SHARES: [&str; 4] = ["0 %", "90 %", "99 %", "99.9 %"];
/// Marks of the other axis, in nanoseconds, each ten times the one before: the first is the left edge.
const MARKS: [(f64, &str); 5] =
    [(1e3, "1 us or less"), (1e4, "10 us"), (1e5, "100 us"), (1e6, "1 ms"), (1e7, "10 ms")];
/// Decades in the plot; what comes last is half of one.
const DECADES: f64 = 4.5;
/// Told apart also without colours: by their dashes.
const STYLES: [(&str, &str, &str); 2] =
    [("#2f6db3", "8 4", "without the flood"), ("#b04a3a", "", "with one tenant at 1,000 times its share")];

pub(super) fn draw(flood: &Flood) -> String {
    let bottom = TOP + PLOT_HEIGHT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">How long calls of the nine other tenants wait for a place</text>\n\
         <text x=\"{LEFT}\" y=\"42\">share of these calls that waited no longer than</text>\n"
    );
    for (number, share) in SHARES.iter().enumerate() {
        let at = bottom - PLOT_HEIGHT * number as f64 / SHARES.len() as f64;
        out.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{share}</text>\n",
            LEFT + PLOT_WIDTH,
            LEFT - 8.0,
            at + 4.0
        ));
    }
    for (ns, name) in MARKS {
        let at = x(ns);
        out.push_str(&format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eeeeee\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\n",
            bottom + 18.0
        ));
    }
    for (delays, (colour, dashes, name)) in [&flood.calm, &flood.flooded].into_iter().zip(STYLES) {
        let points = points(delays);
        out.push_str(&format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"><title>{name}</title></polyline>\n"
        ));
    }
    let at = x(flood.bound_ns as f64);
    out.push_str(&format!(
        "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#444444\" stroke-dasharray=\"2 3\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">bound: {:.1} ms</text>\n",
        at - 6.0,
        bottom - 8.0,
        flood.bound_ns as f64 / 1e6
    ));
    legend(&mut out, bottom + 44.0);
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, top: f64) {
    for (number, (colour, dashes, name)) in STYLES.iter().enumerate() {
        let (left, at) = (LEFT + 200.0 * number as f64, top);
        out.push_str(&format!(
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>\n<text x=\"{}\" y=\"{at:.1}\">{name}</text>\n",
            left + 30.0,
            at - 4.0,
            at - 4.0,
            left + 36.0
        ));
    }
}

/// As far as there are ten calls beyond: fewer are chance.
fn points(delays: &Delays) -> String {
    let count = delays.sorted_ns.len() as f64;
    let decades = SHARES.len() as f64;
    let at = |number: u32| {
        let left = 10_f64.powf(-decades * f64::from(number) / 400.0);
        let ns = delays.percentile_ns(1.0 - left) as f64;
        let y = TOP + PLOT_HEIGHT * (1.0 - f64::from(number) / 400.0);
        (left * count >= 10.0).then(|| format!("{:.1},{y:.1}", x(ns)))
    };
    (0..400).map_while(at).collect::<Vec<_>>().join(" ")
}

fn x(ns: f64) -> f64 {
    LEFT + PLOT_WIDTH * (ns / MARKS[0].0).max(1.0).log10() / DECADES
}
