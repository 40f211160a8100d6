//! Behaviours of messages: accepting and reading them.

use super::fixture::*;
use crate::{
    Store,
    error::WriteError,
    messages::{Audience, MessageFilter, NewMessage},
    page::{Order, PageRequest, Window},
};
use bytes::Bytes;
use postrider_model::{
    application::Ref,
    delivery::{State, Trigger},
    filter::Filter,
    retry::NextStep,
};
use std::collections::BTreeSet;

pub async fn an_accepted_message_reads_back_byte_for_byte(store: &dyn Store) {
    let scope = application(store).await;
    let before = store.clock().now();
    let new = NewMessage {
        event_id: Some(uid("invoice-7")),
        channels: channels(&["eu", "us"]),
        tags: tags(&["a/b", "c#d"]),
        content_type: Some("text/plain".to_owned()),
        payload: Bytes::from_static("{ \"a\": 1e308, \"a\": 1.0,\r\n\t\"ü\": \"\\u0041\" }".as_bytes()),
        ..message(&scope)
    };
    let accepted = try_publish(store, new.clone()).await.unwrap();
    assert!(!accepted.replayed);
    let stored = accepted.message;
    assert_eq!(stored.application, scope.application);
    assert_eq!(stored.event_id, new.event_id);
    assert_eq!(stored.event_type, new.event_type);
    assert_eq!(stored.channels, new.channels);
    assert_eq!(stored.tags, new.tags);
    assert_eq!(stored.content_type, new.content_type);
    assert_eq!(stored.deliver_at, None);
    assert!(stored.created_at >= before && stored.created_at <= store.clock().now());
    assert!(stored.payload_expires_at > stored.created_at);
    for reference in [Ref::Id(stored.id), Ref::Uid(uid("invoice-7"))] {
        let read = store.message(&scope, &reference).await.unwrap().expect("it was accepted");
        assert_eq!(read.message, stored);
        assert_eq!(read.payload.as_ref(), Some(&new.payload));
    }
    assert_eq!(store.message(&scope, &Ref::Uid(uid("invoice-8"))).await.unwrap(), None);
}

/// ING-3: the bytes of a delivery are the bytes that were published, also of the largest payload.
pub async fn a_claim_carries_the_published_bytes(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let mut payload = b"{\"large\": \"".to_vec();
    payload.resize(postrider_model::limits::PAYLOAD_BYTES - 2, b'x');
    payload.extend_from_slice(b"\"}");
    let new = NewMessage {
        payload: Bytes::from(payload),
        content_type: Some("application/cloudevents+json".to_owned()),
        ..message(&scope)
    };
    let accepted = publish(store, new.clone()).await;
    let claimed = claim_one(store).await;
    assert_eq!(claimed.payload, new.payload);
    assert_eq!(claimed.content_type, new.content_type);
    assert_eq!(claimed.scope, scope);
    assert_eq!(claimed.lease.delivery.message, accepted.id);
    assert_eq!(claimed.lease.delivery.endpoint, endpoint_id);
    assert_eq!(claimed.lease.delivery.generation, 0);
    assert_eq!((claimed.number, claimed.trigger, claimed.deaths), (1, Trigger::Scheduled, 0));
    assert_eq!(claimed.accepted_at, accepted.created_at);
    assert!(claimed.due_at <= store.clock().now());
}

