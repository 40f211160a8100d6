//! Behaviours of retention.

use super::fixture::*;
use crate::{
    Store,
    attempts::{AttemptFilter, AttemptsOf},
    messages::{MessageFilter, NewMessage},
    retention::{Cutoffs, Expired},
};
use postrider_model::{
    application::Ref,
    delivery::State,
    message::Message,
    retry::{GiveUp, NextStep, RetryOverride},
    time::Timestamp,
};

/// Nothing is too old.
const NEVER: Cutoffs = Cutoffs { messages: Timestamp::from_micros(0), attempts: Timestamp::from_micros(0) };

fn older_than(store: &dyn Store, age: std::time::Duration) -> Cutoffs {
    let cutoff = store.clock().now().minus(age);
    Cutoffs { messages: cutoff, attempts: cutoff }
}

/// Calls until nothing more waits, and adds up.
async fn expire_all(store: &dyn Store, cutoffs: Cutoffs, batch: usize) -> Expired {
    let mut sum = Expired::default();
    for _ in 0..1000 {
        let expired = store.expire(cutoffs, batch).await.unwrap();
        let most = batch as u64;
        assert!(
            expired.payloads <= most && expired.attempts <= most && expired.messages <= most,
            "{expired:?}"
        );
        sum.payloads += expired.payloads;
        sum.attempts += expired.attempts;
        sum.messages += expired.messages;
        sum.others += expired.others;
        if !expired.more {
            return sum;
        }
    }
    panic!("there is an end to what is too old");
}

pub async fn where_nothing_is_too_old_nothing_is_deleted(store: &dyn Store) {
    let expired = store.expire(older_than(store, DAY), 100).await.unwrap();
    assert_eq!(expired, Expired::default());
    let scope = application(store).await;
    endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    assert_eq!(store.expire(NEVER, 100).await.unwrap(), Expired::default());
    assert_eq!(store.expire(older_than(store, DAY), 100).await.unwrap(), Expired::default());
}

pub async fn old_messages_go_with_everything_of_theirs(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let mut old: Vec<Message> = Vec::new();
    for _ in 0..25 {
        old.push(publish(store, NewMessage { tags: tags(&["t"]), ..message(&scope) }).await);
    }
    settle(store, NextStep::Delivered).await;
    store.clock().advance(40 * DAY);
    let young = publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    let expired = expire_all(store, older_than(store, 30 * DAY), 10).await;
    assert_eq!(expired.messages, 25);
    for gone in &old {
        assert_eq!(store.message(&scope, &Ref::Id(gone.id)).await.unwrap(), None);
        assert!(store.destinations(&scope, gone.id, first(10)).await.unwrap().items.is_empty());
    }
    let attempts =
        store.attempts(&scope, AttemptsOf::Endpoint(endpoint_id), AttemptFilter::default(), true, first(100));
    let attempts = attempts.await.unwrap().items;
    assert_eq!(attempts.len(), 1, "no attempt is left without its message");
    assert_eq!(attempts[0].attempt.delivery.message, young.id);
    let listed = store.messages(&scope, MessageFilter::default(), true, first(100)).await.unwrap().items;
    assert_eq!(listed.iter().map(|item| item.message.id).collect::<Vec<_>>(), [young.id]);
    let filter = MessageFilter::default();
    let listed = store.endpoint_messages(&scope, endpoint_id, filter, None, false, first(100)).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(store.expire(older_than(store, 30 * DAY), 10).await.unwrap(), Expired::default());
}

pub async fn an_event_id_is_free_once_its_message_is_gone(store: &dyn Store) {
    let scope = application(store).await;
    let new = NewMessage { event_id: Some(uid("e")), ..message(&scope) };
    publish(store, new.clone()).await;
    store.clock().advance(40 * DAY);
    expire_all(store, older_than(store, 30 * DAY), 10).await;
    publish(store, new).await;
}

pub async fn nothing_that_is_pending_is_touched(store: &dyn Store) {
    let scope = application(store).await;
    let retry = RetryOverride { waits: Some(vec![DAY; 20]), deadline: Some(29 * DAY) };
    let endpoint_id = endpoint_with(store, &scope, |fields| fields.retry = retry).await.id;
    let new = NewMessage { payload_lifetime: Some(HOUR), ..message(&scope) };
    let retrying = publish(store, new.clone()).await;
    settle(store, NextStep::RetryAfter(20 * DAY)).await;
    let leased = publish(store, new).await;
    let claimed = claim_one(store).await;
    store.clock().advance(10 * DAY);
    let expired = expire_all(store, older_than(store, DAY), 10).await;
    assert_eq!((expired.messages, expired.attempts, expired.payloads), (0, 0, 0));
    for id in [retrying.id, leased.id] {
        let read = store.message(&scope, &Ref::Id(id)).await.unwrap().expect("a delivery of it is pending");
        assert!(read.payload.is_some(), "the payload is needed");
    }
    assert_eq!(progress(store, &scope, retrying.id, endpoint_id).await.attempts, 1);
    assert_eq!(store.backlog().await.unwrap().pending, 2);
    record(store, &claimed, NextStep::Delivered).await;
    store.clock().advance(10 * DAY);
    assert_eq!(claim_one(store).await.payload, message(&scope).payload);
    let expired = expire_all(store, older_than(store, DAY), 10).await;
    assert_eq!(expired.messages, 1, "the delivered one is old now");
}

