//! PostgreSQL below the servers that are measured: a throw-away cluster of the run's own, or a server that runs already;
//! in it a new database for each server or group of nodes.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::OnceCell,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_postgres::{Client, NoTls};

const SCRIPT: &str = include_str!("../../postrider-store-postgres/cluster.sh");
/// Settings of our own cluster: durable, as in production, and with room for a run without a checkpoint in its middle.
const SETTINGS: [&str; 5] =
    ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=1GB", "max_wal_size=8GB"];
/// Settings that move figures, for the report.
const TOLD: &str = "fsync, synchronous_commit, full_page_writes, wal_compression, shared_buffers, max_wal_size, checkpoint_timeout";
/// How long nodes may take to share the work.
const SHARED: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// Where databases come from.
#[derive(Debug)]
pub(crate) struct Postgres {
    source: Source,
    scratch: PathBuf,
    running: OnceCell<Running>,
    made: AtomicU32,
}

#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A cluster of the run's own, with settings `name=value` beside the usual ones.
    Own { settings: Vec<String> },
    /// A server that runs already, by its administrator's URL.
    Named { url: String },
}

#[derive(Debug)]
struct Running {
    /// Of the database `postgres`, or the named one.
    url: String,
    sentence: String,
    /// Of our own cluster: its data directory, its first process, and what keeps it.
    own: Option<(PathBuf, u32, Keeper)>,
}

/// The cluster goes when its standard input ends, however this process does.
#[derive(Debug)]
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Postgres {
    pub(crate) fn new(source: Source, scratch: PathBuf) -> Self {
        Self { source, scratch, running: OnceCell::new(), made: AtomicU32::new(0) }
    }

    /// A new, empty database.
    pub(crate) async fn database(self: &Arc<Self>) -> Result<Database> {
        let running = self.running.get_or_try_init(|| self.start()).await?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("postrider_bench_{}_{number}", std::process::id());
        let client = connect(&running.url).await.context("reaching PostgreSQL")?;
        client.batch_execute(&format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await?;
        let row = client.query_one("SELECT oid FROM pg_database WHERE datname = $1", &[&name]).await?;
        let oid: u32 = row.get(0);
        let folder = running.own.as_ref().map(|(data, ..)| data.join("base").join(oid.to_string()));
        Ok(Database { url: with_database(&running.url, &name), name, folder, postgres: Arc::clone(self) })
    }

    /// Its version and settings, in one sentence; empty before the first database.
    pub(crate) fn sentence(&self) -> &str {
        self.running.get().map_or("", |running| &running.sentence)
    }

    /// The first process of a cluster of our own.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.get()?.own.as_ref().map(|(_, pid, _)| *pid)
    }

    async fn start(&self) -> Result<Running> {
        let (url, own) = match &self.source {
            Source::Named { url } => (url.clone(), None),
            Source::Own { settings } => {
                let (url, data, pid, keeper) = self.cluster(settings)?;
                (url, Some((data, pid, keeper)))
            }
        };
        let sentence = describe(&url).await?;
        Ok(Running { url, sentence, own })
    }

    fn cluster(&self, settings: &[String]) -> Result<(String, PathBuf, u32, Keeper)> {
        let mut keeper = Command::new("sh")
            .args(["-c", SCRIPT, "cluster.sh"])
            .args(SETTINGS)
            .args(settings)
            // The script runs itself once more as another user, by this.
            .env("POSTRIDER_CLUSTER_SCRIPT", SCRIPT)
            .env("TMPDIR", &self.scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = keeper.stdout.take().context("no output of the cluster")?;
        let keeper = Keeper(keeper);
        let Some(url) = BufReader::new(output).lines().next().transpose()? else {
            bail!("PostgreSQL did not start; on Debian: apt-get install postgresql");
        };
        let config: tokio_postgres::Config = url.parse()?;
        let Some(tokio_postgres::config::Host::Unix(folder)) = config.get_hosts().first() else {
            bail!("the cluster's URL names no directory");
        };
        let data = folder.join("data");
        let file = fs::read_to_string(data.join("postmaster.pid")).context("the cluster's first process")?;
        let pid = file.lines().next().unwrap_or_default().parse().context("the cluster's first process")?;
        Ok((url, data, pid, keeper))
    }
}

/// A database, which goes with the run.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) url: String,
    name: String,
    /// Where its files are; `None` when they are on another machine or not ours to read.
    pub(crate) folder: Option<PathBuf>,
    postgres: Arc<Postgres>,
}