pub async fn a_message_goes_to_each_enabled_endpoint_whose_filter_matches(store: &dyn Store) {
    let scope = application(store).await;
    let everything = endpoint(store, &scope).await;
    let of_type = |names: &[&str]| names.iter().map(|name| event_type(name)).collect::<BTreeSet<_>>();
    let paid = endpoint_with(store, &scope, |fields| {
        fields.filter =
            Filter { event_types: of_type(&["invoice.paid", "invoice.sent"]), ..Filter::default() };
    })
    .await
    .id;
    let europe = endpoint_with(store, &scope, |fields| {
        fields.filter = Filter { channels: channels(&["eu"]), ..Filter::default() };
    })
    .await
    .id;
    let both = endpoint_with(store, &scope, |fields| {
        fields.filter = Filter { event_types: of_type(&["invoice.paid"]), channels: channels(&["eu", "us"]) };
    })
    .await
    .id;
    endpoint_with(store, &scope, |fields| fields.disabled = true).await;
    let stranger = application(store).await;
    endpoint(store, &stranger).await;
    for (name, on, expected) in [
        ("invoice.paid", &[][..], vec![everything, paid]),
        ("invoice.paid", &["eu"], vec![everything, paid, europe, both]),
        ("invoice.paid", &["asia", "us"], vec![everything, paid, both]),
        ("document.processed", &["eu"], vec![everything, europe]),
        ("document.processed", &[], vec![everything]),
    ] {
        publish(
            store,
            NewMessage { event_type: event_type(name), channels: channels(on), ..message(&scope) },
        )
        .await;
        let claimed = claim(store).await;
        let mut reached: Vec<_> = claimed.iter().map(|item| item.lease.delivery.endpoint).collect();
        reached.sort();
        assert_eq!(reached, expected, "{name} on {on:?}");
        for item in claimed {
            record(store, &item, NextStep::Delivered).await;
        }
        assert!(store.any_match(&scope, &event_type(name), &channels(on)).await.unwrap());
    }
}

/// ING-7.
pub async fn a_message_without_matching_endpoint_is_kept_and_makes_no_work(store: &dyn Store) {
    let scope = application(store).await;
    let none = BTreeSet::new();
    let accepted = publish(store, message(&scope)).await;
    assert!(!store.any_match(&scope, &event_type("document.processed"), &none).await.unwrap());
    assert!(store.message(&scope, &Ref::Id(accepted.id)).await.unwrap().is_some());
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    let later = endpoint(store, &scope).await;
    assert!(store.any_match(&scope, &event_type("document.processed"), &none).await.unwrap());
    assert!(claim(store).await.is_empty(), "a later endpoint gets nothing of it");
    assert_eq!(find_progress(store, &scope, accepted.id, later).await, None);
    disable(store, &scope, later).await;
    assert!(!store.any_match(&scope, &event_type("document.processed"), &none).await.unwrap());
}

pub async fn an_event_id_is_unique_in_its_application(store: &dyn Store) {
    let scope = application(store).await;
    let new = NewMessage { event_id: Some(uid("event-1")), ..message(&scope) };
    let first = publish(store, new.clone()).await;
    let again = try_publish(store, new.clone()).await;
    assert!(matches!(again, Err(WriteError::Taken)), "{again:?}");
    let elsewhere = application(store).await;
    let other = publish(store, NewMessage { scope: elsewhere, ..new }).await;
    assert_ne!(other.id, first.id);
}

pub async fn of_many_messages_with_one_event_id_one_is_accepted(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    let new = NewMessage { event_id: Some(uid("event-1")), ..message(&scope) };
    let publishes = (0..20).map(|_| try_publish(store, new.clone()));
    let mut results = futures_util::future::join_all(publishes).await;
    results.extend(store.accept(vec![new.clone(), new]).await);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Taken))), "{results:?}");
    assert_eq!(claim(store).await.len(), 1);
}

pub async fn one_refused_item_fails_alone(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    publish(store, NewMessage { event_id: Some(uid("taken")), ..message(&scope) }).await;
    settle(store, NextStep::Delivered).await;
    let unknown = store.ids().next(store.clock().now());
    let nowhere = crate::endpoints::AppScope { application: unknown, ..scope.clone() };
    let results = store
        .accept(vec![
            NewMessage { event_id: Some(uid("one")), ..message(&scope) },
            NewMessage { event_id: Some(uid("taken")), ..message(&scope) },
            NewMessage { event_id: Some(uid("one")), ..message(&scope) },
            message(&nowhere),
            NewMessage {
                audience: Audience::Only(store.ids().next(store.clock().now())),
                event_id: Some(uid("unreachable")),
                ..message(&scope)
            },
            NewMessage { event_id: Some(uid("two")), ..message(&scope) },
        ])
        .await;
    assert_eq!(results.len(), 6);
    assert_eq!(results[0].as_ref().unwrap().message.event_id, Some(uid("one")));
    assert!(matches!(results[1], Err(WriteError::Taken)), "{:?}", results[1]);
    assert!(matches!(results[2], Err(WriteError::Taken)), "{:?}", results[2]);
    assert!(matches!(results[3], Err(WriteError::Missing)), "{:?}", results[3]);
    assert!(matches!(results[4], Err(WriteError::Missing)), "{:?}", results[4]);
    assert_eq!(results[5].as_ref().unwrap().message.event_id, Some(uid("two")));
    assert_eq!(claim(store).await.len(), 2);
    assert_eq!(store.message(&scope, &Ref::Uid(uid("unreachable"))).await.unwrap(), None);
}

