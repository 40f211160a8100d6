//! Keeps the results of attempts until the store has them. What waits here is bounded by what is in flight, because
//! nothing is claimed while the store cannot take results.
//!
//! Results that come in the same moment go together: a task for each cost as much as sending its request.

use crate::{backoff::Backoff, metrics::Metrics};
use futures_util::FutureExt;
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, Deliveries, Recorded},
};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Brings results to the store. A `P` is the place that a delivery keeps until then.
pub(crate) struct Recorder<P> {
    store: Arc<dyn Deliveries>,
    metrics: Metrics,
    /// What came since results last set out.
    gathered: Mutex<Vec<(AttemptRecord, P)>>,
    /// Results that wait because the store takes none at present.
    stuck: AtomicUsize,
}

/// A result that could not be stored yet; counted while it exists.
struct Unstored<'a> {
    metrics: &'a Metrics,
    stuck: &'a AtomicUsize,
    /// The store takes no results at all, as opposed to not this one.
    outage: bool,
}

impl<P> Recorder<P> {
    pub(crate) fn new(store: Arc<dyn Deliveries>, metrics: Metrics) -> Self {
        Self { store, metrics, gathered: Mutex::default(), stuck: AtomicUsize::new(0) }
    }

    /// Takes a result in. `true`: it is the first of those that go next, so call [`set_out`](Self::set_out) in a task.
    pub(crate) fn gather(&self, record: AttemptRecord, place: P) -> bool {
        let mut gathered = self.gathered();
        gathered.push((record, place));
        gathered.len() == 1
    }

    /// Stores what is gathered until everything else that can run has run.
    pub(crate) async fn set_out(&self) {
        tokio::task::yield_now().await;
        let results = std::mem::take(&mut *self.gathered());
        self.store(results).await;
    }

    /// The store takes no results at present.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) > 0
    }

    /// Returns once the store has all of them, however long that takes. Leases stay out until then, so that a result that
    /// cannot be stored never makes the request go out again while this process lives.
    async fn store(&self, mut results: Vec<(AttemptRecord, P)>) {
        let mut backoff = Backoff::default();
        let mut unstored = Vec::new();
        while !results.is_empty() {
            let answers = self.try_once(results.iter().map(|(record, _)| record.clone()).collect()).await;
            let (mut left, mut still) = (Vec::new(), Vec::new());
            for ((record, place), answer) in results.into_iter().zip(answers) {
                match answer {
                    Ok(Recorded::Stored(_)) => {}
                    Ok(Recorded::Superseded) => self.superseded(&record),
                    Err(error) => {
                        still.push(self.unstored(&record, &error, backoff.is_first()));
                        left.push((record, place));
                    }
                }
            }
            // In this order: the earlier marks end only once the new ones count.
            drop(std::mem::replace(&mut unstored, still));
            results = left;
            if !results.is_empty() {
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }

    /// An answer for each. A panic of the store is one of its failures: what was sent must not be forgotten for it.
    async fn try_once(&self, records: Vec<AttemptRecord>) -> Vec<Result<Recorded, StoreError>> {
        let count = records.len();
        let recording = AssertUnwindSafe(self.store.record(records)).catch_unwind();
        let (mut answers, detail) = match recording.await {
            Ok(answers) => (answers, "the store returned no result for a record"),
            Err(_) => (Vec::new(), "the store panicked"),
        };
        answers.resize_with(count, || Err(StoreError::Internal { detail: detail.to_owned() }));
        answers
    }

    fn gathered(&self) -> std::sync::MutexGuard<'_, Vec<(AttemptRecord, P)>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
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
        Unstored { metrics: &self.metrics, stuck: &self.stuck, outage }
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        self.metrics.unstored_results.dec();
        if self.outage && self.stuck.fetch_sub(1, Ordering::Relaxed) == 1 {
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

    fn recorder(answers: Vec<Result<Recorded, StoreError>>) -> (Recorder<()>, Arc<Records>) {
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
        let storing = recorder.store(vec![(record.clone(), ())]);
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
        let storing = recorder.store(vec![(samples::record(Outcome::Succeeded), ())]);
        tokio::pin!(storing);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut storing).await.is_err());
        assert!(!recorder.is_stuck());
        storing.await;
        assert_eq!(records.taken().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_result_is_dropped_and_counted() {
        let (recorder, records) = recorder(vec![Ok(Recorded::Superseded)]);
        recorder.store(vec![(samples::record(Outcome::Succeeded), ())]).await;
        assert_eq!(records.taken().len(), 1);
        assert_eq!(recorder.metrics.superseded_results.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_outlives_a_panic_of_the_store() {
        let (recorder, records) = recorder(vec![]);
        let storing = recorder.store(vec![(samples::record(Outcome::Succeeded), ())]);
        tokio::pin!(storing);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut storing).await.is_err());
        records.answer(Ok(STORED));
        storing.await;
        assert_eq!(records.taken().len(), 2);
    }
}
