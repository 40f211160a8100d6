//! Behaviours of claiming: room, fairness, leases, and what waits.

use super::fixture::*;
use crate::{
    Store,
    deliveries::{AttemptRecord, Recorded, Room},
    messages::{Audience, NewMessage},
};
use bytes::Bytes;
use postrider_model::{
    delivery::State,
    id::EndpointId,
    retry::{GiveUp, NextStep, RetryOverride},
};
use std::collections::BTreeSet;

pub async fn a_claimed_delivery_is_not_claimed_again(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    assert_eq!(claimed.lease.delivery.message, accepted.id);
    let again = claim_with(store, PLENTY, PLENTY).await;
    assert!(again.deliveries.is_empty());
    assert_eq!(again.next_due, None, "leases cover everything");
    assert_eq!(store.next_due().await.unwrap(), None);
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert!(matches!(standing.state, State::Pending { .. }), "a leased delivery is pending: {standing:?}");
}

pub async fn concurrent_claims_share_no_delivery(store: &dyn Store) {
    let scope = application(store).await;
    for _ in 0..5 {
        endpoint(store, &scope).await;
    }
    store.accept(vec![message(&scope); 20]).await;
    let claims = (0..10).map(|_| claim_with(store, 15, PLENTY));
    let claimed: Vec<_> = futures_util::future::join_all(claims)
        .await
        .into_iter()
        .flat_map(|claimed| claimed.deliveries)
        .collect();
    let different: BTreeSet<_> = claimed.iter().map(|item| item.lease.delivery).collect();
    assert_eq!((claimed.len(), different.len()), (100, 100));
}

pub async fn a_claim_takes_no_more_than_there_is_room_for(store: &dyn Store) {
    let scope = application(store).await;
    for _ in 0..4 {
        endpoint(store, &scope).await;
    }
    store.accept(vec![message(&scope); 5]).await;
    assert!(claim_with(store, 0, PLENTY).await.deliveries.is_empty());
    assert!(claim_with(store, PLENTY, 0).await.deliveries.is_empty());
    let some = claim_with(store, 7, PLENTY).await;
    assert_eq!(some.deliveries.len(), 7);
    assert!(some.next_due.is_some_and(|due| due <= store.clock().now()), "more is due already");
    assert_eq!(claim_with(store, PLENTY, PLENTY).await.deliveries.len(), 13);
}

pub async fn an_endpoint_has_only_so_many_leases_out(store: &dyn Store) {
    let scope = application(store).await;
    let narrow = endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 5]).await;
    let held = claim_with(store, PLENTY, 2).await.deliveries;
    assert_eq!(held.len(), 2);
    assert!(claim_with(store, PLENTY, 2).await.deliveries.is_empty(), "two are out");
    let other = endpoint(store, &scope).await;
    publish(store, NewMessage { audience: Audience::Only(other), ..message(&scope) }).await;
    let next = claim_with(store, PLENTY, 2).await.deliveries;
    assert_eq!(next.iter().map(|item| item.lease.delivery.endpoint).collect::<Vec<_>>(), [other]);
    record(store, &held[0], NextStep::Delivered).await;
    let next = claim_with(store, PLENTY, 2).await.deliveries;
    assert_eq!(next.iter().map(|item| item.lease.delivery.endpoint).collect::<Vec<_>>(), [narrow]);
    store.release(vec![held[1].lease]).await.unwrap();
    assert_eq!(claim_with(store, PLENTY, 2).await.deliveries.len(), 1);
    assert_eq!(claim_with(store, PLENTY, 3).await.deliveries.len(), 1, "room is what the caller says now");
}

pub async fn a_wide_endpoint_may_have_more_leases_out_than_others(store: &dyn Store) {
    let scope = application(store).await;
    let wide = endpoint(store, &scope).await;
    let other = endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 6]).await;
    let of = |claimed: &crate::deliveries::Claimed, endpoint| {
        claimed.deliveries.iter().filter(|item| item.lease.delivery.endpoint == endpoint).count()
    };
    let room =
        |places| Room { total: PLENTY, per_endpoint: 2, wide: [(wide, places)].into(), ..Room::default() };
    let claimed = store.claim(&room(3)).await.unwrap();
    assert_eq!((of(&claimed, wide), of(&claimed, other)), (3, 2));
    let claimed = store.claim(&room(5)).await.unwrap();
    assert_eq!((of(&claimed, wide), of(&claimed, other)), (2, 0), "the bound is what the caller says now");
}

