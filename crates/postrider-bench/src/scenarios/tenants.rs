//! Many applications: one saturates the server while another publishes a little; and all of them in turn.

use super::{percentile_plot, percentiles, together};
use crate::{
    figures::{Figure, Unit, whole},
    progress::Progress,
    publisher::{Pace, Plan},
    receiver::Group,
    report::ScenarioReport,
    settings::Settings,
    world::{Measured, WARM_UP, World},
};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Messages per second of the one that publishes a little.
const QUIET_RATE: f64 = 100.0;
const CROWD: Group = 0;
const QUIET: Group = 1;
const LOUD: Group = 2;

pub(super) fn estimate(settings: &Settings) -> Duration {
    let pairs = u32::try_from(settings.pairs).unwrap_or(u32::MAX);
    let making = Duration::from_millis(u64::try_from(settings.applications).unwrap_or(u64::MAX));
    making + (settings.duration * 3 + WARM_UP * 5) * pairs
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    let world = World::start(settings).await?;
    progress.step(&format!("creating {} applications", whole(settings.applications)));
    let started = Instant::now();
    let crowd = world.applications(CROWD, settings.applications).await?;
    let creating = started.elapsed().as_secs_f64();
    let quiet = world.applications(QUIET, 1).await?;
    let loud = world.applications(LOUD, 1).await?;
    let (mut alone, mut beside, mut loud_rates, mut crowd_rates) = (vec![], vec![], vec![], vec![]);
    for pair in 1..=settings.pairs {
        progress.step(&format!("pair {pair} of {}", settings.pairs));
        let plan = Plan {
            pace: Pace::PerSecond(QUIET_RATE),
            connections: 16,
            ..world.plan(&quiet, settings.duration)
        };
        world.warm_up(&plan, QUIET, 1).await?;
        alone.push(world.measure(plan.clone(), QUIET, 1).await?.latencies);
        let (latencies, rate) = saturated(&world, plan, &loud, settings).await?;
        beside.push(latencies);
        loud_rates.push(rate);
        let plan = world.plan(&crowd, settings.duration);
        world.warm_up(&plan, CROWD, 1).await?;
        crowd_rates.push(world.measure(plan, CROWD, 1).await?.delivered_per_second());
    }
    let rss = world.server.measured().rss_mib();
    world.stop().await?;
    let [p50, p99, _] = percentiles("publishing a little beside it: end to end ", &beside);
    let [alone_p50, alone_p99, _] = percentiles("publishing a little alone: end to end ", &alone);
    let p50 = p50.against("alone", &alone_p50.values);
    let p99 = p99.against("alone", &alone_p99.values);
    let figures = vec![
        alone_p50,
        alone_p99,
        p50,
        p99,
        Figure::new("the one that saturates: accepted", Unit::PerSecond, loud_rates.clone()),
        Figure::new("all of them in turn: delivered", Unit::PerSecond, crowd_rates)
            .against("one", &loud_rates),
        Figure::once(
            "creating an application and an endpoint",
            Unit::PerSecond,
            applications(settings) / creating,
        ),
        Figure::once("resident at the end", Unit::Mebibytes, rss),
    ];
    let about = format!(
        "{} applications with an endpoint each. One publishes {QUIET_RATE} messages a second, alone and while another one \
         publishes in a closed loop; then all of them in turn.",
        whole(settings.applications)
    );
    Ok(ScenarioReport::new("tenants", about, figures).plot(percentile_plot(
        "tenants",
        "An application that publishes a little, end to end",
        vec![
            ("alone".to_owned(), together(&alone)),
            ("while another saturates the server".to_owned(), together(&beside)),
        ],
    )))
}

/// The quiet one's latencies while the loud one does all it can, and what that is.
async fn saturated(
    world: &World,
    quiet: Plan,
    loud: &[String],
    settings: &Settings,
) -> Result<(Histogram<u64>, f64)> {
    let before = world.receiver.arrived(LOUD);
    let running = world.plan(loud, settings.duration + WARM_UP * 2).start()?;
    sleep(WARM_UP).await;
    let Measured { latencies, .. } = world.measure(quiet, QUIET, 1).await?;
    let published = world.finish(running).await?;
    world.drained(LOUD, before + published.accepted).await?;
    Ok((latencies, crate::world::count(published.accepted) / published.seconds))
}

#[expect(clippy::cast_precision_loss, reason = "a number of applications")]
fn applications(settings: &Settings) -> f64 {
    settings.applications as f64
}
