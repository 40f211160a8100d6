//! Healthy endpoints beside others that are not: their latency against the same load without those.
//!
//! Ten applications with an endpoint each get 500 messages a second in all. Nine are healthy, always; with the tenth, and
//! what else there is, one thing at a time is wrong. Each pair has the load without trouble and each trouble once, on a new
//! server.

use super::{bar_plot, percentile_plot, together};
use crate::{
    figures::{Figure, Unit, whole},
    plot::Plot,
    progress::Progress,
    publisher::{LONGEST, Pace, Plan, Running},
    reach::{self, Reach},
    receiver::{Group, Manner},
    report::ScenarioReport,
    settings::Settings,
    world::{World, ms},
};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::time::sleep;

/// Messages per second to the nine healthy endpoints, and to the tenth.
const HEALTHY_RATE: f64 = 450.0;
const TENTH_RATE: f64 = 50.0;
/// The same when it is a hundredth of the load.
const HUNDREDTH_RATE: f64 = 5.0;
/// Messages per second to the tar pits, each to all of them.
const TAR_RATE: f64 = 1.0;
/// Publishing before anything counts: the places of those that hang are taken by then.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long healthy deliveries may be late before they count as not delivered.
const LATE: Duration = Duration::from_secs(30);
/// What a recovered endpoint takes for an answer.
const RECOVERED: Duration = Duration::from_millis(10);
/// The first wait of the retry schedule, and some: by then all that failed is due again.
const UNTIL_DUE: Duration = Duration::from_secs(6);
/// Groups of endpoints.
const HEALTHY: Group = 0;
const TENTH: Group = 1;
const TAR: Group = 2;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    HundredthHangs,
    TenthHangs,
    TenthFails,
    TenthRecovers,
    TarPits,
}

const ALL: [Trouble; 6] = [
    Trouble::None,
    Trouble::HundredthHangs,
    Trouble::TenthHangs,
    Trouble::TenthFails,
    Trouble::TenthRecovers,
    Trouble::TarPits,
];

pub(super) fn estimate(settings: &Settings) -> Duration {
    let making = Duration::from_secs(settings.retries / 15_000) + UNTIL_DUE;
    let pair = (settings.duration + SETTLE + Duration::from_millis(500)) * 6 + making;
    pair * u32::try_from(settings.pairs).unwrap_or(u32::MAX)
}

pub(super) async fn run(settings: &Settings, progress: &Progress) -> Result<ScenarioReport> {
    let mut results: Vec<Vec<Histogram<u64>>> = ALL.iter().map(|_| Vec::new()).collect();
    let mut recovered = Vec::new();
    for pair in 1..=settings.pairs {
        for (trouble, results) in ALL.into_iter().zip(&mut results) {
            progress.step(&format!("pair {pair} of {}, {}", settings.pairs, trouble.name(settings)));
            let world = World::start(settings).await?;
            let (latencies, retries) = trial(&world, trouble, settings).await?;
            results.push(latencies);
            if trouble == Trouble::TenthRecovers {
                recovered.push(crate::world::count(retries));
            }
            world.stop().await?;
        }
    }
    Ok(report(settings, &results, recovered))
}

/// Latencies of the healthy ones beside one trouble, and what arrived at the tenth meanwhile.
async fn trial(world: &World, trouble: Trouble, settings: &Settings) -> Result<(Histogram<u64>, u64)> {
    let nine = world.applications(HEALTHY, 9).await?;
    let tenth = world.applications(TENTH, 1).await?;
    let settle = SETTLE.min(settings.duration * 2);
    let lasts = settle + settings.duration;
    let mut beside: Vec<Running> = Vec::new();
    match trouble {
        Trouble::None => {}
        Trouble::HundredthHangs | Trouble::TenthHangs => world.receiver.manner(TENTH, Manner::Hang),
        Trouble::TenthFails => world.receiver.manner(TENTH, Manner::Fail),
        Trouble::TenthRecovers => {
            world.receiver.manner(TENTH, Manner::Fail);
            let many = Plan { most: settings.retries, ..world.plan(&tenth, Duration::from_mins(2)) };
            world.publish(many).await?;
            sleep(UNTIL_DUE).await;
            world.receiver.manner(TENTH, Manner::AnswerAfter(RECOVERED));
        }
        Trouble::TarPits => {
            world.receiver.manner(TAR, Manner::TarPit);
            let tar = world.application(TAR, settings.tar_pits).await?;
            beside.push(open(world, &[tar], TAR_RATE, lasts).start()?);
        }
    }
    let tenth_before = world.receiver.arrived(TENTH);
    let tenth_rate = if trouble == Trouble::HundredthHangs { HUNDREDTH_RATE } else { TENTH_RATE };
    beside.push(open(world, &tenth, tenth_rate, lasts).start()?);
    let healthy = open(world, &nine, HEALTHY_RATE, lasts).start()?;
    sleep(settle).await;
    world.receiver.take(HEALTHY);
    let accepted = world.finish(healthy).await?.accepted;
    let arrived = world.wait(HEALTHY, accepted, LATE).await?;
    let at_the_tenth = world.receiver.arrived(TENTH) - tenth_before;
    let mut latencies = world.receiver.take(HEALTHY);
    latencies.saturating_record_n(LONGEST, accepted.saturating_sub(arrived));
    for running in beside {
        world.finish(running).await?;
    }
    Ok((latencies, at_the_tenth))
}

