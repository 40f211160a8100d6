//! Behaviours of the hold: what is on hold waits for a decision, and nothing else does.

use super::fixture::*;
use crate::{
    Store,
    endpoints::AppScope,
    hold::{Decision, Step},
};
use postrider_model::{
    delivery::State,
    id::{EndpointId, MessageId},
    retry::{GiveUp, NextStep},
    time::Timestamp,
};

/// Small, so that a walk takes several steps.
const BATCH: usize = 3;

async fn put(store: &dyn Store) -> u64 {
    let (mut moved, mut place) = (0, None);
    loop {
        let step = store.put_on_hold("a test", place, BATCH).await.unwrap();
        moved += step.moved;
        place = step.next;
        if place.is_none() {
            return moved;
        }
    }
}

async fn decide(store: &dyn Store, decision: Decision) -> Step {
    let mut all = Step::default();
    loop {
        let step = store.decide(decision, all.next, BATCH).await.unwrap();
        all = Step {
            moved: all.moved + step.moved,
            cancelled: all.cancelled + step.cancelled,
            next: step.next,
        };
        if all.next.is_none() {
            return all;
        }
    }
}

async fn state(store: &dyn Store, scope: &AppScope, message: MessageId, endpoint: EndpointId) -> State {
    progress(store, scope, message, endpoint).await.state
}

/// When the deliveries of an endpoint are due, the earliest first, as lists show it.
async fn due(store: &dyn Store, scope: &AppScope, endpoint: EndpointId, of: &[MessageId]) -> Vec<Timestamp> {
    let mut all = Vec::new();
    for message in of {
        if let State::Pending { next_attempt_at } = state(store, scope, *message, endpoint).await {
            all.push(next_attempt_at);
        }
    }
    all.sort_unstable();
    all
}

async fn publish_some(store: &dyn Store, scope: &AppScope, count: usize) -> Vec<MessageId> {
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(publish(store, message(scope)).await.id);
    }
    messages
}

