//! What goes on beside the writer: checkpoints, the free space of the disk, the probe of a full disk, a look at the clock.
//!
//! Checkpoints copy the write-ahead log into the database without stopping the writer. Where writing never pauses they
//! never get to its end and the log would grow without bound; then the writer itself copies the last pages between two
//! batches and starts the log anew. It has to sync the database for that, and everybody waits for it: so each copy is synced
//! here first, and followed by shorter ones until little is left (docs/decisions/0020).

use crate::{
    Shared,
    failure::unavailable,
    health,
    log_sync::Synced,
    set_back::Watch,
    writer::{self, Isolation},
};
use rusqlite::{Connection, ErrorCode};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Pages in the log from which on it is copied: 16 MiB.
const CHECKPOINT_PAGES: u64 = 2048;
/// Pages from which on the writer has to help: 64 MiB.
const RESTART_PAGES: u64 = 8192;
/// Further copies before the writer has to help, each of what came during the one before.
const FURTHER_COPIES: usize = 4;
/// Pages that the writer copies without anybody noticing: 1 MiB.
const LITTLE: u64 = 128;
/// How often space is looked at, and how long no commit means idle.
const TICK: Duration = Duration::from_secs(1);

/// The same once nothing was written for [`AT_REST_AFTER`] ticks: a server that nobody uses wakes up rarely.
const TICK_AT_REST: Duration = Duration::from_secs(5);
/// See [`TICK_AT_REST`].
const AT_REST_AFTER: u32 = 3;

/// The state of the write-ahead log.
#[derive(Debug)]
pub(crate) struct Wal {
    /// Pages in the log after the last commit.
    pub(crate) pages: AtomicU64,
    /// The writer shall start the log anew.
    pub(crate) restart_wanted: AtomicBool,
    wake: SyncSender<()>,
}

impl Wal {
    /// The state, and where wake-ups arrive.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (wake, woken) = sync_channel(1);
        (Self { pages: AtomicU64::new(0), restart_wanted: AtomicBool::new(false), wake }, woken)
    }

    /// A commit left so many pages in the log.
    pub(crate) fn committed(&self, pages: u64) {
        self.pages.store(pages, Ordering::Relaxed);
        if pages >= CHECKPOINT_PAGES {
            self.wake();
        }
    }

    /// Wakes the upkeep; one wake-up that waits is enough.
    pub(crate) fn wake(&self) {
        // Full: a wake-up waits already. Closed: nobody is left to wake.
        let _ = self.wake.try_send(());
    }
}

/// Runs until the store closes.
pub(crate) fn run(
    shared: &Arc<Shared>,
    connection: &Connection,
    database: &Synced,
    woken: &Receiver<()>,
    mut clock: Watch,
) {
    let mut looked = Instant::now();
    let mut idle_at = 0;
    let mut idle_for: u32 = 0;
    let mut copied_at = 0;
    while !shared.is_closed() && shared.disk.broken().is_none() {
        let at_rest = idle_for >= AT_REST_AFTER && !shared.disk.is_full();
        match woken.recv_timeout(if at_rest { TICK_AT_REST } else { TICK }) {
            Ok(()) => checkpoint(shared, connection, database, &mut copied_at),
            Err(RecvTimeoutError::Timeout) => {
                let commits = shared.commits.count();
                if commits == idle_at && shared.wal.pages.load(Ordering::Relaxed) > 0 {
                    truncate(shared, connection);
                }
                idle_for = if commits == idle_at { idle_for.saturating_add(1) } else { 0 };
                idle_at = commits;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if looked.elapsed() >= TICK {
            looked = Instant::now();
            look_at_space(shared);
            clock.tick(shared);
            if shared.disk.is_full() {
                probe(shared);
            }
        }
    }
}

/// Is less space left than the low-water mark says?
pub(crate) fn look_at_space(shared: &Shared) {
    let mark = shared.config.low_water_bytes;
    match health::free_bytes(&shared.config.data_dir) {
        Ok(free) => shared.disk.set_low(free < mark),
        Err(error) => tracing::warn!(%error, "free space could not be read"),
    }
}

/// Copies the log once it has grown by enough since the last copy, at `copied_at` pages; asks the writer to start it
/// anew when that alone does not keep it small.
fn checkpoint(shared: &Shared, connection: &Connection, database: &Synced, copied_at: &mut u64) {
    let wal = &shared.wal;
    let pages = wal.pages.load(Ordering::Relaxed);
    // Fewer than then: the log was started anew meanwhile.
    if pages < *copied_at {
        *copied_at = 0;
    }
    // While the writer is to start the log anew, a copy would only be in its way.
    if pages < *copied_at + CHECKPOINT_PAGES || wal.restart_wanted.load(Ordering::Relaxed) {
        return;
    }
    *copied_at = pages;
    if !copy(shared, connection, database) || pages < RESTART_PAGES {
        return;
    }
    for _ in 0..FURTHER_COPIES {
        let pages = wal.pages.load(Ordering::Relaxed);
        if pages < *copied_at + LITTLE {
            break;
        }
        *copied_at = pages;
        if !copy(shared, connection, database) {
            return;
        }
    }
    wal.restart_wanted.store(true, Ordering::Relaxed);
}

/// Copies what is in the log and makes it durable where it came to; `false` when that failed.
fn copy(shared: &Shared, connection: &Connection, database: &Synced) -> bool {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        if !shared.disk.checkpoint_failed(&error) {
            tracing::warn!(%error, "a checkpoint failed; the log grows until one succeeds");
        }
        return false;
    }
    database
        .sync()
        .map_err(|error| {
            // A later sync, by SQLite, would succeed without having written the pages, and the log be given up.
            let error = unavailable(format!("the database could not be synced: {error}"));
            shared.disk.failed(Some(ErrorCode::SystemIoFailure), &error);
        })
        .is_ok()
}

fn truncate(shared: &Shared, connection: &Connection) {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)) {
        Ok(0) => shared.wal.pages.store(0, Ordering::Relaxed),
        // Somebody reads or writes: the next tick tries again.
        Ok(_) => {}
        Err(error) if shared.disk.checkpoint_failed(&error) => {}
        Err(error) => tracing::debug!(%error, "the log could not be emptied yet"),
    }
}

/// Sees whether the disk has space again.
fn probe(shared: &Shared) {
    for step in [health::fill, health::empty] {
        match writer::submit_blocking(shared, Isolation::Own, step) {
            Ok(()) => {}
            Err(_) => return,
        }
    }
    shared.wrote();
}
