//! Deliveries whose commit is under way or has just ended: whoever commits them hands them over.
//!
//! A reader of the database may find such a delivery first, and it may even be delivered before the hand-over comes,
//! which would then bring it again. Readers leave it to the hand-over.

use crate::Shared;
use postrider_model::{delivery::DeliveryId, time::Timestamp};
use postrider_store::agenda::Handed;
use std::{
    collections::HashSet,
    ops::Deref,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Those deliveries; as many as commits hold.
#[derive(Debug, Default)]
pub(crate) struct Coming(Mutex<HashSet<DeliveryId>>);

/// A commit of some deliveries, until they were handed over.
pub(crate) struct Committing<S: Deref<Target = Shared>> {
    shared: S,
    deliveries: Vec<DeliveryId>,
    /// When it began, in changes of configuration.
    changes: u64,
    handed_over: bool,
}

impl Coming {
    /// Those of now.
    pub(crate) fn deliveries(&self) -> MutexGuard<'_, HashSet<DeliveryId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Deref<Target = Shared>> Committing<S> {
    /// Before the commit is sent.
    pub(crate) fn begin(shared: S, deliveries: impl Iterator<Item = DeliveryId>) -> Self {
        let deliveries: Vec<DeliveryId> = deliveries.collect();
        shared.coming.deliveries().extend(deliveries.iter().copied());
        let changes = shared.memory.changes();
        Self { shared, deliveries, changes, handed_over: false }
    }

    /// One of them, which is committed, held or not by the configuration that could not change until the commit.
    pub(crate) fn hand_over(&self, handed: Handed, held: bool, now: Timestamp) {
        let application = handed.scope.application;
        self.shared.hand_over(handed, held, now);
        // Its endpoint may have been enabled between the commit and now, and is held again by this.
        if held && self.shared.memory.changed_since(application, self.changes) {
            self.shared.keeper.look_around();
        }
    }

    /// Everything that was written was handed over.
    pub(crate) fn handed_over(mut self) {
        self.handed_over = true;
    }
}

impl<S: Deref<Target = Shared>> Drop for Committing<S> {
    fn drop(&mut self) {
        let mut coming = self.shared.coming.deliveries();
        for delivery in &self.deliveries {
            coming.remove(delivery);
        }
        drop(coming);
        // Perhaps it was committed all the same: then the database has it, and readers may have passed it over.
        if !self.handed_over && !self.deliveries.is_empty() {
            self.shared.keeper.look_around();
        }
    }
}
