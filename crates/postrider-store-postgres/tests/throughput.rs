//! How many messages a second go through accept, claim and record; run by hand:
//! `cargo test --release -p postrider-store-postgres --test throughput -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use bytes::Bytes;
use postrider_store::{
    Store as _, deliveries::Deliveries as _, health::Health as _, messages::Messages as _,
};
use postrider_store_postgres::{
    Config, PostgresStore,
    testing::{Cluster, Place},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use world::{application, claim, endpoint, message_of, success};

const PUBLISHERS: usize = 64;
const TIME: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for release builds"]
async fn messages_per_second_through_accept_claim_and_record() {
    // On a server that syncs: POSTRIDER_TEST_DATABASE_URL names one with other settings.
    let cluster = Cluster::start(&["fsync=on"]).unwrap();
    let place = Place::new().await.unwrap();
    let url = Some(cluster.url().to_owned().into());
    let config = Config { url, dangerous_accept_data_loss: false, ..place.config("node") };
    let store = PostgresStore::open(config, place.keyring().unwrap()).await.unwrap();
    for endpoints in [1, 10] {
        let scope = application(&store).await;
        for _ in 0..endpoints {
            endpoint(&store, &scope).await;
        }
        measure(&store, &scope, endpoints).await;
    }
    store.close().await;
}

async fn measure(store: &Arc<PostgresStore>, scope: &postrider_store::endpoints::AppScope, endpoints: usize) {
    let (accepted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let payload = Bytes::from(vec![b'x'; 1024]);
    let before = store.commit_times();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (store, stop, accepted) = (Arc::clone(store), Arc::clone(&stop), Arc::clone(&accepted));
            let (scope, payload) = (scope.clone(), payload.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let results = store.accept(vec![message_of(&scope, payload.clone())]).await;
                    assert!(results[0].is_ok(), "{results:?}");
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut recorded: u64 = 0;
    let mut running = tokio::task::JoinSet::new();
    while begun.elapsed() < TIME {
        let claimed = claim(store).await;
        if claimed.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(10), store.claimable().notified()).await;
        }
        // As an engine does it: each attempt ends for itself.
        for chunk in claimed.chunks(16) {
            let (store, claimed) = (Arc::clone(store), chunk.to_vec());
            running.spawn(async move {
                for claimed in &claimed {
                    assert!(store.started(&claimed.lease, claimed.number, "https://example.com/hook"));
                }
                let records = claimed.iter().map(|claimed| success(&store, claimed)).collect();
                let results = store.record(records).await;
                assert!(results.iter().all(Result::is_ok), "{results:?}");
                results.len() as u64
            });
        }
        while let Some(done) = running.try_join_next() {
            recorded += done.unwrap_or(0);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let commits = store.commit_times();
    let rate = |count: u64| u32::try_from(count).map_or(0.0, f64::from) / seconds;
    println!(
        "{endpoints} endpoints: accepted {:.0}/s, recorded {:.0}/s, {:.0} commits/s, {:.0} µs a commit, {} pending",
        rate(accepted.load(Ordering::Relaxed)),
        rate(recorded),
        rate(commits.commits - before.commits),
        commits.total.saturating_sub(before.total).as_secs_f64() * 1e6
            / u32::try_from(commits.commits - before.commits).map_or(1.0, f64::from),
        store.backlog().await.unwrap().pending,
    );
    for publisher in publishers {
        publisher.await.unwrap();
    }
    assert!(recorded > 0);
}
