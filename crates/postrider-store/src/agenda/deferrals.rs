//! Until when endpoints and applications are deferred: kept whether or not they have work, since their next message must
//! wait too.

use super::ids::IdMap;
use crate::deliveries::Deferred;
use postrider_model::{
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};
use std::collections::BTreeSet;

/// Deferrals that are kept, some 100 bytes each. Beyond it those that end first are forgotten: their deliveries are claimed,
/// and the claimer defers them again.
const KEPT: usize = 200_000;

/// An endpoint or an application, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Who {
    Endpoint(EndpointId),
    Application(ApplicationId),
}

impl From<Deferred> for Who {
    fn from(whose: Deferred) -> Self {
        match whose {
            Deferred::Endpoint(id) => Self::Endpoint(id),
            Deferred::Application(id) => Self::Application(id),
        }
    }
}

/// Who waits until when.
#[derive(Debug, Default)]
pub(super) struct Deferrals {
    until: IdMap<Who, Timestamp>,
    ends: BTreeSet<(Timestamp, Who)>,
}

impl Deferrals {
    /// Until when; it may have passed.
    pub(super) fn of(&self, who: Who) -> Option<Timestamp> {
        self.until.get(&who).copied()
    }

    /// Replaces what was said before; an instant that has passed takes it back. Returns who was forgotten to make room.
    pub(super) fn set(&mut self, who: Who, until: Timestamp, now: Timestamp) -> Option<Who> {
        self.forget_ended(now);
        if let Some(before) = self.until.remove(&who) {
            self.ends.remove(&(before, who));
        }
        if until <= now {
            return None;
        }
        self.until.insert(who, until);
        self.ends.insert((until, who));
        if self.until.len() <= KEPT {
            return None;
        }
        let (_, forgotten) = self.ends.pop_first()?;
        self.until.remove(&forgotten);
        Some(forgotten)
    }

    /// Takes all of them back.
    pub(super) fn take_all(&mut self) -> Vec<Who> {
        self.ends.clear();
        std::mem::take(&mut self.until).into_keys().collect()
    }

    /// Drops what has no effect any more.
    pub(super) fn forget_ended(&mut self, now: Timestamp) {
        while let Some((until, who)) = self.ends.first().copied()
            && until <= now
        {
            self.ends.pop_first();
            self.until.remove(&who);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.ends.len(), self.until.len());
        self.until.len()
    }
}
