//! How many messages a second go through accept, claim and record; run by hand:
//! `cargo test --release -p postrider-store-sqlite --test throughput -- --ignored --nocapture`.

mod place;

use place::{Place, claim, message, success, world};
use postrider_store::{deliveries::Deliveries as _, health::Health as _, messages::Messages as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

const PUBLISHERS: usize = 64;
const TIME: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for release builds"]
async fn messages_per_second_through_accept_claim_and_record() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let (accepted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let payload = bytes::Bytes::from(vec![b'x'; 1024]);
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let (store, stop, accepted) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&accepted));
            let (scope, payload) = (scope.clone(), payload.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    assert!(store.accept(vec![message(&scope, payload.clone())]).await[0].is_ok());
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut recorded: u64 = 0;
    let mut running = tokio::task::JoinSet::new();
    while begun.elapsed() < TIME {
        let claimed = claim(&*store, 256).await;
        if claimed.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(10), store.claimable().notified()).await;
        } else {
            let store = Arc::clone(&store);
            running.spawn(async move {
                for claimed in &claimed {
                    assert!(store.started(&claimed.lease, claimed.number, "https://example.com/hook"));
                }
                let records = claimed.iter().map(|claimed| success(&*store, claimed)).collect();
                store.record(records).await.len() as u64
            });
        }
        while let Some(done) = running.try_join_next() {
            recorded += done.unwrap_or(0);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let commits = store.commit_times();
    let rate = |count: u64| u32::try_from(count).map_or(0.0, f64::from) / seconds;
    let messages = u32::try_from(recorded).map_or(1.0, f64::from);
    for (name, micros) in processor_time() {
        println!("{name}: {:.2} µs a message", micros / messages);
    }
    println!(
        "accepted {:.0}/s, recorded {:.0}/s, {:.0} commits/s, {:.0} µs a commit",
        rate(accepted.load(Ordering::Relaxed)),
        rate(recorded),
        rate(commits.commits),
        commits.total.as_secs_f64() * 1e6 / u32::try_from(commits.commits).map_or(1.0, f64::from),
    );
    for publisher in publishers {
        assert!(publisher.await.is_ok());
    }
    assert!(recorded > 0);
}

/// Microseconds on a processor of the store's threads, from Linux.
fn processor_time() -> Vec<(String, f64)> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?.trim().to_owned();
        let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((name, times.split(' ').next()?.parse::<f64>().ok()? / 1000.0))
    });
    times.filter(|(name, _)| name.starts_with("store-")).collect()
}
