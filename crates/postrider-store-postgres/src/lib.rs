//! The store for several nodes: the whole storage contract on PostgreSQL.
//!
//! The cast:
//! - [`queue`], [`accept`] and [`record`]: the two transactions of the hot path, whose commits callers share;
//!   [`accept::routing`]: what applications published inside of transactions of their own;
//! - [agenda](postrider_store::agenda): the memory of what waits, from which claims are served; [`claim`] fills it from the database;
//! - [`keeper`]: the lease of this node and its shards of endpoints ([`shards`]); [`takeover`]: ending a dead node;
//!   [`identity`]: who this node is; [`in_flight`]: which attempts had begun should the process die;
//! - [`coming`]: what is being committed and not handed over yet; [`hints`]: wake-ups between nodes; [`clock_sync`]: the database's clock; [`duties`]: what one node does for all;
//! - [`memory`] and [`snapshots`]: configuration for matching and sending, bounded;
//! - [`work`]: transactions of configuration; [`settled`]: deliveries that end;
//! - [`address`], [`connection`] and [`schema`]: reaching a database and what opening it means; [`reach`]: whether it is
//!   there at all;
//! - [`secrets`]: every credential, sealed, in one table; [`hold`]: what is not sent after a database was brought back;
//!   [`import`]: taking in an embedded database;
//! - one file per noun of the contract.
//!
//! Guarantees: a write that was answered `Ok` is committed; an endpoint is served by one node at a time; what a node
//! writes after another one has taken over changes nothing.

mod accept;
mod access;
mod address;
mod applications;
mod attempt_rows;
mod attempts;
mod claim;
mod clock_sync;
mod coming;
mod config;
mod connection;
mod credentials;
mod deliveries;
mod duties;
mod endpoint_rows;
mod endpoints;
mod event_types;
mod failure;
mod health;
mod hints;
mod hold;
mod idempotency;
mod identity;
mod import;
mod in_flight;
mod keeper;
mod memory;
mod message_rows;
mod messages;
mod neighbours;
mod open_error;
#[cfg(test)]
mod plans;
mod progress;
mod queue;
mod reach;
mod recent;
mod record;
mod retention;
mod schema;
mod secrets;
mod settled;
mod shards;
mod snapshots;
mod takeover;
#[cfg(feature = "testing")]
pub mod testing;
mod values;
mod work;

pub use config::{Config, Masked, Pooler};
pub use import::{Shared as ImportSource, import};
pub use open_error::OpenError;

use address::Address;
use connection::{Connection, Pool, Use};
use identity::Identity;
use in_flight::InFlight;
use keeper::Keeper;
use postrider_model::{delivery::DeliveryId, time::Timestamp};
use postrider_store::agenda::{Agenda, Handed};
use postrider_store::{Clock, Ids, Store, deliveries::AttemptRecord};
use postrider_vault::keyring::Keyring;
use queue::Queue;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};
use tokio::{sync::Notify, task::JoinSet};

/// Connections that read for claims and snapshots alone: lists over a long history must not keep deliveries and
/// publishers waiting.
const HOT_READERS: usize = 2;

/// How long an orderly end waits for the notes of begun attempts.
const NOTES_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// What all parts of an open store share.
pub(crate) struct Shared {
    config: Config,
    address: Address,
    clock: Clock,
    offset: clock_sync::Offset,
    ids: Ids,
    keyring: Keyring,
    pool: Arc<Pool>,
    hot_pool: Arc<Pool>,
    accepting: Queue<Vec<accept::Matched>, Vec<accept::Answer>>,
    recording: Queue<AttemptRecord, record::Answer>,
    memory: memory::Memory,
    agenda: Mutex<Agenda>,
    coming: coming::Coming,
    claimable: Notify,
    in_flight: Arc<InFlight>,
    hints: hints::Hints,
    questions: neighbours::Questions,
    keeper: Keeper,
    routing: accept::routing::Routing,
    identity: Mutex<Identity>,
    commits: health::Commits,
    positions: Mutex<Positions>,
    /// Since when a hold lasts as far as this node knows, in microseconds; 0 when none does.
    held_since: AtomicI64,
    closed: AtomicBool,
    closing: Notify,
}

/// How far retention came.
#[derive(Default)]
struct Positions {
    /// Payloads of messages up to this one are gone, as far as they could.
    payloads: Vec<u8>,
    /// When what disabled endpoints hold is looked at again.
    held: Timestamp,
}

