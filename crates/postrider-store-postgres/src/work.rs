//! A transaction that changes configuration or makes a single write, and what follows in memory once it is durable.
//!
//! It runs in a task of its own: a caller that goes away must not leave memory behind what was committed.

use crate::{
    Shared,
    connection::{Connection, Lent, Use},
    failure::{Failure, closing, unavailable},
    health::Commits,
    schema::lock,
    values::{at, count, key},
};
use postrider_model::{environment::EnvironmentId, id::ApplicationId, time::Timestamp};
use postrider_store::StoreError;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

/// How often one asks whether a transaction happened whose answer was lost, and how long after each time.
const LOST_LOOKS: usize = 5;
const LOST_PAUSE: Duration = Duration::from_millis(200);
/// Locks that all applications share: enough that changes of one hardly keep messages of another waiting.
const CONFIG_LOCKS: u8 = 64;

/// What happens in memory once the commit is durable.
type Effect = Box<dyn FnOnce(&Shared) + Send + Sync>;

/// What a [`Shared::change`] does.
pub(crate) type Doing<'w, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'w>>;

/// An open transaction.
pub(crate) struct Work {
    /// Its connection.
    pub(crate) connection: Lent,
    /// The store.
    pub(crate) shared: Arc<Shared>,
    /// Its time.
    pub(crate) now: Timestamp,
    effects: Vec<Effect>,
}

impl Work {
    /// Runs once the commit is durable.
    pub(crate) fn after_commit(&mut self, effect: impl FnOnce(&Shared) + Send + Sync + 'static) {
        self.effects.push(Box::new(effect));
    }

    /// The configuration at or below this application, whose lock is held, changes.
    pub(crate) async fn application_changes(&mut self, application: ApplicationId) -> Result<(), Failure> {
        let row = self
            .connection
            .first_row(
                "UPDATE application SET config_version = nextval('config_version') WHERE id = $1
                 RETURNING config_version",
                &[&key(&application)],
            )
            .await?;
        let version = row.map(|row| at(&row, 0)).transpose()?.map_or(0, count);
        self.after_commit(move |shared| {
            shared.memory.changed(application);
            shared.hints.changed(application, version);
        });
        Ok(())
    }
}

/// The lock of an application's configuration.
pub(crate) fn config_lock(application: ApplicationId) -> i32 {
    let last = application.ksuid().as_bytes()[19];
    i32::from(last % CONFIG_LOCKS)
}

impl Shared {
    /// Runs `run` in a transaction, alone with the configuration below `application` when one is named. It sees all
    /// environments: for what is not about one of them.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        application: Option<ApplicationId>,
        run: impl for<'w> FnOnce(&'w mut Work) -> Doing<'w, T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.spawn(None, application, run).await
    }

    /// The same, seeing nothing of other environments.
    pub(crate) async fn change_in<T: Send + 'static>(
        self: &Arc<Self>,
        environment: EnvironmentId,
        application: Option<ApplicationId>,
        run: impl for<'w> FnOnce(&'w mut Work) -> Doing<'w, T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.spawn(Some(environment), application, run).await
    }

    async fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        environment: Option<EnvironmentId>,
        application: Option<ApplicationId>,
        run: impl for<'w> FnOnce(&'w mut Work) -> Doing<'w, T> + Send + 'static,
    ) -> Result<T, Failure> {
        if self.is_closed() {
            return Err(closing().into());
        }
        let shared = Arc::clone(self);
        let task = tokio::spawn(async move { transaction(shared, environment, application, run).await });
        match task.await {
            Ok(result) => result,
            Err(error) => {
                Err(StoreError::Internal { detail: format!("a change ended abnormally: {error}") }.into())
            }
        }
    }

    /// A connection for reading what is of this environment.
    pub(crate) async fn reader_of(&self, environment: &EnvironmentId) -> Result<Lent, Failure> {
        let connection = self.reader().await?;
        connection.see(environment.as_str());
        Ok(connection)
    }

    /// A connection for reading what is not about one environment.
    pub(crate) async fn reader(&self) -> Result<Lent, Failure> {
        if self.is_closed() {
            return Err(closing().into());
        }
        self.pool.get().await
    }
}

async fn transaction<T>(
    shared: Arc<Shared>,
    environment: Option<EnvironmentId>,
    application: Option<ApplicationId>,
    run: impl for<'w> FnOnce(&'w mut Work) -> Doing<'w, T> + Send,
) -> Result<T, Failure> {
    let mut connection = shared.pool.get().await?;
    if let Some(environment) = environment {
        connection.see(environment.as_str());
    }
    connection.begin("BEGIN").await?;
    if let Some(application) = application {
        let locks = [lock::CONFIG, config_lock(application)];
        connection.query("SELECT pg_advisory_xact_lock($1, $2)", &[&locks[0], &locks[1]]).await?;
    }
    let now = shared.clock.now();
    let mut work = Work { connection, shared, now, effects: Vec::new() };
    let result = run(&mut work).await;
    match result {
        Ok(done) => {
            let number = number_of(&work.connection).await?;
            let begun = Commits::timer();
            // An error here leaves open whether it was committed: memory goes by the database from now on.
            if let Err(failure) = work.connection.end(true).await {
                work.shared.memory.all_changed();
                if !failure.is_lost() {
                    return Err(failure);
                }
                if !was_committed(&work.shared, number).await {
                    let unknown =
                        "the connection ended during the commit; it did not happen, as far as can be told";
                    return Err(unavailable(unknown.to_owned()).into());
                }
            }
            work.shared.commits.record(begun, 1);
            for effect in std::mem::take(&mut work.effects) {
                effect(&work.shared);
            }
            Ok(done)
        }
        Err(failure) => {
            // What cannot be undone by words is undone by closing the connection.
            let _ = work.connection.end(false).await;
            Err(failure)
        }
    }
}

/// The number of a transaction that has written something.
async fn number_of(connection: &Lent) -> Result<Option<String>, Failure> {
    let text = "SELECT pg_current_xact_id_if_assigned()::text";
    connection.first_row(text, &[]).await?.map_or(Ok(None), |row| at(&row, 0))
}

/// Did a transaction happen whose commit got no answer? The database remembers its number for long.
async fn was_committed(shared: &Shared, number: Option<String>) -> bool {
    // One that wrote nothing has nothing that could not have happened.
    let Some(number) = number else { return true };
    for _ in 0..LOST_LOOKS {
        let told = async {
            let connection = Connection::open(&shared.address, Use::Reading).await?;
            let text = "SELECT pg_xact_status($1::text::xid8)";
            let row = connection.first_row(text, &[&number]).await?;
            row.map_or(Ok(None), |row| at::<Option<String>>(&row, 0))
        };
        match told.await.ok().flatten().as_deref() {
            Some("committed") => return true,
            Some("aborted") => return false,
            _ => tokio::time::sleep(LOST_PAUSE).await,
        }
    }
    false
}
