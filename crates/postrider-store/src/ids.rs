//! Where ids come from: the model's generator with this process's randomness.

use postrider_model::{
    id::{Id, Kind, KsuidGenerator},
    time::Timestamp,
};
use std::sync::{Mutex, PoisonError};

/// Makes ids that grow strictly within the process.
#[derive(Default)]
pub struct Ids {
    generator: Mutex<KsuidGenerator>,
    random: Option<Random>,
}

/// The 15 random bytes of an id.
type Random = Box<dyn Fn() -> [u8; 15] + Send + Sync>;

impl std::fmt::Debug for Ids {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ids").field("generator", &self.generator).finish_non_exhaustive()
    }
}

impl Ids {
    /// With randomness of the caller's choice; for simulations.
    pub fn with_random(random: impl Fn() -> [u8; 15] + Send + Sync + 'static) -> Self {
        Self { generator: Mutex::default(), random: Some(Box::new(random)) }
    }

    /// The next id, for something that happens at `now`.
    pub fn next<K: Kind>(&self, now: Timestamp) -> Id<K> {
        let random = self.random.as_ref().map_or_else(rand::random, |random| random());
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