pub async fn nothing_accepted_comes_of_no_items(store: &dyn Store) {
    assert!(store.accept(vec![]).await.is_empty());
    assert!(store.record(vec![]).await.is_empty());
    store.release(vec![]).await.unwrap();
}

pub async fn a_message_for_one_endpoint_passes_its_filter_and_goes_nowhere_else(store: &dyn Store) {
    let scope = application(store).await;
    endpoint(store, &scope).await;
    let chosen = endpoint_with(store, &scope, |fields| {
        fields.filter = Filter { channels: channels(&["eu"]), ..Filter::default() };
    })
    .await
    .id;
    let accepted = publish(store, NewMessage { audience: Audience::Only(chosen), ..message(&scope) }).await;
    let claimed = claim_one(store).await;
    assert_eq!(claimed.lease.delivery.endpoint, chosen);
    assert_eq!(claimed.trigger, Trigger::Manual);
    record(store, &claimed, RETRY).await;
    let state = progress(store, &scope, accepted.id, chosen).await.state;
    assert!(matches!(state, State::Failed(_)), "one attempt, no retries: {state:?}");
    let stranger = application(store).await;
    let theirs = endpoint(store, &stranger).await;
    let refused =
        try_publish(store, NewMessage { audience: Audience::Only(theirs), ..message(&scope) }).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
}

pub async fn a_message_for_later_is_due_then_and_not_before(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let at = store.clock().now().plus(HOUR);
    let accepted = publish(store, NewMessage { deliver_at: Some(at), ..message(&scope) }).await;
    assert_eq!(accepted.deliver_at, Some(at));
    let claimed = claim_with(store, PLENTY, PLENTY).await;
    assert!(claimed.deliveries.is_empty());
    assert_eq!(claimed.next_due, Some(at));
    assert_eq!(store.next_due().await.unwrap(), Some(at));
    let state = progress(store, &scope, accepted.id, endpoint_id).await.state;
    assert_eq!(state, State::Pending { next_attempt_at: at });
    store.clock().advance(59 * MINUTE);
    assert!(claim(store).await.is_empty());
    store.clock().advance(MINUTE);
    assert_eq!(claim_one(store).await.due_at, at);
}

/// LIFE-3: configuration in memory never outlives a change.
pub async fn a_changed_configuration_counts_for_the_next_message(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    let reaches = async || {
        publish(store, message(&scope)).await;
        let claimed = claim(store).await;
        for item in &claimed {
            record(store, item, NextStep::Delivered).await;
        }
        claimed.len()
    };
    assert_eq!(reaches().await, 1);
    let other = Filter { event_types: [event_type("other")].into(), ..Filter::default() };
    change_endpoint(store, &scope, id, |fields| fields.filter = other).await;
    assert_eq!(reaches().await, 0);
    change_endpoint(store, &scope, id, |fields| fields.filter = Filter::default()).await;
    assert_eq!(reaches().await, 1);
    disable(store, &scope, id).await;
    assert_eq!(reaches().await, 0);
    enable(store, &scope, id).await;
    let second = endpoint(store, &scope).await;
    assert_eq!(reaches().await, 2);
    store.delete_endpoint(&scope, second).await.unwrap();
    assert_eq!(reaches().await, 1);
}

