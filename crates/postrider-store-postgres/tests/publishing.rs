//! Publishing inside of an application's own transaction: `postrider.publish`, and the nodes that route what it leaves.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "publishing/checks.rs"]
mod checks;
#[path = "publishing/documented.rs"]
mod documented;
#[path = "publishing/event_ids.rs"]
mod event_ids;
#[path = "publishing/publisher.rs"]
mod publisher;
#[path = "publishing/rights.rs"]
mod rights;
mod world;

use postrider_model::{
    application::{Ref, Uid},
    id::MessageId,
    message::MessageWithPayload,
};
use postrider_store::{
    Store as _,
    applications::Applications as _,
    deliveries::Deliveries as _,
    endpoints::AppScope,
    health::Health as _,
    hold::Holding as _,
    messages::{Audience, MessageFilter, Messages as _},
    page::{Order, PageRequest},
};
use postrider_store_postgres::{Config, PostgresStore, testing::Place};
use publisher::{Publisher, within};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;
use world::{application, claim, endpoint, message, success};

/// A node, an application with an endpoint, and somebody who publishes to it.
async fn begin(place: &Place) -> (Arc<PostgresStore>, AppScope, Publisher) {
    let store = place.open("node").await.unwrap();
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    let publisher = Publisher::new(place, &scope).await;
    (store, scope, publisher)
}

async fn routed(store: &PostgresStore, scope: &AppScope, id: &str) -> MessageWithPayload {
    let id = MessageId::parse(id).unwrap();
    within("the message is routed", 10, || async { store.message(scope, &Ref::Id(id)).await.unwrap() }).await
}

