//! A load of the caller's own: rate, publishers, endpoints and sizes as asked, once.

use super::percentiles;
use crate::{
    figures::{Figure, Unit},
    publisher::{Pace, Plan},
    report::ScenarioReport,
    settings::{Load, Settings},
    world::{Measured, World, count},
};
use anyhow::{Result, ensure};

pub(super) async fn run(load: &Load, settings: &Settings) -> Result<ScenarioReport> {
    ensure!(load.endpoints > 0 && load.over > 0, "--endpoints and --over must be at least 1");
    let settings = Settings { payload_bytes: load.payload_bytes, ..settings.clone() };
    let world = World::start(&settings).await?;
    let mut applications = Vec::new();
    if load.endpoints == 1 {
        applications = world.applications(0, load.over).await?;
    } else {
        for _ in 0..load.over {
            applications.push(world.application(0, load.endpoints).await?);
        }
    }
    let endpoints = u64::try_from(load.endpoints)?;
    let plan = Plan {
        pace: load.rate.map_or(Pace::Closed, Pace::PerSecond),
        connections: load.publishers.unwrap_or(settings.connections),
        ..world.plan(&applications, settings.duration)
    };
    world.warm_up(&plan, 0, endpoints).await?;
    let before = world.server.measured().disk_bytes();
    let measured = world.measure(plan, 0, endpoints).await?;
    let disk = world.server.measured().disk_bytes() - before;
    let rss = world.server.measured().rss_mib();
    world.stop().await?;
    let about = format!(
        "{} to {} applications with {} endpoints each, payloads of {} bytes.",
        load.rate.map_or_else(|| "Closed loop".to_owned(), |rate| format!("{rate} messages a second")),
        load.over,
        load.endpoints,
        load.payload_bytes
    );
    Ok(ScenarioReport::new("load", about, figures(&measured, disk, rss)))
}

fn figures(measured: &Measured, disk: f64, rss: f64) -> Vec<Figure> {
    let mut figures = vec![
        Figure::once("messages accepted", Unit::PerSecond, measured.accepted_per_second()),
        Figure::once("deliveries", Unit::PerSecond, measured.delivered_per_second()),
        Figure::once("drain after publishing", Unit::Seconds, measured.drain_seconds()),
    ];
    figures.extend(percentiles("accept ", std::slice::from_ref(&measured.published.accept)));
    figures.extend(percentiles("end to end ", std::slice::from_ref(&measured.latencies)));
    let own = [("our publisher", measured.published.cpu_seconds), ("our receiver", measured.receiver_cpu)];
    let server = measured.server_cpu.iter().map(|(name, seconds)| (name.as_str(), *seconds));
    for (name, seconds) in server.chain(own) {
        let value = measured.per_delivery(seconds);
        let name = format!("processor time per delivery, {name}");
        figures.push(Figure::once(name, Unit::Microseconds, value));
    }
    let per_message = disk / count(measured.published.accepted);
    figures.push(Figure::once("disk per message with its history", Unit::Bytes, per_message));
    figures.push(Figure::once("resident at the end", Unit::Mebibytes, rss));
    figures
}
