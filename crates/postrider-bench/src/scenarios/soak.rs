//! Even load for a long time: memory and file sizes over time, and whether latency stays.

use super::time_plot;
use crate::{
    figures::{Figure, Unit},
    progress::Progress,
    publisher::{Pace, Plan},
    report::ScenarioReport,
    settings::Settings,
    watch::{Sample, Watch},
    world::{World, count, ms},
};
use anyhow::Result;
use std::time::Duration;

/// Messages per second: an hour of them is a few gigabytes.
const RATE: f64 = 500.0;
/// Parts that are compared.
const PARTS: u32 = 10;
/// Looks in all.
const LOOKS: u32 = 360;

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    let world = World::start(settings).await?;
    let application = world.applications(0, 1).await?;
    let part = settings.soak / PARTS;
    let plan = Plan { pace: Pace::PerSecond(RATE), ..world.plan(&application, part) };
    world.warm_up(&plan, 0, 1).await?;
    let watch = Watch::start(&world, 0, settings.soak / LOOKS);
    let mut latencies = Vec::new();
    let mut messages = 0;
    for number in 1..=PARTS {
        progress.step(&format!("part {number} of {PARTS}"));
        let measured = world.measure(plan.clone(), 0, 1).await?;
        messages += measured.published.accepted;
        latencies.push(measured.latencies);
    }
    let samples = watch.finish().await?;
    world.stop().await?;
    let p99: Vec<_> = latencies.iter().map(|latencies| ms(latencies, 0.99)).collect();
    let at = |share: f64, value: fn(&Sample) -> f64| -> f64 {
        let after = settings.soak.as_secs_f64() * share;
        samples.iter().find(|sample| sample.seconds >= after).or(samples.last()).map_or(f64::NAN, value)
    };
    let mib = 1024.0 * 1024.0;
    let disk = at(1.0, |one| one.disk_bytes) - at(0.0, |one| one.disk_bytes);
    let figures = vec![
        Figure::once("messages", Unit::Count, count(messages)),
        Figure::new("end to end p99 of each tenth", Unit::Milliseconds, p99),
        Figure::once("resident after a tenth", Unit::Mebibytes, at(0.1, |one| one.rss_mib)),
        Figure::once("resident at half time", Unit::Mebibytes, at(0.5, |one| one.rss_mib)),
        Figure::once("resident at the end", Unit::Mebibytes, at(1.0, |one| one.rss_mib)),
        Figure::once("files at the end", Unit::Mebibytes, at(1.0, |one| one.disk_bytes) / mib),
        Figure::once("disk per message with its history", Unit::Bytes, disk / count(messages)),
    ];
    let line = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(|one| (one.seconds, value(one))).collect();
    let about = format!(
        "One endpoint, open loop: {RATE} messages a second for {:.0} minutes.",
        settings.soak.max(Duration::from_secs(1)).as_secs_f64() / 60.0
    );
    Ok(ScenarioReport::new("soak", about, figures)
        .plot(time_plot(
            "soak-memory",
            "Resident memory under even load",
            "MiB",
            vec![("server".to_owned(), line(&|one| one.rss_mib))],
        ))
        .plot(time_plot(
            "soak-files",
            "The database's files under even load",
            "MiB",
            vec![("files".to_owned(), line(&|one| one.disk_bytes / mib))],
        )))
}
