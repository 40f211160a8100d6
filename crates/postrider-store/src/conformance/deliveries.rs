//! Behaviours of recording attempts, and of how deliveries stand.

use super::fixture::*;
use crate::{
    Store,
    deliveries::{AttemptRecord, ProgressKind, Recorded},
    error::WriteError,
    messages::{Audience, MessageFilter, NewMessage},
    page::{Order, PageRequest, Window},
};
use postrider_model::{
    delivery::{State, Trigger},
    endpoint::DisabledReason,
    retry::{GiveUp, NextStep, RetryOverride},
};
use std::collections::BTreeSet;

pub async fn a_success_ends_a_delivery(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    assert!(store.started(&claimed.lease, claimed.number, "https://example.com/hook"));
    assert_eq!(record(store, &claimed, NextStep::Delivered).await, Recorded::Stored(State::Delivered));
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts, standing.held), (State::Delivered, 1, false));
    store.clock().advance(DAY);
    assert!(claim(store).await.is_empty());
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_retry_is_due_after_its_wait_and_not_before(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    let before = store.clock().now();
    let recorded = record(store, &claimed, RETRY).await;
    let Recorded::Stored(State::Pending { next_attempt_at }) = recorded else { panic!("{recorded:?}") };
    assert!(next_attempt_at >= before.plus(MINUTE) && next_attempt_at <= store.clock().now().plus(MINUTE));
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Pending { next_attempt_at }, 1));
    assert!(claim(store).await.is_empty());
    assert_eq!(store.next_due().await.unwrap(), Some(next_attempt_at));
    store.clock().advance(MINUTE);
    let second = claim_one(store).await;
    assert_eq!((second.number, second.trigger), (2, Trigger::Scheduled));
    assert_eq!(second.due_at, next_attempt_at);
    assert_ne!(second.lease, claimed.lease);
    assert_eq!(second.payload, claimed.payload);
}

pub async fn giving_up_ends_a_delivery_with_the_reason(store: &dyn Store) {
    for reason in [GiveUp::Exhausted, GiveUp::Expired, GiveUp::Quarantined] {
        let scope = application(store).await;
        let endpoint_id = endpoint(store, &scope).await;
        let accepted = publish(store, message(&scope)).await;
        let claimed = claim_one(store).await;
        let recorded = record(store, &claimed, NextStep::GiveUp(reason)).await;
        assert_eq!(recorded, Recorded::Stored(State::Failed(reason)));
        let state = progress(store, &scope, accepted.id, endpoint_id).await.state;
        assert_eq!(state, State::Failed(reason));
        assert!(read_endpoint(store, &scope, endpoint_id).await.disabled.is_none());
    }
    store.clock().advance(DAY);
    assert!(claim(store).await.is_empty());
}

pub async fn a_retry_beyond_the_deadline_expires(store: &dyn Store) {
    let scope = application(store).await;
    let retry = RetryOverride { waits: Some(vec![HOUR; 10]), deadline: Some(2 * HOUR + MINUTE) };
    let endpoint_id = endpoint_with(store, &scope, |fields| fields.retry = retry).await.id;
    let accepted = publish(store, message(&scope)).await;
    for _ in 0..2 {
        settle(store, NextStep::RetryAfter(HOUR)).await;
        store.clock().advance(HOUR);
    }
    let recorded = record(store, &claim_one(store).await, NextStep::RetryAfter(HOUR)).await;
    assert_eq!(recorded, Recorded::Stored(State::Failed(GiveUp::Expired)));
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert_eq!((standing.state, standing.attempts), (State::Failed(GiveUp::Expired), 3));
}

/// The suite's server has the default policy: without a deadline of its own, days.
pub async fn a_deadline_of_its_own_needs_no_schedule_of_its_own(store: &dyn Store) {
    let scope = application(store).await;
    let short = RetryOverride { waits: None, deadline: Some(2 * HOUR) };
    let short = endpoint_with(store, &scope, |fields| fields.retry = short).await.id;
    let plain = endpoint_with(store, &scope, |fields| fields.retry = RetryOverride::default()).await.id;
    let accepted = publish(store, message(&scope)).await;
    let mut ends = Vec::new();
    for claimed in claim(store).await {
        ends.push(record(store, &claimed, NextStep::RetryAfter(3 * HOUR)).await);
    }
    assert_eq!(ends.len(), 2);
    let expired = progress(store, &scope, accepted.id, short).await.state;
    assert_eq!(expired, State::Failed(GiveUp::Expired));
    let waiting = progress(store, &scope, accepted.id, plain).await.state;
    assert!(matches!(waiting, State::Pending { .. }), "{waiting:?}");
    store.resend(&scope, accepted.id, short, None).await.unwrap();
    store.clock().advance(2 * HOUR);
    assert!(claim(store).await.is_empty(), "a resent one has the same age");
}

