//! What opening a database means: what is refused, in which words, and several nodes at once.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use futures_util::future::join_all;
use postrider_store::{Store as _, health::Health as _};
use postrider_store_postgres::{
    Config, OpenError, PostgresStore,
    testing::{Cluster, Place},
};
use std::time::Duration;

fn with(place: &Place, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = place.config("node");
    change(&mut config);
    config
}

async fn refused(place: &Place, config: Config) -> OpenError {
    PostgresStore::open(config, place.keyring().unwrap()).await.err().expect("it is refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_forget_commits_is_refused_with_the_way_out() {
    let place = Place::new().await.unwrap();
    let error = refused(&place, with(&place, |config| config.dangerous_accept_data_loss = false)).await;
    let text = error.to_string();
    assert!(text.contains("fsync = off") && text.contains("dangerous_accept_data_loss"), "{text}");
    assert!(!error.is_temporary());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_safe_server_is_opened_without_a_word() {
    let cluster = Cluster::start(&["fsync=on"]).unwrap();
    let place = Place::new().await.unwrap();
    let config = with(&place, |config| {
        config.url = Some(cluster.url().to_owned().into());
        config.dangerous_accept_data_loss = false;
    });
    let store = PostgresStore::open(config, place.keyring().unwrap()).await.unwrap();
    store.check_write().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_reached_says_where_and_never_the_password() {
    let place = Place::new().await.unwrap();
    let Some(tcp) = Cluster::shared().unwrap().tcp_url() else { return };
    let password =
        tcp.split_once("postgres:").unwrap().1.split_once('@').unwrap().0.rsplit(':').next().unwrap();
    let host = tcp.split_once('@').unwrap().1;
    let of = |url: String| with(&place, |config| config.url = Some(url.into()));
    for (url, expected, temporary) in [
        (format!("postgres://postgres:geheim@{host}"), "check user and password", false),
        (format!("postgres://postgres:{password}@{host}x"), "create it first", false),
        ("postgres://postgres:geheim@127.0.0.1:1/db".to_owned(), "127.0.0.1:1/db", true),
        (format!("postgres://postgres:{password}@{host}?sslmode=verify-full"), "cannot reach", true),
        ("mysql://postgres:geheim@127.0.0.1/db".to_owned(), "postgres://user:password@host", false),
    ] {
        let error = refused(&place, of(url.clone())).await;
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected), "{url}: {text}");
        assert!(!text.contains("geheim") && !text.contains(password), "{text}");
        assert_eq!(error.is_temporary(), temporary, "{text}");
    }
    let config = of(format!("postgres://postgres:{password}@{host}?sslmode=prefer"));
    assert!(!format!("{config:?}").contains(password));
    PostgresStore::open(config, place.keyring().unwrap()).await.unwrap().close().await;
}

/// MIG-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_later_release_is_refused_with_what_to_do() {
    let place = Place::new().await.unwrap();
    let later = "INSERT INTO schema_version (version, oldest) VALUES (99, 99)";
    place.client().await.unwrap().batch_execute(later).await.unwrap();
    let error = refused(&place, place.config("node")).await;
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("start the release that wrote it"), "{error}");
    assert!(!error.is_temporary());
}

/// MIG-5: while nodes are replaced one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_to_which_the_next_release_has_only_added_is_worked_on() {
    let place = Place::new().await.unwrap();
    let runs = place.open("runs").await.unwrap();
    let client = place.client().await.unwrap();
    // What the next release does.
    client
        .batch_execute(
            "ALTER TABLE node ADD COLUMN later text; CREATE TABLE later (id bigint);
             INSERT INTO schema_version (version, oldest) SELECT max(version) + 1, max(version) FROM schema_version",
        )
        .await
        .unwrap();
    let starts = place.open("starts").await.unwrap();
    for store in [&runs, &starts] {
        let scope = world::application(store).await;
        world::endpoint(store, &scope).await;
        let message = world::message(&scope, postrider_store::messages::Audience::Matching);
        assert!(postrider_store::messages::Messages::accept(&**store, vec![message]).await[0].is_ok());
        store.close().await;
    }
}

