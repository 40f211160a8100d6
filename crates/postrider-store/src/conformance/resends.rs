//! Behaviours of resending: manual deliveries beside the automatic chain.

use super::fixture::*;
use crate::{
    Store,
    deliveries::{Recorded, ResendError},
};
use postrider_model::{
    delivery::{State, Trigger},
    retry::{GiveUp, NextStep},
};

pub async fn a_resend_is_one_manual_attempt_due_now(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, EXHAUSTED).await;
    let made = store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    assert!(!made.replayed);
    assert_eq!((made.item.message, made.item.endpoint), (accepted.id, endpoint_id));
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert!(matches!(standing.state, State::Pending { .. }), "pending counts before failed: {standing:?}");
    let claimed = claim_one(store).await;
    assert_eq!(claimed.lease.delivery, made.item);
    assert_eq!((claimed.trigger, claimed.number), (Trigger::Manual, 1));
    assert_eq!(claimed.payload, message(&scope).payload);
    let recorded = record(store, &claimed, RETRY).await;
    assert_eq!(
        recorded,
        Recorded::Stored(State::Failed(GiveUp::Exhausted)),
        "a manual delivery is not retried"
    );
    store.clock().advance(DAY);
    assert!(claim(store).await.is_empty());
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    settle(store, NextStep::Delivered).await;
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Delivered, 3));
}

pub async fn what_was_delivered_stays_delivered_whatever_a_resend_comes_to(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    assert_eq!(progress(store, &scope, accepted.id, endpoint_id).await.state, State::Delivered);
    let claimed = claim_one(store).await;
    record(store, &claimed, EXHAUSTED).await;
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Delivered, 2));
}

pub async fn a_failed_resend_does_not_end_the_automatic_chain(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, RETRY).await;
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    settle(store, EXHAUSTED).await;
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert!(matches!(standing.state, State::Pending { .. }), "{standing:?}");
    store.clock().advance(MINUTE);
    let claimed = claim_one(store).await;
    assert_eq!((claimed.trigger, claimed.number), (Trigger::Scheduled, 2));
}

pub async fn a_successful_resend_settles_what_was_pending(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, RETRY).await;
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    settle(store, NextStep::Delivered).await;
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Delivered, 2));
    store.clock().advance(HOUR);
    assert!(claim(store).await.is_empty(), "the retry is not needed any more");
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_delivery_settled_while_it_ran_keeps_its_state(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let scheduled = claim_one(store).await;
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    let manual = claim_one(store).await;
    assert_eq!(record(store, &manual, NextStep::Delivered).await, Recorded::Stored(State::Delivered));
    assert_eq!(record(store, &scheduled, RETRY).await, Recorded::Stored(State::Delivered));
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Delivered, 2));
    store.clock().advance(HOUR);
    assert!(claim(store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_resend_to_a_disabled_endpoint_is_held(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    disable(store, &scope, endpoint_id).await;
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    assert!(claim(store).await.is_empty());
    enable(store, &scope, endpoint_id).await;
    assert_eq!(claim_one(store).await.trigger, Trigger::Manual);
}

pub async fn a_resend_reaches_an_endpoint_that_never_got_the_message(store: &dyn Store) {
    let scope = application(store).await;
    let accepted = publish(store, message(&scope)).await;
    let later = endpoint(store, &scope).await;
    store.resend(&scope, accepted.id, later, None).await.unwrap();
    let claimed = claim_one(store).await;
    assert_eq!((claimed.lease.delivery.endpoint, claimed.trigger), (later, Trigger::Manual));
    record(store, &claimed, NextStep::Delivered).await;
    assert_eq!(progress(store, &scope, accepted.id, later).await.state, State::Delivered);
}

pub async fn a_resend_that_cannot_be_is_refused(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let deleted = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    store.delete_endpoint(&scope, deleted).await.unwrap();
    let now = store.clock().now();
    let unknown = store.resend(&scope, store.ids().next(now), endpoint_id, None).await;
    assert!(matches!(unknown, Err(ResendError::Missing)), "{unknown:?}");
    for nowhere in [deleted, store.ids().next(now)] {
        let refused = store.resend(&scope, accepted.id, nowhere, None).await;
        assert!(matches!(refused, Err(ResendError::Missing)), "{refused:?}");
    }
    store.expunge_payload(&scope, accepted.id).await.unwrap();
    let gone = store.resend(&scope, accepted.id, endpoint_id, None).await;
    assert!(matches!(gone, Err(ResendError::PayloadGone)), "{gone:?}");
    assert!(claim(store).await.is_empty());
}