pub async fn the_age_of_a_message_for_later_counts_from_then(store: &dyn Store) {
    let scope = application(store).await;
    let retry = RetryOverride { waits: Some(vec![HOUR; 10]), deadline: Some(2 * HOUR) };
    endpoint_with(store, &scope, |fields| fields.retry = retry).await;
    let at = store.clock().now().plus(10 * HOUR);
    publish(store, NewMessage { deliver_at: Some(at), ..message(&scope) }).await;
    store.clock().advance(10 * HOUR);
    let recorded = record(store, &claim_one(store).await, NextStep::RetryAfter(HOUR)).await;
    assert!(matches!(recorded, Recorded::Stored(State::Pending { .. })), "{recorded:?}");
}

pub async fn an_endpoint_that_is_gone_is_disabled_with_the_reason(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let first_message = publish(store, message(&scope)).await;
    let second = publish(store, message(&scope)).await;
    let claimed = claim_with(store, 1, PLENTY).await.deliveries.remove(0);
    let recorded = record(store, &claimed, NextStep::GiveUp(GiveUp::Gone)).await;
    assert_eq!(recorded, Recorded::Stored(State::Failed(GiveUp::Gone)));
    let standing = progress(store, &scope, claimed.lease.delivery.message, endpoint_id).await;
    assert!(!standing.held, "what has ended does not wait: {standing:?}");
    let read = read_endpoint(store, &scope, endpoint_id).await;
    let disabled = read.disabled.clone().expect("it is disabled");
    assert_eq!(disabled.reason, DisabledReason::Gone);
    assert!(disabled.at <= store.clock().now());
    let other = if claimed.lease.delivery.message == first_message.id { second.id } else { first_message.id };
    let standing = progress(store, &scope, other, endpoint_id).await;
    assert!(standing.held && matches!(standing.state, State::Pending { .. }), "{standing:?}");
    assert!(claim(store).await.is_empty());
    let settings = store.send_settings(&scope, endpoint_id).await.unwrap().expect("it exists");
    assert!(settings.endpoint.disabled.is_some(), "what is sent with knows it at once");
    publish(store, message(&scope)).await;
    assert_eq!(store.backlog().await.unwrap().pending, 1, "new messages do not go there");
    let renamed = change_endpoint(store, &scope, endpoint_id, |fields| fields.legacy_version = 9).await;
    assert_eq!(renamed.disabled, Some(disabled), "an unrelated change keeps reason and time");
    assert_eq!(enable(store, &scope, endpoint_id).await.disabled, None);
    assert_eq!(claim(store).await.len(), 1);
}

pub async fn a_delivery_that_ran_while_its_endpoint_was_disabled_is_recorded_and_held(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    disable(store, &scope, endpoint_id).await;
    let recorded = record(store, &claimed, RETRY).await;
    assert!(matches!(recorded, Recorded::Stored(State::Pending { .. })), "{recorded:?}");
    store.clock().advance(HOUR);
    assert!(claim(store).await.is_empty());
    enable(store, &scope, endpoint_id).await;
    assert_eq!(claim_one(store).await.number, 2);
}

pub async fn a_deleted_endpoint_cancels_its_deliveries_and_keeps_its_history(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let delivered = publish(store, message(&scope)).await;
    settle(store, NextStep::Delivered).await;
    let running = publish(store, message(&scope)).await;
    let leased = claim_one(store).await;
    let waiting = publish(store, message(&scope)).await;
    assert!(store.delete_endpoint(&scope, endpoint_id).await.unwrap());
    assert!(claim(store).await.is_empty());
    assert!(!store.started(&leased.lease, 1, "https://example.com/hook"), "nothing may be sent any more");
    assert_eq!(record(store, &leased, NextStep::Delivered).await, Recorded::Stored(State::Cancelled));
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    for (id, state, attempts) in [
        (delivered.id, State::Delivered, 1),
        (running.id, State::Cancelled, 1),
        (waiting.id, State::Cancelled, 0),
    ] {
        let page = store.destinations(&scope, id, first(10)).await.unwrap();
        assert_eq!(page.items.len(), 1, "the deleted endpoint is listed");
        assert_eq!(page.items[0].endpoint.id, endpoint_id);
        assert_eq!(page.items[0].endpoint.url, url("https://example.com/hook"));
        assert_eq!((page.items[0].progress.state, page.items[0].progress.attempts), (state, attempts));
    }
}

