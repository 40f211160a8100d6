//! Plots as SVG, drawn here: a few lines or bars with axes need no library.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 64.0;
/// Told apart also by people who see colours differently (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A drawing.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// Name of its file, without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) shape: Shape,
    /// Every step up the axis is ten times as much.
    pub(crate) logarithmic: bool,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Named lines through points.
    Lines(Vec<(String, Vec<(f64, f64)>)>),
    /// Named bars: least, median and most of each.
    Bars(Vec<(String, [f64; 3])>),
    /// Named lines of latencies by percentile: points are (share, value), and the axis stretches towards the slowest.
    Percentiles(Vec<(String, Vec<(f64, f64)>)>),
}

/// From values to pixels.
struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
    pixels: (f64, f64),
}

impl Plot {
    /// The whole file.
    pub(crate) fn svg(&self) -> String {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        text(
            &mut out,
            (LEFT, 22.0),
            "start",
            &format!("<tspan font-weight=\"bold\">{}</tspan>", escape(&self.title)),
        );
        text(&mut out, (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 12.0), "middle", &escape(&self.x));
        let _ = writeln!(
            out,
            "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            escape(&self.y)
        );
        let y = self.y_scale();
        for tick in y.ticks() {
            let at = y.at(tick);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>",
                WIDTH - RIGHT
            );
            text(&mut out, (LEFT - 8.0, at + 4.0), "end", &short(tick));
        }
        match &self.shape {
            Shape::Bars(bars) => draw_bars(&mut out, bars, &y),
            Shape::Lines(lines) => {
                let xs = lines.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x));
                let x = Scale::new(xs, false, (LEFT, WIDTH - RIGHT));
                for tick in x.ticks() {
                    text(&mut out, (x.at(tick), HEIGHT - BOTTOM + 18.0), "middle", &short(tick));
                }
                draw_lines(&mut out, lines, |value| x.at(value), &y);
            }
            Shape::Percentiles(lines) => {
                // 50 %, 90 %, 99 %, …: equal steps.
                let x = Scale { from: 1.0, to: 1e4, logarithmic: true, pixels: (LEFT, WIDTH - RIGHT) };
                for (tick, name) in
                    [(2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %")]
                {
                    text(&mut out, (x.at(tick), HEIGHT - BOTTOM + 18.0), "middle", name);
                }
                draw_lines(&mut out, lines, |share| x.at((1.0 / (1.0 - share).max(1e-9)).min(1e4)), &y);
            }
        }
        out.push_str("</svg>\n");
        out
    }

    fn y_scale(&self) -> Scale {
        let values: Vec<f64> = match &self.shape {
            Shape::Lines(lines) | Shape::Percentiles(lines) => {
                lines.iter().flat_map(|(_, points)| points.iter().map(|(_, y)| *y)).collect()
            }
            Shape::Bars(bars) => bars.iter().flat_map(|(_, values)| *values).collect(),
        };
        let zero = (!self.logarithmic).then_some(0.0);
        Scale::new(values.into_iter().chain(zero), self.logarithmic, (HEIGHT - BOTTOM, TOP))
    }
}

impl Scale {
    /// Wide enough for all values, to round numbers.
    fn new(values: impl Iterator<Item = f64>, logarithmic: bool, pixels: (f64, f64)) -> Self {
        let values = values.filter(|value| value.is_finite() && (!logarithmic || *value > 0.0));
        let (mut from, mut to) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        if from > to {
            (from, to) = (1.0, 10.0);
        }
        if logarithmic {
            from = 10_f64.powf(from.log10().floor());
            to = 10_f64.powf(to.log10().ceil()).max(from * 10.0);
        } else {
            let step = round_step(to - from);
            from = (from / step).floor() * step;
            to = ((to / step).ceil() * step).max(from + step);
        }
        Self { from, to, logarithmic, pixels }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.from).log10() - self.from.log10()) / (self.to.log10() - self.from.log10())
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.pixels.0 + share.clamp(0.0, 1.0) * (self.pixels.1 - self.pixels.0)
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut tick = self.from;
        // Both kinds of scale have a handful.
        while tick <= self.to * (1.0 + 1e-9) + 1e-12 && ticks.len() < 20 {
            ticks.push(tick);
            tick = if self.logarithmic { tick * 10.0 } else { tick + round_step(self.to - self.from) };
        }
        ticks
    }
}

/// A distance of ticks such that about five fit: 1, 2 or 5 times a power of ten.
fn round_step(range: f64) -> f64 {
    if range <= 0.0 {
        return 1.0;
    }
    let raw = range / 5.0;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| raw <= factor * power * 1.000_001);
    factor.unwrap_or(10.0) * power
}

