//! The hold: deliveries that nobody claims until an operator decides, because an older database may have been brought back
//! and what it takes for pending may have been sent long ago (DUR-10).
//!
//! A delivery on hold is pending like any other, except that it is due [`LATER`] than it was: so it lies behind everything
//! that can be claimed, claims never meet it, and what it was due before is not lost. Nothing else marks it, so that a
//! kill in the middle of any of this leaves each delivery either on hold or not. What is published, resent or retried
//! while a hold lasts is delivered as usual.

use crate::error::StoreError;
use async_trait::async_trait;
use postrider_model::{id::EndpointId, time::Timestamp};
use std::time::Duration;

/// By how much the due time of a delivery on hold is later than it was, in microseconds: some 4,500 years, which no
/// schedule and no publisher's date reaches, and which leaves it below what an instant can be.
pub const LATER: i64 = 1 << 57;

/// The due time of a delivery on hold.
#[must_use]
pub fn put_on(due: Timestamp) -> Timestamp {
    if is_on(due) { due } else { Timestamp::from_micros(due.as_micros().saturating_add(LATER)) }
}

/// Is a delivery with this due time on hold?
pub fn is_on(due: Timestamp) -> bool {
    due.as_micros() >= LATER
}

/// When a delivery is due once it is taken off hold.
#[must_use]
pub fn taken_off(due: Timestamp) -> Timestamp {
    if is_on(due) { Timestamp::from_micros(due.as_micros() - LATER) } else { due }
}

/// A hold that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// Why, for the operator.
    pub reason: String,
    /// Deliveries on hold.
    pub deliveries: u64,
    /// Those of them that were due before the hold began: they may have been sent.
    pub overdue: u64,
    /// When the earliest of them was due.
    pub oldest_due: Option<Timestamp>,
}

/// What becomes of the deliveries on hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All are due when they were.
    Release,
    /// Those that were due before this are cancelled, the others are due when they were.
    Drop {
        /// Usually when the hold began.
        due_before: Timestamp,
    },
    /// Those that were due before `until` are spread over the time between `from` and it, evenly for each endpoint and in
    /// the order in which they were due; their deadlines move along. The others are due when they were.
    Retime {
        /// When the first of an endpoint is due.
        from: Timestamp,
        /// When the last of an endpoint is due at the latest.
        until: Timestamp,
    },
}

/// How far a decision, or a new hold, has been carried out: where to go on. Opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The endpoint that is worked at.
    pub endpoint: EndpointId,
    /// Its retries; first attempts come before.
    pub retries: bool,
    /// How many of this part of it were worked at.
    pub done: u64,
    /// Of how many; 0 while not counted.
    pub of: u64,
}

impl Place {
    /// The beginning of an endpoint's first attempts or retries.
    pub fn first(endpoint: EndpointId, retries: bool) -> Self {
        Self { endpoint, retries, done: 0, of: 0 }
    }
}

/// What a step of carrying out a decision did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Deliveries that are due again, now or later; for a new hold, those put on hold.
    pub moved: u64,
    /// Deliveries that were cancelled.
    pub cancelled: u64,
    /// Where to go on; `None` when everything is done.
    pub next: Option<Place>,
}

/// What becomes of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is cancelled.
    Cancelled,
    /// It is due then.
    Due {
        /// When.
        at: Timestamp,
        /// Its deadline.
        deadline: Timestamp,
    },
}

impl Decision {
    /// What becomes of the delivery that is the `place`th of `of` of its kind and endpoint and was `due`.
    pub fn fate(&self, due: Timestamp, deadline: Timestamp, place: u64, of: u64) -> Fate {
        match *self {
            Self::Drop { due_before } if due < due_before => Fate::Cancelled,
            Self::Retime { from, until } if due < until => {
                let at = due.max(spread(from, until, place, of));
                Fate::Due { at, deadline: deadline.plus(at.since(due)) }
            }
            _ => Fate::Due { at: due, deadline },
        }
    }
}

/// The `place`th of `of` points between two instants, evenly apart.
fn spread(from: Timestamp, until: Timestamp, place: u64, of: u64) -> Timestamp {
    let span = until.since(from).as_micros();
    let share = span.saturating_mul(u128::from(place)) / u128::from(of.max(1));
    from.plus(Duration::from_micros(u64::try_from(share.min(span)).unwrap_or(u64::MAX)))
}

/// The hold of a store.
#[async_trait]
pub trait Holding: Send + Sync + 'static {
    /// The hold that lasts; `None` when there is none. Counts, so not for every scrape.
    async fn hold(&self) -> Result<Option<Hold>, StoreError>;

    /// Since when a hold lasts, as far as this process knows; cheap and synchronous.
    fn held_since(&self) -> Option<Timestamp>;

    /// Since when a hold lasts; unlike [`held_since`](Self::held_since) it knows that another process ended it. Counts
    /// nothing, and asks the database only while this process knows of a hold.
    async fn still_held_since(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.held_since())
    }

    /// Puts up to `batch` of the deliveries that are pending on hold; to be called with [`Step::next`] until that is
    /// `None`. From the first call on a hold lasts. A result that comes in later of an attempt that was running counts.
    ///
    /// # Errors
    ///
    /// Where several nodes share the database, while another node lives: it may have in memory what is to be held.
    async fn put_on_hold(&self, reason: &str, place: Option<Place>, batch: usize)
    -> Result<Step, StoreError>;

    /// Carries a decision out for up to `batch` of the deliveries on hold; to be called with [`Step::next`] until that is
    /// `None`: then the hold has ended. What a kill left on hold is found by beginning anew.
    async fn decide(
        &self,
        decision: Decision,
        place: Option<Place>,
        batch: usize,
    ) -> Result<Step, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_due_time_survives_a_hold() {
        for micros in [0, 1, 1_795_000_000_123_456] {
            let held = put_on(at(micros));
            assert!(is_on(held) && !is_on(at(micros)));
            assert_eq!(put_on(held), held, "twice is once");
            assert_eq!(taken_off(held), at(micros));
            assert_eq!(taken_off(at(micros)), at(micros));
            assert!(held < Timestamp::MAX);
        }
    }

    #[test]
    fn fates_follow_the_decision() {
        let due = |at, deadline| Fate::Due { at, deadline };
        assert_eq!(Decision::Release.fate(at(5), at(50), 0, 1), due(at(5), at(50)));
        let before = Decision::Drop { due_before: at(10) };
        assert_eq!(before.fate(at(9), at(50), 0, 1), Fate::Cancelled);
        assert_eq!(before.fate(at(10), at(50), 0, 1), due(at(10), at(50)));
        let over = Decision::Retime { from: at(1000), until: at(2000) };
        assert_eq!(over.fate(at(9), at(50), 0, 4), due(at(1000), at(1041)));
        assert_eq!(over.fate(at(9), at(50), 3, 4), due(at(1750), at(1791)));
        assert_eq!(over.fate(at(1900), at(2500), 0, 4), due(at(1900), at(2500)), "not earlier than it was");
        assert_eq!(over.fate(at(3000), at(3500), 0, 4), due(at(3000), at(3500)));
    }

    #[test]
    fn what_is_spread_stays_within_its_time() {
        assert_eq!(spread(at(0), at(100), 9, 3), at(100));
        assert_eq!(spread(at(100), at(0), 1, 3), at(100), "no time to spread over");
        assert_eq!(spread(at(0), at(100), 1, 0), at(100));
    }
}
