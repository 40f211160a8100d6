//! Where ids come from: the model's generator with this process's randomness.

use postrider_model::{
    id::{Id, Kind, KsuidGenerator},
    time::Timestamp,
};
use std::sync::{Mutex, PoisonError};

/// Makes ids that grow strictly within the process.
#[derive(Debug, Default)]
pub struct Ids {
    generator: Mutex<KsuidGenerator>,
}

impl Ids {
    /// The next id, for something that happens at `now`.
    pub fn next<K: Kind>(&self, now: Timestamp) -> Id<K> {
        let random = rand::random();
        Id::new(self.generator.lock().unwrap_or_else(PoisonError::into_inner).next(now, random))
    }
}
