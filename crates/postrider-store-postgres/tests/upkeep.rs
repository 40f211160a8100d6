//! What nodes do besides delivering: retention and upkeep for all, by one of them; the database's clock; being idle; a
//! commit whose answer was lost.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use postrider_model::{delivery::State, retry::NextStep, time::Timestamp};
use postrider_store::{
    Store as _,
    deliveries::{AttemptRecord, Deliveries as _, Recorded},
    health::Health as _,
    messages::{Audience, Messages as _},
    retention::{Cutoffs, Expired, Retention as _},
};
use postrider_store_postgres::{
    Config, PostgresStore,
    testing::{Cluster, Place},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};
use tokio_postgres::Client;
use world::{application, claim, endpoint, message, success};

const WEEK: i64 = 7 * 24 * 3600;
/// When ids begin to count.
const EPOCH: i64 = 1_400_000_000;
const SECOND: i64 = 1_000_000;

fn quick(place: &Place, node: &str) -> Config {
    Config { lease_seconds: 3, attempt_seconds: 1, ..place.config(node) }
}

async fn open(place: &Place, config: Config) -> Arc<PostgresStore> {
    PostgresStore::open(config, place.keyring().unwrap()).await.unwrap()
}

async fn count(client: &Client, text: &str) -> i64 {
    client.query_one(text, &[]).await.unwrap().get(0)
}

async fn within(what: &str, seconds: u64, client: &Client, text: &str, wanted: impl Fn(i64) -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        let found = count(client, text).await;
        if wanted(found) {
            return;
        }
        assert!(Instant::now() < until, "{what} within {seconds} s: {found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn weeks_ago(now: Timestamp, weeks: i64) -> Timestamp {
    Timestamp::from_micros(now.as_micros() - weeks * WEEK * SECOND)
}

/// CLM-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_does_retention_for_all_and_another_one_when_it_is_dead() {
    let place = Place::new().await.unwrap();
    let (one, two) = (open(&place, quick(&place, "one")).await, open(&place, quick(&place, "two")).await);
    let client = place.client().await.unwrap();
    let old = "INSERT INTO idempotency SELECT 'org_a', decode(md5(n::text), 'hex'), 1, '', 1 FROM generate_series(1, 3) AS n";
    let now = one.clock().now();
    let cutoffs = Cutoffs { messages: weeks_ago(now, 9), attempts: weeks_ago(now, 9) };
    for round in 0..2 {
        client.execute(old, &[]).await.unwrap();
        assert_eq!(one.expire(cutoffs, 100).await.unwrap().others, 3, "round {round}");
        client.execute(old, &[]).await.unwrap();
        assert_eq!(two.expire(cutoffs, 100).await.unwrap(), Expired::default(), "it is the other one's");
        one.expire(cutoffs, 100).await.unwrap();
    }
    client.execute(old, &[]).await.unwrap();
    drop(one);
    let until = Instant::now() + Duration::from_secs(10);
    while two.expire(cutoffs, 100).await.unwrap().others == 0 {
        assert!(Instant::now() < until, "a dead node keeps no duty");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // In order it is given back at once.
    let three = open(&place, quick(&place, "three")).await;
    two.close().await;
    client.execute(old, &[]).await.unwrap();
    assert_eq!(three.expire(cutoffs, 100).await.unwrap().others, 3);
    three.close().await;
}

/// A week of the history, so many ago, that is too large to go row by row. Returns its number.
async fn old_week(client: &Client, application: &[u8], ago: i64) -> i64 {
    let now = count(client, "SELECT extract(epoch FROM clock_timestamp())::bigint").await;
    let week = (now - EPOCH) / WEEK - ago;
    let (from, to) = (week * WEEK, (week + 1) * WEEK);
    for table in ["message", "delivery", "attempt"] {
        let make = format!(
            "CREATE TABLE {table}_w{week} PARTITION OF {table} FOR VALUES FROM ('\\x{from:08x}') TO ('\\x{to:08x}')"
        );
        client.batch_execute(&make).await.unwrap();
        // As if the server had made it.
        let owner = format!(
            "SELECT tableowner::text FROM pg_tables WHERE schemaname = 'postrider' AND tablename = '{table}'"
        );
        let owner: String = client.query_one(&owner, &[]).await.unwrap().get(0);
        client.batch_execute(&format!("ALTER TABLE {table}_w{week} OWNER TO {owner}")).await.unwrap();
    }
    let id = format!("decode('{:08x}' || md5(n::text), 'hex')", from + 1000);
    let fill = format!(
        "INSERT INTO message (id, application, event_type, payload_expires_at, created_at, payload)
         SELECT {id}, $1, 'a', 9000000000000000, {micros}, convert_to(repeat('x', 1000), 'utf8') FROM generate_series(1, 18000) AS n",
        micros = (from + EPOCH) * SECOND
    );
    client.execute(&fill, &[&application]).await.unwrap();
    let fill = format!(
        "INSERT INTO delivery SELECT {id}, '\\x01', 0, 1, 1, 0, 0, NULL FROM generate_series(1, 18000) AS n"
    );
    client.batch_execute(&fill).await.unwrap();
    let fill = format!(
        "INSERT INTO attempt (message, endpoint, id, generation, number, cause, url, started_at, duration, outcome, detail,
            truncated, expunged, body)
         SELECT {id}, '\\x01', {id}, 0, 1, 0, '', 0, 0, 0, '', false, false, convert_to(repeat('x', 1000), 'utf8')
         FROM generate_series(1, 18000) AS n"
    );
    client.batch_execute(&fill).await.unwrap();
    week
}

