//! Keeps the result of an attempt until the store has it. What waits here is bounded by what is in flight, because
//! nothing is claimed while the store cannot take results.

use crate::{backoff::Backoff, metrics::Metrics};
use futures_util::FutureExt;
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, Deliveries, Recorded},
};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Brings results to the store.
pub(crate) struct Recorder {
    store: Arc<dyn Deliveries>,
    metrics: Metrics,
    /// Results that wait because the store takes none at present.
    stuck: AtomicUsize,
}

/// A result that could not be stored yet; counted while it exists.
struct Unstored<'a> {
    recorder: &'a Recorder,
    /// The store takes no results at all, as opposed to not this one.
    outage: bool,
}

impl Recorder {
    pub(crate) fn new(store: Arc<dyn Deliveries>, metrics: Metrics) -> Self {
        Self { store, metrics, stuck: AtomicUsize::new(0) }
    }

    /// The store takes no results at present.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) > 0
    }

    /// Returns once the store has the result, however long that takes. The lease stays out until then, so that a result
    /// that cannot be stored never makes the request go out again while this process lives.
    pub(crate) async fn store(&self, record: AttemptRecord) {
        let mut backoff = Backoff::default();
        let mut unstored = None;
        loop {
            let error = match self.try_once(&record).await {
                Ok(Recorded::Stored(_)) => return,
                Ok(Recorded::Superseded) => return self.superseded(&record),
                Err(error) => error,
            };
            // In this order: the earlier mark ends only once the new one counts.
            let still = self.unstored(&record, &error, backoff.is_first());
            drop(unstored.replace(still));
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// A panic of the store is one of its failures: what was sent must not be forgotten for it.
    async fn try_once(&self, record: &AttemptRecord) -> Result<Recorded, StoreError> {
        let recording = AssertUnwindSafe(self.store.record(vec![record.clone()])).catch_unwind();
        let detail = match recording.await.map(|mut results| results.pop()) {
            Ok(Some(result)) => return result,
            Ok(None) => "the store returned no result for a record",
            Err(_) => "the store panicked",
        };
        Err(StoreError::Internal { detail: detail.to_owned() })
    }

    fn superseded(&self, record: &AttemptRecord) {
        self.metrics.superseded_results.inc();
        let delivery = &record.lease.delivery;
        tracing::warn!(
            message.id = %delivery.message, endpoint.id = %delivery.endpoint, attempt.number = record.attempt.number,
            "a result came after its lease was lost and is dropped"
        );
    }

    fn unstored(&self, record: &AttemptRecord, error: &StoreError, first: bool) -> Unstored<'_> {
        let outage = matches!(error, StoreError::Unavailable { .. } | StoreError::Full { .. });
        self.metrics.unstored_results.inc();
        if outage && self.stuck.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(%error, "results cannot be stored: deliveries wait until they can");
        }
        if !outage && first {
            let delivery = &record.lease.delivery;
            tracing::error!(
                message.id = %delivery.message, endpoint.id = %delivery.endpoint, attempt.number = record.attempt.number,
                %error, "a result cannot be stored; it is tried again, other deliveries go on"
            );
        }
        Unstored { recorder: self, outage }
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        self.recorder.metrics.unstored_results.dec();
        if self.outage && self.recorder.stuck.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!("results can be stored again: deliveries go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, Records};
    use postrider_model::{delivery::State, outcome::Outcome};
    use prometheus_client::registry::Registry;
    use std::time::Duration;

    const STORED: Recorded = Recorded::Stored(State::Delivered);

    fn recorder(answers: Vec<Result<Recorded, StoreError>>) -> (Recorder, Arc<Records>) {
        let records = Arc::new(Records::answering(answers));
        let store: Arc<dyn Deliveries> = Arc::clone(&records) as Arc<dyn Deliveries>;
        (Recorder::new(store, Metrics::register(&mut Registry::default())), records)
    }

    fn full() -> StoreError {
        StoreError::Full { detail: "no space".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_kept_until_the_store_has_space_again() {
        let (recorder, records) = recorder(vec![Err(full()), Err(full()), Err(full()), Ok(STORED)]);
        let record = samples::record(Outcome::Succeeded);
        let storing = recorder.store(record.clone());
        tokio::pin!(storing);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut storing).await.is_err());
        assert!(recorder.is_stuck(), "nothing may be claimed meanwhile");
        assert_eq!(recorder.metrics.unstored_results.get(), 1);
        storing.await;
        assert!(!recorder.is_stuck());
        assert_eq!(recorder.metrics.unstored_results.get(), 0);
        assert_eq!(records.taken(), vec![record.attempt.id; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_alone_cannot_be_stored_stops_nothing_else() {
        let broken = StoreError::Inconsistent { table: "delivery", column: "state", row: "7".to_owned() };
        let (recorder, records) = recorder(vec![Err(broken), Ok(STORED)]);
        let storing = recorder.store(samples::record(Outcome::Succeeded));
        tokio::pin!(storing);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut storing).await.is_err());
        assert!(!recorder.is_stuck());
        storing.await;
        assert_eq!(records.taken().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_result_is_dropped_and_counted() {
        let (recorder, records) = recorder(vec![Ok(Recorded::Superseded)]);
        recorder.store(samples::record(Outcome::Succeeded)).await;
        assert_eq!(records.taken().len(), 1);
        assert_eq!(recorder.metrics.superseded_results.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_outlives_a_panic_of_the_store() {
        let (recorder, records) = recorder(vec![]);
        let storing = recorder.store(samples::record(Outcome::Succeeded));
        tokio::pin!(storing);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut storing).await.is_err());
        records.answer(Ok(STORED));
        storing.await;
        assert_eq!(records.taken().len(), 2);
    }
}
