//! A million pending deliveries: the memory they take, a start after `kill -9` with all of them, how fast they drain, and
//! what another application's live messages notice of that.

use super::{percentile_plot, time_plot};
use crate::{
    figures::{Figure, Unit, whole},
    progress::Progress,
    publisher::{Pace, Plan},
    reach,
    receiver::{Group, Manner},
    report::ScenarioReport,
    settings::Settings,
    watch::{Sample, Watch},
    world::{World, count, ms},
};
use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Endpoints of each message: pending deliveries are made ten at a time.
const FAN: u64 = 10;
/// What those take for an answer while the backlog grows: long, but no failure.
const SLOW: Duration = Duration::from_secs(8);
/// Live messages per second.
const LIVE_RATE: f64 = 200.0;
/// Before memory is read: caches and logs are written back.
const REST: Duration = Duration::from_secs(3);
/// How long draining may take.
const DRAIN: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_millis(200);
const BACK: Group = 0;
const LIVE: Group = 1;

/// What was found.
struct Found {
    publishing: f64,
    rss_before: f64,
    rss_pending: f64,
    rss_restarted: f64,
    rss_most: f64,
    disk: f64,
    restart: Duration,
    first: f64,
    drain_seconds: f64,
    drained: u64,
    live_before: Histogram<u64>,
    live: Histogram<u64>,
    samples: Vec<Sample>,
}

pub(super) fn estimate(settings: &Settings) -> Duration {
    settings.duration + REST * 3 + Duration::from_secs(settings.pending / 13_000)
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    ensure!(settings.launch.is_own(), "needs a server that can be killed and started: leave out --target");
    let mut world = World::start(settings).await?;
    let found = find(&mut world, settings, progress).await?;
    world.stop().await?;
    Ok(report(settings, found))
}

async fn find(world: &mut World, settings: &Settings, progress: &Progress) -> Result<Found> {
    let rss_before = world.server.measured().rss_mib();
    let back = vec![world.application(BACK, 10).await?];
    let live = world.applications(LIVE, 1).await?;
    let live_before = publish_live(world, &live, settings.duration).await?;

    progress.step(&format!("publishing {} deliveries that must wait", whole(settings.pending)));
    world.receiver.manner(BACK, Manner::AnswerAfter(SLOW));
    let messages = settings.pending.div_ceil(FAN);
    let plan = Plan { most: messages, ..world.plan(&back, Duration::from_mins(10)) };
    let published = world.publish(plan).await?;
    sleep(REST).await;
    let rss_pending = world.server.measured().rss_mib();
    let disk = world.server.measured().disk_bytes();

    progress.step("kill -9 and restart");
    world.server.kill().await?;
    world.receiver.manner(BACK, Manner::Answer);
    let expected = published.accepted * FAN;
    let before = world.receiver.arrived(BACK);
    let started = Instant::now();
    let restart = world.server.restart().await?;
    let rss_restarted = world.server.measured().rss_mib();
    world.wait(BACK, before + 1, Duration::from_mins(1)).await?;
    let first = started.elapsed().as_secs_f64();

    progress.step("draining beside live traffic");
    let watch = Watch::start(world, BACK, LOOK);
    world.receiver.take(LIVE);
    let load = Plan {
        pace: Pace::PerSecond(LIVE_RATE),
        connections: 16,
        ..world.plan(&live, settings.duration.max(Duration::from_secs(1)))
    };
    let live_from = world.receiver.arrived(LIVE);
    let mut live_sent = 0;
    let until = Instant::now() + DRAIN;
    loop {
        let plan = Plan { duration: load.duration.min(Duration::from_secs(2)), ..load.clone() };
        live_sent += world.publish(plan).await?.accepted;
        if world.receiver.arrived(BACK) >= expected || Instant::now() > until {
            break;
        }
    }
    let arrived = world.wait(BACK, expected, Duration::from_secs(10)).await?;
    ensure!(
        arrived >= expected,
        "{arrived} of {expected} deliveries arrived within {DRAIN:?} of the restart"
    );
    world.wait(LIVE, live_from + live_sent, Duration::from_secs(10)).await?;
    let samples = watch.finish().await?;
    let rss_most = samples.iter().map(|sample| sample.rss_mib).fold(f64::NAN, f64::max);
    let drain_seconds = drained_at(&samples);
    Ok(Found {
        publishing: count(expected) / published.seconds,
        rss_before,
        rss_pending,
        rss_restarted,
        rss_most,
        disk,
        restart,
        first,
        drain_seconds,
        drained: expected - before.min(expected),
        live_before,
        live: world.receiver.take(LIVE),
        samples,
    })
}