pub async fn a_full_endpoint_is_passed_over(store: &dyn Store) {
    let scope = application(store).await;
    let full = endpoint(store, &scope).await;
    let free = endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 3]).await;
    let room = Room { total: PLENTY, per_endpoint: PLENTY, full: vec![full], ..Room::default() };
    let claimed = store.claim(&room).await.unwrap().deliveries;
    assert_eq!(claimed.len(), 3);
    assert!(claimed.iter().all(|item| item.lease.delivery.endpoint == free));
    assert_eq!(claim(store).await.len(), 3, "the other ones wait unharmed");
}

pub async fn a_claim_keeps_to_the_bytes_it_has_room_for(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    for bytes in [600, 500, 400, 300] {
        let payload = Bytes::from(vec![b'x'; bytes]);
        publish(store, NewMessage { payload, ..message(&scope) }).await;
    }
    let room = |bytes| Room { total: PLENTY, bytes, per_endpoint: PLENTY, ..Room::default() };
    for (bytes, expected) in [(500, vec![600]), (1000, vec![500, 400]), (1000, vec![300])] {
        let claimed = store.claim(&room(bytes)).await.unwrap();
        let sizes: Vec<_> = claimed.deliveries.iter().map(|item| item.payload.len()).collect();
        assert_eq!(sizes, expected, "room for {bytes} bytes");
        let more = claimed.next_due.is_some_and(|due| due <= store.clock().now());
        assert_eq!(more, expected != [300]);
    }
}

/// ISO: a long backlog of one endpoint keeps no other waiting.
pub async fn a_claim_is_fair_over_endpoints(store: &dyn Store) {
    let scope = application(store).await;
    let busy = endpoint(store, &scope).await;
    for _ in 0..5 {
        store.accept(vec![message(&scope); 100]).await;
    }
    let quiet = endpoint(store, &scope).await;
    let stranger = application(store).await;
    let theirs = endpoint(store, &stranger).await;
    publish(store, NewMessage { audience: Audience::Only(quiet), ..message(&scope) }).await;
    publish(store, message(&stranger)).await;
    let claimed = claim_with(store, 20, 100).await.deliveries;
    assert_eq!(claimed.len(), 20);
    let count = |id: EndpointId| claimed.iter().filter(|item| item.lease.delivery.endpoint == id).count();
    assert_eq!((count(busy), count(quiet), count(theirs)), (18, 1, 1));
}

pub async fn two_long_backlogs_share_a_small_room(store: &dyn Store) {
    let scope = application(store).await;
    let one = endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 100]).await;
    let two = endpoint(store, &scope).await;
    for _ in 0..100 {
        publish(store, NewMessage { audience: Audience::Only(two), ..message(&scope) }).await;
    }
    let claimed = claim_with(store, 10, PLENTY).await.deliveries;
    for id in [one, two] {
        let share = claimed.iter().filter(|item| item.lease.delivery.endpoint == id).count();
        assert!(share >= 3, "{share} of 10");
    }
}

/// ISO: turns are the application's, not the endpoint's.
pub async fn an_application_has_its_share_however_many_endpoints_another_has(store: &dyn Store) {
    let crowd = application(store).await;
    for _ in 0..20 {
        endpoint(store, &crowd).await;
    }
    store.accept(vec![message(&crowd); 10]).await;
    let single = application(store).await;
    endpoint(store, &single).await;
    store.accept(vec![message(&single); 100]).await;
    for _ in 0..3 {
        let claimed = claim_with(store, 20, PLENTY).await.deliveries;
        assert_eq!(claimed.len(), 20);
        let share = claimed.iter().filter(|item| item.scope == single).count();
        assert!((7..=13).contains(&share), "{share} of 20");
    }
}

