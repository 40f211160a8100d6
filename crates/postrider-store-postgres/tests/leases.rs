//! What a lease on each delivery, written by a claim with `SKIP LOCKED`, would cost beside none (decision 0011); run by hand:
//! `cargo test -p postrider-store-postgres --test leases -- --ignored --nocapture`.
//!
//! The same statements end the deliveries in both; they are the store's in short: what waits is deleted, a delivery and an
//! attempt are written, in one commit a batch. With leases, a commit before that takes a batch of what is due.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use postrider_store_postgres::testing::Cluster;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_postgres::Client;

const ROWS: i64 = 60_000;
const BATCH: i64 = 100;
const ROUNDS: usize = 5;

const TABLES: &str = "
    DROP TABLE IF EXISTS pending, delivery, attempt;
    CREATE TABLE pending (message bytea, endpoint bytea, generation int, application bytea, shard smallint, retry boolean,
        attempts int, deaths int, cause smallint, due_at bigint, deadline_at bigint, owner bytea,
        PRIMARY KEY (message, endpoint, generation)) WITH (fillfactor = 80);
    CREATE TABLE delivery (message bytea, endpoint bytea, generation int, state smallint, attempts int,
        PRIMARY KEY (message, endpoint, generation));
    CREATE TABLE attempt (message bytea, endpoint bytea, id bytea, number int, url text, started_at bigint,
        PRIMARY KEY (message, endpoint, id));
    CREATE INDEX attempt_endpoint ON attempt (endpoint, id);";
/// As the store has it: a node finds its lanes.
const BY_LANE: &str = "CREATE INDEX pending_due ON pending (shard, endpoint, retry, due_at);
    CREATE INDEX pending_endpoint ON pending (endpoint, message);";
/// As claims over all endpoints need it: what is due, until a lease makes it due later.
const BY_TIME: &str = "CREATE INDEX pending_due ON pending (due_at); CREATE INDEX pending_endpoint ON pending (endpoint, message);";
const FILL: &str = "INSERT INTO pending SELECT decode(lpad(to_hex(n), 40, '0'), 'hex'), decode(lpad(to_hex(n % 100), 40, '0'), 'hex'), 0,
        decode(repeat('00', 20), 'hex'), (n % 64)::smallint, false, 0, 0, 0, n, 9000000000000000, NULL
    FROM generate_series(1, $1::bigint) AS n";
const CLAIM: &str = "UPDATE pending SET owner = $1, due_at = due_at + 35000000 WHERE (message, endpoint, generation) IN
        (SELECT message, endpoint, generation FROM pending WHERE due_at <= $2 ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
    RETURNING message, endpoint";
const END: &str = "WITH item AS (SELECT unnest($1::bytea[]) AS message, unnest($2::bytea[]) AS endpoint),
    gone AS (DELETE FROM pending USING item WHERE pending.message = item.message AND pending.endpoint = item.endpoint
        AND pending.generation = 0 RETURNING pending.message, pending.endpoint),
    ended AS (INSERT INTO delivery SELECT message, endpoint, 0, 1, 1 FROM gone)
    INSERT INTO attempt SELECT message, endpoint, message, 1, 'https://example.com/hook', 1 FROM gone";

async fn client(cluster: &Cluster) -> Client {
    let (client, connection) = tokio_postgres::connect(cluster.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Ends all deliveries over so many connections; returns how many a second.
async fn run(cluster: &Cluster, connections: usize, leases: bool) -> f64 {
    let setup = client(cluster).await;
    setup.batch_execute(TABLES).await.unwrap();
    setup.batch_execute(if leases { BY_TIME } else { BY_LANE }).await.unwrap();
    setup.execute(FILL, &[&ROWS]).await.unwrap();
    setup.batch_execute("VACUUM ANALYZE pending").await.unwrap();
    setup.batch_execute("CHECKPOINT").await.unwrap();
    let next = Arc::new(AtomicI64::new(1));
    let mut workers = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(client(cluster).await);
    }
    let begun = Instant::now();
    for client in clients {
        let next = Arc::clone(&next);
        workers.spawn(async move {
            if leases { claim_and_end(&client).await } else { end(&client, &next).await }
        });
    }
    let done: u64 = workers.join_all().await.into_iter().sum();
    let took = begun.elapsed();
    assert_eq!(i64::try_from(done).unwrap(), ROWS);
    f64::from(u32::try_from(done).unwrap()) / took.as_secs_f64()
}

async fn claim_and_end(client: &Client) -> u64 {
    let (claim, end) = (client.prepare(CLAIM).await.unwrap(), client.prepare(END).await.unwrap());
    let me: &[u8] = &[7; 16];
    let mut done = 0;
    loop {
        let rows = client.query(&claim, &[&me, &(ROWS + 1), &BATCH]).await.unwrap();
        if rows.is_empty() {
            return done;
        }
        let messages: Vec<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
        let endpoints: Vec<&[u8]> = rows.iter().map(|row| row.get(1)).collect();
        done += client.execute(&end, &[&messages, &endpoints]).await.unwrap();
    }
}

/// Who owns the endpoints knows what waits.
async fn end(client: &Client, next: &AtomicI64) -> u64 {
    let end = client.prepare(END).await.unwrap();
    let id = |number: i64| {
        let mut id = [0; 20];
        id[12..].copy_from_slice(&number.to_be_bytes());
        id
    };
    let mut done = 0;
    loop {
        let from = next.fetch_add(BATCH, Ordering::Relaxed);
        if from > ROWS {
            return done;
        }
        let messages: Vec<[u8; 20]> = (from..from + BATCH).map(id).collect();
        let endpoints: Vec<[u8; 20]> = (from..from + BATCH).map(|number| id(number % 100)).collect();
        let (messages, endpoints): (Vec<&[u8]>, Vec<&[u8]>) =
            (messages.iter().map(|id| &id[..]).collect(), endpoints.iter().map(|id| &id[..]).collect());
        done += client.execute(&end, &[&messages, &endpoints]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_lease_on_each_delivery_costs_so_much() {
    let cluster = Cluster::start(&["fsync=on", "max_wal_size=4GB"]).unwrap();
    for connections in [1, 4] {
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            // In turns, the first of a pair changing.
            let (mut with, mut without) = (0.0, 0.0);
            for leases in [round % 2 == 0, round % 2 == 1] {
                let rate = run(&cluster, connections, leases).await;
                *if leases { &mut with } else { &mut without } = rate;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            println!(
                "{connections} connections: {with:.0}/s with leases, {without:.0}/s without: {:.2}",
                with / without
            );
            ratios.push(with / without);
        }
        ratios.sort_by(f64::total_cmp);
        println!("{connections} connections: median {:.2}", ratios[ROUNDS / 2]);
        assert!(ratios[ROUNDS / 2] > 0.0);
    }
}
