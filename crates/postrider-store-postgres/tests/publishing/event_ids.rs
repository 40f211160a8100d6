//! An event id names one message, whether a request or a transaction of an application's own takes it, and whichever comes
//! first.

use crate::{
    begin,
    publisher::{refusal, within},
    routed,
    world::message,
};
use postrider_model::application::{Ref, Uid};
use postrider_store::{
    StoreError, WriteError,
    endpoints::AppScope,
    messages::{Audience, Messages as _, NewMessage},
};
use postrider_store_postgres::{PostgresStore, testing::Place};
use std::{collections::BTreeMap, sync::Arc};

const CALL: &str = "SELECT postrider.publish($1, 'a', '{}', event_id => $2)";

fn named(scope: &AppScope, name: &str) -> NewMessage {
    NewMessage { event_id: Uid::parse(name, "msg_"), ..message(scope, Audience::Matching) }
}

/// The id of the message that a request made, or why it made none.
async fn request(store: &PostgresStore, scope: &AppScope, name: &str) -> Result<String, WriteError> {
    let accepted = store.accept(vec![named(scope, name)]).await.remove(0)?;
    Ok(accepted.message.id.to_string())
}

/// The message that has this event id.
async fn holder(store: &PostgresStore, scope: &AppScope, name: &str) -> Option<String> {
    let name = Ref::Uid(Uid::parse(name, "msg_").unwrap());
    store.message(scope, &name).await.unwrap().map(|found| found.message.id.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_id_is_that_of_one_message() {
    let place = Place::new().await.unwrap();
    let (store, scope, publisher) = begin(&place).await;
    request(&store, &scope, "requested").await.unwrap();
    assert_eq!(publisher.with_event_id(&scope, "requested").await.unwrap_err(), "23505 event_id");
    let id = publisher.with_event_id(&scope, "published").await.unwrap();
    assert_eq!(publisher.with_event_id(&scope, "published").await.unwrap_err(), "23505 event_id");
    // Not routed yet, or routed by now: the same.
    assert!(matches!(request(&store, &scope, "published").await, Err(WriteError::Taken)));
    routed(&store, &scope, &id).await;
    assert_eq!(publisher.with_event_id(&scope, "published").await.unwrap_err(), "23505 event_id");
    assert!(matches!(request(&store, &scope, "published").await, Err(WriteError::Taken)));
    assert_eq!(holder(&store, &scope, "published").await, Some(id));
}

/// What no node routes for long, because of a hold for example, keeps its event id all the same; dropped, it gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_outbox_keeps_its_event_id() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let admin = place.client().await.unwrap();
    admin
        .batch_execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN NEW.set_aside := 'kept'; RETURN NEW; END$$;
             CREATE TRIGGER keep BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        .await
        .unwrap();
    let transaction = publisher.client.transaction().await.unwrap();
    let application = scope.application.to_string();
    let kept: String = transaction.query_one(CALL, &[&application, &"kept"]).await.unwrap().get(0);
    transaction.query_one(CALL, &[&application, &"dropped"]).await.unwrap();
    transaction.commit().await.unwrap();
    let mut batch = ["kept", "other", "dropped"].map(|name| named(&scope, name)).to_vec();
    batch.push(message(&scope, Audience::Matching));
    let results = store.accept(batch).await;
    assert!(matches!(results[0], Err(WriteError::Taken)) && matches!(results[2], Err(WriteError::Taken)));
    assert!(results[1].is_ok() && results[3].is_ok(), "the others of the batch: {results:?}");
    admin.batch_execute("DELETE FROM outbox WHERE event_id = 'dropped'").await.unwrap();
    request(&store, &scope, "dropped").await.unwrap();
    admin.batch_execute("UPDATE outbox SET set_aside = NULL").await.unwrap();
    assert_eq!(routed(&store, &scope, &kept).await.message.event_id, Uid::parse("kept", "msg_"));
}

/// A request that comes between the call and the commit has the event id: the commit fails, and with it what else the
/// transaction did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_fails_when_a_request_took_its_event_id() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let application = scope.application.to_string();
    for (name, isolation) in
        [("committed", "READ COMMITTED"), ("repeated", "REPEATABLE READ"), ("serial", "SERIALIZABLE")]
    {
        let transaction = publisher.client.transaction().await.unwrap();
        transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {isolation}")).await.unwrap();
        let open: String = transaction.query_one(CALL, &[&application, &name]).await.unwrap().get(0);
        let fine: String = transaction.query_one(CALL, &[&application, &"fine"]).await.unwrap().get(0);
        let first = request(&store, &scope, name).await.unwrap();
        let refused = transaction.commit().await.unwrap_err();
        assert_eq!(refusal(&refused), "23505 event_id", "{isolation}");
        assert_eq!(holder(&store, &scope, name).await, Some(first));
        for gone in [open, fine] {
            let id = Ref::Id(postrider_model::id::MessageId::parse(&gone).unwrap());
            assert_eq!(store.message(&scope, &id).await.unwrap(), None, "{isolation}");
        }
    }
    let settings = "SELECT coalesce(current_setting('postrider.environments', true), '')";
    assert_eq!(publisher.one(settings, &[]).await.unwrap(), "", "nothing of the check stays");
}

