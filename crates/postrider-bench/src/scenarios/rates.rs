//! The limit of the machine, and beside it in each pair: steady load to one endpoint, fan-out, and latency at parts of the
//! maximum. One endpoint's maximum is what steady load delivered in the same pair.

use super::{bar_plot, percentile_plot, percentiles, together};
use crate::{
    figures::{Figure, Unit, whole},
    limit,
    progress::Progress,
    publisher::{Pace, Plan},
    reach::{self, Reach},
    report::ScenarioReport,
    settings::Settings,
    world::{Measured, WARM_UP, World, ms},
};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::{collections::BTreeSet, time::Duration};

/// Endpoints of each message.
const FAN: u64 = 10;
/// The widest messages per second: few enough that one is through before the next.
const WIDE_RATE: f64 = 4.0;
/// Parts of the maximum.
const LOADS: [(f64, &str); 2] = [(0.1, "10 %"), (0.5, "50 %")];

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    steady: bool,
    fan_out: bool,
    latency: bool,
}

/// One repetition of everything.
#[derive(Debug, Default)]
struct Pair {
    limit: f64,
    steady: Option<Measured>,
    /// Bytes of the database per message.
    disk: f64,
    fan_out: Option<Measured>,
    wide: Option<Histogram<u64>>,
    /// Rate and latencies for each of [`LOADS`].
    latency: Vec<(f64, Histogram<u64>)>,
}

impl Wanted {
    pub(super) const ALL: Self = Self { steady: true, fan_out: true, latency: true };
    pub(super) const LIMIT: Self = Self { steady: false, fan_out: false, latency: false };
    pub(super) const STEADY: Self = Self { steady: true, ..Self::LIMIT };
    pub(super) const FAN_OUT: Self = Self { fan_out: true, ..Self::LIMIT };
    pub(super) const LATENCY: Self = Self { latency: true, ..Self::LIMIT };

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ALL => "rates",
            Self::STEADY => "steady",
            Self::FAN_OUT => "fan-out",
            Self::LATENCY => "latency",
            _ => "limit",
        }
    }

    pub(super) fn estimate(self, settings: &Settings) -> Duration {
        let each = settings.duration;
        let mut pair = each;
        if self.steady || self.latency {
            pair += each + WARM_UP * 2;
        }
        if self.fan_out {
            pair += each * 2 + WARM_UP * 4;
        }
        if self.latency {
            pair += (each + WARM_UP) * 2;
        }
        pair * u32::try_from(settings.pairs).unwrap_or(u32::MAX)
    }
}

