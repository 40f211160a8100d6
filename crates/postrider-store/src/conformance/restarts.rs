//! Behaviours across the death of the process: what was answered is durable, what was running is found.

use super::{Harness, fixture::*};
use crate::{
    Store,
    attempts::{AttemptFilter, AttemptsOf, ListedAttempt},
    deliveries::{Deferred, Recorded},
    endpoints::AppScope,
    error::{StoreError, WriteError},
    hold::Decision,
    messages::NewMessage,
};
use postrider_model::{
    access::{Caller, Scope},
    application::Ref,
    delivery::{State, Trigger},
    id::MessageId,
    limits::POISON_DEATHS,
    outcome::Outcome,
    retry::{GiveUp, NextStep},
};
use secrecy::ExposeSecret as _;

/// Invariant 1, DUR-1.
pub async fn what_was_accepted_is_there_and_due_at_once(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    let mut wanted = Vec::new();
    for number in 0..10 {
        let new = NewMessage { event_id: Some(uid(&format!("e{number}"))), ..message(&scope) };
        wanted.push(publish(&*store, new).await);
    }
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    for message in &wanted {
        let read = store.message(&scope, &Ref::Id(message.id)).await.unwrap().expect("it was accepted");
        assert_eq!(&read.message, message);
    }
    assert_eq!(store.backlog().await.unwrap().pending, 10);
    let claimed = claim(&*store).await;
    assert_eq!(claimed.len(), 10);
    for item in &claimed {
        assert_eq!((item.lease.delivery.endpoint, item.number, item.deaths), (endpoint_id, 1, 0));
        assert_eq!(item.payload, message(&scope).payload);
    }
    let again = NewMessage { event_id: Some(uid("e0")), ..message(&scope) };
    let refused = try_publish(&*store, again).await;
    assert!(matches!(refused, Err(WriteError::Taken)), "{refused:?}");
}

pub async fn configuration_and_credentials_are_there(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint = endpoint_with(&*store, &scope, |fields| fields.uid = Some(uid("main"))).await;
    store.rotate_signing_secret(&scope, endpoint.id, secret(2), HOUR, None).await.unwrap();
    let caller = Caller { environment: scope.environment.clone(), scope: Scope::Environment };
    let new = crate::access::NewApiKey { caller: caller.clone(), name: String::new(), expires_at: None };
    let (_, token) = store.create_api_key(new).await.unwrap();
    let endpoint = read_endpoint(&*store, &scope, endpoint.id).await;
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    let found = store.endpoint(&scope, &Ref::Uid(uid("main"))).await.unwrap();
    assert_eq!(found.as_ref(), Some(&endpoint));
    let settings = store.send_settings(&scope, endpoint.id).await.unwrap().expect("it exists");
    let credentials = settings.credentials.as_ref().expect("the credentials open");
    assert_eq!(credentials.signing.len(), 2);
    let current = store.signing_secret(&scope, endpoint.id).await.unwrap().expect("it exists");
    assert_eq!(text_of(&current), text_of(&secret(2)));
    assert_eq!(store.authenticate(token.expose_secret()).await.unwrap(), Some(caller));
    publish(&*store, message(&scope)).await;
    assert_eq!(claim(&*store).await.len(), 1);
}

pub async fn what_was_recorded_is_not_sent_again(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    let delivered = publish(&*store, message(&scope)).await;
    settle(&*store, NextStep::Delivered).await;
    let retried = publish(&*store, message(&scope)).await;
    settle(&*store, RETRY).await;
    let due = store.next_due().await.unwrap();
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    assert!(claim(&*store).await.is_empty());
    assert_eq!(store.next_due().await.unwrap(), due);
    assert_eq!(progress(&*store, &scope, delivered.id, endpoint_id).await.state, State::Delivered);
    store.clock().advance(MINUTE);
    let claimed = claim_one(&*store).await;
    assert_eq!((claimed.lease.delivery.message, claimed.number, claimed.deaths), (retried.id, 2, 0));
}

