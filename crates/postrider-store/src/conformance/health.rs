//! Behaviours that an operator asks of a store.

use super::fixture::*;
use crate::Store;

pub async fn writes_can_be_checked_and_commits_are_counted(store: &dyn Store) {
    store.check_write().await.unwrap();
    let before = store.commit_times();
    application(store).await;
    let after = store.commit_times();
    assert!(after.commits > before.commits && after.operations > before.operations);
    assert!(after.total >= before.total);
    let counts: Vec<_> = after.buckets.iter().map(|(_, count)| *count).collect();
    assert!(counts.is_sorted(), "buckets are cumulative: {counts:?}");
    assert!(after.buckets.is_sorted_by(|one, other| one.0 < other.0));
}
