//! The writer: one thread owns the only connection that writes; many callers share one commit.
//!
//! Operations wait in a bounded [inbox](crate::inbox). While one commit is [synced](crate::log_sync) the next batch gathers and
//! is executed, so no timer is needed. An operation is answered only after its commit is durable. A failure of a careful
//! operation ([`Isolation::Own`]) undoes only itself, by a savepoint. Those of the hot path ([`Isolation::Shared`]) check
//! everything before their first write, and so do without: should one fail after it, the batch fails as a whole.

use crate::{
    Shared,
    failure::{Failure, code, of_sql, unavailable},
    health::Commits,
    inbox::Refused,
    log_sync::Committed,
    schema,
};
use postrider_model::{id::ApplicationId, time::Timestamp};
use postrider_store::{StoreError, deliveries::Lease};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering, mpsc::SyncSender},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// How long a caller waits for a place in the queue before it is told to come back.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// What happens in memory once the commit is durable, in the order of the operations.
pub(crate) type Effect = Box<dyn FnOnce(&Shared) + Send>;

/// An operation in the queue.
pub(crate) type Queued = Box<dyn Operation>;

/// How an operation is kept from spoiling others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// A savepoint of its own.
    Own,
    /// None: it writes nothing before all its checks have passed.
    Shared,
}

/// Work in a batch: what an operation may touch.
pub(crate) struct Scope<'a> {
    /// The connection, inside the batch's transaction.
    pub(crate) connection: &'a Connection,
    /// The store.
    pub(crate) shared: &'a Shared,
    /// The time of the batch.
    pub(crate) now: Timestamp,
    marks: &'a mut Marks,
    /// Those of the batch before, which may still be waiting for its sync.
    earlier: &'a Marks,
    effects: &'a mut Vec<Effect>,
}

/// What earlier operations did that memory does not show yet.
#[derive(Default)]
struct Marks {
    changed: HashSet<ApplicationId>,
    recorded: HashSet<Lease>,
}

impl Scope<'_> {
    /// Runs once the commit is durable.
    pub(crate) fn after_commit(&mut self, effect: impl FnOnce(&Shared) + Send + 'static) {
        self.effects.push(Box::new(effect));
    }

    /// The configuration below this application changes: snapshots of it are stale from here on.
    pub(crate) fn application_changes(&mut self, application: ApplicationId) {
        self.marks.changed.insert(application);
        self.after_commit(move |shared| shared.memory.changed(application));
    }

    /// Is this still the version of the application's configuration?
    pub(crate) fn is_current(&self, application: ApplicationId, version: u64) -> bool {
        // In this order: once the sync has ended, memory shows what came before it.
        let hidden = self.earlier.changed.contains(&application) && self.shared.inbox.is_syncing();
        !hidden
            && !self.marks.changed.contains(&application)
            && self.shared.memory.version(application) == version
    }

    /// Is a result of this lease stored already? An operation that fails after asking has stored none.
    pub(crate) fn is_recorded(&self, lease: &Lease) -> bool {
        self.earlier.recorded.contains(lease) || self.marks.recorded.contains(lease)
    }

    /// A result of this lease is stored.
    pub(crate) fn recorded(&mut self, lease: Lease) {
        self.marks.recorded.insert(lease);
    }
}

