//! Behaviours of the history: attempts as they can be read.

use super::fixture::*;
use crate::{
    Store,
    attempts::{AttemptFilter, AttemptsOf, EndpointStats, ListedAttempt},
    endpoints::AppScope,
    messages::{MessageFilter, NewMessage},
    page::{Order, PageRequest, Window},
};
use bytes::Bytes;
use postrider_model::{
    delivery::{State, Trigger},
    id::AttemptId,
    outcome::Outcome,
    retry::NextStep,
};

async fn list(store: &dyn Store, scope: &AppScope, of: AttemptsOf) -> Vec<ListedAttempt> {
    let page = store.attempts(scope, of, AttemptFilter::default(), false, first(250)).await.unwrap();
    assert!(page.done);
    page.items
}

pub async fn a_recorded_attempt_reads_back(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    let wanted = attempt(store, &claimed, RETRY);
    record_attempt(store, &claimed, wanted.clone(), RETRY).await;
    for of in [
        AttemptsOf::Endpoint(endpoint_id),
        AttemptsOf::Message(accepted.id),
        AttemptsOf::MessageToEndpoint(accepted.id, endpoint_id),
    ] {
        let listed = list(store, &scope, of).await;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].attempt, wanted);
        assert!(listed[0].latest && listed[0].message.is_none());
        assert!(matches!(listed[0].progress.state, State::Pending { .. }));
    }
    let single = store.attempt(&scope, accepted.id, wanted.id).await.unwrap().expect("it was recorded");
    assert_eq!(single.attempt, wanted);
    assert!(single.latest && single.progress.attempts == 1);
    let other = publish(store, message(&scope)).await;
    assert!(store.attempt(&scope, other.id, wanted.id).await.unwrap().is_none(), "of another message");
}

pub async fn an_attempt_without_a_status_line_reads_back(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    let wanted = attempt_with(store, &claimed, Outcome::Timeout, None);
    record_attempt(store, &claimed, wanted.clone(), RETRY).await;
    assert_eq!(list(store, &scope, AttemptsOf::Endpoint(endpoint_id)).await[0].attempt, wanted);
}

pub async fn the_newest_attempt_of_message_and_endpoint_is_the_latest(store: &dyn Store) {
    let scope = application(store).await;
    let one = endpoint(store, &scope).await;
    endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    settle(store, RETRY).await;
    store.clock().advance(MINUTE);
    settle(store, NextStep::Delivered).await;
    store.clock().advance(SECOND);
    store.resend(&scope, accepted.id, one, None).await.unwrap();
    settle(store, EXHAUSTED).await;
    let listed = list(store, &scope, AttemptsOf::MessageToEndpoint(accepted.id, one)).await;
    let seen: Vec<_> =
        listed.iter().map(|item| (item.attempt.number, item.attempt.trigger, item.latest)).collect();
    assert_eq!(
        seen,
        [(1, Trigger::Scheduled, false), (2, Trigger::Scheduled, false), (1, Trigger::Manual, true)]
    );
    assert!(listed.iter().all(|item| item.progress.state == State::Delivered && item.progress.attempts == 3));
    let all = list(store, &scope, AttemptsOf::Message(accepted.id)).await;
    assert_eq!(all.len(), 5);
    assert_eq!(all.iter().filter(|item| item.latest).count(), 2, "one per endpoint");
}

pub async fn attempts_are_listed_by_page_in_both_directions(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    for _ in 0..5 {
        publish(store, message(&scope)).await;
        settle(store, NextStep::Delivered).await;
    }
    let ids: Vec<AttemptId> = list(store, &scope, AttemptsOf::Endpoint(endpoint_id))
        .await
        .iter()
        .map(|item| item.attempt.id)
        .collect();
    assert!(ids.is_sorted() && ids.len() == 5);
    for (order, expected) in
        [(Order::Ascending, ids.clone()), (Order::Descending, ids.iter().rev().copied().collect::<Vec<_>>())]
    {
        let page = async |cursor, backward| {
            let request = PageRequest { limit: 2, order, cursor, backward };
            let of = AttemptsOf::Endpoint(endpoint_id);
            let page = store.attempts(&scope, of, AttemptFilter::default(), true, request).await.unwrap();
            assert!(page.items.iter().all(|item| {
                item.message.as_ref().is_some_and(|message| message.id == item.attempt.delivery.message)
            }));
            (page.items.iter().map(|item| item.attempt.id).collect::<Vec<_>>(), page.done)
        };
        assert_eq!(page(None, false).await, (expected[..2].to_vec(), false));
        assert_eq!(page(Some(expected[1]), false).await, (expected[2..4].to_vec(), false));
        assert_eq!(page(Some(expected[3]), false).await, (expected[4..].to_vec(), true));
        assert_eq!(page(Some(expected[4]), true).await, (expected[2..4].to_vec(), false));
        assert_eq!(page(Some(expected[2]), true).await, (expected[..2].to_vec(), true));
    }
}

/// Makes one attempt of a new message and gives the attempt's id.
async fn attempt_once(
    store: &dyn Store,
    new: NewMessage,
    outcome: Outcome,
    status: Option<u16>,
) -> AttemptId {
    store.clock().advance(SECOND);
    publish(store, new).await;
    let claimed = claim_one(store).await;
    let made = attempt_with(store, &claimed, outcome, status);
    let id = made.id;
    let next = if outcome == Outcome::Succeeded { NextStep::Delivered } else { EXHAUSTED };
    record_attempt(store, &claimed, made, next).await;
    id
}