/// When the last delivery arrived.
fn drained_at(samples: &[Sample]) -> f64 {
    let all = samples.last().map_or(0, |last| last.arrived);
    samples.iter().find(|sample| sample.arrived == all).map_or(f64::NAN, |sample| sample.seconds)
}

async fn publish_live(world: &World, live: &[String], duration: Duration) -> Result<Histogram<u64>> {
    let plan = Plan { pace: Pace::PerSecond(LIVE_RATE), connections: 16, ..world.plan(live, duration) };
    world.warm_up(&plan, LIVE, 1).await?;
    Ok(world.measure(plan, LIVE, 1).await?.latencies)
}

fn report(settings: &Settings, found: Found) -> ScenarioReport {
    let as_meant = (count(settings.pending) - reach::PENDING).abs() < 1.0;
    let mib = |name: &str, value| Figure::once(name, Unit::Mebibytes, value);
    let live = |name: &str, quantile| {
        let figure = Figure::once(name, Unit::Milliseconds, ms(&found.live, quantile));
        figure.against("without a backlog", &[ms(&found.live_before, quantile)])
    };
    let figures = vec![
        Figure::once("deliveries accepted", Unit::PerSecond, found.publishing),
        mib("resident at first", found.rss_before),
        mib("resident with all pending", found.rss_pending).judged_if(as_meant, reach::PENDING_MEMORY),
        mib("resident at once after the restart", found.rss_restarted),
        mib("resident while draining, most", found.rss_most).judged_if(as_meant, reach::PENDING_MEMORY),
        mib("database", found.disk / 1024.0 / 1024.0),
        Figure::once("start after kill -9 until it listens", Unit::Seconds, found.restart.as_secs_f64())
            .judged_if(as_meant, reach::PENDING_START),
        Figure::once("start until the first delivery", Unit::Seconds, found.first),
        Figure::once("first delivery until the last", Unit::Seconds, found.drain_seconds),
        Figure::once(
            "deliveries while draining",
            Unit::PerSecond,
            count(found.drained) / found.drain_seconds,
        ),
        live("live traffic while draining, p50", 0.5),
        live("live traffic while draining, p99", 0.99),
    ];
    let of = |value: fn(&Sample) -> f64| found.samples.iter().map(|one| (one.seconds, value(one))).collect();
    let about = format!(
        "{} deliveries to ten endpoints that take {} s for each answer; then kill -9, a restart with endpoints that answer \
         at once, and {LIVE_RATE} live messages a second of another application beside the draining. Once, not in pairs.",
        whole(settings.pending),
        SLOW.as_secs()
    );
    ScenarioReport::new("backlog", about, figures)
        .plot(time_plot(
            "backlog-drain",
            "Draining after the restart",
            "deliveries",
            vec![("arrived".to_owned(), of(|sample| count(sample.arrived)))],
        ))
        .plot(time_plot(
            "backlog-memory",
            "Resident memory while draining",
            "MiB",
            vec![("server".to_owned(), of(|sample| sample.rss_mib))],
        ))
        .plot(percentile_plot(
            "backlog-live",
            "Live traffic of another application, end to end",
            vec![
                ("without a backlog".to_owned(), Some(found.live_before)),
                ("while it drains".to_owned(), Some(found.live)),
            ],
        ))
}