/// ISO: a fresh message of an endpoint with many due retries is among the next two of it, and the other way round.
pub async fn first_attempts_and_retries_of_an_endpoint_take_turns(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 60]).await;
    settle(store, RETRY).await;
    store.clock().advance(MINUTE);
    let fresh = publish(store, message(&scope)).await;
    let claimed = claim_up_to(store, 2).await;
    assert_eq!(claimed.iter().filter(|item| item.lease.delivery.message == fresh.id).count(), 1);
    store.accept(vec![message(&scope); 60]).await;
    let claimed = claim_up_to(store, 20).await;
    let first = claimed.iter().filter(|item| item.number == 1).count();
    assert!((8..=12).contains(&first), "{first} of 20 are first attempts");
    assert_eq!(claim(store).await.len(), 60 + 61 - 22, "none is forgotten");
}

/// What lies behind a backlog of first attempts in a backend's memory or on its disk is found all the same.
pub async fn a_long_backlog_of_both_kinds_is_worked_off_completely(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    for _ in 0..3 {
        store.accept(vec![message(&scope); 200]).await;
        settle(store, RETRY).await;
        store.accept(vec![message(&scope); 200]).await;
    }
    store.clock().advance(MINUTE);
    let (mut first, mut retries) = (0, 0);
    loop {
        let claimed = claim_up_to(store, 70).await;
        if claimed.is_empty() {
            break;
        }
        for item in claimed {
            assert_eq!(item.lease.delivery.endpoint, endpoint_id);
            *(if item.number == 1 { &mut first } else { &mut retries }) += 1;
            record(store, &item, NextStep::Delivered).await;
        }
    }
    assert_eq!((first, retries), (200, 1000));
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_disabled_endpoint_holds_its_deliveries_until_it_is_enabled(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    disable(store, &scope, endpoint_id).await;
    let claimed = claim_with(store, PLENTY, PLENTY).await;
    assert!(claimed.deliveries.is_empty());
    assert_eq!(claimed.next_due, None, "what is held is not due");
    assert_eq!(store.next_due().await.unwrap(), None);
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.pending, backlog.oldest_due), (1, None));
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert!(standing.held && matches!(standing.state, State::Pending { .. }), "{standing:?}");
    store.clock().advance(HOUR);
    enable(store, &scope, endpoint_id).await;
    assert!(!progress(store, &scope, accepted.id, endpoint_id).await.held);
    assert_eq!(claim_one(store).await.lease.delivery.message, accepted.id);
}

pub async fn a_released_delivery_is_due_as_before(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let first_claim = claim_one(store).await;
    store.release(vec![first_claim.lease]).await.unwrap();
    assert!(!store.started(&first_claim.lease, 1, "https://example.com/hook"));
    assert_eq!(record(store, &first_claim, NextStep::Delivered).await, Recorded::Superseded);
    let second = claim_one(store).await;
    assert_eq!((second.number, second.deaths, second.due_at), (1, 0, first_claim.due_at));
    assert!(store.started(&second.lease, 1, "https://example.com/hook"));
    store.release(vec![second.lease]).await.unwrap();
    let third = claim_one(store).await;
    assert_eq!((third.number, third.deaths), (1, 0), "giving back is no death");
}

pub async fn the_backlog_counts_what_is_pending(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    assert_eq!(store.backlog().await.unwrap(), crate::health::Backlog::default());
    store.accept(vec![message(&scope); 3]).await;
    let backlog = store.backlog().await.unwrap();
    assert_eq!(backlog.pending, 3);
    assert!(backlog.oldest_due.is_some_and(|due| due <= store.clock().now()));
    let claimed = claim(store).await;
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.pending, backlog.oldest_due), (3, None), "leased ones are being worked on");
    record(store, &claimed[0], NextStep::Delivered).await;
    record(store, &claimed[1], RETRY).await;
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.pending, backlog.oldest_due), (2, None), "a retry is not due yet");
    store.release(vec![claimed[2].lease]).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().oldest_due, Some(claimed[2].due_at));
    assert_eq!(claim_with(store, PLENTY, 1).await.deliveries.len(), 1);
    store.clock().advance(MINUTE);
    assert!(claim_with(store, PLENTY, 1).await.deliveries.is_empty());
    let oldest = store.backlog().await.unwrap().oldest_due;
    assert_eq!(oldest, None, "a busy endpoint's own queue is no lag of this server");
    store.delete_endpoint(&scope, endpoint_id).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_claimer_is_told_when_something_became_claimable(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let told = async || tokio::time::timeout(SECOND * 5, store.claimable().notified()).await.is_ok();
    assert!(told().await, "after accept");
    settle(store, EXHAUSTED).await;
    store.resend(&scope, accepted.id, endpoint_id, None).await.unwrap();
    assert!(told().await, "after resend");
    disable(store, &scope, endpoint_id).await;
    enable(store, &scope, endpoint_id).await;
    assert!(told().await, "after enabling");
    let claimed = claim_one(store).await;
    store.release(vec![claimed.lease]).await.unwrap();
    assert!(told().await, "after release");
}

