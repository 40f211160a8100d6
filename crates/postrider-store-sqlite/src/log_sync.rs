//! Making commits durable, beside the writer: syncs the write-ahead log, then lets memory follow and answers the callers.
//!
//! The writer's connection runs with `synchronous=NORMAL`: its commits write their frames to the log and do not sync it.
//! What `FULL` would add is exactly one sync of that file after each commit, and that is done here, on a thread of its own,
//! while the writer already executes the next batch. Nobody is answered, and nothing is handed over to be sent, before the
//! sync returned (docs/decisions/0012).

use crate::{
    Shared,
    config::TestDisk,
    failure::unavailable,
    writer::{Effect, Queued},
};
use postrider_store::StoreError;
use rusqlite::ErrorCode;
use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, mpsc::Receiver},
};
use tokio::time::Instant;

/// A batch whose frames are in the log.
pub(crate) struct Committed {
    pub(crate) operations: Vec<Queued>,
    pub(crate) effects: Vec<Effect>,
    /// It wrote something.
    pub(crate) changed: bool,
    /// When its commit began.
    pub(crate) since: Instant,
}

/// A file of the database that is synced past SQLite.
pub(crate) enum Synced {
    File(File),
    /// On a disk of tests.
    Tested(PathBuf, TestDisk),
}

impl Synced {
    /// The write-ahead log of a database, which must exist: some connection has the database open.
    pub(crate) fn log(database: &Path, disk: Option<TestDisk>) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self::open(PathBuf::from(path), disk)
    }

    /// The database itself. To be closed only after the connection that writes: whoever closes any handle of a file gives
    /// up all locks that its process has on it (POSIX), and SQLite's keep other programs from deleting the log.
    pub(crate) fn database(path: &Path, disk: Option<TestDisk>) -> io::Result<Self> {
        Self::open(path.to_owned(), disk)
    }

    fn open(path: PathBuf, disk: Option<TestDisk>) -> io::Result<Self> {
        match disk {
            None => File::options().read(true).write(true).open(path).map(Self::File),
            Some(disk) => Ok(Self::Tested(path, disk)),
        }
    }

    /// Returns once what was written is durable. The directory's entry needs no sync: SQLite makes it durable with the
    /// log's header.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            Self::Tested(path, disk) => (disk.sync)(path),
        }
    }
}

/// Syncs batch after batch until the writer is gone.
pub(crate) fn run(shared: &Arc<Shared>, log: &Synced, committed: &Receiver<Committed>) {
    while let Ok(batch) = committed.recv() {
        let synced = sync(shared, log, &batch);
        if synced.is_ok() {
            follow(shared, batch.effects);
        }
        shared.inbox.sync_ended();
        for operation in batch.operations {
            operation.answer(synced.clone());
        }
    }
}

fn sync(shared: &Shared, log: &Synced, batch: &Committed) -> Result<(), StoreError> {
    // After a failed sync a second one that succeeds proves nothing.
    if let Some(detail) = shared.disk.broken() {
        return Err(unavailable(detail));
    }
    if !batch.changed {
        return Ok(());
    }
    log.sync().map_err(|error| {
        let error = unavailable(format!("the write-ahead log could not be synced: {error}"));
        shared.disk.failed(Some(ErrorCode::SystemIoFailure), &error);
        error
    })?;
    shared.commits.record(batch.since, batch.operations.len());
    Ok(())
}

/// What is committed has to be answered, and what comes after it to be written: a panic here stops neither.
fn follow(shared: &Shared, effects: Vec<Effect>) {
    for effect in effects {
        if catch_unwind(AssertUnwindSafe(|| effect(shared))).is_err() {
            tracing::error!("memory could not follow a commit; a restart reads it anew");
        }
    }
}