impl Shared {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does this node hear wake-ups? Behind a pooler in transaction mode nobody does.
    fn listens(&self) -> bool {
        self.config.listen && !self.address.is_pooled()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn identity(&self, remember: impl FnOnce(&mut Identity) -> std::io::Result<()>) {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = remember(&mut identity) {
            tracing::warn!(%error, "the node's identity could not be written; a restart waits for its lease to end");
        }
    }

    /// A delivery that was just committed: to this node's claims, or to the node that serves its endpoint.
    fn hand_over(&self, handed: Handed, held: bool, now: Timestamp) {
        let endpoint = handed.delivery.endpoint;
        let mut agenda = self.agenda();
        // Under its lock, under which an endpoint is forgotten that another node serves from then on.
        if self.owns(endpoint) {
            let held = held || self.is_leaving(endpoint);
            agenda.hand_over(handed, held, now);
        } else if !held {
            self.hints.work(handed.scope.application, endpoint, handed.due_at);
        }
    }

    /// A pending delivery ended without a result: the node that serves it forgets it.
    fn ended(&self, delivery: DeliveryId, now: Timestamp) {
        let mut agenda = self.agenda();
        if self.owns(delivery.endpoint) {
            agenda.settled(delivery, now);
        } else {
            self.hints.ended(delivery);
        }
    }

    /// Everything that was this node's is another's now.
    fn forget_work(&self) {
        *self.agenda() = new_agenda(&self.config);
        self.in_flight.forget();
    }

    fn held_look(&self) -> Timestamp {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).held
    }

    fn look_at_held(&self, at: Timestamp) {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).held = at;
    }

    fn payload_position(&self) -> Vec<u8> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).payloads.clone()
    }

    fn payloads_gone(&self, position: Vec<u8>) {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).payloads = position;
    }
}

fn new_agenda(config: &Config) -> Agenda {
    Agenda::new(config.hand_over_bytes, u64::from(rand::random::<u32>()) << 32)
}

/// Brings the schema of a database up to date without serving it.
#[cfg(feature = "testing")]
pub(crate) async fn migrate_only(config: &Config, keyring: &Keyring) -> Result<(), OpenError> {
    let mut address = Address::parse(&config.url())?;
    address.name_schema(schema::known());
    let connection = Connection::first(&address, Use::Reading).await?;
    schema::open(&connection, config, keyring, Clock::default().now()).await
}

/// The store on PostgreSQL. Dropping it without [`close`](Store::close) is like a crash.
pub struct PostgresStore {
    shared: Arc<Shared>,
    tasks: Mutex<Option<Tasks>>,
}

/// What runs beside the callers.
struct Tasks {
    /// End when their queues are empty.
    workers: JoinSet<()>,
    others: JoinSet<()>,
}

impl PostgresStore {
    /// Opens the database, brings its schema up to date, goes on with the work of an earlier start in the same data
    /// directory, and takes this node's share of the work.
    pub async fn open(config: Config, keyring: Keyring) -> Result<Arc<Self>, OpenError> {
        let mut address = Address::parse(&config.url())?;
        address.name_schema(schema::known());
        let identity = Identity::take(config.data_dir.as_deref().filter(|_| config.serves))?;
        let before = identity.before;
        address.find_pooler(config.pooler).await?;
        let connection = Connection::first(&address, Use::Reading).await?;
        let shared = Arc::new(Shared {
            pool: Pool::new(address.clone(), config.connections, Use::Reading),
            hot_pool: Pool::new(address.clone(), HOT_READERS, Use::Reading),
            accepting: Queue::new(config.write_queue, config.batch),
            recording: Queue::new(config.write_queue, config.batch),
            memory: memory::Memory::new(config.cached_endpoints),
            agenda: Mutex::new(new_agenda(&config)),
            coming: coming::Coming::default(),
            claimable: Notify::new(),
            in_flight: Arc::default(),
            hints: hints::Hints::default(),
            questions: neighbours::Questions::default(),
            keeper: Keeper::new(rand::random()),
            routing: accept::routing::Routing::default(),
            identity: Mutex::new(identity),
            commits: health::Commits::default(),
            positions: Mutex::default(),
            held_since: AtomicI64::new(0),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            clock: Clock::default(),
            offset: clock_sync::Offset::default(),
            ids: Ids::default(),
            address,
            config,
            keyring,
        });
        clock_sync::compare(&shared, &connection).await?;
        let now = shared.clock.now();
        schema::open(&connection, &shared.config, &shared.keyring, now).await?;
        import::check_complete(&connection).await?;
        if let Some(since) = hold::look_where_it_lies(&connection, now).await? {
            shared.held_since.store(since.as_micros(), Ordering::Relaxed);
        }
        if shared.config.serves {
            if let Some(before) = before {
                takeover::end(&shared, &connection, before, None).await?;
            }
            keeper::register(&shared, &connection).await?;
            shared.identity(|identity| identity.remember(shared.node()));
            if let Some(standing) = keeper::renew(&shared, &connection).await? {
                keeper::balance(&shared, &connection, &standing).await?;
            }
        }
        let tasks = Mutex::new(Some(Tasks::start(&shared)));
        Ok(Arc::new(Self { shared, tasks }))
    }