pub async fn a_payload_goes_at_its_own_expiry(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let short = NewMessage { payload_lifetime: Some(HOUR), ..message(&scope) };
    let accepted = publish(store, short).await;
    let expires_in = accepted.payload_expires_at.since(accepted.created_at);
    assert!(expires_in.abs_diff(HOUR) < SECOND, "{expires_in:?}");
    let kept = publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    assert_eq!(store.expire(NEVER, 10).await.unwrap(), Expired::default());
    store.clock().advance(HOUR + SECOND);
    assert_eq!(expire_all(store, NEVER, 10).await.payloads, 1);
    let read = store.message(&scope, &Ref::Id(accepted.id)).await.unwrap().expect("the message stays");
    assert_eq!((read.message.id, read.payload), (accepted.id, None));
    assert_eq!(progress(store, &scope, accepted.id, endpoint_id).await.attempts, 1, "its history stays");
    let refused = store.resend(&scope, accepted.id, endpoint_id, None).await;
    assert!(matches!(refused, Err(crate::deliveries::ResendError::PayloadGone)), "{refused:?}");
    assert!(store.message(&scope, &Ref::Id(kept.id)).await.unwrap().expect("it stays").payload.is_some());
    assert_eq!(store.expire(NEVER, 10).await.unwrap(), Expired::default());
}

pub async fn old_attempts_go_and_their_message_stays(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let mut messages = Vec::new();
    for _ in 0..12 {
        messages.push(publish(store, message(&scope)).await.id);
    }
    settle(store, NextStep::Delivered).await;
    store.clock().advance(10 * DAY);
    let cutoffs = Cutoffs { messages: Timestamp::from_micros(0), ..older_than(store, DAY) };
    let expired = expire_all(store, cutoffs, 5).await;
    assert_eq!((expired.attempts, expired.messages), (12, 0));
    for id in messages {
        let listed =
            store.attempts(&scope, AttemptsOf::Message(id), AttemptFilter::default(), false, first(10)).await;
        assert!(listed.unwrap().items.is_empty());
        assert_eq!(progress(store, &scope, id, endpoint_id).await.state, State::Delivered);
    }
}

pub async fn what_a_disabled_endpoint_holds_expires_at_its_deadline(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    disable(store, &scope, endpoint_id).await;
    store.clock().advance(DAY / 2);
    expire_all(store, NEVER, 10).await;
    let state = progress(store, &scope, accepted.id, endpoint_id).await.state;
    assert!(matches!(state, State::Pending { .. }), "{state:?}");
    store.clock().advance(DAY / 2 + SECOND);
    expire_all(store, NEVER, 10).await;
    let state = progress(store, &scope, accepted.id, endpoint_id).await.state;
    assert_eq!(state, State::Failed(GiveUp::Expired));
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    enable(store, &scope, endpoint_id).await;
    assert!(claim(store).await.is_empty());
}

pub async fn records_of_idempotency_keys_go_after_their_lifetime(store: &dyn Store) {
    let scope = application(store).await;
    for number in 0..7 {
        let idempotency = Some(key(&number.to_string()));
        publish(store, NewMessage { idempotency, ..message(&scope) }).await;
    }
    assert_eq!(expire_all(store, NEVER, 3).await.others, 0);
    store.clock().advance(DAY + SECOND);
    assert_eq!(expire_all(store, NEVER, 3).await.others, 7);
    assert_eq!(store.expire(NEVER, 3).await.unwrap(), Expired::default());
}

pub async fn signing_secrets_go_after_their_overlap(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    store.rotate_signing_secret(&scope, id, secret(2), HOUR, None).await.unwrap();
    assert_eq!(expire_all(store, NEVER, 10).await.others, 0);
    store.clock().advance(HOUR + SECOND);
    assert_eq!(expire_all(store, NEVER, 10).await.others, 1);
    let current = store.signing_secret(&scope, id).await.unwrap().expect("the current one stays");
    assert_eq!(text_of(&current), text_of(&secret(2)));
}

pub async fn history_of_deleted_applications_goes_too(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    for _ in 0..3 {
        publish(store, message(&scope)).await;
    }
    store.delete_application(&scope.environment, scope.application).await.unwrap();
    store.clock().advance(40 * DAY);
    assert_eq!(expire_all(store, older_than(store, 30 * DAY), 10).await.messages, 3);
}