/// MIG-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_that_start_on_an_empty_database_together_make_one_schema() {
    let place = Place::new().await.unwrap();
    place.client().await.unwrap().batch_execute("DROP SCHEMA postrider CASCADE").await.unwrap();
    let starts = (0..4).map(|node| place.open(["a", "b", "c", "d"][node]));
    let stores: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let client = place.client().await.unwrap();
    let row = client.query_one("SELECT count(*), max(version) FROM schema_version", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1), "each step once");
    for store in &stores {
        store.check_write().await.unwrap();
    }
    join_all(stores.iter().map(|store| store.close())).await;
}

/// MIG-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_migration_is_repaired_by_the_next_start() {
    let place = Place::new().await.unwrap();
    let client = place.client().await.unwrap();
    // The first step stops in its middle, at its first partition.
    client
        .batch_execute(
            "DROP SCHEMA postrider CASCADE;
             CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$
                BEGIN IF to_regclass('postrider.message_rest') IS NOT NULL THEN PERFORM pg_sleep(60); END IF; END $$;
             CREATE EVENT TRIGGER stop ON ddl_command_end EXECUTE FUNCTION public.stop()",
        )
        .await
        .unwrap();
    let (config, keyring) = (place.config("node"), place.keyring().unwrap());
    let opening = tokio::spawn(async move { PostgresStore::open(config, keyring).await.map(|_| ()) });
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()";
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while client.query(kill, &[]).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < until, "it migrates");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = opening.await.unwrap().unwrap_err();
    assert!(error.is_temporary(), "{error}");
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('postrider')";
    let row = client.query_one(left, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "nothing of it is left");
    client.batch_execute("DROP EVENT TRIGGER stop").await.unwrap();
    let store = place.open("node").await.unwrap();
    store.check_write().await.unwrap();
    store.close().await;
}

/// MIG-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_while_another_one_migrates() {
    let place = Place::new().await.unwrap();
    let client = place.client().await.unwrap();
    client.batch_execute("DROP SCHEMA postrider CASCADE").await.unwrap();
    let other = place.client().await.unwrap();
    other.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7300, 0)").await.unwrap();
    let (config, keyring) = (place.config("node"), place.keyring().unwrap());
    let opening = tokio::spawn(async move { PostgresStore::open(config, keyring).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!opening.is_finished());
    // It is killed, and the one that waits does it instead.
    drop(other);
    let store = tokio::time::timeout(Duration::from_secs(20), opening).await.unwrap().unwrap().unwrap();
    store.check_write().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_another_encoding_is_refused() {
    let place = Place::new().await.unwrap();
    let client = place.client().await.unwrap();
    let name = format!("latin_{}", std::process::id());
    let create =
        format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    client.batch_execute(&create).await.unwrap();
    let url = format!("{}/{name}", place.url().rsplit_once('/').unwrap().0);
    let error = refused(&place, with(&place, |config| config.url = Some(url.into()))).await;
    assert!(error.to_string().contains("ENCODING 'UTF8'"), "{error}");
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyring_of_another_database_is_refused_by_its_keys_names() {
    let place = Place::new().await.unwrap();
    let store = place.open("node").await.unwrap();
    let environment = postrider_model::environment::EnvironmentId::parse("org_a").unwrap();
    postrider_store::access::Access::ensure_environment(&*store, &environment).await.unwrap();
    store.close().await;
    let other = Place::new().await.unwrap();
    let error = PostgresStore::open(place.config("node"), other.keyring().unwrap()).await.err().unwrap();
    assert!(matches!(error, OpenError::Keyring { .. }), "{error}");
}

/// CLM-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_serves_one_process() {
    let place = Place::new().await.unwrap();
    let store = place.open("node").await.unwrap();
    let error = refused(&place, place.config("node")).await;
    assert!(error.to_string().contains("in use by another server"), "{error}");
    store.close().await;
    place.open("node").await.unwrap().close().await;
}
