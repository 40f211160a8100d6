//! The storage contract: what a backend must do, in operations and batches; never a table, row or transaction.
//!
//! The cast:
//! - one small trait per noun ([`applications`], [`endpoints`], [`event_types`], [`messages`], [`deliveries`],
//!   [`attempts`], [`access`]), [`retention`], [`health`], [`hold`] and [`backup`]; [`Store`] is all of
//!   them;
//! - [`neighbours`]: what a process asks of others that share its database;
//! - [`Clock`] and [`Ids`], which every backend owns: the time that leases and schedules go by, and ids that grow;
//! - [`snapshot`]: the bounded memory of endpoint configuration that backends match and send with;
//! - [`agenda`] and [`set_back`]: what backends decide in memory alike: what is claimed next, what is due again after a clock was set back;
//! - [`transfer`]: moving a whole database from one backend to another, apart from the contract;
//! - `conformance` (a feature, for the tests of backends): the suite that every backend passes.
//!
//! Guarantees that callers build on: an `Ok` of a write means durable; one item's failure fails only its caller; every
//! call is scoped, and what belongs to another environment or application does not exist for it.

pub mod access;
pub mod agenda;
pub mod applications;
pub mod attempts;
pub mod backup;
pub mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod deliveries;
pub mod endpoints;
pub mod error;
pub mod event_types;
pub mod health;
pub mod hold;
pub mod idempotency;
pub mod ids;
pub mod messages;
pub mod neighbours;
pub mod page;
pub mod retention;
pub mod set_back;
pub mod snapshot;
pub mod transfer;

pub use clock::Clock;
pub use error::{StoreError, WriteError};
pub use ids::Ids;

/// A backend: everything that outlives the process goes through here.
#[async_trait::async_trait]
pub trait Store:
    access::Access
    + applications::Applications
    + endpoints::Endpoints
    + event_types::EventTypes
    + messages::Messages
    + deliveries::Deliveries
    + attempts::Attempts
    + retention::Retention
    + health::Health
    + hold::Holding
    + backup::Backups
    + neighbours::Neighbours
{
    /// The clock that schedules and leases go by.
    fn clock(&self) -> &Clock;

    /// The source of ids.
    fn ids(&self) -> &Ids;

    /// Finishes what was begun, checkpoints and closes. Calls after this answer [`StoreError::Unavailable`].
    async fn close(&self);
}
