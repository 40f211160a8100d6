//! What an operator asks: can it write, what waits, how long do commits take.

use crate::{
    PostgresStore, Shared,
    failure::{Failure, closing},
    hold::ON_HOLD,
    values::{at, count, instant_or_null},
};
use async_trait::async_trait;
use postrider_store::{
    StoreError,
    health::{Backlog, CommitTimes, Health, Outbox},
};
use std::{
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Upper bounds of the histogram, in seconds.
const BUCKETS: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];
/// What a probe writes.
const PROBE: [u8; 64] = [0; 64];

/// Along the partial indexes: ids grow with the time of the call.
const OUTBOX: &str = "SELECT
        (SELECT count(*) FROM (SELECT FROM outbox WHERE set_aside IS NULL LIMIT $1) AS waiting),
        (SELECT created_at FROM outbox WHERE set_aside IS NULL ORDER BY id LIMIT 1),
        (SELECT count(*) FROM (SELECT FROM outbox WHERE set_aside = $2 LIMIT $1) AS on_hold),
        (SELECT count(*) FROM (SELECT FROM outbox WHERE set_aside IS NOT NULL AND set_aside <> $2 LIMIT $1) AS aside)";

fn handled(shared: &Shared) -> Vec<(&'static str, u64)> {
    let counts = &shared.routing.counts;
    let results = [
        ("routed", &counts.routed),
        ("without_event_id", &counts.without_event_id),
        ("application_deleted", &counts.application_deleted),
        ("set_aside", &counts.set_aside),
    ];
    results.map(|(result, count)| (result, count.load(Ordering::Relaxed))).into()
}

#[async_trait]
impl Health for PostgresStore {
    async fn check_write(&self) -> Result<(), StoreError> {
        let written = self.shared.change(None, |work| {
            Box::pin(async move {
                let text = "INSERT INTO probe (id, body) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET body = excluded.body";
                work.connection.execute(text, &[&&PROBE[..]]).await?;
                Ok::<_, Failure>(())
            })
        });
        Ok(written.await?)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        if self.shared.is_closed() {
            return Err(closing());
        }
        let now = self.shared.clock.now();
        let agenda = self.shared.agenda();
        Ok(Backlog { pending: agenda.pending(), oldest_due: agenda.oldest_due(now) })
    }

    fn pending(&self) -> Option<u64> {
        Some(self.shared.agenda().pending())
    }

    async fn outbox(&self) -> Result<Option<Outbox>, StoreError> {
        let connection = self.shared.reader().await?;
        let most = i64::try_from(Outbox::COUNTED).unwrap_or(i64::MAX);
        let row = connection.first_row(OUTBOX, &[&most, &ON_HOLD]).await?;
        let mut outbox = Outbox { handled: handled(&self.shared), ..Outbox::default() };
        if let Some(row) = row {
            let number = |column| Ok::<_, StoreError>(count(at(&row, column)?));
            outbox.waiting = number(0)?;
            outbox.oldest = instant_or_null(&row, 1)?;
            outbox.set_aside = vec![("on_hold", number(2)?), ("unroutable", number(3)?)];
        }
        Ok(Some(outbox))
    }

    fn commit_times(&self) -> CommitTimes {
        self.shared.commits.read()
    }
}

/// Commit times since the start.
#[derive(Debug, Default)]
pub(crate) struct Commits(Mutex<Totals>);

#[derive(Debug, Default)]
struct Totals {
    commits: u64,
    operations: u64,
    total: Duration,
    buckets: [u64; BUCKETS.len()],
}

impl Commits {
    /// Starts a measurement.
    pub(crate) fn timer() -> Instant {
        Instant::now()
    }

    /// A commit of so many operations returned.
    pub(crate) fn record(&self, since: Instant, operations: usize) {
        let took = since.elapsed();
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.commits += 1;
        totals.operations += operations as u64;
        totals.total += took;
        let seconds = took.as_secs_f64();
        for (bucket, most) in totals.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= most);
        }
    }

    fn read(&self) -> CommitTimes {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        CommitTimes {
            commits: totals.commits,
            operations: totals.operations,
            total: totals.total,
            buckets: BUCKETS.into_iter().zip(totals.buckets).collect(),
        }
    }
}
