//! What a scenario runs on: a server, a receiver, and applications with endpoints there.

use crate::{
    api::Api,
    message::Messages,
    publisher::{Pace, Plan, Published, Running},
    receiver::{Group, Receiver},
    server::Server,
    settings::Settings,
};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// How long a backlog may take to drain after publishing stopped.
const DRAIN: Duration = Duration::from_mins(3);
/// Connections that create things.
const CREATORS: usize = 16;
const POLL: Duration = Duration::from_millis(2);
/// Publishing before anything is measured: connections open, pools and caches fill.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// A server and a receiver.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) receiver: Arc<Receiver>,
    connections: usize,
    payload_bytes: usize,
}

/// What one measured publication of many messages came to.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) published: Published,
    pub(crate) delivered: u64,
    /// From the first message until the last arrived.
    pub(crate) seconds: f64,
    /// End to end, in microseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Processor seconds of the server by program; empty when its processes are not known.
    pub(crate) server_cpu: BTreeMap<String, f64>,
    pub(crate) receiver_cpu: f64,
}

impl World {
    /// A new server, or the running one.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let receiver = Receiver::start(settings.receive, settings.receive_url.as_deref(), Instant::now())?;
        let server = settings.launch.start().await?;
        Ok(Self {
            server,
            receiver: Arc::new(receiver),
            connections: settings.connections,
            payload_bytes: settings.payload_bytes,
        })
    }

    /// Creates an application with endpoints in a group; returns its id.
    pub(crate) async fn application(&self, group: Group, endpoints: usize) -> Result<String> {
        let mut api = Api::open(&self.server.access).await?;
        let application = api.application("bench").await.map_err(|error| self.explain(error))?;
        let mut creators = JoinSet::new();
        for first in 0..CREATORS.min(endpoints) {
            let (access, application) = (self.server.access.clone(), application.clone());
            let receiver = Arc::clone(&self.receiver);
            creators.spawn(async move {
                let mut api = Api::open(&access).await?;
                for number in (first..endpoints).step_by(CREATORS) {
                    api.endpoint(&application, &receiver.url(group, number)).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(created) = creators.join_next().await {
            created?.map_err(|error| self.explain(error))?;
        }
        Ok(application)
    }

    /// Creates applications with one endpoint each in a group.
    pub(crate) async fn applications(&self, group: Group, count: usize) -> Result<Vec<String>> {
        let mut creators = JoinSet::new();
        for first in 0..CREATORS.min(count) {
            let (access, receiver) = (self.server.access.clone(), Arc::clone(&self.receiver));
            creators.spawn(async move {
                let mut api = Api::open(&access).await?;
                let mut created = Vec::new();
                for number in (first..count).step_by(CREATORS) {
                    let application = api.application("bench").await?;
                    api.endpoint(&application, &receiver.url(group, number)).await?;
                    created.push(application);
                }
                anyhow::Ok(created)
            });
        }
        let mut all = Vec::with_capacity(count);
        while let Some(created) = creators.join_next().await {
            all.extend(created?.map_err(|error| self.explain(error))?);
        }
        Ok(all)
    }

    /// A closed loop to these applications in turn.
    pub(crate) fn plan(&self, applications: &[String], duration: Duration) -> Plan {
        Plan {
            servers: self.server.addresses.clone(),
            messages: Arc::new(Messages::new(&self.server.access, applications, self.payload_bytes)),
            connections: self.connections,
            pace: Pace::Closed,
            duration,
            most: u64::MAX,
            may_refuse: false,
            epoch: self.receiver.epoch(),
            first: 0,
        }
    }

    /// Publishes and waits for the end of that.
    pub(crate) async fn publish(&self, plan: Plan) -> Result<Published> {
        self.finish(plan.start()?).await
    }

    /// Waits for the end of what was started.
    pub(crate) async fn finish(&self, running: Running) -> Result<Published> {
        running.finish().await.map_err(|error| self.explain(error))
    }

    /// Publishes a second's worth, waits until it has arrived, and forgets it.
    pub(crate) async fn warm_up(&self, plan: &Plan, group: Group, endpoints: u64) -> Result<()> {
        let before = self.receiver.arrived(group);
        let plan = Plan { duration: plan.duration.min(WARM_UP), ..plan.clone() };
        let accepted = self.publish(plan).await?.accepted;
        self.drained(group, before + accepted * endpoints).await?;
        self.receiver.take(group);
        Ok(())
    }

    /// Publishes, waits until everything has arrived, and says what it took.
    pub(crate) async fn measure(&self, plan: Plan, group: Group, endpoints: u64) -> Result<Measured> {
        self.receiver.take(group);
        let before = self.receiver.arrived(group);
        let server_before = self.cpu()?;
        let receiver_before = Receiver::cpu_seconds()?;
        let started = Instant::now();
        let published = self.publish(plan).await?;
        self.drained(group, before + published.accepted * endpoints).await?;
        let seconds = started.elapsed().as_secs_f64();
        let mut server_cpu = self.cpu()?;
        for (name, spent) in &mut server_cpu {
            *spent -= server_before.get(name).copied().unwrap_or(0.0);
        }
        Ok(Measured {
            delivered: self.receiver.arrived(group) - before,
            seconds,
            latencies: self.receiver.take(group),
            server_cpu,
            receiver_cpu: Receiver::cpu_seconds()? - receiver_before,
            published,
        })
    }

    /// Processor seconds so far, by program.
    fn cpu(&self) -> Result<BTreeMap<String, f64>> {
        let usage = self.server.measured().usage().map_err(|error| self.explain(error))?;
        Ok(usage.into_iter().map(|(name, usage)| (name, usage.cpu_seconds)).collect())
    }

    /// Waits until so many have arrived at a group in all.
    pub(crate) async fn drained(&self, group: Group, expected: u64) -> Result<()> {
        let arrived = self.wait(group, expected, DRAIN).await?;
        ensure!(arrived >= expected, "{arrived} of {expected} deliveries arrived within {DRAIN:?}");
        Ok(())
    }

    /// Waits until so many have arrived at a group, or for so long; says how many have.
    pub(crate) async fn wait(&self, group: Group, expected: u64, within: Duration) -> Result<u64> {
        let until = Instant::now() + within;
        loop {
            let arrived = self.receiver.arrived(group);
            if arrived >= expected || Instant::now() > until {
                return Ok(arrived);
            }
            if let Some(death) = self.server.death() {
                return Err(death);
            }
            sleep(POLL).await;
        }
    }

    /// An error of a server that died is its death.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        self.server.death().unwrap_or(error)
    }

    /// Ends the server.
    pub(crate) async fn stop(self) -> Result<()> {
        self.server.stop().await.context("ending the server")
    }
}

impl Measured {
    /// Messages accepted per second while publishing.
    pub(crate) fn accepted_per_second(&self) -> f64 {
        count(self.published.accepted) / self.published.seconds
    }

    /// Deliveries per second, until the last arrived.
    pub(crate) fn delivered_per_second(&self) -> f64 {
        count(self.delivered) / self.seconds
    }

    /// Seconds that deliveries went on after publishing.
    pub(crate) fn drain_seconds(&self) -> f64 {
        (self.seconds - self.published.seconds).max(0.0)
    }

    /// Microseconds of processor time per delivery.
    pub(crate) fn per_delivery(&self, cpu_seconds: f64) -> f64 {
        cpu_seconds * 1e6 / count(self.delivered)
    }
}

/// For arithmetic.
#[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// A percentile of a histogram of microseconds, in milliseconds; `NaN` of nothing.
pub(crate) fn ms(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    if latencies.is_empty() { f64::NAN } else { count(latencies.value_at_quantile(quantile)) / 1000.0 }
}