pub async fn a_lease_is_good_for_one_record(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let claimed = claim_one(store).await;
    record(store, &claimed, RETRY).await;
    assert_eq!(record(store, &claimed, NextStep::Delivered).await, Recorded::Superseded);
    assert!(!store.started(&claimed.lease, 1, "https://example.com/hook"));
    store.release(vec![claimed.lease]).await.unwrap();
    let standing = progress(store, &scope, accepted.id, endpoint_id).await;
    assert!(matches!(standing.state, State::Pending { .. }), "{standing:?}");
    assert_eq!(standing.attempts, 1, "the second attempt is not stored");
    assert!(claim(store).await.is_empty(), "releasing a lost lease makes nothing due");
    store.clock().advance(MINUTE);
    let second = claim_one(store).await;
    assert_eq!(record(store, &claimed, NextStep::Delivered).await, Recorded::Superseded);
    assert_eq!(record(store, &second, NextStep::Delivered).await, Recorded::Stored(State::Delivered));
    assert_eq!(record(store, &second, NextStep::Delivered).await, Recorded::Superseded);
}

pub async fn records_of_a_batch_have_a_result_each(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    store.accept(vec![message(&scope); 3]).await;
    let claimed = claim(store).await;
    record(store, &claimed[1], NextStep::Delivered).await;
    let records = claimed
        .iter()
        .zip([NextStep::Delivered, NextStep::Delivered, EXHAUSTED])
        .map(|(item, next)| AttemptRecord { lease: item.lease, attempt: attempt(store, item, next), next })
        .collect();
    let results: Vec<_> = store.record(records).await.into_iter().map(Result::unwrap).collect();
    let expected = [
        Recorded::Stored(State::Delivered),
        Recorded::Superseded,
        Recorded::Stored(State::Failed(GiveUp::Exhausted)),
    ];
    assert_eq!(results, expected);
}

pub async fn destinations_are_listed_by_page(store: &dyn Store) {
    let scope = application(store).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(endpoint(store, &scope).await);
    }
    let accepted = publish(store, message(&scope)).await;
    store.resend(&scope, accepted.id, ids[1], None).await.unwrap();
    let page = async |cursor, backward| {
        let request = PageRequest { limit: 2, order: Order::Ascending, cursor, backward };
        let page = store.destinations(&scope, accepted.id, request).await.unwrap();
        (page.items.iter().map(|item| item.endpoint.id).collect::<Vec<_>>(), page.done)
    };
    assert_eq!(page(None, false).await, (ids[..2].to_vec(), false));
    assert_eq!(page(Some(ids[1]), false).await, (ids[2..4].to_vec(), false));
    assert_eq!(page(Some(ids[3]), false).await, (ids[4..].to_vec(), true));
    assert_eq!(page(Some(ids[4]), true).await, (ids[2..4].to_vec(), false));
    let all = store.destinations(&scope, accepted.id, newest(10)).await.unwrap();
    let reversed: Vec<_> = ids.iter().rev().copied().collect();
    assert_eq!(all.items.iter().map(|item| item.endpoint.id).collect::<Vec<_>>(), reversed);
    let unknown = store.destinations(&scope, store.ids().next(store.clock().now()), first(10)).await.unwrap();
    assert!(unknown.items.is_empty() && unknown.done);
}

