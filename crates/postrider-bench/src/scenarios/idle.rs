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
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, sleep};

/// Until what starts has come to rest: threads that the start needed end after ten seconds, and the first rounds of what
/// is done once a while are over.
const REST: Duration = Duration::from_secs(30);
/// Of short measurements, this many are waited for.
const REST_TIMES: u32 = 6;
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
    let cpu = || anyhow::Ok(server.usage()?.values().map(|usage| usage.cpu_seconds).sum::<f64>());
    let (before, cpu_before, started) = (server.waits(), cpu()?, Instant::now());
    sleep(settings.duration * TIMES).await;
    let seconds = started.elapsed().as_secs_f64();
    let (wake_ups, cpu_after) = (wake_ups(&before, &server.waits()), cpu()?);
    let rss = server.rss_mib();
    world.stop().await?;
    let figures = vec![
        Figure::once("resident", Unit::Mebibytes, rss).judged(reach::IDLE_MEMORY),
        Figure::once("wake-ups a second", Unit::Count, count(wake_ups) / seconds)
            .judged(reach::IDLE_WAKE_UPS),
        Figure::once("processor", Unit::Percent, (cpu_after - cpu_before) * 100.0 / seconds),
    ];
    let about = format!(
        "A new server with one endpoint that nobody talks to, from {:.0} s after its start on for {seconds:.0} s. A wake-up is a voluntary context switch of \
         any of its threads.",
        rest(settings).as_secs_f64()
    );
    Ok(ScenarioReport::new("idle", about, figures))
}

/// Sleeps that have ended since. A thread that has ended meanwhile no longer counts.
fn wake_ups(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> u64 {
    after.iter().map(|(thread, waits)| waits.saturating_sub(before.get(thread).copied().unwrap_or(0))).sum()
}

fn rest(settings: &Settings) -> Duration {
    REST.min(settings.duration * REST_TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_end_or_begin_do_not_hide_the_others() {
        let waits =
            |threads: &[(&str, u64)]| threads.iter().map(|(id, waits)| ((*id).to_owned(), *waits)).collect();
        assert_eq!(wake_ups(&waits(&[("1", 5), ("2", 900)]), &waits(&[("1", 7), ("3", 4)])), 6);
    }
}
