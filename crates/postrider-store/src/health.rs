//! What an operator asks of a store.

use crate::error::StoreError;
use async_trait::async_trait;
use postrider_model::time::Timestamp;
use std::time::Duration;

/// How much work waits. Kept up to date as work comes and goes; reading it costs no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Pending deliveries, due or not, held ones included.
    pub pending: u64,
    /// When the earliest due delivery became due that could be claimed but is not: held ones, leased ones, and those
    /// behind an endpoint that has as many leases out as the last [`Room`](crate::deliveries::Room) allowed do not count.
    pub oldest_due: Option<Timestamp>,
}

/// Times of durable commits since the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CommitTimes {
    /// Commits.
    pub commits: u64,
    /// Operations that shared them.
    pub operations: u64,
    /// Time spent in commits.
    pub total: Duration,
    /// Commits by duration: upper bound in seconds, cumulative count, for a Prometheus histogram.
    pub buckets: Vec<(f64, u64)>,
}

/// What applications published inside of transactions of their own, on a store that has an outbox for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outbox {
    /// What has committed and waits for a node to route it, counted up to [`Outbox::COUNTED`].
    pub waiting: u64,
    /// When the one of them that waits longest was published; its transaction may have committed later.
    pub oldest: Option<Timestamp>,
    /// What waits for the operator, by reason: `on_hold` and `unroutable`; counted likewise.
    pub set_aside: Vec<(&'static str, u64)>,
    /// What this node has done since its start, by result: `routed`; `without_event_id`, those of them whose event id
    /// another message had; `application_deleted`, dropped for that; `set_aside`.
    pub handled: Vec<(&'static str, u64)>,
}

impl Outbox {
    /// Rows that are counted at most: every scrape counts them.
    pub const COUNTED: u64 = 100_000;
}

/// What an operator asks.
#[async_trait]
pub trait Health: Send + Sync + 'static {
    /// Proves that a write can be made durable now, by making one.
    async fn check_write(&self) -> Result<(), StoreError>;

    /// How much work waits.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// [`Backlog::pending`] as far as this process knows it, cheap and synchronous: publishing is refused beyond a limit.
    /// `None` when it is not known.
    fn pending(&self) -> Option<u64> {
        None
    }

    /// What waits in the outbox and what became of what did; `None` on a store that has none. Asks the database.
    async fn outbox(&self) -> Result<Option<Outbox>, StoreError> {
        Ok(None)
    }

    /// Commit times.
    fn commit_times(&self) -> CommitTimes;

    /// Returns, once nothing can be made durable any more until the process starts anew, why. A disk that failed to sync
    /// may have lost what it was given, and says so only once: going on would acknowledge what is not there.
    async fn broken(&self) -> String {
        std::future::pending().await
    }
}
