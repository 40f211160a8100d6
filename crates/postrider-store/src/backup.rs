//! Backups that a store makes of itself while it works.

use async_trait::async_trait;
use postrider_model::time::Timestamp;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How far a backup is.
#[derive(Debug, Default)]
pub struct BackupProgress {
    done: AtomicU64,
    total: AtomicU64,
}

impl BackupProgress {
    /// So many of so many bytes are copied.
    pub fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Bytes copied, and bytes in all; 0 of 0 before it began.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// What a backup is of, and what is needed to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Version of the schema.
    pub schema_version: i64,
    /// Which database it is of.
    pub instance: String,
    /// The state of this moment.
    pub taken_at: Timestamp,
    /// Size in bytes.
    pub bytes: u64,
    /// Names of the keys of the operator's keyring that it cannot be used without. The keys are not in it.
    pub keys: Vec<String>,
}

/// Why a backup was not made; nothing is left of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BackupError(pub String);

/// Backups.
#[async_trait]
pub trait Backups: Send + Sync + 'static {
    /// Writes a consistent copy of the database to a file that does not exist yet, durably, while the store works: with
    /// at most `pace` bytes a second.
    async fn back_up(
        &self,
        to: &Path,
        pace: u64,
        progress: Arc<BackupProgress>,
    ) -> Result<Manifest, BackupError> {
        let _ = (to, pace, progress);
        Err(BackupError(
            "a database on PostgreSQL is backed up by PostgreSQL's own tools (pg_dump, pg_basebackup, archived WAL): see \
             docs/backup-and-restore.md"
                .to_owned(),
        ))
    }
}
