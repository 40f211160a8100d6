//! What is aimed at: for each figure a floor that must be reached and, for some, a goal beyond it. Ratios are to the limit of
//! the same run, unless said otherwise; times are of a machine that does nothing else.

use serde::Serialize;

/// A floor and perhaps a goal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Reach {
    better: Better,
    pub(crate) floor: f64,
    pub(crate) goal: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Better {
    More,
    Less,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The goal was reached, or the floor where there is no goal.
    Goal,
    /// The floor was reached, the goal was not.
    Floor,
    Missed,
}

/// Messages to one endpoint, against the limit.
pub(crate) const STEADY: Reach = Reach::at_least(0.20, Some(0.30));
/// Deliveries at ten endpoints a message, against the limit.
pub(crate) const FAN_OUT: Reach = Reach::at_least(0.40, Some(0.60));
/// End to end at half of the maximum, in milliseconds: median and 99th percentile.
pub(crate) const LATENCY_P50: Reach = Reach::at_most(2.0, Some(1.0));
pub(crate) const LATENCY_P99: Reach = Reach::at_most(15.0, Some(5.0));
/// Healthy endpoints' 99th percentile beside hanging ones, against the same load without them.
pub(crate) const ISOLATION: f64 = 1.5;
/// A million pending deliveries: resident mebibytes, and seconds until a killed server listens again.
pub(crate) const PENDING: f64 = 1e6;
pub(crate) const PENDING_MEMORY: Reach = Reach::at_most(150.0, Some(100.0));
pub(crate) const PENDING_START: Reach = Reach::at_most(1.0, None);
/// Doing nothing: resident mebibytes, wake-ups per second.
pub(crate) const IDLE_MEMORY: Reach = Reach::at_most(30.0, None);
pub(crate) const IDLE_WAKE_UPS: Reach = Reach::at_most(1.0, None);
/// Throughput with a long history, against none.
pub(crate) const HISTORY: Reach = Reach::at_least(0.90, None);
/// Goodput under overload, against the peak; and what must not happen at all.
pub(crate) const OVERLOAD: Reach = Reach::at_least(0.80, None);
pub(crate) const NONE: Reach = Reach::at_most(0.0, None);

/// On PostgreSQL, database, publisher and receiver on the same two cores: messages to one endpoint and deliveries at ten
/// endpoints a message, each per second; what is left while somebody holds a transaction open.
pub(crate) const POSTGRES_STEADY: Reach = Reach::at_least(6_000.0, None);
pub(crate) const POSTGRES_FAN_OUT: Reach = Reach::at_least(15_000.0, None);
pub(crate) const HELD_TRANSACTION: Reach = Reach::at_least(0.70, None);

impl Reach {
    /// More is better.
    pub(crate) const fn at_least(floor: f64, goal: Option<f64>) -> Self {
        Self { better: Better::More, floor, goal }
    }

    /// Less is better.
    pub(crate) const fn at_most(floor: f64, goal: Option<f64>) -> Self {
        Self { better: Better::Less, floor, goal }
    }

    /// Is it reached? What could not be measured is not.
    pub(crate) fn verdict(&self, value: f64) -> Verdict {
        let reached = |bound| match self.better {
            Better::More => value >= bound,
            Better::Less => value <= bound,
        };
        if !reached(self.floor) {
            Verdict::Missed
        } else if self.goal.is_none_or(reached) {
            Verdict::Goal
        } else {
            Verdict::Floor
        }
    }

    /// `≥` or `≤`.
    pub(crate) fn sign(&self) -> char {
        match self.better {
            Better::More => '≥',
            Better::Less => '≤',
        }
    }
}

impl Verdict {
    /// For people.
    pub(crate) fn text(self, has_goal: bool) -> &'static str {
        match self {
            Self::Goal if has_goal => "met goal",
            Self::Goal | Self::Floor => "met floor",
            Self::Missed => "**missed**",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_themselves_are_reached() {
        assert_eq!(STEADY.verdict(0.30), Verdict::Goal);
        assert_eq!(STEADY.verdict(0.20), Verdict::Floor);
        assert_eq!(STEADY.verdict(0.19), Verdict::Missed);
        assert_eq!(LATENCY_P99.verdict(5.0), Verdict::Goal);
        assert_eq!(LATENCY_P99.verdict(15.0), Verdict::Floor);
        assert_eq!(LATENCY_P99.verdict(15.1), Verdict::Missed);
        assert_eq!(NONE.verdict(0.0), Verdict::Goal);
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        assert_eq!(STEADY.verdict(f64::NAN), Verdict::Missed);
        assert_eq!(LATENCY_P50.verdict(f64::NAN), Verdict::Missed);
    }

    #[test]
    fn without_a_goal_only_the_floor_is_met() {
        assert_eq!(HISTORY.verdict(0.95).text(false), "met floor");
        assert_eq!(STEADY.verdict(0.5).text(true), "met goal");
    }
}
