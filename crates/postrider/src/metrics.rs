//! The metrics of this node: the engine's, and what the store says at the moment of a scrape.

mod admission;
mod outbox;

use admission::Gates;
use outbox::Outbox;
use postrider_api::{admission::Admission, ports};
use postrider_model::time::Timestamp;
use postrider_store::{
    Store,
    health::{Backlog, CommitTimes},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::{MetricType, counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Registry,
    store: Arc<dyn Store>,
    pending: Gauge,
    oldest_due: Gauge<f64, AtomicU64>,
    on_hold: Gauge,
    held_since: Gauge<f64, AtomicU64>,
    commits: Arc<Commits>,
    accepted: Counter,
    gates: Arc<Gates>,
    outbox: Arc<Outbox>,
}

impl Metrics {
    /// Adds the store's metrics to a registry that the engine's are in already.
    pub fn new(mut registry: Registry, store: Arc<dyn Store>) -> Self {
        let pending = Gauge::default();
        registry.register(
            "postrider_deliveries_pending",
            "Deliveries that are not finished, due or not",
            pending.clone(),
        );
        let oldest_due = Gauge::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "postrider_oldest_due",
            "Age of the oldest delivery that is due and could be attempted, but is not yet",
            Unit::Seconds,
            oldest_due.clone(),
        );
        let on_hold = Gauge::default();
        registry.register(
            "postrider_deliveries_on_hold",
            "Deliveries that wait for the operator's decision, after a restore for example",
            on_hold.clone(),
        );
        let held_since = Gauge::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "postrider_hold_began_timestamp",
            "When the hold on deliveries began that lasts, in seconds since 1970; 0 when none does",
            Unit::Seconds,
            held_since.clone(),
        );
        let accepted = Counter::default();
        registry.register(
            "postrider_messages_accepted",
            "Messages that were made durable, tests and examples among them; repeated requests do not count again",
            accepted.clone(),
        );
        let commits = Arc::new(Commits::default());
        registry.register_collector(Box::new(Arc::clone(&commits)));
        let gates = Arc::new(Gates::default());
        registry.register_collector(Box::new(Arc::clone(&gates)));
        let outbox = Arc::new(Outbox::default());
        registry.register_collector(Box::new(Arc::clone(&outbox)));
        Self { registry, store, pending, oldest_due, on_hold, held_since, commits, accepted, gates, outbox }
    }

    /// Shows what the API lets in and refuses, from now on.
    pub fn watch(&self, admission: Arc<Admission>) {
        self.gates.watch(admission);
    }

    /// Counts only while a hold lasts.
    async fn show_hold(&self) {
        let mut held = None;
        if self.store.held_since().is_some() {
            match self.store.hold().await {
                Ok(hold) => held = hold,
                Err(error) => {
                    tracing::warn!(%error, "what is on hold is not known; metrics show the last number");
                    return;
                }
            }
        }
        let since =
            held.as_ref().map_or(0.0, |hold| hold.since.since(Timestamp::from_micros(0)).as_secs_f64());
        self.held_since.set(since);
        let on_hold = held.map_or(0, |hold| hold.deliveries);
        self.on_hold.set(i64::try_from(on_hold).unwrap_or(i64::MAX));
    }

    async fn show_outbox(&self) {
        match self.store.outbox().await {
            Ok(outbox) => self.outbox.set(outbox, self.store.clock().now()),
            Err(error) => tracing::warn!(%error, "the outbox is not known; metrics show the last state"),
        }
    }

    fn show(&self, backlog: Backlog) {
        self.pending.set(i64::try_from(backlog.pending).unwrap_or(i64::MAX));
        let now = self.store.clock().now();
        self.oldest_due.set(backlog.oldest_due.map_or(0.0, |due| now.since(due).as_secs_f64()));
    }
}

#[async_trait::async_trait]
impl ports::Metrics for Metrics {
    async fn render(&self) -> String {
        match self.store.backlog().await {
            Ok(backlog) => self.show(backlog),
            Err(error) => tracing::warn!(%error, "the backlog is not known; metrics show the last one"),
        }
        self.show_hold().await;
        self.show_outbox().await;
        self.commits.set(self.store.commit_times());
        let mut page = String::new();
        match text::encode(&mut page, &self.registry) {
            Ok(()) => page,
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            }
        }
    }

    fn accepted(&self) {
        self.accepted.inc();
    }
}

/// The store's own histogram of commits, copied at each scrape.
#[derive(Default)]
struct Commits(Mutex<CommitTimes>);

impl Commits {
    fn set(&self, times: CommitTimes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Commits")
    }
}

impl Collector for Commits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The encoder adds the counts up; the store has done so already.
        let mut below = 0;
        let mut buckets = Vec::with_capacity(times.buckets.len() + 1);
        for (bound, cumulative) in &times.buckets {
            buckets.push((*bound, cumulative.saturating_sub(below)));
            below = *cumulative;
        }
        if times.buckets.last().is_none_or(|(bound, _)| bound.is_finite()) {
            buckets.push((f64::INFINITY, times.commits.saturating_sub(below)));
        }
        let name = "postrider_store_commit_duration";
        let help = "Time of durable commits";
        let mut metric =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        metric.encode_histogram::<[(&str, &str); 0]>(
            times.total.as_secs_f64(),
            times.commits,
            &buckets,
            None,
        )?;
        let help = "Operations that shared those commits";
        let mut metric =
            encoder.encode_descriptor("postrider_store_operations", help, None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], _, u64>(&times.operations, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_stores_commit_times_become_a_histogram() {
        let mut registry = Registry::default();
        let commits = Arc::new(Commits::default());
        registry.register_collector(Box::new(Arc::clone(&commits)));
        let buckets = vec![(0.001, 2), (0.01, 5)];
        commits.set(CommitTimes { commits: 6, operations: 90, total: Duration::from_millis(500), buckets });
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "postrider_store_commit_duration_seconds_bucket{le=\"0.001\"} 2",
            "postrider_store_commit_duration_seconds_bucket{le=\"0.01\"} 5",
            "postrider_store_commit_duration_seconds_bucket{le=\"+Inf\"} 6",
            "postrider_store_commit_duration_seconds_count 6",
            "postrider_store_operations_total 90",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }
}