/// Under load: whoever publishes after a change was answered gets the change, whatever ran beside it.
pub async fn a_change_among_many_messages_counts_for_those_after_it(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    let many = || futures_util::future::join_all((0..20).map(|_| publish(store, message(&scope))));
    for round in 0..10 {
        let (off, beside) = tokio::join!(disable(store, &scope, id), many());
        assert!(off.disabled.is_some() && beside.len() == 20);
        let after = publish(store, message(&scope)).await;
        assert_eq!(find_progress(store, &scope, after.id, id).await, None, "round {round}");
        let (on, _) = tokio::join!(enable(store, &scope, id), many());
        assert!(on.disabled.is_none());
        let after = publish(store, message(&scope)).await;
        assert!(find_progress(store, &scope, after.id, id).await.is_some(), "round {round}");
    }
    let pending = store.backlog().await.unwrap().pending;
    assert_eq!(claim(store).await.len() as u64, pending, "all that is counted can be claimed");
}

/// ING-9, and the bound of an application.
pub async fn an_application_has_at_most_a_thousand_endpoints_and_all_get_the_message(store: &dyn Store) {
    const MOST: usize = postrider_model::limits::ENDPOINTS_PER_APPLICATION;
    let scope = application(store).await;
    for _ in 0..MOST / 100 {
        let creations = (0..100).map(|_| store.create_endpoint(&scope, new_endpoint(fields()), None));
        for created in futures_util::future::join_all(creations).await {
            created.unwrap();
        }
    }
    let beyond = store.create_endpoint(&scope, new_endpoint(fields()), None).await;
    assert!(matches!(beyond, Err(WriteError::Limit(_))), "{beyond:?}");
    publish(store, message(&scope)).await;
    let claimed = claim(store).await;
    let reached: BTreeSet<_> = claimed.iter().map(|item| item.lease.delivery.endpoint).collect();
    assert_eq!((claimed.len(), reached.len()), (MOST, MOST));
    assert_eq!(store.backlog().await.unwrap().pending, MOST as u64);
}

pub async fn messages_are_listed_by_page_in_both_directions(store: &dyn Store) {
    let scope = application(store).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(publish(store, message(&scope)).await.id);
    }
    publish(store, message(&application(store).await)).await;
    for (order, expected) in
        [(Order::Ascending, ids.clone()), (Order::Descending, ids.iter().rev().copied().collect::<Vec<_>>())]
    {
        let page = async |cursor, backward| {
            let request = PageRequest { limit: 2, order, cursor, backward };
            let page = store.messages(&scope, MessageFilter::default(), false, request).await.unwrap();
            assert!(page.items.iter().all(|item| item.payload.is_none()), "payloads were not asked for");
            (page.items.iter().map(|item| item.message.id).collect::<Vec<_>>(), page.done)
        };
        assert_eq!(page(None, false).await, (expected[..2].to_vec(), false));
        assert_eq!(page(Some(expected[1]), false).await, (expected[2..4].to_vec(), false));
        assert_eq!(page(Some(expected[3]), false).await, (expected[4..].to_vec(), true));
        assert_eq!(page(Some(expected[4]), true).await, (expected[2..4].to_vec(), false));
        assert_eq!(page(Some(expected[2]), true).await, (expected[..2].to_vec(), true));
    }
}

