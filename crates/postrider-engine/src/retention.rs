//! Deletes what is too old, by default and all the time, in batches small enough that deliveries do not notice. What is
//! too old is a matter of the configuration and the store's clock; what is still pending is the store's to keep.

use crate::{config::RetentionConfig, metrics::Metrics};
use postrider_model::time::Timestamp;
use postrider_store::{Store, StoreError, retention::Cutoffs};
use std::{sync::Arc, time::Duration};

/// A start has better things to do: deliveries that wait come first.
const START_DELAY: Duration = Duration::from_secs(10);

/// Sweeps for ever.
pub(crate) async fn run(store: Arc<dyn Store>, config: RetentionConfig, metrics: Metrics) {
    let mut wait = START_DELAY;
    let mut failing = false;
    loop {
        let clock = store.clock();
        // The second for a clock that was set back: it would have a sweep wait until it gets there again.
        tokio::select! {
            biased;
            () = clock.sleep_until(clock.now().plus(wait)) => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = config.sweep_interval();
        match sweep(&*store, &config, &metrics).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("retention works again");
                }
                metrics.swept(store.clock().now().as_seconds());
            }
            Err(error) if failing => tracing::debug!(%error, "retention still fails"),
            Err(error) => {
                failing = true;
                tracing::error!(%error, "retention failed; trying again at the next sweep");
            }
        }
    }
}

async fn sweep(store: &dyn Store, config: &RetentionConfig, metrics: &Metrics) -> Result<(), StoreError> {
    let cutoffs = cutoffs(config, store.clock().now());
    loop {
        let expired = store.expire(cutoffs, config.batch).await?;
        metrics.deleted(&expired);
        if !expired.more {
            return Ok(());
        }
        tokio::time::sleep(config.batch_pause()).await;
    }
}

fn cutoffs(config: &RetentionConfig, now: Timestamp) -> Cutoffs {
    Cutoffs { messages: now.minus(config.messages()), attempts: now.minus(config.attempts()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_when_they_are_older_than_configured_and_not_before() {
        let config = RetentionConfig { messages_days: 30, attempts_days: 7, ..RetentionConfig::default() };
        let now = Timestamp::parse("2026-07-31T12:00:00Z").expect("a date");
        let cutoffs = cutoffs(&config, now);
        assert_eq!(cutoffs.messages.to_rfc3339(), "2026-07-01T12:00:00.000000Z");
        assert_eq!(cutoffs.attempts.to_rfc3339(), "2026-07-24T12:00:00.000000Z");
    }
}