/// Once a transaction has begun to commit, a request waits for nobody and takes nothing from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_the_event_id_of_a_commit_that_runs_is_told_to_come_back() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let application = scope.application.to_string();
    for commits in [false, true] {
        let transaction = publisher.client.transaction().await.unwrap();
        let id: String = transaction.query_one(CALL, &[&application, &"both"]).await.unwrap().get(0);
        // What a commit does first; also the state of a prepared transaction.
        transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.unwrap();
        let results = store.accept(vec![named(&scope, "both"), message(&scope, Audience::Matching)]).await;
        assert!(
            matches!(&results[0], Err(WriteError::Store(StoreError::Unavailable { .. }))),
            "neither taken nor free: {results:?}"
        );
        assert!(results[1].is_ok(), "{results:?}");
        if commits {
            transaction.commit().await.unwrap();
            assert!(matches!(request(&store, &scope, "both").await, Err(WriteError::Taken)));
            routed(&store, &scope, &id).await;
        } else {
            transaction.rollback().await.unwrap();
        }
    }
}

/// Both ways at once for many event ids: each has one message in the end, and its holder was told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_request_and_a_transaction_at_the_same_time_one_makes_the_message() {
    let place = Place::new().await.unwrap();
    let (store, scope, mut publisher) = begin(&place).await;
    let application = scope.application.to_string();
    let names: Vec<String> = (0..150).map(|number| format!("event-{number}")).collect();
    let requests = tokio::spawn({
        let (store, scope, names) = (Arc::clone(&store), scope.clone(), names.clone());
        async move {
            let mut made = BTreeMap::new();
            for name in names {
                loop {
                    match request(&store, &scope, &name).await {
                        Ok(id) => made.insert(name.clone(), id),
                        Err(WriteError::Taken) => None,
                        Err(WriteError::Store(StoreError::Unavailable { .. })) => continue,
                        Err(error) => panic!("{error:?}"),
                    };
                    break;
                }
            }
            made
        }
    });
    let mut published = BTreeMap::new();
    for (place, name) in names.iter().enumerate() {
        let transaction = publisher.client.transaction().await.unwrap();
        if place % 3 == 0 {
            transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        }
        let Ok(row) = transaction.query_one(CALL, &[&application, name]).await else { continue };
        if transaction.commit().await.is_ok() {
            published.insert(name.clone(), row.get::<_, String>(0));
        }
    }
    let requested = requests.await.unwrap();
    assert_eq!(requested.len() + published.len(), names.len(), "each event id was taken once");
    for (name, id) in requested.iter().chain(&published) {
        let found = within("its message is there", 10, || async { holder(&store, &scope, name).await }).await;
        assert_eq!(found, *id, "{name}");
    }
    assert_eq!(crate::all_ids(&store, &scope).await.len(), names.len());
}
