//! The report as a picture: time per token against the budget, logarithmic upwards.

use crate::measure::{Point, Report};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

struct Axes {
    most_bytes: f64,
    low: f64,
    high: f64,
}

impl Axes {
    fn x(&self, bytes: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * bytes / self.most_bytes
    }

    fn y(&self, seconds: f64) -> f64 {
        let part = (seconds / self.low).ln() / (self.high / self.low).ln();
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    }

    /// Times that get a line: 1, 2 and 5 of each decade, in seconds.
    fn marks(&self) -> Vec<f64> {
        let decades = (-6..3).flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
        decades
            .filter(|t| (self.low..=self.high).contains(t))
            .collect()
    }
}

/// An SVG picture with the floors of the link and of the memory drawn in.
pub fn svg(report: &Report) -> String {
    let mut points: Vec<&Point> = report.budgets.iter().collect();
    points.sort_by_key(|p| p.applied_bytes);
    let total = report.total_weight_bytes as f64;
    let memory = total / report.memory_rate;
    let slowest = points.iter().map(|p| p.median).fold(memory, f64::max);
    let axes = Axes {
        most_bytes: total.max(1.0),
        low: memory * 0.7,
        high: (slowest.max(total / report.link_rate)) * 1.3,
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    frame(&mut out, &axes, report);
    let measured = points.iter().map(|p| (p.applied_bytes as f64, p.median));
    let link = (0..=100).map(|i| {
        let budget = total * f64::from(i) / 100.0;
        (budget, ((total - budget) / report.link_rate).max(axes.low))
    });
    line(&mut out, &axes, link, "#c33", "6 4", "link");
    let floor = [(0.0, memory), (total, memory)].into_iter();
    line(&mut out, &axes, floor, "#393", "6 4", "memory");
    line(&mut out, &axes, measured, "#136", "", "measured");
    for p in &points {
        // Writing to a string cannot fail.
        let (x, y) = (axes.x(p.applied_bytes as f64), axes.y(p.median));
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#136\"/>"
        );
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\">{:.1} ms</text>",
            x + 6.0,
            y - 6.0,
            p.median * 1e3
        );
    }
    out.push_str("</svg>\n");
    out
}

fn line(
    out: &mut String,
    axes: &Axes,
    points: impl Iterator<Item = (f64, f64)>,
    colour: &str,
    dashes: &str,
    name: &str,
) {
    let path: Vec<String> = points
        .map(|(b, s)| format!("{:.1},{:.1}", axes.x(b), axes.y(s)))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dashes}\"><title>{name}</title></polyline>",
        path.join(" ")
    );
}

fn frame(out: &mut String, axes: &Axes, report: &Report) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}: ms per token against the budget \
         (blue), floors of the link (red) and of memory (green)</text>",
        report.device
    );
    for t in axes.marks() {
        let y = axes.y(t);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            (t * 1e6).round() / 1e3
        );
    }
    for i in 0..=10 {
        let bytes = axes.most_bytes * f64::from(i) / 10.0;
        let x = axes.x(bytes);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>",
            bottom + 18.0,
            bytes / 1e9
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">budget, GB of {:.2} GB</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 16.0,
        axes.most_bytes / 1e9
    );
}
