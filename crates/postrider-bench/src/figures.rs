//! Figures: values of one kind from all pairs of a run, their median, their ratio to something of the same pair, and whether
//! that reaches what is aimed at. Serialised, they are the JSON report.

use crate::reach::{Reach, Verdict};
use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    pub(crate) unit: Unit,
    /// One value a pair, in the order of the pairs; a single one where nothing was repeated.
    pub(crate) values: Vec<f64>,
    /// Their median.
    pub(crate) median: f64,
    /// The same divided by another figure of the same pair.
    pub(crate) ratio: Option<Ratio>,
    /// What is aimed at, and whether it was reached.
    pub(crate) reach: Option<Judged>,
}

/// A figure divided by another one of the same pair.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// The name of the other.
    pub(crate) to: &'static str,
    /// One value a pair.
    pub(crate) values: Vec<f64>,
    /// Their median: this is what is judged.
    pub(crate) median: f64,
}

/// A figure beside what is aimed at. Floor and goal are in the figure's unit, or ratios when the figure has one.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Judged {
    #[serde(flatten)]
    pub(crate) reach: Reach,
    pub(crate) verdict: Verdict,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    Microseconds,
    Milliseconds,
    Seconds,
    Mebibytes,
    Bytes,
    Percent,
    Count,
}

impl Figure {
    /// From one value a pair.
    pub(crate) fn new(name: impl Into<String>, unit: Unit, values: Vec<f64>) -> Self {
        let median = median(&values);
        Self { name: name.into(), unit, values, median, ratio: None, reach: None }
    }

    /// From the only value.
    pub(crate) fn once(name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self::new(name, unit, vec![value])
    }

    /// Divides each value by the one of the same pair.
    pub(crate) fn against(mut self, to: &'static str, others: &[f64]) -> Self {
        let values: Vec<_> = self.values.iter().zip(others).map(|(value, other)| value / other).collect();
        let median = median(&values);
        self.ratio = Some(Ratio { to, values, median });
        self
    }

    /// Judges the ratio, or the value when there is none.
    pub(crate) fn judged(mut self, reach: Reach) -> Self {
        let value = self.ratio.as_ref().map_or(self.median, |ratio| ratio.median);
        self.reach = Some(Judged { reach, verdict: reach.verdict(value) });
        self
    }

    /// Judges the value whatever its ratio is.
    pub(crate) fn judged_itself(mut self, reach: Reach) -> Self {
        self.ratio = None;
        self.judged(reach)
    }

    /// Judges it only where it was measured as it was meant.
    pub(crate) fn judged_if(self, as_meant: bool, reach: Reach) -> Self {
        if as_meant { self.judged(reach) } else { self }
    }
}

impl Unit {
    /// A value for people.
    pub(crate) fn show(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Milliseconds if value < 100.0 => format!("{value:.2} ms"),
            Self::Milliseconds => format!("{} ms", thousands(value)),
            Self::Seconds => format!("{value:.2} s"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Bytes => format!("{} B", thousands(value)),
            Self::Percent => format!("{value:.1} %"),
            Self::Count if value < 100.0 && value.fract() != 0.0 => format!("{value:.2}"),
            Self::Count => thousands(value),
        }
    }
}

/// The middle one; between two middle ones the mean of both. `NaN` of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A whole number for people.
pub(crate) fn whole(number: impl TryInto<u64>) -> String {
    thousands(crate::world::count(number.try_into().unwrap_or(u64::MAX)))
}

/// With a comma every three digits.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_pairs_is_not_moved_by_one_bad_run() {
        assert!((median(&[3.0, 1.0, 2.0, 100.0, 2.5]) - 2.5).abs() < f64::EPSILON);
        assert!((median(&[1.0, 2.0]) - 1.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    /// Each value is compared with its own pair: a machine that is slow for a while slows both.
    #[test]
    fn a_ratio_is_the_median_of_the_ratios_of_pairs() {
        let figure =
            Figure::new("x", Unit::PerSecond, vec![10.0, 4.0, 30.0]).against("limit", &[100.0, 10.0, 100.0]);
        assert!((figure.ratio.unwrap().median - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_is_judged_before_the_value() {
        let reach = Reach::at_least(0.2, Some(0.3));
        let figure = Figure::new("x", Unit::PerSecond, vec![25.0]);
        assert_eq!(figure.clone().judged(reach).reach.unwrap().verdict, Verdict::Goal);
        let figure = figure.against("limit", &[100.0]);
        assert_eq!(figure.clone().judged(reach).reach.unwrap().verdict, Verdict::Floor);
        assert!(figure.judged_if(false, reach).reach.is_none());
    }

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(Unit::PerSecond.show(1_234_567.4), "1,234,567/s");
        assert_eq!(Unit::Count.show(100.0), "100");
        assert_eq!(Unit::Count.show(0.25), "0.25");
        assert_eq!(Unit::Milliseconds.show(1.234), "1.23 ms");
        assert_eq!(Unit::Mebibytes.show(f64::NAN), "–");
        assert_eq!(Unit::Bytes.show(-1500.0), "-1,500 B");
    }
}