pub async fn messages_of_an_endpoint_are_filtered_by_how_they_stand(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let publish_to = async |next: Option<NextStep>| {
        let id = publish(store, message(&scope)).await.id;
        if let Some(next) = next {
            settle(store, next).await;
        }
        id
    };
    let delivered = publish_to(Some(NextStep::Delivered)).await;
    let failed = publish_to(Some(EXHAUSTED)).await;
    let retrying = publish_to(Some(NextStep::RetryAfter(HOUR))).await;
    let cancelled = publish_to(None).await;
    store.expunge_payload(&scope, cancelled).await.unwrap();
    let resent = publish_to(Some(EXHAUSTED)).await;
    store.resend(&scope, resent, endpoint_id, None).await.unwrap();
    settle(store, NextStep::Delivered).await;
    let waiting = publish_to(None).await;
    let list = async |kind, page| {
        let filter = MessageFilter::default();
        let page = store.endpoint_messages(&scope, endpoint_id, filter, kind, false, page).await.unwrap();
        page.items.iter().map(|item| item.message.message.id).collect::<Vec<_>>()
    };
    for (kind, expected) in [
        (None, vec![delivered, failed, retrying, cancelled, resent, waiting]),
        (Some(ProgressKind::Delivered), vec![delivered, resent]),
        (Some(ProgressKind::Failed), vec![failed]),
        (Some(ProgressKind::Retrying), vec![retrying]),
        (Some(ProgressKind::Cancelled), vec![cancelled]),
        (Some(ProgressKind::Waiting), vec![waiting]),
    ] {
        assert_eq!(list(kind, first(10)).await, expected, "{kind:?}");
        let reversed: Vec<_> = expected.iter().rev().copied().collect();
        assert_eq!(list(kind, newest(10)).await, reversed, "{kind:?}");
    }
    assert_eq!(list(Some(ProgressKind::Delivered), first(1)).await, [delivered]);
}

pub async fn messages_of_an_endpoint_are_filtered_and_paged(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let mut ids = Vec::new();
    let mut times = Vec::new();
    for number in 0..6 {
        store.clock().advance(SECOND);
        let tagged = if number % 2 == 0 { tags(&["even"]) } else { BTreeSet::new() };
        let accepted = publish(store, NewMessage { tags: tagged, ..message(&scope) }).await;
        ids.push(accepted.id);
        times.push(accepted.created_at);
    }
    let other = endpoint(store, &scope).await;
    publish(store, NewMessage { audience: Audience::Only(other), ..message(&scope) }).await;
    let list = async |filter, cursor, backward| {
        let request = PageRequest { limit: 2, order: Order::Descending, cursor, backward };
        let page = store.endpoint_messages(&scope, endpoint_id, filter, None, true, request).await.unwrap();
        assert!(page.items.iter().all(|item| item.message.payload.is_some()));
        (page.items.iter().map(|item| item.message.message.id).collect::<Vec<_>>(), page.done)
    };
    let any = MessageFilter::default;
    assert_eq!(list(any(), None, false).await, (vec![ids[5], ids[4]], false));
    assert_eq!(list(any(), Some(ids[4]), false).await, (vec![ids[3], ids[2]], false));
    assert_eq!(list(any(), Some(ids[2]), false).await, (vec![ids[1], ids[0]], true));
    assert_eq!(list(any(), Some(ids[1]), true).await, (vec![ids[3], ids[2]], false));
    let even = MessageFilter { tag: tags(&["even"]).pop_first(), ..any() };
    assert_eq!(list(even.clone(), None, false).await, (vec![ids[4], ids[2]], false));
    assert_eq!(list(even, Some(ids[2]), false).await, (vec![ids[0]], true));
    let window = MessageFilter { window: Window { from: Some(times[1]), until: Some(times[3]) }, ..any() };
    assert_eq!(list(window, None, false).await, (vec![ids[2], ids[1]], true));
}

/// A message that was matched before its endpoint was deleted leaves nothing pending behind.
pub async fn messages_beside_a_deletion_leave_nothing_pending(store: &dyn Store) {
    for _ in 0..10 {
        let scope = application(store).await;
        let id = endpoint(store, &scope).await;
        let many = futures_util::future::join_all((0..20).map(|_| publish(store, message(&scope))));
        let (deleted, messages) = tokio::join!(store.delete_endpoint(&scope, id), many);
        assert!(deleted.unwrap());
        assert!(claim(store).await.is_empty());
        assert_eq!(store.backlog().await.unwrap().pending, 0);
        for message in messages {
            let standing = find_progress(store, &scope, message.id, id).await;
            assert!(standing.is_none_or(|standing| standing.state == State::Cancelled), "{standing:?}");
        }
    }
}

pub async fn messages_beside_the_deletion_of_their_application_are_refused_or_cancelled(store: &dyn Store) {
    for _ in 0..10 {
        let scope = application(store).await;
        endpoint(store, &scope).await;
        let many = futures_util::future::join_all((0..20).map(|_| try_publish(store, message(&scope))));
        let deletion = store.delete_application(&scope.environment, scope.application);
        let (deleted, results) = tokio::join!(deletion, many);
        assert!(deleted.unwrap());
        assert!(
            results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Missing))),
            "{results:?}"
        );
        assert!(claim(store).await.is_empty());
        assert_eq!(store.backlog().await.unwrap().pending, 0);
    }
}
