//! Keeps a loop alive: a panic in it is counted, and it starts again.

use crate::metrics::Metrics;
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio_util::sync::CancellationToken;

/// A loop that panics each time it starts must not fill the log or a processor.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Runs the future that `start` makes until it returns; again after a panic, unless `stop` is cancelled.
pub(crate) async fn supervise<F: Future<Output = ()>>(
    name: &'static str,
    stop: CancellationToken,
    metrics: Metrics,
    start: impl Fn() -> F,
) {
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        metrics.panics.inc();
        tracing::error!(name, "a loop of the engine panicked; it starts again");
        let pause = tokio::time::timeout(RESTART_PAUSE, stop.cancelled());
        if pause.await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_starts_again() {
        let metrics = Metrics::register(&mut Registry::default());
        let starts = AtomicU32::new(0);
        let fragile = || async {
            assert!(starts.fetch_add(1, Ordering::Relaxed) >= 2, "one of two panics");
        };
        supervise("fragile", CancellationToken::new(), metrics.clone(), fragile).await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert_eq!(metrics.panics.get(), 2);
    }
}
