//! Behaviours of deferring: who waits although something is due, until when, and how that ends.

use super::fixture::*;
use crate::{
    Store,
    deliveries::{Claimed, Deferred},
    messages::{Audience, NewMessage},
};
use postrider_model::{headers::CustomHeaders, id::EndpointId, retry::NextStep, time::Timestamp};
use std::time::Duration;

fn within(store: &dyn Store, wait: Duration) -> Timestamp {
    store.clock().now().plus(wait)
}

fn whose(claimed: &Claimed) -> Vec<EndpointId> {
    claimed.deliveries.iter().map(|item| item.lease.delivery.endpoint).collect()
}

/// Nothing can be claimed before `until`, and the store says so.
async fn waits_until(store: &dyn Store, until: Timestamp) {
    let claimed = claim_with(store, PLENTY, PLENTY).await;
    assert!(claimed.deliveries.is_empty());
    assert_eq!(claimed.next_due, Some(until));
    assert_eq!(store.next_due().await.unwrap(), Some(until));
}

pub async fn a_deferred_endpoint_waits_and_the_others_do_not(store: &dyn Store) {
    let scope = application(store).await;
    let deferred = endpoint(store, &scope).await;
    let other = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let until = within(store, MINUTE);
    store.defer(Deferred::Endpoint(deferred), until);
    let claimed = claim_with(store, PLENTY, PLENTY).await;
    assert_eq!(whose(&claimed), [other]);
    waits_until(store, until).await;
    store.clock().advance(SECOND * 50);
    waits_until(store, until).await;
    store.clock().advance(SECOND * 10);
    let claimed = claim_one(store).await;
    assert_eq!((claimed.lease.delivery.endpoint, claimed.number), (deferred, 1), "no attempt was counted");
    assert!(claimed.due_at < until, "it is late, and that is told");
}

pub async fn a_deferred_application_waits_with_all_its_endpoints(store: &dyn Store) {
    let scope = application(store).await;
    for _ in 0..3 {
        endpoint(store, &scope).await;
    }
    let stranger = application(store).await;
    let theirs = endpoint(store, &stranger).await;
    publish(store, message(&scope)).await;
    publish(store, message(&stranger)).await;
    let until = within(store, MINUTE);
    store.defer(Deferred::Application(scope.application), until);
    assert_eq!(claim_one(store).await.lease.delivery.endpoint, theirs);
    publish(store, message(&scope)).await;
    waits_until(store, until).await;
    store.clock().advance(MINUTE);
    assert_eq!(claim(store).await.len(), 6);
}

pub async fn a_deferral_counts_for_messages_that_come_later(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let until = within(store, MINUTE);
    store.defer(Deferred::Endpoint(endpoint_id), until);
    assert_eq!(store.next_due().await.unwrap(), None, "nobody waits yet");
    publish(store, message(&scope)).await;
    waits_until(store, until).await;
    store.clock().advance(MINUTE);
    claim_one(store).await;
}

pub async fn the_latest_word_on_a_deferral_counts(store: &dyn Store) {
    for of_application in [false, true] {
        let scope = application(store).await;
        let endpoint_id = endpoint(store, &scope).await;
        let whose = if of_application {
            Deferred::Application(scope.application)
        } else {
            Deferred::Endpoint(endpoint_id)
        };
        publish(store, message(&scope)).await;
        for wait in [MINUTE, HOUR, 2 * MINUTE] {
            let until = within(store, wait);
            store.defer(whose, until);
            waits_until(store, until).await;
        }
        store.defer(whose, store.clock().now());
        claim_one(store).await;
    }
}

pub async fn the_later_deferral_of_endpoint_and_application_counts(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let (soon, late) = (within(store, MINUTE), within(store, HOUR));
    store.defer(Deferred::Endpoint(endpoint_id), soon);
    store.defer(Deferred::Application(scope.application), late);
    waits_until(store, late).await;
    store.defer(Deferred::Application(scope.application), soon);
    store.defer(Deferred::Endpoint(endpoint_id), late);
    waits_until(store, late).await;
    store.defer(Deferred::Endpoint(endpoint_id), soon);
    waits_until(store, soon).await;
}

pub async fn a_retry_that_is_due_later_than_a_deferral_waits_for_its_own_time(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    settle(store, NextStep::RetryAfter(HOUR)).await;
    let due = store.next_due().await.unwrap().expect("it is retried");
    store.defer(Deferred::Endpoint(endpoint_id), within(store, MINUTE));
    waits_until(store, due).await;
    let until = within(store, 2 * HOUR);
    store.defer(Deferred::Endpoint(endpoint_id), until);
    store.clock().advance(HOUR);
    waits_until(store, until).await;
    store.defer(Deferred::Endpoint(endpoint_id), store.clock().now());
    assert_eq!(claim_one(store).await.number, 2);
}