async fn weeks_of(client: &Client, table: &str) -> Vec<i64> {
    let text = format!(
        "SELECT substring(relname FROM '_w([0-9]+)$')::bigint FROM pg_class
         WHERE relkind = 'r' AND relname LIKE '{table}\\_w%' AND relnamespace = 'postrider'::regnamespace ORDER BY 1"
    );
    client.query(&text, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn expire_all(store: &PostgresStore, cutoffs: Cutoffs) {
    for _ in 0..50 {
        if !store.expire(cutoffs, 10_000).await.unwrap().more {
            return;
        }
    }
    panic!("retention does not come to an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_weeks_are_dropped_but_what_is_kept_longer_or_waits() {
    let place = Place::new().await.unwrap();
    let store = open(&place, place.config("node")).await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    let client = place.client().await.unwrap();
    let application = scope.application.ksuid().as_bytes().to_vec();
    let (waits, old, middle) = (
        old_week(&client, &application, 12).await,
        old_week(&client, &application, 10).await,
        old_week(&client, &application, 5).await,
    );
    let keep = format!(
        "INSERT INTO pending SELECT id, '\\x02', 0, application, 0, true, 1, 0, 0, 9000000000000000, 9000000000000000
         FROM message_w{waits} LIMIT 1"
    );
    client.batch_execute(&keep).await.unwrap();
    // Made later than its week's others: it goes with its message all the same.
    let late = format!(
        "INSERT INTO attempt SELECT message, endpoint, decode('{:08x}' || md5('late'), 'hex'), generation, 2, cause, url,
            started_at, duration, outcome, detail FROM attempt_w{old} LIMIT 1",
        (middle + 3) * WEEK + 5
    );
    let late = late.replace(
        "INSERT INTO attempt SELECT",
        "INSERT INTO attempt (message, endpoint, id, generation, number, cause, url, started_at, duration, outcome, detail, truncated, expunged) SELECT",
    )
    .replace("outcome, detail FROM", "outcome, detail, false, false FROM");
    client.batch_execute(&late).await.unwrap();
    let now = store.clock().now();
    let cutoffs = Cutoffs { messages: weeks_ago(now, 8), attempts: weeks_ago(now, 3) };

    // Somebody reads for long: nothing is dropped meanwhile, and nobody who publishes waits behind that.
    let reader = place.client().await.unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM attempt; SELECT count(*) FROM message").await.unwrap();
    let expiring = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.expire(cutoffs, 10_000).await.unwrap() }
    });
    let mut slowest = Duration::ZERO;
    while !expiring.is_finished() {
        let begun = Instant::now();
        assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
        slowest = slowest.max(begun.elapsed());
    }
    expiring.await.unwrap();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(weeks_of(&client, "attempt").await.contains(&old));
    reader.batch_execute("COMMIT").await.unwrap();

    expire_all(&store, cutoffs).await;
    let (attempts, messages) = (weeks_of(&client, "attempt").await, weeks_of(&client, "message").await);
    assert!(!attempts.contains(&old) && !attempts.contains(&middle), "{attempts:?}");
    assert!(!messages.contains(&old) && messages.contains(&middle), "{messages:?}");
    assert_eq!(weeks_of(&client, "delivery").await, messages);
    assert!(messages.contains(&waits) && attempts.contains(&waits), "something of it waits to be sent");
    assert_eq!(count(&client, &format!("SELECT count(*) FROM message_w{waits}")).await, 1);
    assert_eq!(count(&client, &format!("SELECT count(*) FROM message_w{middle}")).await, 18_000);
    assert_eq!(count(&client, "SELECT count(*) FROM attempt WHERE number = 2").await, 0);
    store.close().await;
}

