//! A database that was brought back from a copy: what it takes for pending may have been sent (DUR-10).

mod world;

use postrider_store::{
    Store as _,
    health::Health as _,
    hold::{Decision, Holding as _},
    messages::{Audience, Messages as _},
};
use postrider_store_postgres::{
    Config, PostgresStore,
    testing::{Cluster, Place},
};
use world::{application, claim, endpoint, message};

/// As `pg_dump` and `pg_restore` into a new database would: it lies elsewhere from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_brought_elsewhere_is_on_hold_until_somebody_decides() {
    let place = Place::new().await.unwrap();
    let store = place.open("one").await.unwrap();
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    let new = || message(&scope, Audience::Matching);
    store.accept(vec![new(), new(), new()]).await;
    assert_eq!(store.backlog().await.unwrap().pending, 3);
    store.close().await;

    // Opening it again in its place is nothing special.
    let store = place.open("one").await.unwrap();
    assert_eq!(store.held_since(), None);
    assert_eq!(claim(&store).await.len(), 3);
    drop(store);

    let (admin, connection) =
        tokio_postgres::connect(Cluster::shared().unwrap().url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let name = place.url().rsplit_once('/').unwrap().1.split('?').next().unwrap().to_owned();
    let copy = format!("{name}_copy");
    for _ in 0..100 {
        // Connections of the store that was dropped end within moments.
        if admin.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}")).await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut config = place.config("two");
    config.url = Some(place.url().replace(&name, &copy).into());
    let other = Config { data_dir: Some(place.folder.path().join("three")), ..config.clone() };
    let store = PostgresStore::open(config, place.keyring().unwrap()).await.unwrap();
    let other = PostgresStore::open(other, place.keyring().unwrap()).await.unwrap();
    assert!(store.held_since().is_some());
    assert_eq!(other.still_held_since().await.unwrap(), store.held_since());
    let hold = store.hold().await.unwrap().unwrap();
    assert_eq!((hold.deliveries, hold.overdue), (3, 3));
    assert!(hold.reason.contains("another place"), "{hold:?}");
    assert!(claim(&store).await.is_empty());
    store.accept(vec![new()]).await;
    assert_eq!(claim(&store).await.len(), 1, "what is new is delivered");
    let step = store.decide(Decision::Release, None, 100).await.unwrap();
    assert_eq!((step.moved, step.next), (3, None));
    assert!(other.held_since().is_some(), "that node has not been told");
    assert_eq!((other.still_held_since().await.unwrap(), other.held_since()), (None, None));
    assert_eq!(claim(&store).await.len(), 3);
    store.close().await;
    drop(store);
    let _ = admin.batch_execute(&format!("DROP DATABASE {copy} WITH (FORCE)")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_refused_while_another_node_is_at_work() {
    let place = Place::new().await.unwrap();
    let node = place.open("one").await.unwrap();
    let mut config = place.config("two");
    config.serves = false;
    let command = PostgresStore::open(config, place.keyring().unwrap()).await.unwrap();
    let refused = command.put_on_hold("a test", None, 10).await.unwrap_err().to_string();
    assert!(refused.contains("nodes are at work"), "{refused}");
    assert_eq!(command.hold().await.unwrap(), None, "nothing was begun");
    node.close().await;
    assert_eq!(command.put_on_hold("a test", None, 10).await.unwrap().moved, 0);
    assert!(command.hold().await.unwrap().is_some());
    command.close().await;
}
