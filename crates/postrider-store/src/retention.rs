//! Retention: old records go, in small batches, and nothing that is pending is touched, except that what a disabled
//! endpoint holds beyond its deadline expires.

use crate::error::StoreError;
use async_trait::async_trait;
use postrider_model::time::Timestamp;

/// What is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoffs {
    /// Messages accepted before this go, with their deliveries and attempts, unless a delivery is pending.
    pub messages: Timestamp,
    /// Attempts made before this go, unless their delivery is pending.
    pub attempts: Timestamp,
}

/// What a batch deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Payloads past their own expiry.
    pub payloads: u64,
    /// Attempts.
    pub attempts: u64,
    /// Messages.
    pub messages: u64,
    /// Idempotency records past their lifetime, and signing secrets past their overlap.
    pub others: u64,
    /// More is waiting: call again.
    pub more: bool,
}

/// Retention.
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Deletes at most `batch` records of each kind. Costs next to nothing when there is nothing to delete.
    ///
    /// A payload past its own expiry stays while a delivery of its message is pending. Held deliveries (those of a
    /// disabled endpoint) past their deadline become `Failed(Expired)` here, counted in no field: nobody claims them, and
    /// else they would keep their message for ever.
    async fn expire(&self, cutoffs: Cutoffs, batch: usize) -> Result<Expired, StoreError>;
}
