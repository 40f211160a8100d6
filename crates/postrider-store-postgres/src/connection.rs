//! Connections: one at a time with its prepared statements, and a pool of them.
//!
//! A connection that broke, or whose transaction was left open because its caller went away, is closed and not used
//! again: the database then undoes what was begun.

mod client;

pub(crate) use client::{Client, Statement};

use crate::{
    OpenError,
    address::Address,
    failure::{Failure, closing, unavailable},
    reach::SILENCE,
};
use postrider_store::StoreError;
use std::{
    collections::HashMap,
    future::Future,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Row, types::ToSql};

/// How long a caller waits for a connection of the pool before it is told to come back.
const POOL_WAIT: Duration = Duration::from_secs(5);
/// How long connecting may take in all.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long the database may work at one statement.
const STATEMENT_TIME: Duration = Duration::from_secs(20);
/// How long a transaction may wait for the next statement: a node that stands still, or whose way is cut, must not hold
/// its locks against the others.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// How long an answer is waited for: beyond that the way there is cut.
const ANSWER_TIME: Duration = Duration::from_secs(25);
/// What a connection sees that was not told otherwise: all environments.
const EVERYTHING: &str = "*";
/// Statements kept prepared per connection: more than there are in this crate.
const STATEMENTS: usize = 256;

/// The values of a statement.
pub(crate) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Everything but commits of messages and results: each statement is planned for the tables as they are.
    Reading,
    /// Commits of messages and results. Their plans are made once: a table that was empty then may hold millions a minute
    /// later, so that their statements leave the planner no choice but to go along an index, item by item.
    Commits,
    /// Hints and notes: their commits need not wait for the disk.
    Notes,
}

impl Use {
    /// What a session, or each transaction, is told: `set` is `SET` or `SET LOCAL`.
    fn settings(self, set: &str) -> String {
        let timeout = STATEMENT_TIME.as_millis().to_string();
        let idle = IDLE_TIME.as_millis().to_string();
        let of_all = [
            ("search_path", "postrider"),
            ("statement_timeout", timeout.as_str()),
            ("idle_in_transaction_session_timeout", idle.as_str()),
            ("client_min_messages", "error"),
            ("jit", "off"),
            ("postrider.environments", "'*'"),
        ];
        let of_use: &[(&str, &str)] = match self {
            Self::Reading => &[("plan_cache_mode", "force_custom_plan")],
            Self::Commits => &[
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
            ],
            Self::Notes => &[
                ("synchronous_commit", "off"),
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
            ],
        };
        let told = of_all.iter().chain(of_use).map(|(name, value)| format!("{set} {name} = {value}; "));
        told.collect()
    }
}

/// Statements by their texts.
pub(crate) type Statements = Mutex<HashMap<String, Statement>>;

/// A connection.
pub(crate) struct Connection {
    client: Client,
    statements: Arc<Statements>,
    broken: AtomicBool,
    /// How often the database had fallen silent when this was opened.
    silences: u64,
    address: Address,
}

impl Connection {
    /// Connects, for callers of the contract; not while it is known that nobody can.
    pub(crate) async fn open(address: &Address, purpose: Use) -> Result<Self, Failure> {
        address.reach().check()?;
        Self::first(address, purpose).await.map_err(|error| {
            match &error {
                OpenError::Away { why, .. } => address.refused(why),
                other => address.refused(&other.to_string()),
            }
            unavailable(error.to_string()).into()
        })
    }

