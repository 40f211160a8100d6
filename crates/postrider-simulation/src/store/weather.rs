//! What happens to a store from outside: failures, delays, the death of its process; and who looks on.

use async_trait::async_trait;
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, Claimed, Lease, Recorded, Room},
};

/// A kind of call, as far as failures tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Changes nothing.
    Read,
    /// Changes configuration or history.
    Write,
    /// Accepts messages.
    Accept,
    /// Claims.
    Claim,
    /// Stores attempts.
    Record,
    /// Gives leases back.
    Release,
}

/// Something that a store did, for those who look on. Told under the store's lock: look, do not call.
#[derive(Debug)]
pub enum Deed<'a> {
    /// A claim was answered.
    Claimed {
        /// What there was room for.
        room: &'a Room,
        /// What was given.
        claimed: &'a Claimed,
        /// Leases that are out, these included.
        out: &'a [Lease],
    },
    /// An attempt may begin.
    Started {
        /// Of this lease.
        lease: &'a Lease,
        /// Its number.
        number: u32,
    },
    /// A lease was given back.
    Released {
        /// This one.
        lease: &'a Lease,
    },
    /// A record was looked at.
    Recorded {
        /// The record.
        record: &'a AttemptRecord,
        /// What it came to.
        result: Recorded,
    },
}

/// What happens to a store. Without a change of it, nothing does.
#[async_trait]
pub trait Weather: Send + Sync + 'static {
    /// Before a call does anything. An error is the call's answer: nothing was changed.
    async fn before(&self, _call: Call) -> Result<(), StoreError> {
        Ok(())
    }

    /// After a call did its work. An error is the call's answer: what was changed stays changed.
    async fn after(&self, _call: Call) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the process lives: a dead one does nothing more, not even synchronously.
    fn lives(&self) -> bool {
        true
    }

    /// The store did this.
    fn saw(&self, _deed: Deed<'_>) {}
}

/// Nothing happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calm;

impl Weather for Calm {}