/// DUR-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_clock_that_is_set_back_keeps_neither_retries_nor_a_dead_nodes_work() {
    let place = Place::new().await.unwrap();
    let (one, two) = (open(&place, quick(&place, "one")).await, open(&place, quick(&place, "two")).await);
    let client = place.client().await.unwrap();
    let both = "SELECT count(DISTINCT owner) FROM shard";
    within("the shards are shared", 10, &client, both, |owners| owners == 2).await;
    let scope = application(&one).await;
    for _ in 0..20 {
        endpoint(&one, &scope).await;
    }
    assert!(one.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    let mut failed = 0;
    let until = Instant::now() + Duration::from_secs(10);
    while failed < 20 && Instant::now() < until {
        for store in [&one, &two] {
            for claimed in claim(store).await {
                let next = NextStep::RetryAfter(Duration::from_mins(5));
                let record = AttemptRecord { next, ..success(store, &claimed) };
                let recorded = store.record(vec![record]).await.remove(0).unwrap();
                assert!(matches!(recorded, Recorded::Stored(State::Pending { .. })), "{recorded:?}");
                failed += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(failed, 20);
    let real = one.clock().now();
    for store in [&one, &two] {
        store.set_database_clock(-3600 * SECOND);
    }
    let early = "SELECT max(due_at) FROM pending";
    let latest = real.as_micros() - 3600 * SECOND + 310 * SECOND;
    within("their waits are five minutes again", 10, &client, early, |due| due <= latest).await;
    assert!(
        count(&client, "SELECT min(due_at) FROM pending").await
            > real.as_micros() - 3600 * SECOND + 290 * SECOND
    );
    assert_eq!(count(&client, "SELECT count(*) FROM node WHERE ended").await, 0, "nobody was ended by it");
    let behind = real.since(two.clock().now());
    assert!(behind > Duration::from_mins(59) && behind < Duration::from_hours(1), "{behind:?}");

    // A node that dies before its lease is renewed by the new time.
    client
        .batch_execute(&format!("UPDATE node SET lease_until = lease_until + {}", 7200 * SECOND))
        .await
        .unwrap();
    drop(one);
    within("its work is taken over", 10, &client, both, |owners| owners == 1).await;
    two.close().await;
}

/// DUR-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_clock_that_jumps_ahead_ends_no_node_that_lives() {
    let place = Place::new().await.unwrap();
    let (one, two) = (open(&place, quick(&place, "one")).await, open(&place, quick(&place, "two")).await);
    let client = place.client().await.unwrap();
    let both = "SELECT count(DISTINCT owner) FROM shard";
    within("the shards are shared", 10, &client, both, |owners| owners == 2).await;
    let scope = application(&one).await;
    endpoint(&one, &scope).await;
    // One sees the new time first: the other's lease seems to be long over.
    one.set_database_clock(3600 * SECOND);
    tokio::time::sleep(Duration::from_millis(700)).await;
    two.set_database_clock(3600 * SECOND);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(count(&client, "SELECT count(*) FROM node WHERE ended").await, 0);
    for store in [&one, &two] {
        assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_node_asks_the_database_less_than_once_a_second() {
    const SECONDS: u64 = 12;
    let place = Place::new().await.unwrap();
    let store = open(&place, place.config("node")).await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    // What the start did is counted late.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let client = place.client().await.unwrap();
    let commits =
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let before = count(&client, commits).await;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let asked = count(&client, commits).await - before;
    println!("{asked} transactions in {SECONDS} s");
    assert!(asked < i64::try_from(SECONDS).unwrap(), "{asked} transactions in {SECONDS} s");
    store.close().await;
}

/// Passes bytes on to a server; when it is armed, it swallows the answer to the next commit and cuts the way.
struct Cutter {
    url: String,
    armed: Arc<AtomicBool>,
}

impl Cutter {
    async fn start(server: &str, database: &str) -> Self {
        let (head, rest) = server.split_once('@').unwrap();
        let target = rest.split_once('/').unwrap().0.to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{database}?sslmode=disable", listener.local_addr().unwrap());
        let armed = Arc::new(AtomicBool::new(false));
        let cuts = Arc::clone(&armed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target.clone(), Arc::clone(&cuts)));
            }
        });
        Self { url, armed }
    }
}

async fn pass(mut client: tokio::net::TcpStream, target: String, armed: Arc<AtomicBool>) {
    #[expect(clippy::disallowed_methods, reason = "the database of this test")]
    let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                server.write_all(&up[..read]).await.unwrap();
                let commits = up[..read].windows(7).any(|bytes| bytes == b"COMMIT\0");
                if commits && armed.swap(false, Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A commit that happened is answered as one, though its connection ended before it said so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_looked_up() {
    let place = Place::new().await.unwrap();
    let Some(server) = Cluster::shared().unwrap().owner_tcp_url() else { return };
    let cutter = Cutter::start(&server, place.url().rsplit('/').next().unwrap()).await;
    let config = Config { url: Some(cutter.url.clone().into()), ..place.config("node") };
    let store = open(&place, config).await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    // What it is matched with has been read, and nothing else commits at that moment.
    assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    tokio::time::sleep(Duration::from_millis(500)).await;
    cutter.armed.store(true, Ordering::Relaxed);
    let results = store.accept(vec![message(&scope, Audience::Matching)]).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert!(!cutter.armed.load(Ordering::Relaxed), "the way was cut");
    let client = place.client().await.unwrap();
    assert_eq!(count(&client, "SELECT count(*) FROM message").await, 2);
    assert_eq!(claim(&store).await.len(), 2);
    cutter.armed.store(true, Ordering::Relaxed);
    let made = tokio::time::timeout(Duration::from_secs(10), application_of(&store)).await.unwrap();
    assert!(made, "a change of configuration too");
    assert_eq!(count(&client, "SELECT count(*) FROM application").await, 2);
    store.check_write().await.unwrap();
    store.close().await;
}

async fn application_of(store: &PostgresStore) -> bool {
    application(store).await;
    true
}
