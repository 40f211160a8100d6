//! The contract's suite on PostgreSQL, each behaviour on a database of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use postrider_store::{Store, conformance::Harness, conformance_suite};
use postrider_store_postgres::{PostgresStore, testing::Place};
use std::sync::Arc;

struct Postgres {
    store: Option<Arc<PostgresStore>>,
    place: Place,
}

async fn open() -> Postgres {
    let place = Place::new().await.unwrap();
    let store = Some(place.open("node").await.unwrap());
    Postgres { store, place }
}

#[async_trait::async_trait]
impl Harness for Postgres {
    fn store(&self) -> Arc<dyn Store> {
        let store: Arc<PostgresStore> = Arc::clone(self.store.as_ref().unwrap());
        store
    }

    /// Dropping a store leaves what `kill -9` a few milliseconds later leaves: leases and begun attempts as they were.
    /// The next start finds the data directory unlocked, and so need not wait for the lease of the one before.
    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        let then = store.clock().now();
        assert_eq!(Arc::strong_count(&store), 1, "nobody else holds the store");
        store.notes_written().await;
        drop(store);
        let store = self.place.open("node").await.unwrap();
        store.clock().advance(then.since(store.clock().now()));
        self.store = Some(store);
    }
}

conformance_suite!(open);
