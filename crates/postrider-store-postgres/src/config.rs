//! Settings of the PostgreSQL store.

use postrider_model::retry::RetryPolicy;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Settings of the PostgreSQL store. Unknown keys are refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`: the database that all nodes share. When it is
    /// set, nothing is kept in the data directory but who this node is. `--database-url` and `POSTRIDER_DATABASE_URL` set
    /// it too.
    pub url: Option<Masked>,
    /// Where this node keeps who it is, so that a restart goes on with its own work at once; `None` makes it a new node
    /// at each start. Not part of the file: the server's own setting counts.
    #[serde(skip)]
    pub data_dir: Option<PathBuf>,
    /// Connections for configuration and lists. Six more serve messages, results, claims and wake-ups.
    pub connections: usize,
    /// Commits of messages, and again of results, that may be under way at once, each on a connection of its own.
    pub commits: usize,
    /// Operations that share one commit at most.
    pub batch: usize,
    /// Operations that may wait for a commit. Beyond that callers wait, and after 5 seconds are told to come back.
    pub write_queue: usize,
    /// Payload bytes of just accepted messages that may be kept in memory until they are claimed.
    pub hand_over_bytes: usize,
    /// Endpoints whose configuration is kept in memory for matching and sending.
    pub cached_endpoints: usize,
    /// How long a payload is kept when the publisher does not say, in seconds.
    pub payload_retention_seconds: u64,
    /// How long a node that is not heard of keeps its work, in seconds; at least one and a half times an attempt's longest
    /// time, which is `delivery.total_deadline_ms` and three seconds.
    pub lease_seconds: u64,
    /// Wake-ups between nodes over `LISTEN` and `NOTIFY`. Behind a pooler in transaction mode they cannot be heard: then,
    /// and when this is off, nodes look every `poll_milliseconds`.
    pub listen: bool,
    /// How often a node that hears no wake-ups looks for work and for changed configuration.
    pub poll_milliseconds: u64,
    /// Whether `url` leads to a pooler in transaction mode, such as `PgBouncer`: `auto` finds out at the start, `none` (a
    /// server, or a pooler in session mode) and `transaction` say so.
    pub pooler: Pooler,
    /// Open a database that may forget what it has committed (`fsync`, `full_page_writes` or `synchronous_commit` off).
    pub dangerous_accept_data_loss: bool,
    /// Whether this process serves endpoints; commands that only read and write do not. Not part of the file.
    #[serde(skip)]
    pub serves: bool,
    /// Longest time of an attempt, in seconds; none begins when the lease may end before it. Not part of the file: it
    /// follows from the engine's settings.
    #[serde(skip)]
    pub attempt_seconds: u64,
    /// Age at which deliveries of endpoints that set nothing of their own about retries expire, in seconds. Not part
    /// of the file: it follows from the engine's retry policy.
    #[serde(skip)]
    pub delivery_deadline_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            data_dir: None,
            connections: 6,
            commits: 2,
            batch: 512,
            write_queue: 4096,
            hand_over_bytes: 64 * 1024 * 1024,
            cached_endpoints: 20_000,
            payload_retention_seconds: 30 * 24 * 3600,
            lease_seconds: 35,
            listen: true,
            poll_milliseconds: 500,
            pooler: Pooler::Auto,
            dangerous_accept_data_loss: false,
            serves: true,
            attempt_seconds: 20,
            delivery_deadline_seconds: RetryPolicy::default().deadline().as_secs(),
        }
    }
}

impl Config {
    /// See `lease_seconds`.
    pub(crate) fn lease_time(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.max(1))
    }

    /// See `poll_milliseconds`.
    pub(crate) fn poll_time(&self) -> Duration {
        Duration::from_millis(self.poll_milliseconds.max(50))
    }

    /// The URL; empty when none is set.
    pub(crate) fn url(&self) -> SecretString {
        self.url.as_ref().map(|url| url.0.clone()).unwrap_or_default()
    }
}

/// What stands between this node and the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// To be found out at the start.
    #[default]
    Auto,
    /// Nothing that matters: each connection is a session of the server.
    None,
    /// Each transaction may run in another session.
    Transaction,
}

/// A setting that holds a password: read from the file, shown as `[secret]`.
#[derive(Clone)]
pub struct Masked(SecretString);

impl From<String> for Masked {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl std::fmt::Debug for Masked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl Serialize for Masked {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Masked {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}
