//! Idle connections. Never shared between environments, applications or origins; the last one used goes first, so that
//! the others grow old and are closed.

use crate::{config::Config, http::Inbox, stream::Stream};
use postrider_model::{
    environment::EnvironmentId,
    id::ApplicationId,
    url::{EndpointUrl, Host, Scheme},
};
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::time::{Instant, interval};

/// How often connections that waited too long are closed.
const SWEEP: Duration = Duration::from_secs(5);

/// Whose connection, and to where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    environment: EnvironmentId,
    application: ApplicationId,
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// The same, borrowed: looking for a connection allocates nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OriginRef<'a> {
    pub(crate) environment: &'a EnvironmentId,
    pub(crate) application: &'a ApplicationId,
    pub(crate) url: &'a EndpointUrl,
}

impl OriginRef<'_> {
    pub(crate) fn to_owned(self) -> Origin {
        Origin {
            environment: self.environment.clone(),
            application: *self.application,
            scheme: self.url.scheme(),
            host: self.url.host().clone(),
            port: self.url.port(),
        }
    }

    fn is(self, origin: &Origin) -> bool {
        self.url.port() == origin.port
            && self.url.scheme() == origin.scheme
            && *self.application == origin.application
            && *self.environment == origin.environment
            && *self.url.host() == origin.host
    }
}

/// A connection that can serve requests, one after the other.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) inbox: Inbox,
    /// The head of the request that is being sent; kept for its memory.
    pub(crate) head: Vec<u8>,
    origin: Origin,
    opened: Instant,
    idle_since: Instant,
}

/// Without its buffers: they hold credentials.
impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(stream: Stream, origin: Origin) -> Self {
        let now = Instant::now();
        Self { stream, inbox: Inbox::default(), head: Vec::new(), origin, opened: now, idle_since: now }
    }
}

/// The idle connections of the process.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    hasher: RandomState,
    per_origin: usize,
    total: usize,
    idle_time: Duration,
    age: Duration,
}

#[derive(Debug, Default)]
struct Idle {
    /// By hash of the origin; each entry is compared in full.
    by_hash: HashMap<u64, Vec<Connection>>,
    count: usize,
    sweeping: bool,
}

impl Idle {
    /// The connection that waited longest: whoever fills the pool must not keep everybody else out.
    fn take_oldest(&mut self) -> Option<Connection> {
        // Each entry's first one waited longest: they are put and taken at the end.
        let (hash, _) = self
            .by_hash
            .iter()
            .filter_map(|(hash, entries)| Some((*hash, entries.first()?.idle_since)))
            .min_by_key(|(_, since)| *since)?;
        let entries = self.by_hash.get_mut(&hash)?;
        let oldest = entries.remove(0);
        if entries.is_empty() {
            self.by_hash.remove(&hash);
        }
        self.count -= 1;
        Some(oldest)
    }
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            idle: Mutex::default(),
            hasher: RandomState::new(),
            per_origin: config.idle_connections_per_origin,
            total: config.idle_connections_total,
            idle_time: Duration::from_secs(config.idle_connection_secs),
            age: Duration::from_secs(config.connection_age_secs),
        }
    }

    /// A connection that is still open and silent, if there is one.
    pub(crate) async fn take(&self, origin: OriginRef<'_>) -> Option<Connection> {
        let hash = self.hash(origin);
        loop {
            let mut connection = self.pop(hash, origin)?;
            if self.is_usable(&connection, Instant::now()) && connection.stream.is_silent().await {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request, unless it is old or its origin has enough. In a full pool it takes the
    /// place of the one that waited longest.
    pub(crate) fn put(self: &Arc<Self>, mut connection: Connection) {
        let now = Instant::now();
        connection.idle_since = now;
        connection.inbox.shrink();
        if !self.is_usable(&connection, now) {
            return;
        }
        let hash = self.hash_owned(&connection.origin);
        let mut idle = self.lock();
        let waiting = idle.by_hash.get(&hash).map_or(0, Vec::len);
        if self.total == 0 || waiting >= self.per_origin {
            return;
        }
        let oldest = if idle.count >= self.total { idle.take_oldest() } else { None };
        idle.by_hash.entry(hash).or_default().push(connection);
        idle.count += 1;
        let starts_sweep = !std::mem::replace(&mut idle.sweeping, true);
        // Sockets are closed after the lock is given back.
        drop(idle);
        drop(oldest);
        if starts_sweep {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().count
    }

    fn pop(&self, hash: u64, origin: OriginRef<'_>) -> Option<Connection> {
        let mut idle = self.lock();
        let entries = idle.by_hash.get_mut(&hash)?;
        let at = entries.iter().rposition(|connection| origin.is(&connection.origin))?;
        let connection = entries.remove(at);
        idle.count -= 1;
        Some(connection)
    }

    fn is_usable(&self, connection: &Connection, now: Instant) -> bool {
        now.duration_since(connection.idle_since) < self.idle_time
            && now.duration_since(connection.opened) < self.age
    }

    /// Closes what waited too long; says whether any is left.
    fn close_old(&self) -> bool {
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut idle = self.lock();
        for entries in idle.by_hash.values_mut() {
            closed.extend(entries.extract_if(.., |connection| !self.is_usable(connection, now)));
        }
        idle.by_hash.retain(|_, entries| !entries.is_empty());
        idle.count = idle.count.saturating_sub(closed.len());
        idle.sweeping = idle.count > 0;
        let left = idle.sweeping;
        // Sockets are closed after the lock is given back.
        drop(idle);
        drop(closed);
        left
    }

    fn hash(&self, origin: OriginRef<'_>) -> u64 {
        let OriginRef { environment, application, url } = origin;
        self.hasher.hash_one((environment, application, url.scheme(), url.host(), url.port()))
    }

    fn hash_owned(&self, origin: &Origin) -> u64 {
        let Origin { environment, application, scheme, host, port } = origin;
        self.hasher.hash_one((environment, application, *scheme, host, *port))
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Nothing inside can panic half-way.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs while there are idle connections.
async fn sweep(pool: Weak<Pool>) {
    let mut ticks = interval(SWEEP);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.close_old() {
            return;
        }
    }
}
