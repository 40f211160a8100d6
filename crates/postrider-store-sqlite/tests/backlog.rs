//! A million pending deliveries: how long a start takes, what they keep in memory, how fast they are claimed; run by hand:
//! `cargo test --release -p postrider-store-sqlite --test backlog -- --ignored --nocapture --exact a_million_pending_deliveries`.

mod place;

use place::{Place, endpoint, message, success, world};
use postrider_model::headers::CustomHeaders;
use postrider_store::{
    Store as _, deliveries::Deliveries as _, health::Health as _, messages::Messages as _,
};
use postrider_store_sqlite::{Config, SqliteStore};
use postrider_vault::keyring::Keyring;
use std::{fs, path::Path, process::Command, time::Duration};
use tokio::time::Instant;

const APPLICATIONS: usize = 4;
const ENDPOINTS: usize = 250;
const MESSAGES: usize = 1000;
const PAYLOAD: usize = 1024;
/// Claimed at a time, and in all.
const CLAIM: usize = 256;
const CLAIMED: usize = 50_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for release builds"]
async fn a_million_pending_deliveries() {
    let place = Place::new();
    let begun = Instant::now();
    fill(&place).await;
    println!("accepted in {:.1} s", begun.elapsed().as_secs_f64());
    // In a process of its own: what accepting left in the allocator does not count.
    let tests = std::env::current_exe().expect("this program");
    let status = Command::new(tests)
        .args(["--ignored", "--nocapture", "--exact", "its_start"])
        .current_dir(place.folder())
        .status()
        .expect("it runs");
    assert!(status.success());
}

async fn fill(place: &Place) {
    let store = place.open();
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD]);
    let mut scopes = Vec::new();
    for _ in 0..APPLICATIONS {
        let scope = world(&*store).await;
        for _ in 1..ENDPOINTS {
            endpoint(&*store, &scope, CustomHeaders::default()).await;
        }
        scopes.push(scope);
    }
    for _ in 0..MESSAGES {
        let messages = scopes.iter().map(|scope| message(scope, payload.clone())).collect();
        assert!(store.accept(messages).await.iter().all(Result::is_ok));
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other one, in a folder with a database"]
async fn its_start() {
    if !Path::new("data").exists() {
        return;
    }
    let keyring = Keyring::load(Path::new("keyring.toml")).expect("the key of the database");
    let config = Config { data_dir: "data".into(), ..Config::default() };
    let before = memory("VmRSS");
    let begun = Instant::now();
    let store = SqliteStore::open(config, keyring).expect("it opens");
    println!("started in {} ms, {} MiB more", begun.elapsed().as_millis(), memory("VmRSS") - before);
    assert_eq!(store.backlog().await.expect("it is known").pending, 1_000_000);
    let begun = Instant::now();
    let (mut claimed, mut longest) = (0, Duration::ZERO);
    while claimed < CLAIMED {
        let asked = Instant::now();
        let found = place::claim(&*store, CLAIM).await;
        longest = longest.max(asked.elapsed());
        claimed += found.len();
        let records = found.iter().map(|found| success(&*store, found)).collect();
        assert!(store.record(records).await.iter().all(Result::is_ok));
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{claimed} worked off in {seconds:.1} s, the longest claim {} ms, {} MiB now, {} MiB at most",
        longest.as_millis(),
        memory("VmRSS"),
        memory("VmHWM"),
    );
    store.close().await;
}

/// MiB, as the system counts them.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