pub async fn messages_are_filtered_by_all_that_is_asked(store: &dyn Store) {
    let scope = application(store).await;
    let publish_one = async |name: &str, on: &[&str], tagged: &[&str]| {
        store.clock().advance(SECOND);
        let new = NewMessage {
            event_type: event_type(name),
            channels: channels(on),
            tags: tags(tagged),
            ..message(&scope)
        };
        publish(store, new).await
    };
    let first_message = publish_one("a", &["eu"], &["red"]).await;
    let second = publish_one("b", &["eu", "us"], &[]).await;
    let third = publish_one("a", &[], &["red", "blue"]).await;
    let list = async |filter: MessageFilter| {
        let page = store.messages(&scope, filter, true, first(10)).await.unwrap();
        assert!(page.items.iter().all(|item| item.payload.is_some()), "payloads were asked for");
        page.items.iter().map(|item| item.message.id).collect::<Vec<_>>()
    };
    let any = MessageFilter::default;
    let channel = |name: &str| channels(&[name]).into_iter().next();
    let tag = |name: &str| tags(&[name]).into_iter().next();
    let types = |names: &[&str]| names.iter().map(|name| event_type(name)).collect::<BTreeSet<_>>();
    let window = |from, until| Window { from, until };
    let (one, two, three) = (first_message.id, second.id, third.id);
    for (filter, expected) in [
        (any(), vec![one, two, three]),
        (MessageFilter { channel: channel("eu"), ..any() }, vec![one, two]),
        (MessageFilter { channel: channel("us"), ..any() }, vec![two]),
        (MessageFilter { channel: channel("asia"), ..any() }, vec![]),
        (MessageFilter { tag: tag("red"), ..any() }, vec![one, three]),
        (MessageFilter { tag: tag("blue"), ..any() }, vec![three]),
        (MessageFilter { event_types: types(&["a"]), ..any() }, vec![one, three]),
        (MessageFilter { event_types: types(&["a", "b"]), ..any() }, vec![one, two, three]),
        (
            MessageFilter { event_types: types(&["a"]), channel: channel("eu"), tag: tag("red"), ..any() },
            vec![one],
        ),
        (MessageFilter { window: window(Some(second.created_at), None), ..any() }, vec![two, three]),
        (MessageFilter { window: window(None, Some(second.created_at)), ..any() }, vec![one]),
        (
            MessageFilter { window: window(Some(second.created_at), Some(third.created_at)), ..any() },
            vec![two],
        ),
        (MessageFilter { window: window(Some(third.created_at), Some(second.created_at)), ..any() }, vec![]),
    ] {
        assert_eq!(list(filter.clone()).await, expected, "{filter:?}");
    }
}

pub async fn a_filtered_list_pages_over_what_matches(store: &dyn Store) {
    let scope = application(store).await;
    let mut wanted = Vec::new();
    for number in 0..12 {
        let name = if number % 3 == 0 { "wanted" } else { "other" };
        let id = publish(store, NewMessage { event_type: event_type(name), ..message(&scope) }).await.id;
        if number % 3 == 0 {
            wanted.push(id);
        }
    }
    let filter = MessageFilter { event_types: [event_type("wanted")].into(), ..MessageFilter::default() };
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let request = PageRequest { limit: 2, order: Order::Ascending, cursor, backward: false };
        let page = store.messages(&scope, filter.clone(), false, request).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|item| item.message.id));
        cursor = seen.last().copied();
        if page.done {
            break;
        }
        assert!(seen.len() <= wanted.len(), "the list ends");
    }
    assert_eq!(seen, wanted);
}

pub async fn an_expunged_payload_is_gone_and_its_deliveries_are_cancelled(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    let accepted = publish(store, message(&scope)).await;
    let leased = claim_one(store).await;
    assert!(store.expunge_payload(&scope, accepted.id).await.unwrap());
    let read = store.message(&scope, &Ref::Id(accepted.id)).await.unwrap().expect("the message stays");
    assert_eq!(read.payload, None);
    assert_eq!(progress(store, &scope, accepted.id, endpoint_id).await.state, State::Cancelled);
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    record(store, &leased, NextStep::Delivered).await;
    assert_eq!(progress(store, &scope, accepted.id, endpoint_id).await.state, State::Cancelled);
    let later = publish(store, message(&scope)).await;
    assert!(store.expunge_payload(&scope, later.id).await.unwrap());
    assert!(claim(store).await.is_empty(), "nothing is sent any more");
    assert!(store.expunge_payload(&scope, later.id).await.unwrap(), "expunging twice is no error");
    let unknown = store.ids().next(store.clock().now());
    assert!(!store.expunge_payload(&scope, unknown).await.unwrap());
}

pub async fn ids_grow_in_the_order_of_acceptance(store: &dyn Store) {
    let scope = application(store).await;
    let mut last = None;
    for _ in 0..50 {
        let id = publish(store, message(&scope)).await.id;
        assert!(last < Some(id));
        last = Some(id);
    }
}
