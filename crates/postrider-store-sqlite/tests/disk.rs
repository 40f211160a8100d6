//! The disk: full, low, shared commits, a log that stays small, and nothing left behind by retention.

mod place;

use place::{Place, claim, message, publish, success, world};
use postrider_model::{application::Metadata, retry::NextStep};
use postrider_store::{
    Store as _, StoreError, WriteError,
    applications::{ApplicationFields, Applications as _},
    deliveries::{AttemptRecord, Deliveries as _, Recorded},
    health::Health as _,
    messages::Messages as _,
    retention::{Cutoffs, Retention as _},
};
use postrider_store_sqlite::{Config, SqliteStore};
use std::{sync::Arc, time::Duration};

/// DUR-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_publishing_and_pauses_deliveries_until_there_is_space() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    publish(&*store, &scope, 10).await.unwrap();
    store.limit_pages(Some(1)).await.unwrap();
    let mut refused = None;
    for _ in 0..1000 {
        if let Err(error) = publish(&*store, &scope, 50_000).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(WriteError::Store(StoreError::Full { .. }))), "{refused:?}");
    assert!(claim(&*store, 10).await.is_empty(), "what cannot be recorded must not be sent");
    let fields = ApplicationFields { metadata: Metadata::default(), ..ApplicationFields::default() };
    let refused = store.create_application(&scope.environment, fields, None).await;
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Full { .. }))), "{refused:?}");
    assert!(matches!(store.check_write().await, Err(StoreError::Full { .. })));
    assert!(
        store
            .application(&scope.environment, &postrider_model::application::Ref::Id(scope.application))
            .await
            .unwrap()
            .is_some()
    );

    store.limit_pages(None).await.unwrap();
    let recovered = async {
        while publish(&*store, &scope, 10).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.unwrap();
    assert!(!claim(&*store, 10).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_low_water_mark_publishing_is_refused_and_deliveries_go_on() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    publish(&*store, &scope, 10).await.unwrap();
    store.close().await;
    drop(store);
    let config = Config { low_water_bytes: u64::MAX, ..place.config() };
    let store = SqliteStore::open(config, place.keyring()).unwrap();
    let refused = publish(&*store, &scope, 10).await;
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Full { .. }))), "{refused:?}");
    let claimed = claim(&*store, 10).await;
    let recorded = store.record(vec![success(&*store, &claimed[0])]).await.remove(0).unwrap();
    assert!(matches!(recorded, Recorded::Stored(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_share_commits() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let before = store.commit_times();
    let calls = (0..500).map(|_| publish(&*store, &scope, 100));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    let after = store.commit_times();
    assert_eq!(after.operations - before.operations, 500);
    assert!(after.commits - before.commits < 250, "{} commits", after.commits - before.commits);
}

/// SQL-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_small_while_writing_never_pauses() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let log = place.config().data_dir.join("postrider.db-wal");
    let payload = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    let mut largest = 0;
    for _ in 0..60 {
        // 4 MiB at a time.
        let results = store.accept(vec![message(&scope, payload.clone()); 64]).await;
        assert!(results.iter().all(Result::is_ok));
        largest = largest.max(std::fs::metadata(&log).map_or(0, |about| about.len()));
    }
    assert!(largest < 160 * 1024 * 1024, "{largest} bytes");
}

/// RTN-4: whatever goes takes everything of its own along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_leaves_no_orphan_in_any_table() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    for _ in 0..30 {
        publish(&*store, &scope, 100).await.unwrap();
    }
    let records = claim(&*store, 20).await.iter().map(|claimed| success(&*store, claimed)).collect();
    assert!(store.record(records).await.iter().all(Result::is_ok));
    store.delete_application(&scope.environment, scope.application).await.unwrap();
    store.clock().advance(Duration::from_hours(60 * 24));
    let old = store.clock().now().minus(Duration::from_hours(24));
    while store.expire(Cutoffs { messages: old, attempts: old }, 7).await.unwrap().more {}
    store.expire(Cutoffs { messages: old, attempts: old }, 7).await.unwrap();
    let connection = place.connection();
    for table in
        ["message", "payload", "delivery", "attempt", "response", "endpoint", "application", "secret"]
    {
        let rows: i64 =
            connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

/// What waits is more than memory holds for an endpoint; all of it is worked off, in any order of claims and records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_larger_than_memory_is_worked_off_after_a_restart() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    for _ in 0..6 {
        let payload = bytes::Bytes::from_static(b"{}");
        assert!(store.accept(vec![message(&scope, payload); 200]).await.iter().all(Result::is_ok));
    }
    drop(store);
    let store = place.open();
    assert_eq!(store.backlog().await.unwrap().pending, 1200);
    let workers = (0..4).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut recorded = 0;
            while recorded < 10_000 {
                let claimed = claim(&*store, 37).await;
                if claimed.is_empty() {
                    if store.backlog().await.unwrap().pending == 0 {
                        break;
                    }
                    tokio::task::yield_now().await;
                    continue;
                }
                let records = claimed.iter().map(|claimed| success(&*store, claimed)).collect();
                for result in store.record(records).await {
                    assert!(matches!(result.unwrap(), Recorded::Stored(_)));
                    recorded += 1;
                }
            }
            recorded
        })
    });
    let recorded: usize = futures_util::future::join_all(workers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(recorded, 1200, "each once");
}

