//! The server's clock in the hand of a test.

use postrider_model::time::Timestamp;
use postrider_store::Store;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Longest real time that the server may take until nothing is left to do.
const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(3);

/// Moves the server's clock.
pub struct TestClock {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) in_flight: Box<dyn Fn() -> usize + Send + Sync>,
}

impl TestClock {
    /// The server's time.
    pub fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// Moves the clock by so much, and stops at each due time on the way until everything that was due is done.
    pub async fn advance(&self, by: Duration) {
        let target = self.now().plus(by);
        loop {
            self.quiet().await;
            let now = self.now();
            if now >= target {
                return;
            }
            let next = self.next_due().await.filter(|due| *due < target).unwrap_or(target);
            self.store.clock().advance(next.since(now));
        }
    }

    /// Waits until nothing is due and nothing runs.
    pub async fn quiet(&self) {
        let started = Instant::now();
        let mut calm = 0;
        // Twice in a row: between a commit and the claim of what it made due lies a moment.
        while calm < 2 {
            let due = self.next_due().await;
            let (now, in_flight) = (self.now(), (self.in_flight)());
            let busy = in_flight > 0 || due.is_some_and(|due| due <= now);
            calm = if busy { 0 } else { calm + 1 };
            assert!(
                started.elapsed() < PATIENCE,
                "the server is not quiet after {PATIENCE:?}: {in_flight} in flight, next due {due:?}, now {now:?}"
            );
            sleep(POLL).await;
        }
    }

    async fn next_due(&self) -> Option<Timestamp> {
        self.store.next_due().await.expect("the store answers")
    }
}
