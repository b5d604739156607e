//! The drawing of a day: what was asked for, and how busy the processors were under each order. Plain SVG.

use super::{Figures, Order, SLOT_COUNT};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
/// Around the plot: left and below for the axes' numbers.
const LEFT: f64 = 60.0;
const TOP: f64 = 54.0;
const PLOT_WIDTH: f64 = 780.0;
const PLOT_HEIGHT: f64 = 300.0;
/// Of all processors, at the upper edge.
const SHARE_MAX: f64 = 1.2;
/// Told apart also without colours: by their dashes.
const STYLES: [(&str, &str); 3] = [("#b04a3a", "2 4"), ("#2f6db3", "8 4"), ("#2f8f4e", "")];

/// The picture as text.
pub fn draw(days: &[(Order, Figures)]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">Processors in use over a day</text>\n\
         <text x=\"{LEFT}\" y=\"40\">percent of all there are, means of half hours</text>\n"
    );
    for tenths in (0..=12).step_by(2) {
        let share = f64::from(tenths) / 10.0;
        let at = y(share);
        let colour = if tenths == 10 { "#444444" } else { "#dddddd" };
        out.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>\n",
            LEFT + PLOT_WIDTH,
            LEFT - 8.0,
            at + 4.0,
            share * 100.0
        ));
    }
    for hour in (0..=24).step_by(4) {
        let at = LEFT + PLOT_WIDTH * f64::from(hour) / 24.0;
        out.push_str(&format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{hour}:00</text>\n",
            TOP + PLOT_HEIGHT + 20.0
        ));
    }
    out.push_str(&format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">time of day, h</text>\n",
        LEFT + PLOT_WIDTH / 2.0,
        TOP + PLOT_HEIGHT + 38.0
    ));
    if let Some((_, figures)) = days.first() {
        let points = points(&figures.demand());
        let (first, last, base) = (x(0), x(SLOT_COUNT - 1), y(0.0));
        out.push_str(&format!(
            "<polygon points=\"{first:.1},{base:.1} {points} {last:.1},{base:.1}\" fill=\"#eeeeee\" stroke=\"#aaaaaa\"/>\n"
        ));
    }
    for ((order, figures), (colour, dashes)) in days.iter().zip(STYLES) {
        let points = points(&figures.utilisation());
        out.push_str(&format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"><title>{}</title></polyline>\n",
            order.name()
        ));
    }
    legend(&mut out, days);
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, days: &[(Order, Figures)]) {
    let at = TOP + PLOT_HEIGHT + 66.0;
    out.push_str(&format!(
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"24\" height=\"10\" fill=\"#eeeeee\" stroke=\"#aaaaaa\"/>\n\
         <text x=\"{}\" y=\"{at:.1}\">asked for</text>\n",
        at - 9.0,
        LEFT + 30.0
    ));
    let mut left = LEFT + 120.0;
    for ((order, _), (colour, dashes)) in days.iter().zip(STYLES) {
        out.push_str(&format!(
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>\n<text x=\"{}\" y=\"{at:.1}\">{}</text>\n",
            left + 30.0,
            at - 4.0,
            at - 4.0,
            left + 36.0,
            order.name()
        ));
        left += 90.0 + 6.5 * order.name().len() as f64;
    }
}

fn points(shares: &[f64; SLOT_COUNT]) -> String {
    let points = shares.iter().enumerate().map(|(slot, share)| format!("{:.1},{:.1}", x(slot), y(*share)));
    points.collect::<Vec<_>>().join(" ")
}

/// The middle of a slot.
fn x(slot: usize) -> f64 {
    LEFT + PLOT_WIDTH * (slot as f64 + 0.5) / SLOT_COUNT as f64
}

fn y(share: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - share.min(SHARE_MAX) / SHARE_MAX)
}