pub async fn what_is_on_hold_waits_and_says_so(store: &dyn Store) {
    let scope = application(store).await;
    let (one, _two) = (endpoint(store, &scope).await, endpoint(store, &scope).await);
    let messages = publish_some(store, &scope, 5).await;
    assert_eq!((store.hold().await.unwrap(), store.held_since()), (None, None));
    let before = store.clock().now();
    assert_eq!(put(store).await, 10);
    assert_eq!(store.next_due().await.unwrap(), None);
    assert!(claim(store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 10, "it is pending all the same");
    let shown = progress(store, &scope, messages[0], one).await;
    assert!(shown.held && shown.attempts == 0, "{shown:?}");
    assert!(matches!(shown.state, State::Pending { next_attempt_at } if next_attempt_at <= before));
    let hold = store.hold().await.unwrap().expect("a hold lasts");
    assert_eq!((hold.reason.as_str(), hold.deliveries, hold.overdue), ("a test", 10, 10));
    assert!(hold.since >= before && hold.oldest_due.is_some_and(|due| due <= before), "{hold:?}");
    assert_eq!(store.held_since(), Some(hold.since));
}

pub async fn what_comes_while_a_hold_lasts_is_delivered(store: &dyn Store) {
    let scope = application(store).await;
    let (_one, two) = (endpoint(store, &scope).await, endpoint(store, &scope).await);
    let messages = publish_some(store, &scope, 5).await;
    assert_eq!(put(store).await, 10);
    let fresh = publish(store, message(&scope)).await.id;
    let resent = store.resend(&scope, messages[0], two, None).await.unwrap().item;
    let claimed = claim(store).await;
    assert_eq!(claimed.len(), 3, "two of the new message and what was resent");
    let expected =
        |delivery: postrider_model::delivery::DeliveryId| delivery.message == fresh || delivery == resent;
    assert!(claimed.iter().all(|item| expected(item.lease.delivery)));
    for item in &claimed {
        record(store, item, RETRY).await;
    }
    store.clock().advance(MINUTE);
    assert_eq!(claim(store).await.len(), 2, "retries of the new message go on");
}

pub async fn what_is_released_is_due_when_it_was(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let messages = publish_some(store, &scope, 4).await;
    retry_one_in_an_hour(store).await;
    let before = due(store, &scope, endpoint_id, &messages).await;
    put(store).await;
    let hold = store.hold().await.unwrap().expect("a hold lasts");
    assert_eq!((hold.deliveries, hold.overdue), (4, 3), "the retry was not due yet");
    assert_eq!(due(store, &scope, endpoint_id, &messages).await, before);
    let step = decide(store, Decision::Release).await;
    assert_eq!((step.moved, step.cancelled), (4, 0));
    assert_eq!((store.hold().await.unwrap(), store.held_since()), (None, None));
    assert_eq!(due(store, &scope, endpoint_id, &messages).await, before);
    assert_eq!(claim(store).await.len(), 3);
    store.clock().advance(HOUR);
    assert_eq!(claim_one(store).await.number, 2);
}

/// Claims one delivery and has it retried after an hour.
async fn retry_one_in_an_hour(store: &dyn Store) -> MessageId {
    let claimed = claim_up_to(store, 1).await.remove(0);
    record(store, &claimed, NextStep::RetryAfter(HOUR)).await;
    claimed.lease.delivery.message
}

pub async fn what_is_dropped_is_cancelled_and_what_was_not_due_yet_is_kept(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let messages = publish_some(store, &scope, 5).await;
    let retried = retry_one_in_an_hour(store).await;
    put(store).await;
    let hold = store.hold().await.unwrap().expect("a hold lasts");
    let step = decide(store, Decision::Drop { due_before: hold.since }).await;
    assert_eq!((step.moved, step.cancelled), (1, 4));
    assert!(claim(store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 1);
    for id in messages {
        let state = state(store, &scope, id, endpoint_id).await;
        assert_eq!(state == State::Cancelled, id != retried, "{state:?}");
    }
    store.clock().advance(HOUR);
    assert_eq!(claim_one(store).await.lease.delivery.message, retried);
}

pub async fn what_is_retimed_is_spread_over_the_time_in_order(store: &dyn Store) {
    let scope = application(store).await;
    let ends = [endpoint(store, &scope).await, endpoint(store, &scope).await];
    let mut messages = Vec::new();
    for _ in 0..10 {
        messages.extend(publish_some(store, &scope, 1).await);
        store.clock().advance(SECOND);
    }
    put(store).await;
    store.clock().advance(2 * DAY);
    let from = store.clock().now();
    let until = from.plus(10 * HOUR);
    let step = decide(store, Decision::Retime { from, until }).await;
    assert_eq!((step.moved, step.cancelled), (20, 0));
    for endpoint_id in ends {
        let mut expected = from;
        for id in &messages {
            let found = state(store, &scope, *id, endpoint_id).await;
            let wanted = State::Pending { next_attempt_at: expected };
            assert_eq!(found, wanted, "evenly, in the order of before");
            expected = expected.plus(HOUR);
        }
    }
    assert_eq!(claim(store).await.len(), 2, "deadlines moved along");
    store.clock().advance(HOUR * 3);
    assert_eq!(claim(store).await.len(), 6);
}

/// DUR-10: a deadline that passed meanwhile ends the delivery when it is released.
pub async fn what_is_past_its_deadline_expires_once_released(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let id = publish(store, message(&scope)).await.id;
    put(store).await;
    store.clock().advance(2 * DAY);
    decide(store, Decision::Release).await;
    assert!(claim(store).await.is_empty());
    for _ in 0..100 {
        if state(store, &scope, id, endpoint_id).await == State::Failed(GiveUp::Expired) {
            return;
        }
        tokio::time::sleep(SECOND / 50).await;
        assert!(claim(store).await.is_empty());
    }
    panic!("it has not expired");
}

pub async fn what_is_on_hold_can_still_be_cancelled_or_settled(store: &dyn Store) {
    let scope = application(store).await;
    let (gone, stays) = (endpoint(store, &scope).await, endpoint(store, &scope).await);
    let id = publish(store, message(&scope)).await.id;
    put(store).await;
    store.delete_endpoint(&scope, gone).await.unwrap();
    store.resend(&scope, id, stays, None).await.unwrap();
    let claimed = claim_one(store).await;
    record(store, &claimed, NextStep::Delivered).await;
    assert_eq!(state(store, &scope, id, stays).await, State::Delivered);
    decide(store, Decision::Release).await;
    assert!(claim(store).await.is_empty());
}

pub async fn a_disabled_endpoint_keeps_what_is_released(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    put(store).await;
    disable(store, &scope, endpoint_id).await;
    decide(store, Decision::Release).await;
    assert!(claim(store).await.is_empty());
    enable(store, &scope, endpoint_id).await;
    claim_one(store).await;
}

pub async fn an_attempt_that_runs_while_the_hold_begins_counts(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let ids = publish_some(store, &scope, 2).await;
    let claimed = claim(store).await;
    assert!(store.started(&claimed[0].lease, 1, "https://example.com/hook"));
    put(store).await;
    assert!(!store.started(&claimed[1].lease, 1, "https://example.com/hook"), "it had not begun");
    store.release(vec![claimed[1].lease]).await.unwrap();
    record(store, &claimed[0], NextStep::Delivered).await;
    let sent = claimed[0].lease.delivery.message;
    assert_eq!(state(store, &scope, sent, endpoint_id).await, State::Delivered);
    assert!(claim(store).await.is_empty());
    assert_eq!(decide(store, Decision::Release).await.moved, 1);
    let left = claim_one(store).await.lease.delivery.message;
    assert!(left != sent && ids.contains(&left));
}