/// Type-erased operation.
pub(crate) trait Operation: Send {
    /// Does the work; tells whether it failed, and how SQLite saw it.
    fn run(&mut self, scope: &mut Scope<'_>) -> Ran;
    /// See [`Isolation`].
    fn isolation(&self) -> Isolation;
    /// Answers the caller: its own result, or the batch's failure.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// How a run ended.
pub(crate) enum Ran {
    Well,
    /// Refused or failed without harm to the transaction.
    Failed,
    /// SQLite failed in a way that concerns the batch.
    Broke(StoreError, Option<ErrorCode>),
}

struct Typed<T, F> {
    run: Option<F>,
    result: Option<Result<T, Failure>>,
    isolation: Isolation,
    reply: oneshot::Sender<Result<T, Failure>>,
}

impl<T: Send, F: FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send> Operation for Typed<T, F> {
    fn run(&mut self, scope: &mut Scope<'_>) -> Ran {
        let Some(run) = self.run.take() else { return Ran::Failed };
        // A panic is a failure of this operation like any other; whether others share it depends on what it wrote.
        let result = catch_unwind(AssertUnwindSafe(|| run(scope))).unwrap_or_else(|_| {
            Err(StoreError::Internal { detail: "an operation panicked".to_owned() }.into())
        });
        let ran = match &result {
            Ok(_) => Ran::Well,
            Err(Failure::Sql(error)) => match code(error) {
                class @ Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => {
                    Ran::Broke(of_sql(error), class)
                }
                _ => Ran::Failed,
            },
            Err(_) => Ran::Failed,
        };
        self.result = Some(result);
        ran
    }

    fn isolation(&self) -> Isolation {
        self.isolation
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match committed {
            Ok(()) => {
                self.result.unwrap_or_else(|| Err(unavailable("the operation did not run".to_owned()).into()))
            }
            // A refusal was decided on what was durable before, or on changes that are lost now: ask again.
            Err(error) => Err(error.into()),
        };
        // The caller may have gone; what is committed stays committed.
        drop(self.reply.send(result));
    }
}

/// Puts an operation into the inbox; the answer comes after its commit.
pub(crate) async fn submit<T: Send + 'static>(
    shared: &Shared,
    isolation: Isolation,
    run: impl FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T, Failure>>, StoreError> {
    if let Some(detail) = shared.disk.broken() {
        return Err(unavailable(detail));
    }
    let (reply, answer) = oneshot::channel();
    let operation = Typed { run: Some(run), result: None, isolation, reply };
    shared.inbox.put(Box::new(operation), QUEUE_WAIT).await.map_err(refused)?;
    Ok(answer)
}

/// The same for a thread that may block, without waiting for a place.
pub(crate) fn submit_blocking<T: Send + 'static>(
    shared: &Shared,
    isolation: Isolation,
    run: impl FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    let operation = Typed { run: Some(run), result: None, isolation, reply };
    shared.inbox.try_put(Box::new(operation)).map_err(refused)?;
    answer.blocking_recv().unwrap_or_else(|_| Err(closing().into()))
}

fn refused(refused: Refused) -> StoreError {
    match refused {
        Refused::Full => unavailable("too many writes are waiting for the disk".to_owned()),
        Refused::Closed => closing(),
    }
}

/// Waits for the answer of a submitted operation.
pub(crate) async fn answered<T>(answer: oneshot::Receiver<Result<T, Failure>>) -> Result<T, Failure> {
    answer.await.unwrap_or_else(|_| Err(closing().into()))
}

fn closing() -> StoreError {
    unavailable("the store is closing".to_owned())
}

/// The thread's state.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
    /// To [`log_sync`](crate::log_sync): what is committed. Never full: the next commit waits for the sync of this one.
    pub(crate) committed: SyncSender<Committed>,
    earlier: Marks,
}

impl Writer {
    pub(crate) fn new(connection: Connection, shared: Arc<Shared>, committed: SyncSender<Committed>) -> Self {
        Self { connection, shared, committed, earlier: Marks::default() }
    }

