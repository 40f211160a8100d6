//! The embedded store: the whole storage contract on one SQLite file, for one process.
//!
//! The cast:
//! - [`writer`]: one thread owns the only connection that writes; callers share its commits, which [`log_sync`] makes
//!   durable before anybody is answered; [`inbox`] is where they wait;
//! - [`ending`]: what a panic of those threads leaves behind;
//! - [`readers`]: a pool of connections that cannot write, each query under a time limit;
//! - [agenda](postrider_store::agenda): the memory of what waits, from which claims are served; [`claim`] fills it from the database, and
//!   [`in_flight`] notes which attempts had begun should the process die;
//! - [`memory`] and [`snapshots`]: configuration for matching and sending, bounded, current by version;
//! - [`accept`] and [`record`]: the two transactions of the hot path;
//! - [`secrets`]: every credential, sealed, in one table; [`schema`] and [`start`]: what opening a database means;
//! - [`upkeep`]: checkpoints and free space, beside the writer; [`set_back`]: what a clock that was set back left;
//!   [`space`]: what retention frees goes back to the disk;
//! - [`backup`] and [`restore`]: copies of the database, made and brought back; [`hold`]: what is not sent after that;
//!   [`export`]: the way to another backend;
//! - one file per noun of the contract.
//!
//! Guarantees: a write that was answered `Ok` is on the disk; no second process writes; leases live in memory and a
//! restart ends them all at once.

mod accept;
mod access;
mod applications;
mod attempt_rows;
mod attempts;
mod backup;
mod claim;
mod config;
mod credentials;
mod data_dir;
mod deliveries;
mod ending;
mod endpoint_rows;
mod endpoints;
mod event_types;
mod export;
mod failure;
mod health;
mod held;
mod hold;
mod idempotency;
mod in_flight;
mod inbox;
mod log_sync;
mod memory;
mod message_rows;
mod messages;
mod open_error;
mod payload_rows;
#[cfg(test)]
mod plans;
mod progress;
mod readers;
mod recent;
mod record;
mod restore;
mod retention;
mod schema;
mod secrets;
mod set_back;
mod snapshots;
mod space;
mod start;
mod upkeep;
mod values;
mod writer;

pub use config::{Config, TestDisk};
pub use export::Export;
pub use open_error::OpenError;
pub use restore::{Restored, restore};

use ending::{Ending, UpkeepEnding};
use failure::Failure;
use in_flight::InFlight;
use log_sync::Synced;
use postrider_model::time::Timestamp;
use postrider_store::agenda::Agenda;
use postrider_store::{Clock, Ids, Store, StoreError};
use postrider_vault::keyring::Keyring;
use rusqlite::Connection;
use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread::JoinHandle,
};
use tokio::sync::Notify;
use writer::{Isolation, Scope, Writer};

/// Pages up to which a database is checked after a stop that was not clean: 64 MiB.
const CHECKED_PAGES: i64 = 8192;

/// Connections that read for claims and snapshots alone.
const HOT_READERS: usize = 2;

/// What all parts of an open store share.
pub(crate) struct Shared {
    config: Config,
    clock: Clock,
    ids: Ids,
    keyring: Keyring,
    readers: readers::Readers,
    /// For claims and snapshots: lists over a long history must not keep deliveries and publishers waiting.
    hot_readers: readers::Readers,
    /// Closed with the store; the writer ends once it is empty.
    inbox: inbox::Inbox,
    memory: memory::Memory,
    agenda: Mutex<Agenda>,
    claimable: Notify,
    in_flight: InFlight,
    disk: health::Disk,
    commits: health::Commits,
    wal: upkeep::Wal,
    latest: set_back::Latest,
    positions: Mutex<retention::Positions>,
    /// Counts payloads for their numbers.
    payloads: AtomicU64,
    /// Since when a hold lasts, in microseconds; 0 when none does.
    held_since: AtomicI64,
    closed: AtomicBool,
}

impl Shared {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Writes, whatever the state of the disk.
    async fn write<T: Send + 'static>(
        &self,
        isolation: Isolation,
        run: impl FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let answer = writer::submit(self, isolation, run).await?;
        writer::answered(answer).await
    }

    /// Changes configuration: refused while the disk is full.
    async fn change<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.disk.check_changes()?;
        self.write(Isolation::Own, run).await
    }
}

/// The embedded store. Dropping it without [`close`](Store::close) is like a crash, with the queue worked off.
pub struct SqliteStore {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<data_dir::Lock>>,
}

impl SqliteStore {
    /// Opens or creates the database, brings its schema up to date and books what a crash left behind.
    pub fn open(config: Config, keyring: Keyring) -> Result<Arc<Self>, OpenError> {
        let data_dir = config.data_dir.clone();
        let lock = data_dir::take(&data_dir)?;
        let path = data_dir::database(&data_dir);
        let (clock, ids) = (Clock::default(), Ids::default());
        let now = clock.now();
        let mut connection =
            schema::open_writer(&path, &config, &keyring, now).map_err(|error| error.of_file(&path))?;
        export::check_not_moved(&connection)?;

        let slots = InFlight::path(&data_dir);
        let io = |what: &'static str| {
            let path = slots.clone();
            move |source| OpenError::Io { what, path, source }
        };
        let (in_flight, left) = InFlight::open(slots.clone()).map_err(io("open the in-flight file"))?;
        if let Some(left) = left {
            schema::check_small(&connection, CHECKED_PAGES)?;
            let interrupted = start::book_interrupted(&mut connection, &ids, left, now)?;
            tracing::info!(interrupted, "the last stop was not clean");
            in_flight.clear().map_err(io("clear the in-flight file"))?;
        }
        start::cancel_deleted(&connection)?;
        // What a killed process had committed is read from the page cache: nothing of it is sent or answered before it is durable.
        let log = Synced::log(&path, config.disk).map_err(of_log(&path))?;
        log.sync().map_err(of_log(&path))?;
        let first_epoch = u64::from(rand::random::<u32>()) << 32;
        let mut agenda = Agenda::new(config.hand_over_bytes, first_epoch);
        start::fill(&mut agenda, &schema::open_reader(&path, &config)?, now)?;
        let was_ahead = set_back::was_ahead(&connection, now)?;

