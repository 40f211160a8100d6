//! A transaction that somebody holds open on PostgreSQL (a report, a forgotten terminal): what was deleted since stays in
//! the tables until it ends. Throughput over that time, and at its end, against the same load without it.

use super::bar_plot;
use crate::{
    figures::{Figure, Unit},
    progress::Progress,
    reach,
    report::ScenarioReport,
    settings::Settings,
    world::{Measured, WARM_UP, World},
};
use anyhow::{Context, Result};
use std::time::Duration;

/// Pairs at most: each lasts twice as long as the transaction.
const PAIRS: usize = 3;

/// What one load came to.
struct Found {
    all: Measured,
    last: Measured,
    /// Microseconds of processor time per delivery at the end, of all programs of the server.
    cost: f64,
}

pub(super) fn estimate(settings: &Settings) -> Duration {
    let one = settings.held + settings.duration + WARM_UP * 2;
    one * 2 * u32::try_from(pairs(settings)).unwrap_or(1)
}

fn pairs(settings: &Settings) -> usize {
    if settings.full { 1 } else { settings.pairs.min(PAIRS) }
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    settings.launch.postgres().context("needs PostgreSQL: --postgres or --database-url")?;
    let (mut held, mut free) = (Vec::new(), Vec::new());
    let pairs = pairs(settings);
    for number in 1..=pairs {
        progress.step(&format!("pair {number} of {pairs}: nothing is held"));
        free.push(load(settings, false).await?);
        progress.step(&format!("pair {number} of {pairs}: a transaction is held"));
        held.push(load(settings, true).await?);
    }
    let of = |found: &[Found], value: fn(&Found) -> f64| found.iter().map(value).collect::<Vec<_>>();
    let all = |found: &Found| found.all.delivered_per_second();
    let last = |found: &Found| found.last.delivered_per_second();
    let (free_all, free_last) = (of(&free, all), of(&free, last));
    let (held_all, held_last) = (of(&held, all), of(&held, last));
    let figures = vec![
        Figure::new("nothing held: messages delivered", Unit::PerSecond, free_all.clone()),
        Figure::new("nothing held: at the end", Unit::PerSecond, free_last.clone()),
        Figure::new("held: messages delivered", Unit::PerSecond, held_all)
            .against("nothing held", &free_all)
            .judged(reach::HELD_TRANSACTION),
        Figure::new("held: at the end", Unit::PerSecond, held_last.clone())
            .against("nothing held", &free_last)
            .judged(reach::HELD_TRANSACTION),
        Figure::new(
            "held: processor time per delivery at the end",
            Unit::Microseconds,
            of(&held, |one| one.cost),
        )
        .against("nothing held", &of(&free, |one| one.cost)),
    ];
    let about = format!(
        "One endpoint, closed loop, for {:.0} s, and {:.0} s more (the end), while another session holds a REPEATABLE READ \
         transaction open from before the first message.",
        settings.held.as_secs_f64(),
        settings.duration.as_secs_f64()
    );
    let bars = vec![("nothing held".to_owned(), &free_last[..]), ("held".to_owned(), &held_last[..])];
    let plot = bar_plot("held-transaction", "At the end of that time", "messages per second", bars);
    Ok(ScenarioReport::new("held-transaction", about, figures).plot(plot))
}

async fn load(settings: &Settings, hold: bool) -> Result<Found> {
    let world = World::start(settings).await?;
    let application = world.application(0, 1).await?;
    let plan = world.plan(&[application], settings.held);
    world.warm_up(&plan, 0, 1).await?;
    let database = world.server.database().context("the server is on no PostgreSQL")?;
    let held = if hold { Some(database.hold().await?) } else { None };
    let all = world.measure(plan.clone(), 0, 1).await?;
    let plan = crate::publisher::Plan { duration: settings.duration, ..plan };
    let last = world.measure(plan, 0, 1).await?;
    if let Some(held) = held {
        held.end().await?;
    }
    world.stop().await?;
    let cost = last.per_delivery(last.server_cpu.values().sum());
    Ok(Found { all, last, cost })
}