fn open(world: &World, applications: &[String], rate: f64, lasts: Duration) -> Plan {
    let plan = world.plan(applications, lasts);
    Plan { pace: Pace::PerSecond(rate), connections: 16, ..plan }
}

fn report(settings: &Settings, results: &[Vec<Histogram<u64>>], recovered: Vec<f64>) -> ScenarioReport {
    let values = |pairs: &[Histogram<u64>], quantile| -> Vec<f64> {
        pairs.iter().map(|latencies| ms(latencies, quantile)).collect()
    };
    let baseline = results.first().map_or(&[][..], |pairs| pairs);
    let (base_p50, base_p99) = (values(baseline, 0.5), values(baseline, 0.99));
    let noise = noise(&base_p99);
    let (mut figures, mut lines, mut bars) = (Vec::new(), Vec::new(), Vec::new());
    for (trouble, pairs) in ALL.into_iter().zip(results) {
        let name = trouble.name(settings);
        let p50 = Figure::new(format!("{name}: healthy p50"), Unit::Milliseconds, values(pairs, 0.5));
        let p99 = Figure::new(format!("{name}: healthy p99"), Unit::Milliseconds, values(pairs, 0.99));
        bars.push((trouble.short().to_owned(), p99.values.clone()));
        if trouble == Trouble::None {
            figures.extend([p50, p99]);
        } else {
            figures.push(p50.against("nothing wrong", &base_p50));
            let p99 = p99.against("nothing wrong", &base_p99);
            let hangs = matches!(trouble, Trouble::HundredthHangs | Trouble::TenthHangs);
            figures.push(p99.judged_if(hangs, Reach::at_most(reach::ISOLATION, Some(noise))));
        }
        lines.push((trouble.short().to_owned(), together(pairs)));
    }
    figures.push(Figure::new("arrived at the endpoint that is back meanwhile", Unit::Count, recovered));
    let about = "Ten applications with an endpoint each, 500 messages a second in all, open loop: latency end to end of nine \
                 healthy ones, against the same without trouble.";
    let bars = bars.iter().map(|(name, values)| (name.clone(), &values[..])).collect();
    ScenarioReport::new("isolation", about, figures)
        .note(format!(
            "Noise is {noise:.2}: the most of the load without trouble against its median. What did not arrive within {} s \
             counts as {} s.",
            LATE.as_secs(),
            LONGEST / 1_000_000
        ))
        .plot(Plot {
            // One bar may be a thousand times as high as the others.
            logarithmic: true,
            ..bar_plot("isolation", "Healthy endpoints, p99", "milliseconds", bars)
        })
        .plot(percentile_plot("isolation-percentiles", "Healthy endpoints, end to end", lines))
}

/// How far the same load is from itself.
fn noise(p99: &[f64]) -> f64 {
    let most = p99.iter().copied().fold(f64::NAN, f64::max);
    (most / crate::figures::median(p99)).clamp(1.0, reach::ISOLATION)
}

impl Trouble {
    fn name(self, settings: &Settings) -> String {
        match self {
            Self::None => "nothing wrong".to_owned(),
            Self::HundredthHangs => "1 % hanging".to_owned(),
            Self::TenthHangs => "10 % hanging".to_owned(),
            Self::TenthFails => "10 % failing".to_owned(),
            Self::TenthRecovers => format!("an endpoint back with {} due retries", whole(settings.retries)),
            Self::TarPits => format!("{} tar pits", whole(settings.tar_pits)),
        }
    }

    fn short(self) -> &'static str {
        match self {
            Self::None => "nothing wrong",
            Self::HundredthHangs => "1 % hanging",
            Self::TenthHangs => "10 % hanging",
            Self::TenthFails => "10 % failing",
            Self::TenthRecovers => "due retries",
            Self::TarPits => "tar pits",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_how_far_the_same_load_is_from_itself() {
        assert!((noise(&[1.0, 1.2, 1.0]) - 1.2).abs() < 1e-9);
        assert!((noise(&[1.0, 90.0, 1.0]) - reach::ISOLATION).abs() < 1e-9);
        assert!((noise(&[2.0]) - 1.0).abs() < 1e-9);
    }
}