        let (wal, woken) = upkeep::Wal::new();
        let shared = Arc::new(Shared {
            readers: readers::Readers::open(&path, &config, config.readers)?,
            hot_readers: readers::Readers::open(&path, &config, HOT_READERS)?,
            inbox: inbox::Inbox::new(config.write_queue),
            memory: memory::Memory::new(config.cached_endpoints),
            agenda: Mutex::new(agenda),
            claimable: Notify::new(),
            in_flight,
            disk: health::Disk::default(),
            commits: health::Commits::default(),
            wal,
            latest: set_back::Latest::default(),
            positions: Mutex::default(),
            payloads: AtomicU64::new(payload_rows::first_count(clock.now())),
            held_since: AtomicI64::new(hold::since(&connection)?.map_or(0, Timestamp::as_micros)),
            closed: AtomicBool::new(false),
            config,
            clock,
            ids,
            keyring,
        });
        upkeep::look_at_space(&shared);
        let threads = start_threads(&shared, connection, log, &path, woken, was_ahead)?;
        Ok(Arc::new(Self { shared, threads: Mutex::new(threads), lock: Mutex::new(Some(lock)) }))
    }

    /// Sets or lifts the bound on the database's size, in pages of 8 KiB: a full disk, for tests.
    pub async fn limit_pages(&self, most: Option<u32>) -> Result<(), StoreError> {
        let limit = move |work: &mut Scope<'_>| {
            // A bound below the present size counts as the present size.
            let most = most.unwrap_or(u32::MAX - 1);
            Ok(work.connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))?)
        };
        Ok(self.shared.write(Isolation::Own, limit).await?)
    }

    /// Ends the queue: what waits is still done. Returns the threads to wait for.
    fn stop(&self) -> Vec<JoinHandle<()>> {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.inbox.close();
        self.shared.wal.wake();
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn unlock(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    fn ids(&self) -> &Ids {
        &self.shared.ids
    }

    async fn close(&self) {
        let threads = self.stop();
        if threads.is_empty() {
            return;
        }
        let ended = tokio::task::spawn_blocking(move || join(threads)).await;
        if ended.is_err() {
            tracing::warn!("waiting for the store's threads ended abnormally");
        }
        self.shared.readers.close();
        self.shared.hot_readers.close();
        // Without the file the next start knows that nothing was interrupted. A drain that ran out of time, or results
        // that could not be stored, leave attempts that had begun: those it must know.
        if self.shared.agenda().any_begun() {
            tracing::warn!("attempts were running at the end; the next start shows them as interrupted");
        } else if let Err(error) = self.shared.in_flight.remove() {
            tracing::warn!(%error, "the in-flight file could not be removed");
        }
        self.unlock();
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        join(self.stop());
        self.unlock();
    }
}

fn of_log(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what: "sync the write-ahead log", path, source }
}

/// Starts those who work beside the callers: the writer, who makes its commits durable, and the upkeep.
fn start_threads(
    shared: &Arc<Shared>,
    mut connection: Connection,
    log: Synced,
    path: &Path,
    woken: Receiver<()>,
    was_ahead: bool,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let watcher = Arc::clone(shared);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
        watcher.wal.committed(u64::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    let beside = schema::open_checkpointer(path, &shared.config)?;
    let io = |what: &'static str| {
        let path = path.to_owned();
        move |source| OpenError::Io { what, path, source }
    };
    let database =
        Arc::new(Synced::database(path, shared.config.disk).map_err(io("open the database to sync it"))?);
    let kept = Arc::clone(&database);
    let (committed, to_sync) = sync_channel(1);
    let writer = Writer::new(connection, Arc::clone(shared), committed);
    let (upkeep, syncing) = (Arc::clone(shared), Arc::clone(shared));
    let clock = set_back::Watch::new(shared, was_ahead);
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        started.map_err(io("start a thread of the store"))
    };
    Ok(vec![
        thread(
            "store-writer",
            Box::new(move || {
                let ending = Ending::of("the writer", &writer.shared);
                writer.run();
                drop(ending);
                // Not before: see there.
                drop(kept);
            }),
        )?,
        thread(
            "store-sync",
            Box::new(move || {
                let ending = Ending::of("the thread that syncs the log", &syncing);
                log_sync::run(&syncing, &log, &to_sync);
                drop(ending);
            }),
        )?,
        thread(
            "store-upkeep",
            Box::new(move || {
                let _ending = UpkeepEnding(Arc::clone(&upkeep));
                upkeep::run(&upkeep, &beside, &database, &woken, clock);
            }),
        )?,
    ])
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}
