//! A long history: throughput and lists with millions of attempts recorded, against an empty database.

use super::bar_plot;
use crate::{
    api::Api,
    figures::{Figure, Unit, whole},
    progress::Progress,
    publisher::Plan,
    reach,
    receiver::Group,
    report::ScenarioReport,
    settings::Settings,
    world::{Measured, World, count},
};
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::time::Instant;

/// Attempts of each message of the history.
const FAN: u64 = 10;
/// How often each list is read.
const READS: u32 = 50;
/// The history is the past of ten endpoints; throughput goes to an endpoint without one.
const PAST: Group = 0;
const NOW: Group = 1;
/// Attempts that are waited for at a time.
const CHUNK: u64 = 500_000;

/// What one repetition found, without and with the past.
struct Pair {
    rate: [f64; 2],
    lists: [Vec<f64>; 2],
}

pub(super) fn estimate(settings: &Settings) -> Duration {
    let pairs = u32::try_from(settings.pairs).unwrap_or(u32::MAX);
    Duration::from_secs(settings.attempts / 20_000) + (settings.duration + Duration::from_secs(3)) * 2 * pairs
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    let old = World::start(settings).await?;
    let past = vec![old.application(PAST, 10).await?];
    let mut made = 0;
    while made < settings.attempts {
        progress.step(&format!("{} of {} attempts", whole(made), whole(settings.attempts)));
        let more = CHUNK.min(settings.attempts - made).div_ceil(FAN);
        let plan = Plan { most: more, ..old.plan(&past, Duration::from_mins(30)) };
        old.publish(plan).await?;
        made += more * FAN;
        old.drained(PAST, made).await?;
    }
    let now = old.applications(NOW, 1).await?;
    let disk = old.server.measured().disk_bytes();
    let rss = old.server.measured().rss_mib();
    let mut pairs = Vec::new();
    for number in 1..=settings.pairs {
        progress.step(&format!("pair {number} of {}", settings.pairs));
        let new = World::start(settings).await?;
        let (new_past, new_now) = (vec![new.application(PAST, 10).await?], new.applications(NOW, 1).await?);
        // One page of what lists read.
        let few = Plan { most: 50, ..new.plan(&new_past, Duration::from_mins(1)) };
        new.publish(few).await?;
        new.drained(PAST, 50 * FAN).await?;
        let empty = throughput(&new, &new_now, settings).await?;
        let full = throughput(&old, &now, settings).await?;
        let lists = [read(&new, &new_past[0]).await?, read(&old, &past[0]).await?];
        pairs.push(Pair { rate: [empty.delivered_per_second(), full.delivered_per_second()], lists });
        new.stop().await?;
    }
    old.stop().await?;
    Ok(report(settings, &pairs, disk / count(made), rss))
}

async fn throughput(world: &World, applications: &[String], settings: &Settings) -> Result<Measured> {
    let plan = world.plan(applications, settings.duration);
    world.warm_up(&plan, NOW, 1).await?;
    world.measure(plan, NOW, 1).await
}

/// The lists that people look at.
const LISTS: [&str; 3] = ["newest attempts of an endpoint", "attempts of a message", "newest messages"];

/// Median milliseconds of each of [`LISTS`].
async fn read(world: &World, application: &str) -> Result<Vec<f64>> {
    let mut api = Api::open(&world.server.access).await?;
    let root = format!("/api/v1/app/{application}");
    let endpoints = api.get(&format!("{root}/endpoint?limit=1")).await?;
    let endpoint = endpoints["data"][0]["id"].as_str().context("an endpoint")?.to_owned();
    let messages = api.get(&format!("{root}/msg?limit=1")).await?;
    let message = messages["data"][0]["id"].as_str().context("a message")?.to_owned();
    let paths = [
        format!("{root}/attempt/endpoint/{endpoint}?limit=50"),
        format!("{root}/attempt/msg/{message}?limit=50"),
        format!("{root}/msg?limit=50&with_content=false"),
    ];
    let mut medians = Vec::new();
    for path in paths {
        let mut times = Vec::new();
        for _ in 0..READS {
            let started = Instant::now();
            api.get(&path).await.map_err(|error| world.explain(error))?;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        medians.push(crate::figures::median(&times));
    }
    Ok(medians)
}

fn report(settings: &Settings, pairs: &[Pair], disk: f64, rss: f64) -> ScenarioReport {
    let rates = |which: usize| pairs.iter().map(|pair| pair.rate[which]).collect::<Vec<_>>();
    let (empty, full) = (rates(0), rates(1));
    let mut figures = vec![
        Figure::new("delivered, empty", Unit::PerSecond, empty.clone()),
        Figure::new("delivered, with history", Unit::PerSecond, full.clone())
            .against("empty", &empty)
            .judged(reach::HISTORY),
    ];
    for (index, list) in LISTS.into_iter().enumerate() {
        let times =
            |which: usize| -> Vec<f64> { pairs.iter().map(|pair| pair.lists[which][index]).collect() };
        figures.push(
            Figure::new(format!("{list}, a page of 50"), Unit::Milliseconds, times(1))
                .against("empty", &times(0)),
        );
    }
    figures.push(Figure::once("disk per attempt, its part of the message included", Unit::Bytes, disk));
    figures.push(Figure::once("resident with history", Unit::Mebibytes, rss));
    let about = format!(
        "Closed loop to one endpoint, with {} attempts recorded for ten other ones before, and with none.",
        whole(settings.attempts)
    );
    let bars = vec![("empty".to_owned(), &empty[..]), ("with history".to_owned(), &full[..])];
    ScenarioReport::new("history", about, figures).plot(bar_plot(
        "history",
        "One endpoint, without and with history",
        "delivered per second",
        bars,
    ))
}
