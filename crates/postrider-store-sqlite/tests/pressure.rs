//! Under pressure: what expired in bulk, a clock that was set, and a reader that is busy with something else.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod place;

use place::{Place, claim, message, publish, success, world};
use postrider_model::{retry::NextStep, time::Timestamp};
use postrider_store::{
    Store as _,
    deliveries::{AttemptRecord, Deliveries as _, Room},
    health::Health as _,
    messages::{Accepted, MessageFilter, Messages as _, NewMessage},
    page::{Order, PageRequest},
    retention::{Cutoffs, Retention as _},
};
use postrider_store_sqlite::SqliteStore;
use std::time::Duration;

/// Few places for an endpoint and many deliveries past their deadline: each settled handful says that more can be
/// claimed, so that what is young enough does not wait for the next round of an idle claimer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_in_bulk_does_not_keep_what_comes_after_it_waiting() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let new = message(&scope, bytes::Bytes::from_static(b"{}"));
    assert!(store.accept(vec![new.clone(); 100]).await.iter().all(Result::is_ok));
    store.clock().advance(Duration::from_hours(40 * 24));
    assert!(store.accept(vec![new]).await.iter().all(Result::is_ok));
    let room = Room { total: 50, per_endpoint: 5, ..Room::default() };
    let claiming = async {
        loop {
            let hint = store.claimable().notified();
            let claimed = store.claim(&room).await.unwrap();
            if !claimed.deliveries.is_empty() {
                return claimed.deliveries;
            }
            hint.await;
        }
    };
    let claimed = tokio::time::timeout(Duration::from_secs(10), claiming).await.expect("a hint comes");
    assert_eq!(claimed.len(), 1);
    assert_eq!(store.backlog().await.unwrap().pending, 1, "the others have expired");
}

const HOUR: Duration = Duration::from_hours(1);

/// When what is pending of a message is due, in seconds from now.
fn due_in(place: &Place, store: &SqliteStore, accepted: &Accepted) -> i64 {
    let query = "SELECT next_attempt_at FROM delivery WHERE message = ?1 AND state = 0";
    let id = accepted.message.id.ksuid().as_bytes().as_slice();
    let due: i64 = place.connection().query_row(query, [id], |row| row.get(0)).unwrap();
    (due - store.clock().now().as_micros()) / 1_000_000
}

async fn fail(store: &SqliteStore, wait: Duration) {
    let claimed = claim(store, 100).await;
    assert!(!claimed.is_empty());
    let records = claimed
        .iter()
        .map(|claimed| AttemptRecord { next: NextStep::RetryAfter(wait), ..success(store, claimed) })
        .collect();
    assert!(store.record(records).await.iter().all(Result::is_ok));
}

/// DUR-11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumped_ahead_and_was_set_back_leaves_nothing_waiting_for_it() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let before = publish(&*store, &scope, 10).await.unwrap();
    fail(&store, 5 * HOUR).await;
    store.clock().advance(HOUR);
    let retried = publish(&*store, &scope, 10).await.unwrap();
    fail(&store, Duration::from_mins(5)).await;
    let dated = NewMessage {
        deliver_at: Some(store.clock().now().plus(HOUR)),
        ..message(&scope, bytes::Bytes::from_static(b"{}"))
    };
    let dated = store.accept(vec![dated]).await.remove(0).unwrap();
    let fresh = publish(&*store, &scope, 10).await.unwrap();
    let leased = claim(&*store, 1).await;
    assert_eq!(leased[0].lease.delivery.message, fresh.message.id);
    let queued = publish(&*store, &scope, 10).await.unwrap();
    store.clock().set_back(HOUR);
    let corrected = async {
        while due_in(&place, &store, &retried) > 300 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), corrected).await.expect("the jump is seen");
    assert!((290..=300).contains(&due_in(&place, &store, &retried)), "no retry comes early");
    assert!((5 * 3600 - 20..=5 * 3600).contains(&due_in(&place, &store, &before)), "what was right stays");
    assert!((2 * 3600 - 20..=2 * 3600).contains(&due_in(&place, &store, &dated)), "a date stays");
    store.release(vec![leased[0].lease]).await.unwrap();
    let mut due: Vec<_> = claim(&*store, 100).await.iter().map(|one| one.lease.delivery.message).collect();
    due.sort_unstable();
    assert_eq!(due, [fresh.message.id, queued.message.id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_while_the_server_was_down_delays_nothing() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    store.clock().advance(HOUR);
    let accepted = publish(&*store, &scope, 10).await.unwrap();
    drop(store);
    let store = place.open();
    let claiming = async {
        loop {
            let hint = store.claimable().notified();
            let claimed = claim(&*store, 10).await;
            if !claimed.is_empty() {
                return claimed;
            }
            hint.await;
        }
    };
    let claimed = tokio::time::timeout(Duration::from_secs(20), claiming).await.expect("not in an hour");
    assert_eq!(claimed[0].lease.delivery.message, accepted.message.id);
}

/// A look goes over twenty rows for each that may go: neither what must stay before it nor a second round hides what
/// has expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disabled_endpoint_holds_expires_behind_much_that_must_stay() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    for _ in 0..30 {
        publish(&*store, &scope, 10).await.unwrap();
    }
    let last = store.accept(vec![message(&scope, bytes::Bytes::from_static(b"{}")); 5]).await;
    assert!(last.iter().all(Result::is_ok));
    // What came last has the earliest deadlines, as after a change of the retry policy.
    let shorten = "UPDATE delivery SET deadline_at = next_attempt_at + 7200000000
                   WHERE message IN (SELECT id FROM message ORDER BY id DESC LIMIT 5)";
    assert_eq!(place.connection().execute(shorten, []).unwrap(), 5);
    let disable = "UPDATE endpoint SET disabled_at = 1, disabled_reason = 'requested'";
    assert_eq!(place.connection().execute(disable, []).unwrap(), 1);
    drop(store);
    let store = place.open();
    let none = Cutoffs { messages: Timestamp::default(), attempts: Timestamp::default() };
    let expire = async || {
        let mut calls = 1;
        while store.expire(none, 1).await.unwrap().more {
            calls += 1;
            assert!(calls < 40, "there is an end to it");
        }
        store.backlog().await.unwrap().pending
    };
    assert_eq!(expire().await, 35);
    store.clock().advance(3 * HOUR);
    assert_eq!(expire().await, 30);
    store.clock().advance(Duration::from_hours(40 * 24));
    assert_eq!(expire().await, 0);
}

/// A page of the largest messages does not take a quarter of a gigabyte; what is left out of it follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_large_payloads_ends_early_and_the_list_loses_nothing() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let large = message(&scope, bytes::Bytes::from(vec![b' '; 900_000]));
    assert!(store.accept(vec![large; 10]).await.iter().all(Result::is_ok));
    let (mut cursor, mut pages) = (None, Vec::new());
    loop {
        let request = PageRequest { limit: 50, order: Order::Descending, cursor, backward: false };
        let page = store.messages(&scope, MessageFilter::default(), true, request).await.unwrap();
        assert!(
            page.items.iter().all(|item| item.payload.as_ref().is_some_and(|bytes| bytes.len() == 900_000))
        );
        cursor = page.items.last().map(|item| item.message.id);
        pages.push(page.items.len());
        if page.done {
            break;
        }
    }
    assert_eq!(pages, [4, 4, 2]);
    let request = PageRequest { limit: 50, order: Order::Descending, cursor: None, backward: false };
    let page = store.messages(&scope, MessageFilter::default(), false, request).await.unwrap();
    assert_eq!((page.items.len(), page.done), (10, true), "without payloads nothing is large");
}
