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

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::MessageId;
    use std::collections::BTreeSet;

    #[test]
    fn threads_get_different_ids_that_grow_for_each() {
        let ids = Ids::default();
        let now = Timestamp::from_micros(1_767_225_600_000_000);
        let all: Vec<Vec<MessageId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).map(|_| ids.next(now)).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|of_one| of_one.is_sorted()));
        assert_eq!(all.iter().flatten().collect::<BTreeSet<_>>().len(), 4000);
    }
}
