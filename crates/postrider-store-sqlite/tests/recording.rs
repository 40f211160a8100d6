//! Results that cannot be stored, and those that come after them.

mod place;

use place::{Place, claim, publish, success, world};
use postrider_model::{
    delivery::State,
    retry::{GiveUp, NextStep},
};
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, Deliveries as _, Recorded},
};

#[tokio::test]
async fn a_result_that_failed_before_it_wrote_anything_does_not_count_as_stored() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    publish(&*store, &scope, 10).await.unwrap();
    let claimed = claim(&*store, 1).await.remove(0);
    assert!(store.started(&claimed.lease, claimed.number, "https://example.com/hook"));
    let url = |url: &str| {
        let changed = place.connection().execute("UPDATE endpoint SET url = ?1", [url]).unwrap();
        assert_eq!(changed, 1);
    };
    // An endpoint that is gone for good is disabled, and this one does not read.
    url("nonsense");
    let gone = NextStep::GiveUp(GiveUp::Gone);
    let records =
        [gone, NextStep::Delivered].map(|next| AttemptRecord { next, ..success(&*store, &claimed) });
    let stored = store.record(records.into()).await;
    assert!(matches!(stored[0], Err(StoreError::Inconsistent { .. })), "{stored:?}");
    assert!(matches!(stored[1], Ok(Recorded::Stored(State::Delivered))), "{stored:?}");
    url("https://example.com/hook");
    let again = store.record(vec![success(&*store, &claimed)]).await;
    assert!(matches!(again[0], Ok(Recorded::Superseded)), "{again:?}");
}