fn draw_lines(out: &mut String, lines: &[(String, Vec<(f64, f64)>)], x: impl Fn(f64) -> f64, y: &Scale) {
    let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
    for (((name, points), colour), at) in lines.iter().zip(COLOURS.iter().cycle()).zip(legend(&names)) {
        let mut path = String::new();
        for (at, value) in points.iter().filter(|(at, value)| at.is_finite() && value.is_finite()) {
            let _ = write!(path, "{:.1},{:.1} ", x(*at), y.at(*value));
        }
        let path = path.trim_end();
        let _ = writeln!(
            out,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>"
        );
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>",
            at.0,
            at.1 - 6.0
        );
        text(out, (at.0 + 18.0, at.1), "start", &escape(name));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
fn draw_bars(out: &mut String, bars: &[(String, [f64; 3])], y: &Scale) {
    let room = (WIDTH - RIGHT - LEFT) / bars.len().max(1) as f64;
    for (index, (name, [least, middle, most])) in bars.iter().enumerate() {
        let centre = LEFT + room * (index as f64 + 0.5);
        if middle.is_finite() {
            let (top, bottom) = (y.at(*middle), y.at(y.from));
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" width=\"{:.1}\" y=\"{top:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
                 <line x1=\"{centre:.1}\" x2=\"{centre:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#222222\"/>",
                centre - room * 0.3,
                room * 0.6,
                bottom - top,
                COLOURS[0],
                y.at(*least),
                y.at(*most)
            );
            text(out, (centre + 4.0, top - 5.0), "start", &short(*middle));
        }
        text(out, (centre, HEIGHT - BOTTOM + 18.0), "middle", &escape(name));
    }
}

/// Where names go: in rows between the title and the drawing.
fn legend(names: &[&str]) -> Vec<(f64, f64)> {
    let (mut x, mut y) = (LEFT, 40.0);
    let mut places = Vec::new();
    for name in names {
        // A letter is about this wide; its mark and a gap come on top.
        let width = f64::from(u16::try_from(name.chars().count()).unwrap_or(u16::MAX)) * 6.4 + 34.0;
        if x > LEFT && x + width > WIDTH {
            (x, y) = (LEFT, y + 15.0);
        }
        places.push((x, y));
        x += width;
    }
    places
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, inner: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{inner}</text>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number in few characters.
fn short(value: f64) -> String {
    let round = |value: f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        big if big >= 1e6 => format!("{}M", round(value / 1e6)),
        big if big >= 1e4 => format!("{}k", round(value / 1e3)),
        small if small < 0.01 && small > 0.0 => format!("{value}"),
        _ => round(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(shape: Shape, logarithmic: bool) -> String {
        let plot = Plot {
            name: "name".to_owned(),
            title: "a < b & \"c\"".to_owned(),
            x: "x".to_owned(),
            y: "y".to_owned(),
            shape,
            logarithmic,
        };
        plot.svg()
    }

    /// Every element is closed in order, and nothing stands in it that XML does not allow.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').unwrap();
            let tag = &rest[start + 1..end];
            assert!(!tag.contains('<'), "{tag}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert_eq!(open, [""; 0]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn plots_are_well_formed_whatever_they_show() {
        let line = |points: &[(f64, f64)]| vec![("<one> & \"two\"".to_owned(), points.to_vec())];
        let some = [(0.0, 1.0), (1.0, 1000.0), (2.0, f64::NAN), (3.0, 7.0)];
        for logarithmic in [false, true] {
            for points in [&some[..], &[(1.0, 0.0)], &[]] {
                assert_well_formed(&plot(Shape::Lines(line(points)), logarithmic));
            }
            assert_well_formed(&plot(Shape::Percentiles(line(&[(0.5, 1.0), (1.0, 9.0)])), logarithmic));
            let bars = vec![("a".to_owned(), [1.0, 2.0, 3.0]), ("b".to_owned(), [f64::NAN; 3])];
            assert_well_formed(&plot(Shape::Bars(bars), logarithmic));
            assert_well_formed(&plot(Shape::Bars(vec![]), logarithmic));
        }
    }

    #[test]
    fn an_axis_ends_at_round_numbers_around_all_values() {
        let scale = Scale::new([0.0, 23_400.0].into_iter(), false, (0.0, 100.0));
        assert_eq!(scale.ticks(), [0.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0, 25_000.0]);
        let scale = Scale::new([0.7, 40.0].into_iter(), true, (0.0, 100.0));
        let ticks: Vec<_> = scale.ticks().into_iter().map(short).collect();
        assert_eq!(ticks, ["0.1", "1", "10", "100"]);
        assert!((scale.at(1.0) - 100.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn names_that_do_not_fit_go_to_the_next_row() {
        let name = "while another saturates the server";
        let [first, second, third] = legend(&[name, name, name])[..] else { panic!("not three") };
        assert!(second.0 > first.0 && second.1 <= first.1, "{first:?} {second:?}");
        assert!(third.0 <= first.0 && third.1 > first.1, "{first:?} {third:?}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.5, 12.0, 12_500.0, 2e6].map(short), ["0.5", "12", "12.5k", "2M"]);
    }
}
