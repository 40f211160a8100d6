//! Behind a pooler in transaction mode (PG-4): `PgBouncer` as Debian has it, which keeps no prepared statements. Skipped,
//! and said so, where it is not installed.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use postrider_model::delivery::State;
use postrider_store::{
    Store as _,
    deliveries::{Deliveries as _, Recorded},
    endpoints::Endpoints as _,
    health::Health as _,
    messages::{Audience, Messages as _},
};
use postrider_store_postgres::{
    Config, Pooler, PostgresStore,
    testing::{Cluster, Pgbouncer, Place},
};
use std::time::Duration;
use tokio::time::Instant;
use world::{application, claim, endpoint, fields, message, success};

/// A pooler before the cluster of this process.
fn pooler(pool_mode: &str) -> Option<Pgbouncer> {
    // As the owner of the databases, for whom there is a wall between environments.
    let tcp = Cluster::shared().unwrap().owner_tcp_url()?;
    let pooler = Pgbouncer::start(&tcp, pool_mode).unwrap();
    if pooler.is_none() {
        eprintln!("SKIPPED: pgbouncer is not installed (on Debian: apt-get install pgbouncer)");
    }
    pooler
}

fn through(pooler: &Pgbouncer, place: &Place, node: &str) -> Config {
    let config = place.config(node);
    let database = place.url().rsplit('/').next().unwrap();
    Config { url: Some(pooler.url(database).into()), lease_seconds: 3, attempt_seconds: 1, ..config }
}

async fn open(place: &Place, config: Config) -> std::sync::Arc<PostgresStore> {
    PostgresStore::open(config, place.keyring().unwrap()).await.unwrap()
}

async fn deliver_all(stores: &[&PostgresStore], wanted: usize) -> usize {
    let mut done = 0;
    let until = Instant::now() + Duration::from_secs(20);
    while done < wanted && Instant::now() < until {
        for store in stores {
            for claimed in claim(store).await {
                assert!(store.started(&claimed.lease, claimed.number, world::URL));
                let recorded = store.record(vec![success(store, &claimed)]).await.remove(0).unwrap();
                assert_eq!(recorded, Recorded::Stored(State::Delivered));
                done += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done
}

/// PG-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_a_pooler_in_transaction_mode_share_and_deliver() {
    let Some(pooler) = pooler("transaction") else { return };
    let place = Place::new().await.unwrap();
    // Nobody says that there is one.
    let one = open(&place, through(&pooler, &place, "one")).await;
    let two = open(&place, through(&pooler, &place, "two")).await;
    let scope = application(&one).await;
    let mut endpoints = Vec::new();
    for _ in 0..20 {
        endpoints.push(endpoint(&one, &scope).await);
    }
    for store in [&one, &two] {
        for _ in 0..5 {
            let results = store.accept(vec![message(&scope, Audience::Matching)]).await;
            assert!(results[0].is_ok(), "{results:?}");
        }
    }
    assert_eq!(deliver_all(&[&one, &two], 200).await, 200);
    one.check_write().await.unwrap();

    // What one changes the other knows by looking.
    let id = endpoints[0];
    let settings = async || two.send_settings(&scope, id).await.unwrap().unwrap();
    assert!(settings().await.endpoint.disabled.is_none());
    let reference = postrider_model::application::Ref::Id(id);
    let version = one.endpoint(&scope, &reference).await.unwrap().unwrap().version;
    one.replace_endpoint(&scope, id, version, fields(true)).await.unwrap();
    let begun = Instant::now();
    while settings().await.endpoint.disabled.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(2), "the other one looks twice a second");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    one.close().await;
    two.close().await;

    // Nothing was left in the sessions that others get.
    let (client, connection) =
        tokio_postgres::connect(&pooler.url(place.url().rsplit('/').next().unwrap()), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    for look in ["SHOW search_path", "SELECT count(*)::text FROM pg_prepared_statements"] {
        let answer = client.simple_query(look).await.unwrap();
        let value = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        let value = value.unwrap();
        assert!(value == "\"$user\", public" || value == "0", "{look}: {value}");
    }
}

/// PG-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_in_session_mode_everything_is_as_without() {
    let Some(pooler) = pooler("session") else { return };
    let place = Place::new().await.unwrap();
    let store = open(&place, through(&pooler, &place, "node")).await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    assert_eq!(deliver_all(&[&store], 1).await, 1);
    let client = place.client().await.unwrap();
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN postrider' AND datname = current_database()";
    let listens: i64 = client.query_one(listens, &[]).await.unwrap().get(0);
    assert_eq!(listens, 1, "it hears wake-ups");
    store.close().await;
}

/// The settings may say what there is: then nothing is tried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_called_a_pooler_is_treated_as_one() {
    let place = Place::new().await.unwrap();
    let store =
        open(&place, Config { pooler: Pooler::Transaction, poll_milliseconds: 50, ..place.config("node") })
            .await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    assert_eq!(deliver_all(&[&store], 1).await, 1);
    let client = place.client().await.unwrap();
    let listens =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    assert_eq!(client.query_one(listens, &[]).await.unwrap().get::<_, i64>(0), 0);
    store.close().await;
}