pub async fn attempts_are_filtered_by_success_and_status_class(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let mut made = Vec::new();
    for (outcome, status) in [
        (Outcome::Succeeded, Some(204)),
        (Outcome::RedirectNotFollowed, Some(301)),
        (Outcome::HttpError, Some(404)),
        (Outcome::HttpError, Some(500)),
        (Outcome::HttpError, Some(599)),
        (Outcome::Connect, None),
        (Outcome::Timeout, None),
    ] {
        made.push(attempt_once(store, message(&scope), outcome, status).await);
    }
    let list = async |succeeded, status_class| {
        let filter = AttemptFilter { succeeded, status_class, ..AttemptFilter::default() };
        let of = AttemptsOf::Endpoint(endpoint_id);
        let page = store.attempts(&scope, of, filter, false, first(10)).await.unwrap();
        page.items.iter().map(|item| item.attempt.id).collect::<Vec<_>>()
    };
    for (succeeded, class, expected) in [
        (None, None, &made[..]),
        (Some(true), None, &made[..1]),
        (Some(false), None, &made[1..]),
        (None, Some(2), &made[..1]),
        (None, Some(3), &made[1..2]),
        (None, Some(4), &made[2..3]),
        (None, Some(5), &made[3..5]),
        (None, Some(0), &made[5..]),
        (None, Some(1), &[]),
        (Some(true), Some(5), &[]),
        (Some(false), Some(5), &made[3..5]),
    ] {
        assert_eq!(list(succeeded, class).await, expected, "{succeeded:?} {class:?}");
    }
}

pub async fn attempts_are_filtered_by_their_messages_and_by_time(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let publish_as = async |name: &str, on: &[&str], tagged: &[&str]| {
        let new = NewMessage {
            event_type: event_type(name),
            channels: channels(on),
            tags: tags(tagged),
            ..message(&scope)
        };
        attempt_once(store, new, Outcome::Succeeded, Some(200)).await
    };
    let one = publish_as("a", &["eu"], &["red"]).await;
    let two = publish_as("b", &["eu", "us"], &[]).await;
    let three = publish_as("a", &[], &["red"]).await;
    let list = async |message: MessageFilter| {
        let filter = AttemptFilter { message, ..AttemptFilter::default() };
        let of = AttemptsOf::Endpoint(endpoint_id);
        let page = store.attempts(&scope, of, filter, false, first(10)).await.unwrap();
        page.items.iter().map(|item| item.attempt.id).collect::<Vec<_>>()
    };
    let any = MessageFilter::default;
    let (from, until) = (Some(two.timestamp()), Some(three.timestamp()));
    for (filter, expected) in [
        (MessageFilter { channel: channels(&["eu"]).pop_first(), ..any() }, vec![one, two]),
        (MessageFilter { tag: tags(&["red"]).pop_first(), ..any() }, vec![one, three]),
        (MessageFilter { event_types: [event_type("a")].into(), ..any() }, vec![one, three]),
        (
            MessageFilter { event_types: [event_type("a"), event_type("b")].into(), ..any() },
            vec![one, two, three],
        ),
        (MessageFilter { window: Window { from, until: None }, ..any() }, vec![two, three]),
        (MessageFilter { window: Window { from: None, until: from }, ..any() }, vec![one]),
        (MessageFilter { window: Window { from, until }, ..any() }, vec![two]),
        (
            MessageFilter {
                event_types: [event_type("a")].into(),
                window: Window { from, until: None },
                ..any()
            },
            vec![three],
        ),
    ] {
        assert_eq!(list(filter.clone()).await, expected, "{filter:?}");
    }
}

pub async fn an_expunged_response_is_gone_and_nothing_else(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    let wanted = attempt(store, &claimed, NextStep::Delivered);
    record_attempt(store, &claimed, wanted.clone(), NextStep::Delivered).await;
    assert!(store.expunge_response(&scope, accepted.id, wanted.id).await.unwrap());
    let read = store.attempt(&scope, accepted.id, wanted.id).await.unwrap().expect("it stays").attempt;
    assert_eq!((read.response.body.clone(), read.response.expunged), (Bytes::new(), true));
    let mut rest = read;
    rest.response = wanted.response.clone();
    assert_eq!(rest, wanted);
    assert!(store.expunge_response(&scope, accepted.id, wanted.id).await.unwrap(), "twice is no error");
    let unknown = store.ids().next(store.clock().now());
    assert!(!store.expunge_response(&scope, accepted.id, unknown).await.unwrap());
}

pub async fn endpoint_stats_count_attempts_and_deliveries(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let stats = async |window| store.endpoint_stats(&scope, endpoint_id, window).await.unwrap();
    assert_eq!(stats(Window::default()).await, EndpointStats::default());
    attempt_once(store, message(&scope), Outcome::Succeeded, Some(200)).await;
    attempt_once(store, message(&scope), Outcome::HttpError, Some(500)).await;
    store.clock().advance(HOUR);
    let later = store.clock().now();
    publish(store, message(&scope)).await;
    settle(store, NextStep::RetryAfter(DAY / 2)).await;
    let cancelled = publish(store, message(&scope)).await;
    store.expunge_payload(&scope, cancelled.id).await.unwrap();
    for _ in 0..3 {
        publish(store, message(&scope)).await;
    }
    let expected = EndpointStats { succeeded: 1, failed: 2, waiting: 3, retrying: 1, cancelled: 1 };
    assert_eq!(stats(Window::default()).await, expected);
    let before = stats(Window { from: None, until: Some(later) }).await;
    assert_eq!(before, EndpointStats { succeeded: 1, failed: 1, ..EndpointStats::default() });
    let after = stats(Window { from: Some(later), until: None }).await;
    assert_eq!(after, EndpointStats { succeeded: 0, failed: 1, ..expected });
}
