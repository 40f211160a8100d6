//! Asking the node that serves an endpoint how it treats it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use postrider_store::{
    Store as _,
    neighbours::{ANSWER_BYTES, Neighbours as _},
};
use postrider_store_postgres::{Config, PostgresStore, testing::Place};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use world::{application, endpoint};

async fn open(place: &Place, name: &str, change: impl FnOnce(&mut Config)) -> Arc<PostgresStore> {
    let mut config = place.config(name);
    change(&mut config);
    let store = PostgresStore::open(config, place.keyring().unwrap()).await.unwrap();
    store.tell_with(Arc::new({
        let name = name.to_owned();
        move |endpoint| Some(format!("{name}/{endpoint}"))
    }));
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_serves_an_endpoint_answers_for_it_as_long_as_it_does() {
    let place = Place::new().await.unwrap();
    let serving = open(&place, "serving", |_| {}).await;
    // As a node with the role `api` alone.
    let asking = open(&place, "asking", |config| config.serves = false).await;
    let scope = application(&serving).await;
    let id = endpoint(&serving, &scope).await;
    assert!(serving.serves(id) && !asking.serves(id));
    let begun = Instant::now();
    while asking.ask(id).await.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "they hear each other");
    }
    assert_eq!(asking.ask(id).await, Some(format!("serving/{id}")));
    // Many at once are answered together.
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let asking = Arc::clone(&asking);
        asked.spawn(async move { asking.ask(id).await });
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap(), Some(format!("serving/{id}")));
    }
    serving.close().await;
    let begun = Instant::now();
    assert_eq!(asking.ask(id).await, None, "nobody serves it now");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    asking.close().await;
}

/// What cannot be carried is not said, and where nothing can be heard nobody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_told_is_not_waited_for_longer_than_a_moment() {
    let place = Place::new().await.unwrap();
    let store = PostgresStore::open(place.config("serving"), place.keyring().unwrap()).await.unwrap();
    store.tell_with(Arc::new(|_| Some("x".repeat(ANSWER_BYTES + 1))));
    let asking = open(&place, "asking", |config| config.serves = false).await;
    let deaf = open(&place, "deaf", |config| (config.serves, config.listen) = (false, false)).await;
    let scope = application(&store).await;
    let id = endpoint(&store, &scope).await;
    let begun = Instant::now();
    assert_eq!(deaf.ask(id).await, None);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(asking.ask(id).await, None);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    for store in [store, asking, deaf] {
        store.close().await;
    }
}