/// The store keeps up with an engine: many messages, all recorded, nothing left.
pub async fn many_deliveries_are_worked_off_completely(store: &dyn Store) {
    let scope = application(store).await;
    for _ in 0..3 {
        endpoint(store, &scope).await;
    }
    let publishes = (0..100).map(|_| publish(store, message(&scope)));
    futures_util::future::join_all(publishes).await;
    let mut recorded = 0;
    loop {
        let claimed = claim_with(store, 17, 5).await.deliveries;
        if claimed.is_empty() {
            break;
        }
        let records = claimed
            .iter()
            .map(|item| AttemptRecord {
                lease: item.lease,
                attempt: attempt(store, item, NextStep::Delivered),
                next: NextStep::Delivered,
            })
            .collect();
        for result in store.record(records).await {
            assert_eq!(result.unwrap(), Recorded::Stored(State::Delivered));
            recorded += 1;
        }
    }
    assert_eq!(recorded, 300);
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_delivery_past_its_deadline_is_not_handed_out(store: &dyn Store) {
    let scope = application(store).await;
    let retry = RetryOverride { waits: Some(vec![HOUR]), deadline: Some(2 * HOUR) };
    let endpoint_id = endpoint_with(store, &scope, |fields| fields.retry = retry).await.id;
    let waiting = publish(store, message(&scope)).await;
    store.clock().advance(3 * HOUR);
    let fresh = publish(store, message(&scope)).await;
    assert_eq!(claim_one(store).await.lease.delivery.message, fresh.id);
    // Soon, and nobody says when.
    for _ in 0..100 {
        if store.backlog().await.unwrap().pending == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let state = progress(store, &scope, waiting.id, endpoint_id).await.state;
    assert_eq!(state, State::Failed(GiveUp::Expired));
    assert_eq!(store.backlog().await.unwrap().pending, 1);
}

/// What was claimed before a change asks once more before its first byte.
pub async fn nothing_starts_once_its_endpoint_is_disabled_or_deleted_or_its_payload_gone(store: &dyn Store) {
    const URL: &str = "https://example.com/hook";
    let scope = application(store).await;
    let [switched, deleted, kept] =
        [endpoint(store, &scope).await, endpoint(store, &scope).await, endpoint(store, &scope).await];
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim(store).await;
    let of = |id| claimed.iter().find(|item| item.lease.delivery.endpoint == id).expect("it was claimed");
    disable(store, &scope, switched).await;
    assert!(!store.started(&of(switched).lease, 1, URL));
    store.release(vec![of(switched).lease]).await.unwrap();
    store.delete_endpoint(&scope, deleted).await.unwrap();
    assert!(!store.started(&of(deleted).lease, 1, URL));
    assert!(store.started(&of(kept).lease, 1, URL));
    store.release(vec![of(kept).lease, of(deleted).lease]).await.unwrap();
    let again = claim_one(store).await;
    store.expunge_payload(&scope, accepted.id).await.unwrap();
    assert!(!store.started(&again.lease, 1, URL));
    store.release(vec![again.lease]).await.unwrap();
    enable(store, &scope, switched).await;
    assert!(claim(store).await.is_empty(), "the payload is gone for all of them");
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}