async fn all_ids(store: &PostgresStore, scope: &AppScope) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = None;
    loop {
        let page = PageRequest { limit: 250, order: Order::Ascending, cursor, backward: false };
        let page = store.messages(scope, MessageFilter::default(), false, page).await.unwrap();
        ids.extend(page.items.iter().map(|item| item.message.id.to_string()));
        cursor = page.items.last().map(|item| item.message.id);
        if page.done || cursor.is_none() {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_exists_if_and_only_if_its_transaction_committed() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let payload = r#"{ "b":1e400, "a" : 12345678901234567890.10,"a":"\ud800\/é" ,"n":{"x":[ ]}}"#;

    let transaction = publisher.client.transaction().await.unwrap();
    let undone = Publisher::publish(&transaction, &scope, payload).await.unwrap();
    transaction.rollback().await.unwrap();

    let mut transaction = publisher.client.transaction().await.unwrap();
    let savepoint = transaction.savepoint("one").await.unwrap();
    let taken_back = Publisher::publish(&savepoint, &scope, payload).await.unwrap();
    savepoint.rollback().await.unwrap();
    let done = Publisher::publish(&transaction, &scope, payload).await.unwrap();
    let open = MessageId::parse(&done).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(store.message(&scope, &Ref::Id(open)).await.unwrap(), None, "not before it committed");
    transaction.commit().await.unwrap();

    let message = routed(&store, &scope, &done).await;
    assert_eq!(message.payload.as_deref(), Some(payload.as_bytes()), "byte for byte");
    assert_eq!(message.message.created_at.as_micros() / 4000, open.timestamp().as_micros() / 4000);
    let claimed = within("it is claimed", 5, || async { claim(&store).await.pop() }).await;
    assert_eq!(claimed.lease.delivery.message, open);
    assert_eq!(&claimed.payload[..], payload.as_bytes());
    store.record(vec![success(&store, &claimed)]).await.remove(0).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(all_ids(&store, &scope).await, [done]);
    for id in [undone, taken_back] {
        let id = MessageId::parse(&id).unwrap();
        assert_eq!(store.message(&scope, &Ref::Id(id)).await.unwrap(), None);
    }
    assert!(claim(&store).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_message_can_have_is_kept() {
    let place = Place::new().await.unwrap();
    let (store, scope, publisher) = begin(&place).await;
    let id: String = publisher
        .one(
            "SELECT postrider.publish($1, 'a.b', '{\"x\": 1}'::jsonb, event_id => 'order-1',
                channels => ARRAY['us', 'eu:1', 'us'], tags => ARRAY['x/y'], payload_retention_hours => 2,
                deliver_at => now() + interval '1 hour')",
            &[&scope.application.to_string()],
        )
        .await
        .unwrap();
    let found = routed(&store, &scope, &id).await;
    let message = found.message;
    assert_eq!(found.payload.as_deref(), Some(&br#"{"x": 1}"#[..]), "as PostgreSQL writes jsonb");
    assert_eq!(message.event_id.as_ref().map(Uid::as_str), Some("order-1"));
    let channels: Vec<_> = message.channels.iter().map(postrider_model::message::Channel::as_str).collect();
    assert_eq!((channels, message.tags.len()), (vec!["eu:1", "us"], 1));
    assert_eq!(message.payload_expires_at, message.created_at.plus(Duration::from_hours(2)));
    let ahead = message.deliver_at.unwrap().since(message.created_at);
    assert!((3595..=3605).contains(&ahead.as_secs()), "{ahead:?}");
    assert!(claim(&store).await.is_empty(), "not before its time");

    let text = "SELECT postrider.publish_raw($1, 'a.b', '<a>é</a>', 'text/xml; charset=utf-8')";
    let id: String = publisher.one(text, &[&scope.application.to_string()]).await.unwrap();
    let found = routed(&store, &scope, &id).await;
    assert_eq!(found.payload.as_deref(), Some("<a>é</a>".as_bytes()));
    assert_eq!(found.message.content_type.as_deref(), Some("text/xml; charset=utf-8"));
}

/// Ids are made by the database's clock, grow, and read as those of a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_grow_with_every_call() {
    let place = Place::new().await.unwrap();
    let (store, scope, publisher) = begin(&place).await;
    let text = "SELECT postrider.publish($1, 'a', '{}') FROM generate_series(1, 300)";
    let rows = publisher.client.query(text, &[&scope.application.to_string()]).await.unwrap();
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(ids.is_sorted() && ids.iter().collect::<BTreeSet<_>>().len() == 300);
    let made: Vec<MessageId> = ids.iter().map(|id| MessageId::parse(id).unwrap()).collect();
    assert!(made.is_sorted());
    let age = store.clock().now().since(made[0].timestamp());
    assert!(age < Duration::from_secs(10), "{age:?}");
    within("all are routed", 10, || async { (all_ids(&store, &scope).await == ids).then_some(()) }).await;
}

/// Neither who configures nor who accepts nor who else publishes waits for a transaction that stays open; and what it
/// published long ago is found when it commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_keeps_nobody_waiting() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut slow) = begin(&place).await;
    let other = slow.another().await;
    let transaction = slow.client.transaction().await.unwrap();
    let early = Publisher::publish(&transaction, &scope, "{}").await.unwrap();

    let begun = Instant::now();
    let id: String = {
        let text = "SELECT postrider.publish($1, 'a', '{}', event_id => 'e', idempotency_key => 'k')";
        other.one(text, &[&scope.application.to_string()]).await.unwrap()
    };
    routed(&store, &scope, &id).await;
    // Created after the call, and before what it published is routed: matched with the configuration then.
    let later = endpoint(&store, &scope).await;
    let second = application(&store).await;
    store.delete_application(&second.environment, second.application).await.unwrap();
    let accepted = store.accept(vec![message(&scope, Audience::Matching)]).await.remove(0).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(accepted.message.id > MessageId::parse(&early).unwrap());

    transaction.commit().await.unwrap();
    routed(&store, &scope, &early).await;
    let early = MessageId::parse(&early).unwrap();
    let mut endpoints = BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(5);
    while endpoints.len() < 2 && Instant::now() < until {
        let found = claim(&store).await.into_iter().filter(|one| one.lease.delivery.message == early);
        endpoints.extend(found.map(|one| one.lease.delivery.endpoint));
    }
    assert!(endpoints.len() == 2 && endpoints.contains(&later), "{endpoints:?}");
}

/// The same key means the same message, whatever else the call says; until it is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_gives_the_first_message() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let application = scope.application.to_string();
    let text = "SELECT postrider.publish($1, $2, '{}', idempotency_key => 'key')";
    let transaction = publisher.client.transaction().await.unwrap();
    let undone: String = transaction.query_one(text, &[&application, &"a"]).await.unwrap().get(0);
    transaction.rollback().await.unwrap();
    let first: String = publisher.one(text, &[&application, &"a"]).await.unwrap();
    assert_ne!(first, undone);
    assert_eq!(publisher.one(text, &[&application, &"b"]).await.unwrap(), first);
    routed(&store, &scope, &first).await;
    assert_eq!(publisher.one(text, &[&application, &"a"]).await.unwrap(), first);
    assert_eq!(all_ids(&store, &scope).await.len(), 1);

    // Who calls with the same key at the same time waits, and gets the first message.
    let other = publisher.another().await;
    let text = "SELECT postrider.publish($1, $2, '{}', idempotency_key => 'both')";
    let transaction = publisher.client.transaction().await.unwrap();
    let open: String = transaction.query_one(text, &[&application, &"a"]).await.unwrap().get(0);
    let waiting = {
        let application = application.clone();
        tokio::spawn(async move { other.one(text, &[&application, &"a"]).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    transaction.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap(), open);

    let admin = place.client().await.unwrap();
    admin.batch_execute("UPDATE publish_key SET expires_at = 1").await.unwrap();
    assert_ne!(publisher.one(text, &[&application, &"a"]).await.unwrap(), open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_routed_keeps_nobody_waiting() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let doomed = application(&store).await;
    // One is damaged before anybody sees it.
    let admin = place.client().await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN NEW.event_type := 'not a name'; RETURN NEW; END$$;
             CREATE TRIGGER damage BEFORE INSERT ON outbox FOR EACH ROW WHEN (NEW.event_type = 'damaged')
                 EXECUTE FUNCTION damage()",
        )
        .await
        .unwrap();
    let transaction = publisher.client.transaction().await.unwrap();
    let gone = Publisher::publish(&transaction, &doomed, "{}").await.unwrap();
    let broken = Publisher::publish(&transaction, &scope, "{}").await.unwrap();
    let good = Publisher::publish(&transaction, &scope, "{}").await.unwrap();
    store.delete_application(&doomed.environment, doomed.application).await.unwrap();
    let text = "SELECT postrider.publish($1, 'damaged', '{}')";
    let bad: String = transaction.query_one(text, &[&scope.application.to_string()]).await.unwrap().get(0);
    transaction.commit().await.unwrap();

    routed(&store, &scope, &broken).await;
    routed(&store, &scope, &good).await;
    let left = || async {
        let rows = admin.query("SELECT postrider.ksuid_text(id), set_aside FROM outbox", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, Option<String>)>>()
    };
    let rows = within("one is set aside", 10, || async {
        Some(left().await).filter(|rows| rows.len() == 1 && rows[0].1.is_some())
    })
    .await;
    assert_eq!(format!("msg_{}", rows[0].0), bad);
    assert!(rows[0].1.as_ref().unwrap().contains("event_type"), "{rows:?}");
    let outbox = store.outbox().await.unwrap().unwrap();
    assert_eq!((outbox.waiting, outbox.oldest), (0, None));
    assert_eq!(outbox.set_aside, [("on_hold", 0), ("unroutable", 1)]);
    let handled = [("routed", 2), ("without_event_id", 0), ("application_deleted", 1), ("set_aside", 1)];
    assert_eq!(outbox.handled, handled);
    let id = MessageId::parse(&gone).unwrap();
    assert_eq!(store.message(&doomed, &Ref::Id(id)).await.unwrap(), None);

    // The operator repairs it.
    admin.batch_execute("UPDATE outbox SET event_type = 'repaired', set_aside = NULL").await.unwrap();
    routed(&store, &scope, &bad).await;
    assert!(left().await.is_empty());
    assert_eq!(store.outbox().await.unwrap().unwrap().handled[0], ("routed", 3));
}

/// What nobody routes is seen from every node: how much it is and since when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_outbox_is_counted() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let now = store.clock().now();
    store.close().await;
    let transaction = publisher.client.transaction().await.unwrap();
    for _ in 0..3 {
        Publisher::publish(&transaction, &scope, "{}").await.unwrap();
    }
    // A node that serves nothing, as commands open one.
    let looker =
        PostgresStore::open(Config { serves: false, ..place.config("looker") }, place.keyring().unwrap())
            .await
            .unwrap();
    let outbox = || async { looker.outbox().await.unwrap().unwrap() };
    assert_eq!((outbox().await.waiting, outbox().await.oldest), (0, None), "not before it committed");
    transaction.commit().await.unwrap();
    let found = outbox().await;
    assert_eq!(found.waiting, 3);
    assert!(found.oldest.unwrap().since(now) < Duration::from_secs(10), "{found:?}");
    assert_eq!(looker.put_on_hold("a test", None, 100).await.unwrap().next, None);
    let found = outbox().await;
    assert_eq!((found.waiting, found.set_aside[0]), (0, ("on_hold", 3)));
    looker.close().await;
}

/// After a nudge nobody waits for the next look; and a nudge inside of the transaction is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nudge_after_the_commit_is_heard_at_once() {
    let place = Place::new().await.unwrap();
    let config = Config { poll_milliseconds: 20_000, ..place.config("node") };
    let store = PostgresStore::open(config, place.keyring().unwrap()).await.unwrap();
    let scope = application(&store).await;
    let mut publisher = Publisher::new(&place, &scope).await;
    // The node has looked once more since it may be used, and listens.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let transaction = publisher.client.transaction().await.unwrap();
    let id = Publisher::publish(&transaction, &scope, "{}").await.unwrap();
    transaction.commit().await.unwrap();
    let begun = Instant::now();
    publisher.client.batch_execute("SELECT postrider.nudge()").await.unwrap();
    routed(&store, &scope, &id).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    let transaction = publisher.client.transaction().await.unwrap();
    Publisher::publish(&transaction, &scope, "{}").await.unwrap();
    let refused = transaction.batch_execute("SELECT postrider.nudge()").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25001");
}

/// Publishers commit and roll back while their connections and those of the nodes are cut, and nodes die.
/// DUR, CLM: everything committed is there once, nothing else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_routed_once_whoever_dies() {
    let place = Place::new().await.unwrap();
    let (one, scope, publisher) = begin(&place).await;
    let two = place.open("two").await.unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    let mut tasks = Vec::new();
    for number in 0..4_u32 {
        let mut publisher = publisher.another().await;
        let scope = scope.clone();
        tasks.push(tokio::spawn(async move {
            let (mut committed, mut unsure) = (Vec::new(), Vec::new());
            let mut round = number;
            while Instant::now() < until {
                round += 1;
                let Some(ids) = publisher.batch(&scope, round % 7 + 1, round % 3 != 0).await else {
                    publisher = publisher.another().await;
                    continue;
                };
                match ids {
                    Ok(ids) => committed.extend(ids),
                    Err(ids) => unsure.extend(ids),
                }
            }
            (committed, unsure)
        }));
    }
    // Everybody's connections but our own are cut from time to time, and once a node dies.
    let admin = place.client().await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.25";
    let mut two = Some(two);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(400)).await;
        admin.batch_execute(cut).await.unwrap();
        if Instant::now() + Duration::from_secs(2) > until {
            drop(two.take());
        }
    }
    let (mut committed, mut unsure) = (BTreeSet::new(), BTreeSet::new());
    for task in tasks {
        let (sure, perhaps) = task.await.unwrap();
        committed.extend(sure);
        unsure.extend(perhaps);
    }
    assert!(committed.len() > 20, "{}", committed.len());
    within("the outbox is empty", 30, || async {
        let row = admin.query_one("SELECT count(*) FROM outbox", &[]).await.ok()?;
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let there: BTreeSet<String> = all_ids(&one, &scope).await.into_iter().collect();
    assert!(committed.is_subset(&there), "lost: {:?}", committed.difference(&there).collect::<Vec<_>>());
    let known: BTreeSet<String> = committed.union(&unsure).cloned().collect();
    assert!(there.is_subset(&known), "never committed: {:?}", there.difference(&known).collect::<Vec<_>>());
    let row = admin.query_one("SELECT count(*), count(DISTINCT message) FROM pending", &[]).await.unwrap();
    let (deliveries, messages): (i64, i64) = (row.get(0), row.get(1));
    let expected = i64::try_from(there.len()).unwrap();
    assert_eq!((deliveries, messages), (expected, expected), "one delivery each");
}
