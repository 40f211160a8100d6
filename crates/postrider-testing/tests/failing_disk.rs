//! The store on a disk that reports errors: what was answered stays, nothing is answered that may not be there, and a full
//! disk is waited for.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use postrider_model::{application::Ref, environment::EnvironmentId, event_type::EventTypeName};
use postrider_store::{
    Store as _, StoreError, WriteError,
    applications::{ApplicationFields, Applications as _},
    deliveries::{Deliveries as _, Room},
    endpoints::AppScope,
    health::Health as _,
    messages::{Accepted, Audience, Messages as _, NewMessage},
};
use postrider_store_sqlite::{Config, SqliteStore};
use postrider_testing::disk::{Disk, Operation, Trouble};
use postrider_vault::keyring::Keyring;
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

struct Place {
    folder: TempDir,
    data: TempDir,
    disk: Arc<Disk>,
}

impl Place {
    fn new() -> Self {
        let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Keyring::create(&folder.path().join("keyring.toml")).unwrap();
        let disk = Disk::new(data.path(), 1);
        Self { folder, data, disk }
    }

    fn open(&self, data: &Path) -> Arc<SqliteStore> {
        let keyring = Keyring::load(&self.folder.path().join("keyring.toml")).unwrap();
        let config = Config {
            data_dir: data.to_owned(),
            readers: 1,
            disk: Some(Disk::of_store()),
            ..Config::default()
        };
        SqliteStore::open(config, keyring).unwrap()
    }

    /// The power goes; opens what is left.
    fn after_cut(&self, seed: u64) -> (TempDir, Arc<Disk>, Arc<SqliteStore>) {
        let data = tempfile::tempdir().unwrap();
        let disk = self.disk.after_cut(data.path(), seed);
        let store = self.open(data.path());
        (data, disk, store)
    }
}

async fn application(store: &SqliteStore) -> AppScope {
    let environment = EnvironmentId::parse("org_a").unwrap();
    let fields = ApplicationFields { name: "an application".to_owned(), ..ApplicationFields::default() };
    let application = store.create_application(&environment, fields, None).await.unwrap().item.id;
    AppScope { environment, application }
}

async fn publish(store: &SqliteStore, scope: &AppScope, bytes: usize) -> Result<Accepted, WriteError> {
    let message = NewMessage {
        scope: scope.clone(),
        event_id: None,
        event_type: EventTypeName::parse("document.processed").unwrap(),
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload: Bytes::from(vec![b'x'; bytes]),
        payload_lifetime: None,
        deliver_at: None,
        audience: Audience::Matching,
        idempotency: None,
    };
    store.accept(vec![message]).await.remove(0)
}

fn unavailable(result: &Result<Accepted, WriteError>) -> bool {
    matches!(result, Err(WriteError::Store(StoreError::Unavailable { detail, .. })) if detail.contains("restarted"))
}

/// R-POWER: after a failed sync nobody knows what reached the disk, and a second one would not say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_acknowledged_or_synced_until_a_restart() {
    let place = Place::new();
    let store = place.open(place.data.path());
    let scope = application(&store).await;
    let kept = publish(&store, &scope, 100).await.unwrap().message.id;
    assert!(tokio::time::timeout(Duration::from_millis(50), store.broken()).await.is_err(), "all is well");

    place.disk.fail_after(Operation::Sync, 0, Trouble::Io);
    // Some wait in the queue while the sync fails.
    let calls = (0..50).map(|_| publish(&store, &scope, 100));
    for result in futures_util::future::join_all(calls).await {
        assert!(matches!(result, Err(WriteError::Store(StoreError::Unavailable { .. }))), "{result:?}");
    }
    assert!(unavailable(&publish(&store, &scope, 100).await));
    let detail = tokio::time::timeout(PATIENCE, store.broken()).await.expect("it is told");
    assert!(detail.contains("restarted"), "{detail}");
    let room = Room { total: 10, per_endpoint: 10, ..Room::default() };
    assert!(store.claim(&room).await.unwrap().deliveries.is_empty(), "what cannot be recorded is not sent");
    store.close().await;
    drop(store);
    assert_eq!((place.disk.failures(), place.disk.repeated_syncs()), (1, 0));

    for seed in 0..10 {
        let (_data, _disk, store) = place.after_cut(seed);
        assert!(store.message(&scope, &Ref::Id(kept)).await.unwrap().is_some());
        publish(&store, &scope, 100).await.unwrap();
    }
}

/// The database itself is synced by checkpoints only, beside the writer: their failure counts as much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_cannot_sync_ends_all_writing_too() {
    let place = Place::new();
    let store = place.open(place.data.path());
    let scope = application(&store).await;
    place.disk.fail_after(Operation::SyncDatabase, 0, Trouble::Io);
    let mut kept = Vec::new();
    for _ in 0..1000 {
        // More than the log may hold before it is copied.
        match publish(&store, &scope, 100_000).await {
            Ok(accepted) => kept.push(accepted.message.id),
            refused => {
                assert!(unavailable(&refused));
                break;
            }
        }
    }
    tokio::time::timeout(PATIENCE, store.broken()).await.expect("it is told");
    assert!(unavailable(&publish(&store, &scope, 100).await));
    store.close().await;
    drop(store);
    assert_eq!(place.disk.repeated_syncs(), 0);
    let (_data, _disk, store) = place.after_cut(3);
    for id in kept {
        let found = store.message(&scope, &Ref::Id(id)).await.unwrap();
        assert_eq!(found.unwrap().payload.map(|payload| payload.len()), Some(100_000));
    }
}

/// DUR-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_for_and_loses_nothing() {
    let place = Place::new();
    let store = place.open(place.data.path());
    let scope = application(&store).await;
    let mut kept = vec![publish(&store, &scope, 100).await.unwrap().message.id];
    for after in [0, 3, 10] {
        place.disk.fail_after(Operation::Write, after, Trouble::Full);
        let refused = loop {
            match publish(&store, &scope, 5000).await {
                Ok(accepted) => kept.push(accepted.message.id),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, WriteError::Store(StoreError::Full { .. })), "{refused:?}");
        place.disk.heal();
        let recovers = async {
            loop {
                match publish(&store, &scope, 100).await {
                    Ok(accepted) => break accepted.message.id,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        kept.push(tokio::time::timeout(PATIENCE, recovers).await.expect("without a restart"));
    }
    drop(store);
    let (_data, _disk, store) = place.after_cut(5);
    for id in kept {
        assert!(store.message(&scope, &Ref::Id(id)).await.unwrap().is_some());
    }
}