    /// Works until the inbox is closed and empty.
    pub(crate) fn run(mut self) {
        let most = self.shared.config.batch.max(1);
        let mut operations = Vec::new();
        while self.shared.inbox.wait(&mut operations, most) {
            let operations = std::mem::take(&mut operations);
            // What waited when the disk failed must not be written either: a second sync would lie.
            if let Some(detail) = self.shared.disk.broken() {
                for operation in operations {
                    operation.answer(Err(unavailable(detail.clone())));
                }
                continue;
            }
            self.batch(operations);
            if self.shared.wal.restart_wanted.swap(false, Ordering::Relaxed) {
                self.restart_log();
            }
        }
        if self.shared.disk.broken().is_some() {
            return;
        }
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
        }
    }

    /// What checkpoints beside the writer could not copy, because writing never paused: a few pages.
    fn restart_log(&self) {
        let restarted = self
            .connection
            .busy_timeout(schema::BUSY_CHECKPOINT)
            .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())));
        // In any case: a writer that waits for so short a time would fail batches.
        if let Err(error) = self.connection.busy_timeout(schema::BUSY).and(restarted)
            && !self.shared.disk.checkpoint_failed(&error)
        {
            tracing::warn!(%error, "the write-ahead log could not be restarted");
        }
    }

    fn batch(&mut self, mut operations: Vec<Queued>) {
        let mut effects = Vec::new();
        let mut marks = Marks::default();
        match self.transact(&mut operations, &mut effects, &mut marks) {
            Ok((changed, since)) => {
                self.earlier = marks;
                if self.committed.send(Committed { operations, effects, changed, since }).is_err() {
                    // Its operations went with it: whoever waits is told that the store is closing.
                    tracing::error!("the thread that syncs the log is gone");
                    self.shared.inbox.sync_ended();
                }
            }
            Err((error, code)) => {
                self.shared.disk.failed(code, &error);
                if !self.connection.is_autocommit()
                    && let Err(rollback) = self.connection.execute_batch("ROLLBACK")
                {
                    tracing::error!(error = %rollback, "a failed batch could not be rolled back");
                }
                for operation in operations {
                    operation.answer(Err(error.clone()));
                }
            }
        }
    }

    /// One transaction over what waits; takes in what arrives meanwhile, up to the bound, and until the commit before is
    /// durable. Tells whether it wrote something, and when its commit began.
    fn transact(
        &self,
        operations: &mut Vec<Queued>,
        effects: &mut Vec<Effect>,
        marks: &mut Marks,
    ) -> Result<(bool, Instant), (StoreError, Option<ErrorCode>)> {
        let sql = |error: rusqlite::Error| (of_sql(&error), code(&error));
        let (shared, most) = (&self.shared, self.shared.config.batch.max(1));
        let before = self.connection.total_changes();
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(sql)?;
        let now = shared.clock.now();
        shared.latest.saw(now);
        let mut next = 0;
        loop {
            while let Some(operation) = operations.get_mut(next) {
                let begun = effects.len();
                let mut scope = Scope {
                    connection: &transaction,
                    shared,
                    now,
                    marks: &mut *marks,
                    earlier: &self.earlier,
                    effects: &mut *effects,
                };
                if !run_one(operation, &mut scope)? {
                    effects.truncate(begun);
                }
                next += 1;
            }
            if !shared.inbox.more(operations, most) {
                break;
            }
        }
        if let Some(detail) = shared.disk.broken() {
            return Err((unavailable(detail), None));
        }
        let since = Commits::timer();
        // Before the commit: whoever reads it must be able to tell that it is not durable yet.
        shared.inbox.sync_began();
        if let Err(error) = transaction.commit() {
            shared.inbox.sync_ended();
            return Err(sql(error));
        }
        Ok((self.connection.total_changes() > before, since))
    }
}

/// Runs one operation; `true` when it did what it was to do. An error concerns the whole batch.
fn run_one(operation: &mut Queued, scope: &mut Scope<'_>) -> Result<bool, (StoreError, Option<ErrorCode>)> {
    let connection = scope.connection;
    let sql = |error: rusqlite::Error| (of_sql(&error), code(&error));
    let statement =
        |text: &str| connection.prepare_cached(text).and_then(|mut ready| ready.execute([])).map_err(sql);
    let own = operation.isolation() == Isolation::Own;
    let before = connection.total_changes();
    if own {
        statement("SAVEPOINT operation")?;
    }
    let well = match operation.run(scope) {
        Ran::Well => true,
        Ran::Failed => false,
        Ran::Broke(error, code) => return Err((error, code)),
    };
    if connection.is_autocommit() {
        return Err((unavailable("the database rolled the batch back".to_owned()), None));
    }
    if own {
        if !well {
            statement("ROLLBACK TO operation")?;
        }
        statement("RELEASE operation")?;
    } else if !well && connection.total_changes() != before {
        return Err((StoreError::Internal { detail: "a write failed halfway".to_owned() }, None));
    }
    Ok(well)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
