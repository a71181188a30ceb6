//! Times against budgets as a picture, logarithmic upwards.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

/// What is drawn.
#[derive(Debug)]
pub struct Chart {
    /// Above the picture.
    pub title: String,
    /// The largest budget, in bytes.
    pub most_bytes: f64,
    /// The lines, from the back to the front.
    pub lines: Vec<Line>,
}

/// A line, or points with their times beside them.
#[derive(Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    pub style: Style,
    /// Budgets in bytes and times in seconds.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// A bound that is known beforehand.
    Dashed(&'static str),
    /// A line through points.
    Plain(&'static str),
    /// A line through points that are marked and have their numbers beside them.
    Marked(&'static str),
}

impl Style {
    fn colour(self) -> &'static str {
        match self {
            Style::Dashed(colour) | Style::Plain(colour) | Style::Marked(colour) => colour,
        }
    }
}

struct Axes {
    most_bytes: f64,
    low: f64,
    high: f64,
}

impl Axes {
    fn of(chart: &Chart) -> Axes {
        let times = chart.lines.iter().flat_map(|l| &l.points).map(|p| p.1);
        let (low, high) = times.fold((f64::MAX, 1e-9), |(low, high): (f64, f64), t: f64| {
            (if t > 0.0 { low.min(t) } else { low }, high.max(t))
        });
        Axes {
            most_bytes: chart.most_bytes.max(1.0),
            low: low.min(high) * 0.7,
            high: high * 1.3,
        }
    }

    fn x(&self, bytes: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * bytes / self.most_bytes
    }

    fn y(&self, seconds: f64) -> f64 {
        let part = (seconds.max(self.low) / self.low).ln() / (self.high / self.low).ln();
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

/// The picture as SVG. Times below the axis are drawn on it.
pub fn svg(chart: &Chart) -> String {
    let axes = Axes::of(chart);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    frame(&mut out, &axes, &chart.title);
    for (i, l) in chart.lines.iter().enumerate() {
        line(&mut out, &axes, l);
        // Writing to a string cannot fail.
        let (x, y) = (WIDTH - RIGHT - 150.0, TOP + 16.0 * (i as f64 + 1.0));
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\">{}</text>",
            l.style.colour(),
            l.name
        );
    }
    out.push_str("</svg>\n");
    out
}

fn line(out: &mut String, axes: &Axes, line: &Line) {
    let colour = line.style.colour();
    let dashes = match line.style {
        Style::Dashed(_) => "6 4",
        Style::Plain(_) | Style::Marked(_) => "",
    };
    let path: Vec<String> = line
        .points
        .iter()
        .map(|&(b, s)| format!("{:.1},{:.1}", axes.x(b), axes.y(s)))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dashes}\"><title>{}</title></polyline>",
        path.join(" "),
        line.name
    );
    if let Style::Marked(_) = line.style {
        for &(bytes, seconds) in &line.points {
            let (x, y) = (axes.x(bytes), axes.y(seconds));
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{:.1} ms</text>",
                x + 6.0,
                y - 6.0,
                seconds * 1e3
            );
        }
    }
}

fn frame(out: &mut String, axes: &Axes, title: &str) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>"
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
    let (unit, name) = match axes.most_bytes {
        b if b >= 2e9 => (1e9, "GB"),
        _ => (1e6, "MB"),
    };
    for i in 0..=10 {
        let bytes = axes.most_bytes * f64::from(i) / 10.0;
        let x = axes.x(bytes);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>",
            bottom + 18.0,
            bytes / unit
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">budget, {name} of {:.2} {name}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 16.0,
        axes.most_bytes / unit
    );
}