    /// Waits until the notes of all begun attempts are written, as they are within moments; for tests of what a death
    /// leaves behind.
    pub async fn notes_written(&self) {
        if !self.shared.is_closed() {
            self.shared.in_flight.settled().await;
        }
    }

    /// As if somebody had set the database's clock, by so many microseconds: for tests.
    #[cfg(feature = "testing")]
    pub fn set_database_clock(&self, microseconds: i64) {
        self.shared.offset.set_skew(microseconds);
    }

    fn take_tasks(&self) -> Option<Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Tasks {
    fn start(shared: &Arc<Shared>) -> Self {
        let (mut workers, mut others) = (JoinSet::new(), JoinSet::new());
        for _ in 0..shared.config.commits.max(1) {
            workers.spawn(accept::run(Arc::clone(shared)));
            workers.spawn(record::run(Arc::clone(shared)));
        }
        let node = Arc::clone(shared);
        let notes = Arc::clone(&shared.in_flight).run(shared.address.clone(), move || node.node().to_vec());
        others.spawn(notes);
        others.spawn(hints::send(Arc::clone(shared)));
        if shared.config.serves {
            others.spawn(keeper::run(Arc::clone(shared)));
            others.spawn(accept::routing::run(Arc::clone(shared)));
        } else {
            others.spawn(keeper::follow(Arc::clone(shared)));
        }
        others.spawn(hints::hear(Arc::clone(shared)));
        Self { workers, others }
    }
}

impl postrider_store::backup::Backups for PostgresStore {}

#[async_trait::async_trait]
impl Store for PostgresStore {
    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    fn ids(&self) -> &Ids {
        &self.shared.ids
    }

    async fn close(&self) {
        let Some(mut tasks) = self.take_tasks() else { return };
        let shared = &self.shared;
        shared.closed.store(true, Ordering::Relaxed);
        shared.accepting.close();
        shared.recording.close();
        while tasks.workers.join_next().await.is_some() {}
        // What was begun and not recorded is booked below, by its notes.
        let _ = tokio::time::timeout(NOTES_TIME, shared.in_flight.settled()).await;
        tasks.others.abort_all();
        while tasks.others.join_next().await.is_some() {}
        let connection = Connection::open(&shared.address, Use::Reading).await;
        let retired = match connection {
            Ok(connection) => retire(shared, &connection).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = retired {
            let error = postrider_store::StoreError::from(failure);
            tracing::warn!(%error, "this node could not give its work back; others wait for its lease to end");
        }
        shared.closing.notify_waiters();
        shared.pool.close();
        shared.hot_pool.close();
        shared.identity(|identity| {
            identity.give_up();
            Ok(())
        });
    }
}

/// Gives everything back in order: other nodes go on at once.
async fn retire(shared: &Shared, connection: &Connection) -> Result<(), failure::Failure> {
    if shared.config.serves {
        takeover::end(shared, connection, shared.node(), None).await?;
    }
    hints::last_words(shared, connection).await
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Tasks end where they are, as in a crash; their connections end with them.
        self.shared.closed.store(true, Ordering::Relaxed);
        drop(self.take_tasks());
        self.shared.pool.close();
        self.shared.hot_pool.close();
        self.shared.identity(|identity| {
            identity.give_up();
            Ok(())
        });
    }
}