/// A lease that was out but whose attempt had not started costs nothing.
pub async fn a_lease_that_was_not_started_is_due_again_without_a_trace(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    let lost = claim_one(&*store).await;
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    assert!(!store.started(&lost.lease, 1, "https://example.com/hook"));
    assert_eq!(record(&*store, &lost, NextStep::Delivered).await, Recorded::Superseded);
    let claimed = claim_one(&*store).await;
    assert_eq!((claimed.number, claimed.deaths), (1, 0));
    assert_ne!(claimed.lease, lost.lease);
    assert_eq!(record(&*store, &lost, NextStep::Delivered).await, Recorded::Superseded);
    let attempts =
        store.attempts(&scope, AttemptsOf::Message(accepted.id), AttemptFilter::default(), false, first(10));
    assert!(attempts.await.unwrap().items.is_empty());
    assert_eq!(record(&*store, &claimed, NextStep::Delivered).await, Recorded::Stored(State::Delivered));
}

/// DUR-2.
pub async fn an_attempt_that_was_running_is_shown_as_interrupted_and_counts_as_a_death(
    harness: &mut dyn Harness,
) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    drop(store);
    for deaths in 1..POISON_DEATHS {
        let number = claim_and_start(&*harness.store()).await;
        harness.reopen().await;
        let store = harness.store();
        let attempts = attempts_of(&*store, &scope, accepted.id).await;
        assert_eq!(u32::try_from(attempts.len()), Ok(deaths), "one interrupted attempt per death");
        let newest = attempts.last().expect("there is one");
        assert_eq!(newest.attempt.outcome, Outcome::Interrupted);
        assert_eq!((newest.attempt.status, newest.attempt.number), (None, number));
        assert_eq!(newest.attempt.trigger, Trigger::Scheduled);
        assert_eq!(newest.attempt.url, "https://example.com/hook");
        assert!(!newest.attempt.detail.is_empty(), "a person is told what happened");
        assert!(newest.latest);
        let standing = progress(&*store, &scope, accepted.id, endpoint_id).await;
        assert!(matches!(standing.state, State::Pending { .. }), "{standing:?}");
        let claimed = claim_one(&*store).await;
        assert_eq!(claimed.deaths, deaths, "due at once, and known as a suspect");
        store.release(vec![claimed.lease]).await.unwrap();
    }
}

pub async fn a_delivery_that_was_there_at_three_deaths_is_set_aside(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    drop(store);
    for _ in 0..POISON_DEATHS {
        claim_and_start(&*harness.store()).await;
        harness.reopen().await;
    }
    let store = harness.store();
    assert!(claim(&*store).await.is_empty());
    let standing = progress(&*store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Failed(GiveUp::Quarantined), POISON_DEATHS));
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    assert_eq!(claim_one(&*store).await.deaths, 0, "somebody who knows can send it again");
}

pub async fn a_death_does_not_revive_what_was_cancelled(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    claim_and_start(&*store).await;
    store.expunge_payload(&scope, accepted.id).await.unwrap();
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    assert!(claim(&*store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    let attempts = attempts_of(&*store, &scope, accepted.id).await;
    assert_eq!(attempts.len(), 1, "the attempt happened all the same");
}

async fn attempts_of(store: &dyn Store, scope: &AppScope, message: MessageId) -> Vec<ListedAttempt> {
    let of = AttemptsOf::Message(message);
    store.attempts(scope, of, AttemptFilter::default(), false, first(10)).await.unwrap().items
}

async fn claim_and_start(store: &dyn Store) -> u32 {
    let claimed = claim_one(store).await;
    assert!(store.started(&claimed.lease, claimed.number, "https://example.com/hook"));
    claimed.number
}

/// DUR-2: its request was sent, and a drain that runs out of time must not make that undone.
pub async fn an_attempt_that_was_running_at_an_orderly_end_is_shown_as_interrupted(
    harness: &mut dyn Harness,
) {
    let store = harness.store();
    let scope = application(&*store).await;
    endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    claim_and_start(&*store).await;
    store.close().await;
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    let attempts = attempts_of(&*store, &scope, accepted.id).await;
    let outcomes: Vec<_> = attempts.iter().map(|item| item.attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Interrupted]);
    assert_eq!(claim_one(&*store).await.number, 2);
}

/// An innocent delivery beside a deadly one keeps a clean record.
pub async fn an_attempt_that_was_recorded_is_no_death(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    store.accept(vec![message(&scope); 3]).await;
    let claimed = claim(&*store).await;
    for item in &claimed {
        assert!(store.started(&item.lease, item.number, "https://example.com/hook"));
    }
    record(&*store, &claimed[0], NextStep::Delivered).await;
    record(&*store, &claimed[1], RETRY).await;
    store.release(vec![claimed[2].lease]).await.unwrap();
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    let attempts =
        store.attempts(&scope, AttemptsOf::Endpoint(endpoint_id), AttemptFilter::default(), false, first(10));
    let outcomes: Vec<_> = attempts.await.unwrap().items.iter().map(|item| item.attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Succeeded, Outcome::HttpError]);
    store.clock().advance(MINUTE);
    let deaths: Vec<_> = claim(&*store).await.iter().map(|item| item.deaths).collect();
    assert_eq!(deaths, [0, 0]);
}