    /// Connects, with the reasons for an operator.
    pub(crate) async fn first(address: &Address, purpose: Use) -> Result<Self, OpenError> {
        let refused = |error| OpenError::of_connecting(address.shown(), &error);
        let silences = address.reach().silences();
        let connecting = async {
            let (client, connection) = address.connect().await.map_err(refused)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the database ended");
                }
            });
            if !address.is_pooled() {
                client.batch_execute(&purpose.settings("SET")).await.map_err(refused)?;
            }
            Ok(client)
        };
        // The library's own limit is that of TCP, which a machine keeps up whose processes stand still.
        let in_time = tokio::time::timeout(CONNECT_TIME, connecting).await;
        let client = in_time.unwrap_or_else(|_| Err(address.silent()))?;
        Ok(Self {
            client: Client::new(client, purpose, address.is_pooled()),
            statements: address.statements(),
            broken: AtomicBool::new(false),
            silences,
            address: address.clone(),
        })
    }

    /// Is it of no use any more?
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
            || self.client.is_closed()
            || self.silences != self.address.reach().silences()
    }

    /// It must not be used again.
    pub(crate) fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// From the next transaction or statement on, rows of other environments than these (ids, with commas between them)
    /// are not seen; `*` for all. Not inside of a transaction. Costs no round trip.
    pub(crate) fn see(&self, environments: &str) {
        self.client.see(environments);
    }

    /// The client itself, for what is sent without waiting.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The prepared statement of a text.
    pub(crate) async fn prepare(&self, text: &str) -> Result<Statement, Failure> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let statement = self.timed(self.client.prepare(text)).await?;
        let mut statements = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Rows of a statement.
    pub(crate) async fn query(&self, text: &str, values: Values<'_>) -> Result<Vec<Row>, Failure> {
        let statement = self.prepare(text).await?;
        self.timed(self.client.query(&statement, values)).await
    }

    /// The first row of a statement.
    pub(crate) async fn first_row(&self, text: &str, values: Values<'_>) -> Result<Option<Row>, Failure> {
        Ok(self.query(text, values).await?.into_iter().next())
    }

    /// How many rows a statement changed.
    pub(crate) async fn execute(&self, text: &str, values: Values<'_>) -> Result<u64, Failure> {
        let statement = self.prepare(text).await?;
        self.timed(self.client.execute(&statement, values)).await
    }

    /// Statements without values and rows, one after the other.
    pub(crate) async fn run(&self, text: &str) -> Result<(), Failure> {
        self.timed(self.client.batch_execute(text)).await
    }

    /// A statement that must not stand in a transaction and may take long: a build of an index beside the work. Behind a
    /// pooler the server's own time limit counts.
    pub(crate) async fn run_alone(&self, text: &str, pooled: bool) -> Result<(), Failure> {
        if !pooled {
            self.client.execute_alone("SET statement_timeout = 0").await?;
        }
        let done = self.client.execute_alone(text).await;
        if !pooled {
            let timeout = STATEMENT_TIME.as_millis();
            self.client.execute_alone(&format!("SET statement_timeout = {timeout}")).await?;
        }
        Ok(done?)
    }

    /// Statements that may take long in the transaction that was begun: a migration. A cut way is found by keep-alives.
    pub(crate) async fn run_long(&self, text: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(text).await?)
    }

    /// Waits for an answer, not for ever: silence means that the way is cut.
    pub(crate) fn timed<T: Send>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>> + Send,
    ) -> impl Future<Output = Result<T, Failure>> + Send {
        // In a box: what is sent together is large, and whoever waits for it would carry its size twice.
        let answer = Box::pin(answer);
        async move { self.judged(self.in_time(answer).await) }
    }

    fn judged<T>(&self, answer: Option<Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => {
                if error.as_db_error().is_none() || error.is_closed() {
                    self.give_up();
                }
                Err(error.into())
            }
            None => {
                self.give_up();
                Err(unavailable("the database does not answer".to_owned()).into())
            }
        }
    }

    /// `None` when the database fell silent. An answer that takes long makes this process find out.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(answer);
        let soon = tokio::time::timeout(SILENCE, &mut answer).await;
        if let Ok(answer) = soon {
            return Some(answer);
        }
        self.address.suspect();
        tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            () = self.address.reach().silent_after(self.silences) => None,
            () = tokio::time::sleep(ANSWER_TIME.saturating_sub(SILENCE)) => None,
        }
    }
}

/// A bounded number of connections for whoever needs one.
pub(crate) struct Pool {
    address: Address,
    purpose: Use,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A connection lent by the pool.
pub(crate) struct Lent {
    connection: Option<Connection>,
    pool: Arc<Pool>,
    /// Nothing was left half done.
    clean: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Of at most `most` connections.
    pub(crate) fn new(address: Address, most: usize, purpose: Use) -> Arc<Self> {
        Arc::new(Self {
            address,
            purpose,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(most.max(1))),
        })
    }

    /// A connection, waited for when all are lent.
    pub(crate) async fn get(self: &Arc<Self>) -> Result<Lent, Failure> {
        let permit = tokio::time::timeout(POOL_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = match permit {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(closing().into()),
            Err(_) => return Err(unavailable("all connections to the database are busy".to_owned()).into()),
        };
        let idle = loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if idle.as_ref().is_none_or(|idle| !idle.is_broken()) {
                break idle;
            }
        };
        let connection = match idle {
            Some(idle) => idle,
            None => Connection::open(&self.address, self.purpose).await?,
        };
        connection.see(EVERYTHING);
        Ok(Lent { connection: Some(connection), pool: Arc::clone(self), clean: true, _permit: permit })
    }

    /// Lends none any more.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Lent {
    /// A transaction begins: until [`Self::end`] the connection is not given back.
    pub(crate) async fn begin(&mut self, kind: &str) -> Result<(), Failure> {
        self.clean = false;
        self.run(kind).await
    }

    /// The transaction ended, either way.
    pub(crate) async fn end(&mut self, commit: bool) -> Result<(), Failure> {
        self.run(if commit { "COMMIT" } else { "ROLLBACK" }).await?;
        self.clean = true;
        Ok(())
    }
}

impl Deref for Lent {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "it is taken out only when the loan ends")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("lent")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.clean
            && !connection.is_broken()
            && !self.pool.permits.is_closed()
        {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

/// A connection of its own for one task, opened when needed and again after it broke.
pub(crate) struct Own {
    address: Address,
    purpose: Use,
    connection: Option<Connection>,
}

impl Own {
    /// Not connected yet.
    pub(crate) fn new(address: Address, purpose: Use) -> Self {
        Self { address, purpose, connection: None }
    }

    /// The connection.
    pub(crate) async fn get(&mut self) -> Result<&Connection, Failure> {
        if self.connection.as_ref().is_none_or(Connection::is_broken) {
            self.connection = None;
            let connection = Connection::open(&self.address, self.purpose).await?;
            return Ok(self.connection.insert(connection));
        }
        self.connection
            .as_ref()
            .ok_or_else(|| StoreError::Internal { detail: "no connection".to_owned() }.into())
    }

    /// Something was left half done.
    pub(crate) fn give_up(&mut self) {
        self.connection = None;
    }
}
