//! A server that has nothing to do: its memory, and how often something wakes it.

use crate::{
    figures::{Figure, Unit},
    progress::Progress,
    reach,
    report::ScenarioReport,
    settings::Settings,
    world::{World, count},
};
use anyhow::{Result, ensure};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Until what starts has come to rest.
const REST: Duration = Duration::from_secs(5);
/// Timers that wake it seldom are seen only by waiting.
const TIMES: u32 = 3;

pub(super) fn estimate(settings: &Settings) -> Duration {
    rest(settings) + settings.duration * TIMES
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    let world = World::start(settings).await?;
    world.applications(0, 1).await?;
    let server = world.server.measured();
    ensure!(!server.usage()?.is_empty(), "needs the processes of the server: --pid");
    progress.step("waiting until it rests");
    sleep(rest(settings)).await;
    progress.step("watching");
    let waits = || anyhow::Ok(server.usage()?.values().map(|usage| usage.waits).sum::<u64>());
    let cpu = || anyhow::Ok(server.usage()?.values().map(|usage| usage.cpu_seconds).sum::<f64>());
    let (before, cpu_before, started) = (waits()?, cpu()?, Instant::now());
    sleep(settings.duration * TIMES).await;
    let seconds = started.elapsed().as_secs_f64();
    let (after, cpu_after) = (waits()?, cpu()?);
    let rss = server.rss_mib();
    world.stop().await?;
    let figures = vec![
        Figure::once("resident", Unit::Mebibytes, rss).judged(reach::IDLE_MEMORY),
        Figure::once("wake-ups a second", Unit::Count, count(after - before) / seconds)
            .judged(reach::IDLE_WAKE_UPS),
        Figure::once("processor", Unit::Percent, (cpu_after - cpu_before) * 100.0 / seconds),
    ];
    let about = format!(
        "A new server with one endpoint that nobody talks to, {seconds:.0} s long. A wake-up is a voluntary context switch of \
         any of its threads."
    );
    Ok(ScenarioReport::new("idle", about, figures))
}

fn rest(settings: &Settings) -> Duration {
    REST.min(settings.duration)
}
