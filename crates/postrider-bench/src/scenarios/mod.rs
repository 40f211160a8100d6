//! The scenarios: what is run, in which order, and how long it takes.
//!
//! The cast:
//! - `rates`: the limit, and beside it steady load, fan-out and latency, interleaved;
//! - `isolation`, `backlog`, `history`, `tenants`, `overload`, `idle`, `soak`: one question each;
//! - `held`: a transaction that somebody holds open on PostgreSQL;
//! - `load`: whatever the caller asks for, once.

mod backlog;
mod held;
mod history;
mod idle;
mod isolation;
mod load;
mod overload;
mod rates;
mod soak;
mod tenants;

use crate::{
    figures::{Figure, Unit},
    plot::{Plot, Shape},
    progress::Progress,
    report::ScenarioReport,
    settings::{Command, Settings},
    world::ms,
};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::{pin::Pin, time::Duration};
use tokio::time::Instant;

/// One part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Rates(rates::Wanted),
    Isolation,
    Backlog,
    History,
    Tenants,
    Overload,
    Idle,
    Held,
    Soak,
}

/// Runs what was asked for and hands over each part's reports as soon as they are there. What fails is in its report; the
/// others go on.
pub(crate) async fn run(
    command: &Command,
    settings: &Settings,
    mut done: impl FnMut(Vec<ScenarioReport>) -> Result<()>,
) -> Result<()> {
    if let Command::Load(load) = command {
        let progress = Progress::new(settings.duration);
        progress.scenario("load", settings.duration);
        let (started, report) = (Instant::now(), load::run(load, settings).await);
        return done(finished("load", started, report.map(|report| vec![report])));
    }
    let mut parts = parts(command, settings.full);
    if settings.launch.postgres().is_none() && matches!(command, Command::All) {
        parts.retain(|part| *part != Part::Held);
    }
    let progress = Progress::new(parts.iter().map(|part| part.estimate(settings)).sum());
    for part in parts {
        progress.scenario(part.name(), part.estimate(settings));
        let started = Instant::now();
        done(finished(part.name(), started, part.run(settings, &progress).await))?;
    }
    Ok(())
}

fn finished(
    name: &'static str,
    started: Instant,
    reports: Result<Vec<ScenarioReport>>,
) -> Vec<ScenarioReport> {
    let seconds = started.elapsed().as_secs_f64();
    let mut reports = reports.unwrap_or_else(|error| vec![ScenarioReport::failed(name, &error)]);
    for report in &mut reports {
        report.seconds = seconds;
    }
    reports
}

fn parts(command: &Command, full: bool) -> Vec<Part> {
    use rates::Wanted;
    let mut all = vec![
        Part::Rates(Wanted::ALL),
        Part::Isolation,
        Part::Backlog,
        Part::History,
        Part::Tenants,
        Part::Overload,
        Part::Idle,
        Part::Held,
    ];
    if full {
        all.push(Part::Soak);
    }
    match command {
        Command::All => all,
        Command::Limit => vec![Part::Rates(Wanted::LIMIT)],
        Command::Steady => vec![Part::Rates(Wanted::STEADY)],
        Command::FanOut => vec![Part::Rates(Wanted::FAN_OUT)],
        Command::Latency => vec![Part::Rates(Wanted::LATENCY)],
        Command::Isolation => vec![Part::Isolation],
        Command::Backlog => vec![Part::Backlog],
        Command::History => vec![Part::History],
        Command::Tenants => vec![Part::Tenants],
        Command::Overload => vec![Part::Overload],
        Command::Idle => vec![Part::Idle],
        Command::HeldTransaction => vec![Part::Held],
        Command::Soak => vec![Part::Soak],
        Command::Load(_) => vec![],
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Rates(wanted) => wanted.name(),
            Self::Isolation => "isolation",
            Self::Backlog => "backlog",
            Self::History => "history",
            Self::Tenants => "tenants",
            Self::Overload => "overload",
            Self::Idle => "idle",
            Self::Held => "held-transaction",
            Self::Soak => "soak",
        }
    }

    /// About how long it takes on a machine with two cores.
    fn estimate(self, settings: &Settings) -> Duration {
        match self {
            Self::Rates(wanted) => wanted.estimate(settings),
            Self::Isolation => isolation::estimate(settings),
            Self::Backlog => backlog::estimate(settings),
            Self::History => history::estimate(settings),
            Self::Tenants => tenants::estimate(settings),
            Self::Overload => overload::estimate(settings),
            Self::Idle => idle::estimate(settings),
            Self::Held => held::estimate(settings),
            Self::Soak => settings.soak,
        }
    }

    /// Boxed: together their states are large.
    fn run<'a>(
        self,
        settings: &'a Settings,
        progress: &'a Progress,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<ScenarioReport>>> + 'a>> {
        Box::pin(async move {
            Ok(vec![match self {
                Self::Rates(wanted) => return rates::run(wanted, settings, progress).await,
                Self::Isolation => isolation::run(settings, progress).await?,
                Self::Backlog => backlog::run(settings, progress).await?,
                Self::History => history::run(settings, progress).await?,
                Self::Tenants => tenants::run(settings, progress).await?,
                Self::Overload => overload::run(settings, progress).await?,
                Self::Idle => idle::run(settings, progress).await?,
                Self::Held => held::run(settings, progress).await?,
                Self::Soak => soak::run(settings, progress).await?,
            }])
        })
    }
}

