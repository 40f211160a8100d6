//! What is run: repetitions of the scenarios, interleaved with the limit so that both see the same machine.

use crate::{
    Scenario, Settings, limit, publisher,
    receiver::Receiver,
    report::{Figures, Latency, Steady},
    server::Server,
};
use anyhow::{Result, bail};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long a backlog may take to drain after publishing stopped.
const DRAIN: Duration = Duration::from_mins(2);

/// Runs what was asked for.
pub(crate) async fn run(scenario: Scenario, settings: &Settings) -> Result<Figures> {
    let mut figures = Figures::new(settings);
    for pair in 1..=settings.pairs {
        eprintln!("# pair {pair} of {}", settings.pairs);
        figures.limit.push(limit::measure(settings).await?);
        if !matches!(scenario, Scenario::Limit) {
            let steady = steady(settings).await?;
            let rate = steady.delivered_per_second / 2.0;
            figures.steady.push(steady);
            if !matches!(scenario, Scenario::Steady) {
                figures.latency.push(latency(settings, rate).await?);
            }
        }
    }
    Ok(figures)
}

async fn steady(settings: &Settings) -> Result<Steady> {
    let receiver = Receiver::start(Instant::now()).await?;
    let server = Arc::new(Server::start(&settings.server).await?);
    let path = server.endpoint(receiver.address).await?;
    publisher::closed_loop(&server, &path, &receiver, settings.connections, Duration::from_secs(1)).await?;
    let warm = receiver.arrived();
    let started = Instant::now();
    let accepted =
        publisher::closed_loop(&server, &path, &receiver, settings.connections, settings.duration).await?;
    let publishing = started.elapsed().as_secs_f64();
    let delivered = drained(&receiver, warm + accepted).await? - warm;
    let total = started.elapsed().as_secs_f64();
    let latencies = receiver.take();
    stop(server).await?;
    #[expect(clippy::cast_precision_loss, reason = "rates")]
    Ok(Steady {
        accepted_per_second: accepted as f64 / publishing,
        delivered_per_second: delivered as f64 / total,
        drain_seconds: total - publishing,
        p50_ms: latencies.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: latencies.value_at_quantile(0.99) as f64 / 1000.0,
    })
}

async fn latency(settings: &Settings, rate: f64) -> Result<Latency> {
    let receiver = Receiver::start(Instant::now()).await?;
    let server = Arc::new(Server::start(&settings.server).await?);
    let path = server.endpoint(receiver.address).await?;
    let warm =
        publisher::open_loop(&server, &path, &receiver, settings.connections, rate, Duration::from_secs(1))
            .await?;
    drained(&receiver, warm).await?;
    receiver.take();
    let sent = publisher::open_loop(&server, &path, &receiver, settings.connections, rate, settings.duration)
        .await?;
    drained(&receiver, sent).await?;
    let latencies = receiver.take();
    stop(server).await?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Latency { rate, p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) })
}

/// Waits until everything accepted has arrived.
async fn drained(receiver: &Receiver, expected: u64) -> Result<u64> {
    let until = Instant::now() + DRAIN;
    while receiver.arrived() < expected {
        if Instant::now() > until {
            bail!("{} of {expected} messages arrived within {DRAIN:?}", receiver.arrived());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(receiver.arrived())
}

async fn stop(server: Arc<Server>) -> Result<()> {
    match Arc::try_unwrap(server) {
        Ok(server) => server.stop().await,
        Err(_) => bail!("a publisher still holds the server"),
    }
}
