//! The contract's suite on SQLite.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use postrider_store::{Store, conformance::Harness, conformance_suite};
use postrider_store_sqlite::{Config, SqliteStore};
use postrider_vault::keyring::Keyring;
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;

struct Sqlite {
    store: Option<Arc<SqliteStore>>,
    folder: TempDir,
}

impl Sqlite {
    fn keyring(&self) -> PathBuf {
        self.folder.path().join("keyring.toml")
    }

    fn config(&self) -> Config {
        Config { data_dir: self.folder.path().join("data"), readers: 2, ..Config::default() }
    }
}

async fn open() -> Sqlite {
    let mut harness = Sqlite { store: None, folder: tempfile::tempdir().unwrap() };
    let keyring = Keyring::create(&harness.keyring()).unwrap();
    harness.store = Some(SqliteStore::open(harness.config(), keyring).unwrap());
    harness
}

#[async_trait::async_trait]
impl Harness for Sqlite {
    fn store(&self) -> Arc<dyn Store> {
        let store: Arc<SqliteStore> = Arc::clone(self.store.as_ref().unwrap());
        store
    }

    /// Dropping a store leaves what `kill -9` leaves: no orderly end, leases and begun attempts as they were.
    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        let then = store.clock().now();
        assert_eq!(Arc::strong_count(&store), 1, "nobody else holds the store");
        drop(store);
        let keyring = Keyring::load(&self.keyring()).unwrap();
        let store = SqliteStore::open(self.config(), keyring).unwrap();
        store.clock().advance(then.since(store.clock().now()));
        self.store = Some(store);
    }
}

conformance_suite!(open);
