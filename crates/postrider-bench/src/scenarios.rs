//! What is run: repetitions of the scenarios, interleaved with the limit so that both see the same machine.

use crate::{
    Scenario, Settings,
    api::Api,
    limit::{self, PAYLOAD_BYTES},
    message::Messages,
    publisher::{Pace, Plan, Published},
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

/// A server with one endpoint.
struct One {
    server: Server,
    receiver: Receiver,
    messages: Arc<Messages>,
    connections: usize,
}

impl One {
    async fn start(settings: &Settings) -> Result<Self> {
        let receiver = Receiver::start(settings.receive, None, Instant::now())?;
        let server = settings.launch.start().await?;
        let mut api = Api::open(&server.access).await?;
        let application = api.application("bench").await?;
        api.endpoint(&application, &receiver.url(0, 0)).await?;
        let messages = Arc::new(Messages::new(&server.access, &[application], PAYLOAD_BYTES));
        Ok(Self { server, receiver, messages, connections: settings.connections })
    }

    async fn publish(&self, pace: Pace, duration: Duration) -> Result<Published> {
        let plan = Plan {
            server: self.server.access.address,
            messages: Arc::clone(&self.messages),
            connections: self.connections,
            pace,
            duration,
            may_refuse: false,
            epoch: self.receiver.epoch(),
            first: 0,
        };
        plan.run().await.map_err(|error| self.server.death().unwrap_or(error))
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
async fn steady(settings: &Settings) -> Result<Steady> {
    let one = One::start(settings).await?;
    let warm = one.publish(Pace::Closed, Duration::from_secs(1)).await?.accepted;
    drained(&one.receiver, warm).await?;
    one.receiver.take(0);
    let server_before = one.server.usage()?;
    let receiver_before = Receiver::cpu_seconds()?;
    let started = Instant::now();
    let published = one.publish(Pace::Closed, settings.duration).await?;
    let delivered = drained(&one.receiver, warm + published.accepted).await? - warm;
    let total = started.elapsed().as_secs_f64();
    let server =
        one.server.usage()?.zip(server_before).map(|(after, before)| after.cpu_seconds - before.cpu_seconds);
    let receiver = Receiver::cpu_seconds()? - receiver_before;
    let latencies = one.receiver.take(0);
    one.server.stop().await?;
    let micros = |seconds: f64| seconds * 1e6 / delivered as f64;
    Ok(Steady {
        accepted_per_second: published.accepted as f64 / published.seconds,
        delivered_per_second: delivered as f64 / total,
        drain_seconds: total - published.seconds,
        p50_ms: latencies.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: latencies.value_at_quantile(0.99) as f64 / 1000.0,
        server_cpu_us: server.map(micros),
        publisher_cpu_us: micros(published.cpu_seconds),
        receiver_cpu_us: micros(receiver),
    })
}

async fn latency(settings: &Settings, rate: f64) -> Result<Latency> {
    let one = One::start(settings).await?;
    let warm = one.publish(Pace::PerSecond(rate), Duration::from_secs(1)).await?.accepted;
    drained(&one.receiver, warm).await?;
    one.receiver.take(0);
    let sent = one.publish(Pace::PerSecond(rate), settings.duration).await?.accepted;
    drained(&one.receiver, warm + sent).await?;
    let latencies = one.receiver.take(0);
    one.server.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Latency { rate, p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) })
}

/// Waits until everything accepted has arrived.
async fn drained(receiver: &Receiver, expected: u64) -> Result<u64> {
    let until = Instant::now() + DRAIN;
    while receiver.arrived(0) < expected {
        if Instant::now() > until {
            bail!("{} of {expected} messages arrived within {DRAIN:?}", receiver.arrived(0));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(receiver.arrived(0))
}
