//! Ten times the publishers of the peak, which publish on at once when they are refused: what still gets through, whether
//! refusals say when to come back, whether memory stays flat, and whether everything accepted arrives.

use super::time_plot;
use crate::{
    figures::{Figure, Unit},
    progress::Progress,
    publisher::Plan,
    reach,
    report::ScenarioReport,
    settings::Settings,
    watch::{Sample, Watch},
    world::{WARM_UP, World, count, ms},
};
use anyhow::Result;
use std::time::Duration;
use tokio::time::Instant;

const TIMES: usize = 10;
/// Looks at memory in each repetition.
const LOOKS: u32 = 30;
/// How long accepted messages may take to arrive after the overload.
const DRAIN: Duration = Duration::from_mins(1);

/// What one repetition found.
struct Pair {
    peak: f64,
    goodput: f64,
    accepted: f64,
    refused_percent: f64,
    without_retry_after: f64,
    broken: f64,
    accept_p99: f64,
    missing: f64,
    repeated: f64,
    rss_peak_load: f64,
    rss_most: f64,
    growth: f64,
    samples: Vec<Sample>,
}

pub(super) fn estimate(settings: &Settings) -> Duration {
    let pairs = u32::try_from(settings.pairs).unwrap_or(u32::MAX);
    (settings.duration * 2 + WARM_UP * 4) * pairs
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    let mut pairs = Vec::new();
    for number in 1..=settings.pairs {
        progress.step(&format!("pair {number} of {}", settings.pairs));
        let world = World::start(settings).await?;
        pairs.push(pair(&world, settings).await?);
        world.stop().await?;
    }
    Ok(report(settings, &pairs))
}

async fn pair(world: &World, settings: &Settings) -> Result<Pair> {
    let application = world.applications(0, 1).await?;
    let plan = world.plan(&application, settings.duration);
    world.warm_up(&plan, 0, 1).await?;
    let peak = world.measure(plan.clone(), 0, 1).await?;
    let rss_peak_load = world.server.measured().rss_mib();

    let watch = Watch::start(world, 0, settings.duration / LOOKS);
    world.receiver.count_serials(0);
    let before = world.receiver.arrived(0);
    let many = Plan { connections: settings.connections * TIMES, may_refuse: true, ..plan };
    let started = Instant::now();
    let published = world.publish(many).await?;
    let goodput = count(world.receiver.arrived(0) - before) / started.elapsed().as_secs_f64();
    let samples = watch.finish().await?;
    world.wait(0, before + published.accepted, DRAIN).await?;
    let (missing, repeated) = world.receiver.missing_and_repeated(0, &published.serials);
    let answers = count(published.accepted + published.refused).max(1.0);
    Ok(Pair {
        peak: peak.delivered_per_second(),
        goodput,
        accepted: count(published.accepted) / published.seconds,
        refused_percent: count(published.refused) * 100.0 / answers,
        without_retry_after: count(published.refused_without_retry_after),
        broken: count(published.broken),
        accept_p99: ms(&published.accept, 0.99),
        missing: count(missing),
        repeated: count(repeated),
        rss_peak_load,
        rss_most: samples.iter().map(|sample| sample.rss_mib).fold(f64::NAN, f64::max),
        growth: growth(&samples),
        samples,
    })
}

/// How much more memory the last third takes than the second, in MiB: the first is where queues fill.
fn growth(samples: &[Sample]) -> f64 {
    let third = samples.len() / 3;
    let mean = |part: &[Sample]| {
        let (sum, number) =
            part.iter().fold((0.0, 0.0), |(sum, number), one| (sum + one.rss_mib, number + 1.0));
        sum / number
    };
    mean(&samples[samples.len() - third..]) - mean(&samples[third..samples.len() - third])
}

fn report(settings: &Settings, pairs: &[Pair]) -> ScenarioReport {
    let of = |value: fn(&Pair) -> f64| pairs.iter().map(value).collect::<Vec<_>>();
    let figure = |name: &str, unit, value: fn(&Pair) -> f64| Figure::new(name, unit, of(value));
    let peaks = of(|pair| pair.peak);
    // Of what must never happen, the sum counts, not the median.
    let never = |name: &str, value: fn(&Pair) -> f64| {
        Figure::once(name, Unit::Count, of(value).iter().sum()).judged(reach::NONE)
    };
    let figures = vec![
        figure("delivered at the peak", Unit::PerSecond, |pair| pair.peak),
        figure("delivered meanwhile", Unit::PerSecond, |pair| pair.goodput)
            .against("peak", &peaks)
            .judged(reach::OVERLOAD),
        figure("accepted meanwhile", Unit::PerSecond, |pair| pair.accepted).against("peak", &peaks),
        figure("answers of 429 or 503", Unit::Percent, |pair| pair.refused_percent),
        never("of them without Retry-After", |pair| pair.without_retry_after),
        never("connections cut off without an answer", |pair| pair.broken),
        never("accepted and not delivered", |pair| pair.missing),
        figure("delivered more than once", Unit::Count, |pair| pair.repeated),
        figure("accept p99", Unit::Milliseconds, |pair| pair.accept_p99),
        figure("resident after the peak", Unit::Mebibytes, |pair| pair.rss_peak_load),
        figure("resident under overload, most", Unit::Mebibytes, |pair| pair.rss_most),
        figure("growth of the last third over the second", Unit::Mebibytes, |pair| pair.growth),
    ];
    let about = format!(
        "One endpoint, closed loop: {} connections, then {}, which publish on at once when they are refused.",
        settings.connections,
        settings.connections * TIMES
    );
    let lines = pairs.iter().enumerate().map(|(index, pair)| {
        let points = pair.samples.iter().map(|sample| (sample.seconds, sample.rss_mib)).collect();
        (format!("pair {}", index + 1), points)
    });
    ScenarioReport::new("overload", about, figures).plot(time_plot(
        "overload",
        "Resident memory under overload",
        "MiB",
        lines.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss: &[f64]) -> Vec<Sample> {
        let sample = |rss_mib: &f64| Sample { seconds: 0.0, rss_mib: *rss_mib, disk_bytes: 0.0, arrived: 0 };
        rss.iter().map(sample).collect()
    }

    #[test]
    fn filling_queues_are_no_growth_and_a_leak_is() {
        assert!((growth(&samples(&[10.0, 50.0, 90.0, 90.0, 90.0, 90.0]))).abs() < 1e-9);
        assert!((growth(&samples(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0])) - 20.0).abs() < 1e-9);
        assert!(growth(&samples(&[1.0])).is_nan());
    }
}
