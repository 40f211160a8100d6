//! What an operator asks: can it write, what waits, how long do commits take. And the state of the disk.

use crate::{
    SqliteStore,
    failure::{self, Failure, of_sql, unavailable},
    writer::{Isolation, Scope},
};
use async_trait::async_trait;
use postrider_store::{
    StoreError,
    health::{Backlog, CommitTimes, Health},
};
use rusqlite::ErrorCode;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Upper bounds of the histogram, in seconds.
const BUCKETS: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0];
/// What a probe of a full disk writes: more than the next few results need.
const PROBE_BYTES: i64 = 64 * 1024;

/// One process has the file.
impl postrider_store::neighbours::Neighbours for SqliteStore {}

#[async_trait]
impl Health for SqliteStore {
    async fn check_write(&self) -> Result<(), StoreError> {
        self.shared.probe().await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let now = self.shared.clock.now();
        let agenda = self.shared.agenda();
        Ok(Backlog { pending: agenda.pending(), oldest_due: agenda.oldest_due(now) })
    }

    fn pending(&self) -> Option<u64> {
        Some(self.shared.agenda().pending())
    }

    fn commit_times(&self) -> CommitTimes {
        self.shared.commits.read()
    }

    async fn broken(&self) -> String {
        self.shared.disk.breaks().await
    }
}

impl crate::Shared {
    /// Makes a write durable that needs space, and takes it back. Ends the state "full" when it succeeds.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        self.write(Isolation::Own, fill).await?;
        self.write(Isolation::Own, empty).await?;
        self.wrote();
        Ok(())
    }
}

impl crate::Shared {
    /// A probe succeeded: claiming can go on.
    pub(crate) fn wrote(&self) {
        self.disk.wrote();
        self.claimable.notify_one();
    }
}

/// First half of a probe: takes space.
pub(crate) fn fill(work: &mut Scope<'_>) -> Result<(), Failure> {
    work.connection
        .execute("INSERT OR REPLACE INTO probe (id, body) VALUES (1, zeroblob(?1))", [PROBE_BYTES])?;
    Ok(())
}

/// Second half of a probe: gives it back.
pub(crate) fn empty(work: &mut Scope<'_>) -> Result<(), Failure> {
    work.connection.execute("DELETE FROM probe", [])?;
    Ok(())
}

/// What is known of the disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    full: AtomicBool,
    low: AtomicBool,
    broken: watch::Sender<Option<String>>,
}

impl Disk {
    /// May a message be accepted?
    pub(crate) fn check_publishing(&self) -> Result<(), StoreError> {
        self.check_changes()?;
        if self.low.load(Ordering::Relaxed) {
            let detail =
                "little space is left on the disk of the data directory; deliveries go on".to_owned();
            return Err(StoreError::Full { detail });
        }
        Ok(())
    }

    /// May configuration be changed?
    pub(crate) fn check_changes(&self) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::Full { detail: "no space is left for the database".to_owned() });
        }
        Ok(())
    }

    /// Can results be stored? Else nothing must be sent.
    pub(crate) fn can_record(&self) -> bool {
        !self.full.load(Ordering::Relaxed) && self.broken().is_none()
    }

    /// Did the last attempt to write find no space?
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Why nothing can be written until a restart.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    /// Returns that reason once there is one.
    async fn breaks(&self) -> String {
        let mut broken = self.broken.subscribe();
        match broken.wait_for(Option::is_some).await.map(|detail| detail.clone()) {
            Ok(Some(detail)) => detail,
            // The sender is part of this disk and outlives the call.
            _ => std::future::pending().await,
        }
    }

    /// A checkpoint failed. `true` when that was the disk's fault.
    pub(crate) fn checkpoint_failed(&self, error: &rusqlite::Error) -> bool {
        let code = failure::code(error);
        let broke = code == Some(ErrorCode::SystemIoFailure);
        if broke {
            self.failed(code, &of_sql(error));
        }
        broke
    }

    /// A batch failed.
    pub(crate) fn failed(&self, code: Option<ErrorCode>, error: &StoreError) {
        match code {
            Some(ErrorCode::DiskFull) => {
                if !self.full.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the disk is full: publishing is refused and deliveries pause");
                }
            }
            // After a failed sync nobody knows which pages reached the disk: a second sync would lie.
            Some(ErrorCode::SystemIoFailure) => {
                tracing::error!(%error, "the disk failed: nothing is written until a restart");
                self.breaks_by(format!("the disk failed, the server must be restarted: {error}"));
            }
            _ => tracing::error!(%error, "a batch of writes failed"),
        }
    }

    /// Nothing can be written until a restart; the first reason stays.
    pub(crate) fn breaks_by(&self, detail: String) {
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert(detail);
            first
        });
    }

    /// A probe succeeded.
    fn wrote(&self) {
        if self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the disk has space again");
        }
    }

    /// How much space is left, compared with the low-water mark.
    pub(crate) fn set_low(&self, low: bool) {
        if self.low.swap(low, Ordering::Relaxed) != low {
            tracing::warn!(low, "free space of the data directory crossed the low-water mark");
        }
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

    /// Commits so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).commits
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

/// Free bytes of the file system that holds `path`.
pub(crate) fn free_bytes(path: &std::path::Path) -> Result<u64, StoreError> {
    let stat =
        rustix::fs::statvfs(path).map_err(|error| unavailable(format!("the data directory: {error}")))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
