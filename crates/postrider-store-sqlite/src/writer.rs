//! The writer: one thread owns the only connection that writes; many callers share one commit.
//!
//! Operations wait in a bounded queue. While one commit runs the next batch gathers, so no timer is needed. An
//! operation is answered only after its commit returned. A failure of a careful operation ([`Isolation::Own`]) undoes
//! only itself, by a savepoint. Those of the hot path ([`Isolation::Shared`]) check everything before their first
//! write, and so do without: should one fail after it, the batch fails as a whole.

use crate::{
    Shared,
    failure::{Failure, code, of_sql, unavailable},
    health::Commits,
    schema,
};
use postrider_model::{delivery::DeliveryId, id::ApplicationId, time::Timestamp};
use postrider_store::StoreError;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// How long a caller waits for a place in the queue before it is told to come back.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// What happens in memory once the commit is durable, in the order of the operations.
type Effect = Box<dyn FnOnce(&Shared) + Send>;

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
    effects: Vec<Effect>,
}

/// What earlier operations of the same batch did that memory does not show yet.
#[derive(Default)]
struct Marks {
    changed: HashSet<ApplicationId>,
    recorded: HashSet<DeliveryId>,
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
        !self.marks.changed.contains(&application) && self.shared.memory.version(application) == version
    }

    /// Marks a delivery's result as stored; `false` when this batch holds one already.
    pub(crate) fn first_record_of(&mut self, delivery: DeliveryId) -> bool {
        self.marks.recorded.insert(delivery)
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

/// Puts an operation into the queue; the answer comes after its commit.
pub(crate) async fn submit<T: Send + 'static>(
    shared: &Shared,
    isolation: Isolation,
    run: impl FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T, Failure>>, StoreError> {
    if let Some(detail) = shared.disk.broken() {
        return Err(unavailable(detail));
    }
    let sender = shared.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sender) = sender else { return Err(closing()) };
    let (reply, answer) = oneshot::channel();
    let operation = Typed { run: Some(run), result: None, isolation, reply };
    match sender.send_timeout(Box::new(operation), QUEUE_WAIT).await {
        Ok(()) => Ok(answer),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
            Err(unavailable("too many writes are waiting for the disk".to_owned()))
        }
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(closing()),
    }
}

/// The same for a thread that may block, without waiting for a place in the queue.
pub(crate) fn submit_blocking<T: Send + 'static>(
    shared: &Shared,
    isolation: Isolation,
    run: impl FnOnce(&mut Scope<'_>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let sender = shared.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sender) = sender else { return Err(closing().into()) };
    let (reply, answer) = oneshot::channel();
    let operation = Typed { run: Some(run), result: None, isolation, reply };
    sender
        .try_send(Box::new(operation))
        .map_err(|_| unavailable("too many writes are waiting for the disk".to_owned()))?;
    // The thread must not keep the queue alive while it waits.
    drop(sender);
    answer.blocking_recv().unwrap_or_else(|_| Err(closing().into()))
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
    pub(crate) queue: mpsc::Receiver<Queued>,
}

impl Writer {
    /// Works until every sender of the queue is gone, and then until the queue is empty.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            // What waited when the disk failed must not be written either: a second sync would lie.
            if let Some(detail) = self.shared.disk.broken() {
                first.answer(Err(unavailable(detail)));
                continue;
            }
            self.batch(first);
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

    fn batch(&mut self, first: Queued) {
        let mut operations = vec![first];
        let outcome = self.transact(&mut operations);
        match outcome {
            Ok(effects) => {
                for effect in effects {
                    // What is committed has to be answered, and what comes after it to be written.
                    if catch_unwind(AssertUnwindSafe(|| effect(&self.shared))).is_err() {
                        tracing::error!("memory could not follow a commit; a restart reads it anew");
                    }
                }
                for operation in operations {
                    operation.answer(Ok(()));
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

    /// One transaction over what waits; takes in what arrives meanwhile, up to the bound.
    fn transact(
        &mut self,
        operations: &mut Vec<Queued>,
    ) -> Result<Vec<Effect>, (StoreError, Option<ErrorCode>)> {
        let sql = |error: rusqlite::Error| (of_sql(&error), code(&error));
        let most = self.shared.config.batch.max(1);
        let before = self.connection.total_changes();
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let mut marks = Marks::default();
        let mut effects = Vec::new();
        let now = self.shared.clock.now();
        self.shared.latest.saw(now);
        let mut next = 0;
        loop {
            while let Some(operation) = operations.get_mut(next) {
                let mut scope = Scope {
                    connection: &transaction,
                    shared: &self.shared,
                    now,
                    marks: &mut marks,
                    effects: Vec::new(),
                };
                if run_one(operation, &mut scope)? {
                    effects.append(&mut scope.effects);
                }
                next += 1;
            }
            match (operations.len() < most).then(|| self.queue.try_recv()) {
                Some(Ok(operation)) => operations.push(operation),
                _ => break,
            }
        }
        let timer = Commits::timer();
        transaction.commit().map_err(sql)?;
        if self.connection.total_changes() > before {
            self.shared.commits.record(timer, operations.len());
        }
        Ok(effects)
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
