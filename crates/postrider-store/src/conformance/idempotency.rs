//! Behaviours of idempotency keys, over every call that takes one.

use super::fixture::*;
use crate::{
    Store, applications::ApplicationFields, error::WriteError, event_types::EventTypeFields,
    idempotency::IdempotencyKey, messages::NewMessage,
};
use postrider_model::{application::Ref, retry::NextStep};

pub async fn a_repeated_message_is_accepted_once(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    let new = NewMessage { idempotency: Some(key("k")), event_id: Some(uid("e")), ..message(&scope) };
    let first = try_publish(store, new.clone()).await.unwrap();
    assert!(!first.replayed);
    let other_body = NewMessage { payload: "{\"other\": 1}".into(), event_id: None, ..new.clone() };
    for again in [new, other_body] {
        let replay = try_publish(store, again).await.unwrap();
        assert!(replay.replayed, "the first answer is repeated whatever the new body is");
        assert_eq!(replay.message, first.message);
    }
    assert_eq!(claim(store).await.len(), 1);
}

/// ING-1.
pub async fn fifty_concurrent_messages_with_one_key_are_one(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    let new = NewMessage { idempotency: Some(key("k")), ..message(&scope) };
    let publishes = (0..50).map(|_| try_publish(store, new.clone()));
    let mut results = futures_util::future::join_all(publishes).await;
    results.extend(store.accept(vec![new.clone(), new]).await);
    let accepted: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted.iter().filter(|accepted| !accepted.replayed).count(), 1);
    assert!(accepted.iter().all(|other| other.message == accepted[0].message));
    assert_eq!(claim(store).await.len(), 1);
}

pub async fn one_key_twice_in_one_batch_is_one_message(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    let new = NewMessage { idempotency: Some(key("k")), ..message(&scope) };
    let accepted: Vec<_> =
        store.accept(vec![new.clone(), new]).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted[0].message, accepted[1].message);
    assert_eq!(accepted.iter().filter(|accepted| accepted.replayed).count(), 1);
    assert_eq!(claim(store).await.len(), 1);
}

/// TEN-2.
pub async fn environments_do_not_share_keys(store: &dyn Store) {
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let scope = application_in(store, name).await;
        let new = NewMessage { idempotency: Some(key("k")), ..message(&scope) };
        let accepted = try_publish(store, new).await.unwrap();
        assert!(!accepted.replayed);
        ids.push(accepted.message.id);
    }
    assert_ne!(ids[0], ids[1]);
}

pub async fn a_key_belongs_to_its_method_and_path(store: &dyn Store) {
    let scope = application(store).await;
    for (method, path, text) in
        [("POST", "/a", "k"), ("POST", "/b", "k"), ("PUT", "/a", "k"), ("POST", "/a", "K")]
    {
        let idempotency = Some(IdempotencyKey::new(method, path, text));
        let accepted = try_publish(store, NewMessage { idempotency, ..message(&scope) }).await.unwrap();
        assert!(!accepted.replayed, "{method} {path} {text}");
    }
}

pub async fn a_refused_request_leaves_its_key_unused(store: &dyn Store) {
    let scope = application(store).await;
    let taken = NewMessage { event_id: Some(uid("taken")), ..message(&scope) };
    publish(store, taken.clone()).await;
    let refused = try_publish(store, NewMessage { idempotency: Some(key("k")), ..taken }).await;
    assert!(matches!(refused, Err(WriteError::Taken)), "{refused:?}");
    let corrected = NewMessage { idempotency: Some(key("k")), ..message(&scope) };
    assert!(!try_publish(store, corrected).await.unwrap().replayed);
}

pub async fn a_key_is_new_again_after_its_lifetime(store: &dyn Store) {
    let scope = application(store).await;
    let publish_with = async |text: &str| {
        try_publish(store, NewMessage { idempotency: Some(key(text)), ..message(&scope) })
            .await
            .unwrap()
            .replayed
    };
    assert!(!publish_with("k").await);
    assert!(!publish_with("auto_k").await);
    store.clock().advance(9 * MINUTE);
    assert!(publish_with("auto_k").await);
    store.clock().advance(2 * MINUTE);
    assert!(!publish_with("auto_k").await, "keys of client libraries are kept for ten minutes");
    assert!(publish_with("k").await);
    store.clock().advance(DAY);
    assert!(!publish_with("k").await, "a day at most");
    assert!(publish_with("k").await, "and is remembered again");
}

pub async fn a_repeated_creation_creates_once(store: &dyn Store) {
    let scope = application(store).await;
    let environment = scope.environment.clone();
    let named =
        ApplicationFields { uid: Some(uid("u")), name: "n".to_owned(), ..ApplicationFields::default() };
    let create =
        async || store.create_application(&environment, named.clone(), Some(key("app"))).await.unwrap();
    let first = create().await;
    let again = create().await;
    assert!(!first.replayed && again.replayed, "a replay is no conflict of uids");
    assert_eq!(first.item, again.item);

    let mut wanted = fields();
    wanted.uid = Some(uid("u"));
    let create =
        async || store.create_endpoint(&scope, new_endpoint(wanted.clone()), Some(key("ep"))).await.unwrap();
    let first = create().await;
    let again = create().await;
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.item, again.item);

    let create = async || {
        let name = event_type("t");
        store
            .create_event_type(&environment, name, EventTypeFields::default(), Some(key("type")))
            .await
            .unwrap()
    };
    let first = create().await;
    let again = create().await;
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.item, again.item);
}

pub async fn concurrent_creations_with_one_key_create_one(store: &dyn Store) {
    let environment = environment("a");
    let creations =
        (0..20).map(|_| store.create_application(&environment, ApplicationFields::default(), Some(key("k"))));
    let results: Vec<_> =
        futures_util::future::join_all(creations).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|created| !created.replayed).count(), 1);
    assert!(results.iter().all(|created| created.item.id == results[0].item.id));
}

pub async fn a_repeated_rotation_rotates_once(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    let rotate = async |seed| {
        store.rotate_signing_secret(&scope, id, secret(seed), HOUR, Some(key("rotate"))).await.unwrap()
    };
    let first = rotate(2).await;
    let again = rotate(3).await;
    assert!(!first.replayed && again.replayed);
    assert_eq!(text_of(&again.item), text_of(&secret(2)), "the current secret, not the one just made");
    let current = store.signing_secret(&scope, id).await.unwrap().expect("it exists");
    assert_eq!(text_of(&current), text_of(&secret(2)));
}

pub async fn a_repeated_resend_sends_once(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    let resend = async || store.resend(&scope, accepted.id, id, Some(key("resend"))).await.unwrap();
    let first = resend().await;
    let again = resend().await;
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.item, again.item);
    assert_eq!(claim(store).await.len(), 1);
}

pub async fn a_replay_shows_the_thing_as_it_stands(store: &dyn Store) {
    let environment = environment("a");
    let named = |name: &str| ApplicationFields { name: name.to_owned(), ..ApplicationFields::default() };
    let first = store.create_application(&environment, named("old"), Some(key("k"))).await.unwrap().item;
    let changed =
        store.replace_application(&environment, first.id, first.version, named("new")).await.unwrap();
    let again = store.create_application(&environment, named("old"), Some(key("k"))).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.item, changed);
    let read = store.application(&environment, &Ref::Id(first.id)).await.unwrap();
    assert_eq!(read, Some(changed));
}
