//! Under pressure: what expired in bulk, a clock that was set, and a reader that is busy with something else.

mod place;

use place::{Place, message, world};
use postrider_store::{
    Store as _,
    deliveries::{Deliveries as _, Room},
    health::Health as _,
    messages::Messages as _,
};
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
    let room = Room { total: 50, per_endpoint: 5, full: vec![] };
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