pub async fn a_deferral_leaves_leases_that_are_out_alone(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 2]).await;
    let claimed = claim(store).await;
    let until = within(store, MINUTE);
    store.defer(Deferred::Endpoint(endpoint_id), until);
    store.defer(Deferred::Application(scope.application), until);
    assert_eq!(store.next_due().await.unwrap(), None, "leases cover everything");
    assert!(store.started(&claimed[0].lease, 1, "https://example.com/hook"));
    record(store, &claimed[0], NextStep::Delivered).await;
    store.release(vec![claimed[1].lease]).await.unwrap();
    waits_until(store, until).await;
    store.clock().advance(MINUTE);
    let again = claim_one(store).await;
    assert_eq!((again.number, again.due_at), (1, claimed[1].due_at));
}

/// Its owner may have mended it.
pub async fn a_change_of_an_endpoint_ends_its_deferral_and_not_its_applications(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let until = within(store, MINUTE);
    store.defer(Deferred::Endpoint(endpoint_id), within(store, HOUR));
    store.defer(Deferred::Application(scope.application), until);
    disable(store, &scope, endpoint_id).await;
    assert_eq!(store.next_due().await.unwrap(), None);
    enable(store, &scope, endpoint_id).await;
    waits_until(store, until).await;
    store.defer(Deferred::Application(scope.application), store.clock().now());
    store.defer(Deferred::Endpoint(endpoint_id), until);
    let version = read_endpoint(store, &scope, endpoint_id).await.version;
    store.replace_headers(&scope, endpoint_id, version, CustomHeaders::default()).await.unwrap();
    claim_one(store).await;
}

/// Somebody waits for the answer.
pub async fn a_resend_ends_the_deferral_of_its_endpoint(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    store.defer(Deferred::Endpoint(endpoint_id), within(store, MINUTE));
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    assert_eq!(claim(store).await.len(), 2);
    store.defer(Deferred::Endpoint(endpoint_id), within(store, MINUTE));
    publish(store, NewMessage { audience: Audience::Only(endpoint_id), ..message(&scope) }).await;
    claim_one(store).await;
}

pub async fn deferred_deliveries_end_with_their_endpoint(store: &dyn Store) {
    let scope = application(store).await;
    let gone = endpoint(store, &scope).await;
    let stays = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    for id in [gone, stays] {
        store.defer(Deferred::Endpoint(id), within(store, MINUTE));
    }
    store.delete_endpoint(&scope, gone).await.unwrap();
    store.clock().advance(MINUTE);
    assert_eq!(claim_one(store).await.lease.delivery.endpoint, stays);
    assert_eq!(store.backlog().await.unwrap().pending, 1);
}

pub async fn a_claimer_is_told_when_a_deferral_is_taken_back(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    for whose in [Deferred::Endpoint(endpoint_id), Deferred::Application(scope.application)] {
        let until = within(store, HOUR);
        store.defer(whose, until);
        waits_until(store, until).await;
        // What was told before is used up.
        let _ = tokio::time::timeout(Duration::ZERO, store.claimable().notified()).await;
        store.defer(whose, store.clock().now());
        let told = tokio::time::timeout(SECOND * 5, store.claimable().notified()).await;
        assert!(told.is_ok());
    }
    claim_one(store).await;
}

/// Many of them keep neither a claim nor those beside them waiting.
pub async fn many_deferred_endpoints_are_in_nobodys_way(store: &dyn Store) {
    let scope = application(store).await;
    let mut deferred = Vec::new();
    for _ in 0..50 {
        deferred.push(endpoint(store, &scope).await);
    }
    publish(store, message(&scope)).await;
    let until = within(store, MINUTE);
    for id in &deferred {
        store.defer(Deferred::Endpoint(*id), until);
    }
    let free = endpoint(store, &scope).await;
    for _ in 0..3 {
        publish(store, NewMessage { audience: Audience::Only(free), ..message(&scope) }).await;
        let claimed = claim_with(store, 1, PLENTY).await;
        assert_eq!(whose(&claimed), [free]);
    }
    waits_until(store, until).await;
    store.clock().advance(MINUTE);
    assert_eq!(claim(store).await.len(), 50);
}