impl Database {
    /// The first process of its server, when that is ours.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.postgres.pid()
    }

    /// Waits until so many nodes share all of the work evenly.
    pub(crate) async fn shared(&self, nodes: usize) -> Result<()> {
        let client = connect(&self.url).await?;
        let (nodes, started) = (i64::try_from(nodes)?, Instant::now());
        let text = "SELECT count(*) = $1 AND sum(shards)::bigint = (SELECT count(*) FROM postrider.shard)
                AND max(shards) - min(shards) <= $1
             FROM (SELECT count(*) AS shards FROM postrider.shard WHERE owner IS NOT NULL GROUP BY owner) AS of_nodes";
        while started.elapsed() < SHARED {
            if client.query_one(text, &[&nodes]).await?.get::<_, Option<bool>>(0) == Some(true) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!("{nodes} nodes did not share the work within {SHARED:?}")
    }

    /// Holds a transaction open that sees the database as it is now, until the answer is dropped.
    pub(crate) async fn hold(&self) -> Result<Held> {
        let connected = connect(&self.url).await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM postrider.node";
        connected.batch_execute(begin).await?;
        Ok(Held(connected))
    }

    /// Removes it.
    pub(crate) async fn drop(&self) -> Result<()> {
        let Some(running) = self.postgres.running.get() else { return Ok(()) };
        let client = connect(&running.url).await?;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await?;
        Ok(())
    }
}

/// A transaction that is held open.
pub(crate) struct Held(Connected);

impl Held {
    /// Ends it; tells when it did not last.
    pub(crate) async fn end(self) -> Result<()> {
        self.0.batch_execute("COMMIT").await.context("the transaction that was held open was gone")
    }
}

/// A client with what moves its bytes.
struct Connected {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl std::ops::Deref for Connected {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn describe(url: &str) -> Result<String> {
    let client = connect(url).await.context("reaching PostgreSQL")?;
    let version: String = client.query_one("SELECT current_setting('server_version')", &[]).await?.get(0);
    let names: Vec<&str> = TOLD.split(", ").collect();
    let text = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1) ORDER BY name";
    let rows = client.query(text, &[&names]).await?;
    let setting = |row: &tokio_postgres::Row| format!("{} {}", row.get::<_, &str>(0), row.get::<_, &str>(1));
    let settings: Vec<String> = rows.iter().map(setting).collect();
    Ok(format!("PostgreSQL {version}: {}.", settings.join(", ")))
}

async fn connect(url: &str) -> Result<Connected> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    Ok(Connected { client, driver: tokio::spawn(connection) })
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (before, options) =
        url.split_once('?').map_or((url, None), |(before, options)| (before, Some(options)));
    let scheme = before.find("://").map_or(0, |at| at + 3);
    let end = before[scheme..].find('/').map_or(before.len(), |at| scheme + at);
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{}/{name}{options}", &before[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server_keeps_the_rest_of_the_url() {
        for (url, expected) in [
            ("postgres://postgres@%2Ftmp%2Fx:5/postgres", "postgres://postgres@%2Ftmp%2Fx:5/b"),
            ("postgres://u:p@host/db?sslmode=require", "postgres://u:p@host/b?sslmode=require"),
            ("postgres://u:p@host", "postgres://u:p@host/b"),
        ] {
            assert_eq!(with_database(url, "b"), expected);
        }
    }
}
