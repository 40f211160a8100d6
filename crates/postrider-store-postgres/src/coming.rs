//! Messages whose commit is under way or has just ended: their deliveries are handed over by whoever commits them.
//!
//! A reader of the database may find such a delivery first, and it may even be delivered before the hand-over comes,
//! which would then bring it again. Readers leave it to the hand-over.

use crate::Shared;
use postrider_model::id::MessageId;
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Those messages; as many as commits hold.
#[derive(Debug, Default)]
pub(crate) struct Coming(Mutex<HashSet<MessageId>>);

/// A commit of some messages, until what it wrote was handed over.
pub(crate) struct Committing<'a> {
    shared: &'a Shared,
    messages: Vec<MessageId>,
    handed_over: bool,
}

impl Coming {
    /// The messages of now.
    pub(crate) fn messages(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Committing<'a> {
    /// Before the commit is sent.
    pub(crate) fn begin(shared: &'a Shared, messages: impl Iterator<Item = MessageId>) -> Self {
        let messages: Vec<MessageId> = messages.collect();
        shared.coming.messages().extend(messages.iter().copied());
        Self { shared, messages, handed_over: false }
    }

    /// Everything that was written was handed over.
    pub(crate) fn handed_over(mut self) {
        self.handed_over = true;
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        let mut coming = self.shared.coming.messages();
        for message in &self.messages {
            coming.remove(message);
        }
        drop(coming);
        // Perhaps it was committed all the same: then the database has it, and readers may have passed it over.
        if !self.handed_over && !self.messages.is_empty() {
            self.shared.keeper.look_around();
        }
    }
}