/// Median, 99th and 99.9th percentile of each pair as figures.
fn percentiles(name: &str, pairs: &[Histogram<u64>]) -> [Figure; 3] {
    [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")].map(|(quantile, text)| {
        let values = pairs.iter().map(|latencies| ms(latencies, quantile)).collect();
        Figure::new(format!("{name}{text}"), Unit::Milliseconds, values)
    })
}

/// All pairs in one.
fn together(pairs: &[Histogram<u64>]) -> Option<Histogram<u64>> {
    let mut sum = pairs.first()?.clone();
    for more in &pairs[1..] {
        sum.add(more).ok()?;
    }
    Some(sum)
}

/// Latencies by percentile.
fn percentile_plot(name: &str, title: &str, lines: Vec<(String, Option<Histogram<u64>>)>) -> Plot {
    let shares = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
    let line = |latencies: &Histogram<u64>| {
        shares.iter().map(|share| (*share, ms(latencies, *share))).collect::<Vec<_>>()
    };
    let lines = lines.into_iter().filter_map(|(name, all)| all.map(|all| (name, line(&all)))).collect();
    Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x: "share of deliveries that were quicker".to_owned(),
        y: "milliseconds".to_owned(),
        shape: Shape::Percentiles(lines),
        logarithmic: true,
    }
}

/// Something over time.
fn time_plot(name: &str, title: &str, y: &str, lines: Vec<(String, Vec<(f64, f64)>)>) -> Plot {
    Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x: "seconds".to_owned(),
        y: y.to_owned(),
        shape: Shape::Lines(lines),
        logarithmic: false,
    }
}

/// Medians of figures beside each other, each with its least and most.
fn bar_plot(name: &str, title: &str, y: &str, bars: Vec<(String, &[f64])>) -> Plot {
    let bar = |(name, values): (String, &[f64])| {
        let least = values.iter().copied().fold(f64::NAN, f64::min);
        let most = values.iter().copied().fold(f64::NAN, f64::max);
        (name, [least, crate::figures::median(values), most])
    };
    Plot {
        name: name.to_owned(),
        title: title.to_owned(),
        x: String::new(),
        y: y.to_owned(),
        shape: Shape::Bars(bars.into_iter().map(bar).collect()),
        logarithmic: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_leaves_out_what_takes_an_hour() {
        assert!(!parts(&Command::All, false).contains(&Part::Soak));
        assert!(parts(&Command::All, true).contains(&Part::Soak));
        assert_eq!(parts(&Command::Steady, true), [Part::Rates(rates::Wanted::STEADY)]);
    }

    #[test]
    fn pairs_are_added_up_for_a_plot() {
        let mut one = Histogram::new_with_max(1_000_000, 3).unwrap();
        one.record(1_000).unwrap();
        let mut two = one.clone();
        two.record(9_000).unwrap();
        let sum = together(&[one, two]).unwrap();
        assert_eq!((sum.len(), sum.max() / 1000), (3, 9));
        assert!(together(&[]).is_none());
    }
}