/// SQL-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_shrinks_after_everything_expired() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let payload = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    for _ in 0..10 {
        let results = store.accept(vec![message(&scope, payload.clone()); 64]).await;
        assert!(results.iter().all(Result::is_ok));
        let records: Vec<_> =
            claim(&*store, 64).await.iter().map(|claimed| success(&*store, claimed)).collect();
        assert_eq!(records.len(), 64);
        assert!(store.record(records).await.iter().all(Result::is_ok));
    }
    let size = || {
        place.connection().query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
        std::fs::metadata(place.database()).unwrap().len()
    };
    let full = size();
    assert!(full > 40 * 1024 * 1024, "{full}");
    store.clock().advance(Duration::from_hours(60 * 24));
    let old = store.clock().now().minus(Duration::from_hours(24));
    let mut calls = 0;
    while store.expire(Cutoffs { messages: old, attempts: old }, 100).await.unwrap().more {
        calls += 1;
        assert!(calls < 200, "there is an end to it");
    }
    // A checkpoint that somebody reads beside does not come to its end.
    let shrinks = async {
        while size() > 6 * 1024 * 1024 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shrinks).await.expect("the file shrinks");
    publish(&*store, &scope, 10).await.unwrap();
    store.close().await;
    assert!(std::fs::metadata(place.database()).unwrap().len() < 6 * 1024 * 1024);
}

/// A round of retention ends although each kind of record comes to its end at another call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_retention_over_what_must_stay_ends() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    // A look of this batch goes over 20 rows: three for payloads and messages, eight for attempts.
    for _ in 0..50 {
        publish(&*store, &scope, 10).await.unwrap();
    }
    for round in 1..=3_u32 {
        let records: Vec<_> = claim(&*store, 1000)
            .await
            .iter()
            .map(|claimed| {
                assert_eq!(claimed.number, round);
                AttemptRecord {
                    next: NextStep::RetryAfter(Duration::from_hours(1)),
                    ..success(&*store, claimed)
                }
            })
            .collect();
        assert_eq!(records.len(), 50);
        assert!(store.record(records).await.iter().all(Result::is_ok));
        store.clock().advance(Duration::from_hours(2));
    }
    let now = store.clock().now();
    let mut calls = 0;
    loop {
        let expired = store.expire(Cutoffs { messages: now, attempts: now }, 1).await.unwrap();
        calls += 1;
        assert_eq!((expired.messages, expired.attempts), (0, 0), "all are pending");
        if !expired.more {
            break;
        }
    }
    assert!(calls <= 9, "{calls} calls");
}
