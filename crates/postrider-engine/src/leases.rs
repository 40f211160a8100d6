//! A lease always comes back to the store while the process lives, whatever fails around it: else its delivery would
//! wait for a restart.

use crate::{backoff::Backoff, metrics::Metrics};
use futures_util::FutureExt;
use postrider_store::{
    StoreError,
    deliveries::{Deliveries, Lease},
};
use std::{panic::AssertUnwindSafe, time::Duration};

/// How long a lease is kept that ended without a result, so that a delivery that is due again at once cannot spin.
pub(crate) const RELEASE_PAUSE: Duration = Duration::from_secs(1);

/// Runs what ends a lease, by a record or a release; gives the lease back when that panics instead.
pub(crate) async fn see_through<T>(
    store: &dyn Deliveries,
    lease: Lease,
    metrics: &Metrics,
    work: impl Future<Output = Option<T>>,
) -> Option<T> {
    if let Ok(done) = AssertUnwindSafe(work).catch_unwind().await {
        return done;
    }
    metrics.panics.inc();
    let delivery = &lease.delivery;
    tracing::error!(message.id = %delivery.message, endpoint.id = %delivery.endpoint, "a delivery's task panicked; it is due again");
    tokio::time::sleep(RELEASE_PAUSE).await;
    release(store, vec![lease]).await;
    None
}

/// Gives leases back, however long the store takes to take them.
pub(crate) async fn release(store: &dyn Deliveries, leases: Vec<Lease>) {
    let mut backoff = Backoff::default();
    loop {
        let released = AssertUnwindSafe(store.release(leases.clone())).catch_unwind().await;
        let error = match released {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => StoreError::Internal { detail: "the store panicked".to_owned() },
        };
        if backoff.is_first() {
            tracing::warn!(%error, leases = leases.len(), "leases cannot be given back; trying again until they can");
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Gives leases back if the store takes them now.
pub(crate) async fn try_release(store: &dyn Deliveries, leases: Vec<Lease>) {
    let released = AssertUnwindSafe(store.release(leases)).catch_unwind().await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::warn!("a lease could not be given back; it ends by itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, Records};
    use prometheus_client::registry::Registry;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_given_back_until_the_store_takes_it() {
        let full = || Err(StoreError::Full { detail: "no space".to_owned() });
        let records = Records::refusing_releases(vec![full(), full(), full()]);
        let lease = samples::claimed().lease;
        release(&records, vec![lease]).await;
        assert_eq!(records.released(), [lease; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_gives_its_lease_back_after_a_pause() {
        let metrics = Metrics::register(&mut Registry::default());
        let records = Records::default();
        let lease = samples::claimed().lease;
        let begun = tokio::time::Instant::now();
        see_through::<()>(&records, lease, &metrics, async { panic!("a defect") }).await;
        assert_eq!((records.released(), metrics.panics.get()), (vec![lease], 1));
        assert!(begun.elapsed() >= RELEASE_PAUSE, "a delivery that always panics must not spin");
        assert_eq!(see_through(&records, lease, &metrics, async { Some(7) }).await, Some(7));
        assert_eq!(records.released().len(), 1, "what ended well has ended its lease");
    }
}