pub async fn a_resend_in_flight_is_found_again(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    settle(&*store, NextStep::Delivered).await;
    let made = store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap().item;
    claim_one(&*store).await;
    drop(store);
    harness.reopen().await;
    let claimed = claim_one(&*harness.store()).await;
    assert_eq!((claimed.lease.delivery, claimed.trigger), (made, Trigger::Manual));
}

pub async fn held_and_cancelled_deliveries_stay_so(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let held = endpoint(&*store, &scope).await;
    let deleted = endpoint(&*store, &scope).await;
    let accepted = publish(&*store, message(&scope)).await;
    disable(&*store, &scope, held).await;
    store.delete_endpoint(&scope, deleted).await.unwrap();
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    assert!(claim(&*store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 1);
    assert_eq!(progress(&*store, &scope, accepted.id, deleted).await.state, State::Cancelled);
    assert!(progress(&*store, &scope, accepted.id, held).await.held);
    enable(&*store, &scope, held).await;
    assert_eq!(claim_one(&*store).await.lease.delivery.endpoint, held);
}

pub async fn a_hold_lasts_over_a_restart(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    let held = publish(&*store, message(&scope)).await.id;
    assert!(store.put_on_hold("a test", None, PLENTY).await.unwrap().next.is_none());
    let since = store.held_since();
    drop(store);
    harness.reopen().await;
    let store = harness.store();
    assert!(since.is_some());
    assert_eq!(store.held_since(), since);
    assert!(claim(&*store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 1);
    let step = store.decide(Decision::Release, None, PLENTY).await.unwrap();
    assert_eq!((step.moved, step.next), (1, None));
    let claimed = claim_one(&*store).await.lease.delivery;
    assert_eq!((claimed.message, claimed.endpoint), (held, endpoint_id));
}

pub async fn idempotency_keys_are_remembered(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let new = NewMessage { idempotency: Some(key("k")), ..message(&scope) };
    let accepted = publish(&*store, new.clone()).await;
    drop(store);
    harness.reopen().await;
    let replay = try_publish(&*harness.store(), new).await.unwrap();
    assert!(replay.replayed);
    assert_eq!(replay.message, accepted);
}

pub async fn a_restart_forgets_deferrals(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    let endpoint_id = endpoint(&*store, &scope).await;
    publish(&*store, message(&scope)).await;
    let until = store.clock().now().plus(HOUR);
    store.defer(Deferred::Endpoint(endpoint_id), until);
    store.defer(Deferred::Application(scope.application), until);
    assert!(claim(&*store).await.is_empty());
    drop(store);
    harness.reopen().await;
    claim_one(&*harness.store()).await;
}

pub async fn a_closed_store_says_that_it_is_not_available(harness: &mut dyn Harness) {
    let store = harness.store();
    let scope = application(&*store).await;
    endpoint(&*store, &scope).await;
    publish(&*store, message(&scope)).await;
    store.close().await;
    let refused = try_publish(&*store, message(&scope)).await;
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Unavailable { .. }))), "{refused:?}");
    let refused = store.check_write().await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    store.close().await;
    drop(store);
    harness.reopen().await;
    assert_eq!(claim(&*harness.store()).await.len(), 1);
}
