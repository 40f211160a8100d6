//! A throw-away cluster for tests: one per test process, started on first use and gone with the process however that
//! ends. `POSTRIDER_TEST_DATABASE_URL` names another one instead (its databases `postrider_test_…` come and go).

mod pgbouncer;

pub use pgbouncer::Pgbouncer;

use crate::{Config, OpenError, PostgresStore};
use postrider_vault::keyring::Keyring;
use std::{
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};
use tempfile::TempDir;

const SCRIPT: &str = include_str!("../cluster.sh");
const TEMPLATE: &str = "postrider_test_template";
/// Who owns the databases of a cluster of our own, and whom nodes connect as: not an administrator, who would see over
/// the wall between environments (`migrations/0005_row_level_security.sql`).
const OWNER: &str = "postrider_test_owner";

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    url: String,
    tcp_url: Option<String>,
    /// Its standard input is what keeps the cluster.
    keeper: Option<Child>,
}

impl Cluster {
    /// The one of this process.
    pub fn shared() -> io::Result<&'static Self> {
        static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
        CLUSTER
            .get_or_init(|| {
                Self::named().map_or_else(|| Self::start(&[]), Ok).map_err(|error| error.to_string())
            })
            .as_ref()
            .map_err(|error| io::Error::other(error.clone()))
    }

    fn named() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the server")]
        let url = std::env::var("POSTRIDER_TEST_DATABASE_URL").ok()?;
        Some(Self { url, tcp_url: None, keeper: None })
    }

    /// Starts one with settings of its own, `name=value`.
    pub fn start(settings: &[&str]) -> io::Result<Self> {
        let mut keeper = Command::new("sh")
            .args(["-c", SCRIPT, "cluster.sh"])
            .args(settings)
            // The script runs itself once more as another user, by this.
            .env("POSTRIDER_CLUSTER_SCRIPT", SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(keeper.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        let mut line = || lines.next().unwrap_or_else(|| Err(io::Error::other("the cluster did not start")));
        let (url, tcp_url) = (line()?, line()?);
        Ok(Self { url, tcp_url: Some(tcp_url), keeper: Some(keeper) })
    }

    /// Its administrator's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same over TCP with a password; `None` for a named cluster.
    pub fn tcp_url(&self) -> Option<&str> {
        self.tcp_url.as_deref()
    }

    /// Who owns the databases: in a cluster of our own, a role that owns nothing else.
    fn owner(&self) -> &'static str {
        if self.keeper.is_some() { OWNER } else { "DEFAULT" }
    }

    /// The owner's URL over TCP, with the administrator's password; `None` for a named cluster. The role comes with the
    /// first [`Place`].
    pub fn owner_tcp_url(&self) -> Option<String> {
        Some(self.tcp_url.as_ref()?.replacen("//postgres:", &format!("//{OWNER}:"), 1))
    }

    fn password(&self) -> &str {
        let user = self.tcp_url.as_deref().and_then(|url| url.split_once("//postgres:")?.1.split_once('@'));
        user.map_or("", |(password, _)| password)
    }

    fn owner_url(&self) -> String {
        let administrator = "//postgres@";
        if self.keeper.is_some() {
            self.url.replacen(administrator, &format!("//{OWNER}@"), 1)
        } else {
            self.url.clone()
        }
    }

    async fn run(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let done = client.batch_execute(text).await;
        drop(client);
        let _ = driver.await;
        done
    }
}

/// A database of its own with the schema, and a folder for a node's things. Goes when it is dropped.
pub struct Place {
    /// For keyring and data directory.
    pub folder: TempDir,
    name: String,
    url: String,
    /// For nodes: as the owner.
    node_url: String,
}

impl Place {
    /// A new one.
    pub async fn new() -> io::Result<Self> {
        static TEMPLATES: tokio::sync::OnceCell<Result<String, String>> = tokio::sync::OnceCell::const_new();
        let cluster = Cluster::shared()?;
        let template =
            TEMPLATES.get_or_init(|| async { template(cluster).await.map_err(|error| error.to_string()) });
        let template = template.await.as_ref().map_err(|error| io::Error::other(error.clone()))?;
        let folder = tempfile::tempdir()?;
        let keyring = folder.path().join("keyring.toml");
        Keyring::create(&keyring).map_err(|error| io::Error::other(error.0))?;
        let name = format!("postrider_test_{:016x}", rand::random::<u64>());
        let owner = cluster.owner();
        let create = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY OWNER {owner}");
        cluster.run(&create).await.map_err(io::Error::other)?;
        let url = with_database(cluster.url(), &name);
        let node_url = with_database(&cluster.owner_url(), &name);
        Ok(Self { folder, name, url, node_url })
    }

    /// The database's URL, as the cluster's administrator, for whom there is no wall between environments.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same as the database's owner, whom nodes connect as.
    pub fn node_url(&self) -> &str {
        &self.node_url
    }

    /// Through the pooler before a named cluster (`POSTRIDER_TEST_POOLER`, `user@host:port`), if there is one.
    fn url_of_nodes(&self) -> String {
        #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the server")]
        let pooler = std::env::var("POSTRIDER_TEST_POOLER");
        pooler.map_or_else(|_| self.node_url.clone(), |pooler| format!("postgres://{pooler}/{}", self.name))
    }

    /// Settings of a node; each needs a data directory of its own.
    pub fn config(&self, node: &str) -> Config {
        Config {
            url: Some(self.url_of_nodes().into()),
            data_dir: Some(self.folder.path().join(node)),
            // The cluster does not sync: tests of logic need no disk.
            dangerous_accept_data_loss: true,
            connections: 4,
            ..Config::default()
        }
    }

    /// The keyring.
    pub fn keyring(&self) -> Result<Keyring, OpenError> {
        load(&self.folder.path().join("keyring.toml"))
    }

    /// Opens a node.
    pub async fn open(&self, node: &str) -> Result<Arc<PostgresStore>, OpenError> {
        PostgresStore::open(self.config(node), self.keyring()?).await
    }

    /// A connection past the store.
    pub async fn client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("SET search_path = postrider").await?;
        Ok(client)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // The test's own runtime may be ending: this needs one of its own.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(Cluster::shared().ok()?.run(&drop_it)).ok()
        });
        let _ = thread.join();
    }
}

fn load(path: &Path) -> Result<Keyring, OpenError> {
    Keyring::load(path).map_err(|error| OpenError::Refused(error.0))
}

fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, query)| (base, query));
    let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
    if query.is_empty() { format!("{server}/{name}") } else { format!("{server}/{name}?{query}") }
}

/// Makes the database that others are copies of: with the schema, without anything in it.
async fn template(cluster: &Cluster) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    // Several test processes may share a named cluster.
    let name = format!("{TEMPLATE}_{}", std::process::id());
    cluster.run(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    if cluster.keeper.is_some() {
        let role = format!("CREATE ROLE {OWNER} LOGIN PASSWORD '{}'", cluster.password());
        cluster.run(&role).await?;
    }
    let owner = cluster.owner();
    cluster
        .run(&format!(
            "CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' OWNER {owner}"
        ))
        .await?;
    let folder = tempfile::tempdir()?;
    let keyring: PathBuf = folder.path().join("keyring.toml");
    Keyring::create(&keyring).map_err(|error| error.0)?;
    let config = Config {
        url: Some(with_database(&cluster.owner_url(), &name).into()),
        dangerous_accept_data_loss: true,
        ..Config::default()
    };
    crate::migrate_only(&config, &load(&keyring)?).await?;
    Ok(name)
}