/// All that is wanted, as reports of their own.
pub(super) async fn run(
    wanted: Wanted,
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<ScenarioReport>> {
    let mut pairs = Vec::new();
    for number in 1..=settings.pairs {
        progress.step(&format!("pair {number} of {}", settings.pairs));
        let mut pair =
            Pair { limit: limit::measure(settings.connections, settings.duration).await?, ..Pair::default() };
        if wanted.steady || wanted.latency {
            steady(settings, &mut pair).await?;
        }
        if wanted.fan_out {
            fan_out(settings, &mut pair).await?;
            wide(settings, &mut pair).await?;
        }
        if wanted.latency {
            latency(settings, &mut pair).await?;
        }
        pairs.push(pair);
    }
    let limits: Vec<f64> = pairs.iter().map(|pair| pair.limit).collect();
    let mut reports = vec![limit_report(&limits)];
    if wanted.steady {
        reports.push(steady_report(settings, &pairs, &limits));
    }
    if wanted.fan_out {
        reports.push(fan_out_report(settings, &pairs, &limits));
    }
    if wanted.latency {
        reports.push(latency_report(&pairs));
    }
    Ok(reports)
}

async fn steady(settings: &Settings, pair: &mut Pair) -> Result<()> {
    let world = World::start(settings).await?;
    let application = world.application(0, 1).await?;
    let plan = world.plan(&[application], settings.duration);
    world.warm_up(&plan, 0, 1).await?;
    let before = world.server.measured().disk_bytes();
    let measured = world.measure(plan, 0, 1).await?;
    let written = world.server.measured().disk_bytes() - before;
    pair.disk = written / crate::world::count(measured.published.accepted);
    pair.steady = Some(measured);
    world.stop().await
}

async fn fan_out(settings: &Settings, pair: &mut Pair) -> Result<()> {
    let world = World::start(settings).await?;
    let application = world.application(0, 10).await?;
    let plan = world.plan(&[application], settings.duration);
    world.warm_up(&plan, 0, FAN).await?;
    pair.fan_out = Some(world.measure(plan, 0, FAN).await?);
    world.stop().await
}

async fn wide(settings: &Settings, pair: &mut Pair) -> Result<()> {
    let world = World::start(settings).await?;
    let application = world.application(0, settings.wide).await?;
    let plan = Plan { pace: Pace::PerSecond(WIDE_RATE), ..world.plan(&[application], settings.duration) };
    let endpoints = u64::try_from(settings.wide)?;
    world.warm_up(&plan, 0, endpoints).await?;
    pair.wide = Some(world.measure(plan, 0, endpoints).await?.latencies);
    world.stop().await
}

async fn latency(settings: &Settings, pair: &mut Pair) -> Result<()> {
    let most = pair.steady.as_ref().map_or(0.0, Measured::delivered_per_second);
    for (part, _) in LOADS {
        let world = World::start(settings).await?;
        let application = world.application(0, 1).await?;
        let rate = most * part;
        let plan = Plan { pace: Pace::PerSecond(rate), ..world.plan(&[application], settings.duration) };
        world.warm_up(&plan, 0, 1).await?;
        pair.latency.push((rate, world.measure(plan, 0, 1).await?.latencies));
        world.stop().await?;
    }
    Ok(())
}

fn limit_report(limits: &[f64]) -> ScenarioReport {
    let figure = Figure::new("signed deliveries without storage", Unit::PerSecond, limits.to_vec());
    let about = "The yardstick: clients sign 1 KiB bodies and post them to a receiver; hyper on both sides, nothing stored.";
    ScenarioReport::new("limit", about, vec![figure])
}

/// One value of each pair that measured it.
fn each(pairs: &[Pair], of: impl Fn(&Pair) -> Option<f64>) -> Vec<f64> {
    pairs.iter().map(|pair| of(pair).unwrap_or(f64::NAN)).collect()
}

/// Processor time per delivery, by program.
fn costs(pairs: &[Pair], of: impl Fn(&Pair) -> Option<&Measured>) -> Vec<Figure> {
    let per = |value: fn(&Measured) -> f64| {
        each(pairs, |pair| of(pair).map(|measured| measured.per_delivery(value(measured))))
    };
    let programs: BTreeSet<&String> =
        pairs.iter().filter_map(&of).flat_map(|measured| measured.server_cpu.keys()).collect();
    let mut figures: Vec<_> = programs
        .into_iter()
        .map(|program| {
            let values = each(pairs, |pair| {
                let measured = of(pair)?;
                Some(measured.per_delivery(*measured.server_cpu.get(program)?))
            });
            Figure::new(format!("processor time per delivery, {program}"), Unit::Microseconds, values)
        })
        .collect();
    for (name, values) in [
        ("our publisher", per(|measured| measured.published.cpu_seconds)),
        ("our receiver", per(|measured| measured.receiver_cpu)),
    ] {
        figures.push(Figure::new(format!("processor time per delivery, {name}"), Unit::Microseconds, values));
    }
    figures
}

/// By what is aimed at with a file, or on PostgreSQL, where it is told in absolute terms.
fn judged(settings: &Settings, figure: Figure, (file, postgres): (Reach, Reach)) -> Figure {
    if settings.launch.postgres().is_some() { figure.judged_itself(postgres) } else { figure.judged(file) }
}

fn steady_report(settings: &Settings, pairs: &[Pair], limits: &[f64]) -> ScenarioReport {
    let of = |value: fn(&Measured) -> f64| each(pairs, |pair| pair.steady.as_ref().map(value));
    let accepted = of(Measured::accepted_per_second);
    let delivered = of(Measured::delivered_per_second);
    let mut figures = vec![
        Figure::new("messages accepted", Unit::PerSecond, accepted).against("limit", limits),
        judged(
            settings,
            Figure::new("messages delivered", Unit::PerSecond, delivered.clone()).against("limit", limits),
            (reach::STEADY, reach::POSTGRES_STEADY),
        ),
        Figure::new("drain after publishing", Unit::Seconds, of(Measured::drain_seconds)),
        Figure::new("accept p50", Unit::Milliseconds, of(|measured| ms(&measured.published.accept, 0.5))),
        Figure::new("accept p99", Unit::Milliseconds, of(|measured| ms(&measured.published.accept, 0.99))),
        Figure::new("end to end p50", Unit::Milliseconds, of(|measured| ms(&measured.latencies, 0.5))),
        Figure::new("end to end p99", Unit::Milliseconds, of(|measured| ms(&measured.latencies, 0.99))),
    ];
    figures.extend(costs(pairs, |pair| pair.steady.as_ref()));
    let disk = each(pairs, |pair| Some(pair.disk));
    figures.push(Figure::new("disk per message with its history", Unit::Bytes, disk));
    let about =
        "One endpoint, closed loop: each connection publishes as soon as its last message was accepted.";
    let bars = vec![("limit".to_owned(), limits), ("steady, delivered".to_owned(), &delivered[..])];
    ScenarioReport::new("steady", about, figures).plot(bar_plot(
        "steady",
        "One endpoint against the limit",
        "per second",
        bars,
    ))
}

fn fan_out_report(settings: &Settings, pairs: &[Pair], limits: &[f64]) -> ScenarioReport {
    let of = |value: fn(&Measured) -> f64| each(pairs, |pair| pair.fan_out.as_ref().map(value));
    let delivered = of(Measured::delivered_per_second);
    let mut figures = vec![
        Figure::new("messages accepted", Unit::PerSecond, of(Measured::accepted_per_second)),
        judged(
            settings,
            Figure::new("deliveries", Unit::PerSecond, delivered.clone()).against("limit", limits),
            (reach::FAN_OUT, reach::POSTGRES_FAN_OUT),
        ),
        Figure::new("drain after publishing", Unit::Seconds, of(Measured::drain_seconds)),
    ];
    figures.extend(costs(pairs, |pair| pair.fan_out.as_ref()));
    for (quantile, name) in [(0.5, "half of them"), (0.99, "99 %"), (1.0, "the last")] {
        let values = each(pairs, |pair| pair.wide.as_ref().map(|wide| ms(wide, quantile)));
        let name = format!("one message to {} endpoints: {name} within", whole(settings.wide));
        figures.push(Figure::new(name, Unit::Milliseconds, values));
    }
    let about = "Ten endpoints a message, closed loop; and the widest messages, four a second.";
    let bars = vec![("limit".to_owned(), limits), ("fan-out of ten".to_owned(), &delivered[..])];
    ScenarioReport::new("fan-out", about, figures).plot(bar_plot(
        "fan-out",
        "Ten endpoints a message against the limit",
        "deliveries per second",
        bars,
    ))
}

fn latency_report(pairs: &[Pair]) -> ScenarioReport {
    let (mut figures, mut lines) = (Vec::new(), Vec::new());
    for (index, (part, name)) in LOADS.into_iter().enumerate() {
        let of = |pair: &Pair| pair.latency.get(index).cloned();
        let rates = each(pairs, |pair| of(pair).map(|(rate, _)| rate));
        figures.push(Figure::new(format!("at {name}: messages"), Unit::PerSecond, rates));
        let latencies: Vec<_> = pairs.iter().filter_map(of).map(|(_, latencies)| latencies).collect();
        let [p50, p99, p999] = percentiles(&format!("at {name}: end to end "), &latencies);
        let half = (part - 0.5).abs() < f64::EPSILON;
        figures.push(p50.judged_if(half, reach::LATENCY_P50));
        figures.push(p99.judged_if(half, reach::LATENCY_P99));
        figures.push(p999);
        lines.push((format!("at {name} of the maximum"), together(&latencies)));
    }
    let about = "One endpoint, open loop: messages at even distances whether or not earlier ones were answered, each counted \
                 from the time at which it was meant to be sent.";
    ScenarioReport::new("latency", about, figures).plot(percentile_plot(
        "latency",
        "End to end, from the time a message was meant to be sent",
        lines,
    ))
}
