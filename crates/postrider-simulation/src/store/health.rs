//! What an operator asks.

use super::{ModelStore, claim, lock, memory::places};
use async_trait::async_trait;
use postrider_store::{
    StoreError,
    health::{Backlog, CommitTimes, Health},
};
use std::time::Duration;

#[async_trait]
impl Health for ModelStore {
    async fn check_write(&self) -> Result<(), StoreError> {
        self.change(|_, _| ()).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let now = self.clock.now();
        self.read(|disk| {
            let memory = self.memory();
            let room = memory.room.clone();
            let has_place = |endpoint| {
                room.as_ref().is_none_or(|room| memory.leased_of(endpoint) < places(room, endpoint))
            };
            let due = claim::waiting(disk, &memory).filter(|one| {
                one.due_at <= now && one.deferred_until <= now && has_place(one.delivery.endpoint)
            });
            let oldest_due = due.map(|one| one.due_at).min();
            Backlog { pending: disk.pending.len() as u64, oldest_due }
        })
        .await
    }

    fn pending(&self) -> Option<u64> {
        Some(lock(&self.disk).pending.len() as u64)
    }

    fn commit_times(&self) -> CommitTimes {
        let commits = lock(&self.disk).commits;
        CommitTimes {
            commits,
            operations: commits,
            total: Duration::ZERO,
            buckets: vec![(0.001, commits), (0.01, commits)],
        }
    }
}
